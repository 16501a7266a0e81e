"""Launching the 3x3 convolutions of float32 activations for Hopper's tensor cores (wgmma_fp32_sm90.cuh): filters,
tensor maps, tiles, grids; for the precisions 3xtf32 and tf32.

Activations are float32 in memory. Products are of scaled fp16, which has tf32's bits at twice its rate: one to a number
for tf32, hi and lo for 3xtf32. For compute capability 9.0 and for the emulator, and for channels that are multiples of
eight on both sides.

Everything here is arithmetic on shapes and needs no GPU. At 512 px an H100 found what `choose_work` chooses the fastest
of all tiles and slices, for every layer, both ways; tf32's kernels, which now take 64 channels to a batch, were others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...device import Array, Pooling
from ..gpu_spec import MULTIPROCESSORS, WGMMA_PER_CLOCK
from ..runtime.launch import Launch
from ..runtime.tensor_map import CHANNELS, STEP_CHANNELS, Target, TensorMap
from ..split_k import ceil_div, finish_grid, int32s, partials_in, split_k_bytes
from .kernel_names import WGMMA_FP32_SM90
from .launch_wgmma_sm90 import BOX_HEIGHT, BOX_WIDTH, LOADED_ROWS, THREADS

Precision = Literal["tf32", "3xtf32"]
ROW_BYTES = 128
BOX_CHANNELS = ROW_BYTES // 4
LARGEST_EXPONENT = 15  # filters are scaled to less than 2^15
# Place k of 16 in a product is channel PLACES[k] of 16: a lane has four next to each other of both operands.
PLACES = np.array([4 * (k % 8 // 2) + k // 8 * 2 + k % 2 for k in range(16)])

# What `choose_work` reckons with, in clocks of one multiprocessor; for the first two see docs/decisions/hopper.md.
TENSOR_RATE = 0.78  # of what the data sheet promises
STEP_CLOCKS = 1450  # a consumer's own, between two batches
L2_BYTES_PER_CLOCK = 46  # its share of 10.8 TB/s, at 1755 MHz
SECOND_LAUNCH_CLOCKS = 4000  # a guess: 2 us
EPILOGUE_SUMS_PER_CLOCK = 8  # a guess


class PackedFilters(NamedTuple):
    """A convolution's weights as scaled fp16, for both directions: `forward` (3 * k-tiles, C_out, 64), and `backward`
    (3 * k-tiles, C_in, 64), turned by 180 degrees.

    A k-tile is 32 channels (3xtf32) or 64 (tf32) of a column of three taps. The 64 numbers are the channels in the
    order of PLACES, or 32 channels' hi and then their lo. `unscale` is what products are multiplied by in the end. The
    bias is float32.
    """

    forward: Array
    backward: Array
    bias: Array
    channels_in: int
    channels_out: int
    precision: Precision
    unscale: np.float32


@dataclass(frozen=True)
class Tile:
    """What one block computes at a time, by one of the kernels' variants: `Tile` in wgmma_fp32_sm90.cuh."""

    variant: str
    precision: Precision
    boxes: int  # side by side
    channels: int
    pixel_stages: int
    filter_stages: int

    @property
    def width(self) -> int:
        return self.boxes * BOX_WIDTH

    @property
    def k_tile_channels(self) -> int:
        return k_tile_channels(self.precision)

    @property
    def pixel_bytes(self) -> int:
        return self.boxes * LOADED_ROWS * BOX_WIDTH * self.k_tile_channels * 4

    @property
    def filter_bytes(self) -> int:
        """Of a column of three taps."""
        return 3 * self.channels * ROW_BYTES

    @property
    def shared_bytes(self) -> int:
        stages = self.pixel_stages * self.pixel_bytes + self.filter_stages * self.filter_bytes
        return stages + 8 * 4096 + 16 * (self.pixel_stages + self.filter_stages)


SINGLE = (Tile("128x128", "tf32", 1, 128, 2, 2), Tile("256x64", "tf32", 2, 64, 2, 2))
PAIRS = (Tile("128x128", "3xtf32", 1, 128, 2, 3), Tile("256x64", "3xtf32", 2, 64, 3, 3))
TILES: dict[Precision, tuple[Tile, ...]] = {"tf32": SINGLE, "3xtf32": PAIRS}


class ConvPlan(NamedTuple):
    """A convolution cut up: `down` x `across` tiles of pixels, `channel_tiles`, and the sum in `slices`."""

    tile: Tile
    down: int
    across: int
    channel_tiles: int
    split_k: int

    @property
    def items(self) -> int:
        return self.down * self.across * self.channel_tiles * self.split_k


def as_precision(name: str) -> Precision:
    """Of these kernels' precisions the one of this name."""
    return "tf32" if name == "tf32" else "3xtf32"


def k_tile_channels(precision: Precision) -> int:
    return BOX_CHANNELS if precision == "3xtf32" else 2 * BOX_CHANNELS


# ---- tensor maps ----------------------------------------------------------------------------------------------------
def activations_map(address: int, shape: tuple[int, int, int]) -> TensorMap:
    """Of float32 (H, W, C): a box of 32 channels, 8 pixels and 18 rows. To the copy engine they are bits, as 16-bit
    numbers are, twice as many."""
    height, width, channels = shape
    return TensorMap(address, "fp16", (2 * channels, width, height), (STEP_CHANNELS, BOX_WIDTH, LOADED_ROWS))


def filters_map(address: int, shape: tuple[int, int, int], tile: Tile) -> TensorMap:
    """Of (3 * k-tiles, C_out, 64): a box of a column of taps of as many filters as the tile has."""
    taps, channels_out, _ = shape
    return TensorMap(address, "fp16", (STEP_CHANNELS, channels_out, taps), (STEP_CHANNELS, tile.channels, 3))


# ---- filters --------------------------------------------------------------------------------------------------------
def serves(channels_in: int, channels_out: int) -> bool:
    """Whether these kernels can convolve from and to so many channels, in both directions."""
    return channels_in % CHANNELS == 0 and channels_out % CHANNELS == 0


def pack_filters(kernel: NDArray[np.float32], bias: NDArray[np.float32], precision: Precision) -> PackedFilters:
    """Packs a (3, 3, C_in, C_out) kernel and its (C_out,) bias, in host memory, for both directions."""
    channels_in, channels_out = kernel.shape[2:]
    if not serves(channels_in, channels_out):
        raise ValueError(f"{channels_in} to {channels_out} channels; both must be multiples of {CHANNELS}")
    largest = np.max(np.abs(kernel), where=np.isfinite(kernel), initial=0)
    exponent = int(np.clip(np.frexp(largest)[1], -100, 128)) if largest else 0
    scaled = kernel.astype(np.float64) * 2.0 ** (LARGEST_EXPONENT - exponent)
    return PackedFilters(
        _packed(scaled, precision), _packed(scaled[::-1, ::-1].swapaxes(2, 3), precision),
        np.ascontiguousarray(bias, np.float32), channels_in, channels_out, precision,
        np.float32(2.0 ** (exponent - LARGEST_EXPONENT)),
    )  # fmt: skip


def _packed(kernel: NDArray[np.float64], precision: Precision) -> NDArray[np.float16]:
    """(3, 3, C_in, C_out) to (blocks of channels, 3 columns, 3 rows of taps, C_out, 64)."""
    channels_in, channels_out = kernel.shape[2:]
    depth = k_tile_channels(precision)
    padded = np.pad(kernel, ((0, 0), (0, 0), (0, -channels_in % depth), (0, 0)))
    sixteens = padded.reshape(3, 3, -1, depth // 16, 16, channels_out)[..., PLACES, :]
    rows = sixteens.transpose(2, 1, 0, 5, 3, 4).reshape(-1, channels_out, depth)
    hi = rows.astype(np.float16)
    if precision == "tf32":
        return hi
    # What is no number stays so in both; a difference of infinities is none.
    with np.errstate(invalid="ignore"):
        lo = (rows - hi.astype(np.float64)).astype(np.float16)
    return np.concatenate([hi, lo], axis=2)


# ---- tiles and slices -----------------------------------------------------------------------------------------------
def choose_work(height: int, width: int, channels_in: int, channels_out: int, precision: Precision) -> ConvPlan:
    """The tile and the slices with the least clocks by `reckoned_clocks`; of equals the first tile, the fewest slices.

    A function of the shapes alone, so that the same convolution is added up in the same order on every GPU.
    """
    shape = (height, width, channels_in, channels_out)
    candidates = (cut_up(tile, *shape, split_k) for tile in TILES[precision]
                  for split_k in _worthwhile_slices(tile, *shape))  # fmt: skip
    return min(candidates, key=lambda work: reckoned_clocks(work, channels_in))


def cut_up(tile: Tile, height: int, width: int, channels_in: int, channels_out: int, split_k: int = 1) -> ConvPlan:
    """This tile over everything; every slice has at least one k-tile."""
    if not 1 <= split_k <= _k_tiles(channels_in, tile.precision):
        raise ValueError(f"{split_k} slices of {_k_tiles(channels_in, tile.precision)} steps")
    down, across = ceil_div(height, BOX_HEIGHT), ceil_div(width, tile.width)
    return ConvPlan(tile, down, across, ceil_div(channels_out, tile.channels), split_k)


def reckoned_clocks(work: ConvPlan, channels_in: int) -> float:
    """How long one multiprocessor is busy: the rounds of items, each bound by tensor cores, by what consumers do
    between batches, or by L2, and the epilogues, of which half hides behind the other consumer's products."""
    tile = work.tile
    sums = tile.width * BOX_HEIGHT * tile.channels
    products = 3 if tile.precision == "3xtf32" else 1
    batch = products * 3 * tile.k_tile_channels * sums / (2 * tile.boxes) / (TENSOR_RATE * WGMMA_PER_CLOCK)
    loads = (tile.pixel_bytes + tile.filter_bytes) / L2_BYTES_PER_CLOCK
    k_tile = max(tile.boxes * max(2 * batch, batch + STEP_CLOCKS), loads)
    rounds = ceil_div(work.items, MULTIPROCESSORS)
    each = ceil_div(_k_tiles(channels_in, tile.precision), work.split_k) * k_tile + sums / EPILOGUE_SUMS_PER_CLOCK / 2
    clocks = rounds * each
    if work.split_k > 1:  # written as fp32, and read again
        clocks += SECOND_LAUNCH_CLOCKS + 8 * sums * work.items / MULTIPROCESSORS / L2_BYTES_PER_CLOCK
    return clocks


def partial_bytes(work: ConvPlan, height: int, width: int, channels_out: int) -> int:
    """Scratch memory for the sums of the slices; none for a single one."""
    return split_k_bytes(work.split_k, height * width * channels_out)


def workspace_bytes(height: int, width: int, channels_in: int, channels_out: int, precision: Precision) -> int:
    """Scratch memory that a convolution of these sizes needs, forward and backward."""
    forward = choose_work(height, width, channels_in, channels_out, precision)
    backward = choose_work(height, width, channels_out, channels_in, precision)
    return max(partial_bytes(forward, height, width, channels_out), partial_bytes(backward, height, width, channels_in))


# ---- launches -------------------------------------------------------------------------------------------------------
def conv3x3_relu(x: Array, filters: PackedFilters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                 pooled: Array | None, pool_argmax: Array | None, workspace: Array | None, target: Target,
                 work: ConvPlan | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_relu`; `workspace` is uint8, `workspace_bytes` long.

    Arrays begin at multiples of 16 bytes, and the caller keeps `x` alive, for the launches hold but its address. `work`
    is for tests and benchmarks; None chooses. Raises ValueError for a workspace too small, DeviceError from the driver.
    """
    height, width, channels_in = x.shape
    channels_out, precision = filters.channels_out, filters.precision
    work = work or choose_work(height, width, channels_in, channels_out, precision)
    partials = partials_in(workspace, partial_bytes(work, height, width, channels_out))
    outputs = (filters.bias, out, relu_mask, pooled, pool_argmax)
    average = np.int32(pooling == "average")
    maps = _maps(x, filters.forward, work.tile, target)
    args = (*maps, *outputs, partials, *int32s(height, width, channels_in, channels_out, work.split_k), average,
            filters.unscale)  # fmt: skip
    launches = [_launch("relu", work, args, target)]
    if work.split_k > 1:
        sliced = (partials, *outputs, *int32s(work.split_k, height, width, channels_out), average)
        launches.append(_finish("relu", precision, (height, width, channels_out), sliced))
    return launches


def conv3x3_input_gradient(gradient: Array, filters: PackedFilters, *, out: Array, relu_mask: Array | None,
                           accumulate: bool, workspace: Array | None, target: Target,
                           work: ConvPlan | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_input_gradient`; otherwise as `conv3x3_relu`."""
    height, width, channels_out = gradient.shape
    channels_in, precision = filters.channels_in, filters.precision
    work = work or choose_work(height, width, channels_out, channels_in, precision)
    partials = partials_in(workspace, partial_bytes(work, height, width, channels_in))
    maps = _maps(gradient, filters.backward, work.tile, target)
    args = (*maps, out, relu_mask, partials, *int32s(height, width, channels_out, channels_in, work.split_k),
            np.int32(accumulate), filters.unscale)  # fmt: skip
    launches = [_launch("input_gradient", work, args, target)]
    if work.split_k > 1:
        sliced = (partials, out, relu_mask, *int32s(work.split_k, height, width, channels_in), np.int32(accumulate))
        launches.append(_finish("input_gradient", precision, (height, width, channels_in), sliced))
    return launches


def _maps(x: Array, filters: Array, tile: Tile, target: Target) -> tuple[NDArray[Any], NDArray[Any]]:
    of_pixels = activations_map(target.address(x), x.shape)
    of_filters = filters_map(target.address(filters), filters.shape, tile)
    return target.encode(of_pixels), target.encode(of_filters)


def _launch(operation: str, work: ConvPlan, args: tuple[object, ...], target: Target) -> Launch:
    kernel = WGMMA_FP32_SM90[operation, work.tile.precision, work.tile.variant]
    grid = (min(work.items, target.multiprocessors), 1, 1)
    return Launch(kernel, grid, (THREADS, 1, 1), args, work.tile.shared_bytes)


def _finish(operation: str, precision: Precision, shape: tuple[int, int, int], args: tuple[object, ...]) -> Launch:
    kernel = WGMMA_FP32_SM90[operation, precision, "split_k_sum"]
    return Launch(kernel, finish_grid(*shape), (256, 1, 1), args)


def _worthwhile_slices(tile: Tile, height: int, width: int, channels_in: int, channels_out: int) -> Iterator[int]:
    """As many as one wave of blocks has room for, and none without two k-tiles."""
    items = cut_up(tile, height, width, channels_in, channels_out).items
    most = min(MULTIPROCESSORS // items, _k_tiles(channels_in, tile.precision) // 2)
    return iter(range(1, max(1, most) + 1))


def _k_tiles(channels_in: int, precision: Precision) -> int:
    return 3 * ceil_div(channels_in, k_tile_channels(precision))
