"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import ImageError

_flock: Any
try:
    import fcntl as _flock
except ImportError:  # Windows
    _flock = None

_TOKEN = 8
_PARTIAL = re.compile(rf"\.nstgpu-[0-9a-f]{{{2 * _TOKEN}}}\.part")


def check_place(path: Path) -> None:
    """Raise ImageError if this file's folder may not be written in, or made, or if it is taken by a folder."""
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ImageError(f"cannot write {path}: {folder} is no folder; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"cannot write {path}: you may not write in {folder}; choose another")
    if path.is_dir():
        raise ImageError(f"cannot write {path}: a folder has this name; choose another")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raise ImageError with the system's reason where it can't be."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, and to read, that is there whole in the end or not at all; raises ImageError as `write_whole`.

    Folders that are missing are made. It is written under a passing name in the same folder, then given its own in one
    step. While it is written it is locked, so that `clean` knows it from what a dead process has left. A device or a
    pipe of that name is written to, not replaced.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at the file, which is what gets replaced
    partial: Path | None = None
    try:
        if target.exists() and not target.is_file():
            with tempfile.TemporaryFile() as passing:  # since pipes have no way back
                yield passing
                passing.seek(0)
                with target.open("wb") as device:
                    shutil.copyfileobj(passing, device)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, file = _begun(target)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(partial, target)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:  # also upon Ctrl-C; after the rename there is nothing left under this name
        if partial is not None:
            partial.unlink(missing_ok=True)


def _begun(target: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `target`, locked; another, where `clean` took it for a dead process's before it was."""
    while True:
        partial = target.with_name(f".nstgpu-{secrets.token_hex(_TOKEN)}.part")
        file = open(partial, "x+b")  # noqa: SIM115  # unlike tempfile's, readable to whom the umask allows
        _lock(file)
        if os.path.lexists(partial):
            return partial, file
        file.close()
        if not partial.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "its folder is gone")


def clean(folder: Path) -> None:
    """Remove what processes that died in the middle of `whole_file` have left in a folder; what fails is left there.

    Only plain files of this user's, with the name of such a file, that no living process holds.
    """
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if _PARTIAL.fullmatch(name)]
        for name in names:
            with contextlib.suppress(OSError):  # where it is held, or on Windows, open
                _remove_if_left(folder / name)


def _remove_if_left(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "r+b") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
            return
        if _flock is not None:
            _flock.flock(descriptor, _flock.LOCK_EX | _flock.LOCK_NB)
            if not _is_still(path, file):
                return
            path.unlink()
            return
    path.unlink()  # Windows does not remove what is open


def _lock(file: BinaryIO) -> None:
    """Until the file is closed; where a file system has no locks, nothing that was left can be told, nor removed."""
    if _flock is not None:
        with contextlib.suppress(OSError):
            _flock.flock(file.fileno(), _flock.LOCK_EX)


def _is_still(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(file.fileno()))
    except OSError:
        return False
