"""What a Dask scheduler takes for very many pictures: python benchmarks/dask_tasks.py [--tasks 100000]

No picture is painted: each task returns at once. Told are the scheduler's memory and the time per task, for the way
`nstgpu batch --scheduler` asks for tasks (a few for each thread of the cluster at a time) and for all at once.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distributed import Client, wait

from nstgpu.batch.painting.dask import AHEAD

PAGE = 4096
TEXT = "x" * 2000
"""About what the settings of a picture take, beside its own bytes."""


def nothing(number: int, settings: str) -> int:
    return number + len(settings)


def memory(pid: int) -> float:
    """MiB that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def in_a_window(client: Client, count: int, threads: int) -> None:
    under_way: set[Any] = set()
    for number in range(count):
        under_way.add(client.submit(nothing, number, TEXT, key=f"nstgpu-window-{number}"))
        while len(under_way) >= AHEAD * threads:
            under_way = wait(list(under_way), return_when="FIRST_COMPLETED").not_done
    wait(list(under_way))


def all_at_once(client: Client, count: int, _: int) -> None:
    futures = [client.submit(nothing, number, TEXT, key=f"nstgpu-all-{number}") for number in range(count)]
    wait(futures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--port", type=int, default=8797)
    asked = parser.parse_args()
    address = f"tcp://127.0.0.1:{asked.port}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = [sys.executable, "-m"]
    scheduler = subprocess.Popen(
        [*start, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(asked.port),
         "--no-dashboard"], **quiet,
    )  # fmt: skip
    worker = subprocess.Popen(
        [*start, "distributed.cli.dask_worker", address, "--nworkers", "1", "--nthreads", "2", "--no-dashboard"],
        **quiet,
    )
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
            print("| way | tasks | seconds per task | scheduler before | scheduler at its end | per task |")
            print("|---|---|---|---|---|---|")
            for way in (in_a_window, all_at_once):
                before, began = memory(scheduler.pid), time.perf_counter()
                way(client, asked.tasks, 2)
                took, after = time.perf_counter() - began, memory(scheduler.pid)
                each = f"{1000 * took / asked.tasks:.2f} ms | {before:.0f} MiB | {after:.0f} MiB"
                name, growth = way.__name__.replace("_", " "), 1024 * (after - before) / asked.tasks
                print(f"| {name} | {asked.tasks:,} | {each} | {growth:.2f} KiB |", flush=True)
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
