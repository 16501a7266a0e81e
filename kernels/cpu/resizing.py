"""Resizing and borders on the cpu device."""

import math

import numpy as np
from numpy.typing import NDArray

from .sums import blocks_of
from .thread_pool import Workers

Floats = NDArray[np.float32]

RESIZE_RUN, RESIZE_BYTES = 64, 8 << 20  # a side of what a resize computes at a time, and half-way there, its bytes


def resize(image: Floats, out: Floats, pool: Workers) -> None:
    """`Device.resize`."""
    height, width = image.shape[:2]
    across = [(columns, *lanczos_rows(width, out.shape[1], columns)) for columns in _runs(out.shape[1])]

    def task(_: int, rows: slice) -> None:
        taken, down = lanczos_rows(height, out.shape[0], rows)
        band = (down @ image[taken].reshape(len(down.T), -1)).reshape(len(down), width, 3)
        for columns, seen, weights in across:
            out[rows, columns] = np.matmul(weights, band[:, seen])

    pool.run(task, _runs(out.shape[0], max(1, min(RESIZE_RUN, RESIZE_BYTES // image[0].nbytes))))


def pad_edge(image: Floats, out: Floats) -> None:
    """`Device.pad_edge`."""
    border = (len(out) - len(image)) // 2
    height, width = image.shape[:2]
    out[border : border + height, border : border + width] = image
    out[border : border + height, :border] = image[:, :1]
    out[border : border + height, border + width :] = image[:, -1:]
    out[:border], out[border + height :] = out[border], out[border + height - 1]


def pad_edge_gradient(gradient: Floats, out: Floats) -> None:
    """`Device.pad_edge_gradient`."""
    border = (len(gradient) - len(out)) // 2
    height, width = out.shape[:2]
    for block in blocks_of(out):
        rows = gradient[border + block.start : border + block.stop].copy()
        if block.start == 0:
            rows[0] += gradient[:border].sum(axis=0)
        if block.stop == height:
            rows[-1] += gradient[border + height :].sum(axis=0)
        out[block] = rows[:, border : border + width]
        out[block, 0] += rows[:, :border].sum(axis=1)
        out[block, -1] += rows[:, border + width :].sum(axis=1)


def _runs(length: int, step: int = RESIZE_RUN) -> list[slice]:
    """An axis of the output of `resize`, cut up: a run's products take in little that its filters do not reach."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def lanczos_rows(size_in: int, size_out: int, run: slice) -> tuple[slice, Floats]:
    """A run's rows of `lanczos_matrix`, and the columns, `taken`, outside which they are zero."""
    ratio = size_in / size_out
    widened = max(ratio, 1.0)
    first, last = (run.start + 0.5) * ratio - 3 * widened, (run.stop - 0.5) * ratio + 3 * widened
    taken = slice(max(0, math.floor(first)), min(size_in, math.ceil(last)))
    centres = (np.arange(run.start, run.stop)[:, None] + 0.5) * ratio
    t = (np.arange(taken.start, taken.stop)[None, :] + 0.5 - centres) / widened
    taps = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)
    return taken, (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
