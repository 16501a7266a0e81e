"""A strip's convolution by plain products, for the first layer: three channels on one side."""

import numpy as np
from numpy.typing import NDArray

from .strips import Strip, overlapping, take
from .winograd import Transform

Floats = NDArray[np.float32]


def convolve_strip(x: Floats, filters: Floats, _: Transform, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target (h, w, C_out) := the strip of the convolution of x with filters (9, C_in, C_out)."""
    multiply = _gather_first if x.shape[2] <= target.shape[2] else _multiply_first
    multiply(x, filters, strip, target, scratch)


def _gather_first(x: Floats, filters: Floats, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target := the convolution by one product with nine shifted copies of every channel: for few input channels."""
    height, width, channels = x.shape
    rows = strip.bottom - strip.top
    planes, scratch = take(scratch, (channels, rows + 2, width + 2))
    first, last = max(strip.top - 1, 0), min(strip.bottom + 1, height)
    above = first - (strip.top - 1)
    planes[:, :above] = 0
    planes[:, above + last - first :] = 0
    planes[:, :, 0] = 0
    planes[:, :, -1] = 0
    planes[:, above : above + last - first, 1:-1] = x[first:last].transpose(2, 0, 1)
    gathered, _ = take(scratch, (3, 3, channels, rows, width))
    line = width + 2
    np.copyto(gathered, overlapping(planes, 0, gathered.shape, (line, 1, (rows + 2) * line, line, 1)))
    columns, matrix = gathered.reshape(9 * channels, -1), filters.reshape(9 * channels, -1)
    np.matmul(columns.T, matrix, out=target.reshape(rows * width, -1))


def _multiply_first(x: Floats, filters: Floats, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target := the convolution as nine products that are shifted and added: for few output channels.

    The product with tap (r, s) is a plane for each output channel, wanted r - 1 rows and s - 1 columns away. Planes are
    read as one long row each, where a pixel beyond the end of a row is the first of the next: that one is set to zero.
    """
    height, width, channels = x.shape
    rows, kept = strip.bottom - strip.top, filters.shape[2]
    first, last = max(strip.top - 1, 0), min(strip.bottom + 1, height)
    above = first - (strip.top - 1)
    plane = (rows + 2) * width + 2
    planes, scratch = take(scratch, (9 * kept, plane))
    begin, end = 1 + above * width, 1 + (above + last - first) * width
    planes[:, :begin] = 0
    planes[:, end:] = 0
    matrix = filters.swapaxes(1, 2).reshape(9 * kept, channels)
    np.matmul(matrix, x[first:last].reshape(-1, channels).T, out=planes[:, begin:end])
    by_tap = planes[:, 1:-1].reshape(3, 3, kept, rows + 2, width)
    by_tap[:, 0, :, :, -1] = 0
    by_tap[:, 2, :, :, 0] = 0
    total, _ = take(scratch, (kept, rows * width))
    shifted = overlapping(planes, 0, (3, 3, *total.shape), (3 * kept * plane + width, kept * plane + 1, plane, 1))
    np.add.reduce(shifted, axis=(0, 1), out=total)
    target[...] = total.reshape(kept, rows, width).transpose(1, 2, 0)
