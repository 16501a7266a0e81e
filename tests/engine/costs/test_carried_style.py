"""A style's gradient that the convolution behind its tap takes along: the same gradient with fewer operations, on a
device that says it can, and only where nothing else enters there."""

from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.objective import Objective
from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels.device import StylePlace
from nstgpu.kernels.reference import Reference
from nstgpu.weights import load_weights

STYLE = {"relu1_1": 1.0, "relu2_1": 2.0, "relu3_1": 0.5}


class Carrying(Reference):
    """Takes styles along: in place of up to `most` channels, beside them beyond."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.alone = self.along = 0

    def carries_style(self, filters: Any) -> StylePlace | None:
        return "in place" if filters.kernel.shape[2] <= self.most else "beside"

    def style_gradient(self, *args: Any, **kwargs: Any) -> None:
        self.alone += 1
        super().style_gradient(*args, **kwargs)

    def conv3x3_input_gradient(self, *args: Any, **kwargs: Any) -> None:
        self.along += kwargs.get("features") is not None
        super().conv3x3_input_gradient(*args, **kwargs)


def objective_on(device: Reference, **settings: Any) -> Objective:
    pictures = np.random.default_rng(0).random((3, 24, 20, 3))
    settings = {"content_layers": {"relu2_2": 1.0}, "style_layers": STYLE} | settings
    return StyleTransfer(*pictures[:2], weights=load_weights("mini"), device=device, **settings).objective()


def gradient_on(device: Reference, **settings: Any) -> tuple[Any, Any]:
    objective = objective_on(device, **settings)
    costs = objective.evaluate(np.random.default_rng(1).random((24, 20, 3)), objective.gradient)
    return costs.total, np.array(objective.gradient)


@pytest.mark.parametrize("most", [0, 16, 64])
def test_the_gradient_is_the_same(most: int) -> None:
    carrying = Carrying(most)
    cost, gradient = gradient_on(carrying)
    expected_cost, expected = gradient_on(Reference())
    np.testing.assert_allclose(cost, expected_cost, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    assert (carrying.along, carrying.alone) == (2, 1), "the deepest tap has no convolution behind it"


@pytest.mark.parametrize(
    ("settings", "along"),
    [
        ({"content_layers": {"relu1_1": 1.0}}, 1),  # something else enters at one of the taps
        ({"style_statistics": "moments"}, 0),  # wants a shift
        ({"tile": 16}, 0),  # wants weights
    ],
    ids=str,
)
def test_where_more_is_wanted_it_stays_apart(settings: dict[str, Any], along: int) -> None:
    carrying = Carrying(64)
    cost, gradient = gradient_on(carrying, **settings)
    expected_cost, expected = gradient_on(Reference(), **settings)
    np.testing.assert_allclose(cost, expected_cost, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    assert carrying.along == along


def test_in_place_takes_no_more_memory() -> None:
    """The features' buffer becomes the gradient's."""
    plans = [objective_on(device).memory_plan for device in (Carrying(64), Reference())]
    carried, apart = (plan.arena(plan.whole()) for plan in plans)
    assert carried <= apart
