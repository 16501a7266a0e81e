"""What the settings of a transfer may be; each is refused in one line before any work is done."""

from collections.abc import Sequence
from typing import Literal

from .costs.statistics import registry
from .errors import SettingsError

Colors = Literal["style", "match", "content-luminance"]
COLORS: tuple[Colors, ...] = ("style", "match", "content-luminance")
MAX_PIXELS = 1 << 20
"""Of a side: no memory is that large, and far beyond it numbers overflow."""


def _check_numbers(size: int | None, border: int, seed: int) -> None:
    if size is not None and size < 1:
        raise SettingsError(f"the size is {size}; it must be at least 1 pixel")
    if seed < 0:
        raise SettingsError(f"the seed is {seed}; it must be zero or more")
    if border < 0:
        raise SettingsError(f"the border is {border} pixels; it must be zero or more")
    for what, number in (("size", size or 0), ("border", border)):
        if number > MAX_PIXELS:
            raise SettingsError(f"the {what} is {number} pixels; at most {MAX_PIXELS} are possible")


def _check_choice(what: str, choice: str, known: Sequence[str]) -> None:
    """Raises SettingsError for what is not among the choices."""
    if choice not in known:
        raise SettingsError(f"unknown {what} {choice!r}; choose {', '.join(known[:-1])} or {known[-1]}")


def check_settings(
    size: int | None, border: int, seed: int, content_reduction: str, style_statistics: str, colors: str, pooling: str
) -> None:
    """Raises SettingsError for what none of these can be; size and border are in pixels."""
    _check_numbers(size, border, seed)
    check_choices(content_reduction, style_statistics, colors, pooling)


def check_choices(content_reduction: str, style_statistics: str, colors: str, pooling: str) -> None:
    """Raises SettingsError for a name that none of these can have."""
    _check_choice("content reduction", content_reduction, ("mean", "sum"))
    registry.check(style_statistics)
    _check_choice("colors", colors, COLORS)
    _check_choice("pooling", pooling, ("max", "average"))
