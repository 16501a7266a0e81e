"""What a run writes beside its picture: intermediate pictures, an animation, a checkpoint, lines of JSON, a report."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from . import streams
from .run_options import Options

if TYPE_CHECKING:
    from ..engine.animation import Animation
    from ..engine.images import Picture
    from ..engine.run import Progress
    from ..engine.transfer import Result, Style, StyleTransfer

Report = Callable[["Progress"], None]


@contextmanager
def saver(transfer: "StyleTransfer", output: Path, every: int) -> Iterator[Report]:
    """Saves pictures in a thread of its own, one at a time, so that no iteration waits for a file."""
    from concurrent.futures import Future, ThreadPoolExecutor

    from ..engine import images

    with ThreadPoolExecutor(1) as pool:
        saving: list[Future[None]] = []

        def save(progress: "Progress") -> None:
            if progress.iteration % every == 0:
                path = output.with_name(f"{output.stem}_{progress.iteration:04d}{output.suffix}")
                picture, alpha = progress.snapshot(), transfer.alpha(progress.size)
                finish()
                saving.append(pool.submit(lambda: images.save(path, picture(), alpha=alpha)))

        def finish() -> None:
            while saving:
                saving.pop().result()

        yield save
        finish()


def animator(animation: "Animation") -> Report:
    def add(progress: "Progress") -> None:
        if animation.due(progress.iteration):
            animation.add(progress.image())

    return add


def checkpointer(options: Options) -> Report:
    from ..engine import checkpoint

    text = json.dumps(asdict(options))
    written = -math.inf

    def save(progress: "Progress") -> None:
        nonlocal written
        if time.monotonic() - written >= options.checkpoint_seconds:
            checkpoint.write(options.checkpoint or "", progress.state(), text)
            written = time.monotonic()

    return save


@contextmanager
def json_lines(path: str) -> Iterator[Report]:
    """Writes {"iteration", "seconds", "scale", "costs"} a line per iteration, each flushed whole."""

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

    if path == "-":
        write = writer(sys.stdout)

        def while_it_is_read(progress: "Progress") -> None:
            try:
                write(progress)
            except BrokenPipeError:  # as in `| head`, which has seen enough
                streams.nobody_reads()

        yield while_it_is_read
        return
    with open(path, "w", encoding="utf-8") as stream:
        yield writer(stream)


def write_report(
    options: Options, styles: "list[Style]", transfer: "StyleTransfer", content: "Picture", result: "Result"
) -> None:
    from ..engine import images, masks, report

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
            Path(options.output).stem,
            result.image,
            inputs,
            result.history,
            result.scales,
            transfer.content_layers,
            transfer.style_layers,
            transfer.content_weight,
            transfer.style_weight,
            result.recipe,
        ),
    )
