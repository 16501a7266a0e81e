"""The judge of benchmarks/quality.py, its curves, and the measure of grain: what they say where the answer is known."""

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstgpu

BENCHMARKS = Path(nstgpu.__file__).parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of an installation")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_sliced_distance(benchmark: Any) -> None:
    """A shift by d along every axis: the mean of (d . u)^2 over unit directions is |d|^2 / C; sizes may differ."""
    judge = benchmark("quality_judge")
    rng = np.random.default_rng(1)
    features = rng.standard_normal((4000, 16), np.float32)
    values = judge.sorted_projections(features)
    assert judge.sliced_distance(values, values) == 0
    shifted = judge.sorted_projections(features + 0.5)
    assert judge.sliced_distance(shifted, values) == pytest.approx(0.5, rel=0.15)
    fewer = judge.sorted_projections(features[::2])
    assert judge.sliced_distance(fewer, values) < 0.05


def test_self_similarity(benchmark: Any) -> None:
    """Neither the strength of features nor a turn of all of them changes which places are alike; a shuffle does."""
    judge = benchmark("quality_judge")
    rng = np.random.default_rng(2)
    features = np.abs(rng.standard_normal((200, 8)))
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    own = judge.self_similarity(features)
    np.testing.assert_allclose(own.mean(axis=0), 1)
    np.testing.assert_allclose(judge.self_similarity(3 * features @ turn), own, atol=1e-12)
    assert np.mean(np.abs(judge.self_similarity(rng.permutation(features)) - own)) > 0.3


def test_thinned(benchmark: Any) -> None:
    judge = benchmark("quality_judge")
    grid = np.arange(7 * 9, dtype=np.float32).reshape(7, 9, 1)
    assert judge.thinned(grid, 63).shape == (63, 1)
    np.testing.assert_array_equal(judge.thinned(grid, 20)[:, 0], grid[::2, ::2].reshape(-1))


def test_advantage(benchmark: Any) -> None:
    """Half of a curve y = 1 / x is ln 1/2 below it wherever both are; a point worse than another counts for nothing."""
    curves = benchmark("quality_curves")
    whole = [(x, 1 / x) for x in (1.0, 2.0, 4.0)]
    half = [(x, 0.5 / x) for x in (0.5, 2.0, 3.0)]
    np.testing.assert_allclose(curves.advantage(half, whole), np.log(0.5), atol=2e-3)
    np.testing.assert_allclose(curves.advantage([*half, (2.5, 9.0)], whole), np.log(0.5), atol=2e-3)
    assert curves.advantage([(8.0, 0.1), (9.0, 0.05)], whole) is None


def test_table_says_who_is_below(benchmark: Any) -> None:
    curves = benchmark("quality_curves")
    records = [
        {"content": "a", "style": "b", "variant": name, "content_by_tap": {"t": x}, "sliced": {"t": share / x}}
        for name, share in (("gram", 1.0), ("near", 0.5), ("far", 2.0))
        for x in (1.0, 2.0)
    ]
    text = curves.table(records, "sliced")
    assert "| a / b | **0.50** | 2.00 |" in text
    assert "| below everywhere, on average | 1, 1 of 1 | 0, 0 of 1 |" in text


def test_energy_in_a_band(benchmark: Any) -> None:
    """A wave of amplitude 1 has a variance of 1/2, all of it in the band of its frequency."""
    grain = benchmark("grain")
    wave = np.sin(2 * np.pi * 0.4 * np.arange(128))[:, None] * np.ones(96)
    assert grain.band_energy(wave, 0.25, 1) == pytest.approx(0.5, rel=0.02)
    assert grain.band_energy(wave, 0.0625, 0.25) < 1e-4


def test_noise_in_the_dark(benchmark: Any) -> None:
    """Checkers of one level of 255 either way, in the dark half of a picture; 20 in its bright half do not count."""
    grain = benchmark("grain")
    checkers = np.indices((128, 512)).sum(axis=0) % 2 * 2.0 - 1
    bright = 1 / (1 + np.exp(-(np.arange(512) - 256) / 12))
    picture = 0.1 + 0.8 * bright + (1 + 19 * (bright > 0.9)) * checkers / 255
    assert grain.dark_noise(picture) == pytest.approx(1, rel=0.2)


def test_pyramid_step_is_adams_at_one_level(benchmark: Any) -> None:
    """`doubled` then `blurred` has the transpose that `PyramidAdam` takes for it: <up x, y> = <x, down y>."""
    grain = benchmark("grain")
    rng = np.random.default_rng(3)
    coarse, fine = rng.standard_normal((6, 5, 3)), rng.standard_normal((12, 10, 3))
    up = grain.blurred(np, grain.doubled(np, coarse, fine.shape))
    down = 4 * grain.halved(np, grain.blurred(np, fine))
    assert np.vdot(up, fine) == pytest.approx(np.vdot(coarse, down))


def test_sheets(benchmark: Any, tmp_path: Path) -> None:
    """A sheet for a pair, one for all pairs; what was not painted, or whose file is gone, is blank."""
    from PIL import Image

    curves = benchmark("quality_curves")
    records = []
    for variant, factor, color in (("gram", 1.0, "red"), ("gram", 0.1, "blue"), ("w2", 1.0, "green")):
        file = f"{variant}{factor}.png"
        Image.new("RGB", (40, 30), color).save(tmp_path / file)
        records.append({"content": "a", "style": "b", "variant": variant, "factor": factor, "file": file})
    records.append({**records[-1], "factor": 0.1, "file": "gone.png"})
    (sheet,) = curves.sheets(records, tmp_path, 80)
    with Image.open(sheet) as image:
        assert image.size == (2 * 84, 2 * 100)
        rows = np.asarray(image)[70::100, 40::84].argmax(axis=2).tolist()
        assert rows[0] == [2, 0]  # blue is the lesser weight
        assert rows[1][1] == 1
        assert image.getpixel((40, 170)) == (255, 255, 255)
    with Image.open(curves.overview(records, tmp_path, 80, 1.0, ["w2", "gram"])) as image:
        assert np.asarray(image)[70, 40::84].argmax(axis=1).tolist() == [1, 0]


def test_each_statistic_may_also_have_the_iterations_of_gram(benchmark: Any) -> None:
    quality = benchmark("quality")
    given = argparse.Namespace(statistics="gram,sliced", variant=None, equal_iterations=True, no_classic=True)
    found = {variant.name: variant.iterations_of for variant in quality.variants_of(given)}
    assert found == {"gram": None, "sliced": None, "sliced, gram's iterations": "gram"}
    given = argparse.Namespace(statistics="gram", variant=None, equal_iterations=False, no_classic=False)
    by_time = {variant.name: variant.iterations_of for variant in quality.variants_of(given)}
    assert by_time["gram, L-BFGS, one scale"] == "gram, Adam, one scale"
    assert by_time["gram, L-BFGS, one scale, equal time"] is None
