"""Runs the CUDA kernels of this package on the CPU, to test and debug them with no GPU.

The same .cu files are compiled by the host's C++ compiler (`compiler`), each CUDA thread becomes a fiber
(runtime.cpp), and a launch takes NumPy arrays (`library`). With `check=True` every memory access is watched
(check.cpp): races, accesses out of bounds and reads of memory nobody wrote raise `KernelFault` (`faults`).
Which kernel to launch with what grid is the launchers' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cache import temporary_directory
from .compiler import CompileError, NoCompilerError, build_library, find_compiler
from .faults import KernelFault, Report, Side
from .library import Library

__all__ = [
    "CompileError",
    "KernelFault",
    "Library",
    "NoCompilerError",
    "Report",
    "Side",
    "compile_library",
    "find_compiler",
]


def compile_library(
    sources: Sequence[Path],
    *,
    check: bool = False,
    seed: int = 0,
    defines: Mapping[str, str | int] | None = None,
) -> Library:
    """Compile .cu files, or take them from the cache, and load them.

    `seed` draws the order in which blocks and lanes run; `defines` are macros for the kernels. Raises
    NoCompilerError with a line that says what to install, and CompileError with the compiler's own message.
    """
    for attempt in range(3):  # another process may take away what the cache holds, but not what only this one has
        directory = temporary_directory("emulator") if attempt == 2 else None
        path = build_library(sources, check=check, defines=defines or {}, directory=directory)
        try:
            return Library(path, check=check, seed=seed)
        except OSError:
            if path.exists():
                raise
    raise CompileError(f"{path} was removed while it was loaded; run again")
