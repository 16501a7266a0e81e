"""Planning memory: buffers with lifetimes are laid into one arena, so that nothing is allocated in the loop.

Knows nothing of networks; whoever runs a sequence of steps says which buffer lives from which step to which.
"""

import math
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
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


def allocate(device: Device, buffers: Iterable[Buffer]) -> Mapping[str, Array]:
    """One allocation on the device, cut into the buffers by name."""
    buffers = list(buffers)
    return cut(device.allocate(lay_out(buffers)[1]), buffers)


def cut(arena: Array, buffers: Iterable[Buffer]) -> Mapping[str, Array]:
    """The buffers by name, as views of memory (uint8) that is large enough for them."""
    buffers = list(buffers)
    offsets, _ = lay_out(buffers)
    return {b.name: _view(arena, offsets[b.name], b) for b in buffers}


def available(device: Device) -> int | None:
    """Bytes that the device could still hand out; None where nobody says."""
    own = device.free_bytes()
    return host_memory() if own is None else own


def host_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the system calls available, and no more than the control group that this process lives in leaves it."""
    known = [limit for limit in (_meminfo(meminfo), _control_group(group)) if limit is not None]
    return min(known, default=None)


def _meminfo(path: Path) -> int | None:
    if not path.exists():
        return None
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group(folder: Path) -> int | None:
    """Of version 2, as a container sees its own; cached files that nobody has used of late would give way."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(counts.get("inactive_file", 0)))


def _view(arena: Array, offset: int, buffer: Buffer) -> Array:
    size = math.prod(buffer.shape) * buffer.dtype.itemsize
    return arena[offset : offset + size].view(buffer.dtype).reshape(buffer.shape)
