"""A finished run on one HTML page: what went in, what came out, how the costs fell, and how to do it again.

The page needs nothing but itself: pictures are embedded, plots are drawings (SVG) in it, and there are no scripts. The
plots are matplotlib's, an optional dependency that is imported when a page is written.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from ..costs.terms import Costs, Weighting
from ..errors import ImageError, SettingsError
from ..imaging import files
from ..types import FloatArray
from ..wording import counted
from . import recipe

if TYPE_CHECKING:
    from ..optimizers.coarse_to_fine import ScaleDone

RESULT_SIDE, INPUT_SIDE = 1600, 640
"""Long sides of the embedded pictures in pixels, at most."""
_JPEG_QUALITY = 88
_COLORS = 8  # as many as the style sheet has
_DASHES: tuple[tuple[float, ...], ...] = ((), (1, 1.4), (5, 1.4, 1, 1.4))  # of styles, when there are more than colors
_CONTENT_DASHES = (3, 1.4)  # line, gap, ... in widths of the line
_ROOM_FOR_A_LABEL = 0.07  # of the plot's width
_NEGLIGIBLE = 1e-9  # of the whole: what is less may be rounding
_LEAST_DRAWN = 1e-6  # of the whole at its least: what is less would stretch the logarithmic axis over nothing


@dataclass(frozen=True, eq=False)
class Report:
    """What a page tells.

    Pictures are (H, W, 3) and masks (H, W), floats in [0, 1]. Costs are shown as what they weigh in J, so all curves
    have one unit and add up to the whole.
    """

    title: str
    result: FloatArray
    inputs: Mapping[str, FloatArray]
    """Caption -> content, styles, masks, in the order to show them."""
    history: Sequence[Costs]
    scales: Sequence[ScaleDone]
    content_layers: Mapping[str, float]
    style_layers: Mapping[str, float]
    content_weight: float
    style_weight: float
    recipe: Mapping[str, str]
    earlier: Sequence[tuple[int, Weighting]] = ()
    """Where the run was changed: after how many iterations, and with what weights until then."""

    def weights(self) -> list[Weighting]:
        """Those of every iteration; gamma is left out."""
        last = Weighting(self.content_layers, self.style_layers, self.content_weight, self.style_weight, 0.0)
        weights: list[Weighting] = []
        for done, weighting in (*self.earlier, (len(self.history), last)):
            weights += [weighting] * (done - len(weights))
        return weights


@dataclass(frozen=True, eq=False)
class _Curve:
    """One part of J over the iterations."""

    name: str
    values: Sequence[float]
    color: int
    """1 to _COLORS; 0 is the text's."""
    dashes: tuple[float, ...] = ()


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page, whole or not at all.

    Raises SettingsError where matplotlib is missing, and ImageError for another suffix than .html, a missing folder,
    and pictures with NaN or infinite values.
    """
    path = Path(path)
    check_destination(path)
    parts, layers = _parts(report), _layers(report)
    least = _LEAST_DRAWN * min((costs.total for costs in report.history if costs.total > 0), default=0.0)
    plots = []
    if len(report.history) > 1:
        plots.append(_figure("The whole", parts, _plot("whole", parts, report.scales, least)))
        plots.append(_figure("Layer by layer", layers, _plot("layers", layers, report.scales, least)))
    files.write_whole(path, _page(report, plots).encode())


def check_destination(path: str | os.PathLike[str]) -> None:
    """Raise what write_report() would for this path, or for want of matplotlib; for a caller with a long run ahead."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ImageError(f"cannot write the report {path}: its name must end in .html")
    files.check_place(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("a report needs matplotlib for its plots: pip install 'nstgpu[report]', or do without it")


# The parts of J


def _parts(report: Report) -> list[_Curve]:
    history = report.history
    weights = report.weights()
    content = [weighting.content * costs.content for weighting, costs in zip(weights, history, strict=True)]
    style = [weighting.style * costs.style for weighting, costs in zip(weights, history, strict=True)]
    # gamma need not be the same at every scale: what the others leave of the whole is smoothness's.
    left = [(costs.total - a - b, costs.total) for costs, a, b in zip(history, content, style, strict=True)]
    tv = [part if part > _NEGLIGIBLE * whole else 0.0 for part, whole in left]
    return [
        _Curve("whole cost J", [costs.total for costs in history], 0),
        _Curve("content", content, 1, _CONTENT_DASHES),
        _Curve("style", style, 5),
        _Curve("smoothness", tv, 3),
    ]


def _layers(report: Report) -> list[_Curve]:
    curves, each = [], list(zip(report.weights(), report.history, strict=True))
    style, content = dict.fromkeys(report.style_layers), dict.fromkeys(report.content_layers)
    for _, weighting in report.earlier:
        style |= dict.fromkeys(weighting.style_layers)
        content |= dict.fromkeys(weighting.content_layers)
    for number, tap in enumerate(style):
        values = [
            weighting.style * weighting.style_layers.get(tap, 0.0) * costs.per_layer.get(tap, 0.0)
            for weighting, costs in each
        ]
        dashes = _DASHES[number // _COLORS % len(_DASHES)]
        curves.append(_Curve(f"style {tap}", values, 1 + number % _COLORS, dashes))
    for number, tap in enumerate(content):
        values = [
            weighting.content
            * weighting.content_layers.get(tap, 0.0)
            * costs.per_layer.get(f"{tap} content" if tap in weighting.style_layers else tap, 0.0)
            for weighting, costs in each
        ]
        color = 1 + (len(style) + number) % _COLORS
        curves.append(_Curve(f"content {tap}", values, color, _CONTENT_DASHES))
    return curves


# Plots


def _plot(name: str, curves: Sequence[_Curve], scales: Sequence[ScaleDone], least: float = 0.0) -> str:
    """An SVG element of the curves over the iterations, on a logarithmic axis; its colors are the style sheet's.

    Values below `least` are left out.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
    except ImportError as error:
        raise SettingsError(f"a report's plots need matplotlib, which can't be imported ({error})") from error
    text, faint = "#010203", "#040506"  # stand for colors of the style sheet until the end
    hues = [text, *(f"#0a0b{number:02x}" for number in range(1, 1 + _COLORS))]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10})
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        for curve in curves:
            axes.plot(
                range(1, 1 + len(curve.values)),
                [value if 0 < value < math.inf and value >= least else math.nan for value in curve.values],
                color=hues[curve.color],
                linewidth=2.2 if curve.color == 0 else 1.5,
                linestyle=(0, curve.dashes) if curve.dashes else "solid",
            )
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        few = math.log10(high / low) < 2
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("iteration", color=text)
        axes.margins(x=0.01)
        axes.grid(axis="y", color=faint, linewidth=0.8)
        axes.tick_params(colors=text, length=0)
        axes.spines[:].set_visible(False)
        for end, scale in zip(accumulate(scale.iterations for scale in scales), scales, strict=True):
            start = end - scale.iterations
            if start > 0:
                axes.axvline(start + 0.5, color=faint, linewidth=1.2, zorder=0.5)
            if len(scales) > 1 and scale.iterations >= _ROOM_FOR_A_LABEL * len(curves[0].values):
                axes.annotate(
                    f"{max(scale.size)} px",
                    (start + 0.5, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(0, 3),
                    textcoords="offset points",
                    color=text,
                    fontsize=8.5,
                )
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    # What a page has no use for: metadata, a style sheet for the whole page, names that every plot has, namespaces.
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", svg).replace("xlink:href", "href")
    for color, hue in enumerate(hues):
        svg = svg.replace(hue, _hue(color))
    return svg.replace(faint, "var(--line)")


def _power(value: float) -> str:
    """0.05, 200, and beyond that 10⁻⁵."""
    if value <= 0 or 1e-3 < value < 1e5:
        return f"{value:g}"
    factor, exponent = f"{value:e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if float(factor) == 1 else f"{float(factor):g}·10{raised}"


# The page


def _page(report: Report, plots: Sequence[str]) -> str:
    """The whole page, from `plots`, which are finished figures."""
    body = [_section("Result", _picture("result", report.result, RESULT_SIDE))]
    if report.inputs:
        pictures = (_picture(caption, pixels, INPUT_SIDE) for caption, pixels in report.inputs.items())
        body.append(_section("Made from", f'<div class="strip">{"".join(pictures)}</div>'))
    if report.history:
        body.append(_section("Costs", f"<p>{_COSTS_NOTE}</p>", *plots, _costs_table(report)))
    if report.scales:
        body.append(_section("Scales", _scales_table(report.scales)))
    settings = {name: value for name, value in report.recipe.items() if name != recipe.KEY}
    if settings:
        body.append(_section("Recipe", _table("recipe", [], ((name, [value]) for name, value in settings.items()))))
    if recipe.KEY in report.recipe:
        body.append(_section("To repeat it", f"<pre>{_text(report.recipe[recipe.KEY])}</pre>"))
    title, summary = _text(report.title), _text(" · ".join(_summary(report)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{title}</title>
<style>{_STYLE_SHEET}</style>
</head>
<body>
<header><h1>{title}</h1><p>{summary}</p></header>
<main>
{"".join(body)}</main>
</body>
</html>
"""


def _summary(report: Report) -> Iterator[str]:
    height, width = report.result.shape[:2]
    yield f"{width} × {height} pixels"
    yield counted(len(report.history), "iteration")
    if report.scales:
        yield _duration(sum(scale.seconds for scale in report.scales))
    yield from (report.recipe[name] for name in ("weights", "device") if name in report.recipe)


def _section(heading: str, *parts: str) -> str:
    return f"<section><h2>{heading}</h2>{''.join(parts)}</section>\n"


def _picture(caption: str, pixels: FloatArray, long_side: int) -> str:
    shown, encoded = files.preview(pixels, long_side), io.BytesIO()
    shown.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    source = base64.b64encode(encoded.getvalue()).decode()
    height, width = pixels.shape[:2]
    text = _text(caption)
    return (
        f'<figure style="--aspect: {width / height:.4f}">'
        f'<img src="data:image/jpeg;base64,{source}" width="{shown.width}" height="{shown.height}" alt="{text}"/>'
        f"<figcaption>{text} <small>{width} × {height}</small></figcaption></figure>"
    )


def _figure(caption: str, curves: Sequence[_Curve], svg: str) -> str:
    """A plot with its legend, which unlike one of matplotlib's can break its line on a narrow screen."""
    legend = "".join(
        f'<li><svg viewBox="0 0 24 4" width="24" height="4"><path d="M0 2H24" style="stroke: {_hue(curve.color)}; '
        f'stroke-width: 3; stroke-dasharray: {" ".join(f"{2 * dash:g}" for dash in curve.dashes) or "none"}"/></svg> '
        f"{_text(curve.name)}</li>"
        for curve in curves
    )
    return f'<figure class="plot"><figcaption>{caption}</figcaption><ul>{legend}</ul><div>{svg}</div></figure>'


def _costs_table(report: Report) -> str:
    whole = report.history[-1].total
    rows = []
    for curve in (*_parts(report), *_layers(report)):
        share = curve.values[-1] / whole if whole > 0 else 0.0
        bar = f'<i style="width: {max(0.0, min(1.0, share)) * 6:.2f}em"></i> {share:.1%}'
        rows.append((curve.name, [_number(curve.values[0]), _number(curve.values[-1]), bar]))
    head = ["part of the cost", "first iteration", "last iteration", "share of the last"]
    return _table("numbers costs", head, rows, escaped=True)


def _scales_table(scales: Sequence[ScaleDone]) -> str:
    rows = [
        (
            f"{scale.size[1]} × {scale.size[0]}",
            [str(scale.iterations), _duration(scale.seconds), _duration(scale.seconds / max(1, scale.iterations))],
        )
        for scale in scales
    ]
    iterations, seconds = sum(scale.iterations for scale in scales), sum(scale.seconds for scale in scales)
    rows.append(("together", [str(iterations), _duration(seconds), _duration(seconds / max(1, iterations))]))
    return _table("numbers", ["pixels", "iterations", "time", "an iteration"], rows if len(scales) > 1 else rows[:1])


def _table(kind: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, escaped: bool = False) -> str:
    """A table whose rows have a name each; `escaped` cells are HTML already."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>'
        + "".join(f"<td>{cell if escaped else _text(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div><table class="{kind}">{top}<tbody>{body}</tbody></table></div>'


def _text(text: str) -> str:
    """Any text as HTML; what Unicode has no character for, or HTML no room, as a question mark."""
    return escape(re.sub(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text))


def _hue(color: int) -> str:
    return f"var(--hue-{color})" if color else "var(--text)"


def _number(value: float) -> str:
    return _power(float(f"{value:.3g}"))


def _duration(seconds: float) -> str:
    """14 ms, 3.4 s, 2 min 5 s, 1 h 10 min."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


_COSTS_NOTE = (
    "What each part adds to the cost J that is made small, its weight included, so that the parts add up; plotted on a "
    "logarithmic scale. A part can rise while the whole falls. A finer scale begins at every upright line."
)

_STYLE_SHEET = """
:root { color-scheme: light dark; --paper: #fdfcfa; --text: #23211e; --faint: #6f6a63; --line: #e4dfd7; --card: #f5f2ec;
  --hue-1: #c2410c; --hue-2: #a16207; --hue-3: #4d7c0f; --hue-4: #0f766e; --hue-5: #1d4ed8; --hue-6: #7e22ce;
  --hue-7: #be185d; --hue-8: #57534e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #171614; --text: #e9e5de; --faint: #a29c92; --line: #37342f; --card: #211f1c;
    --hue-1: #fb923c; --hue-2: #eab308; --hue-3: #a3e635; --hue-4: #2dd4bf; --hue-5: #7aa7ff; --hue-6: #c99bff;
    --hue-7: #f472b6; --hue-8: #a8a29e; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2 { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif;
  font-weight: 600; line-height: 1.2; overflow-wrap: anywhere; }
h1 { font-size: 2.2rem; margin: 0; }
h2 { font-size: 1.35rem; margin: 3rem 0 1rem; }
header p, p, figcaption { color: var(--faint); }
header p { margin: .4rem 0 0; }
p { max-width: 42rem; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; outline: 1px solid var(--line); }
section:first-child h2 { position: absolute; clip-path: inset(50%); }
section:first-child { margin-top: 1.75rem; }
section:first-child img { max-height: 88vh; width: auto; box-shadow: 0 1px 12px rgb(0 0 0 / .25); }
figcaption { font-size: .9rem; margin-top: .4rem; overflow-wrap: anywhere; }
small { font-size: inherit; opacity: .75; white-space: nowrap; }
.strip { display: flex; flex-wrap: wrap; gap: 1.25rem; }
.strip figure { width: clamp(7rem, 11.5rem * var(--aspect), 100%); }
.strip img { width: 100%; }
.plot { margin: 1.5rem 0; }
.plot figcaption { color: inherit; font-weight: 600; }
.plot ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; padding: 0; margin: .2rem 0 .4rem;
  font-size: .85rem; color: var(--faint); }
.plot li svg { vertical-align: middle; margin-right: .2rem; }
.plot div, section > div { overflow-x: auto; }
.plot div svg { display: block; width: 100%; min-width: 34rem; height: auto; }
.plot text { font-family: inherit !important; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; font-weight: 400; padding: .35rem 1.6rem .35rem 0;
  border-bottom: 1px solid var(--line); }
thead th, .recipe th { color: var(--faint); }
.recipe th { white-space: nowrap; }
.recipe td { overflow-wrap: anywhere; }
.numbers { font-variant-numeric: tabular-nums; }
.numbers td, .numbers th { white-space: nowrap; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.costs td:last-child, .costs thead th:last-child { text-align: left; }
.numbers td i { display: inline-block; height: .7em; border-radius: 2px; background: var(--hue-5); opacity: .75; }
pre { background: var(--card); border-radius: 6px; padding: 1rem 1.2rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, "Cascadia Code", Menlo, Consolas, monospace; }
"""
