"""The page of a finished run: whole by itself, well-formed, true to the numbers, and refused in one line."""

from __future__ import annotations

import base64
import io
import re
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nstgpu.engine.costs.terms import Costs, Weighting
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging.files import ImageError
from nstgpu.engine.optimizers.coarse_to_fine import ScaleDone
from nstgpu.engine.reporting import recipe, report
from nstgpu.engine.reporting.report import Report, check_destination, write_report

ALPHA, BETA, GAMMA = 2.0, 100.0, 0.5
CONTENT, STYLE = {"relu2_1": 0.5}, {"relu1_1": 3.0, "relu2_1": 0.25}


def costs(iteration: int) -> Costs:
    """As StyleTransfer reports them; the content's cost begins at nothing, as a run from the content does."""
    layers = {"relu1_1": 0.7 / iteration, "relu2_1": 0.9 / iteration**2, "relu2_1 content": 0.1 - 0.1 / iteration}
    content = CONTENT["relu2_1"] * layers["relu2_1 content"]
    style = sum(weight * layers[tap] for tap, weight in STYLE.items())
    return Costs(ALPHA * content + BETA * style + GAMMA * 0.02, content, style, 0.02, layers)


def a_report(**changes: Any) -> Report:
    y, x = np.mgrid[0:30, 0:40] / 40
    picture = np.dstack([x, y, 1 - x])
    return replace(
        Report(
            title="a in the manner of b",
            result=picture,
            inputs={"content: a": 1 - picture, "style: b": picture[:20, :20], "where b goes": x},
            history=[costs(iteration) for iteration in range(1, 31)],
            scales=[ScaleDone((15, 20), 20, 1.5), ScaleDone((30, 40), 10, 74.0)],
            content_layers=CONTENT,
            style_layers=STYLE,
            content_weight=ALPHA,
            style_weight=BETA,
            recipe={"nstgpu": "1.0", "weights": "thin", recipe.KEY: recipe.dump({"size": 40})},
        ),
        **changes,
    )


def parsed(page: str) -> xml.Element:
    """The page as a tree: it is XML too, so a tag left open or a stray < or & is an error."""
    assert page.startswith("<!DOCTYPE html>\n")
    return xml.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def assert_whole_by_itself(page: str) -> None:
    for element in parsed(page).iter():
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            if name.endswith(("src", "href")):
                assert value.startswith(("data:image/jpeg;base64,", "#"))
    assert "http" not in page
    assert not re.search(r"url\((?!#)|@import", page)


def texts(page: str, path: str) -> list[str]:
    return ["".join(element.itertext()) for element in parsed(page).iterfind(path)]


def rows(page: str, kind: str) -> list[list[str]]:
    table = next(table for table in parsed(page).iter("table") if table.get("class") == kind)
    return [["".join(cell.itertext()).strip() for cell in row] for row in table.iter("tr")]


# The page, which needs no matplotlib


def test_the_page_holds_every_picture() -> None:
    page = report._page(a_report(), [])
    assert_whole_by_itself(page)
    assert texts(page, ".//h1") == ["a in the manner of b"]
    assert texts(page, ".//h2") == ["Result", "Made from", "Costs", "Scales", "Recipe", "To repeat it"]
    assert texts(page, ".//header/p") == ["40 × 30 pixels · 30 iterations · 1 min 16 s · thin"]
    captions = ["result 40 × 30", "content: a 40 × 30", "style: b 20 × 20", "where b goes 40 × 30"]
    assert texts(page, ".//figcaption") == captions
    pictures = [a_report().result, *a_report().inputs.values()]
    for image, pixels in zip(parsed(page).iter("img"), pictures, strict=True):
        encoded = image.attrib["src"].removeprefix("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown:
            assert shown.size == (pixels.shape[1], pixels.shape[0])
            assert (image.get("width"), image.get("height")) == tuple(map(str, shown.size))
            expected = pixels if pixels.ndim == 3 else pixels[..., None]
            assert np.abs(np.asarray(shown.convert("RGB")) / 255 - expected).mean() < 0.03


def test_large_pictures_are_embedded_small() -> None:
    page = report._page(a_report(result=np.zeros((10, 5000, 3)), inputs={"a": np.zeros((4000, 4000, 3))}), [])
    sizes = [(int(image.attrib["width"]), int(image.attrib["height"])) for image in parsed(page).iter("img")]
    assert sizes == [(1600, 3), (640, 640)]
    assert "5000 × 10" in texts(page, ".//figcaption")[0]


def test_the_tables_say_what_was_measured() -> None:
    page = report._page(a_report(), [])
    last = costs(30)
    shares = {name: share for name, _, _, share in rows(page, "numbers costs")[1:]}
    assert shares == {
        "whole cost J": "100.0%",
        "content": f"{ALPHA * last.content / last.total:.1%}",
        "style": f"{BETA * last.style / last.total:.1%}",
        "smoothness": f"{GAMMA * 0.02 / last.total:.1%}",
        "style relu1_1": f"{BETA * 3 * 0.7 / 30 / last.total:.1%}",
        "style relu2_1": f"{BETA * 0.25 * 0.9 / 900 / last.total:.1%}",
        "content relu2_1": f"{ALPHA * last.content / last.total:.1%}",
    }
    assert rows(page, "numbers costs")[1][1:3] == ["233", "7.13"]
    assert rows(page, "numbers") == [
        ["pixels", "iterations", "time", "an iteration"],
        ["20 × 15", "20", "1.5 s", "75 ms"],
        ["40 × 30", "10", "1 min 14 s", "7.4 s"],
        ["together", "30", "1 min 16 s", "2.52 s"],
    ]
    assert rows(page, "recipe") == [["nstgpu", "1.0"], ["weights", "thin"]]
    assert texts(page, ".//pre") == [recipe.dump({"size": 40})]


def test_the_parts_add_up_to_the_whole() -> None:
    whole, *parts = report._parts(a_report())
    layers = report._layers(a_report())
    np.testing.assert_allclose(np.sum([part.values for part in parts], axis=0), whole.values)
    np.testing.assert_allclose(
        np.sum([layer.values for layer in layers], axis=0), np.sum([part.values for part in parts[:2]], axis=0)
    )
    np.testing.assert_allclose(parts[2].values, GAMMA * 0.02)


def test_a_run_that_was_changed_is_weighed_as_it_was() -> None:
    """The first ten iterations with other weights, and with a layer that is none of the cost any more."""
    plain, before = a_report(), Weighting({}, {**STYLE, "gone": 2.0}, 0.0, BETA / 2, GAMMA)
    history = [replace(each, per_layer={**each.per_layer, "gone": 3.0}) for each in plain.history[:10]]
    changed = a_report(history=[*history, *plain.history[10:]], earlier=[(10, before)])
    for part, as_before in zip(report._parts(changed)[1:3], report._parts(plain)[1:3], strict=True):
        share = 0.0 if part.name == "content" else 0.5
        np.testing.assert_allclose(part.values[:10], share * np.array(as_before.values[:10]))
        np.testing.assert_allclose(part.values[10:], as_before.values[10:])
    layers = {curve.name: curve.values for curve in report._layers(changed)}
    assert layers["style gone"] == [BETA / 2 * 2 * 3] * 10 + [0.0] * 20


def test_rounding_is_not_taken_for_smoothness() -> None:
    none = [replace(one, total=ALPHA * one.content + BETA * one.style + 1e-13, tv=0.0) for one in a_report().history]
    assert set(report._parts(a_report(history=none))[3].values) == {0.0}


def test_any_text_is_shown_as_it_is() -> None:
    odd = "<b>&\"' Звёздная ночь ☆ 星月夜 😀"
    page = report._page(a_report(title=odd, inputs={odd: np.zeros((4, 4))}, recipe={odd: odd, "c\0": "\x1b\udce9"}), [])
    assert_whole_by_itself(page)
    assert texts(page, ".//h1") == texts(page, ".//title") == [odd]
    assert texts(page, ".//figcaption")[1] == f"{odd} 4 × 4"
    assert rows(page, "recipe") == [[odd, odd], ["c�", "��"]]
    page.encode()


def test_a_run_without_iterations_has_no_costs() -> None:
    page = report._page(a_report(history=[], scales=[], inputs={}, recipe={}), [])
    assert_whole_by_itself(page)
    assert texts(page, ".//h2") == ["Result"]


def test_pages_are_for_any_screen() -> None:
    page = report._page(a_report(), [])
    assert '<meta name="viewport"' in page
    light, dark = report._STYLE_SHEET.split("prefers-color-scheme: dark", 1)
    named = set(re.findall(r"--[a-z]+(?:-\d+)?(?=:)", light))
    assert named - {"--aspect"} == {"--paper", "--text", "--faint", "--line", "--card"} | {
        f"--hue-{number}" for number in range(1, 1 + report._COLORS)
    }
    assert named <= set(re.findall(r"--[a-z]+(?:-\d+)?(?=:)", dark))  # none is forgotten in the dark
    assert set(re.findall(r"var\((--[^)]*)\)", page)) <= named | {"--aspect"}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (3.44, "3.44 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.7, "1 h 0 min"),
        (4210, "1 h 10 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert report._duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (1, "1"), (0.05, "0.05"), (20000, "20000"), (1e-5, "10⁻⁵"), (2.5e12, "2.5·10¹²"), (1e5, "10⁵")],
)
def test_powers_of_ten(value: float, said: str) -> None:
    assert report._power(value) == said


# What is refused


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for refuse in (
        lambda: check_destination(tmp_path / "a.html"),
        lambda: write_report(tmp_path / "a.html", a_report()),
    ):
        with pytest.raises(SettingsError, match=r"^a report needs matplotlib .*: pip install 'nstgpu\[report\]'.*$"):
            refuse()
    with pytest.raises(SettingsError, match=r"^a report's plots need matplotlib, which can't be imported \(.*\)$"):
        report._plot("a", report._parts(a_report()), [])
    assert list(tmp_path.iterdir()) == []


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    for name, said in (
        ("a.pdf", r"cannot write the report .*a\.pdf: its name must end in \.html"),
        ("file/a.html", "file is no folder"),
        ("folder.html", "a folder has this name"),
    ):
        with pytest.raises(ImageError, match=said):
            check_destination(tmp_path / name)
        with pytest.raises(ImageError, match=said):
            write_report(tmp_path / name, a_report())


# With the plots


def test_the_whole_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in "ab":
        write_report(tmp_path / f"{name}.html", a_report())
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert (tmp_path / "b.html").read_text(encoding="utf-8") == page  # the same run gives the same bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
    assert_whole_by_itself(page)
    assert len(page) < 100_000
    whole, layers = (figure for figure in parsed(page).iter("figure") if figure.get("class") == "plot")
    for figure, curves in ((whole, report._parts(a_report())), (layers, report._layers(a_report()))):
        assert ["".join(item.itertext()).strip() for item in figure.iter("li")] == [curve.name for curve in curves]
        plot = figure.find("div/svg")
        assert plot is not None
        words = ["".join(text.itertext()) for text in plot.iter("text")]
        assert {"iteration", "20 px", "40 px", "10", "30"} <= set(words)
        styles = " ".join(path.get("style", "") for path in plot.iter("path"))
        for curve in curves:
            assert f"stroke: {report._hue(curve.color)}" in styles


def test_a_curve_stands_where_its_values_are() -> None:
    pytest.importorskip("matplotlib")
    values = [1000.0, 10.0, 0.0, float("nan"), 0.1, 0.01]
    plot = xml.fromstring(report._plot("a", [report._Curve("a", values, 2)], []))
    lines = [path for path in plot.iter("path") if "--hue-2" in path.get("style", "")]
    points = [
        (command, float(x), float(y))
        for line in lines
        for command, x, y in re.findall(r"([ML]) (\S+) (\S+)", line.get("d", ""))
    ]
    assert [command for command, _, _ in points] == list("MLML")  # a gap where there is nothing to show in a logarithm
    steps = np.array([x for _, x, _ in points])
    np.testing.assert_allclose((steps - steps[0]) / (steps[1] - steps[0]), [0, 1, 4, 5], rtol=1e-4)
    heights = np.array([y for _, _, y in points])
    np.testing.assert_allclose((heights - heights[0]) / (heights[1] - heights[0]), [0, 1, 2, 2.5], rtol=1e-4)


def test_plots_leave_the_callers_matplotlib_alone() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"font.size": 33, "text.usetex": True, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        plot = report._plot("a", report._parts(a_report()), a_report().scales)
        assert dict(matplotlib.rcParams) == before
    assert plot == report._plot("a", report._parts(a_report()), a_report().scales)


def test_costs_that_never_change_and_runs_of_one_step(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    still = [costs(5)] * 4
    write_report(tmp_path / "a.html", a_report(history=still, scales=[ScaleDone((30, 40), 4, 0.1)]))
    assert_whole_by_itself((tmp_path / "a.html").read_text(encoding="utf-8"))
    write_report(tmp_path / "b.html", a_report(history=still[:1], scales=[ScaleDone((30, 40), 1, 0.1)]))
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert_whole_by_itself(page)
    assert 'class="plot"' not in page
    assert "Costs" in texts(page, ".//h2")


def test_a_cost_of_next_to_nothing_does_not_stretch_the_axis(tmp_path: Path) -> None:
    """As where a run begins at the content, whose cost is a rounding error there."""
    pytest.importorskip("matplotlib")
    history = [costs(iteration) for iteration in range(1, 11)]
    first = replace(history[0], content=1e-17, per_layer={**history[0].per_layer, "relu2_1 content": 2e-17})
    for start in (first, replace(first, content=0.0, per_layer={**first.per_layer, "relu2_1 content": 0.0})):
        write_report(tmp_path / "page.html", a_report(history=[start, *history[1:]], scales=[]))
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        plots = re.findall(r'<figure class="plot">.*?</figure>', page, re.DOTALL)
        assert len(plots) == 2
        assert not re.search("10⁻(¹|[⁷⁸⁹])", "".join(plots))


def test_nothing_but_zeros_is_drawn_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    nothing = Costs(0.0, 0.0, 0.0, 0.0, {"relu1_1": 0.0, "relu2_1": 0.0, "relu2_1 content": 0.0})
    write_report(tmp_path / "page.html", a_report(history=[nothing] * 3, scales=[]))
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
