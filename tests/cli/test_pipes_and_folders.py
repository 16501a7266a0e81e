"""Pictures through pipes, folders that are named or missing, the home folder, and the number of threads in recipes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
