"""The comparison on a GPU: starts the process that measures, watches it, and keeps the table up to date.

What is measured is in `gpu_sections`, what the table looks like in `gpu_table`. A variant at which the process dies or
falls silent becomes a line that says so, and the rest goes on without it in a new process. The table and the lines of
JSON are written as measurements come in, so that a time limit loses nothing.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from gpu_sections import PLANS  # type: ignore[import-not-found]
from gpu_table import table  # type: ignore[import-not-found]
from gpu_variants import OURS, THEIRS, TWICE  # type: ignore[import-not-found]

HERE = Path(__file__).parent
STARTING = 180.0  # seconds that the process may take until it says something
PASSING = ("at", "section", "done", "died")  # events that are no records


def on_gpu(sizes: list[int], rounds: int, markdown: Path | None, lines: Path | None, limit: float, *, dry: bool,
           what: str = "all") -> int:  # fmt: skip
    """The exit status: 1 where our own side failed at anything, or in a dry run anyone."""
    ends, todo = time.monotonic() + limit, PLANS[what](sizes)
    records: list[dict[str, Any]] = []
    without: dict[str, str] = {}
    if markdown is None and not dry:
        markdown = HERE / "results" / f"cuda_{time.strftime('%Y-%m-%d')}.md"
    if lines is not None:
        lines.write_text("")

    def keep(record: dict[str, Any]) -> None:
        records.append(record)
        text = json.dumps(record)
        print(text, file=sys.stderr)
        if lines is not None:
            with lines.open("a") as file:
                file.write(text + "\n")

    def problem(name: str, text: str) -> None:
        side = THEIRS if name.startswith(THEIRS) else OURS  # which stands for what nobody can be blamed for
        keep({"event": "problem", "section": str(todo[0]), "side": side, "name": name, "problem": text})

    def write() -> None:
        if markdown is not None:
            beside = markdown.with_name(f"{markdown.name}.part")
            beside.write_text(table(records, dry=dry))
            beside.replace(markdown)

    while todo:
        part = {"sections": [astuple(section) for section in todo], "rounds": rounds, "without": without, "dry": dry}
        at, why = "", ""
        for event in watched(part, ends):
            kind = event["event"]
            if kind == "section":
                at = ""
            elif kind == "at":
                at = event["name"].removesuffix(TWICE)
            elif kind == "done":
                todo.pop(0)
                write()
            elif kind in ("died", "end"):
                at, why = event.get("name", at), event["problem"]
            if kind not in (*PASSING, "end"):
                keep(event)
        if not todo:
            break
        if time.monotonic() >= ends:
            left = ", ".join(str(section) for section in todo)
            keep({"event": "note", "text": f"stopped after {limit:.0f} s; not measured, or not to the end: {left}"})
            break
        problem(at or "all", why)
        if at and at not in without:
            without[at] = f"not tried again: {why}"
        else:
            todo.pop(0)  # nobody to leave out
    write()
    print(table(records, dry=dry))
    return int(any(r["event"] == "problem" and (dry or r["side"] == OURS) for r in records))


def watched(part: dict[str, Any], ends: float) -> Iterator[dict[str, Any]]:
    """What the process that works through `part` says, and at last an event "end" with what ended it."""
    reading, writing = os.pipe()
    command = [sys.executable, str(HERE / "compare_pytorch.py"), "--part", json.dumps({**part, "pipe": writing})]
    process = subprocess.Popen(command, pass_fds=[writing], stdout=sys.stderr)
    os.close(writing)
    silent, pending, died = time.monotonic() + STARTING, b"", False
    within = STARTING
    try:
        while True:
            over = process.poll() is not None  # before the last look: a grandchild may hold the pipe open
            ready, _, _ = select.select([reading], [], [], 0 if over else 1.0)
            received = os.read(reading, 1 << 16) if ready else b""
            if received:
                *whole, pending = (pending + received).split(b"\n")
                for line in whole:
                    event = json.loads(line)
                    within = event.get("within", STARTING)
                    silent = time.monotonic() + within
                    died |= event["event"] == "died"
                    yield event
            elif over or ready:
                status = process.wait()
                if not died:
                    yield {"event": "end", "problem": f"its process ended with status {status}"}
                return
            elif time.monotonic() > min(silent, ends):
                yield {"event": "end", "problem": f"nothing was heard for {within:.0f} s"}
                return
    finally:
        os.close(reading)
        process.kill()
        process.wait()
