"""The commands under `nstgpu weights`: what is known and here, what a file holds, fetching and converting.

Shows for people and, as JSON, for programs; everything is done by the `weights` package.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.settings import is_same_file
from .options import Debug, Preprocessing
from .painting.destinations import refuse_existing
from .terminal import usage
from .terminal.messages import printable

if TYPE_CHECKING:
    from ..weights import Inspection

app: typer.Typer = typer.Typer(cls=usage.Group, help="Fetch, list, inspect and convert weights.", no_args_is_help=True)


@app.callback()
def weights() -> None:
    """Fetch, list, inspect and convert weights."""


@app.command(cls=usage.Command)
def fetch(
    name: Annotated[str, typer.Argument(help="vgg19 or vgg16.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take this file, once verified, instead of the network."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Get the official Keras weights onto this machine, verified.

    What a broken download left is gone on from. They lie in $NSTGPU_WEIGHTS_DIR, or the user's cache folder.
    """
    del debug  # acted on where errors are reported
    from ..weights import fetch as fetch_official
    from ..weights import take

    if source is not None:
        path, was_there = take(name, source)
    else:
        with _bar(name) as (on_progress, on_retry):
            path, was_there = fetch_official(name, on_progress=on_progress, on_retry=on_retry)
    print(printable(f"{name} is {'already ' if was_there else ''}there, verified: {path}"))


@app.command(name="list", cls=usage.Command)
def list_known(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Show which weights are known, which are on this machine and where, and the default."""
    del debug
    from ..weights import default_weights, known_weights, weights_folder

    known, default = known_weights(), default_weights()
    if as_json:
        facts = {"default": default, "folder": str(weights_folder()), "weights": [asdict(entry) for entry in known]}
        print(json.dumps(facts, indent=2))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for title in ("Name", "Network", "Size", "Licence", "Where"):
        table.add_column(
            title, overflow="fold", no_wrap=title == "Name", justify="right" if title == "Size" else "left"
        )
    for entry in known:
        where = entry.path if entry.cached else "not fetched"
        table.add_row(entry.name, entry.model, f"{entry.size / 1e6:.1f} MB", entry.licence, Text(printable(where)))
    table.add_row("random:SEED", "VGG-19, untrained", "-", "-", "made up as it is needed")
    console = Console(highlight=False)
    console.print(table)
    console.print(Text(f"default: {default}"))
    console.print(Text(printable(f"folder: {weights_folder()}")), soft_wrap=True)


@app.command(cls=usage.Command)
def convert(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A weights file of any layout, or vgg19 or vgg16.", show_default=False)
    ],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="The .h5 file to write.", show_default=False)],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    up_to: Annotated[
        str | None,
        typer.Option(metavar="TAP", help="The last layer needed, such as relu4_2.", show_default="all layers"),
    ] = None,
    preprocessing: Preprocessing = None,
    theano: Annotated[
        bool | None,
        typer.Option(
            "--theano/--no-theano", help="Whether kernels are rotated by 180 degrees.", show_default="what IN says"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT if it is there already.")] = False,
    debug: Debug = False,
) -> None:
    """Write IN the way the official files are laid out, and read it back."""
    del debug
    from ..weights import convert as convert_file
    from ..weights.official.store import file_of

    if not force and not is_same_file(file_of(source), destination):  # the input itself is refused by `convert_file`
        refuse_existing(destination, "OUT")
    written = convert_file(source, destination, half=half, up_to=up_to, preprocessing=preprocessing, theano=theano)
    precision = "float16" if half else "float32"
    facts = f"{written.taps[0]} to {written.taps[-1]}, {precision}, {written.preprocessing.name} preprocessing"
    print(printable(f"wrote {destination}: {facts}, {destination.stat().st_size / 1e6:.1f} MB"))


@app.command(cls=usage.Command)
def inspect(
    file: Annotated[
        str,
        typer.Argument(help="A weights file of any kind, or vgg19 or vgg16.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    preprocessing: Preprocessing = None,
    debug: Debug = False,
) -> None:
    """Show a file's layout, layers, preprocessing and checksum, and the official weights it equals."""
    del debug
    from ..weights import inspect as inspect_file

    inspection = inspect_file(file, preprocessing=preprocessing)
    if as_json:
        print(json.dumps(asdict(inspection), indent=2))
    else:
        _print(inspection)


@contextmanager
def _bar(name: str) -> Iterator[tuple[Callable[[int], None], Callable[[str, float], None]]]:
    """Shows bytes, rate and time left once the first bytes come, and a line for each new attempt."""
    from rich import progress as rich
    from rich.console import Console

    from ..weights.official.catalogue import official_named

    official = official_named(name)
    total = None if official is None else official.size
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(compact=True),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(f"fetching {name}", total=total, visible=False)

        def on_progress(received: int) -> None:
            bars.update(task, completed=received, visible=True)

        def on_retry(reason: str, pause: float) -> None:
            bars.console.print(printable(f"note: {reason}; trying again in {pause:g} s"), markup=False, highlight=False)

        yield on_progress, on_retry


def _print(inspection: "Inspection") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Names come from the file: `Text` keeps rich from reading markup in them.
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    parameters = sum(layer.parameters for layer in inspection.layers)
    for label, value in (
        ("File", inspection.path),
        ("Size", f"{inspection.size:,} bytes"),
        ("Layout", inspection.layout),
        ("Holds", f"{len(inspection.layers)} convolutions, {parameters:,} parameters"),
        ("Preprocessing", inspection.preprocessing),
        *(("Note", note) for note in inspection.notes),
        ("Checksum", inspection.checksum),
        ("File MD5", inspection.md5),
        ("Official", inspection.official or "not recognised"),
    ):
        facts.add_row(label, Text(printable(value)))

    layers = Table(header_style="bold", row_styles=("", "dim"))
    layers.add_column("Layer", overflow="fold")
    layers.add_column("Tap")
    layers.add_column("Kernel")
    layers.add_column("Stored as")
    layers.add_column("Parameters", justify="right")
    for layer in inspection.layers:
        shape = " x ".join(map(str, layer.kernel_shape))
        layers.add_row(Text(printable(layer.name)), layer.tap, shape, layer.precision, f"{layer.parameters:,}")

    console = Console(highlight=False)
    console.print(facts)
    console.print(layers)
