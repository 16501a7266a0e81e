"""Arrays on a GPU and the order of streams: a CuPy that computes on the host and knows what comes before what, on which
the runtime's own code for arrays and streams of other libraries runs; and CuPy and PyTorch themselves on a GPU.
"""

import ctypes
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nstgpu import kernels
from nstgpu.kernels import ArrayError, DeviceError
from nstgpu.kernels.cuda.runtime import cupy_runtime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.interop import stream_handle

OURS, LEGACY, PER_THREAD, OTHER = 0x5000, 1, 2, 0x7000
MADE = "what is read was made"


class Timeline:
    """What is sure to have been done when a stream gets to what it is asked for next."""

    before: defaultdict[int, set[str]]
    events: dict[int, set[str]]
    launched: list[str]
    host_waits: int

    @classmethod
    def begin(cls, producer: int) -> None:
        cls.before, cls.events, cls.launched, cls.host_waits = defaultdict(set), {}, [], 0
        cls.before[producer] = {MADE}
        FakeCupy.current = [FakeStream(0)]

    @classmethod
    def record(cls, event: int, stream: int) -> None:
        cls.events[event] = set(cls.before[stream])

    @classmethod
    def wait(cls, stream: int, event: int) -> None:
        cls.before[stream] |= cls.events[event]


class FakeStream:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr

    def __enter__(self) -> None:
        FakeCupy.current.append(self)

    def __exit__(self, *_: object) -> None:
        assert FakeCupy.current.pop() is self


class FakeEvent:
    def __init__(self, *, disable_timing: bool) -> None:
        assert disable_timing
        self.ptr = id(self)

    def record(self, stream: FakeStream) -> None:
        Timeline.record(self.ptr, stream.ptr)

    def synchronize(self) -> None:
        assert set(Timeline.launched) <= Timeline.events[self.ptr]
        Timeline.host_waits += 1


class FakeDevice:
    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class FakeArray(np.ndarray):
    """A cupy.ndarray, in host memory."""

    device: Any = FakeDevice(0)

    def __new__(cls, shape: Any, dtype: Any, pointer: Any, strides: Any = None) -> "FakeArray":
        buffer = (ctypes.c_uint8 * pointer.nbytes).from_address(pointer.ptr)
        array = super().__new__(cls, tuple(shape), dtype, buffer, strides=strides)
        array.owner = pointer.owner  # type: ignore[attr-defined]
        return array


FakeArray.__module__ = "cupy"


class FakeCupy:
    current: list[FakeStream]
    ndarray = FakeArray

    @staticmethod
    def empty(shape: Any, dtype: Any) -> Any:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return EmulatorRuntime.allocate(None, nbytes).view(dtype).reshape(shape).view(FakeArray)  # type: ignore[arg-type]

    @staticmethod
    def from_dlpack(array: Any) -> Any:
        assert array.__dlpack_device__() == (2, 0)
        return array.__dlpack__(stream=FakeCupy.current[-1].ptr or LEGACY).view(FakeArray)

    cuda = SimpleNamespace(
        Device=FakeDevice,
        get_current_stream=lambda: FakeCupy.current[-1],
        Event=FakeEvent,
        UnownedMemory=lambda ptr, nbytes, owner, _: SimpleNamespace(ptr=ptr, nbytes=nbytes, owner=owner),
        MemoryPointer=lambda memory, _: memory,
        runtime=SimpleNamespace(
            CUDARuntimeError=OSError,
            eventRecord=Timeline.record,
            streamWaitEvent=Timeline.wait,
            pointerGetAttributes=lambda _: SimpleNamespace(device=0),
        ),
    )


class HostRuntime(cupy_runtime.CudaRuntime):
    """The emulator's memory and launches; arrays and streams are put in order as on a GPU."""

    def __init__(self, index: int = 0, precision: str = "fp32") -> None:
        self._cupy, self._device, self._stream = FakeCupy, FakeDevice(index), FakeStream(OURS)
        self._emulated = EmulatorRuntime(precision)
        self.spec = self._emulated.spec

    def allocate(self, nbytes: int) -> Any:
        return self._emulated.allocate(nbytes).view(FakeArray)

    def upload(self, values: Any, out: Any) -> None:
        out[...] = values

    def address(self, array: Any) -> int:
        assert type(array) is FakeArray
        return int(array.ctypes.data)

    def launch(self, launch: Launch) -> None:
        assert MADE in Timeline.before[OURS], f"{launch.kernel} reads what may not be there yet"
        Timeline.before[OURS].add(launch.kernel)
        Timeline.launched.append(launch.kernel)
        plain = [arg.view(np.ndarray) if isinstance(arg, FakeArray) else arg for arg in launch.args]
        self._emulated.launch(launch._replace(args=tuple(plain)))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU, as far as the functions can tell, whose caller's current stream in CuPy is the legacy default stream."""
    try:
        EmulatorRuntime()
    except DeviceError as error:
        pytest.skip(str(error))
    kernels.release()
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy)
    monkeypatch.setattr(cupy_runtime, "CudaRuntime", HostRuntime)
    Timeline.begin(LEGACY)
    yield
    kernels.release()


def on_gpu(values: Any) -> Any:
    array = FakeCupy.empty(values.shape, values.dtype)
    array[...] = values
    return array


def features(seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((6, 7, 8), np.float32)


def is_before(stream: int) -> bool:
    """Whether all that was launched has been done when the stream gets to what comes next."""
    return bool(Timeline.launched) and set(Timeline.launched) <= Timeline.before[stream]


def right(gram: Any, values: Any) -> bool:
    return np.allclose(np.asarray(gram), kernels.gram(values, device="cpu"), rtol=1e-5)


# ---- CuPy -----------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("current", "handle"), [(0, LEGACY), (PER_THREAD, PER_THREAD), (OTHER, OTHER)])
def test_ours_is_between_the_work_of_cupys_current_stream(current: int, handle: int) -> None:
    Timeline.begin(handle)
    FakeCupy.current = [FakeStream(current)]
    result = kernels.gram(on_gpu(features()))
    assert type(result) is FakeArray
    assert right(result, features())
    assert is_before(handle)
    assert Timeline.host_waits == 0


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (1, 1), (2, 2), (OTHER, OTHER),
        (SimpleNamespace(ptr=OTHER), OTHER), (SimpleNamespace(ptr=0), LEGACY),
        (SimpleNamespace(cuda_stream=OTHER), OTHER), (SimpleNamespace(cuda_stream=0), LEGACY),
        (SimpleNamespace(__cuda_stream__=lambda: (0, OTHER)), OTHER), (ctypes.c_int(2).value, PER_THREAD),
        (np.int64(OTHER), OTHER),
    ],
)  # fmt: skip
def test_a_stream_that_is_given_takes_the_place_of_the_current_one(stream: Any, handle: int) -> None:
    Timeline.begin(handle)
    FakeCupy.current = [FakeStream(0x9999)]
    assert stream_handle(stream) == handle
    kernels.gram(on_gpu(features()), stream=stream)
    assert is_before(handle)
    assert not is_before(0x9999)


@pytest.mark.usefixtures("gpu")
def test_a_call_that_fails_midway_leaves_the_streams_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = HostRuntime.launch

    def fail(self: HostRuntime, each: Launch) -> None:
        if Timeline.launched:
            raise DeviceError("launching failed")
        launch(self, each)

    monkeypatch.setattr(HostRuntime, "launch", fail)
    with pytest.raises(DeviceError, match="launching failed"):
        kernels.gram(on_gpu(features()))  # products, and then their sum
    assert Timeline.launched
    assert is_before(LEGACY)


@pytest.mark.usefixtures("gpu")
def test_every_output_is_of_cupys_and_on_its_gpu() -> None:
    x = on_gpu(features())
    kernel = np.random.default_rng(1).random((3, 3, 8, 8), np.float32) - np.float32(0.5)
    y, mask, argmax = kernels.conv3x3_relu(x, kernel, relu_mask=True, pool="max", pool_argmax=True)
    assert {type(array) for array in (y, mask, argmax)} == {FakeArray}
    expected = kernels.conv3x3_relu(features(), kernel, pool="max", device="reference")
    assert np.allclose(y, expected, atol=1e-5)
    back = kernels.pool_input_gradient(y, mask, pool_argmax=argmax)
    assert back.shape == x.shape
    x.device = FakeDevice(1)
    with pytest.raises(ArrayError, match="style_gradient: gram_error lies on cuda:0, another array on cuda:1"):
        kernels.style_gradient(x, on_gpu(np.ones((8, 8), np.float32)))
    for device in ("cpu", "cuda:2"):
        with pytest.raises(ArrayError, match=f"gram: device '{device}' for arrays on cuda:0"):
            kernels.gram(on_gpu(features()), device=device)


# ---- __cuda_array_interface__ ---------------------------------------------------------------------------------------
class WithInterface:
    """Version 3 of the protocol and nothing else."""

    def __init__(self, values: Any, stream: int | None, **others: Any) -> None:
        self.values, self.shape = values, values.shape
        self.__cuda_array_interface__ = {
            "shape": values.shape, "typestr": values.dtype.str, "data": (values.ctypes.data, False), "version": 3,
            "strides": None, "stream": stream, **others,
        }  # fmt: skip


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("stream", [None, LEGACY, PER_THREAD, OTHER])
def test_the_stream_that_an_array_names_is_waited_for_and_waits(stream: int | None) -> None:
    Timeline.begin(stream or LEGACY)
    result: Any = kernels.gram(WithInterface(on_gpu(features()), stream))
    assert type(result) is FakeArray  # the protocol can't make arrays
    assert right(result, features())
    assert is_before(stream or LEGACY)
    assert is_before(LEGACY)  # CuPy's, whose the result is
    Timeline.begin(stream or LEGACY)
    kernels.gram(WithInterface(on_gpu(features()), stream), stream=LEGACY)  # its producer is waited for all the same
    assert is_before(LEGACY)


@pytest.mark.usefixtures("gpu")
def test_what_the_interface_cannot_say_is_refused() -> None:
    values = on_gpu(features())
    with pytest.raises(ArrayError, match="gram: features names stream 0 in its __cuda_array_interface__"):
        kernels.gram(WithInterface(values, 0))
    with pytest.raises(ArrayError, match="gram: features is masked"):
        kernels.gram(WithInterface(values, None, mask=values))
    strided = WithInterface(values, None, shape=(3, 7, 8), strides=(2 * 224, 32, 4))
    with pytest.raises(ArrayError, match="gram: features is not contiguous in memory"):
        kernels.gram(strided)
    square = WithInterface(on_gpu(np.ones((8, 8), np.float32)), None)
    square.__cuda_array_interface__["data"] = (square.values.ctypes.data, True)
    with pytest.raises(ArrayError, match="gram: out is read-only"):
        kernels.gram(values, out=square)
    assert not Timeline.launched


class NumbaArray(WithInterface):
    def __init__(self, values: Any, stream: int) -> None:
        super().__init__(values, stream or None)
        self.stream = stream


NumbaArray.__module__ = "numba.cuda.cudadrv.devicearray"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("stream", "per_thread", "handle"), [(0, 0, LEGACY), (0, 1, PER_THREAD), (OTHER, 0, OTHER), (OTHER, 1, OTHER)]
)
def test_numbas_arrays(monkeypatch: pytest.MonkeyPatch, stream: int, per_thread: int, handle: int) -> None:
    cuda = SimpleNamespace(
        gpus={0: FakeDevice(0)}, device_array=lambda shape, dtype: NumbaArray(FakeCupy.empty(shape, dtype), 0)
    )
    config = SimpleNamespace(CUDA_PER_THREAD_DEFAULT_STREAM=per_thread)
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(cuda=cuda, config=config))
    monkeypatch.setitem(sys.modules, "numba.cuda", cuda)
    Timeline.begin(handle)
    result = kernels.gram(NumbaArray(on_gpu(features()), stream))
    assert type(result) is NumbaArray
    assert right(result.values, features())
    assert is_before(handle)


# ---- DLPack ---------------------------------------------------------------------------------------------------------
class WithDLPack:
    """A library with streams of its own, which it orders with those of whom it gives an array to, or takes one from."""

    __dlpack_device__ = staticmethod(lambda: (2, 0))

    def __init__(self, values: Any, stream: int = OTHER) -> None:
        self.values, self.stream, self.shape, self.dtype = values, stream, values.shape, values.dtype

    def __dlpack__(self, *, stream: int) -> Any:
        assert stream == OURS
        Timeline.record(0xD1, self.stream)
        Timeline.wait(stream, 0xD1)
        return self.values.view(np.ndarray)

    def __array_namespace__(self) -> Any:
        def from_dlpack(memory: Any) -> WithDLPack:
            assert FakeCupy.current[-1].ptr == OURS
            Timeline.record(0xD2, FakeCupy.current[-1].ptr)
            Timeline.wait(self.stream, 0xD2)
            return WithDLPack(memory)

        return SimpleNamespace(from_dlpack=from_dlpack)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("stream", [None, OTHER])
def test_a_library_that_has_no_current_stream_orders_its_own(stream: int | None) -> None:
    Timeline.begin(OTHER)
    result = kernels.gram(WithDLPack(on_gpu(features())), stream=stream)
    assert type(result) is WithDLPack
    assert right(result.values, features())
    assert is_before(OTHER)
    assert Timeline.host_waits == (stream is None)  # its memory may be given away before ours has read it


@pytest.mark.usefixtures("gpu")
def test_pytorchs_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a fake that has what is asked of PyTorch, here on its per-thread stream."""

    class Tensor(WithDLPack):
        requires_grad = False
        device = SimpleNamespace(type="cuda", index=0)

        def __init__(self, values: Any, dtype: str = "torch.float32") -> None:
            super().__init__(values, PER_THREAD)
            self.dtype: Any = dtype

        def detach(self) -> "Tensor":
            return self

    Tensor.__module__ = "torch"
    torch = SimpleNamespace(
        bfloat16="torch.bfloat16", float32=np.float32, is_grad_enabled=lambda: True,
        empty=lambda shape, dtype, **_: Tensor(FakeCupy.empty(shape, dtype)),
        cuda=SimpleNamespace(current_stream=lambda _: SimpleNamespace(cuda_stream=PER_THREAD)),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    Timeline.begin(PER_THREAD)
    result = kernels.gram(Tensor(on_gpu(features())))
    assert type(result) is Tensor
    assert right(result.values, features())
    assert is_before(PER_THREAD)
    assert Timeline.host_waits == 0
    Tensor.device = SimpleNamespace(type="mps", index=0)
    with pytest.raises(ArrayError, match="gram: lies on PyTorch's device"):
        kernels.gram(Tensor(on_gpu(features())))


# ---- on a GPU -------------------------------------------------------------------------------------------------------
@contextmanager
def slowly(cupy: Any) -> Iterator[None]:
    """A stream, CuPy's current one, which is busy for a while before it does what is asked for within."""
    with cupy.cuda.Stream(non_blocking=True):
        square = cupy.random.rand(4096, 4096, dtype=cupy.float32)
        for _ in range(20):
            square = square @ square
            square /= square.max()
        yield


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 256])
def test_cupy_on_its_own_stream(size: int) -> None:
    if problem := cuda_problem():
        pytest.skip(problem)
    cupy = pytest.importorskip("cupy")
    rng = np.random.default_rng(0)
    x, kernel = rng.random((size, size, 16), np.float32), rng.random((3, 3, 16, 16), np.float32) - np.float32(0.5)
    expected = kernels.conv3x3_relu(x, kernel, device="cpu") + np.float32(1)
    filters = kernels.pack_filters(kernel)
    source, target = cupy.asarray(x), cupy.zeros(x.shape, cupy.float32)
    kernels.conv3x3_relu(source, filters)  # what is compiled is compiled now
    for _ in range(5):
        with slowly(cupy):
            target[...] = source  # late
            y = kernels.conv3x3_relu(target, filters)
            target[...] = 0  # and gone, once it has been read
            later = (y + 1).get()
        assert np.allclose(later, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(y, cupy.ndarray)


@pytest.mark.gpu
def test_pytorch_on_a_gpu() -> None:
    if problem := cuda_problem():
        pytest.skip(problem)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(1, 16, 65, 66, device="cuda", generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, 16, 3, 3, device="cuda", generator=generator) / 12
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        with torch.cuda.stream(torch.cuda.Stream()):
            expected = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1).relu()
            given = x.to(dtype, copy=True)  # x itself it would be, in its own dtype
            y = kernels.conv3x3_relu(given[0].permute(1, 2, 0), weight.permute(2, 3, 1, 0))
            given.zero_()
            error = (y.permute(2, 0, 1)[None].double() - expected).norm() / expected.norm()
            assert y.dtype == dtype
            assert float(error) <= bound
