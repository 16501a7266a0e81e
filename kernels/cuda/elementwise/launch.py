"""Grids and arguments for memory.cu, pool.cu, costs.cu, costs/terms_16bit.cuh, pixels.cu, elementwise/blas1.cu and
resize.cu: everything element by element and every sum; `convolution`, `gram` and `wasserstein` have the products.

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked.
"""

import math
from collections.abc import Sequence

import numpy as np

from ...device import MOST_VECTORS, Array
from ..runtime.launch import Launch
from .kernel_names import (
    AVERAGE_POOL_INPUT_GRADIENT,
    CONTENT_COST,
    CONTENT_GRADIENT,
    COPY_WINDOW,
    MAX_POOL_INPUT_GRADIENT,
    RELU_GRADIENT,
)

THREADS = 256  # of a block
BLOCK = (THREADS, 1, 1)
MOST_BLOCKS = 4096  # several waves on the largest GPU; beyond it the kernels loop
MOST_PARTIALS = 1024  # blocks of a reduction, a float32 each; decides the order of a sum, so not a GPU's own number
WORKSPACE_BYTES = 4 * MOST_PARTIALS


def copy(values: Array, out: Array, aligned: bool = True) -> list[Launch]:
    """Where not both ends are `aligned` to 16 bytes, they are to 4, and so is the length."""
    if not aligned:
        words = np.int64(out.nbytes // 4)
        return [Launch("copy_words", _grid(out.nbytes, 4), BLOCK, (values, out, words))]
    return [Launch("copy_memory", _grid(out.nbytes, 16), BLOCK, (values, out, np.int64(out.nbytes)))]


def copy_window(values: Array, out: Array, aligned: bool) -> list[Launch]:
    """Of arrays whose rows may lie apart; in words of 16 bytes where everything is `aligned` to them, else of 4."""
    word = 16 if aligned else 4
    rows, row_words = len(out), out[0].nbytes // word
    pitches = [np.int64(array.strides[0] // word) for array in (values, out)]
    grid = (math.ceil(row_words / THREADS), min(rows, MOST_BLOCKS), 1)
    return [Launch(COPY_WINDOW[word], grid, BLOCK, (values, out, np.int32(rows), np.int32(row_words), *pitches))]


def zero(out: Array) -> list[Launch]:
    return [Launch("zero_memory", _grid(out.nbytes, 16), BLOCK, (out, np.int64(out.nbytes)))]


def preprocess(image: Array, channels: Sequence[int], scale: Sequence[float], shift: Sequence[float],
               out: Array) -> list[Launch]:  # fmt: skip
    pixels = image.shape[0] * image.shape[1]
    args = (image, out, np.int64(pixels), *map(np.int32, channels), *map(np.float32, scale), *map(np.float32, shift))
    return [Launch("preprocess", _grid(pixels, 1), BLOCK, args)]


def preprocess_gradient(gradient: Array, channels: Sequence[int], scale: Sequence[float], out: Array) -> list[Launch]:
    pixels = gradient.shape[0] * gradient.shape[1]
    args = (gradient, out, np.int64(pixels), *map(np.int32, channels), *map(np.float32, scale))
    return [Launch("preprocess_gradient", _grid(pixels, 1), BLOCK, args)]


def pool_input_gradient(gradient: Array, choice: Array | None, out: Array, mask: Array,
                        accumulate: bool) -> list[Launch]:  # fmt: skip
    """Max pooling where there is a choice, average pooling where there is none."""
    height, width, channels = out.shape
    variant, groups = ("fp32", channels // 4) if channels % 4 == 0 else ("fp32_any", channels)
    kernel = (AVERAGE_POOL_INPUT_GRADIENT if choice is None else MAX_POOL_INPUT_GRADIENT)[variant]
    grid = (math.ceil(math.ceil(width / 2) * groups / THREADS), math.ceil(height / 2), 1)
    sizes = (np.int32(height), np.int32(width), np.int32(channels))
    return [Launch(kernel, grid, BLOCK, (gradient, choice, out, mask, *sizes, np.int32(accumulate)))]


def relu_gradient(gradient: Array, mask: Array) -> list[Launch]:
    height, width, channels = gradient.shape
    grid = _grid(gradient.size, 4)
    if channels % 8 == 0:
        return [Launch(RELU_GRADIENT["fp32"], grid, BLOCK, (gradient, mask, np.int64(mask.size)))]
    args = (gradient, mask, np.int64(height * width), np.int32(channels))
    return [Launch(RELU_GRADIENT["fp32_any"], grid, BLOCK, args)]


def style_cost(gram: Array, target: Array, scale: float, cost: Array, difference: Array, accumulate: bool,
               workspace: Array) -> list[Launch]:  # fmt: skip
    grid = _reduction_grid(gram.size)
    args = (gram, target, np.int64(gram.size), np.float32(scale), difference, workspace, np.int32(accumulate))
    return [Launch("style_cost", grid, BLOCK, args), finish_sums(grid[0], 1, 1 / (4 * gram.size), cost, workspace)]


def moments_cost(gram: Array, mean: Array, target_gram: Array, target_mean: Array, scale: float, cost: Array,
                 difference: Array, shift: Array, accumulate: bool, workspace: Array) -> list[Launch]:  # fmt: skip
    grid = rows_grid(len(gram))
    args = (gram, mean, target_gram, target_mean, np.int32(len(gram)), np.float32(scale), difference, shift, workspace,
            np.int32(accumulate))  # fmt: skip
    return [Launch("moments_cost", grid, BLOCK, args), finish_sums(grid[0], 1, 1 / (4 * gram.size), cost, workspace)]


def content_cost(features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                 workspace: Array, element: str | None = None) -> list[Launch]:  # fmt: skip
    """element: "bf16" or "fp16", of features in 16 bits."""
    grid = _reduction_grid(features.size)
    if element:
        args = (features, target, weights, *_in_eights(features), workspace)
        launch = Launch(CONTENT_COST[element], grid, BLOCK, args)
    elif weights is None:
        launch = Launch(CONTENT_COST["fp32"], grid, BLOCK, (features, target, np.int64(features.size), workspace))
    else:
        variant, count, per_pixel = _by_weight(features)
        args = (features, target, weights, count, per_pixel, workspace)
        launch = Launch(CONTENT_COST[variant], grid, BLOCK, args)
    return [launch, finish_sums(grid[0], 1, scale / 2, cost, workspace)]


def content_gradient(features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                     weights: Array | None, element: str | None = None) -> list[Launch]:  # fmt: skip
    """element: as for `content_cost`."""
    grid, rest = _grid(out.size, 4), (np.float32(scale), out, np.int32(accumulate))
    if element:
        args = (features, target, weights, *_in_eights(features), *rest)
        return [Launch(CONTENT_GRADIENT[element], _grid(out.size, 8), BLOCK, args)]
    if weights is None:
        return [Launch(CONTENT_GRADIENT["fp32"], grid, BLOCK, (features, target, np.int64(out.size), *rest))]
    variant, count, per_pixel = _by_weight(features)
    return [Launch(CONTENT_GRADIENT[variant], grid, BLOCK, (features, target, weights, count, per_pixel, *rest))]


def tv_cost(image: Array, scale: float, cost: Array, gradient: Array, workspace: Array) -> list[Launch]:
    height, width, _ = image.shape
    pairs = (3 * height * (width - 1), 3 * (height - 1) * width)
    across, down = (np.float32(1 / count if count else 0) for count in pairs)
    grid = (min(height, MOST_PARTIALS), 1, 1)
    args = (image, np.int32(height), np.int32(3 * width), across, down, np.float32(scale), gradient, workspace)
    return [Launch("tv_cost", grid, BLOCK, args), finish_sums(grid[0], 1, 1, cost, workspace)]


def adam_step(image: Array, gradient: Array, first: Array, second: Array, step: Array, learning_rate: float,
              beta1: float, beta2: float, epsilon: float) -> list[Launch]:  # fmt: skip
    rates = _adam_rates(learning_rate, beta1, beta2, epsilon)
    args = (image, gradient, first, second, step, np.int64(image.size), *rates)
    return [
        Launch("advance_step", (1, 1, 1), (1, 1, 1), (step,)),
        Launch("adam_step", _grid(image.size, 4), BLOCK, args),
    ]


def adam_iteration(image: Array, gradient: Array, first: Array, second: Array, step: Array, average: Array, good: Array,
                   costs: Array, ring: Array, progress: Array, weights: Array, learning_rate: float, beta1: float,
                   beta2: float, epsilon: float) -> list[Launch]:  # fmt: skip
    record = (costs, np.int32(costs.size), ring, np.int32(len(ring)), progress, step)
    rates = _adam_rates(learning_rate, beta1, beta2, epsilon)
    args = (image, gradient, first, second, average, good, progress, weights, step, np.int64(image.size), *rates)
    return [
        Launch("record_costs", (1, 1, 1), (32, 1, 1), record),
        Launch("adam_iteration", _grid(image.size, 4), BLOCK, args),
    ]


def _adam_rates(learning_rate: float, beta1: float, beta2: float, epsilon: float) -> tuple[np.float32, ...]:
    logs = [math.log(beta) if beta else -math.inf for beta in (beta1, beta2)]
    rates = (learning_rate, beta1, 1 - beta1, logs[0], beta2, 1 - beta2, logs[1], epsilon)
    return tuple(map(np.float32, rates))


def descent_step(image: Array, gradient: Array, learning_rate: float) -> list[Launch]:
    args = (image, gradient, np.int64(image.size), np.float32(learning_rate))
    return [Launch("descent_step", _grid(image.size, 4), BLOCK, args)]


def step_within(image: Array, direction: Array, step: float, out: Array) -> list[Launch]:
    args = (image, direction, np.int64(out.size), np.float32(step), out)
    return [Launch("clamped_step", _grid(out.size, 4), BLOCK, args)]


def free_gradient(image: Array, gradient: Array, out: Array) -> list[Launch]:
    return [Launch("project_gradient", _grid(out.size, 4), BLOCK, (image, gradient, np.int64(out.size), out))]


def weigh(image: Array, weights: Array) -> list[Launch]:
    args = (image, weights, np.int64(image.size), np.int32(image.shape[2]))
    return [Launch("weigh_pixels", _grid(image.size, 1), BLOCK, args)]


def clamp(image: Array) -> list[Launch]:
    return [Launch("clamp_pixels", _grid(image.size, 4), BLOCK, (image, np.int64(image.size)))]


def resize(image: Array, between: Array, out: Array) -> list[Launch]:
    """By way of `between`, (H of out, W of image, 3)."""
    height, width, _ = image.shape
    height_out, width_out, _ = out.shape
    down = (image, between, np.int32(height), np.int32(height_out), np.int32(3 * width))
    across = (between, out, np.int32(width), np.int32(width_out))
    return [
        Launch("resize_down", (math.ceil(3 * width / THREADS), height_out, 1), BLOCK, down),
        Launch("resize_across", (math.ceil(3 * width_out / THREADS), height_out, 1), BLOCK, across),
    ]


def extend(image: Array, out: Array) -> list[Launch]:
    height, width = image.shape[:2]
    border = (out.shape[0] - height) // 2
    args = (image, out, np.int32(height), np.int32(width), np.int32(border))
    return [Launch("pad_edge", _grid(out.size, 1), BLOCK, args)]


def extend_gradient(gradient: Array, out: Array) -> list[Launch]:
    height, width = out.shape[:2]
    border = (gradient.shape[0] - height) // 2
    args = (gradient, out, np.int32(height), np.int32(width), np.int32(border))
    return [Launch("pad_edge_gradient", _grid(out.size, 1), BLOCK, args)]


def blend(values: Array, weight: float, out: Array) -> list[Launch]:
    return [Launch("lerp", _grid(out.size, 4), BLOCK, (values, out, np.int64(out.size), np.float32(weight)))]


def dots(vectors: Array, values: Array, out: Array, workspace: Array) -> list[Launch]:
    """Every vector by as many blocks as keep all partial sums within MOST_PARTIALS."""
    count = len(vectors)
    blocks = min(_grid(values.size, 4)[0], MOST_PARTIALS // count)
    args = (vectors, values, np.int64(values.size), workspace)
    return [Launch("gemv", (blocks, count, 1), BLOCK, args), finish_sums(blocks, count, 1, out, workspace)]


def combine(vectors: Array, coefficients: Sequence[float], out: Array) -> list[Launch]:
    """The coefficients travel in the launch, as a struct."""
    by = np.zeros(1, [("of", np.float32, MOST_VECTORS)])
    by["of"][0, : len(coefficients)] = coefficients
    args = (vectors, by, np.int32(len(vectors)), np.int64(out.size), out)
    return [Launch("linear_combination", _grid(out.size, 4), BLOCK, args)]


def rows_grid(channels: int) -> tuple[int, int, int]:
    """For the kernels of costs.cu and wasserstein/newton_schulz.cu in which a warp takes a row of a square matrix."""
    blocks = math.ceil(channels / (THREADS // 32))
    if blocks > MOST_PARTIALS:
        raise ValueError(f"matrices of {channels} rows need {blocks} partial sums of {MOST_PARTIALS}")
    return (blocks, 1, 1)


def finish_sums(count: int, runs: int, factor: float, out: Array, workspace: Array) -> Launch:
    """out[r] := factor * the sum of the r-th run of `count` partial sums in the workspace."""
    return Launch("finish_sums", (runs, 1, 1), BLOCK, (workspace, np.int32(count), np.float32(factor), out))


def _by_weight(features: Array) -> tuple[str, np.int64, np.int32]:
    """Of a kernel whose pixels have weights: its variant; and in steps of four channels or one, those of all pixels and
    those of one."""
    channels = features.shape[2]
    variant, step = ("weighted_fp32", 4) if channels % 4 == 0 else ("weighted_fp32_any", 1)
    return variant, np.int64(features.size // step), np.int32(channels // step)


def _in_eights(features: Array) -> tuple[np.int64, np.int32]:
    """Groups of eight channels, of all pixels and of one."""
    return np.int64(features.size // 8), np.int32(features.shape[-1] // 8)


def _grid(count: int, per_thread: int) -> tuple[int, int, int]:
    return (max(1, min(math.ceil(count / (per_thread * THREADS)), MOST_BLOCKS)), 1, 1)


def _reduction_grid(count: int) -> tuple[int, int, int]:
    return (min(_grid(count, 4)[0], MOST_PARTIALS), 1, 1)
