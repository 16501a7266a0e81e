"""What commands say on standard error: a line at a time."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer


def say(text: str) -> None:
    """One line for the user."""
    typer.secho(text, err=True)


@contextmanager
def notes(quiet: bool, but: type[Warning] | None = None) -> Iterator[None]:
    """Shows the library's warnings as one-line notes, `but` for those of one kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if not quiet:
        shown = [warning for warning in caught if but is None or not issubclass(warning.category, but)]
        for message in dict.fromkeys(str(warning.message) for warning in shown):
            say(f"note: {message}")
