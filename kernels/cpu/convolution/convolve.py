"""The cpu device's convolution: strip by strip, each finished while in the cache."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..thread_pool import Workers
from . import plain, rows, squares
from .filters import Method
from .strips import Strip, cut, scratch, take, tile_rows
from .winograd import Transform

Floats = NDArray[np.float32]

Finish = Callable[[Strip, Floats], None]
"""finish(strip, target): does the rest on `target` (h, w, channels), where the convolution was written."""


def convolve(x: Floats, method: Method, filters: Floats, transform: Transform, out: Floats | None, channels_out: int,
             finish: Finish, pool: Workers, workspace: Floats) -> None:  # fmt: skip
    """Convolves x strip by strip, into `out` or, where that is None, scratch, and hands each strip to `finish`."""
    x = np.ascontiguousarray(x)
    height, width, channels = x.shape
    workers = pool.count
    sizes = scratch(height, width, channels, channels_out, workers)
    shared = workspace[: sizes.shared]
    own = workspace[sizes.shared : sizes.total].reshape(workers, sizes.worker)

    def target_of(strip: Strip, scratch: Floats) -> tuple[Floats, Floats]:
        if out is not None:
            return out[strip.window], scratch
        return take(scratch, (strip.bottom - strip.top, strip.right - strip.left, channels_out))

    cutting = cut(height, width, channels, channels_out, workers)
    strips = cutting.strips()
    if not cutting.in_phases:
        convolve_strip = {"plain": plain, "rows": rows, "squares": squares}[method].convolve_strip

        def whole(worker: int, strip: Strip) -> None:
            target, scratch = target_of(strip, own[worker])
            convolve_strip(x, filters, transform, strip, target, scratch)
            finish(strip, target)

        pool.run(whole, strips)
        return

    # A map too small for every worker to have a strip worth multiplying: all tiles are transformed, then each
    # worker takes its share of the 36 products whole, so that the filters are read once.
    across = -(-width // 4)
    tiles = -(-height // 4) * across
    inputs, shared = take(shared, (36, tiles, channels))
    products, _ = take(shared, (36, tiles, channels_out))

    def places(strip: Strip) -> slice:
        rows = tile_rows(strip)
        return slice(rows.start * across, rows.stop * across)

    def enter(worker: int, strip: Strip) -> None:
        squares.transform_input(x, transform, strip, inputs[:, places(strip)], own[worker])

    def some_products(_: int, some: slice) -> None:
        np.matmul(inputs[some], filters[some], out=products[some])

    def leave(worker: int, strip: Strip) -> None:
        target, scratch = target_of(strip, own[worker])
        squares.transform_output(products[:, places(strip)], transform, target, scratch)
        finish(strip, target)

    step = -(-36 // workers)
    pool.run(enter, strips)
    pool.run(some_products, [slice(first, first + step) for first in range(0, 36, step)])
    pool.run(leave, strips)
