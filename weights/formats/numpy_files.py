"""NumPy's files of VGG: the classic `.npz` of VGG-16, and the `.npy` of VGG-19, whose pickle stays unexecuted.

The first has arrays conv1_1_W and conv1_1_b and takes RGB, the second {"conv1_1": [kernel, bias]} and takes BGR.
"""

import ast
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..model import CAFFE, MATCONVNET
from .pickled import Call, Global, Span, entries, read_pickle, text_of
from .tensors import ForeignWeights, Tensor, chain, decoded

SIGNATURE = b"\x93NUMPY"
MAX_HEADER = 10_000
MAX_BYTES = 1 << 30
_DTYPES = {"f2": "float16", "f4": "float32", "f8": "float64"}


def read_npz(path: Path, archive: zipfile.ZipFile) -> ForeignWeights:
    """The VGG among the arrays of an `.npz`; `archive` is the opened file."""
    tensors = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as stream:
            described = _described(stream)
        if described is None:
            continue
        shape, dtype, fortran, _ = described
        base, _, role = name.rpartition("_")
        if role in ("W", "b"):
            name = f"{base}.{'weight' if role == 'W' else 'bias'}"
        tensors[name] = _in_archive(path, member, shape, dtype, fortran)
    return chain(tensors, "NumPy archive (.npz)", MATCONVNET)


def _in_archive(
    path: Path, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
) -> Tensor:
    def read() -> NDArray[Any]:
        length = math.prod(shape) * dtype.itemsize
        if length > MAX_BYTES or member.file_size < length:
            raise WeightsError(f"its array {member.filename!r} is cut short, or too big for a VGG; fetch it again")
        with zipfile.ZipFile(path) as again, again.open(member) as stream:
            _described(stream)
            content = stream.read(length)
            stream.read(1)  # at its end a member's checksum is looked at
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")

    return Tensor(shape, str(dtype.newbyteorder("=").name), read)


def _described(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any], bool, bool] | None:
    """Shape, dtype, whether columns come first, and whether it is pickled objects; None for what is no such array."""
    if stream.read(6) != SIGNATURE:
        return None
    version = stream.read(2)
    length = int.from_bytes(stream.read(2 if version[:1] == b"\x01" else 4), "little")
    if length > MAX_HEADER:
        return None
    facts = ast.literal_eval(stream.read(length).decode("latin1").strip())
    shape, dtype, fortran = facts["shape"], facts["descr"], bool(facts["fortran_order"])
    if not isinstance(shape, tuple) or not all(type(extent) is int and 0 <= extent < 2**48 for extent in shape):
        return None
    if dtype == "|O":
        return shape, np.dtype("O"), fortran, True
    if not isinstance(dtype, str) or dtype[1:] not in _DTYPES or dtype[0] not in "<>":
        return None
    return shape, np.dtype(dtype), fortran, False


def read_npy(path: Path) -> ForeignWeights:
    """The VGG in an `.npy` that holds a dictionary."""
    with path.open("rb") as stream:
        described = _described(stream)
        if described is None or not described[3]:
            raise WeightsError(
                "a NumPy array and no dictionary of layers; give the vgg19.npy with conv1_1, conv1_2, …, or "
                "nstgpu weights fetch vgg19"
            )
        value = read_pickle(stream)
    array = _array_state(value)
    held = array[4] if array is not None else value
    layers = entries(held[0] if isinstance(held, list) and len(held) == 1 else held)
    if layers is None:
        raise WeightsError("a pickled NumPy array and no dictionary of layers; nstgpu weights fetch vgg19 gets a VGG")
    tensors = {}
    for name, pair in layers.items():
        named = entries(pair)
        parts = dict(zip(("weight", "bias"), pair, strict=False)) if isinstance(pair, list | tuple) else named or {}
        for part, stored in parts.items():
            role = {"weights": "weight", "biases": "bias", "W": "weight", "b": "bias"}.get(part, part)
            if (tensor := _pickled_array(path, stored)) is not None:
                tensors[f"{name}.{role}"] = tensor
    return chain(tensors, "NumPy dictionary (.npy)", CAFFE)


def _array_state(value: Any) -> tuple[Any, ...] | None:
    """(version, shape, dtype, columns first, numbers) of a pickled NumPy array."""
    if not isinstance(value, Call) or not isinstance(value.function, Global) or value.function.name != "_reconstruct":
        return None
    state = value.state
    return state if isinstance(state, tuple) and len(state) == 5 else None


def _pickled_array(path: Path, value: Any) -> Tensor | None:
    state = _array_state(value)
    if state is None:
        return None
    _, shape, kind, fortran, content = state
    if not isinstance(kind, Call) or kind.function != Global("numpy", "dtype") or not isinstance(kind.arguments, tuple):
        return None
    name = text_of(kind.arguments[0]) if kind.arguments else None
    order = text_of(kind.state[1]) if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    if name not in _DTYPES or order not in ("<", ">", "="):
        return None
    if not isinstance(shape, tuple) or not all(type(extent) is int and 0 <= extent < 2**48 for extent in shape):
        raise WeightsError("an array in it has a shape that cannot be; fetch it again")
    length = math.prod(shape) * np.dtype(name).itemsize

    def read() -> NDArray[Any]:
        data = _content(path, content)
        if len(data) != length:
            raise WeightsError(f"an array in it has {len(data):,} bytes, not {length:,}: damaged; fetch it again")
        numbers = decoded(data, _DTYPES[name], ">" if order == ">" else "<")
        return numbers.reshape(shape, order="F" if fortran else "C")

    return Tensor(shape, _DTYPES[name], read)


def _content(path: Path, content: Any) -> bytes:
    as_text = isinstance(content, Call) and content.function == Global("_codecs", "encode")
    if as_text:  # how Python 3 puts bytes into a pickle that Python 2 can read
        content = content.arguments[0]
    if isinstance(content, Span):
        with path.open("rb") as stream:
            content = _span(stream, content)
    if isinstance(content, str):
        return content.encode("latin1")
    if not isinstance(content, bytes):
        raise WeightsError("an array in it has no numbers; fetch it again")
    return content.decode("utf-8").encode("latin1") if as_text else content


def _span(stream: BinaryIO, span: Span) -> bytes:
    if span.length > MAX_BYTES:
        raise WeightsError("an array in it is too big for a VGG")
    stream.seek(span.offset)
    return stream.read(span.length)
