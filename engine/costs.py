"""The terms of the cost: what is measured at each tap, and the gradient each sends back into the network.

    J_content = sum_l w_l 1/2 sum (a^[l](C) - a^[l](G))^2      divided by nH nW nC with content_reduction="mean"
    J_style   = sum_l lambda_l 1/(4 nC^2) sum_kk' (Gram(S)_kk' - Gram(G)_kk')^2,  each Gram divided by its own nH nW
    J_tv      = mean of the squared differences of horizontal neighbours + the same of vertical ones
    J         = alpha J_content + beta J_style + gamma J_tv

For images of one size this J_style is 1/(2 nH nW nC)^2 ||Gram(S) - Gram(G)||^2 with plain Grams (Gatys, Ecker & Bethge
2015), to the letter. A term owns its target and its slot in the device's vector of costs, nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..kernels.device import Array, Device


@dataclass(frozen=True)
class Costs:
    """The cost of one image, as floats.

    `content`, `style` and `tv` are J_content, J_style and J_tv; `total` is J = alpha content + beta style + gamma tv.
    `per_layer[tap]` is J^[l] at that tap before its layer weight; where one tap carries both costs, the content cost
    is at `per_layer["<tap> content"]`.
    """

    total: float
    content: float
    style: float
    tv: float
    per_layer: Mapping[str, float] = field(default_factory=dict)


class Term(Protocol):
    """A cost at one tap."""

    @property
    def tap(self) -> str: ...

    def measure(self, device: Device, features: Array) -> None:
        """Writes the term's unweighted cost to its slot."""

    def add_gradient(self, device: Device, features: Array, out: Array, accumulate: bool) -> None:
        """out := the weighted gradient of J with respect to the features [+ out]."""


@dataclass(frozen=True, eq=False)
class StyleTerm:
    """beta lambda_l J_style^[l]: the Gram matrix against the style's."""

    tap: str
    weight: float
    """beta * lambda_l"""
    target: Array
    """(C, C), divided by the style's nH nW."""
    gram: Array
    difference: Array
    cost: Array

    def measure(self, device: Device, features: Array) -> None:
        height, width, channels = features.shape
        device.gram(features, self.gram)
        # d(gram)/d(features) brings a factor 2/(nH nW), the square another 2.
        scale = self.weight / (channels**2 * height * width)
        device.style_cost(self.gram, self.target, scale, cost=self.cost, difference=self.difference)

    def add_gradient(self, device: Device, features: Array, out: Array, accumulate: bool) -> None:
        device.style_gradient(features, self.difference, out=out, accumulate=accumulate)


@dataclass(frozen=True, eq=False)
class ContentTerm:
    """alpha w_l J_content^[l]: the activations against the content's."""

    tap: str
    weight: float
    """alpha * w_l"""
    reduction: float
    """1, or 1/(nH nW nC) with content_reduction="mean"."""
    target: Array
    cost: Array

    def measure(self, device: Device, features: Array) -> None:
        device.content_cost(features, self.target, self.reduction, cost=self.cost)

    def add_gradient(self, device: Device, features: Array, out: Array, accumulate: bool) -> None:
        scale = self.weight * self.reduction
        device.content_gradient(features, self.target, scale, out=out, accumulate=accumulate)
