"""Filters as the cpu device keeps them, for the fastest of three ways to convolve with them."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import winograd

Floats = NDArray[np.float32]
Method = Literal["plain", "rows", "squares"]
"""By products alone; by Winograd's F(4, 3) down the columns and products along the rows; by F(4x4, 3x3)."""


class CpuFilters(NamedTuple):
    """The operands of the convolution, `forward`, and of its gradient, `backward`, which has C_in and C_out swapped.

    plain: (9, C_in, C_out). rows: (6, 3 C_in, C_out), the three taps of a row one below the other. squares:
    (36, C_in, C_out), which serve both directions, so that there is no `backward`.
    """

    method: Method
    forward: Floats
    backward: Floats | None
    bias: Floats


def method_of(channels_in: int, channels_out: int) -> Method:
    """The fastest, by what each takes on a pixel, in ns of a core with AVX2 (docs/decisions/winograd.md).

    The products of the first layers have too few rows or columns for a BLAS to do anything but plain ones well.
    """
    if min(channels_in, channels_out) < FEW_CHANNELS:
        return "plain"
    products, both = channels_in * channels_out, channels_in + channels_out
    return "rows" if 4.5 * products / 37 + 0.8 * both < 2.25 * products / 35 + 2.2 * both else "squares"


FEW_CHANNELS = 8


def pack_filters(kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> CpuFilters:
    """Of a kernel (3, 3, C_in, C_out)."""
    bias = bias.astype(np.float32)
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    method = method_of(*kernel.shape[2:])
    if method == "squares":
        return CpuFilters(method, winograd.transform_filters(kernel), None, bias)
    if method == "rows":
        return CpuFilters(method, winograd.transform_rows(kernel), winograd.transform_rows(turned), bias)
    forward, backward = (np.ascontiguousarray(k, np.float32).reshape(9, *k.shape[2:]) for k in (kernel, turned))
    return CpuFilters(method, forward, backward, bias)
