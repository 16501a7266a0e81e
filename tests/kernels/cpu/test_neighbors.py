"""The operations of `neighbors`: the reference against brute force and central differences, the cpu against it."""

import itertools
from typing import Any

import numpy as np
import pytest

from harness.arrays import random64
from nstgpu.kernels.cpu import neighbors
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.kernels.reference import Reference

reference = Reference()

SHAPES = [(1, 1, 4, 1), (5, 7, 8, 3), (9, 14, 20, 130), (17, 12, 33, 257), (4, 40, 64, 77)]
"""H, W, C of the features, and how many candidates there are."""


def candidates_of(count: int, channels: int, seed: int = 1) -> Any:
    """Directions, one of them zero."""
    style, out = random64(1, count, channels, seed=seed), np.empty((1, count, channels))
    style[0, count // 2] = 0
    reference.normalize_features(style, np.zeros(channels), out)
    return out[0]


def test_directions_are_of_unit_length_or_zero() -> None:
    features, mean = random64(3, 4, 5), random64(5, seed=1)
    features[1, 2] = mean  # the mean itself has none
    features[2, 0] = mean * (1 + 1e-6)  # nor what rounding could have moved
    out = np.full(features.shape, np.nan)
    reference.normalize_features(features, mean, out)
    lengths = np.ones((3, 4))
    lengths[1, 2] = lengths[2, 0] = 0
    np.testing.assert_allclose(np.linalg.norm(out, axis=2), lengths, atol=1e-12)
    np.testing.assert_allclose(out[0, 0] * np.linalg.norm(features[0, 0] - mean), features[0, 0] - mean)


def test_the_nearest_is_the_one_with_the_largest_cosine() -> None:
    features, mean, candidates = random64(4, 5, 6), random64(6, seed=2), random64(9, 6, seed=1)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    candidates[7] = candidates[3]  # of equals the first
    matches = np.full((4, 5), -1, np.int32)
    reference.nearest_neighbors(features, mean, candidates, matches)
    for i, j in itertools.product(range(4), range(5)):
        d = features[i, j] - mean
        cosines = [d @ candidate / np.linalg.norm(d) for candidate in candidates]
        assert matches[i, j] == cosines.index(max(cosines))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_the_costs_by_central_differences(weighted: bool) -> None:
    features, mean, candidates = random64(6, 5, 7), random64(7, seed=2), candidates_of(11, 7)
    weights = np.abs(random64(6, 5, seed=4)) if weighted else None
    features[2, 2] = mean  # where there is no direction there is no gradient
    matches, cost, gradient = np.empty((6, 5), np.int32), np.empty(1), np.empty(features.shape)
    reference.nearest_neighbors(features, mean, candidates, matches)

    def cost_of(values: Any) -> float:
        reference.neighbors_cost(values, mean, candidates, matches, 0.3, cost=cost, weights=weights)
        return float(cost[0])

    reference.neighbors_gradient(
        features, mean, candidates, matches, 0.3, out=gradient, accumulate=False, weights=weights
    )
    assert not gradient[2, 2].any()
    direction, step = random64(6, 5, 7, seed=5), 1e-6
    direction[2, 2] = 0
    numeric = (cost_of(features + step * direction) - cost_of(features - step * direction)) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(numeric, rel=1e-7)
    added = gradient.copy()
    reference.neighbors_gradient(features, mean, candidates, matches, 0.3, out=added, accumulate=True, weights=weights)
    np.testing.assert_allclose(added, 2 * gradient)


def test_the_cost_counts_places_without_a_direction_as_orthogonal() -> None:
    mean, cost, matches = random64(4), np.empty(1), np.zeros((2, 3), np.int32)
    features = np.broadcast_to(mean, (2, 3, 4)).copy()
    features[0, 0] += [1, 0, 0, 0]
    reference.neighbors_cost(features, mean, np.eye(4)[:1], matches, 2.0, cost=cost)
    assert cost[0] == pytest.approx(2 * 5)  # one is matched exactly, five have no cosine


@pytest.fixture(params=["large-items", "smallest-items"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cpu:
    if request.param == "smallest-items":
        monkeypatch.setattr(neighbors, "SEARCH_ROWS", 3)
        monkeypatch.setattr(neighbors, "SEARCH_CANDIDATES", 5)
        monkeypatch.setattr(neighbors, "NEIGHBOR_BYTES", 1)
    return Cpu(threads=3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_cpu(cpu: Cpu, shape: tuple[int, int, int, int], weighted: bool) -> None:
    height, width, channels, count = shape
    features, mean = random64(height, width, channels).astype(np.float32), random64(channels, seed=2).astype(np.float32)
    candidates = candidates_of(count, channels).astype(np.float32)
    features[-1, -1] = mean
    features64, mean64, candidates64 = (a.astype(np.float64) for a in (features, mean, candidates))

    out, expected = np.full(features.shape, np.nan, np.float32), np.empty(features.shape)
    cpu.normalize_features(features, mean, out)
    reference.normalize_features(features64, mean64, expected)
    np.testing.assert_allclose(out, expected, atol=1e-6)

    matches = np.full((height, width), -1, np.int32)
    cpu.nearest_neighbors(features, mean, candidates, matches)
    cosines = expected @ candidates64.T
    chosen = np.take_along_axis(cosines, matches[..., None], axis=2)[..., 0]
    assert np.all(chosen >= cosines.max(axis=2) - 1e-6)

    weights = np.abs(random64(height, width, seed=3)).astype(np.float32) if weighted else None
    cost, cost64 = np.full(1, np.nan, np.float32), np.empty(1)
    cpu.neighbors_cost(features, mean, candidates, matches, 0.3, cost=cost, weights=weights)
    reference.neighbors_cost(features64, mean64, candidates64, matches, 0.3, cost=cost64, weights=weights)
    assert cost[0] == pytest.approx(cost64[0], rel=1e-5, abs=1e-6)
    for accumulate in (False, True):
        out, expected = np.ones(features.shape, np.float32), np.ones(features.shape)
        cpu.neighbors_gradient(features, mean, candidates, matches, 0.3, out=out, accumulate=accumulate,
                               weights=weights)  # fmt: skip
        reference.neighbors_gradient(
            features64, mean64, candidates64, matches, 0.3, out=expected, accumulate=accumulate, weights=weights
        )
        np.testing.assert_allclose(out, expected, atol=1e-5, rtol=1e-5)


def test_cpu_takes_the_first_of_equals_and_never_one_that_is_not_there(cpu: Cpu) -> None:
    rng = np.random.default_rng(0)
    candidates = rng.integers(-3, 4, (23, 6)).astype(np.float32)
    candidates[11:22] = candidates[:11]
    features = rng.integers(-3, 4, (6, 7, 6)).astype(np.float32)
    features[0, 0], features[1, 1], features[2, 2, 3], features[3, 3, 0] = 0, np.nan, np.nan, np.inf
    mean, out, expected = np.zeros(6, np.float32), np.full((6, 7), -1, np.int32), np.empty((6, 7), np.int32)
    cpu.nearest_neighbors(features, mean, candidates, out)
    with np.errstate(invalid="ignore"):
        reference.nearest_neighbors(features, mean, candidates, expected)
    assert out[0, 0] == out[1, 1] == out[2, 2] == 0
    assert np.all((out >= 0) & (out < 23))
    finite = np.isfinite(features).all(axis=2)
    np.testing.assert_array_equal(out[finite], expected[finite])
