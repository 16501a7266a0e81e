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
import os
import re
import secrets
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, TiffTags, UnidentifiedImageError

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
_DEEP_FORMATS = ("PNG", "TIFF")  # hold 16 bits a channel; the others lose some of the picture, by their quality

# Pillow reduces 16-bit colour to 8: it keeps the high byte of each sample. Told that the samples are in the other byte
# order, it keeps the low one.
_BYTE_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX);16[BLN]")

_WHITE = {"uint8": 255, "uint16": 65535}
_EXIF_IMAGE_DESCRIPTION = 0x010E
_BITS_PER_SAMPLE, _COMPRESSION, _PLANAR_CONFIGURATION = 0x0102, 0x0103, 0x011C


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
        image, low = _open(path)
        return _picture_of_image(image, low, str(path), path.stem)
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


def check_place(path: Path) -> None:
    """Raise ImageError if there is no folder to write this file in, or it is taken by a folder."""
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ImageError(f"cannot write {path}: you may not write in {path.parent}; choose another")
    if path.is_dir():
        raise ImageError(f"cannot write {path}: a folder has this name; choose another")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raise ImageError with the system's reason where it can't be.

    It is written under a passing name in the same folder, then given its own in one step.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at the file, which is what gets replaced
    partial = target.with_name(f".nstgpu-{secrets.token_hex(8)}.part")
    try:
        with open(partial, "xb") as file:  # unlike tempfile's, readable to whom the umask allows
            file.write(data)
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
    image, _ = _open(Path(path))
    if isinstance(image, PngImagePlugin.PngImageFile):
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


def _open(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """The file's first frame, decoded in full, and the low bytes of its colours, as such an image, if they have two."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"cannot read {path}: {reason}; give the path of a {_FORMAT_NAMES} file") from error
    if not content:
        raise ImageError(f"cannot read {path}: the file is empty; give a {_FORMAT_NAMES} file")
    with _decoding(str(path)):
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        _refuse_deep_planes(image, path)
        tiles = _byte_swapped(image.tile)
        image.load()
        if tiles is None:
            return image, None
        low = Image.open(io.BytesIO(content), formats=_FORMATS)
        low.tile = tiles
        low.load()
    return image, low


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


def _refuse_deep_planes(image: Image.Image, path: Path) -> None:
    """Pillow takes the uncompressed 16-bit planes of a TIFF as planes of bytes."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    planes, bits, compression = (tags.get(tag) for tag in (_PLANAR_CONFIGURATION, _BITS_PER_SAMPLE, _COMPRESSION))
    if planes == 2 and bits and max(bits) > 8 and compression == 1:
        raise ImageError(f"cannot read {path}: its 16-bit channels are separate planes; save it with them interleaved")


@contextlib.contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Turn whatever Pillow raises inside into one ImageError, and keep its own warnings off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
    profile = image.info.get("icc_profile")
    with _decoding(label):
        image.load()
        with contextlib.suppress(Exception):  # a sound picture is welcome with EXIF that can't be parsed
            image = ImageOps.exif_transpose(image)
            low = None if low is None else ImageOps.exif_transpose(low)
        colours, alpha = _split_alpha(image)
    if low is not None:
        deep, alpha = _deep_colours(image, low)
        chart = _colour_chart()
        if _look_alike(_to_srgb(chart, profile, label), chart):
            return Picture(deep, _unless_opaque(alpha), name)
    if _is_deep_gray(colours):
        pixels = _deep_gray(colours, profile, label)
    else:
        pixels = _unit_range(np.asarray(_to_srgb(colours, profile, label)), label)
    return Picture(pixels, _unless_opaque(alpha), name)


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
            warnings.warn(f"{label}: its colour profile can't be used; taking its colours as sRGB", stacklevel=4)
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
    return array.astype(np.promote_types(kind, np.float32))


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
    shape = pixels.shape
    if pixels.ndim != 3 or shape[2] != 3 or pixels.size == 0 or pixels.dtype.kind != "f":
        raise ImageError(f"{label}: want (H, W, 3) floats, not {pixels.dtype} of shape {shape}")
    if alpha is not None and alpha.shape != shape[:2]:
        raise ImageError(f"{label}: alpha has shape {alpha.shape}, the picture {shape[:2]}; resize alpha first")
    channels: FloatArray = pixels if alpha is None else np.dstack([pixels, alpha])
    if not np.isfinite(channels).all():
        raise ImageError(f"{label}: the picture has NaN or infinite values; nothing was written")
    channels = np.clip(channels, 0, 1)
    if alpha is not None and file_format == "JPEG":
        cover = channels[..., 3:]
        channels = channels[..., :3] * cover + (1 - cover)
    dtype = np.dtype(f"uint{depth}")
    quantised = np.empty(channels.shape, dtype)
    for row, values in zip(quantised, channels, strict=True):  # a row at a time: the product in float64 is large
        np.rint(np.multiply(values, _WHITE[dtype.name], dtype=np.float64), out=row, casting="unsafe")
    return quantised


def _encoded(
    label: str, file_format: str, channels: AnyArray, recipe: Mapping[str, str] | None, quality: int | None
) -> bytes:
    encoded = io.BytesIO()
    try:
        text = PngImagePlugin.PngInfo()
        exif = Image.Exif()
        if file_format == "PNG":
            for key, value in (recipe or {}).items():
                text.add_itxt(key, value)
        elif recipe:
            exif[_EXIF_IMAGE_DESCRIPTION] = json.dumps(dict(recipe))  # in ASCII, as EXIF demands
        if channels.dtype == np.uint16 and file_format == "PNG":
            _write_deep_png(encoded, channels, text)
        elif channels.dtype == np.uint16:
            _write_deep_tiff(encoded, channels, exif)
        else:
            options = _ENCODING[file_format] | {"icc_profile": srgb_profile()}
            options |= {"pnginfo": text} if file_format == "PNG" else {"exif": exif} if recipe else {}
            options |= {} if quality is None else {"quality": quality}
            Image.fromarray(channels).save(encoded, format=file_format, **options)
    except (OSError, ValueError) as error:  # beyond the format's largest side, or a recipe that doesn't fit
        height, width = channels.shape[:2]
        raise ImageError(
            f"{label}: {file_format} can't hold these {width}x{height} pixels ({error}); try .png"
        ) from error
    return encoded.getvalue()


def _write_deep_png(file: io.BytesIO, channels: AnyArray, text: PngImagePlugin.PngInfo) -> None:
    """16-bit RGB or RGBA as PNG (W3C PNG, third edition, sections 5, 9 and 11), which Pillow can't write."""
    height, width, count = channels.shape
    samples = channels.astype(">u2").view(np.uint8).reshape(height, -1)
    rows = np.full((height, 1 + samples.shape[1]), 2, np.uint8)  # filter "up": no other makes pictures 2% smaller
    rows[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
    compressed = zlib.compress(rows.data)

    def chunk(name: bytes, content: bytes) -> None:
        checksum = zlib.crc32(content, zlib.crc32(name))
        file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[count], 0, 0, 0))
    chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(srgb_profile()))
    for name, content, *_ in text.chunks:
        chunk(name, content)
    for start in range(0, len(compressed), 1 << 20):
        chunk(b"IDAT", compressed[start : start + (1 << 20)])
    chunk(b"IEND", b"")


def _write_deep_tiff(file: io.BytesIO, channels: AnyArray, exif: Image.Exif) -> None:
    """16-bit RGB or RGBA as TIFF (TIFF 6.0, section 14, and Adobe's deflate), which Pillow can't write."""
    height, width, count = channels.shape
    differences = channels.astype("<u2")
    differences[:, 1:] -= channels[:, :-1]
    compressed = zlib.compress(differences.data)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (16,) * count
    tags[TiffImagePlugin.COMPRESSION] = 8  # Adobe's deflate
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2  # RGB
    if _EXIF_IMAGE_DESCRIPTION in exif:
        tags[TiffImagePlugin.IMAGEDESCRIPTION] = exif[_EXIF_IMAGE_DESCRIPTION]
    tags[TiffImagePlugin.STRIPOFFSETS] = 0  # from the end of the tags; save() adds where that is
    tags.tagtype[TiffImagePlugin.STRIPOFFSETS] = TiffTags.LONG
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = count
    tags[TiffImagePlugin.ROWSPERSTRIP] = height
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = len(compressed)
    tags[TiffImagePlugin.PLANAR_CONFIGURATION] = 1  # interleaved
    tags[TiffImagePlugin.PREDICTOR] = 2  # differences along the row
    if count == 4:
        tags[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha that isn't multiplied into the colours
    tags[TiffImagePlugin.ICCPROFILE] = srgb_profile()
    tags.save(file)
    file.write(compressed)
