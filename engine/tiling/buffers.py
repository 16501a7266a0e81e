"""The buffers of an objective, by what they are for. Their names in the arena are spelled here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...kernels.device import Array
from .geometry import TapTile


def target_name(statistic: str, tap: str, style: int, field: str) -> str:
    """Of what is kept of a style at a tap."""
    return f"{tap} {statistic} target {style} {field}"


def sums_name(statistic: str, tap: str, mask_id: int | None, field: str) -> str:
    """Of the image's statistics at a tap, in one region."""
    return f"{tap} {statistic} sums {mask_id} {field}"


def partial_name(statistic: str, tap: str, field: str) -> str:
    """Of one tile's own statistics."""
    return f"{tap} {statistic} partial {field}"


def errors_name(statistic: str, tap: str, mask_id: int | None, field: str) -> str:
    """Of what the image's statistics send back into the network."""
    return f"{tap} {statistic} errors {mask_id} {field}"


def held_name(statistic: str, tap: str, comparison: int, field: str) -> str:
    """Of what is held fixed from one iteration to the next, for one style in one region; also in a run's state."""
    return f"{tap} {statistic} held {comparison} {field}"


def content_name(tap: str, number: int | None = None) -> str:
    """Of the content's activations at a tap: whole, or for a replica those at the tile of this number."""
    return f"{tap} content" if number is None else f"{tap} content {number}"


def weights_name(tap: str, mask_id: int | None, number: int, part: TapTile) -> str | None:
    """Of the weights of a tile's piece; None where there is nothing to weigh.

    Where there is no mask, pieces that are alike share theirs.
    """
    if mask_id is not None:
        return f"{tap} mask {mask_id} of tile {number}"
    if part.whole:
        return None
    return f"{tap} weights {part.shape} {part.own}"


@dataclass(frozen=True, eq=False)
class TapBuffers:
    """What is kept of the image at one tap, in one region: two groups of the statistic's (`costs.statistics.base`)."""

    sums: Any
    errors: Any
    """The derivatives of the style cost with respect to the sums, and whatever else the way back asks for."""


@dataclass(frozen=True, eq=False)
class PersistentBuffers:
    """What lives as long as an objective."""

    image: Array
    """(H, W, 3)"""
    gradient: Array
    """(H, W, 3)"""
    trainable_mask: Array | None
    """(H, W)"""
    kept: Array | None
    """(H, W, 3): the content where the mask is not one, times what the mask leaves."""
    content: Mapping[str, Array]
    """(h, w, C) by tap"""
    styles: Mapping[tuple[str, str, int], Any]
    """The targets, by statistic, tap, and number of the style."""
    taps: Mapping[tuple[str, str, int | None], TapBuffers]
    """By statistic, tap, and mask_id."""
    held: Mapping[tuple[str, str, int], Any]
    """What is measured of the image now and then, by statistic, tap, and number of the comparison."""
    counter: Array | None
    """(1,) int32: of the iteration, for statistics that draw random numbers."""


@dataclass(frozen=True, eq=False)
class TileBuffers:
    """What depends on tiles, beside the arena."""

    named: Mapping[str, Array]
    """With the weights of pieces under `weights_name`."""
    partial: Mapping[tuple[str, str], Any]
    """A statistic's sums of one tile, by name and tap; empty where there is one tile."""
    scratch: Array | None
    """uint8, for statistics that want it."""

    @property
    def costs(self) -> Array:
        """The vector of all costs that are measured."""
        return self.named["costs"]
