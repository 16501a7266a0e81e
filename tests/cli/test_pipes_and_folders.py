"""Pictures through pipes, folders that are named or missing, the home folder, and the number of threads in recipes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nstgpu.cli import app
from nstgpu.engine.imaging import files as images

QUICK = ["--size", "32", "--scales", "1", "--iterations", "1", "--device", "cpu", "--weights", "mini", "-q"]


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("content.png", "style.png"):
        images.save(folder / name, rng.random((24, 32, 3)).astype(np.float32))


def nstgpu(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from nstgpu.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, timeout=120, check=False)


def test_standard_input_into_a_folder_that_is_made(tmp_path: Path) -> None:
    pictures(tmp_path)
    content = (tmp_path / "content.png").read_bytes()
    done = nstgpu(tmp_path, "run", "-", "style.png", "-o", "new/deep/", *QUICK, given=content)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["stdin_style.png"]
    again = nstgpu(tmp_path, "run", "content.png", "style.png", "-o", "new/plain.png", *QUICK)
    assert again.returncode == 0, again.stderr
    one, other = (images.read(tmp_path / "new" / name).pixels for name in ("deep/stdin_style.png", "plain.png"))
    np.testing.assert_array_equal(one, other)
    assert "threads = " in images.read_recipe(tmp_path / "new" / "plain.png")["nstgpu recipe"]


def test_addresses_are_not_fetched_and_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    done = nstgpu(tmp_path, "run", "https://example.org/a.jpg", "style.png", *QUICK)
    assert done.returncode == 2
    assert b"https://example.org/a.jpg: https addresses are not fetched" in done.stderr
    monkeypatch.setenv("HOME", str(tmp_path))
    done = nstgpu(tmp_path, "run", "content.png", "--style=~/style.png", "--output=~/home.png", *QUICK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home.png").is_file()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["-o", "new/x.png", "--colors", "pink"], "pink"),
        (["-o", "new/x.bmp"], ".bmp"),
        (["-o", "new/", "--seed", str(1 << 63)], "--seed"),
        (["-o", "new/", "--min-size", str(1 << 21)], "--min-size"),
        (["-o", "new/", "--style-size", str(1 << 21)], "--style-size"),
        (["-o", "style.png/x.png"], "style.png"),
        (["-o", "style.png/deep/x.png"], "style.png"),
    ],
)
def test_wrong_options_make_no_folder(
    wrong: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        app(["run", "content.png", "style.png", *QUICK, *wrong])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert sorted(tmp_path.iterdir()) == before


def test_side_outputs_go_into_the_folder_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    call = ["run", "content.png", "style.png", *QUICK, "-o", "new/deep/", "--json", "new/deep/costs.json"]
    with pytest.raises(SystemExit) as end:
        app([*call, "--dry-run"])
    assert end.value.code == 0
    assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit) as end:
        app(call)
    assert end.value.code == 0
    assert sorted(path.name for path in (tmp_path / "new" / "deep").iterdir()) == ["content_style.png", "costs.json"]


def test_folders_are_made_when_a_run_begins_and_not_before(tmp_path: Path) -> None:
    pictures(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outputs = ["-o", "new/a.png", "--animation", "gifs/a.gif", "--json", "lines/a.json", "--checkpoint", "ck/a.h5"]
    done = nstgpu(tmp_path, "run", "content.png", "style.png", *outputs, "--dry-run", *QUICK)
    assert done.returncode == 0, done.stderr
    wrong = nstgpu(tmp_path, "run", "content.png", "style.png", "--colors", "no", "-o", "new/", *QUICK)
    assert wrong.returncode == 2
    assert sorted(tmp_path.rglob("*")) == before
    done = nstgpu(tmp_path, "run", "content.png", "style.png", *outputs, *QUICK)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / outputs[at]).is_file() for at in (1, 3, 5, 7))


def test_tilde_behind_equals_is_home_in_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nstgpu.cli import _at_home

    monkeypatch.setenv("HOME", str(tmp_path))
    assert _at_home("--weights=~/x.h5") == f"--weights={tmp_path}/x.h5"
    assert _at_home("-o~/x.png") == f"-o{tmp_path}/x.png"
    assert _at_home("~") == str(tmp_path)
    assert [_at_home(text) for text in ("a~b", "--style=a=~", "./~")] == ["a~b", "--style=a=~", "./~"]
