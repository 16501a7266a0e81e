"""Every operation of the cpu device against the reference in float64."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from harness.arrays import mean_one, random, within
from nstgpu.kernels.cpu import device as cpu_module
from nstgpu.kernels.cpu import moments, sums
from nstgpu.kernels.cpu.convolution import strips
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.kernels.device import W2_SCRATCH, Pooling
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference

EPSILON = float(np.finfo(np.float32).eps)
reference = Reference()

SHAPES = [
    (16, 16, 3, 64),
    (17, 23, 64, 3),
    (33, 18, 5, 7),
    (61, 83, 16, 32),
    (16, 200, 48, 16),
    (19, 16, 130, 66),
    (2, 3, 64, 48),
]


@pytest.fixture(params=["large-items", "smallest-items"])
def items(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small test images would otherwise be a single item of work."""
    forget_cuts()
    if request.param == "smallest-items":
        for name in ("PLAIN_BYTES", "STRIP_BYTES", "ROWS_BYTES", "GROUP_BYTES"):
            monkeypatch.setattr(strips, name, 1)
        for name in ("LEAST_TILES", "FEW_TILES"):
            monkeypatch.setattr(strips, name, 1)
        monkeypatch.setattr(sums, "BLOCK_BYTES", 1)
        monkeypatch.setattr(sums, "SHARE_BYTES", 1)
        monkeypatch.setattr(moments, "GRAM_PIXELS", 20)
        monkeypatch.setattr(moments, "MEAN_PIXELS", 20)
    yield
    forget_cuts()


def forget_cuts() -> None:
    """They are remembered by shape."""
    strips.cut.cache_clear()
    strips.scratch.cache_clear()


def prepared(shape: tuple[int, int, int, int], threads: int = 3) -> Cpu:
    device = Cpu(threads=threads)
    device.bind_workspace(device.allocate(device.workspace_bytes([shape])))
    return device


def both(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A buffer for the cpu, full of NaN, and one for the reference."""
    return np.full(shape, np.nan, np.float32), np.full(shape, np.nan)


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution(shape: tuple[int, int, int, int], pooling: Pooling) -> None:
    height, width, channels_in, channels_out = shape
    device = prepared(shape)
    x, kernel, bias = (
        random(height, width, channels_in),
        random(3, 3, channels_in, channels_out, seed=1),
        random(channels_out),
    )
    full, half = (height, width, channels_out), (height // 2, width // 2, channels_out)
    results = []
    which: Any
    for which, real in ((device, np.float32), (reference, np.float64)):
        result: dict[str, Any] = {
            "out": np.full(full, np.nan, real),
            "relu_mask": np.zeros(*which.relu_mask_layout(full)),
            "pooled": np.full(half, np.nan, real),
            "pool_argmax": np.zeros(*which.pool_argmax_layout(half)) if pooling == "max" else None,
        }
        which.conv3x3_relu(x.astype(real), which.pack_filters(kernel, bias), pooling=pooling, **result)
        results.append(result)
    ours, theirs = results
    within(ours["out"], theirs["out"], 9 * channels_in)
    within(ours["pooled"], theirs["pooled"], 9 * channels_in)
    np.testing.assert_array_equal(device.unpack_relu_mask(ours["relu_mask"], channels_out), ours["out"] > 0)
    if pooling == "max":
        squares = np.stack(
            [ours["out"][r : height // 2 * 2 : 2, s : width // 2 * 2 : 2] for r in (0, 1) for s in (0, 1)]
        )
        np.testing.assert_array_equal(
            device.unpack_pool_argmax(ours["pool_argmax"], channels_out), squares.argmax(axis=0)
        )

    alone = np.full(half, np.nan, np.float32)  # the full-size output need not be kept
    filters = device.pack_filters(kernel, bias)
    device.conv3x3_relu(x, filters, out=None, relu_mask=None, pooling=pooling, pooled=alone, pool_argmax=None)
    np.testing.assert_array_equal(alone, ours["pooled"])


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient(shape: tuple[int, int, int, int], masked: bool, accumulate: bool) -> None:
    height, width, channels_in, channels_out = shape
    device = prepared(shape)
    gradient, kernel = random(height, width, channels_out), random(3, 3, channels_in, channels_out, seed=1)
    relu_mask = random(height, width, channels_in, seed=2) > 0 if masked else None
    bias = random(channels_out)
    out, expected = both((height, width, channels_in))
    if accumulate:
        out[...] = expected[...] = random(height, width, channels_in, seed=3)
    bits = None if relu_mask is None else np.packbits(relu_mask, axis=2)
    device.conv3x3_input_gradient(
        gradient, device.pack_filters(kernel, bias), out=out, relu_mask=bits, accumulate=accumulate
    )
    reference.conv3x3_input_gradient(
        gradient.astype(np.float64),
        reference.pack_filters(kernel, bias),
        out=expected,
        relu_mask=relu_mask,
        accumulate=accumulate,
    )
    within(out, expected, 9 * channels_out)


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (2, 3), (61, 83)])
def test_pool2x2(size: tuple[int, int], pooling: Pooling) -> None:
    x, half = np.round(random(*size, 5), 1), (size[0] // 2, size[1] // 2, 5)  # with some that are equal
    planes, pool_argmax = np.zeros((2, *half[:2], 1), np.uint8), np.empty(half, np.uint8)
    chosen: Any = (planes, pool_argmax) if pooling == "max" else (None, None)
    out, expected = both(half)
    Cpu().pool2x2(x, pooling=pooling, out=out, pool_argmax=chosen[0])
    reference.pool2x2(x.astype(np.float64), pooling=pooling, out=expected, pool_argmax=chosen[1])
    within(out, expected, 4)
    if pooling == "max":
        down, right = (np.unpackbits(plane, axis=2, count=5) for plane in planes)
        np.testing.assert_array_equal(2 * down + right, pool_argmax)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("channels", [5, 32, 96])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (61, 83)])
def test_pool_gradient(size: tuple[int, int], channels: int, pooling: Pooling, accumulate: bool) -> None:
    height, width = size
    which: Any
    device, half = Cpu(), (height // 2, width // 2, channels)
    gradient, relu_mask = random(*half), random(height, width, channels, seed=1) > 0
    pool_argmax = np.random.default_rng(2).integers(0, 4, half, dtype=np.uint8)
    out, expected = both((height, width, channels))
    if accumulate:
        out[...] = expected[...] = random(height, width, channels, seed=3)
    planes = np.stack([np.packbits(pool_argmax // 2, axis=2), np.packbits(pool_argmax % 2, axis=2)])
    for which, target, chosen, let in (
        (device, out, planes, np.packbits(relu_mask, axis=2)),
        (reference, expected, pool_argmax, relu_mask),
    ):
        which.pool_input_gradient(
            gradient,
            pooling=pooling,
            pool_argmax=chosen if pooling == "max" else None,
            out=target,
            relu_mask=let,
            accumulate=accumulate,
        )
    within(out, expected, 1)


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", [(16, 16, 64), (31, 17, 5), (40, 50, 33)])
def test_costs_at_a_tap(shape: tuple[int, int, int], accumulate: bool) -> None:
    height, width, channels = shape
    device = prepared((height, width, channels, channels))
    features, target = random(*shape), random(*shape, seed=1)
    gram, gram64 = both((channels, channels))
    device.gram(features, gram)
    reference.gram(features.astype(np.float64), gram64)
    within(gram, gram64, height * width)

    style = gram64.astype(np.float32)[::-1, ::-1]
    gram_error, gram_error64 = both((channels, channels))
    cost, cost64 = both((1,))
    device.style_cost(gram64.astype(np.float32), style, 0.5, cost=cost, gram_error=gram_error)
    reference.style_cost(
        gram64.astype(np.float32).astype(np.float64),
        style.astype(np.float64),
        0.5,
        cost=cost64,
        gram_error=gram_error64,
    )
    within(gram_error, gram_error64, 1)
    within(cost, cost64, channels)

    out, expected = both(shape)
    if accumulate:
        out[...] = expected[...] = random(*shape, seed=2)
    device.style_gradient(features, gram_error, out=out, accumulate=accumulate)
    reference.style_gradient(
        features.astype(np.float64), gram_error.astype(np.float64), out=expected, accumulate=accumulate
    )
    within(out, expected, channels)
    device.content_gradient(features, target, 0.3, out=out, accumulate=accumulate)
    reference.content_gradient(features, target, 0.3, out=expected, accumulate=accumulate)
    within(out, expected, channels)
    device.content_cost(features, target, 0.3, cost=cost)
    reference.content_cost(features.astype(np.float64), target.astype(np.float64), 0.3, cost=cost64)
    within(cost, cost64, height * width * channels)


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(16, 16, 64), (31, 17, 5), (40, 50, 33)])
def test_weights_and_moments_at_a_tap(shape: tuple[int, int, int], weighted: bool, accumulate: bool) -> None:
    height, width, channels = shape
    device = prepared((height, width, channels, channels))
    features, target = random(*shape) + np.float32(0.5), random(*shape, seed=1)
    weights = mean_one(height, width) if weighted else None
    features64, target64 = features.astype(np.float64), target.astype(np.float64)
    weights64 = None if weights is None else weights.astype(np.float64)

    gram, gram64 = both((channels, channels))
    mean, mean64 = both((channels,))
    device.gram(features, gram, weights=weights)
    device.mean(features, mean, weights=weights)
    reference.gram(features64, gram64, weights=weights64)
    reference.mean(features64, mean64, weights=weights64)
    within(gram, gram64, height * width)
    within(mean, mean64, height * width)

    gram_error, gram_error64 = both((channels, channels))
    mean_error, mean_error64 = both((channels,))
    cost, cost64 = both((1,))
    out, expected = both(shape)
    if accumulate:
        gram_error[...] = gram_error64[...] = random(channels, channels, seed=4)
        mean_error[...] = mean_error64[...] = random(channels, seed=5)
        out[...] = expected[...] = random(*shape, seed=6)
    style = random(3 * channels, channels, seed=2)
    style_gram, style_mean = style.T @ style / len(style), style.mean(axis=0)
    device.moments_cost(gram, mean, style_gram, style_mean, 0.5, cost=cost, gram_error=gram_error,
                        mean_error=mean_error, accumulate=accumulate)  # fmt: skip
    exact = [a.astype(np.float64) for a in (gram, mean, style_gram, style_mean)]
    reference.moments_cost(exact[0], exact[1], exact[2], exact[3], 0.5, cost=cost64, gram_error=gram_error64,
                           mean_error=mean_error64, accumulate=accumulate)  # fmt: skip
    within(gram_error, gram_error64, 4)
    within(mean_error, mean_error64, channels)
    within(cost, cost64, channels)

    device.style_gradient(features, gram_error, out=out, accumulate=accumulate, mean_error=mean_error, weights=weights)
    reference.style_gradient(features64, gram_error.astype(np.float64), out=expected, accumulate=accumulate,
                             mean_error=mean_error.astype(np.float64), weights=weights64)  # fmt: skip
    within(out, expected, channels)
    device.content_gradient(features, target, 0.3, out=out, accumulate=accumulate, weights=weights)
    reference.content_gradient(features64, target64, 0.3, out=expected, accumulate=accumulate, weights=weights64)
    within(out, expected, channels)
    device.content_cost(features, target, 0.3, cost=cost, weights=weights)
    reference.content_cost(features64, target64, 0.3, cost=cost64, weights=weights64)
    within(cost, cost64, height * width * channels)
    device.style_cost(gram, style_gram, 0.5, cost=cost, gram_error=gram_error, accumulate=accumulate)
    reference.style_cost(exact[0], exact[2], 0.5, cost=cost64, gram_error=gram_error64, accumulate=accumulate)
    within(gram_error, gram_error64, channels)
    within(cost, cost64, channels)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("channels", [3, 16, 61])
def test_w2(channels: int, accumulate: bool) -> None:
    """As close as float32 can hold it, also where most directions have nothing but the ridge."""
    device, scratch = Cpu(), np.empty((W2_SCRATCH, channels, channels), np.float32)
    covariances = [np.maximum(random(40, 3, seed=seed) @ random(3, channels, seed=2), 0) for seed in (0, 1)]
    (gram, mean), (style_gram, style_mean) = [(x.T @ x / len(x), x.mean(axis=0)) for x in covariances]
    ridge = 1e-3 * float(np.trace(style_gram)) / channels
    root, root64 = both((channels, channels))
    device.w2_root(style_gram, style_mean, ridge, root, scratch=scratch)
    exact = [a.astype(np.float64) for a in (gram, mean, style_gram, style_mean)]
    reference.w2_root(exact[2], exact[3], ridge, root64, scratch=scratch)
    within(root, root64, 1)
    gram_error, gram_error64 = both((channels, channels))
    mean_error, mean_error64 = both((channels,))
    cost, cost64 = both((1,))
    if accumulate:
        gram_error[...] = gram_error64[...] = random(channels, channels, seed=4)
        mean_error[...] = mean_error64[...] = random(channels, seed=5)
    device.w2_cost(gram, mean, root, style_mean, ridge, 0.5, cost=cost, gram_error=gram_error, mean_error=mean_error,
                   scratch=scratch, accumulate=accumulate)  # fmt: skip
    reference.w2_cost(exact[0], exact[1], root.astype(np.float64), exact[3], ridge, 0.5, cost=cost64,
                      gram_error=gram_error64, mean_error=mean_error64, scratch=scratch,
                      accumulate=accumulate)  # fmt: skip
    within(gram_error, gram_error64, 1)
    within(mean_error, mean_error64, 1)
    within(cost, cost64, 1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("height", [90, 96])  # parts that differ in length, and alike
def test_more_threads_change_no_moment(height: int, weighted: bool) -> None:
    features, weights = random(height, 70, 33), mean_one(height, 70) if weighted else None
    seen = set()
    for threads in (1, 2, 3):
        device = prepared((height, 70, 33, 33), threads)
        gram, mean = np.empty((33, 33), np.float32), np.empty(33, np.float32)
        device.gram(features, gram, weights=weights)
        device.mean(features, mean, weights=weights)
        seen.add(gram.tobytes() + mean.tobytes())
    assert len(seen) == 1


@pytest.mark.usefixtures("items")
def test_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_module, "DOT_TERMS", 100)
    device = Cpu(threads=3)
    vectors, values = random(5, 1034), random(1034, seed=1)
    products, products64 = both((5,))
    device.dots(vectors, values, products)
    reference.dots(vectors.astype(np.float64), values.astype(np.float64), products64)
    within(products, products64, 1034)
    row, row64 = both((1034,))
    coefficients = (0.5, -2.0, 0.0, 3.0, 1e-3)
    device.combine(vectors, coefficients, row)
    reference.combine(vectors.astype(np.float64), coefficients, row64)
    within(row, row64, 5)
    device.blend(values, 0.3, row)
    reference.blend(values.astype(np.float64), 0.3, row64)
    within(row, row64, 5)


@pytest.mark.usefixtures("items")
def test_steps_within_bounds() -> None:
    device, shape = Cpu(threads=3), (17, 23, 3)
    image = np.clip(random(*shape), 0, 1)  # many pixels on the bounds
    gradient, weights = random(*shape, seed=1), mean_one(17, 23)
    out, expected = both(shape)
    device.clamped_step(image, gradient, -0.3, out)
    reference.clamped_step(image.astype(np.float64), gradient.astype(np.float64), -0.3, expected)
    within(out, expected, 2)
    reference.project_gradient(image, gradient, expected)
    device.project_gradient(image, gradient, gradient)
    np.testing.assert_array_equal(gradient, expected.astype(np.float32))
    device.weigh(gradient, weights)
    reference.weigh(expected, weights.astype(np.float64))
    within(gradient, expected, 1)


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (61, 83)])
def test_pixels(size: tuple[int, int]) -> None:
    device, shape = Cpu(), (*size, 3)
    which: Any
    real: Any
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    gradient = random(*shape, seed=1)
    out, expected = both(shape)
    for which, target, real in ((device, out, np.float32), (reference, expected, np.float64)):
        which.preprocess(image.astype(real), (2, 1, 0), (255.0, 250.0, 245.0), (-100.0, -110.0, -120.0), target)
    within(out, expected, 1)
    for which, target, real in ((device, out, np.float32), (reference, expected, np.float64)):
        which.preprocess_gradient(gradient.astype(real), (2, 1, 0), (255.0, 250.0, 245.0), target)
    within(out, expected, 1)

    larger, larger64 = both((size[0] + 8, size[1] + 8, 3))
    device.pad_edge(image, larger)
    reference.pad_edge(image.astype(np.float64), larger64)
    np.testing.assert_array_equal(larger, larger64)
    larger[...] = larger64[...] = random(*larger.shape, seed=2)
    device.pad_edge_gradient(larger, out)
    reference.pad_edge_gradient(larger64, expected)
    within(out, expected, 81)

    cost, cost64 = both((1,))
    out[...] = expected[...] = gradient
    device.tv_cost(image, 0.5, cost=cost, gradient=out)
    reference.tv_cost(image.astype(np.float64), 0.5, cost=cost64, gradient=expected)
    within(out, expected, 1)
    within(cost, cost64, 10)

    states: list[Any] = []
    for which, real in ((device, np.float32), (reference, np.float64)):
        pixels, first, second = image.astype(real), np.zeros(shape, real), np.zeros(shape, real)
        step = np.zeros(1, np.int32)
        for _ in range(3):
            which.adam_step(
                pixels, gradient.astype(real), first, second, step,
                learning_rate=0.02, beta1=0.9, beta2=0.999, epsilon=1e-8,
            )  # fmt: skip
        which.descent_step(pixels, gradient.astype(real), learning_rate=0.01)
        states.append(pixels)
        assert step[0] == 3
    within(states[0], states[1], 16)

    for new in ((40, 23), (size[0] // 2, size[1] * 2), (5, 5)):
        small, small64 = both((*new, 3))
        device.resize(image, small)
        reference.resize(image.astype(np.float64), small64)
        within(small, small64, 16)


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(DeviceError, match="choose fp32"):
        Cpu("bf16")
