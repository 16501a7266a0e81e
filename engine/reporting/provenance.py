"""What a picture was made of: a fingerprint of it all, to tell one run from another, and the settings as text."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import balance
from ..costs.statistics import registry
from ..costs.statistics.tuning import Tuning
from ..costs.terms import Costs, Weighting
from ..inputs import Inputs
from ..optimizers.coarse_to_fine import Method
from ..style import Source
from ..wording import shortest
from .recipe import spelled


def fingerprint(inputs: Inputs, weighting: Weighting, method: Method) -> str:
    """SHA-256 (hex) of pictures, masks, weights and settings."""
    digest = hashlib.sha256(inputs.weights.checksum.encode())
    arrays = [inputs.content, *inputs.claims.masks]
    for style in inputs.styles:
        arrays += [style.pixels, style.region]
    for array in arrays:
        digest.update(b"none" if array is None else repr(array.shape).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    own = [(style.weight, style.scale, style.size) for style in inputs.styles]
    ours = (weighting, own, inputs.shape, inputs.border, inputs.reduction, inputs.statistics, inputs.colors)
    if inputs.tuning != Tuning():  # which runs of earlier versions had
        digest.update(repr(inputs.tuning).encode())
    digest.update(repr((ours, inputs.network.pooling, inputs.seed, method)).encode())
    return digest.hexdigest()


def settings(inputs: Inputs, weighting: Weighting, method: Method, init: Source, noise: float) -> dict[str, str]:
    """All that decides what a run comes to, as a recipe tells it."""
    from ... import __version__

    start = Path(init).name if isinstance(init, str | Path) else "given image"
    return {
        "nstgpu": __version__,
        **inputs.names,
        "weights": inputs.weights.name,
        "weights sha256": inputs.weights.checksum,
        "device": inputs.device.name,
        "precision": inputs.device.precision,
        "size": f"{inputs.shape[1]}x{inputs.shape[0]}",
        "scales": ", ".join(f"{scale.long_side} px x {scale.iterations}" for scale in method.scales),
        "content layers": balance.spelled(weighting.content_layers),
        "style layers": balance.spelled(weighting.style_layers),
        "style statistics": inputs.statistics,
        **{
            name.replace("_", " "): str(value)
            for name, value in registry.used(inputs.tuning, inputs.statistics).items()
        },
        "content weight": f"{shortest(weighting.content)} ({inputs.reduction})",
        "style weight": shortest(weighting.style),
        "tv weight": shortest(weighting.tv),
        "colors": inputs.colors,
        "mask feather": f"{inputs.claims.feather} px",
        "border": str(inputs.border),
        "pooling": inputs.network.pooling,
        "style size": ", ".join(
            f"{shortest(style.scale)} of the picture's" if style.size is None else f"{style.size} px"
            for style in inputs.styles
        ),
        "optimizer": method.optimizer,
        **({} if method.settled is None else {"settled": str(method.settled)}),
        "init": f"{start}, {shortest(noise)} noise" if noise else start,
        "seed": str(inputs.seed),
    }


def of_run(settings: dict[str, str], learning_rate: float, history: Sequence[Costs]) -> dict[str, str]:
    """The recipe of a finished run: its `settings`, with what it came to."""
    recipe = dict(settings)
    recipe["optimizer"] += f", learning rate {shortest(learning_rate)}"
    recipe["iterations"] = str(len(history))
    if history:
        last = history[-1]
        recipe["costs"] = (
            f"total {last.total:.6g}, content {last.content:.6g}, style {last.style:.6g}, tv {last.tv:.6g}"
        )
    return {key: spelled(text) for key, text in recipe.items()}
