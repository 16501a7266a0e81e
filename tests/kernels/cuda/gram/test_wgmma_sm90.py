"""The Gram matrix on Hopper's tensor cores (kernels/cuda/gram/launch_wgmma_sm90.py, cuda/gram/wgmma_sm90.cuh)
against the reference in float64, on the emulator and on a GPU of compute capability 9.0 where there is one. The
emulated wgmma reads matrices that lie across by PTX's canonical layouts; conv3x3/test_wgmma_layout.py has the
descriptors, conv3x3/test_wgmma_sm90.py what the compiler makes of it, and test_device_16bit.py a whole gradient.

Small integers show that every number is where it belongs, for their sums are exact.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.devices import OfLibrary, held
from nstgpu.kernels.cuda import self_test
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as hopper
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import MULTIPROCESSORS
from nstgpu.kernels.cuda.gram import launch_wgmma_sm90 as wgmma_gram
from nstgpu.kernels.cuda.runtime import nvrtc, tensor_map
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.runtime.tensor_map import Element
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.emulator import KernelFault, NoCompilerError, compile_library
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference

Shape = tuple[int, int, int]
Runtimes = Callable[..., Runtime]

# (H, W, C), slices: one pixel; channels that end within a box, that fill one, that end within another tile; up to more
# steps than stages.
CASES: list[tuple[Shape, int]] = [
    ((1, 1, 8), 1),
    ((33, 17, 8), 4),
    ((16, 16, 64), 2),
    ((33, 17, 64), 5),
    ((33, 35, 64), 1),
    ((1, 1, 72), 1),
    ((33, 17, 72), 1),
    ((33, 17, 72), 9),
    ((5, 13, 136), 2),
    ((33, 17, 136), 3),
]


def gram_by(runtime: Runtime, features: Any, element: Element, split_k: int | None = None) -> Any:
    """Of float32 features that the element type holds exactly."""
    height, width, channels = features.shape
    out = held(runtime, np.full((channels, channels), np.nan, np.float32))
    needed = wgmma_gram.choose_gram(height, width, channels, split_k).nbytes
    workspace = held(runtime, np.full(needed, 0xEE, np.uint8))
    features = held(runtime, rounded(features, element))
    for launch in wgmma_gram.gram(features, out, workspace, tensor_map.target_of(runtime), split_k):
        runtime.launch(launch)
    return runtime.download(out)


def integers(shape: Shape) -> Any:
    return np.random.default_rng(0).integers(-7, 8, shape).astype(np.float32)


def exact(features: Any) -> Any:
    """Of integers, as the kernels have it: the sums divided by rounding once."""
    flat = features.reshape(-1, features.shape[2]).astype(np.float64)
    return (flat.T @ flat).astype(np.float32) * np.float32(1 / len(flat))


@pytest.mark.parametrize("element", ["bf16", "fp16"])
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_the_gram_of_integers_is_exact_and_symmetric(
    on_hopper: Runtime, shape: Shape, split_k: int, element: Element
) -> None:
    features = integers(shape)
    result = gram_by(on_hopper, features, element, split_k)
    np.testing.assert_array_equal(result, exact(features))
    np.testing.assert_array_equal(result, result.T)


@pytest.mark.parametrize("element", ["bf16", "fp16"])
def test_sums_are_as_good_as_fp32_is(on_hopper: Runtime, element: Element) -> None:
    shape = (33, 17, 136)
    features = widened(rounded(np.random.default_rng(1).standard_normal(shape, np.float32), element), element)
    expected, sizes = np.empty((136, 136)), np.empty((136, 136))
    Reference().gram(features.astype(np.float64), expected)
    Reference().gram(np.abs(features).astype(np.float64), sizes)
    result = gram_by(on_hopper, features, element)
    np.testing.assert_array_equal(result, result.T)
    share = float(np.max(np.abs(result - expected) / sizes)) / (2.0**-23 * (shape[0] * shape[1] / 4 + 4))
    print(f"{share:.1%} of the bound")
    assert share <= 1


def test_what_is_not_a_number_stays_in_its_channel(on_hopper: Runtime) -> None:
    """And what boxes bring from beyond the features is zero, though the workspace before it is not."""
    features = integers((5, 7, 72))
    features[4, 6, 65] = np.nan
    expected = np.zeros((72, 72), bool)
    expected[65] = expected[:, 65] = True
    np.testing.assert_array_equal(np.isnan(gram_by(on_hopper, features, "bf16")), expected)


@pytest.mark.parametrize("shape", [(33, 17, 64), (16, 17, 136)], ids=str)
def test_results_do_not_depend_on_the_order_of_lanes(hopper_called: Runtimes, shape: Shape) -> None:
    features = np.random.default_rng(2).standard_normal(shape, np.float32)
    first, other = (gram_by(hopper_called("emulator", seed=seed), features, "bf16", 2) for seed in (0, 7))
    np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("shape", [(9, 17, 64), (9, 17, 136)], ids=str)
def test_the_checking_build_has_nothing_to_say(hopper_called: Runtimes, shape: Shape) -> None:
    features = integers(shape)
    np.testing.assert_array_equal(gram_by(hopper_called("checked"), features, "fp16", 2), exact(features))


# ---- the emulator would show it -------------------------------------------------------------------------------------
MISTAKES = {  # a part of a line of gram/wgmma_sm90.cuh or conv3x3/wgmma_layout.cuh, and what becomes of it
    "no wait for pixels": ("ptx::mbarrier_wait(full(ring.stage), ring.parity);", ""),
    "no wait for a free stage": ("ptx::mbarrier_wait(empty(ring.stage), ring.parity ^ 1);", ""),
    "the phase before": (
        "ptx::mbarrier_wait(full(ring.stage), ring.parity);",
        "ptx::mbarrier_wait(full(ring.stage), ring.parity ^ 1);",
    ),
    "a stage given back too early": ("ptx::wgmma_wait_group<1>();", "ptx::wgmma_wait_group<2>();"),
    "sums read too early": ("ptx::wgmma_wait_group<0>();", ""),
    "an operand that does not lie across": ("ptx::wgmma<Element, true>", "ptx::wgmma<Element, false>"),
    "distances of the other way round": (
        "uint64_t{group_bytes >> 4} << 32 | uint64_t{block_bytes >> 4} << 16",
        "uint64_t{group_bytes >> 4} << 16 | uint64_t{block_bytes >> 4} << 32",
    ),
}


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_the_emulator_shows_a_mistake(mistake: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a kernel faults, or computes something else; without one it does neither."""
    line, instead = MISTAKES[mistake] if mistake else ("ptx::wgmma_commit_group();", "ptx::wgmma_commit_group();")
    folder = tmp_path / "cuda"
    for room in ("common", "conv3x3", "gram"):
        (folder / room).mkdir(parents=True)
    (tmp_path / "emulator").symlink_to(nvrtc.FOLDER.parent / "emulator")
    texts = {name: (nvrtc.FOLDER / name).read_text() for name in ("gram/wgmma_sm90.cuh", "conv3x3/wgmma_layout.cuh")}
    assert sum(text.count(line) for text in texts.values()) == 1
    for name in (f"common/{header}.cuh" for header in ("element", "platform", "tensor_map", "tile_constants")):
        (folder / name).symlink_to(nvrtc.FOLDER / name)
    (folder / "gram/upper_triangle.cuh").symlink_to(nvrtc.FOLDER / "gram/upper_triangle.cuh")
    for name, text in texts.items():
        (folder / name).write_text(text.replace(line, instead))
    source = folder / "one.cu"
    source.write_text(
        '#include "gram/wgmma_sm90.cuh"\nGRAM_WGMMA_SM90(gram_wgmma_sm90_bf16_128x128, bf16, GramTile128x128)\n'
    )
    monkeypatch.setenv("NSTGPU_CXXFLAGS", "-O1")  # compiles faster
    try:
        runtime = OfLibrary(compile_library([source, nvrtc.FOLDER / "gram/simt.cu"]))
    except NoCompilerError as error:
        pytest.skip(str(error))
    features = integers((33, 17, 136))
    try:
        result = gram_by(runtime, features, "bf16", 1)
    except KernelFault as fault:
        print(fault)
        assert mistake is not None
        return
    assert np.array_equal(result, exact(features)) == (mistake is None)


# ---- the self-test --------------------------------------------------------------------------------------------------
def test_the_self_test_names_a_gram_that_is_wrong(hopper_called: Runtimes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "TILES", ())
    runtime = hopper_called("emulator")
    assert self_test.problem_with(runtime) is None
    launched = runtime.launch

    def launch(launch: Launch) -> None:
        if launch.kernel == "gram_wgmma_sm90_fp16_128x128":  # forgets the last pixels
            launch = launch._replace(args=(*launch.args[:2], np.int32(384), *launch.args[3:]))
        launched(launch)

    monkeypatch.setattr(runtime, "launch", launch)
    problem = self_test.problem_with(runtime)
    assert problem is not None
    assert re.fullmatch(r"gram 128x128 in fp16, 1 slices: off by [\d.]+ of the largest value", problem)


# ---- through the device ---------------------------------------------------------------------------------------------
def test_the_device_takes_it_where_nothing_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights, mma.sync has it; both find the workspace large enough."""
    monkeypatch.setattr(self_test, "known_problem", lambda *_: None)
    launched: list[str] = []
    try:
        device = CudaDevice(
            EmulatorRuntime("bf16"), "bf16", wgmma=True, on_launch=lambda at: launched.append(at.kernel)
        )
    except DeviceError as error:
        pytest.skip(str(error))
    features = integers((9, 17, 72))
    shape = (9, 17, 64, 72)
    device.bind_workspace(device.allocate(device.workspace_bytes([shape])))
    on_device, out = device.allocate(features.size * 2).view(np.uint16), device.allocate(72 * 72 * 4).view(np.float32)
    on_device, out = on_device.reshape(features.shape), out.reshape(72, 72)
    device.upload(features, on_device)
    device.gram(on_device, out)
    np.testing.assert_array_equal(device.download(out), exact(features))
    weights = device.allocate(9 * 17 * 4).view(np.float32).reshape(9, 17)
    device.upload(np.full((9, 17), 2, np.float32), weights)
    device.gram(on_device, out, weights=weights)
    np.testing.assert_array_equal(device.download(out), 2 * exact(features))
    assert [kernel for kernel in launched if "gram" in kernel] == [
        "gram_wgmma_sm90_bf16_128x128", "gram_by_16_split_k_sum", "gram_mma_sm80_bf16_128x128", "gram_by_16_split_k_sum"
    ]  # fmt: skip


# ---- tiles, slices, tensor maps -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "variant", "tiles", "split_k"),
    [((512, 512, 64), "64x64", 1, 132), ((256, 256, 128), "128x128", 1, 132), ((128, 128, 256), "128x128", 3, 44),
     ((64, 64, 512), "128x128", 10, 13), ((32, 32, 512), "128x128", 10, 4), ((1, 1, 8), "64x64", 1, 1)],
    ids=str,
)  # fmt: skip
def test_the_tiles_for_a_shape(shape: Shape, variant: str, tiles: int, split_k: int) -> None:
    work = wgmma_gram.choose_gram(*shape)
    assert (work.variant, work.tiles, work.split_k) == (variant, tiles, split_k)
    assert work.tiles * work.split_k <= MULTIPROCESSORS
    assert wgmma_gram.gram_workspace_bytes(*shape) == tiles * split_k * work.side**2 * 4


def test_what_cannot_be_launched_is_refused(hopper_called: Runtimes) -> None:
    assert wgmma_gram.serves(72)
    assert not wgmma_gram.serves(12)
    with pytest.raises(ValueError, match="4 slices of 3 steps"):
        wgmma_gram.choose_gram(8, 17, 128, 4)
    runtime = hopper_called("emulator")
    features, out = held(runtime, np.zeros((2, 2, 64), np.uint16)), held(runtime, np.zeros((64, 64), np.float32))
    with pytest.raises(ValueError, match="the workspace has 16383 bytes of 16384"):
        wgmma_gram.gram(features, out, np.zeros(16383, np.uint8), tensor_map.target_of(runtime))


def test_pixels_are_counted_through_by_the_tensor_map() -> None:
    features = wgmma_gram.features_map(4096, "fp16", (33, 17, 72), wgmma_gram.GRAM_TILES[1])
    assert features == tensor_map.TensorMap(4096, "fp16", (72, 33 * 17, 1), (64, 64, 1))
    assert features.pitches == (144, 144 * 33 * 17)
