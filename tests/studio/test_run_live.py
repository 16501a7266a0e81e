"""`nstgpu run --live`: an ordinary run, with a page beside it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from harness.studio import png

pytestmark = pytest.mark.slow  # starts programs that paint

COMMAND = [
    sys.executable,
    "-m",
    "nstgpu",
    "run",
    "content.png",
    "style.png",
    "--live",
    "--device",
    "cpu",
    "--size",
    "64",
]


def begun(folder: Path, iterations: int) -> "tuple[subprocess.Popen[str], str, str]":
    """The process, its server's address, and the run's name there."""
    (folder / "content.png").write_bytes(png((64, 48)))
    (folder / "style.png").write_bytes(png((48, 48)))
    places = os.pathsep.join(path or os.getcwd() for path in sys.path)
    process = subprocess.Popen(
        [*COMMAND, "--iterations", str(iterations), "--scales", "1", "-o", "out.png"],
        cwd=folder, env=os.environ | {"PYTHONPATH": places, "BROWSER": "true"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"watch it at http://([^/]+)/#/run/(\S+)", line):
            return process, found[1], found[2]
    raise AssertionError("no address was said")


def test_it_is_watched_and_steered(tmp_path: Path) -> None:
    process, address, run = begun(tmp_path, 100_000)
    with process, connect(f"ws://{address}/api/live?run={run}") as live:
        assert process.stderr is not None
        frames = 0
        for told in live:
            event = json.loads(told) if isinstance(told, str) else {"event": "picture"}
            frames += event["event"] == "picture"
            if event["event"] == "frame" and frames < 3:
                live.send(json.dumps({"seen": event["iteration"]}))
            if frames == 1:
                asked = {"stop": True}
                httpx.patch(
                    f"http://{address}/api/runs/{run}", headers={"X-Nstgpu": "1"}, json=asked
                ).raise_for_status()
                frames += 1
            if event["event"] == "done":
                break
        assert httpx.get(f"http://{address}/api/runs/{run}/content").status_code == 200
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert "wrote out.png (stopped after" in said
    assert (tmp_path / "out.png").exists()


def test_ctrl_c_is_the_runs(tmp_path: Path) -> None:
    """It goes to all of a terminal's processes: the run ends early with its picture, and its page with it."""
    process, address, run = begun(tmp_path, 100_000)
    with process, connect(f"ws://{address}/api/live?run={run}") as live:
        while not isinstance(told := live.recv(timeout=60), str) or json.loads(told)["event"] != "progress":
            pass
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    assert (tmp_path / "out.png").exists()
