"""A strip's convolution by plain products, for the first layer: three channels on one side."""

import numpy as np
from numpy.typing import NDArray

from .strips import Strip, take
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
    gathered, _ = take(scratch, (9, channels, rows, width))
    for r in range(3):
        for s in range(3):
            gathered[3 * r + s] = planes[:, r : r + rows, s : s + width]
    columns, matrix = gathered.reshape(9 * channels, -1), filters.reshape(9 * channels, -1)
    np.matmul(columns.T, matrix, out=target.reshape(rows * width, -1))


def _multiply_first(x: Floats, filters: Floats, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target := the convolution as nine products that are shifted and added: for few output channels."""
    height, width, channels = x.shape
    rows, kept = strip.bottom - strip.top, filters.shape[2]
    first, last = max(strip.top - 1, 0), min(strip.bottom + 1, height)
    planes, scratch = take(scratch, (9, kept, last - first, width))
    matrix = filters.swapaxes(1, 2).reshape(9 * kept, channels)
    np.matmul(matrix, x[first:last].reshape(-1, channels).T, out=planes.reshape(9 * kept, -1))
    total, _ = take(scratch, (kept, rows, width))
    total[...] = 0
    for r in range(3):
        start = strip.top + r - 1  # row of x that the first row of the strip sees through this row of the filter
        inside = slice(max(start, 0) - start, min(start + rows, height) - start)
        source = slice(inside.start + start - first, inside.stop + start - first)
        for s in range(3):
            left, right = max(1 - s, 0), min(width, width + 1 - s)
            total[:, inside, left:right] += planes[3 * r + s, :, source, left + s - 1 : right + s - 1]
    target[...] = total.transpose(1, 2, 0)
