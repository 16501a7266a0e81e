"""Covariances and means apart: 1/(4 nC^2) (|S(S) - S(G)|^2 + |m m^T(S) - m m^T(G)|^2)."""

from typing import Any

import numpy as np

from ....kernels.device import Device
from .base import StyleTerm
from .second_order import MomentErrors, Moments, OfSquaredErrors, downloaded


class CovarianceAndMean(OfSquaredErrors):
    def finish_target(self, device: Device, target: Moments, scratch: Any) -> tuple[float, Moments]:
        del scratch
        gram, mean = downloaded(device, target.gram), downloaded(device, target.mean)
        outer = np.outer(mean, mean)
        return float(np.sum(np.square(gram - outer)) + np.sum(np.square(outer))) / (4 * len(gram) ** 2), target

    def compare(self, device: Device, term: StyleTerm[Moments, Moments, MomentErrors]) -> None:
        for number, style in enumerate(term.targets):
            device.moments_cost(
                term.sums.gram, term.sums.mean, style.target.gram, style.target.mean, self.scale(term, style.share),
                cost=style.cost, gram_error=term.errors.gram_error, mean_error=term.errors.mean_error,
                accumulate=number > 0,
            )  # fmt: skip


STATISTIC = CovarianceAndMean()
