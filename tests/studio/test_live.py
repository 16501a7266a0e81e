"""The live connection: what those who watch are told, and how little the server holds for them."""

import asyncio
import json
import runpy
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

import nstgpu
from harness.studio import Served, begun, ended, opened, png, served, until
from nstgpu.studio.jobs.history import History
from nstgpu.studio.jobs.watching import Watcher
from nstgpu.studio.limits import Limits


def live(server: Served, run: str | None = None) -> ClientConnection:
    address = f"ws://127.0.0.1:{server.port}/api/live" + ("" if run is None else f"?run={run}")
    return connect(address, origin=Origin(f"http://127.0.0.1:{server.port}"))


def next_line(watching: ClientConnection) -> dict[str, Any]:
    """The next line, past frames."""
    while isinstance(told := watching.recv(timeout=10), bytes):
        pass
    return dict(json.loads(told))


def test_a_run_is_watched(tmp_path: Path, plan: Any) -> None:
    plan(iterations=100_000, pace=0.005)
    with served(tmp_path) as server:
        run = server.begin()
        server.until(run, lambda found: found["has"]["frame"])
        with live(server, run) as watching:
            assert json.loads(watching.recv(timeout=10))["run"]["id"] == run
            frames, events, announced = 0, set[str](), 0
            event: dict[str, Any] = {"event": ""}
            server.client.patch(f"/api/runs/{run}", json={"changes": {"style_weight": 13}})
            server.client.patch(f"/api/runs/{run}", json={"changes": {"style_weight": 2}})
            for _ in range(2000):
                told = watching.recv(timeout=10)
                if isinstance(told, bytes):
                    assert told[:4] == b"RIFF"
                    assert int(told[-10:]) >= announced  # by what has replaced the file meanwhile
                    frames += 1
                    watching.send(json.dumps({"seen": announced}))
                else:
                    event = json.loads(told)
                    events.add(event["event"])
                    announced = event["iteration"] if event["event"] == "frame" else announced
                if frames >= 5 and {"changed", "refused", "progress"} <= events:
                    break
            assert {"progress", "frame", "changed", "refused"} <= events
            server.client.patch(f"/api/runs/{run}", json={"stop": True})
            last: list[str] = []
            while event["event"] != "state" or event["run"]["state"] != "stopped":
                event = next_line(watching)
                last.append(event["event"])
            assert last[-2:] == ["done", "state"]


def test_a_client_that_acknowledges_nothing_gets_one_frame(tmp_path: Path, plan: Any) -> None:
    plan(iterations=100_000, pace=0.002)
    with served(tmp_path) as server:
        run = server.begin()
        server.until(run, lambda found: found["has"]["frame"])
        with live(server, run) as watching:
            end, frames, lines = time.monotonic() + 1.0, 0, 0
            while time.monotonic() < end:
                if isinstance(watching.recv(timeout=10), bytes):
                    frames += 1
                else:
                    lines += 1
            assert frames == 1
            assert lines > 20


def test_the_list_is_watched(tmp_path: Path, plan: Any) -> None:
    plan(iterations=5)
    with served(tmp_path) as server, live(server) as watching:
        assert json.loads(watching.recv(timeout=10)) == {"event": "list", "runs": []}
        run, states = server.begin(), []
        while "done" not in states:
            told = json.loads(watching.recv(timeout=10))
            states.append(told["runs"][0]["state"])
            assert told["runs"][0]["id"] == run


def test_twenty_watch_and_go(tmp_path: Path, plan: Any) -> None:
    """Those who leave in the middle leave nothing behind."""
    plan(iterations=100_000, pace=0.05)
    with served(tmp_path, {"watchers": 20}) as server:
        run = server.begin()
        server.until(run, lambda found: found["has"]["frame"])
        for _ in range(2):
            with ExitStack() as stack:
                for _ in range(20):
                    watching = stack.enter_context(live(server, run))
                    assert watching.recv(timeout=10)
                with pytest.raises(InvalidStatus), live(server, run):
                    pass
        assert server.state(run)["state"] == "running"


def test_ten_thousand_iterations_are_bounded(tmp_path: Path, plan: Any) -> None:
    """Frames, costs and what a client that reads nothing is kept for."""
    most = Limits(frames=20, points=50, pending_lines=30)

    async def check() -> None:
        plan(iterations=10_000, pace=0, frame_every=10, checkpoint_every=10_000)
        async with opened(tmp_path / "runs", most) as (client, studio):
            run = await begun(client)
            job, asleep = studio.job(run), Watcher(most.pending_lines)
            job.audience.watchers.add(asleep)
            await until(lambda: _is_ended(studio, run), 60)
            found = await ended(client, run)
            assert (found["state"], found["iteration"]) == ("done", 10_000)
            assert 10 <= len(found["frames"]) <= 20
            assert 25 <= len(found["history"]) <= 50
            assert found["history"][0]["iteration"] < 400
            assert found["history"][-1]["iteration"] > 9_600
            kept = sorted(int(path.stem) for path in (tmp_path / "runs" / run / "frames").iterdir())
            assert kept == found["frames"]
            assert len((tmp_path / "runs" / run / "events.jsonl").read_text().splitlines()) <= 50
            lines = await asleep.news()
            assert len(lines) <= 30
            assert json.loads(lines[0]) == {"event": "behind"}

    asyncio.run(check())


async def _is_ended(studio: Any, run: str) -> bool:
    return bool(studio.job(run).record.state == "done")


def test_the_example_client(
    tmp_path: Path, plan: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(iterations=5, pace=0.1)
    (tmp_path / "a.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    with served(tmp_path / "runs") as server:
        monkeypatch.setattr(sys, "argv", ["studio_client.py", "a.png", "a.png", f"127.0.0.1:{server.port}"])
        runpy.run_path(str(Path(nstgpu.__file__).parent / "examples" / "studio_client.py"), run_name="__main__")
    assert "5 of 5, cost 0.2" in capsys.readouterr().out
    assert len(list(tmp_path.glob("2*.png"))) == 1


def test_history_survives_a_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    history = History(file, 10)
    for iteration in range(1, 8):
        history.add({"iteration": iteration, "total": 1.0})
    with file.open("a") as lines:
        lines.write('[1]\n{"iteration": "8"}\n{"itera')
    again = History.read(file, 10)
    assert again.points == history.points
    again.add({"iteration": 5, "total": 2.0})  # gone on with from a checkpoint
    assert [point["iteration"] for point in History.read(file, 10).points] == [1, 2, 3, 4, 5]
