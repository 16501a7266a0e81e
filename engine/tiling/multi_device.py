"""An image's tiles, walked through by one device or dealt out to several: the same bytes of cost and gradient for any
number of them, as long as they are of one kind.

The first device is the home: it holds the image, the gradient, the statistics and the costs, and takes tiles as the
others do. What another device finds in a tile comes to it through host memory, and is added up where and as it would
have been had the home found it, tile after tile in one order. A device goes back from its last tile without walking
forward again, so that with a tile each nothing is computed twice. Every other device works in a thread of its own for
as long as an evaluation lasts. What a tile is stands in `tiles`, what is compared with what in `objective`.
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
from . import geometry as tiles
from .memory_plan import Cut, Footprint, weights_name
from .tile_pass import OnHost

AHEAD = 2
"""Tiles that a device may have done, or be at, before their turn comes: one to go on with while another waits."""

Sums = list[tuple[NDArray[Any], NDArray[Any] | None]]
"""Of every style term, a tile's own Gram and mean, in host memory; or its difference and shift."""
R = TypeVar("R")


def deal(count: int, devices: int) -> list[range]:
    """The numbers of every device's tiles: in turn, and so that the last tile is the first device's."""
    return [range((count - 1 - device) % devices, count, devices) for device in range(devices)]


class Bench:
    """One device with its tiles: the walks in their arena, and what depends on tiles beside it.

    footprint: of this device. masks: weights (h, w) by place and tap. numbers: of its own tiles, from the first to the
    last. Raises MemoryError.
    """

    def __init__(
        self, footprint: Footprint, cut: Cut, masks: Sequence[Mapping[str, Mask]], numbers: Sequence[int]
    ) -> None:
        device = footprint.device
        self.device, self.tiling, self.numbers = device, cut.image, numbers
        self.content_terms: list[ContentTerm] = []
        self.style_terms: list[StyleTerm] = []
        self.rooms = allocate(device, footprint.tiled(cut))
        home = numbers[-1] == cut.image.count - 1
        self._lent: Mapping[str, Array] = {} if home else allocate(device, footprint.lent(cut, numbers))
        self.walks = footprint.walks(cut)
        arena = device.allocate(footprint.arena(cut))
        for walk in (*self.walks.styles, self.walks.content, self.walks.glance, self.walks.full):
            walk.settle(arena)
        self.pieces = footprint.pieces(cut.image.tiles)
        self._content_taps = footprint.content_taps
        self._shares = {tap: tiles.shares(parts) for tap, parts in self.pieces.items()}
        sizes = footprint.sizes
        # A weight of one, on average over all that is taken in.
        self.surplus = {tap: tiles.seen(parts) / math.prod(sizes[tap]) for tap, parts in self.pieces.items()}
        for tap, parts in self.pieces.items():
            for place in footprint.places(tap):
                mask = None if place is None else masks[place][tap]
                for number in numbers:
                    values = parts[number].weights(mask, self.surplus[tap])
                    if values is not None:
                        device.upload(values, self._weights(tap, place, number))

    def borrow(self, home: "Bench") -> None:
        """Takes on the terms of the home, and what they compare its own tiles with."""
        self.content_terms = home.content_terms
        for content in home.content_terms:
            for number in self.numbers:
                rows, columns = self.pieces[content.tap][number].around
                target = home.device.download(content.target[rows])[:, columns]
                self.device.upload(target, self._lent[f"{content.tap} content {number}"])
        self.style_terms = []
        for style in home.style_terms:
            name = f"{style.tap} difference {style.place}"
            shift = self._lent.get(f"{name} mean")
            self.style_terms.append(replace(style, targets=(), difference=self._lent[name], shift=shift, scratch=None))

    # ---- the statistics of the image --------------------------------------------------------------------------------
    def gather(self, number: int, image: Array) -> None:
        """Adds a tile to the statistics, after those before it."""
        features = self._look(number, image)
        for term in self.style_terms:
            term.moments.gather(self.device, *self._seen(term, number, features), self._shares[term.tap][number])

    def sums(self, number: int, image: Array) -> Sums:
        """What a tile adds to the statistics."""
        features, found = self._look(number, image), []
        for term in self.style_terms:
            mean = None if term.moments.mean is None else self.rooms[f"{term.tap} partial mean"]
            own = Moments(self.rooms[f"{term.tap} partial"], mean)
            own.gather(self.device, *self._seen(term, number, features), 1)
            found.append(self._fetched(own.gram, own.mean))
        return found

    def take_in(self, number: int, found: Sums) -> None:
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

    def _look(self, number: int, image: Array) -> Mapping[str, Array]:
        """Forward, so that after the last of its own tiles the way back can begin at once."""
        tile, last = self.tiling.tiles[number], number == self.numbers[-1]
        if not last and not self.style_terms:
            return {}
        walk = self.walks.full if last else self.walks.glance
        return walk.forward(self.device, tile, image)

    def _seen(self, term: StyleTerm, number: int, features: Mapping[str, Array]) -> tuple[Array, Array | None]:
        return features[term.tap][self.pieces[term.tap][number].rows], self._weights(term.tap, term.place, number)

    # ---- the gradient -----------------------------------------------------------------------------------------------
    def back(self, number: int, image: Array, gradient: Array) -> None:
        """Adds a tile's part to the gradient, and writes that of the content's cost; its last tile comes first."""
        inject = self._forward_again(number, image)
        self.walks.full.backward(self.device, self.tiling.tiles[number], inject, gradient)

    def part(self, number: int, image: Array, differences: Sums) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        """A tile's part of the gradient, in its window, and of the content's cost, by tap."""
        if number == self.numbers[-1]:
            for term, (difference, shift) in zip(self.style_terms, differences, strict=True):
                self.device.upload(difference, term.difference)
                if shift is not None:
                    self.device.upload(shift, term.shift)
        inject = self._forward_again(number, image)
        own = self.walks.full.window_gradient(self.device, self.tiling.tiles[number], inject)
        costs = [self._content_cost(term.tap, number) for term in self.content_terms]
        return self.device.download(own), [self.device.download(cost) for cost in costs]

    def add(self, number: int, part: tuple[NDArray[Any], list[NDArray[Any]]], gradient: Array) -> None:
        """`back` for a tile whose `part` is known."""
        own, costs = part
        self.walks.full.add_window(self.device, self.tiling.tiles[number], own, gradient)
        for term, cost in zip(self.content_terms, costs, strict=True):
            self.device.upload(cost, self._content_cost(term.tap, number))

    def _forward_again(self, number: int, image: Array) -> Callable[[str, Array], bool]:
        """Forward, unless it is where `_look` has left off; returns what enters the way back at the taps."""
        device, walk, tile = self.device, self.walks.full, self.tiling.tiles[number]
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
                    target = self._lent.get(f"{tap} content {number}")
                    if target is None:
                        target = walk.target(device, tile, part, tap, content.target)
                    content.measure(device, own, target, weights, self._content_cost(tap, number))
                    content.add_gradient(device, own, target, weights, into, injected)
                    injected = True
            for style in self.style_terms:
                if style.tap == tap:
                    style.add_gradient(device, own, self._weights(tap, style.place, number), into, injected)
                    injected = True
            return injected

        return inject

    def _weights(self, tap: str, place: int | None, number: int) -> Array | None:
        """Of what a tile takes in, in one place; None weighs all alike."""
        name = weights_name(tap, place, number, self.pieces[tap][number])
        return None if name is None else self.rooms[name]

    def _content_cost(self, tap: str, number: int) -> Array:
        slot = self._content_taps.index(tap) * self.tiling.count + number
        return self.rooms["costs"][slot : slot + 1]


def alone(home: Bench, image: Array, gradient: Array) -> None:
    """One device: statistics, costs, and the gradient, up to what is no tile's business; nothing is waited for."""
    count = home.tiling.count
    for number in range(count):
        home.gather(number, image)
    for term in home.style_terms:
        term.compare(home.device)
    if count > 1:
        home.device.zero(gradient)
    # Backwards, since the last tile has just been walked forward.
    for number in reversed(range(count)):
        home.back(number, image, gradient)


def together(home: Bench, others: Sequence[Bench], image: Array, gradient: Array) -> None:
    """The same with other devices.

    Raises whatever went wrong on any of them; when it returns or raises, they are at rest.
    """
    count = home.tiling.count
    on_host = OnHost(fetched(home.device, image))
    with _threads(len(others)) as threads:
        sums = _begin(threads, others, lambda bench, number: bench.sums(number, on_host))
        taken_in = 0
        for number in home.numbers:
            own = home.sums(number, image)  # while those before it are under way
            for earlier in range(taken_in, number):
                home.take_in(earlier, sums[earlier].fetch())
            home.take_in(number, own)
            taken_in = number + 1
        for term in home.style_terms:
            term.compare(home.device)
        differences = home.differences()
        home.device.zero(gradient)
        parts = _begin(threads, others, lambda bench, number: bench.part(number, on_host, differences), backwards=True)
        for number in reversed(range(count)):
            if number in home.numbers:
                home.back(number, image, gradient)
            else:
                home.add(number, parts[number].fetch(), gradient)


# ---- threads --------------------------------------------------------------------------------------------------------
class _Errands(Generic[R]):
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
    benches: Sequence[Bench],
    work: Callable[[Bench, int], R],
    *,
    backwards: bool = False,
) -> dict[int, _Errands[R]]:
    """Begins with every bench's tiles, each in its thread; where to fetch results in turn, by the number of a tile."""
    found: dict[int, _Errands[R]] = {}
    for thread, bench in zip(threads, benches, strict=True):
        numbers = bench.numbers[::-1] if backwards else bench.numbers
        errands = _Errands(thread, partial(work, bench), numbers)
        found |= dict.fromkeys(numbers, errands)
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
