"""Style transfer, top to bottom: pictures in, the cost of each scale measured, then from coarse to fine, picture out.

This is the module to read first. `inputs` reads what was given, `costs.at_size` measures it at one size, `optimizers`
goes from coarse to fine, and `canvas` finishes the picture. Every number is computed by a device of `kernels`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import Device, Pooling
from ..weights import Weights, default_weights, load_weights
from . import balance, canvas, sizes
from .balance import Layers, Relative
from .checks import Colors, check_settings
from .costs.at_size import KeptObjective
from .costs.objective import Objective, Reduction
from .costs.statistics.tuning import Tuning
from .costs.terms import Costs
from .errors import SettingsError
from .imaging.resize import resized, resized_alpha
from .inputs import Opened, open_networks, read_inputs
from .memory.exclusive import Exclusive
from .memory.spill import fetched
from .optimizers import registry
from .optimizers.coarse_to_fine import Method, Progress, Run, RunState
from .optimizers.loop import check_average, check_noise
from .optimizers.scales import ITERATIONS, MIN_SIZE, FromTo, Iterations, Scale, plan_scales
from .optimizers.settling import Settled
from .reporting import provenance
from .result import Result
from .style import Source, Style
from .tiling import geometry as tiles
from .types import Image

__all__ = [
    "Costs", "FromTo", "Progress", "Relative", "Result", "RunState", "Settled", "Style", "StyleTransfer", "Tuning"
]  # fmt: skip


class StyleTransfer:
    """Paints `content` in the manner of `style` by optimising the pixels of an image.

    content: path, PIL image, or array (H, W, 3), uint8 or float in [0, 1].
    style: the same, or a `Style`, or a sequence of either.
    weights: from `load_weights`, or what it takes: "mini", "vgg19", a file's path and so on; None is "vgg19" once it
        has been fetched, else "mini".
    device: "auto", "cuda", "cuda:1", "cpu", "reference" or "emulator", or a device from `kernels.open_device`; several
        of a kind, "cuda:0,1" or "cuda:all" (see `kernels.open_devices`), share the tiles, for the same bytes as one. An
        `Opened` is devices whose packed network and measured styles are kept from one transfer to the next.
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
    style_statistics: a name of `costs.statistics.registry`, or several: "gram+w2", "gram=1,w2=0.5", or a mapping.
    tuning: what is set of them, as in Tuning(match_every=10, turns=4) of neighbors or Tuning(directions=128) of sliced.
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
        device: str | Device | Sequence[Device] | Opened = "auto",
        size: int | None = None,
        style_scale: float = 1.0,
        content_layers: Layers = None,
        style_layers: Layers = None,
        content_weight: float | None = None,
        style_weight: float | None = None,
        tv_weight: float | None = None,
        content_reduction: Reduction = "mean",
        style_statistics: str | Mapping[str, float] = "gram",
        tuning: Tuning = Tuning(),  # noqa: B008  (frozen)
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
        check_settings(size, border, seed, content_reduction, style_statistics, tuning, colors, pooling, tile)
        if not isinstance(weights, Weights):
            weights = load_weights(default_weights() if weights is None else weights)
        content_wanted, style_wanted, *factors = balance.wanted_of_all(
            weights, content_layers, style_layers, content_weight, style_weight, tv_weight
        )
        content_taps, style_taps = tuple(content_wanted.given), tuple(style_wanted.given)
        deepest = max([*content_taps, *style_taps], key=weights.taps.index)
        (first, network), *others = open_networks(device, precision, threads, weights, deepest, pooling)
        self._inputs = read_inputs(
            content, style, content_mask, weights=weights, device=first, network=network, style_scale=style_scale,
            mask_feather=mask_feather, size=size, border=border, content_taps=content_taps, style_taps=style_taps,
            statistics=style_statistics, tuning=tuning, reduction=content_reduction, colors=colors, seed=seed,
            known=device.targets if isinstance(device, Opened) else None,
        )  # fmt: skip
        self.weights, self.device, self.seed, self.shape = weights, first, seed, self._inputs.shape
        self.content_reduction, self.style_statistics, self.colors = content_reduction, self._inputs.statistics, colors
        self.tile: tiles.Setting = tile
        self.tuning, self._exclusive = tuning, Exclusive()
        if problem := sizes.too_small(self._inputs, max(self.shape[:2])):
            raise SettingsError("; ".join(problem))
        self._kept = KeptObjective(self._inputs, tile, others)
        objective = self._kept.at(self.shape[:2])
        self._energies = objective.content_energies(), objective.style_energies()
        self.weighting = balance.weighting(
            content_wanted, style_wanted, *self._energies, self._inputs.statistics, *factors
        )

    def __repr__(self) -> str:
        names = ", ".join(f"{what} {name!r}" for what, name in self._inputs.names.items())
        where = f"weights {self.weights.name!r}, on {self.device.name}"
        return f"<StyleTransfer {self.shape[1]}x{self.shape[0]}, {names}, {where}>"

    # ---- the weights that were given or chosen ----------------------------------------------------------------------
    @property
    def content_layers(self) -> Mapping[str, float]:
        """w_l by tap."""
        return self.weighting.content_layers

    @property
    def style_layers(self) -> Mapping[str, float]:
        """lambda_l by tap."""
        return self.weighting.style_layers

    @property
    def content_weight(self) -> float:
        """alpha"""
        return self.weighting.content

    @property
    def style_weight(self) -> float:
        """beta"""
        return self.weighting.style

    @property
    def tv_weight(self) -> float:
        """gamma, up to 512 pixels; larger scales take less (see `scales`)."""
        return self.weighting.tv

    def reweighted(
        self,
        *,
        content_layers: Layers = None,
        style_layers: Layers = None,
        content_weight: float | None = None,
        style_weight: float | None = None,
        tv_weight: float | None = None,
    ) -> "StyleTransfer":
        """The same with other weights of the same layers, given as to the constructor: nothing is measured anew.

        Both work with the same buffers, one at a time. Raises SettingsError, also for other layers.
        """
        content_wanted, style_wanted, *factors = balance.wanted_of_all(
            self.weights, content_layers, style_layers, content_weight, style_weight, tv_weight
        )
        taps = (tuple(content_wanted.given), tuple(style_wanted.given))
        if taps != (self._inputs.content_taps, self._inputs.style_taps):
            raise SettingsError("other layers than before are to be measured first; make another StyleTransfer")
        other = copy.copy(self)
        other.weighting = balance.weighting(
            content_wanted, style_wanted, *self._energies, self._inputs.statistics, *factors
        )
        return other

    # ---- the cost at one size ---------------------------------------------------------------------------------------
    def objective(self, size: tuple[int, int] | None = None, tv: float = 1.0) -> Objective:
        """The cost of images of (H, W), by default the picture's own; gamma is multiplied by `tv`.

        One is kept; asking for another size lets go of its memory.
        """
        with self._exclusive.work(within_a_run=True):
            objective = self._kept.at(self.shape[:2] if size is None else size)
            weighting = replace(self.weighting, tv=self.weighting.tv * tv)
            if objective.weighting != weighting:
                objective.weigh(weighting)
            return objective

    def release(self) -> None:
        """Lets go of the objective that is kept, and of the devices' workspaces, which lie in its memory."""
        self._kept.release()

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
        with self._exclusive.work():
            objective = self.objective()
            self.device.upload(values, objective.image)
            costs = objective.evaluate(objective.image, objective.gradient, anew=True)
            return costs, fetched(self.device, objective.gradient)

    # ---- the run ----------------------------------------------------------------------------------------------------
    def initial_image(self, init: Source = "content", size: tuple[int, int] | None = None, noise: float = 0.0) -> Image:
        """Where a run starts: "content", "style", "gray", "noise" (uniform, seeded), or any image.

        Resized to (H, W) `size`, by default the picture's own; `noise` is the share of noise that is mixed in.
        """
        return canvas.initial_image(self._inputs, init, self.shape[:2] if size is None else size, noise)

    def plan(
        self, iterations: Iterations = ITERATIONS, *, min_size: int = MIN_SIZE, count: int | None = None
    ) -> tuple[Scale, ...]:
        """The scales that `run` goes through, from coarse to fine: from the first that carries the layers on."""
        problem = partial(sizes.problem, self._inputs)
        return plan_scales(max(self.shape[:2]), min_size=min_size, count=count, iterations=iterations, problem=problem)

    def method(
        self,
        iterations: Iterations = ITERATIONS,
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
        iterations: Iterations = ITERATIONS,
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

        On a GPU it is told after that of the iterations that were under way, two at most.

        iterations: at each scale, a list of them, or FromTo(100, 50), from the first scale's to the last's. min_size,
        scales: the first scale's long side at least, in pixels, and how many; 1 is the full size only. optimizer:
        "adam", "lbfgs" or "descent" (G := G - eta dJ/dG). learning_rate: in units of a pixel's range for Adam, eta for
        descent; None takes a good one. average: decay of the exponential average of the iterates, which is what is
        kept; 0 keeps the last iterate, None remembers a tenth of the scale. init, noise: see `initial_image`. settled:
        a scale ends early once its cost has, as with `Settled()` when it falls by less than 1% in 25 iterations.
        resume: goes on from a `Progress.state` of a run with these very arguments.

        Ctrl-C ends the run and keeps the image (`Result.interrupted`). Raises SettingsError, ImageError, or
        NonFiniteCostError when the cost diverges in spite of shorter steps.
        """
        method = self.method(
            iterations, optimizer=optimizer, learning_rate=learning_rate, min_size=min_size, scales=scales,
            average=average, settled=settled,
        )  # fmt: skip
        return self.follow(method, init=init, noise=noise, on_iteration=on_iteration, resume=resume)

    def follow(
        self, method: Method, *, init: Source = "content", noise: float = 0.0,
        on_iteration: Callable[[Progress], object] | None = None, resume: RunState | None = None,
        until: int | None = None,
    ) -> Result:  # fmt: skip
        """`run` by a method, whose last scale may be beyond `size`; `until` ends it after so many iterations in all."""
        check_noise(noise)
        with self._exclusive.run():
            run = Run(self, method, on_iteration, until)
            if resume is None:
                pixels, interrupted = run.from_image(lambda size: self.initial_image(init, size, noise))
            else:
                pixels, interrupted = run.from_state(resume)
            size = self.size_at(method.scales[-1].long_side)
            image = self.finished(resized(self.device, pixels, size))
            recipe = provenance.of_run(self.settings(method, init, noise), run.learning_rate, run.history)
            return Result(image, run.history, interrupted, recipe, self.alpha(size), tuple(run.done))

    def alpha(self, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """How opaque the content is, (H, W) in [0, 1]; None if it is everywhere."""
        alpha = self._inputs.alpha
        return None if alpha is None else resized_alpha(self.device, alpha, size)

    def fingerprint(self, method: Method) -> str:
        """SHA-256 (hex) of pictures, masks, weights and settings."""
        return provenance.fingerprint(self._inputs, self.weighting, method)

    def settings(self, method: Method, init: Source = "content", noise: float = 0.0) -> dict[str, str]:
        """All that decides what a run comes to, as a recipe tells it."""
        return provenance.settings(self._inputs, self.weighting, method, init, noise)

    # ---- what a run asks for at each scale --------------------------------------------------------------------------
    def size_at(self, long_side: int) -> tuple[int, int]:
        """(H, W) of the scale with this long side; at the picture's own long side its own."""
        return sizes.size_at(self._inputs, long_side)

    def beginning(self, pixels: Image, size: tuple[int, int]) -> Image:
        """`pixels`, of the scale before or the first's own, as that of (H, W) `size` begins; see `canvas.beginning`."""
        return canvas.beginning(self._inputs, canvas.carried(self._inputs, pixels, size))

    def finished(self, pixels: Image) -> Image:
        """(H, W, 3) `pixels` in the colors asked for, and the content where nothing is painted."""
        return self.finisher(pixels.shape[:2])(pixels)

    def finisher(self, size: tuple[int, int]) -> Callable[[Image], Image]:
        """`finished` for pictures of (H, W) `size`, in two steps: the second needs no device, so any thread may."""
        return canvas.finisher(self._inputs, size)
