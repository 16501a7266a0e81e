"""Makes the pictures of docs/options.md from those in examples/: python docs/make_pictures.py [NAME ...]

Every row is one option, everything else left as it is. Some minutes on two cores.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nstgpu
from nstgpu.engine.analysis.contact_sheets import row_sheet
from nstgpu.engine.imaging import files as images

HERE = Path(__file__).parent
CONTENT, STYLE = HERE.parent / "examples" / "content.jpg", HERE.parent / "examples" / "style.jpg"
WEIGHTS = nstgpu.load_weights("mini")
SIZE, ITERATIONS = 288, 80

Row = list[tuple[str, Any]]


def painted(run: dict[str, Any] | None = None, style: Any = STYLE, **settings: Any) -> Any:
    transfer = nstgpu.StyleTransfer(CONTENT, style, weights=WEIGHTS, size=SIZE, **settings)
    return transfer.run(**{"iterations": ITERATIONS, **(run or {})}).image


def half(upper: bool) -> Any:
    """A soft horizon at half the height; white above it, or below."""
    lower = 1 / (1 + np.exp(-40 * (np.linspace(0, 1, 576) - 0.5)))
    return np.repeat((1 - lower if upper else lower)[:, None], 768, axis=1)


def sunset() -> Any:
    """A second style, of broad vertical strokes: the first one's lower half, turned."""
    pixels = images.read(STYLE).pixels
    return np.rot90(pixels[pixels.shape[0] // 2 :]).copy()


def scales() -> Row:
    return [
        ("one scale, 300 iterations", painted({"scales": 1, "iterations": 300})),
        ("from coarse to fine, 80 each", painted()),
        ("from noise", painted({"init": "noise"})),
    ]


def optimizers() -> Row:
    return [
        ("adam", painted()),
        ("lbfgs", painted({"optimizer": "lbfgs"})),
        ("descent", painted({"optimizer": "descent"})),
    ]


def statistics() -> Row:
    names = ("gram", "moments", "w2", "sliced", "neighbors", "gram+neighbors")
    return [(name, painted(style_statistics=name)) for name in names]


def colors() -> Row:
    return [(name, painted(colors=name)) for name in ("style", "match", "content-luminance")]


def weights() -> Row:
    middle = nstgpu.StyleTransfer(CONTENT, STYLE, weights=WEIGHTS, size=SIZE).style_weight
    return [(f"{factor:g} x the measured", painted(style_weight=middle * factor)) for factor in (0.03, 1, 30)]


def style_scale() -> Row:
    return [(f"style scale {scale:g}", painted(style_scale=scale)) for scale in (0.4, 1.0, 2.0)]


def styles() -> Row:
    first, second = STYLE, sunset()
    masked = [nstgpu.Style(first, mask=half(upper=True)), nstgpu.Style(second, mask=half(upper=False))]
    return [
        ("two styles, 1 to 1", painted(style=[first, second])),
        ("each in its own half", painted(style=masked)),
        ("the lower half kept", painted(content_mask=half(upper=False))),
    ]


ROWS: dict[str, tuple[str, str, Callable[[], Row]]] = {
    "scales": ("From coarse to fine", "--scales, --init", scales),
    "optimizers": ("Optimisers", "--optimizer, 80 iterations at each scale", optimizers),
    "statistics": ("What of a layer is style", "--style-statistics", statistics),
    "colors": ("Whose colours", "--colors", colors),
    "weights": ("How much style", "--style-weight", weights),
    "style_scale": ("The size of the strokes", "--style-scale", style_scale),
    "styles": ("Several styles, and masks", "--style, --style-mask, --content-mask", styles),
}

for name in sys.argv[1:] or ROWS:
    title, caption, row = ROWS[name]
    images.save(HERE / f"{name}.jpg", row_sheet(row(), title, caption), quality=88)
    print(f"{name}.jpg")
