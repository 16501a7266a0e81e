"""Style transfer, top to bottom: pictures in, the cost of each scale measured, then from coarse to fine, picture out.

This is the module to read first. Files are left to `files`, the cost at one size to `objective`, the walks through the
network to `network`, the scales to `run`, and every number that is computed to a device of `kernels`.
"""

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import Device, Pooling
from ..kernels.errors import DeviceError
from ..kernels.open import open_devices
from ..weights import Weights, default_weights, load_weights
from . import balance
from .balance import Layers, Relative
from .costs.objective import Objective, Reduction, SizedStyle, Weighting
from .costs.places import Claims
from .costs.terms import STATISTICS, Costs, Statistics
from .errors import SettingsError
from .imaging import files, masks, transparency
from .imaging.codecs import strips
from .imaging.colors import is_gray, luminance, luminance_of_content, match
from .imaging.resize import resized, resized_alpha
from .memory.spill import bands, empty, fetched
from .model import network
from .optimizers import registry
from .optimizers.coarse_to_fine import Method, Progress, Run, RunState
from .optimizers.loop import check_average, check_noise
from .optimizers.scales import ITERATIONS, MIN_SIZE, Scale, plan_scales
from .optimizers.settling import Settled
from .result import Result
from .style import ReadStyle, Source, Style, read_styles
from .tiling import geometry as tiles
from .types import Image, Mask
from .wording import shortest

__all__ = ["Costs", "Progress", "Relative", "Result", "RunState", "Settled", "Style", "StyleTransfer"]

Colors = Literal["style", "match", "content-luminance"]
COLORS: tuple[Colors, ...] = ("style", "match", "content-luminance")


MOST_PIXELS = 1 << 20
"""Of a side: no memory is that large, and far beyond it numbers overflow."""


class StyleTransfer:
    """Paints `content` in the manner of `style` by optimising the pixels of an image.

    content: path, PIL image, or array (H, W, 3), uint8 or float in [0, 1].
    style: the same, or a `Style`, or a sequence of either.
    weights: from `load_weights`, or what it takes: "mini", "vgg19", a file's path and so on; None is "vgg19" once it
        has been fetched, else "mini".
    device: "auto", "cuda", "cuda:1", "cpu", "reference" or "emulator", or a device from `kernels.open_device`; several
        of a kind, "cuda:0,1" or "cuda:all" (see `kernels.open_devices`), share the tiles, for the same bytes as one.
    precision: "auto" or what the device offers: "fp32" on all, "fp64" on reference, "bf16", "fp16", "tf32" and "3xtf32"
        on cuda and emulator. threads: cpu only; None takes all.
    size: long side of the generated image in pixels, and times `style_scale` of the style; None leaves both alone.
    content_layers, style_layers: {"relu1_1": 1e-5, ...} are w_l and lambda_l of the cost (see `costs`) exactly;
        ["relu1_1", ...] are balanced by measuring, so that all layers count alike; Relative({"relu1_1": 2.0, ...})
        multiplies that balance, as `--style-layer relu1_1=2` does; None takes the classic taps that the network
        reaches, balanced.
    content_weight, style_weight, tv_weight: alpha, beta, gamma. What is left open, here or above, is chosen by
        measuring the images, and can be read afterwards under the same names.
    content_reduction: "mean" keeps alpha and beta's balance from size to size; "sum" is the paper's.
    style_statistics: "gram" (the paper's), "moments" or "w2"; see `costs`.
    border: pixels by which the network sees beyond the edges of a picture, the nearest ones repeated; with 1 or more
        its zero padding leaves no trace along them.
    content_mask: white where the content is to be left as it is, any size. Where it is white, and where no style is
        wanted, the content stays to the last bit; at soft edges the painting is blended into it.
    mask_feather: pixels of the generated image by which the edges of all masks are softened to either side.
    colors: "style"; "match" recolors the styles to the content's mean and covariance first; "content-luminance"
        transfers luminance alone and keeps the content's colors. Where content and styles are all gray, so is the
        result.
    tile: "auto" works in the largest tiles that the memory at hand allows, and as a whole if it can; a number is the
        side of a tile in pixels; "off" is never. Cost and gradient are the same, to rounding.
    seed: of every random number; the same seed and settings give the same bytes.

    Defaults are the command line's, but for two: where `size` is None, that takes 512 pixels, or the content's own long
    side if it is smaller; and untrained weights ("random:SEED") are pooled by their average there.

    Raises SettingsError, ImageError, DeviceError or WeightsError, each one line. Holds no global state:
    instances may live in different threads. Each works for one at a time, and refuses a second while it is at work.
    """

    def __init__(
        self,
        content: Source,
        style: Source | Style | Sequence[Source | Style],
        *,
        weights: Weights | str | Path | None = None,
        device: str | Device | Sequence[Device] = "auto",
        size: int | None = None,
        style_scale: float = 1.0,
        content_layers: Layers = None,
        style_layers: Layers = None,
        content_weight: float | None = None,
        style_weight: float | None = None,
        tv_weight: float | None = None,
        content_reduction: Reduction = "mean",
        style_statistics: Statistics = "gram",
        content_mask: Source | None = None,
        mask_feather: int = 0,
        border: int = 0,
        colors: Colors = "style",
        pooling: Pooling = "max",
        precision: str = "auto",
        threads: int | None = None,
        tile: tiles.Setting = "auto",
        seed: int = 0,
    ) -> None:
        if size is not None and size < 1:
            raise SettingsError(f"the size is {size}; it must be at least 1 pixel")
        if seed < 0:
            raise SettingsError(f"the seed is {seed}; it must be zero or more")
        if border < 0:
            raise SettingsError(f"the border is {border} pixels; it must be zero or more")
        for what, number in (("size", size or 0), ("border", border)):
            if number > MOST_PIXELS:
                raise SettingsError(f"the {what} is {number} pixels; at most {MOST_PIXELS} are possible")
        self._border = border
        alpha, beta = balance.checked("content_weight", content_weight), balance.checked("style_weight", style_weight)
        gamma = balance.checked("tv_weight", tv_weight)
        check_choice("content reduction", content_reduction, ("mean", "sum"))
        check_choice("style statistics", style_statistics, STATISTICS)
        check_choice("colors", colors, COLORS)
        check_choice("pooling", pooling, ("max", "average"))
        tiles.check(tile)
        if not isinstance(weights, Weights):
            weights = load_weights(default_weights() if weights is None else weights)
        self.weights = weights
        self.seed = seed
        self.tile: tiles.Setting = tile
        self.content_reduction, self.style_statistics, self.colors = content_reduction, style_statistics, colors
        content_wanted = balance.wanted("content", content_layers, weights)
        style_wanted = balance.wanted("style", style_layers, weights)
        content_taps, style_taps = content_wanted.given, style_wanted.given
        alpha, beta = alpha if content_taps else 0.0, beta if style_taps else 0.0
        if not (content_taps or style_taps) or (alpha, beta) == (0.0, 0.0):
            raise SettingsError("content and style both weigh nothing; give at least one layer a weight above zero")

        deepest = max([*content_taps, *style_taps], key=weights.taps.index)
        self.device: Device
        self._network: network.Network
        (self.device, self._network), *self._others = _open(device, precision, threads, weights, deepest, pooling)
        picture = transparency.visible(files.read(content))
        self._names = {"content": picture.name}
        self._alpha = picture.alpha
        keep = None if content_mask is None else masks.read(content_mask, "the content mask")
        self._styles = read_styles(style, style_scale)
        self._names["style"] = ", ".join(style.name for style in self._styles)
        self._size = size
        height, width, _ = picture.pixels.shape
        height, width = (height, width) if size is None else files.output_size(height, width, size)
        self.shape: tuple[int, int, int] = (height, width, 3)
        self._claims = Claims(self._styles, keep, self.shape[:2], mask_feather)
        self._gray = is_gray(picture.pixels) and all(is_gray(style.pixels) for style in self._styles)
        self._content = picture.pixels
        if picture.pixels.size > 3 * strips.LARGE and height * width <= strips.LARGE:
            # Every scale would go through all of it again.
            self._content = resized(self.device, picture.pixels, (height, width))

        self._taps = tuple(content_taps), tuple(style_taps)
        self._at_work = threading.RLock()
        self._running = False
        if problem := self._problem(max(self.shape[:2])):
            raise SettingsError("; ".join(problem))
        self._objective: Objective | None = None
        objective = self._measured(self.shape[:2])
        self._weighting = balance.weighting(
            content_wanted, style_wanted, objective.content_energies(), objective.style_energies(), alpha, beta, gamma
        )

    def __repr__(self) -> str:
        names = ", ".join(f"{what} {name!r}" for what, name in self._names.items())
        size = f"{self.shape[1]}x{self.shape[0]}"
        return f"<StyleTransfer {size}, {names}, weights {self.weights.name!r}, on {self.device.name}>"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the devices and their buffers; SettingsError where another thread does."""
        if not self._at_work.acquire(blocking=False):
            raise SettingsError(
                "this StyleTransfer is at work in another thread; wait for it, or make one for every thread"
            )
        try:
            yield
        finally:
            self._at_work.release()

    def _refuse_within_a_run(self) -> None:
        if self._running:
            raise SettingsError(
                "this StyleTransfer is in the middle of a run, whose buffers it needs; use another one in the callback"
            )

    # ---- the weights that were given or chosen ----------------------------------------------------------------------
    @property
    def weighting(self) -> Weighting:
        """All of them."""
        return self._weighting

    @property
    def content_layers(self) -> Mapping[str, float]:
        """w_l by tap."""
        return self._weighting.content_layers

    @property
    def style_layers(self) -> Mapping[str, float]:
        """lambda_l by tap."""
        return self._weighting.style_layers

    @property
    def content_weight(self) -> float:
        """alpha"""
        return self._weighting.content

    @property
    def style_weight(self) -> float:
        """beta"""
        return self._weighting.style

    @property
    def tv_weight(self) -> float:
        """gamma, up to 512 pixels; larger scales take less (see `scales`)."""
        return self._weighting.tv

    # ---- the cost at one size ---------------------------------------------------------------------------------------
    def objective(self, size: tuple[int, int] | None = None, tv: float = 1.0) -> Objective:
        """The cost of images of (H, W), by default the picture's own; gamma is multiplied by `tv`.

        One is kept; asking for another size lets go of its memory.
        """
        with self._alone():
            objective = self._measured(self.shape[:2] if size is None else size)
            weighting = replace(self._weighting, tv=self._weighting.tv * tv)
            if objective.weighting != weighting:
                objective.weigh(weighting)
            return objective

    def release(self) -> None:
        """Lets go of the objective that is kept, and of the devices' workspaces, which lie in its memory."""
        if self._objective is None:
            return
        self._objective = None
        for device in (self.device, *(device for device, _ in self._others)):
            device.bind_workspace(device.allocate(0))

    def _measured(self, size: tuple[int, int]) -> Objective:
        beyond = 2 * self._border
        if self._objective is not None and self._objective.shape[:2] == (size[0] + beyond, size[1] + beyond):
            return self._objective
        self.release()
        share = max(size) / max(self.shape[:2])
        content = resized(self.device, self._content, size)
        places = self._claims.places(size)
        if size == self.shape[:2]:
            self._claims.check(places, self._tap_sizes(size), self._taps[1])
        styles = []
        for number, style in enumerate(self._styles):
            own = self._style_size(style, share)
            region = None if style.region is None else masks.fit(style.region, own, style.region_name)
            pixels = self._in_colors(resized(self.device, style.pixels, own), content, region)
            wanted = {
                None if place.weights is None else at: place.shares[number]
                for at, place in enumerate(places)
                if number in place.shares
            }
            seen = self._extended(self._looked_at(pixels))
            styles.append(SizedStyle(style.name, seen, self._extended(region), wanted))
        content_taps, style_taps = self._taps
        self._objective = Objective(
            self.device,
            self._network,
            self._extended(self._looked_at(content)),
            styles,
            content_taps=content_taps,
            style_taps=style_taps,
            places=[self._extended(place.weights) for place in places if place.weights is not None],
            free=self._extended(self._claims.painted(size)),
            statistics=self.style_statistics,
            reduction=self.content_reduction,
            tile=self.tile,
            border=self._border,
            others=self._others,
        )
        return self._objective

    def _extended(self, values: Any) -> Any:
        """(H, W, ...) with the border around it, as the network sees it; None stays None."""
        border = self._border
        if not border or values is None:
            return values
        height, width, *channels = values.shape
        out = empty((height + 2 * border, width + 2 * border, *channels), values.dtype)
        middle = out[border:-border]
        middle[:, border:-border] = values
        middle[:, :border], middle[:, -border:] = values[:, :1], values[:, -1:]
        out[:border], out[-border:] = middle[0], middle[-1]
        return out

    def _in_colors(self, style: Image, content: Image, region: Mask | None) -> Image:
        """A style in the colors it is to have."""
        if self.colors == "style":
            return style
        if self.colors == "match":
            return match(style, content, region)
        return luminance(style, like=content, seen=region)

    def _style_size(self, style: ReadStyle, share: float) -> tuple[int, int]:
        """(H, W) of a style where the picture has this share of its full size."""
        height, width, _ = style.pixels.shape
        if self._size is None and style.size is None and style.scale == 1 and share == 1:
            return height, width
        own = max(height, width) if self._size is None else self._size
        long_side = (own * style.scale if style.size is None else style.size) * share
        return files.output_size(height, width, max(1, round(long_side)))

    def _looked_at(self, pixels: Image) -> Image:
        gray = self._gray or self.colors == "content-luminance"
        return _by_bands(luminance, pixels) if gray else pixels

    def _problem(self, long_side: int) -> tuple[str, str] | None:
        """What is too small for the network at the scale with this long side, and the remedy; None if nothing is."""
        share, size = long_side / max(self.shape[:2]), self.size_at(long_side)
        least, tap = network.least_side(self._network) - 2 * self._border, self._network.layers[-1].tap
        needs = f"too small for {tap}, which needs {least} px on the short side"
        if min(size) < least:
            enough = files.long_side(self.shape[0], self.shape[1], least)
            return (
                f"the content {self._names['content']} is {size[1]}x{size[0]} px, {needs}",
                f"make it larger (a size of {enough}), or leave out the deepest layers",
            )
        for style in self._styles:
            height, width = self._style_size(style, share)
            if min(height, width) < least:
                enough = files.long_side(style.pixels.shape[0], style.pixels.shape[1], least)
                scale = f"scale of {math.ceil(100 * enough / max(height, width) * style.scale) / 100:g}"
                larger = scale if style.size is None else f"size of {enough}"
                return (
                    f"the style {style.name} is {width}x{height} px, {needs}",
                    f"make it larger (a style {larger}), or leave out the deepest layers",
                )
            if style.region is not None:
                region = masks.fit(style.region, (height, width), style.region_name)
                try:
                    masks.tap_weights(region, self._tap_sizes((height, width)), self._taps[1], style.region_name)
                except SettingsError as error:
                    reason, _, remedy = str(error).partition("; ")
                    return reason, remedy
        return None

    def _tap_sizes(self, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """(H, W) by tap, for a picture of this size without its border."""
        return dict(zip(network.strides(self._network), network.sizes(self._network, size), strict=True))

    def cost_and_gradient(self, image: NDArray[Any]) -> tuple[Costs, Image]:
        """J and dJ/dimage at an image of shape `self.shape`, RGB in [0, 1]; the gradient has the same shape and units.

        Where masks leave a part m of a pixel to the painting, J is taken at m image + (1 - m) content, and dJ/dimage is
        that function's gradient: 0 where nothing is painted.

        float32, except on the reference device in fp64. Raises SettingsError for another shape or non-finite pixels.
        """
        values = np.asarray(image)
        if values.shape != self.shape or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise SettingsError(
                f"the image is {values.shape} of {values.dtype}; it must be {self.shape}, of floats, and finite"
            )
        with self._alone():
            self._refuse_within_a_run()
            objective = self.objective()
            self.device.upload(values, objective.image)
            costs = objective.evaluate(objective.image, objective.gradient)
            return costs, fetched(self.device, objective.gradient)

    # ---- the run ----------------------------------------------------------------------------------------------------
    def initial_image(self, init: Source = "content", size: tuple[int, int] | None = None, noise: float = 0.0) -> Image:
        """Where a run starts: "content", "style", "gray", "noise" (uniform, seeded), or any image.

        Resized to (H, W) `size`, by default the picture's own; `noise` is the share of noise that is mixed in.
        """
        size = self.shape[:2] if size is None else size
        if isinstance(init, str) and init == "noise":
            return self._noise(size)
        pixels = self._start(init, size)
        if not noise:
            return pixels
        return _by_bands(lambda start, random: (1 - noise) * start + noise * random, pixels, self._noise(size))

    def _noise(self, size: tuple[int, int]) -> Image:
        rng, noise = np.random.default_rng(self.seed), empty((*size, 3), self.device.image_dtype)
        for rows in bands(noise.shape):
            noise[rows] = rng.random(noise[rows].shape)
        return noise

    def _start(self, init: Source, size: tuple[int, int]) -> Image:
        if isinstance(init, str) and init == "gray":
            gray = empty((*size, 3), self.device.image_dtype)
            gray.fill(0.5)
            return gray
        if isinstance(init, str) and init == "content":
            pixels = self._content
        elif isinstance(init, str) and init == "style":
            pixels = self._styles[0].pixels
        else:
            pixels = files.read(init).pixels
        return resized(self.device, self._looked_at(pixels), size)

    def plan(
        self, iterations: int | Sequence[int] = ITERATIONS, *, min_size: int = MIN_SIZE, count: int | None = None
    ) -> tuple[Scale, ...]:
        """The scales that `run` goes through, from coarse to fine: from the first that carries the layers on."""

        def problem(long_side: int) -> str | None:
            found = self._problem(long_side)
            return None if found is None else found[0]

        return plan_scales(max(self.shape[:2]), min_size=min_size, count=count, iterations=iterations, problem=problem)

    def method(
        self,
        iterations: int | Sequence[int] = ITERATIONS,
        *,
        optimizer: str = "adam",
        learning_rate: float | None = None,
        min_size: int = MIN_SIZE,
        scales: int | None = None,
        average: float | None = None,
        settled: Settled | None = None,
    ) -> Method:
        """How `run` would go about it with these arguments; raises SettingsError for what it would refuse."""
        check_average(average)
        planned = self.plan(iterations, min_size=min_size, count=scales)
        registry.check(optimizer, learning_rate)
        return Method(planned, optimizer, learning_rate, average, settled)

    def run(
        self,
        iterations: int | Sequence[int] = ITERATIONS,
        *,
        optimizer: str = "adam",
        learning_rate: float | None = None,
        init: Source = "content",
        noise: float = 0.0,
        min_size: int = MIN_SIZE,
        scales: int | None = None,
        average: float | None = None,
        settled: Settled | None = None,
        on_iteration: Callable[[Progress], object] | None = None,
        resume: RunState | None = None,
    ) -> Result:
        """Optimises the pixels from coarse to fine; the callback may return False to stop.

        iterations: per scale, or a list of them. min_size, scales: the first scale's long side at least, in pixels, and
        how many scales; 1 works at the full size only. optimizer: "adam", "lbfgs" or "descent" (G := G - eta dJ/dG).
        learning_rate: in units of a pixel's range for Adam, eta for descent; None takes a good one. average: decay of
        the exponential average of the iterates, which is what is kept; 0 keeps the last iterate, None remembers a tenth
        of the scale. init, noise: see `initial_image`. settled: a scale ends early once its cost has, as with
        `Settled()` when it falls by less than 1% in 25 iterations. resume: goes on from a `Progress.state` of a run
        with these very arguments.

        Ctrl-C ends the run and keeps the image (`Result.interrupted`). Raises SettingsError, ImageError, or
        NonFiniteCostError when the cost diverges in spite of shorter steps.
        """
        method = self.method(
            iterations, optimizer=optimizer, learning_rate=learning_rate, min_size=min_size, scales=scales,
            average=average, settled=settled,
        )  # fmt: skip
        check_noise(noise)
        with self._alone():
            self._refuse_within_a_run()
            self._running = True
            try:
                run = Run(self, method, on_iteration)
                if resume is None:
                    pixels, interrupted = run.from_image(lambda size: self.initial_image(init, size, noise))
                else:
                    pixels, interrupted = run.from_state(resume)
            finally:
                self._running = False
            size = self.shape[:2]
            whole = self.finished(resized(self.device, pixels, size))
            return Result(
                whole, run.history, interrupted, self._recipe(run, init, noise), self.alpha(size), tuple(run.done)
            )

    def alpha(self, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """How opaque the content is, (H, W) in [0, 1]; None if it is everywhere."""
        return None if self._alpha is None else resized_alpha(self.device, self._alpha, size)

    def fingerprint(self, method: Method) -> str:
        """SHA-256 (hex) of pictures, masks, weights and settings."""
        digest = hashlib.sha256(self.weights.checksum.encode())
        arrays = [self._content, *self._claims.masks]
        for style in self._styles:
            arrays += [style.pixels, style.region]
        for array in arrays:
            digest.update(b"none" if array is None else repr(array.shape).encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        own = [(style.weight, style.scale, style.size) for style in self._styles]
        ours = (
            self._weighting,
            own,
            self.shape,
            self._border,
            self.content_reduction,
            self.style_statistics,
            self.colors,
        )
        digest.update(repr((ours, self._network.pooling, self.seed, method)).encode())
        return digest.hexdigest()

    def size_at(self, long_side: int) -> tuple[int, int]:
        """(H, W) of the scale with this long side; at the picture's own long side its own."""
        height, width, _ = self.shape
        return (height, width) if long_side == max(height, width) else files.output_size(height, width, long_side)

    def beginning(self, pixels: Image) -> Image:
        """(H, W, 3) `pixels` as a scale is to begin with them: the content where nothing is painted."""
        size = pixels.shape[:2]
        painted = self._claims.painted(size)
        if self._gray:
            pixels = self._looked_at(pixels)
        if painted is None:
            return pixels
        content = self._looked_at(resized(self.device, self._content, size))

        def begun(pixels: Image, painted: Mask, content: Image) -> Image:
            return np.where(painted[..., None] > 0, pixels, content)

        return _by_bands(begun, pixels, painted, content)

    def finished(self, pixels: Image) -> Image:
        """(H, W, 3) `pixels` in the colors asked for, and the content where nothing is painted."""
        return self.finisher(pixels.shape[:2])(pixels)

    def finisher(self, size: tuple[int, int]) -> Callable[[Image], Image]:
        """`finished` for pictures of (H, W) `size`, in two steps: the second needs no device, so any thread may."""
        painted = self._claims.painted(size)
        if painted is None and not self._gray and self.colors != "content-luminance":
            return lambda pixels: pixels
        content = resized(self.device, self._content, size)
        part = np.ones(size, np.float32) if painted is None else painted
        return lambda pixels: _by_bands(self._finish, pixels, content, part)

    def _finish(self, pixels: Image, content: Image, part: Image) -> Image:
        part, content = part[..., None].astype(pixels.dtype), content.astype(pixels.dtype)
        pixels = part * pixels + (1 - part) * self._looked_at(content)
        if self.colors == "content-luminance":
            pixels = luminance_of_content(pixels, content)
        elif self._gray:
            pixels = luminance(pixels)
        return np.where(part > 0, pixels, content)

    def settings(self, method: Method, init: Source = "content", noise: float = 0.0) -> dict[str, str]:
        """All that decides what a run comes to, as a recipe tells it."""
        from .. import __version__

        start = Path(init).name if isinstance(init, str | Path) else "given image"
        return {
            "nstgpu": __version__,
            **self._names,
            "weights": self.weights.name,
            "weights sha256": self.weights.checksum,
            "device": self.device.name,
            "precision": self.device.precision,
            "size": f"{self.shape[1]}x{self.shape[0]}",
            "scales": ", ".join(f"{scale.long_side} px x {scale.iterations}" for scale in method.scales),
            "content layers": balance.spelled(self.content_layers),
            "style layers": balance.spelled(self.style_layers),
            "style statistics": self.style_statistics,
            "content weight": f"{shortest(self.content_weight)} ({self.content_reduction})",
            "style weight": shortest(self.style_weight),
            "tv weight": shortest(self.tv_weight),
            "colors": self.colors,
            "mask feather": f"{self._claims.feather} px",
            "border": str(self._border),
            "pooling": self._network.pooling,
            "style size": ", ".join(
                f"{shortest(style.scale)} of the picture's" if style.size is None else f"{style.size} px"
                for style in self._styles
            ),
            "optimizer": method.optimizer,
            **({} if method.settled is None else {"settled": str(method.settled)}),
            "init": f"{start}, {shortest(noise)} noise" if noise else start,
            "seed": str(self.seed),
        }

    def _recipe(self, run: Run, init: Source, noise: float) -> dict[str, str]:
        from .reporting.recipe import spelled

        recipe = self.settings(run.method, init, noise)
        recipe["optimizer"] += f", learning rate {shortest(run.learning_rate)}"
        recipe["iterations"] = str(len(run.history))
        if run.history:
            last = run.history[-1]
            recipe["costs"] = (
                f"total {last.total:.6g}, content {last.content:.6g}, style {last.style:.6g}, tv {last.tv:.6g}"
            )
        return {key: spelled(text) for key, text in recipe.items()}


def _open(
    device: str | Device | Sequence[Device], precision: str, threads: int | None, weights: Weights, deepest: str,
    pooling: Pooling,
) -> list[tuple[Device, network.Network]]:  # fmt: skip
    """Every device with its network. Where `auto` is a precision that can't take the weights, fp32 is."""

    def built(devices: Sequence[Device]) -> list[tuple[Device, network.Network]]:
        return [(each, network.build(each, weights, deepest, pooling)) for each in devices]

    if not isinstance(device, str):
        given: Device | Sequence[Device] = device
        return built(given if isinstance(given, Sequence) else [given])
    devices = open_devices(device, precision, threads)
    try:
        return built(devices)
    except DeviceError as problem:
        if precision != "auto" or devices[0].precision == "fp32":
            raise
        logging.getLogger("nstgpu").info("working in fp32: %s", problem)
    return built(open_devices(device, "fp32", threads))


def _by_bands(work: Callable[..., Image], pixels: Image, *others: Image) -> Image:
    """`work`, which takes one pixel as the next, on pictures (H, W, 3) and whatever else has their rows."""
    out: Image = empty(pixels.shape, pixels.dtype)
    for rows in bands(pixels.shape):
        out[rows] = work(pixels[rows], *(other[rows] for other in others))
    return out


def check_choice(what: str, choice: str, known: Sequence[str]) -> None:
    """Raises SettingsError for what is not among the choices."""
    if choice not in known:
        raise SettingsError(f"unknown {what} {choice!r}; choose {', '.join(known[:-1])} or {known[-1]}")
