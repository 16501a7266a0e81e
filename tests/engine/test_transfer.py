"""Style transfer as a whole: its gradient, its costs, its runs, and what it says to wrong input."""

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstgpu
from harness.arrays import uniform
from nstgpu import Costs, StyleTransfer, Weights
from nstgpu.engine.costs.terms import Costs as CostsType
from nstgpu.engine.errors import NonFiniteCostError, SettingsError
from nstgpu.engine.imaging import files as images
from nstgpu.engine.model.taps import canonical
from nstgpu.engine.optimizers.coarse_to_fine import Progress
from nstgpu.kernels import DeviceError

Thin = Callable[..., Weights]
ODD = (61, 83, 3)
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


def relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [ODD, (32, 48, 3)])
def test_gradient_against_central_differences(thin: Thin, shape: Any, reduction: Any, pooling: Any) -> None:
    transfer = StyleTransfer(
        uniform(*shape), uniform(40, 37, 3, seed=1), weights=thin(), device="reference",
        content_layers={"relu2_2": 1.0, "relu3_1": 0.5},
        style_layers={"relu1_1": 0.3, "block2_conv2": 1.0, "relu3_1": 2.0},
        content_weight=1e-3, style_weight=1e-6, tv_weight=10.0, content_reduction=reduction, pooling=pooling,
    )  # fmt: skip
    image, direction, step = uniform(*shape, seed=2), uniform(*shape, seed=3) - 0.5, 1e-7
    costs, gradient = transfer.cost_and_gradient(image)
    assert gradient.shape == shape
    assert gradient.dtype == np.float64
    above, below = (transfer.cost_and_gradient(image + sign * step * direction)[0].total for sign in (1, -1))
    assert np.sum(gradient * direction) == pytest.approx((above - below) / (2 * step), rel=1e-6)
    assert costs.total == pytest.approx(1e-3 * costs.content + 1e-6 * costs.style + 10 * costs.tv)


def test_costs_are_the_formulas(thin: Thin) -> None:
    """The cost of an image without features, computed by hand from the content and the style alone."""
    weights = thin([[4]])
    content, style = uniform(16, 16, 3), uniform(16, 16, 3, seed=1)
    transfer = StyleTransfer(
        content, style, weights=weights, device="reference", content_layers={"relu1_1": 2.0},
        style_layers={"relu1_1": 3.0}, content_weight=5.0, style_weight=7.0, tv_weight=0.0, content_reduction="sum",
    )  # fmt: skip

    def features(image: Any) -> Any:
        x = np.pad(image[..., ::-1] * 255 - [103.939, 116.779, 123.68], ((1, 1), (1, 1), (0, 0)))
        layer = weights.convolutions[0]
        y = sum(x[r : r + 16, s : s + 16] @ layer.kernel[r, s].astype(float) for r in range(3) for s in range(3))
        return np.maximum(y + layer.bias, 0).reshape(256, 4)

    image = uniform(16, 16, 3, seed=2)
    a, c, s = features(image), features(content), features(style)
    content_cost = 2.0 * np.sum((a - c) ** 2) / 2
    style_cost = 3.0 * np.sum((a.T @ a - s.T @ s) ** 2) / (2 * 16 * 16 * 4) ** 2
    costs, _ = transfer.cost_and_gradient(image)
    assert costs.content == pytest.approx(content_cost)
    assert costs.style == pytest.approx(style_cost)
    assert costs.total == pytest.approx(5 * content_cost + 7 * style_cost)
    assert costs.per_layer["relu1_1"] == pytest.approx(style_cost / 3)
    assert costs.per_layer["relu1_1 content"] == pytest.approx(content_cost / 2)


def test_mean_reduction_keeps_the_balance_from_size_to_size(thin: Thin) -> None:
    """A picture tiled twice as often each way has four times the pixels, and the same costs up to its borders."""
    content, style, image = (np.tile(uniform(16, 16, 3, seed=seed), (6, 6, 1)) for seed in range(3))
    small, large = (
        StyleTransfer(
            tile(content), tile(style), weights=thin([[8, 8]]), device="cpu",
            content_layers={"relu1_2": 1.0}, style_layers={"relu1_1": 1.0},
            content_weight=1.0, style_weight=1.0, tv_weight=1.0,
        ).cost_and_gradient(tile(image).astype(np.float32))[0]
        for tile in (lambda x: x, lambda x: np.tile(x, (2, 2, 1)))
    )  # fmt: skip
    assert large.content == pytest.approx(small.content, rel=0.03)
    assert large.style == pytest.approx(small.style, rel=0.05)
    assert large.tv == pytest.approx(small.tv, rel=0.03)


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("shape", [ODD, (16, 16, 3), (17, 200, 3)])
def test_cpu_against_reference(thin: Thin, shape: Any, pooling: Any) -> None:
    content, style, image = uniform(*shape), uniform(50, 41, 3, seed=1), uniform(*shape, seed=2).astype(np.float32)
    results = {}
    for device in ("reference", "cpu"):
        transfer = StyleTransfer(content, style, weights=thin(), device=device, pooling=pooling)
        results[device] = transfer.cost_and_gradient(image)
    (costs, gradient), (costs64, gradient64) = results["cpu"], results["reference"]
    assert gradient.dtype == np.float32
    assert relative(gradient, gradient64) <= 1e-5
    assert costs.total == pytest.approx(costs64.total, rel=1e-5)
    assert dict(costs.per_layer) == pytest.approx(dict(costs64.per_layer), rel=1e-4)


def test_vgg19_shapes_on_cpu_against_reference() -> None:
    weights = nstgpu.load_weights("random:3")
    content, style, image = (
        uniform(35, 50, 3),
        uniform(48, 33, 3, seed=1),
        uniform(35, 50, 3, seed=2).astype(np.float32),
    )
    gradients = [
        StyleTransfer(content, style, weights=weights, device=device).cost_and_gradient(image)[1]
        for device in ("cpu", "reference")
    ]
    assert relative(*gradients) <= 1e-5


@pytest.mark.parametrize(("device", "tolerance"), [("reference", 1e-10), ("cpu", 1e-5)])
def test_golden_gram_gradient(shared_data: Path, device: str, tolerance: float) -> None:
    """Sum of mean(Gram^2) over three taps is our style cost against a black hole: a style whose Grams are zero."""
    golden = np.load(shared_data / "golden" / "golden_tubingen_256x192.npz")
    weights = nstgpu.load_weights(shared_data / "weights" / "vgg19_blocks1to3.h5")
    # The golden values were made with means rounded to float32.
    mean: Any = tuple(float(np.float32(value)) for value in weights.preprocessing.mean)
    weights = replace(weights, preprocessing=replace(weights.preprocessing, mean=mean))
    image = golden["rgb_uint8"] / 255
    layers = {f"relu{block}_1": 1.0 for block in (1, 2, 3)}
    transfer = StyleTransfer(
        image,
        image,
        weights=weights,
        device=device,
        content_layers={},
        style_layers=layers,
        style_weight=4.0,
        tv_weight=0.0,
    )
    for block in (1, 2, 3):
        target = transfer.objective()._held.styles["gram", f"relu{block}_1", 0].gram
        assert relative(transfer.device.download(target), golden[f"block{block}_conv1/gram"]) <= tolerance
        target[...] = 0
    costs, gradient = transfer.cost_and_gradient(image.astype(transfer.device.image_dtype))
    assert costs.total == pytest.approx(float(golden["loss"]), rel=tolerance)
    expected = golden["grad_sum_gram2"][0, ::-1].transpose(1, 2, 0) * 255
    # Of 13 million ReLUs and pools a handful lie within float32's rounding of their other choice, where the gradient
    # jumps; each shows in its receptive field of a few hundred pixels and nowhere else.
    errors = np.sort(np.square(gradient - expected).sum(axis=2), axis=None)
    settled = errors[: int(0.97 * errors.size)] if device == "cpu" else errors
    assert math.sqrt(settled.sum()) <= tolerance * np.linalg.norm(expected)
    assert math.sqrt(errors.sum()) <= 20 * tolerance * np.linalg.norm(expected)


def test_golden_activations(shared_data: Path) -> None:
    golden = np.load(shared_data / "golden" / "golden_tubingen_256x192.npz")
    weights = nstgpu.load_weights(shared_data / "weights" / "vgg19_blocks1to3.h5")
    taps = list(weights.taps)
    transfer = StyleTransfer(
        golden["rgb_uint8"], golden["rgb_uint8"], weights=weights, device="cpu", content_layers=taps, style_layers={}
    )
    for tap in taps:
        name = tap.replace("relu", "block").replace("_", "_conv")
        ours = transfer.device.download(transfer.objective()._held.content[tap])[::8, ::8].transpose(2, 0, 1)
        assert relative(ours[:, : 1 << 9, : 1 << 9], golden[f"{name}/sub8"]) <= 1e-5


@pytest.mark.parametrize("optimizer", ["adam", "descent"])
@pytest.mark.parametrize("init", ["content", "noise", "style"])
def test_a_run_lowers_the_cost_and_repeats_to_the_byte(thin: Thin, optimizer: str, init: str) -> None:
    def run() -> nstgpu.Result:
        transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3, seed=1), weights=thin(), device="cpu", seed=5)
        return transfer.run(iterations=12, optimizer=optimizer, init=init)

    first, second = run(), run()
    assert first.image.tobytes() == second.image.tobytes()
    assert first.history == second.history
    assert len(first.history) == 12
    assert first.history[-1].total < 0.8 * first.history[0].total
    assert 0 <= first.image.min() <= first.image.max() <= 1
    assert isinstance(first.history[0], Costs)


def test_descent_is_the_rule(thin: Thin) -> None:
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3, seed=1), weights=thin(), device="reference")
    start = 0.25 + 0.5 * uniform(24, 32, 3, seed=2)
    _, gradient = transfer.cost_and_gradient(start)
    rate = 0.1 / float(np.abs(gradient).max())
    result = transfer.run(iterations=1, optimizer="descent", learning_rate=rate, init=start)
    np.testing.assert_allclose(result.image, start - rate * gradient, rtol=1e-12)


def test_seed_changes_noise(thin: Thin) -> None:
    a, b = (
        StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin(), seed=seed).initial_image("noise")
        for seed in (1, 2)
    )
    assert not np.array_equal(a, b)


def test_init_from_a_file_is_resized(thin: Thin, tmp_path: Path) -> None:
    images.save(tmp_path / "start.png", np.full((10, 10, 3), 0.25, np.float32))
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    start = transfer.initial_image(tmp_path / "start.png")
    assert start.shape == (24, 32, 3)
    np.testing.assert_allclose(start, 64 / 255, atol=1e-5)


def test_arrays_are_left_alone_without_a_size_and_resized_with_one(thin: Thin) -> None:
    content = uniform(40, 60, 3)
    as_is = StyleTransfer(content, uniform(30, 30, 3), weights=thin(), device="reference")
    assert as_is.initial_image().tobytes() == content.tobytes()
    sized = StyleTransfer(content, uniform(30, 30, 3), weights=thin(), size=30)
    assert sized.shape == (20, 30, 3)


def test_callback_sees_progress_and_can_stop(thin: Thin) -> None:
    seen: list[Progress] = []

    def stop_at_three(progress: Progress) -> bool:
        seen.append(progress)
        return progress.iteration < 3

    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    result = transfer.run(iterations=50, on_iteration=stop_at_three)
    assert result.interrupted
    assert [progress.iteration for progress in seen] == [1, 2, 3]
    assert seen[-1].image().tobytes() == result.image.tobytes()


def test_ctrl_c_keeps_the_picture(thin: Thin) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    result = transfer.run(iterations=50, on_iteration=interrupt)
    assert result.interrupted
    assert len(result.history) == 2
    assert np.isfinite(result.image).all()


def test_a_real_ctrl_c_waits_for_the_iteration_and_a_second_one_does_not(thin: Thin) -> None:
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    times = {"first": 0, "second": 0}

    def press_once(progress: Progress) -> None:
        times["first"] = progress.iteration
        if progress.iteration == 3:
            signal.raise_signal(signal.SIGINT)  # noticed when the next iteration is complete

    result = transfer.run(iterations=50, on_iteration=press_once)
    assert result.interrupted
    assert len(result.history) == times["first"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def press_twice(progress: Progress) -> None:
        times["second"] = progress.iteration
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        times["second"] = 99  # not reached

    result = transfer.run(iterations=50, on_iteration=press_twice)
    assert result.interrupted
    assert times["second"] == 1
    assert len(result.history) == 1


def test_someone_elses_ctrl_c_handler_is_left_alone(thin: Thin) -> None:
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        seen: list[object] = []
        transfer.run(iterations=1, on_iteration=lambda _: seen.append(signal.getsignal(signal.SIGINT)))
        assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGINT, before)


def diverging(transfer: StyleTransfer, bad: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the cost overflow at those evaluations, counted from 1."""
    objective, count = transfer.objective(), [0]
    evaluate = objective.evaluate

    def overflow(image: Any, gradient: Any) -> CostsType:
        costs = evaluate(image, gradient)
        count[0] += 1
        layers = {"relu1_1": 0.0, "relu3_1": math.inf}
        return CostsType(math.inf, 0.0, math.inf, 0.0, layers) if bad(count[0]) else costs

    monkeypatch.setattr(objective, "evaluate", overflow)


def test_divergence_is_named_not_painted(thin: Thin, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    diverging(transfer, lambda count: count >= 3, monkeypatch)
    with pytest.raises(NonFiniteCostError, match=r"iteration 3 \(first at relu3_1\).*learning rate below 0.0025"):
        transfer.run(iterations=50)


def test_a_step_too_far_is_taken_back_at_half_the_rate(
    thin: Thin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    diverging(transfer, lambda count: count in (3, 4, 9), monkeypatch)
    result = transfer.run(iterations=10)
    assert len(result.history) == 10
    assert all(math.isfinite(costs.total) for costs in result.history)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert (
        "iteration 3 (first at relu3_1): back to the last good image, at half the learning rate (0.01)" in messages[0]
    )
    assert "learning rate 0.0025" in result.recipe["optimizer"]


def test_overflowing_weights_are_named_at_once(thin: Thin) -> None:
    weights = thin()
    huge = weights.convolutions[0].kernel * np.float32(1e30)
    first = type(weights.convolutions[0])(1, 1, huge, weights.convolutions[0].bias)
    weights = Weights("huge", "generated", (first, *weights.convolutions[1:]), weights.preprocessing, "")
    transfer = StyleTransfer(
        uniform(24, 32, 3), uniform(30, 30, 3), weights=weights, content_weight=1.0, style_weight=1.0
    )
    with np.errstate(all="ignore"), pytest.raises(NonFiniteCostError, match=r"iteration 1.*weights overflow"):
        transfer.run(iterations=5)


def test_default_taps_are_cut_to_the_weights_with_a_warning(thin: Thin) -> None:
    with pytest.warns(UserWarning, match=r"end at relu3_1.*not at relu4_1, relu5_1"):
        transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    assert list(transfer.style_layers) == ["relu1_1", "relu2_1", "relu3_1"]
    assert list(transfer.content_layers) == ["relu3_1"]


def test_recipe_and_saving(thin: Thin, tmp_path: Path) -> None:
    weights = thin()
    result = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=weights, seed=9).run(iterations=2)
    result.save(tmp_path / "out.png")
    recipe = images.read_recipe(tmp_path / "out.png")
    assert recipe == dict(result.recipe)
    assert recipe["weights sha256"] == weights.checksum
    assert recipe["seed"] == "9"
    assert recipe["nstgpu"] == nstgpu.__version__
    np.testing.assert_allclose(images.read(tmp_path / "out.png").pixels, result.image, atol=0.5 / 255 + 1e-6)


def test_alpha_follows_the_content(thin: Thin) -> None:
    content = np.dstack([uniform(24, 32, 3), np.linspace(0, 1, 24 * 32).reshape(24, 32)]).astype(np.float32)
    result = StyleTransfer(content, uniform(30, 30, 3), weights=thin(), size=16).run(iterations=1)
    assert result.alpha is not None
    assert result.alpha.shape == (12, 16)
    assert result.alpha[0, 0] < 0.1 < 0.9 < result.alpha[-1, -1]


def test_canonical_names() -> None:
    assert canonical("block4_conv2") == canonical("relu4_2") == "relu4_2"
    for wrong, right in (
        ("conv4_2", "write 'relu4_2'"),
        ("relu42", "write 'relu4_2'"),
        ("relu4_2x", "relu1_1"),
        ("", "relu1_1"),
    ):
        with pytest.raises(SettingsError, match=right):
            canonical(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style_layers": {"relu9_1": 1.0}}, "relu1_1, relu1_2"),
        ({"style_layers": {"relu1_1": -1.0}}, "finite number, zero or more"),
        ({"style_layers": {"relu1_1": math.nan}}, "finite number, zero or more"),
        ({"style_layers": {"relu1_1": 1.0, "block1_conv1": 1.0}}, "given twice"),
        ({"style_layers": {}, "content_layers": {}}, "weigh nothing"),
        ({"style_weight": 0.0, "content_weight": 0.0}, "weigh nothing"),
        ({"style_weight": math.inf}, "style_weight is inf"),
        ({"tv_weight": -0.5}, "tv_weight is -0.5"),
        ({"content_reduction": "median"}, "mean or sum"),
        ({"pooling": "l2"}, "max or average"),
        ({"size": 0}, "at least 1 pixel"),
        ({"size": 3}, "too small"),
        ({"style_scale": 0.0}, "scale of the style"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_named(thin: Thin, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin(), **settings)
    assert "\n" not in str(caught.value)


def test_panoramas_begin_at_the_first_scale_that_carries_the_layers(thin: Thin) -> None:
    """The third block of the network needs four pixels on the short side."""
    wide, square = uniform(8, 96, 3), uniform(60, 64, 3)
    flat = StyleTransfer(wide, square, weights=thin(), device="cpu", threads=1)
    assert [scale.long_side for scale in flat.plan(1, min_size=16)] == [48, 68, 96]
    result = flat.run(1, min_size=16)
    assert [done.size for done in result.scales] == [(4, 48), (6, 68), (8, 96)]
    assert result.recipe["scales"] == "48 px x 1, 68 px x 1, 96 px x 1"
    thin_style = StyleTransfer(square, wide, weights=thin(), device="cpu", threads=1)
    assert [scale.long_side for scale in thin_style.plan(1, min_size=16)] == [32, 45, 64]
    with pytest.raises(SettingsError, match=r"at 34 px, where the content image is 34x3 px, .*; ask for 3 at most"):
        flat.plan(1, min_size=16, count=4)


@pytest.mark.parametrize(
    ("content", "style", "settings", "message"),
    [
        ((3, 96), (60, 64), {}, r"the content image is 96x3 px, .* needs 4 px .*a size of 112"),
        ((60, 64), (3, 96), {}, r"the style image is 96x3 px, too small for relu3_1, .*a style scale of 1.17"),
        ((60, 64), (8, 96), {"size": 32}, r"the style image is 32x3 px, .*a style scale of 1.32"),
    ],
)
def test_what_is_too_small_is_named_with_what_would_do(
    thin: Thin, content: tuple[int, int], style: tuple[int, int], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        StyleTransfer(uniform(*content, 3), uniform(*style, 3), weights=thin(), device="cpu", **settings)
    # And that does do.
    larger = settings | ({"size": 112} if content[0] == 3 else {"style_scale": float(message[-4:])})
    StyleTransfer(uniform(*content, 3), uniform(*style, 3), weights=thin(), device="cpu", **larger)


def test_wrong_devices_and_images_are_named(thin: Thin) -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin(), device="tpu")
    transfer = StyleTransfer(uniform(24, 32, 3), uniform(30, 30, 3), weights=thin())
    for wrong in (uniform(24, 31, 3), np.zeros((24, 32, 3), np.uint8), np.full((24, 32, 3), np.nan)):
        with pytest.raises(SettingsError, match=r"must be \(24, 32, 3\)"):
            transfer.cost_and_gradient(wrong)
    with pytest.raises(SettingsError, match="adam, lbfgs, descent"):
        transfer.run(optimizer="sgd")
    with pytest.raises(SettingsError, match="learning rate is 0"):
        transfer.run(learning_rate=0.0)
    with pytest.raises(SettingsError, match="at least 1"):
        transfer.run(iterations=0)
    with pytest.raises(images.ImageError):
        transfer.run(init="nowhere.png")


@pytest.mark.parametrize("scale", [1e308, 1e20, 1e6])
def test_a_style_scale_beyond_all_sizes_is_refused_in_words(scale: float) -> None:
    pixels = np.random.default_rng(0).random((32, 40, 3))
    with pytest.raises(
        nstgpu.SettingsError, match=r"style_scale is 1e\+\d+, which makes the style .* at most 1048576 are possible"
    ):
        nstgpu.StyleTransfer(pixels, nstgpu.Style(pixels, scale=scale), weights="random:0", device="reference", size=32)
