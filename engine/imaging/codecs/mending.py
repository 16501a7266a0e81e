"""Files whose pixels are all there though something about them is not right, as files that Pillow's decoders take.

What is dropped is never part of the pixels; a file that has lost some of those is refused.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's color type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_TEXT_BYTES = 1 << 20  # inflated, that Pillow takes
_PROFILE_BYTES = 1 << 24  # inflated; the largest in use, for printing, have some 3 MB
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_STEP = 1 << 20

_EOI = b"\xff\xd9"
# What is put where a JPEG ends too soon: bits that blocks of different pixels would be decoded from.
_FILLERS = (b"", b"\x55" * 4096, b"\xaa\x33\x0f" * 1500, b"\xe7\x00\x91" * 1500)


class Mended(NamedTuple):
    content: bytes
    notes: tuple[str, ...]
    """What was wrong, each the end of a sentence that begins with the file's name."""
    profile: bytes | None
    """An ICC profile that Pillow would not take for its size."""


# ---- PNG --------------------------------------------------------------------------------------------------------
def mended_png(content: bytes) -> Mended:
    """Without comments and other ancillary chunks that are damaged or too large; raises ValueError for lost pixels."""
    kept, notes = [PNG], dict[str, None]()
    profile, data, header, text_bytes = None, list[memoryview](), b"", 0
    for name, chunk, sound in _chunks(content):
        body = chunk[8:-4]
        if name[0] & 0x20 and name not in (b"fcTL", b"fdAT"):  # ancillary
            if not sound:
                if name == b"tRNS":
                    raise ValueError("the checksum of its transparency is wrong")
                notes[f"has a damaged {name.decode('ascii')} chunk, which is left out"] = None
                continue
            if name == b"iCCP":
                profile, problem = _profile(bytes(body))
                if problem:
                    notes[f"has a colour profile {problem}, which is left out; its colours are taken as sRGB"] = None
                if problem or profile is not None:
                    continue
            elif name in _TEXTS:
                text_bytes += len(body)
                if _inflated_over(name, bytes(body), _TEXT_BYTES) or text_bytes > 16 * _TEXT_BYTES:
                    notes["has a comment of more than 1 MB, which is left out"] = None
                    continue
        elif name == b"IHDR":
            header = bytes(body)
        elif name == b"IDAT":
            data.append(body)
        kept.append(bytes(chunk))
    _check_rows(header, data)
    return Mended(b"".join(kept), tuple(notes), profile)


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """(name, whole chunk, whether its checksum is right) of each; what is cut short is left to Pillow to refuse."""
    view, at = memoryview(content), len(PNG)
    while at + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunk = view[at : at + 12 + length]
        if len(chunk) < 12 + length or not name.isalpha():
            chunk = view[at:]
            yield b"IDAT", chunk, False
            return
        yield name, chunk, zlib.crc32(chunk[4:-4]) == struct.unpack(">I", chunk[-4:])[0]
        at += 12 + length
        if name == b"IEND":
            return


def _profile(body: bytes) -> tuple[bytes | None, str]:
    """An iCCP chunk's profile, if it is too large for Pillow, and what is wrong with it, if it can't be read at all."""
    start = body.find(b"\0") + 2
    if start < 2 or body[start - 1 : start] != b"\0":
        return None, "that is packed in an unknown way"
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(body[start:], _PROFILE_BYTES)
    except zlib.error:
        return None, "that is damaged"
    if inflate.unconsumed_tail:
        return None, f"of more than {_PROFILE_BYTES >> 20} MB"
    if not profile:
        return None, "that is cut short"
    return (None if len(profile) < _TEXT_BYTES else profile), ""


def _inflated_over(name: bytes, body: bytes, most: int) -> bool:
    """Whether a text's inflated bytes are more than that."""
    if name == b"tEXt":
        return False
    key = body.find(b"\0")
    start = key + 2
    if name == b"iTXt":
        if body[key + 1 : key + 2] != b"\1":
            return False
        start = body.find(b"\0", body.find(b"\0", key + 3) + 1) + 1
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(body[start:], most)
    except zlib.error:
        return False
    return bool(inflate.unconsumed_tail)


def _check_rows(header: bytes, data: list[memoryview]) -> None:
    """Raises ValueError if the pixels inflate to fewer rows than the header has."""
    if len(header) != 13:
        return
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if color not in _CHANNELS or not width or not height:
        return
    bits = depth * _CHANNELS[color]

    def size(wide: int, high: int) -> int:
        return high * (1 + -(-wide * bits // 8)) if wide and high else 0

    if interlaced:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
        wanted = sum(size(max(wide, 0), max(high, 0)) for wide, high in passes)
    else:
        wanted = size(width, height)
    found, inflate = 0, zlib.decompressobj()
    try:
        for piece in data:
            pending = bytes(piece)
            while pending and not inflate.eof and found < wanted:
                found += len(inflate.decompress(pending, _STEP))
                pending = inflate.unconsumed_tail
        while found < wanted and not inflate.eof and (more := inflate.decompress(b"", _STEP)):
            found += len(more)
    except zlib.error:
        return  # as Pillow will say
    if found < wanted:
        there = "" if interlaced else f" of {height}"
        rows = "some of its rows" if interlaced else f"{height - found // size(width, 1)}{there} rows"
        raise ValueError(f"{rows} are missing")


# ---- JPEG -------------------------------------------------------------------------------------------------------
def mended_jpeg(content: bytes) -> bytes | None:
    """A JPEG that lacks its end marker, with one; None if pixels are missing, or nothing is.

    They are all there if it makes no difference what follows.
    """
    if content.endswith(_EOI) or not _refined(content):
        return None
    head = content[:-1] if content.endswith(b"\xff") else content
    first = None
    for filler in _FILLERS:
        try:
            with Image.open(io.BytesIO(head + filler + _EOI), formats=("JPEG",)) as image:
                pixels = np.asarray(image)
        except Exception:  # a dozen types; the file is refused as it is
            return None
        if first is None:
            first = pixels
        elif not np.array_equal(first, pixels):
            return None
    return head + _EOI


def _refined(content: bytes) -> bool:
    """Whether the scans bring every coefficient of every component to its last bit."""
    at, components, done = 2, set[int](), dict[tuple[int, int], int]()
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            at = content.find(b"\xff", at)
            if at < 0:
                break
            continue
        marker = content[at + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : at + 2 + length]
        try:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                components = {body[6 + 3 * index] for index in range(body[5])}
            elif marker == 0xDA:
                count = body[0]
                first, last, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
                for index in range(count):
                    for coefficient in range(first, min(last, 63) + 1):
                        done[body[1 + 2 * index], coefficient] = low
        except IndexError:
            return False
        at += 2 + length
    return bool(components) and all(done.get((part, k), 1) == 0 for part in components for k in range(64))
