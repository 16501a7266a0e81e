"""Kernels on the host's processor: the same sources, compiled and run by the emulator."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...device import Array
from ...errors import DeviceError
from ...timing import seconds_of
from ..gpu_spec import H200
from .launch import Launch
from .nvrtc import sources_for

POISON = 0xFF  # four of them are a NaN: emulated memory that is read before it is written shows


class EmulatorRuntime:
    """The same sources on the host's processor. With `check`, every access to memory is watched, and slow."""

    name, measurable = "emulator", False
    spec = H200
    _captured: list[Launch] | None = None
    """What a graph that is being captured has so far."""

    def __init__(self, precision: str = "fp32", *, check: bool = False, seed: int = 0) -> None:
        from ...emulator import CompileError, NoCompilerError, compile_library

        try:
            self._library = compile_library(sources_for(precision), check=check, seed=seed)
        except (CompileError, NoCompilerError) as error:
            raise DeviceError(str(error)) from error

    def allocate(self, nbytes: int) -> Array:
        room = np.full(nbytes + 256, POISON, np.uint8)
        start = -room.ctypes.data % 256
        return room[start : start + nbytes]

    def free_bytes(self) -> None:
        """The host's memory is what there is."""

    def upload(self, values: NDArray[Any], out: Array) -> None:
        self._check_not_capturing("uploaded")
        out[...] = values

    def download(self, values: Array) -> NDArray[Any]:
        self._check_not_capturing("downloaded")
        return np.array(values)

    def capture(self, work: Callable[[], object]) -> Callable[[], None]:
        self._check_not_capturing("captured")
        launches: list[Launch] = []
        self._captured = launches
        try:
            work()
        finally:
            self._captured = None

        def launch() -> None:
            for each in launches:
                self.launch(each)

        return launch

    def record_event(self) -> Callable[[], None]:
        return lambda: None  # a launch is done when it returns

    def download_async(self, values: Array) -> Callable[[], NDArray[Any]]:
        host = self.download(values)
        return lambda: host

    def alloc_pinned_mapped(self, nbytes: int) -> tuple[Array, NDArray[np.uint8]]:
        memory = self.allocate(nbytes)
        return memory, memory

    def _check_not_capturing(self, done: str) -> None:
        """As on a GPU."""
        if self._captured is not None:
            raise DeviceError(f"nothing can be {done} while a graph is captured")

    def address(self, array: Array) -> int:
        if not isinstance(array, np.ndarray):
            raise ValueError(f"is a {type(array).__name__}, not an array of NumPy's")
        return int(array.ctypes.data)

    def launch(self, launch: Launch) -> None:
        if self._captured is not None:
            self._captured.append(launch)
            return
        args: tuple[Any, ...] = launch.args
        reached: tuple[Any, ...] = launch.reached
        grid, block, shared_bytes = launch.grid, launch.block, launch.shared_bytes
        self._library.launch(launch.kernel, grid, block, args, shared_bytes=shared_bytes, buffers=reached)

    def elapsed(self, work: Callable[[], object]) -> float:
        return seconds_of(work)

    def roofline(self, precision: str) -> None:
        """How long an emulated kernel takes says nothing of a GPU."""
