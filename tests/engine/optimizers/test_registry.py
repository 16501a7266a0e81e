"""Adding an optimizer is one module and one line: this file is the module, and a fixture adds the line."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.analysis.plan import of_weights
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers import checkpoint, registry
from nstgpu.engine.optimizers.base import Evaluate, OptimizerSpec
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels import open_device
from nstgpu.kernels.device import Array, Device
from nstgpu.kernels.errors import DeviceError
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


class RmsProp:
    """RMSProp (Hinton 2012) in host memory."""

    stalled = False

    def __init__(self, device: Device, shape: tuple[int, ...], learning_rate: float | None) -> None:
        self.device, self.learning_rate = device, 0.01 if learning_rate is None else learning_rate
        self._mean_square = np.zeros(shape, device.image_dtype)

    def step(self, evaluate: Evaluate, image: Array, gradient: Array, costs: object) -> None:  # noqa: ARG002
        g = self.device.download(gradient)
        self._mean_square = 0.9 * self._mean_square + 0.1 * g**2
        moved = self.device.download(image) - self.learning_rate * g / (np.sqrt(self._mean_square) + 1e-8)
        self.device.upload(np.clip(moved, 0, 1), image)

    def reset(self) -> None:
        self._mean_square[:] = 0

    def state(self) -> dict[str, np.ndarray]:
        return {"mean_square": self._mean_square.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        if state["mean_square"].shape != self._mean_square.shape:
            raise ValueError(state["mean_square"].shape)
        self._mean_square = state["mean_square"].astype(self._mean_square.dtype)

    def rescaled_to(self, shape: tuple[int, ...]) -> "RmsProp":
        return RmsProp(self.device, shape, self.learning_rate)


SPEC = OptimizerSpec(RmsProp, state_images=1, state_names=frozenset({"mean_square"}), averaged=True, learning_rate=0.01)


@pytest.fixture
def rmsprop(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry.OPTIMIZERS, "rmsprop", __name__)
    return "rmsprop"


def made(thin: Callable[..., Weights], **settings: Any) -> StyleTransfer:
    rng = np.random.default_rng(0)
    content, style = rng.random((32, 40, 3)).astype(np.float32), rng.random((30, 36, 3)).astype(np.float32)
    return StyleTransfer(content, style, weights=thin(), **{"device": "cpu", "threads": 1, **settings})


def test_it_runs_is_kept_and_goes_on_to_the_same_bytes(
    thin: Callable[..., Weights], tmp_path: Path, rmsprop: str
) -> None:
    states: dict[int, RunState] = {}

    def keep(progress: Progress) -> None:
        states[progress.iteration] = progress.state()

    whole = made(thin).run(6, optimizer=rmsprop, min_size=24, on_iteration=keep)
    assert len(whole.scales) == 2
    assert whole.history[5].total < whole.history[0].total
    assert whole.recipe["optimizer"] == "rmsprop, learning rate 0.01"
    for at in (2, 6, 8):
        checkpoint.write(tmp_path / "state.h5", states[at])
        state, _ = checkpoint.read(tmp_path / "state.h5")
        assert set(state.optimizer) == SPEC.state_names
        again = made(thin).run(6, optimizer=rmsprop, min_size=24, resume=state)
        assert again.image.tobytes() == whole.image.tobytes()
        assert again.history == whole.history


def test_it_is_averaged_as_it_says(thin: Callable[..., Weights], rmsprop: str) -> None:
    transfer = made(thin)
    assert transfer.method(100, optimizer=rmsprop).decay(100) == transfer.method(100).decay(100) == 0.9
    assert transfer.method(100, optimizer="descent").decay(100) == 0


def test_where_iterations_are_graphs_it_goes_one_by_one(thin: Callable[..., Weights], rmsprop: str) -> None:
    try:
        device = open_device("emulator", "fp32")
    except DeviceError as error:
        pytest.skip(str(error))
    assert device.stream is not None
    on_emulator = made(thin, device=device, threads=None).run(2, optimizer=rmsprop, scales=1)
    on_cpu = made(thin).run(2, optimizer=rmsprop, scales=1)
    np.testing.assert_allclose(on_emulator.history[1].total, on_cpu.history[1].total, rtol=1e-3)


def test_its_memory_is_in_the_plan(thin: Callable[..., Weights], rmsprop: str) -> None:
    device, weights = open_device("reference"), thin()
    forecasts = [
        of_weights(device, weights, ("relu2_1",), ("relu1_1",), optimizer=name).forecast((64, 64))
        for name in (rmsprop, "adam", "descent")
    ]
    assert [forecast.optimizer for forecast in forecasts] == [3 * 64 * 64 * 8 * images for images in (1, 2, 0)]


def test_a_state_of_another_optimizer_is_refused(thin: Callable[..., Weights], rmsprop: str) -> None:
    states: list[RunState] = []
    made(thin).run(2, optimizer=rmsprop, scales=1, on_iteration=lambda progress: states.append(progress.state()))
    state = replace(states[0], optimizer={"first": np.zeros((32, 40, 3))})
    with pytest.raises(SettingsError, match=r"does not fit this run .*mean_square"):
        made(thin).run(2, optimizer=rmsprop, scales=1, resume=state)


def test_the_command_line_knows_what_is_registered(rmsprop: str) -> None:
    assert registry.choices() == "adam, lbfgs, descent or rmsprop"
    registry.check(rmsprop, 0.1)
    with pytest.raises(SettingsError, match=r"unknown optimizer 'nadam'; choose one of adam, lbfgs, descent, rmsprop$"):
        registry.check("nadam", None)


@pytest.mark.parametrize("name", sorted(registry.OPTIMIZERS))
def test_every_optimizer_keeps_what_it_names(name: str) -> None:
    rule = registry.make(open_device("reference"), name, (8, 8, 3), None)
    assert set(rule.state()) == registry.spec(name).state_names
