"""The sliced Wasserstein distance (Heitz et al. 2021): the squared distance of distributions, seen from all sides.

    mean over random directions d of W2(<a_p, d>, <s_j, d>)^2

The activations of image and style are projected on a direction and sorted, and compared rank by rank; the style's ranks
are interpolated where it has another number of pixels. Directions are drawn anew at every iteration, from the seed and
the iteration's number. A pixel's rank is among all of the image, so there are no tiles. Of the style STYLE_PIXELS are
looked at, at most, spread evenly over its region.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....kernels.device import Array, Device
from ...types import Mask
from .base import Nothing, SeenTile, Statistic, StyleTerm, TapShape
from .sampling import Sample, sampled
from .tuning import Tuning

ROWS_AT_A_TIME = 16
"""Sorted: enough of them fill a GPU, and all at once take as much memory again."""
STYLE_PIXELS = 65_536
"""Of a style at a tap, at most."""


@dataclass(frozen=True, eq=False)
class StyleFeatures:
    """Of a style."""

    features: Array
    """(1, M, C), of activation_dtype"""
    sample: Sample | None = None
    """While tiles are taken in."""


@dataclass(frozen=True, eq=False)
class Room:
    """To work in."""

    directions: Array
    """(K, C)"""
    values: Array
    """(K, N): projections, sorted."""
    order: Array
    """(K, N), int32"""
    residual: Array
    """(K, N)"""
    of_style: Array
    """(K M,), M of the largest style: its projections."""
    sorting: Array
    """uint8"""


Term = StyleTerm[StyleFeatures, Nothing, Nothing]


class Sliced(Statistic[StyleFeatures, Nothing, Nothing]):
    strength = 1 / 3
    random = True
    in_tiles = on_devices = False

    def __init__(self, tuning: Tuning) -> None:
        self.directions = tuning.directions

    def tuned(self, tuning: Tuning) -> "Sliced":
        return Sliced(tuning)

    # ---- memory, from shapes alone ------------------------------------------------------------------------------
    def target(self, device: Device, shape: TapShape) -> StyleFeatures:
        return StyleFeatures(((1, _count(shape), shape.channels), device.activation_dtype))

    def sums(self, device: Device, channels: int) -> Nothing:
        del device, channels
        return Nothing()

    def errors(self, device: Device, shape: TapShape) -> Nothing:
        del device, shape
        return Nothing()

    def scratch(self, device: Device, shape: TapShape, pieces: Sequence[TapShape], styles: Sequence[TapShape]) -> Room:
        del pieces
        real, whole, counts = device.image_dtype, np.dtype(np.int32), [_count(style) for style in styles]
        matrix = self.directions, shape.height * shape.width
        sorting = max(device.sort_scratch_bytes(ROWS_AT_A_TIME, length) for length in (matrix[1], *counts))
        return Room(
            ((self.directions, shape.channels), real), (matrix, real), (matrix, whole), (matrix, real),
            ((self.directions * max(counts),), real), ((sorting,), np.dtype(np.uint8)),
        )  # fmt: skip

    # ---- the style, once ----------------------------------------------------------------------------------------
    def begin_target(self, device: Device, target: StyleFeatures, shape: TapShape, mask: Mask | None) -> StyleFeatures:
        return replace(target, sample=sampled(device, shape, mask, target.features.shape[1]))

    def gather_target(self, device: Device, seen: SeenTile, target: StyleFeatures, partial: Nothing | None) -> None:
        del partial
        assert target.sample is not None
        target.sample.take(device, seen.features, seen.part)

    def finish_target(self, device: Device, target: StyleFeatures, scratch: Any) -> tuple[float, StyleFeatures]:
        del scratch
        assert target.sample is not None
        values = target.sample.values
        device.upload(values.reshape(target.features.shape), target.features)
        # Of an image without features all projections are zero; what is expected of the style's over all directions.
        return float(np.mean(np.square(values), dtype=np.float64)), replace(target, sample=None)

    # ---- the image, at every evaluation -------------------------------------------------------------------------
    def measure(self, device: Device, features: Array, weights: Array | None, out: Nothing) -> None:
        """There is nothing to average."""

    def see(self, device: Device, term: Term, seen: SeenTile) -> None:
        """All is done on the way back, so that the taps take turns with the memory."""

    def compare(self, device: Device, term: Term) -> None:
        """As `see`."""

    def add_gradient(self, device: Device, term: Term, seen: SeenTile, out: Array, accumulate: bool) -> None:
        room: Room = term.scratch
        device.random_directions(term.seed, term.counter, room.directions)
        device.project(seen.features, room.directions, room.values)
        device.sort_rows(room.values, room.order, scratch=room.sorting)
        for number, style in enumerate(term.targets):
            features = style.target.features
            ranked = room.of_style[: self.directions * features.shape[1]].reshape(self.directions, -1)
            device.project(features, room.directions, ranked)
            device.sort_rows(ranked, None, scratch=room.sorting)
            scale = 2 * term.weight * style.share / (self.directions * term.pixels)
            device.sliced_cost(
                room.values, room.order, ranked, scale, cost=style.cost, residual=room.residual, weights=seen.weights,
                accumulate=number > 0,
            )  # fmt: skip
        device.sliced_gradient(room.residual, room.directions, out=out, accumulate=accumulate)


def _count(style: TapShape) -> int:
    return min(STYLE_PIXELS, style.height * style.width)


STATISTIC = Sliced(Tuning())
