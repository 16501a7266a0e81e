"""Which layers of a model are the VGG: the chain from the picture to its last convolution, told by the configuration.

A classifier or any other head behind the chain is left out. Reading the numbers is left to `layouts`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import WeightsError
from . import front, graph
from .architecture import VGG16, VGG19, Place, named_place, refuse_twins

KERAS_EPSILON = 1e-3
"""Of Keras's batch normalization, unless a model says another."""
VGG_BLOCKS = 5
_CONVOLUTIONS = frozenset({"Conv2D", "Convolution2D"})
_POOLS = frozenset({"MaxPooling2D", "AveragePooling2D"})
_RELUS = frozenset({"relu", "ReLU", "Relu", "nn.relu"})
_NORMALIZATIONS = frozenset({"BatchNormalization", "SyncBatchNormalization", "BatchNormalizationV1"})
_UNSAID = (None, "linear")


@dataclass(frozen=True, eq=False)
class ConfiguredConvolution:
    """A convolution of the chain, its 1-based block, and the batch normalization between it and its ReLU."""

    layer: graph.Layer
    block: int
    normalization: graph.Layer | None
    activated: bool = True
    """Whether a ReLU comes before the next convolution."""


@dataclass(frozen=True, eq=False)
class Trunk:
    """The chain of a configured model, in order from the picture, and what the model holds besides."""

    convolutions: tuple[ConfiguredConvolution, ...]
    first: graph.Step
    """The first convolution's, from which the layers in front of it are found."""
    all_convolutions: tuple[graph.Layer, ...]
    all_normalizations: tuple[graph.Layer, ...]
    """Of the whole model, in the order of its configuration."""


def trunk(model: graph.Model) -> Trunk | None:
    """The VGG in `model`, or None where it has no convolution.

    With layers named block1_conv1, … or conv1_1, … these are the chain; else it ends with the last convolution, or
    where VGG-16 or VGG-19 is complete and something else follows. Raises `WeightsError` for what is no chain of
    stride-1 3x3 convolutions, ReLUs and 2x2 pools.
    """
    layers = list(model.layers())
    convolutions = [layer for layer in layers if layer.kind in _CONVOLUTIONS]
    if not convolutions:
        return None
    named = _named(convolutions)
    found = _named_trunk(named) if named else _unnamed_trunk(convolutions)
    normalizations = tuple(layer for layer in layers if layer.kind in _NORMALIZATIONS)
    return Trunk(tuple(found[0]), found[1], tuple(convolutions), normalizations)


def epsilon_of(layer: graph.Layer) -> float:
    """Of a batch normalization."""
    epsilon = float(layer.settings.get("epsilon", KERAS_EPSILON))
    if not 0 <= epsilon < 1:
        raise WeightsError(f"the epsilon of its layer {layer.name!r} is {epsilon}; save it again")
    return epsilon


def _named(convolutions: Sequence[graph.Layer]) -> dict[Place, graph.Layer]:
    """The canonically named convolutions up to the first that is no 3x3, or {} where the first layer has no such name.

    SSD goes on to count, 1x1 convolutions behind its fc7: conv6_1, conv6_2, ….
    """
    refuse_twins(layer.name for layer in convolutions)
    named = {place: layer for layer in convolutions if (place := named_place(layer.name)) is not None}
    if Place(1, 1) not in named:
        return {}
    kept: dict[Place, graph.Layer] = {}
    for place in sorted(named):
        if place.block > VGG_BLOCKS and _kernel_size(named[place]) != (3, 3):
            break
        kept[place] = named[place]
    return kept


def _named_trunk(named: dict[Place, graph.Layer]) -> tuple[list[ConfiguredConvolution], graph.Step]:
    wanted = list(named.values())
    try:
        return _chain(wanted[-1], wanted)
    except WeightsError:
        first_blocks = [layer for place, layer in named.items() if place.block <= VGG_BLOCKS]
        if len(first_blocks) == len(wanted):
            raise
        return _chain(first_blocks[-1], first_blocks)


def _unnamed_trunk(convolutions: Sequence[graph.Layer]) -> tuple[list[ConfiguredConvolution], graph.Step]:
    try:
        return _chain(convolutions[-1])
    except WeightsError as error:
        for depths in (VGG19, VGG16):
            count = sum(depths)
            if len(convolutions) <= count:
                continue
            try:
                found, first = _chain(convolutions[count - 1])
            except WeightsError:
                continue
            blocks = [one.block for one in found]
            if blocks == [block for block, depth in enumerate(depths, start=1) for _ in range(depth)]:
                return found, first
        raise error from None


def _chain(
    last: graph.Layer, wanted: Sequence[graph.Layer] | None = None
) -> tuple[list[ConfiguredConvolution], graph.Step]:
    """The chain from the first convolution to `last`, which must be `wanted` where that is given."""
    steps = [graph.first_step(last)]
    while len(before := graph.sources(steps[-1])) == 1:
        steps.append(before[0])
        if len(steps) > graph.MAX_LAYERS:
            raise WeightsError("its layers feed each other in a circle; save it again")
    steps.reverse()
    start = next(i for i, step in enumerate(steps) if step.layer.kind in _CONVOLUTIONS)
    if len(before) > 1:
        _refuse_junction(steps[0])
    for step in steps[:start]:
        if step.layer.kind in _POOLS:
            raise WeightsError(f"not VGG-like: no convolution stands before its pooling layer {step.layer.name!r}")
    chain = [step.layer for step in steps[start:]]
    found = _convolutions([*chain, *_behind(last)])
    layers = [one.layer for one in found]
    if wanted is not None and layers != list(wanted):
        strange = next((layer for layer in layers if layer not in wanted), None)
        if strange is not None:
            raise WeightsError(
                f"not VGG-like: its layer {strange.name!r} stands between {wanted[0].name!r} and {wanted[-1].name!r}"
            )
        # The names of layers that others pass by are checked for gaps where all names are.
        absent = next(layer for layer in wanted if layer not in layers)
        raise WeightsError(f"not VGG-like: nothing leads from its layer {absent.name!r} to {wanted[-1].name!r}")
    return found, steps[start]


def _refuse_junction(junction: graph.Step) -> None:
    """Where several layers meet is part of the front only while no convolution is behind any of them."""
    pending = [junction]
    seen: set[tuple[graph.Layer, int]] = set()
    while pending:
        step = pending.pop()
        if (step.layer, step.call) in seen:
            continue
        seen.add((step.layer, step.call))
        if step.layer.kind in _CONVOLUTIONS or step.layer.kind in _POOLS:
            layer = junction.layer
            raise WeightsError(
                f"not VGG-like: its layer {layer.name!r} is of kind {layer.kind}; use a VGG-16 or VGG-19 file"
            )
        pending += graph.sources(step)


def _behind(last: graph.Layer) -> list[graph.Layer]:
    """The batch normalization and activation that belong to the last convolution."""
    found: list[graph.Layer] = []
    layer: graph.Layer | None = last
    while layer is not None and len(found) < 8:
        layer = next(
            (
                one
                for one in graph.followers(layer)
                if one.kind in _NORMALIZATIONS or _is_activation(one) or front.does_nothing(one.kind)
            ),
            None,
        )
        if layer is None or (_is_activation(layer) and _activation(layer) not in (*_RELUS, *_UNSAID)):
            break
        found.append(layer)
    # A normalization behind the ReLU comes after the last tap.
    relu = _activation(last) in _RELUS
    kept = []
    for one in found:
        if one.kind in _NORMALIZATIONS and relu:
            break
        relu = relu or _is_activation(one)
        kept.append(one)
    return kept


def _convolutions(chain: Sequence[graph.Layer]) -> list[ConfiguredConvolution]:
    found: list[ConfiguredConvolution] = []
    pools: list[str] = []
    block = 1
    activated = True
    for layer in chain:
        kind, name = layer.kind, layer.name
        if kind in _CONVOLUTIONS:
            _check_convolution(layer)
            if not activated:
                found[-1] = replace(found[-1], activated=False)
            block += _pools_passed(pools)
            found.append(ConfiguredConvolution(layer, block, None))
            activated = _activation(layer) in _RELUS
        elif kind in _POOLS:
            _check_settings(layer, ("pool_size", "strides"), 2)
            pools.append(name)
        elif kind in _NORMALIZATIONS:
            last = found[-1]
            if activated or pools or last.normalization is not None:
                raise WeightsError(
                    f"its layer {name!r} normalizes behind the ReLU or the pool of {last.layer.name!r}, where it "
                    "cannot become part of a convolution; use a VGG that normalizes before its ReLUs, or none"
                )
            if layer.settings.get("axis", -1) not in (-1, 3, [-1], [3], 1, [1]):
                raise WeightsError(f"not VGG-like: its layer {name!r} normalizes along axis {layer.settings['axis']}")
            found[-1] = replace(last, normalization=layer)
        elif _is_activation(layer):
            _check_activation(layer)
            activated = activated or _activation(layer) in _RELUS
        elif not (kind in front.SAME_VALUES - {"Resizing", "CenterCrop"} or front.does_nothing(kind)):
            raise WeightsError(f"not VGG-like: its layer {name!r} is of kind {kind}; use a VGG-16 or VGG-19 file")
    return found


def _pools_passed(pools: list[str]) -> int:
    if len(pools) > 1:
        raise WeightsError(f"not VGG-like: no convolution stands before its pooling layer {pools[-1]!r}")
    passed = len(pools)
    pools.clear()
    return passed


def _is_activation(layer: graph.Layer) -> bool:
    if layer.kind in ("TFOpLambda", "SlicingOpLambda"):
        return str(layer.settings.get("function")) == "nn.relu"
    return layer.kind in ("Activation", "ReLU", "Relu")


def _activation(layer: graph.Layer) -> Any:
    """The name of a layer's activation, "linear" and None for none."""
    if layer.kind in ("ReLU", "Relu", "TFOpLambda"):
        return "relu"
    activation = layer.settings.get("activation")
    if isinstance(activation, dict):
        inner = activation.get("config")
        name = inner if isinstance(inner, str) else activation.get("class_name")
        return {"ReLU": "relu"}.get(str(name), name)
    return activation


def _check_activation(layer: graph.Layer) -> None:
    activation = _activation(layer)
    if activation not in _RELUS and activation not in _UNSAID:
        raise WeightsError(f"not VGG-like: the activation of its layer {layer.name!r} is {activation}, not relu")
    if layer.kind == "ReLU":
        for setting in ("max_value", "negative_slope", "threshold"):
            value = layer.settings.get(setting)
            if value not in (None, 0, 0.0, [0.0]) and not (setting == "max_value" and value == math.inf):
                raise WeightsError(f"not VGG-like: {setting} of its layer {layer.name!r} is {value}; use a plain ReLU")


def _check_convolution(layer: graph.Layer) -> None:
    _check_settings(layer, ("strides", "subsample", "dilation_rate"), 1)
    _check_activation(layer)
    if (size := _kernel_size(layer)) != (3, 3):
        raise WeightsError(
            f"not VGG-like: the kernel of its layer {layer.name!r} is {' x '.join(map(str, size))}, not 3x3; "
            "use a VGG-16 or VGG-19 weights file"
        )
    if layer.settings.get("groups", 1) not in (None, 1):
        raise WeightsError(f"not VGG-like: its layer {layer.name!r} works in {layer.settings['groups']} groups")


def _kernel_size(layer: graph.Layer) -> tuple[int, ...]:
    settings = layer.settings
    size = settings.get("kernel_size") or (settings.get("nb_row", 3), settings.get("nb_col", 3))
    return tuple(int(one) for one in (size if isinstance(size, (list, tuple)) else (size, size)))


def _check_settings(layer: graph.Layer, settings: Sequence[str], wanted: int) -> None:
    for setting in settings:
        value = layer.settings.get(setting) or wanted
        pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
        if pair != (wanted, wanted):
            raise WeightsError(
                f"not VGG-like: {setting} of its layer {layer.name!r} is {layer.settings[setting]}, not {wanted}"
            )
