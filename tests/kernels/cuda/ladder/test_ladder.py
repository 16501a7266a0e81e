"""Every rung of both ladders against float64, in the emulator's checking build, and compiled for the GPUs it is for.

Shapes are small, with pixels over every tile's edge; a rung's own channels, twice where it loops over them.
"""

from typing import Any

import numpy as np
import pytest

from harness.arrays import layer
from harness.devices import compiled
from nstgpu.kernels.cuda.ladder.rungs import CONV3X3, GRAM, SLICES, Rung, packed_filters, tensor_maps
from nstgpu.kernels.cuda.runtime import nvrtc
from nstgpu.kernels.cuda.runtime.tensor_map import encode_for_emulator
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.reference import Reference

RUNGS = [*CONV3X3, *GRAM]
SM_90A = [rung for rung in RUNGS if rung.by_tensor_map]
BUDGET = {"fp32": 2e-6, "bf16": 4e-3}
"""Of the largest value: rounding of a sum, and for bf16 of the result as well."""


def in_memory(values: np.ndarray, rung: Rung) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel reads, and what that is in float64."""
    stored = rounded(values, "bf16") if rung.precision == "bf16" else np.ascontiguousarray(values, np.float32)
    return stored, (widened(stored, "bf16") if rung.precision == "bf16" else stored).astype(np.float64)


@pytest.mark.parametrize("check", [False, True], ids=["plain", "checked"])
@pytest.mark.parametrize("rung", CONV3X3, ids=lambda rung: rung.name)
def test_convolution(rung: Rung, check: bool) -> None:
    shape = (9, 18, 2 * max(8, rung.channels) if rung.channels < 64 else 64, 64)
    height, width, _, channels_out = shape
    x, filters, bias = layer(shape)
    pixels, exact_pixels = in_memory(x, rung)
    packed, _ = in_memory(packed_filters(filters, rung), rung)
    out = np.full((height, width, channels_out), 0x7FC1 if rung.precision == "bf16" else np.nan, pixels.dtype)
    operands: list[Any] = [pixels, packed]
    buffers: list[Any] = []
    if rung.by_tensor_map:
        maps = tensor_maps(pixels.ctypes.data, packed.ctypes.data, shape)
        operands, buffers = [encode_for_emulator(each) for each in maps], [pixels, packed]
    compiled(rung.source, check=check, seed=1).launch(
        rung.kernel, rung.grid(shape), rung.block, [*operands, bias, out, *map(np.int32, shape)],
        shared_bytes=rung.shared_bytes, buffers=buffers, uninitialised=[out],
    )  # fmt: skip
    expected = np.empty(out.shape)
    reference = Reference()
    exact_filters = in_memory(filters, rung)[1]
    reference.conv3x3_relu(
        exact_pixels, reference.pack_filters(exact_filters, bias.astype(np.float64)), out=expected, relu_mask=None,
        pooling="max", pooled=None, pool_argmax=None,
    )  # fmt: skip
    ours = widened(out, "bf16") if rung.precision == "bf16" else out
    np.testing.assert_allclose(ours, expected, rtol=0, atol=BUDGET[rung.precision] * expected.max())


@pytest.mark.parametrize("check", [False, True], ids=["plain", "checked"])
@pytest.mark.parametrize("rung", GRAM, ids=lambda rung: rung.name)
def test_gram(rung: Rung, check: bool) -> None:
    pixels, channels = 16 * 19 + 5, 128
    features, exact = in_memory(np.random.default_rng(0).standard_normal((pixels, channels), np.float32), rung)
    out = np.full((channels, channels), np.nan, np.float32)
    partials = np.full((SLICES, channels, channels), np.nan, np.float32)
    arrived = np.zeros((channels // 64) ** 2, np.uint32)
    workspace = [partials, arrived] if rung.sliced else []
    library = compiled(rung.source, check=check, seed=1)
    for _ in range(2):  # the counters are zero again
        library.launch(
            rung.kernel, rung.grid((pixels, 1, channels, channels)), rung.block,
            [features, out, *workspace, np.int32(pixels), np.int32(channels)], uninitialised=[out, partials],
        )  # fmt: skip
        assert not arrived.any()
    expected = exact.T @ exact / pixels
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(out, out.T)


def test_the_slices_are_added_in_one_order() -> None:
    """Whatever the order of the blocks, the bytes are the same."""
    rung = GRAM[2]
    pixels, channels = 16 * 40, 64
    features = np.random.default_rng(0).standard_normal((pixels, channels), np.float32)
    results = []
    for seed in range(4):
        out, partials = np.empty((channels, channels), np.float32), np.empty((SLICES, channels, channels), np.float32)
        compiled(rung.source, seed=seed).launch(
            rung.kernel, rung.grid((pixels, 1, channels, channels)), rung.block,
            [features, out, partials, np.zeros(1, np.uint32), np.int32(pixels), np.int32(channels)],
        )  # fmt: skip
        results.append(out.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_no_rung_spills(architecture: str) -> None:
    try:
        compiler = nvrtc.find_nvrtc()
    except DeviceError as error:
        pytest.skip(str(error))
    rungs = [rung for rung in RUNGS if architecture == "sm_90a" or rung not in SM_90A]
    for rung, cubin in zip(
        rungs, nvrtc.compile_sources([r.source for r in rungs], architecture, compiler), strict=True
    ):
        resources = cubin.kernels[rung.kernel]
        assert resources.spill_bytes == 0, rung.name
        assert resources.registers <= 255, rung.name
