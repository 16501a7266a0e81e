"""A compiled library of emulated kernels: checks the arguments of a launch and runs it.

An array is passed by address, a NumPy scalar or a one-element structured array by value. How to read what the
runtime reports is the business of `faults`.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .faults import KernelFault, parse_reports

Array = NDArray[Any]
Argument = Array | np.generic | None

MAX_THREADS, MAX_BLOCK_Z = 1024, 64
MAX_SHARED_BYTES = 227 * 1024
MAX_GRID = (2**31 - 1, 65535, 65535)
NAMES = {"p": "a pointer", "f": "floating point", "i": "an integer", "s": "a struct"}

_one_launch = threading.Lock()


def _after_fork() -> None:
    """A child may have been forked while another thread was launching, which goes on in the parent alone."""
    global _one_launch
    _one_launch = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Buffer(ctypes.Structure):
    """Mirrors `Buffer` in worker.h."""

    _fields_ = (
        ("base", ctypes.c_size_t),
        ("bytes", ctypes.c_uint64),
        ("element_bytes", ctypes.c_uint32),
        ("writable", ctypes.c_uint32),
        ("initialised", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    )


@dataclass(frozen=True)
class _Parameter:
    """A kernel's parameter as `Parameter` in device.h describes it."""

    kind: str
    bytes: int
    pointee_kind: str
    pointee_bytes: int

    @classmethod
    def parse(cls, text: str) -> _Parameter:
        match = re.fullmatch(r"([pfis])(\d+)(?:([fis])(\d+))?", text)
        assert match, text
        return cls(match[1], int(match[2]), match[3] or "s", int(match[4] or 0))

    def problem_with(self, argument: Argument) -> str | None:
        """What is wrong with an argument for this parameter, if anything."""
        if argument is None:
            return None if self.kind == "p" else "is not a pointer, and None is a null pointer"
        if not isinstance(argument, np.generic | np.ndarray):
            return f"must be a NumPy array or scalar, not {type(argument).__name__}"  # type: ignore[unreachable]
        kind = {"b": "i", "u": "i", "V": "s"}.get(argument.dtype.kind, str(argument.dtype.kind))
        found = (kind, argument.dtype.itemsize)
        if not _is_address(argument):
            wanted = "i" if self.kind == "p" else self.kind
            if found != (wanted, self.bytes):
                return f"is {NAMES[self.kind]} of {self.bytes} bytes, not {argument.dtype}"
        elif self.kind != "p":
            return "is passed by value: pass a NumPy scalar"
        elif not argument.flags.c_contiguous and not (self.pointee_kind == "s" and _is_window(np.asarray(argument))):
            return "must be C-contiguous"
        elif self.pointee_kind != "s" and found != (self.pointee_kind, self.pointee_bytes):
            return f"points to {NAMES[self.pointee_kind]} of {self.pointee_bytes} bytes, not to {argument.dtype}"
        return None


class Library:
    """The kernels of some sources, ready to run; made by `compile_library`."""

    def __init__(self, path: Path, *, check: bool, seed: int) -> None:
        self.path = path
        self.check = check
        self.seed = seed
        self._library = ctypes.CDLL(str(path))
        self._library.emulator_kernels.restype = ctypes.c_char_p
        self._library.emulator_launch.restype = ctypes.c_char_p
        self._parameters: dict[str, list[_Parameter]] = {}
        for line in self._library.emulator_kernels().decode().splitlines():
            name, *parameters = line.split()
            self._parameters[name] = [_Parameter.parse(text) for text in parameters]

    @property
    def kernels(self) -> tuple[str, ...]:
        return tuple(sorted(self._parameters))

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        buffers: Sequence[Array] = (),
        uninitialised: Sequence[Array] = (),
    ) -> None:
        """Run a kernel to its end.

        `buffers` names memory that the kernel reaches by other ways than its pointer arguments (addresses in
        a struct), `uninitialised` those arrays in which only what the kernel itself has written may be read;
        both matter to the checking build only. Any thread may call; one launch runs at a time.

        Raises TypeError or ValueError for a launch that could not work, KernelFault for what went wrong in it.
        """
        parameters = self._parameters.get(name)
        if parameters is None:
            raise ValueError(f"no kernel {name!r}; the library has {', '.join(self.kernels)}")
        if len(args) != len(parameters):
            raise TypeError(f"kernel {name!r} takes {len(parameters)} arguments, not {len(args)}")
        for index, (parameter, argument) in enumerate(zip(parameters, args, strict=True)):
            if problem := parameter.problem_with(argument):
                raise TypeError(f"kernel {name!r}: argument {index} {problem}")
        grid, block = _three(grid), _three(block)
        if min(block) < 1 or block[0] * block[1] * block[2] > MAX_THREADS or block[2] > MAX_BLOCK_Z:
            raise ValueError(f"kernel {name!r}: block {block} is not of 1 to {MAX_THREADS} threads, {MAX_BLOCK_Z} in z")
        if any(not 1 <= size <= most for size, most in zip(grid, MAX_GRID, strict=True)):
            raise ValueError(f"kernel {name!r}: grid {grid} is not within {MAX_GRID}")
        if not 0 <= shared_bytes <= MAX_SHARED_BYTES:
            raise ValueError(f"kernel {name!r}: {shared_bytes} bytes of shared memory; a block has {MAX_SHARED_BYTES}")

        values = [_value(argument) for argument in args]
        registered, copies = _isolate(args, values, buffers, uninitialised) if self.check else ([], [])
        with _one_launch:
            text: bytes = self._library.emulator_launch(
                name.encode(),
                (ctypes.c_uint32 * 3)(*grid),
                (ctypes.c_uint32 * 3)(*block),
                (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values)),
                ctypes.c_uint32(shared_bytes),
                ctypes.c_uint64(self.seed),
                (_Buffer * len(registered))(*registered),
                ctypes.c_uint32(len(registered)),
            )
        for array, copy in copies:
            if array.flags.writeable:
                _bytes(array)[:] = copy
        if text:
            raise KernelFault(name, parse_reports(text.decode(), name, grid, self.path))


def _isolate(
    args: Sequence[Argument], values: list[Array], buffers: Sequence[Array], uninitialised: Sequence[Array]
) -> tuple[list[_Buffer], list[tuple[Array, Array]]]:
    """Replace the arrays' addresses in `values` by those of copies that lie far apart.

    So one array's end is not another's start, as it is in an arena. Arrays that overlap stay so. Gives what to
    register, and the arrays with their copies. `buffers` stay where they are, as their addresses are known.
    """
    arrays = {i: arg for i, arg in enumerate(args) if isinstance(arg, np.ndarray) and _is_address(arg)}
    fresh = {_extent(array) for array in uninitialised}
    registered, copies = [], []
    for group in _overlapping(arrays):
        low = min(_extent(arrays[i])[0] for i in group)
        size = max(_extent(arrays[i])[1] for i in group) - low
        # Twice the size again around it: an index that is a row or an image too far hits nobody's memory.
        room = np.empty(3 * size + 4096, np.uint8)
        start = size + 2048
        start += (low - room.ctypes.data - start) % 256  # aligned as the original is
        for i in group:
            offset = start + _extent(arrays[i])[0] - low
            low_of, high_of = _extent(arrays[i])
            copy = room[offset : offset + high_of - low_of]
            copy[:] = _bytes(arrays[i])
            values[i] = np.array(copy.ctypes.data, np.uint64)
            copies.append((arrays[i], copy))
        registered.append(
            _Buffer(
                base=room.ctypes.data + start,
                bytes=size,
                element_bytes=min(arrays[i].itemsize for i in group),
                writable=any(arrays[i].flags.writeable for i in group),
                initialised=not all(_extent(arrays[i]) in fresh for i in group),
                name=", ".join(f"argument {i} ({_describe(arrays[i])})" for i in group).encode(),
            )
        )
    for i, array in enumerate(buffers):
        name = f"buffer {i} ({_describe(array)})".encode()
        initialised = _extent(array) not in fresh
        low = _extent(array)[0]
        registered.append(_Buffer(low, array.nbytes, array.itemsize, array.flags.writeable, initialised, name))
    return registered, copies


def _overlapping(arrays: dict[int, Array]) -> Iterator[list[int]]:
    """Groups of arrays that share memory; empty arrays have none to share."""
    group: list[int] = []
    end = 0
    for i in sorted((i for i in arrays if arrays[i].size), key=lambda i: _extent(arrays[i])):
        low, high = _extent(arrays[i])
        if group and low >= end:
            yield group
            group = []
        group.append(i)
        end = max(end, high)
    if group:
        yield group


def _is_address(argument: Array | np.generic) -> bool:
    """Arrays are passed by address, but for a one-element structured one: CuPy's way to pass a struct."""
    return isinstance(argument, np.ndarray) and not (argument.dtype.kind == "V" and argument.size == 1)


def _value(argument: Argument) -> Array:
    """A parameter's bytes, aligned as any type may want it."""
    if argument is None:
        return np.array(0, np.uint64)
    if isinstance(argument, np.ndarray) and _is_address(argument):
        return np.array(argument.ctypes.data, np.uint64)
    size = argument.dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + size] = np.frombuffer(argument.tobytes(), np.uint8)
    return room[start : start + size]


def _is_window(array: Array) -> bool:
    """Whether rows lie together, each further on than the one before: what a kernel that knows their pitch may take."""
    return array.size > 0 and array[0].flags.c_contiguous and array.strides[0] >= array[0].nbytes


def _bytes(array: Array) -> Array:
    """From the first to the last, those between the rows of a window included."""
    low, high = _extent(array)
    return np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))


def _extent(array: Array) -> tuple[int, int]:
    low = array.ctypes.data
    if array.flags.c_contiguous:
        return low, low + array.nbytes
    return low, low + (len(array) - 1) * array.strides[0] + array[0].nbytes


def _describe(array: Array) -> str:
    return f"{array.dtype} {'x'.join(map(str, array.shape))}"


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*((size,) if isinstance(size, int) else size), 1, 1, 1)[:3]
    return x, y, z
