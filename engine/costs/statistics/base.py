"""What a style statistic is: one way to say how far a layer's activations are from a style's. `registry` lists them.

A statistic has no state. It says, from shapes alone, which buffers it wants; the objective allocates them and hands
them back. A group of buffers is a frozen dataclass of the statistic's own, with a field a buffer: the statistic
returns it with a `Layout` in every such field, and gets it back with an array in each. Fields that are None, numbers or
arrays of the host are left as they are. Any type of array will do, since they are the statistic's alone.

Groups are known by what becomes of them; one that a statistic has no use for is `Nothing`:

    target   of one style at one tap; lives as long as the objective
    sums     averages over the pixels of the image at one tap in one region. Averages of tiles are blended, and come
             from other devices; so whatever the whole image must tell before a gradient is known belongs here
    errors   what `compare` leaves for `add_gradient`, at one tap in one region; copied to other devices before they
             work back through their tiles
    held     what is measured of the image every so many iterations and held fixed in between, for one style at one
             tap in one region; part of a run's state
    scratch  to work in during one call

An evaluation goes: `see` for every tile, `compare` once, `add_gradient` for every tile, from the last to the first.
Where something is held, `look` for every tile comes before, at those iterations at which it is due.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray

from ....kernels.device import Array, Device, Layout
from ...memory.arena import Buffer, cut, lay_out
from ...tiling.geometry import TapTile
from ...types import Mask

if TYPE_CHECKING:
    from .tuning import Tuning

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


@dataclass(frozen=True)
class Nothing:
    """A group without buffers."""


@dataclass(frozen=True, eq=False)
class StyleTarget(Generic[T]):
    """One style at one tap, as a term compares with it."""

    share: float
    """Of J_style."""
    target: T
    cost: Array
    """(1,): where the unweighted cost belongs."""
    held: Any
    """As `Statistic.held` asks."""
    style: int
    """The style's number."""
    comparison: int
    """The number of this comparison, at every tap."""


@dataclass(frozen=True, eq=False)
class StyleTerm(Generic[T, S, E]):
    """beta lambda_l sum_k share_k J^[l](S_k) over the styles k that are wanted in one region."""

    name: str
    """The statistic's."""
    tap: str
    mask_id: int | None
    """The region's number; None is everywhere."""
    statistic: "Statistic[T, S, E]"
    weight: float
    """beta * lambda_l, times the statistic's own factor where there are several."""
    targets: tuple[StyleTarget[T], ...]
    """Copies on a device beside the first, and none where nothing is held fixed."""
    sums: S
    partial: S | None
    """The sums of one tile, to work in; None where there is one tile."""
    errors: E
    channels: int
    pixels: int
    """That are taken in, over all tiles; nH nW where there is one."""
    scratch: Any
    """As `Statistic.scratch` asks; the memory is shared by all terms. None where it asks for nothing."""
    seed: int = 0
    """Of random numbers, below 2^64; another at every tap."""
    counter: Array | None = None
    """(1,) int32, for a statistic that is `random`: other numbers are drawn where it is another."""


class Statistic(ABC, Generic[T, S, E]):
    """One way to compare activations with a style's."""

    strength = 1.0
    """What an image without features counts for in the balance, in parts of what it does by the Gram matrix."""
    turns: tuple[int, ...] = (0,)
    """Quarter turns of a style's picture, in which it is looked at: one after the other, as if they were several."""
    every: int = 0
    """Iterations after which what is held is measured anew; 0: nothing is."""
    looks = 0
    """How often all tiles are looked at for that, one after the other."""
    random = False
    """Whether it draws random numbers, others at every iteration."""
    linear = False
    """Whether the gradient of a whole image is its features times a symmetric matrix, that of `matrix`, where no pixel
    weighs more than another."""
    in_tiles = True
    """Whether an image may be cut up."""
    on_devices = True
    """Whether several devices may share it."""

    def tuned(self, tuning: "Tuning") -> "Statistic[T, S, E]":
        """This one with what is set of it."""
        del tuning
        return self

    # ---- memory, from shapes alone ------------------------------------------------------------------------------
    @abstractmethod
    def target(self, device: Device, shape: TapShape) -> T:
        """What is kept of one style, whose activations have this shape."""

    @abstractmethod
    def sums(self, device: Device, channels: int) -> S:
        """What is averaged over the image."""

    @abstractmethod
    def errors(self, device: Device, shape: TapShape) -> E:
        """What `add_gradient` needs to know, for activations of the image of this shape."""

    def held(self, device: Device, shape: TapShape) -> Any:
        """What is measured every so many iterations, for activations of the image of this shape and one style."""
        del device, shape
        return Nothing()

    def scratch(self, device: Device, shape: TapShape, pieces: Sequence[TapShape], styles: Sequence[TapShape]) -> Any:
        """What one call works in, at a tap of this shape, whose tiles are `pieces` of it, and with styles of these."""
        del device, shape, pieces, styles
        return Nothing()

    # ---- the style, once ----------------------------------------------------------------------------------------
    def begin_target(self, device: Device, target: T, shape: TapShape, mask: Mask | None) -> T:
        """Before the style's tiles, and those of each of its turns; `mask` (h, w) weighs its pixels, with a mean of
        one. Numbers may be set, or arrays of the host."""
        del device, shape, mask
        return target

    @abstractmethod
    def gather_target(self, device: Device, seen: SeenTile, target: T, partial: S | None) -> None:
        """Takes in a tile of the style; `partial` is to work in, and None where there is but one."""

    @abstractmethod
    def finish_target(self, device: Device, target: T, scratch: Any) -> tuple[float, T]:
        """Once all tiles are in: J^[l](S) of an image without features, by which layers are balanced, and the target.

        Numbers may be set in the target; its arrays stay where they are.
        """

    # ---- the image, every so many iterations --------------------------------------------------------------------
    def look(self, device: Device, term: StyleTerm[T, S, E], seen: SeenTile, number: int) -> None:
        """Takes in a tile for what is held, at the look of this number."""

    def look_alone(
        self, device: Device, term: StyleTerm[T, S, E], seen: SeenTile, number: int
    ) -> dict[str, NDArray[Any]]:
        """What a tile has for `look`, in host memory, where several devices share the image."""
        raise NotImplementedError(f"{term.name} holds nothing")

    def fold_look(
        self, device: Device, term: StyleTerm[T, S, E], seen: SeenTile, number: int, found: Mapping[str, NDArray[Any]]
    ) -> None:
        """Takes in what `look_alone` found in a tile, after those before it; its features may be elsewhere."""
        raise NotImplementedError(f"{term.name} holds nothing")

    def accepts(self, target: T, held: Mapping[str, NDArray[Any]]) -> bool:
        """Whether these values, of the right shapes, may have been held, by field."""
        del target, held
        return True

    # ---- the image, at every evaluation -------------------------------------------------------------------------
    @abstractmethod
    def measure(self, device: Device, features: Array, weights: Array | None, out: S) -> None:
        """out := the averages over the pixels of these activations alone."""

    def see(self, device: Device, term: StyleTerm[T, S, E], seen: SeenTile) -> None:
        """Takes in a tile of the image, after those before it."""
        self.gather(device, seen, term.sums, term.partial)

    def see_alone(self, device: Device, term: StyleTerm[T, S, E], seen: SeenTile) -> dict[str, NDArray[Any]]:
        """What a tile has for `see`, in host memory, where several devices share the image."""
        assert term.partial is not None, "several tiles need somewhere to be measured"
        self.measure(device, seen.features, seen.weights, term.partial)
        return {name: device.download(array) for name, array in arrays(term.partial).items()}

    def fold(self, device: Device, term: StyleTerm[T, S, E], share: float, found: Mapping[str, NDArray[Any]]) -> None:
        """Takes in what `see_alone` found in a tile with this share, after those before it."""
        partials = arrays(term.partial)
        for name, whole in arrays(term.sums).items():
            if share == 1:
                device.upload(found[name], whole)
            else:
                device.upload(found[name], partials[name])
                device.blend(partials[name], share, whole)

    def gather(self, device: Device, seen: SeenTile, sums: S, partial: S | None) -> None:
        """Blends a tile's own averages into `sums`."""
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

    def matrix(self, term: StyleTerm[T, S, E]) -> Array:
        """(C, C), of image_dtype, as `compare` has left it: for those that are `linear`."""
        raise NotImplementedError(f"{term.name} is not linear")

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


def nbytes(group: Any) -> int:
    """Of memory that is `cut_up` for it."""
    return lay_out(_buffers(group))[1]


def cut_up(group: Group, memory: Array | None) -> Group | None:
    """The group with arrays in memory (uint8) that may be longer; None for one that asks for nothing."""
    if not layouts(group) or memory is None:
        return None
    return filled(group, cut(memory, _buffers(group)), str)


def _buffers(group: Any) -> list[Buffer]:
    return [Buffer(name, *layout, 0, 0) for name, layout in layouts(group).items()]
