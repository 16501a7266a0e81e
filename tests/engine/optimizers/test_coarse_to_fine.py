"""Runs from coarse to fine: what is carried from scale to scale, averaged, kept, interrupted and resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.pictures import waves
from nstgpu.engine.costs.terms import Costs
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging import masks
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.optimizers.adam import Adam
from nstgpu.engine.optimizers.coarse_to_fine import Progress, RunState
from nstgpu.engine.optimizers.gradient_descent import GradientDescent
from nstgpu.engine.optimizers.loop import OptimizationLoop
from nstgpu.engine.transfer import Style, StyleTransfer
from nstgpu.kernels import open_device
from nstgpu.weights import Weights

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


def make(thin: Thin, **settings: Any) -> StyleTransfer:
    return StyleTransfer(waves(0, 48, 64), waves(1, 40, 50), weights=thin(), device="cpu", threads=1, **settings)


def test_scales_grow_and_costs_fall(thin: Thin) -> None:
    seen: list[Progress] = []
    result = make(thin).run([6, 5, 4], min_size=32, on_iteration=seen.append)
    assert [(done.size, done.iterations) for done in result.scales] == [((24, 32), 6), ((34, 45), 5), ((48, 64), 4)]
    assert result.image.shape == (48, 64, 3)
    assert not result.interrupted
    assert len(result.history) == len(seen) == 15
    assert [progress.scale for progress in seen] == [1] * 6 + [2] * 5 + [3] * 4
    assert [progress.iteration for progress in seen] == list(range(1, 16))
    assert {progress.iterations for progress in seen} == {15}
    assert result.history[14].total < result.history[11].total < result.history[0].total
    assert seen[-1].remaining == 0
    assert all(progress.remaining > 0 for progress in seen[:-1])
    assert seen[0].image().shape == (24, 32, 3)


def test_a_coarse_start_pays(thin: Thin) -> None:
    """With as many iterations at full size, from noise as from nowhere."""
    coarse = make(thin).run([30, 30, 15], min_size=32, init="noise")
    fine = make(thin).run(15, scales=1, init="noise")
    assert coarse.history[-1].total < 0.7 * fine.history[-1].total


def test_moments_are_carried_in_the_units_of_the_larger_image() -> None:
    device = open_device("reference")
    adam = Adam(device, (8, 8, 3), None)
    image, gradient = (np.full((8, 8, 3), value) for value in (0.5, 0.25))
    for _ in range(3):
        adam.step(lambda *_: None, image, gradient, None)  # type: ignore[arg-type]
    before, after = adam.state(), adam.rescaled_to((16, 16, 3)).state()
    assert after["step"] == before["step"] == 3
    np.testing.assert_allclose(after["first"], before["first"].mean() / 4, rtol=1e-12)
    np.testing.assert_allclose(after["second"], before["second"].mean() / 16, rtol=1e-12)


def test_the_average_is_of_the_iterates_without_bias() -> None:
    """Against the definition: weights decay^(n - t), normalised to sum to one."""
    device, decay = open_device("reference"), 0.7
    iterates: list[np.ndarray] = []

    class Walk(GradientDescent):
        def step(self, evaluate: Any, image: Any, gradient: Any, costs: Any) -> None:  # noqa: ARG002
            image += 0.1 * np.random.default_rng(len(iterates)).standard_normal(image.shape)
            iterates.append(image.copy())

    image, average = np.full((4, 5, 3), 0.5), np.zeros((4, 5, 3))
    loop = OptimizationLoop(device, Walk(device, image.shape, 1.0), image, average, decay)
    costs = Costs(1.0, 1.0, 1.0, 1.0)
    for _ in loop.iterate(lambda *_: costs, np.zeros((4, 5, 3)), 6, np.zeros((4, 5, 3))):
        pass
    weights = decay ** np.arange(5, -1, -1.0)
    np.testing.assert_allclose(average, np.tensordot(weights / weights.sum(), iterates, 1), rtol=1e-12)


def test_no_average_keeps_the_last_iterate(thin: Thin) -> None:
    states: list[RunState] = []
    result = make(thin).run(5, average=0.0, on_iteration=lambda progress: states.append(progress.state()))
    np.testing.assert_array_equal(result.image, states[-1].image)


def test_a_stop_at_a_coarse_scale_still_gives_the_whole_picture(thin: Thin) -> None:
    result = make(thin).run(5, min_size=32, on_iteration=lambda progress: progress.iteration < 7)
    assert result.interrupted
    assert result.image.shape == (48, 64, 3)
    assert [(done.size, done.iterations) for done in result.scales] == [((24, 32), 5), ((34, 45), 2)]


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "descent"])
@pytest.mark.parametrize("at", [1, 4, 5, 7, 12])
def test_a_resumed_run_ends_in_the_same_bytes(thin: Thin, tmp_path: Path, optimizer: str, at: int) -> None:
    states: dict[int, RunState] = {}

    def keep(progress: Progress) -> None:
        states[progress.iteration] = progress.state()

    settings: dict[str, Any] = {"iterations": [5, 4, 4], "min_size": 32, "optimizer": optimizer, "init": "noise"}
    whole = make(thin).run(**settings, on_iteration=keep)
    checkpoint.write(tmp_path / "state.h5", states[at], "options = 1")
    state, options = checkpoint.read(tmp_path / "state.h5")
    assert options == "options = 1"
    resumed = make(thin).run(**settings, resume=state)
    assert resumed.image.tobytes() == whole.image.tobytes()
    assert resumed.history == whole.history
    assert [(done.size, done.iterations) for done in resumed.scales] == [
        (done.size, done.iterations) for done in whole.scales
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "state.h5"]


def test_a_masked_run_is_resumed_to_the_same_bytes(thin: Thin, tmp_path: Path) -> None:
    mask = np.tile(np.linspace(-1, 1, 64, dtype=np.float32).clip(0, 1), (48, 1))
    style = Style(waves(1, 40, 50), mask=mask)

    def masked(feather: int = 5) -> StyleTransfer:
        return StyleTransfer(waves(0, 48, 64), style, weights=thin(), device="cpu", threads=1, mask_feather=feather)

    def keep(progress: Progress) -> None:
        if progress.iteration == 6:
            checkpoint.write(tmp_path / "state.h5", progress.state(), "")

    whole = masked().run(4, min_size=32, init="noise", on_iteration=keep)
    state, _ = checkpoint.read(tmp_path / "state.h5")
    assert masked().run(4, min_size=32, init="noise", resume=state).image.tobytes() == whole.image.tobytes()
    assert whole.recipe["mask feather"] == "5 px"
    with pytest.raises(SettingsError, match="other pictures, weights or settings"):
        masked(4).run(4, min_size=32, init="noise", resume=state)


def test_a_state_of_other_settings_is_refused(thin: Thin) -> None:
    states: list[RunState] = []
    make(thin).run(2, on_iteration=lambda progress: states.append(progress.state()))
    with pytest.raises(SettingsError, match="other pictures, weights or settings"):
        make(thin).run(3, resume=states[0])
    with pytest.raises(SettingsError, match="other pictures, weights or settings"):
        make(thin, content_weight=2.0).run(2, resume=states[0])


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(SettingsError, match=r"text\.h5 is no checkpoint"):
        checkpoint.read(tmp_path / "text.h5")


def test_what_the_content_mask_keeps_stays_to_the_last_bit(thin: Thin) -> None:
    mask = np.zeros((48, 64), np.float32)
    mask[10:40, 5:30] = 1
    result = make(thin, content_mask=mask).run(8, min_size=32, init="noise")
    content = waves(0, 48, 64)
    np.testing.assert_array_equal(result.image[10:40, 5:30], content[10:40, 5:30])
    assert np.abs(result.image[:, 32:] - content[:, 32:]).mean() > 0.05


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("settings", [{"init": "noise"}, {"colors": "content-luminance"}, {"border": 3}], ids=str)
def test_what_no_style_wants_stays_to_the_last_bit(thin: Thin, settings: dict[str, Any], optimizer: str) -> None:
    mask = np.zeros((48, 64), np.float32)
    mask[10:40, 5:30] = 1
    settings = dict(settings)
    run = {"init": settings.pop("init", "content"), "optimizer": optimizer}
    content, style = waves(0, 48, 64), Style(waves(1, 40, 50), mask=mask)
    seen: list[np.ndarray] = []
    transfer = StyleTransfer(content, style, weights=thin(), device="cpu", threads=1, mask_feather=4, **settings)
    result = transfer.run(6, min_size=32, on_iteration=lambda progress: seen.append(progress.image()), **run)
    outside = np.pad(mask, 4)
    outside = 1 - np.max([np.roll(outside, (y, x), (0, 1)) for y in range(-4, 5) for x in range(-4, 5)], axis=0)
    outside = outside[4:-4, 4:-4] > 0
    for image in (result.image, seen[-1]):
        np.testing.assert_array_equal(image[outside], content[outside])
    assert np.abs(result.image - content)[15:35, 10:25].mean() > 0.01


def carry(thin: Thin, mask: np.ndarray, feather: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The next scale's content and mask, and black and white specks of a scale as it takes them on, with and without.

    Without a mask, that is.
    """
    content, specks = waves(0, 48, 64), np.random.default_rng(5).integers(0, 2, (24, 32, 3)).astype(np.float32)
    style = Style(waves(1, 40, 50), mask=mask)
    masked = StyleTransfer(content, style, weights=thin(), device="cpu", threads=1, mask_feather=feather)
    taken, plain = masked.beginning(specks, (48, 64)), make(thin).beginning(specks, (48, 64))
    return content, masks.feather(mask, feather), taken, plain


def test_specks_along_a_hard_edge_are_carried_as_they_are_seen(thin: Thin) -> None:
    """Columns up to 32 are painted, of which a coarse pixel that holds the last ones is painted in half."""
    mask = np.zeros((48, 64), np.float32)
    mask[:, :33] = 1
    content, _, taken, plain = carry(thin, mask)
    np.testing.assert_array_equal(taken[:, :24], plain[:, :24])
    strayed, before = (np.abs(image - content)[:, 32].mean() for image in (taken, plain))
    assert strayed < 0.7 * before
    assert ((taken >= 0) & (taken <= 1)).all()


def test_what_is_painted_in_a_soft_edge_is_carried_in_full(thin: Thin) -> None:
    mask = np.zeros((48, 64), np.float32)
    mask[:, :32] = 1
    content, soft, taken, plain = carry(thin, mask, feather=24)
    between = (soft > 0.1) & (soft < 0.9)
    assert between.mean() > 0.3
    strayed, before = (np.abs(image - content)[between].mean() for image in (taken, plain))
    assert strayed == pytest.approx(before, rel=0.05)


def test_gray_pictures_make_a_gray_one(thin: Thin) -> None:
    """From noise as well; near gray is gray, and one color anywhere is none of it."""
    content, style = (np.repeat(waves(seed, 48, 64)[..., :1], 3, axis=2) for seed in (0, 1))
    content += np.float32(1 / 255) * np.array([1, 0, -1], np.float32)
    content = np.clip(content, 0, 1)

    def painted(style: np.ndarray, **run: Any) -> np.ndarray:
        transfer = StyleTransfer(content, style, weights=thin(), device="cpu", threads=1)
        seen: list[np.ndarray] = []
        result = transfer.run(4, min_size=32, on_iteration=lambda progress: seen.append(progress.image()), **run)
        return np.stack([result.image, seen[-1]])

    for init in ("content", "noise"):
        gray = painted(style, init=init)
        assert np.ptp(gray, axis=3).max() == 0
        assert gray.std() > 0.05
    colored = style.copy()
    colored[3, 4] = [1, 0, 0]
    assert np.ptp(painted(colored), axis=3).max() > 0.05


def test_the_colours_of_the_content_are_kept(thin: Thin) -> None:
    """Its chroma, as far as there is room for it beside the new luminance."""
    result = make(thin, colors="content-luminance").run(8, scales=1)
    content = 0.3 + 0.4 * waves(0, 48, 64)
    calm = StyleTransfer(content, waves(1, 40, 50), weights=thin(), device="cpu", colors="content-luminance")
    painted = calm.run(8, scales=1).image
    luma = np.array([0.299, 0.587, 0.114])
    chroma = [image - (image @ luma)[..., None] for image in (painted, content)]
    inside = (painted > 0.01).all(axis=2) & (painted < 0.99).all(axis=2)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(chroma[0][inside], chroma[1][inside], atol=1e-5)
    assert result.image.min() >= 0
    assert result.image.max() <= 1


def test_matched_colours_have_the_contents_mean(thin: Thin) -> None:
    content = 0.2 * waves(0, 48, 64)
    dark = StyleTransfer(content, waves(1, 40, 50), weights=thin(), device="cpu", colors="match")
    assert dark.objective().styles[0].pixels.mean() == pytest.approx(content.mean(), rel=0.05)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "descent"])
def test_every_optimiser_lowers_the_cost_within_the_pixels_range(thin: Thin, optimizer: str) -> None:
    result = make(thin).run(25, optimizer=optimizer, scales=1)
    assert result.history[-1].total < 0.6 * result.history[0].total
    assert result.image.min() >= 0
    assert result.image.max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": 1.0}, "at least 0 and below 1"),
        ({"average": -0.1}, "at least 0 and below 1"),
        ({"iterations": [3, 2]}, "given for 2 scales, but there is 1"),
        ({"scales": 9}, "below the smallest size"),
        ({"optimizer": "sgd"}, "adam, lbfgs, descent"),
    ],
)
def test_wrong_ways_to_run_are_named(thin: Thin, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make(thin).run(**{"iterations": 3, **settings})
