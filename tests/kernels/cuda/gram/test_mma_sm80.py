"""Every kernel of gram/mma_sm80.cuh against the reference in float64: on the emulator, on its checking build, and on a
GPU where there is one. Tiles, slices and grids are plain arithmetic and are tested as such.

Small integers show that every number is where it belongs, for whose sums are exact in every precision. Others show what
is rounded, each result against a bound of its own: so much of the sum of its terms' sizes.
"""

import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import random, within_bound
from harness.devices import Bench, in_memory
from nstgpu.kernels.cuda.conv3x3.tile_model import PRODUCTS
from nstgpu.kernels.cuda.gpu_spec import H200, GpuSpec, spec_of
from nstgpu.kernels.cuda.gram import launch_mma_sm80 as tensor_gram
from nstgpu.kernels.cuda.gram.kernel_names import GRAM_SPLIT_K_SUM
from nstgpu.kernels.cuda.gram.launch_mma_sm80 import (
    OPERAND_BYTES,
    PIXELS,
    WORTH_SPLITTING,
    choose_gram,
    choose_style_gradient,
)
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.storage import MEMORY, rounded, widened
from nstgpu.kernels.emulator import NoCompilerError, compile_library, find_compiler
from nstgpu.kernels.reference import Reference

try:
    find_compiler()
except NoCompilerError as missing:
    warnings.warn(f"NO EMULATOR TESTS: {missing}", stacklevel=1)
    pytest.skip(str(missing), allow_module_level=True)

PRECISIONS = ("bf16", "fp16", "tf32", "3xtf32")
TURING = spec_of((7, 5), 40)

# (H, W, C): a pixel, odd sides, channels that end within a chunk of rows or a tile, one tile and several, slices.
SHAPES = [(1, 1, 8), (3, 7, 24), (33, 35, 64), (5, 9, 72), (17, 33, 136)]

EPSILON = 2.0**-24  # of a float32, at most
UNIT = {"bf16": 2.0**-8, "fp16": 2.0**-11, "tf32": 2.0**-11, "3xtf32": 2.0**-22}  # of what a product takes, likewise
OUTPUT = {"bf16": 2.0**-8, "fp16": 2.0**-11, "tf32": EPSILON, "3xtf32": EPSILON}

Shape = tuple[int, int, int]
reference = Reference()


class Emulated(EmulatorRuntime):
    """The emulator, of another GPU if there are defines."""

    def __init__(self, precision: str, *, check: bool = False, seed: int = 0, **defines: int) -> None:
        super().__init__(precision, check=check, seed=seed)
        if defines:
            sources = [FOLDER / f"instantiations/sm80_{precision}.cu", FOLDER / "gram/simt.cu"]
            self._library = compile_library(sources, check=check, seed=seed, defines=defines)

    def kernels_of(self, precision: str) -> set[str]:
        return {name for name in self._library.kernels
                if re.match(rf"(gram|style_gradient|pack_gram_error)_mma_sm80_{precision}(_|$)", name)}  # fmt: skip


class GramBench(Bench):
    """With the Gram matrix and its gradient as functions."""

    def gram(self, features: Any, weights: Any = None) -> Any:
        """Of features in float32 that the precision holds exactly."""
        height, width, channels = features.shape
        out = self.empty((channels, channels), np.float32)
        needed = tensor_gram.gram_workspace_bytes(height, width, channels, self.precision, self.spec)
        self.run(
            tensor_gram.gram(
                self.held(in_memory(features, self.precision)), out, None if weights is None else self.held(weights),
                self.empty((needed,), np.uint8), self.precision, self.spec,
            )
        )  # fmt: skip
        return self.runtime.download(out)

    def style_gradient(self, features: Any, gram_error: Any, before: Any = None, mean_error: Any = None,
                       weights: Any = None, factor: float = 1.0) -> Any:  # fmt: skip
        """In float32; accumulated where there is something before."""
        memory = MEMORY[self.precision]
        out = self.empty(features.shape, memory) if before is None else self.held(in_memory(before, self.precision))
        needed = tensor_gram.style_gradient_workspace_bytes(features.shape[2], self.precision)
        self.run(
            tensor_gram.style_gradient(
                self.held(in_memory(features, self.precision)), self.held(gram_error), out=out,
                accumulate=before is not None, mean_error=None if mean_error is None else self.held(mean_error),
                weights=None if weights is None else self.held(weights), workspace=self.empty((needed,), np.uint8),
                precision=self.precision, spec=self.spec, factor=factor,
            )
        )  # fmt: skip
        return widened(self.runtime.download(out), self.precision)


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def bench(request: pytest.FixtureRequest) -> Callable[..., GramBench]:
    """`wide`: with tiles for a GPU of one multiprocessor, which are wide however few there are."""

    def make(precision: str, wide: bool = False) -> GramBench:
        runtime: Runtime
        if request.param == "emulator":
            runtime = Emulated(precision)
        elif problem := cuda_problem():
            pytest.skip(problem)
        else:
            runtime = CudaRuntime(precision=precision)
        spec = dataclasses.replace(runtime.spec, multiprocessors=1) if wide else runtime.spec
        return GramBench(runtime, precision, spec)

    return make


def exact(values: Any, precision: str) -> Any:
    """The nearest that the precision's products take as they are."""
    return widened(rounded(values, precision), precision)


def activations(shape: Shape, precision: str) -> Any:
    """Half of them zero, as after a ReLU."""
    return exact(np.maximum(random(*shape), 0), precision)


def integers(low: int, high: int, *shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.float32)


def gram_of(features: Any, weights: Any = None) -> Any:
    channels, wide = features.shape[2], features.astype(np.float64)
    out = np.empty((channels, channels))
    reference.gram(wide, out, weights=None if weights is None else weights.astype(np.float64))
    return out


def additions(precision: str, terms: int) -> float:
    """What adding up so many terms may cost, of the sum of their sizes: the sums of 3xtf32 are rounded, at random, the
    others cut, eight terms or four at once. What 3xtf32 leaves out of its products comes with it."""
    if precision == "3xtf32":
        return 3 * UNIT["3xtf32"] + EPSILON * float(np.sqrt(terms) + 4)
    return EPSILON * (terms / 4 + 4)


# ---- the Gram matrix ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gram_of_integers_is_exact_and_symmetric(
    bench: Callable[..., GramBench], precision: str, shape: Shape
) -> None:
    on, features = bench(precision), integers(0, 7, *shape)
    scale = np.float32(1 / (shape[0] * shape[1]))
    for weights in (None, integers(0, 4, *shape[:2], seed=1) / np.float32(2)):
        result = on.gram(features, weights)
        sums = np.rint(2 * gram_of(features, weights) * shape[0] * shape[1]) / 2
        np.testing.assert_array_equal(result, sums.astype(np.float32) * scale)
        np.testing.assert_array_equal(result, result.T)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(33, 35, 64), (17, 33, 136)], ids=str)
def test_a_gram_is_rounded_as_little_as_is_said(bench: Callable[..., GramBench], precision: str, shape: Shape) -> None:
    on, features = bench(precision), activations(shape, precision)
    weights = np.random.default_rng(1).random(shape[:2], np.float32) * np.float32(2)
    sums = additions(precision, shape[0] * shape[1])
    for case, rounding in ((None, 0.0), (weights, UNIT[precision])):
        result, expected = on.gram(features, case), gram_of(features, case)
        np.testing.assert_array_equal(result, result.T)
        within_bound(result, expected, (sums + rounding) * expected, "gram")  # whose terms are all positive


def test_tf32_is_rounded_and_not_cut(bench: Callable[..., GramBench]) -> None:
    """Cut, features of 24 bits would lose a 2^-12th of themselves or more on average, all in one direction."""
    features = 1 + np.random.default_rng(0).random((16, 32, 8), np.float32)
    assert abs(float(np.mean(bench("tf32").gram(features) / gram_of(features))) - 1) < 2.0**-15


def test_all_the_weight_on_a_few_large_features_does_not_overflow(bench: Callable[..., GramBench]) -> None:
    """In fp16 the product of the two would be beyond 65504."""
    features, weights = integers(0, 2, 20, 30, 8) * np.float32(3000), np.zeros((20, 30), np.float32)
    weights[3, 4:6] = 300
    expected = gram_of(features, weights)
    within_bound(bench("fp16").gram(features, weights), expected, UNIT["fp16"] * expected, "gram")


# ---- the style gradient ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("shape", "wide"), [*((shape, False) for shape in SHAPES), ((11, 12, 128), True)])
def test_the_style_gradient_of_integers_is_exact(
    bench: Callable[..., GramBench], precision: str, shape: Shape, wide: bool
) -> None:
    """A difference that isn't symmetric is multiplied from the right."""
    height, width, channels = shape
    on, features = bench(precision, wide), integers(0, 3, *shape)
    gram_error, mean_error = integers(-8, 8, channels, channels, seed=1), integers(-9, 9, channels, seed=2)
    weights, before = integers(0, 4, height, width, seed=3) / np.float32(2), integers(-20, 20, *shape, seed=4)
    product = features.astype(np.float64) @ gram_error
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, product),
        (
            {"before": before, "mean_error": mean_error, "weights": weights},
            weights[..., None] * (product + mean_error) + before,
        ),
        ({"weights": weights, "factor": 0.25}, weights[..., None] * product / 4),
    ]
    for given, expected in cases:
        result = on.style_gradient(features, gram_error, **given)
        np.testing.assert_array_equal(result, widened(in_memory(expected.astype(np.float32), precision), precision))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_style_gradient_is_rounded_as_little_as_is_said(bench: Callable[..., GramBench], precision: str) -> None:
    """Columns of the difference are of sizes from 1e-9 on, each at a scale of its own; a factor brings them to where
    fp16 is."""
    shape = height, width, channels = 9, 21, 136
    features, factor = activations(shape, precision), 2.0**15 if precision == "fp16" else 1.0
    sizes = (10 ** np.linspace(-9, -2, channels)).astype(np.float32)
    gram_error, mean_error = random(channels, channels, seed=1) * sizes, random(channels, seed=2) * sizes
    weights = np.random.default_rng(3).random((height, width), np.float32) * np.float32(2)
    result = bench(precision).style_gradient(
        features, gram_error, mean_error=mean_error, weights=weights, factor=factor
    )
    wide, scale = features.astype(np.float64), factor * weights[..., None].astype(np.float64)
    expected = scale * (wide @ gram_error + mean_error)
    terms = scale * (wide @ np.abs(gram_error) + np.abs(mean_error))
    least = 2.0**-25 if precision == "fp16" else 0  # of its numbers below 2^-14
    bound = (UNIT[precision] + additions(precision, channels)) * terms + OUTPUT[precision] * np.abs(expected) + least
    within_bound(result, expected, bound, "style gradient")
    error, size = (np.sqrt(np.mean(np.square(values), axis=(0, 1))) for values in (result - expected, expected))
    within_bound(error, 0, 2 * UNIT[precision] * size, "each column")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_difference_of_nothing_or_of_no_numbers_stays_so(bench: Callable[..., GramBench], precision: str) -> None:
    gram_error = integers(1, 3, 16, 16)
    gram_error[:, 3], gram_error[5, 7], gram_error[2, 9] = 0, np.nan, np.inf
    result = bench(precision).style_gradient(integers(1, 3, 4, 5, 16), gram_error)
    assert not result[..., 3].any()
    assert np.isnan(result[..., 7]).all()
    assert np.isposinf(result[..., 9]).all() or precision == "3xtf32"  # the lower half of infinity is none
    others = np.delete(result, [7, 9], axis=2)
    assert np.isfinite(others).all()


# ---- what no single result shows ------------------------------------------------------------------------------------
CHECKED = [(3, 7, 24), (2, 3, 136), (2, 9, 128)]


def check(bench: Callable[..., GramBench], precision: str, shapes: list[Shape] = CHECKED) -> None:
    for shape in shapes:
        test_the_gram_of_integers_is_exact_and_symmetric(bench, precision, shape)
        test_the_style_gradient_of_integers_is_exact(bench, precision, shape, shape[2] == 128)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_checking_build_finds_nothing_in_any_kernel(precision: str) -> None:
    runtime, launched = Emulated(precision, check=True), set[str]()

    def make(precision: str, wide: bool = False) -> GramBench:
        bench = GramBench(runtime, precision, dataclasses.replace(H200, multiprocessors=1) if wide else H200)
        bench.launched = launched
        return bench

    check(make, precision)
    assert runtime.kernels_of(precision) == launched - set(GRAM_SPLIT_K_SUM.values())


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.slow
def test_turing_computes_the_same(checked: bool) -> None:
    """With products of half the depth, copies that do not run ahead, and shared memory for two stages."""
    runtime = Emulated("fp16", check=checked, ARCHITECTURE=750)
    small = dataclasses.replace(TURING, multiprocessors=1)
    shapes = CHECKED if checked else [*CHECKED, (33, 35, 64), (17, 33, 136)]
    check(lambda precision, wide=False: GramBench(runtime, precision, small if wide else TURING), "fp16", shapes)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_order_of_blocks_and_lanes_changes_no_byte(precision: str) -> None:
    shape, seen = (17, 33, 72), set()
    features, weights = activations(shape, precision), np.random.default_rng(1).random(shape[:2], np.float32)
    assert choose_gram(*shape, precision, H200).split_k > 1
    for seed in (0, 0, 1, 2):
        on = GramBench(Emulated(precision, seed=seed), precision, H200)
        results = on.gram(features, weights), on.style_gradient(features, random(72, 72), features, weights=weights)
        seen.add(b"".join(values.tobytes() for values in results))
    assert len(seen) == 1


# ---- tiles, slices and grids ----------------------------------------------------------------------------------------
TAPS = [(size >> block, size >> block, 64 << min(block, 3)) for size in (224, 512, 2048) for block in range(5)]
CHIPS = {"T4": TURING, "A100": spec_of((8, 0), 108), "RTX 4090": spec_of((8, 9), 128), "H200": H200}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("spec", CHIPS.values(), ids=CHIPS)
def test_the_gram_covers_the_triangle_and_fits_the_chip(spec: GpuSpec, precision: str) -> None:
    for shape in [*SHAPES, *TAPS, (16384, 16384, 64), (7, 9, 1024)]:
        height, width, channels = shape
        work = choose_gram(*shape, precision, spec)
        across = -(-channels // work.side)
        assert work.tiles == len([(row, column) for row in range(across) for column in range(across) if row <= column])
        assert work.split_k == 1 or work.tiles * work.split_k <= spec.multiprocessors * work.resident
        steps = -(-height * width * PRODUCTS[precision].itemsize * work.side // OPERAND_BYTES)
        assert work.split_k == 1 or steps // work.split_k >= WORTH_SPLITTING
        products, sums = gram_launches(shape, precision, spec)
        assert products.kernel == f"gram_mma_sm80_{precision}_{work.side}x{work.side}"
        assert products.grid[:2] == (work.tiles, work.split_k)
        assert products.shared_bytes <= spec.block_shared_bytes
        assert sums.grid[0] == work.tiles
        assert work.nbytes == tensor_gram.gram_workspace_bytes(*shape, precision, spec)


def gram_launches(shape: Shape, precision: str, spec: GpuSpec) -> list[Launch]:
    features = np.broadcast_to(np.zeros((), MEMORY[precision]), shape)
    workspace = np.broadcast_to(np.uint8(0), (tensor_gram.gram_workspace_bytes(*shape, precision, spec),))
    return tensor_gram.gram(features, np.zeros(1, np.float32), None, workspace, precision, spec)


@pytest.mark.parametrize(("shape", "split_k"), [((512, 512, 64), 264), ((256, 256, 128), 132), ((64, 64, 512), 13)])
def test_slices_fill_a_gpu_where_there_is_work_for_it(shape: Shape, split_k: int) -> None:
    assert choose_gram(*shape, "bf16", H200).split_k == split_k
    assert choose_gram(1, 1, shape[2], "bf16", H200).split_k == 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("spec", CHIPS.values(), ids=CHIPS)
def test_the_style_gradient_is_covered_and_fits_the_chip(spec: GpuSpec, precision: str) -> None:
    for shape in [*SHAPES, *TAPS, (7, 9, 1024)]:
        height, width, channels = shape
        work = choose_style_gradient(*shape, precision, spec)
        assert 0 <= work.down * PIXELS - height * width < PIXELS
        assert work.across * work.channels == -(-channels // 64) * 64, "what is packed"
        assert work.shared_bytes <= spec.block_shared_bytes


@pytest.mark.parametrize(("shape", "tile"), [((512, 512, 64), 64), ((256, 256, 128), 128), ((64, 64, 512), 128),
                                             ((32, 32, 512), 64), ((256, 256, 192), 64)])  # fmt: skip
def test_wide_tiles_where_they_fill_the_gpu(shape: Shape, tile: int) -> None:
    assert choose_style_gradient(*shape, "bf16", H200).channels == tile


@pytest.mark.parametrize("precision", PRECISIONS)
def test_channels_come_in_eights(precision: str) -> None:
    assert [channels for channels in range(1, 25) if tensor_gram.serves(channels, precision)] == [8, 16, 24]
    assert not tensor_gram.serves(64, "fp32")


def test_a_workspace_too_small_is_refused() -> None:
    features, matrix = np.zeros((8, 8, 64), np.uint16), np.zeros((64, 64), np.float32)
    small = np.zeros(tensor_gram.gram_workspace_bytes(8, 8, 64, "bf16", H200) - 1, np.uint8)
    with pytest.raises(ValueError, match="the workspace has 16383 bytes of 16384"):
        tensor_gram.gram(features, matrix, None, small, "bf16", H200)
    small = np.zeros(tensor_gram.style_gradient_workspace_bytes(64, "bf16") - 1, np.uint8)
    with pytest.raises(ValueError, match="the workspace has 8447 bytes of 8448"):
        tensor_gram.style_gradient(features, matrix, out=features, accumulate=False, mean_error=None, weights=None,
                                   workspace=small, precision="bf16", spec=H200)  # fmt: skip
