"""The `.safetensors` format: a length, a header in JSON that says where each tensor lies, and their bytes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from .tensors import NUMBER_TYPES, ForeignWeights, Tensor, chain, decoded

MAX_HEADER = 16 * 1024**2
MAX_TENSORS = 20_000
_PRECISIONS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}


def is_safetensors(start: bytes, size: int) -> bool:
    """By the first bytes: a header's length that the file has room for, and the header's brace."""
    return len(start) >= 9 and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= size


def read(path: Path) -> ForeignWeights:
    """The VGG in the file; raises `WeightsError`."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        if length > min(MAX_HEADER, size - 8):
            raise WeightsError(f"safetensors with a header of {length:,} bytes: cut short or damaged; fetch it again")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise WeightsError("safetensors with a header that lists no tensors; fetch it again")
    tensors = {}
    for name, facts in header.items():
        if name != "__metadata__":
            tensors[name] = _tensor(path, name, facts, 8 + length, size)
    return chain(tensors, "safetensors", None)


def _tensor(path: Path, name: str, facts: Any, base: int, size: int) -> Tensor:
    """A tensor, its place in the file checked."""
    if not isinstance(facts, dict) or not isinstance(facts.get("dtype"), str):
        raise WeightsError(f"safetensors whose header does not describe {name!r}; fetch it again")
    precision = _PRECISIONS.get(facts["dtype"], str(facts["dtype"]))
    shape, offsets = facts.get("shape"), facts.get("data_offsets")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise WeightsError(f"safetensors whose header places {name!r} nowhere; fetch it again")
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    if len(offsets) != 2:
        raise WeightsError(f"safetensors whose header places {name!r} nowhere; fetch it again")
    length = offsets[1] - offsets[0]
    known = precision in NUMBER_TYPES
    if (known and length != math.prod(shape) * np.dtype(NUMBER_TYPES[precision]).itemsize) or base + offsets[1] > size:
        raise WeightsError(f"its tensor {name!r} does not lie within the file: cut short or damaged; fetch it again")

    def read_numbers() -> NDArray[Any]:
        with path.open("rb") as stream:
            stream.seek(base + offsets[0])
            return decoded(stream.read(length), precision).reshape(shape)

    return Tensor(tuple(shape), precision, read_numbers)
