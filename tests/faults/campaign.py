"""Damaged files by the thousand, each read in a process that may die of it without harm.

A file is known by (kind, number): the seeds and the generator's state follow from these, whatever was tried before. So
a finding is repeated by its number, and a campaign may be cut up among processes and days.
"""

import contextlib
import json
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import mutations, seeds

MOST_SECONDS = 20.0
"""That a file of a few kilobytes may take to be read or refused; on a busy machine too."""
SECONDS_TO_START = 300.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finding:
    """A file that did something else than to be read or refused."""

    kind: str
    number: int
    what: str
    content: bytes = field(repr=False)


@dataclass
class Tally:
    """What came of how many."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and "read", "refused" or "fault"."""
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = sorted({kind for kind, _ in self.outcomes})
        lines = [f"{kind:12}" + "".join(f"{self.outcomes[kind, how]:>9} {how}" for how in ("read", "refused", "fault"))
                 for kind in kinds]  # fmt: skip
        return "\n".join([*lines, *(f"FINDING {each.kind} {each.number}: {each.what}" for each in self.findings)])


class Reader:
    """A worker process of a kind, started anew when it has died or hung."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> tuple[str, str]:
        """What came of a file: see `reading.outcome`; a death or a hang is a fault."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            print(path, file=process.stdin, flush=True)
        except BrokenPipeError:
            return self._ended(process)
        line = self._line(process, MOST_SECONDS)
        if line is None:
            self.close()
            return "fault", f"no answer in {MOST_SECONDS:.0f} s"
        if not line:
            return self._ended(process)
        how, what = json.loads(line)
        return how, what

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # a line that it did not take
                        stream.close()
            self._process = None

    @staticmethod
    def _line(process: "subprocess.Popen[str]", seconds: float) -> str | None:
        """The next line that it says, "" if it has ended, None if it says nothing for so long."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(seconds) else None

    def _ended(self, process: "subprocess.Popen[str]") -> tuple[str, str]:
        code = process.wait()
        self.close()
        return "fault", f"the process ended with {code}"

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.faults.reading", self.kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        if not self._line(self._process, SECONDS_TO_START):
            raise RuntimeError(f"`{' '.join(command)}` does not start")
        return self._process


def damaged(kind: str, number: int, files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The name and the content of a kind's file of this number."""
    rng = np.random.default_rng([seeds.KINDS.index(kind), number])
    name, content = files[int(rng.integers(len(files)))]
    return name, mutations.mutated(content, rng, [content for _, content in files])


def run(kinds: Iterable[str], numbers: Iterator[int], tally: Tally, *, ends: float = float("inf")) -> None:
    """Reads one file of each kind for each number, until there are no more or `ends` (of time.monotonic) is there."""
    with tempfile.TemporaryDirectory(prefix="nstgpu-faults-") as name:
        folder = Path(name)
        known = {kind: [(path.name, path.read_bytes()) for path in seeds.make(folder / kind, kind)] for kind in kinds}
        readers = {kind: Reader(kind) for kind in known}
        try:
            for number in numbers:
                for kind, reader in readers.items():
                    if time.monotonic() > ends:
                        return
                    name, content = damaged(kind, number, known[kind])
                    path = folder / f"damaged-{kind}-{name}"
                    path.write_bytes(content)
                    how, what = reader.read(path)
                    tally.outcomes[kind, how] += 1
                    if how == "fault":
                        tally.findings.append(Finding(kind, number, what, content))
        finally:
            for reader in readers.values():
                reader.close()
