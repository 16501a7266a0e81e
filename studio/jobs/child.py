"""The process that paints one run: started, listened to, told what to change, and ended.

It says in JSON lines on its standard output what it does, and reads in JSON lines from its standard input what to
change; when that is closed, as by a server that dies, it writes its checkpoint and ends. As long as it lives it holds
a lock in the run's folder, by which the next server knows it.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..limits import Limits
from ..process import apart, environment
from ..settings import STYLE_WEIGHTS, Program
from . import shelf
from .record import Record

_LOCK = "child.lock"
LIVE_LINES = "--live-lines"
CHECKPOINT_SECONDS = 10


def command(program: Program, record: Record, folder: Path, device: str) -> list[str]:
    """What paints a run, or goes on with one that has a checkpoint."""
    live = f"{LIVE_LINES}={folder / shelf.FRAME}"
    if program.given is not None:
        return [*program.command, *program.given, live]
    if (folder / shelf.CHECKPOINT).exists():
        words = ["resume", str(folder / shelf.CHECKPOINT), f"--output={folder / shelf.RESULT}"]
        return [*program.command, *words, live]
    weights = record.settings.get(STYLE_WEIGHTS) or [1] * record.styles
    words = ["run", str(folder / shelf.CONTENT)]
    for number, weight in enumerate(weights):
        words.append(f"--style={folder / shelf.style(number)}" + ("" if weight == 1 else f"={weight!r}"))
    for flag, there, name in (
        ("--style-mask", record.style_masks, shelf.style_mask),
        ("--style-region", record.style_regions, shelf.style_region),
    ):
        words += [f"{flag}={folder / name(number) if has else 'none'}" for number, has in enumerate(there)]
    words += [f"--content-mask={folder / shelf.CONTENT_MASK}"] if record.content_mask else []
    words += [f"--output={folder / shelf.RESULT}", f"--checkpoint={folder / shelf.CHECKPOINT}"]
    words += [f"--checkpoint-every={CHECKPOINT_SECONDS}", f"--animation={folder / shelf.ANIMATION}"]
    words += [f"--report={folder / shelf.REPORT}"] if program.has_reports else []
    words += ["--depth=16", "--force", *([] if device == "auto" else [f"--device={device}"])]
    return [*program.command, *words, *program.arguments(record.settings), live]


class Child:
    """A process that paints."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, limits: Limits) -> None:
        self._process, self._log, self._limits = process, log, limits
        self.last_words = ""
        """The last line that it said on standard error."""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, words: Sequence[str], folder: Path, limits: Limits, *, has_terminal: bool) -> "Child":
        """Raises OSError where it can't be started, and ValueError where the child of a dead server will not end."""
        held = await _last_one_gone(folder / _LOCK, limits.orphan_seconds)
        with held:
            passed: dict[str, Any] = {} if sys.platform == "win32" else {"pass_fds": (held.fileno(),)}
            own: dict[str, Any] = {} if has_terminal else apart() | {"cwd": folder}
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None if has_terminal else asyncio.subprocess.PIPE,
                limit=limits.line_bytes,
                env=environment(),
                **(passed | own),
            )
            held.truncate(0)
            held.write(str(process.pid).encode())
        return cls(process, folder / shelf.LOG, limits)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it says, until it ends; other lines are left out."""
        output = self._process.stdout
        assert output is not None
        while True:
            try:
                line = await output.readline()
            except ValueError:  # longer than any that it has to say
                continue
            if not line:
                return
            try:
                said = json.loads(line, parse_constant=lambda _: None)  # which JSON has no numbers for
            except (ValueError, RecursionError):
                continue
            for event in said if isinstance(said, list) else [said]:
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event

    def tell(self, message: Mapping[str, Any]) -> None:
        """One that has ended meanwhile hears nothing."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                pipe.write(json.dumps(message).encode() + b"\n")

    async def ended(self) -> int:
        """Its exit code, once it has one; negative for the signal that killed it."""
        code = await self._process.wait()
        await self._listening
        return code

    async def end(self, seconds: float) -> None:
        """Asks it to end with its checkpoint written, and kills it where it does not in time."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except asyncio.TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _listen(self) -> None:
        """Standard error into the run's log, as much as that may hold."""
        errors = self._process.stderr
        if errors is None:  # it says it in this terminal
            return
        tail = ""
        with self._log.open("ab") as log:
            while piece := await errors.read(1 << 14):
                if log.tell() < self._limits.log_bytes:
                    log.write(piece)
                    log.flush()
                tail = (tail + piece.decode(errors="replace"))[-4000:]
                self.last_words = next((line for line in reversed(tail.splitlines()) if line.strip()), "")[:2000]


async def _last_one_gone(file: Path, seconds: float) -> IO[bytes]:
    """The run's lock, once the child of a server before this one has ended, or was killed since it did not."""
    held = open(file, "a+b")  # noqa: SIM115  (the caller closes it)
    clock = asyncio.get_running_loop().time
    until, killed = clock() + seconds, False
    while not shelf.lock(held):
        if clock() > until:
            held.seek(0)
            pid = held.read(20)
            if killed or not pid.isdigit():
                held.close()
                raise ValueError("the process of an earlier server still paints this run; end it, then resume")
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            killed, until = True, clock() + 5
        await asyncio.sleep(0.05)
    return held
