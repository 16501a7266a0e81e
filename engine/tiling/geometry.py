"""Tiles: an image of any size through the network, a window at a time, with the exact gradient of the whole.

A tile owns a rectangle of the image, and of every tap the units above it. Its window is that rectangle and a halo as
wide as the deepest tap sees. Windows begin and end on the pooling grid, or at the image's true border, where alone
zeros are padded; so whatever a tile's own units see, the network computes in the window as it does on the whole image.
Statistics are sums over pixels, and the image's gradient is linear in the gradients that enter at the taps: both are
sums over tiles, and exact. A whole image is one tile without a halo, and costs what it would if there were no tiles.

What is measured at the taps is left to others, and so is how much memory there is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import SettingsError
from ..model.network import Network
from ..types import Image, Mask

ROW_BYTES = 16  # a row of a window may begin where a device's widest load may

WORTH_SPREADING = 0.75
"""Of an image's pixels: the busiest of several devices works through no more than these, halos and all, where tiles
are cut though memory needs none. For two devices and relu5_1 that is from 320 px on. Measured in processor time, with
VGG-19's shapes on the cpu: at 384 px each of two devices takes 0.77 of what one does, at 768 px 0.65."""

MAX_WORK = 32
"""Times a picture's pixels that are worked through in tiles: smaller tiles would save no memory to speak of."""

Setting = Literal["auto", "off"] | int
"""The side of a tile in pixels, halo not counted; "auto" goes by the memory there is, "off" means one tile."""


def check(setting: Setting) -> None:
    """Raises SettingsError for what is no `Setting`."""
    if setting in ("auto", "off") or (isinstance(setting, int) and not isinstance(setting, bool) and setting >= 1):
        return
    raise SettingsError(f"the tile is {setting!r}; it must be auto, off, or the side of a tile in pixels")


def setting(text: str) -> Setting:
    """What somebody wrote as a `Setting`; raises SettingsError."""
    value: Any = int(text) if text.isdecimal() else text
    check(value)
    return value  # type: ignore[no-any-return]  # checked


# ---- geometry ---------------------------------------------------------------------------------------------------
def grid(net: Network) -> int:
    """Pixels from one unit of the deepest tap to the next: every pool on the way keeps to multiples of it."""
    return 1 << sum(layer.pooled for layer in net.layers)


def halo(net: Network) -> int:
    """How many pixels around a tile its own units see, up to the next multiple of the grid.

    `receptive` says how far a unit of the deepest tap sees; a unit of any other tap sees less far.
    """
    reach, stride = 0, 1
    for layer in net.layers:
        reach += stride
        stride *= 2 if layer.pooled else 1
    return -(-reach // grid(net)) * grid(net)


class AxisTile(NamedTuple):
    """A tile along one axis: what it owns, from `start` to `stop`, and its window, from `first` to `last`."""

    first: int
    start: int
    stop: int
    last: int

    def at(self, stride: int) -> "AxisTile":
        """The same at a tap of this stride. Only at the far border can an edge be off the grid; pools take the floor
        there as well."""
        return AxisTile(*(edge // stride for edge in self))

    @property
    def length(self) -> int:
        """Of the window."""
        return self.last - self.first

    @property
    def window(self) -> slice:
        """In the whole."""
        return slice(self.first, self.last)

    @property
    def own(self) -> slice:
        """In the whole."""
        return slice(self.start, self.stop)

    @property
    def within(self) -> slice:
        """What it owns, in its window."""
        return slice(self.start - self.first, self.stop - self.first)


class Tile(NamedTuple):
    rows: AxisTile
    columns: AxisTile

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the window."""
        return self.rows.length, self.columns.length

    @property
    def window(self) -> tuple[slice, slice]:
        """In the whole."""
        return self.rows.window, self.columns.window

    def at(self, stride: int) -> "Tile":
        return Tile(self.rows.at(stride), self.columns.at(stride))


class Axis(tuple[AxisTile, ...]):
    """The tiles along one axis. What is asked of hundreds of tilings is added up once for each axis."""

    @cached_property
    def total(self) -> int:
        """Of all windows together."""
        return sum(span.length for span in self)

    @cached_property
    def longest(self) -> int:
        """Of a window."""
        return max(span.length for span in self)


def spans(length: int, cells: int, net: Network) -> Axis:
    """Cuts an axis into tiles of so many cells of the grid; the last takes what is left, and the rest below a cell."""
    return _spans(length, cells, grid(net), halo(net))


@lru_cache(maxsize=128)  # the axes of a square are alike, and so are those of its style
def _spans(length: int, cells: int, unit: int, around: int) -> Axis:
    starts = range(0, max(length // unit, 1) * unit, cells * unit)
    edges = zip(starts, [*starts[1:], length], strict=True)
    return Axis(
        AxisTile(max(0, a - around), a, b, length if b == length else min(length, b + around)) for a, b in edges
    )


@dataclass(frozen=True)
class Tiling:
    """An image cut into tiles, row by row."""

    rows: Axis
    columns: Axis

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        return tuple(Tile(rows, columns) for rows in self.rows for columns in self.columns)

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def kinds(self) -> tuple[Tile, ...]:
        """One tile of each kind: all that have their own at the same place of a window of the same size are alike."""
        axes = ({(span.length, span.start - span.first): span for span in spans} for spans in (self.rows, self.columns))
        rows, columns = (tuple(axis.values()) for axis in axes)
        return tuple(Tile(down, across) for down in rows for across in columns)

    @property
    def windows(self) -> set[tuple[int, int]]:
        """The sizes (H, W) that windows have."""
        heights, widths = ({span.length for span in spans} for spans in (self.rows, self.columns))
        return {(height, width) for height in heights for width in widths}

    @property
    def side(self) -> tuple[int, int]:
        """(H, W) of the first tile, without its halo; no other is much larger."""
        return self.rows[0].stop, self.columns[0].stop

    @property
    def pixels(self) -> int:
        """Of all windows together: what is worked through in one walk."""
        return self.rows.total * self.columns.total

    def load(self, devices: int) -> int:
        """Pixels that the busiest of so many devices works through in one walk, at most, where they take turns."""
        return self.pixels if devices == 1 else -(-self.count // devices) * math.prod(self.largest)

    @property
    def largest(self) -> tuple[int, int]:
        """(H, W) of the largest window."""
        return self.rows.longest, self.columns.longest

    def __str__(self) -> str:
        height, width = self.side
        return f"{self.count} tiles of {width}x{height} px" if self.count > 1 else "one piece"


def tiling(net: Network, size: tuple[int, int], side: tuple[int, int] | None) -> Tiling:
    """Images of (H, W) `size` in tiles of about (H, W) `side`, the halo not counted; None is one tile for all.

    Sides become multiples of the grid, the nearest below or one cell.
    """
    unit = grid(net)
    sides = size if side is None else side
    cells = [max(1, length // unit) for length in sides]
    rows, columns = (spans(length, count, net) for length, count in zip(size, cells, strict=True))
    return Tiling(rows, columns)


def refuse_absurd(net: Network, size: tuple[int, int], cut_up: Tiling) -> None:
    """Raises SettingsError for tiles of an image of (H, W) `size` that are so small that next to all of the work is on
    their halos."""
    most = MAX_WORK * math.prod(size)
    if cut_up.pixels <= most:
        return
    least = cut_up.side[0]
    while tiling(net, size, (least, least)).pixels > most:
        least += grid(net)
    raise SettingsError(
        f"the tile is {cut_up.side[0]} px, and each sees {halo(net)} px around it: together they are "
        f"{cut_up.pixels / math.prod(size):.0f} times the picture; make it {least} or more, or auto"
    )


def tilings(net: Network, size: tuple[int, int], devices: int = 1) -> list[Tiling]:
    """The tilings worth trying, beginning with the one that takes the least work of the device that has most of it.

    So one device works on the whole; of several as many as there are have a tile each, as long as none has more than
    `WORTH_SPREADING` of the pixels, which is when each passes forward once (see `multi_device`). Else tiles come last.

    Along each axis every number of tiles up to ten, then each a tenth larger than the one before it. Tiles as small as
    their halo are the last: smaller ones would save next to nothing.
    """
    unit = grid(net)
    axes = []
    for length in size:
        cells = max(length // unit, 1)
        least = min(cells, halo(net) // unit)
        # From the cells of a tile follows how many there are; of those with as many, the smallest is best.
        smallest = {-(-cells // each): each for each in range(cells, least - 1, -1)}
        tried: list[int] = []
        for count in sorted(smallest):
            if not tried or count >= 1.1 * tried[-1]:
                tried.append(count)
        tried[-1] = max(smallest)
        axes.append([spans(length, smallest[count], net) for count in tried])
    found = [Tiling(rows, columns) for rows in axes[0] for columns in axes[1]]
    whole = math.prod(size)

    def work(cut_up: Tiling) -> tuple[bool, int, int]:
        load = cut_up.load(devices)
        return cut_up.count > 1 and load > WORTH_SPREADING * whole, load, cut_up.count

    return sorted(found, key=work)


def choose(
    net: Network, size: tuple[int, int], nbytes: Callable[[Tiling], int], budget: float, devices: int = 1
) -> Tiling:
    """The tiling that takes the least work of those that need no more than `budget` bytes by `nbytes`.

    The one that needs the least if there is none. See `tilings` for what several devices make of it.
    """
    needed: list[tuple[int, Tiling]] = []
    fewest = math.inf  # pixels of the smallest largest window tried; more of them take more memory
    for candidate in tilings(net, size, devices):
        pixels = math.prod(candidate.largest)
        if pixels >= fewest:
            continue
        fewest = pixels
        needed.append((nbytes(candidate), candidate))
        if needed[-1][0] <= budget:
            return candidate
    return min(needed, key=lambda tried: tried[0])[1]


# ---- what a tile has of a tap -----------------------------------------------------------------------------------
class TapTile(NamedTuple):
    """A tile's part of a tap: rows of its window, whole ones, so that they lie together in memory.

    The units that it owns are at `own`; the others, of the halo, weigh nothing.
    """

    rows: slice
    """In the window."""
    shape: tuple[int, int]
    own: tuple[slice, slice]
    """In the piece."""
    at: tuple[slice, slice]
    """What it owns, in the whole tap."""
    around: tuple[slice, slice]
    """The piece, in the whole tap."""

    @property
    def whole(self) -> bool:
        """Whether it owns all of it."""
        return self.own == (slice(0, self.shape[0]), slice(0, self.shape[1]))

    def weights(self, mask: Mask | None, factor: float) -> Image | None:
        """(h, w): the mask's weights (None is one everywhere) times `factor` at what it owns, zero elsewhere.

        None for a piece that owns all of itself, without a mask.
        """
        if mask is None and self.whole:
            assert factor == 1
            return None
        values = np.zeros(self.shape)
        values[self.own] = factor if mask is None else factor * mask[self.at].astype(np.float64)
        return values


def piece(tile: Tile, stride: int, unit_bytes: int) -> TapTile:
    """Of the tap with this stride, whose units have so many bytes.

    Rows of the halo are left out where the rows that remain begin at a multiple of ROW_BYTES.
    """
    rows, columns = tile.at(stride)
    within = rows.within
    taken = within if columns.length * unit_bytes % ROW_BYTES == 0 else slice(0, rows.length)
    own = slice(within.start - taken.start, within.stop - taken.start)
    around = slice(rows.first + taken.start, rows.first + taken.stop)
    return TapTile(
        taken,
        (taken.stop - taken.start, columns.length),
        (own, columns.within),
        (rows.own, columns.own),
        (around, columns.window),
    )


def seen(parts: Sequence[TapTile]) -> int:
    """Units of all pieces together, with those of the halo that they take along."""
    return sum(math.prod(part.shape) for part in parts)


def shares(parts: Sequence[TapTile], seen_before: int = 0) -> list[float]:
    """Of the units of all pieces up to each one, that one's; where so many pictures of the same size were before."""
    counts = [math.prod(part.shape) for part in parts]
    earlier = seen_before * sum(counts)
    return [count / (earlier + so_far) for count, so_far in zip(counts, accumulate(counts), strict=True)]
