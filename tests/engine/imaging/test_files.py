"""Image files and arrays to RGB in [0, 1] and back: every mode, every refusal, and no file half there."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from harness.refusals import picture_refusal
from nstgpu.engine.imaging.codecs import color_profiles
from nstgpu.engine.imaging.codecs import formats as picture_formats
from nstgpu.engine.imaging.files import ImageError, check_destination, output_size, read, read_recipe, save

Uint8Array = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
STEP = 1 / 255


def colours(height: int = 13, width: int = 17) -> Uint8Array:
    """A different colour at every pixel, changing slowly enough for JPEG, with no symmetry to hide a flip."""
    y, x = np.mgrid[0:height, 0:width]
    x, y = x / (width - 1), y / (height - 1)
    return np.stack([255 * x, 255 * y, 60 + 80 * x + 24 * y], axis=-1).round().astype(np.uint8)


def in_unit_range(array: Uint8Array) -> npt.NDArray[np.float32]:
    return array.astype(np.float32) / np.float32(255)


def a_file(folder: Path, image: Image.Image, file_format: str = "PNG", **options: Any) -> Path:
    path = folder / f"picture.{file_format.lower()}"
    image.save(path, format=file_format, **options)
    return path


# Arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_arrays_are_copied_to_the_last_bit(dtype: type) -> None:
    array: npt.NDArray[Any] = np.random.default_rng(0).random((5, 7, 3)).astype(dtype)
    picture = read(array)
    assert picture.pixels.dtype == dtype
    assert picture.pixels.tobytes() == array.tobytes()
    assert not np.shares_memory(picture.pixels, array)
    assert picture.alpha is None
    assert picture.name == "image"


@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535), (">u2", 65535)])
def test_whole_numbers_are_divided_by_their_largest(dtype: str, white: int) -> None:
    array = np.array([[[0, white // 3, white]]], dtype=dtype)
    pixels = read(array).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, np.array([[[0, white // 3, white]]], np.float32) / np.float32(white))


def test_layout_and_byte_order_of_an_array_do_not_matter() -> None:
    array = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    for same in (np.asfortranarray(array), array.astype(">f4"), np.flip(np.flip(array).copy())):
        pixels = read(same).pixels
        assert pixels.flags.c_contiguous
        assert pixels.dtype == np.dtype("=f4")
        np.testing.assert_array_equal(pixels, array)


def test_gray_arrays_fill_all_three_channels() -> None:
    gray = np.random.default_rng(0).random((5, 7))
    pixels = read(gray).pixels
    assert pixels.dtype == np.float64
    assert pixels.flags.c_contiguous
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], gray)


def test_the_fourth_channel_of_an_array_is_alpha() -> None:
    array = np.random.default_rng(0).random((5, 7, 4))
    picture = read(array)
    np.testing.assert_array_equal(picture.pixels, array[..., :3])
    assert picture.pixels.flags.c_contiguous
    assert picture.alpha is not None
    assert picture.alpha.dtype == np.float32
    np.testing.assert_array_equal(picture.alpha, array[..., 3].astype(np.float32))


def test_alpha_that_is_opaque_everywhere_is_none() -> None:
    opaque = np.dstack([colours(), np.full((13, 17), 255, np.uint8)])
    assert read(opaque).alpha is None
    assert read(Image.fromarray(opaque)).alpha is None


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((2, 2, 3), np.nan), "NaN"),
        (np.full((2, 2, 3), np.inf), "infinite"),
        (np.full((2, 2, 3), 1.5), "from 1.5 to 1.5"),
        (np.full((2, 2, 3), -0.25), "from -0.25"),
        (np.zeros((2, 2, 3), bool), "dtype bool"),
        (np.zeros((2, 2, 3), np.int64), "dtype int64"),
        (np.zeros((2, 2, 3), complex), "dtype complex128"),
        (np.zeros(3), r"shape (3,)"),
        (np.zeros((3, 8, 8)), "shape (3, 8, 8)"),
        (np.zeros((1, 8, 8, 3)), "shape (1, 8, 8, 3)"),
        (np.zeros((0, 8, 3)), "no pixels"),
        ([[0.0]], "a list"),
        (None, "a NoneType"),
    ],
)
def test_what_is_not_a_picture_is_refused(array: Any, said: str) -> None:
    assert said in picture_refusal(array)


# Pillow's modes


def as_pillow_converts(image: Image.Image) -> npt.NDArray[np.float32]:
    return in_unit_range(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_opaque_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(colours())
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB") or image
    else:
        image = image.convert(mode)
    assert image.mode == mode
    picture = read(image)
    assert picture.alpha is None
    # Lab comes with its profile here, by which it rounds otherwise than in Pillow's own conversion.
    margin = 1.001 * STEP if mode == "LAB" else 0
    assert np.abs(picture.pixels - as_pillow_converts(image)).max() <= margin
    if mode not in ("1", "L", "P"):  # and what it becomes is what it was; Lab in 8 bits is coarse in the dark
        assert np.abs(picture.pixels - in_unit_range(colours())).max() < (40 if mode == "LAB" else 12) * STEP


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_every_mode_with_alpha_keeps_it(mode: str) -> None:
    alpha = np.full((13, 17), 255, np.uint8)
    alpha[:5], alpha[5] = 128, 0
    original = Image.fromarray(np.dstack([colours(), alpha])).convert("LA" if mode[0] == "L" else "RGBA")
    if mode == "PA":
        image = original.convert("P").convert("PA")
        image.putalpha(Image.fromarray(alpha))
    else:
        image = original.convert(mode)
    assert image.mode == mode
    picture = read(image)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, in_unit_range(alpha))
    margin = {"PA": 64, "La": 1.5, "RGBa": 1.5}.get(mode, 0) * STEP  # a coarse palette; rounding of colour × alpha
    seen = alpha > 0  # a premultiplied image has no colours where it is transparent
    assert np.abs(picture.pixels - as_pillow_converts(original))[seen].max() <= margin


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (3, 2), 0)
    image.putpixel((2, 1), {"RGB": (255, 0, 0)}.get(mode, 1))
    key: Any = {"RGB": (0, 0, 0)}.get(mode, 0)
    picture = read(a_file(tmp_path, image, transparency=key))
    np.testing.assert_array_equal(picture.alpha, [[0, 0, 0], [0, 0, 1]])


def test_a_palette_with_an_alpha_for_every_colour(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    picture = read(a_file(tmp_path, image, transparency=bytes([255, 51])))
    np.testing.assert_array_equal(picture.pixels, in_unit_range(np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)))
    np.testing.assert_array_equal(picture.alpha, np.array([[1, 0.2]], np.float32))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_gray_of_16_bits_keeps_them(tmp_path: Path, file_format: str) -> None:
    values = np.array([[0, 1, 257], [32768, 65534, 65535]], np.uint16)
    picture = read(a_file(tmp_path, Image.fromarray(values), file_format))
    expected = values.astype(np.float32) / np.float32(65535)
    np.testing.assert_array_equal(picture.pixels, np.dstack([expected] * 3))
    assert len(np.unique(picture.pixels)) == 6
    assert picture.alpha is None


def test_the_transparent_gray_of_16_bits() -> None:
    image = Image.fromarray(np.array([[0, 300, 65535]], np.uint16))
    image.info["transparency"] = 300  # as Pillow reports PNG's tRNS chunk; old Pillows can't write it
    np.testing.assert_array_equal(read(image).alpha, [[1, 0, 1]])


def test_modes_i_and_f() -> None:
    whole = Image.fromarray(np.array([[0, 13107, 65535]], np.int32))
    assert whole.mode == "I"
    np.testing.assert_allclose(read(whole).pixels[0, :, 0], [0, 0.2, 1], rtol=1e-7)
    unit = np.array([[0, 0.123456789, 1]], np.float32)
    np.testing.assert_array_equal(read(Image.fromarray(unit)).pixels[..., 1], unit)
    pillows_own_scale = Image.new("L", (1, 1), 51).convert("F")
    assert read(pillows_own_scale).pixels[0, 0, 2] == np.float32(0.2)
    assert "0..65535" in picture_refusal(Image.new("I", (1, 1), 70000))
    assert "-1" in picture_refusal(Image.new("I", (1, 1), -1))
    assert "from 300 to 300" in picture_refusal(Image.new("F", (1, 1), 300))
    assert "NaN" in picture_refusal(Image.new("F", (1, 1), float("nan")))


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = a_file(tmp_path, Image.fromarray(colours()).convert("CMYK"), "JPEG", quality=98, subsampling=0)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    assert np.abs(read(path).pixels - in_unit_range(colours())).max() < 12 * STEP


def test_reading_leaves_the_callers_image_alone() -> None:
    image = Image.fromarray(colours())
    image.getexif()[0x0112] = 6
    assert read(image).pixels.shape == (17, 13, 3)
    assert image.size == (17, 13)
    assert image.getexif()[0x0112] == 6


# Files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"beach{suffix}"
    pixels = in_unit_range(colours(48, 64))
    save(path, pixels)
    picture = read(str(path))
    assert picture.name == "beach"
    assert picture.alpha is None
    assert picture.pixels.flags.c_contiguous
    assert np.abs(picture.pixels - pixels).max() <= {".jpg": 8, ".jpeg": 8, ".webp": 20}.get(suffix, 0) * STEP


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_is_saved_and_read_back(tmp_path: Path, suffix: str) -> None:
    pixels = in_unit_range(colours())
    alpha = np.linspace(0, 1, 13 * 17, dtype=np.float32).reshape(13, 17)
    save(tmp_path / f"a{suffix}", pixels, alpha=alpha)
    picture = read(tmp_path / f"a{suffix}")
    assert picture.alpha is not None
    assert np.abs(picture.alpha - alpha).max() <= 0.5001 * STEP
    if suffix != ".webp":  # lossy, and free to forget colours that can't be seen
        np.testing.assert_array_equal(picture.pixels, pixels)


def test_jpeg_shows_transparency_on_white(tmp_path: Path) -> None:
    black = np.zeros((16, 48, 3), np.float32)
    alpha = np.repeat(np.array([0, 0.5, 1], np.float32), 16)[np.newaxis].repeat(16, axis=0)
    save(tmp_path / "a.jpg", black, alpha=alpha)
    pixels = read(tmp_path / "a.jpg").pixels
    np.testing.assert_allclose(pixels[8, [8, 24, 40], 0], [1, 0.5, 0], atol=3 * STEP)


def test_the_suffix_does_not_matter_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(colours()).save(path, format="PNG")
    np.testing.assert_array_equal(read(path).pixels, in_unit_range(colours()))


# Where the top left of the file's pixels belongs, as EXIF 2.3 (4.6.4, tag 274) numbers it.
UPRIGHT: dict[int, Callable[[Uint8Array], Uint8Array]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if file_format == "JPEG" else {}
    path = a_file(tmp_path, Image.fromarray(colours()), file_format, exif=exif, **options)
    expected = in_unit_range(UPRIGHT[orientation](colours()))
    pixels = read(path).pixels
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= (10 * STEP if file_format == "JPEG" else 0)
    assert pixels.flags.c_contiguous


def test_orientation_turns_alpha_too(tmp_path: Path) -> None:
    alpha = np.arange(13 * 17, dtype=np.uint8).reshape(13, 17)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(a_file(tmp_path, Image.fromarray(np.dstack([colours(), alpha])), exif=exif))
    np.testing.assert_array_equal(picture.alpha, in_unit_range(np.rot90(alpha, -1)))


def test_a_picture_with_broken_exif_is_read(tmp_path: Path) -> None:
    path = a_file(tmp_path, Image.fromarray(colours()), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    np.testing.assert_array_equal(read(path).pixels, in_unit_range(colours()))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_read(tmp_path: Path, file_format: str) -> None:
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    options = {"lossless": True} if file_format == "WEBP" else {}
    path = a_file(tmp_path, first, file_format, save_all=True, append_images=[second], **options)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    np.testing.assert_array_equal(read(path).pixels[0, 0], [1, 0, 0])


# Colour profiles


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def red_and_green_swapped() -> bytes:
    """The sRGB profile with the primaries of red and green exchanged in its table of tags."""
    profile = srgb_profile()
    return profile.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)


def linear_gray() -> bytes:
    """A gray profile whose values are proportional to light (ICC.1:2010, 7 and 8.3.2)."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0) + bytes(4)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    header = bytearray(srgb_profile()[:128])
    header[0:4] = struct.pack(">I", 128 + len(tags) + len(white) + len(curve))
    header[16:20] = b"GRAY"
    return bytes(header) + tags + white + curve


def srgb_of_light(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_an_srgb_profile_changes_nothing(tmp_path: Path, file_format: str) -> None:
    path = a_file(tmp_path, Image.fromarray(colours()), file_format, icc_profile=srgb_profile())
    np.testing.assert_array_equal(read(path).pixels, in_unit_range(colours()))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_another_profile_is_converted_to_srgb(tmp_path: Path, file_format: str) -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    path = a_file(tmp_path, red, file_format, icc_profile=red_and_green_swapped())
    np.testing.assert_allclose(read(path).pixels[8, 8], [0, 1, 0], atol=6 * STEP)


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_a_profile_applies_to_palettes_and_beside_alpha(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 102)) if mode == "RGBA" else Image.new("P", (2, 1))
    if mode == "P":
        image.putpalette([255, 0, 0])
    picture = read(a_file(tmp_path, image, icc_profile=red_and_green_swapped()))
    np.testing.assert_allclose(picture.pixels[0, 0], [0, 1, 0], atol=2 * STEP)
    if mode == "RGBA":
        np.testing.assert_array_equal(picture.alpha, np.array([[0.4, 0.4]], np.float32))


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_gray_profile_applies_to_gray(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.linspace(8000, 60000, 64).astype(np.uint16)[np.newaxis])
        light = np.asarray(image) / 65535
    else:
        image = Image.fromarray(np.arange(32, 240, dtype=np.uint8)[np.newaxis])
        light = np.asarray(image) / 255
        image = image.convert(mode)
    pixels = read(a_file(tmp_path, image, icc_profile=linear_gray())).pixels
    np.testing.assert_allclose(pixels[..., 0], srgb_of_light(light), atol=2 * STEP)
    np.testing.assert_allclose(pixels[..., 2], pixels[..., 0], atol=STEP)
    assert len(np.unique(pixels[..., 0])) > (60 if mode == "I;16" else 100)


def test_gray_with_an_rgb_profile(tmp_path: Path) -> None:
    gray = Image.fromarray(colours()[..., 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # to ignore the profile would give the same values
        pixels = read(a_file(tmp_path, gray, icc_profile=srgb_profile())).pixels
    np.testing.assert_array_equal(pixels[..., 1], in_unit_range(colours()[..., 0]))


@pytest.mark.parametrize("profile", [b"not a profile", srgb_profile()[:200], linear_gray()])
def test_an_unusable_profile_is_ignored_with_a_warning(tmp_path: Path, profile: bytes) -> None:
    path = a_file(tmp_path, Image.fromarray(colours()), icc_profile=profile)
    with pytest.warns(UserWarning, match=r"picture\.png: its colour profile can't be used") as record:
        pixels = read(path).pixels
    np.testing.assert_array_equal(pixels, in_unit_range(colours()))
    assert record[0].filename == __file__


# Files that can't be read


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert picture_refusal(tmp_path / "cat.jpg") == (
        f"cannot read {tmp_path / 'cat.jpg'}: No such file or directory; "
        f"give the path of a {picture_formats.names()} file"
    )
    assert "Is a directory" in picture_refusal(tmp_path)
    assert "null" in picture_refusal("a\0b.png")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)  # chmod would not stop root, as whom CI may run
    assert "secret.png: Permission denied" in picture_refusal(tmp_path / "secret.png")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"Dear sir,\n", "is text, not a picture; PNG, JPEG, WebP, TIFF, GIF, BMP"),
        (b"GIF89a\1\0\1\0\0\0\0;", "picture.png"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript or EPS file"),
    ],
)
def test_files_that_are_no_picture(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    message = picture_refusal(path)
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    save(path, np.random.default_rng(0).random((40, 50, 3)))
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "damaged" in picture_refusal(path)


def test_damaged_files_raise_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "hit.png"
    save(path, in_unit_range(colours()), recipe={"a": "b"})
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            with warnings.catch_warnings(record=True) as caught:  # most of the file is its profile
                warnings.simplefilter("always")
                read(path)
            refused += bool(caught)
        except ImageError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("limit", [100, 200])  # Pillow raises beyond twice its limit, and only warns before
def test_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = a_file(tmp_path, Image.fromarray(colours()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert f"has 221 pixels, the limit is {limit}; shrink it" in picture_refusal(path)


def test_an_image_without_pixels() -> None:
    assert "is empty (0x5 pixels)" in picture_refusal(Image.new("RGB", (0, 5)))


def test_a_lazily_opened_image_that_turns_out_damaged() -> None:
    content = io.BytesIO()
    Image.fromarray(colours()).save(content, format="PNG")
    image = Image.open(io.BytesIO(content.getvalue()[:60]))
    assert "the Pillow image is damaged" in picture_refusal(image)


# Saving


def test_values_are_clipped_and_rounded_to_the_nearest(tmp_path: Path) -> None:
    values = np.array([-1, 0.49, 0.51, 1.5, 2.5, 254.51, 300]) / 255
    save(tmp_path / "a.png", np.repeat(values, 3).reshape(1, 7, 3))
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 2, 2, 255, 255]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_the_same_picture_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", in_unit_range(colours()), recipe={"seed": "0"})

    def made_in_another_year(profile: ImageCms.ImageCmsProfile) -> bytes:
        content = bytes(to_bytes(profile))
        return content[:24] + struct.pack(">H", 2031) + content[26:]

    to_bytes = ImageCms.ImageCmsProfile.tobytes
    monkeypatch.setattr(ImageCms.ImageCmsProfile, "tobytes", made_in_another_year)
    color_profiles.srgb_profile.cache_clear()
    save(tmp_path / f"b{suffix}", in_unit_range(colours()), recipe={"seed": "0"})
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_say_that_they_are_srgb(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", in_unit_range(colours()))
    with Image.open(tmp_path / f"a{suffix}") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    save(tmp_path / "a.JPG", in_unit_range(colours()))
    with Image.open(tmp_path / "a.JPG") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_recipe_travels_with_the_picture(tmp_path: Path, suffix: str) -> None:
    recipe = {"nstgpu:version": "1.0", "nstgpu:style": "Звёздная ночь ☆ 星月夜\nline two", "empty": ""}
    save(tmp_path / f"a{suffix}", in_unit_range(colours()), recipe=recipe)
    assert read_recipe(tmp_path / f"a{suffix}") == recipe


def test_pictures_without_a_recipe(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        save(tmp_path / f"a{suffix}", in_unit_range(colours()))
        assert read_recipe(tmp_path / f"a{suffix}") == {}
    for description in ("Sunset over the sea", "[1, 2]"):
        exif = Image.Exif()
        exif[0x010E] = description
        assert read_recipe(a_file(tmp_path, Image.fromarray(colours()), "JPEG", exif=exif)) == {}
    with pytest.raises(ImageError, match="No such file"):
        read_recipe(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gif", r"must end in one of \.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff"),
        ("a", "must end in one of"),
        ("file/a.png", "file is no folder"),
        ("folder.png", "a folder has this name"),
    ],
)
def test_destinations_that_are_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=said):
        check_destination(tmp_path / name)
    with pytest.raises(ImageError, match=said):
        save(tmp_path / name, in_unit_range(colours()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_missing_folders_are_made_when_a_file_is_written(tmp_path: Path) -> None:
    check_destination(tmp_path / "new" / "deep" / "a.png")
    assert list(tmp_path.iterdir()) == []
    save(tmp_path / "new" / "deep" / "a.png", in_unit_range(colours()))
    assert (tmp_path / "new" / "deep" / "a.png").is_file()


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_destination(tmp_path / "a.png")
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(ImageError, match="you may not write in"):
        check_destination(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("pixels", "alpha", "said"),
    [
        (np.full((2, 2, 3), np.nan), None, "NaN or infinite"),
        (np.full((2, 2, 3), np.inf), np.ones((2, 2), np.float32), "NaN or infinite"),
        (np.zeros((2, 2, 3)), np.full((2, 2), np.nan, np.float32), "NaN or infinite"),
        (np.zeros((2, 2, 3)), np.ones((2, 3), np.float32), r"alpha has shape \(2, 3\)"),
        (np.zeros((2, 2, 4)), None, r"shape \(2, 2, 4\)"),
        (np.zeros((2, 2)), None, r"shape \(2, 2\)"),
        (np.zeros((0, 2, 3)), None, r"shape \(0, 2, 3\)"),
        (np.zeros((2, 2, 3), np.uint8), None, "uint8"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_pixels_that_are_refused(tmp_path: Path, pixels: Any, alpha: Any, said: str, suffix: str) -> None:
    with pytest.raises(ImageError, match=said):
        save(tmp_path / f"a{suffix}", pixels, alpha=alpha)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16384), ("a.jpg", 65536)])
def test_pictures_too_large_for_their_format(tmp_path: Path, name: str, side: int) -> None:
    with pytest.raises(ImageError, match=rf"can't hold these {side}x1 pixels .*; try \.png"):
        save(tmp_path / name, np.zeros((1, side, 3), np.float32))
    assert list(tmp_path.iterdir()) == []


# Whole or not at all


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    path = tmp_path / "out.png"
    path.write_bytes(b"what was there before")
    return path


def assert_untouched(destination: Path) -> None:
    assert list(destination.parent.iterdir()) == [destination]
    assert destination.read_bytes() == b"what was there before"


@pytest.mark.parametrize("error", [OSError("encoder error"), KeyboardInterrupt()])
def test_an_encoder_that_fails_halfway(
    destination: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def half(_image: Image.Image, file: io.BytesIO, **_options: Any) -> None:
        file.write(b"half a pict")
        raise error

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(ImageError if isinstance(error, OSError) else KeyboardInterrupt):
        save(destination, in_unit_range(colours()))
    assert_untouched(destination)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_disk_that_fails_halfway(
    destination: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_arguments: Any) -> None:
        assert len(list(destination.parent.iterdir())) == 2  # the file under its passing name is there
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ImageError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        save(destination, in_unit_range(colours()))
    if isinstance(error, OSError):
        assert str(raised.value) == f"cannot write {destination}: No space left on device; choose another place"
    assert_untouched(destination)


def test_an_older_picture_is_replaced_and_a_link_kept(destination: Path) -> None:
    link = destination.with_name("link.png")
    link.symlink_to(destination.name)
    save(link, in_unit_range(colours()))
    assert link.is_symlink()
    np.testing.assert_array_equal(read(destination).pixels, in_unit_range(colours()))
    assert sorted(path.name for path in destination.parent.iterdir()) == ["link.png", "out.png"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "a.png", in_unit_range(colours()))
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~umask


# Sizes


@pytest.mark.parametrize(
    ("height", "width", "long_side", "expected"),
    [
        (600, 800, 400, (300, 400)),
        (800, 600, 400, (400, 300)),
        (100, 100, 64, (64, 64)),
        (300, 400, 1200, (900, 1200)),
        (61, 83, 50, (37, 50)),  # 36.7
        (3, 2, 3, (3, 2)),
        (3, 4, 2, (2, 2)),  # 1.5
        (5000, 2, 100, (100, 1)),  # 0.04
        (1, 1, 512, (512, 512)),
    ],
)
def test_output_size(height: int, width: int, long_side: int, expected: tuple[int, int]) -> None:
    assert output_size(height, width, long_side) == expected


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, 0, 5), (5, 5, 0), (5, 5, -3)])
def test_output_size_refuses_nothing_and_less(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ImageError, match="at least 1"):
        output_size(*sizes)
