"""The reference against what it claims: brute force where that is possible, central differences for every gradient."""

import itertools
from typing import Any

import numpy as np
import pytest

from harness.arrays import mean_one, random64
from nstgpu.kernels.device import W2_SCRATCH, Pooling
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference, lanczos_matrix

device = Reference()
SHAPE = (7, 10, 3)


def forward(x: Any, kernel: Any, bias: Any, pooling: Pooling = "max") -> dict[str, Any]:
    height, width = x.shape[:2]
    channels = kernel.shape[3]
    out: dict[str, Any] = {
        "out": np.empty((height, width, channels)),
        "relu_mask": np.empty((height, width, channels), bool),
        "pooled": np.empty((height // 2, width // 2, channels)),
        "pool_argmax": np.empty((height // 2, width // 2, channels), np.uint8) if pooling == "max" else None,
    }
    device.conv3x3_relu(x, device.pack_filters(kernel, bias), pooling=pooling, **out)
    return out


def test_convolution_is_the_sum_over_its_neighbourhood() -> None:
    x, kernel, bias = random64(*SHAPE), random64(3, 3, 3, 4, seed=1), random64(4, seed=2)
    expected = np.zeros((*SHAPE[:2], 4)) + bias
    for i, j, r, s in itertools.product(range(SHAPE[0]), range(SHAPE[1]), range(3), range(3)):
        if 0 <= i + r - 1 < SHAPE[0] and 0 <= j + s - 1 < SHAPE[1]:
            expected[i, j] += x[i + r - 1, j + s - 1] @ kernel[r, s]
    result = forward(x, kernel, bias)
    np.testing.assert_allclose(result["out"], np.maximum(expected, 0), atol=1e-12)
    np.testing.assert_array_equal(result["relu_mask"], result["out"] > 0)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_pool_takes_four_pixels_and_leaves_out_the_odd_row(pooling: Pooling) -> None:
    result = forward(random64(*SHAPE), random64(3, 3, 3, 4, seed=1), random64(4, seed=2), pooling)
    y = result["out"]
    for i, j, k in itertools.product(range(3), range(5), range(4)):
        square = y[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, k].ravel()
        assert result["pooled"][i, j, k] == pytest.approx(square.max() if pooling == "max" else square.mean())
        if pooling == "max":
            assert result["pool_argmax"][i, j, k] == list(square).index(square.max())


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_layer_gradient_against_central_differences(pooling: Pooling) -> None:
    x, kernel, bias = random64(*SHAPE), random64(3, 3, 3, 4, seed=1), random64(4, seed=2)
    filters = device.pack_filters(kernel, bias)
    direction, probe = random64(*SHAPE, seed=3), random64(3, 5, 4, seed=4)

    def cost(x: Any) -> float:
        return float(np.sum(forward(x, kernel, bias, pooling)["pooled"] * probe))

    result = forward(x, kernel, bias, pooling)
    dz, dx = np.full((*SHAPE[:2], 4), np.nan), np.full(SHAPE, np.nan)
    device.pool_input_gradient(
        probe,
        pooling=pooling,
        pool_argmax=result["pool_argmax"],
        out=dz,
        relu_mask=result["relu_mask"],
        accumulate=False,
    )
    device.conv3x3_input_gradient(dz, filters, out=dx, relu_mask=None, accumulate=False)
    step = 1e-6
    numeric = (cost(x + step * direction) - cost(x - step * direction)) / (2 * step)
    assert np.sum(dx * direction) == pytest.approx(numeric, rel=1e-7)


def test_gradients_accumulate_and_are_masked() -> None:
    filters = device.pack_filters(random64(3, 3, 3, 4), random64(4))
    gradient, before = random64(7, 10, 4, seed=1), random64(*SHAPE, seed=2)
    relu_mask = random64(*SHAPE, seed=3) > 0
    alone, added = np.empty(SHAPE), before.copy()
    device.conv3x3_input_gradient(gradient, filters, out=alone, relu_mask=None, accumulate=False)
    device.conv3x3_input_gradient(gradient, filters, out=added, relu_mask=relu_mask, accumulate=True)
    np.testing.assert_allclose(added, (alone + before) * relu_mask)


def test_style_cost_is_the_paper_formula_and_its_gradient_is_right() -> None:
    features, target = random64(6, 5, 4), random64(4, 4, seed=1)
    pixels = features.reshape(-1, 4)
    size = len(pixels)

    def cost(features: Any) -> tuple[float, Any]:
        gram, gram_error, value = np.empty((4, 4)), np.empty((4, 4)), np.empty(1)
        device.gram(features, gram)
        device.style_cost(gram, target, 1 / (4**2 * size), cost=value, gram_error=gram_error)
        return float(value[0]), gram_error

    value, gram_error = cost(features)
    # 1 / (2 nH nW nC)^2 sum (Gram(S) - Gram(G))^2 with the Grams not divided by anything
    assert value == pytest.approx(np.sum((pixels.T @ pixels - size * target) ** 2) / (2 * size * 4) ** 2)
    target = target + target.T  # a Gram is symmetric, and style_gradient relies on it
    value, gram_error = cost(features)
    gradient, direction, step = np.empty_like(features), random64(6, 5, 4, seed=2), 1e-6
    device.style_gradient(features, gram_error, out=gradient, accumulate=False)
    numeric = (cost(features + step * direction)[0] - cost(features - step * direction)[0]) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(numeric, rel=1e-7)


def moments(features: Any, weights: Any = None) -> tuple[Any, Any]:
    channels = features.shape[2]
    gram, mean = np.full((channels, channels), np.nan), np.full(channels, np.nan)
    device.gram(features, gram, weights=weights)
    device.mean(features, mean, weights=weights)
    return gram, mean


def test_weights_of_a_region_are_the_moments_of_its_pixels() -> None:
    features = random64(6, 5, 4)
    region = random64(6, 5, seed=1) > 0
    gram, mean = moments(features, region / region.mean())
    inside = features[region]
    np.testing.assert_allclose(gram, inside.T @ inside / len(inside))
    np.testing.assert_allclose(mean, inside.mean(axis=0))


RIDGE = 0.03
SCRATCH = np.full((W2_SCRATCH, 4, 4), np.nan)


@pytest.mark.parametrize("weights", [None, mean_one(6, 5, dtype=np.float64)], ids=["all alike", "weights"])
@pytest.mark.parametrize("statistics", ["gram", "moments", "w2"])
def test_every_style_cost_has_the_gradient_that_its_difference_and_shift_make(statistics: str, weights: Any) -> None:
    """Of two targets at once, the second accumulated."""
    features, direction, step = random64(6, 5, 4), random64(6, 5, 4, seed=2), 1e-6
    targets = [moments(random64(7, 4, 4, seed=seed) + 0.5) for seed in (3, 4)]
    shares = (0.7, 1.9)

    def cost(features: Any) -> tuple[float, Any, Any]:
        gram, mean = moments(features, weights)
        gram_error = np.full((4, 4), np.nan)
        mean_error: Any = None if statistics == "gram" else np.full(4, np.nan)
        total, value = 0.0, np.empty(1)
        for number, ((target, target_mean), share) in enumerate(zip(targets, shares, strict=True)):
            arguments: dict[str, Any] = {"cost": value, "gram_error": gram_error, "accumulate": number > 0}
            linear, squared = 2 * share / (4 * 30), share / (4**2 * 30)
            if statistics == "gram":
                device.style_cost(gram, target, squared, **arguments)
            elif statistics == "moments":
                device.moments_cost(gram, mean, target, target_mean, squared, mean_error=mean_error, **arguments)
            else:
                root = np.empty((4, 4))
                device.w2_root(target, target_mean, RIDGE, root, scratch=SCRATCH)
                device.w2_cost(
                    gram, mean, root, target_mean, RIDGE, linear, mean_error=mean_error, scratch=SCRATCH, **arguments
                )
            total += share * float(value[0])
        return total, gram_error, mean_error

    _, gram_error, mean_error = cost(features)
    gradient = random64(6, 5, 4, seed=5)
    before = gradient.copy()
    device.style_gradient(features, gram_error, out=gradient, accumulate=True, mean_error=mean_error, weights=weights)
    numeric = (cost(features + step * direction)[0] - cost(features - step * direction)[0]) / (2 * step)
    assert np.sum((gradient - before) * direction) == pytest.approx(numeric, rel=1e-7)


def test_moments_cost_parts_covariances_from_means() -> None:
    features, target = random64(6, 5, 4), random64(7, 4, 4, seed=1)
    (gram, mean), (target_gram, target_mean) = moments(features), moments(target)
    cost, gram_error, mean_error = np.empty(1), np.empty((4, 4)), np.empty(4)
    outputs: dict[str, Any] = {"cost": cost, "gram_error": gram_error, "mean_error": mean_error}
    device.moments_cost(gram, mean, target_gram, target_mean, 1.0, **outputs)
    covariances = [np.cov(x.reshape(-1, 4).T, bias=True) for x in (features, target)]
    outers = [np.outer(m, m) for m in (mean, target_mean)]
    expected = np.sum((covariances[0] - covariances[1]) ** 2) + np.sum((outers[0] - outers[1]) ** 2)
    assert cost[0] == pytest.approx(expected / (4 * 4**2))
    np.testing.assert_allclose(gram_error, covariances[0] - covariances[1], atol=1e-12)
    device.moments_cost(gram, mean, gram, mean, 1.0, **outputs)
    assert cost[0] == pytest.approx(0, abs=1e-28)


def test_w2_is_the_distance_of_normal_distributions() -> None:
    features, target = random64(6, 5, 4), random64(7, 4, 4, seed=1)
    (gram, mean), (target_gram, target_mean) = moments(features), moments(target)
    root, cost, gram_error, mean_error = np.empty((4, 4)), np.empty(1), np.empty((4, 4)), np.empty(4)
    device.w2_root(target_gram, target_mean, RIDGE, root, scratch=SCRATCH)
    covariance, target_covariance = (
        np.cov(x.reshape(-1, 4).T, bias=True) + RIDGE * np.eye(4) for x in (features, target)
    )
    np.testing.assert_allclose(root @ root, target_covariance, atol=1e-12)
    outputs: dict[str, Any] = {"cost": cost, "gram_error": gram_error, "mean_error": mean_error, "scratch": SCRATCH}
    device.w2_cost(gram, mean, root, target_mean, RIDGE, 2.0, **outputs)
    # The trace of a root of S T is the sum of the roots of its eigenvalues, with no root of a matrix in sight.
    roots = np.sqrt(np.linalg.eigvals(covariance @ target_covariance).real)
    traces = np.trace(covariance) + np.trace(target_covariance) - 2 * roots.sum()
    assert cost[0] == pytest.approx((np.sum((mean - target_mean) ** 2) + traces) / 4)
    transport = np.eye(4) - gram_error / 2  # the map that takes one covariance to the other
    np.testing.assert_allclose(transport @ covariance @ transport, target_covariance, atol=1e-10)
    np.testing.assert_allclose(mean_error, 2 * (mean - target_mean) - gram_error @ mean)
    device.w2_root(gram, mean, RIDGE, root, scratch=SCRATCH)
    device.w2_cost(gram, mean, root, mean, RIDGE, 1.0, **outputs)
    assert cost[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("weights", [None, mean_one(*SHAPE[:2], dtype=np.float64)], ids=["all alike", "weights"])
def test_content_and_tv_gradients_against_central_differences(weights: Any) -> None:
    image, target, direction, step = random64(*SHAPE), random64(*SHAPE, seed=1), random64(*SHAPE, seed=2), 1e-6

    def cost(image: Any) -> tuple[float, Any]:
        content, tv, gradient = np.empty(1), np.empty(1), np.empty(SHAPE)
        device.content_cost(image, target, 0.3, cost=content, weights=weights)
        device.content_gradient(image, target, 0.3, out=gradient, accumulate=False, weights=weights)
        device.tv_cost(image, 0.7, cost=tv, gradient=gradient)
        return float(content[0] + 0.7 * tv[0]), gradient

    numeric = (cost(image + step * direction)[0] - cost(image - step * direction)[0]) / (2 * step)
    assert np.sum(cost(image)[1] * direction) == pytest.approx(numeric, rel=1e-8)


def test_tv_is_the_mean_of_squared_differences() -> None:
    image, value = np.zeros((2, 3, 3)), np.empty(1)
    image[:, 2] = 1.0  # one of two horizontal steps is 1, no vertical one
    device.tv_cost(image, 1.0, cost=value, gradient=np.zeros_like(image))
    assert value[0] == pytest.approx(0.5)


def test_preprocessing_and_its_gradient_are_transposes() -> None:
    image, gradient = random64(*SHAPE), random64(*SHAPE, seed=1)
    x, dimage = np.empty(SHAPE), np.empty(SHAPE)
    device.preprocess(image, (2, 1, 0), (255.0, 2.0, 3.0), (-1.0, -2.0, -3.0), x)
    np.testing.assert_allclose(x[..., 0], image[..., 2] * 255 - 1)
    device.preprocess_gradient(gradient, (2, 1, 0), (255.0, 2.0, 3.0), dimage)
    device.preprocess(image, (2, 1, 0), (255.0, 2.0, 3.0), (0.0, 0.0, 0.0), x)
    assert np.sum(x * gradient) == pytest.approx(np.sum(image * dimage))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 7)])
def test_extending_and_its_gradient_are_transposes(size: tuple[int, int]) -> None:
    larger = (size[0] + 6, size[1] + 6, 3)
    image, gradient, extended, out = (
        random64(*size, 3),
        random64(*larger, seed=1),
        np.empty(larger),
        np.empty((*size, 3)),
    )
    device.pad_edge(image, extended)
    np.testing.assert_array_equal(extended[3:-3, 3:-3], image)
    np.testing.assert_array_equal(extended[:3, :3], np.broadcast_to(image[0, 0], (3, 3, 3)))
    device.pad_edge_gradient(gradient, out)
    assert np.sum(extended * gradient) == pytest.approx(np.sum(image * out))


def test_adam_follows_its_formula_for_three_steps() -> None:
    image, step = np.full((1, 1, 3), 0.5), np.zeros(1, np.int32)
    first, second = np.zeros_like(image), np.zeros_like(image)
    x, m, v = 0.5, 0.0, 0.0
    for t, g in enumerate((3.0, -1.0, 2.0), start=1):
        gradient = np.full_like(image, g)
        rates = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}
        device.adam_step(image, gradient, first, second, step, **rates)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        x -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        np.testing.assert_allclose(image, x, rtol=1e-12)
    assert step[0] == 3


def test_steps_clamp_pixels() -> None:
    image = np.array([[[0.1, 0.5, 0.9]]])
    device.descent_step(image, np.array([[[1.0, 0.1, -1.0]]]), learning_rate=0.5)
    np.testing.assert_allclose(image, [[[0.0, 0.45, 1.0]]])


def test_a_step_within_bounds_and_the_gradient_that_is_free() -> None:
    image, out = np.array([[[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]]), np.empty((1, 2, 3))
    direction = np.array([[[-1.0, -1.0, -1.0], [2.0, 2.0, 2.0]]])
    device.clamped_step(image, direction, 0.25, out)
    np.testing.assert_array_equal(out, [[[0.0, 0.25, 0.75], [0.5, 1.0, 1.0]]])
    device.project_gradient(image, direction, out)  # a step goes against the gradient
    np.testing.assert_array_equal(out, [[[-1.0, -1.0, 0.0], [0.0, 2.0, 2.0]]])
    device.weigh(out, np.array([[0.5, 2.0]]))
    np.testing.assert_array_equal(out, [[[-0.5, -0.5, 0.0], [0.0, 4.0, 4.0]]])


def test_vectors() -> None:
    vectors, values, out = random64(3, 7), random64(7, seed=1), np.empty(3)
    device.dots(vectors, values, out)
    np.testing.assert_allclose(out, [sum(a * b for a, b in zip(v, values, strict=True)) for v in vectors])
    row = np.empty(7)
    device.combine(vectors, (2.0, 0.0, -1.0), row)
    np.testing.assert_allclose(row, 2 * vectors[0] - vectors[2])
    device.blend(values, 0.25, row)
    np.testing.assert_allclose(row, 0.75 * (2 * vectors[0] - vectors[2]) + 0.25 * values)


@pytest.mark.parametrize(("before", "after"), [(7, 19), (19, 7), (5, 5), (1, 4), (640, 3)])
def test_resize_keeps_flat_images_and_the_identity(before: int, after: int) -> None:
    matrix = lanczos_matrix(before, after)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    if before == after:
        np.testing.assert_allclose(matrix, np.eye(before), atol=1e-15)


def test_resize_reproduces_a_slope() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 65)[None, :, None], (5, 65, 3))
    out = np.empty((5, 33, 3))
    device.resize(ramp, out)
    centres = (np.arange(33) + 0.5) * 65 / 33 - 0.5
    np.testing.assert_allclose(out[2, 4:-4, 0], centres[4:-4] / 64, atol=2e-3)


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(DeviceError, match="fp64 or fp32"):
        Reference("bf16")
