"""Image files and image arrays to RGB floats in [0, 1], and back to files.

Everything that differs between one picture and another ends here: file formats, pixel modes, bit depths,
orientation, transparency and colour profiles. The rest of the engine sees one kind of array, RGB in sRGB,
shape (H, W, 3), values in [0, 1]. Decoding, encoding and colour management are Pillow's. Resizing is left to
the kernels, and which file is read or written when is for the caller to say.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import re
import secrets
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import (
    Image,
    ImageCms,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from . import strips
from .memory import bands, empty, host_memory

AnyArray: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Float32Array: TypeAlias = npt.NDArray[np.float32]

# What is read, by content, whatever the suffix; the suffixes it is written under; and the encoder's settings.
# Only these decoders run: Pillow's others include rarely tested ones, and one that starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_FORMAT_NAMES = "PNG, JPEG, WebP or TIFF"
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
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},  # painted strokes have sharp edges in colour
    "WEBP": {"quality": 95, "method": 6},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
LARGE = 1 << 26
"""Pixels: larger pictures are read and written by strips. As floats so many take 0.8 GB, which machines still have."""
_LONGEST = {"JPEG": 65535, "WEBP": 16383}  # pixels, of a side; the others have no limit that matters
_ENCODED_BYTES = 8  # a pixel: three as they are rounded, four in Pillow, and the file itself
_DEEP_FORMATS = ("PNG", "TIFF")  # hold 16 bits a channel; the others lose some of the picture, by their quality

# Pillow reduces 16-bit colour to 8: it keeps the high byte of each sample. Told that the samples are in the other byte
# order, it keeps the low one.
_BYTE_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX);16[BLN]")

_WHITE = {"uint8": 255, "uint16": 65535}
_EXIF_IMAGE_DESCRIPTION = 0x010E
_BITS_PER_SAMPLE, _COMPRESSION, _ORIENTATION, _PLANAR_CONFIGURATION = 0x0102, 0x0103, 0x0112, 0x011C

# Pillow refuses pictures of twice this many pixels as possible bombs. Unless somebody has set another limit, what there
# is of memory decides here; but for WebP, and TIFF that can't be cut, which Pillow does not open then at all.
_PILLOWS_LIMIT = 1024**3 // 4 // 3
_PLUGINS: dict[bytes, Any] = {
    b"\x89P": PngImagePlugin.PngImageFile,
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"RI": WebPImagePlugin.WebPImageFile,
    b"II": TiffImagePlugin.TiffImageFile,
    b"MM": TiffImagePlugin.TiffImageFile,
}
_BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1}  # in Pillow's memory, which has four for most modes


class ImageError(ValueError):
    """A picture that can't be read or written; the message is one line: what, which, and what to do."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the engine takes it.

    pixels  (H, W, 3) RGB in sRGB, values in [0, 1], C-contiguous; float32, or the float64 of the array read
    alpha   (H, W) float32 in [0, 1], 1 = opaque; None if every pixel is opaque
    name    the file's stem, or "image"
    """

    pixels: FloatArray
    alpha: Float32Array | None
    name: str


def read(source: Picture | str | os.PathLike[str] | Image.Image | AnyArray) -> Picture:
    """Read a picture from a file, a Pillow image or an array; raise ImageError if it can't be one.

    Files are PNG, JPEG, WebP or TIFF, told apart by their content; of several frames the first is read. EXIF
    orientation is applied, an embedded ICC profile is converted to sRGB (an unusable one is ignored with a
    warning) and every pixel mode becomes RGB. 16 bits a channel stay 16, but for gray with alpha, CMYK, colours
    under a profile other than sRGB, TIFFs that are planar or premultiplied, and images that Pillow has opened,
    which are read in 8. Pillow's mode "I" is taken as 0..65535, and "F" as 0..1 or, if it goes beyond 1, as
    0..255.

    Arrays are (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGB with alpha: uint8, uint16, or floats in [0, 1].
    float32 and float64 values are copied unchanged to the last bit and keep their dtype.

    A Picture is returned as it is.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        picture = _read_by_strips(path)
        return _picture_of_image(*_open(path), str(path), path.stem) if picture is None else picture
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")  # only images that Pillow opened from a path have one
        return _picture_of_image(source, None, "the Pillow image", Path(filename).stem if filename else "image")
    if isinstance(source, np.ndarray):
        return _picture_of_array(source)
    raise ImageError(f"cannot read a {type(source).__name__}; give a path, a PIL.Image or a NumPy array")


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

    The file appears whole or not at all: it is written beside its destination and renamed. The same
    arguments give the same bytes. Raises ImageError for another suffix, a depth or quality that the format
    doesn't have, a missing folder, NaN or infinite pixels, shapes that don't fit, a picture too large for the
    format, and whatever the system has against writing there.
    """
    path = Path(path)
    check_destination(path, depth=depth, quality=quality)
    file_format = _FORMAT_OF_SUFFIX[path.suffix.lower()]
    label = f"cannot write {path}"
    if pixels.size > 3 * LARGE and file_format in _DEEP_FORMATS:
        parts = _quantised_by_bands(label, file_format, pixels, alpha, depth)
        with whole_file(path) as file:
            _write_strips(file, label, file_format, pixels.shape[:2], parts, recipe)
        return
    channels = _quantised(label, file_format, pixels, alpha, depth)
    write_whole(path, _encoded(label, file_format, channels, recipe, quality))


def encode(pixels: FloatArray, file_format: str = "PNG", *, alpha: Float32Array | None = None) -> bytes:
    """The bytes of the 8-bit file, PNG, JPEG, WEBP or TIFF, that save() would write; raise ImageError as it does."""
    label = f"cannot encode the picture as {file_format}"
    return _encoded(label, file_format, _quantised(label, file_format, pixels, alpha, 8), None, None)


def preview(pixels: FloatArray, long_side: int) -> Image.Image:
    """An 8-bit RGB image to be looked at, no longer than long_side, of pixels (H, W, 3) or a mask (H, W).

    Values are floats, clipped to [0, 1]. Raises ImageError for NaN, infinities and other shapes.
    """
    colours = _rgb(pixels) if pixels.ndim == 2 else pixels
    every = max(colours.shape) // (4 * long_side)
    if colours.size > 3 * LARGE and every > 1:  # the mean of squares first, to be finished below
        height, width = colours.shape[0] // every, colours.shape[1] // every
        small = np.empty((height, width, 3), np.float32)
        for row, out in enumerate(small):
            square = colours[row * every : (row + 1) * every, : width * every]
            out[...] = square.reshape(every, width, every, 3).mean(axis=(0, 2))
        colours = small
    image = Image.fromarray(_quantised("cannot show the picture", "PNG", colours, None, 8))
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
    elif file_format in _LONGEST and height * width > LARGE and free is not None and needed > free:
        reason = f"{file_format} takes {needed / 2**30:.1f} GiB to encode, and {free / 2**30:.1f} are left"
    if reason:
        raise ImageError(f"cannot write {width}x{height} pixels to {path}: {reason}; name it .png or .tif")


def check_place(path: Path) -> None:
    """Raise ImageError if there is no folder to write this file in, or it is taken by a folder."""
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ImageError(f"cannot write {path}: you may not write in {path.parent}; choose another")
    if path.is_dir():
        raise ImageError(f"cannot write {path}: a folder has this name; choose another")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raise ImageError with the system's reason where it can't be."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, and to read, that is there whole in the end or not at all; raises ImageError as `write_whole`.

    It is written under a passing name in the same folder, then given its own in one step.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at the file, which is what gets replaced
    partial = target.with_name(f".nstgpu-{secrets.token_hex(8)}.part")
    try:
        with open(partial, "x+b") as file:  # unlike tempfile's, readable to whom the umask allows
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(partial, target)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:  # also upon Ctrl-C; after the rename there is nothing left under this name
        partial.unlink(missing_ok=True)


def read_recipe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what save() recorded with a picture: PNG's text chunks, or the JSON in EXIF's ImageDescription.

    Empty if there is nothing of the kind. Raises ImageError for a file that isn't a readable picture.
    """
    image = _opened(Path(path))
    if isinstance(image, PngImagePlugin.PngImageFile):
        if image.width * image.height > LARGE:  # text behind the pixels is not worth decoding them
            return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}
        with _decoding(str(path)):
            return {str(key): str(text) for key, text in image.text.items()}
    try:
        recipe = json.loads(image.getexif()[_EXIF_IMAGE_DESCRIPTION])
    except Exception:  # no EXIF, EXIF that Pillow can't parse, or another program's description: no recipe
        return {}
    return {key: str(text) for key, text in recipe.items()} if isinstance(recipe, dict) else {}


def output_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(height, width) in the same proportion, the longer side long_side; to the nearest pixel, at least 1."""
    if min(height, width, long_side) < 1:
        raise ImageError(f"cannot size {height}x{width} to {long_side}: every side must be at least 1")
    longest = max(height, width)

    def scaled(side: int) -> int:
        return max(1, (2 * side * long_side + longest) // (2 * longest))

    return scaled(height), scaled(width)


# Reading


def _read_by_strips(path: Path) -> Picture | None:
    """A large picture, part by part; None for others, for what `strips` can't cut, and for what is to be turned."""
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; what is wrong with it is said where it is read whole)
    except (OSError, ValueError):
        return None
    label = str(path)
    with file:
        with _decoding(label):
            parts = strips.cut(file, LARGE)
            if parts is None:
                return None
            pixels, limit = math.prod(parts.size), Image.MAX_IMAGE_PIXELS
            if limit is not None and limit != _PILLOWS_LIMIT and pixels > limit:
                raise Image.DecompressionBombError(str(pixels))
            first = next(parts.files)
        if _is_turned(first):
            return None
        return _assembled(parts.size, _decoded_parts(chain([first], parts.files), label), label, path.stem)


def _is_turned(content: bytes) -> bool:
    with contextlib.suppress(Exception):  # as where it is turned
        return bool(Image.open(io.BytesIO(content), formats=_FORMATS).getexif().get(_ORIENTATION, 1) != 1)
    return False


def _decoded_parts(files: Iterator[bytes], label: str) -> Iterator[tuple[Image.Image, Image.Image | None]]:
    while True:
        with _decoding(label):
            content = next(files, None)
            if content is None:
                return
            part = _decoded(content, label)
        yield part


def _opened(path: Path) -> Image.Image:
    """The file's first frame, not decoded yet."""
    content = _content(path)
    with _decoding(str(path)):
        return _opened_content(content)


def _open(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """The file's first frame, decoded in full, and the low bytes of its colours, as such an image, if they have two."""
    content = _content(path)
    with _decoding(str(path)):
        return _decoded(content, str(path))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"cannot read {path}: {reason}; give the path of a {_FORMAT_NAMES} file") from error
    if not content:
        raise ImageError(f"cannot read {path}: the file is empty; give a {_FORMAT_NAMES} file")
    return content


def _decoded(content: bytes, label: str) -> tuple[Image.Image, Image.Image | None]:
    image = _opened_content(content)
    _refuse_deep_planes(image, label)
    tiles = _byte_swapped(image.tile)
    _refuse_too_large(image, 1 if tiles is None else 2, label)
    image.load()
    if tiles is None:
        return image, None
    low = _opened_content(content)
    low.tile = tiles
    low.load()
    return image, low


def _opened_content(content: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        if Image.MAX_IMAGE_PIXELS != _PILLOWS_LIMIT:
            raise
        image: ImageFile.ImageFile = _PLUGINS[content[:2]](io.BytesIO(content))
        return image


def _refuse_too_large(image: Image.Image, copies: int, label: str) -> None:
    """What is decoded as a whole has to fit into memory."""
    pixels, free = image.width * image.height, host_memory()
    needed = pixels * _BYTES_A_PIXEL.get(image.mode, 4) * copies
    if pixels > LARGE and free is not None and needed > free:
        raise ImageError(
            f"{label} has {pixels} pixels, which take {needed / 2**30:.1f} GiB to decode, and {free / 2**30:.1f} "
            "are left; save it as a PNG without interlacing or a TIFF in strips, which are read by strips, or shrink it"
        )


def _byte_swapped(tiles: list[Any]) -> list[Any] | None:
    """How to decode what these of Pillow's tiles say, samples of 16 bits in the other order; None for other samples."""
    swapped = []
    for tile in tiles:
        *place, arguments = tile
        mode, *rest = (arguments,) if isinstance(arguments, str) else arguments
        if not _DEEP_COLOUR.fullmatch(mode):
            return None
        mode = mode[:-1] + _BYTE_SWAPPED[mode[-1]]
        arguments = mode if isinstance(arguments, str) else (mode, *rest)
        swapped.append(getattr(type(tile), "_make", tuple)((*place, arguments)))  # a plain tuple before Pillow 11
    return swapped


def _refuse_deep_planes(image: Image.Image, label: str) -> None:
    """Pillow takes the uncompressed 16-bit planes of a TIFF as planes of bytes."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    planes, bits, compression = (tags.get(tag) for tag in (_PLANAR_CONFIGURATION, _BITS_PER_SAMPLE, _COMPRESSION))
    if planes == 2 and bits and max(bits) > 8 and compression == 1:
        raise ImageError(f"cannot read {label}: its 16-bit channels are separate planes; save it with them interleaved")


@contextlib.contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Turn whatever Pillow raises inside into one ImageError, and keep its own warnings off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if Image.MAX_IMAGE_PIXELS != _PILLOWS_LIMIT:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except ImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            found = re.search(r"\d+", str(error))
            count = found[0] if found else "too many"
            raise ImageError(
                f"{label} has {count} pixels, the limit is {Image.MAX_IMAGE_PIXELS}; "
                "shrink it first, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from error
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{label} is not a {_FORMAT_NAMES} picture, or its head is damaged; convert or export it anew"
            ) from error
        except Exception as error:  # decoders raise a dozen types for a damaged file, SyntaxError among them
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{label} is damaged or cut short ({reason}); export or download it again") from error


def _picture_of_image(image: Image.Image, low: Image.Image | None, label: str, name: str) -> Picture:
    if 0 in image.size:
        raise ImageError(f"{label} is empty ({image.width}x{image.height} pixels); give one that has pixels")
    with _decoding(label):
        image.load()
        with contextlib.suppress(Exception):  # a sound picture is welcome with EXIF that can't be parsed
            image = ImageOps.exif_transpose(image)
            low = None if low is None else ImageOps.exif_transpose(low)
    if image.width * image.height > LARGE and image.mode not in ("I", "F"):  # their range is the whole picture's
        return _assembled((image.height, image.width), _bands_of(image, low), label, name)
    return Picture(*_converted(image, low, label), name)


def _assembled(
    size: tuple[int, int], parts: Iterable[tuple[Image.Image, Image.Image | None]], label: str, name: str
) -> Picture:
    """A large picture (H, W) of parts from top to bottom, each an image and the low bytes of its colours."""
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
    """Pixels (H, W, 3) and alpha (H, W), if any, of an image that is upright, and the low bytes of its colours."""
    profile = image.info.get("icc_profile")
    with _decoding(label):
        colours, alpha = _split_alpha(image)
    if low is not None:
        deep, alpha = _deep_colours(image, low)
        chart = _colour_chart()
        if _look_alike(_to_srgb(chart, profile, label), chart):
            return deep, _unless_opaque(alpha)
    if _is_deep_gray(colours):
        pixels = _deep_gray(colours, profile, label)
    else:
        pixels = _unit_range(np.asarray(_to_srgb(colours, profile, label)), label)
    return pixels, _unless_opaque(alpha)


def _is_deep_gray(image: Image.Image) -> bool:
    """Whether it is gray of more than 8 bits: Pillow's modes I, F, I;16 and its kin."""
    return image.mode[0] in "IF"


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Float32Array | None]:
    """The image in a mode that has only colours, and its alpha (H, W) if it has any.

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


def _to_srgb(image: Image.Image, profile: bytes | None, label: str) -> Image.Image:
    """An 8-bit image without alpha, as RGB: by its ICC profile, or without one by Pillow's conversion."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
                image = image.convert("RGB")  # gray files often keep the profile of the RGB they came from
            srgb = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
            return ImageCms.buildTransform(source, srgb, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError, ValueError):
            warnings.warn(f"{label}: its colour profile can't be used; taking its colours as sRGB", stacklevel=5)
    return image.convert("RGB")


def _colour_chart() -> Image.Image:
    """Colours from all over the RGB cube: what a profile does to them is what it does."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3))


def _look_alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether no 8-bit channel differs by more than a level, as the best of conversions may by rounding."""
    difference = np.asarray(one).astype(np.int16) - np.asarray(other)
    return int(np.abs(difference).max()) <= 1


def _deep_colours(high: Image.Image, low: Image.Image) -> tuple[FloatArray, Float32Array | None]:
    """Pixels (H, W, 3) float32 of colours of 16 bits, given as two images of a byte each, and their alpha if any."""
    samples = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
    clear = high.info.get("transparency")  # the one colour that is transparent
    alpha: Float32Array | None = None
    if samples.shape[2] == 4:
        alpha = _unit_range(samples[..., 3], "alpha").astype(np.float32)
    elif clear is not None:
        alpha = (samples != np.array(clear)).any(axis=2).astype(np.float32)
    return _unit_range(samples[..., :3], "the picture"), alpha


def _deep_gray(image: Image.Image, profile: bytes | None, label: str) -> FloatArray:
    """Pixels (H, W, 3) float32 of a gray image with more than 8 bits; a profile keeps that precision too."""
    gray = np.asarray(image)
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
    curves = np.asarray(_to_srgb(Image.fromarray(levels[np.newaxis]), profile, label))[0] / 255
    channels = [np.interp(values, levels / 255, curve) for curve in curves.T]
    return np.stack(channels, axis=-1).astype(np.float32)


def _picture_of_array(array: AnyArray) -> Picture:
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


# Writing


@functools.cache
def srgb_profile() -> bytes:
    """The ICC profile that every file written here carries."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # lcms dates the profile with the current time (bytes 24 to 36); the same picture must give the same file.
    return profile[:24] + np.array([2000, 1, 1, 0, 0, 0], dtype=">u2").tobytes() + profile[36:]


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
            exif[_EXIF_IMAGE_DESCRIPTION] = _description(recipe)
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
    """PNG or TIFF of what Pillow can't write, 16-bit colours, or should not, since it wants the whole picture."""
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
