"""A style as the caller gives it, and as it is read: its picture, with where and how strongly it is wanted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .errors import SettingsError
from .imaging import files, masks, transparency
from .types import Image, Mask

Source = str | Path | NDArray[Any] | Any  # the last is PIL.Image.Image, which is not imported for its type alone


@dataclass(frozen=True, eq=False)
class Style:
    """A style picture, and where and how strongly it is wanted. What is transparent in it is no style."""

    picture: Source
    weight: float = 1.0
    """Relative to the other styles."""
    scale: float | None = None
    """Its long side relative to the generated image's; None takes the transfer's `style_scale`."""
    size: int | None = None
    """Its long side in pixels instead, beside the finished image: it shrinks with the coarser scales."""
    mask: Source | None = None
    """White where in the generated image it is wanted, any size; None is everywhere."""
    region: Source | None = None
    """White where in the style picture to look; None is everywhere."""


@dataclass(frozen=True, eq=False)
class ReadStyle:
    """A `Style` that was read."""

    name: str
    pixels: Image
    weight: float
    scale: float
    size: int | None
    mask: Mask | None
    region: Mask | None
    """Where it is visible and to be looked at; None is everywhere."""
    masked: bool
    """Whether somebody has said where to look."""

    @property
    def mask_name(self) -> str:
        """For messages."""
        return f"the mask of {self.name}"

    @property
    def region_name(self) -> str:
        return f"the region of {self.name}" if self.masked else f"what is visible of {self.name}"


def read_styles(style: Source | Style | Sequence[Source | Style], style_scale: float) -> tuple[ReadStyle, ...]:
    """Every style that is given, at least one; raises SettingsError or ImageError."""
    given = style if isinstance(style, list | tuple) else [style]
    if not given:
        raise SettingsError("no style was given; give at least one")
    return tuple(_read(one if isinstance(one, Style) else Style(one), style_scale) for one in given)


def _read(style: Style, style_scale: float) -> ReadStyle:
    picture, scale = files.read(style.picture), style_scale if style.scale is None else style.scale
    if not 0 < style.weight < math.inf:
        raise SettingsError(f"the weight of the style {picture.name} is {style.weight}; it must be above zero")
    if not 0 < scale < math.inf:
        raise SettingsError(f"the scale of the style {picture.name} is {scale}; it must be a finite number above zero")
    if style.size is not None and (style.size < 1 or style.scale is not None):
        problem = "at least 1 pixel" if style.scale is None else "given without a scale: it is one or the other"
        raise SettingsError(f"the size of the style {picture.name} is {style.size}; it must be {problem}")
    mask = None if style.mask is None else masks.read(style.mask, f"the mask of {picture.name}")
    pixels = transparency.visible(picture).pixels
    region, masked = _region(style, picture), style.region is not None
    return ReadStyle(picture.name, pixels, style.weight, scale, style.size, mask, region, masked)


def _region(style: Style, picture: files.Picture) -> Mask | None:
    name = f"the region of {picture.name}"
    region, alpha = None if style.region is None else masks.read(style.region, name), picture.alpha
    if alpha is None:
        return region
    if alpha.max() < transparency.SEEN:
        raise SettingsError(f"the style {picture.name} is transparent everywhere; give one that shows something")
    if region is None:
        return alpha
    seen = alpha * masks.fit(region, alpha.shape, name)
    if seen.max() < transparency.SEEN:
        raise SettingsError(f"{name} selects only what is transparent; paint white what it is to select")
    return seen
