"""What the statistics of second order have in common: Gram matrix and mean of the activations over a region.

Over its pixels p, with weights w_p of mean one: Gram G = sum w a a^T / (nH nW), mean m = sum w a / (nH nW), covariance
S = G - m m^T. A cost of these sends back to the activations (2 G_error a + m_error) w_p, up to a factor.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ....kernels.device import Array, Device
from .base import SeenTile, Statistic, StyleTerm, TapShape


@dataclass(frozen=True, eq=False)
class Moments:
    """Of activations with C channels."""

    gram: Array
    """(C, C)"""
    mean: Array | None
    """(C,); None for "gram"."""


@dataclass(frozen=True, eq=False)
class MomentErrors:
    """The derivatives of the style cost with respect to both, up to a factor of their own."""

    gram_error: Array
    """(C, C)"""
    mean_error: Array | None
    """(C,); None for "gram"."""


T = TypeVar("T")


class SecondOrder(Statistic[T, Moments, MomentErrors]):
    """Everything but the target and the comparison."""

    with_mean = True

    def sums(self, device: Device, channels: int) -> Moments:
        real = device.image_dtype
        return Moments(((channels, channels), real), ((channels,), real) if self.with_mean else None)

    def errors(self, device: Device, shape: TapShape) -> MomentErrors:
        alike = self.sums(device, shape.channels)
        return MomentErrors(alike.gram, alike.mean)

    def measure(self, device: Device, features: Array, weights: Array | None, out: Moments) -> None:
        device.gram(features, out.gram, weights=weights)
        if out.mean is not None:
            device.mean(features, out.mean, weights=weights)

    def add_gradient(
        self, device: Device, term: StyleTerm[T, Moments, MomentErrors], seen: SeenTile, out: Array, accumulate: bool
    ) -> None:
        errors = term.errors
        device.style_gradient(
            seen.features, errors.gram_error, out=out, accumulate=accumulate, mean_error=errors.mean_error,
            weights=seen.weights,
        )  # fmt: skip


class OfSquaredErrors(SecondOrder[Moments]):
    """Those whose target is the style's own moments."""

    def target(self, device: Device, shape: TapShape) -> Moments:
        return self.sums(device, shape.channels)

    def gather_target(self, device: Device, seen: SeenTile, target: Moments, partial: Moments | None) -> None:
        self.gather(device, seen, target, partial)

    def scale(self, term: StyleTerm[Moments, Moments, MomentErrors], share: float) -> float:
        """Of the errors: d(gram)/d(features) brings a factor 2/pixels, the square of its error another 2."""
        return term.weight * share / (term.channels**2 * term.pixels)


def downloaded(device: Device, array: Array) -> NDArray[np.float64]:
    """In host memory."""
    return device.download(array).astype(np.float64)
