"""L-BFGS within the bounds of a pixel, with every vector on the device and only scalars on the host.

The direction is the two-loop recursion (Nocedal 1980) in its vector-free form (Chen, Wang & Zhou 2014): the recursion
runs on the inner products of the last pairs and the gradient, a small matrix on the host, and gives coefficients;
one `combine` makes the direction of them. The step is found by a line search for the strong Wolfe conditions (Nocedal &
Wright 2006, algorithms 3.5 and 3.6) along the path clamped to [0, 1].

The bounds are met by two-metric projection (Bertsekas 1982). A value is *held* where it lies on a bound and the
gradient pushes it outwards; gradient, pairs and direction are zero there. So the curvature is that of the values that
can move, the direction is one of descent, and once the held ones stay the same it is plain L-BFGS on the others.

What the cost is, when to stop and what to report is left to the loop.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..costs.terms import Costs
from ..errors import SettingsError
from ..memory.arena import ALIGNMENT, Buffer, allocate
from .base import Evaluate, OptimizerSpec

HISTORY = 10
FIRST_STEP = 0.02  # root mean square, over all pixels, of the first step's change
MAX_HISTORY = 30  # `combine` takes at most 64 vectors, two a pair

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9  # c1 and c2 of the strong Wolfe conditions, as usual for quasi-Newton
PATIENCE = 8  # evaluations after which a lower cost will do, Wolfe or not: the path has kinks where pixels reach bounds
MAX_EVALUATIONS = 24  # of one line search

# Times the gradient of a held pixel, this is larger than whatever is added to it, and still a float32.
_OVERWHELMING = 1e30


@dataclass(frozen=True)
class _Point:
    """A place on the path: how far along, the cost there, and the cost's derivative along the path."""

    step: float
    value: float
    """Infinite where the cost or its gradient is not finite."""
    slope: float
    costs: Costs


class Lbfgs:
    """Limited-memory BFGS for images of one shape with values in [0, 1].

    learning_rate: how far the first step moves the pixels, root mean square, and the first after curvature was
        forgotten; None takes FIRST_STEP. Every other step finds its own length.
    history: pairs of curvature that are kept, 1 to MAX_HISTORY. Takes 2 history + 10 images of memory.

    Raises SettingsError for another history.
    """

    def __init__(
        self, device: Device, shape: tuple[int, ...], learning_rate: float | None = None, history: int = HISTORY
    ) -> None:
        if not 1 <= history <= MAX_HISTORY:
            raise SettingsError(f"the history is {history}; L-BFGS keeps 1 to {MAX_HISTORY} pairs")
        self.device = device
        self.learning_rate = FIRST_STEP if learning_rate is None else learning_rate
        self.stalled = False
        """Whether no step lowers the cost any more, not even along the gradient; then `step` does nothing."""
        self._shape, self._pixels = shape, math.prod(shape)
        # One slot more than there are pairs: a trial's pair is written beside those in use, and joins them if accepted.
        self._slots = history + 1
        self._span = 2 * self._slots + 1  # all s, all y, and the free gradient: what the direction is made of
        # Every row begins as a buffer of its own would; what fills it up is zero and stays so.
        item = device.image_dtype.itemsize
        length = -(-self._pixels * item // ALIGNMENT) * ALIGNMENT // item
        held = allocate(
            device,
            [
                Buffer("rows", (self._span + 7, length), device.image_dtype, 0, 0),
                Buffer("scalars", (4, self._span), device.image_dtype, 0, 0),
            ],
            "the optimiser's state",
        )
        # The order lets `combine` take neighbours: (free, trial_gradient), (trial_gradient, gradient, held) and
        # (held, trial, image).
        rows, self._scalars = held["rows"], held["scalars"]
        self._rows, self._basis = rows, rows[: self._span]
        first = self._span - 1
        self._free, self._trial_gradient, self._gradient, self._held = (rows[first + i] for i in range(4))
        self._trial, self._image, self._ascent, self._moving = (rows[first + i] for i in range(4, 8))
        self._held_of = rows[first : first + 2]
        self._change_of_gradient = rows[first + 1 : first + 4]
        self._change_of_image = rows[first + 3 : first + 6]
        self._raw_ascent = rows[first + 3 : first + 5]
        self._tried = 0.0
        self._measured: NDArray[np.float64] = np.zeros((4, self._span))
        self.reset()

    def reset(self) -> None:
        """Forgets all curvature. For a caller that changed the image or the cost since the last step."""
        self.device.zero(self._rows)
        self.device.zero(self._scalars)
        self._order: list[int] = []  # the slots in use, oldest first
        self._dots: NDArray[np.float64] = np.zeros((self._span, self._span))
        self._prepared = False  # whether _free, _held and _dots are those of the image that a step begins with
        self.stalled = False

    def step(self, evaluate: Evaluate, image: Array, gradient: Array, costs: Costs) -> Costs:
        """One step: from an image with its gradient and (finite) costs to the next image, its gradient and its costs.

        image and gradient are replaced once the new ones are complete, so that whatever interrupts a step leaves the
        old ones; between steps they may only be changed followed by `reset`. The cost never rises. Besides what
        `evaluate` does, the host waits for the device once per evaluation. Raises FloatingPointError if the gradient
        given is not finite; where a step leads to costs that are not, a shorter one is taken.
        """
        if self.stalled:
            return costs
        device = self.device
        device.copy(image, self._shaped(self._image))
        device.copy(gradient, self._shaped(self._gradient))
        point = None
        while point is None:
            if not self._prepared:
                self._prepare()
            slope, first = self._aim()
            self._prepared = False
            if slope < 0:
                start = _Point(0.0, costs.total, slope, costs)
                point = _search(lambda step: self._try(evaluate, step), start, first)
            if point is None:
                if not self._order:
                    self.stalled = True
                    return costs
                self.reset()
                device.copy(image, self._shaped(self._image))
                device.copy(gradient, self._shaped(self._gradient))
        if self._tried != point.step:
            point = self._try(evaluate, point.step)
        self._accept()
        device.copy(self._shaped(self._trial), image)
        device.copy(self._shaped(self._trial_gradient), gradient)
        return point.costs

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything a run needs to go on, besides the image: host arrays for `restore`, float32 or float64 and int64.

        "s" and "y" (k, H W 3) hold the pairs in use, oldest first, "order" (k,) their slots, "dots" the inner products.
        """
        slots = self._slots
        s, y = ([self.device.download(self._values(first + slot)) for slot in self._order] for first in (0, slots))
        empty = np.zeros((0, self._pixels), self.device.image_dtype)
        return {
            "s": np.stack(s) if s else empty,
            "y": np.stack(y) if y else empty,
            "order": np.array(self._order, np.int64),
            "dots": self._dots.copy(),
            "stalled": np.array([self.stalled], np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continues from a `state()`: with the image and gradient of then, the next steps give the very same bytes.

        Raises SettingsError if it is of another shape or history.
        """
        order = [int(slot) for slot in state["order"]]
        pairs = (len(order), self._pixels)
        if state["dots"].shape != self._dots.shape or state["s"].shape != pairs or state["y"].shape != pairs:
            raise SettingsError(
                f"the L-BFGS state is of {state['s'].shape[1]} values and a history of {len(state['dots']) // 2 - 1}, "
                f"not of {self._pixels} and {self._slots - 1}; resume with the size and history it was saved with"
            )
        self.reset()
        for index, slot in enumerate(order):
            self.device.upload(state["s"][index], self._values(slot))
            self.device.upload(state["y"][index], self._values(self._slots + slot))
        self._order = order
        self._dots = np.array(state["dots"], np.float64)
        self.stalled = bool(state["stalled"][0])

    def rescaled_to(self, shape: tuple[int, ...]) -> "Lbfgs":
        """The same for images of another size, without curvature: that of another size says nothing about this one."""
        return Lbfgs(self.device, shape, self.learning_rate, self._slots - 1)

    # ---- the direction ------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        """The free gradient and its inner products at an image that no trial of ours led to."""
        device = self.device
        for row in (self._spare, self._slots + self._spare):  # a trial that was never judged may have left NaN there
            device.zero(self._rows[row])
        device.copy(self._gradient, self._trial_gradient)
        self._separate(self._image)
        device.dots(self._basis, self._free, self._scalars[0])
        products = device.download(self._scalars)[0].astype(np.float64)
        if not math.isfinite(products[-1]):
            raise FloatingPointError("the gradient is not finite; lower the weights, or go back to an earlier image")
        self._dots[-1, :] = self._dots[:, -1] = products

    def _aim(self) -> tuple[float, float]:
        """Writes H g to `_ascent`; returns the slope of the path against it, and the step to try first."""
        device = self.device
        coefficients = two_loop(self._dots, self._order, self._slots)
        device.combine(self._basis, coefficients.tolist(), self._trial)
        device.combine(self._raw_ascent, (_OVERWHELMING, 1.0), self._ascent)
        ascent = self._shaped(self._ascent)
        device.project_gradient(self._shaped(self._image), ascent, ascent)
        # The slope itself is lower yet where a free pixel on a bound would be moved outwards and so stays.
        slope = -float(coefficients @ self._dots[:, -1])
        if self._order:
            return slope, 1.0
        return slope, self.learning_rate * math.sqrt(self._pixels / -slope) if slope < 0 else 0.0

    # ---- a trial --------------------------------------------------------------------------------------------------
    def _try(self, evaluate: Evaluate, step: float) -> _Point:
        """Evaluates at a step along the path, and measures all that is needed should it be accepted."""
        device, trial = self.device, self._shaped(self._trial)
        device.clamped_step(self._shaped(self._image), self._shaped(self._ascent), -step, trial)
        costs = evaluate(trial, self._shaped(self._trial_gradient))
        self._tried = step
        nowhere = _Point(step, math.inf, math.nan, costs)
        if not math.isfinite(costs.total):
            return nowhere
        slot = self._spare
        s, y = self._rows[slot], self._rows[self._slots + slot]
        self._separate(self._trial)
        device.combine(self._change_of_image, (_OVERWHELMING, 1.0, -1.0), s)
        device.combine(self._change_of_gradient, (1.0, -1.0, _OVERWHELMING), y)
        for row in (s, y):
            device.project_gradient(trial, self._shaped(row), self._shaped(row))
        for index, row in enumerate((self._free, s, y)):
            device.dots(self._basis, row, self._scalars[index])
        # What still moves: pixels that have reached their bound contribute no slope.
        device.project_gradient(trial, self._shaped(self._ascent), self._shaped(self._moving))
        device.dots(self._moving.reshape(1, -1), self._trial_gradient, self._scalars[3][:1])
        self._measured = device.download(self._scalars).astype(np.float64)
        if not np.isfinite(self._measured).all():
            return nowhere
        return _Point(step, costs.total, -float(self._measured[3, 0]), costs)

    def _accept(self) -> None:
        """Takes over what the last trial measured; its pair joins the others if its curvature is positive."""
        slot, (free, s, y) = self._spare, self._measured[:3]
        for row, products in ((slot, s), (self._slots + slot, y), (self._span - 1, free)):
            self._dots[row, :] = self._dots[:, row] = products
        self._prepared = True
        s_y, y_y = s[self._slots + slot], y[self._slots + slot]
        if s_y > float(np.finfo(self.device.image_dtype).eps) * y_y:
            self._order = [*self._order, slot][-(self._slots - 1) :]

    @property
    def _spare(self) -> int:
        """The slot for the next pair: the one free slot of a full ring."""
        return (self._order[-1] + 1) % self._slots if self._order else 0

    def _separate(self, image: Array) -> None:
        """The trial gradient at `image` into `_free` and `_held`, which sum to it.

        Adding a huge multiple of `_held` to any vector makes `project_gradient` zero it at exactly the held pixels.
        """
        device = self.device
        device.project_gradient(self._shaped(image), self._shaped(self._trial_gradient), self._shaped(self._free))
        device.combine(self._held_of, (-1.0, 1.0), self._held)

    def _shaped(self, row: Array) -> Array:
        return row[: self._pixels].reshape(self._shape)

    def _values(self, index: int) -> Array:
        return self._rows[index][: self._pixels]


# Pairs of curvature, one more while a trial is judged, and work space.
SPEC = OptimizerSpec(
    Lbfgs,
    state_images=2 * (HISTORY + 1) + 8,
    state_names=frozenset({"s", "y", "order", "dots", "stalled"}),
    searches=True,
)


def two_loop(dots: NDArray[np.float64], order: list[int], slots: int) -> NDArray[np.float64]:
    """Coefficients of H g over the basis (s of every slot, y of every slot, g), from the basis's inner products.

    order: the slots in use, oldest first. H begins as s.y / y.y of the newest pair times the identity.
    """
    coefficients = np.zeros(len(dots))
    coefficients[-1] = 1.0
    along = {}
    for slot in reversed(order):
        s, y = slot, slots + slot
        along[slot] = coefficients @ dots[:, s] / dots[s, y]
        coefficients[y] -= along[slot]
    if order:
        s, y = order[-1], slots + order[-1]
        coefficients *= dots[s, y] / dots[y, y]
    for slot in order:
        s, y = slot, slots + slot
        coefficients[s] += along[slot] - coefficients @ dots[:, y] / dots[s, y]
    return coefficients


def _search(trial: Callable[[float], _Point], start: _Point, first: float) -> _Point | None:
    """A point of the path that meets the strong Wolfe conditions, beginning with a step of `first` (algorithm 3.5).

    When PATIENCE runs out, the lowest one found that meets the first of them; None if there is none.
    """
    previous, point = start, trial(first)
    for evaluations in range(1, PATIENCE):
        if _too_high(point, start, previous):
            return _zoom(trial, start, previous, point, evaluations)
        if _flat(point, start):
            return point
        if point.slope >= 0:
            return _zoom(trial, start, point, previous, evaluations)
        further = _cubic_minimum(previous, point)
        further = 2 * point.step if math.isnan(further) else min(max(further, 1.1 * point.step), 10 * point.step)
        previous, point = point, trial(further)
    return previous if _too_high(point, start, previous) else point


def _zoom(
    trial: Callable[[float], _Point], start: _Point, low: _Point, high: _Point, evaluations: int
) -> _Point | None:
    """Narrows an interval that holds acceptable steps (algorithm 3.6); `low` is the lowest point known.

    `high` may be a point without a finite cost.
    """
    while evaluations < (PATIENCE if low.step > 0 else MAX_EVALUATIONS):
        point = trial(_between(low, high))
        evaluations += 1
        if _too_high(point, start, low):
            high = point
            continue
        if _flat(point, start):
            return point
        if point.slope * (high.step - low.step) >= 0:
            high = low
        low = point
    return low if low.step > 0 else None


def _too_high(point: _Point, start: _Point, other: _Point) -> bool:
    """Whether it lacks sufficient decrease, or does not lie below another point of the path that has it."""
    enough = start.value + SUFFICIENT_DECREASE * point.step * start.slope
    return not point.value <= enough or point.value >= other.value


def _flat(point: _Point, start: _Point) -> bool:
    return abs(point.slope) <= -CURVATURE * start.slope


def _between(low: _Point, high: _Point) -> float:
    """The next step to try: the cubic's minimum, but a tenth away from both ends; near low where high is not finite."""
    width = high.step - low.step
    share = 0.25
    if math.isfinite(high.value):
        best = _cubic_minimum(low, high)
        share = 0.5 if math.isnan(best) else min(max((best - low.step) / width, 0.1), 0.9)
    return low.step + share * width


def _cubic_minimum(a: _Point, b: _Point) -> float:
    """Where the cubic through both values and slopes has its minimum (Nocedal & Wright, eq. 3.59); NaN if nowhere."""
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    square = d1**2 - a.slope * b.slope
    if square < 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.step - a.step)
    below = b.slope - a.slope + 2 * d2
    return b.step - (b.step - a.step) * (b.slope + d2 - d1) / below if below else math.nan
