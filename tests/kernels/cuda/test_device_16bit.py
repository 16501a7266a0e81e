"""`CudaDevice` in bf16 and fp16: what is in no other test of a kernel, whole networks against the reference in
float64, what fp16's range does to them, and which kernels convolve on a GPU of compute capability 9.0.
"""

import json
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.arrays import mean_one, random, within_bound, within_share
from harness.devices import empty, held
from harness.pictures import photo
from nstgpu import Style, StyleTransfer, load_weights
from nstgpu.engine.errors import NonFiniteCostError
from nstgpu.kernels.cuda import grids, self_test
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as hopper
from nstgpu.kernels.cuda.conv3x3.launch_mma_sm80 import TensorFilters
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import spec_of
from nstgpu.kernels.cuda.gram import launch_simt as gram
from nstgpu.kernels.cuda.runtime import tensor_map
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.nvrtc import sources_for
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.emulator import NoCompilerError
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference
from nstgpu.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights .* end at")

ELEMENTS = ("bf16", "fp16")
HALF_STEP = {"bf16": 2.0**-8, "fp16": 2.0**-11}  # what rounding to 16 bits takes at most, relative
EPSILON = float(np.finfo(np.float32).eps)

reference = Reference()


@pytest.fixture(scope="module", params=["emulator", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
def called(request: pytest.FixtureRequest) -> Callable[[str], CudaDevice]:
    """called("bf16") is a device that computes so, with a workspace no larger than means and costs may use."""

    def call(element: str) -> CudaDevice:
        if element not in opened:
            opened[element] = CudaDevice(runtime(request.param, element), element)
        return opened[element]

    opened: dict[str, CudaDevice] = {}
    return call


def runtime(name: str, precision: str) -> EmulatorRuntime | CudaRuntime:
    if name == "cuda":
        if problem := cuda_problem():
            pytest.skip(problem)
        return CudaRuntime(precision=precision)
    try:
        return EmulatorRuntime(precision, check=name == "checked")
    except DeviceError as error:
        if not isinstance(error.__cause__, NoCompilerError):
            raise
        pytest.skip(str(error))


def stored(device: CudaDevice, values: Any) -> Any:
    """As activations."""
    return held(device, values, device.activation_dtype)


def representable(values: Any, element: str) -> Any:
    """Float32 that 16 bits hold."""
    return widened(rounded(values, element), element)


# ---- memory ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("element", ELEMENTS)
def test_what_goes_up_is_rounded_and_comes_down_as_float32(called: Callable[[str], CudaDevice], element: str) -> None:
    device, values = called(element), random(5, 3, 16)
    copied, zeroed = (stored(device, random(5, 3, 16, seed=1)) for _ in range(2))
    device.copy(stored(device, values), copied)
    device.zero(zeroed)
    assert device.download(copied).dtype == np.float32
    np.testing.assert_array_equal(device.download(copied), representable(values, element))
    assert not device.download(zeroed).any()
    device.upload(values.astype(np.float64), copied)
    np.testing.assert_array_equal(device.download(copied), representable(values, element))


# ---- means and the content's cost -----------------------------------------------------------------------------------
SHAPES = [(16, 16, 8), (17, 23, 24), (33, 18, 64), (9, 11, 136), (1, 1, 8), (70, 3, 72)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("element", ELEMENTS)
def test_mean(called: Callable[[str], CudaDevice], element: str, shape: tuple[int, int, int], weighted: bool) -> None:
    """Sums are float32: nothing is rounded to 16 bits."""
    device, features = called(element), representable(np.maximum(random(*shape), 0), element)
    weights = mean_one(*shape[:2]) if weighted else None
    device.bind_workspace(device.allocate(gram.mean_workspace_bytes(*shape)))
    out, expected = empty(device, shape[2:]), np.empty(shape[2])
    device.mean(
        stored(device, features),
        out,
        weights=None if weights is None else held(device, weights, np.float32),
    )
    reference.mean(features.astype(np.float64), expected, weights=weights)
    within_share(device.download(out), expected, EPSILON * float(np.sqrt(shape[0] * shape[1] + 3)), "mean")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("element", ELEMENTS)
def test_content_cost(
    called: Callable[[str], CudaDevice], element: str, shape: tuple[int, int, int], weighted: bool
) -> None:
    device = called(element)
    features, target = (representable(random(*shape, seed=seed), element) for seed in (0, 1))
    weights = mean_one(*shape[:2]) if weighted else None
    device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
    costs, expected = held(device, np.zeros(2), np.float32), np.empty(1)
    device.content_cost(stored(device, features), stored(device, target), 0.3, cost=costs[1:],
                        weights=None if weights is None else held(device, weights, np.float32))  # fmt: skip
    reference.content_cost(features.astype(np.float64), target.astype(np.float64), 0.3, cost=expected, weights=weights)
    within_share(
        device.download(costs), np.array([0, *expected]), EPSILON * float(np.sqrt(np.sqrt(features.size))), "cost"
    )


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("element", ELEMENTS)
def test_content_cost_and_gradient_together_are_those_one_by_one(
    called: Callable[[str], CudaDevice], element: str, weighted: bool, accumulate: bool
) -> None:
    device, shape = called(element), (9, 7, 24)
    features, target, before = (representable(random(*shape, seed=seed), element) for seed in range(3))
    held_features, held_target = stored(device, features), stored(device, target)
    weights = held(device, mean_one(*shape[:2]), np.float32) if weighted else None
    device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
    found = []
    for together in (False, True):
        cost, out = held(device, np.full(1, np.nan), np.float32), stored(device, before)
        launched: list[str] = []
        device.on_launch = lambda launch, into=launched: into.append(launch.kernel)
        with device.together() if together else nullcontext():
            device.content_cost(held_features, held_target, 0.3, cost=cost, weights=weights)
            device.content_gradient(held_features, held_target, 0.2, out=out, accumulate=accumulate, weights=weights)
        device.on_launch = None
        assert len(launched) == 2 - together, launched
        found.append((device.download(cost), device.download(out)))
    for one_by_one, ours in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, one_by_one)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("element", ELEMENTS)
def test_content_gradient(
    called: Callable[[str], CudaDevice], element: str, shape: tuple[int, int, int], accumulate: bool, weighted: bool
) -> None:
    """Rounded once, at the end."""
    device = called(element)
    features, target, before = (representable(random(*shape, seed=seed), element) for seed in range(3))
    weights = mean_one(*shape[:2]) if weighted else None
    out, scale = stored(device, before), 0.3 / device.loss_scale
    device.content_gradient(stored(device, features), stored(device, target), scale, out=out, accumulate=accumulate,
                            weights=None if weights is None else held(device, weights, np.float32))  # fmt: skip
    expected = before.astype(np.float64)
    reference.content_gradient(features.astype(np.float64), target.astype(np.float64), 0.3, out=expected,
                               accumulate=accumulate, weights=weights)  # fmt: skip
    largest = 3 * EPSILON * (np.abs(expected) + np.abs(before) + 1)
    within_bound(device.download(out), expected, HALF_STEP[element] * np.abs(expected) + largest, "gradient")


# ---- Grams and what styles send back, whose kernels have tests of their own -----------------------------------------
@pytest.mark.parametrize("element", ELEMENTS)
def test_gram_and_style_gradient(called: Callable[[str], CudaDevice], element: str) -> None:
    """Within the workspace that the device asks for; fp16 writes the gradient larger than it is."""
    device, shape = called(element), (9, 11, 24)
    features, before = (representable(random(*shape, seed=seed), element) for seed in (0, 1))
    matrix, moved, weights = random(24, 24, seed=2), random(24, seed=3), mean_one(*shape[:2])
    device.bind_workspace(device.allocate(device.workspace_bytes([(9, 11, 24, 24)])))
    ours, expected = empty(device, (24, 24)), np.empty((24, 24))
    device.gram(stored(device, features), ours, weights=held(device, weights, np.float32))
    reference.gram(features.astype(np.float64), expected, weights=weights)
    within_share(device.download(ours), expected, HALF_STEP[element], "gram")
    matrix = (matrix + matrix.T) / np.float32(device.loss_scale)
    for mean_error in (None, moved / np.float32(device.loss_scale)):
        out, expected = stored(device, before), before.astype(np.float64)
        device.style_gradient(
            stored(device, features), held(device, matrix, np.float32), out=out, accumulate=True,
            mean_error=None if mean_error is None else held(device, mean_error, np.float32), weights=held(device,
        weights, np.float32), )  # fmt: skip
        reference.style_gradient(
            features.astype(np.float64), device.loss_scale * matrix.astype(np.float64), out=expected,
            accumulate=True, mean_error=None if mean_error is None else device.loss_scale * mean_error, weights=weights,
        )  # fmt: skip
        within_share(device.download(out), expected, HALF_STEP[element], "style gradient")


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_images_gradient_is_as_large_as_it_is(called: Callable[[str], CudaDevice], element: str) -> None:
    device, gradient, factors = called(element), random(7, 5, 3), (255.0, 4.4, 0.7)
    out, expected = empty(device, gradient.shape), np.empty(gradient.shape)
    device.preprocess_gradient(held(device, gradient, np.float32), (2, 1, 0), factors, out)
    reference.preprocess_gradient(gradient.astype(np.float64), (2, 1, 0), factors, expected)
    within_share(device.download(out) * device.loss_scale, expected, 2 * EPSILON, "gradient")


# ---- whole networks -------------------------------------------------------------------------------------------------
WHOLE_NETWORK = 2e-2  # relative L2 error of a gradient in 16 bits, DESIGN section 7
THIN = ((16, 16), (24,), (40,))


class Noting(CudaDevice):
    """Notes which ReLUs let through, and which pixels max pools chose."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decisions: list[tuple[Any, Any]] = []

    def conv3x3_relu(self, x: Any, filters: Any, *, relu_mask: Any, pool_argmax: Any, **outputs: Any) -> None:
        super().conv3x3_relu(x, filters, relu_mask=relu_mask, pool_argmax=pool_argmax, **outputs)
        if relu_mask is not None:
            channels = filters.channels_out
            chosen = None if pool_argmax is None else self.unpack_pool_argmax(pool_argmax, channels)
            self.decisions.append((self.unpack_relu_mask(relu_mask, channels), chosen))


class Following(Reference):
    """Computes in float64, but for the decisions of another device: of numbers rounded to bf16 one in a few hundred is
    on the other side of zero, or of its neighbour, and the gradient jumps there."""

    def __init__(self, decisions: list[tuple[Any, Any]]) -> None:
        super().__init__()
        self._decisions = iter(decisions)

    def conv3x3_relu(self, x: Any, filters: Any, *, relu_mask: Any, pool_argmax: Any, **outputs: Any) -> None:
        super().conv3x3_relu(x, filters, relu_mask=relu_mask, pool_argmax=pool_argmax, **outputs)
        if relu_mask is not None:
            relu_mask[...], chosen = next(self._decisions)
            if pool_argmax is not None:
                pool_argmax[...] = chosen


def evaluated(device: Any, weights: Weights, size: tuple[int, int], **settings: Any) -> tuple[Any, Any]:
    settings.setdefault("style", photo(1, size[1], size[0]))
    transfer = StyleTransfer(photo(0, *size), weights=weights, device=device, **settings)
    device.decisions = []  # those of measuring the targets are of no gradient
    costs, gradient = transfer.cost_and_gradient(photo(2, *size).astype(device.image_dtype))
    return costs, gradient


def agree(ours: tuple[Any, Any], expected: tuple[Any, Any], bound: float = WHOLE_NETWORK) -> None:
    (costs, gradient), (right_costs, right) = ours, expected
    error = float(np.linalg.norm(gradient - right) / np.linalg.norm(right))
    print(f"{error:.2g}, {error / bound:.1%} of the budget")
    assert gradient.dtype == np.float32
    assert error <= bound
    assert costs.total == pytest.approx(right_costs.total, rel=bound)
    assert costs.per_layer == pytest.approx(right_costs.per_layer, rel=bound)


SETTINGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "tiles": {"tile": 16},
    "average": {"pooling": "average", "content_reduction": "sum"},
    "moments": {"style_statistics": "moments"},
    "w2": {"style_statistics": "w2"},
    "masks": {"style_statistics": "moments", "border": 2},
}


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_gradient_of_the_whole_network_given_its_decisions(
    name: str, element: str, setting: str, thin: Callable[..., Weights], tmp_path: Path
) -> None:
    weights, size, settings = thin(THIN), (33, 22), dict(SETTINGS[setting])
    if setting == "masks":
        above = np.linspace(-3, 3, 33)[:, None] + np.linspace(-1, 1, 22) < 0
        for side, mask in (("above", above), ("below", ~above)):
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{side}.png")
        styles = ((1, "above"), (3, "below"))
        settings["style"] = [Style(photo(seed, 22, 33), mask=tmp_path / f"{side}.png") for seed, side in styles]
    device = Noting(runtime(name, element), element)
    ours = evaluated(device, weights, size, **settings)
    agree(ours, evaluated(Following(device.decisions), weights, size, **settings))


@pytest.mark.parametrize("element", ELEMENTS)
def test_gradient_of_the_bundled_network(name: str, element: str) -> None:
    """Decisions and all."""
    weights, size = load_weights("mini"), (48, 48)
    agree(evaluated(CudaDevice(runtime(name, element), element), weights, size), evaluated(Reference(), weights, size))


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_checking_build_finds_nothing_in_a_run(element: str, thin: Callable[..., Weights]) -> None:
    """No race, no access out of bounds (the workspace is as small as we say), no use of what nobody wrote."""
    device = CudaDevice(runtime("checked", element), element)
    transfer = StyleTransfer(photo(0, 9, 22), photo(1, 11, 10), weights=thin(((8,), (16,))), device=device,
                             style_statistics="moments", tile=16)  # fmt: skip
    assert np.isfinite(transfer.run(1).image).all()


# ---- the range of fp16 ----------------------------------------------------------------------------------------------
def test_fp16_holds_gradients_larger_than_they_are(thin: Callable[..., Weights]) -> None:
    """As they are, most of them would be less than the least number that fp16 has."""
    weights, size, errors = thin(((8,), (16,))), (24, 24), []
    for scale in (None, 1.0):
        device = Noting(runtime("emulator", "fp16"), "fp16")
        device.loss_scale = scale or device.loss_scale
        _, ours = evaluated(device, weights, size, style_weight=1e-3, content_weight=1e-5)
        _, right = evaluated(Following(device.decisions), weights, size, style_weight=1e-3, content_weight=1e-5)
        errors.append(float(np.linalg.norm(ours - right) / np.linalg.norm(right)))
    assert errors[0] <= WHOLE_NETWORK
    assert errors[1] > 10 * errors[0]


@pytest.mark.parametrize("what", ["activations", "gradients"])
def test_what_is_beyond_fp16_ends_in_an_error(what: str, thin: Callable[..., Weights]) -> None:
    weights, settings = thin(((8,), (16,))), dict[str, Any]()
    if what == "activations":
        first, *others = weights.convolutions
        weights = replace(weights, convolutions=(replace(first, kernel=first.kernel * 1000), *others))
    else:
        settings = {"style_weight": 1e9}
    for element, overflows in (("fp16", True), ("bf16", False)):
        device = CudaDevice(runtime("emulator", element), element)
        transfer = StyleTransfer(photo(0, 24, 24), photo(1, 24, 24), weights=weights, device=device, **settings)
        if overflows:
            with pytest.raises(NonFiniteCostError, match="the cost is not finite at iteration 1"):
                transfer.run(1)
        else:
            assert np.isfinite(transfer.run(1).image).all()


# ---- which precision ------------------------------------------------------------------------------------------------
class Described:
    """As much of a runtime as choosing a precision looks at."""

    def __init__(self, name: str, capability: tuple[int, int]) -> None:
        self.name, self.measurable, self.spec = name, name != "emulator", spec_of(capability, 100)

    def allocate(self, nbytes: int) -> Any:
        return np.empty(nbytes, np.uint8)

    def upload(self, values: Any, out: Any) -> None:
        out[...] = values

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)


@pytest.mark.parametrize(
    ("name", "capability", "precision"),
    [("cuda", (7, 5), "fp32"), ("cuda", (8, 0), "bf16"), ("cuda", (12, 0), "bf16"), ("emulator", (9, 0), "fp32")],
)
def test_auto_is_bf16_where_tensor_cores_know_it(name: str, capability: tuple[int, int], precision: str) -> None:
    device: Any = Described(name, capability)
    assert CudaDevice(device, "auto").precision == precision


def test_older_tensor_cores_know_fp16_alone() -> None:
    device: Any = Described("cuda", (7, 5))
    assert CudaDevice(device, "fp16").precision == "fp16"
    with pytest.raises(DeviceError, match="this GPU's tensor cores know no bf16; choose fp32"):
        CudaDevice(device, "bf16")


def test_a_network_of_other_widths_is_refused_in_one_line(thin: Callable[..., Weights]) -> None:
    with pytest.raises(DeviceError, match="bf16 takes channels in multiples of 8, not 16 to 12; choose fp32"):
        StyleTransfer(
            photo(0, 24, 24),
            photo(1, 24, 24),
            weights=thin(),
            device=CudaDevice(runtime("emulator", "bf16"), "bf16"),
        )


@pytest.mark.parametrize(
    "operation", ["gram", "mean", "style_gradient", "content_cost", "content_gradient", "relu_gradient"]
)
def test_other_widths_are_refused_by_every_operation(called: Callable[[str], CudaDevice], operation: str) -> None:
    device = called("bf16")
    device.bind_workspace(device.allocate(grids.WORKSPACE_BYTES))
    x, y, row = (
        stored(device, random(4, 4, 12)),
        stored(device, random(4, 4, 12)),
        held(device, np.zeros(12), np.float32),
    )
    matrix = held(device, np.zeros((12, 12)), np.float32)
    calls: dict[str, Callable[[], None]] = {
        "gram": lambda: device.gram(x, matrix),
        "style_gradient": lambda: device.style_gradient(x, matrix, out=y, accumulate=False),
        "mean": lambda: device.mean(x, row),
        "content_cost": lambda: device.content_cost(x, y, 1.0, cost=row[:1]),
        "content_gradient": lambda: device.content_gradient(x, y, 1.0, out=x, accumulate=False),
        "relu_gradient": lambda: device.relu_gradient(x, held(device, np.zeros((4, 4, 2)), np.uint8)),
    }
    with pytest.raises(ValueError, match=f"{operation}: 12 channels in 16 bits; it must be a multiple of 8"):
        calls[operation]()


def test_what_a_precision_compiles() -> None:
    extra = {precision: {path.name for path in {*sources_for(precision)} - {*sources_for("fp32")}}
             for precision in ("bf16", "fp16", "auto")}  # fmt: skip
    assert extra["bf16"] == extra["auto"] == {"sm80_bf16.cu", "sm90_bf16.cu"}
    assert extra["fp16"] == {"sm80_fp16.cu", "sm90_fp16.cu"}


# ---- which kernels --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("element", ELEMENTS)
def test_wgmma_convolves_what_it_serves(element: tensor_map.Element, thin: Callable[..., Weights]) -> None:
    """Not the image, which has three channels; and to the same gradient as the kernels that others get."""
    weights, size, launched = thin(((8, 8), (16,))), (20, 18), list[str]()
    device = Noting(runtime("emulator", element), element, wgmma=True, on_launch=lambda at: launched.append(at.kernel))
    ours = evaluated(device, weights, size)
    agree(ours, evaluated(Following(device.decisions), weights, size))
    convolved = {kernel for kernel in launched if kernel.startswith("conv3x3")}
    assert all("_wgmma_sm90_" in kernel for kernel in convolved if "rgb" not in kernel)
    assert {kernel for kernel in convolved if "_wgmma_sm90_" not in kernel} == {
        f"conv3x3_relu_mma_sm80_{element}_rgb",
        f"conv3x3_input_gradient_mma_sm80_{element}_rgb",
    }  # fmt: skip


class Idle(EmulatorRuntime):
    """Memory full of zeros, and launches that do nothing."""

    def allocate(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def launch(self, launch: Launch) -> None:
        del launch


def test_an_iteration_is_so_many_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the classic cost on VGG-19's shapes, 512 px: each is a microsecond or two between kernels on a GPU."""
    monkeypatch.setattr(self_test, "known_problem", lambda *_: None)
    launched = list[str]()
    device = CudaDevice(Idle("bf16"), "bf16", wgmma=True, on_launch=lambda at: launched.append(at.kernel))
    picture = np.zeros((512, 512, 3), np.float32)
    transfer = StyleTransfer(
        picture, picture, weights=load_weights("random:0"), device=device, tile="off", content_layers={"relu4_2": 1.0},
        style_layers={f"relu{block}_1": 1.0 for block in range(1, 6)}, content_weight=1.0, style_weight=1.0,
        tv_weight=1.0,
    )  # fmt: skip
    objective = transfer.objective()
    launched.clear()
    objective.enqueue(objective.image, objective.gradient)
    assert not [kernel for kernel in launched if "pool_input_gradient" in kernel]
    assert len(launched) == 50


def test_one_layer_by_wgmma_is_what_the_launcher_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "known_problem", lambda *_: None)
    on = runtime("emulator", "bf16")
    device, x, kernel = CudaDevice(on, "bf16", wgmma=True), random(9, 11, 16), random(3, 3, 16, 24, seed=1)
    device.bind_workspace(device.allocate(device.workspace_bytes([(9, 11, 16, 24)])))
    filters = device.pack_filters(kernel, random(24, seed=2))
    assert isinstance(filters, hopper.PackedFilters)
    x, ours, theirs = (stored(device, values) for values in (x, np.zeros((9, 11, 24)), np.zeros((9, 11, 24))))
    wanted: dict[str, Any] = {"relu_mask": None, "pooling": "max", "pooled": None, "pool_argmax": None}
    device.conv3x3_relu(x, filters, out=ours, **wanted)
    for launch in hopper.conv3x3_relu(x, filters, out=theirs, workspace=device.allocate(1 << 16),
                                      target=tensor_map.target_of(on, 7), **wanted):  # fmt: skip
        on.launch(launch)
    np.testing.assert_array_equal(device.download(ours), device.download(theirs))
    assert device.download(ours).any()


def test_kernels_that_fail_their_test_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    on = runtime("emulator", "bf16")
    launched = on.launch

    def launch(launch: Launch) -> None:
        if "_wgmma_sm90_" in launch.kernel:
            raise DeviceError(f"{launch.kernel}: illegal instruction")
        launched(launch)

    on.launch = launch  # type: ignore[method-assign]
    device = CudaDevice(on, "bf16", wgmma=True)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "the wgmma kernels are not used" in record.message
    assert "conv3x3_relu_wgmma_sm90_bf16_256x128: illegal instruction" in record.message
    filters = device.pack_filters(random(3, 3, 16, 16), random(16))
    assert isinstance(filters, TensorFilters)


def test_pools_stay_apart_where_that_test_alone_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(self_test, "known_problem", lambda *of: "no" if of[-1] == "unpooling" else None)
    device = CudaDevice(runtime("emulator", "bf16"), "bf16", wgmma=True)
    filters = device.pack_filters(random(3, 3, 16, 16), random(16))
    assert isinstance(filters, hopper.PackedFilters)
    assert not device.unpools(filters)
    (record,) = caplog.records
    assert record.message == "pools are gone back through by launches of their own: no"


@pytest.mark.parametrize(
    ("precision", "capability"), [("fp32", (9, 0)), ("3xtf32", (8, 0)), ("bf16", (8, 0)), ("fp16", (12, 0))]
)
def test_wgmma_is_for_tensor_cores_of_one_capability(
    precision: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "known_problem", lambda *_: pytest.fail("nobody should test the kernels"))
    device: Any = Described("cuda", capability)
    CudaDevice(device, precision, wgmma=True)


@pytest.mark.parametrize("problem", [None, "tile 64x256 in bf16: no"])
def test_a_gpu_takes_wgmma_after_a_test(
    problem: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tested: list[str] = []

    def known_problem(_: Any, element: str, part: str = "convolutions") -> str | None:
        tested.append(f"{element} {part}")
        return problem

    monkeypatch.setattr(self_test, "known_problem", known_problem)
    device: Any = Described("cuda", (9, 0))
    device.upload = lambda *_: None
    gpu = CudaDevice(device, "auto")
    kind = hopper.PackedFilters if problem is None else TensorFilters
    assert isinstance(gpu.pack_filters(random(3, 3, 8, 16), random(16)), kind)
    assert isinstance(gpu.pack_filters(random(3, 3, 3, 16), random(16)), TensorFilters)
    assert tested == ["bf16 convolutions", *["bf16 unpooling"] * (problem is None)]
    assert [record.message.endswith(str(problem)) for record in caplog.records] == [True] * (problem is not None)


def test_the_emulator_takes_wgmma_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "known_problem", lambda *_: pytest.fail("nobody should test the kernels"))
    CudaDevice(runtime("emulator", "bf16"), "bf16")


# ---- the test of wgmma on a GPU, in a process of its own ------------------------------------------------------------
class Driver:
    def __init__(self, version: int) -> None:
        self._version = version

    def cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = self._version


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CudaRuntime:
    """The first GPU, as far as the test of its kernels can tell."""
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tensor_map, "driver", lambda: Driver(12080))
    monkeypatch.setattr(self_test, "find_nvrtc", lambda: SimpleNamespace(version=(12, 9)))
    on = CudaRuntime.__new__(CudaRuntime)
    on.architecture = "sm_90a"
    monkeypatch.setattr(on, "allocate", lambda _: SimpleNamespace(data=SimpleNamespace(device_id=1)))
    return on


@pytest.mark.parametrize("answer", [None, "tile 64x256 in fp16, 1 slices: off by 0.3 of the largest value"])
def test_the_answer_is_kept_until_something_changes(
    gpu: CudaRuntime, answer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, f"a line of CuPy's\n{json.dumps(answer)}\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert [self_test.known_problem(gpu, "fp16") for _ in range(3)] == [answer] * 3
    assert [command[1:] for command in commands] == [
        ["-m", "nstgpu.kernels.cuda.self_test", "1", "fp16", "convolutions"]
    ]
    self_test.known_problem(gpu, "bf16")
    monkeypatch.setattr(tensor_map, "driver", lambda: Driver(12090))
    self_test.known_problem(gpu, "fp16")
    self_test.known_problem(gpu, "fp16", "unpooling")
    assert [" ".join(command[-2:]) for command in commands] == [
        "fp16 convolutions", "bf16 convolutions", "fp16 convolutions", "fp16 unpooling",
    ]  # fmt: skip


def test_a_kernel_that_never_ends_is_a_problem_for_good(gpu: CudaRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def run(command: list[str], timeout: float, **_: Any) -> Any:
        tries.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        assert self_test.known_problem(gpu, "bf16") == f"their test did not end in {self_test.SELF_TEST_SECONDS} s"
    assert tries == [self_test.SELF_TEST_SECONDS]


def test_a_process_that_breaks_down_is_a_problem_this_time(gpu: CudaRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, a real one, for want of a GPU with the number 1."""
    problem = self_test.known_problem(gpu, "bf16")
    assert problem is not None
    assert problem.startswith("they could not be tested: the test ended with code 1 and said: ")
    assert "DeviceError" in problem
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "null\n", ""))
    assert self_test.known_problem(gpu, "bf16") is None
