"""What a style statistic is: one way to say how far a layer's activations are from a style's. `registry` lists them.

A statistic has no state. It says, from shapes alone, which buffers it wants; the objective allocates them and hands
them back. A group of buffers is a frozen dataclass of the statistic's own, with a field a buffer: the statistic
returns it with a `Layout` in every such field, and gets it back with an array in each. Fields that are None or numbers
are left as they are. Any type of array will do, since they are the statistic's alone.

Three groups are known by what becomes of them:

    target   of one style at one tap; lives as long as the objective
    sums     averages over the pixels of the image at one tap in one region. Averages of tiles are blended, and come
             from other devices; so whatever the whole image must tell before a gradient is known belongs here
    errors   what `compare` leaves for `add_gradient`, at one tap in one region; copied to other devices before they
             work back through their tiles

An evaluation goes: `measure` for every tile, `compare` once, `add_gradient` for every tile, from the last to the first.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar

from ....kernels.device import Array, Device, Layout
from ...tiling.geometry import TapTile

T = TypeVar("T")
"""A statistic's group of target buffers."""
S = TypeVar("S")
"""Its sums."""
E = TypeVar("E")
"""Its errors."""
Group = TypeVar("Group")


class TapShape(NamedTuple):
    """Of a tap's activations."""

    height: int
    width: int
    channels: int


class SeenTile(NamedTuple):
    """A tile's activations at a tap, as a statistic sees them."""

    features: Array
    """(h, w, C), of activation_dtype"""
    weights: Array | None
    """(h, w): of the pixels; their mean is one over all tiles together. Zero in a tile's halo. None: one everywhere."""
    share: float
    """Of all pixels seen so far, those of this tile; 1 is the first."""
    number: int
    """The tile's."""
    part: TapTile
    """Where in the tap it lies, and which of its pixels it owns."""


@dataclass(frozen=True, eq=False)
class StyleTarget(Generic[T]):
    """One style at one tap, as a term compares with it."""

    share: float
    """Of J_style."""
    target: T
    cost: Array
    """(1,): where the unweighted cost belongs."""


@dataclass(frozen=True, eq=False)
class StyleTerm(Generic[T, S, E]):
    """beta lambda_l sum_k share_k J^[l](S_k) over the styles k that are wanted in one region."""

    tap: str
    mask_id: int | None
    """The region's number; None is everywhere."""
    statistic: "Statistic[T, S, E]"
    weight: float
    """beta * lambda_l"""
    targets: tuple[StyleTarget[T], ...]
    """None on a device that does not compare."""
    sums: S
    partial: S | None
    """The sums of one tile, to work in; None where there is one tile."""
    errors: E
    channels: int
    pixels: int
    """That are taken in, over all tiles; nH nW where there is one."""
    scratch: Array | None
    """As `Statistic.scratch` asks; shared by all terms."""


class Statistic(ABC, Generic[T, S, E]):
    """One way to compare activations with a style's."""

    # ---- memory, from shapes alone ------------------------------------------------------------------------------
    @abstractmethod
    def target(self, device: Device, shape: TapShape) -> T:
        """What is kept of one style, whose activations have this shape."""

    @abstractmethod
    def sums(self, device: Device, channels: int) -> S:
        """What is averaged over the image; also for one tile of it, and for one tile of a style."""

    @abstractmethod
    def errors(self, device: Device, shape: TapShape) -> E:
        """What `add_gradient` needs to know, for activations of the image of this shape."""

    def scratch(self, channels: int) -> tuple[int, ...]:
        """The shape of memory of image_dtype to work in; () for none. One piece serves all taps, in turn."""
        del channels
        return ()

    # ---- the style, once ----------------------------------------------------------------------------------------
    @abstractmethod
    def gather_target(self, device: Device, seen: SeenTile, target: T, partial: S | None) -> None:
        """Takes in a tile of the style; `partial` is to work in, and None where there is but one."""

    @abstractmethod
    def finish_target(self, device: Device, target: T, scratch: Array | None) -> tuple[float, T]:
        """Once all tiles are in: J^[l](S) of an image without features, by which layers are balanced, and the target.

        Numbers may be set in the target; its arrays stay where they are.
        """

    # ---- the image, at every evaluation -------------------------------------------------------------------------
    @abstractmethod
    def measure(self, device: Device, features: Array, weights: Array | None, out: S) -> None:
        """out := the averages over the pixels of these activations alone."""

    def gather(self, device: Device, seen: SeenTile, sums: S, partial: S | None) -> None:
        """Takes in a tile of the image, after those before it."""
        if seen.share == 1:
            self.measure(device, seen.features, seen.weights, sums)
            return
        assert partial is not None, "several tiles need somewhere to be measured"
        self.measure(device, seen.features, seen.weights, partial)
        wholes = arrays(sums)
        for name, part in arrays(partial).items():
            device.blend(part, seen.share, wholes[name])

    @abstractmethod
    def compare(self, device: Device, term: StyleTerm[T, S, E]) -> None:
        """Once the sums are complete: writes the unweighted cost of every target to its slot, and the errors."""

    @abstractmethod
    def add_gradient(
        self, device: Device, term: StyleTerm[T, S, E], seen: SeenTile, out: Array, accumulate: bool
    ) -> None:
        """out (h, w, C) := the weighted gradient of J with respect to a tile's features [+ out]."""


# ---- groups of buffers ----------------------------------------------------------------------------------------------
def layouts(group: Any, name_of: Callable[[str], str] = str) -> dict[str, Layout]:
    """The buffers that a group asks for, by name; `name_of` a field."""
    found = {field.name: getattr(group, field.name) for field in fields(group)}
    return {name_of(field): value for field, value in found.items() if isinstance(value, tuple)}


def filled(group: Group, named: Mapping[str, Array], name_of: Callable[[str], str]) -> Group:
    """The group with arrays where it asked for them, from among those that are `named` so."""
    return replace(group, **{field: named[name_of(field)] for field in layouts(group)})  # type: ignore[type-var]


def arrays(group: Any) -> dict[str, Array]:
    """The arrays of a group that is filled, by field."""
    found = {field.name: getattr(group, field.name) for field in fields(group)}
    return {name: value for name, value in found.items() if value is not None and not isinstance(value, int | float)}


def scratch_of(statistic: Statistic[Any, Any, Any], channels: int, memory: Array | None) -> Array | None:
    """What a statistic works in at a tap, in memory for the widest of them."""
    shape = statistic.scratch(channels)
    return memory[: math.prod(shape)].reshape(shape) if shape and memory is not None else None
