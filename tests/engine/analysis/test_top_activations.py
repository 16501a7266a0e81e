"""What excites units most, against brute force over all places in all images."""

import gc
import itertools
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.pictures import noise
from nstgpu.engine.analysis.top_activations import Excitation, TopActivations, Unit
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging import files as images
from nstgpu.engine.model import network
from nstgpu.engine.model.receptive_field import receptive_fields
from nstgpu.kernels import open_device
from nstgpu.weights import Convolution, Weights
from nstgpu.weights.model import TORCHVISION

Thin = Callable[..., Weights]
NETWORK = ((4, 4), (6, 6))


def places(unit: Unit) -> list[tuple[float, str, int, int]]:
    return [(e.value, e.image, e.row, e.column) for e in unit.excitations]


def all_places(weights: Weights, tap: str, shown: dict[str, np.ndarray]) -> dict[int, list[Any]]:
    """Every activation above zero of every unit, strongest first, by the plain walk on the reference."""
    device = open_device("reference")
    net = network.build(device, weights, tap, "max")
    found: dict[int, list[Any]] = {}
    for name, image in shown.items():
        buffers = network.reserve(device, net, image.shape[:2], {tap}, backward=False)
        network.forward(device, net, buffers, image)
        for (row, column, unit), value in np.ndenumerate(buffers.layers[-1].output):
            if value > 0:
                found.setdefault(unit, []).append((value, name, row, column))
    return {unit: sorted(those, key=lambda p: (-p[0], *p[1:])) for unit, those in found.items()}


def overlap(a: Excitation, b: Excitation) -> bool:
    (x, y) = a.window, b.window
    return a.image == b.image and x.top < y.bottom and y.top < x.bottom and x.left < y.right and y.left < x.right


@pytest.mark.parametrize("tap", ["relu1_1", "relu1_2", "relu2_2"])
def test_many_images_give_their_best_place_each(thin: Thin, tap: str) -> None:
    weights = thin(NETWORK)
    shown = {f"{seed:02}": noise(seed, 23 + seed % 3, 30) for seed in range(8)}
    observer = TopActivations(weights, layers=[tap], units=range(4), per_unit=3, device="reference")
    for name, image in shown.items():
        observer.update(image, name)
    expected = all_places(weights, tap, shown)
    units = observer.units(tap)
    assert [unit.index for unit in units] == [0, 1, 2, 3]
    for unit in units:
        best: dict[str, Any] = {}
        for place in expected.get(unit.index, []):
            best.setdefault(place[1], place)
        assert places(unit) == sorted(best.values(), key=lambda p: (-p[0], *p[1:]))[:3]


@pytest.mark.parametrize("tap", ["relu1_2", "relu2_1"])
def test_few_images_give_several_places_that_do_not_overlap(thin: Thin, tap: str) -> None:
    weights = thin(NETWORK)
    shown = {"a": noise(1, 23, 30), "b": noise(2, 23, 30)}
    observer = TopActivations(weights, layers=[tap], units=range(4), per_unit=9, device="reference")
    for name, image in shown.items():
        observer.update(image, name)
    expected = all_places(weights, tap, shown)
    fields = receptive_fields(weights)
    for unit in observer.units(tap):
        chosen: list[Excitation] = []
        for value, name, row, column in expected.get(unit.index, []):
            place = Excitation(value, name, row, column, fields[tap].window(row, column), np.zeros((0, 0, 3), np.uint8))
            if not any(overlap(place, other) for other in chosen):
                chosen.append(place)
        assert places(unit) == [(e.value, e.image, e.row, e.column) for e in chosen[:9]]
        assert not any(overlap(a, b) for a, b in itertools.combinations(unit.excitations, 2))


def test_patch_is_what_the_unit_sees_and_explains_its_value(thin: Thin) -> None:
    """A unit whose whole window lies on the image is excited as much by its patch in the middle of any other image."""
    weights = thin(NETWORK)
    image = np.rint(noise(3, 40, 44) * 255).astype(np.uint8)
    observer = TopActivations(weights, layers=["relu2_1"], units=range(6), device="reference")
    observer.update(image)
    inside = 0
    for unit in observer.units("relu2_1"):
        for e in unit.excitations:
            seen = e.window.clipped(40, 44)
            np.testing.assert_array_equal(e.patch, image[seen.top : seen.bottom, seen.left : seen.right])
            if seen != e.window:
                continue
            inside += 1
            other = np.rint(noise(4, 40, 44) * 255).astype(np.uint8)
            other[seen.top : seen.bottom, seen.left : seen.right] = e.patch
            again = all_places(weights, "relu2_1", {"": (other / 255).astype(np.float32)})[unit.index]
            value = next(value for value, _, row, column in again if (row, column) == (e.row, e.column))
            assert value == pytest.approx(e.value, rel=1e-6)
    assert inside > 10


def test_order_of_images_does_not_matter(thin: Thin) -> None:
    shown = [(f"{seed}", noise(seed, 20 + seed, 25)) for seed in range(5)]
    results = []
    for order in (shown, shown[::-1], shown[2:] + shown[:2]):
        observer = TopActivations(thin(NETWORK), per_unit=3, units=3, device="cpu", threads=1)
        for name, image in order:
            observer.update(image, name)
        results.append([places(unit) for tap in observer.taps for unit in observer.units(tap)])
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 4 * 3


def test_equal_activations_are_ranked_by_name_then_place(thin: Thin) -> None:
    """On a flat image every unit that is not near the border has the same activation."""
    flat = np.full((12, 12, 3), 0.5, np.float32)
    observer = TopActivations(thin(((8,),)), layers=["relu1_1"], units=range(8), per_unit=3, device="reference")
    for name in ("b", "d", "a", "c"):
        observer.update(flat, name)
    excited = [unit for unit in observer.units("relu1_1") if unit.excitations]
    assert excited
    for unit in excited:
        assert [e.image for e in unit.excitations] == ["a", "b", "c"]
        assert len({e.value for e in unit.excitations}) == 1
        first = unit.excitations[0]
        ranked = all_places(thin(((8,),)), "relu1_1", {"a": flat})[unit.index]
        assert (first.row, first.column) == ranked[0][2:]


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_devices_agree(thin: Thin, device: str) -> None:
    weights = thin(NETWORK)
    observers = [TopActivations(weights, units=4, per_unit=2, device=name) for name in ("reference", device)]
    for observer, seed in itertools.product(observers, range(3)):
        observer.update(noise(seed, 23, 30), str(seed))
    for tap in weights.taps:
        for a, b in zip(*(observer.units(tap) for observer in observers), strict=True):
            assert [p[1:] for p in places(a)] == [p[1:] for p in places(b)]
            np.testing.assert_allclose([p[0] for p in places(a)], [p[0] for p in places(b)], rtol=1e-4)


def test_memory_does_not_grow_with_the_number_of_images(thin: Thin) -> None:
    observer = TopActivations(thin(((4,),)), units=4, per_unit=3, device="reference")

    def show(seeds: Sequence[int]) -> int:
        for seed in seeds:  # ever stronger, so that new images drive out old ones
            observer.update(np.clip(noise(seed, 72, 72) * (0.2 + seed / 200), 0, 1), f"{seed:05}")
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = show(range(40))
        late = show(range(40, 100))
    finally:
        tracemalloc.stop()
    assert observer.images == 100
    assert late - early < 72 * 72 * 3  # 60 images later, not even one of them more, as bytes
    leading = [unit for tap in observer.taps for unit in observer.units(tap)]
    assert max(len(unit.excitations) for unit in leading) == 3
    assert all(e.patch.base is None for unit in leading for e in unit.excitations)


def test_larger_images_are_shrunk_and_smaller_ones_are_not(thin: Thin) -> None:
    observer = TopActivations(thin(NETWORK), layers=["relu2_2"], per_unit=2, size=24, device="cpu", threads=1)
    observer.update(noise(0, 30, 60), "large")
    observer.update(noise(1, 12, 10), "small")
    for unit in observer.units("relu2_2"):
        for e in unit.excitations:
            height, width = (12, 24) if e.image == "large" else (12, 10)
            assert 0 <= e.row < height // 2
            assert 0 <= e.column < width // 2
            seen = e.window.clipped(height, width)
            assert e.patch.shape == (seen.bottom - seen.top, seen.right - seen.left, 3)


def test_units_are_evenly_spread_over_those_that_were_excited() -> None:
    """Of nine channels, those with an odd index have a bias that keeps them silent."""
    bias = np.array([0, -1e6] * 4 + [0], np.float32)
    kernel = np.random.default_rng(0).random((3, 3, 3, 9)).astype(np.float32)
    weights = Weights("half dead", "generated", (Convolution(1, 1, kernel, bias),), TORCHVISION, "")
    found = {}
    for wanted in (2, 3, 9):
        observer = TopActivations(weights, units=wanted, device="reference")
        observer.update(np.full((8, 8, 3), 0.9, np.float32))
        found[wanted] = [unit.index for unit in observer.units("relu1_1")]
    assert found == {2: [0, 4], 3: [0, 2, 6], 9: [0, 2, 4, 6, 8]}
    named = TopActivations(weights, units=[1, 2], device="reference")
    named.update(np.full((8, 8, 3), 0.9, np.float32))
    assert [(unit.index, len(unit.excitations) > 0) for unit in named.units("relu1_1")] == [(1, False), (2, True)]


def test_unusable_images_leave_no_trace(thin: Thin, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    observer = TopActivations(thin(NETWORK), per_unit=1, device="reference")
    with pytest.raises(images.ImageError, match="broken"):
        observer.update(tmp_path / "broken.png")
    with pytest.raises(images.ImageError, match="dot has 1x1 pixels, too few for relu2_2"):
        observer.update(np.zeros((1, 1, 3), np.float32), "dot")
    assert observer.images == 0
    assert observer.units("relu1_1") == []


def test_weights_that_overflow_are_named(thin: Thin) -> None:
    weights = thin(((4,),))
    weights.convolutions[0].kernel.setflags(write=True)
    weights.convolutions[0].kernel[0, 0, 0, 1] = np.nan
    observer = TopActivations(weights, device="reference")
    with pytest.raises(SettingsError, match="the activations at relu1_1 are not finite on here"):
        observer.update(noise(0, 23, 30), "here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["relu9_1"]}, "relu9_1"),
        ({"layers": []}, "no layer is to be watched"),
        ({"units": 0}, "0 units were asked for"),
        ({"units": []}, "no unit is to be watched"),
        ({"units": [5], "layers": ["relu1_1"]}, "relu1_1 has no unit 5: its units are 0 to 3"),
        ({"units": [-1]}, "relu1_1 has no unit -1"),
        ({"per_unit": 0}, "0 patches"),
        ({"size": 0}, "the size is 0"),
    ],
)
def test_bad_settings_are_one_line(thin: Thin, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        TopActivations(thin(NETWORK), device="reference", **settings)
    assert "\n" not in str(caught.value)
