"""A batch on a Dask cluster of processes: the bytes of one process, whoever dies."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands import nstgpu
from nstgpu.batch.kept import Kept
from nstgpu.batch.painting.dask import key_of, paint_on_cluster
from nstgpu.batch.painting.paint import paint_all
from nstgpu.batch.planning.names import Template
from nstgpu.batch.planning.plan import plan, product
from nstgpu.batch.tasks import Task
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging import files as images

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.usefixtures("folder"), pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SETTINGS = {"size": 32, "min_size": 16, "iterations": "3", "device": "cpu"}
GIVEN = ["--size", "32", "--min-size", "16", "--iterations", "3", "--device", "cpu", "--style", "style.png"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="ERROR"
    ) as cluster:
        yield cluster


def tasks_of(count: int, folder: str, **changed: Any) -> tuple[Task, ...]:
    rng = np.random.default_rng(1)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        images.save(Path(name), rng.random((24, 32, 3)))
    common = SETTINGS | {"weights": os.path.abspath("small.h5")} | changed
    return plan(product(names, ["style.png"], common), Path(folder), Template("{content}.png"), Kept()).missing


def made(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_the_same_bytes_and_a_worker_that_is_killed(cluster: Any) -> None:
    list(paint_all(tasks_of(5, "here", threads=1), Kept()))
    outcomes = []
    for outcome in paint_on_cluster(tasks_of(5, "there"), cluster.scheduler_address, Kept()):
        outcomes.append(outcome)
        if len(outcomes) == 1:
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
    assert sorted(outcome.task.number for outcome in outcomes) == list(range(5))
    assert {outcome.state for outcome in outcomes} == {"painted"}
    assert made("here") == made("there")


def test_workers_write_and_leave_what_is_there(cluster: Any) -> None:
    list(paint_all(tasks_of(2, "here", threads=1), Kept()))
    address = cluster.scheduler_address
    for base in (os.path.abspath("shared"), f"file://{os.path.abspath('url')}"):
        for state in ("painted", "skipped"):
            outcomes = list(paint_on_cluster(tasks_of(2, "none"), address, Kept(), workers_write=base))
            assert [outcome.state for outcome in outcomes] == [state] * 2
    assert made("shared") == made("url") == made("here")
    assert not Path("none").exists()


def test_from_the_command_line_with_a_picture_that_fails(cluster: Any) -> None:
    tasks_of(1, "none")
    Path("bad.png").write_bytes(b"no picture")
    given = [*GIVEN, "--weights", os.path.abspath("small.h5"), "--name", "{content}.png"]
    done = nstgpu("batch", "0.png", "bad.png", *given, "-o", "out", "--scheduler", cluster.scheduler_address)
    assert done.exit_code == 3, done.output
    assert "out/bad.png: bad.png is text, not a picture" in done.output
    alone = ["--size", "32", "--min-size", "16", "--iterations", "3", "--device", "cpu", "--threads", "1"]
    assert nstgpu("run", "0.png", "style.png", *alone, *given[-4:-2], "-o", "one.png").exit_code == 0
    assert Path("one.png").read_bytes() == Path("out/0.png").read_bytes()


def test_a_task_is_known_by_what_decides_its_picture() -> None:
    one, other = tasks_of(2, "a")
    (moved, _), (again, _) = tasks_of(2, "b"), tasks_of(2, "a", seed=3)
    assert key_of(one, Kept()) == key_of(moved, Kept())
    assert len({key_of(task, Kept()) for task in (one, other, again)}) == 3


def test_no_scheduler() -> None:
    began = time.monotonic()
    with pytest.raises(SettingsError, match="no scheduler answers at tcp:foo"):
        list(paint_on_cluster(tasks_of(1, "a"), "tcp:foo", Kept()))
    assert time.monotonic() - began < 20
    done = nstgpu("batch", "0.png", *GIVEN, "--workers-write", "x", "-o", "out")
    assert (done.exit_code, "give both" in done.output) == (2, True)
