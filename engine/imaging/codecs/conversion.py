"""Pillow's images and NumPy's arrays to RGB floats in [0, 1]: modes, depths, transparency, profiles, orientation."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...errors import ImageError
from ...memory.spill import bands, empty
from ...types import FloatArray
from ..picture import AnyArray, Float32Array, Picture
from . import strips
from .color_profiles import color_chart, look_alike, to_srgb
from .decoding import WHITE, content_of, decoding, mark_white, note
from .deep_tiff import colors_and_alpha, in_unit_range, samples
from .tiff_kinds import is_tiff

_WHITE = {"uint8": 255, "uint16": 65535}


def picture_of_image(image: Image.Image, low: Image.Image | None, label: str, name: str) -> Picture:
    if 0 in image.size:
        raise ImageError(f"{label} is empty ({image.width}x{image.height} pixels); give one that has pixels")
    with decoding(label):
        mark_white(image)
        image.load()
        with contextlib.suppress(Exception):  # a sound picture is welcome with EXIF that can't be parsed
            image = ImageOps.exif_transpose(image)
            low = None if low is None else ImageOps.exif_transpose(low)
    if image.width * image.height > strips.LARGE and image.mode not in ("I", "F"):  # their range is the whole picture's
        return assembled((image.height, image.width), _bands_of(image, low), label, name)
    return Picture(*_converted(image, low, label), name)


def deep_tiff(path: Path) -> Picture | None:
    """A TIFF of numbers that Pillow doesn't read, or not right, with a warning where they could be taken otherwise.

    None for other files."""
    with open(path, "rb") if path.is_file() else io.BytesIO(content_of(path)) as file:
        if not is_tiff(file.read(4)):
            return None
    label, content = str(path), content_of(path)
    with decoding(label, content):
        found = samples(content, label)
        if found is None:
            return None
        values, tags = found
        values, rule = in_unit_range(values, label)
        pixels, alpha = colors_and_alpha(values, tags)
        if rule:
            note(f"{label}: {rule}")
    chart, profile = color_chart(), tags.get(34675)
    if profile and not look_alike(to_srgb(chart, bytes(profile), label), chart):
        reduced = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
        pixels = np.asarray(to_srgb(reduced, bytes(profile), label)) / np.float32(255)
    turn: Callable[[AnyArray], AnyArray] = _TURNS.get(tags.get(274, 1), np.asarray)
    alpha = None if alpha is None else np.ascontiguousarray(turn(alpha))
    return Picture(np.ascontiguousarray(turn(pixels)), _unless_opaque(alpha), path.stem)


# By TIFF's orientation: how to bring it upright.
_TURNS: dict[int, Callable[[AnyArray], AnyArray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, 1),
}


def assembled(
    size: tuple[int, int], parts: Iterable[tuple[Image.Image, Image.Image | None]], label: str, name: str
) -> Picture:
    """A large picture (H, W) of parts from top to bottom, each an image and the low bytes of its colors."""
    pixels, top = empty((*size, 3), np.float32, f"the picture {name}"), 0
    alpha: Float32Array | None = None
    for image, low in parts:
        with warnings.catch_warnings():
            if top > 0:
                warnings.simplefilter("ignore")  # every part has the same profile
            values, opacity = _converted(image, low, label)
        rows = slice(top, top + len(values))
        pixels[rows] = values
        if opacity is not None and alpha is None:
            alpha = empty(size, np.float32, f"the transparency of {name}")
            alpha[:top] = 1
        if alpha is not None:
            alpha[rows] = 1 if opacity is None else opacity
        top = rows.stop
    return Picture(pixels, alpha, name)


def _bands_of(image: Image.Image, low: Image.Image | None) -> Iterator[tuple[Image.Image, Image.Image | None]]:
    for rows in bands((image.height, image.width, 3)):
        box = (0, rows.start, image.width, rows.stop)
        yield image.crop(box), None if low is None else low.crop(box)


def _converted(image: Image.Image, low: Image.Image | None, label: str) -> tuple[FloatArray, Float32Array | None]:
    """Pixels (H, W, 3) and alpha (H, W), if any, of an image that is upright, and the low bytes of its colors."""
    profile = image.info.get("icc_profile")
    with decoding(label):
        colors, alpha = _split_alpha(image)
    if low is not None:
        deep, alpha = _deep_colors(image, low)
        chart = color_chart()
        if look_alike(to_srgb(chart, profile, label), chart):
            return deep, _unless_opaque(alpha)
    if _is_deep_gray(colors):
        pixels = _deep_gray(colors, profile, label)
    else:
        pixels = _unit_range(np.asarray(to_srgb(colors, profile, label)), label)
    return pixels, _unless_opaque(alpha)


def _is_deep_gray(image: Image.Image) -> bool:
    """Whether it is gray of more than 8 bits: Pillow's modes I, F, I;16 and its kin."""
    return image.mode[0] in "IF"


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Float32Array | None]:
    """The image in a mode that has only colors, and its alpha (H, W) if it has any.

    The mode is one that ICC profiles apply to, L, RGB, CMYK or LAB, or deep gray.
    """
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode[:-1] + "A")
    alpha = None
    if _is_deep_gray(image):
        clear = image.info.get("transparency")  # the one gray that is transparent; Pillow loses it in 16 bits
        if clear is not None:
            alpha = (np.asarray(image) != clear).astype(np.float32)
        return image, alpha
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = _unit_range(np.asarray(rgba.getchannel("A")), "alpha").astype(np.float32)
    mode = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    return image.convert(mode), alpha


def _deep_colors(high: Image.Image, low: Image.Image) -> tuple[FloatArray, Float32Array | None]:
    """Pixels (H, W, 3) float32 of colors of 16 bits, given as two images of a byte each, and their alpha if any."""
    samples = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
    clear = high.info.get("transparency")  # the one color that is transparent
    alpha: Float32Array | None = None
    if samples.shape[2] == 4:
        alpha = _unit_range(samples[..., 3], "alpha").astype(np.float32)
    elif clear is not None:
        alpha = (samples != np.array(clear)).any(axis=2).astype(np.float32)
    return _unit_range(samples[..., :3], "the picture"), alpha


def _deep_gray(image: Image.Image, profile: bytes | None, label: str) -> FloatArray:
    """Pixels (H, W, 3) float32 of a gray image with more than 8 bits; a profile keeps that precision too."""
    gray = np.asarray(image)
    if WHITE in image.info:
        gray = np.rint(gray * (_WHITE["uint16"] / image.info[WHITE])).astype(np.uint16)
    if gray.dtype.kind == "i":
        if gray.min() < 0 or gray.max() > _WHITE["uint16"]:
            raise ImageError(f"{label} has gray values from {gray.min()} to {gray.max()}; scale them to 0..65535")
        gray = gray.astype(np.uint16)
    elif gray.dtype.kind == "f" and 1 < gray.max() <= 255:
        gray = gray / np.float32(255)  # Pillow's own scale for "F"
    values = _unit_range(gray, label)
    if profile is None:
        return _rgb(values)
    # ImageCms takes gray in 8 bits only: convert all 256 of them, and read between them.
    levels = np.arange(256, dtype=np.uint8)
    curves = np.asarray(to_srgb(Image.fromarray(levels[np.newaxis]), profile, label))[0] / 255
    channels = [np.interp(values, levels / 255, curve) for curve in curves.T]
    return np.stack(channels, axis=-1).astype(np.float32)


def picture_of_array(array: AnyArray) -> Picture:
    gray = array.ndim == 2
    if not gray and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(f"the array has shape {array.shape}; give (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ImageError(f"the array has shape {array.shape} and so no pixels; give one that has some")
    values = _unit_range(array, "the array")
    if gray:
        return Picture(_rgb(values), None, "image")
    alpha = values[..., 3].astype(np.float32) if values.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(values[..., :3]), _unless_opaque(alpha), "image")


def _unit_range(array: AnyArray, label: str) -> FloatArray:
    """A copy as floats in [0, 1]: integers over their dtype's largest, floats as they are."""
    kind = array.dtype.name
    if kind in _WHITE:
        return np.divide(array, np.float32(_WHITE[kind]), dtype=np.float32)
    if kind not in ("float16", "float32", "float64"):
        raise ImageError(f"{label} has dtype {kind}; give uint8, uint16, or float32 or float64 in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite((low, high)).all():
        raise ImageError(f"{label} has NaN or infinite values; give finite values in [0, 1]")
    if low < 0 or high > 1:
        raise ImageError(f"{label} has values from {low:g} to {high:g}; scale or clip them to [0, 1]")
    copy: FloatArray = empty(array.shape, np.promote_types(kind, np.float32))
    copy[...] = array
    return copy


def _rgb(gray: FloatArray) -> FloatArray:
    return np.repeat(gray[..., np.newaxis], 3, axis=2)


def _unless_opaque(alpha: Float32Array | None) -> Float32Array | None:
    return None if alpha is None or (alpha == 1).all() else alpha
