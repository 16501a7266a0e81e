"""Planning memory: buffers with lifetimes are laid into one arena, so that nothing is allocated in the loop.

Knows nothing of networks; whoever runs a sequence of steps says which buffer lives from which step to which. A large
block may lie outside the memory of its device: see `spill`.
"""

import logging
import math
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.device import Array, Device
from . import spill
from .limits import available
from .spill import elsewhere

_log = logging.getLogger("nstgpu")

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
    placed: list[tuple[int, int, Buffer]] = []  # by offset; the number keeps buffers from being compared
    for number, buffer in enumerate(sorted(buffers, key=lambda b: (-b.nbytes, b.first, b.name))):
        offset = 0
        for other_offset, _, other in placed:
            shares_time = buffer.first <= other.last and other.first <= buffer.last
            if shares_time and offset < other_offset + other.nbytes and other_offset < offset + buffer.nbytes:
                offset = other_offset + other.nbytes
        insort(placed, (offset, number, buffer))
    size = max((offset + buffer.nbytes for offset, _, buffer in placed), default=0)
    return {buffer.name: offset for offset, _, buffer in placed}, size


def allocate(device: Device, buffers: Iterable[Buffer], what: str | None = None) -> Mapping[str, Array]:
    """One allocation on the device, cut into the buffers by name.

    With a name, `what`, it may lie elsewhere: where `elsewhere` says so, or the device has not so much left after all.
    """
    buffers = list(buffers)
    size = lay_out(buffers)[1]
    if what is None or not elsewhere(device, size, available(device)):
        try:
            return cut(device.allocate(size), buffers)
        except MemoryError:
            if what is None or (spill.passing_folder() if device.in_host_memory else device.stream) is None:
                raise
    if device.in_host_memory:
        return cut(spill.map_file(size, what), buffers)
    assert device.stream is not None
    lent, _ = device.stream.alloc_pinned_mapped(size)
    _log.info("%s (%.1f GiB) is kept in the host's memory: the GPU's is short", what, size / 2**30)
    return cut(lent, buffers)


def cut(arena: Array, buffers: Iterable[Buffer]) -> Mapping[str, Array]:
    """The buffers by name, as views of memory (uint8) that is large enough for them."""
    buffers = list(buffers)
    offsets, _ = lay_out(buffers)
    return {b.name: _view(arena, offsets[b.name], b) for b in buffers}


def _view(arena: Array, offset: int, buffer: Buffer) -> Array:
    size = math.prod(buffer.shape) * buffer.dtype.itemsize
    return arena[offset : offset + size].view(buffer.dtype).reshape(buffer.shape)
