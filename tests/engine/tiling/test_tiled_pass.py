"""Tiles: the cost and gradient of the whole image, however it is cut up, and a run that fits the memory there is."""

import logging
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.pictures import soft_mask, waves
from nstgpu.engine.costs.terms import Costs
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.model import network
from nstgpu.engine.model.receptive_field import receptive_fields
from nstgpu.engine.tiling import geometry
from nstgpu.engine.transfer import Style, StyleTransfer
from nstgpu.kernels import open_device
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.kernels.reference import Reference
from nstgpu.weights import Weights, load_weights

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps

EXACT = 1e-12  # in float64, where only the order of sums differs
ROUNDED = 1e-6  # in float32
# "w2" sees eigenvalues down to its ridge, a thousandth of the mean variance, by their inverse roots: 1e-3^(-1/2) is 30.
SHARPENED = {"w2": 30}


def differences(
    thin: Thin, size: tuple[int, int], side: int, *, widths: Any, style: Any = None, **settings: Any
) -> tuple[StyleTransfer, float, float]:
    """The transfer in tiles, and how far cost and gradient (relative L2) are from those without."""
    weights = thin(widths)
    style = waves(1, 61, 75) if style is None else style
    evaluated: list[tuple[Costs, np.ndarray]] = []
    for tile in ("off", side):
        transfer = StyleTransfer(
            waves(0, *size), style, weights=weights, tile=tile,
            style_weight=30.0, content_weight=1.0, tv_weight=0.2, **settings,
        )  # fmt: skip
        evaluated.append(transfer.cost_and_gradient(waves(2, *size)))
    (whole, gradient), (costs, tiled) = evaluated
    assert costs.per_layer.keys() == whole.per_layer.keys()
    parts = ("total", "content", "style", "tv")
    cost = max(abs(getattr(costs, part) - getattr(whole, part)) / (getattr(whole, part) or 1) for part in parts)
    assert costs.gradient_norm == pytest.approx(float(np.linalg.norm(tiled)), rel=1e-6)
    return transfer, cost, float(np.linalg.norm(tiled - gradient) / np.linalg.norm(gradient))


# Widths, image, side of a tile, and how many tiles that makes: edges on odd pixels where no pool has a say, and on odd
# units of the deepest tap elsewhere; a last tile of one cell of the grid; single rows and columns of tiles.
CUTS: dict[str, tuple[Any, tuple[int, int], int, int]] = {
    "one": (((8, 8), (12,)), (41, 55), 64, 1),
    "no pool": (((8, 8),), (31, 47), 13, 12),
    "odd": (((8, 8), (12, 12)), (41, 53), 15, 12),
    "a row": (((8, 8), (12,)), (17, 75), 26, 3),
    "a column": (((8, 8), (12,)), (76, 19), 30, 3),
    "deep": (((8, 8), (12, 12), (16,), (20,)), (93, 121), 24, 20),
    "one cell left": (((8,), (12,), (16,)), (37, 45), 16, 9),
    "channels of no vector's width": (((5, 6), (7,), (9,)), (45, 51), 20, 9),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "gram": {},
    "average": {"pooling": "average"},
    "moments": {"style_statistics": "moments"},
    "w2": {"style_statistics": "w2"},
    "sum": {"content_reduction": "sum"},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("device", "cut"),
    [*(("reference", cut) for cut in CUTS), ("cpu", "odd"), ("cpu", "deep"), ("cpu", "channels of no vector's width")],
)
def test_tiles_give_the_gradient_of_the_whole(thin: Thin, device: str, cut: str, settings: str) -> None:
    widths, size, side, count = CUTS[cut]
    transfer, cost, gradient = differences(thin, size, side, widths=widths, device=device, **SETTINGS[settings])
    assert transfer.objective().tiling.count == count
    allowed = (EXACT if device == "reference" else ROUNDED) * SHARPENED.get(settings, 1)
    assert cost <= min(allowed, ROUNDED)
    assert gradient <= allowed


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("statistics", ["gram", "moments", "w2"])
def test_tiles_keep_to_masks(thin: Thin, device: str, statistics: str) -> None:
    """Several styles in their places, one of them looked at in part, and some of the content kept."""
    size = (54, 66)
    styles = [
        Style(waves(1, 37, 45), mask=soft_mask(4, *size), region=soft_mask(5, 37, 45)),
        Style(waves(3, 52, 40), mask=soft_mask(6, *size), weight=2.0),
        waves(7, 30, 30),
    ]
    _, cost, gradient = differences(
        thin, size, 20, widths=((8, 8), (12, 12), (16,)), style=styles, device=device,
        content_mask=0.8 * soft_mask(8, *size), style_statistics=statistics,
    )  # fmt: skip
    allowed = (EXACT if device == "reference" else ROUNDED) * SHARPENED.get(statistics, 1)
    assert cost <= min(allowed, ROUNDED)
    assert gradient <= allowed


@pytest.mark.parametrize(
    "layers",
    [
        {"content_layers": ["relu3_1"], "style_layers": []},
        {"content_layers": [], "style_layers": ["relu2_2"]},
        {"content_layers": ["relu1_2", "relu2_1"], "style_layers": ["relu1_1", "relu2_1"]},
    ],
    ids=["content alone", "style alone", "one tap for both"],
)
def test_tiles_serve_any_choice_of_layers(thin: Thin, layers: dict[str, Any]) -> None:
    widths = ((8, 8), (12, 12), (16,))
    _, cost, gradient = differences(thin, (45, 51), 16, widths=widths, device="reference", **layers)
    assert cost <= EXACT
    assert gradient <= EXACT


def test_tiles_on_our_kernels(thin: Thin) -> None:
    from nstgpu.kernels.emulator import NoCompilerError, find_compiler

    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    for widths in (((8, 8), (12,)), ((5, 6), (7,))):
        transfer, cost, gradient = differences(thin, (29, 41), 16, widths=widths, device="emulator")
        assert transfer.objective().tiling.count == 6
        assert cost <= ROUNDED
        assert gradient <= 2 * ROUNDED  # of the five channels, both are 1e-6 from the reference


def test_a_halo_is_what_the_deepest_tap_sees() -> None:
    weights = load_weights("random:0")
    device = open_device("reference", "fp32")
    for tap, margin, halo in (("relu1_2", 2, 2), ("relu3_1", 10, 12), ("relu5_1", 70, 80)):
        net = network.build(device, weights, tap, "max")
        field = receptive_fields(weights)[tap]
        assert field.margin == margin == field.size - field.stride - field.margin  # as far on either side
        assert geometry.halo(net) == halo
        assert geometry.grid(net) == field.stride


def test_a_narrower_halo_would_be_too_narrow(thin: Thin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above would see."""
    exact = geometry.halo
    monkeypatch.setattr(geometry, "halo", lambda net: exact(net) - geometry.grid(net))
    widths = ((8, 8), (12, 12), (16, 16))
    _, _, gradient = differences(thin, (45, 51), 16, widths=widths, device="reference")
    assert gradient > 1e-6


@pytest.mark.parametrize("length", [8, 9, 15, 16, 37, 64, 100, 333])
@pytest.mark.parametrize("cells", [1, 2, 3, 5, 100])
def test_spans_cover_an_axis_once(thin: Thin, length: int, cells: int) -> None:
    net = network.build(open_device("reference"), thin(((4, 4), (4, 4), (4,), (4,))), "relu4_1", "max")
    unit, halo = geometry.grid(net), geometry.halo(net)
    assert unit == 8
    spans = geometry.spans(length, cells, net)
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == length
    for span in spans:
        assert span.start % unit == span.first % unit == 0
        assert span.stop - span.start >= unit
        assert span.stop - span.start < (cells + 1) * unit
        assert span.first == max(0, span.start - halo)
        assert span.last == min(length, span.stop + halo)
        assert span.last == length or span.last % unit == 0
        for stride in (1, 2, 4, 8):  # pools take the floor: in the window as in the whole
            assert span.at(stride).last - span.at(stride).first == span.length // stride


def test_less_memory_means_smaller_tiles_and_more_work() -> None:
    device = open_device("cpu", threads=2)
    net = network.build(device, load_weights("random:0"), "relu5_1", "max")

    def nbytes(cut: geometry.Tiling) -> int:
        return 700 * math.prod(cut.largest)

    size = (1500, 2100)
    chosen = [geometry.choose(net, size, nbytes, megapixels * 700e6) for megapixels in (4, 3, 2, 1, 0.5)]
    assert chosen[0].count == 1
    assert [cut.pixels for cut in chosen] == sorted(cut.pixels for cut in chosen)
    assert chosen[0].pixels < chosen[1].pixels < chosen[3].pixels < chosen[4].pixels
    for cut, megapixels in zip(chosen, (4, 3, 2, 1, 0.5), strict=True):
        assert math.prod(cut.largest) <= megapixels * 1e6
    # In two halves or thirds rather than in four quarters.
    assert 1 in (len(chosen[1].rows), len(chosen[1].columns))
    smallest = geometry.choose(net, size, nbytes, 0)
    assert math.prod(smallest.largest) == min(math.prod(cut.largest) for cut in geometry.tilings(net, size))


@pytest.mark.parametrize(
    ("device", "optimizer", "most"),
    [("reference", "adam", 1e-9), ("reference", "lbfgs", 1e-9), ("cpu", "descent", 1 / 255)],
)
def test_no_seam_in_a_run(thin: Thin, device: str, optimizer: str, most: float) -> None:
    """10 iterations, in tiles and as a whole.

    Adam and L-BFGS in float64 only: Adam's first step is the sign of a gradient, however small, and a line search may
    turn on one rounding, so that in float32 any two ways to round may part by more (13/255 between the cpu device and
    the reference on two photographs, neither in tiles; up to 6/255 with L-BFGS, in one of six pairs of such pictures).
    """
    painted = []
    for tile in ("off", 24):
        transfer = StyleTransfer(
            waves(0, 70, 90), waves(1, 61, 75), weights=thin(((8, 8), (16, 16), (16,))), device=device, tile=tile
        )
        painted.append(transfer.run(10, scales=1, average=0.0, optimizer=optimizer).image)
    assert transfer.objective().tiling.count == 12
    assert np.abs(painted[0] - waves(0, 70, 90)).mean() > 0.01  # it went somewhere
    assert np.abs(painted[0] - painted[1]).max() < most


def test_what_rounding_changes_is_nowhere_near_the_edges_of_tiles() -> None:
    """Adam in float32, where tiles may change single pixels: no more of them at edges than elsewhere, so no seam.

    How many is a matter of which roundings the first steps turn on: 0.01/255 to 0.4/255 on average, for other noise.
    """
    painted, shape, side = [], (96, 128, 3), 32
    content, style = (np.random.default_rng(seed).random(shape).astype(np.float32) for seed in (0, 1))
    for tile in ("off", side):
        transfer = StyleTransfer(content, style, weights=load_weights("mini"), device="cpu", threads=1, tile=tile)
        painted.append(transfer.run(20, scales=1, average=0.0).image)
    change = np.abs(painted[0] - painted[1]).mean(axis=2)
    rows, columns = (np.minimum(np.arange(length) % side, -np.arange(length) % side) for length in shape[:2])
    near = np.minimum(rows[:, None], columns) < 4
    assert 0 < change[near].mean() < 1.5 * change[~near].mean() < 1 / 255


def test_one_tile_costs_what_no_tiles_cost(thin: Thin) -> None:
    """Not one operation more, nor a byte."""

    class Counting(Cpu):
        def __init__(self) -> None:
            super().__init__(threads=1)
            self.launched: list[str] = []
            self.allocated = 0

        def allocate(self, nbytes: int) -> Any:
            self.allocated += nbytes
            return super().allocate(nbytes)

    for name in ("conv3x3_relu", "gram", "blend", "combine", "copy", "zero"):
        operation = getattr(Cpu, name)

        def counted(self: Counting, *args: Any, _name: str = name, _operation: Any = operation, **kwargs: Any) -> None:
            self.launched.append(_name)
            _operation(self, *args, **kwargs)

        setattr(Counting, name, counted)
    seen = []
    for tile in ("off", 1000):
        device = Counting()
        transfer = StyleTransfer(
            waves(0, 48, 64), waves(1, 40, 50), weights=thin(), device=device, tile=tile, content_layers=["relu2_1"]
        )
        objective = transfer.objective()
        device.launched.clear()
        objective.evaluate(objective.image, objective.gradient)
        seen.append((device.launched, device.allocated))
    assert seen[0] == seen[1]
    assert seen[0][0] == ["conv3x3_relu"] * 5 + ["gram"] * 3


class Limited(Reference):
    """Refuses any allocation above a limit, as a device does whose memory somebody else has taken."""

    def __init__(self, limit: float = math.inf) -> None:
        super().__init__()
        self.limit = limit
        self.refused = 0

    def allocate(self, nbytes: int) -> Any:
        if nbytes > self.limit:
            self.refused += 1
            raise MemoryError(f"{nbytes} bytes")
        return super().allocate(nbytes)


def test_memory_that_is_not_there_means_smaller_tiles(thin: Thin, caplog: pytest.LogCaptureFixture) -> None:
    weights, size = thin(((8, 8), (8, 8))), (70, 84)
    whole = StyleTransfer(waves(0, *size), waves(1, 61, 75), weights=weights, device=Limited())
    expected, gradient = whole.cost_and_gradient(waves(2, *size))
    footprint = whole.objective().memory_plan
    device = Limited(0.6 * footprint.arena(footprint.whole()))
    with caplog.at_level(logging.WARNING, "nstgpu"):
        transfer = StyleTransfer(waves(0, *size), waves(1, 61, 75), weights=weights, device=device)
    assert 1 < transfer.objective().tiling.count <= 16
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == device.refused > 0
    assert lines[0].startswith("out of memory in one piece: going on in ")
    costs, tiled = transfer.cost_and_gradient(waves(2, *size))
    assert costs.total == pytest.approx(expected.total, rel=EXACT)
    assert np.linalg.norm(tiled - gradient) <= EXACT * np.linalg.norm(gradient)


def test_a_run_goes_on_from_where_memory_ran_out(thin: Thin, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of an iteration: the next one begins from the same image, in smaller tiles."""

    class Failing(Limited):
        left = 10**9

        def conv3x3_input_gradient(self, *args: Any, **kwargs: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise MemoryError("a temporary")
            super().conv3x3_input_gradient(*args, **kwargs)

    def run(fails_at: int | None) -> tuple[Any, StyleTransfer]:
        device = Failing()
        transfer = StyleTransfer(waves(0, 64, 80), waves(1, 61, 75), weights=thin(((8, 8), (8, 8))), device=device)
        if fails_at is not None:
            device.left = fails_at
        return transfer.run(12, scales=1, average=0.0), transfer

    undisturbed, _ = run(None)
    with caplog.at_level(logging.WARNING, "nstgpu"):
        disturbed, transfer = run(4 * 5 + 2)  # the sixth iteration's second of four convolutions back
    assert [record.getMessage()[:26] for record in caplog.records] == ["out of memory in one piece"]
    assert transfer.objective().tiling.count > 1
    assert len(disturbed.history) == len(undisturbed.history) == 12
    for before, after in zip(undisturbed.history, disturbed.history, strict=True):
        assert after.total == pytest.approx(before.total, rel=EXACT)
    assert np.abs(disturbed.image - undisturbed.image).max() < 1e-9


def test_what_no_tile_can_mend_is_said(thin: Thin) -> None:
    with pytest.raises(MemoryError, match="bytes"):
        StyleTransfer(waves(0, 64, 80), waves(1, 40, 50), weights=thin(), device=Limited(100_000))


@pytest.mark.parametrize("tile", [0, -3, "large", 2.5, True])
def test_what_is_no_tile_is_named(thin: Thin, tile: Any) -> None:
    with pytest.raises(SettingsError, match="auto, off, or the side of a tile in pixels"):
        StyleTransfer(waves(0, 24, 32), waves(1, 20, 20), weights=thin(), device="reference", tile=tile)


def test_tiles_that_are_all_halo_are_refused_before_any_work(thin: Thin) -> None:
    """A recipe may say tile = "1": at 512 px each of its 1,024 tiles would see a window of some 300 px."""
    weights = thin(((4, 4), (4, 4), (4, 4, 4, 4), (4, 4, 4, 4), (4,)))
    with pytest.raises(SettingsError, match=r"make it \d+ or more, or auto") as refused:
        StyleTransfer(waves(0, 512, 512), waves(1, 64, 64), weights=weights, tile=1)
    times, least = (int(number) for number in re.findall(r"(?:are|it) (\d+)", str(refused.value)))
    assert times > geometry.MAX_WORK
    net = network.build(open_device("cpu"), weights, "relu5_1", "max")
    for side, absurd in ((least - geometry.grid(net), True), (least, False)):
        cut_up = geometry.tiling(net, (512, 512), (side, side))
        assert (cut_up.pixels > geometry.MAX_WORK * 512**2) == absurd
    transfer = StyleTransfer(waves(0, 64, 64), waves(1, 64, 64), weights=weights, tile=1)
    assert transfer.objective().tiling.count == 16
