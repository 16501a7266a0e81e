"""The kernels of cuda/sliced/: the sort against NumPy's stable one byte by byte, the rest against the reference in
float64; in the emulator, on its checking build, and on a GPU where there is one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import random, rows_to_sort
from harness.devices import empty, held
from nstgpu.kernels.cuda import grids
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.sliced import launch as sliced
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.random.directions import directions
from nstgpu.kernels.reference import Reference

Runtimes = Callable[..., Runtime]
reference = Reference()


# ---- the sort -------------------------------------------------------------------------------------------------------
def check_sort(device: CudaDevice, values: Any, with_order: bool = True, at_a_time: int = 1) -> None:
    count, length = values.shape
    scratch = device.allocate(device.sort_scratch_bytes(at_a_time, length))
    rows, order = held(device, values), empty(device, (count, length), np.int32) if with_order else None
    device.sort_rows(rows, order, scratch=scratch)
    expected = np.argsort(values, axis=1, kind="stable")
    if order is not None:
        np.testing.assert_array_equal(device.download(order), expected)
    found = device.download(rows)
    np.testing.assert_array_equal(found, np.take_along_axis(values, expected, axis=1))
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 255, 257, 1000, 4095, 4096, 4097, 8192, 9001])
def test_sort(device: CudaDevice, length: int) -> None:
    check_sort(device, rows_to_sort(6, length, seed=length))


def test_sort_of_a_long_row(device: CudaDevice) -> None:
    check_sort(device, rows_to_sort(2, 70_003, seed=70_003))


@pytest.mark.parametrize("length", [700, 5000])
def test_sort_of_values_alone(device: CudaDevice, length: int) -> None:
    check_sort(device, rows_to_sort(3, length, seed=length), with_order=False)


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 9])
def test_rows_are_sorted_as_many_at_a_time_as_the_scratch_has_room_for(device: CudaDevice, at_a_time: int) -> None:
    names: list[str] = []
    device.on_launch = lambda launch: names.append(launch.kernel)
    check_sort(device, rows_to_sort(5, 4500, seed=4500), at_a_time=at_a_time)
    device.on_launch = None
    assert names.count("scan_digits") == sliced.PASSES * -(-5 // at_a_time)


def test_a_scratch_without_room_for_a_row_is_refused(device: CudaDevice) -> None:
    need = device.sort_scratch_bytes(1, 5000)
    with pytest.raises(ValueError, match=rf"sort_rows: scratch has {need - 4} bytes of {need}"):
        device.sort_rows(empty(device, (2, 5000)), None, scratch=device.allocate(need - 4))


# ---- directions -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("seed", "turn"), [(0, 0), (2**63 + 5, 7), (2**64 - 1, -1)])
@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 3), (64, 64), (3, 513)])
def test_directions_have_the_bytes_of_the_recipe(
    device: CudaDevice, seed: int, turn: int, count: int, channels: int
) -> None:
    out = empty(device, (count, channels))
    device.random_directions(seed, held(device, np.array([turn], np.int32)), out)
    assert device.download(out).tobytes() == directions(seed, turn, count, channels).astype(np.float32).tobytes()


# ---- products and costs ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "count"), [((1, 1, 3), 1), ((7, 9, 8), 5), ((8, 8, 64), 64), ((13, 11, 70), 66), ((40, 33, 16), 9)]
)
def test_products(device: CudaDevice, shape: tuple[int, int, int], count: int) -> None:
    check_products(device, shape, count, "fp32")


@pytest.mark.parametrize("name", ["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("element", ["bf16", "fp16"])
@pytest.mark.parametrize(("shape", "count"), [((7, 9, 8), 5), ((9, 8, 72), 64)])
def test_products_in_16_bits(
    runtime_called: Runtimes, name: str, element: str, shape: tuple[int, int, int], count: int
) -> None:
    runtime = runtime_called(name)  # skips what is not here
    runtime = CudaRuntime(precision=element) if name == "cuda" else EmulatorRuntime(element)
    check_products(CudaDevice(runtime, element), shape, count, element)


def check_products(device: CudaDevice, shape: tuple[int, int, int], count: int, element: str) -> None:
    """Against float64 of what is held; what is stored in 16 bits is rounded once more."""
    height, width, channels = shape
    features, along = random(*shape), random(count, channels, seed=1) / np.float32(64)  # or fp16's scale is too much
    residual, before = random(count, height * width, seed=2), random(*shape, seed=3) / np.float32(64)
    if element != "fp32":
        features, before = (widened(rounded(values, element), element) for values in (features, before))
    kept = np.dtype(device.activation_dtype)
    x, out, fresh = (empty(device, shape, kept) for _ in range(3))
    device.upload(features, x)
    device.upload(before * np.float32(device.loss_scale), out)
    d, r, projected = held(device, along), held(device, residual), empty(device, (count, height * width))
    device.project(x, d, projected)
    device.sliced_gradient(r, d, out=out, accumulate=True)
    device.sliced_gradient(r, d, out=fresh, accumulate=False)

    exact = along.astype(np.float64) @ features.reshape(-1, channels).T.astype(np.float64)
    np.testing.assert_allclose(device.download(projected), exact, atol=1e-6 * channels)
    product = (residual.astype(np.float64).T @ along.astype(np.float64)).reshape(shape)
    off = {"fp32": 1e-6, "bf16": 2.0**-8, "fp16": 2.0**-11}[element]
    for found, expected in ((out, before + product), (fresh, product)):
        np.testing.assert_allclose(device.download(found) / device.loss_scale, expected, rtol=off, atol=1e-6 * count)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("count", "shape", "most"),
    [(1, (1, 1), 1), (1, (1, 1), 7), (3, (7, 9), 63), (3, (7, 9), 1), (5, (9, 40), 1000), (64, (90, 70), 2500),
     (200, (30, 41), 1231)],
)  # fmt: skip
def test_cost(device: CudaDevice, count: int, shape: tuple[int, int], most: int, weighted: bool) -> None:
    check_cost(device, count, shape, most, weighted)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_the_cost_of_rows_that_blocks_take_in_turns(
    device: CudaDevice, at_a_time: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliced, "ROWS_BYTES", at_a_time * 4 * 360)
    check_cost(device, 5, (9, 40), 500, weighted)


def check_cost(device: CudaDevice, count: int, shape: tuple[int, int], most: int, weighted: bool) -> None:
    length = shape[0] * shape[1]
    device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
    values, target, before = random(count, length), np.sort(random(count, most, seed=1)), random(count, length, seed=2)
    order = np.argsort(values, axis=1, kind="stable").astype(np.int32)
    values.sort(axis=1)
    weights = np.maximum(random(*shape, seed=4), 0) + np.float32(0.1) * (length < 3) if weighted else None
    if weights is not None:
        weights /= weights.mean()
    for accumulate in (False, True):
        costs, residual = held(device, np.zeros(3, np.float32)), held(device, before)
        device.sliced_cost(held(device, values), held(device, order), held(device, target), 0.7, cost=costs[1:2],
                           residual=residual, weights=None if weights is None else held(device, weights),
                           accumulate=accumulate)  # fmt: skip
        cost64, residual64 = np.empty(1), before.astype(np.float64)
        reference.sliced_cost(values.astype(np.float64), order, target.astype(np.float64), 0.7, cost=cost64,
                              residual=residual64, weights=weights, accumulate=accumulate)  # fmt: skip
        # A rank is off by some eps of 1 where it is a sum of weights; the target may be steep there.
        steepest = float(np.max(np.diff(target), initial=0)) * most
        slack = 3e-6 * max(1, steepest * float(1 if weights is None else weights.max())) if weighted else 3e-6
        np.testing.assert_allclose(device.download(costs), [0, *cost64, 0], rtol=1e-5)
        np.testing.assert_allclose(device.download(residual), residual64, atol=slack)


def test_more_directions_than_partial_sums_allow_are_refused(device: CudaDevice) -> None:
    device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
    few, order = empty(device, (257, 2)), empty(device, (257, 2), np.int32)
    with pytest.raises(ValueError, match="sliced_cost: 257 directions; it must be 256 at most"):
        device.sliced_cost(few, order, few, 1.0, cost=empty(device, (1,)), residual=empty(device, (257, 2)))


# ---- all of it ------------------------------------------------------------------------------------------------------
def test_the_checking_build_finds_nothing(checked: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """No race, nothing out of bounds, and nothing used that nobody wrote."""
    names = set()
    checked.on_launch = lambda launch: names.add(launch.kernel)
    for length in (40, 4500):
        check_sort(checked, rows_to_sort(3, length, seed=length), at_a_time=2)
    check_products(checked, (7, 9, 10), 5, "fp32")
    for weighted in (False, True):
        check_cost(checked, 3, (9, 40), 500, weighted)
        monkeypatch.setattr(sliced, "ROWS_BYTES", 4 * 360)
        check_cost(checked, 3, (9, 40), 500, weighted)
    drawn = empty(checked, (4, 20))
    checked.random_directions(1, held(checked, np.zeros(1, np.int32)), drawn)
    checked.on_launch = None
    assert names == {"sort_rows_in_block", "count_digits", "scan_digits", "scatter_digits", "project_fp32",
                     "sliced_gradient_fp32", "sliced_cost", "sliced_cost_weighted", "sliced_weight_sums",
                     "random_directions"}  # fmt: skip


def test_the_order_of_blocks_and_lanes_changes_no_byte(runtime_called: Runtimes) -> None:
    found = set()
    for seed in (0, 1, 2):
        device = CudaDevice(runtime_called("emulator", seed=seed))
        device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
        features, drawn = held(device, random(50, 90, 12)), empty(device, (7, 12))
        values, order, residual = (empty(device, (7, 4500), kind) for kind in (np.float32, np.int32, np.float32))
        cost, out = empty(device, (1,)), empty(device, (50, 90, 12))
        weights = held(device, np.full((50, 90), 1, np.float32))
        device.random_directions(1, held(device, np.zeros(1, np.int32)), drawn)
        device.project(features, drawn, values)
        device.sort_rows(values, order, scratch=device.allocate(device.sort_scratch_bytes(7, 4500)))
        device.sliced_cost(values, order, held(device, np.sort(random(7, 99))), 1.0, cost=cost, residual=residual,
                           weights=weights)  # fmt: skip
        device.sliced_gradient(residual, drawn, out=out, accumulate=False)
        found.add((device.download(cost).tobytes(), device.download(out).tobytes()))
    assert len(found) == 1
