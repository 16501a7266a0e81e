"""Which goals were reached on a GPU, from the records of `compare_pytorch`, `gpu_memory` and `gpu_report.sh`.

    python benchmarks/gpu_goals.py RECORDS.jsonl...

A line per goal: reached or missed, and by how much; or that it was not measured. PyTorch at its best is the fastest of
its CUDA graph and torch.compile in one, so that without a measurement of the latter no ratio is given.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Record = Mapping[str, Any]
SECONDS = {
    ("bf16", 512): 0.70e-3,
    ("bf16", 1024): 2.45e-3,
    ("bf16", 256): 0.30e-3,
    ("bf16", 2048): 9.2e-3,
    ("fp32", 512): 3.8e-3,
    ("tf32", 512): 1.5e-3,
}
"""What one gradient is to take, by accuracy and size."""
CLASSES = {"bf16": ("bf16",), "fp32": ("fp32", "3xtf32"), "tf32": ("tf32",)}
"""What is as accurate as what; 3xTF32 is as accurate as fp32."""
RATIO = 0.5  # of PyTorch's time at its best, at 512 and 1024 px


class Goal(NamedTuple):
    """What is to be at most `most`; `found` is None where it was not measured."""

    what: str
    most: float
    unit: str
    found: float | None


def goals(records: Sequence[Record]) -> list[Goal]:
    """All of them, the most telling first."""
    found = []
    for (accuracy, size), seconds in SECONDS.items():
        least = gradient(records, accuracy, size)
        milliseconds = None if least is None else least * 1e3
        found.append(Goal(f"one gradient, {accuracy}, {size} px", seconds * 1e3, "ms", milliseconds))
        if accuracy == "bf16" and size in (512, 1024):
            found.append(Goal(f"the same, of PyTorch's best, {size} px", RATIO, "", of_pytorch(records, size)))
    ours = memory(records, "nstgpu")
    theirs = memory(records, "PyTorch")
    ratio = None if ours is None or theirs is None else ours / theirs
    found += [
        Goal("device memory, bf16, 1024 px", 420.0, "MiB", ours),
        Goal("the same, of PyTorch's", 0.25, "", ratio),
        Goal("8192 px in tiles, time per pixel of 2048 px", 1.6, "", last(records, "tiles", "ratio", size=8192)),
        Goal("a 512 px picture from the shell", 1.3, "s", last(records, "picture", "seconds", size=512)),
    ]
    return found


def gradient(records: Sequence[Record], accuracy: str, size: int) -> float | None:
    """Our least seconds."""
    return least(records, "nstgpu", size, lambda r: r["precision"] in CLASSES[accuracy])


def of_pytorch(records: Sequence[Record], size: int) -> float | None:
    """Ours over PyTorch's best in bf16; None where torch.compile was not measured."""
    ours = gradient(records, "bf16", size)
    compiled = least(records, "PyTorch", size, lambda r: "torch.compile" in r["how"])
    theirs = least(records, "PyTorch", size, lambda r: r["precision"] == "bf16")
    return None if ours is None or compiled is None or theirs is None else ours / theirs


def least(records: Sequence[Record], side: str, size: int, wanted: Callable[[Record], bool]) -> float | None:
    return min(
        (
            float(r["seconds"])
            for r in records
            if r.get("event") == "iteration" and r["side"] == side and r["size"] == size and not r["step"] and wanted(r)
        ),
        default=None,
    )


def memory(records: Sequence[Record], side: str) -> float | None:
    """MiB of the allocator at its peak."""
    found = [
        float(r["allocator"])
        for r in records
        if r.get("event") == "memory" and r["side"] == side and r["precision"] == "bf16" and r["size"] == 1024
    ]
    return min(found) / 2**20 if found else None


def last(records: Sequence[Record], event: str, key: str, **wanted: object) -> float | None:
    found = [
        float(r[key])
        for r in records
        if r.get("event") == event and all(r.get(name) == value for name, value in wanted.items())
    ]
    return found[-1] if found else None


def verdict(goal: Goal) -> str:
    """One line."""
    unit = f" {goal.unit}" if goal.unit else ""
    if goal.found is None:
        return f"not measured  {goal.what}: the goal is {goal.most:g}{unit}"
    apart = goal.found / goal.most - 1
    word, by = ("missed", f"{apart:.0%} over") if apart > 0 else ("reached", f"{abs(apart):.0%} below")
    return f"{word:<12}  {goal.what}: {goal.found:.3g}{unit}, {by} the goal of {goal.most:g}{unit}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="*", help="JSON, a record a line; a file may be absent")
    parser.add_argument("--measured", action="store_true", help="leave out what was not measured")
    options = parser.parse_args()
    records = [
        json.loads(line)
        for path in options.records
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.startswith("{") and line.endswith("}")  # the last one of a process that was killed may be cut
    ]
    for goal in goals(records):
        if goal.found is not None or not options.measured:
            print(verdict(goal))
    return 0


if __name__ == "__main__":
    sys.exit(main())
