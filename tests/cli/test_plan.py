"""`nstgpu plan`."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from harness.commands import nstgpu
from nstgpu.cli import OneLineErrors
from nstgpu.cli.plan import plan
from nstgpu.engine.memory import spill

app = typer.Typer(cls=OneLineErrors)
app.command(name="plan")(plan)
app.command(name="other")(lambda: None)  # with two commands, the first is named


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((60, 90, 3), 99, np.uint8)).save(path)
    return str(path)


@pytest.mark.usefixtures("no_disk")
def test_a_table_and_the_settings_for_the_size_asked_for(small_weights: Path, photo: str) -> None:
    common = ("plan", photo, "--device", "cpu", "--threads", "1", "--weights", str(small_weights))
    shown = nstgpu(*common, "--size", "900", "--memory", "0.08")
    assert shown.exit_code == 0, shown.output
    assert "512x341" in shown.stdout
    assert "900x600" in shown.stdout
    assert "does not fit" in shown.stdout  # further down
    assert "small.h5 on cpu (fp32), adam, 0.08 GiB of memory" in shown.stdout
    (advice,) = (line for line in shown.stdout.splitlines() if line.startswith("900x600: "))
    assert f"nstgpu run {photo} STYLE --size 900 --tile " in advice
    assert " tiles of " in advice


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be kept in files."""
    monkeypatch.setattr(spill, "passing_folder", lambda: None)


def test_files_are_told_of_with_their_size(
    small_weights: Path, photo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spill, "passing_folder", lambda: tmp_path)
    monkeypatch.setattr(spill, "disk_space", lambda: 70 << 20)
    common = ("plan", photo, "--device", "cpu", "--threads", "1", "--weights", str(small_weights), "--tile", "128")
    shown = nstgpu(*common, "--size", "900", "--memory", "0.04")
    assert shown.exit_code == 0, shown.output
    assert "In files" in shown.stdout
    (advice,) = (line for line in shown.stdout.splitlines() if line.startswith("900x600: "))
    assert " GiB in files, about " in advice
    (row,) = (line for line in shown.stdout.splitlines() if "2048x1365" in line)
    assert "does not fit" in row  # on the disk
    facts = json.loads(nstgpu(*common, "--size", "900", "--memory", "0.04", "--json").stdout)["asked"]
    assert 0 < facts["files"] <= 70 << 20
    assert facts["bytes"] + facts["files"] == sum(facts["parts"].values())


@pytest.mark.usefixtures("no_disk")
def test_json_has_the_same_facts(small_weights: Path) -> None:
    common = ("plan", "--device", "cpu", "--threads", "1", "--weights", str(small_weights), "--memory", "0.05")
    shown = nstgpu(*common, "--size", "640", "--tile", "off", "--json")
    assert shown.exit_code == 0, shown.output
    facts = json.loads(shown.stdout)
    assert facts["memory"] == int(0.05 * 2**30)
    sizes = {row["width"]: row for row in facts["sizes"]}
    assert facts["asked"] == sizes[640]
    for row in sizes.values():
        assert row["fits"] == (row["bytes"] <= facts["memory"])
        assert row["fits"] == (row["width"] <= facts["largest"]["whole"])
        assert row["tiles"] == 1
        assert row["bytes"] == row["whole_bytes"] == sum(row["parts"].values())
        assert row["files"] == 0
        assert 0 < row["seconds_per_iteration"] < row["seconds"]


def test_the_emulator_has_no_times(small_weights: Path) -> None:
    from nstgpu.kernels.emulator import NoCompilerError, find_compiler

    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    shown = nstgpu("plan", "--device", "emulator", "--weights", str(small_weights), "--memory", "0.05")
    assert shown.exit_code == 0, shown.output
    assert "Iteration" not in shown.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile", "large"), "auto, off, or the side of a tile"),
        (("--tile", "0"), "auto, off, or the side of a tile"),
        (("--memory", "0"), "above zero"),
        (("--optimizer", "sgd"), "adam, lbfgs, descent"),
        (("--size", "1000000"), "at most 131072"),
        (("nowhere.png",), "nowhere.png"),
        (("--style-statistics", "w2+w2"), "nstgpu: the style statistics w2 are given twice"),
        (("--style-statistics", "sliced", "--tile", "64"), "nstgpu: the style statistics sliced look at a whole"),
    ],
)
def test_what_cannot_be_planned_is_named(small_weights: Path, options: tuple[str, ...], message: str) -> None:
    shown = nstgpu("plan", "--weights", str(small_weights), *options)
    assert shown.exit_code == 2
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_a_disk_that_is_too_small_is_named(
    small_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spill, "passing_folder", lambda: tmp_path)
    monkeypatch.setattr(spill, "disk_space", lambda: 40 << 20)
    options = ("--device", "cpu", "--threads", "1", "--weights", str(small_weights), "--memory", "0.03")
    shown = nstgpu("plan", *options, "--size", "2048")
    assert shown.exit_code == 0, shown.output
    assert "disk too small" in shown.stdout
    assert "and the disk has less" in shown.stdout.replace("\n", " ")


def test_panoramas_are_planned_from_the_first_scale_they_run_at(small_weights: Path, tmp_path: Path) -> None:
    banner = tmp_path / "banner.png"
    Image.fromarray(np.full((4, 400, 3), 99, np.uint8)).save(banner)
    common = ("plan", str(banner), "--device", "cpu", "--threads", "1", "--weights", str(small_weights))
    shown = nstgpu(*common, "--memory", "2")  # in which the largest takes few tiles
    assert shown.exit_code == 0, shown.output
    assert "400x4" in shown.stdout
    small = nstgpu(*common, "--size", "128")
    assert small.exit_code == 2
    assert "banner.png is 128x1 px, too small for relu2_1, which needs 2 px on the short side" in small.stderr
    assert "take a size of 150" in small.stderr
    assert nstgpu(*common, "--size", "150", "--memory", "2").exit_code == 0


def test_iterations_that_fall(small_weights: Path, photo: str) -> None:
    common = ("plan", photo, "--device", "cpu", "--threads", "1", "--weights", str(small_weights), "--json")

    def seconds(iterations: str) -> float:
        shown = nstgpu(*common, "--iterations", iterations)
        assert shown.exit_code == 0, shown.output
        asked = json.loads(shown.stdout)["asked"]
        return float(asked["seconds"] / asked["seconds_per_iteration"])

    assert seconds("100..50") == pytest.approx(100)  # 90 px have one scale
    for wrong, said in (("3,2", "is a list"), ("0", "at least 1"), ("5..0", "at least 1"), ("1..2..3", "--iterations")):
        refused = nstgpu(*common, "--iterations", wrong)
        assert refused.exit_code == 2
        assert said in refused.stderr
