"""Every kernel of conv3x3/simt.cu and conv3x3/rgb_simt.cu against the reference in float64 and the naive kernels: on
the emulator, on its checking build, and on a GPU where there is one. Tiles, slices and grids are plain arithmetic and
are tested as such."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import layer, mask_bits, random, within
from harness.devices import empty, held
from nstgpu.kernels.cuda.conv3x3 import launch_simt as convolution
from nstgpu.kernels.cuda.conv3x3.launch_simt import ConvPlan, choose_tile
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import SIMT_MULTIPROCESSORS
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.device import Pooling
from nstgpu.kernels.reference import Reference

EPSILON = float(np.finfo(np.float32).eps)
BUDGET = 0.5  # of eps sqrt(K): what rounding makes of a sum of K products, relative and root mean square

# (H, W, C_in, C_out): odd sides, a pixel over a tile, every variant in both directions, with slices and without.
SHAPES = [
    (16, 16, 3, 64), (17, 33, 3, 16), (21, 19, 3, 33), (7, 40, 3, 130),
    (16, 16, 16, 16), (17, 23, 16, 32), (31, 33, 64, 64), (18, 70, 32, 48), (16, 17, 48, 128), (19, 21, 128, 64),
    (33, 16, 128, 128), (9, 7, 20, 260), (4, 6, 512, 512), (70, 47, 64, 12), (65, 34, 4, 4),
    (16, 18, 5, 7), (23, 17, 33, 5), (17, 16, 7, 130), (16, 16, 6, 8), (1, 1, 8, 16), (1, 9, 12, 8), (9, 1, 8, 20),
]  # fmt: skip
# Small, and still every kernel: the checking build is slow.
CHECKED_SHAPES = [
    (11, 19, 3, 70), (9, 35, 3, 5), (9, 15, 8, 8), (5, 31, 12, 60), (6, 9, 8, 100), (4, 5, 128, 128), (7, 9, 5, 3),
    (3, 5, 133, 70), (5, 7, 60, 12),
]  # fmt: skip

Runtimes = Callable[..., Runtime]
reference = Reference()


def bind_workspace(device: CudaDevice, shape: tuple[int, int, int, int]) -> None:
    """Exactly as much as is asked for."""
    device.bind_workspace(device.allocate(convolution.workspace_bytes(*shape)))


# ---- forward --------------------------------------------------------------------------------------------------------
def forward(device: CudaDevice, shape: tuple[int, int, int, int], pooling: Pooling, wanted: str) -> dict[str, Any]:
    """What conv3x3_relu leaves behind, in host memory, of "out", "relu_mask", "pooled" and "pool_argmax"."""
    height, width, _, channels = shape
    x, kernel, bias = layer(shape)
    pooled = (height // 2, width // 2, channels)
    layouts = {
        "out": ((height, width, channels), np.dtype(np.float32)),
        "relu_mask": device.relu_mask_layout((height, width, channels)),
        "pooled": (pooled, np.dtype(np.float32)),
        "pool_argmax": device.pool_argmax_layout(pooled),
    }
    names = wanted.split()
    buffers = {name: empty(device, *layouts[name]) if name in names else None for name in layouts}
    bind_workspace(device, shape)
    device.conv3x3_relu(held(device, x), device.pack_filters(kernel, bias), pooling=pooling, **buffers)
    return {name: device.download(buffers[name]) for name in names}


def check_forward(device: CudaDevice, shape: tuple[int, int, int, int], pooling: Pooling, wanted: str) -> None:
    height, width, channels_in, channels = shape
    x, kernel, bias = layer(shape)
    results = forward(device, shape, pooling, wanted)
    y, relu_mask = np.empty((height, width, channels)), np.empty((height, width, channels), bool)
    pooled = np.empty((height // 2, width // 2, channels))
    pool_argmax = np.empty(pooled.shape, np.uint8)
    filters = reference.pack_filters(kernel, bias)
    reference.conv3x3_relu(
        x.astype(np.float64),
        filters,
        out=y,
        relu_mask=relu_mask,
        pooling=pooling,
        pooled=pooled,
        pool_argmax=pool_argmax,
    )
    terms = 9 * channels_in + 1
    if "out" in results:
        within(results["out"], y, terms, BUDGET, what="out")
    if "relu_mask" in results:
        ours = device.unpack_relu_mask(held(device, results["relu_mask"]), channels)
        np.testing.assert_array_equal(mask_bits(ours), results["relu_mask"], "bits beyond the last channel")
        unsure = np.abs(y) < 8 * EPSILON * np.sqrt(terms)
        np.testing.assert_array_equal(ours | unsure, relu_mask | unsure)
        if "out" in results:
            np.testing.assert_array_equal(ours, results["out"] > 0)
    if "pooled" in results:
        within(results["pooled"], pooled, terms, BUDGET, what="pooled")
    if "pool_argmax" in results and pool_argmax.size:
        picked = device.unpack_pool_argmax(held(device, results["pool_argmax"]), channels)
        quads = np.stack([y[r : height // 2 * 2 : 2, s : width // 2 * 2 : 2] for r in range(2) for s in range(2)])
        chosen = np.take_along_axis(quads, picked[None].astype(np.int64), axis=0)[0]
        sure = np.sort(quads, axis=0)[3] - np.sort(quads, axis=0)[2] > 8 * EPSILON * np.sqrt(terms)
        np.testing.assert_array_equal(picked[sure], pool_argmax[sure])
        np.testing.assert_array_equal(picked[pooled == 0], 0, "of equals the first")
        np.testing.assert_allclose(chosen, pooled, atol=8 * EPSILON * np.sqrt(terms))
        assert not (results["pool_argmax"][..., -1] >> (2 * ((channels - 1) % 4 + 1)) & 0xFF).any(), (
            "bits beyond the last"
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(device: CudaDevice, shape: tuple[int, int, int, int]) -> None:
    check_forward(device, shape, "max", "out relu_mask pooled pool_argmax")


@pytest.mark.parametrize(
    "wanted", ["out", "relu_mask", "pooled", "pooled pool_argmax", "relu_mask pooled pool_argmax", "out pooled"]
)
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("shape", [(17, 19, 3, 20), (15, 18, 16, 30), (13, 9, 64, 64), (9, 12, 7, 9)], ids=str)
def test_forward_stores_what_is_wanted(
    device: CudaDevice, shape: tuple[int, int, int, int], pooling: Pooling, wanted: str
) -> None:
    if pooling == "max" or "pool_argmax" not in wanted:
        check_forward(device, shape, pooling, wanted)


def test_of_equal_pixels_the_first_is_chosen(device: CudaDevice) -> None:
    """With filters of zero every activation is its bias: all four pixels of a square are equal."""
    filters = device.pack_filters(np.zeros((3, 3, 8, 8), np.float32), np.ones(8, np.float32))
    pool_argmax = empty(device, *device.pool_argmax_layout((4, 4, 8)))
    bind_workspace(device, (8, 8, 8, 8))
    device.conv3x3_relu(held(device, random(8, 8, 8)), filters, out=None, relu_mask=None, pooling="max",
                        pooled=empty(device, (4, 4, 8)), pool_argmax=pool_argmax)  # fmt: skip
    assert not device.download(pool_argmax).any()


@pytest.mark.parametrize("shape", [(9, 9, 3, 8), (9, 9, 16, 8)])
def test_what_is_not_a_number_stays_so(device: CudaDevice, shape: tuple[int, int, int, int]) -> None:
    x, kernel, bias = layer(shape)
    x[4, 4, 0] = np.nan
    out = empty(device, (*shape[:2], shape[3]))
    bind_workspace(device, shape)
    device.conv3x3_relu(held(device, x), device.pack_filters(kernel, bias), out=out, relu_mask=None, pooling="max",
                        pooled=None, pool_argmax=None)  # fmt: skip
    expected = np.zeros(out.shape, bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(device.download(out)), expected)


# ---- backward -------------------------------------------------------------------------------------------------------
def backward(device: CudaDevice, shape: tuple[int, int, int, int], masked: bool, accumulate: bool) -> tuple[Any, Any]:
    """The input gradient, and the reference's."""
    height, width, channels_in, channels_out = shape
    _, kernel, bias = layer(shape)
    gradient, before = random(height, width, channels_out, seed=3), random(height, width, channels_in, seed=4)
    relu_mask = random(height, width, channels_in, seed=5) > 0 if masked else None
    out = held(device, before) if accumulate else empty(device, before.shape)
    bind_workspace(device, shape)
    device.conv3x3_input_gradient(
        held(device, gradient), device.pack_filters(kernel, bias), out=out,
        relu_mask=None if relu_mask is None else held(device, mask_bits(relu_mask)), accumulate=accumulate,
    )  # fmt: skip
    expected = before.astype(np.float64)
    filters = reference.pack_filters(kernel, bias)
    reference.conv3x3_input_gradient(
        gradient.astype(np.float64), filters, out=expected, relu_mask=relu_mask, accumulate=accumulate
    )
    if relu_mask is not None:
        assert not device.download(out)[~relu_mask].any()
    return device.download(out), expected


@pytest.mark.parametrize(("masked", "accumulate"), [(True, False), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(device: CudaDevice, shape: tuple[int, int, int, int], masked: bool, accumulate: bool) -> None:
    actual, expected = backward(device, shape, masked, accumulate)
    within(actual, expected, 9 * shape[3] + accumulate, BUDGET, what="gradient")


# ---- the naive kernels ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["emulator", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("shape", [(9, 14, 3, 10), (8, 11, 12, 16), (7, 9, 5, 6)], ids=str)
def test_naive_kernels_agree_with_the_reference_and_the_fast_ones(
    runtime_called: Runtimes, name: str, shape: tuple[int, int, int, int]
) -> None:
    runtime = runtime_called(name)
    device = CudaDevice(runtime)
    height, width, channels_in, channels_out = shape
    x, kernel, bias = layer(shape)
    sizes = tuple(np.int32(size) for size in shape)

    out = empty(device, (height, width, channels_out))
    arguments = (held(device, x), held(device, kernel), held(device, bias), out, *sizes)
    runtime.launch(Launch("conv3x3_relu_naive", (out.size // 64 + 1, 1, 1), (64, 1, 1), arguments))
    expected = np.empty(out.shape)
    reference.conv3x3_relu(x.astype(np.float64), reference.pack_filters(kernel, bias), out=expected, relu_mask=None,
                           pooling="max", pooled=None, pool_argmax=None)  # fmt: skip
    within(device.download(out), expected, 9 * channels_in + 1, BUDGET, what="naive")
    within(forward(device, shape, "max", "out")["out"], device.download(out), 9 * channels_in + 1, BUDGET, what="fast")

    gradient, out = random(height, width, channels_out, seed=3), empty(device, (height, width, channels_in))
    arguments = (held(device, gradient), held(device, kernel), out, *sizes)
    runtime.launch(Launch("conv3x3_input_gradient_naive", (out.size // 64 + 1, 1, 1), (64, 1, 1), arguments))
    fast, expected = backward(device, shape, masked=False, accumulate=False)
    within(device.download(out), expected, 9 * channels_out, BUDGET, what="naive backward")
    within(fast, device.download(out), 9 * channels_out, BUDGET, what="fast backward")


# ---- what no single result shows ------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", CHECKED_SHAPES, ids=str)
def test_the_checking_build_finds_nothing(checked: CudaDevice, shape: tuple[int, int, int, int]) -> None:
    check_forward(checked, shape, "max", "out relu_mask pooled pool_argmax")
    check_forward(checked, shape, "average", "relu_mask pooled")
    within(*backward(checked, shape, masked=True, accumulate=True), 9 * shape[3], BUDGET, what="gradient")


def test_the_checked_shapes_launch_every_kernel(runtime_called: Runtimes) -> None:
    names = set()
    device = CudaDevice(runtime_called("emulator"), on_launch=lambda launch: names.add(launch.kernel))
    for shape in CHECKED_SHAPES:
        forward(device, shape, "max", "out")
        backward(device, shape, masked=False, accumulate=False)
    variants = [tile.variant for tile in (*convolution.TILES, convolution.ANY_TILE)]
    kernels = {
        f"conv3x3_{way}_simt_{kind}" for way in ("relu", "input_gradient") for kind in (*variants, "rgb", "split_k_sum")
    }
    assert names == kernels


@pytest.mark.parametrize("shape", [(17, 19, 3, 20), (16, 17, 48, 128), (4, 6, 512, 64), (18, 17, 7, 9)], ids=str)
def test_the_order_of_blocks_and_lanes_changes_no_byte(
    runtime_called: Runtimes, shape: tuple[int, int, int, int]
) -> None:
    seen = set()
    for seed in (0, 0, 1, 2):
        device = CudaDevice(runtime_called("emulator", seed=seed))
        results = forward(device, shape, "max", "out relu_mask pooled pool_argmax")
        gradient, _ = backward(device, shape, masked=True, accumulate=True)
        seen.add(b"".join(values.tobytes() for values in (*results.values(), gradient)))
    assert len(seen) == 1


# ---- tiles, slices and grids ----------------------------------------------------------------------------------------
NETWORK = [(size >> block, size >> block, c_in, c_out)
           for size in (224, 256, 512, 1024, 2048)
           for block, c_in, c_out in [(0, 64, 64), (1, 64, 128), (1, 128, 128), (2, 128, 256), (2, 256, 256),
                                      (3, 256, 512), (3, 512, 512), (4, 512, 512)]]  # fmt: skip


def covers(work: ConvPlan, shape: tuple[int, int, int, int]) -> bool:
    height, width, _, channels = shape
    squares = -(-height // 2) * -(-width // 2)
    rows, columns = work.down * work.tile.pixels, work.across * work.tile.channels
    return 0 <= rows - 4 * squares < work.tile.pixels and 0 <= columns - channels < work.tile.channels


@pytest.mark.parametrize("taps", [9, 1])
@pytest.mark.parametrize("shape", [*SHAPES, *NETWORK, (16384, 16384, 64, 64)], ids=str)
def test_tiles_cover_everything_and_slices_fill_at_most_one_wave(shape: tuple[int, int, int, int], taps: int) -> None:
    work = choose_tile(*shape, taps=taps)
    assert covers(work, shape)
    assert work.grid[0] < 2**31
    assert max(work.grid[1:]) < 65536
    blocks = work.down * work.across * work.split_k
    assert work.split_k == 1 or blocks <= SIMT_MULTIPROCESSORS * work.tile.resident
    steps = taps * -(-shape[2] // convolution.DEPTH)
    assert work.split_k == 1 or steps // work.split_k >= convolution.WORTH_SPLITTING


@pytest.mark.parametrize(
    ("shape", "variant", "split_k"),
    [
        ((512, 512, 64, 64), "128x64", 1),
        ((512, 512, 16, 24), "128x32", 1),
        ((256, 256, 128, 128), "128x128", 1),
        ((64, 64, 512, 512), "128x128", 2),
        ((32, 32, 512, 512), "128x128", 8),
        ((256, 256, 128, 192), "128x64", 1),  # 128x128 would compute 256 channels
        ((256, 256, 5, 128), "128x64_any", 1),
    ],
    ids=str,
)
def test_the_tile_for_a_shape(shape: tuple[int, int, int, int], variant: str, split_k: int) -> None:
    work = choose_tile(*shape)
    assert (work.tile.variant, work.split_k) == (variant, split_k)


def test_large_networks_keep_a_small_workspace() -> None:
    """Slices are for small maps: what they need is bounded by one wave of tiles, however large the image."""
    wave = SIMT_MULTIPROCESSORS * 2 * 128 * 128 * 4
    assert max(convolution.workspace_bytes(*shape) for shape in NETWORK) <= wave
    assert convolution.workspace_bytes(2048, 2048, 64, 64) == 0


def test_a_workspace_too_small_is_refused() -> None:
    shape = (32, 32, 512, 512)
    filters = convolution.pack_filters(np.zeros((3, 3, 512, 512), np.float32), np.zeros(512, np.float32))
    x = np.zeros(shape[:3], np.float32)
    small = np.zeros(convolution.workspace_bytes(*shape) - 1, np.uint8)
    for workspace in (None, small):
        with pytest.raises(ValueError, match="workspace"):
            convolution.conv3x3_relu(x, filters, out=x, relu_mask=None, pooling="max", pooled=None, pool_argmax=None,
                                     workspace=workspace)  # fmt: skip


@pytest.mark.parametrize(("channels_in", "channels_out"), [(16, 20), (5, 7), (3, 10)])
def test_packed_filters_hold_every_weight_once_and_zeros(channels_in: int, channels_out: int) -> None:
    kernel = np.arange(1, 9 * channels_in * channels_out + 1, dtype=np.float32).reshape(3, 3, channels_in, channels_out)
    packed = convolution.pack_filters(kernel, np.ones(channels_out, np.float32))
    for values in (packed.forward, packed.backward):
        assert sorted(values[values != 0]) == sorted(kernel.reshape(-1))
    assert packed.bias.sum() == channels_out
    if channels_in != convolution.IMAGE_CHANNELS:
        tap, c, k = 5, channels_in - 1, channels_out - 1
        assert packed.forward[(c // 8 * 9 + tap) * 8 + c % 8, k] == kernel[1, 2, c, k]
        assert packed.backward[(k // 8 * 9 + tap) * 8 + k % 8, c] == kernel[1, 0, c, k]


def test_masks_and_choices_take_a_bit_and_two() -> None:
    assert convolution.relu_mask_layout((5, 7, 17)) == ((5, 7, 3), np.dtype(np.uint8))
    assert convolution.pool_argmax_layout((5, 7, 17)) == ((5, 7, 5), np.dtype(np.uint8))
