"""Several style statistics at once: how they are written, that their cost is the weighted sum of their own, and that
devices agree."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.statistics import registry
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.style import Style
from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels import open_device
from nstgpu.kernels.errors import DeviceError
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps
Thin = Callable[..., Weights]
LEFT = np.repeat([[1.0] * 20 + [0.0] * 20], 32, axis=0)


def made(thin: Thin, statistics: Any, **settings: Any) -> StyleTransfer:
    rng = np.random.default_rng(0)
    content, style = rng.random((32, 40, 3)), rng.random((30, 36, 3))
    styles = settings.pop("style", [Style(style, weight=2.0), style[::-1]])
    settings = {"device": "reference", "pooling": "average", **settings}
    return StyleTransfer(content, styles, weights=thin(), style_statistics=statistics, **settings)


@pytest.mark.parametrize(
    ("given", "shares", "spelled"),
    [
        ("gram", {"gram": 1.0}, "gram"),
        ("gram=7", {"gram": 1.0}, "gram"),
        ("gram+w2", {"gram": 0.5, "w2": 0.5}, "gram+w2"),
        (" w2 + gram ", {"w2": 0.5, "gram": 0.5}, "w2+gram"),
        ("gram=1,w2=3", {"gram": 0.25, "w2": 0.75}, "gram=1,w2=3"),
        ("gram=1e+2,w2=3E2", {"gram": 0.25, "w2": 0.75}, "gram=100,w2=300"),
        ("gram,moments=2", {"gram": 1 / 3, "moments": 2 / 3}, "gram=1,moments=2"),
        ({"moments": 1e308, "w2": 1e308}, {"moments": 0.5, "w2": 0.5}, "moments+w2"),
    ],
)  # fmt: skip
def test_how_several_are_written(given: Any, shares: dict[str, float], spelled: str) -> None:
    assert registry.parse(given) == pytest.approx(shares, rel=1e-15)
    assert list(registry.parse(given)) == list(shares)
    assert registry.spelled(given) == spelled
    assert registry.parse(spelled) == pytest.approx(shares, rel=1e-15)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("grim", "unknown style statistics 'grim'; choose gram, moments.*, or several, as in gram"),
        ("gram+", r"unknown style statistics 'gram\+'"),
        ("gram+gram", "the style statistics gram are given twice"),
        ("gram=1,w2=0", "the weight of the style statistics w2 is 0; it must be above zero"),
        ("gram=1,w2=-1", "is -1; it must be above zero"),
        ("gram=nan", "is nan; it must be above zero"),
        ("gram=1,w2=inf", "is inf; it must be above zero"),
        ("gram=1,w2=", "statistics w2 is ; it must be above zero"),
        ("gram=1,w2=much", "is much; it must be above zero"),
        ("gram=1e-320,w2=1e300", "gram is too small beside the others"),
        ({"gram": None}, "is None; it must be above zero"),
        ("", "no style statistics are given"),
        ({}, "no style statistics are given"),
    ],
)
def test_what_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as error:
        registry.parse(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("settings", [{}, {"tile": 16}, {"masked": True}], ids=["whole", "tiles", "masks"])
def test_a_combination_is_the_weighted_sum_of_its_parts(thin: Thin, settings: dict[str, Any]) -> None:
    settings = dict(settings)
    if settings.pop("masked", False):
        pictures = np.random.default_rng(3).random((2, 30, 36, 3))
        settings["style"] = [Style(pictures[0], mask=LEFT), Style(pictures[1])]
    plain = {"content_layers": {}, "content_weight": 0.0, "tv_weight": 0.0}
    together = made(thin, "gram=1,w2=3,moments=2", **settings, **plain)
    image = together.initial_image("noise")
    costs, gradient = together.cost_and_gradient(image)
    style, expected = dict.fromkeys(together.style_layers, 0.0), np.zeros_like(gradient)
    weights = {"style_weight": together.style_weight, "style_layers": dict(together.style_layers)}
    for name, factors in together.weighting.statistics.items():
        layers = {tap: weight * factors[tap] for tap, weight in together.style_layers.items()}
        alone = made(thin, name, **settings, **plain, **{**weights, "style_layers": layers})
        own, part = alone.cost_and_gradient(image)
        expected += part
        for tap in style:
            style[tap] += factors[tap] * own.per_layer[tap]
    assert costs.per_layer == pytest.approx(style, rel=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_each_counts_by_its_share_on_an_image_without_features(thin: Thin) -> None:
    transfer = made(thin, "gram=1,w2=3")
    energies, factors = transfer.objective().style_energies(), transfer.weighting.statistics
    for tap, energy in energies["gram"].items():
        parts = [factors[name][tap] * energies[name][tap] for name in ("gram", "w2")]
        assert parts == pytest.approx([0.25 * energy, 0.75 * energy], rel=1e-5)
    assert transfer.style_statistics == "gram=1,w2=3"
    assert transfer.style_layers == made(thin, "gram").style_layers


def test_a_run_of_several_resumes_to_the_same_bytes_and_tells_itself_from_others(thin: Thin) -> None:
    states: list[RunState] = []

    def keep(progress: Progress) -> None:
        if progress.iteration == 5:
            states.append(progress.state())

    def new(statistics: str = "gram+w2") -> StyleTransfer:
        return made(thin, statistics, device="cpu", threads=1)

    whole = new().run([3, 4], min_size=20, scales=2, on_iteration=keep)
    again = new().run([3, 4], min_size=20, scales=2, resume=states[0])
    assert again.image.tobytes() == whole.image.tobytes()
    assert whole.recipe["style statistics"] == "gram+w2"
    for other in ("gram", "gram=1,w2=2"):
        with pytest.raises(SettingsError, match="other pictures, weights or settings"):
            new(other).run([3, 4], min_size=20, scales=2, resume=states[0])


@pytest.mark.parametrize("statistics", ["gram+neighbors", "sliced"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_emulator_agrees_with_the_reference(thin: Thin, precision: str, statistics: str) -> None:
    try:
        device = open_device("emulator", precision)
    except DeviceError as error:
        pytest.skip(str(error))
    pictures = np.random.default_rng(0).random((3, 32, 40, 3)).astype(np.float32)
    results = []
    for each in (device, open_device("reference")):
        transfer = StyleTransfer(
            pictures[0], pictures[1], weights=thin(((8,), (16,))), device=each, style_statistics=statistics,
            content_layers=["relu1_1"], style_layers=["relu1_1", "relu2_1"],
        )  # fmt: skip
        results.append(transfer.cost_and_gradient(pictures[2]))
    (costs, gradient), (right, expected) = results
    budget = {"fp32": 1e-5, "bf16": 2e-2}[precision]
    assert costs.style == pytest.approx(right.style, rel=budget)
    # To sliced, pixels that are alike change places by rounding: a gradient moves by as much as the gap between ranks.
    assert np.linalg.norm(gradient - expected) <= 4 * budget * np.linalg.norm(expected)
