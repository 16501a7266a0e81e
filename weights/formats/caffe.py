"""A `.caffemodel`: a protocol buffer of layers with their numbers, of either generation, walked without copying it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from numpy.typing import NDArray

from ..errors import WeightsError
from ..model import CAFFE
from .tensors import ForeignWeights, Tensor, chain, decoded

MAX_FIELDS = 100_000
MAX_NAME = 200
_NEW_LAYERS, _OLD_LAYERS = 100, 2  # of a network
_PLACES = {_NEW_LAYERS: (1, 7), _OLD_LAYERS: (4, 6)}  # a layer's name and its arrays
_SHAPE, _FLOATS, _DOUBLES = 7, 5, 8  # of an array
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
DAMAGED = (
    "a Caffe model, but damaged or cut short; fetch it again, or get the same network with nstgpu weights fetch vgg19"
)


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    """Of a field with a length, its first byte; of another, its value."""
    length: int


def read(path: Path) -> ForeignWeights:
    """The VGG in the file; raises `WeightsError`."""
    with path.open("rb") as stream:
        tensors: dict[str, Tensor] = {}
        for layer in _fields(stream, 0, stream.seek(0, 2)):
            if layer.number not in _PLACES or layer.kind != _BYTES:
                continue
            named, arrays = _PLACES[layer.number]
            name, found = "", []
            for part in _fields(stream, layer.start, layer.start + layer.length):
                if part.number == named and part.kind == _BYTES:
                    stream.seek(part.start)
                    name = stream.read(min(part.length, MAX_NAME)).decode("utf-8", "replace")
                elif part.number == arrays and part.kind == _BYTES:
                    found.append(_array(path, stream, part))
            for role, tensor in zip(("weight", "bias"), found, strict=False):
                if tensor is not None:
                    tensors[f"{name}.{role}"] = tensor
    if not tensors:
        raise WeightsError(DAMAGED)
    return chain(tensors, "Caffe model (.caffemodel)", CAFFE)


def is_caffe(path: Path) -> bool:
    """Whether the file begins as a network of Caffe's does: its name, then layers or inputs."""
    with path.open("rb") as stream:
        try:
            first = next(_fields(stream, 0, stream.seek(0, 2)), None)
            if first is None or (first.number, first.kind) != (1, _BYTES) or first.length > MAX_NAME:
                return False
            stream.seek(first.start)
            name = stream.read(first.length)
            stream.seek(first.start + first.length)
            return name.isascii() and name.decode().isprintable() and stream.read(1) in (b"\x12", b"\x1a", b"\xa2")
        except WeightsError:
            return False


def _array(path: Path, stream: BinaryIO, blob: _Field) -> Tensor | None:
    old, shape, spans = [1, 1, 1, 1], None, []
    for part in _fields(stream, blob.start, blob.start + blob.length):
        if part.kind == _VARINT and 1 <= part.number <= 4:
            old[part.number - 1] = part.start
        elif part.number == _SHAPE and part.kind == _BYTES:
            shape = _shape(stream, part)
        elif part.number in (_FLOATS, _DOUBLES):
            if part.kind != _BYTES:
                return None  # number by number, as no Caffe writes them
            spans.append(part)
    if len(spans) != 1:
        return None
    (span,) = spans
    precision, width = ("float32", 4) if span.number == _FLOATS else ("float64", 8)
    extents = tuple(shape if shape is not None else old)
    if shape is None and extents[:2] == (1, 1):  # a bias, or a dense layer's matrix
        extents = tuple(extent for extent in extents if extent != 1) or (1,)
    if any(not 0 <= extent < 2**40 for extent in extents) or math.prod(extents) * width != span.length:
        raise WeightsError(DAMAGED)

    def numbers() -> NDArray[Any]:
        with path.open("rb") as again:
            again.seek(span.start)
            return decoded(again.read(span.length), precision).reshape(extents)

    return Tensor(extents, precision, numbers)


def _shape(stream: BinaryIO, field: _Field) -> list[int]:
    shape: list[int] = []
    for part in _fields(stream, field.start, field.start + field.length):
        if part.number != 1:
            continue
        if part.kind == _VARINT:
            shape.append(part.start)
            continue
        stream.seek(part.start)
        while stream.tell() < part.start + part.length and len(shape) < 32:
            shape.append(_varint(stream))
    return shape


def _fields(stream: BinaryIO, at: int, end: int) -> Iterator[_Field]:
    """The fields between two bytes of the file, each within them."""
    for _ in range(MAX_FIELDS):
        if at >= end:
            return
        stream.seek(at)
        tag = _varint(stream)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            field = _Field(number, kind, _varint(stream), 0)
            at = stream.tell()
        elif kind == _BYTES:
            length = _varint(stream)
            field = _Field(number, kind, stream.tell(), length)
            at = field.start + length
        elif kind in (_FIXED64, _FIXED32):
            field = _Field(number, kind, stream.tell(), 0)
            at = field.start + (8 if kind == _FIXED64 else 4)
        else:
            raise WeightsError(DAMAGED)
        if at > end or number == 0:
            raise WeightsError(DAMAGED)
        yield field
    raise WeightsError(DAMAGED)


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise WeightsError(DAMAGED)
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise WeightsError(DAMAGED)
