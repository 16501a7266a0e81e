"""Philox4x32-10, random numbers by counter (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

Words = NDArray[np.uint64]
"""Of 32 bits each, held in 64 so that products fit."""


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10 of counters, four arrays of words, under a key of two: four arrays of random words."""
    low = np.uint64(0xFFFFFFFF)
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = x0 * np.uint64(MULTIPLIERS[0]), x2 * np.uint64(MULTIPLIERS[1])
        high = np.uint64(32)
        x0, x1, x2, x3 = (
            (second >> high) ^ x1 ^ np.uint64(k0),
            second & low,
            (first >> high) ^ x3 ^ np.uint64(k1),
            first & low,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + KEY_STEPS[1]) & 0xFFFFFFFF
    return x0, x1, x2, x3
