"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .picture import ImageError


def check_place(path: Path) -> None:
    """Raise ImageError if there is no folder to write this file in, or it is taken by a folder."""
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ImageError(f"cannot write {path}: you may not write in {path.parent}; choose another")
    if path.is_dir():
        raise ImageError(f"cannot write {path}: a folder has this name; choose another")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raise ImageError with the system's reason where it can't be."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, and to read, that is there whole in the end or not at all; raises ImageError as `write_whole`.

    It is written under a passing name in the same folder, then given its own in one step.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at the file, which is what gets replaced
    partial = target.with_name(f".nstgpu-{secrets.token_hex(8)}.part")
    try:
        with open(partial, "x+b") as file:  # unlike tempfile's, readable to whom the umask allows
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(partial, target)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:  # also upon Ctrl-C; after the rename there is nothing left under this name
        partial.unlink(missing_ok=True)
