"""Pictures that are not quite right, or of unusual formats: read with a warning, or named, with a remedy."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from nstgpu.engine.imaging.codecs import formats as picture_formats
from nstgpu.engine.imaging.codecs import strips
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


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(ImageError) as raised:
        read_bytes(folder, content)
    assert "\n" not in str(raised.value)
    return str(raised.value)


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


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"8BPS\0\1", "a Photoshop document"),
        (b"%PDF-1.4", "a PDF document"),
        (b"\xff\x0a\x00", "a JPEG XL picture"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns='x'>", "an SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\0\0\0\x18ftypmp42", "a video"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, head: bytes, name: str) -> None:
    said = refusal(tmp_path, head + bytes(64))
    assert f"is {name}" in said
    assert "convert it to PNG or JPEG" in said


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
    assert "damaged" in refusal(tmp_path, png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :])


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_with_rows_missing_is_refused(tmp_path: Path, interlaced: int) -> None:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in COLORS[:11]))
    head = struct.pack(">IIBBBBB", 48, 40, 8, 2, 0, 0, interlaced)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert ("some of its rows" if interlaced else "29 of 40 rows are missing") in refusal(tmp_path, png)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_end_marker(tmp_path: Path, options: dict[str, bool]) -> None:
    jpeg = encoded("JPEG", quality=95, **options)
    whole, _ = read_bytes(tmp_path, jpeg)
    picture, notes = read_bytes(tmp_path, jpeg[:-2])
    np.testing.assert_array_equal(picture.pixels, whole.pixels)
    assert notes == [" lacks its end marker; its pixels are all there"]
    for lost in (40, len(jpeg) // 3):
        assert "damaged or cut short" in refusal(tmp_path, jpeg[:-lost])


def tiff(samples: Any, kind: int, order: str, predictor: int = 1) -> bytes:
    """A TIFF of one strip of (H, W, C) samples, deflated."""
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
    return strips.tiff(order, values, 273, [piece])


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
    assert "NaN" in refusal(tmp_path, tiff(np.full((4, 4, 3), np.nan, np.float32), 3, "<"))


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
    refusal(tmp_path, bytes(content))
