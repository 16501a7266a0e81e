"""Damage: what becomes of a file on its way, and what somebody would make of it on purpose.

Pure functions of the bytes and a generator of random numbers, so that a seed is all that it takes to repeat one.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng, list[bytes]], bytes]
"""From a file, a generator and the other files of its kind."""

TELLING = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 64) - 1,
)
"""Numbers at the ends of ranges, which sizes and offsets are made to be."""
SEAL = b"nstgpu checkpoint, SHA-256 of the above: "
"""Before the digest at the end of a checkpoint."""


def flip_bits(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for place in rng.integers(0, len(changed), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """A download that broke off."""
    return data[: int(rng.integers(0, len(data)))]


def drop(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """A piece in the middle that is not there."""
    begin, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:begin] + data[end:]


def repeat(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """A piece twice, or a hundred times."""
    begin = int(rng.integers(0, len(data)))
    piece = data[begin : begin + int(rng.integers(1, 64))]
    return data[:begin] + piece * int(rng.choice([2, 3, 100])) + data[begin:]


def zero(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """A sector that was never written."""
    begin = int(rng.integers(0, len(data)))
    length = min(len(data) - begin, int(rng.choice([4, 16, 512])))
    return data[:begin] + bytes(length) + data[begin + length :]


def number(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """A number of 1 to 8 bytes, either end first, that is at the end of its range."""
    width = int(rng.choice([1, 2, 4, 8]))
    if len(data) < width:
        return data
    place = int(rng.integers(0, len(data) - width + 1))
    value = int(rng.choice(np.array(TELLING, np.uint64))) & ((1 << 8 * width) - 1)
    return data[:place] + value.to_bytes(width, "little" if rng.integers(2) else "big") + data[place + width :]


def splice(data: bytes, rng: Rng, others: list[bytes]) -> bytes:
    """The start of one file and the end of another."""
    other = others[int(rng.integers(len(others)))]
    return data[: int(rng.integers(0, len(data) + 1))] + other[int(rng.integers(0, len(other) + 1)) :]


def append(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """Something after the end."""
    return data + rng.bytes(int(rng.integers(1, 100)))


def change_text(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """A name, a number or a word in what is text, as somebody would type it."""
    words = (
        b"../../etc/passwd",
        b"relu9_9",
        b"-1",
        b"1e999",
        b"nan",
        b"[",
        b'"',
        b"\x00",
        b"\xff\xfe",
        b"a" * 5000,
        b"{}",
    )
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + words[int(rng.integers(len(words)))] + data[place + int(rng.integers(0, 9)) :]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut, drop, repeat, zero, number, number, splice, append, change_text)


def mutated(data: bytes, rng: Rng, others: list[bytes]) -> bytes:
    """One to four mutations, one after the other; checksums of PNGs and checkpoints are made right again half of the
    time."""
    for _ in range(int(rng.integers(1, 5))):
        if data:
            data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng, others)
    return sealed_checkpoint(mended_png(data)) if rng.integers(2) else data


def mended_png(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them: damage that checksums would tell at once is not met
    by what comes behind them. Anything else is left as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        content = data[at + 4 : at + 8 + length]
        mended += data[at : at + 4] + content + struct.pack(">I", zlib.crc32(content))
        at += 12 + length
    return bytes(mended) + data[at:]


def sealed_checkpoint(data: bytes) -> bytes:
    """A checkpoint with the seal of what is in it now; anything else is left as it is."""
    content, found, _ = data.rpartition(SEAL)
    return content + SEAL + hashlib.sha256(content).digest() if found else data
