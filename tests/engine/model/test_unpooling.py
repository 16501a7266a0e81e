"""Back through a convolution and the pool before it in one operation: the same gradient, on a device that says it can,
and only where nothing else enters before the pool and the pool chooses."""

from typing import Any

import numpy as np
import pytest

from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels.reference import Reference
from nstgpu.weights import load_weights


class Unpooling(Reference):
    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.apart = 0

    def unpools(self, filters: Any) -> bool:  # noqa: ARG002
        return True

    def conv3x3_unpooled_gradient(self, *args: Any, **kwargs: Any) -> None:
        self.at_once += 1
        super().conv3x3_unpooled_gradient(*args, **kwargs)
        self.apart -= 1  # the one that this does

    def pool_input_gradient(self, *args: Any, **kwargs: Any) -> None:
        self.apart += 1
        super().pool_input_gradient(*args, **kwargs)


def gradient_on(device: Reference, settings: dict[str, Any]) -> Any:
    pictures = np.random.default_rng(0).random((3, 37, 22, 3))
    layers = {"content_layers": {"relu3_1": 1.0}, "style_layers": {"relu1_1": 1.0, "relu2_1": 2.0}} | settings
    transfer = StyleTransfer(*pictures[:2], weights=load_weights("random:1"), device=device, **layers)
    return transfer.cost_and_gradient(pictures[2])[1]


@pytest.mark.parametrize(
    ("settings", "at_once", "apart"),
    [
        ({}, 2, 0),
        ({"tile": 16}, 12, 0),
        ({"style_layers": {"relu1_2": 1.0}}, 1, 1),  # enters before a pool
        ({"pooling": "average"}, 0, 2),
    ],
    ids=str,
)
def test_the_gradient_is_the_same(settings: dict[str, Any], at_once: int, apart: int) -> None:
    device = Unpooling()
    np.testing.assert_array_equal(gradient_on(device, settings), gradient_on(Reference(), settings))
    assert (device.at_once, device.apart) == (at_once, apart)
