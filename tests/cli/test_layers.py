"""`nstgpu layers`: contact sheets of a folder, and one line for whatever is wrong with it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nstgpu.cli import app
from nstgpu.engine.analysis.top_activations import TopActivations
from nstgpu.engine.imaging import files as images


@pytest.fixture
def photos_folder(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small network, and a folder of three pictures in it."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.jpg", "c.webp"):
        images.save(tmp_path / "photos" / name, rng.random((30, 40, 3)))
    shutil.copy(small_weights, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def layers(*arguments: str) -> Result:
    weights = [] if "--weights" in arguments else ["--weights", "small.h5"]
    few = [] if {"--unit", "--units"} & {*arguments} else ["--units", "3"]  # small sheets are soon written
    return CliRunner().invoke(app, ["layers", *arguments, *weights, *few, "--device", "cpu"])


def sheets(photos_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in photos_folder.iterdir()}


def test_a_sheet_for_every_layer(photos_folder: Path) -> None:
    result = layers("photos")
    assert result.exit_code == 0, result.output
    assert sorted(sheets(photos_folder / "photos_layers")) == ["relu1_1.png", "relu1_2.png", "relu2_1.png"]
    assert "showing 3 files to small.h5 on cpu" in result.stderr
    assert "wrote 3 sheets to photos_layers (3 pictures)" in result.stderr
    recipe = images.read_recipe(photos_folder / "photos_layers" / "relu2_1.png")
    assert recipe["weights"] == "small.h5"
    assert recipe["layer"] == "relu2_1"


def test_same_pictures_same_bytes(photos_folder: Path) -> None:
    """Neither the run nor the order in which the pictures are found matters."""
    assert layers("photos", "-o", "first").exit_code == 0
    assert layers("photos", "-o", "second").exit_code == 0
    (photos_folder / "reversed").mkdir()
    named = [f"photos/{name}" for name in ("c.webp", "b.jpg", "a.png")]
    assert layers(*named, "-o", "third").exit_code == 0
    assert sheets(photos_folder / "first") == sheets(photos_folder / "second") == sheets(photos_folder / "third")


def test_layers_and_units_can_be_chosen(photos_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, Any]] = []
    made = TopActivations.__init__

    def spy(self: TopActivations, *args: Any, **settings: Any) -> None:
        built.append(settings)
        made(self, *args, **settings)

    monkeypatch.setattr(TopActivations, "__init__", spy)
    chosen = layers(
        "photos", "-o", "out", "--layer", "block2_conv1", "--layer", "relu1_2", "--unit", "3", "--unit", "5"
    )
    assert chosen.exit_code == 0, chosen.output
    assert sorted(sheets(photos_folder / "out")) == ["relu1_2.png", "relu2_1.png"]
    assert layers("photos", "-o", "out", "--force", "--units", "2", "--size", "20", "--threads", "1").exit_code == 0
    assert built[0]["layers"] == ["block2_conv1", "relu1_2"]
    assert built[0]["units"] == [3, 5]
    assert (built[1]["units"], built[1]["size"], built[1]["threads"]) == (2, 20, 1)


def test_what_is_no_picture_is_skipped_with_a_line(photos_folder: Path) -> None:
    (photos_folder / "photos" / "notes.txt").write_text("buy milk")
    (photos_folder / "photos" / "cut.png").write_bytes((photos_folder / "photos" / "a.png").read_bytes()[:200])
    images.save(photos_folder / "photos" / "dot.png", np.zeros((1, 1, 3)))
    (photos_folder / "photos" / ".hidden").write_text("passed by")
    (photos_folder / "photos" / "more").mkdir()
    result = layers("photos")
    assert result.exit_code == 0, result.output
    skipped = sorted(line for line in result.stderr.splitlines() if line.startswith("skipped: "))
    assert len(skipped) == 3
    for line, name in zip(skipped, ("cut.png", "dot.png", "notes.txt"), strict=True):
        assert name in line
    assert "showing 6 files" in result.stderr
    assert "(3 pictures)" in result.stderr


def test_quiet_says_nothing(photos_folder: Path) -> None:
    (photos_folder / "photos" / "notes.txt").write_text("buy milk")
    result = layers("photos", "-q")
    assert result.exit_code == 0
    assert result.output == ""
    assert len(sheets(photos_folder / "photos_layers")) == 3


def test_interrupted_it_still_writes_the_sheets(photos_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see = TopActivations.update

    def interrupted(self: TopActivations, *args: Any) -> None:
        if self.images == 2:
            raise KeyboardInterrupt
        see(self, *args)

    monkeypatch.setattr(TopActivations, "update", interrupted)
    result = layers("photos")
    assert result.exit_code == 0, result.output
    assert "(stopped after 2 of 3 files)" in result.stderr
    assert len(sheets(photos_folder / "photos_layers")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "there is no file in empty"),
        (["rubbish"], "none of the 2 files in rubbish could be used"),
        (["missing.png"], "missing.png"),
        (["photos", "rubbish/notes.txt"], "notes.txt"),
        (["photos", "-o", "photos"], "the pictures are in photos themselves"),
        (["photos", "-o", "small.h5"], "small.h5 is a file"),
        (["photos", "-o", "small.h5/out"], "small.h5 is no folder"),
        (["photos", "--layer", "relu5_1"], "relu1_1, relu1_2, relu2_1"),
        (["photos", "--unit", "8"], "relu1_1 has no unit 8: its units are 0 to 7"),
        (["photos", "--unit", "1", "--units", "2"], "--unit and --units exclude each other"),
        (["photos", "--weights", "photos/a.png"], "a.png"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(photos_folder: Path, arguments: list[str], message: str) -> None:
    (photos_folder / "empty").mkdir()
    (photos_folder / "rubbish").mkdir()
    for name in ("notes.txt", "more.txt"):
        (photos_folder / "rubbish" / name).write_text("buy milk")
    before = sorted(photos_folder.rglob("*"))
    result = layers(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("nstgpu: "))
    assert message in line
    assert "Traceback" not in result.output
    assert sorted(photos_folder.rglob("*")) == before


@pytest.mark.usefixtures("photos_folder")
def test_untrained_weights_are_said_to_be_so(thin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstgpu.weights.load_weights", lambda *_, **__: thin([[4]]))
    result = layers("photos")
    assert result.exit_code == 0, result.output
    assert "note: thin:0 is not trained" in result.stderr


def test_real_filters_know_colours_and_edges(photos_folder: Path, shared_data: Path) -> None:
    """VGG-19's first layer on a picture with one red square on gray: some unit is excited by its inside alone."""
    image = np.full((40, 40, 3), 0.5)
    image[10:30, 10:30] = (1, 0, 0)
    images.save(photos_folder / "square.png", image)
    from nstgpu.weights import load_weights

    observer = TopActivations(
        load_weights(shared_data / "weights" / "vgg19_blocks1to3.h5"), layers=["relu1_1"], units=64
    )
    observer.update(photos_folder / "square.png")
    patches = [[e.patch for e in unit.excitations] for unit in observer.units("relu1_1")]
    assert any(len(those) == 9 and all((p == (255, 0, 0)).all() for p in those) for those in patches)
    assert any((those[0] == (255, 0, 0)).all(axis=2).sum() in range(2, 8) for those in patches)
