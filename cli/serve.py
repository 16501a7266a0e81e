"""`nstgpu serve`: the studio in the browser. What it knows of a run's options is read from `nstgpu run` itself."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Debug, Quiet
from .terminal.messages import say

if TYPE_CHECKING:
    from ..studio.settings import Kind, Program

PORT = 8642
_EXTRA = ("starlette", "uvicorn", "websockets", "python_multipart")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback want a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = PORT,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where runs are kept, a folder each.", show_default="the user's data folder"),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            help="Paints one run at a time; as for run. Repeated: so many runs at a time.",
            show_default="auto",
        ),
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Want a token from this machine's own users too.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Watch and steer paintings in the browser: runs in a queue, each in a folder of its own.

    Needs the extra "serve". Ctrl-C ends it; what was painted is gone on with at the next start.
    """
    del debug  # acted on where errors are reported
    check_installed()
    from ..kernels.open import check_names
    from ..studio.jobs.shelf import Shelf
    from ..studio.limits import Limits
    from ..studio.web.session import Session, listen

    for device in devices or ():
        check_names(device, "auto")
    runs = Shelf(folder or _data_folder())
    listening = listen(host, port)
    lanes = tuple(devices or ("auto",))
    session = Session(runs, program(), Limits(), lanes, host, listening, wants_token=token, say=say)
    if not quiet:
        for line in session.exposure():
            say(line)
        print(f"nstgpu studio: {session.address}", flush=True)
        say(f"runs are kept in {runs.folder}; Ctrl-C ends the server, and the next one goes on with them")
    session.run(open_page=show)


def check_installed() -> None:
    """Raises SettingsError where the extra is missing."""
    from importlib.util import find_spec

    from ..engine.errors import SettingsError

    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise SettingsError(f"the studio needs {', '.join(missing)}: pip install 'nstgpu[serve]'")


def _data_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("nstgpu", appauthor=False)) / "studio"


# ---- what the studio is told of `nstgpu run` --------------------------------------------------------------------


def program() -> "Program":
    """How runs are started, and which settings they have: those of the command line that say how a picture looks."""
    from dataclasses import fields
    from importlib.util import find_spec
    from typing import get_type_hints

    from ..runs.changes import CHANGEABLE
    from ..runs.settings import Settings
    from ..studio.settings import WITHHELD, Program, Setting
    from ..weights import default_weights, known_weights
    from .run import run

    choices = _choices()
    here = [default_weights(), *(entry.name for entry in known_weights() if entry.cached)]
    choices["weights"] = tuple(dict.fromkeys(here))
    hints, settings, flags = get_type_hints(run, include_extras=True), {}, {}
    for field in fields(Settings):
        if field.name in WITHHELD or field.name not in hints:
            continue
        kind, option = hints[field.name].__origin__, hints[field.name].__metadata__[0]
        default, shown = field.default, option.show_default
        settings[field.name] = Setting(
            name=field.name,
            kind=_kind(kind, field.name in choices),
            default=list(default) if isinstance(default, tuple) else default,
            shown_default=shown if isinstance(shown, str) else "" if default in (None, ()) else str(default),
            choices=choices.get(field.name),
            low=option.min,
            high=option.max,
            help=option.help or "",
            group=option.rich_help_panel,
            live=field.name in CHANGEABLE,
        )
        declared = [name for name in (option.default, *(option.param_decls or ())) if str(name).startswith("--")]
        flags[field.name] = str(declared[0]) if declared else f"--{field.name.replace('_', '-')}"
    return Program(
        command=(sys.executable, "-m", "nstgpu"),
        settings=settings,
        flags=flags,
        weights=choices["weights"],
        has_reports=find_spec("matplotlib") is not None,
    )


def _kind(hint: Any, has_choices: bool) -> "Kind":
    """What a type of the command line, perhaps with None, is for a form."""
    from typing import get_args, get_origin

    kind = next((part for part in get_args(hint) if part is not type(None)), hint) if get_args(hint) else hint
    if get_origin(hint) is list or get_origin(kind) is list:
        return "list"
    if has_choices:
        return "choice"
    named: dict[Any, Kind] = {bool: "flag", int: "integer", float: "number"}
    return named.get(kind, "text")


def _choices() -> "dict[str, tuple[str, ...]]":
    from ..engine.checks import COLORS
    from ..engine.costs.statistics.registry import STATISTICS
    from ..engine.optimizers.registry import OPTIMIZERS
    from ..kernels.cuda.precisions import on_tensor_cores
    from ..studio.settings import INITS
    from ..weights.model import PREPROCESSINGS

    return {
        "colors": tuple(COLORS),
        "statistics": tuple(STATISTICS),
        "optimizer": tuple(OPTIMIZERS),
        "pooling": ("max", "average"),
        "content_reduction": ("mean", "sum"),
        "init": INITS,
        "precision": ("auto", "fp32", *on_tensor_cores()),
        "preprocessing": tuple(PREPROCESSINGS),
    }
