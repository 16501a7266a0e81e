"""Image files and image arrays to RGB floats in [0, 1], and back to files.

Everything that differs between one picture and another ends here: file formats, pixel modes, bit depths,
orientation, transparency and color profiles. The rest of the engine sees one kind of array, RGB in sRGB,
shape (H, W, 3), values in [0, 1]. Decoding, encoding and color management are Pillow's. Resizing is left to
the kernels, and which file is read or written when is for the caller to say.

This is where the others come to. The work is done in `decoding` (files to Pillow's images; `strips` cuts large
ones), `conversion` and `color_profiles` (those to RGB floats), `encoding` (floats to files) and `whole_file`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import ImageError
from .codecs import strips
from .codecs.color_profiles import srgb_profile
from .codecs.conversion import assembled, deep_tiff, picture_of_array, picture_of_image
from .codecs.decoding import content_of, decoding, in_parts, opened, pipes_read_once, whole
from .codecs.encoding import EXIF_IMAGE_DESCRIPTION, check_destination, check_size, encode, preview, save, write_png
from .codecs.whole_file import check_place, whole_file, write_whole
from .picture import AnyArray, Float32Array, Picture, long_side, output_size

__all__ = [
    "AnyArray",
    "Float32Array",
    "ImageError",
    "Picture",
    "check_destination",
    "check_place",
    "check_size",
    "content_of",
    "encode",
    "long_side",
    "output_size",
    "pipes_read_once",
    "preview",
    "read",
    "read_recipe",
    "save",
    "srgb_profile",
    "whole_file",
    "write_png",
    "write_whole",
]

LONGEST_DESCRIPTION = 1 << 20
"""Characters of a recipe in EXIF, about a hundred times what a run writes."""


def read(source: Picture | str | os.PathLike[str] | Image.Image | AnyArray) -> Picture:
    """Read a picture from a file, a Pillow image or an array; raise ImageError if it can't be one.

    Raises MemoryError where that is what lacks.

    Files are PNG, JPEG, WebP, TIFF, GIF, BMP, AVIF where Pillow has it, and HEIC where pillow-heif is installed, told
    apart by their content; of several frames the first is read, with a warning. EXIF
    orientation is applied, an embedded ICC profile is converted to sRGB (an unusable one is ignored with a
    warning) and every pixel mode becomes RGB. 16 bits a channel stay 16, but for gray PNGs with alpha, CMYK, colors
    under a profile other than sRGB, TIFFs that are premultiplied, and images that Pillow has opened, which are read
    in 8. Pillow's mode "I" is taken as 0..65535, and "F" as 0..1 or, if it goes beyond 1, as
    0..255.

    Arrays are (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGB with alpha: uint8, uint16, or floats in [0, 1].
    float32 and float64 values are copied unchanged to the last bit and keep their dtype.

    A Picture is returned as it is.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            with pipes_read_once():
                parts = in_parts(path)
                if parts is not None:
                    return assembled(*parts, str(path), path.stem)
                deep = deep_tiff(path)
                return picture_of_image(*whole(path), str(path), path.stem) if deep is None else deep
        except MemoryError as error:  # most say nothing, or only how much
            raise MemoryError(f"reading {path}") from error
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")  # only images that Pillow opened from a path have one
        return picture_of_image(source, None, "the Pillow image", Path(filename).stem if filename else "image")
    if isinstance(source, np.ndarray):
        return picture_of_array(source)
    raise ImageError(f"cannot read a {type(source).__name__}; give a path, a PIL.Image or a NumPy array")


def read_recipe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what save() recorded with a picture: PNG's text chunks, or the JSON in EXIF's ImageDescription.

    Empty if there is nothing of the kind. Raises ImageError for a file that isn't a readable picture.
    """
    image = opened(Path(path))
    if isinstance(image, PngImagePlugin.PngImageFile):
        if image.width * image.height > strips.LARGE:  # text behind the pixels is not worth decoding them
            return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}
        with decoding(str(path)):
            return {str(key): str(text) for key, text in image.text.items()}
    try:
        description = image.getexif()[EXIF_IMAGE_DESCRIPTION]
        recipe = json.loads(description) if len(description) <= LONGEST_DESCRIPTION else None
    except (
        Exception
    ):  # no EXIF, EXIF that Pillow can't parse, another program's description, JSON nested for its own sake
        return {}
    return {key: text for key, text in recipe.items() if isinstance(text, str)} if isinstance(recipe, dict) else {}
