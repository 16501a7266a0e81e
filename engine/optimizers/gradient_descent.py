"""Plain gradient descent."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..costs.terms import Costs
from ..memory.spill import bands
from .base import Evaluate, OptimizerSpec

DESCENT_FIRST_STEP = 0.02  # how far plain descent moves the pixel with the steepest gradient in its first step


class GradientDescent:
    """G := G - eta dJ/dG. Without a learning rate, eta is taken from the first gradient and kept."""

    stalled = False

    def __init__(self, device: Device, shape: tuple[int, ...], learning_rate: float | None) -> None:  # noqa: ARG002
        self.device = device
        self.learning_rate = math.nan if learning_rate is None else learning_rate

    def step(self, evaluate: Evaluate, image: Array, gradient: Array, costs: Costs) -> None:  # noqa: ARG002
        if math.isnan(self.learning_rate):
            parts = (self.device.download(gradient[rows]) for rows in bands(gradient.shape))
            steepest = max(float(np.abs(part).max()) for part in parts)
            self.learning_rate = DESCENT_FIRST_STEP / steepest if steepest > 0 else 0.0
        self.device.descent_step(image, gradient, learning_rate=self.learning_rate)

    def reset(self) -> None:
        pass

    def state(self) -> dict[str, NDArray[Any]]:
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        pass

    def rescaled_to(self, shape: tuple[int, ...]) -> "GradientDescent":
        return GradientDescent(self.device, shape, self.learning_rate)


SPEC = OptimizerSpec(GradientDescent, state_images=0, state_names=frozenset())
