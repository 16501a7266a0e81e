"""The commands under `nstgpu weights`: what a weights file holds, for people and, as JSON, for programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..weights import Inspection

app = typer.Typer(help="Look into and manage weights files.", no_args_is_help=True)


@app.callback()
def weights() -> None:
    """Look into and manage weights files."""


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="An HDF5 (.h5, .hdf5) or .keras weights file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Show a file's layout, layers, preprocessing and checksum, and the official weights it equals."""
    from ..weights import inspect as inspect_file

    inspection = inspect_file(file)
    if as_json:
        typer.echo(json.dumps(asdict(inspection), indent=2))
    else:
        _print(inspection)


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
        ("Checksum", inspection.checksum),
        ("File MD5", inspection.md5),
        ("Official", inspection.official or "not recognised"),
    ):
        facts.add_row(label, Text(value))

    layers = Table(header_style="bold", row_styles=("", "dim"))
    layers.add_column("Layer", overflow="fold")
    layers.add_column("Tap")
    layers.add_column("Kernel")
    layers.add_column("Stored as")
    layers.add_column("Parameters", justify="right")
    for layer in inspection.layers:
        shape = " × ".join(map(str, layer.kernel_shape))
        layers.add_row(Text(layer.name), layer.tap, shape, layer.precision, f"{layer.parameters:,}")

    console = Console(highlight=False)
    console.print(facts)
    console.print(layers)
