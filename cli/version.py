"""`--version`, which works before and after a command."""

from typing import Any

import typer


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"nstgpu {__version__}")
        raise typer.Exit


VERSION: Any = typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
