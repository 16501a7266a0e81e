"""Which style statistics there are, by name. To add one, write its module and give it a line in STATISTICS.

The module defines STATISTIC, a `Statistic` of `base`; everything else in the program asks that. Modules are imported
when they are asked for, so that the names alone cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError

if TYPE_CHECKING:
    from .base import Statistic

STATISTICS = {
    "gram": "nstgpu.engine.costs.statistics.gram",
    "moments": "nstgpu.engine.costs.statistics.moments",
    "w2": "nstgpu.engine.costs.statistics.w2",
}
"""The module of each."""


def choices() -> str:
    """ "gram, moments or w2", for a help text."""
    *others, last = STATISTICS
    return f"{', '.join(others)} or {last}"


def check(name: str) -> None:
    """Raises SettingsError where there is no such statistic."""
    if name not in STATISTICS:
        raise SettingsError(f"unknown style statistics {name!r}; choose {choices()}")


def statistic(name: str) -> "Statistic[Any, Any, Any]":
    """The statistic of this name; raises SettingsError as `check`."""
    check(name)
    found: Statistic[Any, Any, Any] = import_module(STATISTICS[name]).STATISTIC
    return found
