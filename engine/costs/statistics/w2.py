"""The squared Wasserstein-2 distance between two Gaussians (Olkin & Pukelsheim 1982), by channel:

    1/nC (|m(S) - m(G)|^2 + tr S(S) + tr S(G) - 2 tr (S(S)^1/2 S(G) S(S)^1/2)^1/2)

each covariance with a small ridge, so that the roots are smooth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....kernels.device import W2_SCRATCH, Array, Device
from ...memory.arena import Buffer, allocate
from .base import SeenTile, StyleTerm, TapShape
from .second_order import MomentErrors, Moments, SecondOrder, downloaded

W2_RIDGE = 1e-3
"""Of the mean variance of a style's channels; what is added to both covariances."""
LEAST_RIDGE = 1e-4
"""Of the mean energy of a style's channels; and of a layer that sees nothing:"""
TINY_RIDGE = 1e-12


@dataclass(frozen=True, eq=False)
class RootAndMean:
    """Of a style."""

    root: Array
    """(C, C): the root of the covariance with its ridge; until it is known, the Gram."""
    mean: Array
    """(C,)"""
    ridge: float = 0.0


@dataclass(frozen=True, eq=False)
class Matrices:
    """To work in."""

    matrices: Array
    """(W2_SCRATCH, C, C)"""


class Wasserstein2(SecondOrder[RootAndMean]):
    def target(self, device: Device, shape: TapShape) -> RootAndMean:
        alike = self.sums(device, shape.channels)
        return RootAndMean(alike.gram, alike.mean)

    def scratch(
        self, device: Device, shape: TapShape, pieces: Sequence[TapShape], styles: Sequence[TapShape]
    ) -> Matrices:
        del pieces, styles
        return Matrices(((W2_SCRATCH, shape.channels, shape.channels), device.image_dtype))

    def gather_target(self, device: Device, seen: SeenTile, target: RootAndMean, partial: Moments | None) -> None:
        self.gather(device, seen, Moments(target.root, target.mean), partial)

    def finish_target(self, device: Device, target: RootAndMean, scratch: Matrices) -> tuple[float, RootAndMean]:
        gram, mean = downloaded(device, target.root), downloaded(device, target.mean)
        energy = float(np.trace(gram)) / len(gram)
        # Of a flat picture hardly any variance is left: what float32 can tell from none decides then.
        ridge = max(W2_RIDGE * (energy - float(mean @ mean) / len(gram)), LEAST_RIDGE * energy, TINY_RIDGE)
        (root,) = allocate(device, [Buffer("root", gram.shape, device.image_dtype, 0, 0)]).values()
        device.w2_root(target.root, target.mean, ridge, root, scratch=scratch.matrices)
        device.copy(root, target.root)
        return energy, replace(target, ridge=ridge)

    def compare(self, device: Device, term: StyleTerm[RootAndMean, Moments, MomentErrors]) -> None:
        for number, style in enumerate(term.targets):
            linear = 2 * term.weight * style.share / (term.channels * term.pixels)
            device.w2_cost(
                term.sums.gram, term.sums.mean, style.target.root, style.target.mean, style.target.ridge, linear,
                cost=style.cost, gram_error=term.errors.gram_error, mean_error=term.errors.mean_error,
                scratch=term.scratch.matrices, accumulate=number > 0,
            )  # fmt: skip


STATISTIC = Wasserstein2()
