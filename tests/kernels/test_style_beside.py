"""`conv3x3_input_gradient` with a style beside it: on every device what the two operations are one after the other."""

from typing import Any

import numpy as np
import pytest

from harness.arrays import layer, random
from harness.devices import empty
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.reference import Reference

SHAPE = (6, 7, 5, 9)


def expected(accumulate: bool) -> np.ndarray:
    height, width, channels_in, channels_out = SHAPE
    _, kernel, bias = layer(SHAPE)
    reference, out = Reference(), random(height, width, channels_in, seed=4)
    features, gram_error = random(height, width, channels_in, seed=6), random(channels_in, channels_in, seed=7)
    reference.style_gradient(features, gram_error + gram_error.T, out=out, accumulate=accumulate)
    reference.conv3x3_input_gradient(random(height, width, channels_out, seed=3), reference.pack_filters(kernel, bias),
                                     out=out, relu_mask=None, accumulate=True)  # fmt: skip
    return out


def held(device: Any, values: np.ndarray, dtype: Any) -> Any:
    out = device.allocate(values.size * dtype.itemsize).view(dtype).reshape(values.shape)
    device.upload(values, out)
    return out


def by(device: Any, accumulate: bool) -> np.ndarray:
    height, width, channels_in, channels_out = SHAPE
    _, kernel, bias = layer(SHAPE)
    real = device.activation_dtype
    device.bind_workspace(device.allocate(device.workspace_bytes([SHAPE])))
    filters = device.pack_filters(kernel.astype(np.float32), bias.astype(np.float32))
    gram_error = random(channels_in, channels_in, seed=7)
    out = held(device, random(height, width, channels_in, seed=4), real)
    device.conv3x3_input_gradient(
        held(device, random(height, width, channels_out, seed=3), real), filters, out=out, relu_mask=None,
        accumulate=accumulate, features=held(device, random(height, width, channels_in, seed=6), real),
        gram_error=held(device, gram_error + gram_error.T, device.image_dtype),
    )  # fmt: skip
    assert device.carries_style(filters) is None
    result: np.ndarray = device.download(out)
    return result


@pytest.mark.parametrize("accumulate", [False, True])
def test_on_the_reference_and_the_cpu(accumulate: bool) -> None:
    for device in (Reference(), Cpu()):
        np.testing.assert_allclose(by(device, accumulate), expected(accumulate), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("accumulate", [False, True])
def test_on_a_gpu(device: CudaDevice, accumulate: bool) -> None:
    np.testing.assert_allclose(by(device, accumulate), expected(accumulate), rtol=1e-4, atol=1e-4)


def test_one_without_the_other_is_refused(device: CudaDevice) -> None:
    _, kernel, bias = layer(SHAPE)
    filters = device.pack_filters(kernel.astype(np.float32), bias.astype(np.float32))
    gradient, out = empty(device, (6, 7, 9)), empty(device, (6, 7, 5))
    with pytest.raises(ValueError, match="conv3x3_input_gradient: features and a gram_error belong together"):
        device.conv3x3_input_gradient(gradient, filters, out=out, relu_mask=None, accumulate=False, features=out)
