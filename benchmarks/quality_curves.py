"""Curves of style against content, which of them lies below another, plots and contact sheets.

A curve has a point for every weight of the style: the content distance, and the style distance, each the mean over the
judge's layers. A curve is below another where its style distance is lower at the same content distance. Points beside
which the same curve has one that is better in both are left out, and between the others it is interpolated, in the
logarithm of both; beyond the contents that both curves reach nothing is said.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Curve = list[tuple[float, float]]
Records = Sequence[dict[str, Any]]


def mean(by_tap: dict[str, float]) -> float:
    return float(np.mean(list(by_tap.values())))


def pair_of(record: dict[str, Any]) -> str:
    return f"{record['content']} / {record['style']}"


def unique(names: Iterable[str]) -> list[str]:
    """In the order in which they come first."""
    return list(dict.fromkeys(names))


def curves(records: Records, measure: str) -> dict[tuple[str, str], Curve]:
    """(content distance, style distance by `measure`), by pair and variant, from the least content distance on."""
    found: dict[tuple[str, str], Curve] = {}
    for record in records:
        point = mean(record["content_by_tap"]), mean(record[measure])
        found.setdefault((pair_of(record), record["variant"]), []).append(point)
    return {key: sorted(points) for key, points in found.items()}


def front(curve: Curve) -> Curve:
    """The points beside which no other is better in both."""
    best: Curve = []
    for content, style in sorted(curve):
        if not best or style < best[-1][1]:
            best.append((content, style))
    return best


def advantage(curve: Curve, other: Curve) -> NDArray[np.float64] | None:
    """log(style distance / the other's) at 33 equal contents that both reach; None where there are none."""
    own, against = (np.log(np.array(front(each))) for each in (curve, other))
    low, high = max(own[0, 0], against[0, 0]), min(own[-1, 0], against[-1, 0])
    if high <= low:
        return None
    at = np.linspace(low, high, 33)
    difference: NDArray[np.float64] = np.interp(at, *own.T) - np.interp(at, *against.T)
    return difference


def table(records: Records, measure: str, against: str = "gram") -> str:
    """Markdown: how much nearer to the style each variant is at equal content distance, by pair."""
    found = curves(records, measure)
    pairs, variants = unique(pair_of(r) for r in records), unique(r["variant"] for r in records)
    variants = [name for name in variants if name != against]
    rows = [
        f"Style distance ({measure}) at equal content distance, in parts of {against}'s: the mean over the contents "
        "that both curves reach. **Bold**: below it at all of them.",
        "",
        "| content / style | " + " | ".join(variants) + " |",
        "|---|" + "---|" * len(variants),
    ]
    everywhere, on_average = dict.fromkeys(variants, 0), dict.fromkeys(variants, 0)
    logs: dict[str, list[float]] = {name: [] for name in variants}
    for pair in pairs:
        cells = []
        for name in variants:
            both = (pair, name) in found and (pair, against) in found
            ratio = advantage(found[pair, name], found[pair, against]) if both else None
            if ratio is None:
                cells.append("-")
                continue
            dominates = bool(np.all(ratio < 0))
            everywhere[name] += dominates
            on_average[name] += bool(ratio.mean() < 0)
            logs[name].append(ratio.mean())
            text = f"{np.exp(ratio.mean()):.2f}"
            cells.append(f"**{text}**" if dominates else text)
        rows.append(f"| {pair} | " + " | ".join(cells) + " |")
    means = [f"{np.exp(np.mean(logs[name])):.2f}" if logs[name] else "-" for name in variants]
    rows.append("| mean | " + " | ".join(means) + " |")
    counts = [f"{everywhere[name]}, {on_average[name]} of {len(logs[name])}" for name in variants]
    rows.append("| below everywhere, on average | " + " | ".join(counts) + " |")
    return "\n".join(rows) + "\n"


def plots(records: Records, folder: Path) -> list[Path]:
    """curves_sliced.png and curves_gram.png: a small plot for every pair."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    pairs, variants = unique(pair_of(r) for r in records), unique(r["variant"] for r in records)
    columns = min(5, len(pairs))
    written = []
    for measure in ("sliced", "gram"):
        found = curves(records, measure)
        shape = -(-len(pairs) // columns), columns
        figure, axes = pyplot.subplots(*shape, figsize=(4 * columns, 3.6 * shape[0]), squeeze=False)
        for axis in axes.flat[len(pairs) :]:
            axis.axis("off")
        for axis, pair in zip(axes.flat, pairs, strict=False):
            for number, name in enumerate(variants):
                if (pair, name) in found:
                    x, y = zip(*found[pair, name], strict=True)
                    dashed = "one scale" in name
                    axis.loglog(x, y, ".:" if dashed else "o-", color=f"C{number % 10}", label=name, markersize=4)
            axis.set_title(pair, fontsize=10)
            axis.grid(True, which="both", alpha=0.25)
        axes[-1, 0].set_xlabel("content distance (self-similarity)")
        axes[-1, 0].set_ylabel(f"style distance ({measure})")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=min(6, len(variants)))
        figure.tight_layout(rect=(0, 0.06 if shape[0] > 1 else 0.12, 1, 1))
        written.append(folder / f"curves_{measure}.png")
        figure.savefig(written[-1], dpi=80)
        pyplot.close(figure)
    return written


def sheets(records: Records, folder: Path, width: int, only: Sequence[str] | None = None) -> list[Path]:
    """sheet_CONTENT_STYLE.jpg for every pair: a row for every variant, a column for every weight of the style."""
    written = []
    chosen = sorted((r for r in records if not only or r["variant"] in only), key=pair_of)
    for pair, group in groupby(chosen, pair_of):
        painted = {(r["variant"], r["factor"]): folder / r["file"] for r in group}
        names, factors = unique(name for name, _ in painted), sorted({factor for _, factor in painted})
        rows = [(name, [(f"x {factor:g}", painted.get((name, factor))) for factor in factors]) for name in names]
        written.append(folder / f"sheet_{pair.replace(' / ', '_')}.jpg")
        sheet_of(rows, width, written[-1])
    return written


def overview(records: Records, folder: Path, width: int, factor: float, only: Sequence[str] | None = None) -> Path:
    """overview.jpg: a row for every pair, a column for every variant, all at one weight of the style."""
    painted = {(pair_of(r), r["variant"]): folder / r["file"] for r in records if r["factor"] == factor}
    pairs, variants = unique(pair for pair, _ in painted), unique(name for _, name in painted)
    names = [name for name in only or variants if name in variants]
    rows = [(pair, [(name, painted.get((pair, name))) for name in names]) for pair in pairs]
    sheet_of(rows, width, folder / "overview.jpg")
    return folder / "overview.jpg"


def sheet_of(rows: Sequence[tuple[str, Sequence[tuple[str, Path | None]]]], width: int, file: Path) -> None:
    """Rows of pictures, a title above each row and a label above each picture; a file that is None or gone is blank."""
    from PIL import Image, ImageDraw, ImageFont

    font, title_height = ImageFont.load_default(14), 20
    strips = []
    for title, cells in rows:
        shown: list[Image.Image | None] = []
        for _, source in cells:
            if source is None or not source.exists():
                shown.append(None)
                continue
            with Image.open(source) as picture:
                size = width, round(picture.height * width / picture.width)
                shown.append(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))
        height = max((picture.height for picture in shown if picture), default=0)
        strip = Image.new("RGB", (len(cells) * (width + 4), height + 2 * title_height), "white")
        draw = ImageDraw.Draw(strip)
        draw.text((2, 2), title, fill="black", font=font)
        for number, ((label, _), resized) in enumerate(zip(cells, shown, strict=True)):
            left = number * (width + 4)
            draw.text((left + 2, title_height + 2), label, fill="#555", font=font)
            if resized:
                strip.paste(resized, (left, 2 * title_height))
        strips.append(strip)
    page = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    page.save(file, quality=88)
