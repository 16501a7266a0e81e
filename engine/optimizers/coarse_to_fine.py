"""A run from coarse to fine: scale after scale, each handing its picture and the optimiser's memory to the next.

What is optimised at each scale is left to `objective`, a single step to `optimise`, and what a picture or a setting is
to `transfer`.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from ...kernels.device import Device
from .. import balance
from ..costs.objective import Objective
from ..costs.terms import Costs, Weighting
from ..errors import SettingsError
from ..memory.arena import Buffer, allocate
from ..memory.spill import fetched
from ..types import Image
from ..wording import counted
from . import registry, scales
from .base import GraphableOptimizer, Optimizer
from .graph_loop import GraphedAdamLoop
from .loop import OptimizationLoop, held_back_interrupt
from .scales import Scale
from .settling import Settled, Watch

STEADY = 25
"""Iterations for which the cost stays the same function at least, for an optimizer that searches: it forgets all
curvature where the function changes."""
LONGEST_MEMORY = 0.99
"""Decay of the average of the iterates, at most."""
SHARE_REMEMBERED = 0.1
"""Of a scale's iterations, about how many the average remembers."""


@dataclass(frozen=True)
class Method:
    """How a run goes about it."""

    scales: tuple[Scale, ...]
    optimizer: str
    learning_rate: float | None
    """None: the optimiser's own."""
    average: float | None
    """Decay of the average of the iterates; None: by the scale's iterations."""
    settled: Settled | None = None
    """When a scale ends before its time; None: never."""

    def decay(self, iterations: int) -> float:
        if self.average is not None:
            return self.average
        if not registry.spec(self.optimizer).averaged:
            return 0.0
        return min(LONGEST_MEMORY, max(0.0, 1 - 1 / (SHARE_REMEMBERED * iterations)))


@dataclass(frozen=True, eq=False)
class RunState:
    """Everything a run needs to go on to the very same bytes (see `checkpoint` for the file)."""

    fingerprint: str
    """Of pictures, weights and settings, so that a state is not continued with others."""
    scale: int
    """From 0."""
    iteration: int
    """Done at that scale."""
    failures: int
    seconds: tuple[float, ...]
    """Spent at each scale so far."""
    learning_rate: float
    image: Image
    average: Image
    optimizer: Mapping[str, NDArray[Any]]
    history: Sequence[Costs]
    held: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What the cost holds fixed from one iteration to the next (`Objective.held`)."""
    earlier: tuple[int, ...] = ()
    """Iterations done at each scale before this one."""
    changed: tuple[int, ...] = ()
    """Iterations, over all scales, after which the run was changed, in order (see `changed_to`)."""

    @property
    def just_changed(self) -> bool:
        """Whether the run was changed, and has not gone on since."""
        return self.changed[-1:] == (len(self.history),)

    def changed_to(
        self, transfer: "Transfer", method: Method, *, before: Method | None = None, start: Image | None = None
    ) -> "RunState":
        """The state as one of a run of another `transfer` by `method`, which goes on with it from where it is.

        The scale that it is at has to be the same, and with no `start` the layers and statistics of the cost: what Adam
        remembers is kept then, while optimizers that measure their steps by the cost start afresh. before: the method
        so far, where its learning rate was another. start: the picture, (H, W, 3) at the scale's size, from which the
        optimizer starts afresh, with all measured anew that the cost holds fixed.
        """
        spec, rate = registry.spec(method.optimizer), self.learning_rate
        kept = start is None and not spec.searches and spec.learning_rate is not None
        if before is not None and method.learning_rate != before.learning_rate:
            rate = method.learning_rate or spec.learning_rate or math.nan
        return replace(
            self,
            fingerprint=transfer.fingerprint(method),
            failures=0,
            learning_rate=rate,
            image=self.image if start is None else start,
            optimizer=self.optimizer if kept else {},
            held=self.held if start is None else {},
            changed=(*self.changed, len(self.history)),
        )

    def __repr__(self) -> str:
        height, width, _ = self.image.shape
        where = f"{self.iteration} of them at scale {self.scale + 1}, {width}x{height}"
        return f"<RunState {counted(len(self.history), 'iteration')} in, {where}>"


@dataclass(frozen=True, eq=False)
class Progress:
    """What a callback is told after each iteration."""

    iteration: int
    """Iterations done, from 1, over all scales."""
    iterations: int
    """Of the whole run."""
    costs: Costs
    """Of the image this iteration started from."""
    seconds: float
    """Since the run began."""
    remaining: float
    """Seconds to the end, by the pixels that are still to be worked through."""
    scale: int
    """From 1."""
    scales: int
    size: tuple[int, int]
    """(H, W) at this scale."""
    image: Callable[[], Image]
    """Fetches the picture as it is now, (H, W, 3) in [0, 1]."""
    snapshot: Callable[[], Callable[[], Image]]
    """Takes the picture as it is now; the function it returns waits for it, in any thread, while the run goes on."""
    state: Callable[[], RunState]
    """Fetches what `StyleTransfer.run(resume=...)` goes on from."""

    def __repr__(self) -> str:
        height, width = self.size
        where = f"scale {self.scale} of {self.scales} at {width}x{height}"
        when = f"{self.seconds:.1f} s, about {self.remaining:.1f} s left"
        return f"<Progress {self.iteration} of {self.iterations}, {where}, cost {self.costs.total:.4g}, {when}>"


@dataclass(frozen=True)
class ScaleDone:
    """What one scale of a run took."""

    size: tuple[int, int]
    """(H, W)"""
    iterations: int
    seconds: float


class Transfer(Protocol):
    """What a run needs of a `StyleTransfer`; sizes are (H, W), pictures (H, W, 3) in [0, 1]."""

    device: Device
    weighting: Weighting
    """The weights of the cost."""

    def fingerprint(self, method: Method) -> str:
        """Of pictures, weights and settings."""

    def size_at(self, long_side: int) -> tuple[int, int]:
        """Of the scale with this long side."""

    def objective(self, size: tuple[int, int] | None = None, tv: float = 1.0) -> Objective:
        """The cost at this size, with gamma multiplied by `tv`."""

    def release(self) -> None:
        """Lets go of the objective's memory."""

    def beginning(self, pixels: Image, size: tuple[int, int]) -> Image:
        """A picture, of the scale before or of this size, as the scale of this size is to begin with it."""

    def finished(self, pixels: Image) -> Image:
        """A picture as it is shown and kept."""

    def finisher(self, size: tuple[int, int]) -> Callable[[Image], Image]:
        """`finished` for pictures of this size, as a function that needs no device."""


class Run:
    """One call of `StyleTransfer.run`.

    until: takes no step after so many iterations over all scales, as if the callback had stopped it there.
    """

    def __init__(
        self,
        transfer: Transfer,
        method: Method,
        on_iteration: Callable[[Progress], object] | None,
        until: int | None = None,
    ) -> None:
        self.transfer, self.device, self.method, self.on_iteration = transfer, transfer.device, method, on_iteration
        self.fingerprint = transfer.fingerprint(method)
        self.history: list[Costs] = []
        self.done: list[ScaleDone] = []
        self.learning_rate = math.nan
        self._until = until
        self._end = 0  # the last iteration of the present scale
        self._seconds = [0.0] * len(method.scales)
        self._held: Mapping[str, NDArray[Any]] = {}  # of the state to go on from
        self._changed: tuple[int, ...] = ()

    def from_image(self, init: Callable[[tuple[int, int]], Image]) -> tuple[Image, bool]:
        """From `init((H, W))` at the coarsest scale to the end: the last scale's picture, and whether it was cut short.

        Raises NonFiniteCostError.
        """
        return self._to_the_end(0, lambda: self._first(init))

    def from_state(self, state: RunState) -> tuple[Image, bool]:
        """The same from where another run was; raises SettingsError if that was not this run."""
        if state.fingerprint != self.fingerprint:
            raise SettingsError("the run to resume had other pictures, weights or settings; give the very same again")
        self._check(state)
        self.history[:] = state.history
        self._held, self._changed = state.held, state.changed
        self._seconds[: len(state.seconds)] = state.seconds
        for number, took in enumerate(state.earlier):
            self._close(number, took)
        return self._to_the_end(state.scale, lambda: self._restored(state))

    def _check(self, state: RunState) -> None:
        """Raises SettingsError for a state that this run cannot have had, whatever its fingerprint says."""
        sizes = [(*self._size(number), 3) for number in range(len(self.method.scales))]
        fitting = state.scale < len(sizes) and state.image.shape == state.average.shape == sizes[state.scale]
        counted_up = len(state.earlier) == state.scale and sum(state.earlier) + state.iteration == len(state.history)
        if not (fitting and counted_up) or state.iteration > self.method.scales[state.scale].iterations:
            raise SettingsError(
                f"the state to resume, {state.image.shape} at scale {state.scale + 1} after {state.iteration} "
                "iterations, is none of this run; start it again"
            )

    def _to_the_end(self, first: int, begin: Callable[[], OptimizationLoop]) -> tuple[Image, bool]:
        last = len(self.method.scales) - 1
        loop = begin()
        with held_back_interrupt() as interrupt:
            for number in range(first, last + 1):
                if number > first:
                    loop = self._next(number, loop)
                stopped = self._work_through(number, loop, interrupt)
                self._close(number, loop.iteration)
                if stopped:
                    break
        self.learning_rate = loop.optimizer.learning_rate
        enough = loop.iteration == self._end or loop.optimizer.stalled
        complete = number == last and enough
        return fetched(self.device, loop.average), not complete

    # ---- where a scale begins ---------------------------------------------------------------------------------------
    def _first(self, init: Callable[[tuple[int, int]], Image]) -> OptimizationLoop:
        size = self._size(0)
        rule = registry.make(self.device, self.method.optimizer, (*size, 3), self.method.learning_rate)
        return self._loop(0, rule, self.transfer.beginning(init(size), size))

    def _next(self, number: int, before: OptimizationLoop) -> OptimizationLoop:
        self.transfer.release()  # before anything larger is allocated
        size = self._size(number)
        pixels = self.transfer.beginning(fetched(self.device, before.average), size)
        rule = before.optimizer.rescaled_to((*size, 3))
        return self._loop(number, rule, pixels)

    def _restored(self, state: RunState) -> OptimizationLoop:
        shape = (*self._size(state.scale), 3)
        rule = registry.make(self.device, self.method.optimizer, shape, self.method.learning_rate)
        if state.optimizer or not state.just_changed:  # else it starts afresh
            rule.learning_rate = state.learning_rate
            try:
                if missing := registry.spec(self.method.optimizer).state_names - state.optimizer.keys():
                    raise KeyError(min(missing))
                rule.restore(state.optimizer)
            except (LookupError, TypeError, ValueError) as error:
                raise SettingsError(f"what the optimiser remembered does not fit this run ({error!r})") from error
        loop = self._loop(state.scale, rule, state.image)
        self.device.upload(state.average, loop.average)
        loop.iteration, loop.failures = state.iteration, state.failures
        return loop

    def _loop(self, number: int, rule: Optimizer, pixels: Image) -> OptimizationLoop:
        device = self.device
        wanted = [Buffer(name, pixels.shape, device.image_dtype, 0, 0) for name in ("image", "average")]
        held = allocate(device, wanted, "the image with its average")
        device.upload(pixels, held["image"])
        device.upload(pixels, held["average"])
        decay = self.method.decay(self.method.scales[number].iterations)
        culprit = partial(balance.culprit, self.transfer.weighting)
        return OptimizationLoop(device, rule, held["image"], held["average"], decay, culprit=culprit)

    def _size(self, number: int) -> tuple[int, int]:
        return self.transfer.size_at(self.method.scales[number].long_side)

    # ---- one scale --------------------------------------------------------------------------------------------------
    def _work_through(self, number: int, loop: OptimizationLoop, interrupt: Event) -> bool:
        """Works through a scale; whether the run is to stop there."""
        scale = self.method.scales[number]
        objective = self.transfer.objective(self._size(number), scale.tv)
        least = STEADY if registry.spec(self.method.optimizer).searches else 1
        loop.begin = lambda image, iteration, anew: objective.begin(image, iteration, least=least, anew=anew)
        so_far = len(self.history) - loop.iteration
        if loop.iteration > 0 and objective.every and (self._held or so_far + loop.iteration not in self._changed):
            objective.restore(self._held)
        before, began = self._seconds[number], time.perf_counter()
        since = max((so_far, *self._changed[-1:]))  # where the cost became another one, if it did at this scale
        costs_since = (costs.total for costs in self.history[since:])
        watch = Watch(self.method.settled, scale.iterations, costs_since, since - so_far)
        most = math.inf if self._until is None else self._until - so_far
        seen, self._end, stop = loop.iteration, watch.end, False
        stream, graphable = self.device.stream, registry.spec(self.method.optimizer).graphable
        graphed = None
        if graphable and stream is not None and objective.capturable:
            graphed = GraphedAdamLoop(loop, cast(GraphableOptimizer, loop.optimizer), objective, stream, watch.end)
            graphed.end_after(int(min(watch.end, most)))
            steps = graphed.iterate()
        else:  # the objective's own image serves as the last good one
            steps = loop.iterate(objective.evaluate, objective.gradient, int(min(watch.end, most)), objective.image)
        drain = (graphed or loop).drain
        try:
            for costs in steps:
                self.history.append(costs)
                seen += 1
                watch.see(costs.total)
                self._end = watch.end
                self._seconds[number] = before + time.perf_counter() - began
                if graphed is not None and not stop:
                    graphed.end_after(int(min(watch.end, most)))
                stop |= interrupt.is_set()
                if self.on_iteration is not None:
                    stop |= self.on_iteration(self._progress(number, loop, costs, drain)) is False
                if stop and graphed is not None:
                    graphed.end_after(0)  # what is under way is done, and told of
                elif stop or seen >= min(watch.end, most):
                    break
        except KeyboardInterrupt:
            return True
        if stop or seen >= most:
            return True
        if loop.iteration < scale.iterations:
            why = "the cost has settled" if watch.early else "no step lowers the cost any more"
            done = counted(loop.iteration, "iteration")
            logging.getLogger("nstgpu").info("%s after %s at %d px", why, done, scale.long_side)
        return False

    def _close(self, number: int, iterations: int) -> None:
        self.done.append(ScaleDone(self._size(number), iterations, self._seconds[number]))

    def _progress(
        self, number: int, loop: OptimizationLoop, costs: Costs, drain: Callable[[], list[Costs]]
    ) -> Progress:
        scale = self.method.scales[number]
        pace = self._seconds[number] / loop.iteration / scale.long_side**2
        return Progress(
            iteration=len(self.history),
            iterations=sum(scale.iterations for scale in self.method.scales),
            costs=costs,
            seconds=sum(self._seconds),
            remaining=scales.remaining_seconds(self.method.scales, number, loop.iteration, pace),
            scale=number + 1,
            scales=len(self.method.scales),
            size=self._size(number),
            image=lambda: self.transfer.finished(fetched(self.device, loop.average)),
            snapshot=lambda: self._snapshot(loop),
            state=lambda: self._state(number, loop, drain()),
        )

    def _snapshot(self, loop: OptimizationLoop) -> Callable[[], Image]:
        stream, finish = self.device.stream, self.transfer.finisher(loop.average.shape[:2])
        if stream is not None:
            arriving = stream.download_async(loop.average)
            return lambda: finish(arriving())
        pixels = fetched(self.device, loop.average)
        return lambda: finish(pixels)

    def _state(self, number: int, loop: OptimizationLoop, unreported: list[Costs]) -> RunState:
        return RunState(
            self.fingerprint,
            number,
            loop.iteration,
            loop.failures,
            tuple(self._seconds[: number + 1]),
            loop.optimizer.learning_rate,
            fetched(self.device, loop.image),
            fetched(self.device, loop.average),
            loop.optimizer.state(),
            (*self.history, *unreported),
            self.transfer.objective(self._size(number), self.method.scales[number].tv).held(),
            tuple(done.iterations for done in self.done[:number]),
            self._changed,
        )
