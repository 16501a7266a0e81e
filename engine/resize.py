"""Images to other sizes, by the device's own operation; for whoever holds them in host memory."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import Device
from .memory import Buffer, allocate
from .optimise import Image


def resized(device: Device, pixels: Image, size: tuple[int, int]) -> Image:
    """(h, w, 3) in [0, 1] -> (H, W, 3) with (H, W) `size`; left as it is, to the last bit, where it has that size."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    shapes = {"image": pixels.shape, "out": (*size, 3)}
    held = allocate(device, [Buffer(name, shape, device.image_dtype, 0, 0) for name, shape in shapes.items()])
    device.upload(pixels, held["image"])
    device.resize(held["image"], held["out"])
    device.clamp(held["out"])
    return device.download(held["out"])


def resized_alpha(device: Device, alpha: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The same for (h, w)."""
    channels = np.repeat(alpha[..., None], 3, axis=2)
    single: NDArray[np.float32] = resized(device, channels, size)[..., 0].astype(np.float32)
    return single
