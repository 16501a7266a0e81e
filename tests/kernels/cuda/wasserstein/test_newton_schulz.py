"""The kernels of wasserstein/newton_schulz.cu against the reference's eigenvectors in float64: on the emulator, on its
checking build, and on a GPU where there is one; and the iteration, which is plain arithmetic."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import random
from harness.devices import empty, held
from nstgpu.kernels.cuda import grids
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.wasserstein import launch as wasserstein
from nstgpu.kernels.device import W2_SCRATCH
from nstgpu.kernels.reference import Reference

EPSILON = float(np.finfo(np.float32).eps)
ROUNDING = 1e-5
"""Of the gradient and the cost, relative: what a hundred products in float32 make of it; 2e-6 to 8e-6 as measured."""

Runtimes = Callable[..., Runtime]
reference = Reference()


def activations(pixels: int, channels: int, seed: int) -> Any:
    """After a ReLU, a few directions strong and most of them weak; some channels dead."""
    rank = max(2, channels // 6)
    mixing = random(rank, channels, seed=100) / np.arange(1, rank + 1)[:, None] ** 0.7
    features = random(pixels, rank, seed=seed) @ mixing + 0.5 * random(channels, seed=200 + seed)
    features[:, 1::7] = 0
    return np.maximum(features, 0).astype(np.float32)


def moments(features: Any) -> tuple[Any, Any]:
    exact = features.astype(np.float64)
    return (exact.T @ exact / len(exact)).astype(np.float32), exact.mean(axis=0).astype(np.float32)


def off(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def root_of(device: CudaDevice, gram: Any, mean: Any, ridge: float) -> Any:
    device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
    scratch, root = empty(device, (W2_SCRATCH, *gram.shape)), empty(device, (*gram.shape,))
    device.w2_root(held(device, gram), held(device, mean), ridge, root, scratch=scratch)
    return device.download(root)


def check_w2(device: CudaDevice, channels: int, accumulate: bool, ridge_share: float = 1e-3) -> None:
    features = activations(3 * channels, channels, 1)
    gram, mean = moments(features)
    target, target_mean = moments(activations(2 * channels, channels, 2))
    ridge = ridge_share * float(np.trace(target) - target_mean @ target_mean) / channels
    root, root64 = root_of(device, target, target_mean, ridge), np.empty((channels, channels))
    exact = [values.astype(np.float64) for values in (gram, mean, target, target_mean)]
    scratch64 = np.empty((W2_SCRATCH, channels, channels))
    reference.w2_root(exact[2], exact[3], ridge, root64, scratch=scratch64)
    print(f"root: off by {off(root, root64):.1e}")
    assert off(root, root64) <= ROUNDING

    before = random(channels, channels, seed=3), random(channels, seed=4)
    gram_error, mean_error = (held(device, values) for values in before)
    if not accumulate:
        gram_error, mean_error = empty(device, (channels, channels)), empty(device, (channels,))
    costs = held(device, np.zeros(3, np.float32))
    device.w2_cost(
        held(device, gram), held(device, mean), held(device, root), held(device, target_mean), ridge, 0.7,
        cost=costs[1:2], gram_error=gram_error, mean_error=mean_error, accumulate=accumulate,
        scratch=empty(device, (W2_SCRATCH, channels, channels)),
    )  # fmt: skip
    gram_error64, mean_error64 = (values.astype(np.float64) for values in before)
    cost64 = np.empty(1)
    reference.w2_cost(
        exact[0], exact[1], root64, exact[3], ridge, 0.7,
        cost=cost64, gram_error=gram_error64, mean_error=mean_error64, accumulate=accumulate, scratch=scratch64,
    )  # fmt: skip
    np.testing.assert_allclose(device.download(costs), [0, *cost64, 0], rtol=ROUNDING)
    gradients = [features @ d + s for d, s in ((device.download(gram_error), device.download(mean_error)),
                                               (gram_error64, mean_error64))]  # fmt: skip
    print(f"gradient: off by {off(*gradients):.1e}")
    assert off(*gradients) <= ROUNDING


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("channels", [3, 16, 33, 64, 100])
def test_w2(device: CudaDevice, channels: int, accumulate: bool) -> None:
    check_w2(device, channels, accumulate)


def test_a_tenth_of_the_ridge_will_do(device: CudaDevice) -> None:
    check_w2(device, 64, accumulate=False, ridge_share=1e-4)


def test_the_distance_to_itself_is_nothing(device: CudaDevice) -> None:
    """A difference of traces would leave some eps of the traces; the form that is summed does not."""
    gram, mean = moments(activations(200, 48, 1))
    ridge = 1e-3 * float(np.trace(gram)) / 48
    cost, gram_error, mean_error = empty(device, (1,)), empty(device, (48, 48)), empty(device, (48,))
    root = held(device, root_of(device, gram, mean, ridge))
    device.w2_cost(held(device, gram), held(device, mean), root, held(device, mean), ridge, 1.0, cost=cost,
                   gram_error=gram_error, mean_error=mean_error,
                   scratch=empty(device, (W2_SCRATCH, 48, 48)))  # fmt: skip
    variance = float(np.trace(gram) - mean @ mean) / 48
    assert 0 <= device.download(cost)[0] <= 1e-9 * variance
    assert np.linalg.norm(device.download(gram_error)) <= 1e-3


# ---- products -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["emulator", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("channels", [1, 3, 8, 31, 36, 64, 100, 129])
def test_square_product(runtime_called: Runtimes, name: str, channels: int) -> None:
    runtime = runtime_called(name)
    device = CudaDevice(runtime)
    matrices = [random(channels, channels, seed=seed) for seed in range(4)]
    left, right, left_1, right_1 = (held(device, matrix) for matrix in matrices)
    outs = [empty(device, (channels, channels)) for _ in range(2)]
    first, second = (left, right, right_1, outs[0]), (left_1, right_1, None, outs[1])
    runtime.launch(wasserstein._product(first, second, factor=-0.5, share=0.7, diagonal=3.0))
    exact = [matrix.astype(np.float64) for matrix in matrices]
    expected = -0.5 * exact[0] @ exact[1] + 0.7 * exact[3], -0.5 * exact[2] @ exact[3]
    for out, result in zip(outs, expected, strict=True):
        assert off(device.download(out), result + 3.0 * np.eye(channels)) <= 0.5 * EPSILON * np.sqrt(channels + 3)


@pytest.mark.parametrize("channels", [7, 36])
def test_the_checking_build_finds_nothing(checked: CudaDevice, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two rounds, which is all kinds of launches: no race, and nothing used that nobody wrote."""
    monkeypatch.setattr(wasserstein, "ROUNDS", wasserstein.ROUNDS[-3:])
    names = set()
    checked.on_launch = lambda launch: names.add(launch.kernel)
    gram, mean = moments(activations(90, channels, 1))
    target, target_mean = moments(activations(90, channels, 2))
    ridge = float(np.trace(target)) / channels  # so large that three rounds are enough
    root = root_of(checked, target, target_mean, ridge)
    cost, gram_error, mean_error = (
        empty(checked, (1,)),
        empty(checked, (channels, channels)),
        empty(checked, (channels,)),
    )
    checked.w2_cost(held(checked, gram), held(checked, mean), held(checked, root), held(checked, target_mean), ridge,
                    1.0, cost=cost, gram_error=gram_error, mean_error=mean_error,
                    scratch=empty(checked, (W2_SCRATCH, channels, channels)))  # fmt: skip
    checked.on_launch = None
    assert np.isfinite(checked.download(gram_error)).all()
    product = "square_product_any" if channels % 4 else "square_product"
    assert names == {product, "w2_covariance", "w2_normalise", "w2_cost"}


def test_the_order_of_blocks_and_lanes_changes_no_byte(runtime_called: Runtimes) -> None:
    gram, mean = moments(activations(200, 68, 1))
    roots = [
        root_of(CudaDevice(runtime_called("emulator", seed=seed)), gram, mean, 0.01).tobytes() for seed in (0, 0, 1, 2)
    ]
    assert len(set(roots)) == 1


def test_two_products_are_one_launch_and_every_matrix_is_of_the_scratch(device: CudaDevice) -> None:
    launches: list[Launch] = []
    device.on_launch = launches.append
    gram, mean = moments(activations(50, 16, 1))
    root_of(device, gram, mean, 0.01)
    device.on_launch = None
    products = [launch for launch in launches if launch.kernel == "square_product"]
    assert len(products) == 2 * len(wasserstein.ROUNDS)
    assert sum(launch.grid[2] for launch in products) == 3 * len(wasserstein.ROUNDS) - 1


# ---- the iteration --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("smallest", [0.9, 1e-2, 1e-4, wasserstein.SMALLEST])
def test_every_value_of_the_interval_arrives_at_one(smallest: float) -> None:
    """A little beyond it too, since rounding may make the largest eigenvalue more than the trace."""
    x = np.concatenate([np.geomspace(smallest, 1, 2000), [1 + 1e-3, 1 + 1e-5]])
    rounds = wasserstein.sign_rounds(smallest)
    for a, b in rounds:
        x = x * (a - b * x**2)
        assert (x > 0).all()
    np.testing.assert_allclose(x, 1, atol=2e-7)


def test_the_rounds_are_half_as_many_as_of_the_plain_iteration() -> None:
    x, plain = wasserstein.SMALLEST, 0
    while 1 - x > 1e-7:
        x, plain = x * (1.5 - 0.5 * x**2), plain + 1
    assert plain == 38
    assert len(wasserstein.ROUNDS) == 20


def test_matrices_of_more_rows_than_partial_sums_are_refused() -> None:
    wide = grids.MOST_PARTIALS * 8
    assert grids.rows_grid(wide) == (grids.MOST_PARTIALS, 1, 1)
    with pytest.raises(ValueError, match="8193 rows need 1025 partial sums of 1024"):
        grids.rows_grid(wide + 1)
