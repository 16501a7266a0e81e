"""Which picture formats are read here and now, and what is said of files that are none of them."""

from __future__ import annotations

import functools
import importlib.util
import re

from PIL import features

_CONVERT = "convert it to PNG or JPEG first, with an image editor or as in: magick IN OUT.png"

# By the bytes that a file begins with: what it is.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \x0d\x0a", "a JPEG XL picture"),
    (rb"\x00\x00\x00\x0cjP  \x0d\x0a|\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"8BPS", "a Photoshop document"),
    (rb"gimp xcf", "a GIMP document"),
    (rb"%PDF", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance HDR picture"),
    (rb"P[1-7fF][\s]", "a PNM picture"),
    (rb"qoif", "a QOI picture"),
    (rb"DDS ", "a DDS texture"),
    (rb"\x00\x00[\x01\x02]\x00", "a Windows icon"),
    (rb"icns", "an Apple icon"),
    (rb"FUJIFILMCCD-RAW|IIRS|IIRO|MMOR|IIU\x00", "a camera's raw file"),
    (rb"....ftypcrx ", "a camera's raw file"),
    (rb"....ftyp(qt|isom|iso2|mp4|M4V|3gp)", "a video"),
    (rb"\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"\x89HDF", "an HDF5 file, such as weights are"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"version https://git-lfs", "a Git LFS pointer, which stands for a file that was not downloaded"),
    (rb"\s*(\xef\xbb\xbf)?(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg|\s*<\?xml", "an SVG or XML file"),
    (rb"\s*(\xef\xbb\xbf)?<(!doctype html|html|head|body)", "a web page, not the picture that was to be downloaded"),
)
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
        return f"is a HEIC picture, which needs pillow-heif (pip install pillow-heif); or {_CONVERT}"
    if kind == "AVIF" and "AVIF" not in read_formats():
        return f"is an AVIF picture, which this Pillow does not read; update Pillow, or {_CONVERT}"
    for pattern, name in _FOREIGN:
        if re.match(pattern, content[:4096], re.DOTALL | re.IGNORECASE):
            return f"is {name}; {names()} are read, so {_CONVERT}"
    return f"is not a {names()} picture, or its head is damaged; convert or export it anew"
