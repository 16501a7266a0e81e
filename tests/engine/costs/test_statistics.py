"""Adding a style statistic is one module and one line: this file is the module, and a fixture adds the line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.statistics import registry
from nstgpu.engine.costs.statistics.base import SeenTile, Statistic, StyleTerm, TapShape
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels.device import Array, Device
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


@dataclass(frozen=True, eq=False)
class Mean:
    mean: Array


@dataclass(frozen=True, eq=False)
class Errors:
    nothing: Array
    """(C, C) zeros: `style_gradient` wants a matrix."""
    mean: Array


class OfMeans(Statistic[Mean, Mean, Errors]):
    """1/(2 nC) |m(S) - m(G)|^2."""

    def target(self, device: Device, shape: TapShape) -> Mean:
        return self.sums(device, shape.channels)

    def sums(self, device: Device, channels: int) -> Mean:
        return Mean(((channels,), device.image_dtype))

    def errors(self, device: Device, shape: TapShape) -> Errors:
        channels = shape.channels
        return Errors(((channels, channels), device.image_dtype), ((channels,), device.image_dtype))

    def gather_target(self, device: Device, seen: SeenTile, target: Mean, partial: Mean | None) -> None:
        self.gather(device, seen, target, partial)

    def finish_target(self, device: Device, target: Mean, scratch: Array | None) -> tuple[float, Mean]:
        assert scratch is None
        return float(np.square(device.download(target.mean)).mean()) / 2, target

    def measure(self, device: Device, features: Array, weights: Array | None, out: Mean) -> None:
        device.mean(features, out.mean, weights=weights)

    def compare(self, device: Device, term: StyleTerm[Mean, Mean, Errors]) -> None:
        total = np.zeros(term.channels)
        for style in term.targets:
            error = device.download(term.sums.mean) - device.download(style.target.mean)
            device.upload(np.square(error).mean(keepdims=True) / 2, style.cost)
            total += term.weight * style.share / (term.channels * term.pixels) * error
        device.zero(term.errors.nothing)
        device.upload(total, term.errors.mean)

    def add_gradient(
        self, device: Device, term: StyleTerm[Mean, Mean, Errors], seen: SeenTile, out: Array, accumulate: bool
    ) -> None:
        errors = term.errors
        device.style_gradient(
            seen.features, errors.nothing, out=out, accumulate=accumulate, mean_error=errors.mean, weights=seen.weights
        )


STATISTIC = OfMeans()


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry.STATISTICS, "means", __name__)
    return "means"


def made(thin: Callable[..., Weights], **settings: Any) -> StyleTransfer:
    rng = np.random.default_rng(0)
    content, style = rng.random((32, 40, 3)), rng.random((30, 36, 3))
    if settings.get("device", "reference") != "reference":
        content, style = content.astype(np.float32), style.astype(np.float32)
    return StyleTransfer(content, [style, style[::-1]], weights=thin(), **{"device": "reference", **settings})


def test_its_gradient_is_that_of_its_cost(thin: Callable[..., Weights], means: str) -> None:
    transfer = made(thin, style_statistics=means, pooling="average")
    image = transfer.initial_image("noise").astype(np.float64)
    direction = np.random.default_rng(1).normal(size=image.shape)
    _, gradient = transfer.cost_and_gradient(image)
    step = 1e-6
    ahead, behind = (transfer.cost_and_gradient(image + sign * step * direction)[0].total for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float(np.sum(gradient * direction)), rel=1e-6)
    plain = made(thin, style_statistics="gram", pooling="average").cost_and_gradient(image)[0]
    assert plain.style != transfer.cost_and_gradient(image)[0].style


def test_it_is_the_same_in_tiles_and_on_several_devices(thin: Callable[..., Weights], means: str) -> None:
    whole = made(thin, style_statistics=means)
    image = whole.initial_image("noise")
    costs, gradient = whole.cost_and_gradient(image)
    in_tiles, tiled = made(thin, style_statistics=means, tile=16).cost_and_gradient(image)
    assert in_tiles.style == pytest.approx(costs.style, rel=1e-10)
    np.testing.assert_allclose(tiled, gradient, rtol=0, atol=1e-10 * np.abs(gradient).max())
    cpu = {"style_statistics": means, "tile": 16, "threads": 1}
    image = image.astype(np.float32)
    alone, together = (made(thin, device=device, **cpu).cost_and_gradient(image) for device in ("cpu", "cpu:0,1"))
    assert alone[0].total == together[0].total
    np.testing.assert_array_equal(alone[1], together[1])


def test_the_registry_is_what_is_asked(means: str) -> None:
    assert registry.choices().endswith(" or means")
    registry.parse(means)
    with pytest.raises(SettingsError, match=r"'grim'; choose gram, moments.* or means, or several"):
        registry.parse("grim")
