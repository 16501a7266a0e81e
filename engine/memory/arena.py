"""Planning memory: buffers with lifetimes are laid into one arena, so that nothing is allocated in the loop.

Where memory is short, a large block that is worked through in passes lies elsewhere: in a passing file instead of the
host's memory, which the system reads and writes as it goes; in the host's instead of a GPU's, where kernels reach it
through the bus. Knows nothing of networks; whoever runs a sequence of steps says which buffer lives from which step to
which.
"""

import logging
import math
import mmap
import os
import shutil
import tempfile
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..errors import SettingsError

_log = logging.getLogger("nstgpu")

ALIGNMENT = 256  # bytes; what CUDA's own allocator guarantees, and enough for any vector load
SPILL = 0.25
"""Of the memory that is free: a block that would take more of it lies in a file."""
LEND = 0.5
"""The same of a GPU's memory, for a block in the host's: through the bus everything takes twenty times as long."""
BAND_BYTES = 8 << 20
"""Of what is converted at a time, where an image as a whole is too much."""
IN_HOST_MEMORY = ("cpu", "reference")
"""Devices whose arrays are NumPy's, wherever they lie."""
_NO_LIMIT = 1 << 60
"""Version 1 of control groups writes the largest number of pages for none."""
_IN_MEMORY = ("tmpfs", "ramfs")  # file systems that are no disk


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
            if what is None or (passing_folder() if device.name in IN_HOST_MEMORY else device.graphs) is None:
                raise
    if device.name in IN_HOST_MEMORY:
        return cut(_in_file(size, what), buffers)
    assert device.graphs is not None
    lent, _ = device.graphs.mailbox((-(-size // 4),))
    _log.info("%s (%.1f GiB) is kept in the host's memory: the GPU's is short", what, size / 2**30)
    return cut(lent.view(np.uint8), buffers)


def elsewhere(device: Device, nbytes: int, free: int | None) -> bool:
    """Whether a block is not kept in the memory of the device, of which so many bytes are free (None: nobody says)."""
    if device.name in IN_HOST_MEMORY:
        return spills(nbytes, free)
    if free is None or device.graphs is None or nbytes <= LEND * free:
        return False
    host = host_memory()
    return host is None or nbytes <= LEND * host


def cut(arena: Array, buffers: Iterable[Buffer]) -> Mapping[str, Array]:
    """The buffers by name, as views of memory (uint8) that is large enough for them."""
    buffers = list(buffers)
    offsets, _ = lay_out(buffers)
    return {b.name: _view(arena, offsets[b.name], b) for b in buffers}


# ---- where host memory is short ---------------------------------------------------------------------------------
def empty(shape: tuple[int, ...], dtype: Any, what: str | None = None) -> NDArray[Any]:
    """An array in host memory with anything in it, or in a passing file where `spills` says so.

    `what` names it in the line that tells of the file; what is there for a moment needs no name. Raises SettingsError
    where the disk has no room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not spills(size, host_memory()):
        return np.empty(shape, dtype)
    array: NDArray[Any] = _in_file(size, what).view(dtype).reshape(shape)
    return array


def fetched(device: Device, values: Array, what: str | None = None) -> NDArray[Any]:
    """`device.download(values)`, into `empty` memory where the device's is the host's."""
    if device.name not in IN_HOST_MEMORY:
        downloaded: NDArray[Any] = device.download(values)
        return downloaded
    copy = empty(values.shape, values.dtype, what)
    device.copy(values, copy)
    return copy


def spills(nbytes: int, free: int | None) -> bool:
    """Whether a block is kept in a file, with so many bytes of host memory free (None: nobody says).

    It is where it would take more than SPILL of them and the disk has room, or where it takes more than all of them.
    So every block leaves most of what is free to those after it, and to the tiles, which must be in memory.
    """
    if free is None or nbytes <= SPILL * free:
        return False
    disk = disk_space()
    return disk is not None and (nbytes <= disk or nbytes > free)


def resident(device: Device, blocks: Iterable[int], free: int) -> int:
    """Bytes of memory that blocks take that are allocated one after another by name: all but those kept elsewhere."""
    taken = 0
    for nbytes in blocks:
        if not elsewhere(device, nbytes, free - taken):
            taken += nbytes
    return taken


def bands(shape: Sequence[int], itemsize: int = 4) -> Iterator[slice]:
    """Rows of an array, about BAND_BYTES at a time."""
    step = max(1, BAND_BYTES // max(1, math.prod(shape[1:]) * itemsize))
    return (slice(top, min(top + step, shape[0])) for top in range(0, shape[0], step))


def passing_folder(mounts: Path = Path("/proc/mounts")) -> Path | None:
    """Where passing files go: the system's folder for them, unless it is in memory itself; None if none is on disk."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    kinds = {Path(point): kind for _, point, kind, *_ in lines}
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        place = folder.resolve()
        mounted = next((kinds[point] for point in (place, *place.parents) if point in kinds), "")
        if mounted not in _IN_MEMORY and os.access(folder, os.W_OK):
            return folder
    return None


def disk_space() -> int | None:
    """Bytes that passing files may take; None if there is no disk for them."""
    folder = passing_folder()
    return None if folder is None else shutil.disk_usage(folder).free


def _in_file(nbytes: int, what: str | None) -> NDArray[np.uint8]:
    """A block of a file that has no name, so that nothing is left of it whatever ends the process."""
    folder = passing_folder()
    assert folder is not None, "spills comes first"
    free = shutil.disk_usage(folder).free
    no_room = (
        f"{what or 'the picture'} takes {nbytes / 2**30:.1f} GiB: memory is short of that, and {folder} has "
        f"{free / 2**30:.1f} GiB left; choose a smaller size, or set TMPDIR to a folder on a larger disk"
    )
    if nbytes > free:
        raise SettingsError(no_room)
    with tempfile.TemporaryFile(prefix="nstgpu-", dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):  # or a disk that fills up later would kill the process
                os.posix_fallocate(file.fileno(), 0, nbytes)
            else:
                file.truncate(nbytes)
            mapped = mmap.mmap(file.fileno(), nbytes)
        except OSError as error:
            raise SettingsError(no_room) from error
    if what is not None:
        _log.info("%s (%.1f GiB) is kept in a file in %s: memory is short", what, nbytes / 2**30, folder)
    return np.frombuffer(mapped, np.uint8)


# ---- how much there is ------------------------------------------------------------------------------------------
def available(device: Device) -> int | None:
    """Bytes that the device could still hand out; None where nobody says."""
    own = device.free_bytes()
    return host_memory() if own is None else own


def host_memory(
    meminfo: Path = Path("/proc/meminfo"),
    groups: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
) -> int | None:
    """What the system calls available, and no more than this process's control groups and its own limits leave it.

    groups: where control groups of either version are mounted. own: which of them this process is in.
    """
    known = [_meminfo(meminfo), _control_groups(groups, own), *_own_limits()]
    return min((limit for limit in known if limit is not None), default=None)


def _meminfo(path: Path) -> int | None:
    return _in_kib(path).get("MemAvailable:")


def _control_groups(root: Path, own: Path) -> int | None:
    """The least that any group of this process has left, from its own up to the outermost that can be seen."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    mine = {kind: place for line in lines if len(line) == 3 for kind, place in [(line[1], line[2])]}
    first = next((place for kinds, place in mine.items() if "memory" in kinds.split(",")), "/")
    known = [_left_in_group(folder) for folder in _up(root / "memory", first)]
    for mounted in (root, root / "unified"):  # where version 2 is alone, and beside version 1
        known += [_left_in_group_2(folder) for folder in _up(mounted, mine.get("", "/"))]
    return min((left for left in known if left is not None), default=None)


def _up(mounted: Path, place: str) -> list[Path]:
    """The folder of a group and those around it; a container may see the outermost alone, under a name of its own."""
    parts = [part for part in place.split("/") if part not in ("", ".", "..")]
    return [mounted.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _left_in_group_2(folder: Path) -> int | None:
    limits = [_number(folder / name) for name in ("memory.max", "memory.high")]  # "max" is no number
    cached = ("inactive_file", "active_file")
    return _left(limits, _number(folder / "memory.current"), folder / "memory.stat", cached)


def _left_in_group(folder: Path) -> int | None:
    """Of version 1; its statistics know of limits around it that a container can't see."""
    around = _statistics(folder / "memory.stat").get("hierarchical_memory_limit")
    limits = [_number(folder / "memory.limit_in_bytes"), around]
    cached = ("total_inactive_file", "total_active_file")
    return _left(limits, _number(folder / "memory.usage_in_bytes"), folder / "memory.stat", cached)


def _left(limits: Iterable[int | None], used: int | None, statistics: Path, cached: Iterable[str]) -> int | None:
    """Of the lowest limit; cached files, passing ones among them, would give way."""
    set_ones = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    if not set_ones or used is None:
        return None
    counts = _statistics(statistics)
    return max(0, min(set_ones) - max(0, used - sum(counts.get(name, 0) for name in cached)))


def _statistics(path: Path) -> dict[str, int]:
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None


def _own_limits(status: Path = Path("/proc/self/status")) -> list[int]:
    """What `ulimit -d` leaves, of memory of the process's own, which mapped files are not, and `ulimit -v`, of all."""
    try:
        import resource
    except ImportError:
        return []
    used = _in_kib(status)
    known = [(resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")]
    limits = [(resource.getrlimit(kind)[0], used.get(name)) for kind, name in known]
    return [max(0, limit - taken) for limit, taken in limits if limit != resource.RLIM_INFINITY and taken is not None]


def _in_kib(path: Path) -> dict[str, int]:
    """Bytes by name, of a file of lines such as `VmData:  1000 kB`."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}


def _view(arena: Array, offset: int, buffer: Buffer) -> Array:
    size = math.prod(buffer.shape) * buffer.dtype.itemsize
    return arena[offset : offset + size].view(buffer.dtype).reshape(buffer.shape)
