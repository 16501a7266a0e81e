"""What transparent pixels are taken for: no file says what colors lie under them, so these must not matter.

They take on those of the nearest visible pixels, blurred the more the further off these are. So no edge is made that
the picture does not have, whatever is done with it afterwards: resized, or looked at by a layer that sees far.
"""

from dataclasses import replace

import numpy as np

from ..types import FloatArray
from .picture import Picture

SEEN = 1 / 510
"""What is less opaque than half a step of 8 bits is transparent."""


def visible(picture: Picture) -> Picture:
    """The picture with other colors where it is transparent, and partly so where it is partly; alpha is unchanged."""
    if picture.alpha is None or not (picture.alpha >= SEEN).any():
        return picture
    alpha = picture.alpha[..., None].astype(picture.pixels.dtype)
    filled = picture.pixels * alpha
    filled += (1 - alpha) * _around(picture.pixels * alpha, alpha)
    return replace(picture, pixels=np.clip(filled, 0, 1).astype(picture.pixels.dtype))


def _around(colors: FloatArray, alpha: FloatArray) -> FloatArray:
    """(H, W, 3): of `colors` (H, W, 3), premultiplied by `alpha` (H, W, 1), the mean of what is visible near by.

    Where little of a square is visible, more comes from the square twice as large around it.
    """
    height, width, _ = colors.shape
    if height == width == 1:
        mean: FloatArray = colors / np.maximum(alpha, np.finfo(alpha.dtype).tiny)
        return mean
    wider = _grown(_around(_halved(colors), _halved(alpha)), (height, width))
    found: FloatArray = colors + (1 - alpha) * wider
    return found


def _halved(values: FloatArray) -> FloatArray:
    """The mean of every 2x2 pixels; an odd last row or column is repeated."""
    height, width, _ = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    halved: FloatArray = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, -1).mean(axis=(1, 3))
    return halved


def _grown(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Twice as large, up to an odd last row or column; linear between the centers."""
    for axis, length in enumerate(size):
        at = (np.arange(length) + 0.5) / 2 - 0.5
        low = np.floor(at).astype(np.intp)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)).astype(values.dtype)
        last = values.shape[axis] - 1
        below, above = (values.take(np.clip(low + step, 0, last), axis=axis) for step in (0, 1))
        values = below + part * (above - below)
    return values
