"""The style statistics `neighbors`: their cost by hand, their gradient, in tiles and masks, and what a run keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.statistics import sampling
from nstgpu.engine.costs.statistics.base import TapShape
from nstgpu.engine.costs.statistics.tuning import Tuning
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.style import Style
from nstgpu.engine.transfer import Result, StyleTransfer
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.open import open_device
from nstgpu.kernels.reference import Reference
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps
Thin = Callable[..., Weights]
LEFT = np.repeat([[1.0] * 20 + [0.0] * 20], 32, axis=0)
PICTURES = np.random.default_rng(0).random((3, 32, 40, 3))
TWO = [Style(PICTURES[1, :30, :36], weight=2.0), PICTURES[2, ::-1]]
MASKED = [Style(PICTURES[1], mask=LEFT, region=LEFT[:, ::-1]), Style(PICTURES[2], mask=1 - LEFT)]


def made(thin: Thin, statistics: str = "neighbors", **settings: Any) -> StyleTransfer:
    style = settings.pop("style", PICTURES[1])
    settings = {"device": "reference", "pooling": "average", **settings}
    return StyleTransfer(PICTURES[0], style, weights=thin(), style_statistics=statistics, **settings)


def measured(transfer: StyleTransfer, image: Any) -> float:
    """J with what is held fixed as it is."""
    objective = transfer.objective()
    transfer.device.upload(image, objective.image)
    return objective.evaluate(objective.image, objective.gradient).total


def test_the_cost_is_the_mean_distance_to_the_nearest(thin: Thin) -> None:
    transfer = made(thin, style_layers={"relu1_1": 1.0}, content_layers={}, style_weight=1.0, tv_weight=0.0)
    image = PICTURES[2]
    network = transfer.objective().network
    features = []
    for pixels in (image, PICTURES[1]):
        features.append(activations(transfer, network, pixels))
    ours, theirs = (f.reshape(-1, f.shape[2]) - f.reshape(-1, f.shape[2]).mean(axis=0) for f in features)
    ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours, theirs))
    expected = np.mean(1 - (ours @ theirs.T).max(axis=1))
    assert transfer.cost_and_gradient(image)[0].style == pytest.approx(expected, rel=1e-12)


def activations(transfer: StyleTransfer, network: Any, pixels: Any) -> Any:
    from nstgpu.engine.model.network import down_to, forward, reserve

    first = down_to(network, ["relu1_1"])
    buffers = reserve(transfer.device, first, pixels.shape[:2], ["relu1_1"], backward=False)
    forward(transfer.device, first, buffers, pixels)
    return np.array(buffers.layers[0].output)


@pytest.mark.parametrize("statistics", ["neighbors", "gram=1,neighbors=2"])
@pytest.mark.parametrize("style", [TWO, MASKED], ids=["two styles", "masks"])
def test_the_gradient_is_that_of_the_cost(thin: Thin, statistics: str, style: Any) -> None:
    """With mean and matches held fixed, as they are from one iteration to the next."""
    transfer = made(thin, statistics, style=style)
    image = transfer.initial_image("noise").astype(np.float64)
    gradient = transfer.cost_and_gradient(image)[1]
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=image.shape)
        ahead, behind = (measured(transfer, image + step * direction) for step in (1e-6, -1e-6))
        assert (ahead - behind) / 2e-6 == pytest.approx(float(np.sum(gradient * direction)), rel=1e-6)


@pytest.mark.parametrize("style", [TWO, MASKED], ids=["two styles", "masks"])
@pytest.mark.parametrize("tile", [8, 16, 32])
def test_tiles_are_exact(thin: Thin, style: Any, tile: int) -> None:
    whole, tiled = made(thin, style=style), made(thin, style=style, tile=tile)
    image = whole.initial_image("noise")
    (costs, gradient), (in_tiles, theirs) = (each.cost_and_gradient(image) for each in (whole, tiled))
    assert in_tiles.total == pytest.approx(costs.total, rel=1e-12)
    np.testing.assert_allclose(theirs, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    for name, values in whole.objective().held().items():
        np.testing.assert_allclose(tiled.objective().held()[name], values, rtol=1e-12)


def test_a_masked_region_knows_only_its_own_style(thin: Thin) -> None:
    """What a picture has elsewhere is neither asked for nor matched."""
    style, other = PICTURES[1], PICTURES[1].copy()
    other[:, 24:] = PICTURES[2, :, 24:]
    layers: dict[str, Any] = {"style_layers": {"relu1_1": 1.0}}
    near, same = (
        made(thin, style=[Style(picture, mask=LEFT, region=LEFT)], **layers).cost_and_gradient(style)[0].style
        for picture in (style, other)
    )
    far = made(thin, style=[Style(style, mask=LEFT, region=LEFT)], **layers).cost_and_gradient(PICTURES[2])[0].style
    assert near == pytest.approx(same, rel=1e-12)
    assert near < far / 10


# ---- styles that are turned ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_turned_styles_join_the_candidates(thin: Thin, turns: int) -> None:
    """Of all ways up together: the mean, and what is nearest."""
    alone: dict[str, Any] = {"style_layers": {"relu1_1": 1.0}, "content_layers": {}}
    transfer = made(thin, **alone, style_weight=1.0, tv_weight=0.0, tuning=Tuning(turns=turns))
    network, image = transfer.objective().network, PICTURES[2]
    ways = [np.ascontiguousarray(np.rot90(PICTURES[1], turn)) for turn in ((0,), (0, 2), (0, 1, 2, 3))[turns // 2]]
    ours = activations(transfer, network, image).reshape(32 * 40, -1)
    theirs = np.concatenate([activations(transfer, network, way).reshape(32 * 40, -1) for way in ways])
    ours, theirs = (each - each.mean(axis=0) for each in (ours, theirs))
    ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours, theirs))
    expected = np.mean(1 - (ours @ theirs.T).max(axis=1))
    assert transfer.cost_and_gradient(image)[0].style == pytest.approx(expected, rel=1e-12)


def test_regions_are_turned_along(thin: Thin) -> None:
    """What the style's picture has beside its region is matched in no way up."""
    style, other = PICTURES[1], PICTURES[1].copy()
    other[:, 24:] = PICTURES[2, :, 24:]
    settings: dict[str, Any] = {"style_layers": {"relu1_1": 1.0}, "tuning": Tuning(turns=4)}
    near, same = (
        made(thin, style=Style(picture, region=LEFT), **settings).cost_and_gradient(PICTURES[0])[0].style
        for picture in (style, other)
    )
    whole = made(thin, style=Style(other), **settings).cost_and_gradient(PICTURES[0])[0].style
    assert near == pytest.approx(same, rel=1e-12)
    assert whole != pytest.approx(same, rel=1e-3)


@pytest.mark.parametrize("style", [TWO, MASKED], ids=["two styles", "masks"])
@pytest.mark.parametrize("device", ["cpu", "emulator"])
@pytest.mark.parametrize("tile", ["off", 16])
def test_turned_styles_are_the_same_on_every_device_and_in_tiles(
    thin: Thin, style: Any, device: str, tile: Any
) -> None:
    try:
        opened = open_device(device, "fp32")
    except DeviceError as problem:
        pytest.skip(str(problem))
    settings: dict[str, Any] = {"style": style, "tuning": Tuning(turns=4), "border": 1}
    image = PICTURES[2]
    costs, gradient = made(thin, **settings).cost_and_gradient(image)
    ours, theirs = made(thin, **settings, device=opened, tile=tile).cost_and_gradient(image.astype(np.float32))
    assert ours.total == pytest.approx(costs.total, rel=1e-5)
    error = np.linalg.norm(theirs - gradient) / np.linalg.norm(gradient)
    assert error < 1e-3  # a match that is a tie may be another


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"statistics": "gram", "turns": 4}, "turns is for the style statistics neighbors; add neighbors to gram"),
        ({"statistics": "gram+sliced", "match_every": 3}, "match_every is for the style statistics neighbors; add"),
        ({"statistics": "neighbors", "directions": 3}, "directions is for the style statistics sliced; add sliced"),
        ({"statistics": "neighbors", "turns": 3}, "turns is 3; it must be 1, 2 or 4"),
        ({"statistics": "neighbors", "match_every": 0}, "match_every is 0 iterations; it must be 1 to 1000000"),
        ({"statistics": "sliced", "directions": 257}, "directions is 257; it must be 1 to 256"),
    ],
)
def test_what_is_set_wrongly_is_refused(thin: Thin, settings: dict[str, Any], problem: str) -> None:
    statistics = settings.pop("statistics")
    with pytest.raises(SettingsError, match=problem) as error:
        made(thin, statistics, tuning=Tuning(**settings))
    assert "\n" not in str(error.value)


def test_a_run_knows_what_is_set_of_it(thin: Thin) -> None:
    """States of one run are not gone on with in another; by default they are those of earlier versions."""
    prints = [
        transfer.fingerprint(transfer.method(3))
        for transfer in (made(thin, tuning=tuning) for tuning in (Tuning(), Tuning(turns=2), Tuning(match_every=7)))
    ]
    assert len(set(prints)) == 3
    assert prints[0] == made(thin).fingerprint(made(thin).method(3))
    told = made(thin, "gram+neighbors", tuning=Tuning(turns=2)).run(1, scales=1).recipe
    assert (told["match every"], told["turns"]) == ("25", "2")
    assert "directions" not in told


# ---- a run ----------------------------------------------------------------------------------------------------------
OFTEN = Tuning(match_every=3)


@pytest.mark.parametrize(("optimizer", "tile"), [("adam", "off"), ("lbfgs", "off"), ("descent", 16)])
def test_a_run_resumes_to_the_same_bytes(thin: Thin, tmp_path: Path, optimizer: str, tile: Any) -> None:
    """Between renewals and at one, through a checkpoint's file."""
    states: list[RunState] = []

    def keep(progress: Progress) -> None:
        if progress.iteration in (2, 3, 9):
            checkpoint.write(tmp_path / "state.h5", progress.state())
            states.append(checkpoint.read(tmp_path / "state.h5")[0])

    def run(**settings: Any) -> Result:
        painter = made(
            thin, "gram+neighbors", style=TWO, device="cpu", threads=1, tile=tile, tuning=Tuning(match_every=3, turns=4)
        )
        return painter.run([5, 6], scales=2, min_size=20, optimizer=optimizer, **settings)

    whole = run(on_iteration=keep)
    assert [state.scale for state in states] == [0, 0, 1][: len(states)]
    for state in states:
        assert state.held
        resumed = run(resume=state)
        assert resumed.image.tobytes() == whole.image.tobytes()
        assert resumed.history == whole.history
    assert run().image.tobytes() == whole.image.tobytes()


def test_what_no_run_can_have_held_is_refused(thin: Thin) -> None:
    states: list[RunState] = []
    made(thin, tuning=OFTEN).run(2, scales=1, on_iteration=lambda progress: states.append(progress.state()))
    held = dict(states[0].held)
    name = next(name for name in held if name.endswith("matches"))
    wrong: list[dict[str, Any]] = [
        {}, {**held, name: held[name][1:]}, {**held, name: held[name].astype(np.int64)},
        {**held, name: held[name] - 2000}, {**held, name: held[name] + 100_000},
    ]  # fmt: skip
    for given in wrong:
        state = RunState(**{**vars(states[0]), "held": given})
        with pytest.raises(SettingsError, match="the state to resume has no neighbors for relu1_1, or another's"):
            made(thin, tuning=OFTEN).run(2, scales=1, resume=state)


def test_matches_are_renewed_when_they_are_due(thin: Thin, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[Any] = []
    search = Reference.nearest_neighbors

    def counted(device: Reference, *given: Any) -> None:
        searches.append(given)
        search(device, *given)

    monkeypatch.setattr(Reference, "nearest_neighbors", counted)
    for every, optimizer, iterations, times in ((4, "adam", 9, 3), (1, "adam", 4, 4), (4, "lbfgs", 30, 2)):
        searches.clear()
        transfer = made(thin, style_layers=["relu1_1"], tuning=Tuning(match_every=every))
        transfer.run(iterations, scales=1, optimizer=optimizer)
        assert len(searches) == times


@pytest.mark.parametrize("style", [TWO, MASKED], ids=["two styles", "masks"])
def test_several_devices_paint_what_one_does(thin: Thin, style: Any) -> None:
    states: list[RunState] = []
    settings = {"style": style, "threads": 1, "tile": 16, "tuning": Tuning(match_every=3, turns=4)}
    alone, together = (made(thin, "gram+neighbors", device=each, **settings) for each in ("cpu", "cpu:0,1,2"))
    ours = alone.run(5, scales=1)
    theirs = together.run(5, scales=1, on_iteration=lambda progress: states.append(progress.state()))
    assert theirs.image.tobytes() == ours.image.tobytes()
    assert theirs.history == ours.history
    again = made(thin, "gram+neighbors", device="cpu:0,1,2", **settings).run(5, scales=1, resume=states[1])
    assert again.image.tobytes() == ours.image.tobytes()


# ---- which of the style's pixels -----------------------------------------------------------------------------------
def test_a_sample_is_spread_evenly_and_as_the_mask_says() -> None:
    device, shape = Reference(), TapShape(30, 50, 4)
    every = sampling.sampled(device, shape, None, 1500)
    assert (every.rows * 50 + every.columns).tolist() == list(range(1500))
    some = sampling.sampled(device, shape, None, 300)
    places = some.rows * 50 + some.columns
    assert len(set(places)) == 300
    assert np.histogram(places, 30, (0, 1500))[0].tolist() == [10] * 30
    assert len(set(some.columns)) > 40
    mask = np.zeros((30, 50), np.float32)
    mask[:, 10:20], mask[:, 30:40] = 1.0, 3.0
    masked = sampling.sampled(device, shape, mask, 400)
    left, right = ((masked.columns >= at) & (masked.columns < at + 10) for at in (10, 30))
    assert (left.sum(), right.sum()) == (pytest.approx(100, abs=15), pytest.approx(300, abs=15))
    assert left.sum() + right.sum() == 400
