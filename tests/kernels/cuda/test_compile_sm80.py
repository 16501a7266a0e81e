"""The tensor-core kernels compiled for every architecture they claim: no spills, registers for as many blocks as the
model of tiles counts on, and in the SASS as many tensor-core instructions as the main loop is to have.
"""

import re
import warnings
from collections.abc import Iterator

import pytest

from harness.cubins import instructions
from nstgpu.kernels.cuda.conv3x3.tile_model import CHANNEL_GROUP, PRODUCTS, Tile
from nstgpu.kernels.cuda.runtime import nvrtc
from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER, Cubin, compile_sources
from nstgpu.kernels.errors import DeviceError

try:
    NVRTC = nvrtc.find_nvrtc()
except DeviceError as error:
    warnings.warn(f"THE COMPILE GATE DOES NOT RUN: {error}", stacklevel=1)
    pytest.skip(str(error), allow_module_level=True)

AMPERE_ON = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
MAJOR = NVRTC.version[0]
CASES = [
    (MAJOR, f"instantiations/sm80_{name}.cu", architecture)
    for name in ("bf16", "fp16", "tf32")
    for architecture in AMPERE_ON
]
CASES.append((MAJOR, "instantiations/sm80_fp16.cu", "sm_75"))
if MAJOR != 13:
    CASES += [(13, "instantiations/sm80_tf32.cu", "sm_90a"), (13, "instantiations/sm80_fp16.cu", "sm_75")]
NONE = [("instantiations/sm80_bf16.cu", "sm_75"), ("instantiations/sm80_tf32.cu", "sm_75")]
if MAJOR == 12:
    NONE.append(("instantiations/sm80_fp16.cu", "sm_70"))

# The lower twelve bits of an instruction name it, on every architecture from sm_70 on.
OPCODES = {0x23C: "HMMA", 0x83B: "LDSM", 0xFAE: "LDGSTS"}

# Of the Gram matrix and its gradient, by operation and tile: 16x8 products of a warp in the unrolled loop,
# loads of matrices, and registers that leave room for two blocks of 256 threads, or three of 128. 32-bit numbers that
# lie across are not loaded as matrices. 3xTF32 unrolls no loop, multiplies three times, has no wide Gram, and one block
# of the wide gradient.
IN_16_BITS = {
    "gram_128x128": (32, 12, 128),
    "gram_64x64": (32, 16, 168),
    "style_gradient_128x128": (64, 24, 128),
    "style_gradient_128x64": (64, 24, 168),
}
IN_TF32 = IN_16_BITS | {"gram_128x128": (32, 0, 128), "gram_64x64": (32, 0, 168)}
IN_3XTF32 = {
    "gram_64x64": (24, 0, 168),
    "style_gradient_128x128": (48, 6, 255),
    "style_gradient_128x64": (48, 6, 168),
}
SEARCH_REGISTERS = 255  # two blocks of 128 threads, or four of 64
MOMENTS = {"bf16": IN_16_BITS, "fp16": IN_16_BITS, "tf32": IN_TF32, "3xtf32": IN_3XTF32}

SLICES = {"bf16": 4, "fp16": 4, "tf32": 4, "3xtf32": 1}  # of a step in the unrolled loop
PRODUCTS_PER_SLICE = {"bf16": 1, "fp16": 1, "tf32": 1, "3xtf32": 3}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"cuda{case[0]}-{case[1]}-{case[2]}")
def cubin(request: pytest.FixtureRequest) -> tuple[str, Cubin]:
    major, source, architecture = request.param
    try:
        called = nvrtc.find_nvrtc(major)
    except DeviceError as error:
        warnings.warn(f"THE COMPILE GATE OF CUDA {major} DOES NOT RUN: {error}", stacklevel=1)
        pytest.skip(str(error))
    sources = [name for by, name, claimed in CASES if (by, claimed) == (major, architecture)]  # at once, on all cores
    compiled = compile_sources([FOLDER / name for name in sources], architecture, called)
    return architecture, compiled[sources.index(source)]


def tiled(cubin: Cubin) -> Iterator[tuple[str, str, Tile]]:
    """The kernels of the main loop: name, precision and tile."""
    for kernel in cubin.kernels:
        if match := re.fullmatch(r"conv3x3_(?:relu|input_gradient)_mma_sm80_(\w+)_(\d+x\d+)", kernel):
            precision, name = match.groups()
            (tile,) = (tile for tile in PRODUCTS[precision].tiles if tile.name == name)
            yield kernel, precision, tile


def moments(cubin: Cubin) -> Iterator[tuple[str, str, str]]:
    """The kernels of the Gram matrix and its gradient: name, precision, and how MOMENTS calls it."""
    for kernel in cubin.kernels:
        if match := re.fullmatch(r"(gram|style_gradient)_mma_sm80_(\w+)_(\d+x\d+)", kernel):
            yield kernel, match[2], f"{match[1]}_{match[3]}"


def searches(cubin: Cubin) -> list[str]:
    """The kernels that search for nearest neighbors."""
    return [kernel for kernel in cubin.kernels if kernel.startswith("nearest_neighbors_mma_sm80_")]


@pytest.mark.slow
def test_no_kernel_spills_or_warns(cubin: tuple[str, Cubin]) -> None:
    _, compiled = cubin
    assert not {name: taken for name, taken in compiled.kernels.items() if taken.spill_bytes or taken.stack_bytes}
    assert not compiled.warnings


@pytest.mark.slow
def test_every_tile_is_there_and_within_its_registers(cubin: tuple[str, Cubin]) -> None:
    _, compiled = cubin
    kernels = list(tiled(compiled))
    precisions = {precision for _, precision, _ in kernels}
    assert len(kernels) == sum(2 * len(PRODUCTS[precision].tiles) for precision in precisions)
    assert not {name: compiled.kernels[name] for name, _, tile in kernels
                if compiled.kernels[name].registers > tile.registers}  # fmt: skip
    # Shared memory is asked for by the launch alone, so that the model's sum is the whole.
    assert not [name for name, _, _ in kernels if compiled.kernels[name].shared_bytes]


@pytest.mark.slow
def test_other_kernels_leave_room_for_many_blocks(cubin: tuple[str, Cubin]) -> None:
    """An image's and products on FFMA have 128 threads, others 256: three blocks to a multiprocessor, or two."""
    _, compiled = cubin
    names = {name for name, _, _ in tiled(compiled)} | {name for name, *_ in moments(compiled)}
    names |= set(searches(compiled))
    others = {name: taken for name, taken in compiled.kernels.items() if name not in names}
    of_128_threads = re.compile("rgb|^project_|^sliced_gradient_|^nearest_neighbors_")
    assert not {
        name: taken for name, taken in others.items() if taken.registers > (168 if of_128_threads.search(name) else 96)
    }


@pytest.mark.slow
def test_the_main_loop_multiplies_on_tensor_cores(cubin: tuple[str, Cubin]) -> None:
    """A slice of a warp's tile is an HMMA per 16 pixels and 8 channels, two on sm_75; an LDSM brings 16x16 operands."""
    architecture, compiled = cubin
    found = instructions(compiled.image, OPCODES)
    for kernel, precision, tile in tiled(compiled):
        down, across = tile.warp_pixels // 16, CHANNEL_GROUP // 8
        products = down * across * SLICES[precision] * PRODUCTS_PER_SLICE[precision]
        assert found[kernel]["HMMA"] == products * (2 if architecture == "sm_75" else 1), kernel
        assert found[kernel]["LDSM"] == (down + across // 2) * SLICES[precision], kernel
        assert (found[kernel]["LDGSTS"] > 0) == (architecture != "sm_75"), kernel


@pytest.mark.slow
def test_the_gram_and_its_gradient_are_multiplied_on_tensor_cores(cubin: tuple[str, Cubin]) -> None:
    architecture, compiled = cubin
    found, kernels = instructions(compiled.image, OPCODES), list(moments(compiled))
    assert len(kernels) == sum(len(MOMENTS[name]) for name in {precision for _, precision, _ in kernels}) > 0
    for kernel, precision, name in kernels:
        products, loads, registers = MOMENTS[precision][name]
        if architecture == "sm_75" and name.startswith("style_gradient"):
            registers = 255  # its shared memory holds no second block
        assert found[kernel]["HMMA"] == products * (2 if architecture == "sm_75" else 1), kernel
        assert found[kernel]["LDSM"] == loads, kernel
        assert (found[kernel]["LDGSTS"] > 0) == (architecture != "sm_75"), kernel
        assert compiled.kernels[kernel].registers <= registers, kernel
        assert not compiled.kernels[kernel].shared_bytes, kernel


@pytest.mark.slow
def test_the_search_is_multiplied_on_tensor_cores(cubin: tuple[str, Cubin]) -> None:
    """A warp's 64x64, in four steps of a k-tile: 32 products and 8 loads of matrices each."""
    architecture, compiled = cubin
    found, kernels = instructions(compiled.image, OPCODES), searches(compiled)
    assert len(kernels) == (0 if architecture == "sm_75" else 2)
    for kernel in kernels:
        assert found[kernel]["HMMA"] == 4 * 32, kernel
        assert found[kernel]["LDSM"] == 4 * 8, kernel
        assert found[kernel]["LDGSTS"] > 0, kernel
        assert compiled.kernels[kernel].registers <= SEARCH_REGISTERS, kernel
        assert not compiled.kernels[kernel].shared_bytes, kernel


@pytest.mark.parametrize(("source", "architecture"), NONE, ids="-".join)
def test_gpus_without_the_instructions_get_what_works_without(source: str, architecture: str) -> None:
    (compiled,) = compile_sources([FOLDER / source], architecture)
    assert compiled.kernels
    assert not list(tiled(compiled))
    assert not compiled.warnings
