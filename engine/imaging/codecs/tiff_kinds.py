"""What kind of TIFF a file is, by its first directory, and what is said of the kinds that are not read.

TIFF is a frame for dozens of compressions, colors and numbers. Which of them Pillow reads depends on the libtiff that
it was built with.
"""

from __future__ import annotations

import ctypes
import io
from typing import Any

import numpy as np
import PIL._imaging
from PIL import TiffImagePlugin

from .foreign import CONVERT, DEVELOP

_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLORS, _MAKE = 254, 256, 257, 258, 259, 262, 271
_SAMPLES, _COUNTS, _DIRECTORIES, _FORMAT, _SUBSAMPLING, _DNG = 277, 279, 330, 339, 530, 50706
_MOSAIC, _LINEAR_RAW, _YCBCR = 32803, 34892, 6
_COMPRESSIONS = {
    1: "no compression", 2: "CCITT RLE", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW", 6: "old-style JPEG",
    7: "JPEG", 8: "deflate", 9: "JBIG (T.85)", 10: "JBIG (T.43)", 262: "Kodak 262", 32766: "NeXT RLE",
    32767: "Sony ARW", 32769: "Epson ERF", 32770: "Samsung SRW", 32771: "CCITT RLE of words", 32773: "PackBits",
    32809: "ThunderScan", 32867: "Kodak KDC", 32895: "IT8 CT", 32896: "IT8 LW", 32897: "IT8 MP", 32898: "IT8 BL",
    32908: "PixarFilm", 32909: "PixarLog", 32946: "deflate", 32947: "Kodak DCS", 33003: "JPEG 2000 (YCbCr)",
    33004: "JPEG 2000", 33005: "JPEG 2000 (RGB)", 33007: "ALT JPEG", 34661: "JBIG", 34676: "SGI LogLuv",
    34677: "SGI LogLuv of 24 bits", 34712: "JPEG 2000", 34713: "Nikon NEF", 34715: "JBIG2", 34718: "MDI binary",
    34719: "MDI progressive", 34720: "MDI vector", 34887: "LERC", 34892: "lossy JPEG of DNG", 34925: "LZMA",
    34926: "Zstandard", 34927: "WebP", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL of DNG", 65000: "Kodak DCR", 65535: "Pentax PEF",
}  # fmt: skip
_OFTEN_LACKING = (34661, 34887, 34925, 50000, 50001, 50002)  # in builds of libtiff
_COLOR_NAMES = {
    0: "gray, white first", 1: "gray", 2: "RGB", 3: "a palette", 4: "a transparency mask", 5: "CMYK or other inks",
    _YCBCR: "YCbCr", 8: "CIELab", 9: "ICC Lab", 10: "ITU Lab", _MOSAIC: "a color filter array", 32844: "LogL",
    32845: "LogLuv", _LINEAR_RAW: "linear raw", 51177: "a depth map", 52527: "a semantic mask",
}  # fmt: skip
_NUMBERS = {1: "", 2: "signed ", 3: "float ", 4: "", 5: "complex integer ", 6: "complex "}  # by SampleFormat
_MAKERS = {"nikon": "NEF", "sony": "ARW", "canon": "CR2", "pentax": "PEF", "samsung": "SRW", "hasselblad": "3FR"}


def is_tiff(head: bytes) -> bool:
    return head[:4] in _HEADS


def tags_of(content: bytes) -> dict[int, Any]:
    """The first directory's; raises whatever Pillow does for a damaged one."""
    file = io.BytesIO(content)
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if b"+" in content[2:4] else 8))
    file.seek(directory.next)
    directory.load(file)
    found = {tag: directory[tag] for tag in directory}
    found.setdefault(_SAMPLES, 1)
    return found


def raw_file(tags: dict[int, Any]) -> str | None:
    """Of a camera's raw file, the end of a sentence that begins with its name: Pillow sees the small preview alone."""
    preview = bool(int(tags.get(_SUBFILE, 0)) & 1) and _DIRECTORIES in tags
    if not preview and tags.get(_COLORS) not in (_MOSAIC, _LINEAR_RAW):
        return None
    maker = str(tags.get(_MAKE, "")).lower()
    name = "DNG" if _DNG in tags else next((kind for start, kind in _MAKERS.items() if maker.startswith(start)), "")
    return f"is a camera's raw file{f' ({name})' if name else ''}; {DEVELOP}"


def unread(content: bytes) -> str | None:
    """Of a TIFF that could not be read: what it is that isn't read, as the end of a sentence that begins with its name.

    None for other files, and for what is read, so that damage must be the reason.
    """
    if not is_tiff(content):
        return None
    try:
        tags = tags_of(content)
        compression, colors = int(tags.get(_COMPRESSION, 1)), int(tags.get(_COLORS, -1))
        count, bits = int(tags[_SAMPLES]), {int(bit) for bit in tags.get(_BITS, (1,))}
        kinds = {int(kind) for kind in np.atleast_1d(tags.get(_FORMAT, 1))}
        lacking = int(tags.get(_WIDTH, 0)) < 1 or int(tags.get(_HEIGHT, 0)) < 1 or _COLORS not in tags
        raw = raw_file(tags)
    except Exception:  # a dozen types
        return "is a TIFF whose first directory is damaged or missing; export it anew"
    if raw is not None:
        return raw
    if lacking:
        return "is a TIFF that lacks its size or the kind of its colors, so it is damaged; export it anew"
    if compression not in _COMPRESSIONS:
        return f"is a TIFF of an unknown compression ({compression}), or damaged; export it anew, or {CONVERT}"
    if _is_not_unpacked(compression):
        name = _COMPRESSIONS[compression]
        return f"is a TIFF compressed with {name} (compression {compression}), which is not read here; {CONVERT}"
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(content)).close()
    except Exception:
        depths = " and ".join(str(bit) for bit in sorted(bits)[:3])
        samples = f"{count} {_NUMBERS.get(min(kinds, default=1), '')}sample{'s' if count > 1 else ''} of {depths} bits"
        shown = f"{_COLOR_NAMES.get(colors, 'unknown colors')} (photometric {colors})"
        return f"is a TIFF of {shown} in {samples} a pixel, which is not read here; {CONVERT}"
    if colors == _YCBCR and compression == 1 and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1):
        return (
            f"is a TIFF of uncompressed YCbCr (photometric {_YCBCR}) with subsampled colors, not read here; {CONVERT}"
        )
    return None


def _is_not_unpacked(compression: int) -> bool:
    """Whether Pillow or its libtiff has no decoder for it."""
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return True
    try:
        return compression != 1 and not ctypes.CDLL(PIL._imaging.__file__).TIFFIsCODECConfigured(
            ctypes.c_uint16(compression)
        )
    except (OSError, AttributeError):  # libtiff is hidden in Pillow's own library
        return compression in _OFTEN_LACKING
