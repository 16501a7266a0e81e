"""The process that decodes: pictures of a folder to PNG, upright, in sRGB, with nothing else of theirs kept.

python -m nstgpu.studio.pictures.decode, in that folder, with a JSON order on standard input; one JSON answer comes out.
What it may take of memory and time is limited before it looks at any of them.
"""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

THUMBNAIL = 360
"""Pixels of a thumbnail's longer side."""


def restrict(memory: int, seconds: int) -> bool:
    """Limits this process's address space and processor time; False where the system cannot, as on Windows."""
    try:
        import resource
    except ImportError:
        return False
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (OSError, ValueError):  # macOS has no limit of the address space
            if kind == resource.RLIMIT_CPU:
                return False
    return True


def accept(order: dict[str, Any]) -> dict[str, Any]:
    """NAME -> NAME.png for each; returns their sizes (W, H). Raises ImageError and MemoryError."""
    from PIL import Image

    from ...engine.imaging import files
    from ...engine.imaging.codecs.decoding import opened

    sizes = {}
    for name in order["names"]:
        width, height = opened(Path(name)).size
        if width * height > order["pixels"]:
            most = f"at most {order['pixels'] / 1e6:g} million are taken here"
            raise files.ImageError(f"{name} has {width}x{height} pixels; {most}: shrink it")
        Image.MAX_IMAGE_PIXELS = order["pixels"]
        picture = files.read(name)
        files.save(f"{name}.png", picture.pixels, alpha=picture.alpha, depth=_depth(picture.pixels))
        if name == "content":
            files.preview(picture.pixels, THUMBNAIL).save("thumbnail.webp", quality=80)
        sizes[name] = picture.pixels.shape[1::-1]
        Path(name).unlink()
    return {"sizes": sizes}


def convert(order: dict[str, Any]) -> dict[str, Any]:
    """A finished picture to another format, with its recipe."""
    from ...engine.imaging import files

    picture, recipe = files.read(order["source"]), files.read_recipe(order["source"])
    if order["depth"] == 8:  # so that the recipe repeats the file that it is in
        recipe = {key: re.sub(r"(?m)^depth = 16$", "depth = 8", text) for key, text in recipe.items()}
    files.save(order["target"], picture.pixels, alpha=picture.alpha, recipe=recipe, depth=order["depth"])
    return {}


def _depth(pixels: Any) -> int:
    """8 where that holds all of a picture, else 16."""
    import numpy as np

    for rows in np.array_split(pixels, max(1, pixels.size // 10**7)):
        scaled = rows * 255
        if np.abs(scaled - np.rint(scaled)).max(initial=0) > 1e-3:
            return 16
    return 8


def main() -> None:
    warnings.simplefilter("ignore")
    order = json.load(sys.stdin)
    restrict(order["memory"], order["seconds"])
    from ...engine.errors import ImageError

    try:
        answer = convert(order) if "source" in order else accept(order)
    except ImageError as error:
        answer = {"error": " ".join(str(error).split())}
    except MemoryError:
        answer = {"error": "memory"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
