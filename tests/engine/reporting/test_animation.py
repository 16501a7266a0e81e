"""Frames put aside and one moving picture at the end, in three formats, whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageSequence

from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.files import ImageError
from nstgpu.engine.reporting import animation
from nstgpu.engine.reporting.animation import Animation

SUFFIXES = (".webp", ".gif", ".png", ".apng")


def plain(level: float, height: int = 24, width: int = 32) -> npt.NDArray[np.float32]:
    return np.full((height, width, 3), level, np.float32)


def ramp(height: int, width: int) -> npt.NDArray[np.float32]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.dstack([x / width, y / height, 1 - x / width])


def frames_of(path: Path) -> list[tuple[npt.NDArray[np.float64], float]]:
    """Each frame's pixels (H, W, 3) in [0, 1], and the milliseconds that it is shown."""
    with Image.open(path) as image:
        shown = []
        for frame in ImageSequence.Iterator(image):
            frame.load()  # WebP has a frame's duration only then
            shown.append((np.asarray(frame.convert("RGB")) / 255, float(frame.info.get("duration", 0))))
        return shown


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_come_in_order_and_the_last_is_held(tmp_path: Path, suffix: str) -> None:
    levels = [0.0, 0.2, 0.4, 0.6]
    with Animation(tmp_path / f"a{suffix}", every=1) as film:
        for level in levels:
            film.add(plain(level))
        film.save(plain(0.8))
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    frames = frames_of(tmp_path / f"a{suffix}")
    assert [round(float(pixels.mean()), 1) for pixels, _ in frames] == [*levels, 0.8]
    durations = [shown for _, shown in frames]
    assert durations == [200, 200, 200, 200, 2000]
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.info["loop"] == 0  # endless


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_colours_survive(tmp_path: Path, suffix: str) -> None:
    with Animation(tmp_path / f"a{suffix}", every=1) as film:
        film.add(ramp(60, 80))
        film.save(1 - ramp(60, 80))
    (first, _), (last, _) = frames_of(tmp_path / f"a{suffix}")
    for pixels, expected in ((first, ramp(60, 80)), (last, 1 - ramp(60, 80))):
        assert np.abs(pixels - expected).mean() < {".webp": 0.03, ".gif": 0.03}.get(suffix, 0.5 / 255)
    if suffix != ".gif":  # which knows no profiles
        with Image.open(tmp_path / f"a{suffix}") as image:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_frames_take_the_last_ones_size(tmp_path: Path, suffix: str) -> None:
    with Animation(tmp_path / f"a{suffix}", every=1) as film:
        for height, width in ((12, 16), (24, 32), (900, 1200)):  # as from scale to scale
            film.add(ramp(height, width))
        film.save(1 - ramp(900, 1200))
    frames = frames_of(tmp_path / f"a{suffix}")
    assert [pixels.shape for pixels, _ in frames] == [(480, 640, 3)] * 4
    assert np.abs(frames[0][0] - ramp(480, 640)).mean() < 0.04  # the coarse one, enlarged


def test_a_run_that_ends_at_once_leaves_a_still(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        with Animation(tmp_path / f"a{suffix}", every=10) as film:
            film.save(plain(0.5))
        assert abs(frames_of(tmp_path / f"a{suffix}")[0][0].mean() - 0.5) < 0.01


def test_which_iterations_are_due(tmp_path: Path) -> None:
    with Animation(tmp_path / "a.webp", every=4) as film:
        assert [iteration for iteration in range(1, 14) if film.due(iteration)] == [1, 4, 8, 12]


def test_a_long_run_is_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "MOST_FRAMES", 5)
    with Animation(tmp_path / "a.png", every=2) as film:
        for iteration in range(1, 49):
            if film.due(iteration):
                film.add(plain(iteration / 255))
        assert film.every == 16
        film.save(plain(1))
    levels = [round(float(pixels.mean() * 255)) for pixels, _ in frames_of(tmp_path / "a.png")]
    assert levels == [1, 16, 32, 48, 255]


def test_frames_take_no_memory_while_the_run_goes_on(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)  # 120 kB as PNG
    with Animation(tmp_path / "a.webp", every=1) as film:
        film.add(noise)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(30):
                film.add(noise)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 200_000
    assert len(list(tmp_path.iterdir())) == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        with Animation(tmp_path / f"{name}{suffix}", every=1) as film:
            film.add(ramp(20, 30))
            film.save(1 - ramp(20, 30))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").touch()
    for name, every, said in (
        ("a.mp4", 1, r"an animation's name must end in one of \.webp, \.gif, \.png, \.apng"),
        ("a.webp", 0, "with a frame every 0 iterations; give 1 or more"),
        ("file/a.webp", 1, "file is no folder"),
        ("folder.gif", 1, "a folder has this name"),
    ):
        with pytest.raises(ImageError, match=said):
            Animation(tmp_path / name, every=every)


def test_frames_that_are_refused(tmp_path: Path) -> None:
    with Animation(tmp_path / "a.webp", every=1) as film:
        with pytest.raises(ImageError, match="cannot show the picture: the picture has NaN"):
            film.add(np.full((4, 4, 3), np.nan))
        with pytest.raises(ImageError, match=r"want \(H, W, 3\) floats, not uint8"):
            film.add(np.zeros((4, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_no_room_to_put_frames_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with (
        Animation(tmp_path / "a.webp", every=1) as film,
        pytest.raises(ImageError, match=r"a\.webp: No space left on device; make room, or set TMPDIR"),
    ):
        film.add(plain(0.5))


def test_a_disk_that_fails_halfway_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.webp").write_bytes(b"before")

    def fail(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with Animation(tmp_path / "a.webp", every=1) as film, pytest.raises(ImageError, match="No space left on device"):
        film.save(plain(0.5))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_an_encoder_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Animation(tmp_path / "a.gif", every=1) as film:
        film.add(plain(0.5))

        def fail(*_arguments: Any, **_options: Any) -> None:
            raise OSError("encoder error -2")

        monkeypatch.setattr(Image.Image, "save", fail)
        with pytest.raises(ImageError, match=r"cannot write .*a\.gif: encoder error -2; try another format"):
            film.save(plain(0.5))


def test_previews_are_small_and_of_masks_too() -> None:
    assert images.preview(ramp(300, 400), 200).size == (200, 150)
    assert images.preview(ramp(30, 40), 200).size == (40, 30)
    mask = images.preview(np.array([[0.0, 0.5, 1.0, 2.0]]), 200)
    assert np.asarray(mask)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3, [255] * 3]
