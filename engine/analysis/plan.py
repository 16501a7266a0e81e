"""What a run will take before it is begun: memory, tiles, time, and the largest picture that fits.

Memory is arithmetic on shapes, from the lists of buffers that are allocated later (`memory_plan`). Time is measured,
on an image small enough to wait for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...kernels.device import Array, Device
from ..costs.objective import Objective
from ..costs.statistics.registry import statistics
from ..costs.statistics.tuning import Tuning
from ..costs.targets import SizedStyle
from ..costs.terms import Weighting
from ..memory.arena import Buffer, allocate, lay_out
from ..memory.spill import resident
from ..model import network
from ..model.network import Network
from ..optimizers import registry
from ..tiling import geometry
from ..tiling.geometry import Tiling
from ..tiling.memory_plan import MemoryPlan, TilingPlan
from ..tiling.tiled_pass import TiledPass, WindowBytes

LARGEST = 1 << 17
"""px; no larger side is looked for."""
PROBE = 256
"""px, of the side of the image that time is measured on."""
ROUNDS = 2
"""Times that the probe is timed, after once that is not; the fastest counts."""

PASSING = 2
"""Images that the host's devices take for a moment: what is handed to the next scale, or to the user."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that a run takes at its largest scale, once it is under way."""

    size: tuple[int, int]
    """(H, W)"""
    cut: TilingPlan
    filters: int
    """The network, as the device has packed it."""
    images: int
    """The picture, its average, its gradient, and the last good one."""
    optimizer: int
    targets: int
    """The content's activations, Grams, masks."""
    tiles: int
    """The arena, and all else that depends on tiles."""
    pictures: int
    """In host memory: contents and styles, and what passes through it."""
    on_host: bool
    """Whether the device's memory is the host's."""
    files: int = 0
    """Of all these, how much is kept in files."""

    @property
    def device(self) -> int:
        """Of the device's memory."""
        held = self.filters + self.images + self.optimizer + self.targets + self.tiles
        return held + self.pictures - self.files if self.on_host else held


@dataclass(frozen=True)
class Pace:
    """Seconds per pixel of a window."""

    forward: float
    """Where only statistics are gathered."""
    both: float
    """Forward and back, with the costs and the step."""

    def iteration(self, tiling: Tiling) -> float:
        """Seconds of one iteration, of an optimiser that evaluates once."""
        seconds = self.both * tiling.pixels
        if tiling.count > 1:  # the last tile is walked forward only once
            seconds += self.forward * (tiling.pixels - math.prod(tiling.tiles[-1].size))
        return seconds


@dataclass(frozen=True, eq=False)
class Plan:
    """Runs of one network with one choice of layers on one device."""

    device: Device
    network: Network
    content_taps: tuple[str, ...]
    style_taps: tuple[str, ...]
    optimizer: str = "adam"
    content: tuple[int, int] | None = None
    """(H, W) of the content as it was read; None is the size of the run."""
    statistics: str = "gram"
    """Of the styles, as `StyleTransfer` takes them."""
    tuning: Tuning = Tuning()  # noqa: RUF009  (frozen)
    """Of those."""
    known: WindowBytes = field(default_factory=dict)
    """What windows take, as far as it was asked for."""

    def forecast(
        self, size: tuple[int, int], tile: geometry.Setting = "auto", memory: int | None = None, styles: int = 1
    ) -> Forecast:
        """What a run up to (H, W) takes, with styles of that size, in tiles as `tile` says.

        memory: bytes that "auto" keeps the run's `Forecast.device` to, as far as there are tiles small enough, and by
        which blocks go to files; None is no limit.
        """
        taps, pictures = (self.content_taps, self.style_taps), (size,) * styles
        needs = MemoryPlan(
            self.device, self.network, size, *taps, pictures, statistics=self.statistics, tuning=self.tuning,
            comparisons=styles, known=self.known,
        )  # fmt: skip
        real = self.device.image_dtype.itemsize
        image = 3 * math.prod(size) * real
        held = lay_out(needs.persistent())[1]
        picture = 3 * math.prod(size) * 4
        source = picture if self.content is None else 3 * math.prod(self.content) * 4
        filters = sum(getattr(part, "nbytes", 0) for layer in self.network.layers for part in layer.filters)
        state = registry.spec(self.optimizer).state_images * image
        blocks = [source, *[picture] * styles, held, 2 * image, state, *[image] * PASSING]
        without = Forecast(
            size,
            needs.whole(),
            filters=filters,
            images=4 * image,
            optimizer=state,
            targets=held - 2 * image,
            tiles=0,
            pictures=source + styles * picture + PASSING * image,
            on_host=self.device.free_bytes() is None,
            files=0 if memory is None else sum(blocks) - resident(self.device, blocks, memory - filters),
        )
        cut = needs.cut(tile, None if memory is None else memory - without.device)
        return replace(without, cut=cut, tiles=needs.nbytes(cut))

    def largest(
        self,
        memory: int,
        tile: geometry.Setting,
        size_of: Callable[[int], tuple[int, int]] = lambda side: (side, side),
        disk: int | None = None,
    ) -> int | None:
        """The longest side whose run keeps to `memory` bytes, and its files to `disk` bytes; None if none does.

        `size_of(side)` is its (H, W). A disk of None is no limit.
        """
        smallest = geometry.grid(self.network)
        while min(size_of(smallest)) < geometry.grid(self.network):
            smallest *= 2
        in_tiles = all(statistic.in_tiles for statistic in statistics(self.statistics).values())
        if tile == "auto":
            tile = geometry.halo(self.network) if in_tiles else "off"  # the smallest that it would choose

        def fits(side: int) -> bool:
            forecast = self.forecast(size_of(side), tile, memory)
            return forecast.device <= memory and (disk is None or forecast.files <= disk)

        if not fits(smallest):
            return None
        low, high = smallest, 2 * smallest
        while high < LARGEST and fits(high):
            low, high = high, 2 * high
        step = max(1, low // 64)  # to two per cent
        while high - low > step:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        # Devices work in strips and blocks, so that a larger image may take less than one that is a little smaller.
        return max([low, *(side for side in range(low + step, low * 5 // 4, step) if fits(side))])

    def pace(self, side: int = PROBE) -> Pace | None:
        """Measured on noise of `side` x `side` pixels; None where time says nothing of the device."""
        if not self.device.measurable:
            return None
        device, shape = self.device, (side, side, 3)
        content, style, start = np.random.default_rng(0).random((3, *shape), np.float32)
        objective = Objective(
            device,
            self.network,
            content,
            [SizedStyle("noise", style, None, {None: 1.0})],
            content_taps=self.content_taps,
            style_taps=self.style_taps,
            statistics=self.statistics,
            tuning=self.tuning,
            tile="off",
        )
        content_layers, style_layers = (dict.fromkeys(taps, 1.0) for taps in (self.content_taps, self.style_taps))
        objective.weigh(Weighting(content_layers, style_layers, content=1.0, style=1.0, tv=1.0))
        (image,) = allocate(device, [Buffer("image", shape, device.image_dtype, 0, 0)]).values()
        device.upload(start, image)
        timed = "adam" if registry.spec(self.optimizer).searches else self.optimizer
        rule = registry.make(device, timed, shape, 1e-3)

        def step() -> None:
            rule.step(objective.evaluate, image, objective.gradient, objective.evaluate(image, objective.gradient))

        seconds = [device.elapsed(step) for _ in range(ROUNDS + 1)]
        renewals = [objective.every and device.elapsed(lambda: objective.renew(image, 0, anew=True)) / objective.every
                    for _ in range(ROUNDS)]  # fmt: skip
        return Pace(self._forward(image), (min(seconds[1:]) + min(renewals)) / side**2)

    def _forward(self, image: Array) -> float:
        """Seconds per pixel of a walk for statistics alone."""
        if not self.style_taps:
            return 0.0
        device = self.device
        size: tuple[int, int] = image.shape[:2]
        style_network = network.down_to(self.network, self.style_taps)
        walk = TiledPass(style_network, geometry.tiling(style_network, size, None), self.style_taps)
        walk.place_in(device.allocate(walk.nbytes(device)))
        (tile,) = walk.tiling.tiles
        seconds = [device.elapsed(lambda: walk.forward(device, tile, image)) for _ in range(ROUNDS + 1)]
        return min(seconds[1:]) / math.prod(size)


def of_weights(
    device: Device, weights: Any, content_taps: tuple[str, ...], style_taps: tuple[str, ...], **settings: Any
) -> Plan:
    """The plan for `Weights`, with max pooling, down to the deepest of the taps."""
    deepest = max((*content_taps, *style_taps), key=weights.taps.index)
    return Plan(device, network.build(device, weights, deepest, "max"), content_taps, style_taps, **settings)
