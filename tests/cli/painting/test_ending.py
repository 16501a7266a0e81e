"""How a run ends when it is told to, and where its picture goes when its own place takes no more."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.commands import PROGRAM
from nstgpu.cli import app
from nstgpu.cli.painting import rescue
from nstgpu.cli.terminal.stopping import asked_to_stop
from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.files import ImageError
from nstgpu.engine.optimizers import checkpoint


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)


def begun(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """A run without an end, once it is under way."""
    command = [*PROGRAM, "run", "content.jpg", "style.png", "--weights", "small.h5", "--iterations", "1000000"]
    command += ["--json", "log", "--checkpoint", "state.h5", *options]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((folder / "log").exists() and (folder / "log").read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_ctrl_c_does(folder: Path, number: signal.Signals) -> None:
    process = begun(folder)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert "stopped after" in stderr
    assert images.read(folder / "content_style.png").pixels.shape == (30, 40, 3)
    state, _ = checkpoint.read(folder / "state.h5")
    assert state.iteration == (folder / "log").read_text().count("\n")
    resumed = CliRunner().invoke(app, ["resume", "state.h5", "--iterations", str(state.iteration)])
    assert resumed.exit_code == 0, resumed.output


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_the_last_state_too(folder: Path) -> None:
    process = begun(folder, "--checkpoint-every", "1000")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert checkpoint.read(folder / "state.h5")[0].iteration == (folder / "log").read_text().count("\n")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_signals_that_are_somebody_elses_are_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with asked_to_stop() as stopped_by:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert stopped_by() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped_by() == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_signal_ends_at_once() -> None:
    program = (
        "import os, signal\nfrom nstgpu.cli.terminal.stopping import asked_to_stop\nwith asked_to_stop():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    os.kill(os.getpid(), signal.SIGTERM)\n    print('still here')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "")


def full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture can be written in this folder any more."""
    save = images.save

    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        if Path(os.path.abspath(path)).parent == folder:
            raise ImageError(f"cannot write {path}: No space left on device; choose another place")
        save(path, *arguments, **options)

    monkeypatch.setattr("nstgpu.engine.imaging.files.save", refuse)


RUN = ["run", "../folder/content.jpg", "../folder/style.png", "--weights", "../folder/small.h5", "--iterations", "2"]


def test_a_picture_without_a_place_goes_to_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, current = folder.parent / "full", folder.parent / "current"
    elsewhere.mkdir()
    current.mkdir()
    monkeypatch.chdir(current)
    (current / "out.png").write_text("precious")
    full(elsewhere, monkeypatch)
    result = CliRunner().invoke(app, [*RUN, "-o", "../full/out.png", "--checkpoint", "state.h5", "--json", "log"])
    assert result.exit_code == 1, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("nstgpu: "))
    assert "No space left on device" in line
    assert str(current / "out (2).png") in line
    assert images.read(current / "out (2).png").pixels.shape == (30, 40, 3)
    assert (current / "out.png").read_text() == "precious"
    assert (current / "state.h5").exists()


def test_or_to_the_folder_of_temporary_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(folder, monkeypatch)
    result = CliRunner().invoke(app, [*RUN, "-o", "out.png"])
    assert result.exit_code == 1, result.output
    (picture,) = (folder.parent / "temporary").glob("nstgpu-*/out.png")
    assert str(picture) in result.stderr
    assert images.read(picture).pixels.shape == (30, 40, 3)


def test_a_picture_that_can_go_nowhere_is_said_to_be_lost(folder: Path, tmp_path: Path) -> None:
    def write(path: Path) -> None:
        raise ImageError(f"cannot write {path}: no room")

    with pytest.raises(OSError, match=r"out\.png: no room"):
        rescue.written(tmp_path / "out.png", write)
    assert list((folder.parent / "temporary").iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_costs_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *_: Any) -> None:
        raise ImageError(f"cannot write {path}: No space left on device; choose another place")

    monkeypatch.setattr("nstgpu.engine.optimizers.checkpoint.write", refuse)
    options = ["--checkpoint", "state.h5", "--checkpoint-every", "0", "-o", "out.png"]
    result = CliRunner().invoke(app, [*RUN, *options])
    assert result.exit_code == 1
    assert result.stderr.count("No space left") == 1
    assert images.read(folder / "out.png").pixels.shape == (30, 40, 3)


def test_a_picture_that_is_lost_is_a_failure_and_is_still_in_the_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise ImageError(f"cannot write {path}: No space left on device; choose another place")

    monkeypatch.setattr("nstgpu.engine.imaging.files.save", refuse)
    result = CliRunner().invoke(app, [*RUN, "-o", "out.png", "--checkpoint", "state.h5", "--checkpoint-every", "1000"])
    assert result.exit_code == 1, result.output
    assert "nstgpu: cannot write out.png: No space left" in result.stderr
    assert checkpoint.read(folder / "state.h5")[0].iteration == 2


def test_a_run_goes_on_without_what_can_no_longer_be_written_beside_its_picture(folder: Path) -> None:
    """The folder of its side outputs has become a file."""
    state = "beside/state.h5"
    beside = ["--json", "beside/log", "--animation", "beside/way.webp", "--report", "beside/page.html"]
    first = CliRunner().invoke(app, [*RUN, "-o", "out.png", *beside, "--checkpoint", state, "--checkpoint-every", "0"])
    assert first.exit_code == 0, first.stderr
    before = (folder / "out.png").read_bytes()
    shutil.copy(folder / state, "copy.h5")
    shutil.rmtree("beside")
    Path("beside").write_text("precious")
    (folder / "out.png").unlink()
    result = CliRunner().invoke(app, ["resume", "copy.h5"])
    assert result.exit_code == 1
    assert (folder / "out.png").read_bytes() == before
    notes = [line for line in result.stderr.splitlines() if "left out" in line]
    assert [note.split()[1] for note in notes] == ["--animation", "--report", "--json"]
    assert all(f"{folder / 'beside'} is no folder" in note for note in notes)
    assert Path("beside").read_text() == "precious"
    os.remove("beside")
    again = CliRunner().invoke(app, ["resume", "copy.h5", "--iterations", "3"])
    assert again.exit_code == 0, again.stderr
    assert sorted(os.listdir("beside")) == ["log", "page.html", "way.webp"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder where nothing can be made")
def test_lines_of_json_that_cannot_be_begun_cost_no_run(folder: Path) -> None:
    result = CliRunner().invoke(app, [*RUN, "-o", "out.png", "--json", "/proc/self/log"])
    assert result.exit_code in (1, 2)  # 2: who may not write there is told before any work
    assert (folder / "out.png").exists() == (result.exit_code == 1)
    assert result.stderr.count("/proc/self/log") >= 1


def test_ctrl_c_while_the_command_line_is_loaded_shows_no_traceback() -> None:
    program = (
        "import runpy, sys\nclass Interrupted:\n    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\nrunpy.run_module('nstgpu', run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")
