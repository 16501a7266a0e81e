"""What may be set of the style statistics that have something to set."""

from dataclasses import dataclass

from ....kernels.device import MOST_DIRECTIONS
from ...errors import SettingsError

MOST_KEPT = 10**6
TURNS = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}
"""The quarter turns of a style's picture, by how many ways up there are."""


@dataclass(frozen=True)
class Tuning:
    """Raises SettingsError for what none of these can be."""

    match_every: int = 25
    """Iterations for which `neighbors` keeps its matches; an optimizer that searches keeps them for 25 at least."""
    turns: int = 1
    """Ways up in which `neighbors` looks at a style's picture: 1; 2, also upside down; 4, also on either side."""
    directions: int = 64
    """Along how many `sliced` compares, at each layer."""

    def __post_init__(self) -> None:
        if not 1 <= self.match_every <= MOST_KEPT:
            raise SettingsError(f"match_every is {self.match_every} iterations; it must be 1 to {MOST_KEPT}")
        if self.turns not in TURNS:
            raise SettingsError(f"turns is {self.turns}; it must be 1, 2 or 4")
        if not 1 <= self.directions <= MOST_DIRECTIONS:
            raise SettingsError(f"directions is {self.directions}; it must be 1 to {MOST_DIRECTIONS}")
