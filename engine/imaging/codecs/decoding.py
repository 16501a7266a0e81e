"""Picture files to Pillow's images: which decoders run, within which limits, and what is said of what they refuse."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import PIL._imaging
from PIL import (
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ....weights.shortage import is_shortage
from ...errors import ImageError
from ...memory.limits import host_memory
from . import strips, tiff_kinds
from .formats import heif_kind, names, read_formats, reads_heic, verdict
from .mending import PNG, mended_jpeg, mended_png

# Pillow reduces 16-bit color to 8: it keeps the high byte of each sample. Told that the samples are in the other byte
# order, it keeps the low one.
_BYTE_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP_COLOR = re.compile(r"(RGB|RGBA|RGBX);16[BLN]")

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
_MOST_PIXELS_A_BYTE = 20_000
_BYTES_A_WIDE_ROW = 60  # a pixel: as it is inflated, as it is decoded, and as floats
_BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1}  # in Pillow's memory, which has four for most modes

WHITE = "nstgpu white"
"""Key of an image's info: what its white is, where that is not its mode's."""
MOST_BYTES = 1 << 30
"""That a picture may have which comes out of a pipe or a device; files may be larger."""


with contextlib.suppress(OSError, AttributeError):  # libtiff's lines go past Python to the terminal; errors come anyway
    ctypes.CDLL(PIL._imaging.__file__).TIFFSetErrorHandler(None)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or what it logs of damaged files lands on the terminal

Decoded: TypeAlias = tuple[Image.Image, Image.Image | None]
"""An image, decoded in full, and the low bytes of its colors, as such an image, if they have two."""


def in_parts(path: Path) -> tuple[tuple[int, int], Iterator[Decoded]] | None:
    """A large picture's size (H, W) and its parts, decoded as they are asked for.

    None for others, for what `strips` can't cut, and for what is to be turned.
    """
    if not path.is_file():  # a pipe can be read only once
        return None
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed with the last part; what is wrong with it is said by `whole`)
    except (OSError, ValueError):
        return None
    label = str(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        with decoding(label):
            parts = strips.cut(file, strips.LARGE)
            if parts is None:
                return None
            pixels, limit = math.prod(parts.size), Image.MAX_IMAGE_PIXELS
            if limit is not None and limit != _PILLOWS_LIMIT and pixels > limit:
                raise Image.DecompressionBombError(str(pixels))
            _refuse_claims(parts.size, path, label)
            first = next(parts.files)
        if _is_turned(first):
            return None
        stack.pop_all()
    return parts.size, _decoded_parts(file, chain([first], parts.files), label)


def _refuse_claims(size: tuple[int, int], path: Path, label: str) -> None:
    """A size (H, W) that a damaged header made up, or of rows that memory has no room for."""
    height, width = size
    nbytes, free = path.stat().st_size, host_memory()
    with open(path, "rb") as file:
        if not tiff_kinds.is_tiff(file.read(4)):
            _refuse_bomb((width, height), nbytes, label)
    needed = _BYTES_A_WIDE_ROW * width
    if free is not None and needed > free:
        raise ImageError(
            f"{label} has rows of {width} pixels, which take {needed / 2**30:.1f} GiB to decode, and "
            f"{free / 2**30:.1f} are left; shrink it"
        )


def _is_turned(content: bytes) -> bool:
    with contextlib.suppress(Exception):  # as where it is turned
        return bool(
            _opened_content(mended_png(content).content if content.startswith(PNG) else content)
            .getexif()
            .get(_ORIENTATION, 1)
            != 1
        )
    return False


def _decoded_parts(file: BinaryIO, files: Iterator[bytes], label: str) -> Iterator[Decoded]:
    with file:
        while True:
            with decoding(label):
                content = next(files, None)
                if content is None:
                    return
                part = decoded(content, label)
            yield part


def opened(path: Path) -> Image.Image:
    """The file's first frame, not decoded yet."""
    content = content_of(path)
    with decoding(str(path), content):
        return _opened_content(_mended(content, str(path))[0])


def whole(path: Path) -> Decoded:
    """The file's first frame."""
    content = content_of(path)
    with decoding(str(path), content):
        return decoded(content, str(path))


def content_of(path: Path) -> bytes:
    if str(path) == "-":
        return _standard_input()
    kept, name = _piped.get(), str(path)
    if kept is not None and name in kept:
        return kept[name]
    address = re.match(r"(https?|ftp|file|s3):/+(.*)", str(path), re.IGNORECASE)  # Path makes one slash of two
    if address is not None and not path.exists():
        where = f"{address[1]}://{address[2]}"
        raise ImageError(f"cannot read {where}: {address[1]} addresses are not fetched; download the picture first")
    try:
        if path.exists() and not path.is_file():
            with path.open("rb") as stream:
                content = _bounded(stream, name)
        else:
            content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"cannot read {path}: {reason}; give the path of a {names()} file") from error
    if not content:
        raise ImageError(f"cannot read {path}: the file is empty; give a {names()} file")
    if kept is not None and not path.is_file():
        kept[name] = content
    return content


_piped: ContextVar[dict[str, bytes] | None] = ContextVar("_piped", default=None)


@contextlib.contextmanager
def pipes_read_once() -> Iterator[None]:
    """Keeps within it what a pipe has given, so that a picture can be read again that comes out of it only once."""
    if _piped.get() is not None:
        yield
        return
    token = _piped.set({})
    try:
        yield
    finally:
        _piped.reset(token)


def _bounded(stream: BinaryIO, label: str) -> bytes:
    """All that a pipe or a device gives; one without an end (/dev/zero) is given up in time."""
    pieces, left = [], MOST_BYTES
    while piece := stream.read(min(left, 1 << 20)):
        pieces.append(piece)
        left -= len(piece)
    if left == 0:
        raise ImageError(f"cannot read {label}: it gave {MOST_BYTES >> 20} MiB and no end; give a {names()} file")
    return b"".join(pieces)


@functools.cache
def _standard_input() -> bytes:
    """All of it, read once, however often it is asked for."""
    content = _bounded(sys.stdin.buffer, "standard input")
    if not content:
        raise ImageError("cannot read a picture from standard input: it is empty; pipe one into it")
    return content


def decoded(content: bytes, label: str) -> Decoded:
    content, profile = _mended(content, label)
    image = _opened_content(content)
    _refuse_deep_planes(image, label)
    if image.format != "TIFF":
        _refuse_bomb(image.size, len(content), label)
    mark_white(image)
    tiles = _byte_swapped(image.tile)
    _refuse_too_large(image, 1 if tiles is None else 2, label)
    if image.format != "MPO" and getattr(image, "is_animated", False):  # a phone's second picture is none to look at
        note(f"{label} has several frames or pages; the first is read")
    try:
        image.load()
    except OSError:
        with_end = mended_jpeg(content) if image.format in ("JPEG", "MPO") else None
        if with_end is None:
            raise
        note(f"{label} lacks its end marker; its pixels are all there")
        image = _opened_content(with_end)
        image.load()
    if profile is not None:
        image.info["icc_profile"] = profile
    elif image.info.get("icc_profile", b"") is None:  # a JPEG's, which comes in pieces
        note(f"{label} has a colour profile of which a piece is missing; its colours are taken as sRGB")
    if tiles is None:
        return image, None
    low = _opened_content(content)
    low.tile = tiles
    low.load()
    return image, low


def mark_white(image: Image.Image) -> None:
    """Keeps with a gray TIFF of 12 bits, which Pillow unpacks into 16 as it is, that white is 4095."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode == "I;16":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))
        if tuple(bits) == (12,):
            image.info[WHITE] = 4095


def note(text: str) -> None:
    """A warning from within `decoding`, which keeps Pillow's own off the terminal."""
    _notes.get().append(text)


_notes: ContextVar[list[str]] = ContextVar("_notes")


def _mended(content: bytes, label: str) -> tuple[bytes, bytes | None]:
    """A PNG as Pillow takes it, and a profile that it doesn't take; other files as they are."""
    if not content.startswith(PNG):
        return content, None
    mended = mended_png(content)
    for text in mended.notes:
        note(f"{label} {text}")
    return mended.content, mended.profile


def _refuse_bomb(size: tuple[int, int], nbytes: int, label: str) -> None:
    """No format but TIFF's for faxes has so many pixels (W, H) in a byte."""
    width, height = size
    if width * height > max(strips.LARGE, _MOST_PIXELS_A_BYTE * nbytes):
        raise ImageError(f"{label} claims {width}x{height} pixels in {nbytes} bytes, which cannot be; export it anew")


def _opened_content(content: bytes) -> ImageFile.ImageFile:
    if heif_kind(content) == "HEIC" and reads_heic():
        return _opened_heic(content)
    try:
        return Image.open(io.BytesIO(content), formats=read_formats())
    except Image.DecompressionBombError:
        if Image.MAX_IMAGE_PIXELS != _PILLOWS_LIMIT:
            raise
        if content[:2] not in _PLUGINS:
            raise
        image: ImageFile.ImageFile = _PLUGINS[content[:2]](io.BytesIO(content))
        return image


def _opened_heic(content: bytes) -> ImageFile.ImageFile:
    """By pillow-heif, which turns it upright."""
    from pillow_heif import HeifImageFile

    image: ImageFile.ImageFile = HeifImageFile(io.BytesIO(content))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > 2 * limit:
        raise Image.DecompressionBombError(str(image.width * image.height))
    return image


def _refuse_too_large(image: Image.Image, copies: int, label: str) -> None:
    """What is decoded as a whole has to fit into memory."""
    pixels, free = image.width * image.height, host_memory()
    needed = pixels * _BYTES_A_PIXEL.get(image.mode, 4) * copies
    if pixels > strips.LARGE and free is not None and needed > free:
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
        if not (isinstance(mode, str) and _DEEP_COLOR.fullmatch(mode)):
            return None
        mode = mode[:-1] + _BYTE_SWAPPED[mode[-1]]
        arguments = mode if isinstance(arguments, str) else (mode, *rest)
        swapped.append(getattr(type(tile), "_make", tuple)((*place, arguments)))  # a plain tuple before Pillow 11
    return swapped


def _refuse_deep_planes(image: Image.Image, label: str) -> None:
    """Pillow takes the uncompressed 16-bit planes of a TIFF as planes of bytes."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    planes, bits, compression = (tags.get(tag) for tag in (_PLANAR_CONFIGURATION, _BITS_PER_SAMPLE, _COMPRESSION))
    if planes == 2 and bits and len(bits) > 1 and max(bits) > 8 and compression == 1:
        raise ImageError(f"cannot read {label}: its 16-bit channels are separate planes; save it with them interleaved")


@contextlib.contextmanager
def decoding(label: str, content: bytes = b"") -> Iterator[None]:
    """Turn whatever Pillow raises inside into one ImageError, and keep its own warnings off the terminal."""
    notes: list[str] = []
    token = _notes.set(notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if Image.MAX_IMAGE_PIXELS != _PILLOWS_LIMIT:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (ImageError, MemoryError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            found = re.search(r"\d+", str(error))
            count = found[0] if found else "too many"
            raise ImageError(
                f"{label} has {count} pixels, the limit is {Image.MAX_IMAGE_PIXELS}; "
                "shrink it first, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from error
        except UnidentifiedImageError as error:
            if is_shortage(error):
                raise MemoryError(f"reading {label}") from error
            raise ImageError(f"{label} {verdict(content)}") from error
        except Exception as error:  # decoders raise a dozen types for a damaged file, SyntaxError among them
            if is_shortage(error):
                raise MemoryError(f"reading {label}") from error
            if content and (unread := tiff_kinds.unread(content)):
                raise ImageError(f"{label} {unread}") from error
            reason = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())[:200]
            reason = reason or type(error).__name__
            raise ImageError(f"{label} is damaged or cut short ({reason}); export or download it again") from error
        finally:
            _notes.reset(token)
    for text in notes:
        warnings.warn(text, stacklevel=6)
