"""Style targets that are kept are the ones that would be measured, to the last bit, whatever the content."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.pictures import soft_mask, waves
from nstgpu.engine.costs import targets
from nstgpu.engine.costs.known_targets import Known, KnownTargets
from nstgpu.engine.inputs import Opened
from nstgpu.engine.transfer import Style, StyleTransfer
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


def painted(content: int, device: Any, weights: Weights, size: tuple[int, int] = (24, 32), **settings: Any) -> Any:
    styles = [Style(waves(1, 30, 26)), Style(waves(2, 20, 28), weight=0.5, region=soft_mask(3, 20, 28))]
    transfer = StyleTransfer(waves(content, *size), styles, weights=weights, device=device, **settings)
    return transfer.run(iterations=2, min_size=20, scales=2).image


@pytest.mark.parametrize(
    "settings",
    [{"style_statistics": name} for name in ("gram", "moments", "w2", "sliced", "neighbors")]
    + [{"style_statistics": "gram+w2", "tile": 16}, {"colors": "match"}],
    ids=str,
)
def test_the_next_picture_has_the_bytes_of_one_alone(
    thin: Callable[..., Weights], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    weights, measured = thin(), []
    real = targets.measure_style

    def noted(*arguments: Any) -> Any:
        measured.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(targets, "measure_style", noted)
    opened = Opened("cpu", "auto", 1)
    painted(10, opened, weights, **settings)
    first = len(measured)
    shared = painted(11, opened, weights, **settings)
    wide = painted(12, opened, weights, (32, 24), **settings)
    again = len(measured) - first
    assert first == 4  # two styles at two scales
    assert again == (8 if settings.get("colors") == "match" else 0)  # there the content's colors are in the styles
    assert np.array_equal(shared, painted(11, "cpu", weights, threads=1, **settings))
    assert np.array_equal(wide, painted(12, "cpu", weights, (32, 24), threads=1, **settings))


def test_another_network_is_another_target(thin: Callable[..., Weights]) -> None:
    opened = Opened("cpu", "auto", 1)
    for seed in (0, 1):
        shared = painted(10, opened, thin(seed=seed))
        assert np.array_equal(shared, painted(10, "cpu", thin(seed=seed), threads=1))
    shared = painted(10, opened, thin(), pooling="average")
    assert np.array_equal(shared, painted(10, "cpu", thin(), threads=1, pooling="average"))


def test_what_was_used_longest_ago_goes_first() -> None:
    kept = KnownTargets(most_bytes=100)
    for name in "abc":
        kept.keep(name, {("gram", "relu1_1"): Known(1.0, {"gram": np.zeros(40, np.uint8)})})
        kept.find("a")
    assert [name for name in "abc" if kept.find(name) is not None] == ["a", "c"]
    kept.keep("large", {("gram", "relu1_1"): Known(1.0, {"gram": np.zeros(101, np.uint8)})})
    assert kept.find("large") is None
