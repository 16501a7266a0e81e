"""Masks and choices of the cpu device, a bit each, and the pool that makes the choices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..device import Pooling

Floats = NDArray[np.float32]
Bits = NDArray[np.uint8]


def pack(values: NDArray[np.bool_]) -> Bits:
    """(..., C) booleans -> (..., C / 8) bytes. NumPy keeps the interpreter's lock unless the axis it packs is long."""
    *shape, channels = values.shape
    if channels % 8:
        return np.packbits(values, axis=-1)
    return np.packbits(values.reshape(-1)).reshape(*shape, channels // 8)


def unpack(bits: Bits, channels: int) -> NDArray[np.bool_]:
    """The reverse of `pack`."""
    if channels % 8:
        return np.unpackbits(bits, axis=-1, count=channels).view(np.bool_)
    return np.unpackbits(bits.reshape(-1)).view(np.bool_).reshape(*bits.shape[:-1], channels)


def byte_count(channels: int) -> int:
    return -(-channels // 8)


def pool_squares(y: Floats, pooling: Pooling, pooled: Floats, pool_argmax: Bits | None) -> None:
    height, width = pooled.shape[:2]
    corners = [y[r : 2 * height : 2, s : 2 * width : 2] for r in range(2) for s in range(2)]
    if pooling == "average":
        np.add(corners[0], corners[1], out=pooled)
        pooled += corners[2]
        pooled += corners[3]
        pooled *= np.float32(0.25)
        return
    rows = np.maximum(y[: 2 * height, 0 : 2 * width : 2], y[: 2 * height, 1 : 2 * width : 2])
    upper, lower = rows[0::2], rows[1::2]
    np.maximum(upper, lower, out=pooled)
    if pool_argmax is None:
        return
    down = pack(lower > upper)  # of equals the first in reading order
    right = pack(y[: 2 * height, 1 : 2 * width : 2] > y[: 2 * height, 0 : 2 * width : 2])
    chosen = right[0::2] ^ right[1::2]
    chosen &= down
    chosen ^= right[0::2]
    pool_argmax[0], pool_argmax[1] = down, chosen


def words(bits: Bits) -> NDArray[Any]:
    """(..., C / 8) bytes as the largest words that they are a multiple of, for a few bytes take as long as one word."""
    size = next(size for size in (8, 4, 2, 1) if bits.shape[-1] % size == 0)
    return bits.view(f"u{size}")


def chosen_corners(down: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """(2, 2, ...) words of bits: whether a square's maximum is in that row and that column of it."""
    chosen = np.empty((2, 2, *down.shape), down.dtype)
    np.bitwise_and(down, right, out=chosen[1, 1])
    np.bitwise_xor(right, chosen[1, 1], out=chosen[0, 1])
    np.bitwise_xor(down, chosen[1, 1], out=chosen[1, 0])
    np.bitwise_or(down, right, out=chosen[0, 0])
    np.invert(chosen[0, 0], out=chosen[0, 0])
    return chosen
