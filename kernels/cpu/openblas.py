"""NumPy's BLAS, asked to use one thread while we spread the work ourselves.

Our threads each run small products over data in their own cache; a BLAS that splits every one of those again loses more
to waiting than it gains, and most of all when other programs want the processor too. Works with the OpenBLAS of NumPy's
wheels and of conda; another BLAS is left to its own threads.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np


class OpenBlas(NamedTuple):
    """The calls we need of the library that NumPy has loaded."""

    get_num_threads: Callable[[], int]
    set_num_threads: Callable[[int], None]
    get_corename: Callable[[], bytes]
    """The processor that its products are written for: "Haswell", "SkylakeX"."""


@functools.cache
def find_openblas() -> OpenBlas | None:
    """The OpenBLAS that NumPy computes with; None if it computes with something else."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package.parents[2])
    for path in (path for folder in folders for path in sorted(folder.glob("*openblas*"))):
        if path.suffix not in (".so", ".dylib", ".dll") and ".so." not in path.name:
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
            names = [f"{prefix}openblas_{name}{suffix}" for name in OpenBlas._fields]
            if all(hasattr(library, name) for name in names):
                found = OpenBlas(*(getattr(library, name) for name in names))
                found.get_corename.restype = ctypes.c_char_p  # type: ignore[attr-defined]
                return found
    return None


_lock = threading.Lock()
_inside = 0
_before = 1


@contextmanager
def single_threaded() -> Iterator[None]:
    """OpenBLAS runs in the calling thread alone while any `single_threaded` block is open; then as before."""
    global _inside, _before
    blas = find_openblas()
    if blas is None:
        yield
        return
    with _lock:
        if _inside == 0:
            _before = blas.get_num_threads()
            blas.set_num_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside = max(0, _inside - 1)  # 0 already where a fork came in between
            if _inside == 0:
                blas.set_num_threads(_before)


def _after_fork() -> None:
    """In a child, whose one thread may have been forked while another one held the lock or was within a block."""
    global _lock, _inside
    _lock = threading.Lock()
    if _inside:
        _inside = 0
        if (blas := find_openblas()) is not None:
            blas.set_num_threads(_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
