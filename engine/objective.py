"""The cost of a picture at one size: its targets are measured once, then the cost and gradient of any image.

One object per size; `transfer` makes one for every scale of a run. The walks are left to `network`, the formulas to
`costs`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import W2_SCRATCH, Array, Device
from . import network
from .costs import ContentTerm, Costs, Statistics, StyleTarget, StyleTerm, Term
from .masks import Mask, tap_weights
from .memory import Buffer, allocate
from .optimise import Image

W2_RIDGE = 1e-3
"""Of the mean variance of a style's channels; what "w2" adds to both covariances, so that their roots are smooth."""

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, eq=False)
class SizedStyle:
    """One style, at the size in which it is looked at."""

    name: str
    pixels: Image
    """(h, w, 3)"""
    region: Mask | None
    """(h, w) in [0, 1]: the part of the style's picture that counts; None is all of it."""
    share: float
    """Of J_style."""
    mask: int | None
    """Which of the objective's places says where the style is wanted; None is everywhere."""


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

    content: (H, W, 3). places: where styles are wanted, as names (for messages) and masks (H, W), by number.
    free: (H, W) in [0, 1], by which the gradient is multiplied; None leaves it alone. The weights are set by `weigh`,
    before the first `evaluate`.
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
        places: Sequence[tuple[str, Mask]] = (),
        free: Mask | None = None,
        statistics: Statistics = "gram",
        reduction: Reduction = "mean",
    ) -> None:
        self.device, self.network = device, net
        self.shape: tuple[int, int, int] = content.shape
        self.content_taps, self.style_taps = tuple(content_taps), tuple(style_taps)
        self.styles, self.statistics, self.reduction = tuple(styles), statistics, reduction
        self.weighting: Weighting | None = None
        self._groups = sorted({style.mask for style in styles}, key=lambda mask: -1 if mask is None else mask)
        self._free = free
        self._terms: list[Term] = []
        self._measured: list[dict[str, tuple[float, float]]] = []  # by style and tap: its energy, and its ridge
        self._allocate(len(places))
        sizes = self._sizes(self.shape[:2])
        for number, (name, mask) in enumerate(places):
            for tap, values in tap_weights(mask, sizes, self.style_taps, name).items():
                device.upload(values, self._held[f"{tap} mask {number}"])
        if free is not None:
            device.upload(free, self._held["free"])
        for number, style in enumerate(styles):
            self._measured.append(self._measure_style(number, style))
        self._measure_content(content)

    # ---- what is held, and the targets --------------------------------------------------------------------------
    def _allocate(self, mask_count: int) -> None:
        """Everything that lives as long as this object, and the arena of the walks."""
        device, pixels, moments = self.device, self.device.image_dtype, self.statistics != "gram"
        channels = {layer.tap: layer.channels[1] for layer in self.network.layers}
        at = self._sizes(self.shape[:2])
        slots = len(self.content_taps) + len(self.style_taps) * len(self.styles) + 2
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "image": (self.shape, pixels),
            "gradient": (self.shape, pixels),
            "costs": ((slots,), pixels),
        }
        if self._free is not None:
            wanted["free"] = (self.shape[:2], pixels)
        for tap in self.style_taps:
            square, row = (channels[tap], channels[tap]), (channels[tap],)
            wanted[f"{tap} gram"] = (square, pixels)
            if moments:
                wanted[f"{tap} mean"] = (row, pixels)
            for number in range(len(self.styles)):
                wanted[f"{tap} target {number}"] = (square, pixels)
                if moments:
                    wanted[f"{tap} target mean {number}"] = (row, pixels)
            for group in self._groups:
                wanted[f"{tap} difference {group}"] = (square, pixels)
                if moments:
                    wanted[f"{tap} shift {group}"] = (row, pixels)
            for number in range(mask_count):
                wanted[f"{tap} mask {number}"] = (at[tap], pixels)
        if self.statistics == "w2" and self.style_taps:
            widest = max(channels[tap] for tap in self.style_taps)
            wanted["scratch"] = ((W2_SCRATCH * widest * widest,), pixels)
        for tap in self.content_taps:
            wanted[f"{tap} content"] = ((*at[tap], channels[tap]), device.activation_dtype)
        self._held = allocate(device, [Buffer(name, *kind, 0, 0) for name, kind in wanted.items()])
        taps = {*self.content_taps, *self.style_taps}
        self._buffers = network.reserve(device, self.network, self.shape[:2], taps, backward=True)

    def _sizes(self, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """(h, w) of every tap, for an image of (H, W)."""
        return dict(zip((layer.tap for layer in self.network.layers), network.sizes(self.network, size), strict=True))

    def _features(self, buffers: network.Buffers) -> dict[str, Array]:
        return {
            layer.tap: b.output
            for layer, b in zip(self.network.layers, buffers.layers, strict=True)
            if b.output is not None
        }

    def _measure_style(self, number: int, style: SizedStyle) -> dict[str, tuple[float, float]]:
        device, size = self.device, style.pixels.shape[:2]
        buffers = network.reserve(device, self.network, size, self.style_taps, backward=False)
        (image,) = allocate(device, [Buffer("image", style.pixels.shape, device.image_dtype, 0, 0)]).values()
        device.upload(style.pixels, image)
        network.forward(device, self.network, buffers, image)
        features = self._features(buffers)
        weights = {}
        if style.region is not None:
            weights = tap_weights(style.region, self._sizes(size), self.style_taps, f"the region of {style.name}")
        for tap in self.style_taps:
            region = None
            if tap in weights:
                (region,) = allocate(device, [Buffer("region", weights[tap].shape, device.image_dtype, 0, 0)]).values()
                device.upload(weights[tap], region)
            target = self._held[f"{tap} target {number}"]
            device.gram(features[tap], target, weights=region)
            if self.statistics != "gram":
                device.mean(features[tap], self._held[f"{tap} target mean {number}"], weights=region)
        return {tap: (self._energy_of_style(tap, number), self._to_root(tap, number)) for tap in self.style_taps}

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
        ridge = W2_RIDGE * float(np.trace(gram) - mean @ mean) / width
        (root,) = allocate(self.device, [Buffer("root", gram.shape, self.device.image_dtype, 0, 0)]).values()
        target, target_mean = self._held[f"{tap} target {number}"], self._held[f"{tap} target mean {number}"]
        self.device.w2_root(target, target_mean, ridge, root, scratch=self._scratch(width))
        self.device.copy(root, target)
        return ridge

    def _target(self, tap: str, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        gram = self.device.download(self._held[f"{tap} target {number}"]).astype(np.float64)
        if self.statistics == "gram":
            return gram, np.zeros(len(gram))
        return gram, self.device.download(self._held[f"{tap} target mean {number}"]).astype(np.float64)

    def _scratch(self, width: int) -> Array:
        return self._held["scratch"][: W2_SCRATCH * width * width].reshape(W2_SCRATCH, width, width)

    def _measure_content(self, content: Image) -> None:
        self.device.upload(content, self._held["image"])
        if not self.content_taps:
            return
        network.forward(self.device, self.network, self._buffers, self._held["image"])
        features = self._features(self._buffers)
        for tap in self.content_taps:
            self.device.copy(features[tap], self._held[f"{tap} content"])

    # ---- weights ------------------------------------------------------------------------------------------------
    def content_energies(self) -> dict[str, float]:
        """J_content^[l] of an image without features, by tap."""
        return {
            tap: self._reduction(tap)
            / 2
            * float(np.sum(np.square(self.device.download(self._held[f"{tap} content"]), dtype=np.float64)))
            for tap in self.content_taps
        }

    def style_energies(self) -> dict[str, float]:
        """J_style^[l] of an image without features, by tap."""
        return {
            tap: sum(style.share * of[tap][0] for style, of in zip(self.styles, self._measured, strict=True))
            for tap in self.style_taps
        }

    def _reduction(self, tap: str) -> float:
        target = self._held[f"{tap} content"]
        return 1.0 / math.prod(target.shape) if self.reduction == "mean" else 1.0

    def weigh(self, weighting: Weighting) -> None:
        """Sets the weights of the cost; taps are those of the constructor."""
        held, terms, slot = self._held, list[Term](), 0
        for tap in self.content_taps:
            weight = weighting.content * weighting.content_layers[tap]
            cost = held["costs"][slot : slot + 1]
            terms.append(ContentTerm(tap, weight, self._reduction(tap), held[f"{tap} content"], cost))
            slot += 1
        for tap in self.style_taps:
            targets: dict[int | None, list[StyleTarget]] = {}
            for number, style in enumerate(self.styles):
                mean, ridge = held.get(f"{tap} target mean {number}"), self._measured[number][tap][1]
                cost = held["costs"][slot : slot + 1]
                target = StyleTarget(style.share, held[f"{tap} target {number}"], mean, ridge, cost)
                targets.setdefault(style.mask, []).append(target)
                slot += 1
            for group, members in targets.items():
                gram = held[f"{tap} gram"]
                terms.append(
                    StyleTerm(
                        tap,
                        self.statistics,
                        weighting.style * weighting.style_layers[tap],
                        tuple(members),
                        region=None if group is None else held[f"{tap} mask {group}"],
                        gram=gram,
                        difference=held[f"{tap} difference {group}"],
                        mean=held.get(f"{tap} mean"),
                        shift=held.get(f"{tap} shift {group}"),
                        scratch=self._scratch(len(gram)) if self.statistics == "w2" else None,
                    )
                )
        self.weighting, self._terms = weighting, terms

    # ---- cost and gradient --------------------------------------------------------------------------------------
    @property
    def image(self) -> Array:
        """A buffer (H, W, 3) on the device, for whoever needs one; the content when the object is new."""
        return self._held["image"]

    @property
    def gradient(self) -> Array:
        """A buffer (H, W, 3) on the device, for whoever needs one."""
        return self._held["gradient"]

    def evaluate(self, image: Array, gradient: Array) -> Costs:
        """J at `image`, and dJ/dimage written to `gradient`; both (H, W, 3) on the device."""
        device, held, weighting = self.device, self._held, self.weighting
        assert weighting is not None, "weigh comes first"
        network.forward(device, self.network, self._buffers, image)
        features = self._features(self._buffers)
        for term in self._terms:
            term.measure(device, features[term.tap])

        def tap_gradient(tap: str, out: Array) -> bool:
            injected = False
            for term in self._terms:
                if term.tap == tap:
                    term.add_gradient(device, features[tap], out, accumulate=injected)
                    injected = True
            return injected

        network.backward(device, self.network, self._buffers, tap_gradient, gradient)
        device.tv_cost(image, weighting.tv, cost=held["costs"][-2:-1], gradient=gradient)
        if self._free is not None:
            device.weigh(gradient, held["free"])
        device.dots(gradient.reshape(1, -1), gradient.reshape(-1), held["costs"][-1:])
        return self._costs(weighting, device.download(held["costs"]))

    def _costs(self, weighting: Weighting, values: NDArray[Any]) -> Costs:
        measured = [float(value) for value in values]
        content = dict(zip(self.content_taps, measured, strict=False))
        rest = iter(measured[len(content) :])
        style = {tap: sum(style.share * next(rest) for style in self.styles) for tap in self.style_taps}
        tv, squared = rest
        content_cost = sum(weighting.content_layers[tap] * cost for tap, cost in content.items())
        style_cost = sum(weighting.style_layers[tap] * cost for tap, cost in style.items())
        total = weighting.content * content_cost + weighting.style * style_cost + weighting.tv * tv
        per_layer = dict(style)
        for tap, cost in content.items():
            per_layer[f"{tap} content" if tap in style else tap] = cost
        norm = math.sqrt(squared) if squared >= 0 else squared  # NaN stays NaN
        return Costs(total, content_cost, style_cost, tv, per_layer, norm)
