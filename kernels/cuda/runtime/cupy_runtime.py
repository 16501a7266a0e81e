"""Kernels on a GPU, through CuPy, which is asked for nothing but memory, copies, streams and launches."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...device import Array
from ...errors import ArrayError, DeviceError, OutOfMemoryError
from ...interop import interface_streams
from ..gpu_spec import spec_of
from . import driver
from .launch import Launch
from .nvrtc import Cubin, architecture_for, compile_sources, find_nvrtc, sources_for

STATIC_SHARED_BYTES = 48 * 1024  # what a launch may ask for without saying so beforehand
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_...
DELAY_BYTES = 256 << 20  # a tenth of a millisecond, and more than any cache holds


class CudaRuntime:
    """One GPU: its modules, and a stream of our own, so that a graph can be captured from it.

    precision: what is to be computed in; decides which kernels are compiled.
    """

    name, measurable = "cuda", True
    _ordering: Any = None
    """The event that puts our stream and a caller's in order."""

    def __init__(self, index: int = 0, precision: str = "fp32") -> None:
        if problem := driver.cuda_problem(index):
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
            self.spec = spec_of(self._capability, self._device.attributes["MultiProcessorCount"])
            cubins = compile_sources(sources_for(precision), self.architecture)
            with self._device:
                self._stream = cupy.cuda.Stream(non_blocking=True)
                self._beside = cupy.cuda.Stream(non_blocking=True)  # for copies that nothing waits for
            for cubin in cubins:
                self.load(cubin)
        except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
            raise DeviceError(f"GPU {index} cannot be used: {error}") from error

    def load(self, cubin: Cubin) -> None:
        """Adds its kernels to those that can be launched."""
        with self._device:
            module = self._cupy.cuda.function.Module()
            module.load(cubin.image)
            self._functions |= {kernel: module.get_function(kernel) for kernel in cubin.names}

    def allocate(self, nbytes: int) -> Array:
        try:
            with self._device, self._stream:
                return self._cupy.ndarray((nbytes,), np.uint8)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfMemoryError(f"the GPU has no {nbytes / 2**20:.0f} MiB left; choose a smaller size") from error

    def free_bytes(self) -> int:
        with self._device:
            pool = self._cupy.get_default_memory_pool()
            free, limit = int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes()), int(pool.get_limit())
            return min(free, max(0, limit - int(pool.used_bytes()))) if limit else free

    def upload(self, values: NDArray[Any], out: Array) -> None:
        with self._device:
            out.set(values, self._stream)

    def download(self, values: Array) -> NDArray[Any]:
        with self._named_after_kernels(), self._device:
            host: NDArray[Any] = values.get(self._stream)
        self._recent.clear()
        return host

    @contextmanager
    def _named_after_kernels(self) -> Iterator[None]:
        """A kernel's fault comes to light where the host waits."""
        try:
            yield
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"{error}, in one of the kernels launched last ({', '.join(dict.fromkeys(self._recent))}); "
                "CUDA_LAUNCH_BLOCKING=1 tells which"
            ) from error

    def capture(self, work: Callable[[], object]) -> Callable[[], None]:
        try:
            with self._device, self._stream:
                self._stream.begin_capture()
                try:
                    work()
                finally:
                    graph = self._stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(f"an iteration cannot be captured as a CUDA graph: {error}") from error

        def launch() -> None:
            with self._named_after_kernels(), self._device:
                graph.launch(self._stream)

        return launch

    def record_event(self) -> Callable[[], None]:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(self._stream)

        def wait() -> None:
            with self._named_after_kernels(), self._device:
                event.synchronize()

        return wait

    def download_async(self, values: Array) -> Callable[[], NDArray[Any]]:
        """By way of a copy on the device, since what is launched next may change the values."""
        pinned = self._pinned(values.nbytes)
        host = np.frombuffer(pinned, values.dtype, values.size).reshape(values.shape)
        copied, fetched = (self._cupy.cuda.Event(disable_timing=True) for _ in range(2))
        staged = self.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
        with self._device:
            staged.data.copy_from_device_async(values.data, values.nbytes, self._stream)
            copied.record(self._stream)
            self._beside.wait_event(copied)
            staged.get(self._beside, out=host, blocking=False)
            fetched.record(self._beside)

        def wait() -> NDArray[Any]:
            nonlocal staged
            with self._named_after_kernels(), self._device:
                fetched.synchronize()
            staged = None
            return host

        return wait

    def alloc_pinned_mapped(self, nbytes: int) -> tuple[Array, NDArray[np.uint8]]:
        """Pinned memory, which kernels write through the bus: unified addressing gives it one address."""
        pinned = self._pinned(nbytes)
        memory = self._cupy.cuda.UnownedMemory(pinned.ptr, nbytes, pinned, self._device.id)
        pointer = self._cupy.cuda.MemoryPointer(memory, 0)
        return self._cupy.ndarray((nbytes,), np.uint8, pointer), np.frombuffer(pinned, np.uint8, nbytes)

    def _pinned(self, nbytes: int) -> Any:
        """Host memory that the GPU reaches by itself."""
        try:
            with self._device:
                return self._cupy.cuda.alloc_pinned_memory(nbytes)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise OutOfMemoryError(f"no {nbytes / 2**20:.0f} MiB of host memory could be pinned: {error}") from error

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

    # ---- arrays and streams of other libraries ------------------------------------------------------------------
    def adopt(self, array: Any) -> Array:
        """An array of another library on this GPU as one of CuPy's on the same memory, which it keeps alive.

        By DLPack, where the producer makes our stream wait for its own; by `__cuda_array_interface__` ours waits for
        the stream that the array names. Raises ArrayError.
        """
        cupy = self._cupy
        if isinstance(array, cupy.ndarray):
            return array
        if hasattr(array, "__dlpack__"):
            try:
                with self.current():
                    return cupy.from_dlpack(array)
            except (BufferError, RuntimeError, TypeError, ValueError) as error:
                raise ArrayError(f"cannot be had by DLPack: {error}") from error
        interface = array.__cuda_array_interface__
        if interface.get("mask") is not None:
            raise ArrayError("is masked, which no kernel knows; give the whole array")
        for stream in interface_streams(array):
            self.wait_for_stream(stream)
        shape, dtype, strides = interface["shape"], np.dtype(interface["typestr"]), interface.get("strides")
        span = sum((n - 1) * abs(step) for n, step in zip(shape, strides, strict=True)) if strides else None
        nbytes = math.prod(shape) * dtype.itemsize if span is None else span + dtype.itemsize
        memory = cupy.cuda.UnownedMemory(interface["data"][0], nbytes, array, self._device.id)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0), strides=strides)

    def wait_for_stream(self, stream: int) -> None:
        """What is launched from now on comes after what this stream was asked for until now."""
        self._order(stream, self._stream.ptr)

    def make_stream_wait(self, stream: int) -> None:
        """What this stream is asked for from now on comes after what was launched until now."""
        self._order(self._stream.ptr, stream)

    def _order(self, first: int, then: int) -> None:
        """By an event, which may be recorded anew as soon as it is waited for: a wait is for what it was until then."""
        runtime = self._cupy.cuda.runtime
        try:
            with self._device:
                self._ordering = self._ordering or self._cupy.cuda.Event(disable_timing=True)
                runtime.eventRecord(self._ordering.ptr, first)
                runtime.streamWaitEvent(then, self._ordering.ptr)
        except runtime.CUDARuntimeError as error:
            raise DeviceError(f"stream {first} and stream {then} cannot be put in order: {error}") from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Our stream is CuPy's current one: whoever takes an array of ours by DLPack makes its own wait for it."""
        with self._device, self._stream:
            yield

    def elapsed(self, work: Callable[[], object]) -> float:
        """Behind a write that empties the caches and takes as long as the host takes to ask for something."""
        with self._device:
            begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            self.allocate(DELAY_BYTES).data.memset_async(0, DELAY_BYTES, self._stream)
            begin.record(self._stream)
            work()
            end.record(self._stream)
            end.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1000

    def roofline(self, precision: str) -> tuple[float, float] | None:
        """By the data sheet: two FLOP per lane or product and clock; memory transfers on both edges of its clock."""
        has = self._device.attributes
        flops = 2 * self.spec.peak(precision) * has["MultiProcessorCount"] * has["ClockRate"] * 1e3
        return flops, has["MemoryClockRate"] * 1e3 * 2 * has["GlobalMemoryBusWidth"] / 8

    def _allow_shared(self, kernel: str, function: Any, nbytes: int) -> None:
        if nbytes > self._shared_bytes.get(kernel, STATIC_SHARED_BYTES):
            self._cupy.cuda.driver.funcSetAttribute(function.ptr, MAX_DYNAMIC_SHARED_SIZE_BYTES, nbytes)
            self._shared_bytes[kernel] = nbytes
