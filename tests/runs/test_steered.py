"""A run that is changed while it goes on, repeated from its recipe and resumed in the middle: the same bytes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.pictures import waves
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging import files as images
from nstgpu.engine.inputs import Opened
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.transfer import Result
from nstgpu.kernels import open_device
from nstgpu.kernels.errors import DeviceError
from nstgpu.runs.changes import Change
from nstgpu.runs.requests import MORE_SCALE, Requests
from nstgpu.runs.settings import Options
from nstgpu.runs.steered import Stage, SteeredRun
from nstgpu.runs.transfer import taken, transfer_of
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


class Told:
    """A listener that keeps all it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def changed(self, stage: Stage, change: Change) -> None:
        self.events.append(("changed", change.iteration, dict(change.values), stage.transfer.style_weight))

    def refused(self, values: Mapping[str, Any], why: str) -> None:
        self.events.append(("refused", dict(values), why))

    def paused(self, paused: bool, iteration: int) -> None:
        self.events.append(("paused" if paused else "resumed", iteration))


class Painter:
    """Small runs on one device, with what they were told."""

    def __init__(self, folder: Path, device: str, weights: Weights) -> None:
        self.told, self.states = Told(), dict[int, RunState]()
        open_device(device, "fp32")
        self._opened, self._weights = Opened(device, "fp32", 1 if device == "cpu" else None), weights
        for name, seed in (("content.png", 0), ("style.png", 1)):
            images.save(folder / name, waves(seed, 36, 48))
        self.options = Options(
            str(folder / "content.png"), (str(folder / "style.png"),), min_size=33, iterations="6", device=device,
            precision="fp32", threads=1 if device == "cpu" else None,
        )  # fmt: skip

    def steered(self, resume: RunState | None = None, **settings: Any) -> SteeredRun:
        options, picture = replace(self.options, **settings), images.read(self.options.content)
        make = partial(transfer_of, content=picture, network=self._weights, opened=self._opened)
        transfer = make(options)
        return SteeredRun(taken(options, transfer), transfer, make, resume)

    def run(
        self,
        asked: Mapping[int, Callable[[Requests], object]] | None = None,
        resume: RunState | None = None,
        keep: bool = False,
        **settings: Any,
    ) -> tuple[Result, Options]:
        """asked: by iteration, what is asked for in its callback."""
        steered, requests, self.told = self.steered(resume, **settings), Requests(), Told()
        self.numbers: list[int] = []

        def on_iteration(progress: Progress) -> None:
            self.numbers.append(progress.iteration)
            if keep:
                self.states[progress.iteration] = progress.state()
            (asked or {}).get(progress.iteration, lambda _: None)(requests)

        result = steered.run(on_iteration, requests=requests, listener=self.told)
        return result, steered.told


@pytest.fixture(params=["cpu", "emulator"])
def painter(request: pytest.FixtureRequest, tmp_path: Path, thin: Callable[..., Weights]) -> Painter:
    """On a device that takes one iteration after the other, and on one that has several under way."""
    try:
        return Painter(tmp_path, request.param, thin(((8,), (8,))))
    except DeviceError as error:
        pytest.skip(str(error))


def same(one: Result, other: Result) -> bool:
    return one.image.tobytes() == other.image.tobytes() and one.history == other.history


def wish(**values: Any) -> Callable[[Requests], object]:
    return lambda requests: requests.change(values)


def test_live_repeated_and_resumed_are_the_same_bytes(painter: Painter, tmp_path: Path) -> None:
    """Weights, a learning rate, other layers, colors and a scale more, at both scales and at a scale's end."""
    asked = {
        2: wish(style_weight=3000.0),
        4: wish(learning_rate=0.03, tv_weight=4.0),
        8: wish(style_layers=["relu1_1"]),
        9: lambda requests: requests.change(MORE_SCALE),
        10: wish(colors="content-luminance"),
        13: wish(style_scales=[0.8]),
    }
    live, options = painter.run(asked)
    changes = [event for event in painter.told.events if event[0] == "changed"]
    assert len(changes) == len(painter.told.events) == len(options.changes) == 6
    assert [event[3] for event in changes][:2] == [3000.0, 3000.0]
    assert live.image.shape == (51, 68, 3)
    assert [scale.iterations for scale in live.scales] == [6, 6, 6]
    assert painter.numbers == list(range(1, 19))  # each is told of once, those that were under way included
    assert not live.interrupted
    plain, _ = painter.run()
    assert plain.history[:2] == live.history[:2]
    assert plain.history[4] != live.history[4]

    repeated, again = painter.run(changes=options.changes, keep=True)
    assert same(repeated, live)
    assert again.changes == options.changes
    for at in (1, 5, 6, 9, 11, 12, 17):
        checkpoint.write(tmp_path / "state.h5", painter.states[at])
        state, _ = checkpoint.read(tmp_path / "state.h5")
        resumed, _ = painter.run(resume=state, changes=options.changes)
        assert same(resumed, live), at
        assert resumed.scales[0].iterations == 6


def test_what_adam_remembers_outlives_a_weight(painter: Painter) -> None:
    """A change to what it was changes nothing; measured anew, it starts afresh."""
    plain, _ = painter.run(style_weight=500.0)
    same_again, _ = painter.run(style_weight=500.0, changes=("3 style_weight=500.0", "6 tv_weight=2.0"))
    afresh, _ = painter.run(style_weight=500.0, changes=("3 statistics=gram",))
    assert same(same_again, plain)
    assert afresh.history[:3] == plain.history[:3]
    assert afresh.history[5] != plain.history[5]


def test_a_refused_change_leaves_the_run_as_it_was(painter: Painter) -> None:
    plain, _ = painter.run()
    asked = {
        1: wish(style_weight=-1.0),
        2: wish(style_layers=["relu5_1"]),
        3: wish(style_weight=1e30),  # known as too much only once it is evaluated
        4: wish(seed=3),
        7: wish(style_scales=[0.01]),
        8: wish(size=4000),
    }
    result, options = painter.run(asked)
    assert same(result, plain)
    assert options.changes == ()
    assert [event[0] for event in painter.told.events] == ["refused"] * 6
    whys = [event[2] for event in painter.told.events]
    for why, part in zip(
        whys, ["style_weight", "relu5_1", "style_weight is 1e+30", "'seed' does not", "px", "4000 px"], strict=True
    ):
        assert part in why
        assert "\n" not in why


def test_pause_and_stop(painter: Painter) -> None:
    """No time passes while it is paused; where it was stopped its recipe says, and its options do not."""
    waited: list[float] = []

    class Slow(Requests):
        def wait(self, seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                self.pause(False)

    steered, requests, told = painter.steered(), Slow(), Told()

    def on_iteration(progress: Progress) -> None:
        if progress.iteration == 3:
            requests.pause(True)
        if progress.iteration == 8:
            requests.stop()

    result = steered.run(on_iteration, requests=requests, listener=told)
    plain, _ = painter.run()
    done = len(result.history)
    assert len(waited) == 3
    assert [event[0] for event in told.events] == ["paused", "resumed"]
    assert result.interrupted
    assert 8 <= done < 12
    assert result.history == plain.history[:done]
    assert steered.options.changes == ()
    assert steered.told.changes == (f"{done} stop",)
    again, _ = painter.run(changes=steered.told.changes)
    assert again.image.tobytes() == result.image.tobytes()


def test_a_signal_ends_a_paused_run(painter: Painter) -> None:
    requests = Requests()
    requests.pause(True)
    steered = painter.steered()
    asked: list[int] = []

    def signaled() -> int | None:
        asked.append(1)
        return 15 if len(asked) > 6 else None

    result = steered.run(lambda _: None, signaled, requests=requests)
    assert result.interrupted
    assert 1 <= len(result.history) <= 3


def test_a_change_after_the_end_is_refused_before_anything_is_painted(painter: Painter) -> None:
    with pytest.raises(SettingsError, match=r"'13 tv_weight=1\.0' comes too late: the run has 12 iterations"):
        painter.steered(changes=("13 tv_weight=1",))
    painter.steered(changes=("12 size=60", "13 tv_weight=1"))
    with pytest.raises(SettingsError, match="at most twice"):
        painter.steered(changes=("12 size=97",))


@pytest.mark.parametrize("optimizer", ["lbfgs", "descent"])
def test_optimizers_that_measure_their_steps(tmp_path: Path, thin: Callable[..., Weights], optimizer: str) -> None:
    painter = Painter(tmp_path, "cpu", thin(((8,), (8,))))
    live, options = painter.run({3: wish(style_weight=9000.0), 8: wish(colors="match")}, optimizer=optimizer)
    repeated, _ = painter.run(changes=options.changes, optimizer=optimizer, keep=True)
    assert same(repeated, live)
    resumed, _ = painter.run(resume=painter.states[4], changes=options.changes, optimizer=optimizer)
    assert same(resumed, live)
    assert live.history[-1].total < live.history[3].total


def test_what_is_held_fixed_and_when_it_is_settled(tmp_path: Path, thin: Callable[..., Weights]) -> None:
    """Matches of `neighbors` outlive a weight; a scale is not settled because its cost has become another one."""
    painter = Painter(tmp_path, "cpu", thin(((8,), (8,))))
    settings: dict[str, Any] = {
        "statistics": "gram+neighbors",
        "iterations": "36",
        "settled_fall": 0.05,
        "stop_when_settled": True,
    }
    live, options = painter.run({5: wish(style_weight=1e5), 30: wish(statistics="neighbors")}, **settings)
    repeated, _ = painter.run(changes=options.changes, keep=True, **settings)
    assert same(repeated, live)
    for at in (4, 6, 31):
        resumed, _ = painter.run(resume=painter.states[at], changes=options.changes, **settings)
        assert same(resumed, live)
        assert [scale.iterations for scale in resumed.scales] == [scale.iterations for scale in live.scales]
    assert live.scales[0].iterations > 5 + 25


def test_layers_that_are_too_deep_for_this_scale_wait(tmp_path: Path, thin: Callable[..., Weights]) -> None:
    painter = Painter(tmp_path, "cpu", thin(((8,), (8,), (8,), (8,), (8,))))
    asked = {2: wish(style_layers=["relu5_1"]), 8: wish(style_layers=["relu1_1", "relu5_1"])}
    _, options = painter.run(asked, style_layers=("relu1_1",), content_layers=("relu1_1",), min_size=16)
    assert painter.told.events[0][0] == "refused"
    assert "is too small for these layers; change it from the scale of" in painter.told.events[0][2]
    assert len(options.changes) == 1


def test_masks_outgrow_the_picture_with_it(tmp_path: Path, thin: Callable[..., Weights]) -> None:
    painter = Painter(tmp_path, "cpu", thin(((8,), (8,))))
    mask = np.tile(np.linspace(-1, 2, 48).clip(0, 1), (36, 1))
    images.save(tmp_path / "mask.png", np.repeat(mask[..., None], 3, axis=2))
    result, _ = painter.run(changes=("3 size=68",), content_mask=str(tmp_path / "mask.png"), mask_feather=2)
    assert result.image.shape == (51, 68, 3)
    enlarged = painter.steered(content_mask=str(tmp_path / "mask.png")).stage.transfer.initial_image(size=(51, 68))
    np.testing.assert_array_equal(result.image[:, -8:], enlarged[:, -8:])
