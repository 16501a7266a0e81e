"""The forecast of memory against what is allocated and what the process takes; tiles that keep to a limit."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from harness.pictures import noise
from nstgpu.engine.analysis import plan
from nstgpu.engine.costs.statistics.tuning import Tuning
from nstgpu.engine.memory import spill
from nstgpu.engine.memory.arena import lay_out
from nstgpu.engine.memory.limits import available
from nstgpu.engine.optimizers import registry
from nstgpu.engine.tiling.geometry import Setting
from nstgpu.engine.tiling.memory_plan import MemoryPlan
from nstgpu.engine.transfer import Style, StyleTransfer
from nstgpu.kernels import open_device
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.weights import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps

VGG19 = (("relu4_2",), ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"))
GIB = 2**30


class Counting(Cpu):
    """Counts the bytes that are allocated."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.allocated: list[int] = []

    def allocate(self, nbytes: int) -> Any:
        self.allocated.append(nbytes)
        return super().allocate(nbytes)


@pytest.mark.parametrize("tile", ["off", 32, 48])
@pytest.mark.parametrize("statistics", ["gram", "w2", "gram+neighbors", "sliced", "neighbors, turned"])
@pytest.mark.parametrize("masked", [False, True])
def test_an_objective_allocates_what_its_footprint_says(thin: Any, tile: Any, statistics: Any, masked: bool) -> None:
    if statistics == "sliced" and tile != "off":
        pytest.skip("it has no tiles")
    statistics, _, turned = statistics.partition(", ")
    tuning = Tuning(turns=4) if turned else Tuning()
    device = Counting()
    size, style_size = (90, 110), (70, 64)
    mask = noise(3, *size)[..., 0]
    style = Style(noise(1, *style_size), mask=mask) if masked else noise(1, *style_size)
    transfer = StyleTransfer(
        noise(0, *size), style, weights=thin(), device=device, tile=tile, content_layers=["relu2_1"],
        style_layers=["relu1_1", "relu3_1"], style_statistics=statistics, content_mask=mask if masked else None,
        tuning=tuning,
    )  # fmt: skip
    needs = MemoryPlan(
        device,
        transfer.objective().network,
        size,
        ("relu2_1",),
        ("relu1_1", "relu3_1"),
        (style_size,),
        groups=(0,) if masked else (None,),
        trainable_mask=masked,
        statistics=statistics,
        tuning=tuning,
    )
    cut = needs.cut(tile, None)
    assert cut.image == transfer.objective().tiling
    held, tiled, arena = (device.allocated[number] for number in ((0, 2, 3) if masked else (0, 1, 2)))
    assert arena == needs.arena(cut)
    assert tiled + arena == needs.nbytes(cut)
    assert held == lay_out(needs.persistent())[1]
    device.allocated.clear()
    transfer.cost_and_gradient(noise(2, *size))
    assert device.allocated == []


@pytest.mark.parametrize("optimizer", sorted(registry.OPTIMIZERS))
def test_optimisers_keep_what_is_forecast(optimizer: str) -> None:
    device, shape = Counting(), (128, 192, 3)
    registry.make(device, optimizer, shape, None)
    image = 4 * 128 * 192 * 3
    assert sum(device.allocated) == pytest.approx(registry.spec(optimizer).state_images * image, rel=0.001, abs=4096)


def test_the_process_takes_what_is_forecast() -> None:
    """Within 5%, as a whole and in tiles."""
    if not Path("/proc/self/status").exists():
        pytest.skip("nobody says here what a process took at most")
    script = """
        import sys
        import numpy as np
        from nstgpu.engine.analysis.plan import of_weights
        from nstgpu.engine.transfer import StyleTransfer
        from nstgpu.kernels import open_device
        from nstgpu.weights import load_weights

        def resident(what):
            with open("/proc/self/status") as status:
                return 1024 * int(next(line for line in status if line.startswith(what)).split()[1])

        tile, optimizer, size = sys.argv[1], sys.argv[2], (480, 640)
        tile = int(tile) if tile.isdecimal() else tile
        rng, device, weights = np.random.default_rng(0), open_device("cpu", threads=1), load_weights("mini")
        content, style = ("relu3_1",), ("relu1_1", "relu2_1", "relu3_1")
        np.ones((256, 256), np.float32) @ np.ones((256, 256), np.float32)  # the BLAS has memory of its own
        before = resident("VmRSS")
        transfer = StyleTransfer(
            rng.random((*size, 3), np.float32), rng.random((*size, 3), np.float32), weights=weights, device=device,
            tile=tile, content_layers=content, style_layers=style,
        )
        transfer.run(1, scales=1, optimizer=optimizer)
        print(resident("VmHWM") - before, of_weights(device, weights, content, style, optimizer=optimizer)
              .forecast(size, tile).device)
    """
    for tile, optimizer in (("off", "adam"), ("160", "lbfgs")):
        command = [sys.executable, "-c", textwrap.dedent(script), tile, optimizer]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured, forecast = map(int, done.stdout.split())
        assert forecast == pytest.approx(measured, rel=0.05), (tile, optimizer)


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be kept in files."""
    monkeypatch.setattr(spill, "passing_folder", lambda: None)


@pytest.mark.usefixtures("no_disk")
def test_vgg19_at_4096_keeps_to_three_gib() -> None:
    """With a quarter of a GiB left for Python and the weights as they were read (0.08)."""
    planned = plan.of_weights(open_device("cpu", threads=2), load_weights("random:0"), *VGG19)
    size = (4096, 4096)
    forecast = planned.forecast(size, "auto", int(2.75 * GIB))
    assert forecast.device <= 2.75 * GIB
    assert 100 < forecast.cut.image.count < 400
    assert planned.forecast(size, "off").device > 12 * GIB
    # 12 x 4096^2 bytes an image: four of the run's, two of Adam's, two pictures, two that pass.
    assert forecast.images + forecast.optimizer + forecast.pictures == 10 * 12 * 4096**2


def test_what_memory_is_too_short_of_is_kept_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30,000 x 20,000 in 4 GiB: all that goes with the pixels is on disk, and in memory there are tiles."""
    monkeypatch.setattr(spill, "passing_folder", lambda: tmp_path)
    monkeypatch.setattr(spill, "disk_space", lambda: 1 << 40)
    planned = plan.of_weights(open_device("cpu", threads=2), load_weights("random:0"), *VGG19)
    size, limit = (20_000, 30_000), int(3.75 * GIB)
    # TilingPlan by hand, which does not take seconds to find tiles.
    forecast = planned.forecast(size, 2048, limit)
    image = 12 * 20_000 * 30_000
    held = forecast.images + forecast.optimizer + forecast.pictures + forecast.targets
    assert forecast.files == held
    assert held == pytest.approx(10 * image + 32 * 20_000 * 30_000, rel=0.001)
    assert forecast.device == forecast.filters + forecast.tiles < limit
    # Where memory is short of the largest block alone, the others stay.
    half = planned.forecast((4096, 4096), 1024, int(3.5 * GIB))
    assert half.files == pytest.approx(2 * 12 * 4096**2 + 32 * 4096**2, rel=0.02)
    assert planned.forecast((512, 512), "off", int(3.5 * GIB)).files == 0
    # The disk is what limits the size then.
    side = planned.largest(limit, 512, disk=10 << 30)
    assert side is not None
    larger = side * 21 // 20
    assert planned.forecast((side, side), 512, limit).files <= 10 << 30
    assert planned.forecast((larger, larger), 512, limit).files > 10 << 30
    assert planned.forecast((larger, larger), 512, limit).device < limit


@pytest.mark.usefixtures("no_disk")
def test_the_largest_that_fits_fits(thin: Any) -> None:
    planned = plan.of_weights(open_device("cpu", threads=1), thin(), ("relu2_1",), ("relu1_1", "relu3_1"))
    memory = 24 << 20
    sides: list[int] = []
    settings: tuple[Setting, ...] = ("off", 64, "auto")
    for tile in settings:
        side = planned.largest(memory, tile)
        assert side is not None
        assert planned.forecast((side, side), tile, memory).device <= memory
        larger = side * 4 // 3  # a strip of rows less can make up for a few pixels more
        assert planned.forecast((larger, larger), tile, memory).device > memory
        sides.append(side)
    assert sides[0] < sides[1] <= 1.05 * sides[2]
    assert planned.largest(1000, "auto") is None


@pytest.mark.usefixtures("no_disk")
def test_auto_keeps_to_the_memory_it_is_given(thin: Any) -> None:
    planned = plan.of_weights(open_device("cpu", threads=1), thin(), ("relu2_1",), ("relu1_1", "relu3_1"))
    size = (600, 400)
    whole = planned.forecast(size, "off")
    assert planned.forecast(size, "auto", whole.device).cut.image.count == 1
    assert planned.forecast(size, "auto", None).cut.image.count == 1
    tiled = planned.forecast(size, "auto", whole.device - whole.tiles // 2)
    assert tiled.cut.image.count > 1
    assert tiled.tiles <= whole.tiles // 2


@pytest.mark.usefixtures("no_disk")
def test_auto_looks_at_what_is_free(thin: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The same by a device that says how much it has left; what is chosen is said in one line."""

    class Small(Cpu):
        free = 10**9

        def free_bytes(self) -> int:
            return self.free

    device = Small(threads=1)
    settings: dict[str, Any] = {"weights": thin(), "device": device, "content_layers": ["relu2_1"]}
    content, style = noise(0, 220, 260), noise(1, 120, 100)
    assert available(device) == 10**9
    assert StyleTransfer(content, style, **settings).objective().tiling.count == 1
    device.free = 12 << 20
    with caplog.at_level("INFO", "nstgpu"):
        transfer = StyleTransfer(content, style, **settings)
    assert transfer.objective().tiling.count > 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"working in {transfer.objective().tiling}: as a whole, 260x220 px would take ")


def test_pace_counts_windows(thin: Any) -> None:
    planned = plan.of_weights(open_device("cpu", threads=1), thin(), ("relu2_1",), ("relu1_1", "relu3_1"))
    measured = planned.pace(side=48)
    assert measured is not None
    assert 0 < measured.forward < measured.both
    pace = plan.Pace(forward=1.0, both=10.0)
    whole, tiled = (planned.forecast((100, 100), tile).cut.image for tile in ("off", 60))
    assert pace.iteration(whole) == 10 * 100**2
    windows = [tile.size[0] * tile.size[1] for tile in tiled.tiles]
    assert pace.iteration(tiled) == 10 * sum(windows) + sum(windows[:-1])
