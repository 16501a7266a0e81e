"""`nstgpu run`: two images in, a picture out, with progress on the way.

Reads the options, hands them to `StyleTransfer`, and shows what happens; nothing is computed here.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from .version import VERSION

if TYPE_CHECKING:
    from ..engine.transfer import Progress, Result
    from ..weights import Weights

DEFAULT_SIZE = 512

Report = Callable[["Progress"], None]


def run(
    content: Annotated[Path, typer.Argument(help="The picture to paint.", show_default=False)],
    style: Annotated[Path, typer.Argument(help="The picture whose manner it is painted in.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="PNG, JPEG, WebP or TIFF by suffix.", show_default="CONTENT_STYLE.png"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, help="Long side in pixels.", show_default=f"{DEFAULT_SIZE}, or the content's if smaller"),
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of the optimiser.")] = 300,
    weights: Annotated[
        str | None,
        typer.Option(
            help="vgg19, vgg16, a VGG weights file (.h5, .keras), or random:SEED.",
            show_default="vgg19 once fetched, else random:0",
        ),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(help="The weights' own: caffe or torchvision.", show_default="what the file says, else caffe"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, cpu, reference or emulator.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, or what the device offers, such as fp32.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the cpu device.", show_default="all cores")
    ] = None,
    content_weight: Annotated[
        float | None, typer.Option(help="alpha: how much the content counts.", show_default="measured")
    ] = None,
    style_weight: Annotated[
        float | None, typer.Option(help="beta: how much the style counts.", show_default="measured")
    ] = None,
    tv_weight: Annotated[
        float | None, typer.Option(help="gamma: how much smoothness counts.", show_default="measured")
    ] = None,
    content_layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=W]", help="Where content is compared; may be repeated.", show_default="relu4_2"),
    ] = None,
    style_layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=W]", help="Where style is compared; may be repeated.", show_default="relu1_1 ... relu5_1"
        ),
    ] = None,
    content_reduction: Annotated[
        str, typer.Option(help="mean (the same look at every size) or sum (the paper's).")
    ] = "mean",
    style_scale: Annotated[float, typer.Option(help="Size of the style image relative to --size.")] = 1.0,
    optimizer: Annotated[str, typer.Option(help="adam or descent.")] = "adam",
    learning_rate: Annotated[
        float | None, typer.Option(help="Step size.", show_default="0.02 for adam, measured for descent")
    ] = None,
    init: Annotated[str, typer.Option(help="Start from content, style, noise, or an image file.")] = "content",
    seed: Annotated[int, typer.Option(min=0, help="Of every random number.")] = 0,
    pooling: Annotated[
        str | None, typer.Option(help="max or average.", show_default="max; average with random weights")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write a line of JSON per iteration; - for standard output."),
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Also save OUTPUT_000N.png every N iterations.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    version: Annotated[bool, VERSION] = False,
) -> None:
    """Paint CONTENT in the manner of STYLE.

    Ctrl-C ends the run early and still writes the picture.
    """
    del debug, version  # acted on where errors are reported, and by its callback
    from ..engine import images
    from ..engine.taps import SettingsError
    from ..engine.transfer import StyleTransfer
    from ..weights import default_weights, load_weights

    destination = Path(f"{content.stem}_{style.stem}.png") if output is None else output
    images.check_destination(destination)
    inputs = [content, style, *([Path(init)] if init not in ("content", "style", "noise") else [])]
    inputs += [Path(weights)] if weights else []
    for path in (destination, *([json_file] if json_file else [])):
        if any(_is_same_file(path, read) for read in inputs):
            raise SettingsError(f"{path} is an input and would be overwritten; choose another --output or --json")

    network = load_weights(default_weights() if weights is None else weights, preprocessing=preprocessing)
    with _notes(quiet):
        picture = images.read(content)
        transfer = StyleTransfer(
            picture,
            style,
            weights=network,
            device=device,
            precision=precision,
            threads=threads,
            size=min(DEFAULT_SIZE, max(picture.pixels.shape[:2])) if size is None else size,
            style_scale=style_scale,
            content_layers=_layers(content_layer),
            style_layers=_layers(style_layer),
            content_weight=content_weight,
            style_weight=style_weight,
            tv_weight=tv_weight,
            content_reduction=content_reduction,  # type: ignore[arg-type]  # checked there
            # Untrained filters are all alike to a max: it keeps their noise, where an average keeps the picture.
            pooling=pooling or ("average" if network.layout == "generated" else "max"),  # type: ignore[arg-type]
            seed=seed,
        )
    if not quiet:
        if weights is None and network.layout == "generated":
            _say(
                f"note: no trained weights are here, so an untrained network is used ({network.name}): colours and "
                "textures carry over, brush work hardly; nstgpu weights fetch vgg19 gets trained ones (80 MB)"
            )
        _introduce(network, transfer.device.name, transfer.shape, picture.pixels.shape)

    with _bar(iterations, quiet) as show, _json_lines(json_file) as report:

        def on_iteration(progress: "Progress") -> None:
            show(progress)
            report(progress)
            if save_every and progress.iteration % save_every == 0:
                images.save(_numbered(destination, progress.iteration), progress.image())

        result = transfer.run(
            iterations, optimizer=optimizer, learning_rate=learning_rate, init=init, on_iteration=on_iteration
        )
    result.save(destination)
    if not quiet:
        _conclude(result, iterations, destination)


def _layers(options: list[str] | None) -> Any:
    """["relu1_1", "relu2_1"] as it is; with a weight anywhere, {"relu1_1": 2.0, "relu2_1": 1.0}."""
    from ..engine.taps import SettingsError

    if not options:
        return None
    if not any("=" in option for option in options):
        return options
    weighted: dict[str, float] = {}
    for option in options:
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


def _is_same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and os.path.samefile(path, other)


def _numbered(path: Path, iteration: int) -> Path:
    return path.with_name(f"{path.stem}_{iteration:04d}{path.suffix}")


# ---- what the user sees -----------------------------------------------------------------------------------------


def _say(text: str) -> None:
    typer.secho(text, err=True)


@contextmanager
def _notes(quiet: bool) -> Iterator[None]:
    """Shows the library's warnings as one-line notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if not quiet:
        for message in dict.fromkeys(str(warning.message) for warning in caught):
            _say(f"note: {message}")


def _introduce(network: "Weights", device: str, shape: tuple[int, ...], original: tuple[int, ...]) -> None:
    resized = "" if shape[:2] == original[:2] else f" (from {original[1]}x{original[0]})"
    _say(f"painting {shape[1]}x{shape[0]}{resized} with {network.name} on {device}")


def _conclude(result: "Result", iterations: int, destination: Path) -> None:
    done = len(result.history)
    how = f"stopped after {done} of {iterations} iterations" if result.interrupted else f"{done} iterations"
    cost = f", cost {result.history[0].total:.4g} -> {result.history[-1].total:.4g}" if done else ""
    _say(f"wrote {destination} ({how}{cost})")


def _bar(iterations: int, quiet: bool) -> AbstractContextManager[Report]:
    return nullcontext(lambda _: None) if quiet else _shown_bar(iterations)


@contextmanager
def _shown_bar(iterations: int) -> Iterator[Report]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TextColumn("cost {task.fields[cost]}"),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TimeRemainingColumn(compact=True),
        rich.TextColumn("left"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=iterations, cost="-", speed="")

        def show(progress: "Progress") -> None:
            speed = progress.iteration / max(progress.seconds, 1e-9)
            bars.update(
                task, completed=progress.iteration, cost=f"{progress.costs.total:.4g}", speed=f"{speed:.2f} it/s"
            )

        yield show


@contextmanager
def _json_lines(path: Path | None) -> Iterator[Report]:
    """Writes {"iteration", "seconds", "costs"} a line per iteration, each flushed whole."""
    if path is None:
        yield lambda _: None
        return

    def writer(stream: TextIO) -> Report:
        def report(progress: "Progress") -> None:
            line = {"iteration": progress.iteration, "seconds": progress.seconds, "costs": asdict(progress.costs)}
            print(json.dumps(line), file=stream, flush=True)

        return report

    if str(path) == "-":
        yield writer(sys.stdout)
        return
    with open(path, "w", encoding="utf-8") as stream:
        yield writer(stream)
