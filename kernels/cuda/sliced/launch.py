"""Launching the sliced Wasserstein distance: directions and cost (sliced_cost.cu), products (products.cuh), and the
radix sort (radix_sort.cu).

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked.
"""

from __future__ import annotations

import numpy as np

from ...device import Array
from ..grids import BLOCK, MOST_PARTIALS, THREADS, Sums
from ..runtime.launch import Launch
from ..split_k import ceil_div, int32s
from .kernel_names import PROJECT, SLICED_GRADIENT

SORT_TILE = 4096
"""Values of a row that a block sorts at a time."""
DIGITS, PASSES = 256, 4
ROWS_BYTES = 16 << 20
"""Of the rows that a cost scatters to at a time; an H100's L2 has 50 MB."""
SIDE = 64
"""Pixels and directions, or channels, of a block's tile of a product."""


def random_directions(seed: int, counter: Array, out: Array) -> list[Launch]:
    count, channels = out.shape
    args = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32), counter, np.int32(channels), out)
    return [Launch("random_directions", (count, 1, 1), BLOCK, args)]


def project(features: Array, directions: Array, out: Array, element: str) -> list[Launch]:
    """Features in float32 or in an `element` of 16 bits."""
    count, pixels = out.shape
    channels = directions.shape[1]
    grid = (ceil_div(pixels, SIDE), ceil_div(count, SIDE), 1)
    args = (features, directions, *int32s(pixels, count, channels), out)
    return [Launch(PROJECT[element], grid, (SIDE, 1, 1), args)]


def sort_scratch_bytes(rows: int, length: int) -> int:
    """Of the other memory for keys and places, and of the counts of digits; none where a block sorts a row."""
    return 0 if length <= SORT_TILE else rows * (8 * length + 4 * DIGITS * ceil_div(length, SORT_TILE))


def sort_rows(values: Array, order: Array | None, scratch: Array) -> list[Launch]:
    """As many rows at a time as `scratch`, uint8, has room for."""
    count, length = values.shape
    keys = values.view(np.uint32)
    if length <= SORT_TILE:
        return [Launch("sort_rows_in_block", (count, 1, 1), BLOCK, (keys, order, np.int32(length)))]
    rows = min(count, scratch.nbytes // sort_scratch_bytes(1, length))
    launches = []
    for first in range(0, count, rows):
        chunk = slice(first, min(first + rows, count))
        launches += _passes(keys[chunk], None if order is None else order[chunk], scratch)
    return launches


def _passes(keys: Array, order: Array | None, scratch: Array) -> list[Launch]:
    count, length = keys.shape
    tiles, size = ceil_div(length, SORT_TILE), 4 * count * length
    other, other_order = (scratch[start : start + size].view(keys.dtype) for start in (0, size))
    counts = scratch[2 * size :][: 4 * DIGITS * count * tiles].view(np.int32)
    places = (None, None) if order is None else (order, other_order.view(np.int32))
    ends = ((keys, places[0]), (other, places[1]))
    grid = (tiles, count, 1)
    launches = []
    for turn in range(PASSES):
        (source, places_in), (target, places_out) = ends[turn % 2], ends[1 - turn % 2]
        shift, first, last = np.int32(8 * turn), np.int32(turn == 0), np.int32(turn == PASSES - 1)
        launches += [
            Launch("count_digits", grid, BLOCK, (source, np.int32(length), shift, first, counts)),
            Launch("scan_digits", (count, 1, 1), BLOCK, (counts, np.int32(tiles))),
            Launch("scatter_digits", grid, BLOCK,
                   (source, places_in, counts, np.int32(length), shift, first, last, target, places_out)),
        ]  # fmt: skip
    return launches


def sliced_cost(values: Array, order: Array, target: Array, scale: float, cost: Array, residual: Array,
                weights: Array | None, accumulate: bool, sums: Sums) -> list[Launch]:  # fmt: skip
    """In the workspace are partial sums, and behind them sums of weights."""
    count, length = values.shape
    runs = min(ceil_div(length, THREADS), MOST_PARTIALS if weights is None else MOST_PARTIALS // count)
    grid = (runs, min(count, max(1, ROWS_BYTES // (4 * length)), MOST_PARTIALS // runs), 1)
    rest: tuple[object, ...] = (
        *int32s(count, length, target.shape[1]),
        np.float32(scale),
        residual,
        np.int32(accumulate),
    )
    rest += sums.args(1 / (count * length), cost)
    if weights is None:
        return [Launch("sliced_cost", grid, BLOCK, (values, order, target, *rest))]
    of_weights = sums.workspace[4 * MOST_PARTIALS :][: 4 * runs * count].view(np.float32)
    return [
        Launch("sliced_weight_sums", (runs, count, 1), BLOCK, (order, weights, np.int32(length), of_weights)),
        Launch("sliced_cost_weighted", grid, BLOCK, (values, order, target, weights, of_weights, *rest)),
    ]


def sliced_gradient(residual: Array, directions: Array, out: Array, accumulate: bool, factor: float,
                    element: str) -> list[Launch]:  # fmt: skip
    """`factor` times the product, in float32 or in an `element` of 16 bits."""
    count, pixels = residual.shape
    channels = directions.shape[1]
    grid = (ceil_div(pixels, SIDE), ceil_div(channels, SIDE), 1)
    args = (residual, directions, *int32s(pixels, count, channels), np.float32(factor), out, np.int32(accumulate))
    return [Launch(SLICED_GRADIENT[element], grid, (SIDE, 1, 1), args)]
