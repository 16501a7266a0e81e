"""Launching the 3x3 convolutions for Hopper's tensor cores (wgmma_sm90.cuh): filters, tensor maps, tiles, grids.

bf16 or fp16 in and out, in memory as `launch_mma_sm80` has them, and sums in fp32; for compute capability 9.0 and for
the emulator, and for channels that are multiples of eight on both sides: the copy engine wants 16-byte rows.

Everything here is arithmetic on shapes and needs no GPU. `wgmma_model` says which tile is fastest, `self_test` whether
the kernels work on a GPU.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...device import Array, Pooling
from ..gpu_spec import MULTIPROCESSORS
from ..runtime.launch import Launch
from ..runtime.tensor_map import CHANNELS, ELEMENT_BYTES, STEP_CHANNELS, Element, Target, TensorMap
from ..split_k import ceil_div, finish_grid, int32s, partials_in, split_k_bytes
from ..storage import rounded
from .kernel_names import ROUND_GRAM_ERROR, WGMMA_SM90
from .wgmma_model import BACKWARD, FORWARD, Cut, predicted

BOX_WIDTH, BOX_HEIGHT, LOADED_ROWS = 8, 16, 18  # the box's, as in cuda/conv3x3/wgmma_layout.cuh
THREADS = 384
ROUNDING_THREADS = 256
DIFFERENCE_ALIGNMENT = 128  # bytes
IN_PLACE_CHANNELS = 64  # every tile has them all, so that nobody reads what another tile writes
UNIT_BYTES, UNIT_MASK_BYTES = 2 * 16384, 2 * 1024  # of two units of 128 pixels x 64 channels, in 16 bits and in one

SLICES = (1, 2, 3, 4, 6, 8, 12)  # of a sum: what an H100 was measured with
NO_DIFFERENCE = 1.01  # in time; the model is no better


class PackedFilters(NamedTuple):
    """A convolution's weights as 16-bit numbers, for both directions: `forward` (C_out, 9, C_in), taps in reading
    order; `backward` (C_in, 9, C_out), turned by 180 degrees. The bias is float32."""

    forward: Array
    backward: Array
    bias: Array
    channels_in: int
    channels_out: int
    element: Element


StyleOperands = tuple[Array, Array]
"""Features (H, W, C_in) in 16 bits, and the difference (C_in, C_in) in float32, symmetric."""


@dataclass(frozen=True)
class Tile:
    """What one block computes at a time, by one of the kernels' variants: `Tile` in cuda/conv3x3/wgmma_sm90.cuh."""

    variant: str
    boxes: int  # side by side
    channels: int
    together: bool  # both consumers at one item, instead of taking turns
    pixel_stages: int
    filter_stages: int
    swap_ab: bool = False  # filters are the rows of a product, and pixels its columns
    masks: int = 1  # that the epilogue of the way back has in shared memory

    @property
    def width(self) -> int:
        return self.boxes * BOX_WIDTH

    @property
    def step_bytes(self) -> int:
        """Loaded for 64 channels of a column of three taps."""
        return (self.boxes * LOADED_ROWS * BOX_WIDTH + 3 * self.channels) * STEP_CHANNELS * ELEMENT_BYTES

    @property
    def shared_bytes(self) -> int:
        row = STEP_CHANNELS * ELEMENT_BYTES
        pixels = self.pixel_stages * self.boxes * LOADED_ROWS * BOX_WIDTH * row
        filters = self.filter_stages * self.channels * row
        barriers = 16 * (self.pixel_stages + self.filter_stages + 6)
        return pixels + filters + UNIT_BYTES + self.masks * UNIT_MASK_BYTES + barriers


TILES = (
    Tile("256x128", 2, 128, True, 3, 5),
    Tile("128x128", 1, 128, False, 4, 7),
    Tile("64x256", 2, 64, False, 4, 6, swap_ab=True),
)


RESIDENT = Tile("64x256_resident", 2, 64, False, 3, 10, swap_ab=True)
"""The last of TILES from 64 channels to 64: a block loads their filters once. Chosen with the launch, where it fits."""


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


# ---- tensor maps ----------------------------------------------------------------------------------------------------
def activations_map(address: int, element: Element, shape: tuple[int, int, int]) -> TensorMap:
    """Of (H, W, C): a box of 64 channels, 8 pixels and 18 rows."""
    height, width, channels = shape
    return TensorMap(address, element, (channels, width, height), (STEP_CHANNELS, BOX_WIDTH, LOADED_ROWS))


def results_map(address: int, element: Element, shape: tuple[int, int, int]) -> TensorMap:
    """Of (H, W, C), for what an epilogue loads and stores: a box of 64 channels, 8 pixels and 16 rows."""
    height, width, channels = shape
    return TensorMap(address, element, (channels, width, height), (STEP_CHANNELS, BOX_WIDTH, BOX_HEIGHT))


def filters_map(address: int, element: Element, channels_in: int, channels_out: int, tile: Tile) -> TensorMap:
    """Of (C_out, 9, C_in): a box of 64 channels of one tap of as many filters as the tile has."""
    return TensorMap(address, element, (channels_in, 9, channels_out), (STEP_CHANNELS, 1, tile.channels))


def difference_map(address: int, element: Element, channels: int, tile: Tile) -> TensorMap:
    """Of (C, C), as if it were filters of one tap."""
    return TensorMap(address, element, (channels, 1, channels), (STEP_CHANNELS, 1, tile.channels))


# ---- filters --------------------------------------------------------------------------------------------------------
def serves(channels_in: int, channels_out: int) -> bool:
    """Whether these kernels can convolve from and to so many channels, in both directions."""
    return channels_in % CHANNELS == 0 and channels_out % CHANNELS == 0


def pack_filters(kernel: NDArray[np.float32], bias: NDArray[np.float32], element: Element) -> PackedFilters:
    """Packs a (3, 3, C_in, C_out) kernel and its (C_out,) bias, in host memory, for both directions."""
    channels_in, channels_out = kernel.shape[2:]
    if not serves(channels_in, channels_out):
        raise ValueError(f"{channels_in} to {channels_out} channels; both must be multiples of {CHANNELS}")
    values = rounded(kernel, element)
    forward = values.reshape(9, channels_in, channels_out).transpose(2, 0, 1)
    backward = values[::-1, ::-1].reshape(9, channels_in, channels_out).transpose(1, 0, 2)
    return PackedFilters(
        np.ascontiguousarray(forward), np.ascontiguousarray(backward), np.ascontiguousarray(bias, np.float32),
        channels_in, channels_out, element,
    )  # fmt: skip


# ---- tiles and slices -----------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1024)
def choose_work(height: int, width: int, channels_in: int, channels_out: int, *, backward: bool = False) -> ConvPlan:
    """The tile and the slices that take least by `wgmma_model`, or the fewest slices that take as little as makes no
    difference.

    A function of the shapes and of the direction alone, so that the same convolution is added up in the same order on
    every GPU.
    """
    shape = height, width, channels_in, channels_out
    epilogue = BACKWARD if backward else FORWARD
    works = [cut_up(tile, *shape, split_k) for tile in TILES for split_k in _worthwhile_slices(tile, *shape)]
    times = {work: predicted(cut_of(work, shape), epilogue) for work in works}
    near = [work for work in works if times[work] <= NO_DIFFERENCE * min(times.values())]
    return min(near, key=lambda work: (work.split_k, times[work]))


def cut_up(tile: Tile, height: int, width: int, channels_in: int, channels_out: int, split_k: int = 1) -> ConvPlan:
    """This tile over everything; every slice has at least one step."""
    if not 1 <= split_k <= _steps(channels_in):
        raise ValueError(f"{split_k} slices of {_steps(channels_in)} steps")
    down, across = ceil_div(height, BOX_HEIGHT), ceil_div(width, tile.width)
    return ConvPlan(tile, down, across, ceil_div(channels_out, tile.channels), split_k)


def cut_of(work: ConvPlan, shape: tuple[int, int, int, int]) -> Cut:
    """The work as the model sees it."""
    tile = work.tile
    k_tiles = ceil_div(_steps(shape[2]), work.split_k)
    pixels = tile.width * BOX_HEIGHT
    return Cut(shape, tile.variant, tile.together, pixels, tile.channels, work.items, k_tiles, work.split_k)


def partial_bytes(work: ConvPlan, height: int, width: int, channels_out: int) -> int:
    """Scratch memory for the sums of the slices; none for a single one."""
    return split_k_bytes(work.split_k, height * width * channels_out)


def workspace_bytes(height: int, width: int, channels_in: int, channels_out: int) -> int:
    """Scratch memory that a convolution of these sizes needs, forward and backward."""
    forward = choose_work(height, width, channels_in, channels_out)
    backward = choose_work(height, width, channels_out, channels_in, backward=True)
    partials = (
        partial_bytes(forward, height, width, channels_out),
        partial_bytes(backward, height, width, channels_in) + _difference_bytes(channels_in),
    )
    return max(partials)


def _difference_bytes(channels: int) -> int:
    """Of a style's difference in 16 bits, wherever it begins."""
    return channels * channels * ELEMENT_BYTES + DIFFERENCE_ALIGNMENT


def _difference_memory(workspace: Array | None, before: int, channels: int) -> Array:
    """The end of the workspace, for a difference of so many channels, with `before` bytes of others before it."""
    needed = before + _difference_bytes(channels)
    if workspace is None or workspace.nbytes < needed:
        raise ValueError(f"the workspace has {0 if workspace is None else workspace.nbytes} bytes of {needed}")
    size = channels * channels * ELEMENT_BYTES
    start = (workspace.nbytes - size) // DIFFERENCE_ALIGNMENT * DIFFERENCE_ALIGNMENT
    return workspace[start : start + size].view(np.uint16).reshape(channels, channels)


# ---- launches -------------------------------------------------------------------------------------------------------
def conv3x3_relu(x: Array, filters: PackedFilters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                 pooled: Array | None, pool_argmax: Array | None, workspace: Array | None, target: Target,
                 work: ConvPlan | None = None, resident: bool = True) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_relu` on 16-bit activations; `workspace` is uint8, `workspace_bytes` long.

    Arrays begin at multiples of 16 bytes, and the caller keeps `x` alive, for the launches hold but its address. `work`
    and `resident` are for tests and benchmarks; None chooses. Raises ValueError for a workspace too small, DeviceError
    from the driver.
    """
    height, width, channels_in = x.shape
    channels_out = filters.channels_out
    work = work or choose_work(height, width, channels_in, channels_out)
    partials = partials_in(workspace, partial_bytes(work, height, width, channels_out))
    outputs = (filters.bias, out, relu_mask, pooled, pool_argmax)
    average = np.int32(pooling == "average")
    work = _with_resident_filters(work, channels_in, resident)
    maps = operand_maps(x, filters.forward, filters.element, work.tile, target)
    args = (*maps, *outputs, partials, *int32s(height, width, channels_in, channels_out, work.split_k), average)
    launches = [launch_of("relu", work, filters.element, args, target)]
    if work.split_k > 1:
        sliced = (partials, *outputs, *int32s(work.split_k, height, width, channels_out), average)
        launches.append(_finish("relu", filters.element, (height, width, channels_out), sliced))
    return launches


def conv3x3_input_gradient(gradient: Array, filters: PackedFilters, *, out: Array, relu_mask: Array | None,
                           accumulate: bool, workspace: Array | None, target: Target, work: ConvPlan | None = None,
                           style: StyleOperands | None = None,
                           resident: bool = True) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_input_gradient` on 16-bit gradients; otherwise as `conv3x3_relu`.

    The style's difference is rounded to bf16 into the end of the workspace. `out` may be its features where they have
    IN_PLACE_CHANNELS at most.
    """
    height, width, channels_out = gradient.shape
    channels_in = filters.channels_in
    work = work or choose_work(height, width, channels_out, channels_in, backward=True)
    partials = partials_in(workspace, partial_bytes(work, height, width, channels_in))
    work = _with_resident_filters(work, channels_out, resident)
    maps = operand_maps(gradient, filters.backward, filters.element, work.tile, target)
    results = target.encode(results_map(target.address(out), filters.element, out.shape))
    launches, of_style, style_k_tiles = [], maps, 0
    if style is not None:
        features, gram_error = style
        held = _difference_memory(workspace, partial_bytes(work, height, width, channels_in), channels_in)
        grid = (ceil_div(held.size, 4 * ROUNDING_THREADS), 1, 1)
        rounding = (gram_error, held, np.int32(held.size))
        launches.append(Launch(ROUND_GRAM_ERROR[filters.element], grid, (ROUNDING_THREADS, 1, 1), rounding))
        style_k_tiles = ceil_div(channels_in, STEP_CHANNELS)
        of_style = (
            target.encode(activations_map(target.address(features), filters.element, features.shape)),
            target.encode(difference_map(target.address(held), filters.element, channels_in, work.tile)),
        )
    sizes = int32s(height, width, channels_out, channels_in, work.split_k, accumulate, style_k_tiles)
    args = (*maps, results, *of_style, relu_mask, partials, *sizes)
    launches.append(launch_of("input_gradient", work, filters.element, args, target))
    if work.split_k > 1:
        sliced = (partials, out, relu_mask, *int32s(work.split_k, height, width, channels_in), np.int32(accumulate))
        launches.append(_finish("input_gradient", filters.element, (height, width, channels_in), sliced))
    return launches


def _with_resident_filters(work: ConvPlan, channels_in: int, resident: bool) -> ConvPlan:
    """The same work with filters that stay, where these are of 64 channels to 64 and the sum is in one slice."""
    fits = work.tile == TILES[-1] and channels_in <= STEP_CHANNELS and work.channel_tiles == work.split_k == 1
    return work._replace(tile=RESIDENT) if fits and resident else work


def operand_maps(
    x: Array, filters: Array, element: Element, tile: Tile, target: Target
) -> tuple[NDArray[Any], NDArray[Any]]:
    channels_out, _, channels_in = filters.shape
    of_pixels = activations_map(target.address(x), element, x.shape)
    of_filters = filters_map(target.address(filters), element, channels_in, channels_out, tile)
    return target.encode(of_pixels), target.encode(of_filters)


def launch_of(operation: str, work: ConvPlan, element: Element, args: tuple[object, ...], target: Target) -> Launch:
    kernel = WGMMA_SM90[operation, element, work.tile.variant]
    grid = (min(work.items, target.multiprocessors), 1, 1)
    return Launch(kernel, grid, (THREADS, 1, 1), args, work.tile.shared_bytes)


def _finish(operation: str, element: Element, shape: tuple[int, int, int], args: tuple[object, ...]) -> Launch:
    return Launch(WGMMA_SM90[operation, element, "split_k_sum"], finish_grid(*shape), (256, 1, 1), args)


def _worthwhile_slices(tile: Tile, height: int, width: int, channels_in: int, channels_out: int) -> list[int]:
    """Of SLICES, as many as one wave of blocks has room for, and none without two steps."""
    items = cut_up(tile, height, width, channels_in, channels_out).items
    most = min(MULTIPROCESSORS // items, _steps(channels_in) // 2)
    return [split_k for split_k in SLICES if split_k <= max(1, most)]


def _steps(channels_in: int) -> int:
    return 3 * ceil_div(channels_in, STEP_CHANNELS)
