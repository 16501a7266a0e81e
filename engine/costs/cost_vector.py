"""The vector of all costs that a device measures, and what it says once it is in host memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .terms import Costs, Weighting


@dataclass(frozen=True)
class CostVector:
    """Where each cost stands, as a slice of length one.

    Of the content by tap and tile, of the styles by tap, statistic and comparison, of total variation, and the
    gradient's square.
    """

    content_taps: tuple[str, ...]
    style_taps: tuple[str, ...]
    tiles: int
    comparisons: int
    """Of styles with places, at each tap."""
    statistics: tuple[str, ...]
    """By which styles are compared."""

    def __len__(self) -> int:
        styles = len(self.style_taps) * len(self.statistics) * self.comparisons
        return len(self.content_taps) * self.tiles + styles + 2

    def content(self, tap: str, tile: int) -> slice:
        slot = self.content_taps.index(tap) * self.tiles + tile
        return slice(slot, slot + 1)

    def style(self, statistic: str, tap: str, comparison: int) -> slice:
        before = len(self.content_taps) * self.tiles
        row = self.style_taps.index(tap) * len(self.statistics) + self.statistics.index(statistic)
        slot = before + row * self.comparisons + comparison
        return slice(slot, slot + 1)

    @property
    def tv(self) -> slice:
        return slice(len(self) - 2, len(self) - 1)

    @property
    def gradient_squared(self) -> slice:
        return slice(len(self) - 1, len(self))

    def costs(self, values: NDArray[np.floating], weighting: Weighting, shares: Sequence[float]) -> Costs:
        """What was measured, as costs; `shares` of J_style are those of the comparisons."""
        measured = iter(float(value) for value in values)
        content = {tap: sum(next(measured) for _ in range(self.tiles)) for tap in self.content_taps}
        style = {
            tap: sum(
                weighting.factor(name, tap) * sum(share * next(measured) for share in shares)
                for name in self.statistics
            )
            for tap in self.style_taps
        }
        tv, squared = measured
        content_cost = sum(weighting.content_layers[tap] * cost for tap, cost in content.items())
        style_cost = sum(weighting.style_layers[tap] * cost for tap, cost in style.items())
        total = weighting.content * content_cost + weighting.style * style_cost + weighting.tv * tv
        per_layer = dict(style)
        for tap, cost in content.items():
            per_layer[f"{tap} content" if tap in style else tap] = cost
        norm = math.sqrt(squared) if squared >= 0 else squared  # NaN stays NaN
        return Costs(total, content_cost, style_cost, tv, per_layer, norm)
