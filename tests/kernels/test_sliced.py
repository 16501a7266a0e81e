"""The sliced Wasserstein distance: what the reference means, and the cpu device against it; the kernels of cuda/sliced/
in the emulator, on its checking build, and on a GPU where there is one."""

from typing import Any

import numpy as np
import pytest

from harness.arrays import random, rows_to_sort
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.kernels.random.directions import directions
from nstgpu.kernels.random.philox import philox
from nstgpu.kernels.reference import Reference

reference = Reference()


def mean_one(*shape: int, seed: int = 0) -> Any:
    weights = np.maximum(np.random.default_rng(seed).random(shape) - 0.3, 0)
    return (weights / weights.mean()).astype(np.float32)


# ---- the recipe of the directions -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
         (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)  # fmt: skip
def test_philox_gives_the_known_answers(counter: Any, key: Any, expected: Any) -> None:
    """Of Random123, the library of those who made it."""
    words = philox(tuple(np.array([word], np.uint64) for word in counter), key)  # type: ignore[arg-type]
    assert tuple(int(word[0]) for word in words) == expected


def test_directions_have_length_one_and_go_everywhere() -> None:
    drawn = directions(7, 3, 4000, 8)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
    np.testing.assert_allclose(drawn.T @ drawn / 4000, np.eye(8) / 8, atol=0.01)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.02)
    assert (
        len({directions(seed, turn, 2, 3).tobytes() for seed in (0, 1, 2**32, 2**64 - 1) for turn in (0, 1, -1)}) == 12
    )
    assert np.isfinite(directions(0, 0, 3000, 1)).all()


# ---- the reference --------------------------------------------------------------------------------------------------
def pass_of(device: Any, features: Any, target: Any, along: Any, weights: Any, scale: float,
            order: Any = None) -> tuple[float, Any]:  # fmt: skip
    """Cost and gradient; with an order given, of that one."""
    kind = device.image_dtype
    count, length = len(along), features.shape[0] * features.shape[1]
    values, residual = np.empty((count, length), kind), np.empty((count, length), kind)
    device.project(features, along, values)
    if order is None:
        order = np.empty(values.shape, np.int32)
        device.sort_rows(values, order, scratch=None)
    else:
        values = np.take_along_axis(values, order, axis=1)
    cost, out = np.empty(1, kind), np.empty_like(features)
    device.sliced_cost(values, order, target, scale, cost=cost, residual=residual, weights=weights)
    device.sliced_gradient(residual, along, out=out, accumulate=False)
    return float(cost[0]), out


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("style", [30, 17, 71])
def test_gradient_against_central_differences(style: int, weighted: bool) -> None:
    features = random(5, 6, 4).astype(np.float64)
    along = directions(1, 0, 7, 4)
    target = np.sort(along @ random(style, 4, seed=1).astype(np.float64).T, axis=1)
    weights = mean_one(5, 6).astype(np.float64) if weighted else None
    order = np.empty((7, 30), np.int32)
    reference.sort_rows(along @ features.reshape(-1, 4).T, order, scratch=None)  # type: ignore[arg-type]
    _, gradient = pass_of(reference, features, target, along, weights, 2 / (30 * 7))
    for place in np.ndindex(features.shape):
        either = []
        for step in (1e-5, -1e-5):
            moved = features.copy()
            moved[place] += step
            either.append(pass_of(reference, moved, target, along, weights, 1.0, order)[0])
        assert (either[0] - either[1]) / 2e-5 == pytest.approx(gradient[place], rel=1e-6, abs=1e-9)


def test_the_distance_to_itself_is_nothing_and_to_a_shift_its_square() -> None:
    features, along = random(9, 8, 5).astype(np.float64), directions(1, 0, 6, 5)
    target = np.sort(along @ features.reshape(-1, 5).T, axis=1)
    assert pass_of(reference, features, target, along, None, 1.0)[0] == pytest.approx(0, abs=1e-25)
    shift = random(5, seed=2).astype(np.float64)
    moved, _ = pass_of(reference, features + shift, target, along, None, 1.0)
    assert moved == pytest.approx(np.mean((along @ shift) ** 2))


def test_a_weight_of_nothing_does_not_count_and_one_of_two_counts_as_two() -> None:
    """A region is as if the rest were not there, against a target of another size."""
    features, along = random(1, 12, 3).astype(np.float64), directions(1, 0, 6, 3)
    target = np.sort(along @ random(31, 3, seed=1).astype(np.float64).T, axis=1)
    weights = np.array([[0, 2] * 6], np.float64)
    whole, gradient = pass_of(reference, features, target, along, weights, 2 / (12 * 6))
    part, gradient_of_part = pass_of(reference, features[:, 1::2].copy(), target, along, None, 2 / (6 * 6))
    assert whole == pytest.approx(part)
    np.testing.assert_allclose(gradient[:, 1::2], gradient_of_part)
    assert not gradient[:, ::2].any()


# ---- the cpu device -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 31, 1000])
def test_cpu_sorts_as_the_reference(length: int, threads: int) -> None:
    values = rows_to_sort(12, length)
    expected, expected_order = values.copy(), np.empty(values.shape, np.int32)
    reference.sort_rows(expected, expected_order, scratch=None)  # type: ignore[arg-type]
    order, alone = np.empty(values.shape, np.int32), values.copy()
    device = Cpu(threads=threads)
    device.sort_rows(values, order, scratch=None)  # type: ignore[arg-type]
    device.sort_rows(alone, None, scratch=None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(order, expected_order)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(alone, expected)
    assert not np.signbit(values[values == 0]).any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "count", "style"), [((1, 1, 3), 1, 1), ((7, 9, 8), 5, 63), ((40, 33, 16), 9, 500)])
def test_cpu_cost_and_gradient(shape: tuple[int, int, int], count: int, style: int, weighted: bool) -> None:
    check_cost_and_gradient(Cpu(threads=2), shape, count, style, weighted)


def check_cost_and_gradient(device: Cpu, shape: tuple[int, int, int], count: int, style: int, weighted: bool) -> None:
    """Against float64, by the order that the device found; accumulating."""
    features, along, target = random(*shape), np.empty((count, shape[2]), np.float32), random(count, style, seed=1)
    device.random_directions(3, np.array([5], np.int32), along)
    assert along.tobytes() == directions(3, 5, count, shape[2]).astype(np.float32).tobytes()
    target.sort()
    weights = mean_one(*shape[:2]) if weighted else None
    length = shape[0] * shape[1]
    values, order, residual = random(count, length), np.empty((count, length), np.int32), random(count, length, seed=2)
    cost, out, before = np.empty(1, np.float32), random(*shape, seed=3), random(count, length, seed=2)
    device.project(features, along, values)
    np.testing.assert_allclose(values, along.astype(np.float64) @ features.reshape(-1, shape[2]).T, atol=1e-5)
    device.sort_rows(values, order, scratch=None)  # type: ignore[arg-type]
    device.sliced_cost(values, order, target, 0.5, cost=cost, residual=residual, weights=weights, accumulate=True)
    device.sliced_gradient(residual, along, out=out, accumulate=True)

    residual64, cost64 = before.astype(np.float64), np.empty(1)
    out64 = random(*shape, seed=3).astype(np.float64)
    reference.sliced_cost(values.astype(np.float64), order, target.astype(np.float64), 0.5, cost=cost64,
                          residual=residual64, weights=weights, accumulate=True)  # fmt: skip
    reference.sliced_gradient(residual64, along.astype(np.float64), out=out64, accumulate=True)
    np.testing.assert_allclose(cost, cost64, rtol=2e-6)
    np.testing.assert_allclose(residual, residual64, atol=1e-5)
    np.testing.assert_allclose(out, out64, atol=2e-5)
