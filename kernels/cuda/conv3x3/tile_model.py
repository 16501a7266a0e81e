"""How a convolution on tensor cores is cut up: the kernels' tiles, and a small model of a GPU that chooses among them.

Plain arithmetic on shapes, in clock cycles; nothing here touches a GPU. What the kernels do with a tile is in
cuda/conv3x3/mma_sm80.cuh, how they are launched in `tensor_convolution`.

What a tile asks of L2 counts twice over: pixels come once for nine taps, as a halo, but filters with every tap. In bf16
128x128 does 111 FLOP for each byte, 256x64 does 164 and 128x64 97; loading pixels with every tap too, 128x128 would do
64, which at 500 TFLOP/s is more than an H200's L2 has.

The model. The busiest multiprocessor multiplies whole blocks, so that 133 blocks on 132 multiprocessors take as long as
264; it also reads every operand from shared memory. L2 answers for all that blocks ask for, memory for everything once.
The longest of these four counts, and an eighth of each other, since they never overlap to the end. What a block does
before its first product and after its last one comes on top, unless another block runs beside it, and so do the sums of
slices: a second launch that reads what the first has written. This ranks tiles; it does not predict times. The rates
are from data sheets and others' measurements, for mma.sync, and its cycles of filling, draining and launching are
guesses: no tile of mma.sync has been timed by itself. What has been, on an H100, is in `wgmma_model`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

from ..gpu_spec import GpuSpec
from ..precisions import PRECISIONS
from ..split_k import ceil_div

ROW_BYTES = 128  # of a pixel's channels, or a filter's, that one step takes: `row_bytes` in cuda/conv3x3/mma_sm80.cuh
TAPS = 9
TILE_WIDTH = 16
CHANNEL_GROUP = 64  # output channels are padded to it: what one warp takes

RESERVED_SHARED_BYTES = 1024  # of every block, by CUDA
REGISTERS = 65536  # of a multiprocessor
LAUNCH_CYCLES = 4000
FILL_CYCLES = 1500  # from a block's start to its first product
DRAIN_CYCLES_PER_SUM = 0.1  # of storing the results
OVERLAP_LOSS = 1 / 8
WARPS_WANTED = 8  # of a multiprocessor: with fewer, its tensor cores wait for operands now and then
SHARED_BYTES_PER_CYCLE = 128
MATRIX_LOAD_BYTES = 512  # of one ldmatrix.x4: two of a product's operands for pixels, or four of those for filters


@dataclass(frozen=True)
class Tile:
    """A kernel's share of the work: `pixels` (16 wide) x `channels` sums by `threads` threads."""

    name: str
    pixels: int
    channels: int
    warp_pixels: int  # a warp does these x 64 channels
    stages: int
    registers: int = 255  # of a thread, at most: the compile gate holds the kernels to it

    @property
    def threads(self) -> int:
        return self.pixels // self.warp_pixels * (self.channels // CHANNEL_GROUP) * 32

    @property
    def blocks_per_sm(self) -> int:
        """That registers leave room for."""
        return REGISTERS // ((self.registers + 7) // 8 * 8 * self.threads)

    @property
    def height(self) -> int:
        return self.pixels // TILE_WIDTH

    @property
    def halo_bytes(self) -> int:
        return (self.height + 2) * (TILE_WIDTH + 2) * ROW_BYTES

    @property
    def filter_bytes(self) -> int:
        """Of one step."""
        return self.channels * ROW_BYTES

    def shared_bytes(self, blocks: int, capability: int) -> int:
        """For this many blocks of input channels: a second halo only if there is a second block to load."""
        stages = self.stages if capability >= 80 else 2
        return min(blocks, 2) * self.halo_bytes + stages * self.filter_bytes


WIDE = (
    Tile("128x128", 128, 128, 64, 2),
    Tile("256x64", 256, 64, 64, 3),
    Tile("128x64", 128, 64, 32, 3, registers=168),
)
NARROW = (Tile("128x128", 128, 128, 32, 3), Tile("256x64", 256, 64, 32, 3), Tile("128x64", 128, 64, 32, 3))
"""3xTF32 needs the registers of half a warp's sums for the halves of its operands."""


@dataclass(frozen=True)
class Products:
    """A kind of products: how wide its numbers are in memory, and how much of the 16-bit rate it reaches."""

    name: str
    itemsize: int
    rate: float
    tiles: tuple[Tile, ...]

    @property
    def row_channels(self) -> int:
        """Channels in ROW_BYTES."""
        return ROW_BYTES // self.itemsize


PRODUCTS = {
    name: Products(name, kind.itemsize, kind.rate, WIDE if kind.operand_parts == 1 else NARROW)
    for name, kind in PRECISIONS.items()
    if kind.on_tensor_cores
}


class ConvPlan(NamedTuple):
    """A convolution cut up: `across` x `down` tiles of pixels for each of `columns` tiles of output channels, and the
    sum over input channels in `slices`."""

    tile: Tile
    down: int
    across: int
    columns: int
    split_k: int
    shared_bytes: int

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tiles of output channels vary fastest."""
        return (self.down * self.across * self.columns, 1, self.split_k)

    @property
    def blocks(self) -> int:
        return self.down * self.across * self.columns * self.split_k


def cut(tile: Tile, shape: tuple[int, int, int, int], split_k: int, products: Products, capability: int) -> ConvPlan:
    """The work of a convolution of this (H, W, C_in, C_out) in `slices` of its blocks of input channels."""
    height, width, channels_in, channels_out = shape
    blocks = ceil_div(channels_in, products.row_channels)
    shared = tile.shared_bytes(ceil_div(blocks, split_k), capability)
    tiles = ceil_div(height, tile.height), ceil_div(width, TILE_WIDTH), ceil_div(channels_out, tile.channels)
    return ConvPlan(tile, *tiles, split_k, shared)


def resident_blocks(work: ConvPlan, spec: GpuSpec) -> int:
    """How many blocks a multiprocessor holds at once; 0 if not even one."""
    if work.shared_bytes > spec.block_shared_bytes:
        return 0
    return min(work.tile.blocks_per_sm, spec.shared_bytes // (work.shared_bytes + RESERVED_SHARED_BYTES))


def cycles(work: ConvPlan, shape: tuple[int, int, int, int], products: Products, spec: GpuSpec) -> float:
    """The model: clock cycles that this work takes, infinitely many if the GPU cannot hold a block of it."""
    height, width, channels_in, channels_out = shape
    tile, resident = work.tile, resident_blocks(work, spec)
    if resident == 0:
        return float("inf")
    blocks = ceil_div(ceil_div(channels_in, products.row_channels), work.split_k)
    steps = blocks * TAPS
    turns = ceil_div(work.blocks, spec.multiprocessors)
    sums = tile.pixels * tile.channels
    beside = min(resident, turns)

    warps = tile.threads // 32
    busy = min(1, (1 + warps * beside / WARPS_WANTED) / 2)
    tensor = turns * sums * steps * products.row_channels / (spec.mma_per_clock * products.rate * busy)
    loads = 4 * warps * (tile.warp_pixels // 16 + CHANNEL_GROUP // 16) * MATRIX_LOAD_BYTES
    copies = blocks * tile.halo_bytes + steps * tile.filter_bytes
    shared = turns * (steps * loads + copies) / SHARED_BYTES_PER_CYCLE
    l2 = work.blocks * copies / (spec.l2_bytes * spec.multiprocessors)
    once = height * width * (channels_in + channels_out) * products.itemsize
    memory = once / (spec.memory_bytes * spec.multiprocessors)
    times = (tensor, shared, l2, memory)

    fill_and_drain = (FILL_CYCLES + DRAIN_CYCLES_PER_SUM * sums) * ceil_div(turns, beside)
    total = max(times) + OVERLAP_LOSS * (sum(times) - max(times)) + fill_and_drain
    if work.split_k > 1:
        partials = 2 * work.split_k * height * width * channels_out * 4
        total += LAUNCH_CYCLES + partials / (spec.memory_bytes * spec.multiprocessors)
    return total


@functools.lru_cache(maxsize=256)
def choose(shape: tuple[int, int, int, int], precision: str, spec: GpuSpec) -> ConvPlan:
    """The work that the model finds fastest for a convolution of this (H, W, C_in, C_out).

    Of the shape, the precision and the GPU alone: the same convolution is added up in the same order every time, on
    every GPU of a kind. Raises ValueError where no tile fits the GPU.
    """
    products = PRODUCTS[precision]
    blocks = ceil_div(shape[2], products.row_channels)
    # A tile of 128 channels would run past filters that are padded to 64.
    groups = ceil_div(shape[3], CHANNEL_GROUP)
    tiles = [tile for tile in products.tiles if groups * CHANNEL_GROUP % tile.channels == 0]
    works = [cut(tile, shape, split_k, products, spec.capability) for tile in tiles for split_k in range(1, blocks + 1)]
    best = min(works, key=lambda work: cycles(work, shape, products, spec))
    if resident_blocks(best, spec) == 0:
        raise ValueError(f"no {precision} tile fits {spec.block_shared_bytes} bytes of shared memory")
    return best
