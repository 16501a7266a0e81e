"""Where kernels run: on a GPU through CuPy, or on the host's processor through the emulator.

A runtime holds the compiled kernels, hands out memory, moves arrays in and out and launches; which kernel with which
arguments is decided elsewhere. CuPy is asked for nothing but memory, copies, streams and launches.
"""

import ctypes
import importlib.util
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .compiler import architecture_for, compile_sources, find_nvrtc, sources_for
from .device import Array, DeviceError, OutOfMemoryError
from .launch import Launch
from .reference import seconds_of
from .tensor_tiles import H200, Chip, chip_of

STATIC_SHARED_BYTES = 48 * 1024  # what a launch may ask for without saying so beforehand
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_...
POISON = 0xFF  # four of them are a NaN: emulated memory that is read before it is written shows


class Runtime(Protocol):
    """Memory and launches, in order; nothing waits but `download`."""

    name: str
    chip: Chip
    """What the choice of tiles for tensor cores goes by."""

    def allocate(self, nbytes: int) -> Array:
        """Uninitialised memory as uint8, on a 256-byte boundary."""

    def upload(self, values: NDArray[Any], out: Array) -> None:
        """out := values, C-contiguous and of out's dtype."""

    def download(self, values: Array) -> NDArray[Any]:
        """A copy in host memory, once all that was launched is done."""

    def free_bytes(self) -> int | None:
        """What could still be allocated; None where only the host's memory limits it."""

    def address(self, array: Array) -> int:
        """Where an array starts; raises ValueError for one that is not in this runtime's memory."""

    def launch(self, launch: Launch) -> None:
        """Raises DeviceError naming the kernel."""

    def elapsed(self, work: Callable[[], object]) -> float:
        """Seconds that what `work` launches takes."""

    def roofline(self) -> tuple[float, float] | None:
        """FLOP/s in float32 and bytes/s of memory, at best; None where they mean nothing."""


class CudaRuntime:
    """One GPU: its modules, and a stream of our own, so that a graph can be captured from it.

    precision: what is to be computed in; decides which kernels are compiled.
    """

    name = "cuda"

    def __init__(self, index: int = 0, precision: str = "fp32") -> None:
        if problem := cuda_problem(index):
            raise DeviceError(problem)
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(f"CuPy is installed but cannot be imported: {error}") from error

        self._cupy = cupy
        self._functions: dict[str, Any] = {}
        self._shared_bytes: dict[str, int] = {}
        self._recent: deque[str] = deque(maxlen=64)  # launched since the last download
        try:
            self._device = cupy.cuda.Device(index)
            digits = self._device.compute_capability
            self._capability = (int(digits[:-1]), int(digits[-1]))
            self.architecture = architecture_for(self._capability, find_nvrtc().architectures)
            self.chip = chip_of(self._capability, self._device.attributes["MultiProcessorCount"])
            cubins = compile_sources(sources_for(precision), self.architecture)
            with self._device:
                self._stream = cupy.cuda.Stream(non_blocking=True)
                for cubin in cubins:
                    module = cupy.cuda.function.Module()
                    module.load(cubin.image)
                    self._functions |= {kernel: module.get_function(kernel) for kernel in cubin.kernels}
        except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
            raise DeviceError(f"GPU {index} cannot be used: {error}") from error

    def allocate(self, nbytes: int) -> Array:
        try:
            with self._device, self._stream:
                return self._cupy.ndarray((nbytes,), np.uint8)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfMemoryError(f"the GPU has no {nbytes / 2**20:.0f} MiB left; choose a smaller size") from error

    def free_bytes(self) -> int:
        with self._device:
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def upload(self, values: NDArray[Any], out: Array) -> None:
        with self._device:
            out.set(values, self._stream)

    def download(self, values: Array) -> NDArray[Any]:
        try:
            with self._device:
                host: NDArray[Any] = values.get(self._stream)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"{error}, in one of the kernels launched last ({', '.join(dict.fromkeys(self._recent))}); "
                "CUDA_LAUNCH_BLOCKING=1 tells which"
            ) from error
        self._recent.clear()
        return host

    def address(self, array: Array) -> int:
        if not isinstance(array, self._cupy.ndarray):
            raise ValueError(f"is a {type(array).__name__}, not memory of the GPU")
        if array.data.device_id != self._device.id:
            raise ValueError(f"lies on GPU {array.data.device_id}, not on GPU {self._device.id}")
        return int(array.data.ptr)

    def launch(self, launch: Launch) -> None:
        function = self._functions.get(launch.kernel)
        if function is None:
            raise DeviceError(f"there is no kernel {launch.kernel!r}")
        # CuPy takes None for no parameter at all, so a null pointer is spelled as a number.
        args = tuple(np.uintp(0) if arg is None else arg for arg in launch.args)
        self._recent.append(launch.kernel)
        try:
            with self._device:
                self._allow_shared(launch.kernel, function, launch.shared_bytes)
                function(tuple(launch.grid), tuple(launch.block), args, launch.shared_bytes, self._stream)
        except self._cupy.cuda.driver.CUDADriverError as error:
            shape = f"grid {launch.grid}, block {launch.block}, {launch.shared_bytes} bytes of shared memory"
            raise DeviceError(f"launching kernel {launch.kernel!r} ({shape}): {error}") from error

    def elapsed(self, work: Callable[[], object]) -> float:
        with self._device:
            begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            begin.record(self._stream)
            work()
            end.record(self._stream)
            end.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1000

    def roofline(self) -> tuple[float, float] | None:
        """By the data sheet: two FLOP per lane and clock; memory that transfers on both edges of its clock."""
        has = self._device.attributes
        lanes = has["MultiProcessorCount"] * (64 if self._capability <= (8, 0) else 128)
        return lanes * 2 * has["ClockRate"] * 1e3, has["MemoryClockRate"] * 1e3 * 2 * has["GlobalMemoryBusWidth"] / 8

    def _allow_shared(self, kernel: str, function: Any, nbytes: int) -> None:
        if nbytes > self._shared_bytes.get(kernel, STATIC_SHARED_BYTES):
            self._cupy.cuda.driver.funcSetAttribute(function.ptr, MAX_DYNAMIC_SHARED_SIZE_BYTES, nbytes)
            self._shared_bytes[kernel] = nbytes


class EmulatorRuntime:
    """The same sources on the host's processor. With `check`, every access to memory is watched, and slow."""

    name = "emulator"
    chip = H200

    def __init__(self, precision: str = "fp32", *, check: bool = False, seed: int = 0) -> None:
        from .emulator import CompileError, NoCompilerError, compile_library

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
        out[...] = values

    def download(self, values: Array) -> NDArray[Any]:
        return np.array(values)

    def address(self, array: Array) -> int:
        if not isinstance(array, np.ndarray):
            raise ValueError(f"is a {type(array).__name__}, not an array of NumPy's")
        return int(array.ctypes.data)

    def launch(self, launch: Launch) -> None:
        args: tuple[Any, ...] = launch.args
        self._library.launch(launch.kernel, launch.grid, launch.block, args, shared_bytes=launch.shared_bytes)

    def elapsed(self, work: Callable[[], object]) -> float:
        return seconds_of(work)

    def roofline(self) -> None:
        """How long an emulated kernel takes says nothing of a GPU."""


def cuda_problem(index: int = 0) -> str | None:
    """Why GPU `index` can't be used, in one line that says what to do; None if it can.

    Asks the driver before anything is imported, so that a machine without a GPU pays nothing.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver was found on this machine; the device cpu needs none"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no GPU that it can use; the device cpu needs none"
    if index >= count.value:
        return f"there is no GPU {index}; this machine has {count.value}, counted from 0"
    if not importlib.util.find_spec("cupy"):
        return "CuPy is not installed: pip install 'nstgpu[cuda12]'"
    return None
