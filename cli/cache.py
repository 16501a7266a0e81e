"""`nstgpu cache`: what is kept on this machine to save time, how much it takes, and clearing it."""

import json
from typing import Annotated

import typer

from .options import Debug
from .terminal import usage

app: typer.Typer = typer.Typer(
    cls=usage.Group, help="Show or clear what is kept on this machine: compiled kernels, fetched weights."
)

KINDS = {"cubin": "kernels for GPUs", "emulator": "the emulator's libraries"}


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Show or clear what is kept on this machine: compiled kernels, fetched weights."""
    del debug  # acted on where errors are reported
    if context.invoked_subcommand is not None:
        return
    from ..kernels.cache import cache_base, cache_problem, kept
    from ..weights.official.store import fetched_files, weights_folder

    problem = cache_problem()
    fetched = fetched_files()
    weights = (len(fetched), sum(path.stat().st_size for path in fetched), weights_folder())
    rows = {entry.kind: (entry.files, entry.bytes, entry.folder) for entry in kept()} | {"weights": weights}
    if as_json:
        facts = {kind: {"files": files, "bytes": size, "folder": str(at)} for kind, (files, size, at) in rows.items()}
        print(json.dumps({"folder": str(cache_base()), "problem": problem, "kinds": facts}, indent=2))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    table.add_column("What", overflow="fold")
    table.add_column("Files", justify="right")
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Where", overflow="fold")
    for kind, (files, size, folder) in rows.items():
        table.add_row(KINDS.get(kind, "fetched weights"), str(files), f"{size / 1e6:.1f} MB", Text(str(folder)))
    console = Console(highlight=False)
    console.print(table)
    if problem:
        console.print(Text(f"compiled kernels cannot be kept: {problem}"), soft_wrap=True)
    console.print(
        Text("nstgpu cache clear removes the kernels, with --weights the fetched weights too"), soft_wrap=True
    )


@app.command(cls=usage.Command)
def clear(
    weights: Annotated[bool, typer.Option("--weights", help="Remove the fetched weights too.")] = False,
    debug: Debug = False,
) -> None:
    """Remove the compiled kernels; they are made again when they are needed."""
    del debug
    from ..kernels.cache import clear as clear_kernels

    for removed in clear_kernels():
        _say(KINDS[removed.kind], removed.files, removed.bytes)
    if weights:
        from ..weights.official.store import remove_fetched

        _say("fetched weights", *remove_fetched())


def _say(what: str, files: int, size: int) -> None:
    print(f"{what}: removed {files} file{'' if files == 1 else 's'}, {size / 1e6:.1f} MB")
