"""What went wrong in a kernel, as Python objects: reads the runtime's reports and finds their source lines."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Side:
    """One of the places in the source that a fault is about, and who was there.

    A lane is a thread's number in its block: x + y * blockDim.x + z * blockDim.x * blockDim.y.
    """

    action: str
    block: tuple[int, int, int]
    lanes: tuple[int, ...]
    file: str
    line: int

    def __str__(self) -> str:
        who = f"{'threads' if len(self.lanes) > 1 else 'thread'} {', '.join(_ranges(self.lanes))}"
        return f"{self.file}:{self.line}: block {self.block}, {who}: {self.action}"


@dataclass(frozen=True)
class Report:
    """One fault; `count` is how often it was seen at the same lines."""

    kind: str
    kernel: str
    headline: str
    sides: tuple[Side, ...]
    count: int

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return "\n".join([f"{self.kind}: {self.headline}{times}", *(f"    {side}" for side in self.sides)])


class KernelFault(RuntimeError):
    """A kernel did what no kernel may do. `reports` holds each fault once."""

    def __init__(self, kernel: str, reports: tuple[Report, ...]) -> None:
        super().__init__(f"kernel {kernel!r}:\n" + "\n".join(str(report) for report in reports))
        self.kernel = kernel
        self.reports = reports


def parse_reports(text: str, kernel: str, grid: Sequence[int], library: Path) -> tuple[Report, ...]:
    """The reports of a launch from the text that `Reports::text` in runtime.cpp has made of them."""
    rows = [line.split("\t") for line in text.splitlines()]
    counters = {int(row[4]) for row in rows if row[0] == "side"} - {0}
    places = _source_lines(library, sorted(counters))
    reports: list[Report] = []
    for tag, *fields in rows:
        if tag == "report":
            kind, headline, count = fields
            reports.append(Report(kind, kernel, headline, (), int(count)))
            continue
        action, lanes, block, counter, line, file = fields
        x, y = int(block) % grid[0], int(block) // grid[0]
        file, line = places.get(int(counter), (file, line))
        side = Side(action, (x, y % grid[1], y // grid[1]), tuple(_numbers(lanes)), file, int(line))
        report = reports.pop()
        reports.append(Report(report.kind, kernel, report.headline, (*report.sides, side), report.count))
    return tuple(reports)


def _source_lines(library: Path, counters: Sequence[int]) -> dict[int, tuple[str, str]]:
    """File and line of program counters in a library, or where inlined, of the call outside the emulator's headers."""
    if not counters or not shutil.which("addr2line"):
        return {counter: (f"{library.name}+{counter:#x} (addr2line would tell the line)", "0") for counter in counters}
    command = ["addr2line", "-a", "-i", "-e", str(library), *map(hex, counters)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    places: dict[int, tuple[str, str]] = {}
    counter, found = 0, False
    for line in output.splitlines():
        if line.startswith("0x"):
            counter, found = int(line, 16), False
        elif not found:
            file, _, number = line.partition(" (")[0].rpartition(":")
            places[counter] = (file, number if number.isdigit() else "0")
            found = not _is_ours(file)
    return places


def _is_ours(file: str) -> bool:
    """Whether it is a header of the emulator's: what that does is done by the kernel that calls it."""
    folders = Path(os.path.normpath(file)).parts[:-1]
    return folders[-1:] == ("emulator",) or folders[-2:] == ("emulator", "ptx")


def _numbers(ranges: str) -> Iterator[int]:
    """0, 1, 2, 5 of "0-2,5"."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """The inverse of _numbers."""
    first = 0
    for i, number in enumerate(numbers):
        if i + 1 == len(numbers) or numbers[i + 1] != number + 1:
            yield f"{numbers[first]}-{number}" if i > first else str(number)
            first = i + 1
