"""What the tests of nearest neighbors share: arrays on a device, and what its memory makes of them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.storage import rounded, widened

HALF_STEP = {"bf16": 2.0**-8, "fp16": 2.0**-11}  # what rounding to 16 bits takes at most, relative
Opened = Callable[[str], CudaDevice]
Found = Callable[[CudaDevice, Any, Any, Any], Any]
"""The matches of features, mean and candidates, by one of the searches."""


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def held(device: CudaDevice, values: Any, dtype: Any = None) -> Any:
    """In the dtype of activations unless another is named."""
    dtype = np.dtype(dtype or device.activation_dtype)
    out = device.allocate(values.size * dtype.itemsize).view(dtype).reshape(values.shape)
    device.upload(values, out)
    return out


def kept(values: Any, precision: str) -> Any:
    """What memory makes of the values, in float64."""
    sixteen = precision in HALF_STEP
    return (widened(rounded(values, precision), precision) if sixteen else values).astype(np.float64)


def check_what_is_no_number(device: CudaDevice, found: Found, count: int) -> None:
    """A pixel for which nothing is a number gets some candidate, and the others what they get without it."""
    features, candidates = random(3, 5, 16), random(count, 16, seed=1)
    features[0, 1], features[1, 1, 3], features[2, 2, 0], features[2, 4] = np.nan, np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        matches = found(device, features, np.zeros(16, np.float32), candidates)
    assert matches.min() >= 0
    assert matches.max() < count
    assert matches[0, 1] == matches[1, 1] == 0  # every product is no number
    alone = found(device, np.nan_to_num(features, posinf=0, neginf=0), np.zeros(16, np.float32), candidates)
    finite = np.isfinite(features).all(axis=2)
    np.testing.assert_array_equal(matches[finite], alone[finite])
