"""Planning memory: buffers with lifetimes are laid into one arena, so that nothing is allocated in the loop.

Knows nothing of networks or devices; whoever runs a sequence of steps says which buffer lives from which step to which.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.device import Array, Device

ALIGNMENT = 256  # bytes; what CUDA's own allocator guarantees, and enough for any vector load


@dataclass(frozen=True)
class Buffer:
    """`shape` elements of `dtype`, in use from step `first` to step `last`, both included."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first: int
    last: int

    @property
    def nbytes(self) -> int:
        size = math.prod(self.shape) * self.dtype.itemsize
        return -(-size // ALIGNMENT) * ALIGNMENT


def lay_out(buffers: Iterable[Buffer]) -> tuple[dict[str, int], int]:
    """Byte offsets by name, and the arena's size: largest first, each as low as those alive at the same time allow."""
    placed: list[tuple[int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.first, b.name)):
        offset = 0
        for other_offset, other in sorted(placed, key=lambda p: p[0]):
            shares_time = buffer.first <= other.last and other.first <= buffer.last
            if shares_time and offset < other_offset + other.nbytes and other_offset < offset + buffer.nbytes:
                offset = other_offset + other.nbytes
        placed.append((offset, buffer))
    size = max((offset + buffer.nbytes for offset, buffer in placed), default=0)
    return {buffer.name: offset for offset, buffer in placed}, size


def allocate(device: Device, buffers: Iterable[Buffer]) -> Mapping[str, Array]:
    """One allocation on the device, cut into the buffers by name."""
    buffers = list(buffers)
    offsets, size = lay_out(buffers)
    arena = device.allocate(size)
    return {b.name: _view(arena, offsets[b.name], b) for b in buffers}


def _view(arena: Array, offset: int, buffer: Buffer) -> Array:
    size = math.prod(buffer.shape) * buffer.dtype.itemsize
    return arena[offset : offset + size].view(buffer.dtype).reshape(buffer.shape)
