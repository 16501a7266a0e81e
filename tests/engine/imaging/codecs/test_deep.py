"""16 bits a channel, quality, and the refusals of formats that lack them; read and written by independent code too."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.files import ImageError, check_destination, encode, read, read_recipe, save

Uint16Array = npt.NDArray[np.uint16]
STEP = 1 / 65535


def samples(height: int = 9, width: int = 7, channels: int = 3) -> Uint16Array:
    """Every byte at random: nothing survives by luck that only survives in its high byte."""
    values = np.random.default_rng(3).integers(0, 65536, (height, width, channels))
    values[0, 0], values[0, 1] = 0, 65535
    return values.astype(np.uint16)


def in_unit_range(values: Uint16Array) -> npt.NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(65535)


# PNG and TIFF by the letter of their specifications, with nothing of Pillow's


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        body = content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length)[0] == zlib.crc32(name + body)
        chunks.append((name, body))
        at += 12 + length
    assert chunks[-1] == (b"IEND", b"")
    return chunks


def decode_png(content: bytes) -> Uint16Array:
    chunks = png_chunks(content)
    width, height, depth, colour_type, *rest = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    assert (depth, rest) == (16, [0, 0, 0])
    channels = {2: 3, 6: 4}[colour_type]
    data = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    stride, pixel = width * channels * 2, channels * 2
    assert len(data) == height * (stride + 1)
    above, rows = bytes(stride), []
    for start in range(0, len(data), stride + 1):
        row = bytearray(data[start + 1 : start + 1 + stride])
        for i in range(stride):
            a, b, c = (row[i - pixel], above[i], above[i - pixel]) if i >= pixel else (0, above[i], 0)
            paeth = min((a, b, c), key=lambda x: abs(a + b - c - x))  # called at once; first of equals
            row[i] = (row[i] + (0, a, b, (a + b) // 2, paeth)[data[start]]) % 256
        rows.append(np.frombuffer(bytes(row), ">u2"))
        above = bytes(row)
    return np.stack(rows).reshape(height, width, channels).astype(np.uint16)


def tiff_tags(content: bytes) -> dict[int, Any]:
    assert content[:4] == b"II*\0"
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    tags: dict[int, Any] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from("<HHI", content, entry)
        code = {1: "B", 2: "c", 3: "H", 4: "I", 7: "c"}[kind]
        place = entry + 8 if number * struct.calcsize(code) <= 4 else struct.unpack_from("<I", content, entry + 8)[0]
        values = struct.unpack_from(f"<{number}{code}", content, place)
        tags[tag] = b"".join(values) if code == "c" else values
    assert list(tags) == sorted(tags)
    return tags


def decode_tiff(content: bytes) -> Uint16Array:
    tags = tiff_tags(content)
    (width,), (height,), (channels,), (rows,), starts, sizes = (tags[tag] for tag in (256, 257, 277, 278, 273, 279))
    assert len(starts) == len(sizes) == -(-height // rows)
    assert tags[258] == (16,) * channels
    assert (tags[259], tags[262], tags[284], tags[317]) == ((8,), (2,), (1,), (2,))
    assert tags.get(338) == ((2,) if channels == 4 else None)
    data = b"".join(zlib.decompress(content[start : start + size]) for start, size in zip(starts, sizes, strict=True))
    differences = np.frombuffer(data, "<u2").reshape(height, width, channels)
    return np.cumsum(differences, axis=1, dtype=np.uint64).astype(np.uint16)  # modulo 2**16


def make_png(values: Uint16Array, *more: tuple[bytes, bytes], adam7: bool = False) -> bytes:
    """A 16-bit PNG with a different filter a row, or interlaced."""
    height, width, channels = values.shape
    pixel = 2 * channels

    def filtered(part: Uint16Array, filters: tuple[int, ...]) -> bytes:
        out, above = b"", bytes(part.shape[1] * pixel)
        for y, row_values in enumerate(part):
            row, kind = row_values.astype(">u2").tobytes(), filters[y % len(filters)]
            out += bytes([kind])
            for i in range(len(row)):
                a, b, c = (row[i - pixel], above[i], above[i - pixel]) if i >= pixel else (0, above[i], 0)
                paeth = min((a, b, c), key=lambda x: abs(a + b - c - x))
                out += bytes([(row[i] - (0, a, b, (a + b) // 2, paeth)[kind]) % 256])
            above = row
        return out

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    if adam7:
        parts = (values[y::dy, x::dx] for y, x, dy, dx in passes)
        data = b"".join(filtered(part, (4, 2)) for part in parts if part.size)
    else:
        data = filtered(values, (0, 1, 2, 3, 4))
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, adam7)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def make_tiff(values: Uint16Array, order: str, *, planar: bool = False, extra: int | None = None) -> bytes:
    """An uncompressed 16-bit TIFF in either byte order."""
    height, width, channels = values.shape
    data = (values.transpose(2, 0, 1) if planar else values).astype(f"{order}u2").tobytes()
    plane = len(data) // (channels if planar else 1)
    shorts = {256: width, 257: height, 259: 1, 262: 2, 277: channels, 278: height, 284: 2 if planar else 1}
    entries = {tag: struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    if extra is not None:
        entries[338] = struct.pack(f"{order}HHIHH", 338, 3, 1, extra, 0)
    bits = 8 + 2 + 12 * (len(entries) + 3) + 4
    offsets = bits + 2 * channels
    pixels = offsets + (8 * channels if planar else 0)
    entries[258] = struct.pack(f"{order}HHII", 258, 3, channels, bits)
    strips = channels if planar else 1
    entries[273] = struct.pack(f"{order}HHII", 273, 4, strips, offsets if planar else pixels)
    counts = offsets + 4 * channels
    entries[279] = struct.pack(f"{order}HHII", 279, 4, strips, counts if planar else len(data))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    after = struct.pack(f"{order}{channels}H", *[16] * channels)
    if planar:
        after += struct.pack(f"{order}{strips}I", *(pixels + plane * strip for strip in range(strips)))
        after += struct.pack(f"{order}{strips}I", *[plane] * strips)
    return head + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4) + after + data


# Writing


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize(("suffix", "decode"), [(".png", decode_png), (".tif", decode_tiff)])
def test_every_value_of_16_bits_is_written(tmp_path: Path, suffix: str, decode: Any, with_alpha: bool) -> None:
    values = samples(channels=4 if with_alpha else 3)
    unit = in_unit_range(values)
    save(tmp_path / f"a{suffix}", unit[..., :3], alpha=unit[..., 3] if with_alpha else None, depth=16)
    np.testing.assert_array_equal(decode((tmp_path / f"a{suffix}").read_bytes()), values)
    picture = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(picture.pixels, unit[..., :3])
    assert picture.pixels.flags.c_contiguous
    if with_alpha:
        np.testing.assert_array_equal(picture.alpha, unit[..., 3])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_all_65536_levels_make_the_round_trip(tmp_path: Path, suffix: str) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    unit = in_unit_range(np.dstack([levels, levels[::-1], levels.T]))
    save(tmp_path / f"a{suffix}", unit, depth=16)
    np.testing.assert_array_equal(read(tmp_path / f"a{suffix}").pixels, unit)


@pytest.mark.parametrize(("depth", "white"), [(8, 255), (16, 65535)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_to_the_nearest(tmp_path: Path, depth: int, white: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    values: npt.NDArray[Any] = rng.random((40, 50, 3)).astype(dtype)
    save(tmp_path / "a.png", values, depth=depth)
    written = np.rint(read(tmp_path / "a.png").pixels.astype(np.float64) * white)
    assert np.abs(written - values.astype(np.float64) * white).max() <= 0.5
    halves = np.arange(0.5, 64.5)  # a half is only exact where white is a power of two away from it: take those
    exact = halves[halves / white * white == halves]
    assert len(exact) > 8
    save(tmp_path / "b.png", np.tile(exact[:, None] / white, (1, 1, 3)).reshape(1, -1, 3), depth=depth)
    written = np.rint(read(tmp_path / "b.png").pixels[0].astype(np.float64) * white)
    assert (written % 2 == 0).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_files_carry_profile_and_recipe_and_repeat(tmp_path: Path, suffix: str) -> None:
    recipe = {"nstgpu": "1.0", "style": "Звёздная ночь ☆ 星月夜\nline two", "empty": ""}
    for name in "ab":
        save(tmp_path / f"{name}{suffix}", in_unit_range(samples()), recipe=recipe, depth=16)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert read_recipe(tmp_path / f"a{suffix}") == recipe
    with Image.open(tmp_path / f"a{suffix}") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_encode_gives_the_bytes_that_save_writes(tmp_path: Path) -> None:
    unit = in_unit_range(samples(channels=4))
    for file_format, suffix in (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("TIFF", ".tif")):
        save(tmp_path / f"a{suffix}", unit[..., :3], alpha=unit[..., 3])
        assert encode(unit[..., :3], file_format, alpha=unit[..., 3]) == (tmp_path / f"a{suffix}").read_bytes()
    with pytest.raises(ImageError, match="cannot encode the picture as PNG: the picture has NaN"):
        encode(np.full((2, 2, 3), np.nan))


# Reading


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("adam7", [False, True])
def test_deep_pngs_keep_16_bits(tmp_path: Path, channels: int, adam7: bool) -> None:
    values = samples(11, 13, channels)
    (tmp_path / "a.png").write_bytes(make_png(values, adam7=adam7))
    picture = read(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, in_unit_range(values[..., :3]))
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, in_unit_range(values[..., 3]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("channels", "extra"), [(3, None), (4, 0), (4, 2)])
def test_deep_tiffs_keep_16_bits(tmp_path: Path, order: str, channels: int, extra: int | None) -> None:
    values = samples(channels=channels)
    (tmp_path / "a.tif").write_bytes(make_tiff(values, order, extra=extra))
    picture = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, in_unit_range(values[..., :3]))
    if extra == 2:
        np.testing.assert_array_equal(picture.alpha, in_unit_range(values[..., 3]))
    if extra is None:
        assert picture.alpha is None  # a fourth channel of no known meaning is alpha to old Pillows


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_planes_keep_16_bits(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.tif").write_bytes(make_tiff(samples(), order, planar=True))
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, in_unit_range(samples()))


def test_the_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    values = samples()
    values[4, 2] = values[1, 1] ^ [0, 0, 1]  # differs in its last bit only
    (tmp_path / "a.png").write_bytes(make_png(values, (b"tRNS", values[1, 1].astype(">u2").tobytes())))
    alpha = read(tmp_path / "a.png").alpha
    assert alpha is not None
    assert np.argwhere(alpha == 0).tolist() == [[1, 1]]


def test_orientation_turns_both_bytes(tmp_path: Path) -> None:
    values = samples()
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    (tmp_path / "a.png").write_bytes(make_png(values, (b"eXIf", exif)))
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, in_unit_range(np.rot90(values, -1)))


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"x\0\0" + zlib.compress(profile)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_an_srgb_profile_takes_nothing_of_the_16_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make_png(samples(), iccp(srgb_profile())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(pixels, in_unit_range(samples()))


def test_another_profile_is_converted_in_8_bits(tmp_path: Path) -> None:
    profile = srgb_profile()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    values = samples(channels=4)
    (tmp_path / "a.png").write_bytes(make_png(values, iccp(profile)))
    picture = read(tmp_path / "a.png")
    expected = in_unit_range(values)[..., [1, 0, 2]]  # red and green exchanged
    assert np.abs(picture.pixels - expected).max() < 3 / 255
    np.testing.assert_array_equal(picture.alpha, in_unit_range(values)[..., 3])


def test_an_unusable_profile_is_ignored_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make_png(samples(), iccp(b"not a profile")))
    with pytest.warns(UserWarning, match=r"a\.png: its colour profile can't be used") as record:
        pixels = read(tmp_path / "a.png").pixels
    assert record[0].filename == __file__
    np.testing.assert_array_equal(pixels, in_unit_range(samples()))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"x\0\0" + zlib.compress(bytes(17 << 20)), "of more than 16 MB"),
        (b"x\0\0" + zlib.compress(srgb_profile())[1:], "that is damaged"),
        (b"x\0\0" + zlib.compress(srgb_profile())[:20], "that is cut short"),
        (b"x\0\5" + zlib.compress(srgb_profile()), "that is packed in an unknown way"),
        (b"", "that is packed in an unknown way"),
    ],
    ids=["large", "damaged", "short", "unknown", "empty"],  # a profile tells the time, and its bytes would be a name
)
def test_a_profile_that_is_left_out_is_told_of(tmp_path: Path, body: bytes, said: str) -> None:
    (tmp_path / "a.png").write_bytes(make_png(samples(), (b"iCCP", body)))
    with pytest.warns(UserWarning, match=rf"a\.png has a colour profile {said}, which is left out; its") as record:
        pixels = read(tmp_path / "a.png").pixels
    assert len(record) == 1
    np.testing.assert_array_equal(pixels, in_unit_range(samples()))


def test_a_profile_that_has_lost_a_piece_is_told_of(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    image.save(tmp_path / "a.jpg", icc_profile=srgb_profile())
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole.replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2"))
    with pytest.warns(UserWarning, match="of which a piece is missing; its colours are taken as sRGB"):
        read(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore:.*colour profile")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_damaged_deep_files_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(path, in_unit_range(samples(20, 20)), depth=16)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 23):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            read(path)
        except ImageError:
            refused += 1
    assert refused > 20
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged"):
        read(path)


# What a format can't do


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("a.jpg", {"depth": 16}, "with 16 bits a channel: JPEG has 8; name it .png or .tif"),
        ("a.webp", {"depth": 16}, "with 16 bits a channel: WEBP has 8"),
        ("a.png", {"depth": 12}, "with 12 bits a channel; choose 8 or 16"),
        ("a.png", {"quality": 90}, "in quality 90: PNG loses nothing; name it .jpg or .webp, or leave the quality out"),
        ("a.tif", {"quality": 90, "depth": 16}, "in quality 90: TIFF loses nothing"),
        ("a.jpg", {"quality": 0}, "in quality 0; choose 1"),
        ("a.webp", {"quality": 101}, "in quality 101; choose 1"),
    ],
)
def test_combinations_that_are_refused(tmp_path: Path, name: str, asked: dict[str, Any], said: str) -> None:
    for refuse in (
        lambda: check_destination(tmp_path / name, **asked),
        lambda: save(tmp_path / name, in_unit_range(samples()), **asked),
    ):
        with pytest.raises(ImageError) as raised:
            refuse()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_quality_trades_size_for_likeness(tmp_path: Path, suffix: str) -> None:
    y, x = np.mgrid[0:64, 0:64] / 63
    smooth = np.dstack([x, y, (np.sin(20 * x * y) + 1) / 2])
    sizes, errors = [], []
    for quality in (10, 60, 100):
        check_destination(tmp_path / f"a{suffix}", quality=quality)
        save(tmp_path / f"a{suffix}", smooth, quality=quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
        errors.append(float(np.abs(read(tmp_path / f"a{suffix}").pixels - smooth).mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    save(tmp_path / f"b{suffix}", smooth, quality=95)
    assert (tmp_path / f"b{suffix}").read_bytes() == images.encode(smooth, {".jpg": "JPEG", ".webp": "WEBP"}[suffix])
