"""Pictures through pipes, folders that are named or missing, the home folder, and the number of threads in recipes."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.commands import nstgpu_in
from nstgpu.cli import app
from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.codecs import decoding

QUICK = ["--size", "32", "--scales", "1", "--iterations", "1", "--device", "cpu", "--weights", "mini", "-q"]


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("content.png", "style.png"):
        images.save(folder / name, rng.random((24, 32, 3)).astype(np.float32))


@pytest.mark.slow
def test_standard_input_into_a_folder_that_is_made(tmp_path: Path) -> None:
    pictures(tmp_path)
    content = (tmp_path / "content.png").read_bytes()
    done = nstgpu_in(tmp_path, "run", "-", "style.png", "-o", "new/deep/", *QUICK, given=content)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["stdin_style.png"]
    again = nstgpu_in(tmp_path, "run", "content.png", "style.png", "-o", "new/plain.png", *QUICK)
    assert again.returncode == 0, again.stderr
    one, other = (images.read(tmp_path / "new" / name).pixels for name in ("deep/stdin_style.png", "plain.png"))
    np.testing.assert_array_equal(one, other)
    assert "threads = " in images.read_recipe(tmp_path / "new" / "plain.png")["nstgpu recipe"]


def test_addresses_are_not_fetched_and_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    done = nstgpu_in(tmp_path, "run", "https://example.org/a.jpg", "style.png", *QUICK)
    assert done.returncode == 2
    assert b"https://example.org/a.jpg: https addresses are not fetched" in done.stderr
    monkeypatch.setenv("HOME", str(tmp_path))
    done = nstgpu_in(tmp_path, "run", "content.png", "--style=~/style.png", "--output=~/home.png", *QUICK)
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
    done = nstgpu_in(tmp_path, "run", "content.png", "style.png", *outputs, "--dry-run", *QUICK)
    assert done.returncode == 0, done.stderr
    wrong = nstgpu_in(tmp_path, "run", "content.png", "style.png", "--colors", "no", "-o", "new/", *QUICK)
    assert wrong.returncode == 2
    assert sorted(tmp_path.rglob("*")) == before
    done = nstgpu_in(tmp_path, "run", "content.png", "style.png", *outputs, *QUICK)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / outputs[at]).is_file() for at in (1, 3, 5, 7))


def test_tilde_behind_equals_is_home_in_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nstgpu.cli import _at_home

    monkeypatch.setenv("HOME", str(tmp_path))
    assert _at_home("--weights=~/x.h5") == f"--weights={tmp_path}/x.h5"
    assert _at_home("-o~/x.png") == f"-o{tmp_path}/x.png"
    assert _at_home("~") == str(tmp_path)
    assert [_at_home(text) for text in ("a~b", "--style=a=~", "./~")] == ["a~b", "--style=a=~", "./~"]


def test_standard_output_is_the_picture_alone(tmp_path: Path) -> None:
    pictures(tmp_path)
    done = nstgpu_in(tmp_path, "run", "content.png", "style.png", "-o", "-", *QUICK[:-1])
    assert done.returncode == 0, done.stderr
    assert b"wrote the picture to standard output" in done.stderr
    (tmp_path / "piped.png").write_bytes(done.stdout)
    assert nstgpu_in(tmp_path, "run", "content.png", "style.png", "-o", "named.png", *QUICK).returncode == 0
    assert done.stdout == (tmp_path / "named.png").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that takes nothing")
def test_a_picture_that_standard_output_does_not_take_is_kept(tmp_path: Path) -> None:
    pictures(tmp_path)
    command = [
        sys.executable,
        "-c",
        "from nstgpu.cli import main; main()",
        "run",
        "content.png",
        "style.png",
        "-o",
        "-",
    ]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, *QUICK], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"cannot write the picture to standard output" in done.stderr
    assert images.read(tmp_path / "content_style.png").pixels.shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--save-every", "1"], b"--output - gives --save-every no name"),
        (["--json", "-"], b"--output and --json both go to standard output"),
        (["--quality", "90"], b"without --quality"),
    ],
)
def test_what_does_not_go_with_standard_output(tmp_path: Path, more: list[str], said: bytes) -> None:
    pictures(tmp_path)
    done = nstgpu_in(tmp_path, "run", "content.png", "style.png", "--output", "-", *more, *QUICK)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_style_out_of_a_pipe_is_in_report_and_recipe_and_resumed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures(tmp_path)
    style = (tmp_path / "style.png").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    feeder = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(style,), daemon=True)
    feeder.start()
    outputs = ["-o", "a.png", "--report", "a.html", "--checkpoint", "a.h5"]
    done = nstgpu_in(tmp_path, "run", "content.png", "pipe", *outputs, *QUICK)
    assert done.returncode == 0, done.stderr
    feeder.join()
    assert "style" in (tmp_path / "a.html").read_text()
    recipe = images.read_recipe(tmp_path / "a.png")["nstgpu recipe"]
    assert 'styles = ["-"]' in recipe
    assert hashlib.sha256(style).hexdigest() in recipe
    gone = nstgpu_in(tmp_path, "resume", "a.h5", "-q")
    assert gone.returncode == 2
    assert b"took a style from a pipe, which is gone; give it again with --picture FILE" in gone.stderr
    for picture, given in (("style.png", b""), ("-", style)):
        again = nstgpu_in(
            tmp_path, "resume", "a.h5", "-q", "--picture", picture, "-o", f"{picture}.again.png", given=given
        )
        assert again.returncode == 0, again.stderr
        np.testing.assert_array_equal(
            images.read(tmp_path / f"{picture}.again.png").pixels, images.read(tmp_path / "a.png").pixels
        )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["-", "-"], "standard input (-) is named twice"),
        (["/dev/zero", "style.png"], "cannot read /dev/zero: it gave 1 MiB"),
    ],
)
def test_what_has_no_end_and_what_is_named_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str], said: str
) -> None:
    pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decoding, "MOST_BYTES", 1 << 20)
    result = CliRunner().invoke(app, ["run", *named, *QUICK])
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["content.png", "style.png"]
