"""Launching the operations of `neighbors` (neighbors/neighbors_simt.cuh, simt.cu).

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked. The kernels go by what memory holds, so tf32 and 3xtf32 search with the kernels of fp32.
"""

from typing import Any

import numpy as np

from ...device import FLAT, Array
from ..gpu_spec import SIMT_MULTIPROCESSORS
from ..grids import BLOCK, MOST_BLOCKS, MOST_PARTIALS, THREADS, Sums, grid_of
from ..runtime.launch import Launch
from ..split_k import ceil_div, int32s, partials_in
from .kernel_names import NEAREST_NEIGHBORS_SIMT, NEIGHBORS_COST, NEIGHBORS_GRADIENT, NORMALIZE_FEATURES

TILE_PIXELS, TILE_CANDIDATES = 128, 64  # of a block of the search, simt::Tile128x64
TILE_THREADS, RESIDENT = 128, 3  # threads of such a block, and how many a multiprocessor holds
WORTH_SPLITTING = 4  # tiles of candidates; what fewer save is lost in the merge
NEAREST_BYTES = 8  # a score and an index


def search_parts(pixels: int, candidates: int) -> int:
    """Into how many parts the candidates are split to fill a GPU; of the shapes alone."""
    blocks = SIMT_MULTIPROCESSORS * RESIDENT // ceil_div(pixels, TILE_PIXELS)
    return max(1, min(blocks, ceil_div(candidates, TILE_CANDIDATES) // WORTH_SPLITTING))


def search_workspace_bytes(height: int, width: int, channels: int, candidates: int) -> int:
    """Scratch memory that `nearest_neighbors` needs for features of this shape among so many candidates."""
    del channels
    parts = search_parts(height * width, candidates)
    return parts * height * width * NEAREST_BYTES if parts > 1 else 0


def nearest_neighbors(features: Array, mean: Array, candidates: Array, out: Array, workspace: Array) -> list[Launch]:
    """`Device.nearest_neighbors`; `workspace` is uint8, `search_workspace_bytes` long."""
    pixels, (count, channels) = out.size, candidates.shape
    parts = search_parts(pixels, count)
    partials = partials_in(workspace, pixels * parts * NEAREST_BYTES if parts > 1 else 0)
    args = (features, mean, candidates, out, partials, *int32s(pixels, channels, count))
    grid = (ceil_div(pixels, TILE_PIXELS), parts, 1)
    search = Launch(NEAREST_NEIGHBORS_SIMT[_variant(features)], grid, (TILE_THREADS, 1, 1), args)
    if parts == 1:
        return [search]
    merge = (partials, out, *int32s(pixels, parts))
    return [search, Launch("nearest_neighbors_merge", grid_of(pixels, 1), BLOCK, merge)]


def normalize_features(features: Array, mean: Array, out: Array) -> list[Launch]:
    args = (features, mean, out, *_sizes(features))
    return [Launch(NORMALIZE_FEATURES[_variant(features)], _warps_grid(features, MOST_BLOCKS), BLOCK, args)]


def neighbors_cost(features: Array, mean: Array, candidates: Array, matches: Array, scale: float, cost: Array,
                   weights: Array | None, sums: Sums) -> list[Launch]:  # fmt: skip
    args = (features, mean, candidates, matches, weights, *_sizes(features), *sums.args(scale, cost))
    return [Launch(NEIGHBORS_COST[_variant(features)], _warps_grid(features, MOST_PARTIALS), BLOCK, args)]


def neighbors_gradient(features: Array, mean: Array, candidates: Array, matches: Array, scale: float, out: Array,
                       accumulate: bool, weights: Array | None) -> list[Launch]:  # fmt: skip
    args = (features, mean, candidates, matches, weights, np.float32(scale), out, np.int32(accumulate))
    grid = _warps_grid(features, MOST_BLOCKS)
    return [Launch(NEIGHBORS_GRADIENT[_variant(features)], grid, BLOCK, (*args, *_sizes(features)))]


def _variant(features: Array) -> str:
    if features.dtype == np.float32:
        return "fp32_any" if features.shape[2] % 4 else "fp32"
    return "fp16" if features.dtype == np.float16 else "bf16"


def _sizes(features: Array) -> tuple[Any, ...]:
    """Pixels, channels, and what has no direction."""
    height, width, channels = features.shape
    return (*int32s(height * width, channels), np.float32(FLAT))


def _warps_grid(features: Array, most: int) -> tuple[int, int, int]:
    """Of kernels in which a warp takes a pixel."""
    return (min(ceil_div(features.shape[0] * features.shape[1], THREADS // 32), most), 1, 1)
