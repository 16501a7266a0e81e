"""How the cpu device cuts a convolution into items of work, and what scratch memory those take.

Arithmetic on shapes alone. `Cuts` has a few numbers, however large the map is: a plan asks for thousands of maps that
nobody ever computes.
"""

from typing import NamedTuple

from . import winograd

STRIP_BYTES = 1 << 20  # of transformed or gathered input per item: what a core's share of the caches holds
LEAST_TILES = 128  # rows of a product under which a BLAS slows down


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


def cut(height: int, width: int, channels: int, channels_out: int, workers: int) -> Cutting:
    """For a convolution by Winograd's transforms."""
    down, across = -(-height // 4), -(-width // 4)
    in_phases = down * across <= LEAST_TILES * workers
    best = max(STRIP_BYTES // (36 * 4 * max(channels, channels_out)), LEAST_TILES)
    pieces = 1 if in_phases else -(-across // best)  # of a row of tiles
    count = -(-down * across // (pieces * best))
    count = min(down, workers if in_phases else -(-count // workers) * workers)
    return Cutting(Cuts(height, down, count), Cuts(width, across, pieces), in_phases)


def plain_rows(width: int, channels: int, channels_out: int) -> int:
    """Of a strip of a convolution by plain products."""
    return max(2, STRIP_BYTES // (width * 9 * 4 * min(channels, channels_out)) // 2 * 2)


def tile_rows(strip: Strip) -> range:
    return range(strip.top // 4, -(-strip.bottom // 4))


def tiles_across(strip: Strip) -> int:
    return -(-(strip.right - strip.left) // 4)


class Scratch(NamedTuple):
    """Floats of workspace for one convolution: what the workers share, and what each has to itself."""

    shared: int
    worker: int
    total: int


def scratch(height: int, width: int, channels: int, channels_out: int, workers: int) -> Scratch:
    shared = 0
    if winograd.pays(channels, channels_out):
        cutting = cut(height, width, channels, channels_out, workers)
        down, across = cutting.down.most_tiles, cutting.across.most_tiles
        worker = cutting.down.longest * cutting.across.longest * channels_out
        worker += 60 * (across + 1) * max(channels, channels_out)  # for a row of tiles between two steps
        if cutting.in_phases:
            shared = 36 * cutting.down.tiles * cutting.across.tiles * (channels + channels_out)
        else:
            worker += 36 * down * across * (channels + channels_out)
    else:
        rows = min(plain_rows(width, channels, channels_out), height)
        worker = rows * width * channels_out
        if channels <= channels_out:
            worker += channels * (rows + 2) * (width + 2) + 9 * channels * rows * width
        else:
            worker += 9 * channels_out * (rows + 2) * width + channels_out * rows * width
    worker = -(-worker // 16) * 16  # whole cache lines
    return Scratch(shared, worker, shared + workers * worker)
