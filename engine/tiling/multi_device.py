"""An image's tiles, walked through by one device or dealt out to several: the same bytes of cost and gradient for any
number of them, as long as they are of one kind.

The first device is the primary: it holds the image, the gradient, the statistics and the costs, and takes tiles as the
replicas do. What another device finds in a tile comes to it through host memory, and is added up where and as it would
have been had the primary found it, tile after tile in one order. A device goes back from its last tile without walking
forward again, so that with a tile each nothing is computed twice. Every other device works in a thread of its own for
as long as an evaluation lasts. What a tile is stands in `geometry`, what is compared with what in `objective`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from ...kernels.device import Array
from ..costs.terms import ContentTerm, Moments, StyleTerm
from ..memory.arena import allocate
from ..memory.spill import fetched
from ..types import Mask
from . import geometry
from .memory_plan import MemoryPlan, TilingPlan, weights_name
from .tiled_pass import OnHost

AHEAD = 2
"""Tiles that a device may have done, or be at, before their turn comes: one to go on with while another waits."""

Sums = list[tuple[NDArray[Any], NDArray[Any] | None]]
"""Of every style term, a tile's own Gram and mean, in host memory; or its difference and shift."""
R = TypeVar("R")


def assign_round_robin(count: int, devices: int) -> list[range]:
    """The numbers of every device's tiles: in turn, and so that the last tile is the first device's."""
    return [range((count - 1 - device) % devices, count, devices) for device in range(devices)]


class DeviceWorker:
    """One device with its tiles: the passes in their arena, and what depends on tiles beside it.

    plan: of this device. masks: weights (h, w) by mask_id and tap. numbers: of its own tiles, from the first to
    the last. Raises MemoryError.
    """

    def __init__(
        self, plan: MemoryPlan, cut: TilingPlan, masks: Sequence[Mapping[str, Mask]], numbers: Sequence[int]
    ) -> None:
        device = plan.device
        self.device, self.tiling, self.numbers = device, cut.image, numbers
        self.content_terms: list[ContentTerm] = []
        self.style_terms: list[StyleTerm] = []
        self.rooms = allocate(device, plan.per_tile(cut))
        primary = numbers[-1] == cut.image.count - 1
        self._replicated: Mapping[str, Array] = {} if primary else allocate(device, plan.replicated(cut, numbers))
        self.passes = plan.passes(cut)
        arena = device.allocate(plan.arena(cut))
        for walk in (*self.passes.styles, self.passes.content, self.passes.stats_pass, self.passes.gradient_pass):
            walk.settle(arena)
        self.pieces = plan.pieces(cut.image.tiles)
        self._content_taps = plan.content_taps
        self._shares = {tap: geometry.shares(parts) for tap, parts in self.pieces.items()}
        sizes = plan.sizes
        # A weight of one, on average over all that is taken in.
        self.halo_overhead = {tap: geometry.seen(parts) / math.prod(sizes[tap]) for tap, parts in self.pieces.items()}
        for tap, parts in self.pieces.items():
            for mask_id in plan.mask_ids(tap):
                mask = None if mask_id is None else masks[mask_id][tap]
                for number in numbers:
                    values = parts[number].weights(mask, self.halo_overhead[tap])
                    if values is not None:
                        device.upload(values, self._weights(tap, mask_id, number))

    def sync_targets(self, primary: "DeviceWorker") -> None:
        """Takes on the terms of the primary, and what they compare its own tiles with."""
        self.content_terms = primary.content_terms
        for content in primary.content_terms:
            for number in self.numbers:
                rows, columns = self.pieces[content.tap][number].around
                target = primary.device.download(content.target[rows])[:, columns]
                self.device.upload(target, self._replicated[f"{content.tap} content {number}"])
        self.style_terms = []
        for style in primary.style_terms:
            name = f"{style.tap} difference {style.mask_id}"
            shift = self._replicated.get(f"{name} mean")
            self.style_terms.append(
                replace(style, targets=(), difference=self._replicated[name], shift=shift, scratch=None)
            )

    # ---- the statistics of the image --------------------------------------------------------------------------------
    def accumulate_tile(self, number: int, image: Array) -> None:
        """Adds a tile to the statistics, after those before it."""
        features = self.forward_tile(number, image)
        for term in self.style_terms:
            term.moments.gather(self.device, *self._seen(term, number, features), self._shares[term.tap][number])

    def sums(self, number: int, image: Array) -> Sums:
        """What a tile adds to the statistics."""
        features, found = self.forward_tile(number, image), []
        for term in self.style_terms:
            mean = None if term.moments.mean is None else self.rooms[f"{term.tap} partial mean"]
            own = Moments(self.rooms[f"{term.tap} partial"], mean)
            own.gather(self.device, *self._seen(term, number, features), 1)
            found.append(self._fetched(own.gram, own.mean))
        return found

    def accumulate(self, number: int, found: Sums) -> None:
        """`gather` for a tile whose `sums` are known."""
        for term, values in zip(self.style_terms, found, strict=True):
            so_far, share = term.moments, self._shares[term.tap][number]
            wholes, rooms = (so_far.gram, so_far.mean), (so_far.partial_gram, so_far.partial_mean)
            for value, whole, room in zip(values, wholes, rooms, strict=True):
                if value is None:
                    continue
                if share == 1:
                    self.device.upload(value, whole)
                else:
                    self.device.upload(value, room)
                    self.device.blend(room, share, whole)

    def differences(self) -> Sums:
        """Of every style term, once it has compared."""
        return [self._fetched(term.difference, term.shift) for term in self.style_terms]

    def _fetched(self, square: Array, row: Array | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
        return self.device.download(square), None if row is None else self.device.download(row)

    def forward_tile(self, number: int, image: Array) -> Mapping[str, Array]:
        """Forward, so that after the last of its own tiles the way back can begin at once."""
        tile, last = self.tiling.tiles[number], number == self.numbers[-1]
        if not last and not self.style_terms:
            return {}
        walk = self.passes.gradient_pass if last else self.passes.stats_pass
        return walk.forward(self.device, tile, image)

    def _seen(self, term: StyleTerm, number: int, features: Mapping[str, Array]) -> tuple[Array, Array | None]:
        return features[term.tap][self.pieces[term.tap][number].rows], self._weights(term.tap, term.mask_id, number)

    # ---- the gradient -----------------------------------------------------------------------------------------------
    def back(self, number: int, image: Array, gradient: Array) -> None:
        """Adds a tile's part to the gradient, and writes that of the content's cost; its last tile comes first."""
        inject = self._forward_again(number, image)
        self.passes.gradient_pass.backward(self.device, self.tiling.tiles[number], inject, gradient)

    def part(self, number: int, image: Array, differences: Sums) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        """A tile's part of the gradient, in its window, and of the content's cost, by tap."""
        if number == self.numbers[-1]:
            for term, (difference, shift) in zip(self.style_terms, differences, strict=True):
                self.device.upload(difference, term.difference)
                if shift is not None:
                    self.device.upload(shift, term.shift)
        inject = self._forward_again(number, image)
        own = self.passes.gradient_pass.window_gradient(self.device, self.tiling.tiles[number], inject)
        costs = [self._content_cost(term.tap, number) for term in self.content_terms]
        return self.device.download(own), [self.device.download(cost) for cost in costs]

    def add(self, number: int, part: tuple[NDArray[Any], list[NDArray[Any]]], gradient: Array) -> None:
        """`back` for a tile whose `part` is known."""
        own, costs = part
        self.passes.gradient_pass.add_window(self.device, self.tiling.tiles[number], own, gradient)
        for term, cost in zip(self.content_terms, costs, strict=True):
            self.device.upload(cost, self._content_cost(term.tap, number))

    def _forward_again(self, number: int, image: Array) -> Callable[[str, Array], bool]:
        """Forward, unless it is where `forward_tile` has left off; returns what enters the way back at the taps."""
        device, walk, tile = self.device, self.passes.gradient_pass, self.tiling.tiles[number]
        left_off = number == self.numbers[-1]
        features = walk.activations(device, tile) if left_off else walk.forward(device, tile, image)

        def inject(tap: str, out: Array) -> bool:
            if tap not in self.pieces:
                return False
            part = self.pieces[tap][number]
            own, into, injected = features[tap][part.rows], out[part.rows], False
            for halo in (out[: part.rows.start], out[part.rows.stop :]):
                if len(halo):
                    device.zero(halo)
            for content in self.content_terms:
                if content.tap == tap:
                    weights = self._weights(tap, None, number)
                    target = self._replicated.get(f"{tap} content {number}")
                    if target is None:
                        target = walk.target(device, tile, part, tap, content.target)
                    content.measure(device, own, target, weights, self._content_cost(tap, number))
                    content.add_gradient(device, own, target, weights, into, injected)
                    injected = True
            for style in self.style_terms:
                if style.tap == tap:
                    style.add_gradient(device, own, self._weights(tap, style.mask_id, number), into, injected)
                    injected = True
            return injected

        return inject

    def _weights(self, tap: str, mask_id: int | None, number: int) -> Array | None:
        """Of what a tile takes in, in one region; None weighs all alike."""
        name = weights_name(tap, mask_id, number, self.pieces[tap][number])
        return None if name is None else self.rooms[name]

    def _content_cost(self, tap: str, number: int) -> Array:
        slot = self._content_taps.index(tap) * self.tiling.count + number
        return self.rooms["costs"][slot : slot + 1]


def evaluate_single(primary: DeviceWorker, image: Array, gradient: Array) -> None:
    """One device: statistics, costs, and the gradient, up to what is no tile's business; nothing is waited for."""
    count = primary.tiling.count
    for number in range(count):
        primary.accumulate_tile(number, image)
    for term in primary.style_terms:
        term.compare(primary.device)
    if count > 1:
        primary.device.zero(gradient)
    # Backwards, since the last tile has just been walked forward.
    for number in reversed(range(count)):
        primary.back(number, image, gradient)


def evaluate_multi(primary: DeviceWorker, replicas: Sequence[DeviceWorker], image: Array, gradient: Array) -> None:
    """The same with other devices.

    Raises whatever went wrong on any of them; when it returns or raises, they are at rest.
    """
    count = primary.tiling.count
    on_host = OnHost(fetched(primary.device, image))
    with _threads(len(replicas)) as threads:
        sums = _begin(threads, replicas, lambda worker, number: worker.sums(number, on_host))
        taken_in = 0
        for number in primary.numbers:
            own = primary.sums(number, image)  # while those before it are under way
            for earlier in range(taken_in, number):
                primary.accumulate(earlier, sums[earlier].fetch())
            primary.accumulate(number, own)
            taken_in = number + 1
        for term in primary.style_terms:
            term.compare(primary.device)
        differences = primary.differences()
        primary.device.zero(gradient)
        parts = _begin(
            threads, replicas, lambda worker, number: worker.part(number, on_host, differences), backwards=True
        )
        for number in reversed(range(count)):
            if number in primary.numbers:
                primary.back(number, image, gradient)
            else:
                primary.add(number, parts[number].fetch(), gradient)


# ---- threads --------------------------------------------------------------------------------------------------------
class _TileQueue(Generic[R]):
    """What one thread does, a number at a time, at most AHEAD of them before they are fetched."""

    def __init__(self, thread: ThreadPoolExecutor, work: Callable[[int], R], numbers: Iterable[int]) -> None:
        self._thread, self._work, self._left = thread, work, iter(numbers)
        self._begun: deque[Future[R]] = deque()
        self._begin(AHEAD)

    def _begin(self, count: int) -> None:
        for number in islice(self._left, count):
            self._begun.append(self._thread.submit(self._work, number))

    def fetch(self) -> R:
        """The next result, or error."""
        done = self._begun.popleft().result()
        self._begin(1)
        return done


def _begin(
    threads: Sequence[ThreadPoolExecutor],
    workers: Sequence[DeviceWorker],
    work: Callable[[DeviceWorker, int], R],
    *,
    backwards: bool = False,
) -> dict[int, _TileQueue[R]]:
    """Begins with every worker's tiles, each in its thread; where to fetch results in turn, by the number of a tile."""
    found: dict[int, _TileQueue[R]] = {}
    for thread, worker in zip(threads, workers, strict=True):
        numbers = worker.numbers[::-1] if backwards else worker.numbers
        queue = _TileQueue(thread, partial(work, worker), numbers)
        found |= dict.fromkeys(numbers, queue)
    return found


@contextmanager
def _threads(count: int) -> Iterator[list[ThreadPoolExecutor]]:
    """So many threads, which are over at the end: what they have not begun is left, what they are at is waited for."""
    threads = [ThreadPoolExecutor(1, thread_name_prefix="nstgpu-tiles") for _ in range(count)]
    try:
        yield threads
    finally:
        for thread in threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for thread in threads:
            thread.shutdown()
