"""How large everything is at a scale, and what is too small for the network there."""

import math

from .checks import MAX_PIXELS
from .errors import SettingsError
from .imaging import files, masks
from .inputs import Inputs
from .model import network
from .style import ReadStyle


def size_at(inputs: Inputs, long_side: int) -> tuple[int, int]:
    """(H, W) of the scale with this long side; at the picture's own long side its own."""
    height, width, _ = inputs.shape
    return (height, width) if long_side == max(height, width) else files.output_size(height, width, long_side)


def style_size(inputs: Inputs, style: ReadStyle, share: float) -> tuple[int, int]:
    """(H, W) of a style where the picture has this share of its full size; raises SettingsError for no size at all."""
    height, width, _ = style.pixels.shape
    if inputs.size is None and style.size is None and style.scale == 1 and share == 1:
        return height, width
    own = max(height, width) if inputs.size is None else inputs.size
    long_side = (own * style.scale if style.size is None else style.size) * share
    if not long_side <= MAX_PIXELS:
        given = f"style_scale is {style.scale:g}" if style.size is None else f"style_size is {style.size}"
        raise SettingsError(
            f"{given}, which makes the style {style.name} {long_side:.7g} pixels long; at most {MAX_PIXELS} are "
            "possible, so take a lower one"
        )
    return files.output_size(height, width, max(1, round(long_side)))


def tap_sizes(inputs: Inputs, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """(H, W) by tap, for a picture of this size without its border."""
    return dict(zip(network.strides(inputs.network), network.sizes(inputs.network, size), strict=True))


def too_small(inputs: Inputs, long_side: int) -> tuple[str, str] | None:
    """What is too small for the network at the scale with this long side, and the remedy; None if nothing is."""
    share, size = long_side / max(inputs.shape[:2]), size_at(inputs, long_side)
    least, tap = network.least_side(inputs.network) - 2 * inputs.border, inputs.network.layers[-1].tap
    needs = f"too small for {tap}, which needs {least} px on the short side"
    if min(size) < least:
        enough = files.long_side(inputs.shape[0], inputs.shape[1], least)
        return (
            f"the content {inputs.content_name} is {size[1]}x{size[0]} px, {needs}",
            f"make it larger (a size of {enough}), or leave out the deepest layers",
        )
    for style in inputs.styles:
        height, width = style_size(inputs, style, share)
        if min(height, width) < least:
            enough = files.long_side(style.pixels.shape[0], style.pixels.shape[1], least)
            scale = f"scale of {math.ceil(100 * enough / max(height, width) * style.scale) / 100:g}"
            larger = scale if style.size is None else f"size of {enough}"
            return (
                f"the style {style.name} is {width}x{height} px, {needs}",
                f"make it larger (a style {larger}), or leave out the deepest layers",
            )
        if style.region is not None:
            region = masks.fit(style.region, (height, width), style.region_name)
            try:
                masks.tap_weights(region, tap_sizes(inputs, (height, width)), inputs.style_taps, style.region_name)
            except SettingsError as error:
                reason, _, remedy = str(error).partition("; ")
                return reason, remedy
    return None


def problem(inputs: Inputs, long_side: int) -> str | None:
    """What is too small at the scale with this long side; None if nothing is."""
    found = too_small(inputs, long_side)
    return None if found is None else found[0]
