"""A run that is watched and steered by another program: `run` and `resume` with the hidden `--live-lines FRAME.webp`.

Both sides speak JSON, one object a line, in UTF-8. Standard output says what happens and standard input what is wanted,
so that it works wherever there are pipes; standard error has notes, and in the end the one line of an error. The
picture on its way is in the file that is named, replaced whole each time.

Out, in the order in which it happens:

    {"event": "begun", "iteration": 0, "size": [w, h], "device": "cpu", "weights": "mini",
     "scales": [{"size": [w, h], "iterations": n}, ...], "taken": {...}}
        iteration: done already, by the run that this one goes on with. taken: the settings as `runs.settings.Settings`
        spells them, without its files, with what was measured for those left open; and under "layers" the formula's own
        {"content": {tap: w}, "style": {tap: lambda}}.
    {"event": "progress", "iteration": n, "iterations": in all, "scale": from 1, "scales": n, "size": [w, h],
     "seconds": s, "remaining": s, "costs": [{"iteration": n, "total", "content", "style", "tv", "gradient_norm",
     "per_layer": {tap: cost}}, ...]}
        costs: of every iteration since the last such line, the newest last. At most LINES_A_SECOND such lines.
    {"event": "frame", "iteration": n, "file": "FRAME.webp", "size": [w, h]}
        The file has been replaced. The last one comes after the last iteration, with "last": true, and has the result.
    {"event": "changed", "iteration": n, "changes": {...}, "taken": {...}, "scales": [...]}
        The iterations after n are with these settings.
    {"event": "refused", "changes": {...}, "why": "one line"}
        The run goes on as it was. Without "changes" it was no change, but a line that means nothing.
    {"event": "paused", "iteration": n}, {"event": "resumed", "iteration": n}
    {"event": "done", "iteration": n, "interrupted": whether iterations are left}
        The picture is written, and all that lies beside it. What follows is the exit code alone.

In, in any order:

    {"change": {"style_weight": 2e4, "style_layers": ["relu1_1=2", "relu2_1"]}}
        Settings by their names; see `runs.changes` for which may change.
        One change, which is made whole or not at all. While paused, changes wait.
    {"more_scale": true}    One scale more, √2 as large as the last.
    {"pause": true}, {"pause": false}
    {"frame": true}         A frame of the next iteration, whatever the pace.
    {"stop": true}          The run ends here; the picture is written, and its recipe says where it was stopped.

The end of standard input means that nobody is there any more: the run ends as after SIGTERM, with picture and
checkpoint, so that `nstgpu resume` goes on.

Frames are at most LIVE_SIDE pixels long, and encoded in a thread, at a pace that costs the iterations one part in
FRAME_SHARE at most.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...runs.changes import Change
from ...runs.files import PICTURES
from ...runs.requests import MORE_SCALE, Requests
from ...runs.settings import Options, Settings, is_same_file, split_weight
from ...runs.steered import Stage
from ..terminal.messages import printable
from ..terminal.streams import output_alone
from .destinations import STANDARD, refuse_folder
from .side_outputs import Side

if TYPE_CHECKING:
    from ...engine.optimizers.coarse_to_fine import Method, Progress
    from ...engine.transfer import Result, StyleTransfer
    from ...engine.types import Image

LINES_A_SECOND = 20
LIVE_SIDE = 1024
"""Long side of a frame on the way, in pixels, at most."""
LAST_SIDE = 4096
"""Of the last one."""
LEAST_SECONDS = 0.5
"""From one frame to the next, at least."""
FRAME_SHARE = 25
"""A frame is followed by none for so many times as long as it took."""
LONGEST_LINE = 1 << 16
"""Bytes of a line that comes in."""


class Lines:
    """Lines out, from any thread; once nobody reads them they lead nowhere, and `gone` is called."""

    def __init__(self, stream: BinaryIO, gone: Callable[[], None]) -> None:
        self._stream, self._gone, self._lock = stream, gone, threading.Lock()

    def say(self, event: str, **more: Any) -> None:
        line = json.dumps({"event": event, **more}) + "\n"
        with self._lock:
            try:
                self._stream.write(line.encode())
                self._stream.flush()
            except (OSError, ValueError):  # a pipe without a reader; ValueError: closed
                self._gone()


class Frames:
    """The picture on its way, in one file, at a pace that the iterations do not feel."""

    def __init__(self, path: Path, said: Callable[..., None]) -> None:
        self.path, self._said = path, said
        self._pool = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._next, self._wanted = 0.0, False

    def want(self) -> None:
        """The next one at once."""
        self._wanted = True

    def report(self, progress: "Progress") -> None:
        """Raises ImageError where the frame before could not be written."""
        if self._under_way is not None and not self._under_way.done():
            return
        if time.monotonic() < self._next and not self._wanted:
            return
        self.join()
        self._wanted = False
        began = time.thread_time()
        picture = progress.snapshot()
        self._under_way = self._pool.submit(
            self._write, progress.iteration, picture, LIVE_SIDE, time.thread_time() - began
        )

    def finish(self, result: "Result") -> None:
        """The result, as the last one."""
        self.join()
        self._write(len(result.history), lambda: result.image, LAST_SIDE, 0.0, last=True)

    def join(self) -> None:
        """Waits for the one under way; raises ImageError where it could not be written."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        self._pool.shutdown()

    def _write(self, iteration: int, picture: "Callable[[], Image]", side: int, spent: float, **more: Any) -> None:
        import io

        from ...engine.imaging import files as images

        began = time.thread_time()
        shown = images.preview(picture(), side)
        encoded = io.BytesIO()
        shown.save(encoded, "WEBP", quality=80, method=0 if side == LIVE_SIDE else 2)
        images.write_whole(self.path, encoded.getvalue())
        self._next = time.monotonic() + max(LEAST_SECONDS, FRAME_SHARE * (spent + time.thread_time() - began))
        self._said("frame", iteration=iteration, file=self.path.name, size=list(shown.size), **more)


class Live:
    """What a watched run says and is told."""

    def __init__(self, lines: Lines, frames: Frames, requests: Requests) -> None:
        self.requests = requests
        self._lines, self._frames = lines, frames
        self._costs: list[dict[str, Any]] = []
        self._newest: Progress | None = None
        self._said = 0.0

    def sides(self) -> tuple[Side, Side]:
        """The lines of progress, and the frames."""
        return (
            Side("--live-lines", self._report),
            Side(f"--live-lines {self._frames.path}", self._frames.report, self._frames.finish),
        )

    def begun(self, stage: Stage, done: int) -> None:
        transfer = stage.transfer
        self._lines.say(
            "begun", iteration=done, size=[transfer.shape[1], transfer.shape[0]], device=transfer.device.name,
            weights=transfer.weights.name, scales=_scales(transfer, stage.method),
            taken=_taken(stage.options, transfer),
        )  # fmt: skip

    def changed(self, stage: Stage, change: Change) -> None:
        self._say(
            "changed", iteration=change.iteration, changes=dict(change.values),
            taken=_taken(stage.options, stage.transfer), scales=_scales(stage.transfer, stage.method),
        )  # fmt: skip

    def refused(self, values: Mapping[str, Any], why: str) -> None:
        self._say("refused", changes=values, why=printable(why))

    def paused(self, paused: bool, iteration: int) -> None:
        self._say("paused" if paused else "resumed", iteration=iteration)

    def done(self, result: "Result") -> None:
        self._say("done", iteration=len(result.history), interrupted=result.interrupted)

    def _report(self, progress: "Progress") -> None:
        costs = progress.costs
        self._costs.append(
            {
                "iteration": progress.iteration, "total": costs.total, "content": costs.content, "style": costs.style,
                "tv": costs.tv, "gradient_norm": costs.gradient_norm, "per_layer": dict(costs.per_layer),
            }
        )  # fmt: skip
        self._newest = progress
        if time.monotonic() >= self._said + 1 / LINES_A_SECOND or progress.iteration == progress.iterations:
            self._flush()

    def _say(self, event: str, **more: Any) -> None:
        self._flush()
        self._lines.say(event, **more)

    def _flush(self) -> None:
        """The iterations that have not been told of yet."""
        progress, self._newest = self._newest, None
        if progress is None:
            return
        costs, self._costs = self._costs, []
        self._said = time.monotonic()
        self._lines.say(
            "progress", iteration=progress.iteration, iterations=progress.iterations, scale=progress.scale,
            scales=progress.scales, size=[progress.size[1], progress.size[0]], seconds=progress.seconds,
            remaining=progress.remaining, costs=costs,
        )  # fmt: skip


def _scales(transfer: "StyleTransfer", method: "Method") -> list[dict[str, Any]]:
    sizes = [transfer.size_at(scale.long_side) for scale in method.scales]
    return [
        {"size": [width, height], "iterations": scale.iterations}
        for (height, width), scale in zip(sizes, method.scales, strict=True)
    ]


def _taken(options: Options, transfer: "StyleTransfer") -> dict[str, Any]:
    from ...engine.optimizers.registry import spec

    left_out = (*PICTURES, "changes")
    told = {field.name: getattr(options, field.name) for field in fields(Settings) if field.name not in left_out}
    told |= {name: getattr(transfer, name) for name in ("content_weight", "style_weight", "tv_weight")}
    told["weights"] = transfer.weights.name
    told["learning_rate"] = options.learning_rate or spec(options.optimizer).learning_rate
    for name, exact in (("content_layers", "content_ws"), ("style_layers", "style_lambdas")):
        if not (told[name] or told[exact]):
            told[name] = list(getattr(transfer, name))
    told["layers"] = {"content": dict(transfer.content_layers), "style": dict(transfer.style_layers)}
    return told


# ---- what is asked of it ----------------------------------------------------------------------------------------


def check(frame: str, options: Options) -> None:
    """Raises SettingsError where standard input or output is wanted for something else, or the file is a folder."""
    from ...engine.errors import SettingsError
    from ...engine.imaging.files import check_place

    refuse_folder(frame, "--live-lines")
    pictures = [getattr(options, name) for name in PICTURES]
    read = [path for value in pictures for path in (value if isinstance(value, tuple) else (value,))]
    read = [split_weight(path)[0] for path in read if path]
    if any(is_same_file(frame, path) for path in read):
        raise SettingsError(f"{frame} is an input and would be overwritten; choose another --live-lines")
    if STANDARD in (*read, options.output, options.json_file):
        raise SettingsError("--live-lines speaks on standard input and output, so that no picture can be -; name files")
    check_place(Path(frame))


@contextmanager
def watched(frame: str) -> Iterator[Live]:
    """A run that is watched from here on: its lines go to standard output, and a thread reads standard input."""
    requests = Requests()
    with output_alone() as output:
        lines = Lines(output, requests.leave)
        frames = Frames(Path(frame), lines.say)
        threading.Thread(target=_listen, args=(lines, frames, requests), daemon=True).start()
        try:
            yield Live(lines, frames, requests)
        finally:
            frames.close()


def _listen(lines: Lines, frames: Frames, requests: Requests) -> None:
    for line in _lines_in():
        told = None
        with suppress(ValueError, RecursionError):
            told = json.loads(line)
        if not isinstance(told, dict) or not _obey(told, frames, requests, lines):
            lines.say("refused", why="a line that came in is no request that this version knows")
    requests.leave()


def _obey(told: dict[str, Any], frames: Frames, requests: Requests, lines: Lines) -> bool:
    """Whether the line meant anything."""
    match told:
        case {"change": dict(values)}:
            if not requests.change(values):
                lines.say("refused", changes=values, why="too many changes wait for their turn already")
        case {"more_scale": True}:
            requests.change(MORE_SCALE)
        case {"pause": bool(paused)}:
            requests.pause(paused)
        case {"frame": True}:
            frames.want()
        case {"stop": True}:
            requests.stop()
        case _:
            return False
    return True


def _lines_in() -> Iterator[bytes]:
    """Of standard input, past Python's own buffer, whose lock a thread may not hold when the interpreter ends."""
    held = b""
    with suppress(OSError, ValueError):  # closed
        while piece := os.read(sys.stdin.fileno(), LONGEST_LINE):
            *whole, held = (held + piece).split(b"\n")
            yield from (line for line in whole if line.strip())
            if len(held) > LONGEST_LINE:
                yield held
                held = b""
