"""The style statistics `sliced`: their cost by hand, their gradient, and what a run draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.statistics.tuning import Tuning
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.model.network import down_to, forward, reserve
from nstgpu.engine.optimizers import checkpoint, coarse_to_fine
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.style import Style
from nstgpu.engine.tiling import memory_plan
from nstgpu.engine.transfer import Result, StyleTransfer
from nstgpu.kernels.random.directions import directions
from nstgpu.kernels.reference import Reference
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps
Thin = Callable[..., Weights]
LEFT = np.repeat([[1.0] * 20 + [0.0] * 20], 32, axis=0)
PICTURES = np.random.default_rng(0).random((3, 32, 40, 3))
TWO = [Style(PICTURES[1, :30, :36], weight=2.0), PICTURES[2, ::-1]]
MASKED = [Style(PICTURES[1], mask=LEFT, region=LEFT[:, ::-1]), Style(PICTURES[2], mask=1 - LEFT)]


def made(thin: Thin, statistics: str = "sliced", **settings: Any) -> StyleTransfer:
    style = settings.pop("style", PICTURES[1])
    settings = {"device": "reference", "pooling": "average", **settings}
    return StyleTransfer(PICTURES[0], style, weights=thin(), style_statistics=statistics, **settings)


def activations(transfer: StyleTransfer, pixels: Any) -> Any:
    """(h w, C), at relu1_1."""
    network = down_to(transfer.objective().network, ["relu1_1"])
    buffers = reserve(transfer.device, network, pixels.shape[:2], ["relu1_1"], backward=False)
    forward(transfer.device, network, buffers, pixels)
    return np.array(buffers.layers[0].output).reshape(-1, network.layers[0].channels[1])


@pytest.mark.parametrize("count", [64, 1, 21])
def test_the_cost_is_the_distance_of_sorted_projections(thin: Thin, count: int) -> None:
    """Of pictures of one size, with the directions of the seed, and of iteration 0."""
    alone: dict[str, Any] = {
        "style_layers": {"relu1_1": 1.0},
        "content_layers": {},
        "style_weight": 1.0,
        "tv_weight": 0.0,
    }
    transfer = made(thin, **alone, seed=7, tuning=Tuning(directions=count))
    image, style = activations(transfer, PICTURES[2]), activations(transfer, PICTURES[1])
    drawn = directions(7, 0, count, image.shape[1])
    ours, theirs = (np.sort(features @ drawn.T, axis=0) for features in (image, style))
    assert transfer.cost_and_gradient(PICTURES[2])[0].total == pytest.approx(np.mean((ours - theirs) ** 2), rel=1e-12)
    energy = np.mean(style**2)
    assert transfer.objective().style_energies()["sliced"]["relu1_1"] == pytest.approx(3 * energy, rel=1e-12)


class FixedOrder(Reference):
    """Sorts as the first time: the sorted rows' order jumps, and a difference across a jump says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[tuple[int, ...], list[Any]] = {}
        self.fixed = False

    def sort_rows(self, values: Any, order: Any, *, scratch: Any) -> None:
        kept = self.orders.setdefault(values.shape, [])
        if order is None or not self.fixed:
            super().sort_rows(values, order, scratch=scratch)
            if order is not None:
                kept.append(order.copy())
            return
        kept.append(kept.pop(0))
        order[...] = kept[-1]
        values[...] = np.take_along_axis(values, order.astype(np.int64), axis=1)


@pytest.mark.parametrize("statistics", ["sliced", "neighbors=1,sliced=2"])
@pytest.mark.parametrize("style", [TWO, MASKED], ids=["two styles", "masks"])
def test_the_gradient_is_that_of_the_cost(thin: Thin, statistics: str, style: Any) -> None:
    device = FixedOrder()
    transfer = made(thin, statistics, style=style, device=device)
    image = transfer.initial_image("noise").astype(np.float64)
    gradient = transfer.cost_and_gradient(image)[1]
    device.fixed, cost = True, transfer.objective()

    def measured(pixels: Any) -> float:
        device.upload(pixels, cost.image)
        return cost.evaluate(cost.image, cost.gradient).total

    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=image.shape)
        ahead, behind = (measured(image + step * direction) for step in (1e-6, -1e-6))
        assert (ahead - behind) / 2e-6 == pytest.approx(float(np.sum(gradient * direction)), rel=1e-6)


# ---- a run ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_run_resumes_to_the_same_bytes(thin: Thin, tmp_path: Path, optimizer: str) -> None:
    states: list[RunState] = []

    def keep(progress: Progress) -> None:
        if progress.iteration in (2, 7):
            checkpoint.write(tmp_path / "state.h5", progress.state())
            states.append(checkpoint.read(tmp_path / "state.h5")[0])

    def run(seed: int = 0, **settings: Any) -> Result:
        painter = made(thin, "neighbors+sliced", style=TWO, device="cpu", threads=1, seed=seed)
        return painter.run([4, 5], scales=2, min_size=20, optimizer=optimizer, **settings)

    whole = run(on_iteration=keep)
    for state in states:
        resumed = run(resume=state)
        assert resumed.image.tobytes() == whole.image.tobytes()
        assert resumed.history == whole.history
    assert run().image.tobytes() == whole.image.tobytes()
    assert run(seed=1).image.tobytes() != whole.image.tobytes()


def test_directions_are_drawn_anew_at_every_iteration(thin: Thin, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []
    draw = Reference.random_directions

    def kept(device: Reference, seed: int, counter: Any, out: Any) -> None:
        drawn.append((seed, int(counter[0])))
        draw(device, seed, counter, out)

    monkeypatch.setattr(Reference, "random_directions", kept)
    made(thin, style_layers=["relu1_1", "relu2_1"], seed=2**64 - 1).run(3, scales=1)
    seeds = {seed for seed, _ in drawn}
    assert len(seeds) == 2
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert sorted({counter for _, counter in drawn}) == [0, 1, 2]
    drawn.clear()
    monkeypatch.setattr(coarse_to_fine, "STEADY", 2)
    made(thin, style_layers=["relu1_1"]).run(3, scales=1, optimizer="lbfgs")
    assert sorted({counter for _, counter in drawn}) == [0, 2]


def test_tiles_and_several_devices_are_refused(thin: Thin, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="sliced look at a whole picture; leave the tile at auto or off"):
        made(thin, "gram+sliced", tile=16)
    with pytest.raises(SettingsError, match="the style statistics sliced work on one device"):
        made(thin, device="cpu:0,1", threads=1)
    monkeypatch.setattr(memory_plan, "memory_budget", lambda *_: 1 << 20)
    with pytest.raises(MemoryError, match=r"40x32 px takes 0.0 GiB as a whole, which the style statistics sliced ask"):
        made(thin, tile="auto")
