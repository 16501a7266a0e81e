"""Wasserstein distances on the cpu device: of normal distributions, by eigenvectors in float64; and sliced, where a
thread takes a direction, or a block of pixels, at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..random.directions import directions as draw_directions
from .openblas import single_threaded
from .sums import blocks_of, store
from .thread_pool import Workers

Floats = NDArray[np.float32]
Order = NDArray[np.int32]


def w2_root(gram: Floats, mean: Floats, ridge: float, out: Floats) -> None:
    """`Device.w2_root`."""
    with single_threaded():
        values, vectors = np.linalg.eigh(covariance_of(gram, mean, ridge))
        out[...] = (vectors * np.sqrt(values)) @ vectors.T


def w2_cost(gram: Floats, mean: Floats, target_root: Floats, target_mean: Floats, ridge: float, scale: float, *,
            cost: Floats, gram_error: Floats, mean_error: Floats, accumulate: bool) -> None:  # fmt: skip
    """`Device.w2_cost`. Float64 keeps the small eigenvalues of Q. 45 ms at 512 channels on one core, where the sixty
    products of the GPU's iteration take 140."""
    channels = len(gram)
    moved = mean.astype(np.float64) - target_mean
    with single_threaded():
        covariance, root = covariance_of(gram, mean, ridge), target_root.astype(np.float64)
        values, vectors = np.linalg.eigh(root @ covariance @ root)
        sqrt = np.sqrt(values)
        turned = (root @ vectors) / np.sqrt(sqrt)
        change = turned @ turned.T  # R Q^(-1/2) R; one triangle, as in `gram`
    np.negative(change, out=change)
    change.flat[:: channels + 1] += 1
    traces = np.trace(covariance) + np.vdot(root, root) - 2 * np.sum(sqrt)
    cost[...] = (moved @ moved + traces) / channels
    store(scale * (moved - change @ mean), mean_error, accumulate)
    change *= scale
    store(change, gram_error, accumulate)


def covariance_of(gram: Floats, mean: Floats, ridge: float) -> NDArray[np.float64]:
    exact = mean.astype(np.float64)
    covariance: NDArray[np.float64] = gram - np.outer(exact, exact)
    covariance.flat[:: len(gram) + 1] += ridge
    return covariance


class SlicedOperations:
    """What `Cpu` has for the sliced distance."""

    _workers: Workers

    def random_directions(self, seed: int, counter: Order, out: Floats) -> None:
        out[...] = draw_directions(seed, int(counter[0]), *out.shape)

    def project(self, features: Floats, directions: Floats, out: Floats) -> None:
        pixels = features.reshape(-1, features.shape[2])

        def task(_: int, rows: slice) -> None:
            out[:, rows] = directions @ pixels[rows].T

        self._workers.run(task, blocks_of(pixels, self._workers.count))

    def sort_scratch_bytes(self, rows: int, length: int) -> int:  # noqa: ARG002
        return 0

    def sort_rows(self, values: Floats, order: Order | None, *, scratch: NDArray[Any]) -> None:  # noqa: ARG002
        places = np.arange(values.shape[1], dtype=np.int64)

        def task(_: int, row: int) -> None:
            own = values[row]
            own += 0.0  # -0 becomes 0
            if order is None:
                own.sort()
                return
            # Pairs of a key and a place: no two are alike, so that the fastest sort is a stable one, and it takes half
            # the time of an `argsort` that is not.
            pairs = _rising(own).astype(np.int64)
            pairs <<= 32
            pairs |= places
            pairs.sort()
            pairs &= 0xFFFFFFFF
            order[row] = pairs
            values[row] = own.take(pairs)

        self._workers.run(task, range(len(values)))

    def sliced_cost(self, values: Floats, order: Order, target: Floats, scale: float, *, cost: Floats,
                    residual: Floats, weights: Floats | None = None, accumulate: bool = False) -> None:  # fmt: skip
        count, length = values.shape
        most = target.shape[1]
        flat = None if weights is None else weights.reshape(-1)
        even = None if weights is not None else _between((np.arange(length) + 0.5) / length, most)
        sums = np.empty(count)

        def task(_: int, row: int) -> None:
            places = order[row].astype(np.intp)  # which indexing is twice as fast with
            if flat is None:
                assert even is not None
                own, (before, share) = None, even
            else:
                own = flat.take(places)
                ranks = np.cumsum(own, dtype=np.float64)
                ranks -= 0.5 * own
                ranks /= length
                before, share = _between(ranks, most)
            at = np.append(target[row], target[row, -1])
            change = at.take(before)  # T, then what is away from it
            step = at.take(before + 1)
            step -= change
            step *= share
            change += step
            np.subtract(values[row], change, out=change)
            weighted = change.copy() if own is None else np.multiply(change, own, out=own)
            sums[row] = np.sum(np.multiply(weighted, change, out=change), dtype=np.float64)
            weighted *= np.float32(scale)
            if accumulate:
                residual[row, places] += weighted
            else:
                residual[row, places] = weighted

        self._workers.run(task, range(count))
        cost[...] = np.sum(sums) / (count * length)

    def sliced_gradient(self, residual: Floats, directions: Floats, *, out: Floats, accumulate: bool) -> None:
        pixels = out.reshape(-1, out.shape[2])

        def task(_: int, rows: slice) -> None:
            store(residual[:, rows].T @ directions, pixels[rows], accumulate)

        self._workers.run(task, blocks_of(pixels, self._workers.count))


def _rising(values: Floats) -> NDArray[np.int32]:
    """Whole numbers in the order of floats; any NaN the largest, since all become the same."""
    if np.isnan(values).any():
        values = np.where(np.isnan(values), np.float32(np.nan), values)
    bits = values.view(np.int32)
    keys = bits >> 31
    keys &= 0x7FFFFFFF
    keys ^= bits
    return keys


def _between(ranks: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], Floats]:
    """Of ranks in (0, 1), which it overwrites: the place before in a sorted row of `count`, and how far to the next."""
    ranks *= count
    ranks -= 0.5
    np.maximum(ranks, 0, out=ranks)
    np.minimum(ranks, count - 1, out=ranks)
    before = ranks.astype(np.intp)
    ranks -= before
    return before, ranks.astype(np.float32)
