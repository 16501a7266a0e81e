"""Which style statistics there are, by name. To add one, write its module and give it a line in STATISTICS.

The module defines STATISTIC, a `Statistic` of `base`; everything else in the program asks that. Modules are imported
when they are asked for, so that the names alone cost nothing. Several count together, each with a share: `parse`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...wording import shortest

if TYPE_CHECKING:
    from .base import Statistic
    from .tuning import Tuning

STATISTICS = {
    "gram": "nstgpu.engine.costs.statistics.gram",
    "moments": "nstgpu.engine.costs.statistics.moments",
    "w2": "nstgpu.engine.costs.statistics.w2",
    "neighbors": "nstgpu.engine.costs.statistics.neighbors",
    "sliced": "nstgpu.engine.costs.statistics.sliced",
}
"""The module of each."""
USED_BY = {"match_every": "neighbors", "turns": "neighbors", "directions": "sliced"}
"""Which of them looks at what is set in a `Tuning`."""

_BETWEEN = re.compile(r"[+,](?=\s*[^\W\d])")  # and not the sign of an exponent


def choices() -> str:
    """ "gram, moments or w2", for a help text."""
    *others, last = STATISTICS
    return f"{', '.join(others)} or {last}"


def parse(given: str | Mapping[str, float]) -> dict[str, float]:
    """Each statistic's share, by name, in the order given; they sum to one.

    "gram", "gram+w2" or "gram=1,w2=0.5", where only the ratio of the numbers counts; or the same as a mapping. Raises
    SettingsError for a name that is not known or stands there twice, and for a weight that is no number above zero.
    """
    weights: dict[str, float] = {}
    for name, weight in _items(given):
        if name not in STATISTICS:
            raise SettingsError(f"unknown style statistics {name!r}; choose {choices()}, or several, as in gram+w2")
        if name in weights:
            raise SettingsError(f"the style statistics {name} are given twice; give each once, as in gram=1,w2=0.5")
        try:
            weights[name] = float(weight)
        except (TypeError, ValueError):
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise SettingsError(f"the weight of the style statistics {name} is {weight}; it must be above zero")
    if not weights:
        raise SettingsError(f"no style statistics are given; choose {choices()}, or several, as in gram+w2")
    largest = max(weights.values())  # first, since the sum of large numbers may be infinite
    total = sum(weight / largest for weight in weights.values())
    shares = {name: weight / largest / total for name, weight in weights.items()}
    if lost := [name for name, share in shares.items() if share == 0]:
        raise SettingsError(f"the weight of the style statistics {lost[0]} is too small beside the others")
    return shares


def _items(given: str | Mapping[str, float]) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping):
        return [(str(name), weight) for name, weight in given.items()]
    parts = [part.partition("=") for part in _BETWEEN.split(str(given))] if given else []
    return [(name.strip(), weight.strip() if equals else 1.0) for name, equals, weight in parts]


def spelled(given: str | Mapping[str, float]) -> str:
    """What `parse` takes, in its shortest form: "gram+w2" for equal shares, else "gram=1,w2=0.5"."""
    shares = parse(given)
    if len(set(shares.values())) == 1:
        return "+".join(shares)
    weights = dict(_items(given))
    return ",".join(f"{name}={shortest(float(weights[name]))}" for name in shares)


def statistic(name: str) -> "Statistic[Any, Any, Any]":
    """The statistic of this name; raises SettingsError where there is none."""
    if name not in STATISTICS:
        raise SettingsError(f"unknown style statistics {name!r}; choose {choices()}, or several, as in gram+w2")
    found: Statistic[Any, Any, Any] = import_module(STATISTICS[name]).STATISTIC
    return found


def statistics(
    given: str | Mapping[str, float], tuning: "Tuning | None" = None
) -> "dict[str, Statistic[Any, Any, Any]]":
    """Those that are given, by name, with what is set of them; raises SettingsError as `parse`."""
    chosen = {name: statistic(name) for name in parse(given)}
    return chosen if tuning is None else {name: one.tuned(tuning) for name, one in chosen.items()}


def used(tuning: "Tuning", given: str | Mapping[str, float]) -> dict[str, int]:
    """What those that are given look at of it, by name."""
    names = parse(given)
    return {name: getattr(tuning, name) for name, by in USED_BY.items() if by in names}


def check_used(tuning: "Tuning", given: str | Mapping[str, float], names: Sequence[str] | None = None) -> None:
    """Raises SettingsError where something of these `names` is set that none of those given looks at; None: all that is
    not as by default."""
    if names is None:
        names = [name for name in USED_BY if getattr(tuning, name) != getattr(type(tuning), name)]
    for name in names:
        if name not in used(tuning, given):
            by = USED_BY[name]
            raise SettingsError(
                f"{name} is for the style statistics {by}; add {by} to {spelled(given)}, or leave it out"
            )
