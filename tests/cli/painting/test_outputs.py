"""What a run writes: the picture first, nothing over what is there, nothing over what is read, nothing left behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from harness.commands import nstgpu
from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.codecs import whole_file
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.reporting import animation

SHORT = ["--weights", "small.h5", "--iterations", "4", "--scales", "1", "--threads", "1"]
ALL = [
    "-o", "out.png", "--save-every", "2", "--animation", "way.webp", "--report", "page.html", "--json", "log.jsonl",
    "--checkpoint", "state.ckpt", "--checkpoint-every", "0",
]  # fmt: skip
WRITTEN = {"out.png", "out_0002.png", "out_0004.png", "way.webp", "page.html", "log.jsonl", "state.ckpt"}


def run(*arguments: str) -> Result:
    return nstgpu("run", "content.jpg", "style.png", *SHORT, *arguments)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"content.jpg", "style.png", "small.h5"}


# ---- the picture first ------------------------------------------------------------------------------------------


def _break(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> None:
    original = getattr(owner, name)

    def full(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, full)


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "--save-every": (
        lambda patch: _break(patch, images, "save", lambda path, *_: "_0002" in str(path)),
        {"out_0002.png", "out_0004.png"},
    ),
    "--animation": (lambda patch: _break(patch, animation.Animation, "_put_aside", lambda *_: True), {"way.webp"}),
    "--animation ": (lambda patch: _break(patch, animation.Animation, "save", lambda *_: True), {"way.webp"}),
    "--report": (
        lambda patch: _break(patch, images, "write_whole", lambda path, *_: str(path) == "page.html"),
        {"page.html"},
    ),
    "--checkpoint": (lambda patch: _break(patch, checkpoint, "write", lambda *_: True), {"state.ckpt"}),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_side_output_that_fails_costs_neither_the_picture_nor_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    breaks, lost = BROKEN[broken]
    breaks(monkeypatch)
    result = run(*ALL, "--quiet")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()  # an error is said even with --quiet, and once
    assert line.startswith(f"note: {broken.strip()} ")
    assert "No space left on device" in line
    assert files(folder) == WRITTEN - lost
    assert images.read("out.png").pixels.shape == (30, 40, 3)


def test_nothing_is_said_and_the_code_is_0_where_nothing_fails(folder: Path) -> None:
    result = run(*ALL, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert files(folder) == WRITTEN


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")
@pytest.mark.usefixtures("folder")
def test_lines_of_json_that_find_no_room() -> None:
    result = run("-o", "out.png", "--json", "/dev/full", "--quiet")
    assert result.exit_code == 1
    assert "note: --json /dev/full fails" in result.stderr
    assert images.read("out.png").pixels.shape == (30, 40, 3)


def test_a_folder_that_goes_midway_takes_side_outputs_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "aside").mkdir()
    original = checkpoint.write

    def write_and_remove(*arguments: Any) -> None:
        original(*arguments)
        shutil.rmtree("aside", ignore_errors=True)
        Path("aside").touch()  # or the folder would be made again

    monkeypatch.setattr(checkpoint, "write", write_and_remove)
    aside = ["--animation", "aside/way.webp", "--checkpoint", "aside/state.ckpt", "--report", "aside/page.html"]
    result = run("-o", "out.png", *aside, "--checkpoint-every", "0", "--quiet")
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["--checkpoint", "--animation", "--report"]
    assert files(folder) == {"out.png", "aside"}


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.usefixtures("folder")
def test_a_disk_that_takes_small_files_alone_still_gets_the_picture() -> None:
    """What is buffered and finds no room is not found out at the end, as an error of the whole run."""
    arguments = ["nstgpu", "run", "content.jpg", "style.png", *SHORT, *ALL, "--iterations", "30"]
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY)); "
        f"import sys; sys.argv = {arguments}; "
        "from nstgpu.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    for name in ("--json", "--checkpoint", "--animation", "--report"):
        assert sum(line.startswith(f"note: {name} ") and "File too large" in line for line in lines) == 1, lines
    assert sum(line.startswith("wrote out.png (30 iterations") for line in lines) == 1, lines
    assert images.read("out.png").pixels.shape == (30, 40, 3)


@pytest.mark.skipif(os.name != "posix", reason="shells of POSIX")
@pytest.mark.parametrize("how", ["gone", "closed", "full"])
@pytest.mark.usefixtures("folder")
def test_a_lost_terminal_does_not_cost_the_picture(how: str) -> None:
    """The bar and the lines go; standard output has what was asked for."""
    command = f'"{sys.executable}" -c "from nstgpu.cli import main; main()" run content.jpg style.png {" ".join(SHORT)}'
    command += " -o out.png --json -"
    if how == "gone":  # a terminal's process that has ended
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=writing)
        os.close(writing)
    else:
        redirected = "2>&-" if how == "closed" else "2>/dev/full"
        done = subprocess.run(f"{command} {redirected}", shell=True, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert [json.loads(line)["iteration"] for line in done.stdout.splitlines()] == [1, 2, 3, 4]
    assert images.read("out.png").pixels.shape == (30, 40, 3)


# ---- nothing over what is there ---------------------------------------------------------------------------------


def test_default_names_are_numbered(folder: Path) -> None:
    for expected in ("content_style.png", "content_style (2).png", "content_style (3).png"):
        result = run()
        assert result.exit_code == 0, result.output
        assert f"wrote {expected} (" in result.stderr
        assert expected in files(folder)
    before = (folder / "content_style.png").stat().st_mtime_ns
    assert run("--force").exit_code == 0
    assert (folder / "content_style.png").stat().st_mtime_ns > before


def test_a_default_name_is_free_of_numbered_pictures_too(folder: Path) -> None:
    (folder / "content_style_0002.png").touch()
    assert run("--save-every", "2", "--quiet").exit_code == 0
    names = {"content_style (2).png", "content_style (2)_0002.png", "content_style (2)_0004.png"}
    assert files(folder) == names | {"content_style_0002.png"}


@pytest.mark.parametrize("there", sorted(WRITTEN))
def test_a_named_output_that_is_there_is_refused_before_any_work(folder: Path, there: str) -> None:
    (folder / there).write_text("mine")
    result = run(*ALL)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"nstgpu: {there}")
    assert "--force" in line
    assert files(folder) == {there}
    assert (folder / there).read_text() == "mine"
    assert run(*ALL, "--force", "--quiet").exit_code == 0
    assert files(folder) == WRITTEN


def test_a_link_to_nowhere_is_there_and_a_device_is_not(folder: Path) -> None:
    (folder / "link.png").symlink_to("nowhere.png")
    assert run("-o", "link.png").exit_code == 2
    assert run("-o", "out.png", "--json", os.devnull, "--quiet").exit_code == 0


def test_numbered_pictures_of_other_runs_are_no_obstacle(folder: Path) -> None:
    """Beyond the last iteration, between the saved ones, or with another name."""
    for name in ("out_0006.png", "out_0003.png", "out_2.png", "out_00002.png", "other_0002.png", "out_0002.jpg"):
        (folder / name).touch()
    assert run("-o", "out.png", "--save-every", "2", "--quiet").exit_code == 0


# ---- nothing over what is read, and nothing twice ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-o", "style.png"], "style.png is an input"),
        (["-o", "./sub/../style.png"], "style.png is an input"),
        (["-o", "link.png"], "link.png is an input"),
        (["-o", "out.png", "--json", "content.jpg"], "content.jpg is an input"),
        (["-o", "out.png", "--checkpoint", "small.h5"], "small.h5 is an input"),
        (["-o", "out.png", "--save-every", "2", "--init", "out_0004.png"], "out_0004.png is an input"),
        (["-o", "way.png", "--animation", "way.png"], "--output and --animation both go to way.png"),
        (["-o", "way.png", "--animation", "sub/../way.png"], "--output and --animation both go to sub/../way.png"),
        (["-o", "way.png", "--animation", "WAY.PNG"], "--output and --animation both go to WAY.PNG"),
        (["-o", "a.png", "--json", "x", "--checkpoint", "x"], "--json and --checkpoint both go to x"),
        (["-o", "a.png", "--json", "linked/x", "--checkpoint", "sub/x"], "--json and --checkpoint both go to sub/x"),
        (["-o", "a.png", "--save-every", "2", "--animation", "a_0004.png"], "a_0004.png is a name that --save-every"),
        (["-o", "sub/a.png", "--save-every", "1", "--json", "linked/a_0003.png"], "linked/a_0003.png is a name that"),
    ],
)
def test_outputs_are_no_inputs_and_not_one_another(folder: Path, arguments: list[str], complaint: str) -> None:
    (folder / "sub").mkdir()
    (folder / "linked").symlink_to("sub")
    (folder / "link.png").symlink_to("style.png")
    images.save("out_0004.png", np.zeros((8, 8, 3)))
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = run(*arguments, "--force")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("folder")
def test_names_that_save_every_does_not_reach_are_free() -> None:
    result = run("-o", "a.png", "--save-every", "2", "--animation", "a_0003.png", "--json", "a_0008.png", "--quiet")
    assert result.exit_code == 0, result.output


# ---- a run that goes on -----------------------------------------------------------------------------------------


def test_resume_appends_lines_keeps_frames_and_knows_its_own_files(folder: Path) -> None:
    """Killed in the middle of an iteration's lines, and after iterations that no checkpoint has."""
    whole = [*ALL, "--iterations", "9"]
    assert run(*whole, "--quiet").exit_code == 0
    expected = {name: (folder / name).read_bytes() for name in ("out.png", "way.webp", "out_0008.png")}
    lines = [json.loads(line)["costs"] for line in (folder / "log.jsonl").read_text().splitlines()]
    for name in files(folder):
        (folder / name).unlink()
    writes = 0
    original = checkpoint.write

    def die(*arguments: Any) -> None:
        nonlocal writes
        original(*arguments)
        writes += 1
        if writes == 5:
            raise SystemExit(9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write", die)
        assert run(*whole, "--quiet").exit_code == 9
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"iteration": 6, "costs": "of the run that died"}\n{"iteration": 7, "cos')
    result = nstgpu("resume", "state.ckpt", "--quiet")
    assert result.exit_code == 0, result.output
    written = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in written] == list(range(1, 10))
    assert [line["costs"] for line in written] == lines
    assert {name: (folder / name).read_bytes() for name in expected} == expected
    with Image.open("way.webp") as film:
        assert getattr(film, "n_frames", 1) == 9  # of each iteration; the last is the picture itself


# ---- what a dead process has left -------------------------------------------------------------------------------

DIES = """
import os, sys
from pathlib import Path
from nstgpu.engine.imaging.codecs.whole_file import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_what_a_killed_process_has_left_goes_at_the_next_start_and_a_living_ones_stays(folder: Path) -> None:
    (folder / ".nstgpu-0123456789abcdef.part.txt").touch()
    (folder / ".nstgpu-mine.part").touch()
    (folder / ".nstgpu-00000000000000aa.part").mkdir()
    (folder / ".nstgpu-00000000000000bb.part").symlink_to("content.jpg")
    kept = files(folder)
    processes = [
        subprocess.Popen([sys.executable, "-c", DIES, f"{n}.bin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
    dead, living = processes
    assert len(files(folder) - kept) == 2
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    result = run("-o", "out.png", "--quiet")
    assert result.exit_code == 0, result.output
    (left,) = files(folder) - kept - {"out.png"}
    assert whole_file._PARTIAL.fullmatch(left)
    living.communicate(b"")
    assert (folder / "1.bin").read_bytes() == b"half"
    assert files(folder) - kept == {"out.png", "1.bin"}


# ---- other commands ---------------------------------------------------------------------------------------------


def test_sheets_of_reconstruct_are_numbered_or_refused(folder: Path) -> None:
    arguments = ["reconstruct", "content.jpg", "--weights", "small.h5", "--size", "16", "--iterations", "1"]
    arguments += ["--layer", "relu1_1", "--quiet"]
    for expected in ("content_content_layers.png", "content_content_layers (2).png"):
        assert nstgpu(*arguments).exit_code == 0
        assert expected in files(folder)
    (folder / "content_content_layers (3)_relu1_1.png").touch()
    assert nstgpu(*arguments, "--separate").exit_code == 0
    assert {name for name in files(folder) if "(4)" in name} == {
        "content_content_layers (4).png", "content_content_layers (4)_relu1_1.png",
    }  # fmt: skip
    (folder / "sheet_relu1_1.png").touch()
    result = nstgpu(*arguments, "-o", "sheet.png", "--separate")
    assert (result.exit_code, "sheet_relu1_1.png exists already" in result.stderr) == (2, True)
    assert nstgpu(*arguments, "-o", "sheet.png", "--separate", "--force").exit_code == 0


def test_sheets_of_layers_are_numbered_or_refused(folder: Path) -> None:
    arguments = ["layers", "content.jpg", "--weights", "small.h5", "--layer", "relu1_1", "--quiet"]
    for expected in ("content_layers", "content_layers (2)"):
        assert nstgpu(*arguments).exit_code == 0
        assert files(folder / expected) == {"relu1_1.png"}
    result = nstgpu(*arguments, "-o", "content_layers")
    assert (result.exit_code, "relu1_1.png exists already" in result.stderr) == (2, True)
    assert nstgpu(*arguments, "-o", "content_layers", "--force").exit_code == 0


# ---- too little memory to load a library ------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "libz.so: failed to map segment from shared object",
            "nstgpu: out of memory (libz.so: failed to map segment from shared object); free some, or raise its limit",
        ),
        ("No module named 'h5py'", "nstgpu: No module named 'h5py'"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch, said: str, line: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ImportError(said)

    monkeypatch.setattr(images, "read", fail)
    result = run("-o", "out.png", "--quiet")
    assert (result.exit_code, result.stderr.splitlines()) == (1, [line])


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_device_or_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with whole_file.whole_file(pipe) as file:
            file.write(b"abc")
            file.seek(1)
            file.write(b"x")
        assert os.read(reader, 10) == b"axc"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]
