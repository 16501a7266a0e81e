"""When a scale of a run has settled: further iterations would hardly lower its cost.

Decided by the costs alone, so that a run ends after the same iteration on every device and after every interruption.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import SettingsError
from ..wording import counted
from .graph_loop import AHEAD

DELAY = AHEAD - 1
"""Iterations from the one that decides to the last one: a GPU may have them under way before its costs are seen."""


@dataclass(frozen=True)
class Settled:
    """A scale has settled once its lowest cost has fallen by less than the share `fall` in so many `iterations`."""

    fall: float = 0.01
    iterations: int = 25

    def __post_init__(self) -> None:
        if not 0 < self.fall < 1:
            raise SettingsError(f"the fall that counts as settled is {self.fall}; it must be above 0 and below 1")
        if self.iterations < 1:
            raise SettingsError(f"settled is judged over {self.iterations} iterations; at least 1 is needed")

    def __str__(self) -> str:
        return f"a fall below {self.fall:.6g} in {counted(self.iterations, 'iteration')}"


class Watch:
    """Looks at the costs of one scale, one after the other.

    planned: the scale's iterations. before: those whose costs say nothing, since the cost has been another one since;
    `seen` are the costs after them.
    """

    def __init__(self, settled: Settled | None, planned: int, seen: Iterable[float] = (), before: int = 0) -> None:
        self.end = self._planned = planned
        """The scale's last iteration."""
        self._settled, self._before = settled, before
        self._lowest: list[float] = []
        for cost in seen:
            self.see(cost)

    @property
    def early(self) -> bool:
        """Whether the scale ends before its time."""
        return self.end < self._planned

    def see(self, cost: float) -> None:
        """The cost that the next iteration started from."""
        if self._settled is None or self.early:
            return
        self._lowest.append(min(cost, self._lowest[-1] if self._lowest else math.inf))
        number, window = len(self._lowest), self._settled.iterations
        if number > window and self._lowest[-1] > (1 - self._settled.fall) * self._lowest[-1 - window]:
            self.end = min(self._before + number + DELAY, self._planned)
