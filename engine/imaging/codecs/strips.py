"""Picture files by strips: large ones cut into small ones of the same kind, and written a band of rows at a time.

A PNG is inflated as it is read, its rows freed of their filters and wrapped as files of fewer rows; of a TIFF, some
strips or a row of tiles make a file with the same tags. Each of them is decoded as any other picture is, so whatever
can be cut is read as it would be whole. What the pixels mean is left to `images`.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

Samples = NDArray[np.uint8] | NDArray[np.uint16]

LARGE = 1 << 26
"""Pixels: larger pictures are read and written by strips. As floats so many take 0.8 GB, which machines still have."""
PART_BYTES = 4 << 20
"""Of decoded rows in a part; as floats, and with what it takes to make them, they are ten times that."""
MOST_BYTES = 1 << 28
"""Of what can't be cut: a larger strip of a TIFF is no better than the whole."""
BIG = 0xF0000000
"""Bytes of pixels from which a TIFF is written as BigTIFF: offsets of 32 bits end soon after."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's color type
_FRAMES = (b"acTL", b"fcTL", b"fdAT")  # of an animated PNG; its IDAT is the first
_READ_BYTES = 1 << 20  # of a compressed PNG at a time
_OLD_JPEG, _YCBCR = 6, 6  # kinds of compression and of colors in a TIFF

(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLORS, _DESCRIPTION, _OFFSETS, _SAMPLES_PER_PIXEL, _ROWS, _COUNTS,
 _PLANES, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _PROFILE) = (
    256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 34675,
)  # fmt: skip
# What decides how a TIFF is decoded; without names: fill order, orientation, T4 and T6 options, palette, inks, sample
# format, JPEG's tables, YCbCr's subsampling and position, and XMP, which may have an orientation too.
_COPIED = (
    _BITS, _COMPRESSION, _COLORS, _SAMPLES_PER_PIXEL, _PLANES, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _EXTRA, _PROFILE,
    266, 274, 292, 293, 320, 332, 339, 347, 530, 531, 700,
)  # fmt: skip
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 7: "s", 16: "Q"}  # by TIFF's types, those that are used here; 16 is BigTIFF's


@dataclass(frozen=True)
class Parts:
    """A picture (H, W) as small picture files of the same width, from top to bottom."""

    size: tuple[int, int]
    files: Iterator[bytes]


# ---- reading ----------------------------------------------------------------------------------------------------
def cut(file: BinaryIO, least: int) -> Parts | None:
    """A PNG or TIFF of more than `least` pixels in parts, which are read as they are asked for.

    None for other files, and for those that can't be cut: interlaced, of separate planes, of strips too large, or with
    samples of 32 bits, whose range is the whole picture's. Raises ValueError, there or later, where the file ends too
    soon, and zlib.error where it is damaged.
    """
    head = file.read(33)
    if head.startswith(_PNG) and len(head) == 33:
        return _cut_png(file, head, least)
    if head[:4] in _TIFF:
        return _cut_tiff(file, head[:2], least)
    return None


def _cut_png(file: BinaryIO, head: bytes, least: int) -> Parts | None:
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", head[16:29])
    if width * height <= least or interlaced or color not in _SAMPLES:
        return None
    others, at = b"", 33
    places: list[tuple[int, int]] = []
    while True:
        file.seek(at)
        if places and _left(file) < 12:  # nothing but the end is missing, if anything
            break
        length, name = struct.unpack(">I4s", _all(file, 8))
        if name == b"IEND":
            break
        if name == b"IDAT":
            places.append((at + 8, length))
        elif name not in _FRAMES:
            file.seek(at)
            others += _all(file, length + 12)
        at += length + 12
    bits = depth * _SAMPLES[color]

    def files() -> Iterator[bytes]:
        for rows in _unfiltered(_inflated(file, places), height, -(-width * bits // 8), max(1, bits // 8)):
            marked = np.zeros((len(rows), 1 + rows.shape[1]), np.uint8)  # each row without a filter
            marked[:, 1:] = rows
            header = struct.pack(">II", width, len(rows)) + head[24:29]
            data = zlib.compress(marked.data, 0)
            yield _PNG + _chunk(b"IHDR", header) + others + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")

    return Parts((height, width), files())


def _inflated(file: BinaryIO, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """The rows of a PNG as its filters left them, some at a time."""
    inflate = zlib.decompressobj()
    for start, length in places:
        for at in range(start, start + length, _READ_BYTES):
            file.seek(at)
            data = _all(file, min(_READ_BYTES, start + length - at))
            while data and not inflate.eof:
                yield inflate.decompress(data, PART_BYTES)
                data = inflate.unconsumed_tail
    yield inflate.flush()


def _unfiltered(inflated: Iterable[bytes], height: int, row_bytes: int, unit: int) -> Iterator[NDArray[np.uint8]]:
    """Rows (n, row_bytes) of a PNG, some at a time; the filters look back `unit` bytes and one row."""
    step = max(1, PART_BYTES // row_bytes)
    above, pending = np.zeros(row_bytes, np.uint8), bytearray()
    for more in inflated:
        pending += more
        while height and len(pending) >= (count := min(step, height)) * (row_bytes + 1):
            filtered = bytes(1) + above.tobytes() + pending[: count * (row_bytes + 1)]
            del pending[: count * (row_bytes + 1)]
            rows = _decoded(zlib.compress(filtered, 0), count + 1, row_bytes, unit)[1:]
            above = rows[-1]
            height -= count
            yield rows
    if height:
        raise ValueError(f"{height} rows are missing")


def _decoded(data: bytes, height: int, row_bytes: int, unit: int) -> NDArray[np.uint8]:
    """By Pillow's decoder, as an image whose pixels are of `unit` bytes: (height, row_bytes)."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA", 6: "RGB", 8: "RGBA"}[unit]
    size = row_bytes // unit, height
    # Of samples of 16 bits Pillow keeps the high byte, or told that they are in the other order, the low one.
    read_as = (mode,) if unit <= 4 else (f"{mode};16B", f"{mode};16L")
    planes = [np.asarray(Image.frombytes(mode, size, data, "zip", each)) for each in read_as]
    return np.stack(planes, axis=-1).reshape(height, row_bytes)


def _cut_tiff(file: BinaryIO, order: bytes, least: int) -> Parts | None:
    try:
        file.seek(0)
        image = TiffImagePlugin.TiffImageFile(file)
    except Exception:  # a dozen types; what is wrong is said where it is read whole
        return None
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_HEIGHT]  # as they lie in the file, however it is to be turned
    planes, compression, samples = (tags.get(tag, 1) for tag in (_PLANES, _COMPRESSION, _SAMPLES_PER_PIXEL))
    bits = tags.get(_BITS, (1,))
    row_bytes = -(-width * (sum(bits) if len(bits) == samples else bits[0] * samples) // 8)
    tiled, plain = _TILE_WIDTH in tags, compression == 1
    where, sizes = (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)
    if (
        width * height <= least
        or image.mode in ("F", "I")
        or (planes == 2 and samples > 1)
        or compression == _OLD_JPEG
        or (plain and tags.get(_COLORS) == _YCBCR)
        or not {where, sizes} <= set(tags)
    ):
        return None
    unit_rows = min(height, tags[_TILE_HEIGHT] if tiled else tags.get(_ROWS, height))
    across = -(-width // tags[_TILE_WIDTH]) if tiled else 1
    places = list(zip(tags[where], tags[sizes], strict=True))
    if plain and not tiled and len(places) == 1:  # it may as well be many
        unit_rows = max(1, PART_BYTES // row_bytes)
        tops = range(0, height, unit_rows)
        places = [(places[0][0] + top * row_bytes, min(unit_rows, height - top) * row_bytes) for top in tops]
    if unit_rows * row_bytes > MOST_BYTES or len(places) != -(-height // unit_rows) * across:
        return None
    kept = {
        tag: (tags.tagtype[tag], _values(tags[tag])) for tag in _COPIED if tag in tags and tags.tagtype[tag] in _CODES
    }
    kept[_WIDTH] = (4, (width,))

    def files() -> Iterator[bytes]:
        units = max(1, PART_BYTES // (unit_rows * row_bytes))
        for top in range(0, height, units * unit_rows):
            first = top // unit_rows * across
            pieces = []
            for start, length in places[first : first + units * across]:
                file.seek(start)
                pieces.append(_all(file, length))
            rows = min(units * unit_rows, height - top)
            own = {_HEIGHT: (4, (rows,)), sizes: (4, tuple(len(piece) for piece in pieces))}
            own |= {} if tiled else {_ROWS: (4, (unit_rows,))}
            yield tiff("<" if order == b"II" else ">", kept | own, where, pieces)

    return Parts((height, width), files())


def _values(value: Any) -> Any:
    """Of a tag, as `_directory` takes them."""
    if isinstance(value, str):
        return value.encode("ascii", "replace") + b"\0"
    return value if isinstance(value, bytes | tuple) else (value,)


def tiff(order: str, tags: Mapping[int, tuple[int, Any]], where: int, pieces: list[bytes]) -> bytes:
    """A TIFF of these strips or tiles; `where` is the tag of their offsets."""
    ends = list(accumulate(len(piece) for piece in pieces))

    def directory(start: int) -> bytes:
        return _directory(order, {**tags, where: (4, tuple(start + end for end in [0, *ends[:-1]]))}, 8)

    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"".join([head, struct.pack(f"{order}I", 8), directory(8 + len(directory(0))), *pieces])


def _all(file: BinaryIO, length: int) -> bytes:
    """So many bytes from here; a length that a damaged file makes up takes no memory."""
    data = file.read(length if length < _READ_BYTES else min(length, _left(file)))
    if len(data) < length:
        raise ValueError("it ends too soon")
    return data


def _left(file: BinaryIO) -> int:
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return max(0, end - here)


# ---- writing ----------------------------------------------------------------------------------------------------
def write_png(
    file: BinaryIO,
    size: tuple[int, int],
    parts: Iterable[Samples],
    profile: bytes,
    texts: Iterable[tuple[bytes, bytes]],
) -> None:
    """A picture of (H, W) `size` as PNG (W3C PNG, third edition, sections 5, 9 and 11).

    parts: (h, W, 3) RGB or (h, W, 4) RGBA, uint8 or uint16, from top to bottom. texts: chunks, by name.
    """
    compressor, above = zlib.compressobj(), None
    for part in parts:
        samples = part.astype(f">u{part.itemsize}").view(np.uint8).reshape(len(part), -1)
        if above is None:
            file.write(_PNG)
            kind = struct.pack(">BBBBB", 8 * part.itemsize, {3: 2, 4: 6}[part.shape[2]], 0, 0, 0)
            file.write(_chunk(b"IHDR", struct.pack(">II", size[1], size[0]) + kind))
            file.write(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
            for name, content in texts:
                file.write(_chunk(name, content))
            above = np.zeros(samples.shape[1], np.uint8)
        rows = np.full((len(samples), 1 + samples.shape[1]), 2, np.uint8)  # filter "up": others save 2% at most
        np.subtract(samples[0], above, out=rows[0, 1:])
        np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
        above = samples[-1]
        file.write(_chunk(b"IDAT", compressor.compress(rows.data)))
    file.write(_chunk(b"IDAT", compressor.flush()))
    file.write(_chunk(b"IEND", b""))


def write_tiff(
    file: BinaryIO, size: tuple[int, int], parts: Iterable[Samples], profile: bytes, description: str | None
) -> None:
    """The same as TIFF (TIFF 6.0, section 14, and Adobe's deflate), each part a strip; BigTIFF if it may need to be."""
    places: list[tuple[int, int]] = []
    for part in parts:
        if not places:
            big, rows, count = size[0] * size[1] * part.shape[2] * part.itemsize > BIG, len(part), part.shape[2]
            depth = 8 * part.itemsize
            file.write(bytes(16 if big else 8))
        differences = part.astype(f"<u{part.itemsize}")
        differences[:, 1:] -= part[:, :-1]
        content = zlib.compress(differences.data)
        places.append((file.tell(), len(content)))
        file.write(content + bytes(len(content) % 2))
    offset = 16 if big else 4
    tags: dict[int, tuple[int, Any]] = {
        _WIDTH: (4, (size[1],)),
        _HEIGHT: (4, (size[0],)),
        _BITS: (3, (depth,) * count),
        _COMPRESSION: (3, (8,)),  # Adobe's deflate
        _COLORS: (3, (2,)),  # RGB
        _OFFSETS: (offset, tuple(start for start, _ in places)),
        _SAMPLES_PER_PIXEL: (3, (count,)),
        _ROWS: (4, (rows,)),
        _COUNTS: (offset, tuple(length for _, length in places)),
        _PLANES: (3, (1,)),  # interleaved
        _PREDICTOR: (3, (2,)),  # differences along the row
        _PROFILE: (7, profile),
    }
    if count == 4:
        tags[_EXTRA] = (3, (2,))  # alpha that isn't multiplied into the colors
    if description is not None:
        tags[_DESCRIPTION] = (2, description.encode("ascii") + b"\0")
    at = file.tell()
    file.write(_directory("<", tags, at, big=big))
    file.seek(0)
    file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, at) if big else struct.pack("<2sHI", b"II", 42, at))


# ---- both -------------------------------------------------------------------------------------------------------
def _chunk(name: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def _directory(order: str, tags: Mapping[int, tuple[int, Any]], at: int, *, big: bool = False) -> bytes:
    """A TIFF's directory that begins at byte `at`, of tags by number: a type, and bytes or a tuple of numbers."""
    code, room = ("Q", 8) if big else ("I", 4)
    entries, after = b"", b""
    end = at + struct.calcsize("<Q" if big else "<H") + len(tags) * (12 + 2 * (room - 4)) + room
    for tag, (kind, values) in sorted(tags.items()):
        item = struct.calcsize(f"={_CODES[kind]}")
        body = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        entries += struct.pack(f"{order}HH{code}", tag, kind, len(body) // item)
        if len(body) <= room:
            entries += body.ljust(room, b"\0")
        else:
            entries += struct.pack(order + code, end + len(after))
            after += body + bytes(len(body) % 2)
    return struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + bytes(room) + after
