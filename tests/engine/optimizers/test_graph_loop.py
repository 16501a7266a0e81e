"""Iterations captured as one graph: the same bytes as one by one, in every situation a run can get into."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.statistics.tuning import Tuning
from nstgpu.engine.errors import NonFiniteCostError
from nstgpu.engine.optimizers import graph_loop as captured
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.optimizers.settling import Settled
from nstgpu.engine.transfer import Result, StyleTransfer
from nstgpu.kernels import open_device
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.errors import DeviceError
from nstgpu.weights import Weights

Make = Callable[..., StyleTransfer]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def make(request: pytest.FixtureRequest, thin: Callable[..., Weights]) -> Make:
    """make(...) is a painter with these settings, on a device that captures."""
    if request.param == "cuda" and (problem := cuda_problem()):
        pytest.skip(problem)
    try:
        device = open_device(request.param, "fp32")
    except DeviceError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    content, style = rng.random((20, 24, 3)).astype(np.float32), rng.random((22, 18, 3))
    weights = thin(((8,), (8,)))
    return lambda **settings: StyleTransfer(content, style, weights=weights, device=device, **settings)


def one_by_one(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Result]) -> Result:
    with monkeypatch.context() as patched:
        patched.setattr(CudaDevice, "stream", None)
        return run()


def assert_equal(ours: Result, theirs: Result) -> None:
    assert ours.image.tobytes() == theirs.image.tobytes()
    assert ours.history == theirs.history


def often(statistics: str) -> Tuning:
    """Matches, where there are any, are renewed every three iterations; and few rows are sorted, which takes the
    emulator long."""
    usual = Tuning()
    return Tuning(
        match_every=3 if "neighbors" in statistics else usual.match_every,
        directions=8 if "sliced" in statistics else usual.directions,
    )


MASK = np.tile(np.linspace(-0.5, 1, 24).clip(0, 1), (20, 1))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tile": 16},
        {"border": 2},
        {"style_statistics": "w2"},
        {"style_statistics": "gram+neighbors"},
        {"style_statistics": "neighbors+sliced"},
        {"content_mask": MASK},
    ],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_a_graph_computes_what_its_launches_do(
    make: Make, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    settings = {"tuning": often(settings.get("style_statistics", "gram")), **settings}

    def run() -> Result:
        return make(**settings).run([5, 7], scales=2, min_size=12)

    assert_equal(run(), one_by_one(monkeypatch, run))


def test_an_iteration_is_asked_for_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten iterations only the first is launched kernel by kernel, and captured."""
    transfer = make()
    asked: list[Launch] = []
    captures: list[object] = []
    stream = transfer.device.stream
    assert stream is not None
    capture = stream.capture
    transfer.device.on_launch = asked.append  # type: ignore[attr-defined]

    def counted(work: Callable[[], object]) -> Callable[[], None]:
        captures.append(work)
        return capture(work)

    monkeypatch.setattr(stream, "capture", counted)
    transfer.run(10, scales=1)
    names = [launch.kernel for launch in asked]
    assert len(captures) == 1
    assert names.count("adam_iteration") == names.count("record_costs") == 2


def test_the_host_is_told_of_every_iteration_in_order(make: Make) -> None:
    seen: list[Progress] = []
    result = make().run(9, scales=1, on_iteration=seen.append)
    assert [progress.iteration for progress in seen] == list(range(1, 10))
    assert [progress.costs for progress in seen] == result.history


def test_stopping_completes_what_is_under_way(make: Make) -> None:
    whole = make().run(12, scales=1)
    seen: list[Progress] = []

    def until_four(progress: Progress) -> bool:
        seen.append(progress)
        return progress.iteration < 4

    result = make().run(12, scales=1, on_iteration=until_four)
    assert [progress.costs for progress in seen] == result.history  # told of all that was done, once
    assert list(seen[-1].state().history) == result.history
    assert result.interrupted
    assert 4 <= len(result.history) < 4 + captured.AHEAD
    assert result.history == whole.history[: len(result.history)]
    again = make().run(len(result.history), scales=1, average=0.0)
    assert again.history == result.history


def test_a_state_taken_on_the_way_resumes_to_the_same_bytes(make: Make) -> None:
    states: list[RunState] = []

    def keep(progress: Progress) -> None:
        if progress.iteration in (4, 9):
            states.append(progress.state())

    whole = make().run([6, 6], scales=2, min_size=12, on_iteration=keep)
    assert [state.scale for state in states] == [0, 1]
    for state in states:
        assert state.iteration + 6 * state.scale == len(state.history)
        assert_equal(make().run([6, 6], scales=2, min_size=12, resume=state), whole)


@pytest.mark.parametrize("states", [False, True])
def test_a_settled_scale_ends_where_it_does_one_by_one(
    make: Make, monkeypatch: pytest.MonkeyPatch, states: bool
) -> None:
    """Whatever is under way when its costs are seen, and whether or not somebody waited for it on the way."""

    def run() -> Result:
        transfer = make()
        return transfer.run(
            30, scales=2, min_size=12, settled=Settled(0.3, 2),
            on_iteration=(lambda progress: bool(progress.state())) if states else None,
        )  # fmt: skip

    ours = run()
    assert [scale.iterations < 30 for scale in ours.scales] == [True, True]
    assert_equal(ours, one_by_one(monkeypatch, run))


def test_a_snapshot_is_of_its_moment(make: Make) -> None:
    later: list[Callable[[], Any]] = []
    seen: list[Any] = []

    def take(progress: Progress) -> None:
        later.append(progress.snapshot())
        seen.append(progress.image())

    result = make(colors="content-luminance").run(5, scales=1, on_iteration=take)
    for wait, image in zip(later, seen, strict=True):
        np.testing.assert_array_equal(wait(), image)
    np.testing.assert_array_equal(later[-1](), result.image)


@pytest.mark.parametrize(("at", "statistics"), [(2, "gram"), (5, "gram"), (6, "gram"), (6, "neighbors+sliced")])
def test_a_cost_that_is_not_finite_takes_a_step_back(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: int, statistics: str
) -> None:
    """Once, at the given evaluation: the cost is NaN on the device, the way it would come from a kernel."""
    if make().device.name != "emulator":
        pytest.skip("the gradient is spoilt through the emulator's memory")

    def run() -> Result:
        transfer = make(style_statistics=statistics, tuning=often(statistics))
        evaluations: list[None] = []
        launch = transfer.device._runtime.launch  # type: ignore[attr-defined]

        def spoil(each: Launch) -> None:
            launch(each)
            if transfer.device._runtime._captured is None and each.kernel == "image_gradient":  # type: ignore[attr-defined]
                evaluations.append(None)
                if len(evaluations) == at:
                    square = each.args[16]
                    square[...] = np.nan  # type: ignore[index]

        monkeypatch.setattr(transfer.device._runtime, "launch", spoil)  # type: ignore[attr-defined]
        return transfer.run(8, scales=1)

    ours = run()
    assert "back to the last good image" in caplog.text
    assert len(ours.history) == 8
    assert_equal(ours, one_by_one(monkeypatch, run))


def test_costs_that_stay_infinite_end_the_run(make: Make) -> None:
    with pytest.raises(NonFiniteCostError, match="iteration 1"):
        make(content_weight=1e38, style_weight=1e38).run(5, scales=1)


def test_nothing_moves_between_host_and_device_in_a_graph() -> None:
    device = open_device("emulator")
    held = device.allocate(64).view(np.float32)
    with pytest.raises(DeviceError, match="nothing can be downloaded while a graph is captured"):
        device.stream.capture(lambda: device.download(held))  # type: ignore[union-attr]
    device.download(held)
