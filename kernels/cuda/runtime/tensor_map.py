"""Tensor maps: the 128 bytes by which Hopper's copy engine (TMA) finds an array, and the box of it to load.

The driver encodes them (`encode_with_driver`, by ctypes), or for the emulator `encode_for_emulator`.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...device import Array
from ...errors import DeviceError
from ..gpu_spec import MULTIPROCESSORS
from .protocol import Runtime

Element = Literal["bf16", "fp16"]
ELEMENT_BYTES = 2
CHANNELS = 8  # activations have a multiple of them: 16 bytes
STEP_CHANNELS = 64  # 128 bytes, the span of the swizzle: `block_k` in cuda/conv3x3/wgmma_layout.cuh


def as_half(precision: str) -> Element:
    """Of activations in a precision of 16 bits."""
    return "fp16" if precision == "fp16" else "bf16"


@dataclass(frozen=True)
class TensorMap:
    """An array of 16-bit elements, and the box of it that one load takes; the innermost dimension first."""

    address: int
    element: Element
    sizes: tuple[int, int, int]
    box: tuple[int, int, int]
    apart: tuple[int, int] | None = None
    """`pitches`, where rows do not lie side by side."""

    @property
    def pitches(self) -> tuple[int, int]:
        """Bytes from one row to the next, and from one plane to the next."""
        row = self.sizes[0] * ELEMENT_BYTES
        return self.apart or (row, row * self.sizes[1])


Encode = Callable[[TensorMap], NDArray[Any]]
ENCODED = np.dtype([("words", np.uint64, 16)])  # one of these is passed to a kernel by value


class Target(NamedTuple):
    """What of a runtime the launches depend on; `target_of` makes it."""

    address: Callable[[Array], int]
    encode: Encode
    multiprocessors: int = MULTIPROCESSORS
    """Blocks to launch at most. Results do not depend on it."""


def encode_for_emulator(tensor_map: TensorMap) -> NDArray[Any]:
    """As emulator/ptx/tma.cuh reads it: address, sizes, pitches, box, mark."""
    encoded = np.zeros(1, ENCODED)
    words = (tensor_map.address, *tensor_map.sizes, *tensor_map.pitches, *tensor_map.box)
    encoded["words"][0, :10] = (*words, int.from_bytes(b"tnsormap", "little"))
    return encoded


# The driver's numbers: CUtensorMapDataType, and for the rest CU_TENSOR_MAP_...
_DATA_TYPES = {"fp16": 6, "bf16": 9}
_INTERLEAVE_NONE, _SWIZZLE_128B, _L2_PROMOTION_256B, _OOB_FILL_ZEROS = 0, 3, 3, 0


@functools.lru_cache(maxsize=1024)
def encode_with_driver(tensor_map: TensorMap) -> NDArray[Any]:
    """By the driver's cuTensorMapEncodeTiled; raises DeviceError where there is none, or where it refuses."""
    room = (ctypes.c_ubyte * 192)()
    start = -ctypes.addressof(room) % 64  # the driver wants it so aligned
    status = driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(ctypes.addressof(room) + start),
        ctypes.c_int(_DATA_TYPES[tensor_map.element]),
        ctypes.c_uint32(3),
        ctypes.c_void_p(tensor_map.address),
        (ctypes.c_uint64 * 3)(*tensor_map.sizes),
        (ctypes.c_uint64 * 2)(*tensor_map.pitches),
        (ctypes.c_uint32 * 3)(*tensor_map.box),
        (ctypes.c_uint32 * 3)(1, 1, 1),
        *map(ctypes.c_int, (_INTERLEAVE_NONE, _SWIZZLE_128B, _L2_PROMOTION_256B, _OOB_FILL_ZEROS)),
    )
    if status != 0:
        raise DeviceError(f"cuTensorMapEncodeTiled: error {status} for {tensor_map}")
    encoded = np.zeros(1, ENCODED)
    ctypes.memmove(encoded.ctypes.data, ctypes.addressof(room) + start, encoded.nbytes)
    return encoded


@functools.cache
def driver() -> Any:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise DeviceError("no NVIDIA driver was found on this machine, which is to encode tensor maps") from error
    if not hasattr(driver, "cuTensorMapEncodeTiled"):
        raise DeviceError("the NVIDIA driver knows no tensor maps: install version 525 or newer")
    return driver


def target_of(runtime: Runtime, multiprocessors: int = MULTIPROCESSORS) -> Target:
    """How launches for this runtime find their arrays."""
    encode = encode_for_emulator if runtime.name == "emulator" else encode_with_driver
    return Target(runtime.address, encode, multiprocessors)
