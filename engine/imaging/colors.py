"""Whose colors the painting has: the style's recolored beforehand, or the content's put back afterwards.

Both ways are those of Gatys, Bethge, Hertzmann & Shechtman, "Preserving Color in Neural Artistic Style Transfer"
(2016), on sRGB values as they are. Everything is computed once per run, on the host, in float64; pictures are
(H, W, 3) floats in [0, 1] and come back in the dtype they had.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ..memory.spill import bands
from ..types import FloatArray
from .files import ImageError

Matrix = NDArray[np.float64]

LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601: the Y of YIQ and YUV
GRAY = 3.5 / 255
_LEAST_DEVIATION = 1 / 255  # of a color that a picture has, along any axis; what varies less is noise of 8 bits


def luma(image: FloatArray) -> Matrix:
    """(H, W): Y = 0.299 R + 0.587 G + 0.114 B."""
    values: Matrix = np.clip(image.astype(np.float64) @ LUMA, 0, 1)
    return values


def match(style: FloatArray, content: FloatArray, seen: FloatArray | None = None) -> FloatArray:
    """The style with the content's mean and covariance of colors, then clamped to [0, 1]; sizes may differ.

    seen: (H, W), how much each pixel of the style counts in its own; None is all alike.
    """
    matrix, offset = color_map(style, content, seen)
    return _finished(style @ matrix.T + offset, style)


def color_map(style: FloatArray, content: FloatArray, seen: FloatArray | None = None) -> tuple[Matrix, Matrix]:
    """A (3, 3) and b (3,): x -> A x + b gives the style's colors the content's mean and covariance.

    Of all linear maps that do, the one that changes the colors least, summed over the style's pixels: the
    Monge-Kantorovich map A = S^(-1/2) (S^(1/2) C S^(1/2))^(1/2) S^(-1/2) (Pitié & Kokaram 2007), S and C the
    covariances. Like the symmetric map that Gatys et al. prefer, and unlike the Cholesky one, it favours no channel.
    Axes along which the style does not vary by a 1/255 can't be stretched to anything and are left out: a gray style
    takes the content's mean color and, along gray, its contrast.
    """
    (mean_s, covariance_s), (mean_c, covariance_c) = _moments(style, seen), _moments(content)
    variances, axes = np.linalg.eigh(covariance_s)
    there = variances > _LEAST_DEVIATION**2
    root = (axes * np.sqrt(np.where(there, variances, 0))) @ axes.T
    inverse = (axes * np.where(there, np.where(there, variances, 1) ** -0.5, 0)) @ axes.T
    middle, directions = np.linalg.eigh(root @ covariance_c @ root)
    matrix: Matrix = inverse @ (directions * np.sqrt(np.maximum(middle, 0))) @ directions.T @ inverse
    return matrix, mean_c - matrix @ mean_s


def is_gray(image: FloatArray) -> bool:
    """Whether no channel differs from another by more than rounding and lossy files make of gray."""
    return all(float(np.ptp(image[rows], axis=2).max()) <= GRAY for rows in bands(image.shape))


def luminance(image: FloatArray, like: FloatArray | None = None, seen: FloatArray | None = None) -> FloatArray:
    """The luminance of a picture as gray RGB: what content and style become where only luminance is transferred.

    like: a picture whose luminance gives the mean and the deviation, as the content's does for a style; clamped.
    seen: (H, W), how much each pixel counts in the image's own; None is all alike.
    """
    values = luma(image)
    if like is not None:
        wanted, mean = luma(like), np.average(values, weights=seen)
        deviation = math.sqrt(np.average(np.square(values - mean), weights=seen))
        stretch = wanted.std() / deviation if deviation > _LEAST_DEVIATION else 0.0
        values = (values - mean) * stretch + wanted.mean()
    return _finished(np.repeat(values[..., np.newaxis], 3, axis=2), image)


def luminance_of_content(result: FloatArray, content: FloatArray) -> FloatArray:
    """The content's colors under the luminance of the result; both (H, W, 3).

    I and Q of YIQ (or U and V of YUV: the same line through gray) are the content's, Y is the result's. Where that
    color does not exist in RGB, its chroma is drawn towards gray until it does, so that the luminance stays the
    result's everywhere, and hues the content's. Raises ImageError if the sizes differ.
    """
    if result.shape != content.shape:
        raise ImageError(
            f"the result is {result.shape[1]}x{result.shape[0]} and the content {content.shape[1]}x{content.shape[0]}; "
            "resize the content to the result first"
        )
    target = luma(result)[..., np.newaxis]
    chroma = content - luma(content)[..., np.newaxis]
    room = np.where(chroma > 0, 1 - target, target)
    reach = np.abs(chroma)
    share = np.divide(room, reach, out=np.ones_like(reach), where=reach > room).min(axis=2, keepdims=True)
    return _finished(target + share * chroma, result)


def _moments(image: FloatArray, seen: FloatArray | None = None) -> tuple[Matrix, Matrix]:
    """Mean (3,) and covariance (3, 3) of the colors, each pixel as it is `seen`."""
    colors = image.reshape(-1, 3).astype(np.float64)
    if seen is None:
        mean: Matrix = colors.mean(axis=0)
        centred = colors - mean
        return mean, centred.T @ centred / len(colors)
    parts = seen.reshape(-1, 1).astype(np.float64) / seen.sum(dtype=np.float64)
    mean = (parts * colors).sum(axis=0)
    centred = colors - mean
    return mean, centred.T @ (parts * centred)


def _finished(values: Matrix, like: FloatArray) -> FloatArray:
    return np.clip(values, 0, 1).astype(like.dtype)
