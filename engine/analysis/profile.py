"""What one iteration costs, operation by operation: time, rate, share of the roofline, and error against the reference.

A `Recorder` stands between the engine and a device and sees every operation; nothing else is special about a profiled
run. What an operation must do at least (its work) is counted here from its arguments.
"""

import inspect
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...kernels.device import Device
from ...kernels.reference import Reference
from ...weights import Weights
from ..costs.statistics.tuning import Tuning
from ..memory.arena import Buffer, allocate
from ..model import taps
from ..optimizers.adam import Adam
from ..transfer import StyleTransfer


class Work(NamedTuple):
    """What an operation must do: multiplications and additions, and the terms of its longest sum.

    The error of a sum of random terms in float32 grows as eps sqrt(terms): that is an operation's budget.
    """

    flops: float
    terms: int


Arguments = Mapping[str, Any]


def _convolution(a: Arguments) -> Work:
    channels_out = (a["pooled"] if a["out"] is None else a["out"]).shape[2]
    return Work(2.0 * 9 * a["x"].size * channels_out, 9 * a["x"].shape[2])


def _input_gradient(a: Arguments) -> Work:
    channels = a["out"].shape[2]
    of_style = 0 if a.get("features") is None else channels
    terms = 9 * a["gradient"].shape[2] + of_style
    return Work(2.0 * 9 * a["gradient"].size * channels + 2.0 * a["out"].size * of_style, terms)


def _gram(a: Arguments) -> Work:
    height, width, channels = a["features"].shape
    return Work(height * width * channels * (channels + 1.0), height * width)  # symmetric: half of it suffices


def _style_gradient(a: Arguments) -> Work:
    return Work(2.0 * a["features"].size * len(a["gram_error"]), len(a["gram_error"]))


def _w2(a: Arguments) -> Work:
    # By eigenvectors: three and a half products and about 9 C^3; a GPU does some sixty products, one after the other.
    channels = len(a["gram"])
    return Work(16.0 * channels**3, 100 * channels)


def _combination(a: Arguments) -> Work:
    return Work(2.0 * a["vectors"].size, len(a["vectors"]))


def _elementwise(_: Arguments) -> Work:
    return Work(0.0, 16)


def _sum_of(name: str) -> Callable[[Arguments], Work]:
    return lambda a: Work(0.0, a[name].size)


# Operation: its work, and the arguments it writes. Memory moves, packing and measuring a style are no part of an
# iteration.
OPERATIONS: dict[str, tuple[Callable[[Arguments], Work], tuple[str, ...]]] = {
    "pad_edge": (_elementwise, ("out",)),
    "preprocess": (_elementwise, ("out",)),
    "conv3x3_relu": (_convolution, ("out", "pooled")),
    "gram": (_gram, ("out",)),
    "mean": (_sum_of("features"), ("out",)),
    "style_cost": (_sum_of("gram"), ("cost", "gram_error")),
    "moments_cost": (_sum_of("gram"), ("cost", "gram_error", "mean_error")),
    "w2_cost": (_w2, ("cost", "gram_error", "mean_error")),
    "content_cost": (_sum_of("features"), ("cost",)),
    "style_gradient": (_style_gradient, ("out",)),
    "content_gradient": (_elementwise, ("out",)),
    "relu_gradient": (_elementwise, ("gradient",)),
    "pool_input_gradient": (_elementwise, ("out",)),
    "conv3x3_input_gradient": (_input_gradient, ("out",)),
    "conv3x3_unpooled_gradient": (_input_gradient, ("out",)),
    "preprocess_gradient": (_elementwise, ("out",)),
    "pad_edge_gradient": (_elementwise, ("out",)),
    "tv_cost": (_sum_of("image"), ("cost", "gradient")),
    "adam_step": (_elementwise, ("image", "first", "second")),
    "clamped_step": (_elementwise, ("out",)),
    "project_gradient": (_elementwise, ("out",)),
    "weigh": (_elementwise, ("image",)),
    "blend": (_elementwise, ("out",)),
    "dots": (lambda a: Work(2.0 * a["vectors"].size, a["values"].size), ("out",)),
    "combine": (_combination, ("out",)),
    "neighbors_cost": (_sum_of("features"), ("cost",)),
    "neighbors_gradient": (lambda a: Work(0.0, 3 * a["features"].shape[2]), ("out",)),  # three sums of C
    "random_directions": (_elementwise, ("out",)),
    "project": (lambda a: Work(2.0 * a["out"].size * a["features"].shape[2], a["features"].shape[2]), ("out",)),
    "sort_rows": (_elementwise, ("values",)),
    "sliced_cost": (_sum_of("values"), ("cost", "residual")),
    "sliced_gradient": (lambda a: Work(2.0 * len(a["residual"]) * a["out"].size, len(a["residual"])), ("out",)),
}


# What makes a gradient within the network out of the costs, and so is to be as much larger as those are.
SCALED = {
    "style_gradient": ("gram_error", "mean_error"), "content_gradient": ("scale",), "neighbors_gradient": ("scale",),
    "sliced_gradient": ("residual",),
}  # fmt: skip

ROUNDOFF = {"bf16": 2 * 2.0**-9, "fp16": 2 * 2.0**-12, "tf32": 2 * 2.0**-12}
"""Of the factors and the results of tensor cores, relative, by precision; where it is not that of float32."""


class Call(NamedTuple):
    """One operation of one iteration."""

    operation: str
    arguments: dict[str, Any]
    seconds: float
    kernels: tuple[str, ...]
    error: float | None


@dataclass(frozen=True)
class Row:
    """One operation of the iteration over all rounds."""

    operation: str
    kernels: tuple[str, ...]
    """CUDA kernels it launched."""
    shape: str
    seconds: float | None
    """Median; None where time says nothing (the emulator)."""
    spread: float | None
    """Interquartile range over the median."""
    flops: float
    nbytes: float
    """Arguments read and written, each once."""
    roofline: float | None
    """The least time that its work takes on this device, over the time it took."""
    error: float
    """Against the reference in float64, as a share of the budget: eps sqrt(terms), and ROUNDOFF."""


@dataclass(frozen=True)
class Profile:
    """One iteration on one device."""

    device: str
    precision: str
    size: tuple[int, int]
    checked_size: tuple[int, int]
    """Errors were measured on images of this size, times on `size`."""
    peak_flops: float | None
    peak_bandwidth: float | None
    rows: list[Row]
    seconds: float | None
    """Of a whole iteration, median."""


class Recorder:
    """Looks like the device inside it and keeps a `Call` for every operation that passes, until it is told to stop."""

    def __init__(self, device: Device, *, check: bool) -> None:
        self.inner = device
        self.calls: list[Call] = []
        self._check = Reference() if check else None
        self._packed: list[tuple[Any, Any]] = []
        self._launched: list[str] = []
        self._recording = True
        if hasattr(device, "on_launch"):
            device.on_launch = lambda launch: self._launched.append(launch.kernel)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        if name not in OPERATIONS or not self._recording:
            return attribute
        signature = inspect.signature(attribute)

        def recorded(*args: Any, **kwargs: Any) -> None:
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            expected = self._expected(name, arguments)
            self._launched.clear()
            seconds = self.inner.elapsed(lambda: attribute(*args, **kwargs))
            kernels = tuple(dict.fromkeys(self._launched))
            error = None if expected is None else self._error(name, arguments, expected)
            self.calls.append(Call(name, arguments, seconds, kernels, error))

        return recorded

    def together(self) -> AbstractContextManager[None]:
        """Each operation by itself, so that each has a time."""
        return nullcontext()

    def stop(self) -> None:
        """From here on the device is left to itself."""
        self._recording = False
        if hasattr(self.inner, "on_launch"):
            self.inner.on_launch = None

    def pack_filters(self, kernel: Any, bias: Any) -> Any:
        packed = self.inner.pack_filters(kernel, bias)
        if self._check is not None:
            self._packed.append((packed, self._check.pack_filters(kernel, bias)))
        return packed

    def _expected(self, name: str, arguments: Arguments) -> dict[str, Any] | None:
        """The operation's outputs on the reference in float64, from the very inputs that the device has."""
        if self._check is None:
            return None
        twin = {key: self._twin(key, value, arguments) for key, value in arguments.items()}
        larger = self.inner.loss_scale
        for key in SCALED.get(name, ()):
            if twin[key] is not None:
                twin[key] = twin[key] * larger
        if name == "preprocess_gradient":
            twin["scale"] = [factor / larger for factor in twin["scale"]]
        getattr(self._check, name)(**twin)
        return {key: twin[key] for key in OPERATIONS[name][1] if twin[key] is not None}

    def _twin(self, key: str, value: Any, arguments: Arguments) -> Any:
        if value is None or isinstance(value, str | float | int | list):
            return value
        if key == "filters":
            return next(reference for packed, reference in self._packed if packed is value)
        if isinstance(value, tuple):
            return value
        if key in ("relu_mask", "pool_argmax"):
            whole = next(arguments[name] for name in ("out", "pooled", "gradient") if arguments.get(name) is not None)
            unpack = self.inner.unpack_relu_mask if key == "relu_mask" else self.inner.unpack_pool_argmax
            return unpack(value, whole.shape[2])
        values = self.inner.download(value)
        # What an output holds before it is written may be anything, and converting a signalling NaN warns.
        with np.errstate(invalid="ignore"):
            return values.astype(np.float64) if values.dtype.kind == "f" else values

    def _error(self, name: str, arguments: Arguments, expected: Mapping[str, Any]) -> float:
        terms = OPERATIONS[name][0](arguments).terms
        worst = 0.0
        for key, right in expected.items():
            gram_error = self.inner.download(arguments[key]) - right
            scale = float(np.sqrt(np.mean(np.square(right)))) or float(np.finfo(np.float32).tiny)
            budget = float(np.finfo(np.float32).eps) * np.sqrt(terms) + ROUNDOFF.get(self.inner.precision, 0.0)
            worst = max(worst, float(np.sqrt(np.mean(np.square(gram_error)))) / scale / budget)
        return worst


def profile(
    device: Device,
    weights: Weights,
    size: tuple[int, int],
    *,
    rounds: int = 5,
    style_statistics: str = "gram",
    tuning: Tuning = Tuning(),  # noqa: B008  (frozen)
    checked_size: tuple[int, int] | None = None,
    on_round: Callable[[], object] | None = None,
) -> Profile:
    """Profiles one iteration of Adam with the default layers on noise of (H, W) pixels; not what is measured only
    every so many iterations.

    Errors are measured once, on images of `checked_size` (default: at most 96 px), since the reference is slow.
    """
    small = checked_size or (min(size[0], 96), min(size[1], 96))
    checked = Recorder(device, check=True)
    _iterate(checked, weights, small, style_statistics, tuning, 1, on_round)
    errors = [call.error or 0.0 for call in checked.calls]

    peaks = device.roofline()
    timed = Recorder(device, check=False)
    whole = _iterate(timed, weights, size, style_statistics, tuning, rounds if peaks else 1, on_round)
    per_round = len(timed.calls) // (rounds if peaks else 1)
    rows = []
    for index, error in zip(range(per_round), errors, strict=True):
        calls = timed.calls[index::per_round]
        rows.append(_row(calls, error, peaks))
    seconds = statistics.median(whole) if peaks else None
    flops, bandwidth = peaks or (None, None)
    return Profile(device.name, device.precision, size, small, flops, bandwidth, rows, seconds)


def _iterate(
    recorder: Recorder,
    weights: Weights,
    size: tuple[int, int],
    style_statistics: str,
    tuning: Tuning,
    rounds: int,
    on_round: Callable[[], object] | None,
) -> list[float]:
    """Runs warm iterations through the recorder; returns the seconds of whole ones, measured without it."""
    rng = np.random.default_rng(0)
    content, style, start = (rng.random((*size, 3), np.float32) for _ in range(3))
    device: Any = recorder
    transfer = StyleTransfer(
        content, style, weights=weights, device=device, style_statistics=style_statistics, tuning=tuning,
        **_classic(weights),
    )  # fmt: skip
    (image,) = allocate(device, [Buffer("image", transfer.shape, device.image_dtype, 0, 0)]).values()
    device.upload(start, image)
    objective = transfer.objective()
    optimizer = Adam(device, transfer.shape, None)

    def step() -> None:
        device.adam_step(image, objective.gradient, **optimizer.moments, **optimizer.rates)

    def iteration() -> None:
        objective.evaluate(image, objective.gradient)
        step()

    objective.begin(image, 0)
    recorder.calls.clear()
    for _ in range(rounds):
        iteration()
        if on_round is not None:
            on_round()
    recorder.stop()
    stream, repeat = recorder.inner.stream, iteration
    if stream is not None:  # as a run does

        def captured() -> None:
            objective.enqueue(image, objective.gradient)
            step()

        repeat = stream.capture(captured)
    return [recorder.inner.elapsed(repeat) for _ in range(rounds if rounds > 1 else 0)] or [0.0]


def _classic(weights: Weights) -> dict[str, Any]:
    """The default layers, named, so that nothing is said of those that the weights lack."""
    return {
        "content_layers": taps.classic_content(weights.taps),
        "style_layers": taps.classic_style(weights.taps),
    }


def _row(calls: list[Call], error: float, peaks: tuple[float, float] | None) -> Row:
    first = calls[0]
    work = OPERATIONS[first.operation][0](first.arguments)
    nbytes = _nbytes(first)
    seconds = spread = roofline = None
    if peaks is not None:
        times = [call.seconds for call in calls]
        seconds = statistics.median(times)
        low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else (seconds, seconds, seconds)
        spread = (high - low) / seconds
        roofline = max(work.flops / peaks[0], nbytes / peaks[1]) / seconds
    return Row(first.operation, first.kernels, _shape(first), seconds, spread, work.flops, nbytes, roofline, error)


def _nbytes(call: Call) -> float:
    total = 0.0
    for key, value in call.arguments.items():
        if hasattr(value, "nbytes"):
            twice = key in OPERATIONS[call.operation][1] and call.arguments.get("accumulate", False)
            total += value.nbytes * (2 if twice else 1)
    return total


def _shape(call: Call) -> str:
    arguments = call.arguments
    sources = ("x", "gradient", "features", "gram", "image", "vectors", "values", "residual", "out")
    source = next(arguments[name] for name in sources if name in arguments)
    text = "x".join(str(length) for length in source.shape)
    target = next((arguments[name] for name in ("out", "pooled") if arguments.get(name) is not None), None)
    if target is not None and target.shape != source.shape:
        text += " -> " + "x".join(str(length) for length in target.shape)
    return text
