"""Grids of the kernels that go through arrays element by element, and the second half of a sum.

A sum leaves a partial sum of each block in the workspace; `finish_sums` adds them up.
"""

import math

import numpy as np

from ..device import Array
from .runtime.launch import Launch

THREADS = 256  # of a block
BLOCK = (THREADS, 1, 1)
MOST_BLOCKS = 4096  # several waves on the largest GPU; beyond it the kernels loop
MOST_PARTIALS = 1024  # blocks of a reduction, a float32 each; decides the order of a sum, so not a GPU's own number
WORKSPACE_BYTES = 2 * 4 * MOST_PARTIALS  # of two sums at a time


def grid_of(count: int, per_thread: int) -> tuple[int, int, int]:
    return (max(1, min(math.ceil(count / (per_thread * THREADS)), MOST_BLOCKS)), 1, 1)


def reduction_grid(count: int) -> tuple[int, int, int]:
    return (min(grid_of(count, 4)[0], MOST_PARTIALS), 1, 1)


def rows_grid(channels: int) -> tuple[int, int, int]:
    """For the kernels of costs.cu and wasserstein/newton_schulz.cu in which a warp takes a row of a square matrix."""
    blocks = math.ceil(channels / (THREADS // 32))
    if blocks > MOST_PARTIALS:
        raise ValueError(f"matrices of {channels} rows need {blocks} partial sums of {MOST_PARTIALS}")
    return (blocks, 1, 1)


def finish_sums(count: int, runs: int, factor: float, out: Array, workspace: Array) -> Launch:
    """out[r] := factor * the sum of the r-th run of `count` partial sums in the workspace."""
    return Launch("finish_sums", (runs, 1, 1), BLOCK, (workspace, np.int32(count), np.float32(factor), out))
