"""The Hopper convolutions of float32 activations (kernels/cuda/conv3x3/launch_wgmma_fp32_sm90.py): every kernel against
the reference in float64, on the emulator and on a GPU of compute capability 9.0 where there is one; scales, packing and
tiles as plain arithmetic; and what the compiler makes of the main loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.arrays import layer, random
from harness.cubins import instructions
from harness.devices import OfLibrary, empty, held
from nstgpu.kernels.cuda import self_test
from nstgpu.kernels.cuda.conv3x3 import launch_simt as convolution
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_fp32_sm90 as hopper
from nstgpu.kernels.cuda.conv3x3.launch_mma_sm80 import TensorFilters
from nstgpu.kernels.cuda.conv3x3.launch_wgmma_fp32_sm90 import PAIRS, SINGLE, ConvPlan, Precision, Tile
from nstgpu.kernels.cuda.conv3x3.launch_wgmma_sm90 import BOX_HEIGHT, THREADS
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import MULTIPROCESSORS, WGMMA_PER_CLOCK
from nstgpu.kernels.cuda.runtime import nvrtc, tensor_map
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.device import Pooling
from nstgpu.kernels.emulator import KernelFault, NoCompilerError, compile_library
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference

Shape4 = tuple[int, int, int, int]
Runtimes = Callable[..., Runtime]
reference = Reference()
TILES = (*SINGLE, *PAIRS)
each_tile = pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.precision}-{tile.variant}")

# Of the largest number, at most; and of the root mean square. tf32 has 11 bits, a pair 22, float32's sums 24.
LARGEST_ERROR = {"tf32": 2e-3, "3xtf32": 2e-6}
TYPICAL_ERROR = {"tf32": 5e-4, "3xtf32": 5e-7}

# (H, W, C_in, C_out), slices: odd sides, a pixel and eight channels over a tile, less than a box, many items a block.
CASES: list[tuple[Shape4, int]] = [
    ((17, 11, 72, 136), 1),
    ((33, 18, 40, 64), 3),
    ((5, 7, 8, 16), 1),
    ((1, 1, 136, 8), 4),
    ((17, 18, 16, 72), 1),
]


def near(ours: Any, expected: Any, precision: Precision) -> None:
    error = ours - expected
    assert np.max(np.abs(error)) <= LARGEST_ERROR[precision] * np.max(np.abs(expected))
    assert np.mean(error**2) <= TYPICAL_ERROR[precision] ** 2 * np.mean(expected**2)


def packed(runtime: Runtime, kernel: Any, bias: Any, precision: Precision) -> hopper.PackedFilters:
    filters = hopper.pack_filters(kernel.astype(np.float32), bias.astype(np.float32), precision)
    on_device = {name: held(runtime, getattr(filters, name)) for name in ("forward", "backward", "bias")}
    return filters._replace(**on_device)


def cut_up(tile: Tile, shape: Shape4, split_k: int = 1) -> ConvPlan:
    """In as many slices as there are k-tiles for."""
    return hopper.cut_up(tile, *shape, min(split_k, 3 * -(-shape[2] // tile.k_tile_channels)))


def run(runtime: Runtime, launches: list[Launch]) -> None:
    for launch in launches:
        runtime.launch(launch)


# ---- forward --------------------------------------------------------------------------------------------------------
def forward(runtime: Runtime, shape: Shape4, work: ConvPlan, pooling: Pooling, wanted: str, blocks: int = 2,
            inputs: tuple[Any, Any, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What conv3x3_relu leaves behind, of "out", "relu_mask", "pooled" and "pool_argmax"; and the reference's."""
    height, width, _, channels = shape
    x, kernel, bias = (values.astype(np.float32) for values in (inputs or layer(shape)))
    filters = packed(runtime, kernel, bias, work.tile.precision)
    pooled = (height // 2, width // 2, channels)
    layouts: dict[str, Any] = {
        "out": ((height, width, channels), np.float32),
        "relu_mask": convolution.relu_mask_layout((height, width, channels)),
        "pooled": (pooled, np.float32),
        "pool_argmax": convolution.pool_argmax_layout(pooled),
    }
    names = wanted.split()
    buffers = {name: empty(runtime, *layouts[name]) if name in names else None for name in layouts}
    workspace = empty(runtime, (hopper.partial_bytes(work, height, width, channels),), np.uint8)
    x_held = held(runtime, x)
    run(runtime, hopper.conv3x3_relu(x_held, filters, pooling=pooling, workspace=workspace, work=work,
                                     target=tensor_map.target_of(runtime, blocks), **buffers))  # fmt: skip
    expected = {
        "out": np.empty((height, width, channels)), "relu_mask": np.empty((height, width, channels), bool),
        "pooled": np.empty(pooled), "pool_argmax": np.empty(pooled, np.uint8),
    }  # fmt: skip
    exact = reference.pack_filters(kernel.astype(np.float64), bias.astype(np.float64))
    reference.conv3x3_relu(x.astype(np.float64), exact, pooling=pooling, **expected)
    return {name: runtime.download(buffers[name]) for name in names}, expected


def check_forward(runtime: Runtime, shape: Shape4, work: ConvPlan, pooling: Pooling, wanted: str) -> None:
    results, expected = forward(runtime, shape, work, pooling, wanted)
    precision, y = work.tile.precision, expected["out"]
    unsure = 2 * LARGEST_ERROR[precision] * np.max(y)  # decisions this near to the edge may be rounding's
    if "out" in results:
        near(results["out"], y, precision)
    if "relu_mask" in results:
        relu_mask = np.unpackbits(results["relu_mask"], axis=2, bitorder="little").astype(bool)
        sure = y > unsure
        np.testing.assert_array_equal(relu_mask[sure], expected["relu_mask"][sure])
        if "out" in results:
            np.testing.assert_array_equal(relu_mask, results["out"] > 0)
    if "pooled" in results and results["pooled"].size:
        near(results["pooled"], expected["pooled"], precision)
    if "pool_argmax" in results and results["pool_argmax"].size:
        picked = results["pool_argmax"][..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
        picked = picked.reshape(expected["pool_argmax"].shape)
        height, width = (side // 2 * 2 for side in shape[:2])
        quads = np.sort([y[r:height:2, s:width:2] for r in range(2) for s in range(2)], axis=0)
        sure = quads[3] - quads[2] > unsure
        np.testing.assert_array_equal(picked[sure], expected["pool_argmax"][sure])


@each_tile
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_forward(on_hopper_fp32: Runtime, shape: Shape4, split_k: int, tile: Tile) -> None:
    check_forward(on_hopper_fp32, shape, cut_up(tile, shape, split_k), "max", "out relu_mask pooled pool_argmax")


@pytest.mark.parametrize("split_k", [1, 2])
@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [("max", "relu_mask"), ("max", "pooled pool_argmax"), ("average", "out pooled"), ("average", "pooled")],
)
@each_tile
def test_forward_stores_what_is_wanted(
    on_hopper_fp32: Runtime, tile: Tile, pooling: Pooling, wanted: str, split_k: int
) -> None:
    shape = (9, 12, 16, 72)
    check_forward(on_hopper_fp32, shape, cut_up(tile, shape, split_k), pooling, wanted)


@each_tile
def test_small_whole_numbers_are_exact(on_hopper_fp32: Runtime, tile: Tile) -> None:
    """Each other by its place, so that a number in the wrong place shows."""
    shape = (17, 11, 72, 136)
    draw = np.random.default_rng(2)
    inputs: Any = tuple(draw.integers(-9, 10, size) for size in ((17, 11, 72), (3, 3, 72, 136), (136,)))
    results, expected = forward(on_hopper_fp32, shape, cut_up(tile, shape), "max", "out", inputs=inputs)
    np.testing.assert_array_equal(results["out"], expected["out"])


@pytest.mark.parametrize(("of_pixels", "of_filters"), [(1e-30, 1e20), (1e30, 1e-20), (1e-20, 1e-12), (3e5, 3e5)])
@each_tile
def test_any_size_of_numbers(on_hopper_fp32: Runtime, tile: Tile, of_pixels: float, of_filters: float) -> None:
    """fp16 itself reaches from 6e-8 to 65504."""
    shape = (3, 9, 40, 16)
    x, kernel, bias = layer(shape)
    inputs = x * of_pixels, kernel * of_filters, bias * of_pixels * of_filters
    results, expected = forward(on_hopper_fp32, shape, cut_up(tile, shape), "max", "out", inputs=inputs)
    near(results["out"], expected["out"], tile.precision)


@each_tile
def test_small_numbers_beside_large_ones(on_hopper_fp32: Runtime, tile: Tile) -> None:
    """Of a pixel as of the filters."""
    shape = (3, 9, 40, 16)
    x, kernel, bias = layer(shape)
    x[..., ::2] *= 2.0**-16
    kernel[:, :, 1::2] *= 2.0**-16
    results, expected = forward(on_hopper_fp32, shape, cut_up(tile, shape), "max", "out", inputs=(x, kernel, 0 * bias))
    near(results["out"], expected["out"], tile.precision)


@each_tile
def test_what_is_not_a_number_stays_so(on_hopper_fp32: Runtime, tile: Tile) -> None:
    """And nowhere else: what the boxes bring from outside of the image is zero."""
    shape = (9, 9, 16, 8)
    x, kernel, bias = layer(shape)
    x[4, 4, 0] = np.nan
    results, _ = forward(on_hopper_fp32, shape, cut_up(tile, shape), "max", "out", inputs=(x, kernel, bias))
    expected = np.zeros((9, 9, 8), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(results["out"]), expected)


@each_tile
def test_results_do_not_depend_on_how_many_blocks_there_are(on_hopper_fp32: Runtime, tile: Tile) -> None:
    shape = (17, 18, 40, 136)
    one, many = (forward(on_hopper_fp32, shape, cut_up(tile, shape), "max", "out relu_mask", n)[0] for n in (1, 132))
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])


@each_tile
def test_results_do_not_depend_on_the_order_of_lanes(hopper_fp32_called: Runtimes, tile: Tile) -> None:
    shape = (17, 11, 40, 136)
    first, other = (
        forward(hopper_fp32_called("emulator", seed=seed), shape, cut_up(tile, shape), "max", "out pool_argmax")[0]
        for seed in (0, 7)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], other[name])


@each_tile
def test_the_checking_build_has_nothing_to_say(hopper_fp32_called: Runtimes, tile: Tile) -> None:
    runtime, shape = hopper_fp32_called("checked"), (17, 18, 16, 72)
    for split_k in (1, 2):
        check_forward(runtime, shape, cut_up(tile, shape, split_k), "max", "out relu_mask pooled pool_argmax")
    check_backward(runtime, shape, cut_up(tile, (17, 18, 72, 16)), True, True)


# ---- the emulator would show it -------------------------------------------------------------------------------------
MISTAKES = {  # a line of the source, and what becomes of it
    "no wait for pixels": ("if (step == 0) ptx::mbarrier_wait(memory.pixels_full(pixels.stage), pixels.parity);", ""),
    "no wait for filters": (
        "if (step == 0) ptx::mbarrier_wait(memory.filters_full(filters.stage), filters.parity);",
        "",
    ),
    "sums read too early": ("ptx::wgmma_wait_group<0>();", "ptx::wgmma_wait_group<1>();"),
    "operands overwritten": ("Fragments& next = fragments[(step + 1) % buffers];", "Fragments& next = now;"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_emulator_shows_a_mistake(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a kernel faults, or computes something else."""
    line, instead = MISTAKES[mistake]
    text = (nvrtc.FOLDER / "conv3x3/wgmma_fp32_sm90.cuh").read_text()
    assert line in text
    header = tmp_path / "broken.cuh"
    header.write_text(text.replace(line, instead))
    source = tmp_path / "one.cu"
    kernel = "CONV3X3_RELU_WGMMA_FP32_SM90(conv3x3_relu_wgmma_sm90_3xtf32_256x64, Pairs256x64)"
    source.write_text(f'#include "{header}"\n{kernel}\n')
    monkeypatch.setenv("NSTGPU_CXXFLAGS", "-O1")  # compiles faster
    try:
        runtime = OfLibrary(compile_library([source]))
    except NoCompilerError as error:
        pytest.skip(str(error))
    shape = (17, 18, 72, 16)
    try:
        results, expected = forward(runtime, shape, cut_up(PAIRS[1], shape), "max", "out")
    except KernelFault:
        return
    assert not np.allclose(results["out"], expected["out"], atol=1e-3)


# ---- backward -------------------------------------------------------------------------------------------------------
def check_backward(runtime: Runtime, shape: Shape4, work: ConvPlan, masked: bool, accumulate: bool) -> None:
    height, width, channels_in, channels_out = shape
    _, kernel, bias = layer(shape)
    kernel = (kernel * np.sqrt(channels_in / channels_out)).astype(np.float32)
    filters = packed(runtime, kernel, bias, work.tile.precision)
    gradient = random(height, width, channels_out, seed=3)
    before = random(height, width, channels_in, seed=4)
    relu_mask = random(height, width, channels_in, seed=5) > 0 if masked else None
    out = held(runtime, before) if accumulate else empty(runtime, before.shape)
    bits = None if relu_mask is None else held(runtime, np.packbits(relu_mask, axis=2, bitorder="little"))
    workspace = empty(runtime, (hopper.partial_bytes(work, height, width, channels_in),), np.uint8)
    gradient_held = held(runtime, gradient)
    run(runtime, hopper.conv3x3_input_gradient(gradient_held, filters, out=out, relu_mask=bits, accumulate=accumulate,
                                               workspace=workspace, target=tensor_map.target_of(runtime, 3),
                                               work=work))  # fmt: skip
    expected = before.astype(np.float64)
    exact = reference.pack_filters(kernel.astype(np.float64), bias.astype(np.float64))
    reference.conv3x3_input_gradient(
        gradient.astype(np.float64), exact, out=expected, relu_mask=relu_mask, accumulate=accumulate
    )
    ours = runtime.download(out)
    near(ours, expected, work.tile.precision)
    if relu_mask is not None:
        assert not ours[~relu_mask].any()


@each_tile
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_backward(on_hopper_fp32: Runtime, shape: Shape4, split_k: int, tile: Tile) -> None:
    height, width, channels_in, channels_out = shape
    work = cut_up(tile, (height, width, channels_out, channels_in), split_k)
    check_backward(on_hopper_fp32, shape, work, masked=True, accumulate=True)


@pytest.mark.parametrize("split_k", [1, 2])
@pytest.mark.parametrize(("masked", "accumulate"), [(True, False), (False, True), (False, False)])
def test_backward_masks_and_accumulates_as_asked(
    on_hopper_fp32: Runtime, masked: bool, accumulate: bool, split_k: int
) -> None:
    for tile in TILES:
        check_backward(on_hopper_fp32, (9, 12, 72, 16), cut_up(tile, (9, 12, 16, 72), split_k), masked, accumulate)


# ---- the self-test and the device -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_self_test_finds_nothing(on_hopper_fp32: Runtime) -> None:
    precisions = ["tf32", "3xtf32"] if on_hopper_fp32.measurable else ["tf32"]  # to emulate the other takes long
    assert self_test.problem_with(on_hopper_fp32, 3, precisions) is None


def test_the_self_test_names_a_kernel_that_is_wrong(hopper_fp32_called: Runtimes) -> None:
    runtime = hopper_fp32_called("emulator")
    launched = runtime.launch

    def launch(launch: Launch) -> None:
        if "wgmma" in launch.kernel:  # with another scale of the filters
            launch = launch._replace(args=(*launch.args[:-1], np.float32(2 * float(launch.args[-1]))))  # type: ignore[arg-type]
        launched(launch)

    runtime.launch = launch  # type: ignore[method-assign]
    problem = self_test.problem_with(runtime, 3, ["3xtf32"])
    assert problem == "tile 128x128 in 3xtf32, 1 slices: off by 1 of the largest value"


@pytest.mark.parametrize("problem", [None, "tile 256x64 in tf32: no"])
def test_a_device_takes_them_after_a_test(
    hopper_fp32_called: Runtimes, problem: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And packs what they cannot take, an image's channels, for others."""
    tested: list[str] = []

    def known_problem(_: Runtime, precision: str) -> str | None:
        tested.append(precision)
        return problem

    monkeypatch.setattr(self_test, "known_problem", known_problem)
    device = CudaDevice(hopper_fp32_called("emulator"), "tf32", wgmma=True)
    filters = device.pack_filters(random(3, 3, 8, 16), random(16))
    assert isinstance(filters, TensorFilters if problem else hopper.PackedFilters)
    assert isinstance(device.pack_filters(random(3, 3, 3, 16), random(16)), convolution.PackedFilters)
    assert tested == ["tf32"]
    assert [record.message.endswith(str(problem)) for record in caplog.records] == [True] * (problem is not None)
    shape = (9, 11, 8, 16)
    device.bind_workspace(device.allocate(device.workspace_bytes([shape])))
    x, y, back = random(9, 11, 8, seed=1), empty(device, (9, 11, 16)), empty(device, (9, 11, 8))
    device.conv3x3_relu(held(device, x), filters, out=y, relu_mask=None, pooling="max", pooled=None, pool_argmax=None)
    device.conv3x3_input_gradient(y, filters, out=back, relu_mask=None, accumulate=False)
    exact = reference.pack_filters(random(3, 3, 8, 16).astype(np.float64), random(16).astype(np.float64))
    expected = np.empty((9, 11, 16))
    reference.conv3x3_relu(
        x.astype(np.float64), exact, out=expected, relu_mask=None, pooling="max", pooled=None, pool_argmax=None
    )
    near(device.download(y), expected, "tf32")
    assert np.isfinite(device.download(back)).all()


def test_the_emulator_takes_them_only_when_asked(hopper_fp32_called: Runtimes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "known_problem", lambda *_: pytest.fail("nobody should test the kernels"))
    device = CudaDevice(hopper_fp32_called("emulator"), "3xtf32")
    assert isinstance(device.pack_filters(random(3, 3, 8, 16), random(16)), TensorFilters)


# ---- filters, tiles, slices -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
def test_packed_filters_hold_every_weight_in_its_place(precision: Precision) -> None:
    kernel = random(3, 3, 72, 40)
    filters = hopper.pack_filters(kernel, np.ones(40, np.float32), precision)
    depth, blocks = hopper.k_tile_channels(precision), {"tf32": 2, "3xtf32": 3}[precision]
    assert (filters.forward.shape, filters.backward.shape) == (
        (9 * blocks, 40, 64),
        (9 * (1 if depth == 64 else 2), 72, 64),
    )
    assert filters.unscale * 2.0**14 <= np.max(np.abs(kernel)) < filters.unscale * 2.0**15

    def weight(of: Any, r: int, s: int, channel: int, number: int) -> float:
        block, place = divmod(channel, depth)
        place = place // 16 * 16 + list(hopper.PLACES).index(place % 16)
        row = of[(3 * block + s) * 3 + r, number].astype(np.float64)
        return float((row[place] + (row[32 + place] if precision == "3xtf32" else 0)) * filters.unscale)

    tolerance = {"tf32": 2.0**-11, "3xtf32": 2.0**-22}[precision]
    for r, s, c, k in [(0, 0, 0, 0), (2, 1, 71, 39), (1, 2, 33, 7), (0, 2, 13, 21), (2, 0, 50, 12)]:
        assert weight(filters.forward, r, s, c, k) == pytest.approx(kernel[r, s, c, k], rel=tolerance)
        assert weight(filters.backward, 2 - r, 2 - s, k, c) == pytest.approx(kernel[r, s, c, k], rel=tolerance)


def test_filters_of_zeros_and_of_what_is_no_number() -> None:
    zeros = hopper.pack_filters(np.zeros((3, 3, 8, 8), np.float32), np.zeros(8, np.float32), "3xtf32")
    assert not zeros.forward.any()
    assert np.isfinite(zeros.unscale)
    kernel = random(3, 3, 8, 8)
    kernel[1, 1, 2, 3] = np.nan
    assert np.isnan(hopper.pack_filters(kernel, np.zeros(8, np.float32), "3xtf32").forward[4, 3]).any()


def test_channels_must_be_multiples_of_eight() -> None:
    assert hopper.serves(64, 8)
    assert not hopper.serves(3, 64)
    with pytest.raises(ValueError, match="12 to 64 channels; both must be multiples of 8"):
        hopper.pack_filters(np.zeros((3, 3, 12, 64), np.float32), np.zeros(64, np.float32), "tf32")


@pytest.mark.parametrize(
    ("shape", "variant", "split_k"),
    [((512, 512, 64, 64), "256x64", 1), ((256, 256, 128, 64), "256x64", 1), ((128, 128, 256, 256), "128x128", 1),
     ((64, 64, 512, 512), "128x128", 1), ((32, 32, 512, 512), "128x128", 4)],
    ids=str,
)  # fmt: skip
def test_the_tile_for_a_shape(shape: Shape4, variant: str, split_k: int) -> None:
    work = hopper.choose_work(*shape, "3xtf32")
    assert (work.tile.variant, work.split_k) == (variant, split_k)


@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
@pytest.mark.parametrize("side", [256, 512, 1024])
def test_the_reckoning_promises_no_more_than_the_tensor_cores_have(side: int, precision: Precision) -> None:
    for block, channels in [(1, 64), (2, 128), (4, 256), (8, 512), (16, 512)]:
        shape = (side // block, side // block, channels, channels)
        work = hopper.choose_work(*shape, precision)
        products = {"tf32": 1, "3xtf32": 3}[precision]
        least = products * 9 * np.prod(shape, dtype=float) / WGMMA_PER_CLOCK / MULTIPROCESSORS
        assert least < hopper.reckoned_clocks(work, channels)


@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (37, 50, 72, 136), (4096, 4096, 64, 64), (16, 16, 512, 512)], ids=str)
def test_work_covers_everything_and_slices_fill_at_most_one_wave(shape: Shape4, precision: Precision) -> None:
    work = hopper.choose_work(*shape, precision)
    assert 0 <= work.down * BOX_HEIGHT - shape[0] < BOX_HEIGHT
    assert 0 <= work.across * work.tile.width - shape[1] < work.tile.width
    assert 0 <= work.channel_tiles * work.tile.channels - shape[3] < work.tile.channels
    assert work.split_k == 1 or work.items <= MULTIPROCESSORS
    assert hopper.workspace_bytes(*shape, precision) >= hopper.partial_bytes(work, shape[0], shape[1], shape[3])


def test_more_slices_than_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="4 slices of 3 steps"):
        hopper.cut_up(SINGLE[0], 8, 8, 64, 64, 4)


# ---- what the compiler makes of it ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cubin() -> nvrtc.Cubin:
    try:
        (compiled,) = nvrtc.compile_sources([nvrtc.FOLDER / "instantiations/sm90_fp32.cu"], "sm_90a")
    except DeviceError as error:
        pytest.skip(str(error))
    return compiled


# The lower twelve bits of an instruction name it. HGMMA takes its first operand from registers.
OPCODES = {0xDF0: "HGMMA", 0x9F0: "HGMMA of shared memory", 0x9C8: "USETMAXREG", 0x5B4: "UTMALDG", 0x23C: "HMMA"}


@pytest.mark.slow
def test_nothing_spills_and_no_product_is_serialised(cubin: nvrtc.Cubin) -> None:
    """C7508: setmaxnreg ignored; C7510 and its like: products that wait for each other."""
    assert len(cubin.kernels) == 2 * len(TILES)
    assert not cubin.warnings
    for taken in cubin.kernels.values():
        assert taken.spill_bytes == taken.stack_bytes == 0
        assert taken.registers == 65536 // THREADS // 8 * 8  # what a block alone on its SM starts with


@pytest.mark.slow
def test_the_main_loop_is_made_of_tensor_core_instructions(cubin: nvrtc.Cubin) -> None:
    """Of a batch, for each tap and 16 channels, one product or three; as many batches as the loop has steps. A load for
    each box and for the filters; registers given and taken once."""
    found = instructions(cubin.image, OPCODES)
    for tile in TILES:
        halves = tile.k_tile_channels // 32
        batch = 18 if tile.precision == "3xtf32" else 12
        wanted = {"HGMMA": tile.boxes * batch, "USETMAXREG": 2, "UTMALDG": tile.boxes * halves + 1}
        for direction in ("relu", "input_gradient"):
            assert found[f"conv3x3_{direction}_wgmma_sm90_{tile.precision}_{tile.variant}"] == wanted
