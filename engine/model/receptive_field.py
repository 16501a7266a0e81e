"""Which pixels a unit sees: the receptive field of every tap, by arithmetic.

A 3x3 convolution looks one row further on either side, a 2x2 pool at the two rows below each of its own; walked from a
unit back to the image, these two rules give a square window that moves with the unit. Rows and columns follow the same
rules. Nothing here knows of images or devices.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ...weights import Weights


class Window(NamedTuple):
    """The pixels [top, bottom) x [left, right); it may reach beyond the image, into the zero padding."""

    top: int
    left: int
    bottom: int
    right: int

    def clipped(self, height: int, width: int) -> "Window":
        """The part that lies on an image of this size."""
        return Window(max(self.top, 0), max(self.left, 0), min(self.bottom, height), min(self.right, width))


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of one tap see: `size` x `size` pixels, `stride` apart, the first from -`margin` on."""

    size: int
    stride: int
    margin: int

    def window(self, row: int, column: int) -> Window:
        """What the unit at this place sees, the zero padding included.

        `Window.clipped` gives the pixels that have an influence, and no others: a pool leaves out an odd last row, but
        the convolution before it has already carried that row to its neighbour.
        """
        top, left = row * self.stride - self.margin, column * self.stride - self.margin
        return Window(top, left, top + self.size, left + self.size)


def receptive_fields(weights: Weights) -> dict[str, ReceptiveField]:
    """The receptive field at every tap, in the network's order."""
    fields: dict[str, ReceptiveField] = {}
    size, stride, margin = 1, 1, 0
    pooled = [before.block != after.block for before, after in pairwise(weights.convolutions)]
    for convolution, after_pool in zip(weights.convolutions, [False, *pooled], strict=True):
        if after_pool:
            size += stride  # the second of the two rows it pools
            stride *= 2
        size, margin = size + 2 * stride, margin + stride
        fields[convolution.tap] = ReceptiveField(size, stride, margin)
    return fields
