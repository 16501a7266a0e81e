"""Launching the costs and the gradients they send back (costs/terms.cu, costs/terms_16bit.cuh); the distance of
Wasserstein has a folder of its own.

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked.
"""

import numpy as np

from ...device import Array
from ..grids import BLOCK, MOST_PARTIALS, Sums, grid_of, reduction_grid, rows_grid
from ..runtime.launch import Launch
from .kernel_names import CONTENT_COST, CONTENT_GRADIENT


def style_cost(gram: Array, target: Array, scale: float, cost: Array, gram_error: Array, accumulate: bool,
               sums: Sums) -> list[Launch]:  # fmt: skip
    total = sums.args(1 / (4 * gram.size), cost)
    args = (gram, target, np.int64(gram.size), np.float32(scale), gram_error, *total, np.int32(accumulate))
    return [Launch("style_cost", reduction_grid(gram.size), BLOCK, args)]


def moments_cost(gram: Array, mean: Array, target_gram: Array, target_mean: Array, scale: float, cost: Array,
                 gram_error: Array, mean_error: Array, accumulate: bool, sums: Sums) -> list[Launch]:  # fmt: skip
    total = sums.args(1 / (4 * gram.size), cost)
    args = (gram, mean, target_gram, target_mean, np.int32(len(gram)), np.float32(scale), gram_error, mean_error,
            *total, np.int32(accumulate))  # fmt: skip
    return [Launch("moments_cost", rows_grid(len(gram)), BLOCK, args)]


def content_cost(features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                 sums: Sums) -> list[Launch]:  # fmt: skip
    grid, total = reduction_grid(features.size), sums.args(scale / 2, cost)
    if weights is None:
        return [Launch(CONTENT_COST["fp32"], grid, BLOCK, (features, target, np.int64(features.size), *total))]
    variant, count, per_pixel = _by_weight(features)
    return [Launch(CONTENT_COST[variant], grid, BLOCK, (features, target, weights, count, per_pixel, *total))]


def content_cost_16bit(features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                       sums: Sums, precision: str) -> list[Launch]:  # fmt: skip
    """`content_cost` of features in bf16 or fp16."""
    args = (features, target, weights, *_in_eights(features), *sums.args(scale / 2, cost))
    return [Launch(CONTENT_COST[precision], reduction_grid(features.size), BLOCK, args)]


def content_gradient(features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                     weights: Array | None) -> list[Launch]:  # fmt: skip
    grid, rest = grid_of(out.size, 4), (np.float32(scale), out, np.int32(accumulate))
    if weights is None:
        return [Launch(CONTENT_GRADIENT["fp32"], grid, BLOCK, (features, target, np.int64(out.size), *rest))]
    variant, count, per_pixel = _by_weight(features)
    return [Launch(CONTENT_GRADIENT[variant], grid, BLOCK, (features, target, weights, count, per_pixel, *rest))]


def content_gradient_16bit(features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                           weights: Array | None, precision: str) -> list[Launch]:  # fmt: skip
    """`content_gradient` of features in bf16 or fp16."""
    args = (features, target, weights, *_in_eights(features), np.float32(scale), out, np.int32(accumulate))
    return [Launch(CONTENT_GRADIENT[precision], grid_of(out.size, 8), BLOCK, args)]


def tv_cost(image: Array, scale: float, cost: Array, gradient: Array, sums: Sums) -> list[Launch]:
    height, width, _ = image.shape
    pairs = (3 * height * (width - 1), 3 * (height - 1) * width)
    across, down = (np.float32(1 / count if count else 0) for count in pairs)
    sizes = (np.int32(height), np.int32(3 * width), across, down, np.float32(scale))
    args = (image, *sizes, gradient, *sums.args(1, cost))
    return [Launch("tv_cost", (min(height, MOST_PARTIALS), 1, 1), BLOCK, args)]


def _by_weight(features: Array) -> tuple[str, np.int64, np.int32]:
    """Of a kernel whose pixels have weights: its variant; and in steps of four channels or one, those of all pixels and
    those of one."""
    channels = features.shape[2]
    variant, step = ("weighted_fp32", 4) if channels % 4 == 0 else ("weighted_fp32_any", 1)
    return variant, np.int64(features.size // step), np.int32(channels // step)


def _in_eights(features: Array) -> tuple[np.int64, np.int32]:
    """Groups of eight channels, of all pixels and of one."""
    return np.int64(features.size // 8), np.int32(features.shape[-1] // 8)
