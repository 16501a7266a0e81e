"""Masks: pictures of where something applies, as weights of the pixels of every tap.

A mask of the generated image says where a style is wanted (guided Grams, Gatys et al. 2017, "Controlling Perceptual
Factors") or where the content counts; a mask of a style says which part of it is measured. Soft edges stay soft. What
the weights do in the costs is left to the terms; all of this is done once per scale, on the host.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import SettingsError
from ..types import Mask
from . import files
from .colors import luma
from .files import ImageError, Picture

_LEVELS = 1 << 24
LEAST_AREA = 0.5  # pixels of a tap; in less, no feature lies mostly within the region


def read(source: Picture | str | os.PathLike[str] | Image.Image | NDArray[Any], name: str = "the mask") -> Mask:
    """A picture as a mask: its luminance (white applies, black does not), times its alpha.

    From whatever `files.read` takes, and arrays of bool. `name` says in the messages which mask it is. Raises
    ImageError if it can't be read or has NaN, SettingsError if nothing in it is above zero.
    """
    if isinstance(source, np.ndarray) and source.dtype == np.bool_:
        source = source.astype(np.float32)
    try:
        picture = files.read(source)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    values = luma(picture.pixels)
    if picture.alpha is not None:
        values = values * picture.alpha
    if not values.any():
        raise SettingsError(f"{name} is empty: it is black or transparent everywhere; paint white what it is to select")
    return values.astype(np.float32)


def fit(mask: Mask, size: tuple[int, int], name: str = "the mask") -> Mask:
    """The mask at the size (H, W) of its picture, averaged where it shrinks, interpolated linearly where it grows.

    Raises SettingsError if it has other proportions than the picture, by more than the rounding of a side to pixels.
    """
    (height, width), (wanted_height, wanted_width) = mask.shape, size
    if abs(height * wanted_width - width * wanted_height) > max(height + width, wanted_height + wanted_width):
        raise SettingsError(
            f"{name} is {width}x{height} px and its picture {wanted_width}x{wanted_height}: "
            "the proportions differ; give a mask drawn over the picture itself"
        )
    if mask.shape == tuple(size):
        return mask
    # Pillow's bilinear filter widens with the reduction, so that every pixel of the mask counts.
    resized = Image.fromarray(mask).resize((wanted_width, wanted_height), Image.Resampling.BILINEAR)
    fitted: Mask = np.clip(np.asarray(resized), 0, 1)
    return fitted


def feather(mask: Mask, reach: int) -> Mask:
    """The mask with its edges softened over `reach` pixels to either side; nothing changes further from them.

    Two running means of `reach` + 1 pixels in either direction; beyond a border the mask goes on as it ends there.
    """
    if reach == 0:
        return mask
    # In whole numbers, since in floats the running sums would leave traces of what lies far away.
    levels = np.rint(mask.astype(np.float64) * _LEVELS).astype(np.int64)
    count = reach + 1
    for axis in (0, 1):
        ends = [(reach, reach) if each == axis else (0, 0) for each in (0, 1)]
        levels = np.pad(levels, ends, mode="edge")
        for _ in range(2):
            start = np.zeros_like(levels.take([0], axis=axis))
            sums = np.concatenate([start, np.cumsum(levels, axis=axis)], axis=axis)
            length = sums.shape[axis]
            levels = sums.take(range(count, length), axis=axis) - sums.take(range(length - count), axis=axis)
        if axis == 0:
            levels = (levels + count**2 // 2) // count**2
    feathered: Mask = (levels / (count**2 * _LEVELS)).astype(np.float32)
    return feathered


def pyramid(mask: Mask, sizes: Sequence[tuple[int, int]]) -> list[Mask]:
    """The mask at each of `sizes`, as `network.sizes` gives them: the first is the mask's own, and each other one the
    same as the one before or, after a pool, half of it.

    Shrunk exactly as pooling shrinks: the mean of 2x2 pixels, and an odd last row or column, which no pool sees, left
    out. So a weight lies where its features do, and is the part of its pixels that the mask covers.
    """
    result = []
    for size in sizes:
        if mask.shape != tuple(size):
            height, width = mask.shape[0] // 2, mask.shape[1] // 2
            mask = mask[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
        if mask.shape != tuple(size):
            raise ValueError(f"a mask of {mask.shape} does not pool to {tuple(size)}")
        result.append(mask)
    return result


def weights_mean_one(mask: Mask, name: str = "the mask", tap: str = "this layer") -> Mask:
    """The mask at a tap over its own mean: weights whose mean is one, so that costs keep their scale.

    Raises SettingsError if it covers next to nothing there.
    """
    area = float(mask.sum(dtype=np.float64))
    if area < LEAST_AREA:
        raise SettingsError(
            f"{name} covers {area:.2g} pixels of {mask.shape[1]}x{mask.shape[0]} at {tap}, which is too few; "
            f"make it or the image larger, or leave {tap} out"
        )
    return (mask / (area / mask.size)).astype(np.float32)


def tap_weights(
    mask: Mask, sizes: Mapping[str, tuple[int, int]], taps: Iterable[str], name: str | None = "the mask"
) -> dict[str, Mask]:
    """The weights (H, W), mean one, of a mask of the image's size at each of `taps`.

    sizes: (H, W) at every layer of the network from the first on, by tap. Raises SettingsError as `weights_mean_one`;
    without a name, a mask that covers too little weighs nothing at that tap.
    """
    at, weights = dict(zip(sizes, pyramid(mask, list(sizes.values())), strict=True)), {}
    for tap in taps:
        nothing = name is None and at[tap].sum(dtype=np.float64) < LEAST_AREA
        weights[tap] = np.zeros_like(at[tap]) if nothing else weights_mean_one(at[tap], name or "", tap)
    return weights
