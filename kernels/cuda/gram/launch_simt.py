"""Launching the moments of features and the style gradient (cuda/gram/simt.cu): tiles, slices of pixels, grids.

Everything here is arithmetic on shapes and needs no GPU; carrying out the launches is the runtime's business.

G = F^T F reads C floats per pixel for C (C + 1) FLOP on and above the diagonal: (C + 1) / 4 FLOP per byte of device
memory, 16 at 64 channels and 128 at 512, so that memory bounds the first layer about as much as FFMA does, and FFMA the
others. Tiles of 128x128 do 32 FLOP per byte asked of L1 and L2, those of 64x64 16. F D does C / 4 FLOP per byte of
device memory, on the tiles of the convolutions. The mean is one addition a number read: memory alone bounds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...device import Array
from ..conv3x3.launch_simt import DEPTH, choose_tile, partial_bytes, slices_grid
from ..gpu_spec import SIMT_MULTIPROCESSORS
from ..grids import BLOCK
from ..runtime.launch import Launch
from ..split_k import ceil_div, check_workspace, partials_in
from .kernel_names import GRAM_SIMT, GRAM_SPLIT_K_SUM, GRAM_WEIGHTED_SIMT, MEAN, STYLE_GRADIENT_SIMT

WORTH_SPLITTING = 16  # steps of DEPTH pixels; what a shorter slice saves is lost in adding it up
MEAN_CHANNELS, MEAN_PIXELS = 64, 64  # of a block that adds up pixels: all its channels, and at least so many pixels
NARROW_SIDE = 64  # of the tiles for few channels
SUM_THREADS = 256  # of a block that adds slices up, each for four elements: `sum_threads` in cuda/gram/simt.cu
SUM_WAVE = 8 * SIMT_MULTIPROCESSORS  # such blocks that a GPU holds at once


class GramPlan(NamedTuple):
    """A Gram matrix cut up: `tiles` of side x side on and above the diagonal, the sum over pixels in `slices`."""

    variant: str
    side: int
    threads: int
    resident: int  # blocks that a multiprocessor holds at once
    tiles: int
    split_k: int

    @property
    def nbytes(self) -> int:
        return self.tiles * self.split_k * self.side**2 * 4


def choose_gram(height: int, width: int, channels: int) -> GramPlan:
    """Narrow tiles where wide ones would be mostly padding, and slices until a GPU is full; of the shapes alone."""
    if channels % 4:
        variant, side, threads, resident = "64x64_any", NARROW_SIDE, 64, 6
    elif channels <= 64:
        variant, side, threads, resident = "64x64", NARROW_SIDE, 64, 6
    else:
        variant, side, threads, resident = "128x128", 128, 256, 2
    across = ceil_div(channels, side)
    tiles = across * (across + 1) // 2
    steps = -(-height * width // DEPTH)
    split_k = min(SIMT_MULTIPROCESSORS * resident // tiles, steps // WORTH_SPLITTING)
    return GramPlan(variant, side, threads, resident, tiles, max(1, split_k))


def gram_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `gram` needs for features of this shape."""
    return choose_gram(height, width, channels).nbytes


def gram(features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
    """`Device.gram`; `workspace` is uint8, `gram_workspace_bytes` long."""
    height, width, channels = features.shape
    work = choose_gram(height, width, channels)
    check_workspace(workspace, work.nbytes)
    products = Launch(
        (GRAM_SIMT if weights is None else GRAM_WEIGHTED_SIMT)[work.variant],
        (work.tiles, work.split_k, 1),
        (work.threads, 1, 1),
        (features, *(() if weights is None else (weights,)), workspace, np.int32(height * width), np.int32(channels)),
    )
    return [products, add_slices(work, features.shape, workspace, out)]


def add_slices(work: GramPlan, shape: tuple[int, int, int], workspace: Array, out: Array) -> Launch:
    """Adds up what the slices of a Gram have left in the workspace, for features of (H, W, C) `shape`.

    Sixteen threads share the slices of an element, or four, where that alone fills the GPU; sums are the same.
    """
    height, width, channels = shape
    blocks = {ranks: work.side**2 * ranks // (4 * SUM_THREADS) for ranks in GRAM_SPLIT_K_SUM}
    ranks = 16 if work.tiles * blocks[16] <= SUM_WAVE else 4
    sizes = (np.int32(work.split_k), np.int32(work.side), np.int32(channels), np.float32(1 / (height * width)))
    grid, args = (work.tiles, blocks[ranks], 1), (workspace, out, *sizes)
    return Launch(GRAM_SPLIT_K_SUM[ranks], grid, (SUM_THREADS, 1, 1), args)


def mean_slices(height: int, width: int, channels: int) -> int:
    """Blocks that share the pixels of a mean: eight for each multiprocessor, of MEAN_PIXELS pixels at least."""
    groups = ceil_div(channels, MEAN_CHANNELS)
    return max(1, min(8 * SIMT_MULTIPROCESSORS // groups, height * width // MEAN_PIXELS))


def mean_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `mean` needs for features of this shape."""
    return mean_slices(height, width, channels) * channels * 4


def mean(features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
    """`Device.mean`; `workspace` is uint8, `mean_workspace_bytes` long."""
    kernel = MEAN["fp32_any" if features.shape[2] % 4 else "fp32"]
    return _mean(kernel, features, out, weights, workspace)


def mean_16bit(features: Array, out: Array, weights: Array | None, workspace: Array, precision: str) -> list[Launch]:
    """`mean` of features in bf16 or fp16."""
    return _mean(MEAN[precision], features, out, weights, workspace)


def _mean(kernel: str, features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
    height, width, channels = features.shape
    split_k = mean_slices(height, width, channels)
    check_workspace(workspace, mean_workspace_bytes(height, width, channels))
    sizes = (np.int32(height * width), np.int32(channels))
    grid = (ceil_div(channels, MEAN_CHANNELS), split_k, 1)
    adds = (workspace, out, np.int32(split_k), np.int32(channels), np.float32(1 / (height * width)))
    return [
        Launch(kernel, grid, BLOCK, (features, weights, workspace, *sizes)),
        Launch("mean_split_k_sum", (ceil_div(channels, 8), 1, 1), BLOCK, adds),
    ]


def style_gradient_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `style_gradient` needs for features of this shape."""
    return partial_bytes(choose_tile(height, width, channels, channels, taps=1), channels)


def style_gradient(features: Array, gram_error: Array, *, out: Array, accumulate: bool, mean_error: Array | None,
                   weights: Array | None, workspace: Array | None) -> list[Launch]:  # fmt: skip
    """`Device.style_gradient`; `workspace` is uint8, `style_gradient_workspace_bytes` long."""
    height, width, channels = features.shape
    work = choose_tile(height, width, channels, channels, taps=1)
    partials = partials_in(workspace, partial_bytes(work, channels))
    sizes = (np.int32(height), np.int32(width), np.int32(channels), np.int32(accumulate))
    args = (features, gram_error, mean_error, weights, out, partials, *sizes)
    launch = Launch(STYLE_GRADIENT_SIMT[work.tile.variant], work.grid, (work.tile.threads, 1, 1), args)
    if work.split_k == 1:
        return [launch]
    adds = (partials, mean_error, weights, out, np.int32(work.split_k), np.int32(work.rows), *sizes)
    return [launch, Launch("style_gradient_simt_split_k_sum", slices_grid(height, width, channels), BLOCK, adds)]
