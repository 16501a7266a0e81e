"""The Wasserstein distance of normal distributions on the cpu device, by eigenvectors in float64."""

import numpy as np
from numpy.typing import NDArray

from .openblas import single_threaded
from .sums import store

Floats = NDArray[np.float32]


def w2_root(gram: Floats, mean: Floats, ridge: float, out: Floats) -> None:
    """`Device.w2_root`."""
    with single_threaded():
        values, vectors = np.linalg.eigh(covariance_of(gram, mean, ridge))
        out[...] = (vectors * np.sqrt(values)) @ vectors.T


def w2_cost(gram: Floats, mean: Floats, target_root: Floats, target_mean: Floats, ridge: float, scale: float, *,
            cost: Floats, difference: Floats, shift: Floats, accumulate: bool) -> None:  # fmt: skip
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
    store(scale * (moved - change @ mean), shift, accumulate)
    change *= scale
    store(change, difference, accumulate)


def covariance_of(gram: Floats, mean: Floats, ridge: float) -> NDArray[np.float64]:
    exact = mean.astype(np.float64)
    covariance: NDArray[np.float64] = gram - np.outer(exact, exact)
    covariance.flat[:: len(gram) + 1] += ridge
    return covariance
