"""Pictures as the network is to see them, the images that a run starts from, and what its result is turned into."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .imaging import files
from .imaging.colors import luminance, luminance_of_content, match
from .imaging.resize import resized, resized_alpha
from .inputs import Inputs
from .memory.spill import bands, empty
from .style import Source
from .types import Image, Mask

LEAST_SHARE = 1 / 255
"""Of a pixel's painting; what is seen of less says nothing about it."""


def in_the_networks_colors(inputs: Inputs, pixels: Image) -> Image:
    """Luminance alone, where nothing else is transferred; (H, W, 3) as all pictures here."""
    gray = inputs.gray or inputs.colors == "content-luminance"
    return _by_bands(luminance, pixels) if gray else pixels


def recolored(inputs: Inputs, style: Image, content: Image, region: Mask | None) -> Image:
    """A style in the colors it is to have beside this content; region: (H, W), where to look in it."""
    if inputs.colors == "style":
        return style
    if inputs.colors == "match":
        return match(style, content, region)
    return luminance(style, like=content, seen=region)


def extended(border: int, values: Any) -> Any:
    """(H, W, ...) with the border around it, the nearest pixels repeated; None stays None."""
    if not border or values is None:
        return values
    height, width, *channels = values.shape
    out = empty((height + 2 * border, width + 2 * border, *channels), values.dtype)
    middle = out[border:-border]
    middle[:, border:-border] = values
    middle[:, :border], middle[:, -border:] = values[:, :1], values[:, -1:]
    out[:border], out[-border:] = middle[0], middle[-1]
    return out


def initial_image(inputs: Inputs, init: Source, size: tuple[int, int], noise: float) -> Image:
    """See `StyleTransfer.initial_image`."""
    if isinstance(init, str) and init == "noise":
        return _noise(inputs, size)
    pixels = _start(inputs, init, size)
    if not noise:
        return pixels
    return _by_bands(lambda start, random: (1 - noise) * start + noise * random, pixels, _noise(inputs, size))


def _noise(inputs: Inputs, size: tuple[int, int]) -> Image:
    rng, noise = np.random.default_rng(inputs.seed), empty((*size, 3), inputs.device.image_dtype)
    for rows in bands(noise.shape):
        noise[rows] = rng.random(noise[rows].shape)
    return noise


def _start(inputs: Inputs, init: Source, size: tuple[int, int]) -> Image:
    if isinstance(init, str) and init == "gray":
        gray = empty((*size, 3), inputs.device.image_dtype)
        gray.fill(0.5)
        return gray
    if isinstance(init, str) and init == "content":
        pixels = inputs.content
    elif isinstance(init, str) and init == "style":
        pixels = inputs.styles[0].pixels
    else:
        pixels = files.read(init).pixels
    return resized(inputs.device, in_the_networks_colors(inputs, pixels), size)


def beginning(inputs: Inputs, pixels: Image) -> Image:
    """(H, W, 3) `pixels` as a scale is to begin with them: the content where nothing is painted."""
    size = pixels.shape[:2]
    painted = inputs.claims.painted(size)
    if inputs.gray:
        pixels = in_the_networks_colors(inputs, pixels)
    if painted is None:
        return pixels
    content = in_the_networks_colors(inputs, resized(inputs.device, inputs.content, size))

    def begun(pixels: Image, painted: Mask, content: Image) -> Image:
        return np.where(painted[..., None] > 0, pixels, content)

    return _by_bands(begun, pixels, painted, content)


def carried(inputs: Inputs, pixels: Image, size: tuple[int, int]) -> Image:
    """(h, w, 3) `pixels` of one scale for the next, of (H, W) `size`: what is seen of them, where masks blend.

    Along a mask's edge a coarse pixel is painted in part, m, and costs little there, so that its X runs to extremes. At
    the next scale most of those pixels are painted whole. So what is seen, m X + (1 - m) C, is handed on; and where the
    mask is soft at that scale as well, the X of which this is the blend, so that soft edges fade no more than before.
    """
    device, part = inputs.device, inputs.claims.painted(pixels.shape[:2])
    following = inputs.claims.painted(size)
    if part is None or following is None or pixels.shape[:2] == tuple(size):
        return resized(device, pixels, size)
    content = in_the_networks_colors(inputs, resized(device, inputs.content, pixels.shape[:2]))

    def blended(pixels: Image, content: Image, part: Mask) -> Image:
        share = part[..., None].astype(pixels.dtype)
        return np.asarray(share * pixels + (1 - share) * content, pixels.dtype)

    def unblended(seen: Image, content: Image, part: Mask) -> Image:
        share = part[..., None].astype(seen.dtype)
        freed = content + (seen - content) / np.maximum(share, LEAST_SHARE)
        return np.where(share < 1, np.clip(freed, 0, 1), seen)

    seen = resized(device, _by_bands(blended, pixels, content, part), size)
    share = np.maximum(following, resized_alpha(device, part, size))
    return _by_bands(unblended, seen, resized(device, content, size), share)


def finisher(inputs: Inputs, size: tuple[int, int]) -> Callable[[Image], Image]:
    """Turns pictures of (H, W) `size` into results: the colors asked for, and the content where nothing is painted.

    The function needs no device, so that any thread may call it.
    """
    painted = inputs.claims.painted(size)
    if painted is None and not inputs.gray and inputs.colors != "content-luminance":
        return lambda pixels: pixels
    content = resized(inputs.device, inputs.content, size)
    part = np.ones(size, np.float32) if painted is None else painted

    def finish(pixels: Image, content: Image, part: Image) -> Image:
        part, content = part[..., None].astype(pixels.dtype), content.astype(pixels.dtype)
        pixels = part * pixels + (1 - part) * in_the_networks_colors(inputs, content)
        if inputs.colors == "content-luminance":
            pixels = luminance_of_content(pixels, content)
        elif inputs.gray:
            pixels = luminance(pixels)
        return np.where(part > 0, pixels, content)

    return lambda pixels: _by_bands(finish, pixels, content, part)


def _by_bands(work: Callable[..., Image], pixels: Image, *others: Image) -> Image:
    """`work`, which takes one pixel as the next, on pictures (H, W, 3) and whatever else has their rows."""
    out: Image = empty(pixels.shape, pixels.dtype)
    for rows in bands(pixels.shape):
        out[rows] = work(pixels[rows], *(other[rows] for other in others))
    return out
