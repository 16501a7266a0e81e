"""Every kernel that works element by element or sums, against the reference in float64: on the emulator, on its
checking build, and on a GPU where there is one.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from harness.arrays import mask_bits, mean_one, random, within
from harness.devices import empty, held
from nstgpu.kernels.cuda import grids
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.device import MOST_VECTORS, Pooling
from nstgpu.kernels.reference import Reference

EPSILON = float(np.finfo(np.float32).eps)
SIZES = [(16, 16), (17, 23), (33, 18), (1, 7), (65, 31)]
CHANNELS = [3, 5, 12, 16, 48, 64, 128]

Runtimes = Callable[..., Runtime]
reference = Reference()


@pytest.fixture(scope="module", params=["emulator", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, runtime_called: Runtimes) -> CudaDevice:
    """With its workspace bound, and no larger than it says."""
    gpu = CudaDevice(runtime_called(request.param))
    gpu.bind_workspace(gpu.allocate(grids.WORKSPACE_BYTES))
    return gpu


def choice_bits(pool_argmax: Any) -> Any:
    padded = np.pad(pool_argmax, ((0, 0), (0, 0), (0, -pool_argmax.shape[2] % 4))).reshape(
        *pool_argmax.shape[:2], -1, 4
    )
    return (padded << np.array([0, 2, 4, 6], np.uint8)).sum(axis=3, dtype=np.uint8)


# ---- memory ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 15, 16, 17, 4099])
def test_copy_and_zero_reach_every_byte_and_no_other(device: CudaDevice, count: int) -> None:
    values = np.random.default_rng(0).integers(1, 256, count, dtype=np.uint8)
    room = held(device, np.full(count + 32, 7, np.uint8))
    device.copy(held(device, values), room[:count])
    np.testing.assert_array_equal(device.download(room), [*values, *[7] * 32])
    device.zero(room[:count])
    np.testing.assert_array_equal(device.download(room), [*[0] * count, *[7] * 32])


@pytest.mark.parametrize("length", [8, 9, 1027])
def test_the_rows_of_a_matrix_are_copied_from_wherever_they_start(device: CudaDevice, length: int) -> None:
    rows = held(device, random(4, length))
    expected = device.download(rows)
    for source, target in ((0, 3), (1, 2), (3, 1)):
        device.copy(rows[source], rows[target])
        expected[target] = expected[source]
        np.testing.assert_array_equal(device.download(rows), expected)


# ---- the network ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("size", SIZES)
def test_preprocess_and_back(device: CudaDevice, size: tuple[int, int], channels: tuple[int, int, int]) -> None:
    image, scale, shift = random(*size, 3), (255.0, 4.4, 0.7), (-103.939, 1.5, -0.25)
    expected, out = np.empty((*size, 3)), empty(device, (*size, 3))
    device.preprocess(held(device, image), channels, scale, shift, out)
    reference.preprocess(image.astype(np.float64), channels, scale, shift, expected)
    within(device.download(out), expected, 2, factor=1)
    device.preprocess_gradient(held(device, image), channels, scale, out)
    reference.preprocess_gradient(image.astype(np.float64), channels, scale, expected)
    within(device.download(out), expected, 1, factor=1)


@pytest.mark.parametrize("border", [0, 1, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), *SIZES])
def test_extend_and_back(device: CudaDevice, size: tuple[int, int], border: int) -> None:
    larger = (size[0] + 2 * border, size[1] + 2 * border, 3)
    image, gradient = random(*size, 3), random(*larger)
    expected, out = np.empty(larger), empty(device, larger)
    device.pad_edge(held(device, image), out)
    reference.pad_edge(image.astype(np.float64), expected)
    np.testing.assert_array_equal(device.download(out), expected)
    expected, out = np.empty((*size, 3)), empty(device, (*size, 3))
    device.pad_edge_gradient(held(device, gradient), out)
    reference.pad_edge_gradient(gradient.astype(np.float64), expected)
    within(device.download(out), expected, larger[0] * larger[1], factor=1)


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("shape", [*((17, 23, c) for c in CHANNELS), (16, 16, 64), (2, 3, 4), (3, 200, 8)])
def test_pool2x2(device: CudaDevice, shape: tuple[int, int, int], pooling: Pooling) -> None:
    height, width, channels = shape
    half = (height // 2, width // 2, channels)
    x = np.round(random(*shape), 1)  # with some that are equal
    pool_argmax, expected, expected_choice = held(device, choice_bits(np.zeros(half, np.uint8))), np.empty(half), None
    if pooling == "max":
        expected_choice = np.empty(half, np.uint8)
    for chosen in (None, pool_argmax) if pooling == "max" else (None,):
        out = empty(device, half)
        device.pool2x2(held(device, x), pooling=pooling, out=out, pool_argmax=chosen)
        reference.pool2x2(x.astype(np.float64), pooling=pooling, out=expected, pool_argmax=expected_choice)
        within(device.download(out), expected, 4, factor=1)
    if expected_choice is not None:
        np.testing.assert_array_equal(device.unpack_pool_argmax(pool_argmax, channels), expected_choice)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize(
    "shape", [*((17, 23, c) for c in CHANNELS), (16, 16, 64), (33, 18, 20), (2, 2, 4), (3, 200, 8)]
)
def test_pool_gradient(device: CudaDevice, shape: tuple[int, int, int], pooling: Pooling, accumulate: bool) -> None:
    height, width, channels = shape
    half = (height // 2, width // 2, channels)
    gradient, relu_mask, before = random(*half), random(*shape, seed=1) > 0, random(*shape, seed=3)
    pool_argmax = np.random.default_rng(2).integers(0, 4, half, dtype=np.uint8)
    out = held(device, before) if accumulate else empty(device, shape)
    device.pool_input_gradient(
        held(device, gradient), pooling=pooling,
        pool_argmax=held(device, choice_bits(pool_argmax)) if pooling == "max" else None,
        out=out, relu_mask=held(device, mask_bits(relu_mask)), accumulate=accumulate,
    )  # fmt: skip
    expected = before.astype(np.float64)
    reference.pool_input_gradient(
        gradient.astype(np.float64),
        pooling=pooling,
        pool_argmax=pool_argmax,
        out=expected,
        relu_mask=relu_mask,
        accumulate=accumulate,
    )
    within(device.download(out), expected, 2, factor=1)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", SIZES)
def test_relu_gradient(device: CudaDevice, size: tuple[int, int], channels: int) -> None:
    gradient, relu_mask = random(*size, channels), random(*size, channels, seed=1) > 0
    ours = held(device, gradient)
    device.relu_gradient(ours, held(device, mask_bits(relu_mask)))
    np.testing.assert_array_equal(device.download(ours), gradient * relu_mask)


# ---- costs ----------------------------------------------------------------------------------------------------------


def test_style_costs_together_are_those_one_by_one(device: CudaDevice) -> None:
    """In one launch, but for a second style of a layer, which adds to what the first has left; to the byte."""
    channels = (64, 5, 128, 1, 67)
    grams, first, second = ([random(c, c, seed=3 * n + i) for n, c in enumerate(channels)] for i in range(3))
    launched: list[str] = []

    def costs_and_differences(together: bool) -> list[Any]:
        costs = held(device, np.full(2 * len(channels), np.nan, np.float32))
        differences = [empty(device, gram.shape) for gram in grams]
        launched.clear()
        device.on_launch = lambda launch: launched.append(launch.kernel)
        with device.together() if together else nullcontext():
            for n, gram in enumerate(grams):
                for number, target in enumerate((first[n], second[n])):
                    at = 2 * n + number
                    device.style_cost(held(device, gram), held(device, target), 0.37, cost=costs[at : at + 1],
                                      gram_error=differences[n], accumulate=number > 0)  # fmt: skip
        device.on_launch = None
        return [device.download(values) for values in (costs, *differences)]

    one_by_one = costs_and_differences(False)
    assert launched == ["style_cost"] * 2 * len(channels)
    for ours, expected in zip(costs_and_differences(True), one_by_one, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert launched == ["style_costs"] * 2


@pytest.mark.parametrize("channels", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("size", SIZES)
def test_what_ends_an_iteration_is_one_launch(
    device: CudaDevice, size: tuple[int, int], channels: tuple[int, int, int]
) -> None:
    """The gradient and the cost of the variation are the same to the byte; the square is added up in another order."""
    image, before, scale = held(device, random(*size, 3)), held(device, random(*size, 3, seed=1)), (255.0, 4.4, 0.7)
    found, launched = [], []
    device.on_launch = lambda launch: launched.append(launch.kernel)
    for together in (False, True):
        gradient, sums = empty(device, (*size, 3)), held(device, np.full(2, np.nan, np.float32))
        with device.together() if together else nullcontext():
            device.preprocess_gradient(before, channels, scale, gradient)
            device.tv_cost(image, 0.3, cost=sums[:1], gradient=gradient)
            device.dots(gradient.reshape(1, -1), gradient.reshape(-1), sums[1:])
        found.append((device.download(gradient), device.download(sums)))
    device.on_launch = None
    assert launched == ["preprocess_gradient", "tv_cost", "gemv", "image_gradient"]
    (gradient, (cost, _)), (ours, (our_cost, our_square)) = found
    np.testing.assert_array_equal(ours, gradient)
    assert our_cost == cost
    within(np.array([our_square]), np.square(gradient.astype(np.float64)).sum(keepdims=True).reshape(1), gradient.size)


def test_what_comes_in_between_is_launched_in_its_order(device: CudaDevice) -> None:
    gram, out, launched = held(device, random(8, 8)), empty(device, (8, 8)), []
    costs = held(device, np.zeros(3, np.float32))
    device.on_launch = lambda launch: launched.append(launch.kernel)
    with device.together():
        device.style_cost(gram, gram, 1.0, cost=costs[:1], gram_error=out)
        device.zero(out)
        device.style_cost(gram, held(device, random(8, 8, seed=1)), 1.0, cost=costs[1:2], gram_error=out)
    device.on_launch = None
    assert launched == ["style_cost", "zero_memory", "style_cost"]
    assert np.any(device.download(out))


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("channels", [*CHANNELS, 67])
def test_style_cost(device: CudaDevice, channels: int, accumulate: bool) -> None:
    gram, target, before = (random(channels, channels, seed=seed) for seed in range(3))
    costs = held(device, np.zeros(3, np.float32))
    gram_error = held(device, before) if accumulate else empty(device, gram.shape)
    device.style_cost(held(device, gram), held(device, target), 0.37, cost=costs[1:2], gram_error=gram_error,
                      accumulate=accumulate)  # fmt: skip
    expected, cost = before.astype(np.float64), np.empty(1)
    reference.style_cost(gram.astype(np.float64), target.astype(np.float64), 0.37, cost=cost, gram_error=expected,
                         accumulate=accumulate)  # fmt: skip
    within(device.download(gram_error), expected, 2, factor=1)
    within(device.download(costs), [0, *cost, 0], channels, factor=1)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("channels", [*CHANNELS, 67])
def test_moments_cost(device: CudaDevice, channels: int, accumulate: bool) -> None:
    matrices, vectors = ([random(*shape, seed=seed) for seed in (0, 1, 2)] for shape in ((channels,) * 2, (channels,)))
    gram, target_gram, gram_error = (held(device, values) for values in matrices)
    mean, target_mean, mean_error = (held(device, values) for values in vectors)
    if not accumulate:
        gram_error, mean_error = empty(device, (channels, channels)), empty(device, (channels,))
    costs = held(device, np.zeros(3, np.float32))
    device.moments_cost(gram, mean, target_gram, target_mean, 0.37, cost=costs[1:2], gram_error=gram_error,
                        mean_error=mean_error, accumulate=accumulate)  # fmt: skip
    (gram64, target64, gram_error64), (mean64, target_mean64, shift64) = (
        [values.astype(np.float64) for values in some] for some in (matrices, vectors)
    )
    cost = np.empty(1)
    reference.moments_cost(gram64, mean64, target64, target_mean64, 0.37, cost=cost, gram_error=gram_error64,
                           mean_error=shift64, accumulate=accumulate)  # fmt: skip
    within(device.download(gram_error), gram_error64, 4, factor=1)
    within(device.download(mean_error), shift64, channels, factor=1)
    within(device.download(costs), [0, *cost, 0], channels, factor=1)


CONTENTS = [(16, 16, 3), (17, 23, 5), (33, 18, 16), (13, 7, 48), (16, 17, 64), (9, 9, 128)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", CONTENTS)
def test_content_cost(device: CudaDevice, shape: tuple[int, int, int], weighted: bool) -> None:
    features, target, costs = random(*shape), random(*shape, seed=1), held(device, np.zeros(2, np.float32))
    weights = mean_one(*shape[:2]) if weighted else None
    device.content_cost(held(device, features), held(device, target), 0.3, cost=costs[1:],
                        weights=None if weights is None else held(device, weights))  # fmt: skip
    cost = np.empty(1)
    reference.content_cost(features.astype(np.float64), target.astype(np.float64), 0.3, cost=cost,
                           weights=None if weights is None else weights.astype(np.float64))  # fmt: skip
    within(device.download(costs), [0, *cost], int(np.sqrt(features.size)), factor=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", CONTENTS)
def test_content_gradient(device: CudaDevice, shape: tuple[int, int, int], accumulate: bool, weighted: bool) -> None:
    features, target, before = random(*shape), random(*shape, seed=1), random(*shape, seed=2)
    weights = mean_one(*shape[:2]) if weighted else None
    out, expected = held(device, before) if accumulate else empty(device, shape), before.astype(np.float64)
    device.content_gradient(held(device, features), held(device, target), 0.3, out=out, accumulate=accumulate,
                            weights=None if weights is None else held(device, weights))  # fmt: skip
    reference.content_gradient(
        features.astype(np.float64), target.astype(np.float64), 0.3, out=expected, accumulate=accumulate,
        weights=None if weights is None else weights.astype(np.float64),
    )  # fmt: skip
    within(device.download(out), expected, 3, factor=1)


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (31, 100), (2, 2), (grids.MOST_PARTIALS + 3, 3)])
def test_total_variation(device: CudaDevice, size: tuple[int, int]) -> None:
    image, before = random(*size, 3), random(*size, 3, seed=1)
    gradient, expected = held(device, before), before.astype(np.float64)
    cost, cost64 = empty(device, (1,)), np.empty(1)
    device.tv_cost(held(device, image), 0.8, cost=cost, gradient=gradient)
    reference.tv_cost(image.astype(np.float64), 0.8, cost=cost64, gradient=expected)
    within(device.download(cost), cost64, int(np.sqrt(image.size)), factor=1)
    within(device.download(gradient), expected, 5, factor=1)


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 1)])
def test_total_variation_of_a_line_has_no_pairs_across_it(device: CudaDevice, size: tuple[int, int]) -> None:
    image, gradient, cost = random(*size, 3), held(device, np.zeros((*size, 3), np.float32)), empty(device, (1,))
    device.tv_cost(held(device, image), 1.0, cost=cost, gradient=gradient)
    steps = np.diff(image.reshape(-1, 3).astype(np.float64), axis=0)
    within(device.download(cost), np.mean(steps**2, keepdims=True)[0] if steps.size else np.zeros(1), 16, factor=1)
    assert np.isfinite(device.download(gradient)).all()


def test_a_long_sum_loops_and_stays_accurate(device: CudaDevice) -> None:
    """More numbers than a grid has threads; adding them one by one would be off by hundreds of eps."""
    count = 4 * grids.THREADS * grids.MOST_PARTIALS + 4 * 700 + 3
    features, cost = np.full(count, 0.1, np.float32), empty(device, (1,))
    device.content_cost(held(device, features), held(device, np.zeros(count, np.float32)), 2.0, cost=cost)
    exact = count * float(np.float32(0.1)) ** 2
    assert abs(float(device.download(cost)[0]) / exact - 1) <= EPSILON * np.log2(count)


# ---- pixels ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
def test_adam(device: CudaDevice, size: tuple[int, int]) -> None:
    shape = (*size, 3)
    start = np.random.default_rng(0).random(shape).astype(np.float32)
    image64, first64, second64 = start.astype(np.float64), np.zeros(shape), np.zeros(shape)
    step64 = np.zeros(1, np.int32)
    image, step = held(device, start), held(device, step64)
    first, second = held(device, first64.astype(np.float32)), held(device, second64.astype(np.float32))
    rates = {"learning_rate": 0.02, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    for count in range(1, 5):
        gradient = random(*shape, seed=count) * 10.0 ** random(*shape, seed=50 + count)
        device.adam_step(image, held(device, gradient), first, second, step, **rates)
        reference.adam_step(image64, gradient.astype(np.float64), first64, second64, step64, **rates)
        assert device.download(step).tolist() == [count]
    within(device.download(first), first64, 4, factor=1)
    within(device.download(second), second64, 4, factor=1)
    within(device.download(image), image64, 4, factor=1)


def test_the_first_step_of_adam_is_the_learning_rate(device: CudaDevice) -> None:
    """Whatever the gradient: 1 - beta2 = 0.001 must keep its digits."""
    start, gradient = np.full((4, 5, 3), 0.5, np.float32), np.full((4, 5, 3), 3e-4, np.float32)
    image, zeros = held(device, start), np.zeros_like(start)
    state = held(device, zeros), held(device, zeros), held(device, np.zeros(1, np.int32))
    device.adam_step(image, held(device, gradient), *state, learning_rate=0.25, beta1=0.9, beta2=0.999, epsilon=0.0)
    np.testing.assert_allclose(device.download(image), 0.25, rtol=4 * EPSILON)


@pytest.mark.parametrize("size", SIZES)
def test_descent_and_clamp(device: CudaDevice, size: tuple[int, int]) -> None:
    image, gradient = random(*size, 3), random(*size, 3, seed=1)
    ours = held(device, image)
    device.descent_step(ours, held(device, gradient), learning_rate=0.3)
    expected = image.astype(np.float64)
    reference.descent_step(expected, gradient.astype(np.float64), learning_rate=0.3)
    within(device.download(ours), expected, 2, factor=1)
    ours = held(device, image)
    device.clamp(ours)
    np.testing.assert_array_equal(device.download(ours), np.clip(image, 0, 1))


@pytest.mark.parametrize("size", SIZES)
def test_steps_within_bounds(device: CudaDevice, size: tuple[int, int]) -> None:
    """Of rows of a matrix, which start anywhere if the image has no multiple of four numbers."""
    shape = (*size, 3)
    rows = held(device, np.zeros((3, size[0] * size[1] * 3), np.float32))
    image, gradient, out = (rows[index].reshape(shape) for index in range(3))
    pixels, slopes = np.clip(random(*shape), 0, 1), random(*shape, seed=1)  # many pixels on the bounds
    device.upload(pixels, image)
    device.upload(slopes, gradient)
    expected = np.empty(shape)
    device.clamped_step(image, gradient, -0.3, out)
    reference.clamped_step(pixels.astype(np.float64), slopes.astype(np.float64), -0.3, expected)
    within(device.download(out), expected, 2, factor=1)
    reference.project_gradient(pixels, slopes, expected)
    device.project_gradient(image, gradient, gradient)
    np.testing.assert_array_equal(device.download(gradient), expected.astype(np.float32))
    device.clamped_step(image, gradient, 0.5, image)
    reference.clamped_step(pixels.astype(np.float64), expected.copy(), 0.5, expected)
    within(device.download(image), expected, 2, factor=1)


@pytest.mark.parametrize("channels", [3, 4, 7])
def test_weigh(device: CudaDevice, channels: int) -> None:
    values, weights = random(17, 23, channels), mean_one(17, 23)
    ours = held(device, values)
    device.weigh(ours, held(device, weights))
    np.testing.assert_array_equal(device.download(ours), values * weights[:, :, None])


# ---- vectors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [1, 16, 1023, 1024, 5555])
@pytest.mark.parametrize("count", [1, 5, MOST_VECTORS])
def test_vectors(device: CudaDevice, count: int, length: int) -> None:
    vectors, values = random(count, length), random(length, seed=1)
    rows = held(device, np.concatenate([vectors, values[None], values[None]]))
    basis, row, out = rows[:count], rows[count], rows[count + 1]
    products, expected = held(device, np.zeros(count + 2, np.float32)), np.empty(count)
    device.dots(basis, row, products[1:-1])
    reference.dots(vectors.astype(np.float64), values.astype(np.float64), expected)
    within(device.download(products), [0, *expected, 0], 2 * length, factor=1)
    coefficients, combined = random(count, seed=2).tolist(), np.empty(length)
    device.combine(basis, coefficients, out)
    reference.combine(vectors.astype(np.float64), coefficients, combined)
    within(device.download(out), combined, count, factor=1)
    device.blend(row, 0.3, out)
    reference.blend(values.astype(np.float64), 0.3, combined)
    within(device.download(out), combined, count + 2, factor=1)


def test_a_long_vector_loops_and_its_dot_product_stays_accurate(device: CudaDevice) -> None:
    """More numbers than one of many vectors has threads; adding them one by one would be off by hundreds of eps."""
    length = 4 * grids.THREADS * grids.MOST_PARTIALS // MOST_VECTORS * 2 + 4 * 3
    vectors, values = held(device, np.full((MOST_VECTORS, length), 0.1, np.float32)), np.full(length, 0.3, np.float32)
    products = empty(device, (MOST_VECTORS,))
    device.dots(vectors, held(device, values), products)
    exact = length * float(np.float32(0.1)) * float(np.float32(0.3))
    assert np.abs(device.download(products) / exact - 1).max() <= EPSILON * np.log2(length)


def test_what_cannot_be_combined_is_refused(device: CudaDevice) -> None:
    vectors, out = held(device, random(3, 8)), empty(device, (8,))
    with pytest.raises(ValueError, match="combine: 2 coefficients for 3 vectors"):
        device.combine(vectors, (1.0, 2.0), out)
    with pytest.raises(ValueError, match=f"there are 65 vectors; it must be 1 to {MOST_VECTORS}"):
        device.dots(held(device, random(65, 8)), out, empty(device, (65,)))


def test_what_is_not_a_number_stays_so(device: CudaDevice) -> None:
    """A run that diverges must be seen to, not turn black."""
    image = held(device, np.array([[[np.nan, np.inf, -np.inf], [0.5, 2, -1]]], np.float32))
    device.clamp(image)
    np.testing.assert_array_equal(device.download(image), np.array([[[np.nan, 1, 0], [0.5, 1, 0]]], np.float32))
    device.descent_step(image, image, learning_rate=0.5)
    assert np.isnan(device.download(image)[0, 0, 0])


RESIZES = [((16, 16), (16, 16)), ((17, 23), (40, 31)), ((61, 83), (16, 20)), ((5, 90), (11, 9)), ((40, 3), (1, 1))]


@pytest.mark.parametrize(("before", "after"), RESIZES)
def test_resize(device: CudaDevice, before: tuple[int, int], after: tuple[int, int]) -> None:
    image, out, expected = random(*before, 3), empty(device, (*after, 3)), np.empty((*after, 3))
    device.resize(held(device, image), out)
    reference.resize(image.astype(np.float64), expected)
    ratios = [max(a / b, 1.0) for a, b in zip(before, after, strict=True)]
    within(device.download(out), expected, int(36 * np.prod(ratios)), factor=1)


# ---- order ----------------------------------------------------------------------------------------------------------
def test_the_order_of_blocks_and_lanes_changes_no_byte(runtime_called: Runtimes) -> None:
    shape = (40, 37, 64)
    features, target = random(*shape), random(*shape, seed=1)
    image, before = random(300, 21, 3), random(300, 21, 3, seed=1)
    seen = set()
    for seed in range(4):
        device = CudaDevice(runtime_called("emulator", seed=seed))
        device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
        costs, gradient = empty(device, (2,)), held(device, before)
        device.content_cost(held(device, features), held(device, target), 0.3, cost=costs[:1])
        device.tv_cost(held(device, image), 0.8, cost=costs[1:], gradient=gradient)
        products = empty(device, (3,))
        device.dots(
            held(device, features.reshape(-1)[: 3 * 9999].reshape(3, -1)), gradient.reshape(-1)[:9999], products
        )
        seen.add(b"".join(device.download(values).tobytes() for values in (costs, gradient, products)))
    assert len(seen) == 1


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("inwards", [True, False])
def test_windows_are_copied_row_by_row(device: CudaDevice, checked: CudaDevice, channels: int, inwards: bool) -> None:
    """From and to a window of a larger array, of which nothing else changes."""
    large, small = random(11, 13, channels), random(4, 7, channels, seed=1)
    window = np.s_[3:7, 5:12]
    for each in (device, checked):
        whole, part = held(each, large), held(each, small)
        ends = (whole[window], part) if inwards else (part, whole[window])
        each.copy(*ends)
        expected_whole, expected_part = large.copy(), large[window] if inwards else small
        if not inwards:
            expected_whole[window] = small
        np.testing.assert_array_equal(each.download(whole), expected_whole)
        np.testing.assert_array_equal(each.download(part), expected_part)


def test_windows_must_match(device: CudaDevice) -> None:
    whole = held(device, random(9, 9, 4))
    with pytest.raises(ValueError, match="copy: values has shape"):
        device.copy(whole[2:5, 2:5], held(device, random(3, 4, 4)))
    with pytest.raises(ValueError, match="copy: values is not C-contiguous"):
        device.copy(whole[:, :, :2], held(device, random(9, 9, 2)))
