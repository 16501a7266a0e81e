"""Scales that end early, styles of a size in pixels, and noise to begin with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nstgpu import Progress, RunState, Settled, Style, StyleTransfer
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers.settling import DELAY, Watch
from nstgpu.weights import Weights

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")


def make(thin: Thin, style: Any = None, **settings: Any) -> StyleTransfer:
    rng = np.random.default_rng(0)
    content = rng.random((24, 32, 3)).astype(np.float32)
    style = rng.random((20, 40, 3)) if style is None else style
    return StyleTransfer(content, style, weights=thin(((8,), (8,))), device="cpu", threads=1, **settings)


def test_settled_is_judged_by_the_lowest_cost() -> None:
    falling, flat = [2.0**-number for number in range(10)], [2.0**-9 * 0.9999] * 20
    settled = Settled(0.01, 4)
    # Iteration 13 is the first whose lowest cost is less than a hundredth below that of four iterations before.

    def length(costs: list[float], planned: int) -> int:
        return Watch(settled, planned, costs).end

    whole = length(falling + flat, 100)
    assert whole == 10 + 4 + DELAY
    jumping = [cost * (50 if number % 2 else 1) for number, cost in enumerate(falling)]
    assert length(jumping + flat, 100) == whole + 1  # its tenth jumped
    assert length(falling, 10) == 10
    assert length(falling + flat, 15) == 15
    assert Watch(settled, 100, falling + flat, before=7).end == 7 + whole
    assert Watch(None, 100, falling + flat).end == 100


@pytest.mark.parametrize("wrong", [{"fall": 0.0}, {"fall": 1.0}, {"fall": float("nan")}, {"iterations": 0}])
def test_what_is_no_fall_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="settled"):
        Settled(**wrong)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_settled_scale_ends_early_and_resumes_to_the_same_bytes(thin: Thin, optimizer: str) -> None:
    states: list[RunState] = []
    run: dict[str, Any] = {
        "iterations": 60, "min_size": 16, "scales": 2, "optimizer": optimizer, "settled": Settled(0.2, 4)
    }  # fmt: skip

    def keep(progress: Progress) -> None:
        states.append(progress.state())

    whole = make(thin).run(**run, on_iteration=keep)
    assert not whole.interrupted
    first, last = (scale.iterations for scale in whole.scales)
    assert 4 < first < 60
    assert 4 < last < 60
    assert len(whole.history) == first + last
    assert whole.recipe["settled"] == "a fall below 0.2 in 4 iterations"
    totals = [costs.total for costs in whole.history[:first]]
    assert Watch(run["settled"], 60, totals + [1e9] * 60).end == first
    for state in (states[2], states[first - 2], states[first - 1], states[first], states[-1]):
        again = make(thin).run(**run, resume=state)
        assert again.image.tobytes() == whole.image.tobytes()
        assert again.history == whole.history
        assert [scale.iterations for scale in again.scales] == [first, last]
    with pytest.raises(SettingsError, match="other pictures"):
        make(thin).run(**{**run, "settled": None}, resume=states[0])


def test_a_style_has_a_size_in_pixels(thin: Thin) -> None:
    rng = np.random.default_rng(1)
    picture = rng.random((20, 40, 3))
    sized = make(thin, Style(picture, size=30), size=32)
    assert sized.objective().styles[0].pixels.shape == (15, 30, 3)
    assert sized.objective((12, 16)).styles[0].pixels.shape == (8, 15, 3)  # at half the size half of it
    assert make(thin, Style(picture, size=30)).objective().styles[0].pixels.shape == (15, 30, 3)
    assert make(thin, Style(picture, size=30)).run(1, scales=1).recipe["style size"] == "30 px"
    for wrong in (Style(picture, size=0), Style(picture, size=30, scale=2.0)):
        with pytest.raises(SettingsError, match="the size of the style"):
            make(thin, wrong)


def test_noise_is_mixed_in(thin: Thin) -> None:
    transfer = make(thin, seed=5)
    start, noise = transfer.initial_image("content"), transfer.initial_image("noise")
    np.testing.assert_allclose(transfer.initial_image("content", noise=0.3), 0.7 * start + 0.3 * noise, atol=1e-7)
    np.testing.assert_array_equal(transfer.initial_image("content", noise=1.0), noise)
    np.testing.assert_array_equal(transfer.initial_image("content", noise=0.0), start)
    result = transfer.run(2, scales=1, noise=0.3)
    assert result.recipe["init"] == "content, 0.3 noise"
    assert result.image.tobytes() == make(thin, seed=5).run(2, scales=1, noise=0.3).image.tobytes()
    assert result.image.tobytes() != make(thin, seed=6).run(2, scales=1, noise=0.3).image.tobytes()
    with pytest.raises(SettingsError, match="share of noise"):
        transfer.run(2, noise=1.5)
