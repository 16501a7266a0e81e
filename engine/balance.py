"""Which layers count in the cost, and how strongly: what was asked for, and what is chosen by measuring the pictures.

The formula's own weights are w_l and lambda_l of the layers, and alpha, beta and gamma of the three costs (see
`costs`). Those that are left open aim at a cost counted in parts of what it would be if the image had nothing in it, so
that any network and any size gives a like balance.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..weights import Weights
from ..weights.official.store import BUNDLED
from .costs.statistics import registry
from .costs.terms import Costs, Weighting
from .errors import LayersMissing, SettingsError
from .model import taps
from .wording import shortest

CONTENT_SHARE = 1.0
STYLE_SHARE = 300.0
TV_SHARE = 2.0
SENSELESS = 1e12
"""A weight of more than this is why a cost overflows, if it does: float32 ends at 3e38, and gradients are squared."""


@dataclass(frozen=True)
class Relative:
    """Layer weights relative to the balance: `Relative({"relu1_1": 2.0, "relu2_1": 1.0})`.

    With equal numbers all layers count alike, as those of a plain sequence do; one with 2 counts twice as much as one
    with 1. What w_l or lambda_l comes to is measured: the number here times 1 over the layer's cost on an image without
    features.
    """

    weights: Mapping[str, float]
    """By layer; zero or more."""


Layers: TypeAlias = Mapping[str, float] | Relative | Sequence[str] | None


@dataclass(frozen=True)
class Wanted:
    """The layers of one of the two costs."""

    given: Mapping[str, float]
    """By tap, in the network's order: w_l or lambda_l itself where `exact`, else what the balance is multiplied by."""
    exact: bool

    def weights(self, energies: Mapping[str, float]) -> dict[str, float]:
        """w_l or lambda_l, by tap; `energies` are the layers' costs on an image without features."""
        if self.exact:
            return dict(self.given)
        return {tap: _chosen(weight / (energies[tap] or 1.0)) for tap, weight in self.given.items()}


def wanted(what: str, layers: Layers, weights: Weights) -> Wanted:
    """The layers asked for: those of the cost called `what`, "content" or "style"; None takes the classic ones.

    Raises SettingsError for a name that the weights do not reach, and for a weight that is no finite number >= 0.
    """
    if isinstance(layers, Relative):
        return Wanted(taps.resolve(layers.weights, weights.taps, weights.name), exact=False)
    if layers is not None:
        return Wanted(taps.resolve(layers, weights.taps, weights.name), exact=isinstance(layers, Mapping))
    classic, ideal = _CLASSIC[what]
    chosen = classic(weights.taps)
    missing = [tap for tap in ideal if tap not in chosen]
    if missing and weights.name != BUNDLED:  # which is made so, and says so
        warnings.warn(
            f"the weights {weights.name} end at {weights.taps[-1]}: {what} is taken at {', '.join(chosen)}, "
            f"not at {', '.join(missing)}",
            LayersMissing,
            stacklevel=4,
        )
    return Wanted(taps.resolve(chosen, weights.taps, weights.name), exact=False)


def wanted_of_all(
    weights: Weights,
    content_layers: Layers,
    style_layers: Layers,
    content_weight: float | None,
    style_weight: float | None,
    tv_weight: float | None,
) -> tuple[Wanted, Wanted, float | None, float | None, float | None]:
    """What was asked for, as `weighting` takes it: the layers of both costs, alpha, beta and gamma.

    Raises SettingsError for what can't be, and where nothing weighs anything.
    """
    alpha, beta = checked("content_weight", content_weight), checked("style_weight", style_weight)
    gamma = checked("tv_weight", tv_weight)
    content, style = wanted("content", content_layers, weights), wanted("style", style_layers, weights)
    alpha, beta = alpha if content.given else 0.0, beta if style.given else 0.0
    if not (content.given or style.given) or (alpha, beta) == (0.0, 0.0):
        raise SettingsError("content and style both weigh nothing; give at least one layer a weight above zero")
    return content, style, alpha, beta, gamma


_CLASSIC: dict[str, tuple[Callable[[tuple[str, ...]], tuple[str, ...]], tuple[str, ...]]] = {
    "content": (taps.classic_content, taps.CONTENT_TAP),
    "style": (taps.classic_style, taps.STYLE_TAPS),
}


def weighting(
    content: Wanted,
    style: Wanted,
    content_energies: Mapping[str, float],
    style_energies: Mapping[str, Mapping[str, float]],
    statistics: str,
    alpha: float | None,
    beta: float | None,
    gamma: float | None,
) -> Weighting:
    """Every weight as a number. What is left open is chosen, to six digits, so that it can be written down exactly.

    Energies are costs on an image without features, by tap; the style's by statistic first. `statistics` are those, as
    `costs.statistics.registry` takes them.
    """
    shares = registry.parse(statistics)
    unit = style_energies[next(iter(shares))]  # of the first statistic: what the others are made as strong as
    w, lambda_ = content.weights(content_energies), style.weights(unit)
    return Weighting(
        w,
        lambda_,
        content=_share(CONTENT_SHARE, w, content_energies) if alpha is None else alpha,
        style=_share(STYLE_SHARE, lambda_, unit) if beta is None else beta,
        tv=TV_SHARE if gamma is None else gamma,
        statistics={
            name: {tap: _chosen(share * (unit[tap] or 1.0) / (style_energies[name][tap] or 1.0)) for tap in unit}
            for name, share in shares.items()
            if len(shares) > 1
        },
    )


def culprit(weighting: Weighting, costs: Costs) -> str:
    """Which weight is why these costs are not finite, as in "style_weight is 1e+30"; empty where none is.

    A weight is to blame where what it multiplies is finite, and it is beyond all that makes sense.
    """
    if not all(math.isfinite(cost) for cost in (*costs.per_layer.values(), costs.tv)):
        return ""
    parts = {
        "content": weighting.content * costs.content,
        "style": weighting.style * costs.style,
        "tv": weighting.tv * costs.tv,
    }
    most = max(parts, key=lambda part: math.inf if math.isnan(parts[part]) else parts[part])
    given: dict[str, float] = {f"{most}_weight": getattr(weighting, most)}
    if most != "tv":
        given |= {f"the weight of {most} layer {tap}": w for tap, w in getattr(weighting, f"{most}_layers").items()}
    name = max(given, key=lambda name: given[name])
    return f"{name} is {shortest(given[name])}" if given[name] >= SENSELESS else ""


def checked(name: str, value: float | None) -> float | None:
    """A weight of the cost as it was given; raises SettingsError unless it is a finite number >= 0, or None."""
    if value is not None and not 0 <= value < math.inf:
        raise SettingsError(f"{name} is {value}; it must be a finite number, zero or more")
    return value


def spelled(layers: Mapping[str, float]) -> str:
    """ "relu1_1=0.5, relu2_1=1", with every digit."""
    return ", ".join(f"{tap}={shortest(weight)}" for tap, weight in layers.items())


def _share(share: float, layers: Mapping[str, float], energies: Mapping[str, float]) -> float:
    """The weight that gives a cost with these layers the size `share` on an image without features."""
    energy = sum(weight * energies[tap] for tap, weight in layers.items())
    return _chosen(share / energy) if energy > 0 else 0.0


def _chosen(value: float) -> float:
    return float(f"{value:.6g}")
