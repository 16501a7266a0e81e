"""Style transfer, top to bottom: two images in, targets measured once, then a loop of cost, gradient and step.

This is the module to read first. Files are left to `images`, the walks to `network`, the formulas to `costs`, the loop
to `optimise`, and every number that is computed to a device of `kernels`.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import Array, Device, Pooling, open_device
from ..weights import Weights
from . import images, network, optimise, taps
from .costs import ContentTerm, Costs, StyleTerm, Term
from .memory import Buffer, allocate
from .optimise import Image, Progress
from .taps import SettingsError

__all__ = ["Costs", "Progress", "Result", "StyleTransfer"]

# Weights left to us are taken relative to the images at hand, so that any network and any size gives a like balance: a
# cost is counted in parts of what it would be if the generated image had nothing in it.
CONTENT_SHARE = 1.0
STYLE_SHARE = 300.0
TV_SHARE = 0.1

Layers = Mapping[str, float] | Sequence[str] | None

Source = str | Path | NDArray[Any] | Any  # the last is PIL.Image.Image, which is not imported for its type alone


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run."""

    image: Image
    """(H, W, 3) in [0, 1]."""
    history: list[Costs]
    """The costs each iteration started from."""
    interrupted: bool
    """Ended before its last iteration, by Ctrl-C or by the callback."""
    recipe: Mapping[str, str]
    """Settings and weights that made it, as text."""
    alpha: NDArray[np.float32] | None = None
    """The content's transparency, (H, W), where it had one."""

    def save(self, path: str | Path) -> None:
        """Writes PNG, JPEG, WebP or TIFF by suffix, with the recipe inside; raises images.ImageError."""
        images.save(path, self.image, alpha=self.alpha, recipe=self.recipe)


class StyleTransfer:
    """Paints `content` in the manner of `style` by optimising the pixels of an image.

    content, style: path, PIL image, or array (H, W, 3), uint8 or float in [0, 1].
    weights: from `load_weights`.
    device: "auto", "cuda", "cuda:1", "cpu", "reference" or "emulator", or a device from `kernels.open_device`.
    precision: "auto" or what the device offers ("fp32"; "fp64" on reference). threads: cpu only; None takes all.
    size: long side of the generated image in pixels, and times `style_scale` of the style; None leaves both alone.
    content_layers, style_layers: tap -> weight (w_l, lambda_l of the cost, see `costs`). Names without weights get one
        each so that all layers count alike; None takes the classic taps that the network reaches.
    content_weight, style_weight, tv_weight: alpha, beta, gamma. What is left open, here or above, is chosen by
        measuring the images, and can be read afterwards under the same names.
    content_reduction: "mean" keeps alpha and beta's balance from size to size; "sum" is the paper's.
    seed: of every random number; the same seed and settings give the same bytes.

    Raises SettingsError, images.ImageError or DeviceError, each one line. Holds no global state: instances may live in
    different threads, one thread to an instance.
    """

    def __init__(
        self,
        content: Source,
        style: Source,
        *,
        weights: Weights,
        device: str | Device = "auto",
        size: int | None = None,
        style_scale: float = 1.0,
        content_layers: Layers = None,
        style_layers: Layers = None,
        content_weight: float | None = None,
        style_weight: float | None = None,
        tv_weight: float | None = None,
        content_reduction: Literal["mean", "sum"] = "mean",
        pooling: Pooling = "max",
        precision: str = "auto",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        _check_settings(size, style_scale, content_reduction, pooling, seed)
        self.weights = weights
        self.seed = seed
        self.content_reduction = content_reduction
        self.content_layers = _choose("content", content_layers, weights, taps.classic_content, taps.CONTENT_TAP)
        self.style_layers = _choose("style", style_layers, weights, taps.classic_style, taps.STYLE_TAPS)
        alpha = _weight("content_weight", content_weight, bool(self.content_layers))
        beta = _weight("style_weight", style_weight, bool(self.style_layers))
        gamma = _weight("tv_weight", tv_weight, True)
        if not (self.content_layers or self.style_layers) or (alpha, beta) == (0.0, 0.0):
            raise SettingsError("content and style both weigh nothing; give at least one layer a weight above zero")

        self.device: Device = open_device(device, precision, threads) if isinstance(device, str) else device
        content_picture, style_picture = images.read(content), images.read(style)
        content_pixels = _sized(self.device, content_picture.pixels, size)
        style_size = None if size is None and style_scale == 1 else _long_side(style_picture.pixels, size, style_scale)
        style_pixels = _sized(self.device, style_picture.pixels, style_size)
        self.shape: tuple[int, int, int] = content_pixels.shape
        self._content_pixels, self._style_pixels = content_pixels, style_pixels
        self._alpha = None if content_picture.alpha is None else _resized_alpha(content_picture.alpha, self.shape)

        used = [*self.content_layers, *self.style_layers]
        deepest = max(used, key=weights.taps.index)
        self._network = network.build(self.device, weights, deepest, pooling)
        self._allocate()
        self._measure_style()
        self._measure_content()
        content_energy = {tap: self._content_energy(tap) for tap in self.content_layers}
        style_energy = {tap: self._style_energy(tap) for tap in self.style_layers}
        if not isinstance(content_layers, Mapping):
            self.content_layers = _even(content_energy)
        if not isinstance(style_layers, Mapping):
            self.style_layers = _even(style_energy)
        self.content_weight = _share(CONTENT_SHARE, self.content_layers, content_energy) if alpha is None else alpha
        self.style_weight = _share(STYLE_SHARE, self.style_layers, style_energy) if beta is None else beta
        self.tv_weight = TV_SHARE if gamma is None else gamma
        self._terms = self._make_terms()
        self._names = {"content": content_picture.name, "style": style_picture.name}

    # ---- targets ------------------------------------------------------------------------------------------------
    def _allocate(self) -> None:
        """Everything that lives as long as this object, and the arena of the walks."""
        device, pixels = self.device, self.device.image_dtype
        channels = {layer.tap: layer.channels[1] for layer in self._network.layers}
        sizes = network.sizes(self._network, self.shape[:2])
        at = {layer.tap: (*size, channels[layer.tap]) for layer, size in zip(self._network.layers, sizes, strict=True)}
        wanted = [Buffer(name, self.shape, pixels, 0, 0) for name in ("image", "gradient")]
        wanted.append(Buffer("costs", (len(self.content_layers) + len(self.style_layers) + 1,), pixels, 0, 0))
        for tap in self.style_layers:
            square = (channels[tap], channels[tap])
            wanted += [Buffer(f"{tap} {what}", square, pixels, 0, 0) for what in ("target", "gram", "difference")]
        wanted += [Buffer(f"{tap} content", at[tap], device.activation_dtype, 0, 0) for tap in self.content_layers]
        self._held = allocate(device, wanted)
        self._buffers = network.reserve(device, self._network, self.shape[:2], self._taps, backward=True)

    @property
    def _taps(self) -> set[str]:
        return {*self.content_layers, *self.style_layers}

    def _features(self, buffers: network.Buffers) -> dict[str, Array]:
        layers = zip(self._network.layers, buffers.layers, strict=True)
        return {layer.tap: b.output for layer, b in layers if layer.tap in self._taps}

    def _measure_style(self) -> None:
        device, pixels = self.device, self._style_pixels
        buffers = network.reserve(device, self._network, pixels.shape[:2], set(self.style_layers), backward=False)
        (image,) = allocate(device, [Buffer("image", pixels.shape, device.image_dtype, 0, 0)]).values()
        device.upload(pixels, image)
        network.forward(device, self._network, buffers, image)
        features = self._features(buffers)
        for tap in self.style_layers:
            device.gram(features[tap], self._held[f"{tap} target"])

    def _measure_content(self) -> None:
        self.device.upload(self._content_pixels, self._held["image"])
        network.forward(self.device, self._network, self._buffers, self._held["image"])
        features = self._features(self._buffers)
        for tap in self.content_layers:
            self.device.copy(features[tap], self._held[f"{tap} content"])

    def _reduction(self, tap: str) -> float:
        target = self._held[f"{tap} content"]
        return 1.0 / math.prod(target.shape) if self.content_reduction == "mean" else 1.0

    def _content_energy(self, tap: str) -> float:
        """J_content^[l] of an image without features."""
        return self._reduction(tap) / 2 * self._squares(f"{tap} content")

    def _style_energy(self, tap: str) -> float:
        """J_style^[l] of an image without features."""
        name = f"{tap} target"
        return self._squares(name) / (4 * len(self._held[name]) ** 2)

    def _squares(self, name: str) -> float:
        return float(np.sum(np.square(self.device.download(self._held[name]), dtype=np.float64)))

    def _make_terms(self) -> list[Term]:
        held, terms = self._held, list[Term]()
        for tap, weight in self.content_layers.items():
            slot = held["costs"][len(terms) : len(terms) + 1]
            reduction = self._reduction(tap)
            terms.append(ContentTerm(tap, self.content_weight * weight, reduction, held[f"{tap} content"], slot))
        for tap, weight in self.style_layers.items():
            slot = held["costs"][len(terms) : len(terms) + 1]
            target, gram, difference = (held[f"{tap} {what}"] for what in ("target", "gram", "difference"))
            terms.append(StyleTerm(tap, self.style_weight * weight, target, gram, difference, slot))
        return terms

    # ---- cost and gradient ----------------------------------------------------------------------------------------
    def cost_and_gradient(self, image: NDArray[Any]) -> tuple[Costs, Image]:
        """J and dJ/dimage at an image of shape `self.shape`, RGB in [0, 1]; the gradient has the same shape and units.

        float32, except on the reference device in fp64. Raises SettingsError for another shape or non-finite pixels.
        """
        values = np.asarray(image)
        if values.shape != self.shape or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise SettingsError(
                f"the image is {values.shape} of {values.dtype}; it must be {self.shape}, of floats, and finite"
            )
        self.device.upload(values, self._held["image"])
        costs = self._evaluate(self._held["image"], self._held["gradient"])
        return costs, self.device.download(self._held["gradient"])

    def _evaluate(self, image: Array, gradient: Array) -> Costs:
        device = self.device
        network.forward(device, self._network, self._buffers, image)
        features = self._features(self._buffers)
        for term in self._terms:
            term.measure(device, features[term.tap])

        def tap_gradient(tap: str, out: Array) -> bool:
            injected = False
            for term in self._terms:
                if term.tap == tap:
                    term.add_gradient(device, features[tap], out, accumulate=injected)
                    injected = True
            return injected

        network.backward(device, self._network, self._buffers, tap_gradient, gradient)
        device.tv_cost(image, self.tv_weight, cost=self._held["costs"][-1:], gradient=gradient)
        return self._costs(device.download(self._held["costs"]))

    def _costs(self, values: NDArray[Any]) -> Costs:
        measured = [float(value) for value in values]
        content = dict(zip(self.content_layers, measured, strict=False))
        style = dict(zip(self.style_layers, measured[len(content) :], strict=False))
        content_cost = sum(weight * content[tap] for tap, weight in self.content_layers.items())
        style_cost = sum(weight * style[tap] for tap, weight in self.style_layers.items())
        tv = measured[-1]
        total = self.content_weight * content_cost + self.style_weight * style_cost + self.tv_weight * tv
        per_layer = dict(style)
        for tap, cost in content.items():
            per_layer[f"{tap} content" if tap in style else tap] = cost
        return Costs(total, content_cost, style_cost, tv, per_layer)

    # ---- the run ----------------------------------------------------------------------------------------------------
    def initial_image(self, init: Source = "content") -> Image:
        """Where a run starts: "content", "style", "noise" (uniform, seeded), or any image, resized to `self.shape`."""
        if isinstance(init, str) and init == "noise":
            return np.random.default_rng(self.seed).random(self.shape).astype(self.device.image_dtype)
        if isinstance(init, str) and init == "content":
            pixels = self._content_pixels
        elif isinstance(init, str) and init == "style":
            pixels = self._style_pixels
        else:
            pixels = images.read(init).pixels
        return _resized(self.device, pixels, self.shape[:2])

    def run(
        self,
        iterations: int = 300,
        *,
        optimizer: str = "adam",
        learning_rate: float | None = None,
        init: Source = "content",
        on_iteration: Callable[[Progress], object] | None = None,
    ) -> Result:
        """Optimises the pixels; the callback is told of every iteration and may return False to stop.

        optimizer: "adam" or "descent" (G := G - eta dJ/dG). learning_rate: in units of a pixel's range for Adam, eta
        for descent; None takes a good one. Ctrl-C ends the run and keeps the image (`Result.interrupted`). Raises
        SettingsError, images.ImageError, or NonFiniteCostError when the cost diverges.
        """
        if iterations < 1:
            raise SettingsError(f"{iterations} iterations were asked for; at least 1 is needed")
        device = self.device
        rule = optimise.make(device, optimizer, self.shape, learning_rate)
        (image,) = allocate(device, [Buffer("image", self.shape, device.image_dtype, 0, 0)]).values()
        device.upload(self.initial_image(init), image)
        history, interrupted = optimise.minimise(
            device, self._evaluate, rule, image, self._held["gradient"], iterations, on_iteration
        )
        pixels = device.download(image)
        if not np.isfinite(pixels).all():
            raise optimise.NonFiniteCostError(
                f"the image is not finite after iteration {len(history)}: the step is too large; "
                f"use a learning rate below {rule.learning_rate:g}"
            )
        recipe = self._recipe(len(history), optimizer, rule.learning_rate, init, history)
        return Result(pixels, history, interrupted, recipe, self._alpha)

    def _recipe(
        self, iterations: int, optimizer: str, learning_rate: float, init: Source, history: list[Costs]
    ) -> dict[str, str]:
        from .. import __version__

        recipe = {
            "nstgpu": __version__,
            **self._names,
            "weights": self.weights.name,
            "weights sha256": self.weights.checksum,
            "device": self.device.name,
            "precision": self.device.precision,
            "size": f"{self.shape[1]}x{self.shape[0]}",
            "content layers": _spell(self.content_layers),
            "style layers": _spell(self.style_layers),
            "content weight": f"{self.content_weight!r} ({self.content_reduction})",
            "style weight": repr(self.style_weight),
            "tv weight": repr(self.tv_weight),
            "pooling": self._network.pooling,
            "optimizer": f"{optimizer}, learning rate {learning_rate!r}",
            "iterations": str(iterations),
            "init": str(init) if isinstance(init, str | Path) else "given image",
            "seed": str(self.seed),
        }
        if history:
            last = history[-1]
            recipe["costs"] = (
                f"total {last.total:.6g}, content {last.content:.6g}, style {last.style:.6g}, tv {last.tv:.6g}"
            )
        return recipe


def _check_settings(size: int | None, style_scale: float, reduction: str, pooling: str, seed: int) -> None:
    if size is not None and size < 1:
        raise SettingsError(f"the size is {size}; it must be at least 1 pixel")
    if not 0 < style_scale < math.inf:
        raise SettingsError(f"the style scale is {style_scale}; it must be a finite number above zero")
    if reduction not in ("mean", "sum"):
        raise SettingsError(f"unknown content reduction {reduction!r}; choose mean or sum")
    if pooling not in ("max", "average"):
        raise SettingsError(f"unknown pooling {pooling!r}; choose max or average")
    if seed < 0:
        raise SettingsError(f"the seed is {seed}; it must be zero or more")


def _choose(
    what: str,
    layers: Layers,
    weights: Weights,
    classic: Callable[[tuple[str, ...]], tuple[str, ...]],
    ideal: tuple[str, ...],
) -> dict[str, float]:
    if layers is not None:
        return taps.resolve(layers, weights.taps, weights.name)
    chosen = classic(weights.taps)
    missing = [tap for tap in ideal if tap not in chosen]
    if missing:
        warnings.warn(
            f"the weights {weights.name} end at {weights.taps[-1]}: {what} is taken at {', '.join(chosen)}, "
            f"not at {', '.join(missing)}",
            stacklevel=3,
        )
    return taps.resolve(chosen, weights.taps, weights.name)


def _even(energies: Mapping[str, float]) -> dict[str, float]:
    """Layer weights that make every layer's cost count in parts of its own energy."""
    return {tap: 1.0 / energy if energy > 0 else 1.0 for tap, energy in energies.items()}


def _share(share: float, layers: Mapping[str, float], energies: Mapping[str, float]) -> float:
    """The weight that gives a cost with these layers the size `share` on an image without features."""
    energy = sum(weight * energies[tap] for tap, weight in layers.items())
    return share / energy if energy > 0 else 0.0


def _weight(name: str, value: float | None, in_use: bool) -> float | None:
    if value is not None and not 0 <= value < math.inf:
        raise SettingsError(f"{name} is {value}; it must be a finite number, zero or more")
    return value if in_use else 0.0


def _long_side(pixels: Image, size: int | None, scale: float) -> int:
    return max(1, round((max(pixels.shape[:2]) if size is None else size) * scale))


def _sized(device: Device, pixels: Image, size: int | None) -> Image:
    """The image with this long side; None leaves it as it is, to the last bit."""
    if size is None:
        return pixels
    return _resized(device, pixels, images.output_size(pixels.shape[0], pixels.shape[1], size))


def _resized(device: Device, pixels: Image, size: tuple[int, int]) -> Image:
    if pixels.shape[:2] == tuple(size):
        return pixels
    shapes = {"image": pixels.shape, "out": (*size, 3)}
    held = allocate(device, [Buffer(name, shape, device.image_dtype, 0, 0) for name, shape in shapes.items()])
    device.upload(pixels, held["image"])
    device.resize(held["image"], held["out"])
    device.clamp(held["out"])
    return device.download(held["out"])


def _resized_alpha(alpha: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    device = open_device("cpu")
    rgb = np.repeat(alpha[..., None], 3, axis=2)
    resized: NDArray[np.float32] = _resized(device, rgb, (shape[0], shape[1]))[..., 0].astype(np.float32)
    return resized


def _spell(layers: Mapping[str, float]) -> str:
    return ", ".join(f"{tap}={weight:g}" for tap, weight in layers.items())
