"""Adam, its moments on the device."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..costs.terms import Costs
from ..memory.arena import Buffer, allocate
from ..memory.spill import bands, fetched
from .base import Evaluate, OptimizerSpec

ADAM_LEARNING_RATE = 0.02  # of the range of a pixel, per step


class Adam:
    """Adam (Kingma & Ba 2015), with a second moment that forgets faster than usual: the cost is not stochastic."""

    beta1, beta2, epsilon = 0.9, 0.99, 1e-8
    stalled = False

    def __init__(self, device: Device, shape: tuple[int, ...], learning_rate: float | None) -> None:
        self.device, self.shape = device, shape
        self.learning_rate = ADAM_LEARNING_RATE if learning_rate is None else learning_rate
        self._held = allocate(
            device,
            [
                Buffer("first", shape, device.image_dtype, 0, 0),
                Buffer("second", shape, device.image_dtype, 0, 0),
                Buffer("step", (1,), np.dtype(np.int32), 0, 0),
            ],
            "the optimiser's state",
        )
        self.reset()

    def step(self, evaluate: Evaluate, image: Array, gradient: Array, costs: Costs) -> None:  # noqa: ARG002
        self.device.adam_step(image, gradient, **self.moments, **self.rates)

    @property
    def moments(self) -> dict[str, Array]:
        """`first`, `second` and `step`, on the device."""
        return dict(self._held)

    @property
    def rates(self) -> dict[str, float]:
        """What `Device.adam_step` is told besides."""
        return {
            "learning_rate": self.learning_rate, "beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon
        }  # fmt: skip

    def reset(self) -> None:
        for buffer in self._held.values():
            self.device.zero(buffer)

    def state(self) -> dict[str, NDArray[Any]]:
        return {name: fetched(self.device, buffer) for name, buffer in self._held.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, buffer in self._held.items():
            self.device.upload(state[name], buffer)

    def rescaled_to(self, shape: tuple[int, ...]) -> "Adam":
        """Both moments resized, and scaled as a gradient per pixel is: by the ratio of the pixel counts."""
        larger, device = Adam(self.device, shape, self.learning_rate), self.device
        share = math.prod(self.shape) / math.prod(shape)
        device.copy(self._held["step"], larger._held["step"])
        for name, factor in (("first", share), ("second", share**2)):
            moment = larger._held[name]
            device.resize(self._held[name], moment)
            for rows in bands(shape):
                values = device.download(moment[rows]) * factor
                # Lanczos overshoots, and no square is below zero.
                device.upload(np.maximum(values, 0) if name == "second" else values, moment[rows])
        return larger


SPEC = OptimizerSpec(
    Adam,
    state_images=2,
    state_names=frozenset({"first", "second", "step"}),
    averaged=True,
    graphable=True,
    learning_rate=ADAM_LEARNING_RATE,
)
