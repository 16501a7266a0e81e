"""The cost of a picture at one size: its targets are measured once, then the cost and gradient of any image.

One object per size; `transfer` makes one for every scale of a run. An image is worked through in tiles, of which there
is one where memory allows (`geometry`, `memory_plan`), on one device (`tile_pass`) or several (`multi_device`). Layers
are left to `network`, the formulas to `terms`.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import W2_SCRATCH, Array, Device
from ..imaging.masks import tap_weights
from ..memory.arena import Buffer, allocate
from ..memory.spill import bands, empty
from ..model import network
from ..tiling import geometry, memory_plan, multi_device, tile_pass
from ..tiling.buffers import StyleBuffers, TapBuffers, persistent_buffers
from ..tiling.geometry import Tiling
from ..tiling.memory_plan import MemoryPlan
from ..tiling.multi_device import DeviceWorker
from ..tiling.tile_pass import TileWorker
from ..tiling.tiled_pass import TiledPass
from ..types import Image, Mask
from .terms import ContentTerm, Costs, Moments, Statistics, StyleTarget, StyleTerm

_log = logging.getLogger("nstgpu")

W2_RIDGE = 1e-3
"""Of the mean variance of a style's channels; what "w2" adds to both covariances, so that their roots are smooth."""

LEAST_RIDGE = 1e-4
"""Of the mean energy of a style's channels; and of a layer that sees nothing:"""
TINY_RIDGE = 1e-12

DOWNLOAD_BYTES = 1 << 22
"""At a time, of what is only summed on the host."""

SMALLER = (0.5, 0.7, 0.9)
"""Of the memory that tiles took when it ran out, what smaller tiles may take: the first share that can be had."""

Reduction = Literal["mean", "sum"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SizedStyle:
    """One style, at the size in which it is looked at."""

    name: str
    pixels: Image
    """(h, w, 3)"""
    region: Mask | None
    """(h, w) in [0, 1]: the part of the style's picture that counts; None is all of it."""
    wanted: Mapping[int | None, float]
    """Its shares of J_style, by the number of the objective's place; None is everywhere."""


@dataclass(frozen=True)
class Weighting:
    """Every weight of the cost, as numbers."""

    content_layers: Mapping[str, float]
    """w_l by tap"""
    style_layers: Mapping[str, float]
    """lambda_l by tap"""
    content: float
    """alpha"""
    style: float
    """beta"""
    tv: float
    """gamma"""


class Objective:
    """J and its gradient for images of the content's shape (H, W, 3).

    content: (H, W, 3). places: where styles are wanted, as masks (H, W), by number. trainable_mask: m (H, W) in [0, 1],
    which part of each pixel is the image's, the rest being the content's: J(m * image + (1 - m) * content), and by the
    chain rule dJ/dimage, which is 0 where m is; None is all of it. Images are in [0, 1] then. tile: how images are cut
    up. border: with b pixels, images are (H - 2 b, W - 2 b, 3), and the network sees them with their nearest pixels
    repeated beyond the edges, as content, places and the mask are given. The weights are set by `weigh`, before the
    first `evaluate`. others: devices that take tiles as well, each with the same network packed for it.

    Where memory runs out, tiles become smaller and what was under way is done again; MemoryError only where nothing is
    left to be made smaller.
    """

    def __init__(
        self,
        device: Device,
        net: network.Network,
        content: Image,
        styles: Sequence[SizedStyle],
        *,
        content_taps: Sequence[str],
        style_taps: Sequence[str],
        places: Sequence[Mask] = (),
        trainable_mask: Mask | None = None,
        statistics: Statistics = "gram",
        reduction: Reduction = "mean",
        tile: geometry.Setting = "auto",
        border: int = 0,
        others: Sequence[tuple[Device, network.Network]] = (),
    ) -> None:
        self.device, self.network = device, net
        self.shape: tuple[int, int, int] = content.shape
        self.content_taps, self.style_taps = tuple(content_taps), tuple(style_taps)
        self.styles, self.statistics, self.reduction = tuple(styles), statistics, reduction
        self.weighting: Weighting | None = None
        self._trainable_mask, self._border = trainable_mask, border
        self._measured: list[dict[str, tuple[float, float]]] = []  # by style and tap: its energy, and its ridge
        self.memory_plan = MemoryPlan(
            device,
            net,
            self.shape[:2],
            self.content_taps,
            self.style_taps,
            tuple(style.pixels.shape[:2] for style in styles),
            memory_plan.distinct([place for style in styles for place in style.wanted]),
            trainable_mask is not None,
            statistics,
            1 + len(others),
            sum(len(style.wanted) for style in styles),
        )
        self._replicas = [replace(self.memory_plan, device=other, network=packed) for other, packed in others]
        self._masks = [tap_weights(mask, self.memory_plan.sizes, self.style_taps, None) for mask in places]
        budget = memory_plan.memory_budget(self.memory_plan, [other for other, _ in others]) if tile == "auto" else None
        cut = self.memory_plan.cut(tile, budget)
        if budget is not None and cut.image.count > 1:
            whole = self.memory_plan.nbytes(self.memory_plan.whole())
            if whole > budget:
                _log.info(
                    "working in %s: as a whole, %dx%d px would take %.1f GiB, and %.1f are left",
                    cut.image, self.shape[1], self.shape[0], whole / 2**30, max(0, budget) / 2**30,
                )  # fmt: skip
        if others:
            busy = min(cut.image.count, self.memory_plan.devices)
            _log.info("working in %s on %d of %d devices", cut.image, busy, self.memory_plan.devices)
        named = allocate(device, self.memory_plan.persistent(), "the content's target")
        self._held = persistent_buffers(
            named, self.content_taps, self.style_taps, len(self.styles), self.memory_plan.groups
        )
        self._inside: Mapping[str, Array] = {}  # an image, and with a border a gradient, that the network does not see
        if border or trainable_mask is not None:
            inside = (self.shape[0] - 2 * border, self.shape[1] - 2 * border, 3)
            names = ("image", "gradient") if border else ("image",)
            wanted = [Buffer(name, inside, device.image_dtype, 0, 0) for name in names]
            self._inside = allocate(device, wanted, "the picture without what is added to it")
        if trainable_mask is not None:
            device.upload(trainable_mask, self._held.trainable_mask)
            kept = empty(content.shape, content.dtype)
            for rows in bands(content.shape):
                kept[rows] = (1 - trainable_mask[rows, :, None]) * content[rows]
            device.upload(kept, self._held.kept)
        self._cut = cut
        self._worker: TileWorker | None = None  # of the first device; none until it is needed
        self._devices: list[DeviceWorker] = []  # the same and those of the others, where several devices have tiles
        self._without_overflow(lambda: self._measure(content))

    # ---- tiles, and the memory they take ------------------------------------------------------------------------
    @property
    def tiling(self) -> Tiling:
        """How images are cut up."""
        return self._cut.image

    def _allocate_tiles(self) -> None:
        """Allocates what depends on tiles, unless it is there."""
        if self._worker is not None:
            return
        if self._replicas and self.tiling.count > 1:
            plans, masks = (self.memory_plan, *self._replicas), self._masks
            assigned = multi_device.assign_round_robin(self.tiling.count, len(plans))
            self._devices = [
                DeviceWorker(plan, self._cut, masks, numbers)
                for plan, numbers in zip(plans, assigned, strict=True)
                if numbers
            ]
            self._worker = self._devices[0]
        else:
            self._worker = TileWorker(self.memory_plan, self._cut, self._masks, range(self.tiling.count))
        if self.weighting is not None:
            self.weigh(self.weighting)

    @property
    def _primary(self) -> TileWorker:
        assert self._worker is not None, "tiles are allocated first"
        return self._worker

    def _without_overflow(self, work: Callable[[], T]) -> T:
        """Does what may be done again, in smaller and smaller tiles until memory suffices."""
        while True:
            try:
                self._allocate_tiles()
                return work()
            except MemoryError as error:
                problem = str(error)  # and not the error, whose traceback would keep the memory
            self._shrink(problem)

    def _shrink(self, problem: str) -> None:
        """Gives back what depends on tiles, and chooses some that take about half; MemoryError if there are none."""
        before = self.memory_plan.nbytes(self._cut)
        self._worker, self._devices = None, []
        for share in SMALLER:
            smaller = self.memory_plan.within(share * before)
            if self.memory_plan.nbytes(smaller) <= share * before:
                break
        else:
            raise MemoryError(problem)
        _log.warning("out of memory in %s: going on in %s", self._cut.image, smaller.image)
        self._cut = smaller

    def _sizes(self, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """(h, w) of every tap, for an image of (H, W)."""
        return dict(zip((layer.tap for layer in self.network.layers), network.sizes(self.network, size), strict=True))

    # ---- the targets --------------------------------------------------------------------------------------------
    def _measure(self, content: Image) -> None:
        self._measured = [self._measure_style(number, style) for number, style in enumerate(self.styles)]
        self.device.upload(content, self._held.image)
        if self.content_taps:
            self._measure_content(self._primary.passes.content)

    def _measure_style(self, number: int, style: SizedStyle) -> dict[str, tuple[float, float]]:
        if not self.style_taps:
            return {}
        device, size, walk = self.device, style.pixels.shape[:2], self._primary.passes.styles[number]
        wanted = [Buffer("image", style.pixels.shape, device.image_dtype, 0, 0)]
        (image,) = allocate(device, wanted, "the style").values()
        device.upload(style.pixels, image)
        sizes, masks = self._sizes(size), {}
        if style.region is not None:
            masks = tap_weights(style.region, sizes, self.style_taps, f"the region of {style.name}")
        pieces = self.memory_plan.pieces(walk.tiling.tiles)
        shares = {tap: geometry.shares(parts) for tap, parts in pieces.items()}
        halo_overhead = {tap: geometry.seen(pieces[tap]) / math.prod(sizes[tap]) for tap in self.style_taps}
        for index, tile in enumerate(walk.tiling.tiles):
            features = walk.forward(device, tile, image)
            for tap in self.style_taps:
                part, weights = pieces[tap][index], None
                values = part.weights(masks.get(tap), halo_overhead[tap])
                if values is not None:
                    (weights,) = allocate(device, [Buffer("weights", part.shape, device.image_dtype, 0, 0)]).values()
                    device.upload(values, weights)
                moments = self._moments(tap, self._held.styles[tap, number])
                moments.gather(device, features[tap][part.rows], weights, shares[tap][index])
        return {tap: (self._energy_of_style(tap, number), self._to_root(tap, number)) for tap in self.style_taps}

    def _moments(self, tap: str, of: StyleBuffers | TapBuffers) -> Moments:
        partial = self._primary.buffers.partial(tap)
        return Moments(of.gram, of.mean) if partial is None else Moments(of.gram, of.mean, partial.gram, partial.mean)

    def _energy_of_style(self, tap: str, number: int) -> float:
        """J^[l](S) of an image without features."""
        gram, mean = self._target(tap, number)
        width = len(gram)
        if self.statistics == "gram":
            return float(np.sum(np.square(gram))) / (4 * width**2)
        outer = np.outer(mean, mean)
        if self.statistics == "moments":
            return float(np.sum(np.square(gram - outer)) + np.sum(np.square(outer))) / (4 * width**2)
        return float(np.trace(gram)) / width

    def _to_root(self, tap: str, number: int) -> float:
        """Turns the target into what "w2" wants, the root of its covariance; returns the ridge that was added."""
        if self.statistics != "w2":
            return 0.0
        gram, mean = self._target(tap, number)
        width = len(gram)
        energy = float(np.trace(gram)) / width
        # Of a flat picture hardly any variance is left: what float32 can tell from none decides then.
        ridge = max(W2_RIDGE * (energy - float(mean @ mean) / width), LEAST_RIDGE * energy, TINY_RIDGE)
        (root,) = allocate(self.device, [Buffer("root", gram.shape, self.device.image_dtype, 0, 0)]).values()
        target = self._moments(tap, self._held.styles[tap, number])
        self.device.w2_root(target.gram, target.mean, ridge, root, scratch=self._scratch(width))
        self.device.copy(root, target.gram)
        return ridge

    def _target(self, tap: str, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        target = self._moments(tap, self._held.styles[tap, number])
        gram = self.device.download(target.gram).astype(np.float64)
        if target.mean is None:
            return gram, np.zeros(len(gram))
        return gram, self.device.download(target.mean).astype(np.float64)

    def _scratch(self, width: int) -> Array:
        scratch: Array = self._held.scratch
        return scratch[: W2_SCRATCH * width * width].reshape(W2_SCRATCH, width, width)

    def _measure_content(self, walk: TiledPass) -> None:
        for index, tile in enumerate(walk.tiling.tiles):
            features = walk.forward(self.device, tile, self._held.image)
            for tap in self.content_taps:
                part = self._primary.pieces[tap][index]
                self.device.copy(features[tap][part.rows][part.own], self._held.content[tap][part.at])

    # ---- weights ------------------------------------------------------------------------------------------------
    def content_energies(self) -> dict[str, float]:
        """J_content^[l] of an image without features, by tap."""
        energies = {}
        for tap in self.content_taps:
            target, total = self._held.content[tap], 0.0
            step = max(1, DOWNLOAD_BYTES // target[0].nbytes)
            for row in range(0, len(target), step):
                total += float(np.sum(np.square(self.device.download(target[row : row + step]), dtype=np.float64)))
            energies[tap] = self._reduction(tap) / 2 * total
        return energies

    def style_energies(self) -> dict[str, float]:
        """J_style^[l] of an image without features, by tap, were all of it painted in these styles."""
        shares = [sum(style.wanted.values()) for style in self.styles]
        return {
            tap: sum(share * of[tap][0] for share, of in zip(shares, self._measured, strict=True)) / sum(shares)
            for tap in self.style_taps
        }

    def _reduction(self, tap: str) -> float:
        target = self._held.content[tap]
        return 1.0 / math.prod(target.shape) if self.reduction == "mean" else 1.0

    def weigh(self, weighting: Weighting) -> None:
        """Sets the weights of the cost; taps are those of the constructor."""
        self.weighting = weighting
        primary = self._primary
        primary.content_terms = [
            ContentTerm(
                tap,
                weighting.content * weighting.content_layers[tap],
                self._reduction(tap) / primary.halo_overhead[tap],
                self._held.content[tap],
            )
            for tap in self.content_taps
        ]
        primary.style_terms = [
            self._style_term(weighting, tap, group) for tap in self.style_taps for group in self.memory_plan.groups
        ]
        for replica in self._devices[1:]:
            replica.sync_targets(self._devices[0])

    def _style_term(self, weighting: Weighting, tap: str, group: int | None) -> StyleTerm:
        targets = []
        for slot, (number, place, share) in enumerate(self._comparisons):
            if place == group:
                target, ridge = self._moments(tap, self._held.styles[tap, number]), self._measured[number][tap][1]
                targets.append(StyleTarget(share, target.gram, target.mean, ridge, self._style_cost(tap, slot)))
        buffers = self._held.taps[tap, group]
        moments = self._moments(tap, buffers)
        return StyleTerm(
            tap,
            group,
            self.statistics,
            weighting.style * weighting.style_layers[tap],
            tuple(targets),
            moments,
            geometry.seen(self._primary.pieces[tap]),
            buffers.gram_error,
            buffers.mean_error,
            self._scratch(len(moments.gram)) if self.statistics == "w2" else None,
        )

    # ---- cost and gradient --------------------------------------------------------------------------------------
    @property
    def image(self) -> Array:
        """A buffer for an image, for whoever needs one."""
        return self._inside.get("image", self._held.image)

    @property
    def gradient(self) -> Array:
        """A buffer for a gradient, for whoever needs one."""
        return self._inside.get("gradient", self._held.gradient)

    def evaluate(self, image: Array, gradient: Array) -> Costs:
        """J at `image`, and dJ/dimage written to `gradient`; both on the device."""

        def once() -> Costs:
            self.enqueue(image, gradient)
            return self.costs(self.device.download(self.measured))

        with np.errstate(over="ignore", invalid="ignore"):  # the costs tell
            return self._without_overflow(once)

    @property
    def measured(self) -> Array:
        """Where `enqueue` leaves what `costs` makes sense of."""
        return self._primary.buffers.costs

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` asks nothing of the host, so that a graph can hold it; not where several devices work."""
        return not self._devices

    def enqueue(self, image: Array, gradient: Array) -> None:
        """Asks the device for what `evaluate` measures; waits for nothing where it is `capturable`."""
        device, weighting, measured = self.device, self.weighting, self.measured
        assert weighting is not None, "weigh comes first"
        whole = gradient
        if self._border:
            device.extend(image, self._held.image)
            image, gradient = self._held.image, self._held.gradient
        elif self._trainable_mask is not None:
            device.copy(image, self._held.image)
            image = self._held.image
        if self._trainable_mask is not None:  # the image to the last bit where the mask is 1, the content where it is 0
            device.weigh(image, self._held.trainable_mask)
            device.step_within(image, self._held.kept, 1.0, image)
        if self._devices:
            multi_device.evaluate_multi(self._devices, image, gradient)
        else:
            tile_pass.evaluate_single(self._primary, image, gradient)
        device.tv_cost(image, weighting.tv, cost=measured[-2:-1], gradient=gradient)
        if self._trainable_mask is not None:
            device.weigh(gradient, self._held.trainable_mask)
        if self._border:
            device.extend_gradient(gradient, whole)
        device.dots(whole.reshape(1, -1), whole.reshape(-1), measured[-1:])

    # ---- costs: of the content by tap and tile, of the styles by tap and comparison, TV, and the gradient's square --
    @property
    def _comparisons(self) -> list[tuple[int, int | None, float]]:
        """Of what is compared at each tap: the style's number, the place, and the share of J_style."""
        return [(number, *of) for number, style in enumerate(self.styles) for of in style.wanted.items()]

    def _style_cost(self, tap: str, number: int) -> Array:
        before = len(self.content_taps) * self.tiling.count
        slot = before + self.style_taps.index(tap) * self.memory_plan.comparisons + number
        return self.measured[slot : slot + 1]

    def costs(self, values: NDArray[Any]) -> Costs:
        """What was `measured`, in host memory, as costs."""
        weighting, measured = self.weighting, iter(float(value) for value in values)
        assert weighting is not None
        content = {tap: sum(next(measured) for _ in range(self.tiling.count)) for tap in self.content_taps}
        shares = [share for *_, share in self._comparisons]
        style = {tap: sum(share * next(measured) for share in shares) for tap in self.style_taps}
        tv, squared = measured
        content_cost = sum(weighting.content_layers[tap] * cost for tap, cost in content.items())
        style_cost = sum(weighting.style_layers[tap] * cost for tap, cost in style.items())
        total = weighting.content * content_cost + weighting.style * style_cost + weighting.tv * tv
        per_layer = dict(style)
        for tap, cost in content.items():
            per_layer[f"{tap} content" if tap in style else tap] = cost
        norm = math.sqrt(squared) if squared >= 0 else squared  # NaN stays NaN
        return Costs(total, content_cost, style_cost, tv, per_layer, norm)
