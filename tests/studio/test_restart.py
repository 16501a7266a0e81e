"""A server that is killed at any moment: the next one goes on where it was."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from harness.studio import served

pytestmark = pytest.mark.slow  # starts programs that paint


def starts(folder: Path) -> list[list[str]]:
    """How the run's children were started: run or resume, at which iteration, and their process."""
    return [line.split() for line in (folder / "starts.txt").read_text().splitlines()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def dies(pid: int) -> bool:
    """Whether it is gone soon: a process that has let go of its lock has still to end."""
    end = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_alive(pid)


def test_kill_9_and_restart(tmp_path: Path, plan) -> None:
    plan(iterations=100_000, pace=0.005, frame_every=20, checkpoint_every=5)
    with served(tmp_path) as server:
        first, second, third = server.begin(), server.begin(size=64), server.begin(size=96)
        server.client.patch(f"/api/runs/{third}", json={"position": 0, "name": "first in the queue"})
        before = server.until(first, lambda run: run["iteration"] > 20)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    plan(iterations=before["iteration"] + 60, pace=0.005, frame_every=20, checkpoint_every=5)
    with served(tmp_path) as server:
        order = [run["id"] for run in server.client.get("/api/runs").json()["runs"]]
        assert order == [first, third, second]
        done = server.until(first, lambda run: run["state"] == "done")
        (how, at, orphan), (how_again, at_again, _) = starts(tmp_path / first)
        assert (how, at, how_again) == ("run", "0", "resume")
        assert int(at_again) >= before["iteration"] - 5
        assert dies(int(orphan))
        iterations = [point["iteration"] for point in done["history"]]
        assert iterations == sorted(set(iterations))
        assert iterations[-1] == before["iteration"] + 60
        for run in (third, second):
            server.until(run, lambda found: found["state"] == "done")
        assert server.state(third)["name"] == "first in the queue"
        assert server.state(third)["began"] < server.state(second)["began"]


def test_sigterm_and_restart(tmp_path: Path, plan) -> None:
    """A run that pauses does so after the restart too; what had ended stays as it was."""
    plan(iterations=3)
    with served(tmp_path) as server:
        old = server.begin()
        ended = server.until(old, lambda run: run["state"] == "done")
    plan(iterations=100_000)
    with served(tmp_path) as server:
        run = server.begin()
        server.until(run, lambda found: found["iteration"] > 3)
        server.client.patch(f"/api/runs/{run}", json={"pause": True})
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=20)
        child = int(starts(tmp_path / run)[0][2])
        assert dies(child)
    with served(tmp_path) as server:
        assert server.until(run, lambda found: found["begun"] is not None)["state"] == "paused"
        assert server.state(old) == ended
        assert server.client.patch(f"/api/runs/{run}", json={"stop": True}).status_code == 200
        assert server.until(run, lambda found: found["state"] == "stopped")["has"]["picture"]


@pytest.mark.skipif(sys.platform == "win32", reason="a child holds no lock there")
def test_an_orphan_that_does_not_end_is_killed(tmp_path: Path, plan) -> None:
    """What still holds the run's lock once its time is over."""
    plan(iterations=100_000)
    with served(tmp_path) as server:
        run = server.begin()
        server.until(run, lambda found: found["iteration"] > 3)
        child = int(starts(tmp_path / run)[0][2])
        os.kill(child, signal.SIGSTOP)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    assert is_alive(child)
    with served(tmp_path, {"orphan_seconds": 0.3}) as server:
        server.until(run, lambda found: found["iteration"] > 3 and len(starts(tmp_path / run)) == 2)
        assert dies(child)


def test_what_cannot_be_read_is_left_out(tmp_path: Path, plan) -> None:
    plan(iterations=1)
    with served(tmp_path) as server:
        good, bad = server.begin(), server.begin()
        server.until(bad, lambda run: run["state"] == "done")
    (tmp_path / bad / "job.json").write_text('{"id": "../../x", "state": "done"}')
    (tmp_path / "2026-01-01-000000-abcdef").symlink_to("/etc")
    with served(tmp_path) as server:
        assert [run["id"] for run in server.client.get("/api/runs").json()["runs"]] == [good]
        assert len(server.said) == 1
        assert f"{bad} is left out" in server.said[0]
    assert (tmp_path / bad / "result.png").exists()
