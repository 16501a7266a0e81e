"""A run that another program watches and steers, by lines on its standard input and output."""

import io
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.commands import PROGRAM, nstgpu
from nstgpu.cli.painting.live import Frames
from nstgpu.engine.imaging import files as images
from nstgpu.engine.reporting import recipe

RUN = ["run", "content.jpg", "style.png", "--weights", "small.h5", "-o", "out.png", "-q", "--threads", "1"]


class Watched:
    """A run in a process of its own, with what it said so far."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process, self.said = process, list[dict[str, Any]]()
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def ask(self, **what: Any) -> None:
        self._stdin.write(json.dumps(what).encode() + b"\n")
        self._stdin.flush()

    def until(self, event: str) -> dict[str, Any]:
        """Reads on to the next event of this kind."""
        for line in iter(self._stdout.readline, b""):
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event:
                return self.said[-1]
        assert self.process.stderr is not None
        pytest.fail(f"no {event} after {[each['event'] for each in self.said]}: {self.process.stderr.read()!r}")

    def leave(self) -> None:
        self._stdin.close()

    def ended(self) -> int:
        for line in iter(self._stdout.readline, b""):
            self.said.append(json.loads(line))
        return self.process.wait(60)

    def costs(self) -> list[dict[str, Any]]:
        return [costs for each in self.said if each["event"] == "progress" for costs in each["costs"]]


@contextmanager
def watched(*arguments: str) -> Iterator[Watched]:
    command = [*PROGRAM, *arguments, "--live-lines", "frame.webp"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield Watched(process)
        finally:
            process.kill()


@pytest.mark.usefixtures("folder")
def test_a_run_says_what_it_does() -> None:
    with watched(*RUN, "--iterations", "4", "--size", "40") as run:
        begun = run.until("begun")
        assert run.ended() == 0
    assert (begun["iteration"], begun["size"], begun["device"], begun["weights"]) == (0, [40, 30], "cpu", "small.h5")
    assert begun["scales"] == [{"size": [40, 30], "iterations": 4}]
    taken = begun["taken"]
    assert (taken["learning_rate"], taken["colors"], taken["style_layers"]) == (0.02, "style", ["relu1_1", "relu2_1"])
    assert taken["style_weight"] > 0
    assert set(taken["layers"]["style"]) == {"relu1_1", "relu2_1"}
    assert "content" not in taken
    costs = run.costs()
    assert [each["iteration"] for each in costs] == [1, 2, 3, 4]
    assert costs[0]["total"] > costs[3]["total"] > 0
    assert set(costs[0]["per_layer"]) == {"relu1_1", "relu2_1", "relu2_1 content"}
    assert [run.said[-2]["event"], run.said[-1]] == ["frame", {"event": "done", "iteration": 4, "interrupted": False}]
    assert run.said[-2] == {"event": "frame", "iteration": 4, "file": "frame.webp", "size": [40, 30], "last": True}
    frame, result = (images.read(name).pixels.mean(2).ravel() for name in ("frame.webp", "out.png"))
    assert np.corrcoef(frame, result)[0, 1] > 0.8


def test_pause_frame_and_stop(folder: Path) -> None:
    with watched(*RUN, "--iterations", "100000") as run:
        run.until("progress")
        run.ask(pause=True)
        at = run.until("paused")["iteration"]
        before = len(run.said)
        time.sleep(0.3)
        run.ask(pause=False)
        assert run.until("resumed")["iteration"] == at
        assert "progress" not in [each["event"] for each in run.said[before:]]
        run.until("progress")
        run.ask(frame=True)
        run.until("frame")
        run.ask(stop=True)
        done = run.until("done")
        assert run.ended() == 0
    assert done["interrupted"]
    assert [each["iteration"] for each in run.costs()] == list(range(1, done["iteration"] + 1))
    assert (folder / "out.png").exists()


def test_whoever_watched_is_gone(folder: Path) -> None:
    """The run ends, as after a signal, with all that it takes to go on; and the reader's end costs it nothing."""
    with watched(*RUN, "--iterations", "100000", "--checkpoint", "run.ckpt") as run:
        run.until("progress")
        run.leave()
        assert run.until("done")["interrupted"]
        assert run.ended() == 0
    assert (folder / "run.ckpt").exists()
    with watched("resume", "run.ckpt", "-q") as run:
        assert run.until("begun")["iteration"] == 0 or run.said[-1]["iteration"] > 0
        run.process.stdout.close()  # type: ignore[union-attr]
        assert run.process.wait(60) == 0


@pytest.mark.usefixtures("folder")
def test_lines_that_mean_nothing() -> None:
    with watched(*RUN, "--iterations", "100000") as run:
        run.until("begun")
        for line in (b"no json\n", b"[1]\n", b'{"stop": 1}\n', b'{"pause": "yes"}\n', b"\xff\xfe\n", b"[" * 100000):
            run.process.stdin.write(line)  # type: ignore[union-attr]
            run.process.stdin.flush()  # type: ignore[union-attr]
            assert run.until("refused") == {
                "event": "refused", "why": "a line that came in is no request that this version knows"
            }  # fmt: skip
        run.process.stdin.write(b"\n")  # type: ignore[union-attr]
        run.ask(stop=True)
        run.until("done")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-o", "-"], "no picture can be -"),
        (["--json", "-"], "no picture can be -"),
        (["--live-lines", "."], "is a folder"),
        (["--live-lines", "style.png/frame.webp"], "style.png"),
        (["--live-lines", "content.jpg"], "is an input"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_go_together(options: list[str], why: str) -> None:
    result = nstgpu(*RUN, "--live-lines", "frame.webp", *options)
    assert result.exit_code == 2
    assert why in result.stderr


def test_frames_keep_their_pace(tmp_path: Path) -> None:
    """None within half a second or 25 times what one took, but for one that is asked for."""
    said: list[int] = []
    frames = Frames(tmp_path / "frame.webp", lambda _, iteration, **__: said.append(iteration))
    picture = images.read(Image.new("RGB", (1500, 20), "red")).pixels

    class Now:
        def __init__(self, iteration: int) -> None:
            self.iteration = iteration

        def snapshot(self) -> Any:
            return lambda: picture

    for iteration in range(5):
        frames.report(Now(iteration))  # type: ignore[arg-type]
        frames.join()
    frames.want()
    frames.report(Now(5))  # type: ignore[arg-type]
    frames.join()
    frames.close()
    assert said == [0, 5]
    assert Image.open(io.BytesIO((tmp_path / "frame.webp").read_bytes())).size == (1024, 14)


def test_a_changed_run_is_repeated_from_its_picture(folder: Path) -> None:
    """With a bad change in between, which changes nothing; and gone on with, after all."""
    with watched(*RUN, "--iterations", "40000", "--checkpoint", "run.ckpt", "--checkpoint-every", "1000") as run:
        run.until("progress")
        run.ask(change={"style_weight": 900.0, "style_layers": ["relu2_1"]})
        first = run.until("changed")
        run.ask(change={"style_weight": -1})
        assert "style_weight" in run.until("refused")["why"]
        run.ask(more_scale=True)
        second = run.until("changed")
        run.ask(stop=True)
        done = run.until("done")["iteration"]
        assert run.ended() == 0
    assert (first["changes"], first["taken"]["style_weight"]) == (
        {"style_weight": 900.0, "style_layers": ["relu2_1"]}, 900.0
    )  # fmt: skip
    assert [scale["size"] for scale in second["scales"]] == [[40, 30], [57, 43]]
    assert [each["iteration"] for each in run.costs()] == list(range(1, done + 1))
    assert set(run.costs()[0]["per_layer"]) == {"relu1_1", "relu2_1", "relu2_1 content"}
    assert set(run.costs()[-1]["per_layer"]) == {"relu2_1", "relu2_1 content"}
    changes = [f"{first['iteration']} style_weight=900.0 style_layers=relu2_1", f"{second['iteration']} size=57"]
    assert recipe.load("out.png")["changes"] == [*changes, f"{done} stop"]
    assert images.read("out.png").pixels.shape == (43, 57, 3)
    assert nstgpu("run", "--recipe", "out.png", "-q", "-o", "again.png").exit_code == 0
    assert (folder / "again.png").read_bytes() == (folder / "out.png").read_bytes()
    with watched("resume", "run.ckpt", "-q") as run:
        begun = run.until("begun")
        assert (begun["iteration"], begun["taken"]["style_weight"]) == (done, 900.0)
        assert [scale["size"] for scale in begun["scales"]] == [[40, 30], [57, 43]]
        run.until("progress")
        run.ask(stop=True)
        assert run.ended() == 0
