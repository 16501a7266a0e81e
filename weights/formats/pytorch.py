"""PyTorch's files without PyTorch: the zip it has written since 1.6, and the stream of pickles before.

Nothing in them is executed (see `pickled`): a tensor is recognised by the name of the function that would rebuild it,
and its numbers are read from the file where it says they lie.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from .pickled import Call, Global, Persistent, entries, read_pickle, text_of
from .tensors import NUMBER_TYPES, ForeignWeights, Tensor, chain, decoded

LEGACY_SIGNATURE = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""In the first pickle of a stream, behind its protocol."""
MAX_PICKLE = 64 * 1024**2
MAX_NESTING = 32
MAX_TENSORS = 20_000
MAX_NUMBERS = 200_000_000
_STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "DoubleStorage": "float64",
    "BFloat16Storage": "bfloat16",
    "float32": "float32",
    "float16": "float16",
    "float64": "float64",
    "bfloat16": "bfloat16",
}
_SIZES = {"LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "vgg")


class _Storage(NamedTuple):
    key: str
    kind: str
    """Its type, as PyTorch calls it."""


_Reader = Callable[[str, int, int], bytes]  # a storage's key, its first byte and how many


def read_zip(path: Path, archive: zipfile.ZipFile) -> ForeignWeights:
    """The VGG in a zip that torch.save wrote; `archive` is the opened file."""
    members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise WeightsError("a PyTorch file with more than one pickle; save the state_dict alone")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise WeightsError(
            "a TorchScript program; save its numbers instead, with torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if members[pickles[0]].file_size > MAX_PICKLE:
        raise WeightsError("a PyTorch file with far more than tensors in it; save the state_dict alone")
    big = f"{folder}byteorder" in members and archive.read(members[f"{folder}byteorder"])[:6] == b"big"

    def read(key: str, start: int, length: int) -> bytes:
        member = members.get(f"{folder}data/{key}")
        if member is None:
            raise WeightsError(f"its tensor data {key!r} is missing; fetch it again")
        # Stored as it is, so that no member can unpack to more than the file has bytes.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size < start + length:
            raise WeightsError(f"its tensor data {key!r} is cut short or packed; save it anew with torch.save")
        with zipfile.ZipFile(path) as again, again.open(member) as stream:
            content = stream.read(member.file_size)  # whole, so that its checksum is looked at
        return content[start : start + length]

    with archive.open(members[pickles[0]]) as stream:
        value = read_pickle(io.BytesIO(stream.read(MAX_PICKLE)))
    return _network(value, read, ">" if big else "<", "PyTorch state_dict")


def read_legacy(path: Path) -> ForeignWeights:
    """The VGG in a stream of pickles, as torch.save wrote it before 1.6."""
    with path.open("rb") as stream:
        for _ in ("magic number", "protocol"):
            read_pickle(stream)
        system = entries(read_pickle(stream)) or {}
        value = read_pickle(stream)
        keys = read_pickle(stream)
        byte_order = "<" if system.get("little_endian", True) else ">"
        if not isinstance(keys, list):
            raise WeightsError("a PyTorch file without its list of numbers; fetch it again")
        where = _legacy_places(stream, keys, _storages(value), byte_order)

    def read(key: str, start: int, length: int) -> bytes:
        if key not in where:
            raise WeightsError(f"its tensor data {key!r} is missing; fetch it again")
        offset, held = where[key]
        if start + length > held:
            raise WeightsError(f"its tensor data {key!r} is cut short; fetch it again")
        with path.open("rb") as again:
            again.seek(offset + start)
            return again.read(length)

    return _network(value, read, byte_order, "PyTorch state_dict of before 1.6")


def _legacy_places(
    stream: BinaryIO, keys: list[Any], storages: dict[str, str], byte_order: str
) -> dict[str, tuple[int, int]]:
    """Each storage's first byte and its bytes: they follow each other, each with its length in numbers in front."""
    end_at = stream.tell()
    size = stream.seek(0, 2)
    where: dict[str, tuple[int, int]] = {}
    for stored_key in keys:
        key = text_of(stored_key)
        kind = storages.get(key or "")
        if key is None or kind is None:
            raise WeightsError("a PyTorch file that holds numbers for no tensor; save it anew with torch.save")
        width = np.dtype(NUMBER_TYPES[_STORAGES[kind]]).itemsize if kind in _STORAGES else _SIZES.get(kind, 0)
        stream.seek(end_at)
        count = int.from_bytes(stream.read(8), "little" if byte_order == "<" else "big")
        if not width or end_at + 8 + count * width > size:
            raise WeightsError(f"cut short: the tensor data {key!r} ends behind the file; fetch it again")
        where[key] = (end_at + 8, count * width)
        end_at += 8 + count * width
    return where


def _network(value: Any, read: _Reader, byte_order: str, layout: str) -> ForeignWeights:
    tensors: dict[str, Tensor] = {}
    for name, held in _named(value):
        if len(tensors) > MAX_TENSORS:
            raise WeightsError("holds far more tensors than any VGG; save the state_dict alone")
        tensors[name] = _tensor(held, read, byte_order)
    if not tensors:
        raise WeightsError("a PyTorch file with no tensors in it; save the state_dict of a VGG")
    return chain(tensors, layout, None)


def _named(value: Any, prefix: str = "", path: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every tensor's name and description in a state_dict, in what wraps one, or in a pickled module."""
    if len(path) > MAX_NESTING or id(value) in path:
        raise WeightsError("nested without end; save the state_dict alone")
    held = entries(value)
    if held is None and isinstance(value, Call) and (state := entries(value.state)) is not None:
        for name in ("_parameters", "_buffers", "_modules"):  # of a torch.nn.Module, pickled whole
            yield from _named(state.get(name), prefix, (*path, id(value)))
        return
    if held is None:
        return
    for key, inner in held.items():
        name = str(key)
        if _is_tensor(inner):
            yield _unwrapped(f"{prefix}{name}"), inner
        elif name in _WRAPPERS and not prefix:
            yield from _named(inner, "", (*path, id(value)))
        elif name not in ("optimizer", "optimizer_state_dict", "_metadata"):
            yield from _named(inner, f"{prefix}{name}.", (*path, id(value)))


def _unwrapped(name: str) -> str:
    """Without what wrappers for several devices, compilation and averaging put in front."""
    while name.startswith(("module.", "_orig_mod.")):
        name = name.partition(".")[2]
    return name


def _is_tensor(value: Any) -> bool:
    return _rebuilding(value) is not None


def _rebuilding(value: Any) -> Call | None:
    """The call that rebuilds a tensor, out of what makes it a parameter."""
    for _ in range(3):
        if not isinstance(value, Call) or not isinstance(value.function, Global):
            return None
        if not isinstance(value.arguments, tuple) or not value.arguments:
            return None
        if value.function.name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return value if value.function.module == "torch._utils" else None
        if value.function.name not in ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter"):
            return None
        value = value.arguments[0]
    return None


def _storage(value: Any) -> _Storage | None:
    """What ("storage", type, key, device, count) says."""
    if not isinstance(value, Persistent) or not isinstance(value.identification, tuple):
        return None
    if len(value.identification) < 3:
        return None
    tag, kind, key, *rest = value.identification
    if text_of(tag) != "storage" or not isinstance(kind, Global) or (name := text_of(key)) is None:
        return None
    if len(rest) > 2 and rest[2] is not None:
        raise WeightsError("a PyTorch file with views of storages, as no version since 0.4 writes them; save it anew")
    return _Storage(name, kind.name)


def _storages(value: Any) -> dict[str, str]:
    """The type of every storage that a tensor in `value` needs, by its key."""
    found: dict[str, str] = {}
    pending, seen = [value], set[int]()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Persistent):
            if (storage := _storage(item)) is not None:
                found[storage.key] = storage.kind
        elif isinstance(item, Call):
            pending += [item.arguments, item.state, item.items, item.elements]
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
    return found


def _tensor(value: Any, read: _Reader, byte_order: str) -> Tensor:
    call = _rebuilding(value)
    assert call is not None
    if len(call.arguments) < 4:
        raise WeightsError("a tensor in it is not described as PyTorch does; fetch it again")
    storage = _storage(call.arguments[0])
    offset, shape, strides = call.arguments[1:4]
    if storage is None:
        raise WeightsError("a tensor in it has no numbers; fetch it again")
    kind = storage.kind
    if call.function.name == "_rebuild_tensor_v3" and len(call.arguments) > 6:
        kind = call.arguments[6].name if isinstance(call.arguments[6], Global) else ""
    if not isinstance(shape, tuple):
        raise WeightsError("a tensor in it has a shape that cannot be; fetch it again")
    whole = [offset, *shape, *strides] if isinstance(strides, tuple) else [None]
    if len(whole) != 1 + 2 * len(shape) or not all(type(number) is int and 0 <= number < 2**48 for number in whole):
        raise WeightsError("a tensor in it has a shape that cannot be; fetch it again")
    precision = _STORAGES.get(kind, kind)

    def numbers() -> NDArray[Any]:
        return _strided(storage.key, precision, offset, shape, strides, read, byte_order)

    return Tensor(shape, precision, numbers)


def _strided(
    key: str,
    precision: str,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    read: _Reader,
    byte_order: str,
) -> NDArray[Any]:
    """The tensor's numbers, once its steps are known to stay within its storage and no number is used twice."""
    width = np.dtype(NUMBER_TYPES[precision]).itemsize
    steps = sorted((stride, extent) for extent, stride in zip(shape, strides, strict=True) if extent > 1)
    reach = 1
    for stride, extent in steps:
        if stride < reach:
            raise WeightsError(f"its tensor data {key!r} is used several times over; save it anew with .contiguous()")
        reach = stride * (extent - 1) + reach
    if reach > MAX_NUMBERS:
        raise WeightsError(f"its tensor data {key!r} is spread over {reach:,} numbers: too many for a VGG")
    if 0 in shape:
        return np.empty(shape, np.float32)
    flat = decoded(read(key, offset * width, reach * width), precision, byte_order)
    if flat.size != reach:
        raise WeightsError(f"its tensor data {key!r} is cut short; fetch it again")
    return np.lib.stride_tricks.as_strided(flat, shape, [stride * flat.itemsize for stride in strides]).copy()
