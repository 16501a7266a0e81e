"""What an optimizer is: a rule for a step, with its state on the device."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from ...kernels.device import Array
from ..costs.terms import Costs

Evaluate = Callable[[Array, Array], Costs]
"""Writes the gradient at an image to its second argument and returns the costs."""


class Optimizer(Protocol):
    """A rule for a step, with its state on the device."""

    learning_rate: float
    stalled: bool
    """Whether no step lowers the cost any more."""

    def step(self, evaluate: Evaluate, image: Array, gradient: Array, costs: Costs) -> Costs | None:
        """Moves the image one step within [0, 1], in place, from the costs and gradient at it.

        Returns the costs at the new image if they are known, and then leaves its gradient in `gradient`.
        """

    def reset(self) -> None:
        """Starts anew, as if no step had been taken; the learning rate stays."""

    def state(self) -> dict[str, NDArray[Any]]:
        """All it remembers, in host memory."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from what `state` returned, to the last bit."""

    def rescaled_to(self, shape: tuple[int, ...]) -> "Optimizer":
        """The same for images of another size: what it remembers is resized where that makes sense."""
