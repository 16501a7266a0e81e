"""A stopwatch for what runs on the host, and how fast the host is at best."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call on the host."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def host_roofline(dtype: np.dtype[Any]) -> tuple[float, float]:
    """What NumPy's BLAS and a copy reach here, the best of five: FLOP/s, and bytes/s read and written."""
    side, length = 1536, 1 << 25
    a, b = (np.random.default_rng(seed).random((side, side)).astype(dtype) for seed in (0, 1))
    source, target, product = np.ones(length, np.uint8), np.ones(length, np.uint8), np.empty_like(a)
    flops = 2 * side**3 / min(seconds_of(lambda: np.matmul(a, b, out=product)) for _ in range(5))
    return flops, 2 * length / min(seconds_of(lambda: np.copyto(target, source)) for _ in range(5))
