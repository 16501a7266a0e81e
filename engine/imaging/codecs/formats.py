"""Which picture formats are read here and now, and what is said of files that are none of them."""

from __future__ import annotations

import functools
import importlib.util
import re

from PIL import features

from . import foreign, tiff_kinds
from .foreign import CONVERT

_HEIF = re.compile(rb"....ftyp", re.DOTALL)


@functools.cache
def read_formats() -> tuple[str, ...]:
    """Pillow's names of the formats whose decoders run; others include rarely tested ones, and one that starts
    Ghostscript."""
    return ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", *(("AVIF",) if features.check("avif") else ()))


def names() -> str:
    """Of the formats that are read, for a message."""
    spelled = ["PNG", "JPEG", "WebP", "TIFF", "GIF", "BMP"]
    spelled += ["AVIF"] if "AVIF" in read_formats() else []
    spelled += ["HEIC"] if reads_heic() else []
    return ", ".join(spelled[:-1]) + " or " + spelled[-1]


def reads_heic() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def heif_kind(content: bytes) -> str | None:
    """ "AVIF" or "HEIC" for a file of that family, by its brands; else None."""
    if not _HEIF.match(content):
        return None
    length = min(int.from_bytes(content[:4], "big"), 256)
    brands = {content[8:12], *(content[at : at + 4] for at in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"} else None


def verdict(content: bytes) -> str:
    """What a file that can't be opened is, and what to do: the end of a sentence that begins with its name."""
    kind = heif_kind(content)
    if kind == "HEIC" and not reads_heic():
        return f"is a HEIC picture, which needs pillow-heif (pip install pillow-heif); or {CONVERT}"
    if kind == "AVIF" and "AVIF" not in read_formats():
        return f"is an AVIF picture, which this Pillow does not read; update Pillow, or {CONVERT}"
    if content[8:11] != b"CR\2" and (unread := tiff_kinds.unread(content)):
        return unread
    found = foreign.kind(content)
    if found is not None:
        name, remedy = found
        return f"is {name}; {names()} are read, so {remedy}"
    return f"is not a {names()} picture, or its head is damaged; convert or export it anew"
