"""Every kernel of instantiations/sm80_bf16.cu, instantiations/sm80_fp16.cu and instantiations/sm80_tf32.cu against the
reference in float64: on the emulator, on its checking build, and on a GPU where there is one."""

import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.arrays import layer, random, within_share
from harness.devices import Bench, in_memory
from nstgpu.kernels.cuda.conv3x3 import launch_mma_sm80 as tensor_convolution
from nstgpu.kernels.cuda.conv3x3 import launch_simt as convolution
from nstgpu.kernels.cuda.conv3x3 import tile_model as tensor_tiles
from nstgpu.kernels.cuda.conv3x3.launch_mma_sm80 import pack_filters, partial_bytes
from nstgpu.kernels.cuda.conv3x3.launch_simt import pool_argmax_layout, relu_mask_layout
from nstgpu.kernels.cuda.conv3x3.tile_model import PRODUCTS, ConvPlan, cut
from nstgpu.kernels.cuda.elementwise import launch as pointwise
from nstgpu.kernels.cuda.gpu_spec import spec_of
from nstgpu.kernels.cuda.kernel_sets import Mma16BitKernels, MmaKernels
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.storage import MEMORY, rounded, widened
from nstgpu.kernels.device import Pooling
from nstgpu.kernels.emulator import NoCompilerError, compile_library, find_compiler
from nstgpu.kernels.reference import Reference, ReferenceFilters

try:
    find_compiler()
except NoCompilerError as missing:
    warnings.warn(f"NO EMULATOR TESTS: {missing}", stacklevel=1)
    pytest.skip(str(missing), allow_module_level=True)

PRECISIONS = ("bf16", "fp16", "tf32", "3xtf32")
HALVES = ("bf16", "fp16")
SOURCES = {
    "bf16": ["instantiations/sm80_bf16.cu"],
    "fp16": ["instantiations/sm80_fp16.cu"],
    "tf32": ["instantiations/sm80_tf32.cu", "conv3x3/rgb_simt.cu", "elementwise/pooling.cu"],
    "3xtf32": ["instantiations/sm80_tf32.cu", "conv3x3/rgb_simt.cu", "elementwise/pooling.cu"],
}
TURING, HOPPER = spec_of((7, 5), 40), spec_of((9, 0), 132)

# What a layer may lose, relative and root mean square, given the numbers that its products take: to the rounding of
# the result, which is at most 2^-8 of a bf16 and on average less than half of that, and to the additions (budget_of).
EPSILON = 2.0**-24  # of a float32, at most
OUTPUT = {"bf16": 2.0**-9, "fp16": 2.0**-12, "tf32": EPSILON, "3xtf32": EPSILON}
FEW = 500  # numbers, of which the average may be twice that
# And given the numbers that go in, of a layer or of a whole network's gradient.
WHOLE = {"bf16": 2e-2, "fp16": 2e-2, "tf32": 2e-3, "3xtf32": 1e-5}

# (H, W, C_in, C_out): odd sides, a pixel over a tile, channels that end within a block, one block and several.
SHAPES = [(9, 17, 16, 24), (17, 18, 72, 64), (5, 7, 120, 128), (1, 1, 8, 8)]
IMAGE_SHAPES = [(9, 17, 3, 24), (17, 35, 3, 64), (8, 16, 3, 72), (1, 1, 3, 8)]

Shape = tuple[int, int, int, int]
reference = Reference()


class Emulated(EmulatorRuntime):
    """The emulator with the sources of one precision."""

    def __init__(self, precision: str, *, check: bool = False, seed: int = 0, **defines: int) -> None:
        sources = [FOLDER / name for name in SOURCES[precision]]
        self._library = compile_library(sources, check=check, seed=seed, defines=defines)

    @property
    def tensor_kernels(self) -> set[str]:
        return {kernel for kernel in self._library.kernels if re.search(r"_mma_sm80_|_(bf16|fp16)$", kernel)}


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def bench(request: pytest.FixtureRequest) -> Callable[[str], Bench]:
    if request.param == "emulator":
        return lambda precision: Bench(Emulated(precision), precision, HOPPER)
    if problem := cuda_problem():
        pytest.skip(problem)
    return lambda precision: Bench(runtime := CudaRuntime(precision=precision), precision, runtime.spec)


def within_few(actual: Any, expected: Any, share: float, what: str) -> None:
    """A few numbers may be off by twice as much."""
    within_share(actual, expected, share if expected.size > FEW else 2 * share, what)


def as_given(values: Any, precision: str) -> Any:
    """Float64 of what the products take."""
    return widened(rounded(values, precision), precision).astype(np.float64)


def budget_of(precision: str, terms: int) -> float:
    """Rounding of the result, and of `terms` additions: one by one towards zero, or like a random walk."""
    additions = {"3xtf32": 4 * np.sqrt(terms), "tf32": terms / 4}.get(precision, terms / 8)
    return OUTPUT[precision] + EPSILON * float(additions)


def works(precision: str, shape: Shape, channels_out: int) -> Iterator[ConvPlan]:
    """Every tile that fits these channels, in one slice and in as many as there can be."""
    blocks = -(-shape[2] // PRODUCTS[precision].row_channels)
    for tile, split_k in itertools.product(PRODUCTS[precision].tiles, sorted({1, blocks})):
        if -(-channels_out // 64) * 64 % tile.channels == 0:
            yield cut(tile, shape, split_k, PRODUCTS[precision], 90)


# ---- forward --------------------------------------------------------------------------------------------------------
def forward(bench: Bench, shape: Shape, pooling: Pooling, wanted: str, work: ConvPlan | None = None) -> dict[str, Any]:
    """What conv3x3_relu leaves behind, in host memory, of "out", "relu_mask", "pooled" and "pool_argmax"."""
    height, width, channels_in, channels = shape
    x, kernel, bias = layer(shape)
    pooled = (height // 2, width // 2, channels)
    memory = MEMORY[bench.precision]
    layouts = {
        "out": ((height, width, channels), memory),
        "relu_mask": relu_mask_layout((height, width, channels)),
        "pooled": (pooled, memory),
        "pool_argmax": pool_argmax_layout(pooled),
    }
    buffers = {name: bench.empty(*layouts[name]) if name in wanted.split() else None for name in layouts}
    filters = held_filters(bench, kernel, bias)
    values = bench.held(x if channels_in == 3 else in_memory(x, bench.precision))
    workspace = bench.empty((partial_bytes(work, shape) if work else 1 << 20,), np.uint8)
    bench.run(
        tensor_convolution.conv3x3_relu(
            values, filters, bench.spec, pooling=pooling, workspace=workspace, work=work, **buffers
        )
    )
    return {name: bench.fetched(buffer) for name, buffer in buffers.items() if buffer is not None}


def held_filters(bench: Bench, kernel: Any, bias: Any) -> Any:
    filters = pack_filters(kernel, bias, bench.precision)
    arrays = {name: bench.held(getattr(filters, name)) for name in ("forward", "backward", "bias")}
    return filters._replace(**arrays)


def check_forward(bench: Bench, shape: Shape, pooling: Pooling, wanted: str, work: ConvPlan | None = None) -> None:
    height, width, channels_in, channels = shape
    precision, terms = bench.precision, 9 * channels_in + 1
    x, kernel, bias = layer(shape)
    results = forward(bench, shape, pooling, wanted, work)
    y, relu_mask = np.empty((height, width, channels)), np.empty((height, width, channels), bool)
    pooled = np.empty((height // 2, width // 2, channels))
    pool_argmax = np.empty(pooled.shape, np.uint8)
    filters = ReferenceFilters(as_given(kernel, precision), bias.astype(np.float64))
    given = x.astype(np.float64) if channels_in == 3 else as_given(x, precision)
    buffers = {"relu_mask": relu_mask, "pooled": pooled, "pool_argmax": pool_argmax}
    reference.conv3x3_relu(given, filters, out=y, pooling=pooling, **buffers)
    budget = budget_of(precision, terms)
    unsure = 8 * budget_of("3xtf32" if precision == "3xtf32" else "tf32", terms)
    if precision in HALVES and channels_in == 3:
        unsure = 2.0**-14  # an image is given in two numbers of 8 or 11 bits
    if "out" in results:
        within_few(results["out"], y, budget, "out")
        exact = np.empty_like(y)
        plain = ReferenceFilters(kernel.astype(np.float64), bias.astype(np.float64))
        reference.conv3x3_relu(x.astype(np.float64), plain, out=exact, relu_mask=None, pooling=pooling, pooled=None,
                               pool_argmax=None)  # fmt: skip
        within_few(results["out"], exact, WHOLE[precision], "out, and what went in")
    if "relu_mask" in results:
        bits = np.unpackbits(results["relu_mask"], axis=2, bitorder="little").astype(bool)
        np.testing.assert_array_equal(bits | (np.abs(y) < unsure), relu_mask | (np.abs(y) < unsure))
    if "pooled" in results:
        within_few(results["pooled"], pooled, budget, "pooled")
    if "pool_argmax" in results and pool_argmax.size:
        pairs = results["pool_argmax"][..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
        picked = pairs.reshape(pool_argmax.shape)
        quads = np.stack([y[r : height // 2 * 2 : 2, s : width // 2 * 2 : 2] for r in range(2) for s in range(2)])
        sure = np.sort(quads, axis=0)[3] - np.sort(quads, axis=0)[2] > unsure
        np.testing.assert_array_equal(picked[sure], pool_argmax[sure])
        np.testing.assert_array_equal(picked[quads.max(axis=0) == 0], 0, "of equals the first")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(bench: Callable[[str], Bench], precision: str, shape: Shape) -> None:
    for work in works(precision, shape, shape[3]):
        check_forward(bench(precision), shape, "max", "out relu_mask pooled pool_argmax", work)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
def test_forward_from_an_image(bench: Callable[[str], Bench], precision: str, shape: Shape) -> None:
    check_forward(bench(precision), shape, "max", "out relu_mask pooled pool_argmax")


@pytest.mark.parametrize(
    "wanted", ["out", "relu_mask", "pooled", "pooled pool_argmax", "relu_mask pooled pool_argmax", "out pooled"]
)
@pytest.mark.parametrize(("shape", "split_k"), [((9, 12, 3, 16), 1), ((7, 18, 16, 24), 1), ((5, 6, 136, 8), 3)])
def test_forward_stores_what_is_wanted(bench: Callable[[str], Bench], shape: Shape, split_k: int, wanted: str) -> None:
    work = cut(PRODUCTS["bf16"].tiles[-1], shape, split_k, PRODUCTS["bf16"], 90)
    check_forward(bench("bf16"), shape, "max", wanted, work)
    if "pool_argmax" not in wanted:
        check_forward(bench("bf16"), shape, "average", wanted, work)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_of_equal_pixels_the_first_is_chosen(bench: Callable[[str], Bench], precision: str) -> None:
    """With filters of zero every activation is its bias: all four pixels of a square are equal."""
    on = bench(precision)
    filters = held_filters(on, np.zeros((3, 3, 8, 8), np.float32), np.ones(8, np.float32))
    pool_argmax = on.empty(*pool_argmax_layout((4, 4, 8)))
    on.run(
        tensor_convolution.conv3x3_relu(
            on.held(in_memory(random(8, 8, 8), precision)), filters, on.spec, out=None, relu_mask=None, pooling="max",
            pooled=on.empty((4, 4, 8), MEMORY[precision]), pool_argmax=pool_argmax, workspace=None,
        )
    )  # fmt: skip
    assert not on.fetched(pool_argmax).any()


@pytest.mark.parametrize(("precision", "shape"), [*((p, (9, 9, 16, 8)) for p in PRECISIONS), ("bf16", (9, 9, 3, 8))])
def test_what_is_not_a_number_stays_so(bench: Callable[[str], Bench], precision: str, shape: Shape) -> None:
    on = bench(precision)
    x, kernel, bias = layer(shape)
    x[4, 4, 0] = np.nan
    out = on.empty((*shape[:2], shape[3]), MEMORY[precision])
    values = on.held(x if shape[2] == 3 else in_memory(x, precision))
    on.run(
        tensor_convolution.conv3x3_relu(
            values, held_filters(on, kernel, bias), on.spec, out=out, relu_mask=None, pooling="max", pooled=None,
            pool_argmax=None, workspace=None,
        )
    )  # fmt: skip
    expected = np.zeros(out.shape, bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(on.fetched(out)), expected)


# ---- backward -------------------------------------------------------------------------------------------------------
def backward(
    bench: Bench, shape: Shape, masked: bool, accumulate: bool, work: ConvPlan | None = None
) -> tuple[Any, Any]:
    """The input gradient of a layer of this (H, W, C_in, C_out), and the reference's."""
    height, width, channels_in, channels_out = shape
    precision = bench.precision
    _, kernel, bias = layer(shape)
    gradient, before = random(height, width, channels_out, seed=3), random(height, width, channels_in, seed=4)
    relu_mask = random(height, width, channels_in, seed=5) > 0 if masked else None
    start = before if channels_in == 3 else in_memory(before, precision)
    out = bench.held(start) if accumulate else bench.empty(before.shape, start.dtype)
    turned = (height, width, channels_out, channels_in)
    workspace = bench.empty((partial_bytes(work, turned) if work else 1 << 20,), np.uint8)
    bench.run(
        tensor_convolution.conv3x3_input_gradient(
            bench.held(in_memory(gradient, precision)), held_filters(bench, kernel, bias), bench.spec, out=out,
            relu_mask=None if relu_mask is None else bench.held(np.packbits(relu_mask, axis=2, bitorder="little")),
            accumulate=accumulate, workspace=workspace, work=work,
        )
    )  # fmt: skip
    expected = before.astype(np.float64) if channels_in == 3 else widened(start, precision).astype(np.float64)
    filters = ReferenceFilters(as_given(kernel, precision), bias)
    reference.conv3x3_input_gradient(
        as_given(gradient, precision), filters, out=expected, relu_mask=relu_mask, accumulate=accumulate
    )
    actual = bench.runtime.download(out) if channels_in == 3 else bench.fetched(out)
    if relu_mask is not None:
        assert not actual[~relu_mask].any()
    return actual, expected


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(bench: Callable[[str], Bench], precision: str, shape: Shape) -> None:
    turned = (*shape[:2], shape[3], shape[2])
    cases = itertools.cycle([(True, False), (False, True), (True, True), (False, False)])
    for work, (masked, accumulate) in zip(works(precision, turned, shape[2]), cases, strict=False):
        results = backward(bench(precision), shape, masked, accumulate, work)
        within_few(*results, budget_of(precision, 9 * shape[3] + accumulate), "gradient")


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("channels", [8, 64, 72])
@pytest.mark.parametrize(("masked", "accumulate"), [(False, False), (True, True)])
def test_backward_to_an_image(
    bench: Callable[[str], Bench], precision: str, channels: int, masked: bool, accumulate: bool
) -> None:
    for size in ((9, 17), (18, 16), (1, 1)):
        results = backward(bench(precision), (*size, 3, channels), masked, accumulate)
        within_few(*results, budget_of("tf32", 9 * channels), "gradient")  # an image's gradient is not rounded


# ---- what is between convolutions -----------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 5)])
def test_pool_input_gradient(
    bench: Callable[[str], Bench], precision: str, pooling: Pooling, accumulate: bool, size: tuple[int, int]
) -> None:
    on, channels = bench(precision), 24
    height, width = size
    gradient = rounded(random(height // 2, width // 2, channels), precision)
    before = rounded(random(height, width, channels, seed=1), precision)
    relu_mask = random(height, width, channels, seed=2) > 0
    picks = np.random.default_rng(3).integers(0, 4, gradient.shape).astype(np.uint8)
    fours = picks.reshape(*picks.shape[:2], channels // 4, 4)
    packed = (fours << np.array([0, 2, 4, 6], np.uint8)).sum(-1).astype(np.uint8)
    out = on.held(before)
    on.run(
        pointwise.pool_input_gradient_16bit(
            on.held(gradient), on.held(packed) if pooling == "max" else None, out,
            on.held(np.packbits(relu_mask, axis=2, bitorder="little")), accumulate, precision,
        )
    )  # fmt: skip
    expected = widened(before, precision).astype(np.float64)
    reference.pool_input_gradient(widened(gradient, precision).astype(np.float64), pooling=pooling, pool_argmax=picks,
                                  out=expected, relu_mask=relu_mask, accumulate=accumulate)  # fmt: skip
    np.testing.assert_array_equal(on.fetched(out), as_given(expected, precision))


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (2, 3)])
def test_pool2x2(
    bench: Callable[[str], Bench], precision: str, pooling: Pooling, size: tuple[int, int]
) -> None:  # fmt: skip
    on, half = bench(precision), (size[0] // 2, size[1] // 2, 24)
    x = rounded(np.round(random(*size, 24), 1), precision)  # with some that are equal
    out, picks = on.held(np.zeros(half, x.dtype)), np.empty(half, np.uint8)
    packed = on.held(np.zeros((*half[:2], 6), np.uint8)) if pooling == "max" else None
    on.run(pointwise.pool2x2_16bit(on.held(x), out, packed, pooling, precision))
    expected = np.empty(half)
    reference.pool2x2(widened(x, precision).astype(np.float64), pooling=pooling, out=expected, pool_argmax=picks)
    np.testing.assert_array_equal(on.fetched(out), as_given(expected, precision))
    if packed is not None:
        fours = picks.reshape(*half[:2], 6, 4)
        np.testing.assert_array_equal(on.fetched(packed), (fours << np.array([0, 2, 4, 6], np.uint8)).sum(-1))


@pytest.mark.parametrize("precision", HALVES)
def test_relu_gradient(bench: Callable[[str], Bench], precision: str) -> None:
    on = bench(precision)
    gradient, relu_mask = rounded(random(7, 9, 16), precision), random(7, 9, 16, seed=1) > 0
    held = on.held(gradient)
    packed = on.held(np.packbits(relu_mask, axis=2, bitorder="little"))
    on.run(pointwise.relu_gradient_16bit(held, packed, precision))
    np.testing.assert_array_equal(on.fetched(held), np.where(relu_mask, widened(gradient, precision), 0))


# ---- what no single result shows ------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_checking_build_finds_nothing(precision: str) -> None:
    """In every kernel of the precision's source but those of its neighbour."""
    on = Bench(Emulated(precision, check=True), precision, HOPPER)
    row = PRODUCTS[precision].row_channels
    for tile in PRODUCTS[precision].tiles:
        narrow = (3, 5, row + 8, tile.channels)  # two blocks of channels: both halos
        check_forward(
            on, narrow, "max", "out relu_mask pooled pool_argmax", cut(tile, narrow, 1, PRODUCTS[precision], 90)
        )
        turned = cut(tile, (3, 5, row + 8, tile.channels), 2, PRODUCTS[precision], 90)
        backward(on, (3, 5, tile.channels, row + 8), masked=True, accumulate=True, work=turned)
        backward(on, (3, 5, tile.channels, 8), masked=True, accumulate=True)
    sliced = (3, 5, row + 8, 64)
    check_forward(on, sliced, "average", "relu_mask pooled", cut(tile, sliced, 2, PRODUCTS[precision], 90))
    if precision in HALVES:
        check_forward(on, (5, 17, 3, 24), "max", "out relu_mask pooled pool_argmax")
        backward(on, (5, 17, 3, 72), masked=True, accumulate=True)
        test_pool2x2(lambda _: on, precision, "max", (3, 5))
        test_pool2x2(lambda _: on, precision, "average", (3, 5))
        test_pool_input_gradient(lambda _: on, precision, "max", True, (3, 5))
        test_pool_input_gradient(lambda _: on, precision, "average", True, (3, 5))
        test_relu_gradient(lambda _: on, precision)
    others = {"tf32": "3xtf32", "3xtf32": "tf32"}.get(precision, "none")
    assert isinstance(on.runtime, Emulated)
    missed = on.runtime.tensor_kernels - on.launched
    elsewhere = re.compile(
        rf"\w+_mma_sm80_{others}_|mean|content_|gram_|pack_gram_error|style_gradient|project_|sliced_"
        r"|normalize_features_|nearest_|neighbors_|candidate_offsets_"
    )
    assert not {kernel for kernel in missed if not elsewhere.match(kernel)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_order_of_blocks_and_lanes_changes_no_byte(precision: str) -> None:
    shape = (5, 18, 136, 24)
    work = cut(PRODUCTS[precision].tiles[-1], shape, 2, PRODUCTS[precision], 90)
    seen = set()
    for seed in (0, 0, 1, 2):
        on = Bench(Emulated(precision, seed=seed), precision, HOPPER)
        results = forward(on, shape, "max", "out relu_mask pooled pool_argmax", work)
        seen.add(b"".join(values.tobytes() for values in results.values()))
    assert len(seen) == 1


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.slow
def test_turing_computes_the_same(check: bool) -> None:
    """With products of half the depth, copies that do not run ahead, and shared memory for two stages."""
    shape = (5, 18, 72, 64)
    tile = PRODUCTS["fp16"].tiles[-1]
    turing = Bench(Emulated("fp16", check=check, ARCHITECTURE=750), "fp16", TURING)
    work = cut(tile, shape, 1, PRODUCTS["fp16"], 75)
    assert work.shared_bytes <= 64 << 10
    results = forward(turing, shape, "max", "out relu_mask", work)
    hopper = Bench(Emulated("fp16"), "fp16", HOPPER)
    for name, values in forward(
        hopper, shape, "max", "out relu_mask", cut(tile, shape, 1, PRODUCTS["fp16"], 90)
    ).items():
        np.testing.assert_array_equal(results[name], values)
    if check:
        check_forward(turing, (5, 17, 3, 24), "max", "out relu_mask pooled pool_argmax")
        backward(turing, (5, 17, 3, 72), masked=True, accumulate=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_there_and_back(bench: Callable[[str], Bench], precision: str) -> None:
    """The whole gradient, which DESIGN bounds, of an image, two convolutions, a pool and a third one.

    Given which ReLUs let through and which pixels were the largest, as the device decided: of numbers rounded to bf16
    one in a thousand decides otherwise than exact ones, and the gradient jumps there.
    """
    on, memory = bench(precision), MEMORY[precision]
    kernel_set = (Mma16BitKernels if precision in HALVES else MmaKernels)(on.runtime, precision)
    shapes = [(20, 18, 3, 64), (20, 18, 64, 64), (10, 9, 64, 128)]
    kernels = [layer((1, 1, *shape[2:]))[1] for shape in shapes]
    filters = [held_filters(on, kernel, random(kernel.shape[3])) for kernel in kernels]
    exact_filters = [ReferenceFilters(kernel.astype(np.float64), np.zeros(1)) for kernel in kernels]
    workspace = on.empty((1 << 20,), np.uint8)

    activations = [on.empty((20, 18, 64), memory), on.empty((10, 9, 64), memory), on.empty((10, 9, 128), memory)]
    masks = [on.empty(*relu_mask_layout((*shape[:2], shape[3]))) for shape in shapes]
    pool_argmax = on.empty(*pool_argmax_layout((10, 9, 64)))
    x = on.held(100 * random(20, 18, 3))
    for i, y in enumerate(activations):
        outputs = (
            {"out": None, "pooled": y, "pool_argmax": pool_argmax}
            if i == 1
            else {"out": y, "pooled": None, "pool_argmax": None}
        )
        on.run(
            kernel_set.conv3x3_relu(x, filters[i], relu_mask=masks[i], pooling="max", workspace=workspace, **outputs)
        )
        x = y
    passed = [np.unpackbits(on.fetched(relu_mask), axis=2, bitorder="little").astype(bool) for relu_mask in masks]
    picks = (on.fetched(pool_argmax)[..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)).reshape(10, 9, 64)

    start = rounded(random(10, 9, 128), precision) if memory != np.float32 else random(10, 9, 128)
    gradient, exact = on.held(start), widened(start, precision).astype(np.float64) * passed[2]
    on.run(pointwise.relu_gradient_16bit(gradient, masks[2], precision) if precision in HALVES
           else pointwise.relu_gradient(gradient, masks[2]))  # fmt: skip

    def convolve_back(i: int, relu_mask: int | None) -> tuple[Any, Any]:
        out = on.empty((*gradient.shape[:2], shapes[i][2]), memory if i > 0 else np.float32)
        on.run(kernel_set.conv3x3_input_gradient(
            gradient, filters[i], out=out, relu_mask=None if relu_mask is None else masks[relu_mask], accumulate=False,
            workspace=workspace))  # fmt: skip
        expected = np.empty(out.shape)
        mask = None if relu_mask is None else passed[relu_mask]
        reference.conv3x3_input_gradient(exact, exact_filters[i], out=expected, relu_mask=mask, accumulate=False)
        return out, expected

    gradient, exact = convolve_back(2, None)
    unpooled, expected = on.empty((20, 18, 64), memory), np.empty((20, 18, 64))
    on.run(
        pointwise.pool_input_gradient_16bit(gradient, pool_argmax, unpooled, masks[1], False, precision)
        if precision in HALVES
        else pointwise.pool_input_gradient(gradient, pool_argmax, unpooled, masks[1], False)
    )
    reference.pool_input_gradient(
        exact, pooling="max", pool_argmax=picks, out=expected, relu_mask=passed[1], accumulate=False
    )
    gradient, exact = unpooled, expected
    gradient, exact = convolve_back(1, 0)
    gradient, exact = convolve_back(0, None)
    within_few(on.runtime.download(gradient), exact, WHOLE[precision], "whole gradient")


# ---- packing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", PRECISIONS)
def test_packed_filters_hold_every_weight_at_its_place(precision: str) -> None:
    kernel = np.arange(1, 9 * 72 * 40 + 1, dtype=np.float32).reshape(3, 3, 72, 40) / np.float32(2**14)
    packed = pack_filters(kernel, np.ones(40, np.float32), precision)
    row = PRODUCTS[precision].row_channels
    assert packed.bias.tolist() == [1] * 40 + [0] * 24
    for values, taps in ((packed.forward, kernel), (packed.backward, kernel[::-1, ::-1].swapaxes(2, 3))):
        _, _, channels, columns = taps.shape
        assert values.shape == (-(-channels // row), 9, -(-columns // 64) * 64, 8, row // 8)
        assert np.count_nonzero(values) == kernel.size
        for tap, channel, column in ((5, channels - 1, columns - 1), (0, 9, 13), (8, 33, 34)):
            quad, pair, parity = column % 32 // 8, column % 8 // 2, column % 2
            place = column // 32 * 32 + 8 * pair + 2 * quad + parity
            chunk, within_chunk = divmod(channel % row, row // 8)
            found = values[channel // row, tap, place, chunk ^ place % 8, within_chunk]
            assert found == rounded(taps[tap // 3, tap % 3, channel, column], precision)


def test_filters_of_other_widths_go_to_the_kernels_without_tensor_cores() -> None:
    bias = np.zeros(12, np.float32)
    for precision, channels in itertools.product(("tf32", "3xtf32"), (3, 20)):
        packed = pack_filters(np.zeros((3, 3, channels, 12), np.float32), bias, precision)
        assert isinstance(packed, convolution.PackedFilters)
        shape = (8, 8, channels, 12)
        needed = tensor_convolution.workspace_bytes(*shape, precision, HOPPER)
        assert needed == convolution.workspace_bytes(*shape)
        kernels = MmaKernels(cast(Runtime, SimpleNamespace(spec=HOPPER)), precision)
        x, out = np.zeros((8, 8, channels), np.float32), np.zeros((8, 8, 12), np.float32)
        (launch,) = kernels.conv3x3_relu(
            x, packed, out=out, relu_mask=None, pooling="max", pooled=None, pool_argmax=None, workspace=None
        )
        assert launch.kernel.startswith("conv3x3_relu_simt_")
        gradients = kernels.conv3x3_input_gradient(out, packed, out=x, relu_mask=None, accumulate=False, workspace=None)
        assert gradients[0].kernel.startswith("conv3x3_input_gradient_simt_")
    for precision in HALVES:
        with pytest.raises(
            ValueError, match=f"{precision} takes channels in multiples of 8, not 20 to 12; choose fp32"
        ):
            pack_filters(np.zeros((3, 3, 20, 12), np.float32), bias, precision)


def test_a_workspace_too_small_is_refused() -> None:
    shape = (8, 8, 512, 512)
    assert tensor_tiles.choose(shape, "bf16", HOPPER).split_k > 1
    filters = pack_filters(np.zeros((3, 3, 512, 512), np.float32), np.zeros(512, np.float32), "bf16")
    assert isinstance(filters, tensor_convolution.TensorFilters)
    x = np.zeros(shape[:3], np.uint16)
    small = np.zeros(tensor_convolution.workspace_bytes(*shape, "bf16", HOPPER) - 1, np.uint8)
    for workspace in (None, small):
        with pytest.raises(ValueError, match="workspace"):
            tensor_convolution.conv3x3_relu(x, filters, HOPPER, out=x, relu_mask=None, pooling="max", pooled=None,
                                            pool_argmax=None, workspace=workspace)  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_tile_is_tested(precision: str) -> None:
    """The shapes above reach each tile, forward and backward."""
    forward_tiles = {work.tile for shape in SHAPES for work in works(precision, shape, shape[3])}
    turned = [(*shape[:2], shape[3], shape[2]) for shape in SHAPES]
    backward_tiles = {work.tile for shape in turned for work in works(precision, shape, shape[3])}
    assert forward_tiles == backward_tiles == set(PRODUCTS[precision].tiles)
