"""What an optimizer is: a rule for a step, with its state on the device; and what the program must know of each.

`registry` lists them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from ...kernels.device import Array, Device
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


class GraphableOptimizer(Optimizer, Protocol):
    """One whose step is `Device.adam_step(image, gradient, **moments, **rates)` and nothing else."""

    @property
    def moments(self) -> dict[str, Array]:
        """`first`, `second` and `step`, on the device."""

    @property
    def rates(self) -> dict[str, float]:
        """What `Device.adam_step` is told besides."""


@dataclass(frozen=True)
class OptimizerSpec:
    """What the program must know of an optimizer before it makes one."""

    make: Callable[[Device, tuple[int, ...], float | None], Optimizer]
    """From the device, the image's shape, and the learning rate; None takes the optimizer's own."""
    state_images: int
    """Images' worth of memory that it keeps."""
    state_names: frozenset[str]
    """The keys of its `state`."""
    averaged: bool = False
    """Whether its iterates are averaged where nothing else is asked for: they wander, instead of going downhill."""
    graphable: bool = False
    """Whether it is a `GraphableOptimizer`, so that its iterations can be a graph."""
    searches: bool = False
    """Whether a step evaluates the cost more than once, so that its time cannot be foretold."""
    learning_rate: float | None = None
    """Its own, where that is one number for all pictures; None: it is measured."""
