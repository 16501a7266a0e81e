"""Every kernel of gram/simt.cu against the reference in float64 and the naive kernel: on the emulator, on its checking
build, and on a GPU where there is one. Tiles, slices and grids are plain arithmetic and are tested as such.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import mean_one, random, within
from harness.devices import empty, held
from nstgpu.kernels.cuda.conv3x3 import launch_simt as convolution
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import SIMT_MULTIPROCESSORS
from nstgpu.kernels.cuda.gram import launch_simt as gram
from nstgpu.kernels.cuda.gram.launch_simt import choose_gram
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.reference import Reference

EPSILON = float(np.finfo(np.float32).eps)
BUDGET = 0.5  # of eps sqrt(K): what rounding makes of a sum of K products, relative and root mean square

# (H, W, C): odd sides, one and several tiles, channels over a tile, every variant, with slices and without.
SHAPES = [
    (16, 16, 3), (17, 23, 5), (31, 33, 7), (16, 17, 16), (19, 21, 32), (33, 18, 33), (70, 47, 48), (64, 65, 64),
    (16, 16, 66), (9, 31, 68), (40, 41, 128), (16, 17, 132), (17, 16, 256), (5, 7, 260), (4, 6, 512), (1, 1, 8),
    (1, 7, 130),
]  # fmt: skip
# Small, and still every kernel: the checking build is slow.
CHECKED_SHAPES = [
    (13, 21, 20),
    (11, 24, 7),
    (6, 45, 130),
    (9, 30, 132),
    (3, 5, 66),
    (2, 3, 256),
    (3, 3, 48),
    (1, 2, 388),
]

Runtimes = Callable[..., Runtime]
reference = Reference()


def activations(shape: tuple[int, int, int]) -> Any:
    """Half of them zero, as after a ReLU."""
    return np.maximum(random(*shape), 0)


def gram_of(device: CudaDevice, features: Any, weights: Any = None) -> Any:
    """In host memory, computed in a workspace of exactly the size asked for."""
    channels = features.shape[2]
    device.bind_workspace(device.allocate(gram.gram_workspace_bytes(*features.shape)))
    out = empty(device, (channels, channels))
    device.gram(held(device, features), out, weights=None if weights is None else held(device, weights))
    return device.download(out)


def mean_of(device: CudaDevice, features: Any, weights: Any = None) -> Any:
    device.bind_workspace(device.allocate(gram.mean_workspace_bytes(*features.shape)))
    out = empty(device, features.shape[2:])
    device.mean(held(device, features), out, weights=None if weights is None else held(device, weights))
    return device.download(out)


def check_moments(device: CudaDevice, shape: tuple[int, int, int], weighted: bool) -> None:
    features, expected, mean = activations(shape), np.empty((shape[2], shape[2])), np.empty(shape[2])
    weights = mean_one(*shape[:2]) if weighted else None
    weights64 = None if weights is None else weights.astype(np.float64)
    reference.gram(features.astype(np.float64), expected, weights=weights64)
    reference.mean(features.astype(np.float64), mean, weights=weights64)
    actual = gram_of(device, features, weights)
    within(actual, expected, shape[0] * shape[1] + 3 * weighted, BUDGET, what="gram")
    np.testing.assert_array_equal(actual, actual.T)
    within(mean_of(device, features, weights), mean, shape[0] * shape[1] + 3, BUDGET, what="mean")


def style_gradient(device: CudaDevice, shape: tuple[int, int, int], accumulate: bool, moved: bool) -> tuple[Any, Any]:
    """F S [+ out], and the reference's; S symmetric, as it always is. `moved`: w (F S + shift) instead."""
    features, before, gram_error = activations(shape), random(*shape, seed=1), random(shape[2], shape[2], seed=2)
    gram_error += gram_error.T
    others = {"mean_error": 3 * random(shape[2], seed=3), "weights": mean_one(*shape[:2])} if moved else {}
    out = held(device, before) if accumulate else empty(device, shape)
    device.bind_workspace(device.allocate(gram.style_gradient_workspace_bytes(*shape)))
    device.style_gradient(
        held(device, features),
        held(device, gram_error),
        out=out,
        accumulate=accumulate,
        **{name: held(device, values) for name, values in others.items()},
    )
    expected = before.astype(np.float64)
    reference.style_gradient(
        features.astype(np.float64),
        gram_error.astype(np.float64),
        out=expected,
        accumulate=accumulate,
        **{name: values.astype(np.float64) for name, values in others.items()},
    )
    return device.download(out), expected


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments(device: CudaDevice, shape: tuple[int, int, int], weighted: bool) -> None:
    check_moments(device, shape, weighted)


@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_style_gradient(device: CudaDevice, shape: tuple[int, int, int], accumulate: bool, moved: bool) -> None:
    actual, expected = style_gradient(device, shape, accumulate, moved)
    within(actual, expected, shape[2] + accumulate + 3 * moved, BUDGET, what="style gradient")


@pytest.mark.parametrize("given", ["mean_error", "weights"])
def test_shift_and_weights_come_alone_too(device: CudaDevice, given: str) -> None:
    features, gram_error = activations((9, 11, 20)), random(20, 20, seed=2)
    values = random(20, seed=3) if given == "mean_error" else mean_one(9, 11)
    out, expected = empty(device, features.shape), np.empty(features.shape)
    device.style_gradient(
        held(device, features), held(device, gram_error), out=out, accumulate=False, **{given: held(device, values)}
    )
    reference.style_gradient(
        features.astype(np.float64),
        gram_error.astype(np.float64),
        out=expected,
        accumulate=False,
        **{given: values.astype(np.float64)},
    )
    within(device.download(out), expected, 24, BUDGET, what=given)


def test_a_difference_that_is_not_symmetric_is_multiplied_from_the_right(device: CudaDevice) -> None:
    features, gram_error = activations((9, 11, 20)), random(20, 20, seed=2)
    out = empty(device, features.shape)
    device.style_gradient(held(device, features), held(device, gram_error), out=out, accumulate=False)
    within(device.download(out), features.astype(np.float64) @ gram_error.astype(np.float64), 20, BUDGET, what="F S")


@pytest.mark.parametrize("name", ["emulator", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("shape", [(9, 14, 20), (8, 11, 7)], ids=str)
def test_the_gram_naive_agrees_with_the_reference_and_the_fast_one(
    runtime_called: Runtimes, name: str, shape: tuple[int, int, int]
) -> None:
    runtime = runtime_called(name)
    device = CudaDevice(runtime)
    features, channels = activations(shape), shape[2]
    out, expected = empty(device, (channels, channels)), np.empty((channels, channels))
    arguments = (held(device, features), out, np.int32(shape[0] * shape[1]), np.int32(channels))
    runtime.launch(Launch("gram_naive", (1, channels, 1), (64, 1, 1), arguments))
    reference.gram(features.astype(np.float64), expected)
    within(device.download(out), expected, shape[0] * shape[1], BUDGET, what="naive")
    within(gram_of(device, features), device.download(out), shape[0] * shape[1], BUDGET, what="fast")


# ---- what no single result shows ------------------------------------------------------------------------------------
@pytest.mark.parametrize("moved", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("shape", CHECKED_SHAPES, ids=str)
def test_the_checking_build_finds_nothing(checked: CudaDevice, shape: tuple[int, int, int], moved: bool) -> None:
    check_moments(checked, shape, moved)
    within(*style_gradient(checked, shape, True, moved), shape[2] + 3 * moved, BUDGET, what="style gradient")


def test_the_checked_shapes_launch_every_kernel(runtime_called: Runtimes) -> None:
    names = set()
    device = CudaDevice(runtime_called("emulator"), on_launch=lambda launch: names.add(launch.kernel))
    for shape in CHECKED_SHAPES:
        for weights in (None, mean_one(*shape[:2])):
            gram_of(device, activations(shape), weights)
            mean_of(device, activations(shape), weights)
        style_gradient(device, shape, accumulate=False, moved=True)
    assert names == {
        *("gram_simt_128x128", "gram_simt_64x64", "gram_simt_64x64_any"),
        *("gram_by_16_split_k_sum", "gram_by_4_split_k_sum"),
        *("mean_fp32", "mean_fp32_any", "mean_split_k_sum"),
        *("gram_weighted_simt_128x128", "gram_weighted_simt_64x64", "gram_weighted_simt_64x64_any"),
        *("style_gradient_simt_128x64", "style_gradient_simt_128x32"),
        *("style_gradient_simt_128x64_any", "style_gradient_simt_split_k_sum"),
    }


@pytest.mark.parametrize(("split_k", "side", "channels"), [(1, 64, 33), (3, 128, 130), (16, 64, 64), (37, 64, 70)])
def test_splits_are_added_up_in_one_order_however_many_threads_share_them(
    device: CudaDevice, split_k: int, side: int, channels: int
) -> None:
    tiles = -(-channels // side) * (-(-channels // side) + 1) // 2
    partials, found = held(device, random(tiles, split_k, side, side)), []
    for name, ranks in (("gram_by_16_split_k_sum", 16), ("gram_by_4_split_k_sum", 4)):
        out = held(device, np.zeros((channels, channels), np.float32))
        sizes = (np.int32(split_k), np.int32(side), np.int32(channels), np.float32(0.5))
        grid = (tiles, side**2 * ranks // 1024, 1)
        device.stream.launch(Launch(name, grid, (256, 1, 1), (partials, out, *sizes)))
        found.append(device.download(out))
    np.testing.assert_array_equal(found[0], found[1])
    first = 0.5 * random(tiles, split_k, side, side)[0].astype(np.float64).sum(axis=0)
    inside = np.triu(first)[:channels, :channels]
    within(np.triu(found[0])[: len(inside), : len(inside)], inside, split_k, what="sum")


@pytest.mark.parametrize("shape", [(33, 35, 64), (17, 16, 256), (40, 16, 7)], ids=str)
def test_the_order_of_blocks_and_lanes_changes_no_byte(runtime_called: Runtimes, shape: tuple[int, int, int]) -> None:
    seen = set()
    for seed in (0, 0, 1, 2):
        device = CudaDevice(runtime_called("emulator", seed=seed))
        gradient, _ = style_gradient(device, shape, accumulate=True, moved=True)
        moments = (gram_of(device, activations(shape)), mean_of(device, activations(shape), mean_one(*shape[:2])))
        seen.add(b"".join(values.tobytes() for values in (*moments, gradient)))
    assert len(seen) == 1


# ---- tiles, slices and grids ----------------------------------------------------------------------------------------
TAPS = [(size >> block, size >> block, 64 << min(block, 3)) for size in (224, 512, 2048) for block in range(5)]


@pytest.mark.parametrize("shape", [*SHAPES, *TAPS, (16384, 16384, 64)], ids=str)
def test_the_slices_of_a_mean_keep_a_gpu_busy_and_none_is_empty(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    split_k, groups = gram.mean_slices(*shape), -(-channels // gram.MEAN_CHANNELS)
    assert 1 <= split_k <= max(1, height * width // gram.MEAN_PIXELS)
    assert split_k * groups <= max(groups, 8 * SIMT_MULTIPROCESSORS)
    if height * width >= 512**2:
        assert split_k * groups >= 4 * SIMT_MULTIPROCESSORS


@pytest.mark.parametrize("shape", [*SHAPES, *TAPS, (16384, 16384, 64)], ids=str)
def test_tiles_cover_the_upper_triangle_and_slices_fill_at_most_one_wave(shape: tuple[int, int, int]) -> None:
    work = choose_gram(*shape)
    across = -(-shape[2] // work.side)
    assert work.tiles == len([(row, column) for row in range(across) for column in range(across) if row <= column])
    assert work.split_k >= 1
    assert work.split_k == 1 or work.tiles * work.split_k <= SIMT_MULTIPROCESSORS * work.resident
    steps = -(-shape[0] * shape[1] // convolution.DEPTH)
    assert work.split_k == 1 or steps // work.split_k >= gram.WORTH_SPLITTING
    assert work.nbytes <= max(1, SIMT_MULTIPROCESSORS * 2) * 128 * 128 * 4


def test_a_workspace_too_small_is_refused() -> None:
    features, out = np.zeros((16, 16, 64), np.float32), np.zeros((64, 64), np.float32)
    small = np.zeros(gram.gram_workspace_bytes(16, 16, 64) - 1, np.uint8)
    with pytest.raises(ValueError, match="workspace"):
        gram.gram(features, out, None, small)
    with pytest.raises(ValueError, match="workspace"):
        gram.mean(features, out[0], None, small[: gram.mean_workspace_bytes(16, 16, 64) - 1])
    features = np.zeros((8, 8, 512), np.float32)
    assert gram.style_gradient_workspace_bytes(*features.shape) > 0
    with pytest.raises(ValueError, match="workspace"):
        gram.style_gradient(features, np.zeros((512, 512), np.float32), out=features, accumulate=False, mean_error=None,
                            weights=None, workspace=None)  # fmt: skip
