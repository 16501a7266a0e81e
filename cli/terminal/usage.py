"""How commands are used: --help on terminals too narrow for typer's tables, and wrong options as one line."""

import shutil
import textwrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .messages import printable
from .streams import complain

NARROW = 60
"""Columns below which typer's tables cut the names of options off."""
_USAGE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def help_fits() -> bool:
    """Whether the terminal is wide enough for typer's own help."""
    return shutil.get_terminal_size().columns >= NARROW


def print_plain_help(command: Any, context: Any) -> None:
    """Every name on a line of its own, what it does below it, in as many columns as there are."""
    columns = max(shutil.get_terminal_size().columns, 20)

    def wrapped(text: str, indent: int) -> str:
        margin = " " * indent
        return textwrap.fill(text, columns, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)

    print(wrapped(" ".join(("Usage:", context.command_path, *command.collect_usage_pieces(context))), 0))
    for paragraph in (command.help or "").split("\n\n"):
        print(f"\n{wrapped(' '.join(paragraph.split()), 0)}")
    rows: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            rows.append(record)
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            rows.append((name, " ".join((getattr(command.get_command(context, name), "help", "") or "").split())))
    for name, text in rows:
        print(f"\n{wrapped(name, 2)}\n{wrapped(' '.join(text.split()), 6)}")


class _PlainWhereNarrow:
    def format_help(self, ctx: Any, formatter: Any) -> None:
        if help_fits():
            super().format_help(ctx, formatter)  # type: ignore[misc]  # of the command or group that it is mixed into
        else:
            print_plain_help(self, ctx)


class Command(_PlainWhereNarrow, TyperCommand):
    """A command whose help is plain where the terminal is narrow."""


class Group(_PlainWhereNarrow, TyperGroup):
    """A group of commands likewise."""


def answer(error: Exception) -> int:
    """Says on one line how the command line was wrong, and returns the exit code; raises what is no such error."""
    if not isinstance(error, _USAGE):
        raise error
    if type(error).__name__ != "NoArgsIsHelpError":  # which has shown the help
        context = getattr(error, "ctx", None)
        message = _no_such_number(error) or " ".join(str(error.format_message()).split()).rstrip(".")
        path = "nstgpu" if context is None else context.command_path
        complain(printable(f"nstgpu: {message}; see {path} --help"))
    return int(error.exit_code)


def _no_such_number(error: Exception) -> str:
    """What is wrong with a number, as everywhere else; "" for other errors. Typer's own words are its validator's."""
    found, option = getattr(error.__cause__, "errors", None), getattr(error, "param", None)
    if not callable(found) or option is None:
        return ""
    wrong = found()[0]
    kind, low, high = str(wrong["type"]), getattr(option, "min", None), getattr(option, "max", None)
    what = {"int": "a whole number", "float": "a number"}.get(kind.partition("_")[0], "")
    if not what and kind not in ("greater_than_equal", "less_than_equal"):
        return ""
    bounds = f"{low} to {high}" if None not in (low, high) else f"{low} or more" if low is not None else ""
    bounds = bounds or (f"{high} at most" if high is not None else "")
    given = repr(wrong["input"]) if what else wrong["input"]
    return f"{max(option.opts, key=len)} is {given}; it must be {', '.join(filter(None, (what, bounds)))}"
