"""The command line as a user meets it: pictures, progress, one-line errors and exit codes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nstgpu import __version__
from nstgpu.cli import app
from nstgpu.engine import images


@pytest.fixture
def folder(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pictures and a small network in it."""
    rng = np.random.default_rng(0)
    images.save(tmp_path / "content.jpg", rng.random((30, 40, 3)))
    images.save(tmp_path / "style.png", rng.random((25, 35, 3)))
    shutil.copy(small_weights, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SHORT = ["--weights", "small.h5", "--iterations", "4"]


def nstgpu(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_run_writes_a_picture_with_its_recipe(folder: Path) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *SHORT)
    assert result.exit_code == 0, result.output
    picture = images.read(folder / "content_style.png")
    assert picture.pixels.shape == (30, 40, 3)
    recipe = images.read_recipe(folder / "content_style.png")
    assert recipe["weights"] == "small.h5"
    assert recipe["iterations"] == "4"
    assert re.search(r"total [\d.]+", recipe["costs"])
    assert "wrote content_style.png (4 iterations" in result.stderr
    assert "painting 40x30 with small.h5 on cpu" in result.stderr
    assert "note: the weights small.h5 end at relu2_1" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "content.jpg",
        "content_style.png",
        "small.h5",
        "style.png",
    ]


def test_every_option_reaches_the_run(folder: Path) -> None:
    result = nstgpu(
        "run", "content.jpg", "style.png", *SHORT, "-o", "out.webp", "--size", "24", "--device", "reference",
        "--precision", "fp32", "--content-weight", "2.5", "--style-weight", "1e3", "--tv-weight", "0.5",
        "--content-layer", "relu1_2", "--style-layer", "block1_conv1=0.5", "--style-layer", "relu2_1",
        "--content-reduction", "sum", "--optimizer", "descent", "--learning-rate", "1e-9", "--init", "noise",
        "--seed", "7", "--pooling", "average", "--style-scale", "0.75",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe = images.read_recipe(folder / "out.webp")
    expected = {
        "device": "reference", "precision": "fp32", "size": "24x18", "content weight": "2.5 (sum)",
        "style weight": "1000.0", "tv weight": "0.5", "style layers": "relu1_1=0.5, relu2_1=1", "init": "noise",
        "optimizer": "descent, learning rate 1e-09", "seed": "7", "pooling": "average",
    }  # fmt: skip
    assert {name: recipe[name] for name in expected} == expected
    assert recipe["content layers"].startswith("relu1_2=")


def test_json_lines_and_intermediate_pictures(folder: Path) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *SHORT, "--json", "log.jsonl", "--save-every", "2", "--quiet")
    assert result.exit_code == 0
    assert result.output == ""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["costs"]["total"] < lines[0]["costs"]["total"]
    assert set(lines[0]["costs"]["per_layer"]) == {"relu1_1", "relu2_1", "relu2_1 content"}
    assert lines[0]["seconds"] > 0
    final, fourth = (images.read(folder / f"content_style{part}.png").pixels for part in ("", "_0004"))
    assert (folder / "content_style_0002.png").exists()
    np.testing.assert_array_equal(final, fourth)


def test_same_seed_same_bytes(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        assert nstgpu("run", "content.jpg", "style.png", *SHORT, "--init", "noise", "-o", name).exit_code == 0
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg", "style.png"], "missing.jpg"),
        (["content.jpg", "small.h5"], "small.h5"),
        (["content.jpg", "style.png", "-o", "out.bmp"], "out.bmp"),
        (["content.jpg", "style.png", "-o", "nowhere/out.png"], "nowhere"),
        (["content.jpg", "style.png", "-o", "style.png"], "style.png is an input"),
        (["content.jpg", "style.png", "--json", "content.jpg"], "content.jpg is an input"),
        (["content.jpg", "style.png", "--weights", "style.png"], "style.png"),
        (["content.jpg", "style.png", "--weights", "random:x"], "random:x"),
        (["content.jpg", "style.png", "--device", "tpu"], "unknown device 'tpu'"),
        (["content.jpg", "style.png", "--precision", "fp8"], "fp8"),
        (["content.jpg", "style.png", "--style-layer", "relu5_1"], "relu1_1, relu1_2, relu2_1"),
        (["content.jpg", "style.png", "--style-layer", "relu1_1=much"], "'much' is not a number"),
        (["content.jpg", "style.png", "--style-layer", "relu1_1=1", "--style-layer", "relu1_1=2"], "given twice"),
        (["content.jpg", "style.png", "--optimizer", "sgd"], "adam, descent"),
        (["content.jpg", "style.png", "--learning-rate", "-1"], "learning rate"),
        (["content.jpg", "style.png", "--pooling", "l2"], "max or average"),
        (["content.jpg", "style.png", "--init", "elsewhere.png"], "elsewhere.png"),
        (["content.jpg", "style.png", "--content-weight", "0", "--style-weight", "0"], "weigh nothing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.iterdir())
    weights = [] if "--weights" in arguments else SHORT
    result = nstgpu("run", *arguments, *weights)
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("nstgpu: "))
    assert message in line
    assert "Traceback" not in result.output
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("arguments", [["--size", "big"], ["--size", "4"], ["--iterations", "0"], ["--nonsense"]])
def test_usage_errors_are_exit_code_2(folder: Path, arguments: list[str]) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *arguments)
    assert result.exit_code == 2
    assert not (folder / "content_style.png").exists()


@pytest.mark.usefixtures("folder")
def test_a_failure_is_exit_code_1_and_debug_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object, **__: object) -> None:
        from nstgpu.engine.optimise import NonFiniteCostError

        raise NonFiniteCostError("the cost is not finite at iteration 7: the step is too large")

    monkeypatch.setattr("nstgpu.engine.optimise.minimise", diverge)
    result = nstgpu("run", "content.jpg", "style.png", *SHORT)
    assert result.exit_code == 1
    assert "nstgpu: the cost is not finite at iteration 7" in result.stderr
    monkeypatch.setattr(sys, "argv", ["nstgpu", "run", "--debug"])
    result = nstgpu("run", "content.jpg", "style.png", *SHORT, "--debug")
    assert type(result.exception).__name__ == "NonFiniteCostError"


def test_version() -> None:
    for arguments in (["--version"], ["run", "--version"]):
        result = nstgpu(*arguments)
        assert result.exit_code == 0
        assert result.stdout == f"nstgpu {__version__}\n"


@pytest.mark.usefixtures("folder")
def test_untrained_weights_are_announced() -> None:
    result = nstgpu("run", "content.jpg", "style.png", "--iterations", "1", "--size", "32")
    assert result.exit_code == 0, result.output
    assert len([line for line in result.stderr.splitlines() if "no trained weights" in line]) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_a_real_process_still_writes_the_picture(folder: Path) -> None:
    command = [sys.executable, "-c", "from nstgpu.cli import main; main()", "run", "content.jpg", "style.png"]
    command += ["--weights", "small.h5", "--iterations", "100000", "--json", "log.jsonl"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((folder / "log.jsonl").exists() and (folder / "log.jsonl").read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert re.search(r"stopped after \d+ of 100000 iterations", " ".join(stderr.split()))
    assert images.read(folder / "content_style.png").pixels.shape == (30, 40, 3)


def test_the_installed_command_runs(folder: Path) -> None:
    command = Path(sys.executable).with_name("nstgpu")
    result = subprocess.run(
        [str(command), "run", "content.jpg", "style.png", *SHORT],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "content_style.png").exists()
    wrong = subprocess.run(
        [str(command), "run", "a.jpg", "b.jpg"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
