"""The input gradient that goes back through the pool before it (kernels/cuda/conv3x3/launch_wgmma_unpool_sm90.py,
wgmma_unpool_sm90.cuh): to the bit what the two launches leave whose place it takes, on the emulator and on a GPU of
compute capability 9.0 where there is one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.arrays import layer, random
from harness.devices import OfLibrary, empty, held
from nstgpu.kernels.cuda import self_test
from nstgpu.kernels.cuda.conv3x3 import launch_simt, launch_wgmma_sm90
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_unpool_sm90 as hopper
from nstgpu.kernels.cuda.conv3x3.launch_wgmma_sm90 import TILES, Tile
from nstgpu.kernels.cuda.runtime import nvrtc, tensor_map
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.runtime.tensor_map import Element
from nstgpu.kernels.cuda.storage import MEMORY, rounded
from nstgpu.kernels.emulator import KernelFault, NoCompilerError, compile_library
from nstgpu.kernels.reference import Reference

Shape4 = tuple[int, int, int, int]
Runtimes = Callable[..., Runtime]

# (H, W, C_in, C_out) of what was pooled, slices: odd sides, a pixel and eight channels over a tile, rows and columns
# that no pool took and that no tile of the gradient's has; less than a box; whole units of 64 channels.
CASES: list[tuple[Shape4, int]] = [
    ((39, 42, 72, 136), 1),
    ((65, 33, 128, 64), 1),
    ((11, 15, 8, 16), 1),
    ((2, 3, 136, 8), 2),
    ((33, 67, 64, 24), 2),
]


def run(runtime: Runtime, launches: list[Launch]) -> None:
    for launch in launches:
        runtime.launch(launch)


def both(
    runtime: Runtime, shape: Shape4, element: Element, tile: Tile, split_k: int, multiprocessors: int = 2
) -> tuple[Any, Any]:
    """The bits of the gradient, and what becomes of those of the input gradient by itself."""
    height, width, channels_in, channels_out = shape
    pooled = (height // 2, width // 2)
    _, kernel, bias = layer((*pooled, channels_in, channels_out))
    filters = launch_wgmma_sm90.pack_filters(kernel.astype(np.float32), bias.astype(np.float32), element)
    filters = filters._replace(backward=held(runtime, filters.backward))
    gradient = held(runtime, rounded(random(*pooled, channels_out, seed=3), element))
    mask = random(height, width, channels_in, seed=5) > 0
    choices = np.random.default_rng(6).integers(0, 4, (*pooled, channels_in)).astype(np.uint8)
    packed = (choices.reshape(*pooled, -1, 4) << np.arange(0, 8, 2, dtype=np.uint8)).sum(3).astype(np.uint8)
    assert (packed.shape, packed.dtype) == launch_simt.pool_argmax_layout((*pooled, channels_in))

    target = tensor_map.target_of(runtime, multiprocessors)
    work = hopper.cut_up(tile, gradient.shape, mask.shape, split_k)
    workspace = empty(runtime, (launch_wgmma_sm90.partial_bytes(work, *pooled, channels_in),), np.uint8)
    out, alone = (empty(runtime, shape, MEMORY[element]) for shape in (mask.shape, choices.shape))
    bits, choices_held = held(runtime, np.packbits(mask, axis=2, bitorder="little")), held(runtime, packed)
    run(runtime, hopper.conv3x3_unpooled_gradient(gradient, filters, out=out, relu_mask=bits, pool_argmax=choices_held,
                                                  workspace=workspace, target=target, work=work))  # fmt: skip
    before = launch_wgmma_sm90.cut_up(tile, *pooled, channels_out, channels_in, split_k)
    run(runtime, launch_wgmma_sm90.conv3x3_input_gradient(gradient, filters, out=alone, relu_mask=None,
                                                          accumulate=False, workspace=workspace, target=target,
                                                          work=before))  # fmt: skip
    expected, result = np.zeros(mask.shape, np.uint16), runtime.download(alone).view(np.uint16)
    for corner in range(4):
        down, across = divmod(corner, 2)
        square = (slice(down, 2 * pooled[0], 2), slice(across, 2 * pooled[1], 2))
        expected[square] = np.where((choices == corner) & mask[square], result, 0)
    return runtime.download(out).view(np.uint16), expected


@pytest.mark.parametrize("element", ["bf16", "fp16"])
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
@pytest.mark.parametrize(("shape", "split_k"), CASES, ids=str)
def test_it_is_the_two_launches(on_hopper: Runtime, shape: Shape4, split_k: int, tile: Tile, element: Element) -> None:
    ours, expected = both(on_hopper, shape, element, tile, split_k)
    np.testing.assert_array_equal(ours, expected)
    assert min(shape[:2]) < 4 or np.count_nonzero(ours) > ours.size // 12


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
def test_results_depend_on_neither_blocks_nor_lanes(hopper_called: Runtimes, tile: Tile) -> None:
    for seed, blocks in ((0, 1), (7, 132)):
        ours, expected = both(hopper_called("emulator", seed=seed), (65, 66, 136, 24), "bf16", tile, 1, blocks)
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.variant)
def test_the_checking_build_has_nothing_to_say(hopper_called: Runtimes, tile: Tile) -> None:
    for split_k in (1, 2):
        ours, expected = both(hopper_called("checked"), (35, 37, 72, 16), "bf16", tile, split_k)
        np.testing.assert_array_equal(ours, expected)


MISTAKES = {  # a line of the sources, and what becomes of it
    "no wait for the unit before": (
        "if (!Tile::cooperative) ptx::mbarrier_wait(memory.unit_done(before.stage), before.parity);",
        "",
    ),
    "no wait for a free buffer": (
        "ptx::mbarrier_wait(memory.unit_free(buffer), (Tile::cooperative ? corner : corner / 2) % 2 ^ 1);",
        "",
    ),
    "a corner that is another's": (
        "const uint32_t not_right = corner % 2 ?",
        "const uint32_t not_right = corner / 2 ?",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_emulator_shows_a_mistake(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line, instead = MISTAKES[mistake]
    folder = tmp_path / "cuda"
    (tmp_path / "emulator").symlink_to(nvrtc.FOLDER.parent / "emulator")
    texts = {header: header.read_text() for header in nvrtc.FOLDER.rglob("*.cuh")}
    assert sum(text.count(line) for text in texts.values()) == 1
    for header, text in texts.items():
        copy = folder / header.relative_to(nvrtc.FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text.replace(line, instead))
    (folder / "one.cu").write_text(
        '#include "conv3x3/wgmma_sm90.cuh"\n'
        "CONV3X3_UNPOOLED_GRADIENT_WGMMA_SM90(conv3x3_unpooled_gradient_wgmma_sm90_bf16_128x128, bf16, "
        "Tile128x128_unpool)\n"
        "CONV3X3_INPUT_GRADIENT_WGMMA_SM90(conv3x3_input_gradient_wgmma_sm90_bf16_128x128, bf16, Tile128x128)\n"
    )
    monkeypatch.setenv("NSTGPU_CXXFLAGS", "-O1")  # compiles faster
    try:
        runtime = OfLibrary(compile_library([folder / "one.cu"]))
    except NoCompilerError as error:
        pytest.skip(str(error))
    with pytest.raises((KernelFault, AssertionError)):
        np.testing.assert_array_equal(*both(runtime, (130, 66, 264, 8), "bf16", TILES[1], 1))


# ---- the self-test --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_self_test_finds_nothing(on_hopper: Runtime) -> None:
    assert self_test.problem_with(on_hopper, 3, ("bf16",), "unpooling") is None


def test_the_self_test_names_what_is_wrong(hopper_called: Runtimes) -> None:
    runtime = hopper_called("emulator")
    launched = runtime.launch

    def launch(launch: Launch) -> None:
        mask = launch.args[3]
        launched(launch._replace(args=(*launch.args[:3], np.zeros_like(mask), *launch.args[4:])))

    runtime.launch = launch  # type: ignore[method-assign]
    problem = self_test.problem_with(runtime, 3, ("bf16",), "unpooling")
    assert problem == "unpooling tile 256x128 in bf16, 1 slices: off by 1 of the largest value"


# ---- the contract ---------------------------------------------------------------------------------------------------
def test_the_reference_does_the_two_one_after_the_other() -> None:
    reference, (height, width, channels, channels_out) = Reference(), (5, 6, 3, 4)
    _, kernel, bias = layer((2, 3, channels, channels_out))
    filters, gradient = reference.pack_filters(kernel, bias), random(2, 3, channels_out, seed=1)
    mask = random(height, width, channels, seed=2) > 0
    choices = np.random.default_rng(3).integers(0, 4, (2, 3, channels)).astype(np.uint8)
    pooled, expected, ours = np.empty((2, 3, channels)), np.empty(mask.shape), np.empty(mask.shape)
    reference.conv3x3_input_gradient(gradient, filters, out=pooled, relu_mask=None, accumulate=False)
    reference.pool_input_gradient(
        pooled, pooling="max", pool_argmax=choices, out=expected, relu_mask=mask, accumulate=False
    )
    reference.conv3x3_unpooled_gradient(gradient, filters, out=ours, relu_mask=mask, pool_argmax=choices)
    np.testing.assert_array_equal(ours, expected)
    assert ours.any()
    assert not ours[4].any(), "the odd row was never pooled"
    assert not reference.unpools(filters)
