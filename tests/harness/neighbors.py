"""What the tests of nearest neighbors share: arrays on a device, and what its memory makes of them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.storage import rounded, widened

HALF_STEP = {"bf16": 2.0**-8, "fp16": 2.0**-11}  # what rounding to 16 bits takes at most, relative
Opened = Callable[[str], CudaDevice]


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
