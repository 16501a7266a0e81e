"""What the studio knows of `nstgpu run`, read from what declares its options: nothing of them is written down twice."""

import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from typing import Any, get_args, get_origin, get_type_hints

from ..engine.checks import COLORS
from ..engine.costs.statistics.registry import STATISTICS
from ..engine.errors import SettingsError
from ..engine.optimizers.registry import OPTIMIZERS
from ..kernels.cuda.precisions import on_tensor_cores
from ..runs.changes import CHANGEABLE
from ..runs.settings import Settings
from ..weights import default_weights, known_weights
from ..weights.model import PREPROCESSINGS
from .settings import INITS, WITHHELD, Kind, Program, Setting

_EXTRA = ("starlette", "uvicorn", "websockets", "python_multipart")


def check_installed() -> None:
    """Raises SettingsError where the extra is missing."""
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise SettingsError(f"the studio needs {', '.join(missing)}: pip install 'nstgpu[serve]'")


def program(run: Callable[..., Any]) -> Program:
    """How runs are started, and which settings they have: those parameters of `run`, as the command line declares it
    (`Annotated` with typer's options), that say how a picture looks."""
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


def _kind(hint: Any, has_choices: bool) -> Kind:
    """What a type of the command line, perhaps with None, is for a form."""
    kind = next((part for part in get_args(hint) if part is not type(None)), hint) if get_args(hint) else hint
    if get_origin(hint) is list or get_origin(kind) is list:
        return "list"
    if has_choices:
        return "choice"
    named: dict[Any, Kind] = {bool: "flag", int: "integer", float: "number"}
    return named.get(kind, "text")


def _choices() -> dict[str, tuple[str, ...]]:
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
