"""Iterations of Adam as one CUDA graph, asked for ahead of the host.

A GPU is done with a small iteration sooner than Python has asked for its two hundred launches one by one, and sooner
than Python has looked at its costs. So an iteration is captured once for each size and learning rate, then launched as
a whole, AHEAD times before the host reads the first one's costs. Those come back through a ring in memory that both
sides see. Costs that are not finite stop the device by themselves (`Device.adam_iteration`): what has been launched
after them changes nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from ...kernels.device import Stream
from ..costs.objective import Objective
from ..costs.terms import Costs
from ..memory.arena import Buffer, allocate
from .base import GraphableOptimizer
from .loop import OptimizationLoop, is_finite

AHEAD = 3
"""Iterations under way at most: the host may take as long as two of them to look at the one before."""
PLACES = AHEAD + 1
"""In the ring: none is written again before it has been read."""


class GraphedAdamLoop:
    """`OptimizationLoop.iterate` for Adam, with the same bytes as its result, on a device that has a `stream`."""

    def __init__(
        self, loop: OptimizationLoop, adam: GraphableOptimizer, objective: Objective, stream: Stream, iterations: int
    ) -> None:
        self.loop, self._adam, self._objective, self._stream = loop, adam, objective, stream
        self._iterations = iterations
        device, real = loop.device, np.dtype(np.float32)
        held = allocate(
            device,
            [Buffer("progress", (2,), np.dtype(np.int32), 0, 0), Buffer("weights", (iterations,), real, 0, 0)],
        )
        self._progress, self._weights = held["progress"], held["weights"]
        weights = [loop.weight(iteration) for iteration in range(1, iterations + 1)]
        device.upload(np.array(weights, real), self._weights)
        shape = (PLACES, objective.measured.size)
        ring, read = stream.alloc_pinned_mapped(math.prod(shape) * real.itemsize)
        self._ring, self._read = (each.view(real).reshape(shape) for each in (ring, read))
        self._warm, self._anew = False, False
        self._repeat: Callable[[], None] | None
        self._under_way: deque[Callable[[], None]] = deque()
        self._unreported: deque[Costs] = deque()
        self._start()

    def iterate(self) -> Iterator[Costs]:
        """Takes steps up to the number of iterations, yielding the costs each one started from, some steps later.

        Raises NonFiniteCostError as `OptimizationLoop.iterate` does.
        """
        while True:
            while len(self._under_way) + len(self._unreported) < AHEAD and self._asked_for < self._iterations:
                self._launch()
            if not self._unreported:
                if not self._under_way:
                    return
                self._wait()
            if self._unreported:
                yield self._unreported.popleft()

    def end_after(self, iterations: int) -> None:
        """Takes no steps beyond so many; those that are under way cannot be called back, and are AHEAD - 1 at most.

        Before the first step any number will do.
        """
        self._iterations = iterations

    def drain(self) -> list[Costs]:
        """Waits for what is under way; the costs of iterations that are done but have not been yielded yet."""
        while self._under_way:
            self._wait()
        return list(self._unreported)

    @property
    def _asked_for(self) -> int:
        return self.loop.iteration + len(self._under_way)

    def _start(self) -> None:
        """From the loop's image as it is now; what was captured for another learning rate is of no use."""
        self.loop.device.upload(np.array([self.loop.iteration, 1], np.int32), self._progress)
        self._repeat = None

    def _launch(self) -> None:
        # Outside the graph, and asked for as the rest is: what was asked for before is done by then.
        self._objective.renew(self.loop.image, self._asked_for, anew=self._anew)
        self._anew = False
        if self._warm:
            self._repeat = self._repeat or self._stream.capture(self._iteration)
            self._repeat()
        else:  # one by one, so that nothing that a kernel's first launch does is captured
            self._iteration()
            self._warm = True
        self._under_way.append(self._stream.record_event())

    def _iteration(self) -> None:
        loop, adam, objective = self.loop, self._adam, self._objective
        objective.count_as(self._progress[:1])
        objective.enqueue(loop.image, objective.gradient)
        loop.device.adam_iteration(
            loop.image, objective.gradient, **adam.moments, average=loop.average, good=objective.image,
            costs=objective.measured, ring=self._ring, progress=self._progress, weights=self._weights, **adam.rates,
        )  # fmt: skip

    def _wait(self) -> None:
        """For the first iteration under way; costs that are not finite take its step back."""
        self._under_way.popleft()()
        loop = self.loop
        costs = self._objective.costs(self._read[loop.iteration % PLACES])
        if is_finite(costs):
            loop.failures = 0
            loop.iteration += 1
            self._unreported.append(costs)
            return
        self._under_way.clear()  # which changes nothing any more
        loop.rollback(costs, self._objective.image)
        self._anew = True  # what has been measured since was of images that are given up
        self._start()
