"""`nstgpu reconstruct`: a labelled row of pictures, painted back from noise."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from harness.commands import nstgpu
from nstgpu.cli import reconstruct
from nstgpu.engine.imaging import files as images

SHORT = ["--weights", "small.h5", "--iterations", "3", "--size", "32", "--device", "cpu"]


@pytest.fixture
def photo_folder(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a picture of soft stripes and a small network in it."""
    rows, columns = np.mgrid[:24, :32]
    stripes = 0.5 + 0.4 * np.sin(columns / 4 + rows / 9)[..., None] * np.array([1, 0.5, -0.7])
    images.save(tmp_path / "photo.png", stripes)
    shutil.copy(small_weights, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reconstructed(*arguments: str) -> Result:
    return nstgpu("reconstruct", *arguments)


def test_a_row_with_a_picture_per_layer(photo_folder: Path) -> None:
    result = reconstructed("photo.png", *SHORT)
    assert result.exit_code == 0, result.output
    sheet = images.read(photo_folder / "photo_content_layers.png").pixels
    assert sheet.shape[1] > 3 * 32  # the original, relu1_1 and relu2_1
    assert "painting the content of photo from relu1_1, relu2_1 with small.h5 on cpu" in result.stderr
    assert "wrote photo_content_layers.png (2 layers)" in result.stderr
    recipe = images.read_recipe(photo_folder / "photo_content_layers.png")
    assert recipe["content layers"] == "relu1_1, relu2_1"
    assert recipe["weights"] == "small.h5"
    assert recipe["iterations"] == "3"
    one = reconstructed("photo.png", *SHORT, "--layer", "block1_conv2", "-o", "one.jpg")
    assert one.exit_code == 0
    assert "wrote one.jpg (1 layer)" in one.stderr
    assert images.read(photo_folder / "one.jpg").pixels.shape[1] < sheet.shape[1]


def test_the_first_layer_gives_the_picture_back_and_its_style_does_not(photo_folder: Path) -> None:
    long = ["--weights", "small.h5", "--iterations", "150", "--size", "32", "--separate", "-q"]
    assert reconstructed("photo.png", *long, "-o", "content.png", "--layer", "relu1_1").exit_code == 0
    assert reconstructed("photo.png", *long, "-o", "style.png", "--layer", "relu1_1", "--style").exit_code == 0
    original, content, style = (
        images.read(photo_folder / name).pixels for name in ("photo.png", "content_relu1_1.png", "style_relu1_1.png")
    )
    assert content.shape == style.shape == original.shape
    assert np.abs(content - original).mean() < 0.03
    assert np.abs(style - original).mean() > 0.1
    np.testing.assert_allclose(style.mean(axis=(0, 1)), original.mean(axis=(0, 1)), atol=0.1)


def test_style_takes_the_classic_layers_up_to_the_one_named(photo_folder: Path) -> None:
    result = reconstructed("photo.png", *SHORT, "--style", "--separate", "--layer", "relu2_1", "--layer", "relu1_2")
    assert result.exit_code == 0, result.output
    names = {tap: f"photo_style_layers_{tap}.png" for tap in ("relu1_2", "relu2_1")}
    recipes = {tap: images.read_recipe(photo_folder / name) for tap, name in names.items()}
    for tap, expected in {"relu1_2": ["relu1_1", "relu1_2"], "relu2_1": ["relu1_1", "relu2_1"]}.items():
        assert [part.split("=")[0] for part in recipes[tap]["style layers"].split(", ")] == expected
        assert recipes[tap]["content layers"] == ""
    assert images.read_recipe(photo_folder / "photo_style_layers.png")["style layers"] == "relu1_2, relu2_1"


def test_same_seed_same_bytes_and_no_words(photo_folder: Path) -> None:
    for name, seed in (("a.png", "5"), ("b.png", "5"), ("c.png", "6")):
        result = reconstructed("photo.png", *SHORT, "-q", "-o", name, "--seed", seed)
        assert result.exit_code == 0
        assert result.output == ""
    a, b, c = ((photo_folder / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b
    assert a != c


def test_interrupted_it_still_writes_the_sheet(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def bar(_: bool) -> Iterator[Any]:
        yield lambda _tap, share: os.kill(os.getpid(), signal.SIGINT) if share < 0.2 else None

    monkeypatch.setattr(reconstruct, "_bar", bar)
    result = reconstructed("photo.png", *SHORT)
    assert result.exit_code == 0, result.output
    assert "wrote photo_content_layers.png (stopped at layer 1 of 2)" in result.stderr
    assert (photo_folder / "photo_content_layers.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png"),
        (["small.h5"], "small.h5"),
        (["photo.png", "-o", "out.bmp"], "out.bmp"),
        (["photo.png", "-o", "photo.png"], "photo.png is the input"),
        (["photo.png", "--layer", "relu4_1"], "relu1_1, relu1_2, relu2_1"),
        (["photo.png", "--pooling", "l2"], "max or average"),
        (["photo.png", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(photo_folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(photo_folder.iterdir())
    result = reconstructed(*SHORT, *arguments)
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("nstgpu: "))
    assert message in line
    assert "Traceback" not in result.output
    assert sorted(photo_folder.iterdir()) == before


def test_separate_pictures_spare_the_input(photo_folder: Path) -> None:
    shutil.copy("photo.png", "out_relu1_1.png")
    result = reconstructed("out_relu1_1.png", *SHORT, "--separate", "-o", "out.png")
    assert result.exit_code == 2
    assert "out_relu1_1.png is the input" in result.stderr
    np.testing.assert_array_equal(images.read("out_relu1_1.png").pixels, images.read(photo_folder / "photo.png").pixels)
