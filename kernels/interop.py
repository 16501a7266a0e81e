"""Arrays of other libraries: where they lie, on which stream they are made, and how to see and make them in place.

NumPy, PyTorch and CuPy arrays are known by name, Numba's device arrays too; anything else, JAX's among them, comes by
DLPack or `__cuda_array_interface__` alone. Nothing is imported here but NumPy: who has an array has its library.

A stream is a number, as both protocols have it: 1 is the legacy default stream, 2 the per-thread default stream, else a
cudaStream_t. `kernels.calls` puts the streams in order; what CuPy has to do for it is `CudaRuntime`'s.
"""

import importlib
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import ArrayError

LEGACY_STREAM, PER_THREAD_STREAM = 1, 2
ON_HOST, ON_CUDA = (1, 3), (2, 13)  # DLPack: kDLCPU, kDLCUDAHost; kDLCUDA, kDLCUDAManaged
CPU = "cpu"


class Library(Protocol):
    """What has to be known of a library's arrays. Places are "cpu" and "cuda:0"; dtypes are names, as "bfloat16"."""

    def place(self, array: Any) -> str:
        """Where the array lies. Raises ArrayError for what is neither host memory nor an NVIDIA GPU."""

    def dtype(self, array: Any) -> str:
        """The name of the dtype."""

    def streams(self, array: Any) -> list[int] | None:
        """What work on an array of a GPU has to follow, and what has to follow it: the caller's current stream, and
        what the array itself names. None where the library has no stream that can be known."""

    def writable(self, array: Any) -> bool:
        """Whether it may be written to."""

    def on_host(self, array: Any) -> NDArray[Any]:
        """The same memory as a NumPy array; bfloat16 as its bits, in 16-bit integers."""

    def exported(self, array: Any) -> Any:
        """On a GPU: the same memory as something that CuPy takes by one of the protocols; bfloat16 likewise."""

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:
        """A new array where `like` lies; None where the library's arrays can't be written, and are made by `adopted`.

        It is the library that allocates, so the memory is the caller's current stream's.
        """

    def adopted(self, memory: Any, dtype: str, like: Any) -> Any:
        """An array of the library on memory of ours, which it keeps alive: of NumPy or CuPy, and where dtype is
        bfloat16 its bits."""

    def copied(self, array: Any) -> NDArray[Any]:
        """A copy in host memory; bfloat16 comes as float32."""


class NumPy:
    """numpy.ndarray; bfloat16 is that of the package ml_dtypes."""

    def place(self, array: Any) -> str:  # noqa: ARG002
        return CPU

    def dtype(self, array: Any) -> str:
        return str(array.dtype.name)

    def streams(self, array: Any) -> list[int] | None:  # noqa: ARG002
        return []

    def writable(self, array: Any) -> bool:
        return bool(array.flags.writeable)

    def on_host(self, array: Any) -> NDArray[Any]:
        view: NDArray[Any] = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
        return view

    def exported(self, array: Any) -> Any:
        return array

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:  # noqa: ARG002
        return np.empty(shape, dtype_called(dtype))

    def adopted(self, memory: Any, dtype: str, like: Any) -> Any:  # noqa: ARG002
        return memory.view(dtype_called(dtype))

    def copied(self, array: Any) -> NDArray[Any]:
        return np.array(array, np.float32 if array.dtype.name == "bfloat16" else None)


class Torch:
    """torch.Tensor in host memory or on an NVIDIA GPU, by DLPack."""

    def place(self, array: Any) -> str:
        if array.device.type not in ("cpu", "cuda"):
            raise ArrayError(f"lies on PyTorch's device {array.device}; move it to the CPU or to an NVIDIA GPU")
        return CPU if array.device.type == "cpu" else f"cuda:{array.device.index}"

    def dtype(self, array: Any) -> str:
        return str(array.dtype).removeprefix("torch.")

    def streams(self, array: Any) -> list[int] | None:
        if array.device.type == "cpu":
            return []
        return [stream_handle(_module("torch").cuda.current_stream(array.device))]

    def writable(self, array: Any) -> bool:  # noqa: ARG002
        return True

    def on_host(self, array: Any) -> NDArray[Any]:
        return _from_dlpack(self.exported(array))

    def exported(self, array: Any) -> Any:
        torch = _module("torch")
        if array.requires_grad and torch.is_grad_enabled():
            raise ArrayError(
                "requires a gradient, which autograd would not see pass through here; call it within a "
                "torch.autograd.Function, under torch.no_grad(), or with a detached tensor"
            )
        detached = array.detach()
        return detached.view(torch.int16) if array.dtype == torch.bfloat16 else detached

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:
        torch = _module("torch")
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)

    def adopted(self, memory: Any, dtype: str, like: Any) -> Any:  # noqa: ARG002
        torch = _module("torch")
        return torch.from_dlpack(memory).view(getattr(torch, dtype))

    def copied(self, array: Any) -> NDArray[Any]:
        wide = array.detach().float() if self.dtype(array) == "bfloat16" else array.detach()
        return np.array(wide.cpu().numpy())


class CuPy:
    """cupy.ndarray. Where CuPy has no bfloat16 (before 14), its bits in uint16 serve, with precision="bf16"."""

    def place(self, array: Any) -> str:
        return f"cuda:{array.device.id}"

    def dtype(self, array: Any) -> str:
        return str(array.dtype.name)

    def streams(self, array: Any) -> list[int] | None:
        with array.device:
            return [stream_handle(_module("cupy").cuda.get_current_stream())]

    def writable(self, array: Any) -> bool:  # noqa: ARG002
        return True

    def on_host(self, array: Any) -> NDArray[Any]:
        raise ArrayError(f"is an array of CuPy's on {self.place(array)}")

    def exported(self, array: Any) -> Any:
        return array.view(np.uint16) if array.dtype.name == "bfloat16" else array

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:
        with like.device:
            return _module("cupy").empty(shape, dtype_called(dtype))

    def adopted(self, memory: Any, dtype: str, like: Any) -> Any:  # noqa: ARG002
        return memory.view(dtype_called(dtype))

    def copied(self, array: Any) -> NDArray[Any]:
        host: NDArray[Any] = array.get()
        return host.astype(np.float32) if host.dtype.name == "bfloat16" else host


class Interface:
    """Arrays on a GPU that have `__cuda_array_interface__` and no more; what is made for them is CuPy's."""

    def place(self, array: Any) -> str:
        pointer = array.__cuda_array_interface__["data"][0]
        return f"cuda:{_module('cupy').cuda.runtime.pointerGetAttributes(pointer).device}"

    def dtype(self, array: Any) -> str:
        return str(np.dtype(array.__cuda_array_interface__["typestr"]).name)

    def streams(self, array: Any) -> list[int] | None:
        """That of the protocol, where the array names one, and CuPy's, which what is returned belongs to."""
        return [*interface_streams(array), stream_handle(_module("cupy").cuda.get_current_stream())]

    def writable(self, array: Any) -> bool:
        return not array.__cuda_array_interface__["data"][1]

    def on_host(self, array: Any) -> NDArray[Any]:
        raise ArrayError(f"is a {_kind(array)} on {self.place(array)}")

    def exported(self, array: Any) -> Any:
        return array

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:
        cupy = _module("cupy")
        with cupy.cuda.Device(int(self.place(like).partition(":")[2])):
            return cupy.empty(shape, dtype_called(dtype))

    def adopted(self, memory: Any, dtype: str, like: Any) -> Any:  # noqa: ARG002
        return memory.view(dtype_called(dtype))

    def copied(self, array: Any) -> NDArray[Any]:
        host: NDArray[Any] = _module("cupy").asarray(array).get()
        return host


class Numba(Interface):
    """numba.cuda's device arrays. Their current stream is the one they name, else Numba's default stream."""

    def streams(self, array: Any) -> list[int] | None:
        if array.stream:
            return [stream_handle(array.stream)]
        per_thread = _module("numba").config.CUDA_PER_THREAD_DEFAULT_STREAM
        return [PER_THREAD_STREAM if per_thread else LEGACY_STREAM]

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:
        cuda = _module("numba.cuda")
        with cuda.gpus[int(self.place(like).partition(":")[2])]:
            return cuda.device_array(shape, dtype_called(dtype))

    def copied(self, array: Any) -> NDArray[Any]:
        host: NDArray[Any] = array.copy_to_host()
        return host


class Exchange:
    """Anything that has `__dlpack__`, JAX's arrays among them. Such a library orders its own streams with ours as it
    hands an array over or takes one; since there is no current stream to wait on ours, the host waits."""

    def place(self, array: Any) -> str:
        kind, index = array.__dlpack_device__()
        if kind not in ON_HOST + ON_CUDA:
            raise ArrayError(f"lies on a device that DLPack calls {int(kind)}; move it to the CPU or to an NVIDIA GPU")
        return CPU if kind in ON_HOST else f"cuda:{index}"

    def dtype(self, array: Any) -> str:
        return str(getattr(array.dtype, "name", None) or str(array.dtype).rpartition(".")[2])

    def streams(self, array: Any) -> list[int] | None:
        return [] if self.place(array) == CPU else None

    def writable(self, array: Any) -> bool:
        return not type(array).__module__.startswith("jax")

    def on_host(self, array: Any) -> NDArray[Any]:
        return _from_dlpack(self.exported(array))

    def exported(self, array: Any) -> Any:
        return array.view(np.uint16) if self.dtype(array) == "bfloat16" else array

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:  # noqa: ARG002
        return None

    def adopted(self, memory: Any, dtype: str, like: Any) -> Any:
        """By the array API standard; an array without a namespace gets one of NumPy or CuPy."""
        if not hasattr(like, "__array_namespace__"):
            return memory.view(dtype_called(dtype))
        array = like.__array_namespace__().from_dlpack(memory)
        return array.view(dtype_called(dtype)) if dtype == "bfloat16" else array

    def copied(self, array: Any) -> NDArray[Any]:
        host = np.array(array)
        return host.astype(np.float32) if host.dtype.name == "bfloat16" else host


def library_of(array: Any) -> Library:
    """How to deal with an array. Raises ArrayError for what is no array at all."""
    root = type(array).__module__.partition(".")[0]
    if root == "torch" and hasattr(array, "device"):
        return Torch()
    if root == "cupy" and hasattr(array, "device"):
        return CuPy()
    if isinstance(array, np.ndarray):
        return NumPy()
    if root in ("numba", "numba_cuda") and hasattr(array, "__cuda_array_interface__"):
        return Numba()
    if hasattr(array, "__dlpack__"):
        return Exchange()
    if hasattr(array, "__cuda_array_interface__"):
        return Interface()
    raise ArrayError(f"is a {_kind(array)}; it must be an array with DLPack or __cuda_array_interface__")


def stream_handle(stream: Any) -> int:
    """The number of a stream: of a number as the protocols have it, or of a stream of CuPy, PyTorch, Numba or any
    library with `__cuda_stream__`, where 0 is the legacy default stream. Raises ArrayError."""
    if isinstance(stream, int) and not isinstance(stream, bool):
        if stream <= 0:
            raise ArrayError(
                f"stream={stream} is no stream; 1 is the legacy default stream, 2 the per-thread default stream"
            )
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1]) or LEGACY_STREAM
    for name in ("ptr", "cuda_stream"):
        if hasattr(stream, name):
            return int(getattr(stream, name)) or LEGACY_STREAM
    try:
        return int(stream) or LEGACY_STREAM  # Numba's
    except (TypeError, ValueError):
        raise ArrayError(f"stream is a {_kind(stream)}; it must be a stream, or its number") from None


def interface_streams(array: Any) -> list[int]:
    """The stream that an array's `__cuda_array_interface__` names, if any. Raises ArrayError for what version 3 of the
    protocol forbids."""
    stream = array.__cuda_array_interface__.get("stream")
    if stream is None:
        return []
    if stream == 0:
        raise ArrayError("names stream 0 in its __cuda_array_interface__, which may be either default stream")
    return [int(stream)]


def dtype_called(name: str) -> np.dtype[Any]:
    """NumPy's dtype of this name; "bfloat16" is that of ml_dtypes. Raises ArrayError where that is not installed."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        bfloat16: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
        return bfloat16
    except ImportError:
        raise ArrayError("bfloat16 outside PyTorch and JAX needs the package ml_dtypes; install it") from None


def _from_dlpack(array: Any) -> NDArray[Any]:
    """NumPy's view; writable, where the array is, also in a NumPy that has all it takes by DLPack read-only."""
    view: NDArray[Any] = np.from_dlpack(array)
    if view.flags.writeable:
        return view
    plain = np.asarray(array)
    return plain if plain.ctypes.data == view.ctypes.data else view


def _module(name: str) -> ModuleType:
    """The library of an array that is there, or CuPy, which every GPU device of ours stands on."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArrayError(f"lies on a GPU, for which {name} is needed: {error}") from error


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__name__}".removeprefix("builtins.")
