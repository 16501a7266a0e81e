"""The cpu device's convolution: strip by strip, by Winograd's F(4x4, 3x3) or by plain products, each finished while in
the cache."""

import math
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..thread_pool import Workers
from . import winograd
from .strips import Strip, cut, plain_rows, scratch, tile_rows, tiles_across

Floats = NDArray[np.float32]

Finish = Callable[[Strip, Floats], None]
"""finish(strip, target): does the rest on `target` (h, w, channels), where the convolution was written."""


def convolve(x: Floats, transformed: Floats | None, plain: Floats | None, transform: winograd.Transform,
             out: Floats | None, channels_out: int, finish: Finish, pool: Workers,
             workspace: Floats) -> None:  # fmt: skip
    """Convolves x strip by strip, into `out` or, where that is None, scratch, and hands each strip to `finish`."""
    height, width, channels = x.shape
    workers = pool.count
    sizes = scratch(height, width, channels, channels_out, workers)
    shared = workspace[: sizes.shared]
    own = workspace[sizes.shared : sizes.total].reshape(workers, sizes.worker)

    def target_of(strip: Strip, scratch: Floats) -> tuple[Floats, Floats]:
        if out is not None:
            return out[strip.window], scratch
        return _take(scratch, (strip.bottom - strip.top, strip.right - strip.left, channels_out))

    if transformed is None:
        assert plain is not None
        direct = _gather_first if channels <= channels_out else _multiply_first

        def multiply(worker: int, strip: Strip) -> None:
            target, scratch = target_of(strip, own[worker])
            direct(x, plain, strip, target, scratch)
            finish(strip, target)

        rows = plain_rows(width, channels, channels_out)
        tops = range(0, height, rows)
        pool.run(multiply, [Strip(top, min(top + rows, height), 0, width) for top in tops])
        return

    cutting = cut(height, width, channels, channels_out, workers)
    strips = cutting.strips()
    if not cutting.in_phases:

        def convolve(worker: int, strip: Strip) -> None:
            target, scratch = target_of(strip, own[worker])
            tiles = len(tile_rows(strip)) * tiles_across(strip)
            inputs, scratch = _take(scratch, (36, tiles, channels))
            products, scratch = _take(scratch, (36, tiles, channels_out))
            _transform_input(x, transform, strip, inputs, scratch)
            np.matmul(inputs, transformed, out=products)
            _transform_output(products, transform, target, scratch)
            finish(strip, target)

        pool.run(convolve, strips)
        return

    # A map too small for every worker to have a strip worth multiplying: all tiles are transformed, then each
    # worker takes some of the 36 products whole, so that the filters are read once.
    across = -(-width // 4)
    tiles = -(-height // 4) * across
    inputs, shared = _take(shared, (36, tiles, channels))
    products, _ = _take(shared, (36, tiles, channels_out))

    def places(strip: Strip) -> slice:
        rows = tile_rows(strip)
        return slice(rows.start * across, rows.stop * across)

    def enter(worker: int, strip: Strip) -> None:
        _transform_input(x, transform, strip, inputs[:, places(strip)], own[worker])

    def some_products(_: int, some: slice) -> None:
        np.matmul(inputs[some], transformed[some], out=products[some])

    def leave(worker: int, strip: Strip) -> None:
        target, scratch = target_of(strip, own[worker])
        _transform_output(products[:, places(strip)], transform, target, scratch)
        finish(strip, target)

    step = max(1, 12 // workers)
    pool.run(enter, strips)
    pool.run(some_products, [slice(first, first + step) for first in range(0, 36, step)])
    pool.run(leave, strips)


# The transforms go a row of tiles at a time, which stays in the cache, and by few large products: threads that call
# OpenBLAS for small ones wait for each other.


def _transform_input(x: Floats, transform: winograd.Transform, strip: Strip, inputs: Floats, scratch: Floats) -> None:
    """inputs (36, tiles, C) := B d B^T of every 6x6 square d of the strip."""
    height, width, channels = x.shape
    rows, across = tile_rows(strip), tiles_across(strip)
    vertical, scratch = _take(scratch, (6, 4 * across + 2, channels))  # B d, and zeros beside the map
    left = max(strip.left - 1, 0)
    right = min(strip.left + 4 * across + 1, width)
    begin, end = left - (strip.left - 1), right - (strip.left - 1)
    vertical[:, :begin] = 0
    vertical[:, end:] = 0
    inside = vertical[:, begin:end].reshape(6, -1)
    row, column, channel = vertical.strides
    overlapping = as_strided(vertical, (6, 6, across, channels), (row, column, 4 * column, channel))
    columns, _ = _take(scratch, overlapping.shape)
    both = inputs.reshape(6, 6, len(rows), across * channels).transpose(2, 0, 1, 3)
    for tile_row, out in zip(rows, both, strict=True):
        first = 4 * tile_row - 1
        top, bottom = max(first, 0), min(first + 6, height)
        matrix = transform.input[:, top - first : bottom - first]  # the rows above and below the map are zero
        np.matmul(matrix, x[top:bottom, left:right].reshape(bottom - top, -1), out=inside)
        np.copyto(columns, overlapping)
        np.matmul(transform.input, columns.reshape(6, 6, -1), out=out)


def _transform_output(products: Floats, transform: winograd.Transform, target: Floats, scratch: Floats) -> None:
    """target := A m A^T of every m in products (36, tiles, C), cut to its size."""
    height, width, channels = target.shape
    down, across = -(-height // 4), -(-width // 4)
    columns, scratch = _take(scratch, (6, 4, across, channels))  # m A^T
    vertical, _ = _take(scratch, (6, across, 4, channels))
    inside = vertical.reshape(6, -1)[:, : width * channels]
    for row, squares in enumerate(products.reshape(6, 6, down, across * channels).transpose(2, 0, 1, 3)):
        np.matmul(transform.output, squares, out=columns.reshape(6, 4, -1))
        np.copyto(vertical, columns.swapaxes(1, 2))
        place = target[4 * row : 4 * row + 4]
        np.matmul(transform.output[: len(place)], inside, out=place.reshape(len(place), -1))


def _gather_first(x: Floats, filters: Floats, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target := the convolution by one product with nine shifted copies of every channel: for few input channels."""
    height, width, channels = x.shape
    rows = strip.bottom - strip.top
    planes, scratch = _take(scratch, (channels, rows + 2, width + 2))
    first, last = max(strip.top - 1, 0), min(strip.bottom + 1, height)
    above = first - (strip.top - 1)
    planes[:, :above] = 0
    planes[:, above + last - first :] = 0
    planes[:, :, 0] = 0
    planes[:, :, -1] = 0
    planes[:, above : above + last - first, 1:-1] = x[first:last].transpose(2, 0, 1)
    gathered, _ = _take(scratch, (9, channels, rows, width))
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
    planes, scratch = _take(scratch, (9, kept, last - first, width))
    matrix = filters.swapaxes(1, 2).reshape(9 * kept, channels)
    np.matmul(matrix, x[first:last].reshape(-1, channels).T, out=planes.reshape(9 * kept, -1))
    total, _ = _take(scratch, (kept, rows, width))
    total[...] = 0
    for r in range(3):
        start = strip.top + r - 1  # row of x that the first row of the strip sees through this row of the filter
        inside = slice(max(start, 0) - start, min(start + rows, height) - start)
        source = slice(inside.start + start - first, inside.stop + start - first)
        for s in range(3):
            left, right = max(1 - s, 0), min(width, width + 1 - s)
            total[:, inside, left:right] += planes[3 * r + s, :, source, left + s - 1 : right + s - 1]
    target[...] = total.transpose(1, 2, 0)


def _take(scratch: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The head of the scratch memory in this shape, and the rest."""
    size = math.prod(shape)
    return scratch[:size].reshape(shape), scratch[size:]
