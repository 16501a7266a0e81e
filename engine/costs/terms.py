"""The terms of the cost: what is measured at each tap, and the gradient each sends back into the network.

    J_content = sum_l w_l 1/2 sum (a^[l](C) - a^[l](G))^2      divided by nH nW nC with content_reduction="mean"
    J_style   = sum_l lambda_l sum_k share_k J^[l](S_k)        over the styles, whose shares sum to at most one
    J_tv      = mean of the squared differences of horizontal neighbours + the same of vertical ones
    J         = alpha J_content + beta J_style + gamma J_tv

where J^[l] compares the statistics of a layer's activations with those of a style: see `statistics`. Where several
statistics s count together it is the sum of their own, J^[l] = sum_s factor_s^[l] J_s^[l] (`balance`). A term owns its
targets and its slots in the device's vector of costs (`cost_vector`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...kernels.device import Array, Device
from ..wording import counted


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
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What each statistic's J^[l] is multiplied by, by name and tap, where there are several."""

    def factor(self, statistic: str, tap: str) -> float:
        """What a statistic's J^[l] is multiplied by."""
        return self.statistics[statistic][tap] if self.statistics else 1.0


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
