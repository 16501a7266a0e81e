"""What an objective compares with, measured once: the styles' statistics and the content's activations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...kernels.device import Device
from ..imaging.masks import tap_weights
from ..memory.arena import Buffer, allocate
from ..model import network
from ..tiling import geometry
from ..tiling.buffers import PersistentBuffers
from ..tiling.memory_plan import MemoryPlan
from ..tiling.tile_pass import TileWorker
from ..types import Image, Mask
from .known_targets import KnownTargets, put_back, taken_down
from .statistics.base import SeenTile, Statistic

DOWNLOAD_BYTES = 1 << 22
"""At a time, of what is only summed on the host."""


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
    key: str = ""
    """Of what its target depends on, with `known_targets`; "" where nobody keeps it."""


class MeasuredStyle(NamedTuple):
    """One style at one tap."""

    energy: float
    """J^[l](S) of an image without features, over the statistic's `strength`."""
    target: Any
    """The statistic's, of `costs.statistics.base`."""


def measured_style(
    plan: MemoryPlan, worker: TileWorker, held: PersistentBuffers, known: KnownTargets | None, number: int,
    style: SizedStyle,
) -> dict[tuple[str, str], MeasuredStyle]:  # fmt: skip
    """What is known of a style at every style tap, by statistic and tap; measured unless it has been before."""
    if known is None or not plan.style_taps:
        return measure_style(plan, worker, held, number, style)
    device, tilings = plan.device, [worker.passes.styles[plan.walk(number, turn)].tiling for turn in plan.turns]
    key = f"{style.key} {tilings}"
    if (found := known.find(key)) is not None:
        return {
            (name, tap): MeasuredStyle(
                one.energy, put_back(device, one, held.styles[name, tap, number], plan.asked_target(name, tap, number))
            )
            for (name, tap), one in found.items()
        }
    measured = measure_style(plan, worker, held, number, style)
    taken = {
        at: taken_down(device, one.energy, one.target, plan.asked_target(*at, number)) for at, one in measured.items()
    }
    known.keep(key, taken)
    return measured


def measure_style(
    plan: MemoryPlan, worker: TileWorker, held: PersistentBuffers, number: int, style: SizedStyle
) -> dict[tuple[str, str], MeasuredStyle]:
    """Measures one style at every style tap, on the worker's device, into the buffers that are held for it.

    By statistic and tap.
    """
    if not plan.style_taps:
        return {}
    targets = {(name, tap): held.styles[name, tap, number] for name in plan.chosen for tap in plan.style_taps}
    for seen_before, turn in enumerate(plan.turns):
        looking = {name: statistic for name, statistic in plan.chosen.items() if turn in statistic.turns}
        _take_in(plan, worker, number, turned(style, turn), turn, seen_before, looking, targets)

    def finished(name: str, tap: str) -> MeasuredStyle:
        statistic, scratch = plan.chosen[name], worker.scratch(name, tap)
        energy, target = statistic.finish_target(plan.device, targets[name, tap], scratch)
        return MeasuredStyle(energy / statistic.strength, target)

    return {(name, tap): finished(name, tap) for name in plan.chosen for tap in plan.style_taps}


def _take_in(
    plan: MemoryPlan, worker: TileWorker, number: int, style: SizedStyle, turn: int, seen_before: int,
    looking: Mapping[str, Statistic[Any, Any, Any]], targets: dict[tuple[str, str], Any],
) -> None:  # fmt: skip
    """Shows a style, `turn` quarter turns round, to the statistics that are `looking`: those have `seen_before` of it
    so many pictures."""
    device, size = plan.device, style.pixels.shape[:2]
    tiled_pass = worker.passes.styles[plan.walk(number, turn)]
    (image,) = allocate(device, [Buffer("image", style.pixels.shape, device.image_dtype, 0, 0)], "the style").values()
    device.upload(style.pixels, image)
    sizes = dict(zip(network.strides(plan.network), network.sizes(plan.network, size), strict=True))
    masks: Mapping[str, Mask] = {}
    if style.region is not None:
        masks = tap_weights(style.region, sizes, plan.style_taps, f"the region of {style.name}")
    pieces = plan.pieces(tiled_pass.tiling.tiles)
    shares = {tap: geometry.shares(parts, seen_before) for tap, parts in pieces.items()}
    halo_overhead = {tap: geometry.seen(pieces[tap]) / math.prod(sizes[tap]) for tap in plan.style_taps}
    for name, statistic in looking.items():
        for tap in plan.style_taps:
            shape = plan.style_shape(tap, number, turn)
            targets[name, tap] = statistic.begin_target(device, targets[name, tap], shape, masks.get(tap))
    for index, tile in enumerate(tiled_pass.tiling.tiles):
        features = tiled_pass.forward(device, tile, image)
        for tap in plan.style_taps:
            part, weights = pieces[tap][index], None
            values = part.weights(masks.get(tap), halo_overhead[tap])
            if values is not None:
                (weights,) = allocate(device, [Buffer("weights", part.shape, device.image_dtype, 0, 0)]).values()
                device.upload(values, weights)
            seen = SeenTile(features[tap][part.rows], weights, shares[tap][index], index, part)
            for name, statistic in looking.items():
                statistic.gather_target(device, seen, targets[name, tap], worker.buffers.partial.get((name, tap)))


def turned(style: SizedStyle, turn: int) -> SizedStyle:
    """A style, `turn` quarter turns round, with its region."""
    if turn == 0:
        return style
    region = None if style.region is None else np.ascontiguousarray(np.rot90(style.region, turn))
    return replace(style, pixels=np.ascontiguousarray(np.rot90(style.pixels, turn)), region=region)


def measure_content(plan: MemoryPlan, worker: TileWorker, held: PersistentBuffers) -> None:
    """Keeps the content's activations at every content tap; the content lies in the buffer of the image."""
    tiled_pass = worker.passes.content
    for index, tile in enumerate(tiled_pass.tiling.tiles if plan.content_taps else ()):
        features = tiled_pass.forward(plan.device, tile, held.image)
        for tap in plan.content_taps:
            part = worker.pieces[tap][index]
            plan.device.copy(features[tap][part.rows][part.own], held.content[tap][part.at])


def content_energy(device: Device, target: Any) -> float:
    """Half the sum of the squares of activations (h, w, C): J_content^[l] of an image without features, as a sum."""
    total, step = 0.0, max(1, DOWNLOAD_BYTES // target[0].nbytes)
    for row in range(0, len(target), step):
        total += float(np.sum(np.square(device.download(target[row : row + step]), dtype=np.float64)))
    return total / 2
