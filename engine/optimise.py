"""The loop: evaluate, step, report; and the two rules for a step, Adam and plain gradient descent.

Works on buffers of a device and on any function that evaluates the cost; what the cost is, is left to `transfer`.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import Array, Device
from .costs import Costs
from .memory import Buffer, allocate
from .taps import SettingsError

OPTIMIZERS = ("adam", "descent")
ADAM_LEARNING_RATE = 0.02  # of the range of a pixel, per step
DESCENT_FIRST_STEP = 0.02  # how far plain descent moves the pixel with the steepest gradient in its first step

Image = NDArray[np.floating[Any]]
Evaluate = Callable[[Array, Array], Costs]
"""Writes the gradient at an image to its second argument and returns the costs."""


class NonFiniteCostError(ArithmeticError):
    """The cost became infinite or NaN; the message is one line: at which iteration, the likely cause, what to do."""


@dataclass(frozen=True, eq=False)
class Progress:
    """What a callback is told after each iteration."""

    iteration: int
    """Iterations done, from 1."""
    iterations: int
    costs: Costs
    """Of the image this iteration started from."""
    seconds: float
    """Since the run began."""
    image: Callable[[], Image]
    """Fetches the present image, (H, W, 3) in [0, 1]."""


class Optimizer(Protocol):
    learning_rate: float

    def step(self, image: Array, gradient: Array) -> None:
        """Moves the image one step against the gradient, in place, and clamps it to [0, 1]."""


class Adam:
    """Adam (Kingma & Ba 2015) with its usual betas; state on the device."""

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, device: Device, shape: tuple[int, ...], learning_rate: float | None) -> None:
        self.device = device
        self.learning_rate = ADAM_LEARNING_RATE if learning_rate is None else learning_rate
        state = allocate(
            device,
            [
                Buffer("first", shape, device.image_dtype, 0, 0),
                Buffer("second", shape, device.image_dtype, 0, 0),
                Buffer("step", (1,), np.dtype(np.int32), 0, 0),
            ],
        )
        self.first, self.second, self.count = state["first"], state["second"], state["step"]
        for buffer in state.values():
            device.zero(buffer)

    def step(self, image: Array, gradient: Array) -> None:
        self.device.adam_step(
            image, gradient, self.first, self.second, self.count,
            learning_rate=self.learning_rate, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon,
        )  # fmt: skip


class Descent:
    """G := G - eta dJ/dG. Without a learning rate, eta is taken from the first gradient and kept."""

    def __init__(self, device: Device, learning_rate: float | None) -> None:
        self.device = device
        self.learning_rate = math.nan if learning_rate is None else learning_rate

    def step(self, image: Array, gradient: Array) -> None:
        if math.isnan(self.learning_rate):
            steepest = float(np.abs(self.device.download(gradient)).max())
            self.learning_rate = DESCENT_FIRST_STEP / steepest if steepest > 0 else 0.0
        self.device.descent_step(image, gradient, learning_rate=self.learning_rate)


def make(device: Device, name: str, shape: tuple[int, ...], learning_rate: float | None) -> Optimizer:
    """The optimiser called `name`, one of OPTIMIZERS, for images of this shape."""
    if name not in OPTIMIZERS:
        raise SettingsError(f"unknown optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise SettingsError(f"the learning rate is {learning_rate}; it must be a finite number above zero")
    return Adam(device, shape, learning_rate) if name == "adam" else Descent(device, learning_rate)


def minimise(
    device: Device,
    evaluate: Evaluate,
    optimizer: Optimizer,
    image: Array,
    gradient: Array,
    iterations: int,
    on_iteration: Callable[[Progress], object] | None,
) -> tuple[list[Costs], bool]:
    """Improves `image` in place; returns the costs each iteration started from, and whether it was cut short.

    A callback that returns False ends the run after that iteration; so does Ctrl-C, and the image is kept either way.
    Raises NonFiniteCostError.
    """
    history: list[Costs] = []
    began = time.perf_counter()
    try:
        with _held_back_interrupt() as interrupted:
            for iteration in range(1, iterations + 1):
                costs = evaluate(image, gradient)
                _check(costs, iteration, optimizer)
                history.append(costs)
                optimizer.step(image, gradient)
                stop = interrupted.is_set()
                if on_iteration is not None:
                    seconds = time.perf_counter() - began
                    progress = Progress(iteration, iterations, costs, seconds, lambda: device.download(image))
                    stop |= on_iteration(progress) is False
                if stop:
                    return history, iteration < iterations
    except KeyboardInterrupt:
        return history, True
    return history, False


@contextmanager
def _held_back_interrupt() -> Iterator[threading.Event]:
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


def _check(costs: Costs, iteration: int, optimizer: Optimizer) -> None:
    if math.isfinite(costs.total):
        return
    bad = [tap for tap, cost in costs.per_layer.items() if not math.isfinite(cost)]
    where = f" (first at {bad[0]})" if bad else ""
    if iteration == 1:
        cause = "the weights overflow on this image; check the file with `nstgpu weights inspect` or lower the weights"
    else:
        cause = f"the step is too large; use a learning rate below {optimizer.learning_rate:g}"
    raise NonFiniteCostError(f"the cost is not finite at iteration {iteration}{where}: {cause}")
