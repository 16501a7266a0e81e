"""The Hopper convolutions (kernels/cuda/conv3x3/launch_wgmma_sm90.py, cuda/hopper_*.cu): every kernel against the
reference in float64, on the emulator and on a GPU of compute capability 9.0 where there is one; tiles, tensor maps and
packing as plain arithmetic; and what the compiler makes of the main loop."""

import ctypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.arrays import layer, random, within_bound
from harness.cubins import instructions, words
from harness.devices import OfLibrary, empty, held
from nstgpu.kernels.cuda import self_test
from nstgpu.kernels.cuda.conv3x3 import launch_simt as convolution
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as hopper
from nstgpu.kernels.cuda.conv3x3.launch_wgmma_sm90 import TILES, ConvPlan, Tile
from nstgpu.kernels.cuda.conv3x3.launch_wgmma_unpool_sm90 import TILES as UNPOOL_TILES
from nstgpu.kernels.cuda.gpu_spec import MULTIPROCESSORS
from nstgpu.kernels.cuda.gram import launch_wgmma_sm90 as wgmma_gram
from nstgpu.kernels.cuda.kernel_sets import WgmmaKernels
from nstgpu.kernels.cuda.runtime import nvrtc, tensor_map
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.runtime.tensor_map import Element
from nstgpu.kernels.cuda.storage import MEMORY, rounded, widened
from nstgpu.kernels.device import Pooling
from nstgpu.kernels.emulator import KernelFault, NoCompilerError, compile_library
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference

# What rounding the result to 16 bits takes, relative; and absolutely, what adding up in fp32 takes of the typical size.
HALF_STEP = {"bf16": 2.0**-8, "fp16": 2.0**-11}
EPSILON = float(np.finfo(np.float32).eps)
SLACK = 1.01

Shape4 = tuple[int, int, int, int]
Runtimes = Callable[..., Runtime]
reference = Reference()

# (H, W, C_in, C_out), slices: odd sides, a pixel and eight channels over a tile, less than a box, many items a block.
CASES: list[tuple[Shape4, int]] = [
    ((19, 21, 72, 136), 1),
    ((33, 18, 64, 64), 3),
    ((5, 7, 8, 16), 1),
    ((1, 1, 136, 8), 4),
    ((17, 34, 16, 264), 1),
]


def packed(runtime: Runtime, kernel: Any, bias: Any, element: Element) -> tuple[hopper.PackedFilters, Any]:
    """Filters on the device, and the (3, 3, C_in, C_out) kernel that they hold after rounding."""
    kernel = kernel.astype(np.float32)
    filters = hopper.pack_filters(kernel, bias.astype(np.float32), element)
    exact = widened(rounded(kernel, element), element).astype(np.float64)
    on_device = {name: held(runtime, getattr(filters, name)) for name in ("forward", "backward", "bias")}
    return filters._replace(**on_device), exact


def rounded_once(ours: Any, expected: Any, element: Element, terms: int) -> None:
    """Rounded once to 16 bits after a sum of `terms` terms in fp32 (whose size is about one)."""
    within_bound(ours, expected, SLACK * (HALF_STEP[element] * np.abs(expected) + 4 * EPSILON * np.sqrt(terms)))


def run(runtime: Runtime, launches: list[Launch]) -> None:
    for launch in launches:
        runtime.launch(launch)


# ---- forward --------------------------------------------------------------------------------------------------------
def forward(runtime: Runtime, shape: Shape4, element: Element, work: ConvPlan, pooling: Pooling, wanted: str,
            multiprocessors: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What conv3x3_relu leaves behind, of "out", "relu_mask", "pooled" and "pool_argmax", as bits; and the
    reference's."""
    height, width, _, channels = shape
    x, kernel, bias = layer(shape)
    x_bits = rounded(x, element)
    filters, exact = packed(runtime, kernel, bias, element)
    pooled = (height // 2, width // 2, channels)
    layouts: dict[str, Any] = {
        "out": ((height, width, channels), MEMORY[element]),
        "relu_mask": convolution.relu_mask_layout((height, width, channels)),
        "pooled": (pooled, MEMORY[element]),
        "pool_argmax": convolution.pool_argmax_layout(pooled),
    }
    names = wanted.split()
    buffers: dict[str, Any] = {name: empty(runtime, *layouts[name]) if name in names else None for name in layouts}
    workspace = empty(runtime, (hopper.partial_bytes(work, height, width, channels),), np.uint8)
    x_held = held(runtime, x_bits)
    run(runtime, hopper.conv3x3_relu(x_held, filters, pooling=pooling, workspace=workspace, work=work,
                                     target=tensor_map.target_of(runtime, multiprocessors), **buffers))  # fmt: skip
    expected = {
        "out": np.empty((height, width, channels)), "relu_mask": np.empty((height, width, channels), bool),
        "pooled": np.empty(pooled), "pool_argmax": np.empty(pooled, np.uint8),
    }  # fmt: skip
    reference.conv3x3_relu(widened(x_bits, element).astype(np.float64),
                           reference.pack_filters(exact, bias.astype(np.float64)), pooling=pooling,
                           **expected)  # fmt: skip
    return {name: runtime.download(buffers[name]) for name in names}, expected


def check_forward(
    runtime: Runtime, shape: Shape4, element: Element, work: ConvPlan, pooling: Pooling, wanted: str
) -> None:
    results, expected = forward(runtime, shape, element, work, pooling, wanted)
    channels, terms = shape[3], 9 * shape[2] + 1
    y = expected["out"]
    unsure = 8 * EPSILON * np.sqrt(terms)  # decisions this near to the edge may be rounding's
    if "out" in results:
        rounded_once(widened(results["out"], element), y, element, terms)
    if "relu_mask" in results:
        relu_mask = np.unpackbits(results["relu_mask"], axis=2, bitorder="little").astype(bool)
        np.testing.assert_array_equal(relu_mask | (np.abs(y) < unsure), expected["relu_mask"] | (np.abs(y) < unsure))
    if "pooled" in results:
        rounded_once(widened(results["pooled"], element), expected["pooled"], element, terms)
    if "pool_argmax" in results and results["pool_argmax"].size:
        picked = results["pool_argmax"][..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
        picked = picked.reshape(expected["pool_argmax"].shape)
        height, width = (side // 2 * 2 for side in shape[:2])
        quads = np.sort([y[r:height:2, s:width:2] for r in range(2) for s in range(2)], axis=0)
        sure = quads[3] - quads[2] > unsure
        np.testing.assert_array_equal(picked[sure], expected["pool_argmax"][sure])
        np.testing.assert_array_equal(picked[expected["pooled"] == 0], 0, "of equals the first")
    assert channels % 8 == 0


@pytest.mark.parametrize("element", ["bf16", "fp16"])
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_forward(on_hopper: Runtime, shape: Shape4, split_k: int, tile: Tile, element: Element) -> None:
    split_k = min(split_k, 3 * -(-shape[2] // tensor_map.STEP_CHANNELS))
    check_forward(
        on_hopper, shape, element, hopper.cut_up(tile, *shape, split_k), "max", "out relu_mask pooled pool_argmax"
    )


@pytest.mark.parametrize("split_k", [1, 2])
@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [("max", "relu_mask"), ("max", "pooled pool_argmax"), ("average", "out pooled"), ("average", "pooled")],
)
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
def test_forward_stores_what_is_wanted(
    on_hopper: Runtime, tile: Tile, pooling: Pooling, wanted: str, split_k: int
) -> None:
    shape = (9, 12, 16, 72)
    check_forward(on_hopper, shape, "bf16", hopper.cut_up(tile, *shape, split_k), pooling, wanted)


def test_what_is_not_a_number_stays_so(on_hopper: Runtime) -> None:
    """And nowhere else: what the boxes bring from outside of the image is zero."""
    shape = (9, 9, 16, 8)
    x, kernel, bias = layer(shape)
    x[4, 4, 0] = np.nan
    filters, _ = packed(on_hopper, kernel, bias, "bf16")
    out, x_held = empty(on_hopper, (9, 9, 8), np.uint16), held(on_hopper, rounded(x, "bf16"))
    run(on_hopper, hopper.conv3x3_relu(x_held, filters, out=out, relu_mask=None, pooling="max", pooled=None,
                                       pool_argmax=None, workspace=None,
                                       target=tensor_map.target_of(on_hopper)))  # fmt: skip
    expected = np.zeros(out.shape, bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(widened(on_hopper.download(out), "bf16")), expected)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
def test_results_do_not_depend_on_how_many_blocks_there_are(on_hopper: Runtime, tile: Tile) -> None:
    shape = (33, 18, 72, 136)
    work = hopper.cut_up(tile, *shape)
    one, many = (forward(on_hopper, shape, "bf16", work, "max", "out relu_mask", blocks)[0] for blocks in (1, 132))
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
def test_results_do_not_depend_on_the_order_of_lanes(hopper_called: Runtimes, tile: Tile) -> None:
    shape = (19, 21, 72, 136)
    work = hopper.cut_up(tile, *shape)
    first, other = (
        forward(hopper_called("emulator", seed=seed), shape, "bf16", work, "max", "out pool_argmax")[0]
        for seed in (0, 7)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], other[name])


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
def test_the_checking_build_has_nothing_to_say(hopper_called: Runtimes, tile: Tile) -> None:
    runtime, shape = hopper_called("checked"), (17, 18, 16, 72)
    for split_k in (1, 2):
        check_forward(
            runtime, shape, "bf16", hopper.cut_up(tile, *shape, split_k), "max", "out relu_mask pooled pool_argmax"
        )
    check_backward(runtime, shape, "bf16", hopper.cut_up(tile, 17, 18, 72, 16), True, True)


# ---- the emulator would show it -------------------------------------------------------------------------------------
MISTAKES = {  # a line of the sources, and what becomes of it
    "taking no turns": ("if (!Tile::cooperative) ptx::mbarrier_wait(memory.turn(consumer), turn);", ""),
    "no wait for filters": (
        "ptx::mbarrier_wait(memory.filters_full(stage), Tile::resident ? 0 : filters.parity);\n"
        "            const uint64_t of_stage",
        "const uint64_t of_stage",
    ),
    "a stage given back too early": (
        "ptx::wgmma_wait_group<1>();\n            if (!Tile::resident",
        "ptx::wgmma_wait_group<2>();\n            if (!Tile::resident",
    ),
    "sums read too early": (
        "ptx::wgmma_wait_group<0>();\n#pragma unroll\n    for (int i = 0; i < Tile::products",
        "\n#pragma unroll\n    for (int i = 0; i < Tile::products",
    ),
}


IN_THE_EPILOGUE = {  # likewise, on the way back
    "no wait for a unit": (
        "ptx::mbarrier_wait(memory.unit_ready(consumer, buffer), Tile::cooperative ? i : parity);",
        "",
    ),
    "no wait for a free buffer": ("ptx::mbarrier_wait(memory.unit_free(buffer), buffers.parity ^ 1);", ""),
    "a buffer given back too early": ("ptx::tma_store_wait_group_read<0>();", ""),
    "stored before it is staged": ("ptx::mbarrier_wait(memory.unit_staged(buffers.stage), buffers.parity);", ""),
    "no fence before the copy engine": ("ptx::fence_proxy_async();", ""),
}


def changed(line: str, instead: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The emulator with one kernel of sources in which a line has been changed."""
    folder = tmp_path / "cuda"
    (tmp_path / "emulator").symlink_to(nvrtc.FOLDER.parent / "emulator")
    gram = nvrtc.FOLDER / "gram"  # has mistakes of its own, in gram/test_wgmma_sm90.py
    texts = {header: header.read_text() for header in nvrtc.FOLDER.rglob("*.cuh") if header.parent != gram}
    own = {header for header, text in texts.items() if line in text and "unpool" not in header.name}  # likewise
    assert [texts[header].count(line) for header in own] == [1]
    for header, text in texts.items():
        copy = folder / header.relative_to(nvrtc.FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text.replace(line, instead) if header in own else text)
    source = folder / "one.cu"
    source.write_text(f'#include "conv3x3/wgmma_sm90.cuh"\n{kernel}\n')
    monkeypatch.setenv("NSTGPU_CXXFLAGS", "-O1")  # compiles faster
    try:
        return OfLibrary(compile_library([source]))
    except NoCompilerError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_emulator_shows_a_mistake(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a kernel faults, or computes something else."""
    kernel = "CONV3X3_RELU_WGMMA_SM90(conv3x3_relu_wgmma_sm90_bf16_128x128, bf16, Tile128x128)"
    runtime = changed(*MISTAKES[mistake], kernel, tmp_path, monkeypatch)
    shape = (33, 18, 72, 136)
    try:
        results, expected = forward(runtime, shape, "bf16", hopper.cut_up(TILES[1], *shape), "max", "out")
    except KernelFault:
        return
    ours = widened(results["out"], "bf16")
    assert not np.allclose(ours, expected["out"], atol=0.02)


# ---- backward -------------------------------------------------------------------------------------------------------
def check_backward(
    runtime: Runtime, shape: Shape4, element: Element, work: ConvPlan, masked: bool, accumulate: bool,
    styled: bool = False, in_place: bool = False,
) -> None:  # fmt: skip
    height, width, channels_in, channels_out = shape
    _, kernel, bias = layer(shape)
    kernel *= np.sqrt(channels_in / channels_out)
    filters, exact = packed(runtime, kernel, bias, element)
    gradient = rounded(random(height, width, channels_out, seed=3), element)
    before = rounded(random(height, width, channels_in, seed=4), element)
    relu_mask = random(height, width, channels_in, seed=5) > 0 if masked else None
    out = held(runtime, before) if accumulate else empty(runtime, before.shape, MEMORY[element])
    bits = None if relu_mask is None else held(runtime, np.packbits(relu_mask, axis=2, bitorder="little"))
    partials = hopper.partial_bytes(work, height, width, channels_in)
    workspace = empty(runtime, (partials + 2 * channels_in**2 + hopper.DIFFERENCE_ALIGNMENT,), np.uint8)
    gradient_held = held(runtime, gradient)
    features, gram_error, style = None, None, None
    if styled:
        features = rounded(random(height, width, channels_in, seed=6), element)
        gram_error = random(channels_in, channels_in, seed=7).astype(np.float32) / np.float32(np.sqrt(channels_in))
        gram_error += gram_error.T.copy()
        style = (held(runtime, features), held(runtime, gram_error))
        out = style[0] if in_place else out
    run(runtime, hopper.conv3x3_input_gradient(gradient_held, filters, out=out, relu_mask=bits, accumulate=accumulate,
                                               workspace=workspace, target=tensor_map.target_of(runtime, 3),
                                               work=work, style=style))  # fmt: skip
    expected = widened(before, element).astype(np.float64) * accumulate
    if features is not None and gram_error is not None:
        exact_difference = widened(rounded(gram_error, element), element).astype(np.float64)
        expected += widened(features, element) @ exact_difference
        accumulate = True
    reference.conv3x3_input_gradient(widened(gradient, element).astype(np.float64),
                                     reference.pack_filters(exact, bias.astype(np.float64)), out=expected,
                                     relu_mask=relu_mask, accumulate=accumulate)  # fmt: skip
    ours = widened(runtime.download(out), element)
    rounded_once(ours, expected, element, 9 * channels_out + 1 + styled * channels_in)
    if relu_mask is not None:
        assert not ours[~relu_mask].any()


@pytest.mark.parametrize("element", ["bf16", "fp16"])
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_backward(on_hopper: Runtime, shape: Shape4, split_k: int, tile: Tile, element: Element) -> None:
    height, width, channels_in, channels_out = shape
    work = hopper.cut_up(tile, height, width, channels_out, channels_in, min(split_k, 3))
    check_backward(on_hopper, shape, element, work, masked=True, accumulate=True)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_backward_with_a_style_beside_it(on_hopper: Runtime, shape: Shape4, split_k: int, tile: Tile) -> None:
    height, width, channels_in, channels_out = shape
    work = hopper.cut_up(tile, height, width, channels_out, channels_in, min(split_k, 3))
    check_backward(on_hopper, shape, "bf16", work, masked=True, accumulate=split_k > 1, styled=True)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
@pytest.mark.parametrize("channels", [64, 24])
def test_a_style_in_place(on_hopper: Runtime, tile: Tile, channels: int) -> None:
    """Rows of other tiles come along with the features' boxes, and are not multiplied."""
    assert channels <= hopper.IN_PLACE_CHANNELS
    work = hopper.cut_up(tile, 35, 33, 16, channels)
    check_backward(on_hopper, (35, 33, channels, 16), "bf16", work, True, False, styled=True, in_place=True)


def test_every_tile_has_the_channels_that_are_changed_in_place() -> None:
    assert min(tile.channels for tile in TILES) == hopper.IN_PLACE_CHANNELS


@pytest.mark.parametrize("mistake", IN_THE_EPILOGUE)
def test_the_emulator_shows_a_mistake_in_the_epilogue(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = "CONV3X3_INPUT_GRADIENT_WGMMA_SM90(conv3x3_input_gradient_wgmma_sm90_bf16_128x128, bf16, Tile128x128)"
    runtime = changed(*IN_THE_EPILOGUE[mistake], kernel, tmp_path, monkeypatch)
    with pytest.raises((KernelFault, AssertionError)):
        check_backward(runtime, (65, 33, 136, 8), "bf16", hopper.cut_up(TILES[1], 65, 33, 8, 136), True, True)


@pytest.mark.parametrize("split_k", [1, 2])
@pytest.mark.parametrize(("masked", "accumulate"), [(True, False), (False, True), (False, False)])
def test_backward_masks_and_accumulates_as_asked(
    on_hopper: Runtime, masked: bool, accumulate: bool, split_k: int
) -> None:
    shape = (9, 12, 72, 16)
    for tile in TILES:
        check_backward(on_hopper, shape, "bf16", hopper.cut_up(tile, 9, 12, 16, 72, split_k), masked, accumulate)


@pytest.mark.parametrize(
    ("precision", "channels", "place"), [("bf16", 64, "in place"), ("bf16", 72, "beside"), ("fp16", 64, None)]
)
def test_which_styles_are_carried(
    hopper_called: Runtimes, precision: Element, channels: int, place: str | None
) -> None:
    """And the launches that come of it."""
    runtime = hopper_called("emulator")
    kernels = WgmmaKernels(runtime, precision)
    filters, _ = packed(runtime, np.zeros((3, 3, channels, 16)), np.zeros(16), precision)
    assert kernels.carries_style(filters) == place
    gradient, features = (held(runtime, np.zeros((8, 8, count), np.uint16)) for count in (16, channels))
    gram_error = held(runtime, np.zeros((channels, channels), np.float32))
    workspace = runtime.allocate(kernels.workspace_bytes(8, 8, channels, 16))
    launches = kernels.input_gradient(
        gradient, filters, features, gram_error, out=features, relu_mask=None, accumulate=False, workspace=workspace,
        loss_scale=1.0,
    )  # fmt: skip
    assert ("round_gram_error" if place else "pack_gram_error") in launches[0].kernel
    plain = kernels.input_gradient(
        gradient,
        filters,
        None,
        None,
        out=features,
        relu_mask=None,
        accumulate=False,
        workspace=workspace,
        loss_scale=1.0,
    )
    assert len(launches) == len(plain) + (1 if place else 2)


# ---- filters that stay ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("element", ["bf16", "fp16"])
@pytest.mark.parametrize("shape", [(65, 33, 64, 64), (17, 18, 24, 40)], ids=str)
def test_filters_that_stay(on_hopper: Runtime, shape: Shape4, element: Element) -> None:
    """Several work tiles to a block: the first loads them."""
    height, width, channels_in, channels_out = shape
    forward_work = hopper.cut_up(TILES[-1], *shape)._replace(tile=hopper.RESIDENT)
    check_forward(on_hopper, shape, element, forward_work, "max", "out relu_mask pooled pool_argmax")
    work = hopper.cut_up(TILES[-1], height, width, channels_out, channels_in)._replace(tile=hopper.RESIDENT)
    check_backward(on_hopper, shape, element, work, True, True)
    if element == "bf16":
        check_backward(on_hopper, shape, element, work, True, False, styled=True, in_place=True)


@pytest.mark.parametrize(
    ("shape", "split_k", "resident"),
    [
        ((32, 32, 64, 64), 1, True),
        ((32, 32, 8, 16), 1, True),
        ((32, 32, 72, 64), 1, False),
        ((32, 32, 64, 72), 1, False),
        ((32, 32, 64, 64), 3, False),
    ],
    ids=str,
)  # fmt: skip
def test_filters_stay_where_they_fit(hopper_called: Runtimes, shape: Shape4, split_k: int, resident: bool) -> None:
    runtime = hopper_called("emulator")
    filters, _ = packed(runtime, np.zeros((3, 3, *shape[2:])), np.zeros(shape[3]), "bf16")
    x, y = (held(runtime, np.zeros((*shape[:2], channels), np.uint16)) for channels in shape[2:])
    work = hopper.cut_up(TILES[-1], *shape, split_k)
    launches = hopper.conv3x3_relu(x, filters, out=y, relu_mask=None, pooling="max", pooled=None, pool_argmax=None,
                                   workspace=np.zeros(hopper.partial_bytes(work, *shape[:2], shape[3]), np.uint8),
                                   target=tensor_map.target_of(runtime), work=work)  # fmt: skip
    assert launches[0].kernel.endswith("64x256_resident" if resident else "64x256")


# ---- the self-test --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_self_test_finds_nothing(on_hopper: Runtime) -> None:
    assert self_test.problem_with(on_hopper, 3) is None


def test_the_self_test_names_a_kernel_that_is_wrong(hopper_called: Runtimes) -> None:
    runtime = hopper_called("emulator")
    launched = runtime.launch

    def launch(launch: Launch) -> None:
        if "split_k" in launch.kernel:  # forgets the second of two
            count = next(i for i, arg in enumerate(launch.args) if isinstance(arg, np.int32))
            launch = launch._replace(args=(*launch.args[:count], np.int32(1), *launch.args[count + 1 :]))
        launched(launch)

    runtime.launch = launch  # type: ignore[method-assign]
    problem = self_test.problem_with(runtime, 3)
    assert problem is not None
    assert re.fullmatch(r"tile 256x128 in bf16, 2 slices: off by [\d.]+ of the largest value", problem)


def test_the_self_test_passes_on_what_the_device_says(hopper_called: Runtimes) -> None:
    runtime = hopper_called("emulator")

    def launch(launch: Launch) -> None:
        raise DeviceError(f"launching kernel {launch.kernel!r}: no")

    runtime.launch = launch  # type: ignore[method-assign]
    problem = self_test.problem_with(runtime)
    assert problem == "tile 256x128 in bf16: launching kernel 'conv3x3_relu_wgmma_sm90_bf16_256x128': no"


# ---- tensor maps ----------------------------------------------------------------------------------------------------
MAP = hopper.activations_map(0x7F0000001000, "bf16", (37, 50, 72))


class FakeDriver:
    """Writes down what cuTensorMapEncodeTiled is asked, and answers `status`."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.asked: list[Any] = []

    def cuTensorMapEncodeTiled(self, encoded: Any, *arguments: Any) -> int:
        assert encoded.value % 64 == 0
        plain = [list(value) if isinstance(value, ctypes.Array) else value.value for value in arguments]
        self.asked.append(plain)
        ctypes.memset(encoded, 0xAB, 128)
        return self.status


@pytest.fixture
def fresh_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """fresh_driver(what ctypes.CDLL is to do)."""

    def install(load: Any) -> None:
        tensor_map.driver.cache_clear()
        tensor_map.encode_with_driver.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", load)

    yield install
    tensor_map.driver.cache_clear()
    tensor_map.encode_with_driver.cache_clear()


def test_the_driver_is_asked_for_boxes_that_read_zeros_outside(fresh_driver: Callable[[Any], None]) -> None:
    driver = FakeDriver()
    fresh_driver(lambda _: driver)
    encoded = tensor_map.encode_with_driver(MAP)
    assert (encoded.dtype, encoded.size) == (tensor_map.ENCODED, 1)
    assert encoded.tobytes() == b"\xab" * 128
    # BFLOAT16, rank, address, sizes, pitches, box, steps; no interleave, 128-byte swizzle, 256 bytes into L2, zeros.
    assert driver.asked == [[9, 3, MAP.address, [72, 50, 37], [144, 7200], [64, 8, 18], [1, 1, 1], 0, 3, 3, 0]]
    tensor_map.encode_with_driver(MAP)
    assert len(driver.asked) == 1
    tensor_map.encode_with_driver(hopper.filters_map(4096, "fp16", 72, 136, TILES[0]))
    assert driver.asked[1][:6] == [6, 3, 4096, [72, 9, 136], [144, 1296], [64, 1, 128]]


def test_without_a_driver_there_are_no_tensor_maps(fresh_driver: Callable[[Any], None]) -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    fresh_driver(fail)
    with pytest.raises(DeviceError, match=r"^no NVIDIA driver was found on this machine.*$"):
        tensor_map.encode_with_driver(MAP)


def test_a_driver_without_tensor_maps_is_too_old(fresh_driver: Callable[[Any], None]) -> None:
    fresh_driver(lambda _: object())
    with pytest.raises(DeviceError, match=r"^the NVIDIA driver knows no tensor maps: install version 525 or newer$"):
        tensor_map.encode_with_driver(MAP)


def test_what_the_driver_refuses_is_named(fresh_driver: Callable[[Any], None]) -> None:
    fresh_driver(lambda _: FakeDriver(status=1))
    with pytest.raises(DeviceError, match=r"^cuTensorMapEncodeTiled: error 1 for TensorMap\(address=.*$"):
        tensor_map.encode_with_driver(MAP)


# ---- filters, tiles, slices -----------------------------------------------------------------------------------------
def test_packed_filters_hold_every_weight_once() -> None:
    kernel = np.arange(9 * 8 * 16, dtype=np.float32).reshape(3, 3, 8, 16)
    filters = hopper.pack_filters(kernel, np.ones(16, np.float32), "fp16")
    assert (filters.forward.shape, filters.backward.shape) == ((16, 9, 8), (8, 9, 16))
    forward, backward = (widened(bits, "fp16") for bits in (filters.forward, filters.backward))
    assert forward[13, 5, 6] == kernel[1, 2, 6, 13]
    assert backward[6, 5, 13] == kernel[1, 0, 6, 13]
    for values in (forward, backward):
        np.testing.assert_array_equal(np.sort(values, axis=None), kernel.reshape(-1))


def test_channels_must_be_multiples_of_eight() -> None:
    assert hopper.serves(64, 8)
    assert not hopper.serves(3, 64)
    with pytest.raises(ValueError, match="12 to 64 channels; both must be multiples of 8"):
        hopper.pack_filters(np.zeros((3, 3, 12, 64), np.float32), np.zeros(64, np.float32), "bf16")


@pytest.mark.parametrize(
    ("shape", "variant", "split_k"),
    [((512, 512, 64, 64), "64x256", 1), ((256, 256, 128, 64), "64x256", 1), ((128, 128, 256, 256), "256x128", 1),
     ((64, 64, 512, 512), "128x128", 1), ((32, 32, 512, 512), "128x128", 4), ((64, 8, 512, 512), "128x128", 6)],
    ids=str,
)  # fmt: skip
def test_the_tile_for_a_shape(shape: Shape4, variant: str, split_k: int) -> None:
    work = hopper.choose_work(*shape)
    assert (work.tile.variant, work.split_k) == (variant, split_k)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (37, 50, 72, 136), (4096, 4096, 64, 64), (16, 16, 512, 512)], ids=str)
def test_work_covers_everything_and_slices_fill_at_most_one_wave(shape: Shape4) -> None:
    work = hopper.choose_work(*shape)
    assert 0 <= work.down * hopper.BOX_HEIGHT - shape[0] < hopper.BOX_HEIGHT
    assert 0 <= work.across * work.tile.width - shape[1] < work.tile.width
    assert 0 <= work.channel_tiles * work.tile.channels - shape[3] < work.tile.channels
    assert work.split_k == 1 or work.items <= MULTIPROCESSORS
    assert hopper.workspace_bytes(*shape) >= hopper.partial_bytes(work, shape[0], shape[1], shape[3])


def test_more_slices_than_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="4 slices of 3 steps"):
        hopper.cut_up(TILES[0], 8, 8, 64, 64, 4)


def test_a_workspace_too_small_is_refused(hopper_called: Runtimes) -> None:
    runtime, shape = hopper_called("emulator"), (8, 8, 64, 64)
    work = hopper.cut_up(TILES[0], *shape, 2)
    needed = hopper.partial_bytes(work, 8, 8, 64)
    assert needed == 2 * 8 * 8 * 64 * 4
    filters, _ = packed(runtime, np.zeros((3, 3, 64, 64)), np.zeros(64), "bf16")
    x = held(runtime, np.zeros((8, 8, 64), np.uint16))
    for workspace, has in ((None, 0), (np.zeros(needed - 1, np.uint8), needed - 1)):
        with pytest.raises(ValueError, match=f"the workspace has {has} bytes of {needed}"):
            hopper.conv3x3_relu(x, filters, out=x, relu_mask=None, pooling="max", pooled=None, pool_argmax=None,
                                workspace=workspace, target=tensor_map.target_of(runtime), work=work)  # fmt: skip


# ---- what the compiler makes of it ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cubin() -> nvrtc.Cubin:
    """Of the bf16 kernels for sm_90a."""
    try:
        (compiled,) = nvrtc.compile_sources([nvrtc.FOLDER / "instantiations/sm90_bf16.cu"], "sm_90a")
    except DeviceError as error:
        pytest.skip(str(error))
    return compiled


@pytest.mark.slow
def test_nothing_spills_and_no_product_is_serialised(cubin: nvrtc.Cubin) -> None:
    """C7508: setmaxnreg ignored; C7510 and its like: products that wait for each other."""
    names = {name for name in cubin.kernels if "split_k" not in name}
    convolutions = {name: cubin.kernels[name] for name in names if name.startswith("conv3x3")}
    assert len(convolutions) == 2 * (len(TILES) + 1) + len(UNPOOL_TILES)
    assert len(names - set(convolutions)) == len(wgmma_gram.GRAM_TILES) + 1  # rounds a difference
    assert not cubin.warnings
    for taken in cubin.kernels.values():
        assert taken.spill_bytes == taken.stack_bytes == 0
    for taken in convolutions.values():
        assert taken.registers == 65536 // hopper.THREADS // 8 * 8  # what a block alone on its SM starts with


# The lower twelve bits of an instruction name it. WARPGROUP is wgmma's fence and its waits.
OPCODES = {0x9F0: "HGMMA", 0x9C5: "WARPGROUP", 0x9C8: "USETMAXREG", 0x5B4: "UTMALDG", 0x23C: "HMMA",
           0x3B5: "UTMASTG", 0x844: "STSM", 0x83B: "LDSM"}  # fmt: skip


TRANSPOSED = 0b11 << 61  # of HGMMA's words: set by tnspA and tnspB, as comparing the two showed


@pytest.mark.slow
def test_the_main_loop_is_made_of_tensor_core_instructions(cubin: nvrtc.Cubin) -> None:
    """24 products in three batches, a fence before and a wait after each and one wait at the end; a load for each box
    and one for filters, in a loop; registers given and taken once. On the way back eight products of a style, with the
    same loads; a unit is loaded and stored, in two loops; a consumer has two, each of eight pairs of groups."""
    found = instructions(cubin.image, OPCODES)
    for tile in (*TILES, hopper.RESIDENT):
        wanted = {"HGMMA": 24, "WARPGROUP": 7, "USETMAXREG": 2, "UTMALDG": tile.boxes + 1}
        assert found[f"conv3x3_relu_wgmma_sm90_bf16_{tile.variant}"] == wanted
        wanted |= {"HGMMA": 32, "WARPGROUP": 9, "UTMALDG": 2 * tile.boxes + 3, "UTMASTG": 1, "LDSM": 16, "STSM": 16}
        assert found[f"conv3x3_input_gradient_wgmma_sm90_bf16_{tile.variant}"] == wanted
    for tile in UNPOOL_TILES.values():  # without a style; nothing is loaded to be added
        wanted = {"HGMMA": 24, "WARPGROUP": 7, "USETMAXREG": 2, "UTMALDG": tile.boxes + 1, "UTMASTG": 1, "STSM": 16}
        assert found[f"conv3x3_unpooled_gradient_wgmma_sm90_bf16_{tile.variant}"] == wanted


@pytest.mark.slow
def test_so_is_that_of_the_gram(cubin: nvrtc.Cubin) -> None:
    """A product for each 16 pixels of a step, in one batch; one load, in a loop, and no passing on of registers."""
    found = instructions(cubin.image, OPCODES)
    for tile in wgmma_gram.GRAM_TILES:
        wanted = {"HGMMA": tile.depth // 16, "WARPGROUP": 3, "UTMALDG": 1}
        assert found[f"gram_wgmma_sm90_bf16_{tile.variant}"] == wanted


@pytest.mark.slow
def test_both_operands_of_the_gram_lie_across_and_none_of_a_convolution(cubin: nvrtc.Cubin) -> None:
    """The emulator knows what a product is asked for, the SASS whether that reached the instruction."""
    (fp16,) = nvrtc.compile_sources([nvrtc.FOLDER / "instantiations/sm90_fp16.cu"], "sm_90a")
    for name, first in (words(cubin.image) | words(fp16.image)).items():
        flags = {word & TRANSPOSED for word in first if OPCODES.get(word & 0xFFF) == "HGMMA"}
        without = "split_k" in name or name.startswith("round")
        assert flags == (set() if without else {TRANSPOSED} if name.startswith("gram") else {0}), name
