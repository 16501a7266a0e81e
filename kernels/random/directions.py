"""Random directions that every device draws alike, bit for bit: Philox4x32-10, and no step that could be rounded
otherwise.

Component c of direction k is drawn from one block of Philox with the seed as its key and the
counter (c, k, counter, 0). Its sixteen bytes are added up, which makes a bell curve of a whole number, and
x := 2 sum - 4079 is odd, so that no direction is all zeros. The direction is x / sqrt(sum x^2): the sum of squares is a
whole number below 2^53, exact in float64 in any order; root, quotient and the float32 of it are rounded to nearest
everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from .philox import philox

BYTES_OFFSET = 4079  # of 2 * the sum of sixteen bytes, whose mean is 4080


def directions(seed: int, counter: int, count: int, channels: int) -> NDArray[np.float64]:
    """(count, channels), rows of length one. 0 <= seed < 2^64, `counter` is an int32's value."""
    component, direction = np.meshgrid(np.arange(channels, dtype=np.uint64), np.arange(count, dtype=np.uint64))
    turn = np.full_like(component, counter & 0xFFFFFFFF)
    words = philox((component, direction, turn, np.zeros_like(turn)), (seed & 0xFFFFFFFF, seed >> 32))
    total = np.sum(
        [word >> np.uint64(mean_error) & np.uint64(255) for word in words for mean_error in (0, 8, 16, 24)], axis=0
    )
    x = 2.0 * total - BYTES_OFFSET
    rows: NDArray[np.float64] = x / np.sqrt(np.sum(x**2, axis=1, keepdims=True))
    return rows
