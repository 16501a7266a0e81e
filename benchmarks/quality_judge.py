"""The judge: how far a picture is from a style and from a content, under a network that it was not painted with.

The network is a thin VGG-19, down to relu5_1, with 1x1 maps to VGG-19's channels at the first layer of every block. It
was trained by others, and no picture was optimised under it. All distances are relative, and 0 for the same picture.

Style, at relu1_1 to relu5_1:
  sliced: the Wasserstein-2 distance of the two sets of features along a direction, as the root of its mean square over
    128 directions, in parts of the style's own spread along them;
  gram: |Gram(picture) - Gram(style)| / |Gram(style)|, of features as they are.
Content, at relu2_1 to relu5_1: the self-similarity of STROTSS (Kolkin et al. 2019). D[i, j] is the cosine distance
  between the features at places i and j, and is divided by its mean over i; the distance is the mean of
  |D(picture) - D(content)|. Colors may change, and textures: what must stay is which places are alike.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import nstgpu
from nstgpu.engine.model import network
from nstgpu.kernels.open import open_device

Floats = NDArray[np.floating[Any]]

STYLE_TAPS = tuple(f"relu{block}_1" for block in range(1, 6))
CONTENT_TAPS = STYLE_TAPS[1:]
DIRECTIONS = 128
PLACES = {"style": 8192, "content": 1024}
"""At most so many, on a regular grid."""


class Judge:
    """weights: the network's file. maps: a file of NumPy's with conv11_aux.weight (C, c, 1, 1), conv11_aux.bias, ..."""

    def __init__(self, weights: Path, maps: Path, device: str = "cpu") -> None:
        self.device = open_device(device)
        self.network = network.build(self.device, nstgpu.load_weights(weights), STYLE_TAPS[-1], "max")
        with np.load(maps) as arrays:
            self.maps = {
                tap: (arrays[f"conv{tap[4]}1_aux.weight"][:, :, 0, 0].T, arrays[f"conv{tap[4]}1_aux.bias"])
                for tap in STYLE_TAPS
            }
        self._buffers: dict[tuple[int, int], network.Buffers] = {}
        self._targets: dict[tuple[Path, int, str], Any] = {}

    def activations(self, image: Floats) -> dict[str, Floats]:
        """By tap, (h, w, c)."""
        size = image.shape[:2]
        if size not in self._buffers:
            self._buffers.clear()
            self._buffers[size] = network.reserve(self.device, self.network, size, STYLE_TAPS, backward=False)
        buffers = self._buffers[size]
        pixels = np.ascontiguousarray(image, self.device.image_dtype)
        network.forward(self.device, self.network, buffers, pixels)
        layers = zip(self.network.layers, buffers.layers, strict=True)
        return {layer.tap: np.array(kept.output) for layer, kept in layers if layer.tap in STYLE_TAPS}

    def mapped(self, tap: str, activations: Floats, what: str) -> Floats:
        """VGG-19's features at some places: (places, C)."""
        kernel, bias = self.maps[tap]
        features: Floats = np.maximum(thinned(activations, PLACES[what]) @ kernel + bias, 0)
        return features

    def style(self, activations: dict[str, Floats]) -> dict[str, tuple[Floats, Floats]]:
        """By tap, the sorted projections (directions, places), and the Gram matrix."""
        found: dict[str, tuple[Floats, Floats]] = {}
        for tap in STYLE_TAPS:
            features = self.mapped(tap, activations[tap], "style")
            found[tap] = sorted_projections(features), features.T @ features / len(features)
        return found

    def content(self, activations: dict[str, Floats]) -> dict[str, Floats]:
        """By tap, the cosine distances between places, by their mean."""
        return {tap: self_similarity(self.mapped(tap, activations[tap], "content")) for tap in CONTENT_TAPS}

    def verdict(self, picture: Path, content: Path, style: Path) -> dict[str, dict[str, float]]:
        """The distances `sliced`, `gram` and `content_by_tap`, each by tap."""
        pixels = read(picture)
        height, width = pixels.shape[:2]
        seen = self.activations(pixels)
        key = content, width, f"content {height}"
        if key not in self._targets:
            self._targets[key] = self.content(self.activations(read(content, (width, height))))
        wanted_content = self._targets[key]
        key = style, max(height, width), "style"
        if key not in self._targets:
            with Image.open(style) as image:
                share = max(height, width) / max(image.size)
                size = round(image.width * share), round(image.height * share)
            self._targets[key] = self.style(self.activations(read(style, size)))
        wanted_style, own_style, own_content = self._targets[key], self.style(seen), self.content(seen)
        return {
            "sliced": {tap: sliced_distance(own_style[tap][0], wanted_style[tap][0]) for tap in STYLE_TAPS},
            "gram": {tap: relative_distance(own_style[tap][1], wanted_style[tap][1]) for tap in STYLE_TAPS},
            "content_by_tap": {
                tap: float(np.mean(np.abs(own_content[tap] - wanted_content[tap]))) for tap in CONTENT_TAPS
            },
        }


def read(path: Path, size: tuple[int, int] | None = None) -> Floats:
    """(H, W, 3) in [0, 1], at (W, H) `size`."""
    with Image.open(path) as image:
        shown = image.convert("RGB")
    if size is not None and shown.size != size:
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(shown, np.float32) / 255


def thinned(activations: Floats, most: int) -> Floats:
    """At most so many places of (h, w, C), by whole steps along both sides: (places, C)."""
    step = 1
    while len(range(0, activations.shape[0], step)) * len(range(0, activations.shape[1], step)) > most:
        step += 1
    return np.ascontiguousarray(activations[::step, ::step]).reshape(-1, activations.shape[2])


def sorted_projections(features: Floats) -> Floats:
    """(places, C) -> (DIRECTIONS, places): the projections in order, on directions that are always the same."""
    directions = np.random.default_rng(0).standard_normal((DIRECTIONS, features.shape[1]), np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.sort(directions @ features.T, axis=1)


def sliced_distance(values: Floats, target: Floats) -> float:
    """Between sorted projections (K, n) and (K, m), in parts of the target's standard deviation."""
    if values.shape[1] != target.shape[1]:
        ranks, own = (np.arange(n, dtype=float) + 0.5 for n in (values.shape[1], target.shape[1]))
        ranks, own = ranks / len(ranks), own / len(own)
        target = np.stack([np.interp(ranks, own, row) for row in target])
    return float(np.sqrt(np.mean((values - target) ** 2) / np.mean(np.var(target, axis=1))))


def relative_distance(values: Floats, target: Floats) -> float:
    return float(np.linalg.norm(values - target) / np.linalg.norm(target))


def self_similarity(features: Floats) -> Floats:
    """(n, C) -> (n, n), each column with a mean of 1."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    distances = np.maximum(1 - unit @ unit.T, 0)
    relative: Floats = distances / np.maximum(distances.mean(axis=0), 1e-12)
    return relative
