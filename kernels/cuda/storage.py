"""What activations and gradients of a precision are in memory, and the way there and back, on the host."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .precisions import PRECISIONS, on_tensor_cores

MEMORY: dict[str, np.dtype[Any]] = {
    name: np.dtype("uint16" if PRECISIONS[name].storage == "bfloat16" else PRECISIONS[name].storage)
    for name in on_tensor_cores()
}
"""What activations and gradients of a precision on tensor cores are in memory; of bf16 the bits."""


def rounded(values: NDArray[np.float32], precision: str) -> NDArray[Any]:
    """Numbers as a precision's products take them, in its memory's dtype; 3xtf32 takes float32 as it is."""
    values = np.ascontiguousarray(values, np.float32)
    if precision == "bf16":
        bits = values.view(np.uint32)
        to_even = (bits >> 16 & 1) + np.uint32(0x7FFF)
        upper: NDArray[np.uint32] = np.where(np.isnan(values), np.uint32(0x7FFF), (bits + to_even) >> 16)
        return upper.astype(np.uint16)
    if precision == "tf32":
        bits = (values.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        return np.where(np.isfinite(values), bits.view(np.float32), values)
    return values.astype(MEMORY[precision])


def widened(values: NDArray[Any], precision: str) -> NDArray[np.float32]:
    """Float32 of what is in memory."""
    if precision == "bf16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32)
