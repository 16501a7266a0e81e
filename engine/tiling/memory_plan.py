"""What an objective holds, from shapes alone: the buffers that it allocates, and the tiles into which it cuts images.

Arithmetic only; nothing is allocated. What a tile is stands in `geometry`, what a whole run takes in `plan`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from ...kernels.device import Array, Device, Layout, StylePlace
from ..costs.cost_vector import CostVector
from ..costs.statistics import registry
from ..costs.statistics.base import Statistic, StyleTarget, StyleTerm, TapShape, filled, layouts
from ..costs.statistics.base import nbytes as scratch_bytes
from ..costs.statistics.tuning import Tuning
from ..memory.arena import Buffer, lay_out
from ..memory.limits import available
from ..memory.spill import resident
from ..model import network
from ..model.network import Network
from . import geometry
from .buffers import (
    PersistentBuffers,
    TapBuffers,
    TileBuffers,
    content_name,
    errors_name,
    held_name,
    partial_name,
    sums_name,
    target_name,
    weights_name,
)
from .geometry import TapTile, Tile, Tiling
from .tiled_pass import TiledPass, WindowBytes

SHARE = 0.85
"""Of the memory that is free, how much a run makes use of."""
EXPECTED_ALLOCATIONS = (2, 2, 1, 1)
"""Images that may be allocated after an objective was, block by block: the run's own, Adam's, and two that pass."""


class TilingPlan(NamedTuple):
    """How an objective's images are cut into tiles."""

    image: Tiling
    styles: tuple[Tiling, ...]

    @property
    def tiled(self) -> bool:
        return any(tiling.count > 1 for tiling in (self.image, *self.styles))


@dataclass(frozen=True, eq=False)
class TiledPasses:
    """All passes of an objective; they take turns in one arena."""

    styles: tuple[TiledPass, ...]
    """Forward over each style."""
    content: TiledPass
    """Forward over the content."""
    stats_pass: TiledPass
    """Forward, for the statistics of the image."""
    gradient_pass: TiledPass
    """Forward and back."""

    @property
    def all(self) -> tuple[TiledPass, ...]:
        return *self.styles, self.content, self.stats_pass, self.gradient_pass

    def of_use(self, cut: TilingPlan, *, content: bool, style: bool) -> list[TiledPass]:
        """Those that are ever taken."""
        used = [self.gradient_pass, *(self.styles if style else ())]
        if content:
            used.append(self.content)
        if style and cut.image.count > 1:
            used.append(self.stats_pass)
        return used


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """What an objective holds, from shapes alone."""

    device: Device
    network: Network
    size: tuple[int, int]
    """(H, W)"""
    content_taps: tuple[str, ...]
    style_taps: tuple[str, ...]
    style_sizes: tuple[tuple[int, int], ...]
    """(h, w) of each style."""
    groups: tuple[int | None, ...] = (None,)
    """The regions in which styles are wanted, by number; None is everywhere."""
    trainable_mask: bool = False
    """Whether some of the content is kept."""
    statistics: str = "gram"
    """Of the styles; one or several of `costs.statistics.registry`."""
    tuning: Tuning = Tuning()  # noqa: RUF009  (frozen)
    """Of those."""
    devices: int = 1
    """That take tiles in turn, all alike."""
    comparisons: int = 1
    """Of styles with places, at each tap."""
    known: WindowBytes = field(default_factory=dict)
    """Shared by the plans of one network on one device; see `TiledPass`."""

    # ---- tiles --------------------------------------------------------------------------------------------------
    def whole(self) -> TilingPlan:
        """No tiles."""
        return TilingPlan(
            geometry.tiling(self.network, self.size, None),
            tuple(geometry.tiling(self._style_network, size, None) for size in self._walked),
        )

    def cut(self, setting: geometry.Setting, budget: int | None) -> TilingPlan:
        """The tiles that a setting asks for; "auto" takes those with the least work within `budget` bytes."""
        if setting == "off":
            return self.whole()
        if setting == "auto":
            return self.within(math.inf if budget is None else budget)
        side = int(setting), int(setting)
        image = geometry.tiling(self.network, self.size, side)
        geometry.refuse_absurd(self.network, self.size, image)
        return TilingPlan(
            image,
            tuple(geometry.tiling(self._style_network, size, side) for size in self._walked),
        )

    def within(self, budget: float) -> TilingPlan:
        """The tiles that take the least work within `budget` bytes, or need the least bytes if that is too few."""
        style_network = self._style_network

        # Where the largest window alone is too large, nothing more is worth knowing.
        def of_style(tiling: Tiling) -> int:
            walk = TiledPass(style_network, tiling, self.style_taps, known=self.known)
            least = walk.window_bytes(self.device, tiling.largest)
            return least if least > budget else walk.nbytes(self.device)

        # The arena of the styles is the image's as well, and not all there is.
        styles = tuple(geometry.choose(style_network, size, of_style, 0.9 * budget) for size in self._walked)

        def of_image(tiling: Tiling) -> int:
            cut = TilingPlan(tiling, styles)
            least = self.passes(cut).gradient_pass.window_bytes(self.device, tiling.largest)
            return least if least > budget else self.nbytes(cut)

        if self.whole_only is not None:
            return TilingPlan(self.whole().image, styles)
        return TilingPlan(geometry.choose(self.network, self.size, of_image, budget, self.devices), styles)

    def passes(self, cut: TilingPlan) -> TiledPasses:
        """The passes over images that are cut so, without their arena."""
        net, style_network = self.network, self._style_network
        every = {*self.content_taps, *self.style_taps}
        measured = network.down_to(net, self.content_taps) if self.content_taps else net
        return TiledPasses(
            tuple(TiledPass(style_network, style, self.style_taps, known=self.known) for style in cut.styles),
            TiledPass(measured, cut.image, self.content_taps, known=self.known),
            TiledPass(style_network, cut.image, self.style_taps, known=self.known),
            TiledPass(
                net, cut.image, every, backward=True, targets=self.content_taps, carried=self.carried(cut.image),
                known=self.known,
            ),
        )  # fmt: skip

    def carried(self, image: Tiling) -> dict[str, StylePlace]:
        """The taps where a style is all that enters, and its gradient is nothing but the features times a matrix that
        the convolution behind takes along."""
        one = len(self.chosen) == 1 and next(iter(self.chosen.values())).linear
        if not one or image.count > 1 or self.groups != (None,):
            return {}
        pieces = self.pieces(image.tiles)
        return {
            tap: place
            for tap, place in network.carriers(self.device, self.network).items()
            if tap in self.style_taps and tap not in self.content_taps and pieces[tap][0].whole
        }

    @property
    def _style_network(self) -> Network:
        return network.down_to(self.network, self.style_taps) if self.style_taps else self.network

    def pieces(self, cut_up: Sequence[Tile]) -> dict[str, list[TapTile]]:
        """What every tile has of every tap."""
        strides, real = network.strides(self.network), self.device.activation_dtype.itemsize
        found = {}
        for layer in self.network.layers:
            if layer.tap in self.content_taps or layer.tap in self.style_taps:
                per_column = layer.channels[1] * real
                found[layer.tap] = [geometry.piece(tile, strides[layer.tap], per_column) for tile in cut_up]
        return found

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of every tap."""
        return dict(zip(network.strides(self.network), network.sizes(self.network, self.size), strict=True))

    def mask_ids(self, tap: str) -> tuple[int | None, ...]:
        """The regions in which a tap is looked at; the content is everywhere."""
        everywhere: tuple[int | None, ...] = (None,) if tap in self.content_taps else ()
        return distinct((*everywhere, *(self.groups if tap in self.style_taps else ())))

    @property
    def channels(self) -> dict[str, int]:
        """Of every tap."""
        return {layer.tap: layer.channels[1] for layer in self.network.layers}

    # ---- what the styles' statistics ask for, with layouts in place of arrays -----------------------------------
    @cached_property
    def chosen(self) -> dict[str, Statistic[Any, Any, Any]]:
        """What of a layer is style, by name."""
        return registry.statistics(self.statistics, self.tuning)

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """Quarter turns in which some statistic looks at the styles."""
        return tuple(sorted({turn for statistic in self.chosen.values() for turn in statistic.turns}))

    @property
    def _walked(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of the pictures that styles are walked through in: their own, and behind them on their sides."""
        on_their_sides = tuple((width, height) for height, width in self.style_sizes)
        return self.style_sizes + (on_their_sides if any(turn % 2 for turn in self.turns) else ())

    def walk(self, style: int, turn: int) -> int:
        """Of `TilingPlan.styles`, and the passes of those, the one for a style that is turned."""
        return style + turn % 2 * len(self.style_sizes)

    @property
    def whole_only(self) -> str | None:
        """The name of a statistic that takes no tiles of an image; None where all do."""
        return next((name for name, statistic in self.chosen.items() if not statistic.in_tiles), None)

    def _shape(self, tap: str) -> TapShape:
        return TapShape(*self.sizes[tap], self.channels[tap])

    def style_shape(self, tap: str, style: int, turn: int = 0) -> TapShape:
        """Of the activations of a style, so many quarter turns round."""
        sizes = network.sizes(self.network, self._walked[self.walk(style, turn)])
        height, width = dict(zip(network.strides(self.network), sizes, strict=True))[tap]
        return TapShape(height, width, self.channels[tap])

    def asked_target(self, name: str, tap: str, style: int) -> Any:
        """What a statistic keeps of a style at a tap."""
        return self.chosen[name].target(self.device, self.style_shape(tap, style))

    def _sums(self, name: str, tap: str) -> Any:
        return self.chosen[name].sums(self.device, self.channels[tap])

    def _errors(self, name: str, tap: str) -> Any:
        return self.chosen[name].errors(self.device, self._shape(tap))

    def _held(self, name: str, tap: str) -> Any:
        return self.chosen[name].held(self.device, self._shape(tap))

    def scratch(self, name: str, tap: str, pieces: Sequence[TapTile]) -> Any:
        """What a statistic works in during a call, at a tap that is cut so."""
        styles = [self.style_shape(tap, style) for style in range(len(self.style_sizes))]
        shapes = [TapShape(*shape, self.channels[tap]) for shape in sorted({part.shape for part in pieces})]
        return self.chosen[name].scratch(self.device, self._shape(tap), shapes, styles)

    @property
    def _at_taps(self) -> list[tuple[str, str]]:
        """Every statistic at every style tap."""
        return [(name, tap) for name in self.chosen for tap in self.style_taps]

    # ---- bytes --------------------------------------------------------------------------------------------------
    def persistent(self) -> list[Buffer]:
        """What lives as long as the objective, and does not depend on tiles."""
        device, pixels, channels, at = self.device, self.device.image_dtype, self.channels, self.sizes
        wanted: dict[str, Layout] = {
            "image": ((*self.size, 3), pixels),
            "gradient": ((*self.size, 3), pixels),
        }
        if self.trainable_mask:
            wanted["trainable_mask"] = (self.size, pixels)
            wanted["kept"] = ((*self.size, 3), pixels)
        for name, tap in self._at_taps:
            for number in range(len(self.style_sizes)):
                wanted |= layouts(self.asked_target(name, tap, number), partial(target_name, name, tap, number))
            for group in self.groups:
                wanted |= layouts(self._sums(name, tap), partial(sums_name, name, tap, group))
                wanted |= layouts(self._errors(name, tap), partial(errors_name, name, tap, group))
            for comparison in range(self.comparisons):
                wanted |= layouts(self._held(name, tap), partial(held_name, name, tap, comparison))
        if any(statistic.random for statistic in self.chosen.values()):
            wanted["counter"] = ((1,), np.dtype(np.int32))
        for tap in self.content_taps:
            wanted[content_name(tap)] = ((*at[tap], channels[tap]), device.activation_dtype)
        return [Buffer(name, *kind, 0, 0) for name, kind in wanted.items()]

    def persistent_buffers(self, named: Mapping[str, Array]) -> PersistentBuffers:
        """Sorts the buffers that `persistent` names."""
        numbers = range(len(self.style_sizes))
        styles = {
            (name, tap, number): filled(
                self.asked_target(name, tap, number), named, partial(target_name, name, tap, number)
            )
            for name, tap in self._at_taps
            for number in numbers
        }
        taps = {
            (name, tap, group): TapBuffers(
                filled(self._sums(name, tap), named, partial(sums_name, name, tap, group)),
                self.errors_buffers(named, name, tap, group),
            )
            for name, tap in self._at_taps
            for group in self.groups
        }
        held = {
            (name, tap, number): filled(self._held(name, tap), named, partial(held_name, name, tap, number))
            for name, tap in self._at_taps
            for number in range(self.comparisons)
        }
        return PersistentBuffers(
            named["image"],
            named["gradient"],
            named.get("trainable_mask"),
            named.get("kept"),
            {tap: named[content_name(tap)] for tap in self.content_taps},
            styles,
            taps,
            held,
            named.get("counter"),
        )

    def errors_buffers(self, named: Mapping[str, Array], name: str, tap: str, group: int | None) -> Any:
        """A statistic's errors at a tap in one region, among the buffers that `persistent` or `replicated` names."""
        return filled(self._errors(name, tap), named, partial(errors_name, name, tap, group))

    def copied(self, named: Mapping[str, Array], term: StyleTerm[Any, Any, Any]) -> tuple[StyleTarget[Any], ...]:
        """The targets of a term of the first device, among the buffers that `replicated` names."""
        if not term.statistic.every:
            return ()
        name, tap = term.name, term.tap
        return tuple(
            replace(
                style,
                target=filled(
                    self.asked_target(name, tap, style.style), named, partial(target_name, name, tap, style.style)
                ),
                held=filled(self._held(name, tap), named, partial(held_name, name, tap, style.comparison)),
                cost=None,
            )
            for style in term.targets
        )

    def cost_vector(self, cut: TilingPlan) -> CostVector:
        """Where every cost stands."""
        return CostVector(self.content_taps, self.style_taps, cut.image.count, self.comparisons, tuple(self.chosen))

    def per_tile(self, cut: TilingPlan) -> list[Buffer]:
        """What depends on the tiles, beside the arena: costs, weights of pieces, and room for a tile's statistics."""
        pixels = self.device.image_dtype
        wanted: dict[str, Layout] = {"costs": ((len(self.cost_vector(cut)),), pixels)}
        masked = any(group is not None for group in self.groups)
        pieces = self.pieces(cut.image.tiles if masked else cut.image.kinds)
        for tap, parts in pieces.items():
            for number, part in enumerate(parts):
                for mask_id in self.mask_ids(tap):
                    if name := weights_name(tap, mask_id, number, part):
                        wanted[name] = part.shape, pixels
        if self._in_parts(cut):
            for name, tap in self._at_taps:
                wanted |= layouts(self._sums(name, tap), partial(partial_name, name, tap))
        scratch = max((scratch_bytes(self.scratch(name, tap, pieces[tap])) for name, tap in self._at_taps), default=0)
        if scratch:
            wanted["scratch"] = ((scratch,), np.dtype(np.uint8))
        return [Buffer(name, *layout, 0, 0) for name, layout in wanted.items()]

    def _in_parts(self, cut: TilingPlan) -> bool:
        """Whether anything is averaged over several tiles or pictures."""
        return cut.tiled or len(self.turns) > 1

    def tile_buffers(self, named: Mapping[str, Array], cut: TilingPlan) -> TileBuffers:
        """Sorts the buffers that `per_tile` names."""
        partials = {
            (name, tap): filled(self._sums(name, tap), named, partial(partial_name, name, tap))
            for name, tap in (self._at_taps if self._in_parts(cut) else ())
        }
        return TileBuffers(named, partials, named.get("scratch"))

    def replicated(self, cut: TilingPlan, numbers: Sequence[int]) -> list[Buffer]:
        """What a device beside the first holds for tiles with these numbers: errors, the content there, and what is
        held fixed with the styles for it."""
        held, parts = {buffer.name: buffer for buffer in self.persistent()}, self.pieces(cut.image.tiles)
        names = [
            buffer
            for name, tap in self._at_taps
            for group in self.groups
            for buffer in layouts(self._errors(name, tap), partial(errors_name, name, tap, group))
        ]
        for name, tap in self._at_taps:
            if self.chosen[name].every:
                for number in range(len(self.style_sizes)):
                    names += layouts(self.asked_target(name, tap, number), partial(target_name, name, tap, number))
                for comparison in range(self.comparisons):
                    names += layouts(self._held(name, tap), partial(held_name, name, tap, comparison))
        wanted = [held[name] for name in names]
        for tap in self.content_taps:
            whole = held[content_name(tap)]
            for number in numbers:
                shape = *parts[tap][number].shape, whole.shape[2]
                wanted.append(replace(whole, name=content_name(tap, number), shape=shape))
        return wanted

    def arena(self, cut: TilingPlan) -> int:
        """Bytes of the arena."""
        used = self.passes(cut).of_use(cut, content=bool(self.content_taps), style=bool(self.style_taps))
        return max(walk.nbytes(self.device) for walk in used)

    def nbytes(self, cut: TilingPlan) -> int:
        """All that depends on tiles."""
        return lay_out(self.per_tile(cut))[1] + self.arena(cut)


def memory_budget(plan: MemoryPlan, others: Sequence[Device] = ()) -> int | None:
    """Bytes that may go into tiles on each device, of what is free now where least is; None where nobody says how much.

    Devices that take their memory from the host have an equal share of it. The others hold less than the first beside
    their tiles, and are taken to hold as much.
    """
    on_each = [available(device) for device in (plan.device, *others)]
    known = [free for free in on_each if free is not None]
    if len(known) < len(on_each):
        return None
    free = min(known) if plan.device.free_bytes() is not None else min(known) // len(known)
    image = next(buffer.nbytes for buffer in plan.persistent() if buffer.name == "image")
    blocks = [lay_out(plan.persistent())[1], *(images * image for images in EXPECTED_ALLOCATIONS)]
    return int(SHARE * free) - resident(plan.device, blocks, free)


def distinct(groups: Sequence[int | None]) -> tuple[int | None, ...]:
    """Each once, everywhere first."""
    return tuple(sorted(set(groups), key=lambda group: -1 if group is None else group))
