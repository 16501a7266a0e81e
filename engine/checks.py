"""What the settings of a transfer may be; each is refused in one line before any work is done."""

from collections.abc import Mapping, Sequence
from typing import Literal

from .costs.statistics import registry
from .costs.statistics.tuning import Tuning
from .errors import SettingsError
from .tiling import geometry

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
    size: int | None,
    border: int,
    seed: int,
    content_reduction: str,
    style_statistics: str | Mapping[str, float],
    tuning: Tuning,
    colors: str,
    pooling: str,
    tile: geometry.Setting,
) -> None:
    """Raises SettingsError for what none of these can be; size and border are in pixels."""
    geometry.check(tile)
    _check_numbers(size, border, seed)
    check_choices(content_reduction, style_statistics, colors, pooling)
    registry.check_used(tuning, style_statistics)


def check_division(style_statistics: str | Mapping[str, float], tile: geometry.Setting, devices: int) -> None:
    """Raises SettingsError where style statistics are to work on tiles, or on several devices, and cannot."""
    for name, statistic in registry.statistics(style_statistics).items():
        if isinstance(tile, int) and not statistic.in_tiles:
            raise SettingsError(f"the style statistics {name} look at a whole picture; leave the tile at auto or off")
        if devices > 1 and not statistic.on_devices:
            raise SettingsError(f"the style statistics {name} work on one device; name one of the {devices}")


def check_choices(
    content_reduction: str, style_statistics: str | Mapping[str, float], colors: str, pooling: str
) -> None:
    """Raises SettingsError for a name that none of these can have."""
    _check_choice("content reduction", content_reduction, ("mean", "sum"))
    registry.parse(style_statistics)
    _check_choice("colors", colors, COLORS)
    _check_choice("pooling", pooling, ("max", "average"))
