"""Color profiles: any ICC profile to sRGB, and the one that every file of ours carries. The color engine is lcms."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
from PIL import Image, ImageCms

from ....weights.shortage import is_shortage


@functools.cache
def srgb_profile() -> bytes:
    """The ICC profile that every file written here carries."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # lcms dates the profile with the current time (bytes 24 to 36); the same picture must give the same file.
    return profile[:24] + np.array([2000, 1, 1, 0, 0, 0], dtype=">u2").tobytes() + profile[36:]


def to_srgb(image: Image.Image, profile: bytes | None, label: str) -> Image.Image:
    """An 8-bit image without alpha, as RGB: by its ICC profile, or without one by Pillow's conversion."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
                image = image.convert("RGB")  # gray files often keep the profile of the RGB they came from
            srgb = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
            return ImageCms.buildTransform(source, srgb, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            if is_shortage(error):
                raise MemoryError(f"converting the colors of {label}") from error
            warnings.warn(f"{label}: its colour profile can't be used; taking its colours as sRGB", stacklevel=5)
    return image.convert("RGB")


def color_chart() -> Image.Image:
    """Colors from all over the RGB cube: what a profile does to them is what it does."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3))


def look_alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether no 8-bit channel differs by more than a level, as the best of conversions may by rounding."""
    gram_error = np.asarray(one).astype(np.int16) - np.asarray(other)
    return int(np.abs(gram_error).max()) <= 1
