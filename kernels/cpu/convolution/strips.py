"""How the cpu device cuts a convolution into items of work, and what scratch memory those take.

Arithmetic on shapes alone. `Cuts` has a few numbers, however large the map is: a plan asks for thousands of maps that
nobody ever computes.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .filters import method_of

Floats = NDArray[np.float32]

PLAIN_BYTES = 1 << 20  # of gathered numbers per item of "plain"
STRIP_BYTES = 1 << 21  # of transformed input per item of "squares"
ROWS_BYTES = 1 << 22  # of transformed input and products per item of "rows"
PHASE_BYTES = 1 << 20  # of transformed input per item of a small map
GROUP_BYTES = 1 << 22  # of an item's rows of tiles that "squares" transforms together
LEAST_TILES = 128  # rows of a product under which a BLAS slows down
FEW_TILES = 32  # the same where filters are read from the cache
FEW_FILTERS = 1 << 15  # pairs of channels whose 36 products stay in the caches that cores share


class Strip(NamedTuple):
    """What of a map one worker computes at a time: whole rows, or a piece of some where they are long. `top` and `left`
    are even, so that no pool is cut."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def pooled(self) -> tuple[slice, slice]:
        return slice(self.top // 2, self.bottom // 2), slice(self.left // 2, self.right // 2)


class Cuts(NamedTuple):
    """An axis of `length` pixels, `tiles` tiles of 4, in `parts` parts of whole tiles, as equal as they can be."""

    length: int
    tiles: int
    parts: int

    def edges(self) -> list[tuple[int, int]]:
        """From where to where each part goes, in pixels."""
        starts = [4 * (self.tiles * index // self.parts) for index in range(self.parts)]
        return list(zip(starts, [*starts[1:], self.length], strict=True))

    @property
    def most_tiles(self) -> int:
        """Of a part."""
        return -(-self.tiles // self.parts)

    @property
    def longest(self) -> int:
        """Pixels of the longest part. The last part is as many tiles as any, and may end within one."""
        least, larger = divmod(self.tiles, self.parts)
        last = self.length - 4 * (self.tiles - self.most_tiles)
        if self.parts == 1:
            return last
        return max(4 * least, last) if larger <= 1 else 4 * (least + 1)


class Cutting(NamedTuple):
    """Of a map, down and across."""

    down: Cuts
    across: Cuts
    in_phases: bool
    """Whether the map is too small for every worker to have a strip worth multiplying, and is computed in phases."""

    def strips(self) -> list[Strip]:
        columns = self.across.edges()
        return [Strip(*rows, *each) for rows in self.down.edges() for each in columns]


@functools.lru_cache(maxsize=256)
def cut(height: int, width: int, channels: int, channels_out: int, workers: int) -> Cutting:
    """For a convolution by the method of these channels."""
    method = method_of(channels, channels_out)
    down, across = -(-height // 4), -(-width // 4)
    if method == "plain":
        rows = max(1, PLAIN_BYTES // (width * 9 * 4 * min(channels, channels_out)) // 4)
        return Cutting(Cuts(height, down, _shared_out(-(-down // rows), down, workers)), Cuts(width, across, 1), False)
    if method == "rows":
        most = ROWS_BYTES // (6 * 4 * (channels + channels_out))  # pixels of a row of tiles, or of some
        pieces = -(-4 * across // max(most, 4 * LEAST_TILES))
        rows = max(1, most // (4 * -(-across // pieces) + 2))
        return Cutting(
            Cuts(height, down, _shared_out(-(-down // rows), down, workers)), Cuts(width, across, pieces), False
        )
    least = FEW_TILES if channels * channels_out <= FEW_FILTERS else LEAST_TILES
    in_phases = down * across < least * workers
    best = max(STRIP_BYTES // (36 * 4 * max(channels, channels_out)), LEAST_TILES)
    pieces = 1 if in_phases else -(-across // best)  # of a row of tiles
    if in_phases:  # sharing out the transforms has to be worth it, too
        count = min(down, workers, max(1, 36 * 4 * down * across * max(channels, channels_out) // PHASE_BYTES))
    else:
        count = _shared_out(-(-down * across // (pieces * best)), down, workers)
    return Cutting(Cuts(height, down, count), Cuts(width, across, pieces), in_phases)


def _shared_out(count: int, most: int, workers: int) -> int:
    """At least so many strips, as many for every worker where there are so many."""
    return min(most, -(-count // workers) * workers)


def group_rows(across: int, channels: int) -> int:
    """Of tiles, that "squares" transforms together."""
    return max(1, GROUP_BYTES // (36 * 4 * across * channels))


def tile_rows(strip: Strip) -> range:
    return range(strip.top // 4, -(-strip.bottom // 4))


def tiles_across(strip: Strip) -> int:
    return -(-(strip.right - strip.left) // 4)


class Scratch(NamedTuple):
    """Floats of workspace for one convolution: what the workers share, and what each has to itself."""

    shared: int
    worker: int
    total: int


@functools.lru_cache(maxsize=256)
def scratch(height: int, width: int, channels: int, channels_out: int, workers: int) -> Scratch:
    method = method_of(channels, channels_out)
    cutting = cut(height, width, channels, channels_out, workers)
    down, across = cutting.down.most_tiles, cutting.across.most_tiles
    rows, columns = cutting.down.longest, cutting.across.longest
    shared, worker = 0, rows * columns * channels_out
    if method == "squares":
        if cutting.in_phases:
            shared = 36 * cutting.down.tiles * cutting.across.tiles * (channels + channels_out)
        else:
            worker += 36 * down * across * (channels + channels_out)
        worker += max(_between(down, across, channels), _between(down, across, channels_out))
    elif method == "rows":
        worker += 6 * (down * (columns + 2) + 4) * (channels + channels_out)
    elif channels <= channels_out:
        worker += channels * (rows + 2) * (width + 2) + 9 * channels * rows * width
    else:
        worker += 9 * channels_out * ((rows + 2) * width + 2) + channels_out * rows * width
    worker = -(-worker // 16) * 16  # whole cache lines
    return Scratch(shared, worker, shared + workers * worker)


def _between(down: int, across: int, channels: int) -> int:
    """Floats between the two steps of a transform of "squares"."""
    return 60 * min(down, group_rows(across, channels)) * (across + 1) * channels


def take(scratch: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The head of the scratch memory in this shape, and the rest."""
    size = math.prod(shape)
    return scratch[:size].reshape(shape), scratch[size:]


def overlapping(values: Floats, first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Floats:
    """A view of contiguous values from number `first` on; strides in numbers. `as_strided` takes ten times as long."""
    return np.ndarray(shape, np.float32, values, 4 * first, [4 * stride for stride in strides])
