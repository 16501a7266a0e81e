"""The cost of a picture at one size: its targets are measured once, then the cost and gradient of any image.

One object per size; `transfer` makes one for every scale of a run. An image is worked through in tiles, of which there
is one where memory allows (`geometry`, `memory_plan`), on one device (`tile_pass`) or several (`multi_device`). Layers
are left to `network`, the formulas to `terms` and `statistics`, and what is measured once to `targets`.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Array, Device
from ..errors import SettingsError
from ..imaging.masks import tap_weights
from ..memory.arena import Buffer, allocate
from ..memory.spill import bands, empty, fetched
from ..model import network
from ..tiling import geometry, memory_plan, multi_device, tile_pass
from ..tiling.buffers import held_name
from ..tiling.geometry import Tiling
from ..tiling.memory_plan import MemoryPlan
from ..tiling.multi_device import DeviceWorker
from ..tiling.tile_pass import TileWorker
from ..types import Image, Mask
from .known_targets import KnownTargets
from .statistics.base import StyleTarget, StyleTerm, arrays
from .statistics.tuning import Tuning
from .targets import MeasuredStyle, SizedStyle, content_energy, measure_content, measured_style
from .terms import ContentTerm, Costs, Weighting

_log = logging.getLogger("nstgpu")

SMALLER = (0.5, 0.7, 0.9)
"""Of the memory that tiles took when it ran out, what smaller tiles may take: the first share that can be had."""

SEEDS_APART = 0x9E3779B97F4A7C15
"""From one tap's seed to the next."""

Reduction = Literal["mean", "sum"]
R = TypeVar("R")


class Objective:
    """J and its gradient for images of the content's shape (H, W, 3).

    content: (H, W, 3). places: where styles are wanted, as masks (H, W), by number. trainable_mask: m (H, W) in [0, 1],
    which part of each pixel is the image's, the rest being the content's: J(m * image + (1 - m) * content), and by the
    chain rule dJ/dimage, which is 0 where m is; None is all of it. Images are in [0, 1] then. tile: how images are cut
    up. border: with b pixels, images are (H - 2 b, W - 2 b, 3), and the network sees them with their nearest pixels
    repeated beyond the edges, as content, places and the mask are given. The weights are set by `weigh`, before the
    first `evaluate`. others: devices that take tiles as well, each with the same network packed for it. known: styles
    that were measured before.

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
        statistics: str = "gram",
        tuning: Tuning = Tuning(),  # noqa: B008  (frozen)
        seed: int = 0,
        reduction: Reduction = "mean",
        tile: geometry.Setting = "auto",
        border: int = 0,
        others: Sequence[tuple[Device, network.Network]] = (),
        known: KnownTargets | None = None,
    ) -> None:
        self.device, self.network = device, net
        self.shape: tuple[int, int, int] = content.shape
        self.content_taps, self.style_taps = tuple(content_taps), tuple(style_taps)
        self.styles, self.reduction = tuple(styles), reduction
        self.weighting: Weighting | None = None
        self._seed = seed
        self._counted: int | None = None  # the iteration that `counter` tells, where the host knows
        self._trainable_mask, self._border = trainable_mask, border
        self._measured: list[dict[tuple[str, str], MeasuredStyle]] = []  # by style, statistic and tap
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
            tuning,
            1 + len(others),
            sum(len(style.wanted) for style in styles),
        )
        self._renewed = not self.every
        self._replicas = [replace(self.memory_plan, device=other, network=packed) for other, packed in others]
        self._masks = [tap_weights(mask, self.memory_plan.sizes, self.style_taps, None) for mask in places]
        budget = memory_plan.memory_budget(self.memory_plan, [other for other, _ in others]) if tile == "auto" else None
        cut = self.memory_plan.cut(tile, budget)
        if whole_only := self.memory_plan.whole_only:
            needed, height, width = self.memory_plan.nbytes(cut), *self.shape[:2]
            if budget is not None and needed > budget:
                raise MemoryError(
                    f"{width}x{height} px takes {needed / 2**30:.1f} GiB as a whole, which the style statistics "
                    f"{whole_only} ask for, and {max(0, budget) / 2**30:.1f} are left"
                )
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
        self._held = self.memory_plan.persistent_buffers(named)
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
        self._without_overflow(lambda: self._measure(content, known))

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

    def _without_overflow(self, work: Callable[[], R]) -> R:
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

    # ---- the targets --------------------------------------------------------------------------------------------
    def _measure(self, content: Image, known: KnownTargets | None) -> None:
        plan, worker, held = self.memory_plan, self._primary, self._held
        self._measured = [measured_style(plan, worker, held, known, *numbered) for numbered in enumerate(self.styles)]
        self.device.upload(content, held.image)
        measure_content(plan, worker, held)

    # ---- weights ------------------------------------------------------------------------------------------------
    def content_energies(self) -> dict[str, float]:
        """J_content^[l] of an image without features, by tap."""
        return {
            tap: self._reduction(tap) * content_energy(self.device, self._held.content[tap])
            for tap in self.content_taps
        }

    def style_energies(self) -> dict[str, dict[str, float]]:
        """J_style^[l] of an image without features, were all of it painted in these styles: by statistic and tap.

        Over the statistic's `strength`.
        """
        shares = [sum(style.wanted.values()) for style in self.styles]
        return {
            name: {
                tap: sum(share * of[name, tap].energy for share, of in zip(shares, self._measured, strict=True))
                / sum(shares)
                for tap in self.style_taps
            }
            for name in self.memory_plan.chosen
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
            self._style_term(weighting, name, tap, group)
            for tap in self.style_taps
            for name in self.memory_plan.chosen
            for group in self.memory_plan.groups
        ]
        for replica in self._devices[1:]:
            replica.sync_targets(self._devices[0])

    def _style_term(self, weighting: Weighting, name: str, tap: str, group: int | None) -> StyleTerm[Any, Any, Any]:
        primary, plan, buffers = self._primary, self.memory_plan, self._held.taps[name, tap, group]
        targets = [
            StyleTarget(
                share,
                self._measured[number][name, tap].target,
                self.measured[primary.cost_vector.style(name, tap, comparison)],
                self._held.held[name, tap, comparison],
                number,
                comparison,
            )
            for comparison, (number, place, share) in enumerate(self._comparisons)
            if place == group
        ]
        return StyleTerm(
            name,
            tap,
            group,
            plan.chosen[name],
            weighting.style * weighting.style_layers[tap] * weighting.factor(name, tap),
            tuple(targets),
            buffers.sums,
            primary.buffers.partial.get((name, tap)),
            buffers.errors,
            plan.channels[tap],
            geometry.seen(primary.pieces[tap]),
            primary.scratch(name, tap),
            (self._seed + self.style_taps.index(tap) * SEEDS_APART) % 2**64,
            self._held.counter,
        )

    # ---- what is held fixed from one iteration to the next ------------------------------------------------------
    def begin(self, image: Array, iteration: int, *, least: int = 1, anew: bool = False) -> bool:
        """To be called before the first evaluation of an iteration, at its `image`: measures what is due, and draws.

        iteration: done at this size. least: iterations for which the cost stays the same function at least. anew: what
        is held is due whatever the iteration. Whether the cost is another function than before.
        """
        drawn = self._draw(iteration // least * least)
        return self.renew(image, iteration, least=least, anew=anew) or drawn

    def renew(self, image: Array, iteration: int, *, least: int = 1, anew: bool = False) -> bool:
        """`begin`, without the host's part; waits for nothing. Whether anything was due."""
        anew = anew or not self._renewed
        due = {
            name
            for name, statistic in self.memory_plan.chosen.items()
            if statistic.every and (anew or iteration % max(statistic.every, least) == 0)
        }
        if not due or not self.style_taps:
            return False

        def once() -> None:
            if self._devices:
                multi_device.renew_multi(self._devices, self._as_seen(image), due)
            else:
                terms = [term for term in self._primary.style_terms if term.name in due]
                tile_pass.renew(self._primary, self._as_seen(image), terms)

        self._without_overflow(once)
        self._renewed = True
        return True

    def _draw(self, iteration: int) -> bool:
        """Whether other random numbers are drawn from now on."""
        if self.counter is None or iteration == self._counted:
            return False
        self.device.upload(np.array([iteration], np.int32), self.counter)
        self._counted = iteration
        return True

    @property
    def counter(self) -> Array | None:
        """(1,) int32, on the device: the iteration for which random numbers are drawn. None where none are."""
        return self._held.counter

    def count_as(self, progress: Array) -> None:
        """From now on the device counts: to be asked of it at every evaluation, `progress` (1,) is the iteration."""
        if self.counter is not None:
            self.device.copy(progress, self.counter)
            self._counted = None

    @property
    def every(self) -> int:
        """Iterations for which something is held fixed; 0 where nothing is."""
        return max(statistic.every for statistic in self.memory_plan.chosen.values())

    def held(self) -> dict[str, NDArray[Any]]:
        """What is held fixed, by name, in host memory; nothing before it has been measured."""
        if not self._renewed:
            return {}
        return {
            held_name(*key, field): fetched(self.device, array)
            for key, group in self._held.held.items()
            for field, array in arrays(group).items()
        }

    def restore(self, held: Mapping[str, NDArray[Any]]) -> None:
        """Goes on with what `held` returned; raises SettingsError for what cannot be that."""
        plan, comparisons = self.memory_plan, self._comparisons
        for key, group in self._held.held.items():
            (name, tap, comparison), fields = key, arrays(group)
            found = {field: held.get(held_name(*key, field)) for field in fields}
            given = {
                field: values
                for field, values in found.items()
                if values is not None and (values.shape, values.dtype) == (fields[field].shape, fields[field].dtype)
            }
            target = self._measured[comparisons[comparison][0]][name, tap].target
            if len(given) < len(fields) or not plan.chosen[name].accepts(target, given):
                raise SettingsError(f"the state to resume has no {name} for {tap}, or another's; start the run again")
            for field, values in given.items():
                self.device.upload(values, fields[field])
        for replica in self._devices[1:]:
            replica.sync_held(self._devices[0])
        self._renewed = True

    # ---- cost and gradient --------------------------------------------------------------------------------------
    @property
    def image(self) -> Array:
        """A buffer for an image, for whoever needs one."""
        return self._inside.get("image", self._held.image)

    @property
    def gradient(self) -> Array:
        """A buffer for a gradient, for whoever needs one."""
        return self._inside.get("gradient", self._held.gradient)

    def evaluate(self, image: Array, gradient: Array, *, anew: bool = False) -> Costs:
        """J at `image`, and dJ/dimage written to `gradient`; both on the device.

        anew: as for an image by itself, and no iteration of a run: whatever is held fixed in one is measured here. It
        is as well where `begin` has not been called before.
        """
        if anew or not self._renewed or (self.counter is not None and self._counted is None):
            self.begin(image, 0, anew=True)

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

    def _as_seen(self, image: Array) -> Array:
        """An image as the network sees it: with its border, and the content where nothing is painted."""
        device, held = self.device, self._held
        if self._border:
            device.pad_edge(image, held.image)
            image = held.image
        elif self._trainable_mask is not None:
            device.copy(image, held.image)
            image = held.image
        if self._trainable_mask is not None:  # the image to the last bit where the mask is 1, the content where it is 0
            device.weigh(image, held.trainable_mask)
            device.clamped_step(image, held.kept, 1.0, image)
        return image

    def enqueue(self, image: Array, gradient: Array) -> None:
        """Asks the device for what `evaluate` measures; waits for nothing where it is `capturable`."""
        device, weighting, measured = self.device, self.weighting, self.measured
        assert weighting is not None, "weigh comes first"
        whole, slots = gradient, self._primary.cost_vector
        image, gradient = self._as_seen(image), self._held.gradient if self._border else gradient
        if self._devices:
            multi_device.evaluate_multi(self._devices, image, gradient)
        with device.together():
            if not self._devices:
                tile_pass.evaluate_single(self._primary, image, gradient)
            device.tv_cost(image, weighting.tv, cost=measured[slots.tv], gradient=gradient)
            if self._trainable_mask is not None:
                device.weigh(gradient, self._held.trainable_mask)
            if self._border:
                device.pad_edge_gradient(gradient, whole)
            device.dots(whole.reshape(1, -1), whole.reshape(-1), measured[slots.gradient_squared])

    @property
    def _comparisons(self) -> list[tuple[int, int | None, float]]:
        """Of what is compared at each tap: the style's number, the place, and the share of J_style."""
        return [(number, *of) for number, style in enumerate(self.styles) for of in style.wanted.items()]

    def costs(self, values: NDArray[Any]) -> Costs:
        """What was `measured`, in host memory, as costs."""
        assert self.weighting is not None
        return self._primary.cost_vector.costs(values, self.weighting, [share for *_, share in self._comparisons])
