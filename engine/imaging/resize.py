"""Images to other sizes, by the device's own operation; for whoever holds them in host memory."""

import numpy as np
from numpy.typing import NDArray

from ...kernels.device import Device
from ..memory.arena import Buffer, allocate
from ..memory.spill import empty
from ..types import Image


def resized(device: Device, pixels: Image, size: tuple[int, int]) -> Image:
    """(h, w, 3) in [0, 1] -> (H, W, 3) with (H, W) `size`; left as it is, to the last bit, where it has that size."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    shape = (*size, 3)
    if device.in_host_memory and pixels.dtype == device.image_dtype and pixels.flags.c_contiguous:
        out: Image = empty(shape, device.image_dtype)  # with no copies, which may be large
        device.resize(pixels, out)
        device.clamp(out)
        return out
    shapes = {"image": pixels.shape, "out": shape}
    held = allocate(device, [Buffer(name, shape, device.image_dtype, 0, 0) for name, shape in shapes.items()])
    device.upload(pixels, held["image"])
    device.resize(held["image"], held["out"])
    device.clamp(held["out"])
    return device.download(held["out"])


def resized_alpha(device: Device, alpha: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The same for (h, w)."""
    channels = empty((*alpha.shape, 3), np.float32)
    channels[...] = alpha[..., None]
    single: NDArray[np.float32] = empty(size, np.float32)
    single[...] = resized(device, channels, size)[..., 0]
    return single
