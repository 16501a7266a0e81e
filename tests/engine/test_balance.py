"""Layer weights: the formula's own, balanced ones, and multiples of the balance."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nstgpu
from nstgpu import Relative, StyleTransfer
from nstgpu.engine.balance import spelled
from nstgpu.engine.errors import LayersMissing, SettingsError
from nstgpu.engine.optimizers.scales import ITERATIONS
from nstgpu.weights import Weights

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")


def make(thin: Thin, **settings: Any) -> StyleTransfer:
    rng = np.random.default_rng(0)
    pictures = rng.random((24, 32, 3)), rng.random((20, 20, 3))
    return StyleTransfer(*pictures, **{"weights": thin(), "device": "cpu", "threads": 1, **settings})


def shares(transfer: StyleTransfer) -> dict[str, float]:
    """What each style layer weighs in J on a black image, about: on one without features, exactly."""
    energies = transfer.objective().style_energies()["gram"]
    return {tap: transfer.style_weight * weight * energies[tap] for tap, weight in transfer.style_layers.items()}


def test_relative_weights_multiply_the_balance(thin: Thin) -> None:
    plain = make(thin, style_layers=["relu1_1", "relu2_1"])
    assert shares(plain) == pytest.approx({"relu1_1": 150, "relu2_1": 150}, rel=1e-5)
    even = make(thin, style_layers=Relative({"relu1_1": 1.0, "relu2_1": 1.0}))
    assert (even.style_layers, even.style_weight) == (plain.style_layers, plain.style_weight)
    uneven = make(thin, style_layers=Relative({"relu1_1": 2.0, "block2_conv1": 1.0}))
    assert shares(uneven) == pytest.approx({"relu1_1": 200, "relu2_1": 100}, rel=1e-5)
    # The whole keeps its size, so only the ratio counts.
    assert shares(make(thin, style_layers=Relative({"relu1_1": 6.0, "relu2_1": 3.0}))) == pytest.approx(
        shares(uneven), rel=1e-5
    )


def test_a_mapping_is_the_formula(thin: Thin) -> None:
    exact = make(thin, style_layers={"relu1_1": 1.0, "relu2_1": 0.1}, content_layers={"relu2_2": 3.0}, style_weight=7.0)
    assert exact.style_layers == {"relu1_1": 1.0, "relu2_1": 0.1}
    assert exact.content_layers == {"relu2_2": 3.0}
    costs, _ = exact.cost_and_gradient(exact.initial_image("noise"))
    assert costs.style == pytest.approx(costs.per_layer["relu1_1"] + 0.1 * costs.per_layer["relu2_1"], rel=1e-12)


def test_chosen_weights_repeat_from_the_recipe(thin: Thin) -> None:
    """The numbers in a recipe are those that were used, to the last bit, and short."""
    chosen = make(thin, style_layers=Relative({"relu1_1": 2.0, "relu2_1": 1.0}))
    first = chosen.run(2, scales=1)
    written = dict(pair.split("=") for pair in first.recipe["style layers"].split(", "))
    assert all(len(text) <= 12 for text in written.values())
    again = make(
        thin,
        style_layers={tap: float(text) for tap, text in written.items()},
        content_layers=chosen.content_layers,
        style_weight=float(first.recipe["style weight"]),
        content_weight=float(first.recipe["content weight"].split()[0]),
    ).run(2, scales=1)
    assert again.image.tobytes() == first.image.tobytes()
    assert first.recipe["content weight"] == "1 (mean)"
    assert spelled({"relu1_1": 2.0, "relu2_1": 0.1, "relu3_1": 1e-7}) == "relu1_1=2, relu2_1=0.1, relu3_1=1e-07"


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_relative_weight_that_is_no_weight_is_named(thin: Thin, weight: float) -> None:
    with pytest.raises(SettingsError, match="the weight of layer 'relu1_1'"):
        make(thin, style_layers=Relative({"relu1_1": weight}))


def test_weights_may_be_named(tmp_path: Any) -> None:
    picture = np.random.default_rng(0).random((24, 24, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayersMissing)  # what ships is known to be short
        named = StyleTransfer(picture, picture, weights="mini", device="cpu")
        assert named.weights.checksum == nstgpu.load_weights("mini").checksum
        assert StyleTransfer(picture, picture, device="cpu").weights.name == "mini"  # the default where none is fetched
    with pytest.raises(nstgpu.WeightsError, match=r"none\.h5"):
        StyleTransfer(picture, picture, weights=tmp_path / "none.h5")


def test_reprs_are_short(thin: Thin) -> None:
    transfer = make(thin)
    seen: list[nstgpu.Progress] = []
    states: list[nstgpu.RunState] = []

    def watch(progress: nstgpu.Progress) -> None:
        seen.append(progress)
        states.append(progress.state())

    result = transfer.run(2, scales=1, on_iteration=watch)
    assert repr(transfer.weights).startswith("<Weights 'thin:0': 5 layers to relu3_1, caffe, sha256 ")
    assert "32x24" in repr(transfer)
    assert "on cpu" in repr(transfer)
    assert repr(result).startswith("<Result 32x24, 2 iterations, cost ")
    assert repr(seen[0]).startswith("<Progress 1 of 2, scale 1 of 1 at 32x24, cost ")
    assert repr(states[1]) == "<RunState 2 iterations in, 2 of them at scale 1, 32x24>"
    assert repr(result.history[0]).startswith("<Costs total ")
    for one in (transfer, transfer.weights, transfer.weights.convolutions[0], result, *seen, *states, *result.history):
        assert len(repr(one)) < 150, repr(one)


def test_a_second_thread_is_told(thin: Thin) -> None:
    transfer, image = make(thin), np.full((24, 32, 3), 0.5, np.float32)
    running, done, told = threading.Event(), threading.Event(), list[str]()

    def wait(_: object) -> None:
        running.set()
        assert done.wait(30)

    thread = threading.Thread(target=lambda: transfer.run(1, scales=1, on_iteration=wait))
    thread.start()
    assert running.wait(30)
    for call in (lambda: transfer.run(1), lambda: transfer.cost_and_gradient(image), transfer.objective):
        with pytest.raises(SettingsError) as error:
            call()
        told.append(str(error.value))
    done.set()
    thread.join()
    assert set(told) == {"this StyleTransfer is at work in another thread; wait for it, or make one for every thread"}
    transfer.cost_and_gradient(image)  # and is free again


def test_a_run_in_a_run_is_told(thin: Thin) -> None:
    transfer = make(thin)
    image = transfer.initial_image("content")

    def again(_: object) -> None:
        for call in (lambda: transfer.run(1), lambda: transfer.cost_and_gradient(image)):
            with pytest.raises(SettingsError, match="in the middle of a run"):
                call()

    assert len(transfer.run(1, scales=1, on_iteration=again).history) == 1
    assert len(transfer.run(1, scales=1).history) == 1


def test_the_librarys_defaults_are_the_command_lines() -> None:
    import inspect

    from nstgpu.runs.settings import Options

    options, library = Options(), inspect.signature(StyleTransfer.__init__).parameters
    run = inspect.signature(StyleTransfer.run).parameters
    assert str(run["iterations"].default) == options.iterations == str(ITERATIONS)
    assert (run["optimizer"].default, run["init"].default) == (options.optimizer, options.init)
    for name in ("device", "precision", "threads", "tile", "content_reduction", "border", "colors", "seed",
                 "content_weight", "style_weight", "tv_weight", "weights"):  # fmt: skip
        assert library[name].default == getattr(options, name), name
    assert library["style_statistics"].default == options.statistics
