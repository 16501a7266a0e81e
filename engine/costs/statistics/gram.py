"""The paper's statistic: 1/(4 nC^2) |G(S) - G(G)|^2.

For images of one size, one style and no mask it is 1/(2 nH nW nC)^2 ||Gram(S) - Gram(G)||^2 with plain Grams (Gatys,
Ecker & Bethge 2015), to the letter.
"""

from typing import Any

import numpy as np

from ....kernels.device import Array, Device
from .base import StyleTerm
from .second_order import MomentErrors, Moments, OfSquaredErrors, downloaded


class Gram(OfSquaredErrors):
    with_mean, linear = False, True

    def finish_target(self, device: Device, target: Moments, scratch: Any) -> tuple[float, Moments]:
        del scratch
        gram = downloaded(device, target.gram)
        return float(np.sum(np.square(gram))) / (4 * len(gram) ** 2), target

    def matrix(self, term: StyleTerm[Moments, Moments, MomentErrors]) -> Array:
        return term.errors.gram_error

    def compare(self, device: Device, term: StyleTerm[Moments, Moments, MomentErrors]) -> None:
        for number, style in enumerate(term.targets):
            device.style_cost(
                term.sums.gram, style.target.gram, self.scale(term, style.share),
                cost=style.cost, gram_error=term.errors.gram_error, accumulate=number > 0,
            )  # fmt: skip


STATISTIC = Gram()
