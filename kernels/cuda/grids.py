"""Grids of the kernels that go through arrays element by element, and what a sum over a grid's blocks needs.

A sum leaves a partial sum of each block in the workspace, and the last block to arrive adds them up
(cuda/common/reduce.cuh): which one that is, tickets tell, which are zero before and after each launch.
"""

import math
from typing import NamedTuple

import numpy as np

from ..device import Array

THREADS = 256  # of a block
BLOCK = (THREADS, 1, 1)
MOST_BLOCKS = 4096  # several waves on the largest GPU; beyond it the kernels loop
MOST_PARTIALS = 1024  # blocks of a reduction, a float32 each; decides the order of a sum, so not a GPU's own number
WORKSPACE_BYTES = 2 * 4 * MOST_PARTIALS  # of two sums at a time
MOST_TICKETS = 1024  # of sums in one launch


class Sums(NamedTuple):
    """What launches with sums share, one after the other: memory of the device."""

    workspace: Array
    """uint8, WORKSPACE_BYTES at least."""
    tickets: Array
    """(MOST_TICKETS,) uint32, all zero."""

    def args(self, factor: float, out: Array) -> tuple[object, ...]:
        """Of a kernel that writes `factor` times its sum: partials, factor, out, ticket."""
        return self.workspace, np.float32(factor), out, self.tickets


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
