"""Some of a style's pixels at a tap, where all of them would be too many: the same on every device, in tiles or not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....kernels.device import Array, Device
from ....kernels.random.philox import philox
from ...tiling.geometry import TapTile
from ...types import Mask
from .base import TapShape

DOWNLOAD_BYTES = 1 << 22
"""At a time."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels with their activations, in host memory."""

    rows: NDArray[np.int64]
    """(M,)"""
    columns: NDArray[np.int64]
    """(M,)"""
    values: NDArray[np.floating]
    """(M, C): of each, once its tile has been taken in."""

    def take(self, device: Device, features: Array, part: TapTile) -> None:
        """Takes in the activations (h, w, C) of a tile, where it owns them."""
        (top, left), (rows, columns) = (at.start for at in part.own), part.at
        step = max(1, DOWNLOAD_BYTES // max(1, features[0].nbytes))
        inside = (self.columns >= columns.start) & (self.columns < columns.stop)
        for first in range(rows.start, rows.stop, step):
            last = min(first + step, rows.stop)
            here = np.flatnonzero(inside & (self.rows >= first) & (self.rows < last))
            if len(here):
                at = first - rows.start + top
                band = device.download(features[at : at + last - first])
                self.values[here] = band[self.rows[here] - first, self.columns[here] - columns.start + left]


def sampled(device: Device, shape: TapShape, mask: Mask | None, count: int) -> Sample:
    """`count` pixels, at most as many as there are: spread evenly, and each as often as its weight in `mask` (h, w).

    All of them, where there are no more and no mask.
    """
    pixels = shape.height * shape.width
    if mask is None and count == pixels:
        chosen = np.arange(pixels)
    else:
        numbers, zeros = np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)
        jitter = philox((numbers, zeros, zeros, zeros), (0, 0))[0] / 2.0**32  # lest a grid meets a pattern
        places = (np.arange(count) + jitter) / count
        if mask is None:
            chosen = (places * pixels).astype(np.int64)
        else:
            total = np.cumsum(mask, dtype=np.float64)
            chosen = np.searchsorted(total, places * total[-1], side="right")
    rows, columns = np.divmod(chosen, shape.width)
    return Sample(rows, columns, np.empty((count, shape.channels), device.image_dtype))
