"""Pictures that are not quite right, or of unusual formats: read with a warning, or named, with a remedy."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from harness.refusals import refusal
from nstgpu.engine.imaging.codecs import formats as picture_formats
from nstgpu.engine.imaging.codecs import strips, tiff_kinds
from nstgpu.engine.imaging.files import ImageError, read

Y, X = np.mgrid[0:40, 0:48]
COLORS = np.stack([5 * X, 6 * Y, 3 * (X + Y) // 2], axis=-1).astype(np.uint8)
UNIT = COLORS / np.float32(255)


def encoded(file_format: str, image: Any = COLORS, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, format=file_format, **options)
    return file.getvalue()


def read_bytes(folder: Path, content: bytes) -> tuple[Any, list[str]]:
    path = folder / "picture"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = read(path)
    return picture, [str(warning.message).removeprefix(str(path)) for warning in caught]


refusal_of_bytes = partial(refusal, ImageError, read_bytes)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, added: bytes) -> bytes:
    return png[:33] + added + png[33:]


def test_bmp_and_the_first_frame_of_a_gif(tmp_path: Path) -> None:
    picture, notes = read_bytes(tmp_path, encoded("BMP"))
    np.testing.assert_array_equal(picture.pixels, UNIT)
    assert notes == []
    red, blue = Image.new("RGB", (9, 7), (255, 0, 0)), Image.new("RGB", (9, 7), (0, 0, 255))
    picture, notes = read_bytes(tmp_path, encoded("GIF", red, save_all=True, append_images=[blue]))
    np.testing.assert_array_equal(picture.pixels[3, 3], [1, 0, 0])
    assert notes == [" has several frames or pages; the first is read"]


def test_the_transparent_color_of_a_gif(tmp_path: Path) -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([255, 255, 255, 0, 255, 0])
    image.putpixel((0, 0), 0)
    picture, _ = read_bytes(tmp_path, encoded("GIF", image, transparency=0))
    np.testing.assert_array_equal(picture.alpha, [[0, 1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(picture.pixels[1, 2], [0, 1, 0])


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_where_pillow_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded("AVIF", quality=95)
    picture, _ = read_bytes(tmp_path, content)
    assert np.abs(picture.pixels - UNIT).mean() < 0.03
    monkeypatch.setattr(picture_formats, "read_formats", lambda: ("PNG",))
    assert "is an AVIF picture" in picture_formats.verdict(content)


def test_heic_without_its_decoder_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_formats, "reads_heic", lambda: False)
    said = picture_formats.verdict(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf")
    assert "is a HEIC picture" in said
    assert "pip install pillow-heif" in said


ICON, DIB = b"\0\0\1\0\1\0\x10\x10\0\0", b"\x28\0\0\0\x10\0\0\0\x10\0\0\0\1\0\x18\0"
TGA = b"\0\0\2" + bytes(9) + b"\4\0\4\0\x18\0" + bytes(range(48))


@pytest.mark.parametrize(
    ("content", "name", "remedy"),
    [
        (b"8BPS\0\1", "a Photoshop document", "magick"),
        (b"%PDF-1.4", "a PDF document", "pdftoppm"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript or EPS file", "magick"),
        (b"\xff\x0a\x00", "a JPEG XL picture", "magick"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", "magick"),
        (b"P6\n# by hand\n2 2\n255\n", "a PNM picture", "magick"),
        (b"PF\n2 2\n-1.0\n", "a PFM picture", "magick"),
        (b"#?RADIANCE\n", "a Radiance HDR picture", "magick"),
        (b"v/1\1\2\0\0\0", "an OpenEXR picture", "magick"),
        (b"qoif\0\0\0\2", "a QOI picture", "magick"),
        (b"DDS |\0\0\0", "a DDS texture", "magick"),
        (b"BPG\xfb", "a BPG picture", "magick"),
        (b"FLIF41", "a FLIF picture", "magick"),
        (b"\x0a\5\1\x08", "a PCX picture", "magick"),
        (b"\1\xda\1\1", "an SGI picture", "magick"),
        (ICON, "a Windows icon", "magick"),
        (b"icns\0\0\1\0", "an Apple icon", "magick"),
        (DIB, "a headless BMP", "magick"),
        (b"#define cat_width 8\n#define cat_height 8\n", "an XBM picture", "magick"),
        (b"/* XPM */\nstatic char *x[] = {", "an XPM picture", "magick"),
        (TGA, "a TGA picture", "magick"),
        (b"whatever\xff\0\0\0\0\0\0\0\0TRUEVISION-XFILE.\0", "a TGA picture", "magick"),
        (b"SIMPLE  =                    T", "a FITS file", "export"),
        (bytes(128) + b"DICM", "a DICOM file", "export"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file", "darktable-cli"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file (CR2)", "darktable-cli"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a camera's raw file (CR3)", "darktable-cli"),
        (b"\0\0\0\x18ftypmp42", "a video", "ffmpeg"),
        (b"\0\0\0\x14ftypqt  ", "a video", "ffmpeg"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86", "a video", "ffmpeg"),
        (b"<!DOCTYPE html><html>", "a web page", "download the picture itself"),
        ("\ufeff<!DOCTYPE html><html>".encode("utf-16-le"), "a web page", "download the picture itself"),
        (b"<?xml version='1.0'?>\n<!-- drawn --><svg xmlns='x'>", "an SVG drawing", "rsvg-convert"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        (b"PK\3\4\x14\0", "a ZIP archive", "unpack it"),
        (b"\x1f\x8b\x08\0", "a file packed with gzip", "unpack it"),
        (b"\x93NUMPY\1\0", "a NumPy array", "fromarray"),
        ("Sehr geehrte Größe,\nanbei das Bild.\n".encode(), "text, not a picture", "give a picture"),
    ],
)
def test_other_formats_are_named_with_a_remedy(tmp_path: Path, content: bytes, name: str, remedy: str) -> None:
    said = refusal_of_bytes(tmp_path, content)
    assert f"is {name}" in said
    assert remedy in said


@pytest.mark.parametrize("content", [b"\x80" * 300, b"\0" * 300, b"\xe9t\xe9 \x07"])
def test_what_nobody_can_tell_is_no_picture(tmp_path: Path, content: bytes) -> None:
    assert "is not a PNG, JPEG" in refusal_of_bytes(tmp_path, content)


def test_a_long_comment_of_a_png_is_left_out(tmp_path: Path) -> None:
    text = zlib.compress(b"x" * (3 << 20))
    for body in (chunk(b"zTXt", b"Comment\0\0" + text), chunk(b"iTXt", b"Comment\0\1\0\0\0" + text)):
        picture, notes = read_bytes(tmp_path, with_chunk(encoded("PNG"), body))
        np.testing.assert_array_equal(picture.pixels, UNIT)
        assert notes == [" has a comment of more than 1 MB, which is left out"]


def test_a_wrong_checksum_matters_only_where_pixels_are(tmp_path: Path) -> None:
    broken = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?"
    picture, notes = read_bytes(tmp_path, with_chunk(encoded("PNG"), broken))
    np.testing.assert_array_equal(picture.pixels, UNIT)
    assert notes == [" has a damaged tEXt chunk, which is left out"]
    png = encoded("PNG")
    at = png.index(b"IDAT") + 30
    assert "damaged" in refusal_of_bytes(tmp_path, png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :])


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_with_rows_missing_is_refused(tmp_path: Path, interlaced: int) -> None:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in COLORS[:11]))
    head = struct.pack(">IIBBBBB", 48, 40, 8, 2, 0, 0, interlaced)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert ("some of its rows" if interlaced else "29 of 40 rows are missing") in refusal(
        ImageError, read_bytes, tmp_path, png
    )


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_end_marker(tmp_path: Path, options: dict[str, bool]) -> None:
    jpeg = encoded("JPEG", quality=95, **options)
    whole, _ = read_bytes(tmp_path, jpeg)
    picture, notes = read_bytes(tmp_path, jpeg[:-2])
    np.testing.assert_array_equal(picture.pixels, whole.pixels)
    assert notes == [" lacks its end marker; its pixels are all there"]
    for lost in (40, len(jpeg) // 3):
        assert "damaged or cut short" in refusal_of_bytes(tmp_path, jpeg[:-lost])


def tiff(samples: Any, kind: int, order: str, predictor: int = 1, **more: Any) -> bytes:
    """A TIFF of one strip of (H, W, C) samples, deflated; more: tags by number, such as t262."""
    height, width, count = samples.shape
    item = samples.itemsize
    data = samples.astype(samples.dtype.newbyteorder(order))
    if predictor == 2:
        unsigned = data.view(f"{order}u{item}").copy()
        unsigned[:, 1:] -= data.view(f"{order}u{item}")[:, :-1]
        body = unsigned.tobytes()
    elif predictor == 3:
        planes = samples.astype(samples.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width * count, item)
        rows = planes.transpose(0, 2, 1).reshape(height, -1)
        steps = rows.copy()
        steps[:, count:] -= rows[:, :-count]
        body = steps.tobytes()
    else:
        body = data.tobytes()
    piece = zlib.compress(body)
    values: dict[int, Any] = {256: (4, (width,)), 257: (4, (height,)), 258: (3, (8 * item,) * count), 259: (3, (8,))}
    values |= {262: (3, (2 if count > 1 else 1,)), 277: (3, (count,)), 278: (4, (height,)), 279: (4, (len(piece),))}
    values |= {317: (3, (predictor,)), 339: (3, (kind,) * count)}
    return strips.tiff(order, values | {int(tag[1:]): value for tag, value in more.items()}, 273, [piece])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "predictor"), [("f4", 1), ("f4", 3), ("f8", 1), ("f2", 1)])
def test_float_tiffs(tmp_path: Path, order: str, dtype: str, predictor: int) -> None:
    values = UNIT.astype(dtype)
    picture, notes = read_bytes(tmp_path, tiff(values, 3, order, predictor))
    np.testing.assert_allclose(picture.pixels, values.astype(np.float32), atol=1e-7)
    assert notes == [": its floats are taken as 0..1"]
    picture, notes = read_bytes(tmp_path, tiff(values * 255, 3, order, predictor))
    np.testing.assert_allclose(picture.pixels, UNIT, atol=1e-3 if dtype == "f2" else 1e-6)
    assert notes == [": its floats are taken as 0..255"]


@pytest.mark.parametrize("predictor", [1, 2])
def test_gray_tiffs_of_32_bits(tmp_path: Path, predictor: int) -> None:
    values = np.linspace(0, 2**32 - 1, 60).astype(np.uint32).reshape(6, 10, 1)
    picture, notes = read_bytes(tmp_path, tiff(values, 1, "<", predictor))
    np.testing.assert_allclose(picture.pixels[..., 1], values[..., 0] / (2**32 - 1), atol=1e-7)
    assert notes == [": its 32-bit numbers are taken as 0..4294967295"]


def test_a_tiff_of_nan_is_refused(tmp_path: Path) -> None:
    assert "NaN" in refusal_of_bytes(tmp_path, tiff(np.full((4, 4, 3), np.nan, np.float32), 3, "<"))


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "JPEG", "WEBP"])
def test_a_few_bytes_that_claim_many_pixels(tmp_path: Path, file_format: str) -> None:
    content = bytearray(encoded(file_format, COLORS[:4, :4]))
    if file_format == "PNG":
        content[16:24] = struct.pack(">II", 100_000, 100_000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif file_format == "GIF":
        content[6:10] = struct.pack("<HH", 65535, 65535)
    elif file_format == "BMP":
        content[18:26] = struct.pack("<ii", 100_000, 100_000)
    elif file_format == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 65500, 65500)
    else:
        at = content.index(b"\x9d\x01\x2a") + 3
        content[at : at + 4] = struct.pack("<HH", 16383, 16383)
    refusal_of_bytes(tmp_path, bytes(content))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "rule"), [("i1", "signed 8-bit numbers"), ("i2", "signed 16-bit numbers")])
def test_signed_tiffs(tmp_path: Path, order: str, dtype: str, rule: str) -> None:
    white = int(np.iinfo(dtype).max)
    picture, notes = read_bytes(tmp_path, tiff(np.rint(UNIT * white).astype(dtype), 2, order))
    np.testing.assert_allclose(picture.pixels, UNIT, atol=0.5 / white + 1e-6)
    assert notes == [f": its {rule} are taken as 0..{white}"]
    below = np.full((3, 4, 1), -5, dtype)
    assert "values from -5 to -5" in refusal_of_bytes(tmp_path, tiff(below, 2, order))


def test_white_comes_first_in_16_bits_too(tmp_path: Path) -> None:
    gray = (np.arange(60) * 1000).astype(np.uint16).reshape(6, 10, 1)
    picture, notes = read_bytes(tmp_path, tiff(gray, 1, "<", t262=(3, (0,))))
    np.testing.assert_allclose(picture.pixels[..., 0], 1 - gray[..., 0] / 65535, atol=1e-6)
    assert notes == []


def test_gray_of_16_bits_with_alpha_in_a_tiff(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 10, 2)).astype(np.uint16)
    picture, _ = read_bytes(tmp_path, tiff(values, 1, ">", t262=(3, (1,)), t338=(3, (2,))))
    np.testing.assert_allclose(picture.pixels[..., 2], values[..., 0] / 65535, atol=1e-6)
    np.testing.assert_allclose(picture.alpha, values[..., 1] / 65535, atol=1e-6)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (9, "JBIG (T.85)"), (32766, "NeXT RLE"), (32909, "PixarLog"), (34712, "JPEG 2000"), (34713, "Nikon NEF"),
        (34887, "LERC"), (34934, "JPEG XR"), (50002, "JPEG XL"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_a_compression_that_is_not_unpacked_is_named(tmp_path: Path, number: int, name: str, dtype: str) -> None:
    kind = 3 if dtype == "f4" else 1
    said = refusal_of_bytes(tmp_path, tiff(COLORS.astype(dtype), kind, "<", t259=(3, (number,))))
    assert f"is a TIFF compressed with {name} (compression {number}), which is not read here; convert it" in said


def test_a_compression_that_libtiff_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_kinds, "_is_not_unpacked", lambda compression: compression == 50001)
    assert "compressed with WebP (compression 50001)" in refusal(
        ImageError, read_bytes, tmp_path, tiff(COLORS, 1, "<", t259=(3, (50001,)))
    )
    assert "damaged or cut short" in refusal(
        ImageError, read_bytes, tmp_path, tiff(COLORS, 1, "<", t259=(3, (5,)))
    )  # it is no LZW
    assert "an unknown compression (1234)" in refusal(
        ImageError, read_bytes, tmp_path, tiff(COLORS, 1, "<", t259=(3, (1234,)))
    )


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"t262": (3, (9,))}, "is a TIFF of ICC Lab (photometric 9) in 3 samples of 8 bits a pixel"),
        ({"t262": (3, (32845,))}, "is a TIFF of LogLuv (photometric 32845)"),
        ({"t258": (3, (10, 10, 10))}, "is a TIFF of RGB (photometric 2) in 3 samples of 10 bits a pixel"),
        ({"t262": (3, (32803,))}, "is a camera's raw file; develop it"),
        ({"t254": (4, (1,)), "t330": (4, (8,)), "t271": (2, b"NIKON\0")}, "is a camera's raw file (NEF); develop it"),
        ({"t254": (4, (1,)), "t330": (4, (8,)), "t50706": (1, b"\1\4\0\0")}, "is a camera's raw file (DNG); develop"),
    ],
)
def test_kinds_of_tiff_that_are_not_read_are_named(tmp_path: Path, tags: dict[str, Any], said: str) -> None:
    assert said in refusal_of_bytes(tmp_path, tiff(COLORS, 1, "<", **tags))
