"""Launching the 3x3 convolutions (cuda/conv3x3/simt.cu, cuda/conv3x3/rgb_simt.cu): filters, layouts, tiles and grids.

Everything here is arithmetic on shapes and needs no GPU; carrying out the launches is the runtime's business.

A convolution is an implicit matrix product of H W pixels by 9 C_in by C_out. A tile of 128 pixels x 128 channels loads
(128 + 128) x 8 floats, 8 KB, for 128 x 128 x 8 multiply-adds: 32 FLOP per byte asked of L1 and L2, and since all nine
taps of eight channels follow each other, L1 answers most of the pixels' half. 128x64 has 21 FLOP per byte, 128x32 13.
Device memory sees each activation about once: 9 C_in C_out / (2 (C_in + C_out)) FLOP per byte, 144 at 64 channels and
more above, so FFMA bounds these kernels. The ends are another matter: from three channels to 64 is 13.5 FLOP per byte
written, and the gradient back to them 13.5 per byte read, about where the fp32 rate and the memory of a recent GPU
balance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...device import Array, Layout, Pooling
from ..gpu_spec import SIMT_MULTIPROCESSORS
from ..runtime.launch import Launch
from ..split_k import ceil_div, partials_in, split_k_bytes
from .kernel_names import SIMT

DEPTH = 8  # input channels per step of the main loop: `simt::block_k` in cuda/common/gemm_simt.cuh
IMAGE_CHANNELS = 3  # an input of this many channels is an image, and has kernels of its own
WORTH_SPLITTING = 16  # steps; shorter slices of the sum cost more to keep and add up than they save


class PackedFilters(NamedTuple):
    """A convolution's weights as the kernels walk through them, float32.

    Ordinarily the rows of `forward` are (ceil(C_in / 8), 9, 8): eight input channels' nine taps, before the next eight;
    then eight rows more, which the main loop fetches and never uses. Its columns are C_out padded to 4. `backward` is
    the same with the taps turned by 180 degrees and the channels swapped. Of an image's convolution, `forward` is
    (27, C_out padded to 4) and `backward` (27, C_out padded to 8), rows (r, s, c). Padding is zero.
    """

    forward: Array
    backward: Array
    bias: Array  # padded to a multiple of 4
    channels_in: int
    channels_out: int


@dataclass(frozen=True)
class Tile:
    """The share of one block: `pixels` x `channels` sums, by one of the kernels' variants."""

    variant: str
    pixels: int
    channels: int
    threads: int
    resident: int  # blocks that a multiprocessor holds at once
    efficiency: float  # expected share of the FFMA rate, relative to the widest tile


TILES = (
    Tile("128x128", 128, 128, 256, 2, 1.0),
    Tile("128x64", 128, 64, 128, 3, 0.95),
    Tile("128x32", 128, 32, 64, 6, 0.8),
)
ANY_TILE = Tile("128x64_any", 128, 64, 128, 3, 0.6)  # for input channels that are no multiple of four


class ConvPlan(NamedTuple):
    """A convolution cut up: `down` x `across` tiles, the sum over taps and channels in `slices`."""

    tile: Tile
    down: int
    across: int
    split_k: int

    @property
    def grid(self) -> tuple[int, int, int]:
        return (self.down, self.across, self.split_k)

    @property
    def rows(self) -> int:
        return self.down * self.tile.pixels


def relu_mask_layout(shape: tuple[int, int, int]) -> Layout:
    """(H, W, ceil(C / 8)) bytes: bit c % 8 of byte c / 8 says that channel c is positive."""
    height, width, channels = shape
    return (height, width, ceil_div(channels, 8)), np.dtype(np.uint8)


def pool_argmax_layout(pooled_shape: tuple[int, int, int]) -> Layout:
    """(H, W, ceil(C / 4)) bytes: bits 2 (c % 4) and up of byte c / 4 are 2 r + s of channel c's first maximum."""
    height, width, channels = pooled_shape
    return (height, width, ceil_div(channels, 4)), np.dtype(np.uint8)


def as_own(filters: object) -> PackedFilters:
    """Raises ValueError for filters of another launcher's."""
    if not isinstance(filters, PackedFilters):
        raise ValueError("these filters were packed by a device whose kernels this one does not use")
    return filters


def pack_filters(kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> PackedFilters:
    """Packs a (3, 3, C_in, C_out) kernel and its (C_out,) bias, in host memory, for both directions."""
    _, _, channels_in, channels_out = kernel.shape
    turned = kernel[::-1, ::-1]
    if channels_in == IMAGE_CHANNELS:
        forward = _pad(kernel.reshape(27, channels_out), 1, 4)
        backward = _pad(turned.reshape(27, channels_out), 1, 8)
    else:
        forward = _blocks_of_channels(kernel.reshape(9, channels_in, channels_out))
        backward = _blocks_of_channels(turned.reshape(9, channels_in, channels_out).swapaxes(1, 2))
    return PackedFilters(forward, backward, _pad(bias, 0, 4), channels_in, channels_out)


def choose_tile(height: int, width: int, channels_in: int, channels_out: int, taps: int = 9) -> ConvPlan:
    """The tile with the least padded work for its efficiency, and as many slices as one wave of blocks has room for.

    A function of the shapes alone, so that the same convolution is added up in the same order on every GPU. With one
    tap instead of nine it is the style gradient, which has no widest tile: its checks would not fit the registers.
    """
    candidates = (ANY_TILE,) if channels_in % 4 else TILES if taps == 9 else TILES[1:]

    def cost(tile: Tile) -> float:
        return ceil_div(channels_out, tile.channels) * tile.channels / tile.efficiency

    tile = min(candidates, key=cost)
    squares = ceil_div(height, 2) * ceil_div(width, 2)
    down, across = ceil_div(squares * 4, tile.pixels), ceil_div(channels_out, tile.channels)
    steps = taps * ceil_div(channels_in, DEPTH)
    split_k = min(SIMT_MULTIPROCESSORS * tile.resident // (down * across), steps // WORTH_SPLITTING)
    return ConvPlan(tile, down, across, max(1, split_k))


def partial_bytes(work: ConvPlan, channels_out: int) -> int:
    """Scratch memory for the sums of the slices; none for a single one."""
    return split_k_bytes(work.split_k, work.rows * ceil_div(channels_out, 4) * 4)


def workspace_bytes(height: int, width: int, channels_in: int, channels_out: int) -> int:
    """Scratch memory that a convolution of these sizes needs, forward and backward."""
    if channels_in == IMAGE_CHANNELS:
        return 0
    return max(
        partial_bytes(choose_tile(height, width, channels_in, channels_out), channels_out),
        partial_bytes(choose_tile(height, width, channels_out, channels_in), channels_in),
    )


def conv3x3_relu(x: Array, filters: PackedFilters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                 pooled: Array | None, pool_argmax: Array | None, workspace: Array | None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_relu`; `workspace` is uint8, `workspace_bytes` long."""
    height, width, channels_in = x.shape
    channels_out = filters.channels_out
    average = np.int32(pooling == "average")
    outputs = (filters.bias, out, relu_mask, pooled, pool_argmax)
    sizes = (np.int32(height), np.int32(width))
    if channels_in == IMAGE_CHANNELS:
        grid = (ceil_div(width, 16), ceil_div(height, 8), ceil_div(channels_out, 64))
        image_args = (x, filters.forward, *outputs, *sizes, np.int32(channels_out), average)
        return [Launch(SIMT["relu", "rgb"], _flat(grid), (256, 1, 1), image_args)]
    work = choose_tile(height, width, channels_in, channels_out)
    partials = partials_in(workspace, partial_bytes(work, channels_out))
    launch = Launch(
        SIMT["relu", work.tile.variant],
        work.grid,
        (work.tile.threads, 1, 1),
        (x, filters.forward, *outputs, partials, *sizes, *_walk(width, channels_in, channels_out), average),
    )
    if work.split_k == 1:
        return [launch]
    args = (partials, *outputs, np.int32(work.split_k), np.int32(work.rows), *sizes, np.int32(channels_out), average)
    grid = slices_grid(height, width, channels_out)
    return [launch, Launch(SIMT["relu", "split_k_sum"], grid, (256, 1, 1), args)]


def conv3x3_input_gradient(gradient: Array, filters: PackedFilters, *, out: Array, relu_mask: Array | None,
                           accumulate: bool, workspace: Array | None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_input_gradient`; `workspace` is uint8, `workspace_bytes` long."""
    height, width, channels_out = gradient.shape
    channels_in = filters.channels_in
    if channels_in == IMAGE_CHANNELS:
        grid = (ceil_div(width, 32), ceil_div(height, 16), 1)
        args = (gradient, filters.backward, out, relu_mask, np.int32(height), np.int32(width), np.int32(channels_out),
                np.int32(accumulate))  # fmt: skip
        return [Launch(SIMT["input_gradient", "rgb"], _flat(grid), (128, 1, 1), args)]
    work = choose_tile(height, width, channels_out, channels_in)
    partials = partials_in(workspace, partial_bytes(work, channels_in))
    launch = Launch(
        SIMT["input_gradient", work.tile.variant],
        work.grid,
        (work.tile.threads, 1, 1),
        (gradient, filters.backward, out, relu_mask, partials, np.int32(height), np.int32(width),
         *_walk(width, channels_out, channels_in), np.int32(accumulate)),
    )  # fmt: skip
    return [launch, *add_slices(work, partials, out, relu_mask, accumulate)]


def add_slices(
    work: ConvPlan, partials: Array | None, out: Array, relu_mask: Array | None, accumulate: bool
) -> list[Launch]:
    """The second launch, if there are slices: out := (their sum [+ out]) [* relu_mask]."""
    if work.split_k == 1:
        return []
    height, width, channels = out.shape
    args = (partials, out, relu_mask, np.int32(work.split_k), np.int32(work.rows), np.int32(height), np.int32(width),
            np.int32(channels), np.int32(accumulate))  # fmt: skip
    grid = slices_grid(height, width, channels)
    return [Launch(SIMT["input_gradient", "split_k_sum"], grid, (256, 1, 1), args)]


def _walk(width: int, channels: int, channels_out: int) -> tuple[np.int32, ...]:
    """The channels, the filters' columns, and how far apart neighbouring taps are in the input (Walk in
    implicit_gemm_simt.cuh)."""
    next_row = (width - 2) * channels
    next_channels = DEPTH - (2 * width + 2) * channels
    return (np.int32(channels), np.int32(channels_out), np.int32(ceil_div(channels_out, 4) * 4), np.int32(next_row),
            np.int32(next_channels))  # fmt: skip


def slices_grid(height: int, width: int, channels: int) -> tuple[int, int, int]:
    """Of the launch that adds parts up: a thread for four channels of a 2x2 square of pixels."""
    threads = ceil_div(height, 2) * ceil_div(width, 2) * ceil_div(channels, 8) * 2
    return (ceil_div(threads, 256), 1, 1)


def _flat(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """All in x, whose limit is 2^31 and not 65535; kernels take it apart again."""
    return (grid[0] * grid[1] * grid[2], 1, 1)


def _blocks_of_channels(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(9, C, K) with rows (ceil(C / 8), 9, 8) and 8 more, and K padded to 4."""
    padded = _pad(_pad(kernel, 1, DEPTH), 2, 4)
    columns = padded.shape[2]
    rows = padded.reshape(9, -1, DEPTH, columns).swapaxes(0, 1).reshape(-1, columns)
    return np.concatenate([rows, np.zeros((DEPTH, columns), np.float32)])


def _pad(values: NDArray[np.float32], axis: int, multiple: int) -> NDArray[np.float32]:
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, -values.shape[axis] % multiple)
    return np.ascontiguousarray(np.pad(values, widths), np.float32)
