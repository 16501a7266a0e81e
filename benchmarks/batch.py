"""How long a batch takes, beside as many runs: python benchmarks/batch.py [--pictures 50] [--iterations 100]

Paints examples/content.jpg, shifted so that every content is another, at 256 px on the CPU: by `nstgpu run`, one
process a picture, by `nstgpu batch`, and by `nstgpu batch --jobs N` with a process for every core. Told are the seconds
on the wall and of the CPU (user), and of the runs what they say that their iterations took. The runs and the batches
take turns in blocks, since other programs may be at work; what counts are the ratios.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageChops

PROGRAM = [sys.executable, "-c", "from nstgpu.cli import main; main()"]
EXAMPLES = Path(__file__).parents[1] / "examples"


def timed(*arguments: str) -> tuple[float, float]:
    """Seconds on the wall, and of the CPU with all its processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*PROGRAM, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime - before.ru_utime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--iterations", default="100")
    parser.add_argument("--blocks", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with Image.open(EXAMPLES / "content.jpg") as picture:
            for number in range(asked.pictures):
                ImageChops.offset(picture, 7 * number, 0).save(f"{number}.png")
        shutil.copy(EXAMPLES / "style.jpg", "style.jpg")
        given = ["--size", "256", "--iterations", asked.iterations, "--device", "cpu", "--weights", "mini"]
        start = min(timed("run", "0.png", "style.jpg", *given[2:], "--size", "64", "--min-size", "64",
                          "--iterations", "1", "-o", "start.png", "--force") for _ in range(3))  # fmt: skip
        cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        ways = {"nstgpu batch": [], f"nstgpu batch --jobs {cores}": ["--jobs", cores]}
        wall, user = dict.fromkeys(["nstgpu run", *ways], 0.0), dict.fromkeys(["nstgpu run", *ways], 0.0)
        iterating = 0.0
        step = -(-asked.pictures // asked.blocks)
        for first in range(0, asked.pictures, step):
            contents = [f"{number}.png" for number in range(first, min(first + step, asked.pictures))]
            for content in contents:
                one = timed("run", content, "style.jpg", *given, "--json", "lines.jsonl", "-o", "run.png", "--force")
                wall["nstgpu run"] += one[0]
                user["nstgpu run"] += one[1]
                iterating += json.loads(Path("lines.jsonl").read_text().splitlines()[-1])["seconds"]
            for number, (name, more) in enumerate(ways.items()):
                took = timed("batch", *contents, "--style", "style.jpg", *given, *more, "-o", f"out{number}")
                wall[name] += took[0]
                user[name] += took[1]
    what = f"{asked.pictures} pictures of 256 px, {asked.iterations} iterations a scale"
    print(f"{what}, {cores} cores, in {asked.blocks} blocks")
    print(f"start-up (one iteration at 64 px): {start[0]:.2f} s on the wall, {start[1]:.2f} s of the CPU")
    print(f"the runs' own iterations: {iterating:.1f} s on the wall\n")
    print("| | wall | of the runs | of their iterations and one start-up | user CPU | of the runs |")
    print("|---|---|---|---|---|---|")
    for name, seconds in wall.items():
        own, share = seconds / (iterating + start[0]), user[name] / user["nstgpu run"]
        beside = seconds / wall["nstgpu run"]
        print(f"| {name} | {seconds:.1f} s | {beside:.2f} | {own:.2f} | {user[name]:.1f} s | {share:.2f} |")


if __name__ == "__main__":
    main()
