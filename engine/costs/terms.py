"""The terms of the cost: what is measured at each tap, and the gradient each sends back into the network.

    J_content = sum_l w_l 1/2 sum (a^[l](C) - a^[l](G))^2      divided by nH nW nC with content_reduction="mean"
    J_style   = sum_l lambda_l sum_k share_k J^[l](S_k)        over the styles, whose shares sum to at most one
    J_tv      = mean of the squared differences of horizontal neighbours + the same of vertical ones
    J         = alpha J_content + beta J_style + gamma J_tv

with one of three ways to compare a layer's activations, each by its statistics over the pixels p of a region with
weights w_p of mean one: Gram G = sum w a a^T / (nH nW), mean m = sum w a / (nH nW), covariance S = G - m m^T:

    gram      1/(4 nC^2) |G(S) - G(G)|^2
    moments   1/(4 nC^2) (|S(S) - S(G)|^2 + |m m^T(S) - m m^T(G)|^2)
    w2        1/nC (|m(S) - m(G)|^2 + tr S(S) + tr S(G) - 2 tr (S(S)^1/2 S(G) S(S)^1/2)^1/2)

For images of one size, one style and no mask, "gram" is 1/(2 nH nW nC)^2 ||Gram(S) - Gram(G)||^2 with plain Grams
(Gatys, Ecker & Bethge 2015), to the letter. "w2" is the squared Wasserstein-2 distance between two Gaussians (Olkin &
Pukelsheim 1982), each covariance with a small ridge. A term owns its targets and its slots in the device's vector of
costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...kernels.device import Array, Device
from ..wording import counted

Statistics = Literal["gram", "moments", "w2"]
STATISTICS: tuple[Statistics, ...] = ("gram", "moments", "w2")


@dataclass(frozen=True)
class Costs:
    """The cost of one image, as floats.

    `content`, `style` and `tv` are J_content, J_style and J_tv; `total` is J = alpha content + beta style + gamma tv.
    `per_layer[tap]` is J^[l] at that tap before its layer weight; where one tap carries both costs, the content cost
    is at `per_layer["<tap> content"]`. `gradient_norm` is the Euclidean norm of dJ/dimage.
    """

    total: float
    content: float
    style: float
    tv: float
    per_layer: Mapping[str, float] = field(default_factory=dict)
    gradient_norm: float = 0.0

    def __repr__(self) -> str:
        parts = ((name, getattr(self, name)) for name in ("total", "content", "style", "tv"))
        layers = f", {counted(len(self.per_layer), 'layer')}" if self.per_layer else ""
        return f"<Costs {', '.join(f'{name} {value:.4g}' for name, value in parts)}{layers}>"


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of a tap's activations in one region: the Gram and, where it is wanted, the mean."""

    gram: Array
    mean: Array | None
    partial_gram: Array | None = None
    partial_mean: Array | None = None
    """Both to work in; None where all activations come at once."""

    def gather(self, device: Device, features: Array, weights: Array | None, share: float) -> None:
        """Takes in a tile's activations, which are `share` of all pixels taken in so far; 1 begins anew.

        The weights' mean is one over all tiles together.
        """
        if share == 1:
            device.gram(features, self.gram, weights=weights)
            if self.mean is not None:
                device.mean(features, self.mean, weights=weights)
            return
        device.gram(features, self.partial_gram, weights=weights)
        device.blend(self.partial_gram, share, self.gram)
        if self.mean is not None:
            device.mean(features, self.partial_mean, weights=weights)
            device.blend(self.partial_mean, share, self.mean)


@dataclass(frozen=True, eq=False)
class StyleTarget:
    """What one style looks like at one tap."""

    share: float
    matrix: Array
    """(C, C): the Gram; for "w2" the root of the covariance."""
    mean: Array | None
    """(C,); None for "gram"."""
    ridge: float
    """What "w2" adds to the diagonals of both covariances."""
    cost: Array


@dataclass(frozen=True, eq=False)
class StyleTerm:
    """beta lambda_l sum_k share_k J^[l](S_k) over the styles k that are wanted in one region."""

    tap: str
    mask_id: int | None
    """The region's number; None is everywhere."""
    statistics: Statistics
    weight: float
    """beta * lambda_l"""
    targets: tuple[StyleTarget, ...]
    moments: Moments
    pixels: int
    """That are taken in, over all tiles; nH nW where there is one."""
    difference: Array
    shift: Array | None
    """(C,); None for "gram"."""
    scratch: Array | None
    """For "w2" (kernels.device.W2_SCRATCH, C, C)."""

    def compare(self, device: Device) -> None:
        """Writes the unweighted cost of every target to its slot, once the moments are complete."""
        gram, mean = self.moments.gram, self.moments.mean
        channels = len(gram)
        for number, target in enumerate(self.targets):
            # d(gram)/d(features) brings a factor 2/pixels, the square of its error another 2.
            squared = self.weight * target.share / (channels**2 * self.pixels)
            more = number > 0
            if self.statistics == "gram":
                device.style_cost(
                    gram, target.matrix, squared, cost=target.cost, difference=self.difference, accumulate=more
                )
            elif self.statistics == "moments":
                device.moments_cost(
                    gram, mean, target.matrix, target.mean, squared,
                    cost=target.cost, difference=self.difference, shift=self.shift, accumulate=more,
                )  # fmt: skip
            else:
                linear = 2 * self.weight * target.share / (channels * self.pixels)
                device.w2_cost(
                    gram, mean, target.matrix, target.mean, target.ridge, linear,
                    cost=target.cost, difference=self.difference, shift=self.shift, scratch=self.scratch,
                    accumulate=more,
                )  # fmt: skip

    def add_gradient(
        self, device: Device, features: Array, weights: Array | None, out: Array, accumulate: bool
    ) -> None:
        """out := the weighted gradient of J with respect to a tile's features [+ out]; weights as for the moments."""
        device.style_gradient(
            features, self.difference, out=out, accumulate=accumulate, shift=self.shift, weights=weights
        )


@dataclass(frozen=True, eq=False)
class ContentTerm:
    """alpha w_l J_content^[l]: the activations against the content's, whose sum over tiles it is.

    The weights' mean is one over all tiles together.
    """

    tap: str
    weight: float
    """alpha * w_l"""
    reduction: float
    """1, or with content_reduction="mean" 1/(nH nW nC); where tiles take in more pixels than they own, so much less."""
    target: Array
    """Of the whole image."""

    def measure(self, device: Device, features: Array, target: Array, weights: Array | None, cost: Array) -> None:
        """Writes a tile's share of the unweighted cost."""
        device.content_cost(features, target, self.reduction, cost=cost, weights=weights)

    def add_gradient(
        self, device: Device, features: Array, target: Array, weights: Array | None, out: Array, accumulate: bool
    ) -> None:
        """out := the weighted gradient of J with respect to a tile's features [+ out]."""
        scale = self.weight * self.reduction
        device.content_gradient(features, target, scale, out=out, accumulate=accumulate, weights=weights)
