"""Every kernel of neighbors_simt.cuh against the reference in float64: on the emulator, on its checking build, and on
a GPU where there is one. Searches of whole numbers, whose products are exact, have one right answer.
"""

from typing import Any

import numpy as np
import pytest

from harness.neighbors import HALF_STEP, Opened, check_what_is_no_number, held, kept, random
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.neighbors import launch as neighbors
from nstgpu.kernels.reference import Reference

PRECISIONS = ("fp32", "bf16", "fp16")  # tf32 and 3xtf32 keep what fp32 keeps, and go to the same kernels
SHAPES = [(1, 1, 8, 1), (5, 7, 8, 3), (13, 12, 24, 130), (2, 3, 16, 700), (3, 4, 264, 65)]
"""H, W, C of the features, and how many candidates there are: one tile and several, one part and several."""
ANY_WIDTH = [(1, 2, 1, 5), (5, 7, 3, 70), (3, 3, 130, 9)]

reference = Reference()


def bind(device: CudaDevice, shape: tuple[int, int, int, int]) -> None:
    """As small a workspace as it may be."""
    device.bind_workspace(device.allocate(device.workspace_bytes([], [shape])))


def found(device: CudaDevice, features: Any, mean: Any, candidates: Any) -> Any:
    """By the kernels that need no tensor cores, whatever the device would take."""
    height, width, channels = features.shape
    workspace = device.allocate(neighbors.search_workspace_bytes(height, width, channels, len(candidates)))
    out = held(device, np.full(features.shape[:2], -1), np.int32)
    arrays = held(device, features), held(device, mean, np.float32), held(device, candidates)
    device._run(neighbors.nearest_neighbors(*arrays, out, workspace))
    return device.download(out)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_search_of_whole_numbers_is_exact_and_takes_the_first_of_equals(
    opened: Opened, precision: str, shape: tuple[int, int, int, int]
) -> None:
    height, width, channels, count = shape
    rng = np.random.default_rng(0)
    features, mean = rng.integers(-3, 4, (height, width, channels)), rng.integers(-2, 3, channels)
    candidates = rng.integers(-1, 2, (count, channels))
    candidates[count // 2 :] = candidates[: count - count // 2]  # every one twice, maybe in another tile or part
    features[0, 0] = mean  # all products are 0
    exact = ((features - mean) @ candidates.T).argmax(axis=2)
    device = opened(precision)
    arrays = (array.astype(np.float32) for array in (features, mean, candidates))
    np.testing.assert_array_equal(found(device, *arrays), exact)
    assert exact[0, 0] == 0


@pytest.mark.parametrize("shape", ANY_WIDTH)
def test_the_search_takes_any_number_of_channels_in_float32(
    opened: Opened, shape: tuple[int, int, int, int]
) -> None:  # fmt: skip
    height, width, channels, count = shape
    rng = np.random.default_rng(1)
    features, mean = rng.integers(-9, 10, (height, width, channels)), rng.integers(-2, 3, channels)
    candidates = rng.integers(-9, 10, (count, channels))
    arrays = (array.astype(np.float32) for array in (features, mean, candidates))
    exact = ((features - mean) @ candidates.T).argmax(axis=2)
    np.testing.assert_array_equal(found(opened("fp32"), *arrays), exact)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("count", [1, 70, 600])
def test_what_is_no_number_gets_some_candidate(opened: Opened, precision: str, count: int) -> None:
    check_what_is_no_number(opened(precision), found, count)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parts_decide_nothing(opened: Opened, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, mean, candidates = random(4, 9, 24), random(24, seed=1), random(600, 24, seed=2)
    candidates[300:] = candidates[:300]
    seen = set()
    for parts in (1, 2, 7, 10):  # ten tiles
        monkeypatch.setattr(neighbors, "search_parts", lambda *_, parts=parts: parts)
        matches = found(opened(precision), features, mean, candidates)
        assert matches.max() < 300
        seen.add(matches.tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *ANY_WIDTH])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_directions_costs_and_gradients(
    opened: Opened, precision: str, shape: tuple[int, int, int, int], weighted: bool
) -> None:
    height, width, channels, count = shape
    if precision != "fp32" and channels % 8:
        pytest.skip("channels in 16 bits come in eights")
    device, half = opened(precision), HALF_STEP.get(precision, 0.0)
    features, mean = random(height, width, channels), kept(random(channels, seed=1), precision).astype(np.float32)
    features[-1, -1] = mean  # no direction
    candidates = random(count, channels, seed=2)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    candidates[count // 2] = 0
    matches = np.random.default_rng(3).integers(0, count, (height, width)).astype(np.int32)
    weights = np.random.default_rng(4).random((height, width), np.float32) if weighted else None
    features64, candidates64 = kept(features, precision), kept(candidates, precision)
    mean64 = mean.astype(np.float64)

    bind(device, shape)
    inputs = held(device, features), held(device, mean, np.float32)
    given = None if weights is None else held(device, weights, np.float32)
    out, expected = held(device, np.full(features.shape, 7)), np.empty(features.shape)
    device.normalize_features(*inputs, out)
    reference.normalize_features(features64, mean64, expected)
    np.testing.assert_allclose(device.download(out), expected, atol=1e-6, rtol=half)
    assert not device.download(out)[-1, -1].any()

    matched = held(device, candidates), held(device, matches, np.int32)
    cost, cost64 = held(device, np.full(3, np.nan), np.float32), np.empty(1)
    device.neighbors_cost(*inputs, *matched, 0.3, cost=cost[1:2], weights=given)
    reference.neighbors_cost(features64, mean64, candidates64, matches, 0.3, cost=cost64, weights=weights)
    assert device.download(cost)[1] == pytest.approx(cost64[0], rel=1e-5, abs=1e-6)

    for accumulate in (False, True):
        out, expected = held(device, np.ones(features.shape)), np.full(features.shape, 1 / device.loss_scale)
        device.neighbors_gradient(*inputs, *matched, 0.3, out=out, accumulate=accumulate, weights=given)
        reference.neighbors_gradient(
            features64, mean64, candidates64, matches, 0.3, out=expected, accumulate=accumulate, weights=weights
        )
        gradient = device.download(out).astype(np.float64)
        np.testing.assert_allclose(gradient, expected * device.loss_scale, rtol=half + 1e-5, atol=1e-5)
        assert np.all(gradient[-1, -1] == (1 if accumulate else 0))


def test_two_costs_give_the_same_bytes(opened: Opened) -> None:
    device, shape = opened("fp32"), (40, 70, 12, 9)
    bind(device, shape)
    arrays = (held(device, random(40, 70, 12)), held(device, random(12, seed=1)), held(device, random(9, 12, seed=2)),
              held(device, np.zeros((40, 70)), np.int32))  # fmt: skip
    costs = held(device, np.zeros(2))
    for place in range(2):
        device.neighbors_cost(*arrays, 1.0, cost=costs[place : place + 1])
    first, second = device.download(costs)
    assert first == second != 0


def test_what_the_merge_needs_is_counted_and_asked_for(opened: Opened) -> None:
    device, shape = opened("fp32"), (2, 3, 16, 700)
    assert neighbors.search_parts(6, 700) == 2
    assert neighbors.search_parts(16384, 16384) == 3
    assert neighbors.search_parts(1 << 20, 16384) == 1
    assert neighbors.search_workspace_bytes(1024, 1024, 64, 16384) == 0
    assert device.workspace_bytes([], [(128, 128, 256, 16384)]) == 3 * 128 * 128 * 8
    device.bind_workspace(device.allocate(2 * 6 * 8 - 1))
    with pytest.raises(ValueError, match="the workspace has 95 bytes of 96"):
        device.nearest_neighbors(
            held(device, random(*shape[:3])), held(device, random(16)), held(device, random(700, 16)),
            held(device, np.zeros((2, 3)), np.int32),
        )  # fmt: skip


def test_what_does_not_fit_is_refused(opened: Opened) -> None:
    device = opened("fp32")
    bind(device, (4, 4, 8, 3))
    x, mean, matches = held(device, random(4, 4, 8)), held(device, random(8)), held(device, np.zeros((4, 4)), np.int32)
    with pytest.raises(ValueError, match=r"nearest_neighbors: candidates has shape \(3, 9\)"):
        device.nearest_neighbors(x, mean, held(device, random(3, 9)), matches)
    with pytest.raises(ValueError, match="nearest_neighbors: there are no candidates"):
        device.nearest_neighbors(x, mean, x.reshape(16, 8)[:0], matches)
    with pytest.raises(ValueError, match=r"neighbors_cost: matches has shape \(4, 4\) and dtype float32"):
        device.neighbors_cost(x, mean, x.reshape(16, 8), held(device, random(4, 4)), 1.0, cost=mean[:1])
    narrow = opened("bf16")
    y, row = held(narrow, random(4, 4, 12)), held(narrow, random(12), np.float32)
    with pytest.raises(ValueError, match="normalize_features: 12 channels in 16 bits; it must be a multiple of 8"):
        narrow.normalize_features(y, row, y)
