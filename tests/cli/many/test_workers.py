"""A batch in several processes: the same bytes, and nothing lost, half-written or done twice whoever dies.

NSTGPU_KILLS=20 kills workers at so many random moments instead of a few.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands import PROGRAM, nstgpu
from nstgpu.batch.kept import Kept
from nstgpu.batch.painting.paint import paint_all
from nstgpu.batch.painting.workers import MOST_DEATHS, Crew, devices_of, paint_in_processes, threads_each
from nstgpu.batch.planning.names import Template
from nstgpu.batch.planning.plan import plan, product
from nstgpu.batch.tasks import Task
from nstgpu.engine.imaging import files as images
from nstgpu.runs.settings import Options

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's"),
    pytest.mark.filterwarnings("ignore:the weights"),
]
KILLS = int(os.environ.get("NSTGPU_KILLS", "2"))
COMMON = {"weights": "small.h5", "size": 32, "min_size": 16, "iterations": "3", "device": "cpu", "threads": 1}


def pictures(count: int) -> list[str]:
    """The names of so many new pictures."""
    rng = np.random.default_rng(1)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        images.save(Path(name), rng.random((24, 32, 3)))
    return names


def tasks_of(contents: list[str], folder: str, **changed: Any) -> tuple[Task, ...]:
    rows = product(contents, ["style.png"], COMMON | changed)
    return plan(rows, Path(folder), Template("{content}.png"), Kept()).missing


def made(folder: str) -> dict[str, bytes]:
    """Whatever lies in a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.usefixtures("folder")
def test_processes_have_the_bytes_of_one() -> None:
    contents = pictures(5)
    outcomes = list(paint_in_processes(tasks_of(contents, "two"), 2))
    assert sorted(outcome.task.number for outcome in outcomes) == list(range(5))
    assert [outcome.state for outcome in outcomes] == ["painted"] * 5
    assert len(list(paint_all(tasks_of(contents, "one"), Kept()))) == 5
    assert made("one") == made("two")


@pytest.mark.usefixtures("folder")
def test_workers_are_killed_at_random_moments() -> None:
    contents, chance = pictures(6), random.Random(KILLS)
    list(paint_all(tasks_of(contents, "calm"), Kept()))
    for moment in range(KILLS):
        crew = Crew(tasks_of(contents, f"out{moment}"), 2, (), 0)
        delay, stop = chance.uniform(0, 2.5), threading.Event()

        def kill(crew: Crew, delay: float, stop: threading.Event) -> None:
            time.sleep(delay)
            while not crew._workers and not stop.wait(0.01):
                pass
            for worker in crew._workers[:1]:
                worker.process.kill()

        killer = threading.Thread(target=kill, args=(crew, delay, stop))
        killer.start()
        try:
            outcomes = list(crew.outcomes(None, lambda: False))
        finally:
            crew.end()
            stop.set()
            killer.join()
        assert sorted(outcome.task.number for outcome in outcomes) == list(range(6)), f"killed after {delay:.2f} s"
        assert {outcome.state for outcome in outcomes} == {"painted"}
        assert made(f"out{moment}") == made("calm")
        assert all(worker.process.poll() is not None for worker in crew._workers)


@pytest.mark.usefixtures("folder")
def test_a_picture_over_which_processes_die_is_given_up() -> None:
    crew = Crew(tasks_of(pictures(2), "out", iterations="30"), 1, (), 5)
    killed = []

    def on_progress(task: Task, _: float) -> None:
        if task.number == 0:
            (worker,) = (worker for worker in crew._workers if 0 in worker.tasks)
            killed.append(worker.process.pid)
            worker.process.kill()

    try:
        outcomes = {outcome.task.number: outcome for outcome in crew.outcomes(on_progress, lambda: False)}
    finally:
        crew.end()
    assert len(set(killed)) == MOST_DEATHS
    assert (outcomes[0].state, outcomes[1].state) == ("failed", "painted")
    assert "3 processes died over it (killed by signal 9)" in outcomes[0].reason
    assert list(made("out")) == ["1.png"]


@pytest.mark.usefixtures("folder")
def test_what_a_worker_had_written_before_it_died_is_not_painted_again() -> None:
    tasks = tasks_of(pictures(1), "out")
    list(paint_all(tasks, Kept()))
    before = Path("out/0.png").stat()
    crew = Crew(tasks, 1, (), 0)
    crew._pending[0] = (tasks[0], 1, True)
    try:
        (outcome,) = crew.outcomes(None, lambda: False)
    finally:
        crew.end()
    assert outcome.state == "painted"
    after = Path("out/0.png").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.usefixtures("folder")
def test_no_worker_outlives_the_command() -> None:
    contents = pictures(2)
    given = ["--weights", "small.h5", "--size", "32", "--min-size", "16", "--device", "cpu", "--iterations", "20000"]
    command = [*PROGRAM, "batch", *contents, "--style", "style.png", *given, "-o", "out", "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    children = _within(30, lambda: (found := _children(process.pid))[1:] and found)
    process.kill()
    process.wait()
    _within(30, lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert not list(Path("out").glob("*.png"))


@pytest.mark.usefixtures("folder")
def test_ctrl_c_ends_all_of_them_and_keeps_what_is_made() -> None:
    contents = pictures(6)
    given = ["--weights", "small.h5", "--size", "32", "--min-size", "16", "--device", "cpu", "--iterations", "150"]
    given = ["batch", *contents, "--style", "style.png", *given, "-o", "out", "--jobs", "2", "--name", "{content}.png"]
    process = subprocess.Popen(
        [*PROGRAM, *given], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    _within(60, lambda: list(Path("out").glob("*.png")))
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "Traceback" not in said
    assert "the same command goes on with what is missing" in said
    report = json.loads(Path("out/report.json").read_text())
    assert report["painted"] == len(list(Path("out").glob("*.png"))) < 6
    assert not list(Path("out").glob(".*"))


@pytest.mark.usefixtures("folder")
def test_a_full_disk_costs_what_does_not_fit() -> None:
    pictures(2)
    Path("rows.csv").write_text("content,size\n0.png,16\n1.png,128\n")
    given = [
        "--weights",
        "small.h5",
        "--min-size",
        "16",
        "--iterations",
        "1",
        "--device",
        "cpu",
        "--style",
        "style.png",
    ]
    for jobs in ("1", "2"):
        done = subprocess.run(
            [*PROGRAM, "batch", "--manifest", "rows.csv", *given, "-o", f"out{jobs}", "--jobs", jobs],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16000, 16000)),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 3, done.stdout + done.stderr
        assert "File too large" in done.stderr
        assert sorted(path.name for path in Path(f"out{jobs}").glob("*.png")) == ["0_style_16.png"]
        assert not list(Path(f"out{jobs}").glob(".*"))


def test_threads_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstgpu.kernels.cpu.thread_pool.default_count", lambda: 8)
    task = Task(0, Options(content="a", styles=("b",)), 32)
    assert threads_each(task, 3).options.threads == 2
    assert threads_each(task, 16).options.threads == 1
    assert threads_each(Task(0, Options(device="cuda"), 32), 2).options.threads is None
    assert threads_each(Task(0, Options(threads=5), 32), 2).options.threads == 5
    assert devices_of("cuda:0,2") == ["cuda:0", "cuda:2"]
    assert devices_of("cuda:1") == devices_of("cpu") == devices_of("auto") == []


def test_jobs_on_the_command_line(folder: Path) -> None:
    contents = pictures(2)
    given = ["--weights", "small.h5", "--size", "32", "--min-size", "16", "--iterations", "2", "--device", "cpu"]
    many = ["--style", "style.png", "-o", "out", "--jobs", "2", "--threads", "1"]
    done = nstgpu("batch", *contents, "none.png", *given, *many)
    assert done.exit_code == 3, done.output
    for name in contents:
        assert nstgpu("run", name, "style.png", *given, "--threads", "1", "-o", "one.png", "--force").exit_code == 0
        assert (folder / "one.png").read_bytes() == Path(f"out/{Path(name).stem}_style_32.png").read_bytes()


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def _within(seconds: float, happened: Callable[[], Any]) -> Any:
    until = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found
