"""Pictures to files: rounding, encoders, and what a format can't hold, which is said before a long run."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from ...errors import ImageError
from ...memory.limits import host_memory
from ...memory.spill import bands
from ...types import FloatArray
from ..picture import AnyArray, Float32Array, output_size
from . import strips
from .color_profiles import srgb_profile
from .whole_file import check_place, whole_file, write_whole

# The suffixes that formats are written under, and the encoder's settings.
_FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_ENCODING: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},  # painted strokes have sharp edges in color
    "WEBP": {"quality": 95, "method": 6},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
_LONGEST = {"JPEG": 65535, "WEBP": 16383}  # pixels, of a side; the others have no limit that matters
_ENCODED_BYTES = 8  # a pixel: three as they are rounded, four in Pillow, and the file itself
_DEEP_FORMATS = ("PNG", "TIFF")  # hold 16 bits a channel; the others lose some of the picture, by their quality

_WHITE = {"uint8": 255, "uint16": 65535}
EXIF_IMAGE_DESCRIPTION = 0x010E


def save(
    path: str | os.PathLike[str],
    pixels: FloatArray,
    *,
    alpha: Float32Array | None = None,
    recipe: Mapping[str, str] | None = None,
    quality: int | None = None,
    depth: int = 8,
) -> None:
    """Write pixels (H, W, 3), floats in [0, 1], as an sRGB file in the format that the suffix names.

    Values are clipped to [0, 1] and rounded to the nearest 1/255, or with depth 16, which PNG and TIFF have, to
    the nearest 1/65535; halves to even. quality, 1 to 100, is for JPEG and WebP; None is 95. alpha (H, W) is kept
    in PNG, WebP and TIFF; JPEG can't hold it and shows the picture on white. The recipe, what the picture was
    made with, goes into PNG as one iTXt chunk a key (keys of 1 to 79 Latin-1 characters, any text as value), and
    into the other formats as JSON in EXIF's ImageDescription.

    Folders that are missing are made. The file appears whole or not at all: it is written beside its destination and
    renamed. The same
    arguments give the same bytes. Raises ImageError for another suffix, a depth or quality that the format
    doesn't have, NaN or infinite pixels, shapes that don't fit, a picture too large for the
    format, and whatever the system has against writing there.
    """
    path = Path(path)
    check_destination(path, depth=depth, quality=quality)
    file_format = _FORMAT_OF_SUFFIX[path.suffix.lower()]
    label = f"cannot write {path}"
    if pixels.size > 3 * strips.LARGE and file_format in _DEEP_FORMATS:
        parts = _quantised_by_bands(label, file_format, pixels, alpha, depth)
        with whole_file(path) as file:
            _write_strips(file, label, file_format, pixels.shape[:2], parts, recipe)
        return
    channels = _quantised(label, file_format, pixels, alpha, depth)
    write_whole(path, _encoded(label, file_format, channels, recipe, quality))


def write_png(
    file: BinaryIO,
    pixels: FloatArray,
    *,
    alpha: Float32Array | None = None,
    recipe: Mapping[str, str] | None = None,
    depth: int = 8,
) -> None:
    """Write the PNG that save() would, into an open file such as a pipe; raises ImageError as it does, and OSError."""
    label = "cannot write the picture"
    if pixels.size > 3 * strips.LARGE:
        parts = _quantised_by_bands(label, "PNG", pixels, alpha, depth)
        _write_strips(file, label, "PNG", pixels.shape[:2], parts, recipe)
    else:
        file.write(_encoded(label, "PNG", _quantised(label, "PNG", pixels, alpha, depth), recipe, None))


def encode(pixels: FloatArray, file_format: str = "PNG", *, alpha: Float32Array | None = None) -> bytes:
    """The bytes of the 8-bit file, PNG, JPEG, WEBP or TIFF, that save() would write; raise ImageError as it does."""
    label = f"cannot encode the picture as {file_format}"
    return _encoded(label, file_format, _quantised(label, file_format, pixels, alpha, 8), None, None)


def preview(pixels: FloatArray, long_side: int) -> Image.Image:
    """An 8-bit RGB image to be looked at, no longer than long_side, of pixels (H, W, 3) or a mask (H, W).

    Values are floats, clipped to [0, 1]. Raises ImageError for NaN, infinities and other shapes.
    """
    colors = np.repeat(pixels[..., np.newaxis], 3, axis=2) if pixels.ndim == 2 else pixels
    every = max(colors.shape) // (4 * long_side)
    if colors.size > 3 * strips.LARGE and every > 1:  # the mean of squares first, to be finished below
        height, width = colors.shape[0] // every, colors.shape[1] // every
        small = np.empty((height, width, 3), np.float32)
        for row, out in enumerate(small):
            square = colors[row * every : (row + 1) * every, : width * every]
            out[...] = square.reshape(every, width, every, 3).mean(axis=(0, 2))
        colors = small
    image = Image.fromarray(_quantised("cannot show the picture", "PNG", colors, None, 8))
    height, width = output_size(image.height, image.width, min(long_side, max(image.size)))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def check_destination(path: str | os.PathLike[str], *, depth: int = 8, quality: int | None = None) -> None:
    """Raise ImageError if save() would refuse this path for its suffix or its folder, or what is asked of its format.

    For a caller with a long run ahead, who would rather hear of it before than after.
    """
    path = Path(path)
    file_format = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if file_format is None:
        raise ImageError(f"cannot write {path}: its name must end in one of {', '.join(_FORMAT_OF_SUFFIX)}")
    if depth not in (8, 16):
        raise ImageError(f"cannot write {path} with {depth} bits a channel; choose 8 or 16")
    if depth == 16 and file_format not in _DEEP_FORMATS:
        raise ImageError(f"cannot write {path} with 16 bits a channel: {file_format} has 8; name it .png or .tif")
    if quality is not None and file_format in _DEEP_FORMATS:
        raise ImageError(
            f"cannot write {path} in quality {quality}: {file_format} loses nothing; name it .jpg or .webp, or leave "
            "the quality out"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"cannot write {path} in quality {quality}; choose 1 (smallest file) to 100 (best)")
    check_place(path)


def check_size(path: str | os.PathLike[str], size: tuple[int, int]) -> None:
    """Raise ImageError if save() would refuse a picture (H, W) for its size, or memory would not do for it.

    JPEG and WebP are encoded whole; PNG and TIFF of any size are written by strips. For a caller as above.
    """
    path = Path(path)
    file_format, (height, width) = _FORMAT_OF_SUFFIX[path.suffix.lower()], size
    most, free = _LONGEST.get(file_format, max(size)), host_memory()
    needed = _ENCODED_BYTES * height * width
    reason = ""
    if max(size) > most:
        reason = f"{file_format} has at most {most} a side"
    elif file_format in _LONGEST and height * width > strips.LARGE and free is not None and needed > free:
        reason = f"{file_format} takes {needed / 2**30:.1f} GiB to encode, and {free / 2**30:.1f} are left"
    if reason:
        raise ImageError(f"cannot write {width}x{height} pixels to {path}: {reason}; name it .png or .tif")


def _quantised(label: str, file_format: str, pixels: FloatArray, alpha: Float32Array | None, depth: int) -> AnyArray:
    """The channels that the file will hold: (H, W, 3) or, where alpha is given and can be kept, (H, W, 4).

    uint8, or uint16 with depth 16.
    """
    parts = _quantised_by_bands(label, file_format, pixels, alpha, depth)
    first = next(parts)
    if len(first) == len(pixels):
        return first
    whole = np.empty((len(pixels), *first.shape[1:]), first.dtype)
    top = 0
    for part in chain([first], parts):
        whole[top : top + len(part)] = part
        top += len(part)
    return whole


def _quantised_by_bands(
    label: str, file_format: str, pixels: FloatArray, alpha: Float32Array | None, depth: int
) -> Iterator[AnyArray]:
    """The same, some rows at a time, as many in each but the last."""
    shape = pixels.shape
    if pixels.ndim != 3 or shape[2] != 3 or pixels.size == 0 or pixels.dtype.kind != "f":
        raise ImageError(f"{label}: want (H, W, 3) floats, not {pixels.dtype} of shape {shape}")
    if alpha is not None and alpha.shape != shape[:2]:
        raise ImageError(f"{label}: alpha has shape {alpha.shape}, the picture {shape[:2]}; resize alpha first")
    for rows in bands(shape):
        channels: FloatArray = pixels[rows] if alpha is None else np.dstack([pixels[rows], alpha[rows]])
        if not np.isfinite(channels).all():
            raise ImageError(f"{label}: the picture has NaN or infinite values; nothing was written")
        channels = np.clip(channels, 0, 1)
        if alpha is not None and file_format == "JPEG":
            cover = channels[..., 3:]
            channels = channels[..., :3] * cover + (1 - cover)
        dtype = np.dtype(f"uint{depth}")
        yield np.rint(np.multiply(channels, _WHITE[dtype.name], dtype=np.float64)).astype(dtype)


def _encoded(
    label: str, file_format: str, channels: AnyArray, recipe: Mapping[str, str] | None, quality: int | None
) -> bytes:
    encoded = io.BytesIO()
    size: tuple[int, int] = channels.shape[:2]
    if channels.dtype == np.uint16:
        _write_strips(encoded, label, file_format, size, (channels[rows] for rows in bands(channels.shape)), recipe)
        return encoded.getvalue()
    with _encoding(label, file_format, size):
        options = _ENCODING[file_format] | {"icc_profile": srgb_profile()}
        if file_format == "PNG":
            options |= {"pnginfo": _text_chunks(recipe)}
        elif recipe:
            exif = Image.Exif()
            exif[EXIF_IMAGE_DESCRIPTION] = _description(recipe)
            options |= {"exif": exif}
        options |= {} if quality is None else {"quality": quality}
        Image.fromarray(channels).save(encoded, format=file_format, **options)
    return encoded.getvalue()


def _write_strips(
    file: BinaryIO,
    label: str,
    file_format: str,
    size: tuple[int, int],
    parts: Iterable[AnyArray],
    recipe: Mapping[str, str] | None,
) -> None:
    """PNG or TIFF of what Pillow can't write, 16-bit colors, or should not, since it wants the whole picture."""
    with _encoding(label, file_format, size):
        if file_format == "PNG":
            texts = [(name, content) for name, content, *_ in _text_chunks(recipe).chunks]
            strips.write_png(file, size, parts, srgb_profile(), texts)
        else:
            strips.write_tiff(file, size, parts, srgb_profile(), _description(recipe) if recipe else None)


@contextlib.contextmanager
def _encoding(label: str, file_format: str, size: tuple[int, int]) -> Iterator[None]:
    """Turns what an encoder has against a picture (H, W) into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # beyond the format's largest side, or a recipe that doesn't fit
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        raise ImageError(
            f"{label}: {file_format} can't hold these {size[1]}x{size[0]} pixels ({error}); try .png"
        ) from error


def _text_chunks(recipe: Mapping[str, str] | None) -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    for key, value in (recipe or {}).items():
        text.add_itxt(key, value)
    return text


def _description(recipe: Mapping[str, str]) -> str:
    return json.dumps(dict(recipe))  # in ASCII, as EXIF demands
