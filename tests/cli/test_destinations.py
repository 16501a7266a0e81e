"""Where every command may write: `-`, folders that are there or missing, files that are there already."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from harness.commands import nstgpu
from nstgpu.cli import app
from nstgpu.engine.imaging import files as images

RECONSTRUCT = ["reconstruct", "content.jpg", "--weights", "small.h5", "--iterations", "1", "--size", "16", "-q"]
LAYERS = ["layers", "content.jpg", "--weights", "small.h5", "--units", "1", "-q"]
PROFILE = ["profile", "--weights", "small.h5", "--size", "16", "--device", "cpu", "--rounds", "2"]
RUN = ["run", "content.jpg", "style.png", "--weights", "small.h5", "--iterations", "1", "--size", "16", "-q"]


def refused(result: Result, said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_reconstruct_writes_a_png_to_standard_output(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    before = sorted(os.listdir(folder))
    with pytest.raises(SystemExit) as end:
        app([*RECONSTRUCT, "-o", "-"])
    assert end.value.code == 0
    piped = capfdbinary.readouterr().out
    assert sorted(os.listdir(folder)) == before
    assert nstgpu(*RECONSTRUCT, "-o", "named.png").exit_code == 0
    assert piped == (folder / "named.png").read_bytes()
    assert np.asarray(Image.open(io.BytesIO(piped))).ndim == 3


@pytest.mark.usefixtures("folder")
def test_reconstruct_has_no_names_for_separate_pictures_there() -> None:
    refused(nstgpu(*RECONSTRUCT, "-o", "-", "--separate"), "--output - gives --separate no names")


def test_reconstruct_writes_into_folders(folder: Path) -> None:
    assert nstgpu(*RECONSTRUCT, "-o", "new/deep/").exit_code == 0
    assert os.listdir(folder / "new" / "deep") == ["content_content_layers.png"]
    assert nstgpu(*RECONSTRUCT, "-o", "new/deep").exit_code == 0
    assert (folder / "new" / "deep" / "content_content_layers (2).png").is_file()
    assert nstgpu(*RECONSTRUCT, "-o", "fresh/sheet.webp").exit_code == 0
    refused(nstgpu(*RECONSTRUCT, "-o", "fresh/sheet.webp"), "fresh/sheet.webp exists already")
    assert nstgpu(*RECONSTRUCT, "-o", "fresh/sheet.webp", "--force").exit_code == 0


def test_layers_wants_a_folder(folder: Path) -> None:
    refused(nstgpu(*LAYERS, "-o", "-"), "--output - has no room for a sheet a layer")
    refused(nstgpu(*LAYERS, "-o", "style.png"), "style.png is a file; give --output a folder")
    assert not (folder / "-").exists()
    assert nstgpu(*LAYERS, "-o", "new/sheets/").exit_code == 0
    assert (folder / "new" / "sheets" / "relu1_1.png").is_file()
    refused(nstgpu(*LAYERS, "-o", "new/sheets"), "exists already")
    assert nstgpu(*LAYERS, "-o", "./-").exit_code == 0
    assert (folder / "-" / "relu1_1.png").is_file()


def test_profile_writes_whole_files_where_there_are_none(folder: Path) -> None:
    refused(nstgpu(*PROFILE, "--json", "numbers/"), "--json numbers/ is a folder; name the file")
    refused(nstgpu(*PROFILE, "--json", "style.png/a.json"), "style.png is no folder")
    assert nstgpu(*PROFILE, "--json", "numbers/a.json").exit_code == 0
    assert os.listdir(folder / "numbers") == ["a.json"]
    refused(nstgpu(*PROFILE, "--json", "numbers/a.json"), "numbers/a.json exists already")
    assert nstgpu(*PROFILE, "--json", "numbers/a.json", "--force").exit_code == 0


@pytest.mark.parametrize("option", ["--json", "--animation", "--report", "--checkpoint"])
@pytest.mark.parametrize("there", [True, False])
def test_side_outputs_of_a_run_are_files(folder: Path, option: str, there: bool) -> None:
    if there:
        (folder / "side").mkdir()
    before = sorted(os.listdir(folder))
    refused(nstgpu(*RUN, option, "side/"), f"{option} side/ is a folder; name the file to write in it")
    assert sorted(os.listdir(folder)) == before


def test_a_picture_out_of_a_pipe_gives_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nstgpu.engine.imaging.codecs import decoding

    picture = images.encode(np.full((24, 32, 3), 0.5, np.float32))
    monkeypatch.setattr(decoding, "_standard_input", lambda: picture)
    rest = RECONSTRUCT[2:]
    assert nstgpu("reconstruct", "-", *rest).exit_code == 0
    assert (folder / "stdin_content_layers.png").is_file()
