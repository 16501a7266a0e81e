"""One painting as the command line does it: from options to files, with progress on the way.

`nstgpu run` and `nstgpu resume` both end here. Nothing is computed; that is `StyleTransfer`'s.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args, get_origin, get_type_hints

from .messages import notes, say

if TYPE_CHECKING:
    from ..engine.animation import Animation
    from ..engine.images import Picture
    from ..engine.run import Progress, RunState
    from ..engine.transfer import Result, Style, StyleTransfer
    from ..weights import Weights

DEFAULT_SIZE = 512
ITERATIONS = 100  # at each scale
CHECKPOINT_SECONDS = 30.0
FRAMES = 60  # of an animation, about

Report = Callable[["Progress"], None]


@dataclass(frozen=True)
class Options:
    """What was asked for; everything that decides what the picture looks like, and where it goes."""

    content: str
    styles: tuple[str, ...]
    """FILE or FILE=WEIGHT."""
    output: str
    size: int | None = None
    iterations: str = str(ITERATIONS)
    min_size: int | None = None
    scales: int | None = None
    average: float | None = None
    weights: str | None = None
    preprocessing: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    tile: str = "auto"
    content_weight: float | None = None
    style_weight: float | None = None
    tv_weight: float | None = None
    content_layers: tuple[str, ...] = ()
    style_layers: tuple[str, ...] = ()
    content_reduction: str = "mean"
    statistics: str = "gram"
    style_scales: tuple[float, ...] = ()
    style_masks: tuple[str, ...] = ()
    style_regions: tuple[str, ...] = ()
    content_mask: str | None = None
    border: int = 0
    colors: str = "style"
    optimizer: str = "adam"
    learning_rate: float | None = None
    init: str = "content"
    seed: int = 0
    pooling: str | None = None
    depth: int = 8
    quality: int | None = None
    save_every: int | None = None
    animation: str | None = None
    report: str | None = None
    json_file: str | None = None
    checkpoint: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    quiet: bool = False


def paint(options: Options, resume: "RunState | None" = None) -> None:
    """Reads, paints and writes; errors are the library's."""
    from ..engine import images, recipe, tiles
    from ..engine.animation import Animation
    from ..engine.taps import LayersMissing
    from ..engine.transfer import StyleTransfer
    from ..weights import default_weights, load_weights
    from ..weights.store import BUNDLED

    styles = _styles(options)
    _check_files(options, styles)
    network = load_weights(options.weights or default_weights(), preprocessing=options.preprocessing)
    # What a thin stand-in lacks is said once, below.
    with notes(options.quiet, but=LayersMissing if network.name == BUNDLED else None):
        picture = images.read(options.content)
        transfer = StyleTransfer(
            picture,
            styles,
            weights=network,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            size=min(DEFAULT_SIZE, max(picture.pixels.shape[:2])) if options.size is None else options.size,
            content_layers=_layers(options.content_layers),
            style_layers=_layers(options.style_layers),
            content_weight=options.content_weight,
            style_weight=options.style_weight,
            tv_weight=options.tv_weight,
            content_reduction=options.content_reduction,  # type: ignore[arg-type]  # all checked there
            style_statistics=options.statistics,  # type: ignore[arg-type]
            content_mask=options.content_mask,
            border=options.border,
            colors=options.colors,  # type: ignore[arg-type]
            # Untrained filters are all alike to a max: it keeps their noise, where an average keeps the picture.
            pooling=options.pooling or ("average" if network.layout == "generated" else "max"),  # type: ignore[arg-type]
            seed=options.seed,
            tile=tiles.setting(options.tile),
        )
    images.check_size(options.output, transfer.shape[:2])
    if not options.quiet:
        if network.name == BUNDLED:
            say(
                f"note: {BUNDLED} is a small stand-in for VGG-19 up to {network.taps[-1]}; "
                "nstgpu weights fetch vgg19 gets the whole (80 MB)"
            )
        _introduce(network, transfer.device.name, transfer.shape, picture.pixels.shape)

    method = _method(options)
    planned = transfer.plan(method["iterations"], min_size=method["min_size"], count=method["scales"])
    with ExitStack() as stack:
        reports: list[Report] = []
        if not options.quiet:
            reports.append(stack.enter_context(_bar(sum(scale.iterations for scale in planned))))
        if options.json_file is not None:
            reports.append(stack.enter_context(_json_lines(options.json_file)))
        if options.save_every is not None:
            reports.append(stack.enter_context(_saver(transfer, Path(options.output), options.save_every)))
        animation = None
        if options.animation is not None:
            every = max(1, sum(scale.iterations for scale in planned) // FRAMES)
            animation = stack.enter_context(Animation(options.animation, every))
            reports.append(_animator(animation))
        if options.checkpoint is not None:
            reports.append(_checkpointer(options))

        def on_iteration(progress: "Progress") -> None:
            for report in reports:
                report(progress)

        result = transfer.run(**method, init=options.init, on_iteration=on_iteration, resume=resume)
        if animation is not None:
            animation.save(result.image)
    result = replace(result, recipe={**result.recipe, recipe.KEY: text_of(options)})
    result.save(options.output, depth=options.depth, quality=options.quality)  # type: ignore[arg-type]
    if options.report is not None:
        _write_report(options, styles, transfer, picture, result)
    if not options.quiet:
        _conclude(options, result, sum(scale.iterations for scale in planned))


def text_of(options: Options) -> str:
    """The options as a recipe; what says how to watch and where to write is left out."""
    from ..engine import recipe

    watching = {"output", "save_every", "animation", "report", "json_file", "checkpoint", "checkpoint_seconds", "quiet"}
    default = asdict(Options("", (), ""))
    chosen = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(options).items()
        if name not in watching and value != default[name]
    }
    return recipe.dump(chosen)


def from_values(values: Mapping[str, Any], **changed: Any) -> Options:
    """The options of a recipe, with some changed; raises SettingsError for what no option is called, or can be."""
    from ..engine.taps import SettingsError

    known = asdict(Options("", (), ""))
    unknown = [name for name in values if name not in known]
    if unknown:
        raise SettingsError(f"the recipe has {unknown[0]!r}, which this version does not know; leave it out")
    hints = get_type_hints(Options)
    for name, value in values.items():
        if not _is_a(value, hints[name]):
            raise SettingsError(f"the recipe has {name} = {value!r}, which that option cannot be; correct or remove it")
    fitting = {name: tuple(value) if isinstance(known[name], tuple) else value for name, value in values.items()}
    return Options(**{**{"content": "", "styles": (), "output": ""}, **fitting, **changed})


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a recipe's value is of an option's type; sequences are lists there, and whole numbers do for floats."""
    choices = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_is_a(item, choices[0]) for item in value)
    if choices:
        return any(_is_a(value, choice) for choice in choices)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


# ---- options to what the library takes --------------------------------------------------------------------------


def _method(options: Options) -> dict[str, Any]:
    from ..engine.scales import MIN_SIZE

    return {
        "iterations": _iterations(options.iterations),
        "optimizer": options.optimizer,
        "learning_rate": options.learning_rate,
        "min_size": MIN_SIZE if options.min_size is None else options.min_size,
        "scales": options.scales,
        "average": options.average,
    }


def _iterations(text: str) -> int | list[int]:
    from ..engine.taps import SettingsError

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingsError(
            f"--iterations {text!r}: give a number for every scale, or a list such as 200,100,50"
        ) from None
    return numbers if len(numbers) > 1 else numbers[0]


def _styles(options: Options) -> "list[Style]":
    """The styles with their weights, scales, masks and regions, which are given in the same order."""
    from ..engine.taps import SettingsError
    from ..engine.transfer import Style

    if not options.styles:
        raise SettingsError("no style was given; name a picture after the content, or with --style")
    count = len(options.styles)
    each = {"--style-scale": options.style_scales, "--style-mask": options.style_masks}
    each["--style-region"] = options.style_regions
    for name, values in each.items():
        if len(values) > count:
            raise SettingsError(f"{name} is given {len(values)} times for {count} styles; give it once for each")
    scales = options.style_scales * count if len(options.style_scales) == 1 else options.style_scales
    styles = []
    for number, text in enumerate(options.styles):
        path, weight = _split_weight(text)
        styles.append(
            Style(
                path,
                weight,
                scale=scales[number] if number < len(scales) else None,
                mask=_nth(options.style_masks, number),
                region=_nth(options.style_regions, number),
            )
        )
    return styles


def _nth(values: tuple[str, ...], number: int) -> str | None:
    return values[number] if number < len(values) and values[number] != "none" else None


def _split_weight(text: str) -> tuple[str, float]:
    """ "b.jpg=0.3" -> "b.jpg", 0.3; a file that is called so is taken as it is."""
    path, _, weight = text.rpartition("=")
    if not path or Path(text).exists():
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        return text, 1.0  # no such file, as reading it will say


def _layers(given: tuple[str, ...]) -> Any:
    """("relu1_1", "relu2_1") as it is; with a weight anywhere, {"relu1_1": 2.0, "relu2_1": 1.0}."""
    from ..engine.taps import SettingsError

    if not given:
        return None
    if not any("=" in option for option in given):
        return given
    weighted: dict[str, float] = {}
    for option in given:
        name, _, weight = option.partition("=")
        try:
            value = float(weight) if "=" in option else 1.0
        except ValueError:
            raise SettingsError(
                f"{option!r}: {weight!r} is not a number; write a layer as NAME or NAME=WEIGHT"
            ) from None
        if name in weighted:
            raise SettingsError(f"layer {name!r} is given twice; name it once, with the weight it should have")
        weighted[name] = value
    return weighted


def _check_files(options: Options, styles: "list[Style]") -> None:
    """Refuses, before any work, what could not be written at its end, and outputs that are inputs."""
    from ..engine import animation, images, report
    from ..engine.taps import SettingsError

    images.check_destination(options.output, depth=options.depth, quality=options.quality)
    if options.animation is not None:
        animation.Animation(options.animation, every=1).close()
    if options.report is not None:
        report.check_destination(options.report)
    if options.checkpoint is not None:
        images.check_place(Path(options.checkpoint))
    read = [options.content, *(str(style.picture) for style in styles), *options.style_masks, *options.style_regions]
    read += [options.content_mask or "", options.weights or ""]
    read += [] if options.init in ("content", "style", "gray", "noise") else [options.init]
    written = {"--output": options.output, "--json": options.json_file, "--animation": options.animation}
    written |= {"--report": options.report, "--checkpoint": options.checkpoint}
    for name, path in written.items():
        if path is not None and any(is_same_file(path, other) for other in read if other):
            raise SettingsError(f"{path} is an input and would be overwritten; choose another {name}")


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether both are there and are one file, whatever they are called."""
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


# ---- what is written on the way ---------------------------------------------------------------------------------


@contextmanager
def _saver(transfer: "StyleTransfer", output: Path, every: int) -> Iterator[Report]:
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


def _animator(animation: "Animation") -> Report:
    def add(progress: "Progress") -> None:
        if animation.due(progress.iteration):
            animation.add(progress.image())

    return add


def _checkpointer(options: Options) -> Report:
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
def _json_lines(path: str) -> Iterator[Report]:
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
        yield writer(sys.stdout)
        return
    with open(path, "w", encoding="utf-8") as stream:
        yield writer(stream)


def _write_report(
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


# ---- what the user sees -----------------------------------------------------------------------------------------


def _introduce(network: "Weights", device: str, shape: tuple[int, ...], original: tuple[int, ...]) -> None:
    resized = "" if shape[:2] == original[:2] else f" (from {original[1]}x{original[0]})"
    say(f"painting {shape[1]}x{shape[0]}{resized} with {network.name} on {device}")


def _conclude(options: Options, result: "Result", iterations: int) -> None:
    done = len(result.history)
    how = f"stopped after {done} of {iterations} iterations" if result.interrupted else f"{done} iterations"
    cost = f", cost {result.history[0].total:.4g} -> {result.history[-1].total:.4g}" if done else ""
    say(f"wrote {options.output} ({how}{cost})")


@contextmanager
def _bar(iterations: int) -> Iterator[Report]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TextColumn("cost {task.fields[cost]}"),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TextColumn("{task.fields[left]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=iterations, cost="-", speed="", left="")
        scale, before, last = 0, (0, 0.0), (0, 0.0)  # iterations and seconds, up to this scale and so far

        def show(progress: "Progress") -> None:
            nonlocal scale, before, last
            if progress.scale != scale:
                scale, before = progress.scale, last
            last = progress.iteration, progress.seconds
            # Over the whole scale, since a GPU tells of several iterations at once.
            spent = progress.seconds - before[1]
            pace = f"{(progress.iteration - before[0]) / spent:.1f} it/s" if spent > 0 else ""
            where = f"{progress.size[1]}x{progress.size[0]}"
            bars.update(
                task,
                description=where if progress.scales == 1 else f"scale {progress.scale}/{progress.scales} {where}",
                completed=progress.iteration,
                cost=f"{progress.costs.total:.4g}",
                speed=pace,
                left=f"{_clock(progress.remaining)} left",
            )

        yield show


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
