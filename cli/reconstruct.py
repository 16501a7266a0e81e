"""`nstgpu reconstruct`: what each layer still knows of a picture, as the picture painted back from noise.

Runs `StyleTransfer` once a layer, with the content cost alone or the style cost alone, and lays the results side by
side; nothing is computed here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.wording import counted
from ..runs.settings import is_same_file
from .options import Debug, DeviceName, Preprocessing, Quiet, Threads, WeightsFile
from .painting.destinations import STANDARD, fresh, is_folder, refuse_existing, refuse_standard_output
from .terminal.messages import notes, say
from .terminal.progress import on_terminal, pulse
from .terminal.streams import output_alone

if TYPE_CHECKING:
    from ..engine.optimizers.coarse_to_fine import Progress
    from ..engine.types import FloatArray

DEFAULT_SIZE = 256
DEFAULT_ITERATIONS = 200
# gamma, beside the content or the style weight that is measured: calms pixels that no layer minds, blurs nothing.
CONTENT_SMOOTHNESS, STYLE_SMOOTHNESS = 0.1, 10.0

Show = Callable[[str, float], None]
"""Told of the layer under way, and of the share of the whole work that is done."""


def reconstruct(
    image: Annotated[Path, typer.Argument(help="The picture to paint back.", show_default=False)],
    style: Annotated[bool, typer.Option("--style", help="Reconstruct its style instead of its content.")] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="PNG, JPEG, WebP or TIFF by suffix; FOLDER/ (made if missing); or - for a PNG on standard output.",
            show_default="IMAGE_content_layers.png or IMAGE_style_layers.png",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A layer to paint from; may be repeated.", show_default="each block's first"),
    ] = None,
    size: Annotated[int, typer.Option(min=16, help="Long side of each picture in pixels.")] = DEFAULT_SIZE,
    iterations: Annotated[
        int, typer.Option(min=1, help="Steps of the optimiser, per layer and scale.")
    ] = DEFAULT_ITERATIONS,
    separate: Annotated[
        bool, typer.Option("--separate", help="Also save each picture by itself, as OUTPUT_LAYER.")
    ] = False,
    weights: WeightsFile = None,
    preprocessing: Preprocessing = None,
    device: DeviceName = "auto",
    threads: Threads = None,
    pooling: Annotated[str, typer.Option(help="average (as in the paper, and smoother) or max.")] = "average",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there already.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Paint IMAGE back from noise, layer by layer: what each layer still knows of it.

    Of the content, a deep layer keeps the arrangement and forgets the pixels. With --style a layer is taken together
    with those before it: textures are kept, the arrangement is not. Ctrl-C ends early and still writes the sheet.
    """
    del debug  # acted on where errors are reported
    from ..engine.analysis import contact_sheets as sheets
    from ..engine.checks import MAX_PIXELS
    from ..engine.errors import SettingsError
    from ..engine.imaging import files as images
    from ..engine.model.taps import classic_style, resolve
    from ..engine.optimizers.scales import MOST_ITERATIONS
    from ..engine.transfer import StyleTransfer
    from ..kernels import open_device
    from ..weights import default_weights, load_weights

    for option, number, most in (("--size", size, MAX_PIXELS), ("--iterations", iterations, MOST_ITERATIONS)):
        if number > most:
            raise SettingsError(f"{option} is {number}; at most {most} are possible")
    kind = "style" if style else "content"
    folder = Path(output) if output is not None and is_folder(output) else Path()
    stem = "stdin" if str(image) == STANDARD else image.stem
    name = str(folder / f"{stem}_{kind}_layers.png")
    if output == STANDARD:
        refuse_standard_output()
        if separate:
            raise SettingsError("--output - gives --separate no names for its pictures; name a file")
    network = load_weights(default_weights() if weights is None else weights, preprocessing=preprocessing)
    chosen = list(resolve(layer or classic_style(network.taps), network.taps, network.name))
    beside = [tap for tap in chosen if separate]
    if output is None or is_folder(output):
        destination = Path(name if force else fresh(name, lambda path: [_beside(path, tap) for tap in beside]))
    else:
        destination = Path(output)
    for path in () if output == STANDARD else (destination, *(_beside(destination, tap) for tap in beside)):
        images.check_destination(path)
        if is_same_file(path, image):
            raise SettingsError(f"{path} is the input and would be overwritten; choose another --output")
        if not force:
            refuse_existing(path, "--output")
    with notes(quiet):
        picture = images.read(image)
    opened = open_device(device, threads=threads)

    def style_taps(tap: str) -> list[str]:
        """As in the paper: a layer with all the classic ones before it."""
        before = network.taps[: network.taps.index(tap)]
        return [*classic_style(before), tap]

    if not quiet:
        if network.layout == "generated":
            say(
                f"note: {network.name} is not trained, so its layers know little of pictures; "
                "nstgpu weights fetch vgg19 gets trained weights (80 MB)"
            )
        say(f"painting the {kind} of {picture.name} from {', '.join(chosen)} with {network.name} on {opened.name}")
    row: list[tuple[str, FloatArray]] = []
    interrupted = False
    try:
        with _bar(quiet) as show:
            for done, tap in enumerate(chosen):
                transfer = StyleTransfer(
                    picture,
                    picture,
                    weights=network,
                    device=opened,
                    size=size,
                    content_layers=[] if style else [tap],
                    style_layers=style_taps(tap) if style else [],
                    tv_weight=STYLE_SMOOTHNESS if style else CONTENT_SMOOTHNESS,
                    pooling=pooling,  # type: ignore[arg-type]  # checked there
                    seed=seed,
                )
                if not row:
                    row.append(("original", transfer.initial_image("content")))

                def on_iteration(progress: "Progress", tap: str = tap, done: int = done) -> None:
                    show(tap, (done + progress.iteration / progress.iterations) / len(chosen))

                result = transfer.run(iterations, init="noise", on_iteration=on_iteration)
                row.append((_spelled(style_taps(tap)) if style else tap, result.image))
                if separate:
                    result.save(_beside(destination, tap))
                interrupted = result.interrupted
                if interrupted:
                    break
    except KeyboardInterrupt:  # between two runs; within one it is kept back
        interrupted = True
    if len(row) < 2:
        raise typer.Abort
    what = "each from the Gram matrices of these layers alone" if style else "each from this layer's activations alone"
    sheet = sheets.row_sheet(row, f"{kind.capitalize()}, painted back from noise", f"{what} · {network.name}")
    recipe = {
        "picture": picture.name,
        "weights": network.name,
        "weights sha256": network.checksum,
        f"{kind} layers": ", ".join(chosen[: len(row) - 1]),
        "size": str(size),
        "iterations": str(iterations),
        "pooling": pooling,
        "seed": str(seed),
    }
    if output == STANDARD:
        with output_alone() as file:
            images.write_png(file, sheet, recipe=recipe)
            file.flush()
    else:
        images.save(destination, sheet, recipe=recipe)
    if not quiet:
        layers = counted(len(chosen), "layer")
        where = "the picture to standard output" if output == STANDARD else destination
        say(f"wrote {where} ({f'stopped at layer {len(row) - 1} of {len(chosen)}' if interrupted else layers})")


def _beside(path: Path, tap: str) -> Path:
    return path.with_name(f"{path.stem}_{tap}{path.suffix}")


def _spelled(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _bar(quiet: bool) -> AbstractContextManager[Show]:
    if quiet:
        return nullcontext(lambda _tap, _share: None)
    if on_terminal():
        return _shown_bar()
    due = pulse()
    return nullcontext(lambda tap, share: say(f"{tap}: {share:.0%}") if due() else None)


@contextmanager
def _shown_bar() -> Iterator[Show]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.TaskProgressColumn(),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda tap, share: bars.update(task, description=tap, completed=share)
