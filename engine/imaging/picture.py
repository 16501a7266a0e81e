"""A picture as the engine takes it, what is raised where something can't be one, and how sizes are rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..types import FloatArray

AnyArray: TypeAlias = npt.NDArray[Any]
Float32Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the engine takes it.

    pixels  (H, W, 3) RGB in sRGB, values in [0, 1], C-contiguous; float32, or the float64 of the array read
    alpha   (H, W) float32 in [0, 1], 1 = opaque; None if every pixel is opaque
    name    the file's stem, or "image"
    """

    pixels: FloatArray
    alpha: Float32Array | None
    name: str


def output_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(height, width) in the same proportion, the longer side long_side; to the nearest pixel, at least 1."""
    if min(height, width, long_side) < 1:
        raise ImageError(f"cannot size {height}x{width} to {long_side}: every side must be at least 1")
    longest = max(height, width)

    def scaled(side: int) -> int:
        return max(1, (2 * side * long_side + longest) // (2 * longest))

    return scaled(height), scaled(width)


def long_side(height: int, width: int, short_side: int) -> int:
    """The least long side of a picture with these proportions whose shorter side is `short_side` pixels or more."""
    side = max(1, max(height, width) * (2 * short_side - 1) // (2 * min(height, width)) - 1)
    while min(output_size(height, width, side)) < short_side:
        side += 1
    return side
