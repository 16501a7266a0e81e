"""A strip's convolution by Winograd's F(4x4, 3x3): 36 products between two transforms.

The transforms are one-dimensional products, of as many rows of tiles at a time as stay in the cache.
"""

import numpy as np
from numpy.typing import NDArray

from .rows import transform_columns
from .strips import Strip, group_rows, overlapping, take, tile_rows, tiles_across
from .winograd import Transform

Floats = NDArray[np.float32]


def convolve_strip(x: Floats, filters: Floats, transform: Transform, strip: Strip, target: Floats,
                   scratch: Floats) -> None:  # fmt: skip
    """target (h, w, C_out) := the strip of the convolution of x with filters (36, C_in, C_out)."""
    tiles = len(tile_rows(strip)) * tiles_across(strip)
    inputs, scratch = take(scratch, (36, tiles, x.shape[2]))
    products, scratch = take(scratch, (36, tiles, target.shape[2]))
    transform_input(x, transform, strip, inputs, scratch)
    np.matmul(inputs, filters, out=products)
    transform_output(products, transform, target, scratch)


def transform_input(x: Floats, transform: Transform, strip: Strip, inputs: Floats, scratch: Floats) -> None:
    """inputs (36, tiles, C) := B d B^T of every 6x6 square d of the strip."""
    channels = x.shape[2]
    count, across = len(tile_rows(strip)), tiles_across(strip)
    both = inputs.reshape(6, 6, count, across * channels)
    group = group_rows(across, channels)
    for first in range(0, count, group):
        last = min(first + group, count)
        top, bottom = strip.top + 4 * first, min(strip.top + 4 * last, strip.bottom)
        columns, rest = take(scratch, (6, last - first, 4 * across + 2, channels))  # B d
        transform_columns(x, transform, Strip(top, bottom, strip.left, strip.right), columns)
        row = (4 * across + 2) * channels
        shape = (6, 6, last - first, across, channels)
        apart, _ = take(rest, shape)
        np.copyto(apart, overlapping(columns, 0, shape, ((last - first) * row, channels, row, 4 * channels, 1)))
        out = both[:, :, first:last].reshape(6, 6, -1)
        np.matmul(transform.input, apart.reshape(6, 6, -1), out=out)


def transform_output(products: Floats, transform: Transform, target: Floats, scratch: Floats) -> None:
    """target := A m A^T of every m in products (36, tiles, C), cut to its size."""
    height, width, channels = target.shape
    down, across = -(-height // 4), -(-width // 4)
    both = products.reshape(6, 6, down, across * channels).swapaxes(0, 1)
    group = group_rows(across, channels)
    for first in range(0, down, group):
        last = min(first + group, down)
        count = (last - first) * across * channels
        columns, rest = take(scratch, (4, 6, count))  # A m
        np.matmul(transform.output, both[:, :, first:last].reshape(6, 6, count), out=columns.swapaxes(0, 1))
        squares, _ = take(rest, (4, 4, last - first, across, channels))
        np.matmul(transform.output, columns, out=squares.reshape(4, 4, count))
        place = target[4 * first : 4 * last]
        if len(place) % 4 == 0 and width % 4 == 0:
            apart = place.reshape(last - first, 4, across, 4, channels)
            np.copyto(apart.transpose(1, 3, 0, 2, 4), squares)
            continue
        for r in range(4):
            for s in range(4):
                pixels = place[r::4, s::4]
                np.copyto(pixels, squares[r, s, : pixels.shape[0], : pixels.shape[1]])
