"""Launching the Gram matrix and the style gradient on tensor cores (cuda/gram/mma_sm80.cuh): tiles, slices, grids.

Everything here is arithmetic on shapes and needs no GPU; carrying out the launches is the runtime's business. `gram`
has the same operations in fp32, and the means of features.

What is rounded, besides the features, which are in memory as a precision keeps them. Sums are float32 throughout. tf32
takes 11 bits of features, and 3xtf32 all of them. A pixel's weight multiplies one operand of the Gram matrix, in
float32; the product is rounded as products take it, which changes each term by at most 2^-8 of it in bf16, 2^-11 in
fp16 and tf32 and 2^-24 in 3xtf32, at random from pixel to pixel. The difference is rounded to the same 8, 11, 11 or 24
bits of each of its numbers, column by column at a scale of its own: a number less than a 2^29th of its column's largest
loses more of them in fp16, and in the others none does. What is too small for fp16 is lost only where `out` is kept in
it, which `factor` is for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...device import Array
from ..conv3x3.launch_mma_sm80 import CHANNELS_MULTIPLE
from ..conv3x3.tile_model import CHANNEL_GROUP, PRODUCTS, ROW_BYTES
from ..gpu_spec import GpuSpec
from ..runtime.launch import Launch
from ..split_k import ceil_div, check_workspace
from ..storage import MEMORY
from .kernel_names import GRAM_MMA_SM80, PACK_GRAM_ERROR_MMA_SM80, STYLE_GRADIENT_MMA_SM80
from .launch_simt import GramPlan, add_slices

OPERAND_BYTES = 8192  # of a step of the Gram matrix: `operand_bytes` in cuda/gram/mma_sm80.cuh
GRAM_STAGES, STYLE_STAGES, SYNCHRONOUS_STAGES = 4, 3, 2  # of the rings; the last where copies cannot run ahead
WORTH_SPLITTING = 8  # steps; what a shorter slice saves is lost in adding it up
PIXELS = 128  # of a tile of the style gradient
PACKED_COLUMNS, PACKING_THREADS = 8, 256  # of a block that packs the difference


def serves(channels: int, precision: str) -> bool:
    """Whether these kernels take features of so many channels: eight at a time, and in a precision of tensor cores."""
    return precision in MEMORY and channels % CHANNELS_MULTIPLE == 0


def choose_gram(height: int, width: int, channels: int, precision: str, spec: GpuSpec) -> GramPlan:
    """Narrow tiles where wide ones would be mostly padding, or would spill; slices until every multiprocessor has one
    block of the wide or two of the narrow, as long as each has a few steps."""
    wide = channels > 64 and precision != "3xtf32"
    side, resident = (128, 1) if wide else (64, 2)
    across = ceil_div(channels, side)
    tiles = across * (across + 1) // 2
    steps = ceil_div(height * width, _depth(side, precision))
    split_k = max(1, min(spec.multiprocessors * resident // tiles, steps // WORTH_SPLITTING))
    return GramPlan(f"{side}x{side}", side, 2 * side, resident, tiles, split_k)


def gram_workspace_bytes(height: int, width: int, channels: int, precision: str, spec: GpuSpec) -> int:
    """Scratch memory that `gram` needs for features of this shape."""
    return choose_gram(height, width, channels, precision, spec).nbytes


def gram(features: Array, out: Array, weights: Array | None, workspace: Array, precision: str,
         spec: GpuSpec) -> list[Launch]:  # fmt: skip
    """`Device.gram`: features (H, W, C) in MEMORY[precision], out (C, C) and weights (H, W) float32; `workspace` is
    uint8, `gram_workspace_bytes` long. Raises ValueError for one that is shorter."""
    height, width, channels = features.shape
    work = choose_gram(height, width, channels, precision, spec)
    check_workspace(workspace, work.nbytes)
    operands = 1 if channels <= work.side else 2
    weights_bytes = _depth(work.side, precision) * 4
    shared_bytes = _stages(GRAM_STAGES, spec) * (operands * OPERAND_BYTES + weights_bytes)
    args = (features, weights, workspace, np.int32(height * width), np.int32(channels))
    grid = (work.tiles, work.split_k, 1)
    products = Launch(GRAM_MMA_SM80[precision, work.variant], grid, (work.threads, 1, 1), args, shared_bytes)
    return [products, add_slices(work, features.shape, workspace, out)]


class StyleWork(NamedTuple):
    """The product of features and difference cut up: `down` x `across` tiles of PIXELS x `channels`."""

    channels: int
    down: int
    across: int
    shared_bytes: int

    @property
    def threads(self) -> int:
        return 2 * self.channels


def choose_style_gradient(height: int, width: int, channels: int, precision: str, spec: GpuSpec) -> StyleWork:
    """Wide tiles, which ask less of L2, unless narrow ones keep the busiest multiprocessor less long."""
    down = ceil_div(height * width, PIXELS)
    groups = ceil_div(channels, CHANNEL_GROUP)

    def cost(width: int) -> int:
        return ceil_div(down * groups * CHANNEL_GROUP // width, spec.multiprocessors) * width

    wide = 2 * CHANNEL_GROUP
    tile = wide if groups % 2 == 0 and cost(wide) <= cost(CHANNEL_GROUP) else CHANNEL_GROUP
    steps = ceil_div(channels, PRODUCTS[precision].row_channels)
    shared_bytes = min(steps, _stages(STYLE_STAGES, spec)) * (PIXELS + tile) * ROW_BYTES
    return StyleWork(tile, down, groups * CHANNEL_GROUP // tile, shared_bytes)


def style_gradient_workspace_bytes(channels: int, precision: str) -> int:
    """Scratch memory that `style_gradient` needs: the packed difference, and a scale for each of its columns."""
    columns = ceil_div(channels, CHANNEL_GROUP) * CHANNEL_GROUP
    blocks = ceil_div(channels, PRODUCTS[precision].row_channels)
    return columns * (blocks * ROW_BYTES + 4)


def style_gradient(features: Array, gram_error: Array, *, out: Array, accumulate: bool, mean_error: Array | None,
                   weights: Array | None, workspace: Array, precision: str, spec: GpuSpec,
                   factor: float = 1.0) -> list[Launch]:  # fmt: skip
    """`Device.style_gradient`, times `factor`: features and out (H, W, C) in MEMORY[precision], difference (C, C),
    mean_error (C,) and weights (H, W) float32; `workspace` is uint8, `style_gradient_workspace_bytes` long. Raises
    ValueError for one that is shorter."""
    height, width, channels = features.shape
    work = choose_style_gradient(height, width, channels, precision, spec)
    check_workspace(workspace, style_gradient_workspace_bytes(channels, precision))
    columns = ceil_div(channels, CHANNEL_GROUP) * CHANNEL_GROUP
    grid = (columns // PACKED_COLUMNS, 1, 1)
    args = (gram_error, workspace, np.int32(channels))
    packing = Launch(PACK_GRAM_ERROR_MMA_SM80[precision], grid, (PACKING_THREADS, 1, 1), args)
    name = STYLE_GRADIENT_MMA_SM80[precision, f"{PIXELS}x{work.channels}"]
    sizes = (np.int32(height * width), np.int32(channels), np.float32(factor), np.int32(accumulate))
    grid, block = (work.down * work.across, 1, 1), (work.threads, 1, 1)
    return [
        packing,
        Launch(name, grid, block, (features, workspace, mean_error, weights, out, *sizes), work.shared_bytes),
    ]


def _depth(side: int, precision: str) -> int:
    """Pixels of a step of the Gram matrix."""
    return OPERAND_BYTES // (side * PRODUCTS[precision].itemsize)


def _stages(stages: int, spec: GpuSpec) -> int:
    return stages if spec.capability >= 80 else SYNCHRONOUS_STAGES
