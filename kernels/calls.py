"""One call of a function on the caller's arrays: which device computes it, checks, outputs, the order of streams.

    call = Call("gram", features, device=device, stream=stream)
    a = call.input("features", features, ("H", "W", "C"), call.activations)
    g = call.output("out", out, (a.shape[2], a.shape[2]), call.images)
    with call.running([(*a.shape[:2], 3, a.shape[2])]) as device:
        device.gram(a, g.memory)
    return call.result(g)

A thread has a device of its own for every place and precision, opened when it is first needed and kept, with a
workspace that grows; `release` lets them go. What arrays are and where they come from is `interop`'s business.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from .cuda import precisions
from .device import Array, Device
from .errors import ArrayError, DeviceError
from .interop import CPU, Library, library_of, stream_handle

if TYPE_CHECKING:
    from .cuda.runtime.cupy_runtime import CudaRuntime

PRECISIONS = {precision.storage: name for name, precision in reversed(precisions.PRECISIONS.items())}
"""What an array of this dtype is computed in, if nothing else is said."""
ACTIVATIONS = {name: precision.storage for name, precision in precisions.PRECISIONS.items()}
"""What activations and gradients within a network are, by precision."""
HOST_DEVICES = (CPU, "reference", "emulator")
Shape = tuple[int, ...]
Sizes = tuple[int, int, int, int]
"""(H, W, C_in, C_out) of a convolution, (H, W, C, M) of a search among M candidates."""


@dataclass(eq=False)
class Session:
    """A device that belongs to a thread, with what it needs besides. `runtime` is set where arrays lie on a GPU."""

    device: Device
    runtime: "CudaRuntime | None" = None
    workspace_bytes: int = 0
    packed: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary)
    """Filters that were packed for this device, as long as there is somebody who has them."""

    def provide_workspace(self, convolutions: Sequence[Sizes], searches: Sequence[Sizes] = ()) -> None:
        needed = self.device.workspace_bytes(convolutions, searches)
        if needed > self.workspace_bytes:
            self.device.bind_workspace(self.device.allocate(0))  # what there was need not last until there is more
            self.workspace_bytes = 0
            self.device.bind_workspace(self.device.allocate(needed))
            self.workspace_bytes = needed


_of_thread = threading.local()


def release() -> None:
    """Lets go of what the calls of this thread have kept: devices, workspaces and packed filters.

    Waits for what is under way. A thread that ends releases its own.
    """
    sessions: dict[tuple[str, str], Session] = getattr(_of_thread, "sessions", {})
    for session in sessions.values():
        if session.runtime is not None:
            session.runtime.record_event()()
    sessions.clear()


def session_of(place: str, precision: str) -> Session:
    """This thread's device called `place`. Raises DeviceError where it can't be had."""
    sessions: dict[tuple[str, str], Session] = _of_thread.__dict__.setdefault("sessions", {})
    if (place, precision) not in sessions:
        sessions[place, precision] = _opened(place, precision)
    return sessions[place, precision]


def _opened(place: str, precision: str) -> Session:
    if not place.startswith("cuda"):
        from .open import open_device

        session = Session(open_device(place, precision))
    else:
        from .cuda.device import CudaDevice
        from .cuda.runtime.cupy_runtime import CudaRuntime

        runtime = CudaRuntime(int(place.partition(":")[2]), precision)
        session = Session(CudaDevice(runtime, precision), runtime)
    session.device.loss_scale = 1.0  # here nothing undoes it
    return session


@dataclass(frozen=True)
class Output:
    """What a call writes: memory of the device, and the caller's array on it, if that is made beforehand."""

    memory: Array
    array: Any
    shape: Shape
    dtype: str


class Call:
    """Arrays are checked by `input` and `output`; the operation is carried out within `running`.

    operation: for messages.
    first: the array that decides where to compute, in what, and of which library the results are.
    precision: None takes that of the first array's dtype. device: None computes where that array lies.
    stream: None is the current stream of each array's library.
    """

    def __init__(self, operation: str, first: Any, *, precision: str | None = None, stream: Any = None,
                 device: str | None = None) -> None:  # fmt: skip
        self._operation, self._first = operation, first
        try:
            self._library = library_of(first)
            self._place = self._library.place(first)
            self._stream = None if stream is None else stream_handle(stream)
        except ArrayError as error:
            raise ArrayError(f"{operation}: {error}") from None
        self._streams: dict[int, None] = {} if self._stream is None else {self._stream: None}
        self._host_waits = False
        self._dtype = self._library.dtype(first)
        self._bits = self._dtype == "uint16" and precision == "bf16"
        """Whether the caller, for want of a bfloat16, has its bits in integers."""
        if stream is not None and self._place == CPU:
            raise ArrayError(f"{operation}: arrays in host memory have no stream")
        self.name = self._computing(device)
        if precision is not None and precision not in ACTIVATIONS:
            raise DeviceError(f"{operation}: unknown precision {precision!r}; choose one of {', '.join(ACTIVATIONS)}")
        self.precision = precision or self._own_precision()
        self._session = session_of(self.name, self.precision)
        self.device = self._session.device
        self.activations = ACTIVATIONS[self.precision]
        """The dtype of activations, and of gradients within a network."""
        self.images = "float64" if self.precision == "fp64" else "float32"
        """That of images, Grams, costs, and whatever else is not activations."""
        self._spans: dict[str, tuple[int, int, bool]] = {}

    def _computing(self, device: str | None) -> str:
        if self._place == CPU and device is not None and device not in HOST_DEVICES:
            raise ArrayError(
                f"{self._operation}: device {device!r} for arrays in host memory; choose one of "
                f"{', '.join(HOST_DEVICES)}, or give arrays of CuPy, PyTorch, JAX or Numba that lie on a GPU"
            )
        if self._place != CPU and device not in (None, "cuda", self._place):
            raise ArrayError(f"{self._operation}: device {device!r} for arrays on {self._place}")
        return self._place if self._place != CPU or device is None else device

    def _own_precision(self) -> str:
        known = {
            CPU: ["float32"],
            "reference": ["float32", "float64"],
        }.get(self.name, ["float32", "float16", "bfloat16"])
        if self._dtype not in known:
            allowed = " or ".join(known) if len(known) < 3 else "float32, float16 or bfloat16"
            raise ArrayError(f"{self._operation}: {self._dtype} on {self.name}, which takes {allowed}; convert it")
        return PRECISIONS[self._dtype]

    # ---- arrays -------------------------------------------------------------------------------------------------
    def input(self, name: str, array: Any, shape: Sequence[int | str], dtype: str) -> Array:
        """The array as memory of the device. Sizes that are free are letters."""
        return self._seen(name, array, shape, dtype, written=False)

    def optional(self, name: str, array: Any | None, shape: Sequence[int | str], dtype: str) -> Array | None:
        """An input that may be None."""
        return None if array is None else self.input(name, array, shape, dtype)

    def output(self, name: str, given: Any | None, shape: Shape, dtype: str) -> Output:
        """What the caller gave to be written, or a new array like the first."""
        if given is not None:
            return Output(self._seen(name, given, shape, dtype, written=True), given, shape, dtype)
        own = "uint16" if self._bits and dtype == "bfloat16" else dtype
        array = self._library.empty(shape, own, self._first)
        if array is not None:
            return Output(self._seen(name, array, shape, dtype, written=True), array, shape, own)
        return Output(self.scratch(shape, dtype), None, shape, own)

    def wanted(self, name: str, given: Any | None, shape: Shape, dtype: str) -> Output | None:
        """An output that is made only where the caller says True."""
        return None if given is None or given is False else self.output(
            name, None if given is True else given, shape, dtype
        )  # fmt: skip

    def scalar(self, name: str, given: Any | None) -> Output:
        """A cost: the memory has one element, the array no dimension."""
        output = self.output(name, given, () if given is None or tuple(given.shape) == () else (1,), self.images)
        return replace(output, memory=output.memory.reshape(1))

    def scratch(self, shape: Shape, dtype: str) -> Array:
        """Memory of the device, not initialised."""
        held = np.dtype(np.uint16) if dtype == "bfloat16" else np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * held.itemsize
        return self.device.allocate(nbytes).view(held).reshape(shape)

    def _seen(self, name: str, array: Any, shape: Sequence[int | str], dtype: str, *, written: bool) -> Array:
        where = f"{self._operation}: {name}"
        try:
            library = library_of(array)
            place, own = library.place(array), library.dtype(array)
            if place != self._place:
                raise ArrayError(f"lies on {place}, another array on {self._place}")
            if written and not library.writable(array):
                raise ArrayError("is read-only; leave it out, and a new array is made")
            if own != dtype and not (self._bits and (own, dtype) == ("uint16", "bfloat16")):
                raise ArrayError(f"is {own}; it must be {dtype}")
            if place == CPU:
                memory = library.on_host(array)
            else:
                assert self._session.runtime is not None
                memory = self._session.runtime.adopt(library.exported(array))
            self._order_with(library, array)
            if dtype == "bfloat16":
                memory = memory.view(np.uint16)
        except ArrayError as error:
            raise ArrayError(f"{where} {error}") from None
        self._check(where, memory, shape)
        if written and isinstance(memory, np.ndarray) and not memory.flags.writeable:
            raise ArrayError(f"{where} can only be read through DLPack; leave it out, and a new array is made")
        self._check_overlap(name, memory, written)
        return memory

    def _check(self, where: str, memory: Array, shape: Sequence[int | str]) -> None:
        fits = len(memory.shape) == len(shape) and all(
            size > 0 and (isinstance(wanted, str) or size == wanted)
            for size, wanted in zip(memory.shape, shape, strict=False)
        )
        if not fits:
            wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
            raise ArrayError(f"{where} has shape {memory.shape}; it must be ({wanted}), with no size of 0")
        if not memory.flags.c_contiguous:
            raise ArrayError(f"{where} is not contiguous in memory; give a copy of it, or a contiguous one")

    def _check_overlap(self, name: str, memory: Array, written: bool) -> None:
        start, end = _address(memory), _address(memory) + memory.nbytes
        for other, (first, last, other_written) in self._spans.items():
            if (written or other_written) and start < last and first < end:
                raise ArrayError(f"{self._operation}: {name} overlaps {other} in memory; give other memory")
        self._spans[name] = (start, end, written)

    def _order_with(self, library: Library, array: Any) -> None:
        if self._place == CPU or self._stream is not None:
            return
        streams = library.streams(array)
        if streams is None:
            self._host_waits = True
        else:
            self._streams.update(dict.fromkeys(streams))

    # ---- carrying it out ----------------------------------------------------------------------------------------
    @contextmanager
    def running(self, convolutions: Sequence[Sizes] = (), searches: Sequence[Sizes] = ()) -> Iterator[Device]:
        """The device, with a workspace for these convolutions and searches, between the caller's streams: ours waits
        for what they were asked for until now, and they for what we ask for here."""
        self._session.provide_workspace(convolutions, searches)
        runtime = self._session.runtime
        if runtime is not None:
            for stream in self._streams:
                runtime.wait_for_stream(stream)
        try:
            yield self.device
        except ValueError as error:  # a device's own check
            raise ArrayError(str(error)) from error
        finally:
            if runtime is not None:
                for stream in self._streams:
                    runtime.make_stream_wait(stream)
                if self._host_waits:
                    runtime.record_event()()

    def filters(self, filters: Any, kernel: Any, bias: Any) -> Any:
        """The kernel and bias as the device packs them, kept for as long as there is `filters`, whose they are."""
        packed = self._session.packed
        if filters not in packed:
            packed[filters] = self.device.pack_filters(kernel, bias)
        return packed[filters]

    def result(self, output: Output) -> Any:
        """An output as an array of the caller's."""
        if output.array is not None:
            return output.array
        memory, runtime = output.memory.reshape(output.shape), self._session.runtime
        with nullcontext() if runtime is None else runtime.current():
            return self._library.adopted(memory, output.dtype, self._first)

    def results(self, outputs: Iterable[Output | None]) -> Any:
        """Those that there are; a single one by itself, several as a tuple."""
        arrays = tuple(self.result(output) for output in outputs if output is not None)
        return arrays[0] if len(arrays) == 1 else arrays


def _address(memory: Array) -> int:
    return int(memory.ctypes.data if isinstance(memory, np.ndarray) else memory.data.ptr)
