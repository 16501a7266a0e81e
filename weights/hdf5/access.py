"""Guarded access to an HDF5 file that nobody vouches for: opening, attributes, members and numbers.

Follows hard links only and looks at sizes before reading. What the groups mean is left to `layouts`.
"""

import contextlib
import importlib
import math
import re
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from . import guard as hdf5_guard

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_VALUES = 100_000_000
"""Most numbers read from one file's kernels: VGG-19 has 20 million, one twice as wide 80 million."""
MAX_NAMES = 10_000
"""Most names read from one list of layers or weights."""
MAX_TEXT_BYTES = 16 * 1024**2
_FLOATS = tuple(
    getattr(h5py.h5t, f"IEEE_F{bits}{order}") for bits in (16, 32, 64) for order in ("LE", "BE")
)  # HDF5's conversion of odder ones is not to be trusted with a damaged file


def open_hdf5(source: Path | BinaryIO) -> h5py.File:
    """The file, opened to read; `WeightsError` if it is truncated or was never closed.

    No lock is taken: nothing is written, some file systems have none, and others may hold one.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            hdf5_guard.check_bytes(stream)
    else:
        hdf5_guard.check_bytes(source)
        source.seek(0)
    try:
        return h5py.File(source, "r", locking=False)
    except OSError as error:
        if "already open for write" in str(error):
            raise WeightsError(
                "still open in the program that writes it, or left open by one that died; save it again, "
                "or run h5clear -s FILE (of the hdf5-tools), which says that it is closed"
            ) from error
        if ends := re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error)):
            raise WeightsError(
                f"truncated: {int(ends[1]):,} of {int(ends[2]):,} bytes are there; fetch it again"
            ) from error
        raise


def member(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What `path` ("a/b") names inside `group`, or None.

    Soft and external links are refused, since either can lead out of the file, and no Keras writes them.
    """
    found = group
    for part in filter(None, path.split("/")):
        if not isinstance(found, h5py.Group):
            return None
        link = found.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{path!r} is a link to {link.path!r}; only plain HDF5 members are read")
        found = found[part]
    return found


def dataset(group: h5py.Group, path: str) -> h5py.Dataset | None:
    """The dataset at `path`, or None; `WeightsError` if its numbers lie in another file."""
    found = member(group, path)
    if not isinstance(found, h5py.Dataset):
        return None
    if found.external or found.is_virtual:
        raise WeightsError(f"{path!r} keeps its numbers in another file; save the weights into one file")
    return found


def text(group: h5py.Group, attribute: str) -> str | None:
    """A string attribute, stored as bytes or str, or None."""
    names = _strings(group, attribute)
    return names[0] if names and len(names) == 1 else None


def name_list(group: h5py.Group, attribute: str) -> list[str] | None:
    """A list-of-names attribute, or None; joined from `attribute`0, `attribute`1, … where Keras split it."""
    names = _strings(group, attribute)
    if names is not None:
        return names
    pieces: list[str] = []
    part = 0
    while (piece := _strings(group, f"{attribute}{part}")) is not None:
        pieces += piece
        part += 1
    return pieces if part else None


def count(group: h5py.Group, attribute: str) -> int | None:
    """A whole-number attribute in 0..`MAX_NAMES`, or None."""
    if attribute not in group.attrs:
        return None
    stored = group.attrs.get_id(attribute)
    if not isinstance(stored.get_type(), h5py.h5t.TypeIntegerID) or stored.shape not in ((), (1,)):
        raise WeightsError(f"its attribute {attribute} is no whole number; fetch it again")
    number = int(np.ravel(group.attrs[attribute])[0])
    if not 0 <= number <= MAX_NAMES:
        raise WeightsError(f"its attribute {attribute} is {number}, which no network has; fetch it again")
    return number


def _strings(group: h5py.Group, attribute: str) -> list[str] | None:
    if attribute not in group.attrs:
        return None
    stored = group.attrs.get_id(attribute)
    length = math.prod(stored.shape or ())
    if length == 0:  # Keras 3 writes an empty list as numbers
        return []
    # A damaged type that is no longer text can crash HDF5 as it is read. Text of variable length has been looked at
    # by the guard.
    kind = stored.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or length > MAX_NAMES or length * kind.get_size() > MAX_TEXT_BYTES:
        raise WeightsError(f"its attribute {attribute} is no text, or has over {MAX_NAMES:,} names; fetch it again")
    values = np.ravel(group.attrs[attribute])
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]


def precision(data: h5py.Dataset) -> str:
    """The numbers' format: "float16", "float32", "float64" or "bfloat16"; `WeightsError` for any other."""
    dtype = data.dtype
    # Keras stores bfloat16 as two opaque bytes and says what they are in an attribute.
    if dtype.itemsize == 2 and dtype.kind in "Vu" and text(data, "dtype") == "bfloat16":
        return "bfloat16"
    if dtype.kind == "f" and any(data.id.get_type().equal(known) for known in _FLOATS):
        return str(dtype.newbyteorder("=").name)
    raise WeightsError(f"{data.name!r} holds {dtype}, not floating-point numbers; use a file with float weights")


def _check_filters(data: h5py.Dataset) -> None:
    """Refuses numbers packed by a filter that HDF5 has not got, once hdf5plugin has been asked for it."""
    stored = data.id.get_create_plist()
    for code, _, _, name in map(stored.get_filter, range(stored.get_nfilters())):
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # registers its filters
        if not h5py.h5z.filter_avail(code):
            words = name.decode(errors="replace").split(";")[0] or "of no name"
            raise WeightsError(
                f"its numbers are compressed by an HDF5 filter that is not here: {words} ({code}); "
                "pip install hdf5plugin, or save the file without that compression"
            )


def read_float32(data: h5py.Dataset) -> NDArray[np.float32]:
    """All of `data` as native float32, C-contiguous; `WeightsError` if it is too big or not finite."""
    kind = precision(data)
    # A chunk is read whole, whatever the shape, so its size counts too.
    if max(data.size, math.prod(data.chunks or ())) > MAX_VALUES:
        raise WeightsError(f"{data.name!r} declares {data.size:,} numbers in shape {data.shape}: too many for a VGG")
    _check_filters(data)
    stored = hdf5_guard.read_numbers(data)
    if kind == "bfloat16":
        bits = np.ascontiguousarray(stored).view(np.uint16).astype(np.uint32) << 16
        numbers = bits.view(np.float32)
    else:
        with np.errstate(over="ignore"):  # becomes Inf, and is reported as such
            numbers = np.ascontiguousarray(stored, dtype=np.float32)
    bad = numbers.size - np.count_nonzero(np.isfinite(numbers))
    if bad:
        raise WeightsError(f"{data.name!r} holds {bad:,} NaN or infinite numbers; fetch it again")
    return numbers
