"""Pictures of pictures, for a lecture: a contact sheet of what excites units, and a row of labelled pictures.

Drawing only, with Pillow; what is shown is found elsewhere. A sheet is like any picture of the engine: (H, W, 3)
float32 in [0, 1].
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..model.receptive_field import ReceptiveField
from .top_activations import Excitation, Unit

Sheet = NDArray[np.float32]

PAPER, INK, FAINT_INK = "#ffffff", "#1c1f26", "#6a7080"
FRAME = "#7b8292"  # between and around patches, so that white ones end somewhere, and black ones too
EMPTY, HATCH = "#dcdfe5", "#b4bac6"
SMALLEST_PATCH, LARGEST_PATCH = 84, 128  # pixels of the sheet
PICTURE = 256  # of a row: the width at which type has its usual size
PATCHES_ACROSS = 3
SHARP_BELOW = 20  # pixels of a patch that are enlarged as squares, since each of them counts
ASPECT = 1.6  # a slide's
WIDEST_TEXT = 50  # of its own sizes; a narrow sheet is widened for it, as far as that


class _Measures(NamedTuple):
    """Lengths in pixels of the sheet; type grows with the pictures, so that a slide of any sheet can be read."""

    title: int
    text: int
    label: int
    margin: int
    gutter: int
    seam: int


def contact_sheet(units: Sequence[Unit], field: ReceptiveField, title: str, caption: str) -> Sheet:
    """What excites each unit most, nine patches a unit, the strongest at the upper left; at least one unit.

    Patches are whole windows of `field`, all at one scale; beyond an image's border they are hatched.
    """
    side = _patch_side(field.size)
    m = _measures(side / SMALLEST_PATCH)
    block = PATCHES_ACROSS * (side + m.seam) + m.seam
    across, down = block + m.gutter, m.label * 3 // 2 + block + m.gutter
    columns = _columns(len(units), across, down)
    rows = -(-len(units) // columns)
    cut = any(_is_cut(excitation) for unit in units for excitation in unit.excitations)
    height = rows * down - m.gutter
    legend = m.gutter + m.label if cut else 0
    sheet, draw, top = _page(columns * across - m.gutter, height + legend, title, caption, m)
    for place, unit in enumerate(units):
        left, upper = m.margin + place % columns * across, top + place // columns * down
        text = f"unit {unit.index}" if unit.excitations else f"unit {unit.index} · never excited"
        draw.text((left, upper), text, fill=INK, font=_font(m.label))
        sheet.paste(_block(unit.excitations, field.size, side, m.seam), (left, upper + m.label * 3 // 2))
    if cut:
        left, upper = m.margin, top + height + m.gutter
        sheet.paste(_hatched(2 * m.label, m.label), (left, upper))
        at = (left + m.label * 5 // 2, upper + m.label // 2)
        draw.text(at, "beyond the picture's border", fill=FAINT_INK, font=_font(m.label), anchor="lm")
    return _pixels(sheet)


def row_sheet(pictures: Sequence[tuple[str, NDArray[np.floating[Any]]]], title: str, caption: str) -> Sheet:
    """Pictures of one height side by side, each with its label below; (label, (H, W, 3) in [0, 1])."""
    shown = [Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)) for _, pixels in pictures]
    m = _measures(max(picture.width for picture in shown) / PICTURE)
    width = sum(picture.width for picture in shown) + (len(shown) - 1) * m.gutter
    height = max(picture.height for picture in shown)
    sheet, draw, top = _page(width, height + 2 * m.label, title, caption, m)
    left = m.margin
    for (label, _), picture in zip(pictures, shown, strict=True):
        sheet.paste(picture, (left, top))
        middle = left + picture.width // 2
        text = _fitting(draw, label, m.label, picture.width)
        draw.text((middle, top + height + m.label * 3 // 4), text, fill=INK, font=_font(m.label), anchor="ma")
        left += picture.width + m.gutter
    return _pixels(sheet)


def _measures(scale: float) -> _Measures:
    return _Measures(*(max(1, round(scale * length)) for length in (40, 21, 19, 48, 30, 3)))


def _page(
    width: int, height: int, title: str, caption: str, m: _Measures
) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """White paper for content of this size, title and caption above it, and the row at which the content begins."""
    below = m.margin + m.title * 4 // 3
    top = below + m.text + m.margin * 2 // 3
    wanted = max(_font(m.title).getlength(title), _font(m.text).getlength(caption))
    width = max(width, min(math.ceil(wanted), WIDEST_TEXT * m.text))
    sheet = Image.new("RGB", (width + 2 * m.margin, top + height + m.margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((m.margin, m.margin), _fitting(draw, title, m.title, width), fill=INK, font=_font(m.title))
    draw.text((m.margin, below), _fitting(draw, caption, m.text, width), fill=FAINT_INK, font=_font(m.text))
    return sheet, draw, top


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitting(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis where it is too wide."""
    font = _font(size)
    if draw.textlength(text, font) <= width:
        return text
    length = bisect_right(range(len(text)), width, key=lambda n: math.ceil(draw.textlength(f"{text[:n]}…", font))) - 1
    return f"{text[: max(0, length)].rstrip()}…"


def _patch_side(size: int) -> int:
    """How large a window of `size` pixels is shown: tiny ones enlarged by a whole factor, the others to fit."""
    if size < SHARP_BELOW:
        return max(1, round(SMALLEST_PATCH / size)) * size
    return min(max(size, SMALLEST_PATCH), LARGEST_PATCH)


def _block(excitations: Sequence[Excitation], size: int, side: int, seam: int) -> Image.Image:
    """One unit's patches in a frame; the unit's that nothing excited is empty."""
    across = PATCHES_ACROSS * (side + seam) + seam
    block = Image.new("RGB", (across, across), FRAME if excitations else EMPTY)
    for i in range(PATCHES_ACROSS**2 if excitations else 0):
        row, column = divmod(i, PATCHES_ACROSS)
        corner = (seam + column * (side + seam), seam + row * (side + seam))
        if i < len(excitations):
            block.paste(_patch(excitations[i], size, side), corner)
        else:
            block.paste(EMPTY, (*corner, corner[0] + side, corner[1] + side))
    return block


def _patch(excitation: Excitation, size: int, side: int) -> Image.Image:
    """The window of `size` pixels at `side`: the patch where it lies on the image, hatched where it does not."""
    height, width = excitation.patch.shape[:2]
    left, upper = max(0, -excitation.window.left), max(0, -excitation.window.top)
    box = [round(edge * side / size) for edge in (left, upper, left + width, upper + height)]
    filter_ = Image.Resampling.NEAREST if size < SHARP_BELOW else Image.Resampling.LANCZOS
    window = _hatched(side, side)
    seen = Image.fromarray(excitation.patch).resize((max(1, box[2] - box[0]), max(1, box[3] - box[1])), filter_)
    window.paste(seen, (box[0], box[1]))
    return window


def _is_cut(excitation: Excitation) -> bool:
    window, (height, width) = excitation.window, excitation.patch.shape[:2]
    return (height, width) != (window.bottom - window.top, window.right - window.left)


def _hatched(width: int, height: int) -> Image.Image:
    hatched = Image.new("RGB", (width, height), EMPTY)
    draw = ImageDraw.Draw(hatched)
    for start in range(-height, width, 8):
        draw.line((start, height, start + height, 0), fill=HATCH, width=2)
    return hatched


def _columns(count: int, across: int, down: int) -> int:
    """How many of `count` items of this size go into a row: a sheet like a slide, with few places left empty."""

    def flaw(columns: int) -> float:
        rows = -(-count // columns)
        return abs(math.log(columns * across / (rows * down) / ASPECT)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=flaw)


def _pixels(sheet: Image.Image) -> Sheet:
    return np.asarray(sheet, np.float32) / np.float32(255)
