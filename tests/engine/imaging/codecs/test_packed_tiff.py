"""TIFFs of samples that are packed or predicted in unusual ways, made by hand, against the numbers in them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nstgpu.engine.imaging.codecs import strips
from nstgpu.engine.imaging.files import ImageError, read

Y, X = np.mgrid[0:6, 0:10]


def twelve_bits(gray: Any, more: dict[int, Any]) -> bytes:
    rows = [int("".join(f"{value:012b}" for value in row), 2).to_bytes(15, "big") for row in gray.tolist()]
    body = b"".join(rows)
    tags: dict[int, Any] = {256: (4, (10,)), 257: (4, (6,)), 258: (3, (12,)), 259: (3, (1,)), 262: (3, (1,))}
    tags |= {277: (3, (1,)), 278: (4, (6,)), 279: (4, (len(body),))}
    return strips.tiff("<", tags | more, 273, [body])


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_white_of_12_bits_is_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, turned: bool) -> None:
    if large:
        monkeypatch.setattr(strips, "LARGE", 0)
    gray = (X * 400 + Y * 97) % 4096
    gray[0, :2] = 0, 4095
    (tmp_path / "a.tif").write_bytes(twelve_bits(gray, {274: (3, (3 if turned else 1,))}))
    expected = (gray[::-1, ::-1] if turned else gray) / 4095
    for source in (tmp_path / "a.tif", Image.open(tmp_path / "a.tif")):
        pixels = read(source).pixels
        assert np.abs(pixels - expected[..., None]).max() <= 0.51 / 65535
        assert pixels.max() == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("item", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.filterwarnings("ignore:.*floats are taken")
def test_tiles_of_predicted_floats_may_reach_beyond_the_edge(tmp_path: Path, order: str, item: int, count: int) -> None:
    """Technical Note 3: the bytes of a row of a tile by significance, each less the one before it."""
    values = np.stack([X / 10, Y / 6, (X + Y) / 16], axis=-1)[..., :count].astype(f">f{item}")
    padded = np.zeros((16, 16, count), values.dtype)
    padded[:6, :10] = values
    planes = padded.view(np.uint8).reshape(16, 16 * count, item).transpose(0, 2, 1).reshape(16, -1).copy()
    planes[:, count:] -= planes[:, :-count].copy()
    tile = zlib.compress(planes.tobytes())
    tags: dict[int, Any] = {256: (4, (10,)), 257: (4, (6,)), 258: (3, (8 * item,) * count), 259: (3, (8,))}
    tags |= {262: (3, (1 if count == 1 else 2,)), 277: (3, (count,)), 284: (3, (1,)), 317: (3, (3,))}
    tags |= {322: (4, (16,)), 323: (4, (16,)), 325: (4, (len(tile),)), 339: (3, (3,) * count)}
    (tmp_path / "a.tif").write_bytes(strips.tiff(order, tags, 324, [tile]))
    expected = np.broadcast_to(values.astype(np.float64), (6, 10, 3))
    assert np.abs(read(tmp_path / "a.tif").pixels - expected).max() < 1e-6


def test_a_height_of_letters_is_damage(tmp_path: Path) -> None:
    tags: dict[int, Any] = {256: (4, (10,)), 257: (2, b"<\0"), 258: (3, (8,)), 259: (3, (1,)), 262: (3, (1,))}
    tags |= {277: (3, (1,)), 278: (4, (6,)), 279: (4, (60,))}
    (tmp_path / "a.tif").write_bytes(strips.tiff("<", tags, 273, [bytes(60)]))
    with pytest.raises(ImageError, match="first directory is damaged"):
        read(tmp_path / "a.tif")
