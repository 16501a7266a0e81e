"""What watching costs a run: its pace with nobody and with twenty clients, and the server's memory over 10,000 frames.

python benchmarks/studio.py

Rounds of either kind alternate, since a shared machine's pace drifts; each is a run of its own; medians are compared.
The clients acknowledge every frame at once, and live in a process of their own. The server's share of a core is what it
takes from the iterations where all cores are theirs.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness.studio import MARK, served  # noqa: E402

ROUNDS, CLIENTS = 3, 20
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid: int) -> float:
    """MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def watch(address: str, run: str) -> int:
    """One client until the run has ended; how many frames it got."""
    frames = 0
    async with connect(f"ws://{address}/api/live?run={run}", max_size=None) as live:
        async for told in live:
            if isinstance(told, bytes):
                frames += 1
                continue
            event = json.loads(told)
            if event["event"] == "frame":
                await live.send(json.dumps({"seen": event["iteration"]}))
            if event["event"] == "state" and event["run"]["state"] in ("done", "stopped", "failed"):
                break
    return frames


async def watch_all(address: str, run: str, clients: int) -> None:
    print(sum(await asyncio.gather(*(watch(address, run) for _ in range(clients)))))


def one(client: httpx.Client, pid: int, address: str, settings: str, clients: int) -> tuple[float, float, int]:
    """Iterations a second, the server's share of a core, and frames that were sent."""
    began, spent = time.monotonic(), cpu_seconds(pid)
    posted = client.post("/api/example", json={"settings": json.loads(settings)})
    run = posted.raise_for_status().json()["id"]
    command = [sys.executable, __file__, "watch", address, run, str(clients)]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if clients else None
    while (found := client.get(f"/api/runs/{run}").json())["state"] in ("queued", "running"):
        time.sleep(1)
    assert found["state"] == "done", found
    frames = int(watching.communicate()[0]) if watching else 0
    share = (cpu_seconds(pid) - spent) / (time.monotonic() - began)
    seconds = found["history"][-1].get("seconds") or found["ended"] - found["began"]
    return found["iterations"] / seconds, share, frames


def compare(title: str, client: httpx.Client, pid: int, address: str, settings: str) -> None:
    rates: dict[int, list[tuple[float, float, int]]] = {0: [], CLIENTS: []}
    for _ in range(ROUNDS):
        for clients, found in rates.items():
            found.append(one(client, pid, address, settings, clients))
    medians = {clients: statistics.median(rate for rate, _, _ in found) for clients, found in rates.items()}
    slower = 1 - medians[CLIENTS] / medians[0]
    share = statistics.median(share for _, share, _ in rates[CLIENTS])
    frames = statistics.median(frames for _, _, frames in rates[CLIENTS])
    print(
        f"{title}: {medians[0]:.2f} iterations/s alone, {medians[CLIENTS]:.2f} with {CLIENTS} clients "
        f"({slower:+.1%} slower); "
        f"the server took {share:.1%} of a core, {frames:.0f} frames were sent"
    )


def memory(folder: Path) -> None:
    """Over 10,000 frames, of which one client sees what it can."""
    os.environ["FAKE_CHILD"] = json.dumps({"iterations": 10_000, "pace": 0.002, "checkpoint_every": 10_000})
    with served(folder) as server:
        run = server.begin()
        server.until(run, lambda found: found["iteration"] >= 500, 120)
        before = resident(server.process.pid)
        server.until(run, lambda found: found["state"] == "done", 600)
        kept = len(server.state(run)["frames"])
        print(
            f"10,000 frames: {before:.1f} MiB after 500, {resident(server.process.pid):.1f} MiB at the end; {kept} kept"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FAKE_CHILD"] = json.dumps({"iterations": 400, "pace": 0.02, "frame_every": 25})
        with served(Path(folder) / "fake") as server:
            address = f"127.0.0.1:{server.port}"
            compare("a run that only waits, 50 iterations/s", server.client, server.process.pid, address, "{}")
        memory(Path(folder) / "memory")
        command = [sys.executable, "-m", "nstgpu", "serve", "--port", "0", "--folder", f"{folder}/real"]
        real = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert real.stdout is not None
            address = real.stdout.readline().strip().rpartition("//")[2].rstrip("/")
            with httpx.Client(base_url=f"http://{address}", headers=MARK, timeout=60) as client:
                settings = '{"size": 128, "iterations": "60"}'
                compare("a real run, 128 px", client, real.pid, address, settings)
        finally:
            real.terminate()
            real.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["watch"]:
        asyncio.run(watch_all(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main()
