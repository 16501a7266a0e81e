"""TIFFs of samples that Pillow reads not at all or not right, as floats: decoded as rows of bytes, seen as numbers.

Every compression works that packs bytes whatever they mean, since to libtiff the file is one of 8-bit gray; predictors
are undone here.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from ...errors import ImageError
from ..picture import AnyArray
from . import strips
from .tiff_kinds import is_tiff, raw_file, tags_of

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLORS = 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS = 273, 277, 278, 279
_PLANES, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 284, 317, 322, 323, 324, 325, 339
_PREMULTIPLIED = 338
_MOST_BYTES = 1 << 32  # of samples; what is larger is not read whole
_BYTEWISE = (1, 5, 8, 32773, 32946, 34925, 50000)  # kinds of compression that need not know what the bytes mean
_KINDS = {1: "u", 2: "i", 3: "f"}  # by SampleFormat


def samples(content: bytes, label: str) -> tuple[AnyArray, dict[int, Any]] | None:
    """(H, W, C) samples as they lie in the file, and its tags; None if Pillow reads it, or it is no TIFF.

    Raises ImageError for what can't be read, and what Pillow raises for what is damaged.
    """
    if not is_tiff(content):
        return None
    try:
        tags = tags_of(content)
        width, height, count = (int(tags[tag]) for tag in (_WIDTH, _HEIGHT, _SAMPLES))
        bits, kinds = set(tags[_BITS]), set(np.atleast_1d(tags.get(_FORMAT, 1)).tolist())
    except Exception:  # a dozen types; what is wrong is said where Pillow opens it
        return None
    if len(bits) != 1 or len(kinds) != 1 or not kinds <= set(_KINDS):
        return None
    (depth,), (kind,) = bits, kinds
    if raw := raw_file(tags):
        raise ImageError(f"{label} {raw}")
    colors, apart = int(tags.get(_COLORS, 1)), tags.get(_PLANES, 1) == 2 and count > 1
    if depth not in (8, 16, 32, 64) or (depth, kind) == (8, 3) or int(tags.get(_COMPRESSION, 1)) not in _BYTEWISE:
        return None
    if kind == 1 and depth <= 16:  # others Pillow reads in part, or as what they are not
        if colors not in (0, 1, 2):
            return None
        wrong = apart if depth == 16 else apart and count not in (3, 4)
        if not wrong and not (depth == 16 and colors == 0) and _pillow_opens(content):
            return None
    if width * height * count * depth // 8 > _MOST_BYTES or min(width, height, count) < 1:
        raise ImageError(f"{label} has {width}x{height} pixels of {depth} bits; shrink it or save it with 16")
    if colors not in (0, 1, 2) or count < (3 if colors == 2 else 1):
        raise ImageError(f"{label} has {depth}-bit samples that are neither gray nor RGB; save it with 8 or 16 bits")
    order = "<" if content[:2] == b"II" else ">"
    each, parts = (1, count) if apart else (count, 1)
    planes = [_plane(content, order, tags, part, each, depth // 8) for part in range(parts)]
    dtype = np.dtype(f"{order}{_KINDS[kind]}{depth // 8}")
    numbers = [_numbers(plane, dtype, width, tags.get(_PREDICTOR, 1), tags) for plane in planes]
    return np.concatenate(numbers, axis=2).astype(dtype.newbyteorder("=")), tags


def _pillow_opens(content: bytes) -> bool:
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(content)).close()
    except Exception:  # a dozen types
        return False
    return True


def _plane(content: bytes, order: str, tags: dict[int, Any], plane: int, count: int, item: int) -> AnyArray:
    """(H, W · count · item) bytes of one plane, decompressed, W to the end of the last tile."""
    tiled = _TILE_WIDTH in tags
    where, sizes = (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)
    offsets, lengths = tags[where], tags[sizes]
    width, height, unit = _wide(tags), int(tags[_HEIGHT]), count * item
    if tiled:
        each = -(-width // tags[_TILE_WIDTH]) * -(-height // tags[_TILE_HEIGHT])
    else:
        each = -(-height // min(int(tags.get(_ROWS, height)), height))
    places = list(zip(offsets, lengths, strict=True))[plane * each : (plane + 1) * each]
    pieces = [content[start : start + length] for start, length in places]
    if len(pieces) != each or any(len(piece) < length for piece, (_, length) in zip(pieces, places, strict=True)):
        raise ValueError("it ends too soon")
    new: dict[int, tuple[int, Any]] = {
        _WIDTH: (4, (width * unit,)),
        _HEIGHT: (4, (height,)),
        _BITS: (3, (8,)),
        _COLORS: (3, (1,)),
        _SAMPLES: (3, (1,)),
        _COMPRESSION: (3, (int(tags.get(_COMPRESSION, 1)),)),
        sizes: (4, tuple(map(len, pieces))),
    }
    if tiled:
        new |= {_TILE_WIDTH: (4, (tags[_TILE_WIDTH] * unit,)), _TILE_HEIGHT: (4, (tags[_TILE_HEIGHT],))}
    else:
        new[_ROWS] = (4, (min(int(tags.get(_ROWS, height)), height),))
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # of a picture that is `unit` times narrower
    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(strips.tiff(order, new, where, pieces))) as image:
            return np.asarray(image)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _numbers(rows: AnyArray, dtype: np.dtype[Any], width: int, predictor: int, tags: dict[int, Any]) -> AnyArray:
    """(H, W, C) numbers of rows of bytes, the predictor undone."""
    item, height = dtype.itemsize, len(rows)
    across, wide = int(tags.get(_TILE_WIDTH, width)), _wide(tags)
    count = rows.shape[1] // (wide * item)
    if predictor == 1:
        return np.ascontiguousarray(rows).view(dtype).reshape(height, wide, count)[:, :width]
    result = np.empty((height, wide, count), dtype)
    for left in range(0, wide, across):
        part = rows[:, left * count * item : (left + across) * count * item]
        columns = part.shape[1] // (count * item)
        if predictor == 2:
            whole = np.ascontiguousarray(part).view(dtype.str.replace("f", "u")).reshape(height, columns, count)
            sums = np.cumsum(whole, axis=1, dtype=whole.dtype.newbyteorder("=")).astype(whole.dtype)
            result[:, left : left + columns] = sums.view(dtype)
        elif predictor == 3:  # Adobe's TIFF Technical Note 3: bytes by significance, each less the one before it
            steps = part.reshape(height, -1, count)
            sums = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(height, item, columns * count)
            numbers = np.ascontiguousarray(sums.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
            result[:, left : left + columns] = numbers.reshape(height, columns, count)
        else:
            raise ValueError(f"its predictor {predictor} is unknown")
    return result[:, :width]


def _wide(tags: dict[int, Any]) -> int:
    """Of all tiles: the last one's bytes may lie in any order, so they are wanted beyond the picture's edge too."""
    width, across = int(tags[_WIDTH]), int(tags.get(_TILE_WIDTH, tags[_WIDTH]))
    return -(-width // across) * across


def in_unit_range(values: AnyArray, label: str) -> tuple[AnyArray, str]:
    """float32 in [0, 1], and by what rule, if it goes without saying none.

    Floats are 0..1, or where they are larger 0..255 or 0..65535. Integers are 0 to their dtype's largest, but for 32
    and 64 bits which hold no more than 16.
    """
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(low + high):
            raise ImageError(f"{label} has NaN or infinite values; export it with 8 or 16 bits a channel")
        if low < -0.5 or high > 65535:
            raise ImageError(f"{label} has values from {low:g} to {high:g}; scale them to 0..1")
        white = 1 if high <= 16 else 255 if high <= 255 else 65535
        clipped = low < 0 or (white == 1 and high > 1)
        rule = f"its floats are taken as 0..{white}" + (", what is beyond is clipped" if clipped else "")
        return np.clip(values / np.float64(white), 0, 1).astype(np.float32), rule
    low, high = int(values.min()), int(values.max())
    white, depth = int(np.iinfo(values.dtype).max), 8 * values.dtype.itemsize
    if low < 0:
        raise ImageError(f"{label} has values from {low} to {high}; scale them to 0..{min(white, 65535)}")
    if depth > 16 and high <= 65535:
        white = 65535
    plain = values.dtype.kind == "u" and depth <= 16
    signed = "signed " if values.dtype.kind == "i" else ""
    rule = "" if plain else f"its {signed}{depth}-bit numbers are taken as 0..{white}"
    return (values / np.float64(white)).astype(np.float32), rule


def colors_and_alpha(values: AnyArray, tags: dict[int, Any]) -> tuple[AnyArray, AnyArray | None]:
    """(H, W, 3) and (H, W) or None of samples (H, W, C) in [0, 1], as the tags say."""
    colors = 3 if tags.get(_COLORS, 1) == 2 else 1
    own, extra = values[..., :colors], values[..., colors : colors + 1]
    if tags.get(_COLORS, 1) == 0:
        own = 1 - own
    kinds = np.atleast_1d(tags.get(_PREMULTIPLIED, 0)).tolist()
    alpha = extra[..., 0] if extra.shape[2] and kinds[0] in (1, 2) else None
    if alpha is not None and kinds[0] == 1:
        own = np.clip(own / np.maximum(extra, 1e-6), 0, 1)
    return np.ascontiguousarray(np.broadcast_to(own, (*own.shape[:2], 3)), np.float32), alpha
