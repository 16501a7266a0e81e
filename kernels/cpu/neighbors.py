"""The operations of `neighbors` on the cpu device: each feature's nearest candidate by cosine, its cost and gradient.

The search multiplies a block of features with a block of candidates after the other, as large as a core's cache holds,
and keeps the best of each row: the matrix of all products is nowhere. `kernels.device` has the contracts.
"""

import numpy as np
from numpy.typing import NDArray

from ..device import FLAT
from .sums import store
from .thread_pool import Workers

Floats = NDArray[np.float32]

SEARCH_ROWS, SEARCH_CANDIDATES = 512, 1024  # of one product: 2 MiB
NEIGHBOR_BYTES = 1 << 19  # of the features that a cost or gradient takes at a time


class NeighborOperations:
    """What `Cpu` has of them; it has the workers."""

    _workers: Workers

    def normalize_features(self, features: Floats, mean: Floats, out: Floats) -> None:
        pixels, directions = features.reshape(-1, len(mean)), out.reshape(-1, len(mean))

        def task(_: int, rows: slice) -> None:
            directions[rows] = _directions(pixels[rows], mean)[0]

        self._workers.run(task, _pixel_blocks(pixels))

    def nearest_neighbors(self, features: Floats, mean: Floats, candidates: Floats, out: NDArray[np.int32]) -> None:
        pixels, matches = features.reshape(-1, len(mean)), np.empty(out.size, np.int32)
        step = max(1, min(SEARCH_ROWS, -(-len(pixels) // self._workers.count)))
        width = min(SEARCH_CANDIDATES, len(candidates))

        def task(_: int, rows: slice) -> None:
            centered = pixels[rows] - mean
            count = len(centered)
            products, numbers = np.empty((count, width), np.float32), np.arange(count)
            best, nearest = np.full(count, -np.inf, np.float32), np.zeros(count, np.int32)
            for first in range(0, len(candidates), width):
                block = candidates[first : first + width]
                here = np.matmul(centered, block.T, out=products[:, : len(block)])
                columns = here.argmax(axis=1)  # the first of equals, or the first that is no number
                highest = here[numbers, columns]
                better = highest > best  # never what is no number
                best[better] = highest[better]
                nearest[better] = columns[better] + first
            matches[rows] = nearest

        self._workers.run(task, [slice(at, min(at + step, len(pixels))) for at in range(0, len(pixels), step)])
        out[...] = matches.reshape(out.shape)

    def neighbors_cost(self, features: Floats, mean: Floats, candidates: Floats, matches: NDArray[np.int32],
                       scale: float, *, cost: Floats, weights: Floats | None = None) -> None:  # fmt: skip
        pixels, chosen = features.reshape(-1, len(mean)), matches.reshape(-1)
        each = None if weights is None else weights.reshape(-1)
        blocks = _pixel_blocks(pixels)
        sums = [0.0] * len(blocks)

        def task(_: int, index: int) -> None:
            rows = blocks[index]
            distances = 1 - np.einsum("ij,ij->i", _directions(pixels[rows], mean)[0], candidates[chosen[rows]])
            if each is not None:
                distances *= each[rows]
            sums[index] = float(np.sum(distances, dtype=np.float64))

        self._workers.run(task, range(len(blocks)))
        cost[...] = scale * sum(sums)

    def neighbors_gradient(self, features: Floats, mean: Floats, candidates: Floats, matches: NDArray[np.int32],
                           scale: float, *, out: Floats, accumulate: bool,
                           weights: Floats | None = None) -> None:  # fmt: skip
        pixels, result = (a.reshape(-1, len(mean)) for a in (features, out))
        chosen = matches.reshape(-1)
        each = None if weights is None else weights.reshape(-1)

        def task(_: int, rows: slice) -> None:
            directions, lengths = _directions(pixels[rows], mean)
            matched = candidates[chosen[rows]]
            directions *= np.einsum("ij,ij->i", directions, matched)[:, None]
            directions -= matched
            factors = np.float32(scale) / lengths
            if each is not None:
                factors *= each[rows]
            directions *= factors[:, None]
            store(directions, result[rows], accumulate)

        self._workers.run(task, _pixel_blocks(pixels))


def _directions(pixels: Floats, mean: Floats) -> tuple[Floats, Floats]:
    """u (n, C), and what it was divided by, (n,): infinite where u is 0."""
    centered = pixels - mean
    lengths = np.sqrt(np.einsum("ij,ij->i", centered, centered))
    own = np.sqrt(np.einsum("ij,ij->i", pixels, pixels))
    lengths[lengths <= np.float32(FLAT) * own] = np.inf
    centered *= (1 / lengths)[:, None]
    return centered, lengths


def _pixel_blocks(pixels: Floats) -> list[slice]:
    step = max(1, NEIGHBOR_BYTES // pixels[0].nbytes)
    return [slice(at, min(at + step, len(pixels))) for at in range(0, len(pixels), step)]
