"""Large pictures by strips: the same pixels as of a picture read or written whole, whatever the file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.codecs import decoding, encoding, strips
from nstgpu.engine.imaging.files import ImageError, Picture, read, read_recipe, save
from nstgpu.engine.memory import spill

HEIGHT, WIDTH = 37, 29


def noise(channels: int, dtype: str = "uint8") -> Any:
    values = np.random.default_rng(channels).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), endpoint=True)
    return values.astype(dtype).squeeze()


def smooth() -> Any:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([5 * x, 6 * y, 3 * (x + y)], axis=-1).astype(np.uint8)


@pytest.fixture
def by_strips(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every picture counts as large from here on, in parts of a few rows; and what parts there were."""
    parts: list[bytes] = []
    decoded = decoding.decoded

    def remembered(content: bytes, label: str) -> Any:
        parts.append(content)
        return decoded(content, label)

    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(decoding, "decoded", remembered)
    monkeypatch.setattr(strips, "PART_BYTES", 700)
    monkeypatch.setattr(spill, "BAND_BYTES", 2000)
    return parts


def assert_same(found: Picture, expected: Picture) -> None:
    assert found.pixels.dtype == expected.pixels.dtype
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.alpha is None) == (expected.alpha is None)
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, expected.alpha)
    assert found.name == expected.name


# ---- PNG --------------------------------------------------------------------------------------------------------
def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(depth: int, colour: int, samples: Any, *more: bytes, filters: tuple[int, ...] = (0, 1, 2, 3, 4)) -> bytes:
    """Rows (H, bytes) of samples, each with the next of the filters (W3C PNG, section 9)."""
    count = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    unit, width = max(1, depth * count // 8), samples.shape[1] * 8 // (depth * count)
    data, above = b"", np.zeros(samples.shape[1] + unit, int)
    for number, row in enumerate(samples):
        x = np.concatenate([np.zeros(unit, int), row.astype(int)])
        a, b, c = x[:-unit], above[unit:], above[:-unit]
        p = np.stack([abs(b - c), abs(a - c), abs(a + b - 2 * c)])
        paeth = np.choose(p.argmin(axis=0), [a, b, c])
        kind = filters[number % len(filters)]
        data += bytes([kind]) + ((row - (0 * a, a, b, (a + b) // 2, paeth)[kind]) % 256).astype(np.uint8).tobytes()
        above = x
    compressed = zlib.compress(data)
    head = struct.pack(">IIBBBBB", width, len(samples), depth, colour, 0, 0, 0)
    middle = [chunk(b"IDAT", compressed[i : i + 500]) for i in range(0, len(compressed), 500)]
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *more, *middle, chunk(b"IEND", b"")])


PALETTE = chunk(b"PLTE", bytes(range(256)) * 3)
TRANSPARENT = {"palette": chunk(b"tRNS", bytes(range(0, 250, 2))), "gray": chunk(b"tRNS", b"\0\7")}
TRANSPARENT["rgb"] = chunk(b"tRNS", b"\0\1\0\2\0\3")


@pytest.mark.parametrize(
    ("depth", "colour", "more"),
    [
        (1, 0, ()), (2, 0, ()), (4, 0, ()), (8, 0, ()), (16, 0, ()), (8, 0, (TRANSPARENT["gray"],)),
        (16, 0, (TRANSPARENT["gray"],)), (1, 3, (PALETTE,)), (4, 3, (PALETTE,)), (8, 3, (PALETTE,)),
        (8, 3, (PALETTE, TRANSPARENT["palette"])), (8, 4, ()), (16, 4, ()), (8, 2, ()), (8, 2, (TRANSPARENT["rgb"],)),
        (16, 2, ()), (16, 2, (TRANSPARENT["rgb"],)), (8, 6, ()), (16, 6, ()),
    ],
)  # fmt: skip
def test_every_png_is_the_same_by_strips(
    tmp_path: Path, request: pytest.FixtureRequest, depth: int, colour: int, more: tuple[bytes, ...]
) -> None:
    row_bytes = 32 * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8
    samples = np.random.default_rng(depth + colour).integers(0, 256, (HEIGHT * 8, row_bytes))
    if len(more) and depth == 8:
        samples[5:9] = np.arange(row_bytes) % 12  # where the transparent colour is found
    path = tmp_path / "a.png"
    path.write_bytes(png(depth, colour, samples, *more))
    expected = read(path)
    parts = request.getfixturevalue("by_strips")
    assert_same(read(path), expected)
    assert len(parts) > 1


def test_a_flat_png_has_all_its_rows(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What a few bytes inflate to is more than a part."""
    path = tmp_path / "a.png"
    Image.new("RGB", (WIDTH, 50 * HEIGHT), (1, 2, 3)).save(path)
    expected = read(path)
    parts = request.getfixturevalue("by_strips")
    assert_same(read(path), expected)
    assert len(parts) > 100


def test_profiles_apply_to_every_part(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    curve = b"para\0\0\0\0\0\3\0\0\0\2"
    darker = profile.replace(curve, curve[:-1] + b"\3")  # gamma 3.4 for 2.4
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise(3)).save(path, icc_profile=darker)
        expected = read(path)
        assert not np.array_equal(expected.pixels, read(noise(3)).pixels)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(strips, "LARGE", 0)
            patched.setattr(strips, "PART_BYTES", 700)
            assert_same(read(path), expected)


def test_an_unusable_profile_is_told_of_once(tmp_path: Path, by_strips: list[bytes]) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(3)).save(path, icc_profile=b"not a profile")
    with pytest.warns(UserWarning, match="its colour profile can't be used") as caught:
        read(path)
    assert len(caught) == 1 < len(by_strips)


# ---- TIFF -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        ("RGB", None), ("RGB", "tiff_lzw"), ("RGB", "packbits"), ("RGB", "tiff_adobe_deflate"), ("RGB", "jpeg"),
        ("L", "jpeg"), ("RGBA", "tiff_lzw"), ("L", None), ("LA", None), ("P", "tiff_lzw"), ("1", "group4"), ("1", None),
        ("CMYK", "tiff_lzw"), ("LAB", None), ("I;16", None), ("I;16B", None), ("I;16", "tiff_lzw"), ("F", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strip_bytes", [500, 1 << 20])
def test_every_tiff_is_the_same_by_strips(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, mode: str, compression: Any,
    strip_bytes: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", strip_bytes)
    if mode.startswith("I;16"):
        image = Image.fromarray(noise(1, "uint16").astype("<u2" if mode == "I;16" else ">u2"))
    elif mode in ("CMYK", "LAB"):
        image = Image.frombytes(mode, (WIDTH, HEIGHT), noise({"CMYK": 4, "LAB": 3}[mode]).tobytes())
    else:
        image = Image.fromarray(smooth()).convert("RGBA" if mode == "LA" else mode).convert(mode)
    path = tmp_path / "a.tif"
    image.save(path, compression=compression)
    expected = read(path)
    parts = request.getfixturevalue("by_strips")
    assert_same(read(path), expected)
    if mode == "F":  # its range is the whole picture's; `deep_tiff` reads it
        assert parts == []
        return
    whole = compression is not None and strip_bytes > 500
    assert (len(parts) == 1) == (whole or mode == "1")  # 148 bytes are one part


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiles_and_either_order_of_bytes(
    tmp_path: Path, request: pytest.FixtureRequest, order: Literal["<", ">"], samples: int, dtype: str
) -> None:
    """Tiles of 16x16, deflated, the last ones filled up beyond the picture's edge."""
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (48, 32, samples)).astype(dtype)
    pieces = [
        zlib.compress(values[y : y + 16, x : x + 16].astype(np.dtype(dtype).newbyteorder(order)).tobytes())
        for y in (0, 16, 32)
        for x in (0, 16)
    ]
    depth = 8 * np.dtype(dtype).itemsize
    tags: dict[int, Any] = {
        256: (4, (WIDTH,)), 257: (4, (HEIGHT,)), 258: (3, (depth,) * samples), 259: (3, (8,)),
        262: (3, (1 if samples == 1 else 2,)), 277: (3, (samples,)), 284: (3, (1,)), 322: (3, (16,)), 323: (3, (16,)),
        325: (4, tuple(len(piece) for piece in pieces)),
    }  # fmt: skip
    if samples == 4:
        tags[338] = (3, (2,))
    path = tmp_path / "a.tif"
    path.write_bytes(strips.tiff(order, tags, 324, pieces))
    expected = read(path)
    white = np.iinfo(dtype).max
    np.testing.assert_array_equal(
        expected.pixels, (values[:HEIGHT, :WIDTH, :3] / np.float32(white)).astype(np.float32) * np.ones(3, np.float32)
    )
    parts = request.getfixturevalue("by_strips")
    assert_same(read(path), expected)
    assert len(parts) == 3


# ---- what can't be cut ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_what_is_to_be_turned_is_read_whole(tmp_path: Path, request: pytest.FixtureRequest, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth()).save(path, exif=exif)
    expected = read(path)
    assert expected.pixels.shape == (WIDTH, HEIGHT, 3)
    request.getfixturevalue("by_strips")
    assert_same(read(path), expected)


def test_interlaced_pngs_and_planes_are_read_whole(tmp_path: Path, by_strips: list[bytes]) -> None:
    plain = png(8, 2, noise(3).reshape(HEIGHT, -1), filters=(0,))
    at = plain.index(b"IHDR")
    interlaced = bytearray(plain)
    interlaced[at + 16] = 1
    with io.BytesIO(plain) as file:
        assert strips.cut(file, 0) is not None
    with io.BytesIO(bytes(interlaced)) as file:
        assert strips.cut(file, 0) is None
    planes = [zlib.compress(noise(3)[..., k].tobytes()) for k in range(3)]
    tags: dict[int, Any] = {
        256: (4, (WIDTH,)), 257: (4, (HEIGHT,)), 258: (3, (8, 8, 8)), 259: (3, (8,)), 262: (3, (2,)), 277: (3, (3,)),
        278: (4, (HEIGHT,)), 279: (4, tuple(len(plane) for plane in planes)), 284: (3, (2,)),
    }  # fmt: skip
    path = tmp_path / "a.tif"
    path.write_bytes(strips.tiff("<", tags, 273, planes))
    np.testing.assert_array_equal(read(path).pixels, noise(3) / np.float32(255))
    assert len(by_strips) == 1


@pytest.mark.usefixtures("by_strips")
def test_what_is_too_large_to_be_decoded_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(path)
    monkeypatch.setattr(decoding, "host_memory", lambda: 4 * WIDTH * HEIGHT - 1)
    with pytest.raises(ImageError, match=r"a\.jpg has 1073 pixels, which take .* to decode.*; save it as a PNG"):
        read(path)
    path = tmp_path / "a.png"
    Image.fromarray(smooth()).save(path)
    assert read(path).pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.usefixtures("by_strips")
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_damage_is_told_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(3)).save(path, **({} if suffix == "png" else {"compression": "tiff_lzw"}))
    whole = path.read_bytes()
    for end in range(40, len(whole) - 12, 301):
        path.write_bytes(whole[:end])
        with pytest.raises(ImageError) as raised:
            read(path)
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)
    refused = 0
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read(path)
        except ImageError:
            refused += 1
    assert refused > 5


# ---- how many pixels may be -------------------------------------------------------------------------------------
def test_pillows_own_limit_is_none_but_anothers_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own refuses a photograph of 108 megapixels. Who sets another wants to be kept from larger ones."""
    assert Image.MAX_IMAGE_PIXELS == decoding._PILLOWS_LIMIT
    for suffix, limit in {"png": 100, "jpg": 100, "tif": 600, "webp": 600}.items():
        monkeypatch.setattr(decoding, "_PILLOWS_LIMIT", limit)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(smooth()).save(path)
        assert read(path).pixels.shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    for suffix in ("png", "tif"):
        with pytest.raises(ImageError, match="has 1073 pixels, the limit is 200; shrink it"):
            read(tmp_path / f"a.{suffix}")


# ---- writing ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("suffix", "big"), [(".png", False), (".tif", False), (".tif", True)])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_what_is_written_by_strips_is_the_same(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, suffix: str, depth: int,
    with_alpha: bool, big: bool,
) -> None:  # fmt: skip
    pixels = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), np.float32) * 1.1 - 0.05
    alpha = np.random.default_rng(2).random((HEIGHT, WIDTH), np.float32) if with_alpha else None
    recipe = {"nstgpu": "1.0", "style": "Звёздная ночь"}
    save(tmp_path / f"whole{suffix}", pixels, alpha=alpha, recipe=recipe, depth=depth)
    expected = read(tmp_path / f"whole{suffix}")
    monkeypatch.setattr(strips, "BIG", 0 if big else strips.BIG)
    parts = request.getfixturevalue("by_strips")
    for name in ("a", "b"):
        save(tmp_path / f"{name}{suffix}", pixels, alpha=alpha, recipe=recipe, depth=depth)
    written = (tmp_path / f"a{suffix}").read_bytes()
    assert written == (tmp_path / f"b{suffix}").read_bytes()
    assert written.startswith((b"II+\0" if big else b"II*\0") if suffix == ".tif" else b"\x89PNG")
    found = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.alpha, expected.alpha)
    assert len(parts) > 1
    assert read_recipe(tmp_path / f"a{suffix}") == recipe
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.info["icc_profile"] == images.srgb_profile()


def test_nothing_is_left_of_a_picture_that_turns_out_bad(tmp_path: Path, by_strips: list[bytes]) -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
    pixels[-1, -1, -1] = np.nan
    for name in ("a.png", "a.tif"):
        with pytest.raises(ImageError, match="NaN or infinite"):
            save(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []
    assert by_strips == []


def test_what_could_not_be_written_in_the_end_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "a.tif", "a.jpg"):
        images.check_size(name, (30_000, 65_535))
    monkeypatch.setattr(encoding, "host_memory", lambda: 4 << 30)
    images.check_size("a.png", (30_000, 20_000))
    images.check_size("a.jpg", (12_000, 9_000))
    with pytest.raises(
        ImageError, match=r"20000x30000 pixels to a\.jpg: JPEG takes 4\.5 GiB to encode, and 4\.0 are left"
    ):
        images.check_size("a.jpg", (30_000, 20_000))
    with pytest.raises(ImageError, match=r"WEBP has at most 16383 a side; name it \.png"):
        images.check_size("a.webp", (100, 16_384))


def test_a_preview_of_a_large_picture_is_the_same_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[0:300, 0:411] / 60
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1).astype(np.float32) / 2 + 0.5
    whole = images.preview(pixels, 20)
    monkeypatch.setattr(strips, "LARGE", 0)
    small = images.preview(pixels, 20)
    assert small.size == whole.size
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).max() <= 6


def png_of(width: int, height: int, *more: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(0x6A000048, 60), (60, 0x6A000048), (1 << 16, 1 << 16)])
def test_a_size_that_a_header_makes_up_takes_no_memory(width: int, height: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of(width, height))
    length = (tmp_path / "a.png").stat().st_size
    with pytest.raises(ImageError, match=rf"claims {width}x{height} pixels in {length} bytes, which cannot be"):
        read(tmp_path / "a.png")


def test_a_length_that_a_chunk_makes_up_takes_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    content = png_of(1 << 14, 1 << 14, struct.pack(">I4s", 0x7FFFFFFF, b"tEXt"))
    (tmp_path / "a.png").write_bytes(content + bytes(1 << 18))
    tracemalloc.start()
    with pytest.raises(ImageError, match="ends too soon"):
        read(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_rows_for_which_there_is_no_memory_are_told_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "host_memory", lambda: 3 << 30)
    (tmp_path / "a.png").write_bytes(png_of(100_000_000, 2) + bytes(1 << 20))
    with pytest.raises(ImageError, match=r"rows of 100000000 pixels, which take 5.6 GiB to decode, and 3.0 are left"):
        read(tmp_path / "a.png")


def test_a_large_png_is_mended_and_turned(tmp_path: Path, by_strips: list[bytes]) -> None:
    """A damaged comment, an orientation behind it, and no end."""
    save(tmp_path / "a.png", smooth() / 255)
    content = (tmp_path / "a.png").read_bytes()
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    chunks = struct.pack(">I", 3) + b"tEXta\0b" + bytes(4)
    chunks += struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    (tmp_path / "a.png").write_bytes(content[:33] + chunks + content[33:-12])
    with pytest.warns(UserWarning, match="has a damaged tEXt chunk"):
        pixels = read(tmp_path / "a.png").pixels
    assert np.array_equal(pixels, np.rot90(smooth(), -1) / np.float32(255))
    assert by_strips
