"""The kernels as functions: on the cpu and the emulator against the reference in float64, whose gradients are tested
against differences; arrays of other libraries in host memory; and what is refused, in which words.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import filters_and_bias, random, within
from nstgpu import kernels
from nstgpu.kernels import ArrayError, DeviceError, calls
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.reference import Reference

EPSILON = float(np.finfo(np.float32).eps)
HALF_STEP = {"fp16": 2.0**-11, "bf16": 2.0**-8}
RIDGE = 0.05


@pytest.fixture(params=["cpu", "emulator"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "emulator":
        emulator()
    return str(request.param)


def emulator(precision: str = "fp32") -> str:
    """Its name, where there is a compiler."""
    try:
        calls.session_of("emulator", precision)
    except DeviceError as error:
        pytest.skip(str(error))
    return "emulator"


def exact(function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """By the reference, in float64."""
    arrays = tuple(
        array.astype(np.float64) if isinstance(array, np.ndarray) and array.dtype == np.float32 else array
        for array in arrays
    )
    options = {
        name: value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value
        for name, value in options.items()
    }
    return function(*arrays, **options, device="reference")


# ---- the network ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(17, 22, 3, 8), (12, 9, 16, 24), (7, 6, 5, 7)])
@pytest.mark.parametrize("pool", [None, "max", "average"])
def test_conv3x3_relu_and_the_way_back(device: str, shape: tuple[int, int, int, int], pool: Any) -> None:
    height, width, channels_in, channels_out = shape
    x, (kernel, bias) = random(height, width, channels_in), filters_and_bias(channels_in, channels_out)
    filters = kernels.pack_filters(kernel, bias)
    asked = {"relu_mask": True, "pool": pool, "pool_argmax": True if pool == "max" else None}
    y, mask, *argmax = kernels.conv3x3_relu(x, filters, device=device, **asked)
    y64, mask64, *argmax64 = exact(kernels.conv3x3_relu, x, (kernel, bias), **asked)
    assert y.dtype == np.float32
    within(y, y64, 9 * channels_in)
    assert np.array_equal(kernels.unpack_relu_mask(mask, channels_out, device=device), mask64)
    plain = kernels.conv3x3_relu(x, filters, pool=pool, device=device)
    assert plain.tobytes() == y.tobytes()

    gradient, gradient64 = random(*y.shape, seed=5), random(*y.shape, seed=5).astype(np.float64)
    if pool:
        gradient = kernels.pool_input_gradient(gradient, mask, pool=pool, pool_argmax=(argmax or [None])[0],
                                               device=device)  # fmt: skip
        gradient64 = exact(kernels.pool_input_gradient, gradient64, mask64, pool=pool,
                           pool_argmax=(argmax64 or [None])[0])  # fmt: skip
    else:
        gradient = kernels.relu_gradient(gradient, mask, device=device)
        gradient64 = exact(kernels.relu_gradient, gradient64, mask64)
    assert np.array_equal(gradient, gradient64)  # nothing is added up
    below = kernels.conv3x3_input_gradient(gradient, filters, device=device)
    within(below, exact(kernels.conv3x3_input_gradient, gradient64, (kernel, bias)), 9 * channels_out)


@pytest.mark.parametrize("pool", ["max", "average"])
def test_a_pool_alone_is_what_a_convolution_does_on_the_way(device: str, pool: Any) -> None:
    x, filters = random(13, 10, 8), kernels.pack_filters(*filters_and_bias(8, 8))
    asked: Any = {"pool": pool, "pool_argmax": True if pool == "max" else None, "device": device}
    y = kernels.conv3x3_relu(x, filters, device=device)
    alone, on_the_way = kernels.pool2x2(y, **asked), kernels.conv3x3_relu(x, filters, **asked)
    pairs = zip(alone, on_the_way, strict=True) if pool == "max" else [(alone, on_the_way)]
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)
    out = np.zeros((6, 5, 8), np.float32)
    assert kernels.pool2x2(y, pool=pool, out=out, device=device) is out
    np.testing.assert_allclose(out, exact(kernels.pool2x2, y, pool=pool), rtol=1e-6)


def test_input_gradient_masks_and_adds(device: str) -> None:
    gradient, filters, before = random(9, 11, 8), filters_and_bias(16, 8), random(9, 11, 16, seed=3)
    _, mask = kernels.conv3x3_relu(random(9, 11, 8), filters_and_bias(8, 16), relu_mask=True, device=device)
    out = before.copy()
    returned = kernels.conv3x3_input_gradient(gradient, filters, relu_mask=mask, out=out, accumulate=True,
                                              device=device)  # fmt: skip
    assert returned is out
    let = kernels.unpack_relu_mask(mask, 16, device=device)
    within(out, (exact(kernels.conv3x3_input_gradient, gradient, filters) + before) * let, 72)


def test_what_is_given_is_written_and_returned(device: str) -> None:
    x, filters = random(10, 8, 8), kernels.pack_filters(*filters_and_bias(8, 8))
    y, mask, argmax = kernels.conv3x3_relu(x, filters, relu_mask=True, pool="max", pool_argmax=True, device=device)
    given = [np.full_like(array, 0xEE) for array in (y, mask, argmax)]
    returned = kernels.conv3x3_relu(
        x, filters, out=given[0], relu_mask=given[1], pool="max", pool_argmax=given[2], device=device
    )
    assert all(one is other for one, other in zip(returned, given, strict=True))
    assert all(one.tobytes() == other.tobytes() for one, other in zip(given, (y, mask, argmax), strict=True))

    gradient = random(10, 8, 8, seed=4)
    expected = kernels.relu_gradient(gradient, mask, device=device)
    assert kernels.relu_gradient(gradient, mask, out=gradient, device=device) is gradient
    assert gradient.tobytes() == expected.tobytes()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_16_bits(precision: str) -> None:
    """ml_dtypes' bfloat16 where it is installed, else its bits; an image's convolution takes float32."""
    name, (kernel, bias) = emulator(precision), filters_and_bias(8, 16)
    x, dtype = random(9, 10, 8), np.dtype(np.float16)
    bits = rounded(x, precision)
    if precision == "bf16":
        dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    arrays = [bits.view(dtype)] + ([bits] if precision == "bf16" else [])
    for array in arrays:
        filters = kernels.pack_filters(kernel, bias, precision=precision if array.dtype == np.uint16 else None)
        y = kernels.conv3x3_relu(array, filters, device=name)
        assert y.dtype == array.dtype
        wide = widened(y.view(bits.dtype), precision)
        expected = exact(
            kernels.conv3x3_relu, widened(bits, precision), (widened(rounded(kernel, precision), precision), bias)
        )
        assert np.all(np.abs(wide - expected) <= HALF_STEP[precision] * np.abs(expected) + 1e-5)

        told: Any = {"precision": precision} if array.dtype == np.uint16 else {}
        gram = kernels.gram(y, device=name, **told)
        assert gram.dtype == np.float32
        within(gram, exact(kernels.gram, wide), 90)
        gradient = kernels.style_gradient(y, gram, device=name, **told)
        expected = exact(kernels.style_gradient, wide, gram)
        found = widened(gradient.view(bits.dtype), precision)  # and not as many times larger as a network's are
        assert np.linalg.norm(found - expected) <= HALF_STEP[precision] * np.linalg.norm(expected)
    if precision == "fp16":
        found = kernels.content_gradient(y, (y / np.float16(2)), device=name)
        assert np.array_equal(found, y / np.float16(2))

    image = random(9, 10, 3)
    y = kernels.conv3x3_relu(image, kernels.pack_filters(*filters_and_bias(3, 16), precision=precision), device=name)
    assert y.dtype == dtype
    back = kernels.conv3x3_input_gradient(y, filters_and_bias(3, 16), device=name)
    assert back.dtype == np.float32


def test_tf32_is_asked_for_by_name() -> None:
    name, x, weights = emulator("tf32"), random(8, 8, 16), filters_and_bias(16, 16)
    y = kernels.conv3x3_relu(x, kernels.pack_filters(*weights, precision="tf32"), device=name)
    expected = exact(kernels.conv3x3_relu, x, weights)
    error = np.linalg.norm(y - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 2e-3
    assert kernels.gram(x, precision="tf32", device=name).tobytes() != kernels.gram(x, device=name).tobytes()


# ---- costs ----------------------------------------------------------------------------------------------------------
def statistics(shape: tuple[int, int, int], seed: int) -> tuple[Any, Any, Any]:
    features = np.maximum(random(*shape, seed=seed), 0)
    return features, kernels.gram(features, device="cpu"), kernels.mean(features, device="cpu")


def test_statistics(device: str) -> None:
    features, weights = np.maximum(random(14, 11, 12), 0), np.random.default_rng(1).random((14, 11), np.float32)
    each: list[dict[str, Any]] = [{}, {"weights": weights}]
    for options in each:
        pixels = features.reshape(-1, 12).astype(np.float64)
        weighted = pixels * options["weights"].reshape(-1, 1) if options else pixels
        within(kernels.gram(features, device=device, **options), weighted.T @ pixels / 154, 154)
        within(kernels.mean(features, device=device, **options), weighted.mean(axis=0), 154)


@pytest.mark.parametrize("statistic", ["style", "moments", "w2"])
def test_style_costs(device: str, statistic: str) -> None:
    features, gram, mean = statistics((14, 11, 12), 0)
    _, target, target_mean = statistics((9, 13, 12), 1)
    function: Any = getattr(kernels, f"{statistic}_cost")
    arguments: tuple[Any, ...] = (gram, target) if statistic == "style" else (gram, mean, target, target_mean)
    options: dict[str, Any] = {"pixels": 154}
    if statistic == "w2":
        root = kernels.w2_root(target, target_mean, ridge=RIDGE, device=device)
        within(root, exact(kernels.w2_root, target, target_mean, ridge=RIDGE), 1000)
        arguments = (gram, mean, root, target_mean)
        options |= {"ridge": RIDGE}
    results = function(*arguments, **options, device=device)
    expected = exact(function, *arguments, **options)
    assert results[0].shape == ()
    for result, value in zip(results, expected, strict=True):
        within(result, value, 1000)
    given = tuple(np.full_like(result, 7) for result in results)
    assert function(*arguments, **options, out=given, device=device)[1] is given[1]
    assert [array.tobytes() for array in given] == [array.tobytes() for array in results]
    within(
        kernels.style_gradient(features, *results[1:], device=device),
        exact(kernels.style_gradient, features, *expected[1:]),
        1000,
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_sliced_distance(device: str, weighted: bool) -> None:
    features, style = random(14, 11, 12), random(9, 13, 12, seed=1)
    weights = np.random.default_rng(1).random((14, 11), np.float32) if weighted else None
    weights = weights if weights is None else weights / weights.mean()
    along = kernels.random_directions(np.array([3], np.int32), (7, 12), seed=5, device=device)
    assert along.tobytes() == kernels.random_directions(np.array([3], np.int32), (7, 12), seed=5).tobytes()
    projected = kernels.project(features, along, device=device)
    within(projected, exact(kernels.project, features, along), 100)
    values, order = kernels.sort_rows(projected, device=device)
    np.testing.assert_array_equal(order, np.argsort(projected, axis=1, kind="stable"))
    np.testing.assert_array_equal(values, np.sort(projected, axis=1))
    target, _ = kernels.sort_rows(kernels.project(style, along, device=device), device=device)
    cost, residual = kernels.sliced_cost(values, order, target, weights=weights, device=device)
    on = Reference()
    cost64, residual64, out64 = np.empty(1), np.empty(residual.shape), np.zeros(features.shape)
    on.sliced_cost(values.astype(float), order, target.astype(float), 2 / residual.size, cost=cost64,
                   residual=residual64, weights=weights)  # fmt: skip
    on.sliced_gradient(residual64, along.astype(float), out=out64, accumulate=False)
    assert cost.shape == ()
    within(cost, cost64, 1000)
    within(residual, residual64, 1000)
    within(kernels.sliced_gradient(features, residual, along, device=device), out64, 1000)


@pytest.mark.parametrize("weighted", [False, True])
def test_nearest_neighbors_their_cost_and_gradient(device: str, weighted: bool) -> None:
    features, style = np.maximum(random(14, 11, 12), 0), np.maximum(random(9, 13, 12, seed=1), 0)
    mean, style_mean = features.mean(axis=(0, 1)), style.mean(axis=(0, 1))
    weights = np.random.default_rng(1).random((14, 11), np.float32) if weighted else None
    directions = kernels.normalize_features(style, style_mean, device=device)
    within(directions, exact(kernels.normalize_features, style, style_mean), 100)
    candidates = directions.reshape(-1, 12)
    matches = kernels.nearest_neighbors(features, mean, candidates, device=device)
    assert matches.dtype == np.int32
    assert matches.tobytes() == exact(kernels.nearest_neighbors, features, mean, candidates).tobytes()
    given = np.full((14, 11), -1, np.int32)
    assert kernels.nearest_neighbors(features, mean, candidates, out=given, device=device) is given
    np.testing.assert_array_equal(given, matches)
    arrays = features, mean, candidates, matches
    cost = kernels.neighbors_cost(*arrays, weights=weights, device=device)
    assert cost.shape == ()
    cosines = np.sum(exact(kernels.normalize_features, features, mean) * candidates[matches], axis=2)
    assert float(cost) == pytest.approx(np.mean((1 if weights is None else weights) * (1 - cosines)), rel=1e-5)
    gradient = kernels.neighbors_gradient(*arrays, weights=weights, device=device)
    within(gradient, exact(kernels.neighbors_gradient, *arrays, weights=weights), 1000)
    out = np.ones_like(gradient)
    kernels.neighbors_gradient(*arrays, scale=2.0, weights=weights, out=out, accumulate=True, device=device)
    np.testing.assert_allclose(out, 1 + 2 * gradient, rtol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_a_search_on_tensor_cores_has_its_workspace(precision: str) -> None:
    name = emulator(precision)
    kernels.release()
    features, candidates = np.maximum(random(9, 10, 8), 0), random(600, 8, seed=1)
    dtype = {"bf16": np.uint16, "fp16": np.float16}.get(precision, np.float32)
    bits = [rounded(array, precision) if dtype != np.float32 else array for array in (features, candidates)]
    told = "bf16" if precision == "bf16" else precision if precision == "tf32" else None
    mean = np.full(8, 0.25, np.float32)
    matches = kernels.nearest_neighbors(bits[0], mean, bits[1], precision=told, device=name)
    wide = [widened(array, precision).astype(np.float64) if dtype != np.float32 else array for array in bits]
    np.testing.assert_array_equal(matches, ((wide[0] - mean) @ wide[1].T).argmax(axis=2))
    assert calls.session_of(name, precision).workspace_bytes > 90 * 2 * 8  # two groups of each pixel


def test_content_and_tv(device: str) -> None:
    features, target = random(9, 14, 8), random(9, 14, 8, seed=1)
    weights = np.random.default_rng(1).random((9, 14), np.float32)
    image = np.random.default_rng(2).random((13, 8, 3), np.float32)
    within(
        kernels.content_cost(features, target, weights=weights, device=device),
        (weights[..., None].astype(np.float64) * (features - target) ** 2).sum() / 2,
        1000,
    )
    within(
        kernels.content_gradient(features, target, weights=weights, device=device),
        weights[..., None].astype(np.float64) * (features - target),
        4,
    )
    for result, expected in zip(kernels.tv_cost(image, device=device), exact(kernels.tv_cost, image), strict=True):
        within(result, expected, 300)


def test_gradients_are_the_costs_derivatives() -> None:
    """The reference, in float64, against central differences."""
    rng = np.random.default_rng(0)
    features, other = np.abs(rng.standard_normal((2, 5, 6, 4)))
    target, target_mean = (function(other, device="reference") for function in (kernels.gram, kernels.mean))
    root = kernels.w2_root(target, target_mean, ridge=RIDGE, device="reference")
    candidates = kernels.normalize_features(other, target_mean, device="reference").reshape(-1, 4)
    matches = kernels.nearest_neighbors(features, target_mean, candidates, device="reference")

    def both(kind: str, values: Any) -> tuple[float, Any]:
        gram, mean = kernels.gram(values, device="reference"), kernels.mean(values, device="reference")
        if kind == "content":
            gradient = kernels.content_gradient(values, other, device="reference")
            return float(kernels.content_cost(values, other, device="reference")), gradient
        if kind == "neighbors":
            arrays = values, target_mean, candidates, matches
            gradient = kernels.neighbors_gradient(*arrays, device="reference")
            return float(kernels.neighbors_cost(*arrays, device="reference")), gradient
        if kind == "style":
            cost, *errors = kernels.style_cost(gram, target, pixels=30, device="reference")
        elif kind == "moments":
            cost, *errors = kernels.moments_cost(gram, mean, target, target_mean, pixels=30, device="reference")
        else:
            cost, *errors = kernels.w2_cost(gram, mean, root, target_mean, ridge=RIDGE, pixels=30, device="reference")
        return float(cost), kernels.style_gradient(values, *errors, device="reference")

    direction = rng.standard_normal(features.shape)
    for kind in ("content", "style", "moments", "w2", "neighbors"):
        slope = (both(kind, features + 1e-5 * direction)[0] - both(kind, features - 1e-5 * direction)[0]) / 2e-5
        assert np.vdot(both(kind, features)[1], direction) == pytest.approx(slope, rel=1e-6), kind


# ---- pixels ---------------------------------------------------------------------------------------------------------
def test_adam_step_and_resize(device: str) -> None:
    image, gradient = np.random.default_rng(0).random((9, 7, 3), np.float32), random(9, 7, 3)
    state = [image.copy(), np.zeros_like(image), np.zeros_like(image), np.zeros(1, np.int32)]
    state64 = [array.astype(np.float64) for array in state[:3]] + [np.zeros(1, np.int32)]
    for x, on in ((state, device), (state64, "reference")):
        for factor in (1, -0.5):
            kernels.adam_step(x[0], (factor * gradient).astype(x[0].dtype), *x[1:], learning_rate=0.02, device=on)
    assert state[3][0] == 2
    for ours, theirs in zip(state[:3], state64, strict=False):
        within(ours, theirs, 16)
    for size in ((5, 9), (20, 4)):
        within(kernels.resize(image, *size, device=device), exact(kernels.resize, image, *size), 16)


# ---- what is kept, and let go ---------------------------------------------------------------------------------------
def test_a_thread_keeps_a_device_and_its_workspace_until_it_lets_go() -> None:
    kernels.release()
    x, filters = random(12, 12, 16), kernels.pack_filters(*filters_and_bias(16, 16))
    kernels.conv3x3_relu(x, filters)
    session = calls.session_of("cpu", "fp32")
    kept, packed = session.workspace_bytes, session.packed[filters]
    kernels.conv3x3_relu(x[:6], filters)
    assert calls.session_of("cpu", "fp32") is session
    assert session.workspace_bytes == kept > 0
    assert session.packed[filters] is packed
    del filters
    assert not session.packed
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(calls.session_of("cpu", "fp32")))
    thread.start()
    thread.join()
    assert others[0] is not session
    kernels.release()
    assert calls.session_of("cpu", "fp32") is not session


def test_nothing_is_imported_before_it_is_used() -> None:
    script = "import sys; import nstgpu.kernels; print(sorted(m for m in sys.modules if m.split('.')[0] == 'numpy'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'conv5x5'"):
        kernels.conv5x5  # noqa: B018
    assert all(hasattr(kernels, name) for name in kernels.__all__)
    assert set(dir(kernels)) == set(kernels.__all__)


# ---- what is refused ------------------------------------------------------------------------------------------------
STEP: Any = np.zeros(1, np.int32)
IMAGE, FEATURES, GRAM = np.zeros((6, 5, 3), np.float32), np.zeros((6, 5, 8), np.float32), np.zeros((8, 8), np.float32)
KERNEL, MASK = np.zeros((3, 3, 8, 8), np.float32), np.zeros((6, 5, 1), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.gram([1, 2]), "gram: is a list; it must be an array with DLPack or __cuda_array_interface__"),
        (lambda: kernels.gram(GRAM), r"gram: features has shape \(8, 8\); it must be \(H, W, C\), with no size of 0"),
        (lambda: kernels.gram(FEATURES[:0]), r"gram: features has shape \(0, 5, 8\); it must be"),
        (lambda: kernels.gram(FEATURES.astype(int)), "gram: int64 on cpu, which takes float32; convert it"),
        (lambda: kernels.gram(FEATURES.astype(float)), "gram: float64 on cpu, which takes float32; convert it"),
        (lambda: kernels.gram(FEATURES.astype(np.float16)), "gram: float16 on cpu, which takes float32"),
        (lambda: kernels.gram(FEATURES.astype(np.float16), device="reference"),
         "gram: float16 on reference, which takes float32 or float64; convert it"),
        (lambda: kernels.gram(FEATURES[:, ::2]), "gram: features is not contiguous in memory; give a copy of it"),
        (lambda: kernels.gram(FEATURES, weights=GRAM), r"gram: weights has shape \(8, 8\); it must be \(6, 5\)"),
        (lambda: kernels.gram(FEATURES, out=GRAM.astype(float)), "gram: out is float64; it must be float32"),
        (lambda: kernels.mean(FEATURES, out=GRAM), r"mean: out has shape \(8, 8\); it must be \(8,\)"),
        (lambda: kernels.random_directions(STEP, (0, 3)), r"random_directions: shape is \(0, 3\); it must be"),
        (lambda: kernels.random_directions(STEP, (2, 3), seed=-1), "random_directions: seed is -1; it must be 0 to 2"),
        (lambda: kernels.sort_rows(FEATURES), r"sort_rows: values has shape \(6, 5, 8\); it must be \(K, N\)"),
        (lambda: kernels.sliced_cost(GRAM, GRAM.astype(np.int32), GRAM.copy(), weights=np.ones((2, 3), np.float32)),
         "sliced_cost: weights of 6 pixels for 8"),
        (lambda: kernels.nearest_neighbors(FEATURES, GRAM[0], FEATURES[0, :, :4].copy()),
         r"nearest_neighbors: candidates has shape \(5, 4\); it must be \(M, 8\)"),
        (lambda: kernels.nearest_neighbors(FEATURES, GRAM[0], GRAM[:0]), "candidates has shape .* with no size of 0"),
        (lambda: kernels.neighbors_cost(FEATURES, GRAM[0], GRAM.copy(), GRAM),
         "neighbors_cost: matches is float32; it must be int32"),
        (lambda: kernels.gram(FEATURES, stream=2), "gram: arrays in host memory have no stream"),
        (lambda: kernels.gram(FEATURES, stream=0), "gram: stream=0 is no stream; 1 is the legacy default"),
        (lambda: kernels.gram(FEATURES, stream="main"), "gram: stream is a str; it must be a stream, or its number"),
        (lambda: kernels.gram(FEATURES, device="cuda"), "gram: device 'cuda' for arrays in host memory; choose one of"),
        (lambda: kernels.content_gradient(FEATURES, FEATURES, out=FEATURES),
         "content_gradient: out overlaps features in memory; give other memory"),
        (lambda: kernels.content_gradient(FEATURES, FEATURES, accumulate=True),
         "content_gradient: accumulate adds to out, which is not given"),
        (lambda: kernels.gram(FEATURES, out=np.broadcast_to(GRAM, (8, 8))), "gram: out is read-only; leave it out"),
        (lambda: kernels.conv3x3_relu(FEATURES, KERNEL[:2]),
         r"pack_filters: kernel has shape \(2, 3, 8, 8\); it must be \(3, 3, C_in, C_out\)$"),
        (lambda: kernels.conv3x3_relu(FEATURES, KERNEL.transpose(3, 2, 0, 1)),
         r"has shape \(8, 8, 3, 3\).*; PyTorch's is kernel.permute\(2, 3, 1, 0\)"),
        (lambda: kernels.conv3x3_relu(FEATURES, (KERNEL, GRAM)), r"pack_filters: bias has shape \(8, 8\); it must be"),
        (lambda: kernels.pack_filters(KERNEL.astype(int)), "pack_filters: kernel is int64; it must be of floats"),
        (lambda: kernels.pack_filters("kernel"), "pack_filters: kernel is a str; it must be an array"),
        (lambda: kernels.conv3x3_relu(IMAGE, KERNEL), r"conv3x3_relu: x has shape \(6, 5, 3\); it must be \(H, W, 8\)"),
        (lambda: kernels.conv3x3_relu(FEATURES, KERNEL, pool="min"),  # type: ignore[call-overload]
         "pool is 'min'; choose max, average or None"),
        (lambda: kernels.conv3x3_relu(FEATURES, KERNEL, pool_argmax=True), "pool_argmax belongs to max pooling"),
        (lambda: kernels.conv3x3_relu(FEATURES[:1], KERNEL, pool="max"), "a pool needs 2 x 2 pixels at least"),
        (lambda: kernels.pool2x2(FEATURES, pool="min"),  # type: ignore[call-overload]
         "pool2x2: pool is 'min'; choose max, average or None"),
        (lambda: kernels.pool2x2(FEATURES[:, :1].copy()), "pool2x2: a pool needs 2 x 2 pixels at least"),
        (lambda: kernels.pool_input_gradient(FEATURES, MASK, pool="average"),
         r"gradient has shape \(6, 5, 8\), the pool of 6 x 5 pixels \(3, 2, 8\)"),
        (lambda: kernels.pool_input_gradient(FEATURES[:3, :2].copy(), MASK), "max pooling needs the pool_argmax"),
        (lambda: kernels.style_cost(GRAM[:2], GRAM, pixels=30), r"style_cost: gram has shape \(2, 8\); it must be"),
        (lambda: kernels.style_cost(GRAM, GRAM, pixels=0), "style_cost: pixels is 0; it must be H W"),
        (lambda: kernels.resize(IMAGE, 0, 5), "resize: an image of 0 x 5 pixels"),
        (lambda: kernels.adam_step(IMAGE, IMAGE, IMAGE.copy(), IMAGE.copy(), STEP, learning_rate=1),
         "adam_step: gradient overlaps image"),
        (lambda: kernels.adam_step(IMAGE, IMAGE, IMAGE.copy(), IMAGE.copy(), STEP.astype(float), learning_rate=1),
         "adam_step: step is float64; it must be int32"),
    ],
)  # fmt: skip
def test_an_array_that_does_not_serve_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArrayError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "gram: unknown precision 'int8'; choose one of fp32, tf32, 3xtf32, bf16, fp16, fp64"),
        ({"precision": "tf32"}, "the cpu device has no precision 'tf32'; choose fp32"),
    ],
)
def test_a_precision_that_is_not_to_be_had_is_a_device_error(options: Any, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        kernels.gram(FEATURES, **options)


def test_a_device_that_refuses_says_so_as_an_array_error() -> None:
    room = np.zeros(6 * 5 * 8 + 4, np.float32)
    start = (-room.ctypes.data % 16) // 4 + 1
    with pytest.raises(ArrayError, match="gram: features does not start on a 16-byte boundary"):
        kernels.gram(room[start : start + 240].reshape(6, 5, 8), device=emulator())


# ---- other libraries in host memory ---------------------------------------------------------------------------------
def test_pytorch_tensors_come_and_go_by_dlpack(device: str) -> None:
    torch = pytest.importorskip("torch")
    x, (kernel, bias) = random(12, 9, 8), filters_and_bias(8, 16)
    tensors = torch.from_numpy(x), (torch.from_numpy(kernel), torch.from_numpy(bias))
    y, mask = kernels.conv3x3_relu(*tensors, relu_mask=True, device=device)
    assert type(y) is torch.Tensor
    assert mask.dtype == torch.uint8
    expected = torch.nn.functional.conv2d(
        tensors[0].double().permute(2, 0, 1), tensors[1][0].double().permute(3, 2, 0, 1), tensors[1][1].double(),
        padding=1,
    )  # fmt: skip
    within(y.numpy(), expected.relu().permute(1, 2, 0).numpy(), 72)
    out = torch.empty(16, 16)
    assert kernels.gram(y, out=out, device=device) is out
    within(out.numpy(), exact(kernels.gram, y.numpy()), 108)
    cost, error = kernels.style_cost(out, out / 2, pixels=108, device=device)
    assert cost.shape == ()
    assert float(cost) == pytest.approx(float(((out / 2) ** 2).sum()) / (4 * 16**2), rel=1e-5)
    assert kernels.style_gradient(y, error, device=device).shape == y.shape

    y.requires_grad_()
    with pytest.raises(ArrayError, match="gram: features requires a gradient, which autograd would not see"):
        kernels.gram(y, device=device)
    with torch.no_grad():
        kernels.gram(y, device=device)
    with pytest.raises(ArrayError, match="gram: lies on PyTorch's device meta; move it to the CPU or to an NVIDIA GPU"):
        kernels.gram(torch.empty(2, 2, 8, device="meta"))


def test_pytorch_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    name, x = emulator("bf16"), torch.from_numpy(random(9, 10, 8)).bfloat16()
    y = kernels.conv3x3_relu(x, tuple(map(torch.from_numpy, filters_and_bias(8, 8))), device=name)
    assert y.dtype == torch.bfloat16
    expected = exact(kernels.conv3x3_relu, x.float().numpy(), filters_and_bias(8, 8))
    assert np.linalg.norm(y.float().numpy() - expected) <= 2 * HALF_STEP["bf16"] * np.linalg.norm(expected)
    assert kernels.gram(y, device=name).dtype == torch.float32


def test_jax_arrays_come_and_go_by_dlpack(device: str) -> None:
    jax = pytest.importorskip("jax")
    x, weights = random(12, 9, 8), filters_and_bias(8, 16)
    y, mask = kernels.conv3x3_relu(jax.numpy.asarray(x), weights, relu_mask=True, device=device)
    assert isinstance(y, jax.Array)
    assert isinstance(mask, jax.Array)
    within(np.asarray(y), exact(kernels.conv3x3_relu, x, weights), 72)
    cost, _ = kernels.style_cost(kernels.gram(y, device=device), jax.numpy.zeros((16, 16)), pixels=108, device=device)
    assert cost.shape == ()
    with pytest.raises(ArrayError, match="gram: out is read-only; leave it out, and a new array is made"):
        kernels.gram(y, out=jax.numpy.zeros((16, 16)), device=device)


def test_jax_bfloat16() -> None:
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(random(9, 10, 8)).astype("bfloat16")
    y = kernels.conv3x3_relu(x, filters_and_bias(8, 8), device=emulator("bf16"))
    assert y.dtype == jax.numpy.bfloat16
    expected = exact(kernels.conv3x3_relu, np.asarray(x, np.float32), filters_and_bias(8, 8))
    assert np.linalg.norm(np.asarray(y, np.float32) - expected) <= 2 * HALF_STEP["bf16"] * np.linalg.norm(expected)
