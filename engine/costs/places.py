"""Where several styles are wanted: the picture divided into places, each with one mixture of styles.

A style is compared with the statistics of its places, one by one, and never with those of a region in which other
styles are wanted as well in one half and not in the other: what those do in their half, this one would undo in the
rest. So a style that is wanted everywhere and one that is wanted on the left make two places, the left with both styles
and the right with one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError
from ..imaging import masks
from ..memory.spill import bands
from ..style import ReadStyle
from ..types import Mask

SLIVER = 0.01
"""Of the area of every style in it: a place that is smaller is a seam between others, and is divided among them."""
_ROUNDING = 1e-6  # of a pixel: what sums of masks are off by


@dataclass(frozen=True, eq=False)
class Place:
    """A part of the picture in which the same styles are wanted."""

    weights: Mask | None
    """(H, W), which part of each pixel belongs to it; None is all of every pixel."""
    shares: Mapping[int, float]
    """Of J_style, by the number of the style; over all places they sum to the part of the picture that is painted."""


class Claims:
    """What the styles' masks and the content mask (`keep`) say of the picture, at every size.

    size: (H, W) of the picture. feather: pixels, at that size, by which edges are softened to either side. Raises
    SettingsError for a feather that can't be, and for other proportions.
    """

    def __init__(self, styles: Sequence[ReadStyle], keep: Mask | None, size: tuple[int, int], feather: int) -> None:
        if not 0 <= feather <= max(size):
            raise SettingsError(
                f"mask_feather is {feather} pixels; it must be at least 0 and at most the picture's long side, "
                f"{max(size)}"
            )
        self.feather = feather
        self._styles = styles
        self._masks = [_feathered(style.mask, size, feather, style.mask_name) for style in styles]
        self._keep = _feathered(keep, size, feather, "the content mask")

    @property
    def masks(self) -> list[Mask | None]:
        """Of the content, and of every style, with their feather."""
        return [self._keep, *self._masks]

    def places(self, size: tuple[int, int]) -> list[Place]:
        """The places of a picture of (H, W)."""
        wanted, free = self._fitted(size)
        return divide(wanted, [style.weight for style in self._styles], free)

    def painted(self, size: tuple[int, int]) -> Mask | None:
        """`painted` at (H, W)."""
        return painted(*self._fitted(size))

    def check(self, places: Sequence[Place], sizes: Mapping[str, tuple[int, int]], taps: Sequence[str]) -> None:
        """Raises SettingsError for a style whose places cover too little of a tap; sizes: (H, W) by tap."""
        for number, style in enumerate(self._styles):
            own = [place.weights for place in places if number in place.shares]
            if any(weights is None for weights in own):
                continue
            name = "what the content mask leaves" if self._masks[number] is None else style.mask_name
            if self._masks[number] is not None and self._keep is not None:
                name += ", within what the content mask leaves,"
            nothing = np.zeros(next(iter(sizes.values())), np.float32)
            masks.tap_weights(sum((weights for weights in own if weights is not None), nothing), sizes, taps, name)

    def _fitted(self, size: tuple[int, int]) -> tuple[list[Mask | None], Mask | None]:
        """The styles' masks at a size, and what the content mask leaves."""
        wanted = [
            None if mask is None else masks.fit(mask, size, style.mask_name)
            for mask, style in zip(self._masks, self._styles, strict=True)
        ]
        return wanted, None if self._keep is None else 1 - masks.fit(self._keep, size, "the content mask")


def _feathered(mask: Mask | None, size: tuple[int, int], feather: int, name: str) -> Mask | None:
    return mask if mask is None or feather == 0 else masks.feather(masks.fit(mask, size, name), feather)


def divide(wanted: Sequence[Mask | None], weights: Sequence[float], free: Mask | None) -> list[Place]:
    """The places of styles with these masks (H, W; None is everywhere) and weights, within `free`.

    A place counts by its area, and in it each style by its weight: each is as strong there as it would be alone, or
    with the same others, in the whole picture. Two masks overlap at a pixel by what exceeds one in their sum, so that a
    soft edge with one style on either side is nowhere both styles at once.
    """
    everywhere = frozenset(number for number, mask in enumerate(wanted) if mask is None)
    masked = {number: mask for number, mask in enumerate(wanted) if mask is not None}
    if not masked and free is None:
        return [Place(None, _shares(everywhere, 1.0, weights))]
    found: dict[frozenset[int], Mask] = {}
    if masked:
        for group, part in _overlaps(masked).items():
            if group | everywhere:
                found[group | everywhere] = part if free is None else part * free
    else:
        assert free is not None
        found[everywhere] = free
    found = _without_slivers(found)
    areas = {group: float(part.mean(dtype=np.float64)) for group, part in found.items()}
    return [Place(part, _shares(group, areas[group], weights)) for group, part in found.items() if areas[group] > 0]


def painted(wanted: Sequence[Mask | None], free: Mask | None) -> Mask | None:
    """Which part of each pixel is painted, (H, W): what some style wants and the content mask leaves; None is all.

    Masks that overlap add up, to one at most.
    """
    part = free
    if not any(mask is None for mask in wanted):
        total = np.sum([mask for mask in wanted if mask is not None], axis=0, dtype=np.float32)
        part = np.minimum(total, 1) if free is None else np.minimum(total, 1) * free
    return None if part is None or (part == 1).all() else part


def _shares(group: frozenset[int], area: float, weights: Sequence[float]) -> dict[int, float]:
    total = sum(weights[number] for number in group)
    return {number: area * weights[number] / total for number in sorted(group)}


def _overlaps(wanted: Mapping[int, Mask]) -> dict[frozenset[int], Mask]:
    """By the styles that are wanted together, the part of each pixel where just these are; that of no style as well.

    Each pixel is a circle of circumference one, on which the masks are arcs laid end to end: they overlap only where
    they go round more than once.
    """
    numbers, shape = list(wanted), next(iter(wanted.values())).shape
    parts: dict[int, Mask] = {}
    for rows in bands((*shape, len(wanted)), 8 * (len(wanted) + 1)):
        arcs = np.stack([mask[rows].astype(np.float64) for mask in wanted.values()])
        ends = np.cumsum(arcs, axis=0)
        starts = ends - arcs
        cuts = np.sort(np.concatenate([np.zeros_like(ends[:1]), ends % 1]), axis=0)
        lengths = np.diff(cuts, axis=0, append=np.ones_like(cuts[:1]))
        for cut, length in zip(cuts, lengths, strict=True):
            inside = (cut + length / 2 - starts) % 1 < arcs
            group: NDArray[np.int64] = np.sum(
                [there << bit for bit, there in enumerate(inside.astype(np.int64))], axis=0
            )
            there = length > _ROUNDING
            for code in np.unique(group[there]).tolist():
                part = parts.setdefault(code, np.zeros(shape, np.float32))
                part[rows] += np.where(there & (group == code), length, 0).astype(np.float32)
    return {
        frozenset(number for bit, number in enumerate(numbers) if code >> bit & 1): part
        for code, part in sorted(parts.items())
    }


def _without_slivers(found: Mapping[frozenset[int], Mask]) -> dict[frozenset[int], Mask]:
    areas = {group: float(part.sum(dtype=np.float64)) for group, part in found.items()}
    of_style: dict[int, float] = {}
    for group, area in areas.items():
        for number in group:
            of_style[number] = of_style.get(number, 0.0) + area
    slivers = [group for group, area in areas.items() if all(area < SLIVER * of_style[number] for number in group)]
    kept = {group: part for group, part in found.items() if group not in slivers}
    for sliver in slivers:
        alike = {group: len(group & sliver) / len(group | sliver) for group in kept}
        closest = [group for group, likeness in alike.items() if likeness == max(alike.values())]
        for group in closest:
            kept[group] = kept[group] + found[sliver] / np.float32(len(closest))
    return kept
