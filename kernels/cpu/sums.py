"""How the cpu device cuts arrays into blocks that a cache holds, and adds up, always in the same order."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK_BYTES = 1 << 20  # element-wise work runs in blocks of rows of this size
SHARE_BYTES = 1 << 20  # less is done sooner than another thread wakes up


def squares_by_row(values: Floats) -> Floats:
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    squares: Floats = np.einsum("ij,ij->i", rows, rows)
    return squares


def squares(values: Floats) -> float:
    """Sum of squares: float32 inside a row, float64 over rows, always in the same order."""
    return float(np.sum(squares_by_row(values), dtype=np.float64))


def weighted_squares(values: Floats, weights: Floats) -> float:
    """The same of values (H, W, C), a pixel's squares times its weight."""
    pixels = values.reshape(-1, values.shape[2])
    return float(np.sum(np.einsum("ij,ij->i", pixels, pixels) * weights.reshape(-1), dtype=np.float64))


def store(values: NDArray[np.floating[Any]], out: Floats, accumulate: bool) -> None:
    if accumulate:
        out += values.astype(np.float32, copy=False)
    else:
        out[...] = values


def blocks_of(values: Floats, workers: int = 1, work: float = 1) -> list[slice]:
    """Slices of the first axis of about BLOCK_BYTES, one for each worker where it is worth waking him.

    work: how much more is done with a number than a few element-wise operations.
    """
    row = max(1, values[0].nbytes)
    shared = max(-(-len(values) // workers), int(SHARE_BYTES / (row * max(work, 1))))
    step = max(1, min(BLOCK_BYTES // row, shared))
    return [slice(start, min(start + step, len(values))) for start in range(0, len(values), step)]
