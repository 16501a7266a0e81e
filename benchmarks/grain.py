"""Grain: how much of a large picture is noise of single pixels, and what lowers it at the same number of iterations.

    python benchmarks/grain.py FOLDER --weights VGG19.h5 --images DATA/images --device cuda --precision bf16

Paints two pairs in several ways and writes a line of JSON for each, grain.jsonl, and a crop of a dark place as it is,
NAME.png. Skips what is there; --table prints the table of what is there and paints nothing.

`grain` is the energy of the luminance above half the Nyquist frequency (a quarter of a cycle per pixel), in parts of
the style's own at the size it was painted with; `strokes` the same for an eighth to a half of it, which must stay.
`dark` is the root mean square of what lies above half the Nyquist frequency where the luminance around is below a
quarter, in levels of 255. `style` and `content` are the costs at the end, in parts of `adam`'s.

Ways in RULES are steps that the engine has not (or not so): they take its gradients at the last three scales.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from quality import keep, lines, pair_name, picture_file  # type: ignore[import-not-found]

import nstgpu
from nstgpu.kernels.open import open_device

PAIRS = (("tubingen", "starry_night"), ("tubingen", "the_scream"))
CROP = (0.06, 0.62, 0.36, 0.92)
"""Left, top, right, bottom of the crop, in parts of the picture: water in the dark."""
LUMINANCE = np.array([0.299, 0.587, 0.114])
DARK = 0.25
LOOP_SCALES = 3
RATE, BETA1, BETA2 = 0.02, 0.9, 0.99

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adam": ({}, {}),
    "rate 0.01": ({}, {"learning_rate": 0.01}),
    "rate 0.005": ({}, {"learning_rate": 0.005}),
    "average 0.98": ({}, {"average": 0.98}),
    "tv x16": ({"tv": 16.0}, {}),
    "tv x64": ({"tv": 64.0}, {}),
    "pooling by average": ({"pooling": "average"}, {}),
    "lbfgs": ({}, {"optimizer": "lbfgs"}),
    "style x0.1": ({"style": 0.1}, {}),
    "moments": ({"style_statistics": "moments"}, {}),
    "w2": ({"style_statistics": "w2"}, {}),
    "sliced": ({"style_statistics": "sliced"}, {}),
    "gram+neighbors": ({"style_statistics": "gram+neighbors"}, {}),
    "neighbors+sliced": ({"style_statistics": "neighbors+sliced"}, {}),
}
"""Settings and arguments of a run by the engine itself; tv and style are factors on the measured weights."""


# ---- steps that the engine has not -----------------------------------------------------------------------------------
class Adam:
    """A step of Adam at rate(t), t in [0, 1] being the share of the scale that is done; arrays of NumPy or CuPy."""

    def __init__(self, xp: Any, shape: tuple[int, ...], rate: Callable[[float], float]) -> None:
        self.xp, self.rate, self.steps = xp, rate, 0
        self.first, self.second = xp.zeros(shape, np.float32), xp.zeros(shape, np.float32)

    def move(self, gradient: Any, t: float) -> Any:
        """What is to be subtracted."""
        self.steps += 1
        self.first += (1 - BETA1) * (gradient - self.first)
        self.second += (1 - BETA2) * (gradient**2 - self.second)
        moved = self.first / (1 - BETA1**self.steps)
        return self.rate(t) * moved / (self.spread(self.second / (1 - BETA2**self.steps)) + 1e-12)

    def spread(self, second: Any) -> Any:
        """What a step is divided by, from the second moment."""
        return self.xp.sqrt(second)

    def step(self, image: Any, gradient: Any, t: float) -> None:
        image -= self.move(gradient, t)
        self.xp.clip(image, 0, 1, out=image)


class FlooredAdam(Adam):
    """Where gradients are weak, steps are short: the divisor is at least half its root mean square over the picture."""

    def spread(self, second: Any) -> Any:
        return self.xp.maximum(self.xp.sqrt(second), 0.5 * self.xp.sqrt(second.mean()))


class BlurredAdam(Adam):
    """One divisor for all pixels around: the second moment is blurred over some 16 pixels, and over the channels."""

    def spread(self, second: Any) -> Any:
        levels = pyramid_of(self.xp, self.xp.repeat(second.mean(axis=2, keepdims=True), 3, axis=2), 5)
        return self.xp.sqrt(enlarged(self.xp, levels, second.shape))


class PyramidAdam:
    """Pixels as the sum of a Laplacian pyramid's levels, each with an Adam of its own; the finest one's is slower."""

    LEVELS = 5

    def __init__(self, xp: Any, shape: tuple[int, ...], rate: Callable[[float], float], finest: float) -> None:
        self.xp, self.finest = xp, finest
        sizes = [shape]
        for _ in range(self.LEVELS - 1):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2), shape[2]))
        self.levels = [Adam(xp, size, rate) for size in sizes]

    def step(self, image: Any, gradient: Any, t: float) -> None:
        moves = []
        for adam in self.levels:
            moves.append(adam.move(gradient, t))
            gradient = halved(self.xp, blurred(self.xp, gradient)) * 4  # the transpose of `doubled`, then `blurred`
        total = moves[-1]
        for number in range(self.LEVELS - 2, -1, -1):
            total = blurred(self.xp, doubled(self.xp, total, moves[number].shape))
            total = total + moves[number] * (self.finest if number == 0 else 1.0)
        image -= total
        self.xp.clip(image, 0, 1, out=image)


def blurred(xp: Any, values: Any) -> Any:
    """[1 2 1] / 4 along both sides; symmetric as a matrix."""
    for axis in (0, 1):
        padded = xp.pad(values, [(1, 1) if each == axis else (0, 0) for each in range(3)], mode="edge")
        first, middle, last = (
            padded[tuple(slice(k, k + values.shape[axis]) if each == axis else slice(None) for each in range(3))]
            for k in range(3)
        )
        values = (first + 2 * middle + last) / 4
    return values


def halved(xp: Any, values: Any) -> Any:
    """Means of 2x2 pixels; an odd edge is repeated."""
    height, width = values.shape[:2]
    if height % 2 or width % 2:
        values = xp.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) / 4


def doubled(xp: Any, values: Any, shape: tuple[int, ...]) -> Any:
    return xp.repeat(xp.repeat(values, 2, axis=0), 2, axis=1)[: shape[0], : shape[1]]


def pyramid_of(xp: Any, values: Any, levels: int) -> list[Any]:
    result = [values]
    for _ in range(levels - 1):
        result.append(halved(xp, blurred(xp, result[-1])))
    return result


def enlarged(xp: Any, levels: list[Any], shape: tuple[int, ...]) -> Any:
    """The coarsest level at the size of the finest."""
    values = levels[-1]
    for level in levels[-2::-1]:
        values = blurred(xp, doubled(xp, values, level.shape))
    return values[: shape[0], : shape[1]]


def constant(_: float) -> float:
    return RATE


def falling(share: float) -> Callable[[float], float]:
    """The whole rate, and over the last `share` of a scale a cosine down to a fiftieth of it."""
    return lambda t: RATE * max(0.02, 0.5 + 0.5 * math.cos(math.pi * max(0.0, (t - 1 + share) / share)))


RULES: dict[str, Callable[[Any, tuple[int, ...]], Any]] = {
    "loop: adam": lambda xp, shape: Adam(xp, shape, constant),
    "loop: falling, last quarter": lambda xp, shape: Adam(xp, shape, falling(0.25)),
    "loop: falling, last half": lambda xp, shape: Adam(xp, shape, falling(0.5)),
    "loop: floored": lambda xp, shape: FlooredAdam(xp, shape, falling(0.25)),
    "loop: blurred": lambda xp, shape: BlurredAdam(xp, shape, falling(0.25)),
    "loop: pyramid": lambda xp, shape: PyramidAdam(xp, shape, falling(0.25), 1.0),
    "loop: pyramid, finest x0.5": lambda xp, shape: PyramidAdam(xp, shape, falling(0.25), 0.5),
    "loop: pyramid, finest x0.25": lambda xp, shape: PyramidAdam(xp, shape, falling(0.25), 0.25),
}


def by_rule(
    transfer: nstgpu.StyleTransfer, make: Callable[[Any, tuple[int, ...]], Any], iterations: int
) -> NDArray[Any]:
    """The engine's run, and from the third last scale on steps of a rule, averaged as the engine averages."""
    device, scales = transfer.device, transfer.plan(iterations)
    own = scales[-LOOP_SCALES:]
    before = len(scales) - len(own)
    pixels = transfer.initial_image("content", transfer.size_at(own[0].long_side))
    if before:
        stop_at = sum(scale.iterations for scale in scales[:before])
        last: list[NDArray[Any]] = []

        def watch(progress: Any) -> bool:
            if progress.iteration == stop_at:
                last.append(progress.image())
            return bool(progress.iteration < stop_at)

        transfer.run(iterations, on_iteration=watch)
        pixels = last[0]
    decay = 1 - 1 / (0.1 * iterations) if iterations > 10 else 0.0
    for scale in own:
        size = transfer.size_at(scale.long_side)
        pixels = transfer.beginning(pixels, size)
        objective = transfer.objective(size, scale.tv)
        shape = objective.gradient.shape
        image, average = (device.allocate(4 * math.prod(shape)).view(np.float32).reshape(shape) for _ in range(2))
        device.upload(pixels, image)
        xp: Any = np
        if not device.in_host_memory and type(image).__module__.startswith("cupy"):
            import cupy

            xp = cupy
        rule = make(xp, shape)
        for iteration in range(scale.iterations):
            objective.evaluate(image, objective.gradient)  # waits for the device
            rule.step(image, objective.gradient, iteration / scale.iterations)
            weight = (1 - decay) / (1 - decay ** (iteration + 1))
            average[...] = average + weight * (image - average) if iteration else image
            if xp is not np:
                xp.cuda.Device().synchronize()  # the engine has a stream of its own
        pixels = device.download(average)
    return transfer.finished(pixels)


# ---- what is measured ------------------------------------------------------------------------------------------------
def luminance(pixels: NDArray[Any]) -> NDArray[np.float64]:
    gray: NDArray[np.float64] = np.asarray(pixels, np.float64) @ LUMINANCE
    return gray


def radial_frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Cycles per pixel, of `rfft2`'s places."""
    frequency: NDArray[np.float64] = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    return frequency


def band_energy(values: NDArray[np.float64], low: float, high: float) -> float:
    """Variance per pixel between two frequencies, the edges faded out."""
    window = np.hanning(values.shape[0])[:, None] * np.hanning(values.shape[1])[None]
    spectrum = np.fft.rfft2((values - values.mean()) * window)
    frequency = radial_frequency(values.shape)
    twice = np.full(spectrum.shape, 2.0)
    twice[:, 0] = 1
    if values.shape[1] % 2 == 0:
        twice[:, -1] = 1
    chosen = (frequency >= low) & (frequency < high)
    return float((twice * np.abs(spectrum) ** 2)[chosen].sum() / (values.size * (window**2).sum()))


def dark_noise(values: NDArray[np.float64]) -> float:
    """The root mean square above half the Nyquist frequency, where it is dark around, in levels of 255."""
    height, width = values.shape
    mirrored = np.block([[values, values[:, ::-1]], [values[::-1], values[::-1, ::-1]]])  # no step at the edges
    spectrum, frequency = np.fft.rfft2(mirrored), radial_frequency(mirrored.shape)
    fine = np.fft.irfft2(np.where(frequency >= 0.25, spectrum, 0), mirrored.shape)[:height, :width]
    around = np.fft.irfft2(spectrum * np.exp(-((frequency / 0.02) ** 2)), mirrored.shape)[:height, :width]
    return float(255 * np.sqrt(np.mean(fine[around < DARK] ** 2))) if (around < DARK).any() else math.nan


def measured(pixels: NDArray[Any], style: NDArray[Any]) -> dict[str, float]:
    own, wanted = luminance(pixels), luminance(style)
    return {
        "grain": band_energy(own, 0.25, 1) / band_energy(wanted, 0.25, 1),
        "strokes": band_energy(own, 0.0625, 0.25) / band_energy(wanted, 0.0625, 0.25),
        "dark": dark_noise(own),
    }


def style_pixels(path: Path, long_side: int) -> NDArray[Any]:
    with Image.open(path) as image:
        share = long_side / max(image.size)
        size = round(image.width * share), round(image.height * share)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), np.float32) / 255


# ---- the command line ------------------------------------------------------------------------------------------------
def paint(options: argparse.Namespace) -> None:
    ends = time.monotonic() + options.seconds
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    device, weights = open_device(options.device, options.precision), nstgpu.load_weights(options.weights)
    names = options.ways.split(";") if options.ways else [*WAYS, *RULES]
    done = {record["name"] for record in lines(folder / "grain.jsonl")}
    for pair in PAIRS[: options.first]:
        content, style = (picture_file(stem, options.images) for stem in pair)
        common: dict[str, Any] = {
        "weights": weights, "device": device, "size": options.size, "style_statistics": options.statistics
    }  # fmt: skip
        plain = nstgpu.StyleTransfer(content, style, **common)
        for way in names:
            name = f"{pair_name(*pair)} / {way}"
            if name in done:
                continue
            if time.monotonic() > ends:
                print(f"stopped after {options.seconds:g} s, before {name}")
                return
            settings, run = WAYS.get(way, ({}, {}))
            given = {**common, **{key: value for key, value in settings.items() if key not in ("tv", "style")}}
            if "tv" in settings:
                given["tv_weight"] = settings["tv"] * plain.tv_weight
            if "style" in settings:
                given["style_weight"] = settings["style"] * plain.style_weight
            work = nstgpu.StyleTransfer(content, style, **given)
            began = time.perf_counter()
            if way in RULES:
                pixels = by_rule(work, RULES[way], options.iterations)
            else:
                pixels = work.run(options.iterations, **run).image
            seconds = time.perf_counter() - began
            work.release()
            costs, _ = plain.cost_and_gradient(pixels)
            plain.release()
            record = {
                "name": name, "pair": pair_name(*pair), "way": way, "seconds": seconds, "style": costs.style,
                "content": costs.content, **measured(pixels, style_pixels(style, options.size)),
                "size": options.size, "device": device.name, "precision": device.precision,
            }  # fmt: skip
            keep(folder / "grain.jsonl", record)
            height, width = pixels.shape[:2]
            left, top, right, bottom = (round(e * side) for e, side in zip(CROP, (width, height) * 2, strict=True))
            crop = np.rint(np.clip(pixels[top:bottom, left:right], 0, 1) * 255).astype(np.uint8)
            file = f"{name.replace(' / ', '__').replace(' ', '_').replace(':', '').replace(',', '')}.png"
            Image.fromarray(crop).save(folder / file)
            print(f"{name}: {seconds:.2f} s", flush=True)


def table(records: list[dict[str, Any]]) -> str:
    rows = ["| way | grain | strokes | dark | style | content | seconds |", "|---|---|---|---|---|---|---|"]
    for pair in dict.fromkeys(record["pair"] for record in records):
        ours = {record["way"]: record for record in records if record["pair"] == pair}
        rows.append(f"| **{pair}** | | | | | | |")
        for way, r in ours.items():
            base = ours.get("adam", r)
            shares = [f"{r[what] / base[what]:.2f}" for what in ("style", "content")]
            cells = [f"{r['grain']:.2f}", f"{r['strokes']:.2f}", f"{r['dark']:.2f}", *shares, f"{r['seconds']:.2f}"]
            rows.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=100, help="at each scale")
    parser.add_argument("--statistics", default="gram", help="of the ways that name none")
    parser.add_argument("--ways", help="with semicolons between them; all by default")
    parser.add_argument("--first", type=int, default=len(PAIRS), help="so many of the pairs")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begins no picture after them")
    options = parser.parse_args()
    if not options.table:
        paint(options)
    print(table(lines(options.folder / "grain.jsonl")))


if __name__ == "__main__":
    main()
