"""An image's tiles dealt out to several devices: the same bytes of cost and gradient for any number of them, as long as
they are of one kind. A layer upon `tile_pass`, which one device never enters.

The first device is the primary: it holds the image, the gradient, the statistics and the costs, and takes tiles as the
replicas do. What another device finds in a tile comes to it through host memory, and is added up where and as it would
have been had the primary found it, tile after tile in one order. With a tile each nothing is computed twice. Every
replica works in a thread of its own for as long as an evaluation lasts. What a tile is stands in `geometry`, what is
compared with what in `objective`.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..costs.statistics.base import SeenTile, arrays
from ..costs.terms import ContentTerm
from ..memory.arena import allocate
from ..memory.spill import fetched
from .buffers import content_name
from .memory_plan import MemoryPlan, TilingPlan
from .tile_pass import TileWorker, add_tile_gradient, tile_gradient
from .tiled_pass import OnHost

AHEAD = 2
"""Tiles that a device may have done, or be at, before their turn comes: one to go on with while another waits."""

Groups = list[dict[str, NDArray[Any]]]
"""Of every style term, a tile's own sums by name, in host memory; or its errors."""
R = TypeVar("R")


def assign_round_robin(count: int, devices: int) -> list[range]:
    """The numbers of every device's tiles: in turn, and so that the last tile is the first device's."""
    return [range((count - 1 - device) % devices, count, devices) for device in range(devices)]


class DeviceWorker(TileWorker):
    """One of several devices with its tiles, and what passes between it and the primary."""

    def _allocate_more(self, plan: MemoryPlan, cut: TilingPlan) -> None:
        primary = self.is_last(cut.image.count - 1)
        self._replicated: Mapping[str, Array] = {}
        if not primary:
            self._replicated = allocate(plan.device, plan.replicated(cut, self.numbers))

    def content_target(self, term: ContentTerm, number: int) -> Array:
        target = self._replicated.get(content_name(term.tap, number))
        return super().content_target(term, number) if target is None else target

    def sync_targets(self, primary: "DeviceWorker") -> None:
        """Takes on the terms of the primary, and what they compare its own tiles with."""
        self.content_terms = primary.content_terms
        for content in primary.content_terms:
            for number in self.numbers:
                rows, columns = self.pieces[content.tap][number].around
                target = primary.device.download(content.target[rows])[:, columns]
                self.device.upload(target, self._replicated[content_name(content.tap, number)])
        self.style_terms = [
            replace(
                style,
                targets=self._plan.copied(self._replicated, style),
                partial=self.buffers.partial[style.name, style.tap],
                errors=self._plan.errors_buffers(self._replicated, style.name, style.tap, style.mask_id),
                scratch=self.scratch(style.name, style.tap),
            )
            for style in primary.style_terms
        ]
        for own, style in zip(self.style_terms, primary.style_terms, strict=True):
            for ours, theirs in zip(own.targets, style.targets, strict=bool(own.targets)):
                _copy(primary.device, arrays(theirs.target), self.device, arrays(ours.target))
        self.sync_held(primary)

    def sync_held(self, primary: "DeviceWorker") -> None:
        """Takes on what the primary holds fixed."""
        for own, style in zip(self.style_terms, primary.style_terms, strict=True):
            for ours, theirs in zip(own.targets, style.targets, strict=bool(own.targets)):
                _copy(primary.device, arrays(theirs.held), self.device, arrays(ours.held))

    def look(self, number: int, image: Array, names: Collection[str], look: int) -> Groups:
        """What a tile has for what these statistics hold fixed."""
        activations = self.forward_tile(number, image)
        return [
            term.statistic.look_alone(self.device, term, self.seen(term, number, activations), look)
            for term in self.style_terms
            if term.name in names
        ]

    # ---- the statistics of the image --------------------------------------------------------------------------------
    def sums(self, number: int, image: Array) -> Groups:
        """What a tile adds to the statistics."""
        activations, found = self.forward_tile(number, image), []
        for term in self.style_terms:
            seen = self.seen(term, number, activations)
            found.append(term.statistic.see_alone(self.device, term, seen))
        return found

    def accumulate(self, number: int, found: Groups) -> None:
        """Adds a tile whose `sums` are known to the statistics, after those before it."""
        for term, values in zip(self.style_terms, found, strict=True):
            term.statistic.fold(self.device, term, self.shares[term.tap][number], values)

    def errors(self) -> Groups:
        """Of every style term, once it has compared."""
        return [self._downloaded(term.errors) for term in self.style_terms]

    def _downloaded(self, group: Any) -> dict[str, NDArray[Any]]:
        return {name: self.device.download(array) for name, array in arrays(group).items()}

    # ---- the gradient -----------------------------------------------------------------------------------------------
    def part(self, number: int, image: Array, errors: Groups) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        """A tile's part of the gradient, in its window, and of the content's cost, by tap."""
        if number == self.numbers[-1]:
            for term, values in zip(self.style_terms, errors, strict=True):
                for name, own_error in arrays(term.errors).items():
                    self.device.upload(values[name], own_error)
        own = self.passes.gradient_pass.window_gradient(self.device, self.tiling.tiles[number])
        tile_gradient(self, number, image, own)
        costs = [self.content_cost(term.tap, number) for term in self.content_terms]
        return self.device.download(own), [self.device.download(cost) for cost in costs]

    def add(self, number: int, part: tuple[NDArray[Any], list[NDArray[Any]]], gradient: Array) -> None:
        """Adds a tile whose `part` is known to the gradient (H, W, 3)."""
        own, costs = part
        tile, tiled_pass = self.tiling.tiles[number], self.passes.gradient_pass
        tiled_pass.upload_window(self.device, tile, own)
        tiled_pass.add_window(self.device, tile, gradient)
        for term, cost in zip(self.content_terms, costs, strict=True):
            self.device.upload(cost, self.content_cost(term.tap, number))


def evaluate_multi(workers: Sequence[DeviceWorker], image: Array, gradient: Array) -> None:
    """`evaluate_single` with other devices, to the same bytes.

    Raises whatever went wrong on any of them; when it returns or raises, they are at rest.
    """
    primary, *replicas = workers
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
            term.statistic.compare(primary.device, term)
        errors = primary.errors()
        primary.device.zero(gradient)
        parts = _begin(threads, replicas, lambda worker, number: worker.part(number, on_host, errors), backwards=True)
        for number in reversed(range(count)):
            if number in primary.numbers:
                add_tile_gradient(primary, number, image, gradient)
            else:
                primary.add(number, parts[number].fetch(), gradient)


def renew_multi(workers: Sequence[DeviceWorker], image: Array, names: Collection[str]) -> None:
    """Measures what these statistics hold fixed anew, at `image` (H, W, 3), as `tile_pass.renew` would."""
    primary, *replicas = workers
    on_host = OnHost(fetched(primary.device, image))
    terms = [term for term in primary.style_terms if term.name in names]
    for look in range(max(term.statistic.looks for term in terms)):
        with _threads(len(replicas)) as threads:
            begun = _begin(threads, replicas, partial(_look, image=on_host, names=names, look=look))
            for number in range(primary.tiling.count):
                own = number in primary.numbers
                found = primary.look(number, image, names, look) if own else begun[number].fetch()
                for term, values in zip(terms, found, strict=True):
                    weights = primary.weights(term.tap, term.mask_id, number)
                    part, share = primary.pieces[term.tap][number], primary.shares[term.tap][number]
                    seen = SeenTile(None, weights, share, number, part)
                    term.statistic.fold_look(primary.device, term, seen, look, values)
        for replica in replicas:
            replica.sync_held(primary)


def _look(worker: DeviceWorker, number: int, image: Array, names: Collection[str], look: int) -> Groups:
    return worker.look(number, image, names, look)


def _copy(device: Device, values: Mapping[str, Array], to: Device, copies: Mapping[str, Array]) -> None:
    """Through host memory."""
    for name, copy in copies.items():
        to.upload(device.download(values[name]), copy)


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
