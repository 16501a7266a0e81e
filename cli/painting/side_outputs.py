"""What a run writes beside its picture: intermediate pictures, an animation, a checkpoint, lines of JSON, a report.

None of them may cost the picture: one that fails is noted and left out from then on, and the command ends in code 1.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ...runs.settings import Options
from ...runs.steered import Stage
from ..terminal import streams
from ..terminal.messages import say
from .destinations import STANDARD, default_name, numbered

if TYPE_CHECKING:
    from ...engine.imaging.files import Picture
    from ...engine.optimizers.coarse_to_fine import Progress, RunState
    from ...engine.reporting.animation import Animation
    from ...engine.transfer import Result, Style, StyleTransfer

Report = Callable[["Progress"], None]
Finish = Callable[["Result"], None]


@dataclass(frozen=True)
class Side:
    """One side output."""

    name: str
    """As a user gave it: "--animation way.webp"."""
    report: Report | None = None
    """After each iteration."""
    finish: Finish | None = None
    """Once the picture is written."""
    persistent: bool = False
    """Whether it is tried again after it has failed."""


class Sides:
    """The side outputs of a run, in their order. What fails is noted once."""

    def __init__(self) -> None:
        self._sides: list[Side] = []
        self.failed: list[str] = []

    def add(self, side: Side) -> None:
        self._sides.append(side)

    def leave_out(self, name: str, reason: str) -> None:
        """One that can't be written, as is known before the run goes on."""
        self.failed.append(name)
        say(f"note: {name} is left out ({reason}); the picture is not touched by it")

    def report(self, progress: "Progress") -> None:
        for side in tuple(self._sides):
            if side.report is not None:
                with self._noted(side):
                    side.report(progress)

    def finish(self, result: "Result") -> None:
        for side in tuple(self._sides):
            if side.finish is not None:
                with self._noted(side):
                    side.finish(result)

    @contextmanager
    def _noted(self, side: Side) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, it is not the picture's
            if not side.persistent:
                self._sides.remove(side)
            if side.name in self.failed:
                return
            self.failed.append(side.name)
            reason = " ".join(str(error).split()) or type(error).__name__
            rest = "it is tried again later" if side.persistent else "it is left out from here on"
            say(f"note: {side.name} fails ({reason}); {rest}, the picture is not touched by it")


def saver(transfer: "StyleTransfer", options: Options, stack: ExitStack) -> Side:
    """Saves pictures in a thread of its own, one at a time, so that no iteration waits for a file."""
    from concurrent.futures import Future, ThreadPoolExecutor

    from ...engine.imaging import files as images

    pool = stack.enter_context(ThreadPoolExecutor(1))
    saving: list[Future[None]] = []
    every = options.save_every or 1

    def save(progress: "Progress") -> None:
        if progress.iteration % every == 0:
            path = numbered(Path(options.output), progress.iteration)
            picture, alpha = progress.snapshot(), transfer.alpha(progress.size)
            finish()
            saving.append(pool.submit(lambda: images.save(path, picture(), alpha=alpha)))

    def finish() -> None:
        while saving:
            saving.pop().result()

    return Side(f"--save-every {every}", save, lambda _: finish())


def animator(animation: "Animation") -> Side:
    def add(progress: "Progress") -> None:
        if animation.due(progress.iteration):
            animation.add(progress.image())

    return Side(f"--animation {animation.path}", add, lambda result: animation.save(result.image))


def checkpointer(
    path: str, text: Callable[[], str], seconds: float, animation: "Animation | None", begun_with: "RunState | None"
) -> Side:
    """Keeps the run's state, every so many seconds, once it has been changed, and at the end.

    text: the options, as they are by then; the same object while they are. animation: whose frames are kept along.
    begun_with: the state that a resumed run goes on from.
    """
    from ...engine.optimizers import checkpoint

    tried, done, told = -math.inf, -1, text()
    last: Progress | None = None

    def write(state: "RunState") -> None:
        checkpoint.write(path, state, told, None if animation is None else animation.frames())

    def save(progress: "Progress") -> None:
        nonlocal tried, done, last, told
        last, before, told = progress, told, text()
        if time.monotonic() - tried >= seconds or told is not before:
            try:
                write(progress.state())
                done = progress.iteration
            finally:
                tried = time.monotonic()

    def finish(_: "Result") -> None:
        nonlocal told
        before, told = told, text()
        if last is None and begun_with is not None:  # it had ended before; where it writes may be new
            write(begun_with)
        elif last is not None and (done != last.iteration or told is not before):
            write(last.state())

    return Side(f"--checkpoint {path}", save, finish, persistent=True)


def json_lines(path: str, done: int, stack: ExitStack) -> Side:
    """Writes {"iteration", "seconds", "scale", "costs"} a line per iteration, each flushed whole.

    done: iterations that a resumed run had behind it; lines up to there are kept.
    """

    def writer(stream: TextIO) -> Report:
        def report(progress: "Progress") -> None:
            line = {
                "iteration": progress.iteration,
                "scale": progress.scale,
                "size": [progress.size[1], progress.size[0]],
                "seconds": progress.seconds,
                "costs": asdict(progress.costs),
            }
            print(json.dumps(line), file=stream, flush=True)

        return report

    name = f"--json {path}"
    if path == "-":
        write = writer(sys.stdout)

        def while_it_is_read(progress: "Progress") -> None:
            try:
                write(progress)
            except BrokenPipeError:  # as in `| head`, which has seen enough
                streams.nobody_reads()

        return Side(name, while_it_is_read)
    write_line: Report | None = None

    def report(progress: "Progress") -> None:
        nonlocal write_line
        if write_line is None:  # opened here, where it costs nothing else if it cannot be
            if done and os.path.isfile(path):
                _forget_lines_after(path, done)
            stream = open(path, "a" if done else "w", encoding="utf-8")  # noqa: SIM115  (closed by the stack)
            stack.callback(_close_quietly, stream)
            write_line = writer(stream)
        write_line(progress)

    return Side(name, report)


def _close_quietly(stream: TextIO) -> None:
    """What a full disk did not take of a line has been noted with that line."""
    with suppress(OSError):
        stream.close()


def _forget_lines_after(path: str, done: int) -> None:
    """Cuts off what the interrupted run wrote after its last checkpoint, whose iterations come again."""
    with open(path, "r+b") as file:
        kept = 0
        for line in file:
            try:
                iteration = json.loads(line)["iteration"]
            except (ValueError, LookupError, TypeError):
                iteration = 0 if line.endswith(b"\n") else done + 1  # another's line, or the torn last one
            if not isinstance(iteration, int) or iteration > done:
                break
            kept += len(line)
        file.truncate(kept)


def reporter(options: Options, styles: "list[Style]", stage: Callable[[], Stage], content: "Picture") -> Side:
    """stage: the run's last one."""

    def write(result: "Result") -> None:
        _write_report(options, styles, stage(), content, result)

    return Side(f"--report {options.report}", finish=write)


def _write_report(options: Options, styles: "list[Style]", stage: Stage, content: "Picture", result: "Result") -> None:
    from ...engine.imaging import files as images
    from ...engine.imaging import masks
    from ...engine.reporting import report

    transfer = stage.transfer
    inputs = {f"content: {content.name}": content.pixels}
    for style in styles:
        picture = images.read(style.picture)
        inputs[f"style: {picture.name}" + ("" if style.weight == 1 else f" ({style.weight:g})")] = picture.pixels
        if style.mask is not None:
            inputs[f"where {picture.name} is wanted"] = masks.read(style.mask)
        if style.region is not None:
            inputs[f"where to look in {picture.name}"] = masks.read(style.region)
    if options.content_mask is not None:
        inputs["what stays as it is"] = masks.read(options.content_mask)
    report.write_report(
        options.report or "",
        report.Report(
            Path(default_name(options) if options.output == STANDARD else options.output).stem,
            result.image,
            inputs,
            result.history,
            result.scales,
            transfer.content_layers,
            transfer.style_layers,
            transfer.content_weight,
            transfer.style_weight,
            result.recipe,
            stage.earlier,
        ),
    )
