"""The value and gradient of an image on one device: forward, costs, gradients at the taps, backward.

Read `evaluate_single` first, then `tile_gradient`. An image is one tile where memory allows. Where it is several, the
statistics of all tiles are summed first, since the cost of a style is that of the whole image; then every tile is
passed forward once more and backward. The last tile's activations are still in the arena when its statistics are
done, so the way back begins there: with one tile nothing is computed twice.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...kernels.device import Array
from ..costs.statistics.base import SeenTile, StyleTerm, cut_up
from ..costs.terms import ContentTerm
from ..memory.arena import allocate
from ..model import network
from ..types import Mask
from . import geometry
from .buffers import weights_name
from .memory_plan import MemoryPlan, TilingPlan


class TileWorker:
    """One device with its tiles: the passes in their arena, and the buffers that depend on tiles.

    plan: of this device. masks: weights (h, w) by mask_id and tap. numbers: of its own tiles, from the first to the
    last. Raises MemoryError.
    """

    def __init__(
        self, plan: MemoryPlan, cut: TilingPlan, masks: Sequence[Mapping[str, Mask]], numbers: Sequence[int]
    ) -> None:
        device = plan.device
        self.device, self.tiling, self.numbers, self._plan = device, cut.image, numbers, plan
        self.content_terms: list[ContentTerm] = []
        self.style_terms: list[StyleTerm[Any, Any, Any]] = []
        self.buffers = plan.tile_buffers(allocate(device, plan.per_tile(cut)), cut)
        self.cost_vector = plan.cost_vector(cut)
        self._allocate_more(plan, cut)
        self.passes = plan.passes(cut)
        arena = device.allocate(plan.arena(cut))
        for tiled_pass in self.passes.all:
            tiled_pass.place_in(arena)
        self.pieces = plan.pieces(cut.image.tiles)
        self.shares = {tap: geometry.shares(parts) for tap, parts in self.pieces.items()}
        sizes = plan.sizes
        # A weight of one, on average over all units that are counted.
        self.halo_overhead = {tap: geometry.seen(parts) / math.prod(sizes[tap]) for tap, parts in self.pieces.items()}
        for tap, parts in self.pieces.items():
            for mask_id in plan.mask_ids(tap):
                mask = None if mask_id is None else masks[mask_id][tap]
                for number in numbers:
                    values = parts[number].weights(mask, self.halo_overhead[tap])
                    if values is not None:
                        device.upload(values, self.weights(tap, mask_id, number))

    def _allocate_more(self, plan: MemoryPlan, cut: TilingPlan) -> None:
        """For what a device has beside its tiles' own buffers, before the arena."""

    def is_last(self, number: int) -> bool:
        """Whether it is this device's last tile, whose activations stay for the way back."""
        return number == self.numbers[-1]

    def weights(self, tap: str, mask_id: int | None, number: int) -> Array | None:
        """(h, w): of the units that a tile counts, in one region; None weighs all alike."""
        name = weights_name(tap, mask_id, number, self.pieces[tap][number])
        return None if name is None else self.buffers.named[name]

    def scratch(self, name: str, tap: str) -> Any:
        """What a statistic works in at a tap, during one call."""
        return cut_up(self._plan.scratch(name, tap, self.pieces[tap]), self.buffers.scratch)

    def content_cost(self, tap: str, number: int) -> Array:
        """(1,): the slot of a tile's content cost."""
        return self.buffers.costs[self.cost_vector.content(tap, number)]

    def content_target(self, term: ContentTerm, number: int) -> Array:
        """(h, w, C): the content's activations at a tile, which `tile_gradient` is at."""
        tile, part = self.tiling.tiles[number], self.pieces[term.tap][number]
        return self.passes.gradient_pass.target(self.device, tile, part, term.tap, term.target)

    def forward_tile(self, number: int, image: Array) -> Mapping[str, Array]:
        """A tile's activations by tap, for its statistics."""
        if not self.is_last(number) and not self.style_terms:
            return {}
        tiled_pass = self.passes.gradient_pass if self.is_last(number) else self.passes.stats_pass
        device, tile = self.device, self.tiling.tiles[number]
        buffers, pixels = tiled_pass.buffers(device, tile), tiled_pass.pixels(device, tile, image)
        network.forward(device, tiled_pass.network, buffers, pixels)
        return tiled_pass.activations(device, tile)

    def seen(self, term: StyleTerm[Any, Any, Any], number: int, activations: Mapping[str, Array]) -> SeenTile:
        """What a style term sees of a tile."""
        tap, part = term.tap, self.pieces[term.tap][number]
        weights = self.weights(tap, term.mask_id, number)
        return SeenTile(activations[tap][part.rows], weights, self.shares[tap][number], number, part)


def evaluate_single(worker: TileWorker, image: Array, gradient: Array) -> None:
    """J's terms at `image`, and their gradient written to `gradient`, both (H, W, 3), on one device.

    The costs are left in the worker's vector of costs. Total variation and masks are the caller's. Waits for nothing.
    """
    device, count = worker.device, worker.tiling.count

    # 1. Forward: the activations at the taps, and their statistics (for "gram" the Gram matrix), summed over the tiles.
    for number in range(count):
        activations = worker.forward_tile(number, image)
        for style in worker.style_terms:
            style.statistic.see(device, style, worker.seen(style, number, activations))

    # 2. Costs of the styles, and the errors of the statistics, from which the gradient at a tap follows.
    with device.together():
        for style in worker.style_terms:
            style.statistic.compare(device, style)

    # 3. Backward: the gradient of the image is the sum over the tiles. The last tile has just been passed forward.
    if count == 1:
        tile_gradient(worker, 0, image, gradient)
        return
    device.zero(gradient)
    for number in reversed(range(count)):
        add_tile_gradient(worker, number, image, gradient)


def renew(worker: TileWorker, image: Array, terms: Sequence[StyleTerm[Any, Any, Any]]) -> None:
    """Measures what these terms hold fixed anew, at `image` (H, W, 3). Waits for nothing."""
    count = worker.tiling.count
    activations: Mapping[str, Array] = {}
    for look in range(max(term.statistic.looks for term in terms)):
        for number in range(count):
            if look == 0 or count > 1:  # those of the one tile stay
                activations = worker.forward_tile(number, image)
            for term in terms:
                if look < term.statistic.looks:
                    term.statistic.look(worker.device, term, worker.seen(term, number, activations), look)


def add_tile_gradient(worker: TileWorker, number: int, image: Array, gradient: Array) -> None:
    """Adds a tile's part to the gradient of the image (H, W, 3), where there are several tiles."""
    tile, tiled_pass = worker.tiling.tiles[number], worker.passes.gradient_pass
    tile_gradient(worker, number, image, tiled_pass.window_gradient(worker.device, tile))
    tiled_pass.add_window(worker.device, tile, gradient)


def tile_gradient(worker: TileWorker, number: int, image: Array, out: Array) -> None:
    """The content cost of one tile, and dJ/dimage in its window written to `out` (h, w, 3).

    The styles' costs have been compared by now. A device's last tile comes first.
    """
    device, tile, tiled_pass = worker.device, worker.tiling.tiles[number], worker.passes.gradient_pass
    net, buffers = tiled_pass.network, tiled_pass.buffers(device, tile)

    # Forward, unless the statistics have left the activations of this tile in the arena.
    if not worker.is_last(number):
        network.forward(device, net, buffers, tiled_pass.pixels(device, tile, image))
    activations = tiled_pass.activations(device, tile)

    # Backward, from the deepest layer to the image. At each tap on the way the gradient of its costs enters.
    # Where nothing enters but what the convolution behind can take along, it does.
    taps = {content.tap for content in worker.content_terms} | {style.tap for style in worker.style_terms}
    carried = {
        style.tap: style.statistic.matrix(style) for style in worker.style_terms if style.tap in tiled_pass.carried
    }
    for tap, tap_gradient in network.backward(device, net, buffers, taps - set(carried), out, carried):
        part = worker.pieces[tap][number]
        features, injected = activations[tap][part.rows], tap_gradient[part.rows]
        for halo in (tap_gradient[: part.rows.start], tap_gradient[part.rows.stop :]):
            if len(halo):
                device.zero(halo)

        accumulate = False
        for content in worker.content_terms:
            if content.tap == tap:
                target, weights = worker.content_target(content, number), worker.weights(tap, None, number)
                with device.together():
                    content.measure(device, features, target, weights, worker.content_cost(tap, number))
                    content.add_gradient(device, features, target, weights, injected, accumulate)
                accumulate = True
        for style in worker.style_terms:
            if style.tap == tap:
                seen = worker.seen(style, number, activations)
                style.statistic.add_gradient(device, style, seen, injected, accumulate)
                accumulate = True
