"""Large blocks where memory is short: in a passing file, or in the host's memory.

A block that is worked through in passes lies in a passing file instead of the host's memory, and the system reads and
writes the file as it goes. A block of a GPU lies in the host's memory instead, where kernels reach it through the bus.
"""

import logging
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..errors import SettingsError
from . import limits

_log = logging.getLogger("nstgpu")

SPILL = 0.25
"""Of the memory that is free: a block that would take more of it lies in a file."""
SMALL = 1 << 20
"""Bytes that are always there; asking the system takes as long as a hundred passes over a small image."""
LEND = 0.5
"""The same of a GPU's memory, for a block in the host's: through the bus everything takes twenty times as long."""
BAND_BYTES = 8 << 20
"""Of what is converted at a time, where an image as a whole is too much."""
_IN_MEMORY = ("tmpfs", "ramfs")  # file systems that are no disk


def elsewhere(device: Device, nbytes: int, free: int | None) -> bool:
    """Whether a block is not kept in the memory of the device, of which so many bytes are free (None: nobody says)."""
    if device.in_host_memory:
        return spills(nbytes, free)
    if free is None or device.stream is None or nbytes <= LEND * free:
        return False
    host = limits.host_memory()
    return host is None or nbytes <= LEND * host


def empty(shape: tuple[int, ...], dtype: Any, what: str | None = None) -> NDArray[Any]:
    """An array in host memory with anything in it, or in a passing file where `spills` says so.

    `what` names it in the line that tells of the file; what is there for a moment needs no name. Raises SettingsError
    where the disk has no room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= SMALL or not spills(size, limits.host_memory()):
        return np.empty(shape, dtype)
    array: NDArray[Any] = map_file(size, what).view(dtype).reshape(shape)
    return array


def fetched(device: Device, values: Array, what: str | None = None) -> NDArray[Any]:
    """`device.download(values)`, into `empty` memory where the device's is the host's."""
    if not device.in_host_memory:
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


def map_file(nbytes: int, what: str | None) -> NDArray[np.uint8]:
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
