"""What a file is that is no picture which is read here, by its first and last bytes, and how to make one of it."""

from __future__ import annotations

import re

CONVERT = "convert it to PNG or JPEG first, with an image editor or as in: magick IN OUT.png"
"""What to do with a picture of another format."""
DEVELOP = "develop it to PNG or JPEG first, with a raw converter or as in: darktable-cli IN OUT.png"
_FRAME = "take a frame of it first, as in: ffmpeg -i IN -frames:v 1 OUT.png"
_PAGE = "make a picture of a page first, as in: pdftoppm -png -r 150 IN OUT"
_DRAW = "convert it to PNG first, as in: rsvg-convert -w 2048 IN -o OUT.png"
_EXPORT = "export it to PNG or JPEG from the program that made it"
_UNPACK = "unpack it, and give a picture that it holds"
_GIVE = "give a picture"

_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \x0d\x0a", "a JPEG XL picture", CONVERT),
    (rb"\x00\x00\x00\x0cjP  \x0d\x0a|\xff\x4f\xff\x51", "a JPEG 2000 picture", CONVERT),
    (rb"II\xbc[\x00\x01]", "a JPEG XR picture", CONVERT),
    (rb"BPG\xfb", "a BPG picture", CONVERT),
    (rb"FLIF[1-\x7f]", "a FLIF picture", CONVERT),
    (rb"\x89PNG\r\n\x1a\n....CgBI", "a PNG made for iPhones (CgBI)", CONVERT),
    (rb"\x8aMNG|\x8bJNG", "an MNG or JNG picture", CONVERT),
    (rb"8BPS\x00", "a Photoshop document", CONVERT),
    (rb"gimp xcf", "a GIMP document", CONVERT),
    (rb"%PDF", "a PDF document", _PAGE),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript or EPS file", CONVERT),
    (rb"\x76\x2f\x31\x01", "an OpenEXR picture", CONVERT),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance HDR picture", CONVERT),
    (rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s", "a PNM picture (PBM, PGM or PPM)", CONVERT),
    (rb"P7\n", "a PAM picture", CONVERT),
    (rb"P[fF]\s", "a PFM picture", CONVERT),
    (rb"qoif", "a QOI picture", CONVERT),
    (rb"farbfeld", "a farbfeld picture", CONVERT),
    (rb"DDS \x7c", "a DDS texture", CONVERT),
    (rb"\xabKTX [12][01]\xbb", "a KTX texture", CONVERT),
    (rb"\x00\x00[\x01\x02]\x00[^\x00]\x00", "a Windows icon or cursor", CONVERT),
    (rb"RIFF....ACON", "an animated cursor", CONVERT),
    (rb"icns\x00", "an Apple icon", CONVERT),
    (rb"\x0a[\x00\x02-\x05][\x00\x01][\x01\x02\x04\x08]", "a PCX picture", CONVERT),
    (rb"\x01\xda[\x00\x01][\x01\x02]", "an SGI picture", CONVERT),
    (rb"\x59\xa6\x6a\x95", "a Sun raster picture", CONVERT),
    (rb"(/\*.{0,400}?\*/\s*)?#define\s+\S*_?width\s", "an XBM picture", CONVERT),
    (rb"/\* XPM \*/|! XPM2", "an XPM picture", CONVERT),
    (rb"[\x28\x6c\x7c]\x00\x00\x00.{8}\x01\x00[\x01\x04\x08\x10\x18\x20]\x00", "a headless BMP (DIB)", CONVERT),
    (rb"\x01\x00\x00\x00.{36} EMF|\xd7\xcd\xc6\x9a", "a Windows metafile", CONVERT),
    (rb"SIMPLE  =", "a FITS file of astronomy", _EXPORT),
    (rb".{128}DICM", "a DICOM file of medicine", _EXPORT),
    (rb"FUJIFILMCCD-RAW|IIR[SO]|IIU\x00|MMOR|II\x1a\x00{3}HEAP|\x00MRM|FOVb", "a camera's raw file", DEVELOP),
    (rb"II\*\x00....CR\x02", "a camera's raw file (CR2)", DEVELOP),
    (rb"....ftypcrx ", "a camera's raw file (CR3)", DEVELOP),
    (rb"\x00...(ftyp(qt|iso\w|mp4|mp71|avc1|M4V|3g[p2]|dash|f4v)|moov|mdat|wide)", "a video", _FRAME),
    (rb"\x1a\x45\xdf\xa3|RIFF....AVI |FLV\x01|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75\x8e", "a video", _FRAME),
    (rb"RIFF....WAVE|ID3[\x02-\x04]|OggS\x00|fLaC\x00", "a sound, not a picture", _GIVE),
    (rb"\x89HDF", "an HDF5 file, such as weights are", "give it with --weights, or give a picture here"),
    (rb"\x93NUMPY", "a NumPy array", "save it as a picture, with PIL.Image.fromarray(array).save('OUT.png')"),
    (rb"PK\x03\x04.{26}mimetype(application/x-krita|image/openraster)", "a document of a paint program", _EXPORT),
    (rb"PK\x03\x04", "a ZIP archive", _UNPACK),
    (rb"\x1f\x8b", "a file packed with gzip", _UNPACK),
    (rb"BZh[1-9]1AY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar", "an archive", _UNPACK),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, which stands for a file that was not downloaded",
        "fetch it with: git lfs pull",
    ),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", "an SVG drawing", _DRAW),
    (
        rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|title|meta)[\s>]",
        "a web page, not the picture that was to be downloaded",
        "download the picture itself",
    ),
    (rb"\s*<\?xml", "an XML file", _GIVE),
)  # fmt: skip
_FOOTERS: tuple[tuple[bytes, str, str], ...] = ((b"TRUEVISION-XFILE.\0", "a TGA picture", CONVERT),)
_TGA = re.compile(rb".[\x00\x01][\x01-\x03\x09-\x0b].{9}..[^\x00]?.[\x08\x0f\x10\x18\x20][\x00-\x3f]", re.DOTALL)
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_HEAD = 4096


def kind(content: bytes) -> tuple[str, str] | None:
    """What the file is, such as "a JPEG XL picture", and what to do with it; None if nobody can tell."""
    head = _plain(content[:_HEAD])
    for pattern, name, remedy in _FOREIGN:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return name, remedy
    for footer, name, remedy in _FOOTERS:
        if content.endswith(footer):
            return name, remedy
    if _is_text(head):
        return "text, not a picture", _GIVE
    if _is_tga(content):
        return "a TGA picture", CONVERT
    return None


def _plain(head: bytes) -> bytes:
    """The head of a text file without its byte order mark, as bytes of ASCII where it can be."""
    for mark, encoding in _BOMS:
        if head.startswith(mark) and head[:4] != b"\xff\xfe\x00\x00":
            return head[len(mark) :].decode(encoding, "replace").encode("utf-8", "replace")
    return head


def _is_text(head: bytes) -> bool:
    """Whether all of it can be read, but for a character that is cut at the end."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < _HEAD:
            return False
        text = head[: error.start].decode("utf-8")
    return len(text) > 0 and all(character.isprintable() or character in "\t\n\r\f" for character in text)


def _is_tga(content: bytes) -> bool:
    """Without a footer, as old ones are: by a head in which each field has one of the few values that it may have."""
    if len(content) < 18 or not _TGA.match(content):
        return False
    mapped, packed = content[1], content[2]
    width, height = (int.from_bytes(content[at : at + 2], "little") for at in (12, 14))
    if not width or not height or (mapped == 1) != (packed in (1, 9)):
        return False
    start = 18 + content[0] + int.from_bytes(content[5:7], "little") * (content[7] // 8) * mapped
    return packed >= 9 or len(content) >= start + width * height * (content[16] // 8)
