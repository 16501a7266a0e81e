"""`CudaDevice` as a whole: networks and runs on the emulator against the reference and the cpu, what it launches
and that nothing else computes, what it refuses, and the CuPy runtime against a CuPy with only what we allow ourselves.
"""

import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from harness.devices import held
from harness.pictures import photo
from nstgpu import Style, StyleTransfer
from nstgpu.engine.optimizers.coarse_to_fine import Progress
from nstgpu.kernels import DEVICES, DeviceError, open_device
from nstgpu.kernels.cuda import self_test
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as hopper
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import spec_of
from nstgpu.kernels.cuda.runtime import cupy_runtime, driver, tensor_map
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.device import Pooling
from nstgpu.kernels.emulator import NoCompilerError
from nstgpu.kernels.errors import OutOfMemoryError
from nstgpu.weights import Weights

WHOLE_NETWORK = 1e-5  # relative L2 error of a gradient in fp32, DESIGN section 7
VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,))
THIN = ((8, 8), (16, 12), (16,))
ODD = ((5, 7), (9, 13), (18,))  # channels that fit no vector

pytestmark = pytest.mark.filterwarnings("ignore:the weights .* end at")


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        EmulatorRuntime()
    except DeviceError as error:
        if not isinstance(error.__cause__, NoCompilerError):
            raise
        warnings.warn(f"NO EMULATOR TESTS: {error}", stacklevel=1)
        pytest.skip(str(error))


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and (problem := cuda_problem()):
        pytest.skip(problem)
    return str(request.param)


def transfer(device: str | CudaDevice, weights: Weights, shape: tuple[int, int], **settings: Any) -> StyleTransfer:
    """On a GPU in fp32: test_device_16bit.py has what auto would be there."""
    if isinstance(device, str) and device.startswith(("cuda", "auto")):
        settings.setdefault("precision", "fp32")
    return StyleTransfer(photo(0, *shape), photo(1, shape[1], shape[0]), weights=weights, device=device, **settings)


# ---- results --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("widths", "size", "pooling"),
    [(THIN, (64, 64), "max"), (ODD, (61, 83), "max"), (ODD, (33, 50), "average"), (VGG19, (48, 32), "max")],
    ids=["thin", "odd", "average", "vgg19"],
)
def test_gradient_of_the_whole_network(
    name: str, thin: Callable[..., Weights], widths: Any, size: tuple[int, int], pooling: Pooling
) -> None:
    weights, image = thin(widths), photo(2, *size)
    costs, gradient = transfer(name, weights, size, pooling=pooling).cost_and_gradient(image)
    expected, exact = transfer("reference", weights, size, pooling=pooling).cost_and_gradient(image)
    error = float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
    print(f"{error / WHOLE_NETWORK:.1%} of the budget")
    assert error <= WHOLE_NETWORK
    assert costs.total == pytest.approx(expected.total, rel=WHOLE_NETWORK)
    assert costs.per_layer == pytest.approx(expected.per_layer, rel=WHOLE_NETWORK)


@pytest.mark.parametrize("statistics", ["gram", "moments", "w2"])
def test_gradient_of_every_statistic_within_masks(
    name: str, thin: Callable[..., Weights], statistics: Any, tmp_path: Path
) -> None:
    """Two styles, the one above a slope and the other below it."""
    weights, image, size = thin(ODD), photo(2, 47, 33), (47, 33)
    above = np.linspace(-3, 3, 47)[:, None] + np.linspace(-1, 1, 33) < 0
    Image.fromarray(above.astype(np.uint8) * 255).save(tmp_path / "above.png")
    Image.fromarray((~above).astype(np.uint8) * 255).save(tmp_path / "below.png")
    results = []
    for device in (name, "reference"):
        styles = [
            Style(photo(seed, 33, 47), mask=tmp_path / mask) for seed, mask in ((1, "above.png"), (3, "below.png"))
        ]
        painter = StyleTransfer(photo(0, *size), styles, weights=weights, device=device, style_statistics=statistics)
        results.append(painter.cost_and_gradient(image))
    (costs, gradient), (expected, exact) = results
    error = float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
    print(f"{error / WHOLE_NETWORK:.1%} of the budget")
    assert error <= WHOLE_NETWORK
    assert costs.per_layer == pytest.approx(expected.per_layer, rel=2 * WHOLE_NETWORK)


@pytest.mark.parametrize("optimizer", ["adam", "descent", "lbfgs"])
def test_a_short_run_paints_the_same_picture_as_the_cpu(
    name: str, thin: Callable[..., Weights], optimizer: str
) -> None:
    results = [
        transfer(device, thin(), (47, 45)).run(3, optimizer=optimizer, init="noise").image for device in (name, "cpu")
    ]
    assert float(np.abs(results[0] - results[1]).max()) <= 1e-4


def test_images_are_resized_on_the_device(name: str, thin: Callable[..., Weights]) -> None:
    results = [transfer(device, thin(), (90, 61), size=48).initial_image("style") for device in (name, "cpu")]
    assert results[0].shape == (48, 33, 3)
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)


def test_two_evaluations_give_the_same_bytes(name: str, thin: Callable[..., Weights]) -> None:
    image = photo(2, 50, 47)
    seen = set()
    for _ in range(2):
        again = transfer(name, thin(), (50, 47))
        for _ in range(2):
            costs, gradient = again.cost_and_gradient(image)
            seen.add((gradient.tobytes(), costs.total, costs.tv))
    assert len(seen) == 1


def test_threads_do_not_disturb_each_other(name: str, thin: Callable[..., Weights]) -> None:
    def paint(seed: int) -> None:
        painted[seed] = transfer(name, thin(seed=seed), (32, 32)).run(2, init="noise").image.tobytes()

    painted: dict[int, bytes] = {}
    for seed in range(3):
        paint(seed)
    alone = dict(painted)
    threads = [threading.Thread(target=paint, args=(seed,)) for seed in range(3)]
    painted.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert painted == alone


@pytest.mark.parametrize(("precision", "cost_bound", "bound"), [("3xtf32", 1e-6, 1e-5), ("tf32", 2e-3, 0.1)])
def test_a_whole_gradient_on_tensor_cores(
    thin: Callable[..., Weights], precision: str, cost_bound: float, bound: float
) -> None:
    """Against the reference in float64. tf32 decides some ReLUs and pools differently, which a gradient shows at once;
    given its decisions it is within 4e-4 (test_mma_sm80.py)."""
    weights = thin([[16, 16], [32, 32], [40]])
    down, across = np.mgrid[0:1:40j, 0:1:48j]
    pictures = [np.stack([np.sin(f * down + g * across) for f, g in pair], axis=2) / 2 + 0.5
                for pair in (((3, 5), (8, 1), (2, 9)), ((7, 2), (1, 4), (5, 5)), ((2, 2), (6, 3), (1, 7)))]  # fmt: skip

    def evaluated(device: str, precision: str) -> Any:
        painter = StyleTransfer(pictures[0], pictures[1], weights=weights, device=device, precision=precision)
        costs, gradient = painter.cost_and_gradient(pictures[2])
        return costs.total, gradient.astype(np.float64)

    (cost, ours), (right_cost, right) = evaluated("emulator", precision), evaluated("reference", "fp64")
    assert cost == pytest.approx(right_cost, rel=cost_bound)
    assert np.linalg.norm(ours - right) <= bound * np.linalg.norm(right)


def test_old_tensor_cores_are_refused() -> None:
    runtime = EmulatorRuntime()
    runtime.spec = spec_of((7, 5), 40)
    with pytest.raises(DeviceError, match="know no 3xtf32; choose fp32"):
        CudaDevice(runtime, "3xtf32")


def test_the_checking_build_finds_nothing(thin: Callable[..., Weights]) -> None:
    """No race, no access out of bounds (the workspace is as small as we say), no use of what nobody wrote."""
    device = CudaDevice(EmulatorRuntime(check=True))
    for widths, pooling, statistics in ((THIN, "max", "gram"), (ODD, "average", "moments")):
        result = transfer(device, thin(widths), (33, 26), pooling=pooling, style_statistics=statistics).run(1)
        assert np.isfinite(result.image).all()


# ---- launches -------------------------------------------------------------------------------------------------------
class Sealed(np.ndarray):
    """Device memory that NumPy may cut and reshape, but neither compute with nor write to."""

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"NumPy's {ufunc.__name__} was called on device memory")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise AssertionError(f"NumPy's {func.__name__} was called on device memory")

    def __setitem__(self, *_: Any) -> None:
        raise AssertionError("NumPy wrote to device memory")


class SealedRuntime(EmulatorRuntime):
    def allocate(self, nbytes: int) -> Any:
        return super().allocate(nbytes).view(Sealed)

    def upload(self, values: Any, out: Any) -> None:
        super().upload(values, out.view(np.ndarray))


LAUNCHES = {  # of an evaluation and a step of Adam: five convolutions, two pools, one content and three style taps; the
    # length of the gradient, and the average of the iterates
    "preprocess": 1,
    "image_gradient": 1,  # preprocess_gradient, tv_cost and gemv at once
    "conv3x3_relu": 5,
    "conv3x3_input_gradient": 5,
    "max_pool_input_gradient": 2,
    "relu_gradient": 1,
    "gram": 3,
    "style_costs": 1,  # of three layers
    "style_gradient": 3,
    "content_cost": 1,
    "content_gradient": 1,
    "record_costs": 1,
    "adam_iteration": 1,
}


def operation(kernel: str) -> str:
    """A kernel's name without the variant, which is the launchers' choice."""
    return next((known for known in sorted(LAUNCHES, key=len, reverse=True) if kernel.startswith(known)), kernel)


def test_nothing_but_our_kernels_computes(thin: Callable[..., Weights]) -> None:
    launches: list[Launch] = []
    device = CudaDevice(SealedRuntime(), on_launch=launches.append)
    painter = transfer(device, thin(), (48, 40), style_layers={"relu1_1": 1, "relu2_1": 1, "relu3_1": 1},
                       content_layers={"relu2_2": 1})  # fmt: skip
    launches.clear()
    painter.cost_and_gradient(photo(2, 48, 40))
    evaluation = list(launches)
    launches.clear()
    painter.run(1, init="noise")
    zeroed = [launch.kernel for launch in launches[:3]]
    assert zeroed == ["zero_memory"] * 3  # the optimiser's state; from here on it is the loop's launches
    assert [launch.kernel for launch in launches[3 : 3 + len(evaluation)]] == [launch.kernel for launch in evaluation]
    counts = Counter(operation(launch.kernel) for launch in launches[3:] if not launch.kernel.endswith("_split_k_sum"))
    assert counts == LAUNCHES


def test_the_seal_holds() -> None:
    memory = SealedRuntime().allocate(16).view(np.float32)
    for misuse in (np.sin, np.sum, np.sort, lambda a: a + 1, lambda a: a @ a, lambda a: a.__setitem__(0, 1)):
        with pytest.raises(AssertionError):
            misuse(memory)


# ---- what is refused ------------------------------------------------------------------------------------------------
@pytest.fixture
def gpu() -> CudaDevice:
    device = CudaDevice(EmulatorRuntime())
    device.bind_workspace(device.allocate(1 << 20))
    return device


def floats(device: CudaDevice, *shape: int) -> Any:
    return held(device, np.zeros(shape, np.float32))


def bytes_of(device: CudaDevice, *shape: int) -> Any:
    return held(device, np.zeros(shape, np.uint8))


def filters(device: CudaDevice, channels_in: int, channels_out: int) -> Any:
    return device.pack_filters(
        np.zeros((3, 3, channels_in, channels_out), np.float32), np.zeros(channels_out, np.float32)
    )


def pool_gradient(device: CudaDevice, pool_argmax: Any) -> None:
    out, relu_mask = floats(device, 2, 2, 4), bytes_of(device, 2, 2, 1)
    device.pool_input_gradient(
        floats(device, 1, 1, 4), pooling="max", pool_argmax=pool_argmax, out=out, relu_mask=relu_mask, accumulate=False
    )


BAD_CALLS: dict[str, tuple[str, Callable[[CudaDevice], Any]]] = {
    "shape": (
        r"preprocess: out has shape \(4, 5, 3\) and dtype float32; it must be \(4, 6, 3\)",
        lambda d: d.preprocess(floats(d, 4, 6, 3), (2, 1, 0), (1,) * 3, (0,) * 3, floats(d, 4, 5, 3)),
    ),
    "dtype": (
        "relu_gradient: relu_mask has shape .* and dtype float32; it must be .* uint8",
        lambda d: d.relu_gradient(floats(d, 4, 4, 8), floats(d, 4, 4, 1)),
    ),
    "contiguity": (
        "clamp: image is not C-contiguous",
        lambda d: d.clamp(floats(d, 4, 8, 3)[:, ::2]),
    ),
    "alignment": (
        "content_cost: target does not start on a 16-byte boundary",
        lambda d: d.content_cost(floats(d, 4), floats(d, 5)[1:], 1.0, cost=floats(d, 1)),
    ),
    "memory": (
        "descent_step: gradient is a list",
        lambda d: d.descent_step(floats(d, 2, 2, 3), [0.0], learning_rate=1.0),
    ),
    "step": (
        "adam_step: step .* dtype float32; it must be .* int32",
        lambda d: d.adam_step(
            *(floats(d, 3), floats(d, 3), floats(d, 3), floats(d, 3), floats(d, 1)),
            **{"learning_rate": 1, "beta1": 0, "beta2": 0, "epsilon": 1},
        ),
    ),
    "pool_argmax": (
        "max pooling without pool_argmax",
        lambda d: pool_gradient(d, pool_argmax=None),
    ),
    "filters": (
        r"conv3x3_relu: x has shape \(8, 8, 4\)",
        lambda d: d.conv3x3_relu(
            floats(d, 8, 8, 4), filters(d, 8, 8), out=None, relu_mask=None, pooling="max", pooled=None, pool_argmax=None
        ),
    ),
    "gradient": (
        r"conv3x3_input_gradient: relu_mask has shape \(8, 8, 2\)",
        lambda d: d.conv3x3_input_gradient(
            floats(d, 8, 8, 4),
            filters(d, 8, 4),
            out=floats(d, 8, 8, 8),
            relu_mask=bytes_of(d, 8, 8, 2),
            accumulate=False,
        ),
    ),
    "weights": (
        r"content_gradient: weights has shape \(4, 3\) .* it must be \(4, 4\)",
        lambda d: d.content_gradient(
            floats(d, 4, 4, 8),
            floats(d, 4, 4, 8),
            1.0,
            out=floats(d, 4, 4, 8),
            accumulate=False,
            weights=floats(d, 4, 3),
        ),
    ),
    "scratch": (
        r"w2_root: scratch has shape \(4, 8, 8\)",
        lambda d: d.w2_root(floats(d, 8, 8), floats(d, 8), 1.0, floats(d, 8, 8), scratch=floats(d, 4, 8, 8)),
    ),
    "mean": (
        r"moments_cost: target_mean has shape \(7,\)",
        lambda d: d.moments_cost(
            floats(d, 8, 8),
            floats(d, 8),
            floats(d, 8, 8),
            floats(d, 7),
            1.0,
            cost=floats(d, 1),
            gram_error=floats(d, 8, 8),
            mean_error=floats(d, 8),
        ),
    ),
    "vectors": (
        r"dots: vectors has shape \(3, 8\) .* it must be \(3, 9\)",
        lambda d: d.dots(floats(d, 3, 8), floats(d, 9), floats(d, 3)),
    ),
    "rows": (
        "clamped_step: direction does not start on a 16-byte boundary",
        lambda d: d.clamped_step(floats(d, 8), floats(d, 9)[1:], 1.0, floats(d, 8)),
    ),
    "gram": (r"gram: out has shape \(4, 8\)", lambda d: d.gram(floats(d, 8, 8, 8), floats(d, 4, 8))),
    "copy": ("copy: values has", lambda d: d.copy(floats(d, 8), floats(d, 4))),
    "image": (r"an image has shape \(4, 4, 4\)", lambda d: d.resize(floats(d, 4, 4, 4), floats(d, 2, 2, 3))),
    "channels": (
        "channels are",
        lambda d: d.preprocess_gradient(floats(d, 4, 4, 3), (0, 0, 1), (1,) * 3, floats(d, 4, 4, 3)),
    ),
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_argument_is_refused_before_anything_is_launched(gpu: CudaDevice, call: str) -> None:
    message, act = BAD_CALLS[call]
    launched: list[Launch] = []
    gpu.on_launch = launched.append
    with pytest.raises(ValueError, match=message):
        act(gpu)
    assert not launched


def test_a_cost_needs_a_workspace() -> None:
    device = CudaDevice(EmulatorRuntime())
    with pytest.raises(ValueError, match="content_cost: the workspace has 0 bytes"):
        device.content_cost(floats(device, 8), floats(device, 8), 1.0, cost=floats(device, 1))


@pytest.mark.parametrize("precision", ["fp64", "int8"])
def test_a_precision_that_there_is_not_is_refused(precision: str) -> None:
    with pytest.raises(DeviceError, match=f"the emulator device has no precision '{precision}'; choose fp32, tf32"):
        open_device("emulator", precision)


@pytest.mark.parametrize("name", ["cuda:x", "cpu:1", "gpu"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"unknown device '{name}'; choose one of {', '.join(DEVICES)}"):
        open_device(name)


# ---- CuPy -----------------------------------------------------------------------------------------------------------
class CudaError(RuntimeError):
    pass


class FakePointer:
    """A cupy.cuda.MemoryPointer."""

    def __init__(self, memory: Any, device: int = 0) -> None:
        self.memory, self.ptr, self.device_id = memory, memory.ctypes.data, device

    def memset_async(self, value: int, nbytes: int, stream: Any) -> None:
        assert stream.non_blocking
        assert nbytes == self.memory.nbytes
        self.memory[...] = value

    def copy_from_device_async(self, source: "FakePointer", nbytes: int, stream: Any) -> None:
        assert stream.non_blocking
        assert nbytes == self.memory.nbytes
        self.memory[...] = source.memory


class FakePinned(np.ndarray):
    """Memory as alloc_pinned_memory returns it."""

    @property
    def ptr(self) -> int:
        return int(self.ctypes.data)


def unowned(ptr: int, nbytes: int, owner: FakePinned, device_id: int) -> FakePointer:
    assert (ptr, nbytes) == (owner.ptr, owner.nbytes)
    return FakePointer(owner, device_id)


class FakeArray:
    """A cupy.ndarray that can be cut, reshaped, filled from the host and fetched, and nothing else."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, memory: Any = None, device: int = 0) -> None:
        if isinstance(memory, FakePointer):
            memory, device = memory.memory, memory.device_id
        elif memory is None:
            memory = EmulatorRuntime.allocate(None, int(np.prod(shape))).view(dtype)  # type: ignore[arg-type]
        self.memory = memory
        self.shape, self.dtype, self.size, self.nbytes = memory.shape, memory.dtype, memory.size, memory.nbytes
        self.flags, self.strides, self.data = memory.flags, memory.strides, FakePointer(memory, device)

    def __len__(self) -> int:
        return len(self.memory)

    def _cut(self, memory: Any) -> "FakeArray":
        return FakeArray((), None, memory, self.data.device_id)

    def __getitem__(self, key: Any) -> "FakeArray":
        return self._cut(self.memory[key])

    def view(self, dtype: Any) -> "FakeArray":
        return self._cut(self.memory.view(dtype))

    def reshape(self, *shape: Any) -> "FakeArray":
        return self._cut(self.memory.reshape(*shape))

    def set(self, values: Any, stream: Any) -> None:
        assert stream.non_blocking
        assert values.dtype == self.dtype
        assert values.flags.c_contiguous
        self.memory[...] = values

    def get(self, stream: Any, out: Any = None, blocking: bool = True) -> Any:
        assert stream.non_blocking
        assert FakeCupy.captured is None
        assert blocking == (out is None)
        if FakeCupy.failure == "asynchronous":
            raise CudaError("cudaErrorIllegalAddress")
        if out is not None:
            out[...] = self.memory
        return self.memory.copy() if out is None else out


class Scope:
    def __enter__(self) -> None:
        FakeCupy.entered.append(self)

    def __exit__(self, *_: object) -> None:
        assert FakeCupy.entered.pop() is self


class FakeDevice(Scope):
    compute_capability = "90"
    attributes: ClassVar = {  # an H200's
        "MultiProcessorCount": 132, "ClockRate": 1_980_000, "MemoryClockRate": 3_201_000, "GlobalMemoryBusWidth": 6144
    }  # fmt: skip

    def __init__(self, index: int) -> None:
        self.id = index


class FakeEvent:
    def __init__(self, *, disable_timing: bool = False) -> None:
        self.times = not disable_timing

    def record(self, stream: Any) -> None:
        assert stream.non_blocking
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass


class FakeStream(Scope):
    def __init__(self, *, non_blocking: bool) -> None:
        self.non_blocking = non_blocking

    def wait_event(self, event: FakeEvent) -> None:
        assert event.at

    def begin_capture(self) -> None:
        assert FakeCupy.captured is None
        FakeCupy.captured = []

    def end_capture(self) -> "FakeGraph":
        graph, FakeCupy.captured = FakeGraph(FakeCupy.captured), None
        if FakeCupy.failure == "capture":
            raise CudaError("cudaErrorStreamCaptureInvalidated")
        return graph


class FakeGraph:
    def __init__(self, launches: Any) -> None:
        self.launches = launches

    def launch(self, stream: Any) -> None:
        assert stream.non_blocking
        for launch in self.launches:
            launch()


class FakeModule:
    def load(self, image: bytes) -> None:
        if FakeCupy.failure == "load":
            raise CudaError("CUDA_ERROR_NO_BINARY_FOR_GPU")
        assert image == b"cubin"

    def get_function(self, kernel: str) -> "FakeFunction":
        return FakeFunction(kernel)


class FakeFunction:
    """A kernel, carried out by the emulator."""

    def __init__(self, kernel: str) -> None:
        self.ptr = self.kernel = kernel

    def __call__(self, grid: Any, block: Any, args: Any, shared_bytes: int, stream: Any) -> None:
        assert any(isinstance(scope, FakeDevice) for scope in FakeCupy.entered)
        assert stream.non_blocking
        if FakeCupy.failure == "launch":
            raise CudaError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
        by_value = (np.uintp, np.int32, np.int64, np.float32)
        structs = [arg for arg in args if type(arg) is np.ndarray and arg.dtype.kind == "V" and arg.size == 1]
        assert all(type(arg) in (FakeArray, *by_value) or any(arg is struct for struct in structs) for arg in args)
        plain = [arg.memory if isinstance(arg, FakeArray) else arg for arg in args]
        launch = partial(FakeCupy.library.launch, self.kernel, grid, block, plain, shared_bytes=shared_bytes)
        if FakeCupy.captured is None:
            launch()
        else:
            FakeCupy.captured.append(launch)


class FakeCupy:
    entered: list[Scope]
    failure: str
    attributes: list[tuple[Any, ...]]
    library: Any
    captured: list[Callable[[], object]] | None

    ndarray = FakeArray
    get_default_memory_pool = staticmethod(
        lambda: SimpleNamespace(
            free_bytes=lambda: 1 << 30, used_bytes=lambda: 2 << 30, get_limit=lambda: FakeCupy.limit
        )
    )
    limit = 0
    cuda = SimpleNamespace(
        Device=FakeDevice,
        Stream=FakeStream,
        Event=FakeEvent,
        UnownedMemory=unowned,
        MemoryPointer=lambda memory, offset: memory if offset == 0 else None,
        alloc_pinned_memory=lambda nbytes: np.zeros(nbytes, np.uint8).view(FakePinned),
        get_elapsed_time=lambda begin, end: (end.at - begin.at) * 1000,
        function=SimpleNamespace(Module=FakeModule),
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        runtime=SimpleNamespace(CUDARuntimeError=CudaError, memGetInfo=lambda: (8 << 30, 16 << 30)),
        driver=SimpleNamespace(
            CUDADriverError=CudaError, funcSetAttribute=lambda *attribute: FakeCupy.attributes.append(attribute)
        ),
    )


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCupy]]:
    """One GPU of capability 9.0, as far as CudaRuntime can tell."""
    library = EmulatorRuntime()._library
    FakeCupy.entered, FakeCupy.failure, FakeCupy.attributes, FakeCupy.library = [], "", [], library
    FakeCupy.captured = None
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy)
    monkeypatch.setattr(driver, "cuda_problem", lambda index=0: None if index == 0 else f"there is no GPU {index}")
    monkeypatch.setattr(cupy_runtime, "find_nvrtc", lambda: SimpleNamespace(architectures=(75, 80, 90)))
    cubin = SimpleNamespace(image=b"cubin", names=library.kernels)
    monkeypatch.setattr(cupy_runtime, "compile_sources", lambda _, architecture: [cubin] * (architecture == "sm_90a"))
    yield FakeCupy
    assert not FakeCupy.entered


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_cuda_is_the_same_launches_through_cupy(thin: Callable[..., Weights], device: str) -> None:
    """With nothing of CuPy's but memory, copies and launches, byte for byte what the emulator does."""
    painters = [transfer(kind, thin(ODD), (40, 33), size=32) for kind in (device, "emulator")]
    assert painters[0].device.name == "cuda"
    ours, theirs = (painter.run(2, init="noise") for painter in painters)
    assert ours.image.tobytes() == theirs.image.tobytes()
    assert ours.history == theirs.history


@pytest.mark.usefixtures("cupy")
def test_16_bits_go_to_wgmma_through_cupy(thin: Callable[..., Weights], monkeypatch: pytest.MonkeyPatch) -> None:
    library = EmulatorRuntime("fp16")._library
    cubin = SimpleNamespace(image=b"cubin", names=library.kernels)
    monkeypatch.setattr(FakeCupy, "library", library)
    monkeypatch.setattr(cupy_runtime, "compile_sources", lambda *_: [cubin])
    monkeypatch.setattr(self_test, "known_problem", lambda *_: None)
    monkeypatch.setattr(tensor_map, "encode_with_driver", tensor_map.encode_for_emulator)
    weights, emulated = thin(((8,), (16,))), CudaDevice(EmulatorRuntime("fp16"), "fp16", wgmma=True)
    painters = [transfer(device, weights, (20, 18), precision="fp16") for device in ("cuda", emulated)]
    assert isinstance(painters[0]._inputs.network.layers[1].filters, hopper.PackedFilters)
    ours, theirs = (painter.run(2, init="noise") for painter in painters)
    assert ours.image.tobytes() == theirs.image.tobytes()


@pytest.mark.usefixtures("cupy")
def test_auto_is_fp32_for_channels_that_bf16_cannot_take(
    thin: Callable[..., Weights], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(self_test, "known_problem", lambda *_: None)
    with caplog.at_level("INFO", "nstgpu"):
        painter = transfer("cuda", thin(ODD), (40, 33), precision="auto")
    assert painter.device.precision == "fp32"
    assert "working in fp32: bf16 takes channels in multiples of 8" in caplog.text
    assert open_device("cuda").precision == "bf16"
    with pytest.raises(DeviceError, match="bf16 takes channels in multiples of 8"):
        transfer("cuda", thin(ODD), (40, 33), precision="bf16")


@pytest.mark.usefixtures("cupy")
def test_what_is_fetched_is_of_its_moment(thin: Callable[..., Weights]) -> None:
    painter, later, seen = transfer("cuda", thin(ODD), (40, 33), size=32), [], []

    def take(progress: Progress) -> None:
        later.append(progress.snapshot())
        seen.append(progress.image())

    painter.run(4, scales=1, on_iteration=take)
    for wait, image in zip(later, seen, strict=True):
        np.testing.assert_array_equal(wait(), image)


def test_a_capture_that_fails_is_one_line(cupy: type[FakeCupy]) -> None:
    device = CudaDevice(CudaRuntime())
    cupy.failure = "capture"
    with pytest.raises(DeviceError, match="cannot be captured as a CUDA graph: cudaErrorStreamCaptureInvalidated"):
        device.stream.capture(lambda: None)


@pytest.mark.usefixtures("cupy")
def test_what_is_left_of_the_gpu_counts_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    device = CudaDevice(CudaRuntime())
    assert device.free_bytes() == 9 << 30
    monkeypatch.setattr(FakeCupy, "limit", 5 << 30)
    assert device.free_bytes() == 3 << 30
    assert CudaDevice(EmulatorRuntime()).free_bytes() is None

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FakeCupy, "ndarray", full)
    with pytest.raises(OutOfMemoryError, match="has no 3 MiB left"):
        device.allocate(3 << 20)


@pytest.mark.usefixtures("cupy")
def test_coefficients_reach_a_gpu_as_a_struct() -> None:
    results = []
    for runtime in (CudaRuntime(), EmulatorRuntime()):
        device = CudaDevice(runtime)
        out = floats(device, 10)
        device.combine(held(device, photo(0, 3, 10)[:, :, 0].copy()), (0.5, -1.0, 3.0), out)
        results.append(device.download(out).tobytes())
    assert results[0] == results[1]


@pytest.mark.usefixtures("cupy")
def test_time_and_roofline_of_a_gpu() -> None:
    device = CudaDevice(CudaRuntime())
    assert 0.01 <= device.elapsed(lambda: time.sleep(0.01)) < 1
    assert device.roofline() == pytest.approx((66.9e12, 4.92e12), rel=1e-2)
    assert CudaRuntime().roofline("bf16") == pytest.approx((1070e12, 4.92e12), rel=1e-2)
    assert CudaRuntime().roofline("3xtf32") == pytest.approx((178e12, 4.92e12), rel=1e-2)


def test_the_emulator_has_no_roofline(gpu: CudaDevice) -> None:
    assert 0.01 <= gpu.elapsed(lambda: time.sleep(0.01)) < 1
    assert gpu.roofline() is None


@pytest.mark.parametrize("channels", [3, 5, 8, 17])
def test_masks_and_choices_can_be_looked_at(gpu: CudaDevice, channels: int) -> None:
    x, kernel = photo(0, 9, 14), np.random.default_rng(1).standard_normal((3, 3, 3, channels)).astype(np.float32)
    full, half = (9, 14, channels), (4, 7, channels)
    out, pooled = floats(gpu, *full), floats(gpu, *half)
    relu_mask, pool_argmax = (
        held(gpu, np.zeros(*layout)) for layout in (gpu.relu_mask_layout(full), gpu.pool_argmax_layout(half))
    )
    filters = gpu.pack_filters(kernel, np.zeros(channels, np.float32))
    gpu.conv3x3_relu(
        held(gpu, x), filters, out=out, relu_mask=relu_mask, pooling="max", pooled=pooled, pool_argmax=pool_argmax
    )
    y = gpu.download(out)
    np.testing.assert_array_equal(gpu.unpack_relu_mask(relu_mask, channels), y > 0)
    squares = np.stack([y[r:8:2, s:14:2] for r in (0, 1) for s in (0, 1)])
    np.testing.assert_array_equal(gpu.unpack_pool_argmax(pool_argmax, channels), squares.argmax(axis=0))


@pytest.mark.usefixtures("cupy")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="there is no GPU 3"):
        open_device("cuda:3")


def test_a_gpu_that_takes_no_kernels_is_refused(cupy: type[FakeCupy]) -> None:
    cupy.failure = "load"
    with pytest.raises(DeviceError, match="GPU 0 cannot be used: CUDA_ERROR_NO_BINARY_FOR_GPU"):
        open_device("cuda")


def test_a_cupy_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "cuda_problem", lambda _: None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match="CuPy is installed but cannot be imported: "):
        open_device("cuda")


@pytest.mark.usefixtures("cupy")
def test_auto_takes_the_cpu_where_the_gpu_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_nvrtc() -> None:
        raise DeviceError("NVRTC was not found")

    monkeypatch.setattr(cupy_runtime, "find_nvrtc", no_nvrtc)
    assert open_device("auto").name == "cpu"
    assert "the GPU is not used: NVRTC was not found" in caplog.text
    monkeypatch.setattr(driver, "cuda_problem", lambda: "no driver")
    monkeypatch.setattr("nstgpu.kernels.cuda.runtime.driver.gpu_is_there", lambda: False)
    caplog.clear()
    assert open_device("auto").name == "cpu"
    assert not caplog.text


@pytest.mark.usefixtures("cupy")
def test_memory_of_elsewhere_is_refused() -> None:
    device = CudaDevice(CudaRuntime())
    with pytest.raises(ValueError, match="clamp: image is a ndarray, not memory of the GPU"):
        device.clamp(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ValueError, match="clamp: image lies on GPU 1, not on GPU 0"):
        device.clamp(FakeArray((48,), np.uint8, device=1).view(np.float32))


def test_a_launch_that_fails_names_the_kernel(cupy: type[FakeCupy]) -> None:
    device = CudaDevice(CudaRuntime())
    image = floats(device, 2, 2, 3)
    cupy.failure = "launch"
    with pytest.raises(
        DeviceError, match=r"launching kernel 'clamp_pixels' \(grid .*\): CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
    ):
        device.clamp(image)
    with pytest.raises(DeviceError, match="there is no kernel 'missing'"):
        CudaRuntime().launch(Launch("missing", (1, 1, 1), (1, 1, 1), ()))


def test_a_kernel_that_fails_later_is_among_those_named(cupy: type[FakeCupy]) -> None:
    device = CudaDevice(CudaRuntime())
    image = floats(device, 2, 2, 3)
    device.clamp(image)
    device.download(image)
    device.zero(image)
    device.descent_step(image, image, learning_rate=1.0)
    cupy.failure = "asynchronous"
    with pytest.raises(DeviceError, match=r"IllegalAddress, .*\(zero_memory, descent_step\)"):
        device.download(image)


def test_much_shared_memory_is_asked_for_once(cupy: type[FakeCupy]) -> None:
    runtime = CudaRuntime()
    memory = runtime.allocate(16)
    for nbytes in (0, 48 << 10, 64 << 10, 64 << 10):
        runtime.launch(Launch("zero_memory", (1, 1, 1), (32, 1, 1), (memory, np.int64(16)), nbytes))
    assert cupy.attributes == [("zero_memory", cupy_runtime.MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10)]


def test_a_full_gpu_is_one_line(cupy: type[FakeCupy], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    runtime = CudaRuntime()
    monkeypatch.setattr(cupy, "ndarray", full)
    with pytest.raises(DeviceError, match="the GPU has no 3 MiB left; choose a smaller size"):
        runtime.allocate(3 << 20)
