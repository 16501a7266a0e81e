"""Compiles kernel sources and the emulator's runtime into one shared library, with the compiler found here.

Objects and libraries are kept in the cache on disk. How to call what is in a library is `library`'s business.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..cache import Entry, cache_directory, cached, digest

_log = logging.getLogger(__name__)

HERE = Path(__file__).parent
INCLUDES = HERE.parent / "cuda"
"""The folder that the #include lines of the kernels count from."""

# Multiplications and additions are fused as nvcc fuses them; __fmul_rn and __fadd_rn are not, here or there.
# In DWARF 5 as GCC 12 writes it, addr2line of binutils 2.40 takes one source file for another. The initial-exec
# model would be faster by a call per thread, but a process can load no more than two dozen such libraries.
FLAGS = (
    *("-std=c++17", "-gdwarf-4", "-g1", "-march=native", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fPIC", "-fvisibility=hidden", "-ftls-model=local-dynamic"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-sign-compare"),
    "-Wno-psabi",  # vectors wider than this CPU's pass between functions of one library alone
)
RUNTIME_FLAGS = ("-O3",)
KERNEL_FLAGS = ("-O3",)
# check.cpp answers the calls that -fsanitize=thread makes; libtsan is not linked. -O1 keeps lines and accesses
# as they were written, if GCC is also kept from making four accesses out of a float4.
CHECKED_KERNEL_FLAGS = ("-O1", "-fsanitize=thread")
GCC_CHECKED_KERNEL_FLAGS = ("-fno-tree-sra",)

KERNEL = re.compile(r'extern\s+"C"\s+__attribute__\(\(visibility\("default"\)\)\)\s+void\s+(\w+)\s*\(')
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


class NoCompilerError(RuntimeError):
    """This machine has no C++ compiler that the emulator can use; the message says what to install."""


class CompileError(RuntimeError):
    """The compiler rejected a kernel source; the message is the compiler's."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    version: str

    @property
    def is_gcc(self) -> bool:
        return "Free Software Foundation" in self.version


def find_compiler() -> Compiler:
    """The compiler to use: $CXX, g++, clang++, c++ or the ziglang package. Raises NoCompilerError."""
    compiler = _first_compiler(os.environ.get("CXX", ""))
    if not compiler:
        raise NoCompilerError("the emulator needs a C++17 compiler: install g++ or clang++, or pip install ziglang")
    return compiler


@functools.cache
def _first_compiler(cxx: str) -> Compiler | None:
    commands = [shlex.split(cxx)] if cxx else []
    commands += [["g++"], ["clang++"], ["c++"]]
    if importlib.util.find_spec("ziglang"):
        commands.append([sys.executable, "-m", "ziglang", "c++"])
    for command in commands:
        if shutil.which(command[0]):
            answer = subprocess.run([*command, "--version"], capture_output=True, text=True)
            if answer.returncode == 0:
                return Compiler(tuple(command), answer.stdout)
    return None


def build_library(
    sources: Sequence[Path], *, check: bool, defines: Mapping[str, str | int], directory: Path | None = None
) -> Path:
    """The shared library of these sources, compiled now or found in `directory`, the cache unless given.

    Another process may remove it as soon as it is there. Raises NoCompilerError, CompileError, or OSError where a
    source can't be read or nothing can be written.
    """
    compiler = find_compiler()
    flags = [*FLAGS, f"-DEMULATOR_CHECK={check:d}"]
    runtime = [HERE / "runtime.cpp", HERE / "ptx.cpp", *([HERE / "check.cpp"] if check else [])]
    units = [(source, [*flags, *RUNTIME_FLAGS]) for source in runtime]
    flags += CHECKED_KERNEL_FLAGS if check else KERNEL_FLAGS
    flags += GCC_CHECKED_KERNEL_FLAGS if check and compiler.is_gcc else ()
    flags += (f"-D{name}={value}" for name, value in sorted(defines.items()))
    flags += shlex.split(os.environ.get("NSTGPU_CXXFLAGS", ""))  # for a debugger: -O0 -g
    for path in (Path(source).resolve() for source in sources):
        units.append((path, [*flags, *_include_flags(path)]))
    keys = [_key(compiler, source, unit_flags) for source, unit_flags in units]
    directory = directory or cache_directory("emulator")

    def compile_unit(key: str, source: Path, unit_flags: list[str]) -> Entry:
        def produce(target: Path) -> None:
            unit = f'#include "{source}"\n'
            if source not in runtime:
                kernels = _kernels_in(compiler, source, unit_flags)
                unit += "".join(f"EMULATOR_REGISTER({kernel})\n" for kernel in kernels)
            _compile(compiler, [*unit_flags, "-x", "c++", "-", "-c", "-o", str(target)], unit)

        return cached(directory, key, ".o", produce)

    def link(target: Path) -> None:
        _log.info("compiling kernels for the emulator (first run only)")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            entries = list(pool.map(compile_unit, keys, *zip(*units, strict=True)))
        with tempfile.TemporaryDirectory() as folder:  # where what was verified stays as it is
            objects = [Path(folder, f"{number}.o") for number in range(len(entries))]
            for path, entry in zip(objects, entries, strict=True):
                path.write_bytes(entry.content)
            _compile(compiler, ["-shared", *map(str, objects), "-pthread", "-o", str(target)])

    return cached(directory, digest("".join(keys).encode()), ".so", link).path


def kernels_in(source: Path) -> list[str]:
    """The names of the kernels that a .cu file defines, in its order. Raises NoCompilerError or CompileError."""
    path = source.resolve()
    return _kernels_in(find_compiler(), path, [*FLAGS, "-DEMULATOR_CHECK=0", *_include_flags(path)])


def _kernels_in(compiler: Compiler, source: Path, flags: Sequence[str]) -> list[str]:
    """In the preprocessed text, since a macro may have written them."""
    return list(dict.fromkeys(KERNEL.findall(_compile(compiler, [*flags, "-E", "-x", "c++", str(source)]))))


def _include_flags(source: Path) -> list[str]:
    return [f"-I{folder}" for folder in _include_folders(source)]


def _include_folders(source: Path) -> tuple[Path, ...]:
    """This folder comes first: its ptx takes the place of the device's."""
    return HERE, source.parent, INCLUDES


def _key(compiler: Compiler, source: Path, flags: Sequence[str]) -> str:
    """Names all that an object depends on: its text, its headers', the flags, the compiler and this CPU."""
    state = hashlib.sha256(repr((compiler, flags, _cpu())).encode())
    for path in _with_headers(source, _include_folders(source), set()):
        state.update(f"{path}\0".encode() + path.read_bytes())
    return state.hexdigest()[:32]


def _with_headers(path: Path, folders: Sequence[Path], seen: set[Path]) -> Iterator[Path]:
    """The file and all that it includes, looked for as the compiler does."""
    seen.add(path)
    yield path
    for name in INCLUDE.findall(path.read_text()):
        header = next((found for folder in (path.parent, *folders) if (found := folder / name).exists()), None)
        if header is not None and header.resolve() not in seen:
            yield from _with_headers(header.resolve(), folders, seen)


@functools.cache
def _cpu() -> str:
    """What -march=native stands for on this machine: a home directory may be shared with other machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: Compiler, arguments: Sequence[str], text: str = "") -> str:
    result = subprocess.run([*compiler.command, *arguments], input=text, capture_output=True, text=True)
    if result.returncode != 0:
        raise CompileError(result.stderr.strip())
    if result.stderr.strip():
        warnings.warn(result.stderr.strip(), stacklevel=2)
    return result.stdout
