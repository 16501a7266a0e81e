"""The cosine distance to the nearest of the style's features (Kolkin et al. 2022):

    mean over the pixels p of 1 - max_j cos(a_p - m, s_j - m_s)

Features a of the image are taken from their mean m over the region, the style's from theirs. Each pixel's match, and m,
are measured every so many iterations and held fixed in between, so that the gradient is that of a tile by itself. Of
the style at most CANDIDATES pixels are looked at, spread evenly over its region; where it is looked at in several ways
up, as many of each, and m_s is the mean of all. With several styles in one region each has a cost of its own, by its
share: a pixel is drawn to its match in every one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....kernels.device import Array, Device
from ...memory.arena import Buffer, allocate
from ...types import Mask
from .base import Nothing, SeenTile, Statistic, StyleTarget, StyleTerm, TapShape
from .sampling import Sample, sampled
from .tuning import TURNS, Tuning

CANDIDATES = 16_384
"""Of a style at a tap in each way up, at most."""


@dataclass(frozen=True, eq=False)
class Mean:
    mean: Array
    """(C,)"""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Of a style."""

    directions: Array
    """(1, M, C), of activation_dtype: from the mean, of length one."""
    mean: Array
    """(C,)"""
    samples: list[Sample] | None = None
    """While tiles are taken in, of each way up."""


@dataclass(frozen=True, eq=False)
class Matched:
    """What is held of the image, for one style."""

    mean: Array
    """(C,)"""
    matches: Array
    """(h, w), int32: the number of a candidate."""


@dataclass(frozen=True, eq=False)
class Room:
    """To work in."""

    workspace: Array
    """uint8; of the search."""
    distance: Array
    """(1,): of one tile."""
    matches: Array | None
    """(n,), int32: of one tile; None where it is the whole."""


Term = StyleTerm[Candidates, Mean, Nothing]


class Neighbors(Statistic[Candidates, Mean, Nothing]):
    strength = 1 / 10
    looks = 2

    def __init__(self, tuning: Tuning) -> None:
        self.every, self.turns = tuning.match_every, TURNS[tuning.turns]

    def tuned(self, tuning: Tuning) -> "Neighbors":
        return Neighbors(tuning)

    # ---- memory, from shapes alone ------------------------------------------------------------------------------
    def target(self, device: Device, shape: TapShape) -> Candidates:
        return Candidates(
            ((1, self._count(shape), shape.channels), device.activation_dtype), ((shape.channels,), device.image_dtype)
        )

    def sums(self, device: Device, channels: int) -> Mean:
        return Mean(((channels,), device.image_dtype))

    def errors(self, device: Device, shape: TapShape) -> Nothing:
        del device, shape
        return Nothing()

    def held(self, device: Device, shape: TapShape) -> Matched:
        return Matched(((shape.channels,), device.image_dtype), ((shape.height, shape.width), np.dtype(np.int32)))

    def scratch(self, device: Device, shape: TapShape, pieces: Sequence[TapShape], styles: Sequence[TapShape]) -> Room:
        counts = {self._count(style) for style in styles}
        nbytes = device.workspace_bytes([], [(*piece, count) for piece in pieces for count in counts])
        largest = max(piece.height * piece.width for piece in pieces)
        whole = all(piece == shape for piece in pieces)
        return Room(
            ((nbytes,), np.dtype(np.uint8)),
            ((1,), device.image_dtype),
            None if whole else ((largest,), np.dtype(np.int32)),
        )

    def _count(self, style: TapShape) -> int:
        return len(self.turns) * min(CANDIDATES, style.height * style.width)

    # ---- the style, once ----------------------------------------------------------------------------------------
    def begin_target(self, device: Device, target: Candidates, shape: TapShape, mask: Mask | None) -> Candidates:
        sample = sampled(device, shape, mask, target.directions.shape[1] // len(self.turns))
        return replace(target, samples=[*(target.samples or []), sample])

    def gather_target(self, device: Device, seen: SeenTile, target: Candidates, partial: Mean | None) -> None:
        assert target.samples is not None
        self.gather(device, seen, Mean(target.mean), partial)
        target.samples[-1].take(device, seen.features, seen.part)

    def finish_target(self, device: Device, target: Candidates, scratch: Room) -> tuple[float, Candidates]:
        del scratch
        shape = target.directions.shape
        assert target.samples is not None
        values = np.concatenate([sample.values for sample in target.samples])
        (features,) = allocate(device, [Buffer("features", shape, device.activation_dtype, 0, 0)]).values()
        device.upload(values.reshape(shape), features)
        device.normalize_features(features, target.mean, target.directions)
        return 1.0, replace(target, samples=None)

    # ---- the image, every so many iterations --------------------------------------------------------------------
    def look(self, device: Device, term: Term, seen: SeenTile, number: int) -> None:
        if number == 0:
            for style in term.targets:
                self.gather(device, seen, Mean(style.held.mean), term.partial)
            return
        device.bind_workspace(term.scratch.workspace)
        for style in term.targets:
            held, whole = style.held, seen.part.whole
            found = held.matches[seen.part.around] if whole else None
            if found is None or not found.flags.c_contiguous:
                found, whole = _room(term, seen), False
            device.nearest_neighbors(seen.features, held.mean, style.target.directions[0], found)
            if not whole:
                device.copy(found[seen.part.own], held.matches[seen.part.at])

    def look_alone(self, device: Device, term: Term, seen: SeenTile, number: int) -> dict[str, NDArray[Any]]:
        if number == 0:
            assert term.partial is not None
            self.measure(device, seen.features, seen.weights, term.partial)
            return {"mean": device.download(term.partial.mean)}
        device.bind_workspace(term.scratch.workspace)
        found, own = _room(term, seen), {}
        for style in term.targets:
            device.nearest_neighbors(seen.features, style.held.mean, style.target.directions[0], found)
            own[str(style.comparison)] = np.ascontiguousarray(device.download(found)[seen.part.own])
        return own

    def fold_look(
        self, device: Device, term: Term, seen: SeenTile, number: int, found: Mapping[str, NDArray[Any]]
    ) -> None:
        for style in term.targets:
            if number == 1:
                matches = found[str(style.comparison)]
                room = term.scratch.matches[: matches.size].reshape(matches.shape)
                device.upload(matches, room)
                device.copy(room, style.held.matches[seen.part.at])
            elif seen.share == 1:
                device.upload(found["mean"], style.held.mean)
            else:
                assert term.partial is not None
                device.upload(found["mean"], term.partial.mean)
                device.blend(term.partial.mean, seen.share, style.held.mean)

    def accepts(self, target: Candidates, held: Mapping[str, NDArray[Any]]) -> bool:
        matches = held["matches"]
        return bool(
            np.isfinite(held["mean"]).all() and 0 <= matches.min() <= matches.max() < target.directions.shape[1]
        )

    # ---- the image, at every evaluation -------------------------------------------------------------------------
    def measure(self, device: Device, features: Array, weights: Array | None, out: Mean) -> None:
        device.mean(features, out.mean, weights=weights)

    def see(self, device: Device, term: Term, seen: SeenTile) -> None:
        for style in term.targets:
            cost = style.cost if seen.share == 1 else term.scratch.distance
            _measure(device, term, seen, style, cost)
            if seen.share != 1:
                device.blend(cost, seen.share, style.cost)

    def see_alone(self, device: Device, term: Term, seen: SeenTile) -> dict[str, NDArray[Any]]:
        found = {}
        for style in term.targets:
            _measure(device, term, seen, style, term.scratch.distance)
            found[str(style.comparison)] = device.download(term.scratch.distance)
        return found

    def fold(self, device: Device, term: Term, share: float, found: Mapping[str, NDArray[Any]]) -> None:
        for style in term.targets:
            if share == 1:
                device.upload(found[str(style.comparison)], style.cost)
            else:
                device.upload(found[str(style.comparison)], term.scratch.distance)
                device.blend(term.scratch.distance, share, style.cost)

    def compare(self, device: Device, term: Term) -> None:
        """What there is to compare has been seen."""

    def add_gradient(self, device: Device, term: Term, seen: SeenTile, out: Array, accumulate: bool) -> None:
        for number, style in enumerate(term.targets):
            device.neighbors_gradient(
                seen.features, style.held.mean, style.target.directions[0], _matches(device, term, seen, style.held),
                term.weight * style.share / term.pixels, out=out, accumulate=accumulate or number > 0,
                weights=seen.weights,
            )  # fmt: skip


def _measure(device: Device, term: Term, seen: SeenTile, style: StyleTarget[Candidates], cost: Array) -> None:
    """cost := the mean over a tile's own pixels and those of its halo, which weigh nothing."""
    device.neighbors_cost(
        seen.features, style.held.mean, style.target.directions[0], _matches(device, term, seen, style.held),
        1 / (seen.part.shape[0] * seen.part.shape[1]), cost=cost, weights=seen.weights,
    )  # fmt: skip


def _matches(device: Device, term: Term, seen: SeenTile, held: Matched) -> Array:
    """(h, w): of a tile, with its rows together."""
    window = held.matches[seen.part.around]
    if window.flags.c_contiguous:
        return window
    room = _room(term, seen)
    device.copy(window, room)
    return room


def _room(term: Term, seen: SeenTile) -> Array:
    height, width = seen.part.shape
    return term.scratch.matches[: height * width].reshape(height, width)


STATISTIC = Neighbors(Tuning())
