"""Standard output that knows few characters, or whose reader leaves: real processes, as a shell starts them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.commands import PROGRAM
from nstgpu.cli import app
from nstgpu.engine.imaging import files as images


def environment(encoding: str) -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "100"}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_commands_work_where_output_knows_few_characters(tmp_path: Path, encoding: str) -> None:
    """All in one process, which is quicker; the encoding is the process's."""
    names = [command.name or "" for command in app.registered_commands]
    calls = [["--help"], *([name, "--help"] for name in names), ["weights", "--help"], ["weights", "list"]]
    calls += [
        ["weights", "inspect", "mini"],
        ["weights", "inspect", "\u221a\u20ac.h5"],
        ["doctor"],
        ["run", "\u221a.png", "b.png"],
    ]
    code = f"""
import sys
from nstgpu.cli import app
for call in {calls!a}:
    try:
        app(call)
    except SystemExit as end:
        print("exit", end.code, *map(ascii, call))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(encoding), capture_output=True, check=False
    )
    errors = done.stderr.decode(encoding)
    assert "Traceback" not in errors
    assert "unexpected" not in errors
    ends = [line.split()[1] for line in done.stdout.decode(encoding).splitlines() if line.startswith("exit ")]
    assert ends == ["0"] * (len(calls) - 3) + ["2", "0", "2"], errors
    assert errors.count("\\u221a") == 2


@pytest.mark.skipif(os.name == "nt", reason="pipes")
@pytest.mark.parametrize("arguments", [["run", "--help"], ["weights", "list"], ["weights", "inspect", "mini"]])
def test_a_reader_that_leaves_ends_a_command_in_silence(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run([*PROGRAM, *arguments], stdout=gone, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_leaves_does_not_end_a_run(tmp_path: Path, small_weights: Path) -> None:
    for name in ("content.png", "style.png"):
        images.save(tmp_path / name, np.random.default_rng(0).random((20, 24, 3)))
    run = ["run", "content.png", "style.png", "--weights", str(small_weights), "--iterations", "5", "--json", "-"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(
            [*PROGRAM, *run], cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "wrote content_style.png (5 iterations" in done.stderr
    assert images.read(tmp_path / "content_style.png").pixels.shape == (20, 24, 3)


@pytest.mark.skipif(os.name == "nt", reason="a shell's redirections")
def test_closed_streams_leave_the_exit_code_as_it_is(tmp_path: Path) -> None:
    """Bad input stays bad input where nobody can be told; what is to go to a closed standard output is refused."""

    def ended(arguments: str, closed: str) -> "subprocess.CompletedProcess[bytes]":
        script = f'exec "$@" {arguments} {closed}'
        command = ["sh", "-c", script, "sh", *PROGRAM]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)

    assert ended("run nowhere.png style.png", "2>&-").returncode == 2
    assert ended("run --nonsense", "2>&- >&-").returncode == 2
    (tmp_path / "picture.png").touch()
    done = ended("run picture.png picture.png --json -", ">&-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"nstgpu: --json - writes to standard output, which is closed; name a file\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--sise", "3"], "No such option: --sise"),
        (["run", "--size", "banana"], "--size is 'banana'"),
        (["run", "--style"], "'--style' requires an argument"),
        (["run", "a", "b", "c\x1b[2J"], "c\\x1b[2J"),
        (["weights", "show"], "No such command 'show'"),
        (["resume"], "Missing argument 'FILE'"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit) as end:
        app(arguments, prog_name="nstgpu")
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert "--help" in shown.err


@pytest.mark.parametrize("columns", [24, 40, 80])
def test_help_names_every_option_in_full_at_any_width(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for call, names in {
        ("run", "--help"): ["--style-statistics", "--stop-when-settled", "--checkpoint-every", "CONTENT"],
        ("--help",): ["reconstruct", "weights"],
        ("weights", "--help"): ["convert"],
    }.items():
        with pytest.raises(SystemExit) as end:
            app(list(call), prog_name="nstgpu")
        shown = capsys.readouterr().out
        assert end.value.code == 0
        assert max(map(len, shown.splitlines())) <= columns
        assert all(name in shown for name in names)
