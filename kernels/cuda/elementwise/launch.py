"""Launching what works element by element (memory.cu, pixels.cu, pooling.cu, resize.cu, blas1.cu), where a block or two
know nothing of the others; the costs and the optimizers' steps have folders of their own.

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked.
"""

import math
from collections.abc import Sequence

import numpy as np

from ...device import MOST_VECTORS, Array, Pooling
from ..grids import BLOCK, MOST_BLOCKS, MOST_PARTIALS, THREADS, Sums, grid_of
from ..runtime.launch import Launch
from .kernel_names import (
    AVERAGE_POOL,
    AVERAGE_POOL_INPUT_GRADIENT,
    COPY_WINDOW,
    MAX_POOL,
    MAX_POOL_INPUT_GRADIENT,
    RELU_GRADIENT,
)


def copy(values: Array, out: Array, aligned: bool = True) -> list[Launch]:
    """Where not both ends are `aligned` to 16 bytes, they are to 4, and so is the length."""
    if not aligned:
        words = np.int64(out.nbytes // 4)
        return [Launch("copy_words", grid_of(out.nbytes, 4), BLOCK, (values, out, words))]
    return [Launch("copy_memory", grid_of(out.nbytes, 16), BLOCK, (values, out, np.int64(out.nbytes)))]


def copy_window(values: Array, out: Array, aligned: bool) -> list[Launch]:
    """Of arrays whose rows may lie apart; in words of 16 bytes where everything is `aligned` to them, else of 4."""
    word = 16 if aligned else 4
    rows, row_words = len(out), out[0].nbytes // word
    pitches = [np.int64(array.strides[0] // word) for array in (values, out)]
    grid = (math.ceil(row_words / THREADS), min(rows, MOST_BLOCKS), 1)
    return [Launch(COPY_WINDOW[word], grid, BLOCK, (values, out, np.int32(rows), np.int32(row_words), *pitches))]


def zero(out: Array) -> list[Launch]:
    return [Launch("zero_memory", grid_of(out.nbytes, 16), BLOCK, (out, np.int64(out.nbytes)))]


def preprocess(image: Array, channels: Sequence[int], scale: Sequence[float], shift: Sequence[float],
               out: Array) -> list[Launch]:  # fmt: skip
    pixels = image.shape[0] * image.shape[1]
    args = (image, out, np.int64(pixels), *map(np.int32, channels), *map(np.float32, scale), *map(np.float32, shift))
    return [Launch("preprocess", grid_of(pixels, 1), BLOCK, args)]


def preprocess_gradient(gradient: Array, channels: Sequence[int], scale: Sequence[float], out: Array) -> list[Launch]:
    pixels = gradient.shape[0] * gradient.shape[1]
    args = (gradient, out, np.int64(pixels), *map(np.int32, channels), *map(np.float32, scale))
    return [Launch("preprocess_gradient", grid_of(pixels, 1), BLOCK, args)]


def pool2x2(x: Array, out: Array, pool_argmax: Array | None, pooling: Pooling) -> list[Launch]:
    return _pool2x2(x, out, pool_argmax, pooling, "fp32_any" if x.shape[2] % 4 else "fp32", 4)


def pool2x2_16bit(x: Array, out: Array, pool_argmax: Array | None, pooling: Pooling, precision: str) -> list[Launch]:
    """`pool2x2` of activations in bf16 or fp16."""
    return _pool2x2(x, out, pool_argmax, pooling, precision, 8)


def _pool2x2(x: Array, out: Array, pool_argmax: Array | None, pooling: Pooling, variant: str,
             per_thread: int) -> list[Launch]:  # fmt: skip
    height, width, channels = out.shape
    grid = (math.ceil(width * math.ceil(channels / per_thread) / THREADS), height, 1)
    kernel = (MAX_POOL if pooling == "max" else AVERAGE_POOL)[variant]
    return [Launch(kernel, grid, BLOCK, (x, out, pool_argmax, np.int32(x.shape[1]), np.int32(channels)))]


def pool_input_gradient(gradient: Array, pool_argmax: Array | None, out: Array, relu_mask: Array,
                        accumulate: bool) -> list[Launch]:  # fmt: skip
    """Max pooling where there is a choice, average pooling where there is none."""
    height, width, channels = out.shape
    variant, groups = ("fp32", channels // 4) if channels % 4 == 0 else ("fp32_any", channels)
    kernel = (AVERAGE_POOL_INPUT_GRADIENT if pool_argmax is None else MAX_POOL_INPUT_GRADIENT)[variant]
    grid = (math.ceil(math.ceil(width / 2) * groups / THREADS), math.ceil(height / 2), 1)
    sizes = (np.int32(height), np.int32(width), np.int32(channels))
    return [Launch(kernel, grid, BLOCK, (gradient, pool_argmax, out, relu_mask, *sizes, np.int32(accumulate)))]


def pool_input_gradient_16bit(gradient: Array, pool_argmax: Array | None, out: Array, relu_mask: Array,
                              accumulate: bool, precision: str) -> list[Launch]:  # fmt: skip
    """`pool_input_gradient` of gradients in bf16 or fp16."""
    height, width, channels = out.shape
    name = (AVERAGE_POOL_INPUT_GRADIENT if pool_argmax is None else MAX_POOL_INPUT_GRADIENT)[precision]
    grid = (math.ceil(math.ceil(width / 2) * (channels // 8) / THREADS), math.ceil(height / 2), 1)
    sizes = (np.int32(height), np.int32(width), np.int32(channels))
    return [Launch(name, grid, BLOCK, (gradient, pool_argmax, out, relu_mask, *sizes, np.int32(accumulate)))]


def relu_gradient(gradient: Array, relu_mask: Array) -> list[Launch]:
    height, width, channels = gradient.shape
    grid = grid_of(gradient.size, 4)
    if channels % 8 == 0:
        return [Launch(RELU_GRADIENT["fp32"], grid, BLOCK, (gradient, relu_mask, np.int64(relu_mask.size)))]
    args = (gradient, relu_mask, np.int64(height * width), np.int32(channels))
    return [Launch(RELU_GRADIENT["fp32_any"], grid, BLOCK, args)]


def relu_gradient_16bit(gradient: Array, relu_mask: Array, precision: str) -> list[Launch]:
    """`relu_gradient` of gradients in bf16 or fp16."""
    grid = grid_of(relu_mask.size, 1)
    return [Launch(RELU_GRADIENT[precision], grid, BLOCK, (gradient, relu_mask, np.int64(relu_mask.size)))]


def weigh(image: Array, weights: Array) -> list[Launch]:
    args = (image, weights, np.int64(image.size), np.int32(image.shape[2]))
    return [Launch("weigh_pixels", grid_of(image.size, 1), BLOCK, args)]


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


def pad_edge(image: Array, out: Array) -> list[Launch]:
    height, width = image.shape[:2]
    border = (out.shape[0] - height) // 2
    args = (image, out, np.int32(height), np.int32(width), np.int32(border))
    return [Launch("pad_edge", grid_of(out.size, 1), BLOCK, args)]


def pad_edge_gradient(gradient: Array, out: Array) -> list[Launch]:
    height, width = out.shape[:2]
    border = (gradient.shape[0] - height) // 2
    args = (gradient, out, np.int32(height), np.int32(width), np.int32(border))
    return [Launch("pad_edge_gradient", grid_of(out.size, 1), BLOCK, args)]


def blend(values: Array, weight: float, out: Array) -> list[Launch]:
    return [Launch("lerp", grid_of(out.size, 4), BLOCK, (values, out, np.int64(out.size), np.float32(weight)))]


def dots(vectors: Array, values: Array, out: Array, sums: Sums) -> list[Launch]:
    """Every vector by as many blocks as keep all partial sums within MOST_PARTIALS."""
    count = len(vectors)
    blocks = min(grid_of(values.size, 4)[0], MOST_PARTIALS // count)
    args = (vectors, values, np.int64(values.size), sums.workspace, out, sums.tickets)
    return [Launch("gemv", (blocks, count, 1), BLOCK, args)]


def combine(vectors: Array, coefficients: Sequence[float], out: Array) -> list[Launch]:
    """The coefficients travel in the launch, as a struct."""
    by = np.zeros(1, [("of", np.float32, MOST_VECTORS)])
    by["of"][0, : len(coefficients)] = coefficients
    args = (vectors, by, np.int32(len(vectors)), np.int64(out.size), out)
    return [Launch("linear_combination", grid_of(out.size, 4), BLOCK, args)]
