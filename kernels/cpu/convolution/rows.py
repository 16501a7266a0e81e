"""A strip's convolution by Winograd's F(4, 3) down the columns and plain products along the rows.

For thin layers. Half the multiplications of plain products, and no number is moved but by a product: a BLAS reads three
neighbors of a row of pixels as one row of a matrix, and writes every third pixel.
"""

import numpy as np
from numpy.typing import NDArray

from .strips import Strip, overlapping, take, tile_rows
from .winograd import Transform

Floats = NDArray[np.float32]


def convolve_strip(x: Floats, filters: Floats, transform: Transform, strip: Strip, target: Floats,
                   scratch: Floats) -> None:  # fmt: skip
    """target (h, w, C_out) := the strip of the convolution of x with filters (6, 3 C_in, C_out).

    With V = B d of every column of six pixels d, a zero pixel on either side of the map, the product of tap t is
    P_t[p] = (V_t[p], V_t[p + 1], V_t[p + 2]) filters_t. Pixels p = 0, 3, 6, ... are rows of a matrix that do not
    overlap, and so are 1, 4, ... and 2, 5, .... Rows of tiles follow each other, and what would reach from one into the
    next is computed and left out.
    """
    channels_out = target.shape[2]
    channels, width = x.shape[2], strip.right - strip.left + 2
    count = len(tile_rows(strip))
    triples = -(-count * width // 3)
    transformed, scratch = take(scratch, (6, 3 * triples + 2, channels))
    products, _ = take(scratch, (6, triples, 3, channels_out))
    transformed[:, count * width :] = 0
    transform_columns(x, transform, strip, transformed[:, : count * width].reshape(6, count, width, channels))
    flat = transformed.reshape(6, -1)
    for first in range(3):
        some = flat[:, first * channels : (first + 3 * triples) * channels].reshape(6, triples, 3 * channels)
        np.matmul(some, filters, out=products[:, :, first])
    rows = products.reshape(6, -1)[:, : count * width * channels_out].reshape(6, count, -1)
    rows = rows[:, :, : target.shape[1] * channels_out]
    whole = len(target) // 4
    if whole:
        np.matmul(transform.output, rows[:, :whole].swapaxes(0, 1), out=target[: 4 * whole].reshape(whole, 4, -1))
    if whole < count:
        rest = target[4 * whole :]
        np.matmul(transform.output[: len(rest)], rows[:, whole], out=rest.reshape(len(rest), -1))


def transform_columns(x: Floats, transform: Transform, strip: Strip, out: Floats) -> None:
    """out (6, rows of tiles, w, C) := B d of every column of six pixels, from the pixel left of the strip on.

    What lies beyond the map is zero.
    """
    height, width, channels = x.shape
    left, right = max(strip.left - 1, 0), min(strip.left - 1 + out.shape[2], width)
    begin, end = left - (strip.left - 1), right - (strip.left - 1)
    out[:, :, :begin] = 0
    out[:, :, end:] = 0
    into = out[:, :, begin:end].reshape(6, out.shape[1], -1)
    rows = tile_rows(strip)
    inner = range(max(rows.start, 1), min(rows.stop, (height - 1) // 4))  # all six rows lie within the map
    if inner:
        row = width * channels
        shape = (len(inner), 6, (right - left) * channels)
        squares = overlapping(x, (4 * inner.start - 1) * row + left * channels, shape, (4 * row, row, 1))
        some = into[:, inner.start - rows.start : inner.stop - rows.start]
        np.matmul(transform.input, squares, out=some.swapaxes(0, 1))
    for tile_row in rows:
        if tile_row not in inner:
            first_row = 4 * tile_row - 1
            top, bottom = max(first_row, 0), min(first_row + 6, height)
            matrix = transform.input[:, top - first_row : bottom - first_row]
            some_rows = x[top:bottom, left:right].reshape(bottom - top, -1)
            np.matmul(matrix, some_rows, out=into[:, tile_row - rows.start])
