"""What an objective holds, from shapes alone: the buffers that it allocates, and the tiles into which it cuts images.

Arithmetic only; nothing is allocated. What a tile is stands in `tiles`, what a whole run takes in `plan`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ...kernels.device import W2_SCRATCH, Device
from ..costs.terms import Statistics
from ..memory.arena import Buffer, lay_out
from ..memory.limits import available
from ..memory.spill import resident
from ..model import network
from ..model.network import Network
from . import geometry as tiles
from .geometry import Piece, Tile, Tiling
from .tile_pass import Walk, WindowBytes

SHARE = 0.85
"""Of the memory that is free, how much a run makes use of."""
LATER = (2, 2, 1, 1)
"""Images that may be allocated after an objective was, block by block: the run's own, Adam's, and two that pass."""


class Cut(NamedTuple):
    """How an objective's images are cut into tiles."""

    image: Tiling
    styles: tuple[Tiling, ...]

    @property
    def tiled(self) -> bool:
        return any(tiling.count > 1 for tiling in (self.image, *self.styles))


@dataclass(frozen=True, eq=False)
class Walks:
    """All walks of an objective; they take turns in one arena."""

    styles: tuple[Walk, ...]
    """Forward over each style."""
    content: Walk
    """Forward over the content."""
    glance: Walk
    """Forward, for the statistics of the image."""
    full: Walk
    """Forward and back."""

    def of_use(self, cut: Cut, *, content: bool, style: bool) -> list[Walk]:
        """Those that are ever taken."""
        used = [self.full, *(self.styles if style else ())]
        if content:
            used.append(self.content)
        if style and cut.image.count > 1:
            used.append(self.glance)
        return used


@dataclass(frozen=True, eq=False)
class Footprint:
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
    free: bool = False
    """Whether some of the content is kept."""
    statistics: Statistics = "gram"
    devices: int = 1
    """That take tiles in turn, all alike."""
    comparisons: int = 1
    """Of styles with places, at each tap."""
    known: WindowBytes = field(default_factory=dict)
    """Shared by the footprints of one network on one device; see `Walk`."""

    # ---- tiles --------------------------------------------------------------------------------------------------
    def whole(self) -> Cut:
        """No tiles."""
        return Cut(
            tiles.tiling(self.network, self.size, None),
            tuple(tiles.tiling(self._glanced, size, None) for size in self.style_sizes),
        )

    def cut(self, setting: tiles.Setting, room: int | None) -> Cut:
        """The tiles that a setting asks for; "auto" takes those with the least work that need at most `room` bytes."""
        if setting == "off":
            return self.whole()
        if setting == "auto":
            return self.within(math.inf if room is None else room)
        side = int(setting), int(setting)
        return Cut(
            tiles.tiling(self.network, self.size, side),
            tuple(tiles.tiling(self._glanced, size, side) for size in self.style_sizes),
        )

    def within(self, room: float) -> Cut:
        """The tiles that take the least work with at most `room` bytes, or need the least bytes if that is too few."""
        glanced = self._glanced

        # Where the largest window alone is too large, nothing more is worth knowing.
        def of_style(tiling: Tiling) -> int:
            walk = Walk(glanced, tiling, self.style_taps, known=self.known)
            least = walk.window_bytes(self.device, tiling.largest)
            return least if least > room else walk.nbytes(self.device)

        # The arena of the styles is the image's as well, and not all there is.
        styles = tuple(tiles.choose(glanced, size, of_style, 0.9 * room) for size in self.style_sizes)

        def of_image(tiling: Tiling) -> int:
            cut = Cut(tiling, styles)
            least = self.walks(cut).full.window_bytes(self.device, tiling.largest)
            return least if least > room else self.nbytes(cut)

        return Cut(tiles.choose(self.network, self.size, of_image, room, self.devices), styles)

    def walks(self, cut: Cut) -> Walks:
        """The walks over images that are cut so, without their arena."""
        net, glanced = self.network, self._glanced
        every = {*self.content_taps, *self.style_taps}
        measured = network.down_to(net, self.content_taps) if self.content_taps else net
        return Walks(
            tuple(Walk(glanced, style, self.style_taps, known=self.known) for style in cut.styles),
            Walk(measured, cut.image, self.content_taps, known=self.known),
            Walk(glanced, cut.image, self.style_taps, known=self.known),
            Walk(net, cut.image, every, backward=True, targets=self.content_taps, known=self.known),
        )

    @property
    def _glanced(self) -> Network:
        return network.down_to(self.network, self.style_taps) if self.style_taps else self.network

    def pieces(self, cut_up: Sequence[Tile]) -> dict[str, list[Piece]]:
        """What every tile has of every tap."""
        strides, real = network.strides(self.network), self.device.activation_dtype.itemsize
        found = {}
        for layer in self.network.layers:
            if layer.tap in self.content_taps or layer.tap in self.style_taps:
                per_column = layer.channels[1] * real
                found[layer.tap] = [tiles.piece(tile, strides[layer.tap], per_column) for tile in cut_up]
        return found

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of every tap."""
        return dict(zip(network.strides(self.network), network.sizes(self.network, self.size), strict=True))

    def places(self, tap: str) -> tuple[int | None, ...]:
        """The regions in which a tap is looked at; the content is everywhere."""
        everywhere: tuple[int | None, ...] = (None,) if tap in self.content_taps else ()
        return distinct((*everywhere, *(self.groups if tap in self.style_taps else ())))

    # ---- bytes --------------------------------------------------------------------------------------------------
    def held(self) -> list[Buffer]:
        """What lives as long as the objective, and does not depend on tiles."""
        device, pixels, moments = self.device, self.device.image_dtype, self.statistics != "gram"
        channels = {layer.tap: layer.channels[1] for layer in self.network.layers}
        at = self.sizes
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "image": ((*self.size, 3), pixels),
            "gradient": ((*self.size, 3), pixels),
        }
        if self.free:
            wanted["free"] = (self.size, pixels)
            wanted["kept"] = ((*self.size, 3), pixels)
        for tap in self.style_taps:
            square, row = ((channels[tap], channels[tap]), pixels), ((channels[tap],), pixels)
            for name in (*(f"target {number}" for number in range(len(self.style_sizes))), *self._by_group()):
                wanted[f"{tap} {name}"] = square
                if moments:
                    wanted[f"{tap} {name} mean"] = row
        if self.statistics == "w2" and self.style_taps:
            widest = max(channels[tap] for tap in self.style_taps)
            wanted["scratch"] = ((W2_SCRATCH * widest * widest,), pixels)
        for tap in self.content_taps:
            wanted[f"{tap} content"] = ((*at[tap], channels[tap]), device.activation_dtype)
        return [Buffer(name, *kind, 0, 0) for name, kind in wanted.items()]

    def _by_group(self) -> list[str]:
        return [f"{what} {group}" for group in self.groups for what in ("image", "difference")]

    def tiled(self, cut: Cut) -> list[Buffer]:
        """What depends on the tiles, beside the arena: costs, weights of pieces, and room for a tile's statistics."""
        pixels = self.device.image_dtype
        slots = len(self.content_taps) * cut.image.count + len(self.style_taps) * self.comparisons + 2
        wanted: dict[str, tuple[int, ...]] = {"costs": (slots,)}
        masked = any(group is not None for group in self.groups)
        for tap, parts in self.pieces(cut.image.tiles if masked else cut.image.kinds).items():
            for number, part in enumerate(parts):
                for place in self.places(tap):
                    if name := weights_name(tap, place, number, part):
                        wanted[name] = part.shape
        if cut.tiled and self.style_taps:
            for layer in self.network.layers:
                if layer.tap in self.style_taps:
                    wanted[f"{layer.tap} partial"] = (layer.channels[1], layer.channels[1])
                    wanted[f"{layer.tap} partial mean"] = (layer.channels[1],)
        return [Buffer(name, shape, pixels, 0, 0) for name, shape in wanted.items()]

    def lent(self, cut: Cut, numbers: Sequence[int]) -> list[Buffer]:
        """What a device beside the first holds for tiles with these numbers: differences, and the content there."""
        held, parts = {buffer.name: buffer for buffer in self.held()}, self.pieces(cut.image.tiles)
        names = [f"{tap} difference {group}" for tap in self.style_taps for group in self.groups]
        wanted = [held[name] for name in (*names, *(f"{name} mean" for name in names)) if name in held]
        for tap in self.content_taps:
            whole = held[f"{tap} content"]
            for number in numbers:
                shape = *parts[tap][number].shape, whole.shape[2]
                wanted.append(replace(whole, name=f"{tap} content {number}", shape=shape))
        return wanted

    def arena(self, cut: Cut) -> int:
        """Bytes of the arena."""
        used = self.walks(cut).of_use(cut, content=bool(self.content_taps), style=bool(self.style_taps))
        return max(walk.nbytes(self.device) for walk in used)

    def nbytes(self, cut: Cut) -> int:
        """All that depends on tiles."""
        return lay_out(self.tiled(cut))[1] + self.arena(cut)


def weights_name(tap: str, place: int | None, number: int, part: Piece) -> str | None:
    """Under which name the weights of a tile's piece are held; None where there is nothing to weigh.

    Where there is no mask, pieces that are alike share theirs.
    """
    if place is not None:
        return f"{tap} mask {place} of tile {number}"
    if part.whole:
        return None
    return f"{tap} weights {part.shape} {part.own}"


def room(footprint: Footprint, others: Sequence[Device] = ()) -> int | None:
    """Bytes that may go into tiles on each device, of what is free now where least is; None where nobody says how much.

    Devices that take their memory from the host have an equal share of it. The others hold less than the first beside
    their tiles, and are taken to hold as much.
    """
    on_each = [available(device) for device in (footprint.device, *others)]
    known = [free for free in on_each if free is not None]
    if len(known) < len(on_each):
        return None
    free = min(known) if footprint.device.free_bytes() is not None else min(known) // len(known)
    image = next(buffer.nbytes for buffer in footprint.held() if buffer.name == "image")
    blocks = [lay_out(footprint.held())[1], *(images * image for images in LATER)]
    return int(SHARE * free) - resident(footprint.device, blocks, free)


def distinct(groups: Sequence[int | None]) -> tuple[int | None, ...]:
    """Each once, everywhere first."""
    return tuple(sorted(set(groups), key=lambda group: -1 if group is None else group))
