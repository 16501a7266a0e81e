"""The loop: evaluate, step, average, report.

Works on buffers of a device and on any function that evaluates the cost; what the cost is, is left to `transfer`.
"""

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ...kernels.device import Array, Device
from ..costs.terms import Costs
from ..errors import NonFiniteCostError, SettingsError
from .base import Evaluate, Optimizer

RETRIES = 3
"""How often in a row a step that led to a cost that is not finite is taken back and halved."""


def check_average(decay: float | None) -> None:
    """Raises SettingsError for what is no decay of an average."""
    if decay is not None and not 0 <= decay < 1:
        raise SettingsError(f"the average's decay is {decay}; it must be at least 0 and below 1")


def check_noise(share: float) -> None:
    """Raises SettingsError for what is no share of noise to begin with."""
    if not 0 <= share <= 1:
        raise SettingsError(f"the share of noise is {share}; it must be from 0 to 1")


@dataclass(eq=False)
class OptimizationLoop:
    """An image on its way down at one size: everything that changes from one iteration to the next.

    What is shown and kept is `average`, an exponential average of the iterates; the first one weighs no more than the
    others (the bias correction of Kingma & Ba). With a decay of 0 it is the iterate itself.
    """

    device: Device
    optimizer: Optimizer
    image: Array
    average: Array
    decay: float
    iteration: int = 0
    """Done at this size."""
    failures: int = 0
    """In a row."""
    begin: Callable[[Array, int, bool], bool] = lambda *_: False
    """Told of every iteration's image and number before it is evaluated, and whether a step was taken back just now;
    says whether the cost is another function from there on (`Objective.begin`)."""
    culprit: Callable[[Costs], str] = lambda _: ""
    """Which weight of the cost, if any, is why these costs are not finite: "style_weight is 1e+30", say."""

    def iterate(self, evaluate: Evaluate, gradient: Array, iterations: int, last_finite: Array) -> Iterator[Costs]:
        """Takes steps up to `iterations`, yielding after each the costs it started from.

        `gradient` and `last_finite` are buffers to work in. A step that leads to a cost or gradient that is not
        finite is taken back and tried anew at half the length; raises NonFiniteCostError after RETRIES such in a row.
        Ends early when the optimizer has stalled.
        """
        device, costs = self.device, None
        while self.iteration < iterations and not self.optimizer.stalled:
            if self.begin(self.image, self.iteration, self.failures > 0) and costs is not None:
                self.optimizer.reset()  # whose step led to costs of another function
                costs = None
            costs = evaluate(self.image, gradient) if costs is None else costs
            if not is_finite(costs):
                self.rollback(costs, last_finite)
                costs = None
                continue
            self.failures = 0
            device.copy(self.image, last_finite)
            started_from, costs = costs, self.optimizer.step(evaluate, self.image, gradient, costs)
            self.iteration += 1
            device.blend(self.image, self.weight(self.iteration), self.average)
            yield started_from

    def drain(self) -> list[Costs]:
        """The costs of iterations that are done but have not been yielded yet: none here (see `graph_loop`)."""
        return []

    def weight(self, iteration: int) -> float:
        """Of the image after so many iterations, in the average."""
        return (1 - self.decay) / (1 - self.decay**iteration)

    def rollback(self, costs: Costs, last_finite: Array) -> None:
        """Back to the last good image, to try a shorter step; raises NonFiniteCostError where that is of no use."""
        where = _where_not_finite(costs)
        culprit = self.culprit(costs)
        if culprit:
            where = f"iteration {self.iteration + 1}"
            raise NonFiniteCostError(
                f"the cost is not finite at {where}: {culprit}, which is too much; take a lower one"
            )
        wider = ", or the precision bf16, which has the range of fp32" if self.device.precision == "fp16" else ""
        if self.iteration == 0 and self.failures == 0:
            raise NonFiniteCostError(
                f"the cost is not finite at iteration 1{where}: the weights overflow on this image; "
                f"check the file with `nstgpu weights inspect`, or take lower weights{wider}"
            )
        self.failures += 1
        if self.failures > RETRIES:
            raise NonFiniteCostError(
                f"the cost is not finite at iteration {self.iteration + 1}{where}, nor with a step {2**RETRIES} times "
                f"shorter; use a learning rate below {self.optimizer.learning_rate:g}{wider}"
            )
        self.device.copy(last_finite, self.image)
        self.optimizer.learning_rate /= 2
        self.optimizer.reset()
        logging.getLogger("nstgpu").warning(
            "the cost is not finite at iteration %d%s: back to the last good image, at half the learning rate (%g)",
            self.iteration + 1, where, self.optimizer.learning_rate,
        )  # fmt: skip


def is_finite(costs: Costs) -> bool:
    return math.isfinite(costs.total) and math.isfinite(costs.gradient_norm)


def _where_not_finite(costs: Costs) -> str:
    bad = [tap for tap, cost in costs.per_layer.items() if not math.isfinite(cost)]
    return f" (first at {bad[0]})" if bad else ""


@contextmanager
def held_back_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that the iteration under way ends as it should; the second one interrupts.

    Only where Ctrl-C means what Python makes of it: in the main thread, with nobody else's handler in place.
    """
    event = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield event
        return

    def hold_back(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            signal.default_int_handler(number, frame)
        event.set()

    signal.signal(signal.SIGINT, hold_back)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
