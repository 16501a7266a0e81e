"""What a model does to its pictures before the first convolution, as the preprocessing that it amounts to.

Follows scales, offsets and orders of channels, layer by layer; which layers stand there is left to `graph`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError
from ..model import CUSTOM, PREPROCESSINGS, Preprocessing
from . import graph

TRAINING_ONLY = frozenset(
    {"Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"}
    | {"RandAugment", "AugMix", "CutMix", "MixUp", "Solarization"}
)
"""Do nothing once a model is trained; so do all layers whose kind begins with Random."""
SAME_VALUES = frozenset({"InputLayer", "ZeroPadding2D", "Identity", "Cast", "StopGradient", "Resizing", "CenterCrop"})
_SAME_FUNCTIONS = frozenset({"cast", "identity", "stop_gradient", "image.resize", "compat.v1.image.resize"})
_SUMS = {"Add": 1, "math.add": 1, "__operators__.add": 1, "nn.bias_add": 1, "BiasAdd": 1}
_DIFFERENCES = {"Subtract": -1, "math.subtract": -1}
_PRODUCTS = frozenset({"Multiply", "math.multiply"})
_QUOTIENTS = frozenset({"TrueDivide", "Divide", "math.truediv", "math.divide"})
KERAS_EPSILON = 1e-7
MAX_STEPS = 200
"""Most layers in front that are followed, each as often as others take what it gives."""
REMEDY = (
    "say what it amounts to with --preprocessing (caffe: BGR minus the mean; unit: RGB 0..1; tf: RGB -1..1; "
    "torchvision), or save the model behind it alone"
)

Moments = Callable[[graph.Layer], tuple[Sequence[float], Sequence[float]] | None]
"""Gain and offset of a layer that the file holds numbers for, one each per channel."""


@dataclass(frozen=True)
class Channel:
    """One channel as it reaches a layer: `gain` times the picture's channel `source` (RGB), plus `offset`."""

    source: int
    gain: float
    offset: float


IMAGE = (Channel(0, 1.0, 0.0), Channel(1, 1.0, 0.0), Channel(2, 1.0, 0.0))


def does_nothing(kind: str) -> bool:
    """Whether a layer of this kind only acts in training."""
    return kind in TRAINING_ONLY or kind.startswith("Random")


def preprocessing_before(step: graph.Step, moments: Moments) -> Preprocessing | None:
    """What stands between the picture and `step`, or None where nothing does.

    `moments` gives what the file holds for normalizing layers. Raises `WeightsError` for a layer that no
    preprocessing amounts to, and where the range of the pictures cannot be told.
    """
    before = graph.sources(step)
    if not before:
        return None
    if len(before) > 1:
        raise _unreadable(step.layer)
    return preprocessing_of(_channels(before[0], moments, [MAX_STEPS]))


def preprocessing_of(channels: Sequence[Channel]) -> Preprocessing | None:
    """The preprocessing that hands the network these channels, or None where they are the picture's own."""
    if len(channels) != 3 or sorted(channel.source for channel in channels) != [0, 1, 2]:
        raise WeightsError(f"what stands before its first convolution makes {len(channels)} channels of RGB; {REMEDY}")
    if tuple(channels) == IMAGE:
        return None
    for channel in channels:
        if not (math.isfinite(channel.gain) and math.isfinite(channel.offset)) or abs(channel.gain) < 1e-12:
            raise WeightsError(f"what stands before its first convolution scales by {channel.gain}; {REMEDY}")
    first, second, third = channels
    full = _full_scale(channels)
    found = Preprocessing(
        CUSTOM,
        (first.source, second.source, third.source),
        full,
        tuple(0.0 - channel.offset / channel.gain for channel in channels),  # type: ignore[arg-type]
        tuple(1 / channel.gain for channel in channels),  # type: ignore[arg-type]
    )
    return next((known for known in PREPROCESSINGS.values() if _equal(known, found)), found)


def rescaled(scale: Any, offset: Any) -> tuple[Channel, ...]:
    """The channels behind a Rescaling layer."""
    return scaled(IMAGE, _numbers(scale, 3), _numbers(offset, 3))


def _full_scale(channels: Sequence[Channel]) -> float:
    """What white is where the model takes its pictures: 255 or 1."""
    gains = [abs(channel.gain) for channel in channels]
    if max(gains) < 0.1 or (max(gains) < 1.5 and min(channel.offset for channel in channels) < -50):
        return 255.0
    if min(gains) >= 1.5:
        return 1.0
    raise WeightsError(
        "whether its pictures are 0..255 or 0..1 where they enter cannot be told from the layers before its first "
        f"convolution; {REMEDY}"
    )


def _equal(known: Preprocessing, found: Preprocessing) -> bool:
    if known.channels != found.channels:
        return False
    for k in range(3):
        gains = known.scale / known.std[k], found.scale / found.std[k]
        shifts = known.mean[k] / known.std[k], found.mean[k] / found.std[k]
        if not (math.isclose(*gains, rel_tol=1e-6) and math.isclose(*shifts, rel_tol=1e-6, abs_tol=1e-6)):
            return False
    return True


def _channels(step: graph.Step, moments: Moments, left: list[int]) -> tuple[Channel, ...]:
    """What `step` gives, in channels; `left` counts down the steps that may still be taken."""
    layer = step.layer
    left[0] -= 1
    if left[0] < 0:
        raise _unreadable(layer)
    function = str(layer.settings.get("function", "")).removeprefix("tf.")
    kind = function if layer.kind in ("TFOpLambda", "SlicingOpLambda") else layer.kind
    call = graph.arguments(step)
    if kind == "InputLayer":
        return IMAGE
    before = graph.sources(step)
    joins = kind in ("Stack", "Concatenate", "stack", "concat")
    if len(before) > (3 if joins else 1):
        raise _unreadable(layer)
    if not before and layer.model.order[0] == layer.name:
        inputs: list[tuple[Channel, ...]] = [IMAGE]  # a Sequential's first layer takes the picture itself
    else:
        inputs = [_channels(one, moments, left) for one in before]
    if joins:
        axis = layer.settings.get("axis", (call.named if call else {}).get("axis"))
        joined = tuple(channel for one in inputs for channel in one)
        if axis in (-1, 3) and 0 < len(joined) <= 3:
            return joined
        raise _unreadable(layer)
    if len(inputs) != 1:
        raise _unreadable(layer)
    x = inputs[0]
    if kind in SAME_VALUES or kind in _SAME_FUNCTIONS or does_nothing(layer.kind):
        return x
    if kind == "Rescaling":
        settings = layer.settings
        return scaled(x, _numbers(settings["scale"], len(x)), _numbers(settings.get("offset", 0.0), len(x)))
    if kind in ("Normalization", "BatchNormalization"):
        found = _moments(layer, moments)
        return scaled(x, *(_numbers(list(one), len(x)) for one in found))
    if call is not None and (result := _operation(kind, layer, call, x)) is not None:
        return result
    raise _unreadable(layer)


def _operation(kind: str, layer: graph.Layer, call: graph.Call, x: tuple[Channel, ...]) -> tuple[Channel, ...] | None:
    """What an operation written in Python makes of `x`, or None for one that is not known."""
    if kind in ("GetItem", "__operators__.getitem"):
        key = call.named.get("slice_spec", call.positional[1] if len(call.positional) > 1 else None)
        return _picked(key, x)
    if kind in ("Flip", "reverse", "reverse_v2"):
        axis = layer.settings.get("axis", call.named.get("axis"))
        return x[::-1] if axis in (-1, 3, [-1], [3]) else None
    if kind in ("Take", "gather", "compat.v1.gather"):
        indices = call.named.get("indices", call.positional[1] if len(call.positional) > 1 else None)
        axis = layer.settings.get("axis", call.named.get("axis"))
        return tuple(x[index] for index in indices) if axis in (-1, 3) and isinstance(indices, list) else None
    number, first = _other_operand(call)
    if number is None:
        return None
    values = _numbers(number, len(x))
    ones, nothing = [1.0] * len(x), [0.0] * len(x)
    if kind in _SUMS:
        return scaled(x, ones, values)
    if kind in _DIFFERENCES:
        if first:
            return scaled(x, [-1.0] * len(x), values)
        return scaled(x, ones, [-value for value in values])
    if kind in _PRODUCTS:
        return scaled(x, values, nothing)
    if kind in _QUOTIENTS and not first:
        return scaled(x, [1 / value for value in values], nothing)
    return None


def _other_operand(call: graph.Call) -> tuple[Any, bool]:
    """The constant beside the tensor, and whether it comes first; (None, False) where there is no such pair."""
    operands = list(call.positional)
    operands += [call.named[name] for name in ("x1", "x2", "y", "bias") if name in call.named]
    if len(operands) != 2 or isinstance(operands[0], graph.Tensor) == isinstance(operands[1], graph.Tensor):
        return None, False
    first = not isinstance(operands[0], graph.Tensor)
    return operands[0 if first else 1], first


def _picked(key: Any, x: tuple[Channel, ...]) -> tuple[Channel, ...] | None:
    """x[..., key] of channels; None for an index that cuts the picture."""
    if not isinstance(key, list) or not key:
        return None
    *outer, last = (_index(one) for one in key)
    whole = [one is ... or one == slice(None) for one in outer]
    if not all(whole) or (... not in outer and len(outer) != 3):
        return None
    if isinstance(last, int) and -len(x) <= last < len(x):
        return (x[last],)
    return x[last] if isinstance(last, slice) else None


def _index(one: Any) -> Any:
    if isinstance(one, dict):  # as tf.keras writes them
        return ... if one.get("class_name") == "__ellipsis__" else slice(one["start"], one["stop"], one["step"])
    return one


def _moments(layer: graph.Layer, moments: Moments) -> tuple[Sequence[float], Sequence[float]]:
    mean, variance = layer.settings.get("mean"), layer.settings.get("variance")
    if layer.kind == "Normalization" and mean is not None and variance is not None:
        return normalization(_flat(mean), _flat(variance), invert=bool(layer.settings.get("invert")))
    found = moments(layer)
    if found is None or layer.settings.get("invert"):
        raise _unreadable(layer)
    return found


def normalization(
    mean: Sequence[float], variance: Sequence[float], *, invert: bool = False
) -> tuple[list[float], list[float]]:
    """Gain and offset per channel of Keras's Normalization layer."""
    deviations = [max(math.sqrt(one), KERAS_EPSILON) for one in variance]
    if invert:
        return deviations, list(mean)
    return [1 / one for one in deviations], [
        -m / d for m, d in zip(_numbers(list(mean), len(deviations)), deviations, strict=True)
    ]


def scaled(x: Sequence[Channel], gain: Sequence[float], offset: Sequence[float]) -> tuple[Channel, ...]:
    return tuple(
        Channel(one.source, one.gain * g, one.offset * g + o) for one, g, o in zip(x, gain, offset, strict=True)
    )


def _numbers(value: Any, count: int) -> list[float]:
    """A number for every channel, out of one number or as many, nested or not."""
    flat = _flat(value)
    if len(flat) == 1:
        flat *= count
    if len(flat) != count:
        raise WeightsError(
            f"a layer before its first convolution has {len(flat)} numbers for {count} channels; {REMEDY}"
        )
    return flat


def _flat(value: Any) -> list[float]:
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in _flat(one)]
    return [float(value)]


def _unreadable(layer: graph.Layer) -> WeightsError:
    return WeightsError(
        f"its layer {layer.name!r} of kind {layer.kind} stands before the first convolution, and what it does to the "
        f"picture cannot be read; {REMEDY}"
    )
