"""What must be known of an HDF5 file before HDF5 itself may touch it: damage that hangs or kills the process.

HDF5 loops for ever on a heap whose free space has size 0, allocates what a damaged text length asks for, and dies in
its filters on chunks that are too short. So heaps and lengths are looked at in the bytes of the file, and the usual
filters are undone here. Needs no knowledge of what the file is for; the engine's checkpoints come through here too.
"""

import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

PIECE = 8 * 1024**2
OVERLAP = 128 * 1024
"""What is described in one attribute lies within this many bytes."""
MAX_SIGNATURES = 10_000
MAX_CHUNKS = 100_000
MIN_TEXT_LIMIT = 16 * 1024**2
"""Bytes of text in one attribute that are always allowed; beyond them no more than the file has."""
MIN_COLLECTION = 4096
_HEAP = b"GCOL\x01"
_TREE = b"TREE"
_TEXT_TYPE = b"\x00\x10\x00\x00\x00"  # the end of a variable-length type's class bits, and its size in a file, 16
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
_PLAIN_FILTERS = (DEFLATE, SHUFFLE, FLETCHER32)
_UNDEFINED = 2**64 - 1


def check_bytes(stream: BinaryIO) -> None:
    """Looks through the whole file; `WeightsError` where HDF5 would hang, or fill the memory, on what is there.

    Only files with 8-byte offsets and lengths, which is what HDF5 writes unless told otherwise, are known here, and
    others are refused.
    """
    size = stream.seek(0, 2)
    base = _base(stream, size)
    if base is None:
        return  # HDF5 finds no file in there either
    walked = seen = 0
    for start, piece in _pieces(stream, size):
        for at in _found(piece, _HEAP, start, size):
            walked += _check_heap(stream, start + at, size)
            seen += 1
            if seen > MAX_SIGNATURES or walked > 4 * size:
                raise WeightsError("its heaps of text overlap; it is damaged, fetch it again")
        for at in _found(piece, _TEXT_TYPE, start, size):
            _check_text_lengths(piece, at - 3, size)
    _check_trees(stream, size, base)


def _base(stream: BinaryIO, size: int) -> int | None:
    """Where the HDF5 file begins within `stream`, behind whatever a user put in front of it."""
    at = 0
    while at + 16 <= size:
        stream.seek(at)
        head = stream.read(16)
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            sizes = head[13:15] if head[8] < 2 else head[9:11]
            if sizes != b"\x08\x08":
                raise WeightsError("HDF5 with offsets of an unusual size, or damaged; fetch it again")
            return at
        at = 512 if at == 0 else 2 * at
    return None


def _pieces(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    for start in range(0, size, PIECE):
        stream.seek(start)
        yield start, stream.read(PIECE + OVERLAP)


def _found(piece: bytes, signature: bytes, start: int, size: int) -> Iterator[int]:
    """Every place of `signature` that the next piece does not show as well."""
    end = len(piece) if start + PIECE >= size else PIECE + len(signature) - 1
    at = piece.find(signature, 0, end)
    while at >= 0:
        yield at
        at = piece.find(signature, at + 1, end)


def _number(data: bytes, at: int, length: int = 8) -> int:
    return int.from_bytes(data[at : at + length], "little")


def _check_heap(stream: BinaryIO, at: int, size: int) -> int:
    """Walks one collection of a global heap as HDF5 does, and returns its bytes; refuses a step that leads nowhere."""
    stream.seek(at)
    length = _number(stream.read(16), 8)
    if not MIN_COLLECTION <= length <= size - at:
        return 0  # HDF5 refuses it itself, or these are numbers that look like one
    stream.seek(at)
    collection = stream.read(length)
    here = 16
    while here + 16 <= len(collection):
        index, held = _number(collection, here, 2), _number(collection, here + 8)
        step = 16 + -(-held // 8) * 8 if index else held
        if not 16 <= step <= len(collection) - here:
            raise WeightsError(
                f"its heap of text is damaged (object {index} at byte {at + here:,} claims {held:,} bytes); fetch it "
                "again"
            )
        here += step
    return length


def _check_text_lengths(piece: bytes, at: int, size: int) -> None:
    """Where a variable-length text type stands at `at`, the lengths that follow it must be possible."""
    if at < 0 or piece[at] & 0x0F != 9 or piece[at] >> 4 not in (1, 2, 3, 4) or piece[at + 1] & 0x0F != 1:
        return
    base = piece[at + 8] & 0x0F if at + 8 < len(piece) else None
    described = 8 + {0: 12, 3: 8}.get(base if base is not None else -1, 12)
    for space in (at + described, at + -(-described // 8) * 8):
        version, rank = _number(piece, space, 1), _number(piece, space + 1, 1)
        if version not in (1, 2) or rank > 8:
            continue
        dimensions = space + (8 if version == 1 else 4)
        count = math.prod(_number(piece, dimensions + 8 * axis) for axis in range(rank))
        sizes = 1 + (piece[space + 2] & 1)  # with the largest ones allowed
        descriptors = dimensions + 8 * rank * sizes
        there = max(0, min(count, (len(piece) - descriptors) // 16, OVERLAP // 16))
        lengths = [_number(piece, descriptors + 16 * i, 4) for i in range(there)]
        if sum(lengths) > max(MIN_TEXT_LIMIT, size):
            raise WeightsError(f"a text in it claims {max(lengths):,} bytes of {size:,}: damaged; fetch it again")
        return


def _check_trees(stream: BinaryIO, size: int, base: int) -> None:
    """Refuses B-trees whose nodes follow each other in a circle: HDF5 goes round in it for ever."""
    after: dict[int, int] = {}
    for start, piece in _pieces(stream, size):
        for at in _found(piece, _TREE, start, size):
            if piece[at + 4 : at + 5] in (b"\x00", b"\x01") and at + 24 <= len(piece):
                right = _number(piece, at + 16)
                if right != _UNDEFINED:
                    after[start + at - base] = right
    done: set[int] = set()
    for first in after:
        way: set[int] = set()
        node = first
        while node in after and node not in done:
            if node in way:
                raise WeightsError("its index goes round in a circle: damaged; fetch it again")
            way.add(node)
            node = after[node]
        done |= way


def read_numbers(data: h5py.Dataset) -> NDArray[Any]:
    """All of a dataset's numbers, of the dtype it stores; the caller has judged its shape.

    Raises `WeightsError` where a part was never written, for chunks that do not have the size they must have, and for
    a checksum that does not fit.
    """
    name, dtype = data.name, data.dtype
    if data.size == 0:
        return np.empty(data.shape, dtype)
    if data.chunks is None:
        if data.id.get_storage_size() != data.size * dtype.itemsize:
            raise WeightsError(f"{name!r} was never written, or only in part; save the file again")
        return np.asarray(data[...])
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    codes = [code for code, *_ in filters]
    if math.prod(-(-extent // chunk) for extent, chunk in zip(data.shape, data.chunks, strict=True)) > MAX_CHUNKS:
        raise WeightsError(f"{name!r} is cut into over {MAX_CHUNKS:,} chunks; save it anew without")
    plain = set(codes) <= set(_PLAIN_FILTERS)
    whole = math.prod(data.chunks) * dtype.itemsize
    numbers = np.empty(data.shape, dtype) if plain else None
    corners = (range(0, extent, chunk) for extent, chunk in zip(data.shape, data.chunks, strict=True))
    for corner in itertools.product(*corners):
        info = data.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:
            raise WeightsError(f"{name!r} was never written, or only in part; save the file again")
        if not 4 * (FLETCHER32 in codes) < info.size <= 2 * whole + 65536:
            raise WeightsError(f"a chunk of {name!r} has {info.size:,} bytes: damaged; fetch it again")
        if numbers is None:
            continue
        mask, stored = data.id.read_direct_chunk(corner)
        for number in reversed(range(len(filters))):
            if not mask >> number & 1:
                stored = _undone(codes[number], filters[number][2], stored, whole, name)
        if len(stored) != whole:
            raise WeightsError(
                f"a chunk of {name!r} gives {len(stored):,} bytes, not {whole:,}: damaged; fetch it again"
            )
        chunk = np.frombuffer(stored, dtype).reshape(data.chunks)
        target = numbers[tuple(slice(at, at + step) for at, step in zip(corner, data.chunks, strict=True))]
        target[...] = chunk[tuple(slice(extent) for extent in target.shape)]
    if numbers is not None:
        return numbers
    if FLETCHER32 in codes[:-1]:  # what comes before it on reading may leave it too little, and kill the process
        raise WeightsError(f"{name!r} has a checksum within another filter; save it with gzip, or without")
    return np.asarray(data[...])  # a filter of HDF5's own, or a plug-in's


def _undone(code: int, settings: tuple[int, ...], stored: bytes, whole: int, name: str) -> bytes:
    """One chunk before the filter `code` was applied to it."""
    if code == DEFLATE:
        try:
            # A checksum may have been taken before; more than that is a bomb, and refused by its length.
            return zlib.decompressobj().decompress(stored, whole + 64)
        except zlib.error as error:
            raise WeightsError(f"a chunk of {name!r} cannot be unpacked ({error}): damaged; fetch it again") from error
    if code == SHUFFLE:
        width = settings[0] if settings else 1
        count = len(stored) // width if width else 0
        if width < 2 or count < 2:
            return stored
        planes = np.frombuffer(stored, np.uint8, count * width).reshape(width, count)
        return planes.T.tobytes() + stored[count * width :]
    content, checksum = stored[:-4], int.from_bytes(stored[-4:], "little")
    if len(stored) < 4 or not _fits(content, checksum):
        raise WeightsError(f"a checksum in {name!r} does not fit its numbers: damaged; fetch it again")
    return content


def _fits(content: bytes, checksum: int) -> bool:
    """Fletcher's checksum over big-endian 16-bit words; its two halves are remainders by 65535."""
    words = np.frombuffer(content + b"\0" * (len(content) % 2), ">u2").astype(np.uint64)
    ranks = np.arange(len(words), 0, -1, dtype=np.uint64) % 65535
    sums = int(words.sum() % 65535), int((words * ranks % 65535).sum() % 65535)
    stored = checksum & 0xFFFF, checksum >> 16
    swapped = tuple(int.from_bytes(half.to_bytes(2, "little"), "big") for half in stored)  # HDF5 1.6.2 and before
    return any(all((a - b) % 65535 == 0 for a, b in zip(sums, kept, strict=True)) for kept in (stored, swapped))
