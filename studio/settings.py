"""A run's settings as a client may give them: which there are, what each may be, and as options of `nstgpu run`.

What an option is called and what it says of itself comes from the command line, which hands it over as `Setting`s.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..kernels.errors import DeviceError
from ..runs.settings import PRESETS, Options, Settings, checked, styles_of
from .limits import Limits

Kind = Literal["integer", "number", "choice", "text", "flag", "list"]
STYLE_WEIGHTS = "style_weights"
"""One number a style: with uploaded pictures, what `--style FILE=W` says on the command line."""
_UPLOADED = ("content", "styles", "style_masks", "style_regions", "content_mask")
_DECIDED = ("device", "threads", "weights_sha256", "size_at_most", "depth", "quality", "changes")
WITHHELD = frozenset((*_UPLOADED, *_DECIDED))
"""Which a client cannot say: what is uploaded, and what the server decides."""
INITS = ("content", "style", "gray", "noise")
_RANDOM = re.compile(r"random:\d{1,9}")


@dataclass(frozen=True)
class Setting:
    """One setting of a run that a client may give."""

    name: str
    """A field of `runs.settings.Settings`."""
    kind: Kind
    default: Any
    shown_default: str
    """What is taken where it is left open, in words."""
    choices: tuple[str, ...] | None
    low: float | None
    high: float | None
    help: str
    group: str
    live: bool
    """Whether it may be changed while a run is painted."""


@dataclass(frozen=True)
class Program:
    """What paints a run: `nstgpu run` and `nstgpu resume`, and what is known of their options."""

    command: tuple[str, ...]
    """What starts it; `run` or `resume` and their options follow."""
    settings: Mapping[str, Setting]
    flags: Mapping[str, str]
    """The option of each setting: style_weight -> --style-weight."""
    given: tuple[str, ...] | None = None
    """The words of the only run there is, instead of what its record says; it has this terminal."""
    weights: tuple[str, ...] = ()
    """The names of those that are here."""
    has_reports: bool = False

    def arguments(self, settings: Mapping[str, Any]) -> list[str]:
        """Settings as options of `nstgpu run`, each with its value in one word."""
        words: list[str] = []
        for name, value in settings.items():
            if name == STYLE_WEIGHTS:
                continue
            if isinstance(value, bool):
                words += [self.flags[name]] if value else []
            elif isinstance(value, list | tuple):
                words += [f"{self.flags[name]}={item}" for item in value]
            else:
                words.append(f"{self.flags[name]}={value}")
        return words


def presets() -> dict[str, dict[str, Any]]:
    """Settings under one name, as a page can fill them in."""
    return {
        name: {"size" if key == "size_at_most" else key: value for key, value in values.items()}
        for name, values in PRESETS.items()
    }


def taken(given: Any, program: Program, limits: Limits, styles: int) -> dict[str, Any]:
    """What a client sent as settings for so many styles, checked; raises ValueError, one line."""
    if not isinstance(given, dict):
        raise ValueError('the settings are no JSON object; write them as {"size": 512, ...}')
    values = {name: value for name, value in given.items() if value is not None}
    for name in sorted(set(values) & WITHHELD):
        instead = "upload the pictures" if name in _UPLOADED else "leave it out"
        raise ValueError(f"the settings have {name}, which a client cannot say; {instead}")
    weights = values.pop(STYLE_WEIGHTS, None)
    if unknown := sorted(set(values) - set(program.settings)):
        raise ValueError(f"the settings have {unknown[0][:40]!r}, which is not known here; leave it out")
    read = checked(values, Settings, "the request")
    _check_words(read, program)
    if (size := read.get("size")) is not None and size * size > limits.pixels:
        raise ValueError(f"the size is {size} pixels; at most {math.isqrt(limits.pixels)} are painted here")
    read = {name: list(value) if isinstance(value, tuple) else value for name, value in read.items()}
    return read if weights is None else read | {STYLE_WEIGHTS: _style_weights(weights, styles)}


def _check_words(values: Mapping[str, Any], program: Program) -> None:
    """What `run` would take a path for is one of the words that it knows."""
    weights, init = values.get("weights"), values.get("init")
    if weights is not None and weights not in program.weights and not _RANDOM.fullmatch(weights):
        raise ValueError(f"there are no weights {weights[:40]!r} here; choose {', '.join(program.weights)}")
    if init is not None and init not in INITS:
        raise ValueError(f"init is {init[:40]!r}; choose {', '.join(INITS)}")


def _style_weights(given: Any, styles: int) -> list[float]:
    if not isinstance(given, list) or len(given) != styles:
        raise ValueError(f"style_weights has to be a list of {styles} numbers, one for each style")
    if not all(type(one) in (int, float) and 0 < one < math.inf for one in given):
        raise ValueError("each of style_weights has to be a finite number above zero")
    return [float(one) for one in given]


def check(settings: Mapping[str, Any], content: str, styles: Sequence[str], output: str) -> None:
    """What a run would refuse at its start; raises ValueError, one line."""
    from ..runs.checks import check_options

    values: dict[str, Any] = {}
    for name, value in settings.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    values.pop(STYLE_WEIGHTS, None)
    options = Options(**values, content=content, styles=tuple(styles), output=output, force=True)
    try:
        check_options(options, styles_of(options))
    except (DeviceError, OSError) as error:
        raise ValueError(str(error)) from error
