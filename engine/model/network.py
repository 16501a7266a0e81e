"""The frozen network as a chain: a tuple of layers, a walk forward and a walk backward, and the buffers both need.

Costs are somebody else's: the walk forward leaves the activations at the taps, and the walk backward stops at
each tap, where its gradient enters.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ...kernels.device import Array, Device, Filters, Pooling, StylePlace
from ...weights import Preprocessing, Weights
from ..errors import SettingsError
from ..memory.arena import Buffer, allocate


@dataclass(frozen=True, eq=False)
class Layer:
    """A 3x3 convolution with bias and ReLU, and the 2x2 pool that follows it at the end of a block."""

    tap: str
    filters: Filters
    channels: tuple[int, int]
    pooled: bool


@dataclass(frozen=True, eq=False)
class Network:
    """The layers from the image to the deepest tap in use, on one device."""

    layers: tuple[Layer, ...]
    preprocessing: Preprocessing
    pooling: Pooling


class LayerBuffers(NamedTuple):
    """One layer's part of the arena. None: not needed here."""

    output: Array | None
    relu_mask: Array | None
    pooled: Array | None
    pool_argmax: Array | None
    gradient: Array | None
    pooled_gradient: Array | None


@dataclass(frozen=True, eq=False)
class Buffers:
    """What the walks write, for one image size."""

    input: Array
    input_gradient: Array | None
    workspace: Array
    layers: tuple[LayerBuffers, ...]


def build(device: Device, weights: Weights, deepest: str, pooling: Pooling) -> Network:
    """Packs the layers down to the tap `deepest` for the device."""
    convolutions = weights.convolutions[: weights.taps.index(deepest) + 1]
    following = [*convolutions[1:], None]
    layers = tuple(
        Layer(
            tap=convolution.tap,
            filters=device.pack_filters(convolution.kernel, convolution.bias),
            channels=(convolution.kernel.shape[2], convolution.kernel.shape[3]),
            pooled=after is not None and after.block != convolution.block,
        )
        for convolution, after in zip(convolutions, following, strict=True)
    )
    return Network(layers, weights.preprocessing, pooling)


def down_to(network: Network, taps: Collection[str]) -> Network:
    """The layers from the image to the deepest of `taps`, of which there is at least one."""
    deepest = max(i for i, layer in enumerate(network.layers) if layer.tap in taps)
    last = replace(network.layers[deepest], pooled=False)
    return replace(network, layers=(*network.layers[:deepest], last))


def strides(network: Network) -> dict[str, int]:
    """Pixels from one unit to the next, by tap."""
    result, stride = {}, 1
    for layer in network.layers:
        result[layer.tap] = stride
        stride *= 2 if layer.pooled else 1
    return result


def least_side(network: Network) -> int:
    """Pixels of an image's shorter side with which its deepest layer has one unit."""
    return int(2 ** sum(layer.pooled for layer in network.layers))


def sizes(network: Network, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(H, W) at each layer's convolution; pooling takes the floor."""
    result = []
    height, width = size
    for layer in network.layers:
        result.append((height, width))
        if layer.pooled:
            height, width = height // 2, width // 2
        if min(height, width) < 1:
            raise SettingsError(f"the image is too small for the layers after {layer.tap}; make it larger")
    return result


def carriers(device: Device, network: Network) -> dict[str, StylePlace]:
    """The taps whose style gradient the convolution behind them can take along (`Device.carries_style`)."""
    found = {}
    for layer, behind in zip(network.layers, network.layers[1:], strict=False):
        if not layer.pooled and (place := device.carries_style(behind.filters)):
            found[layer.tap] = place
    return found


def unpooled(device: Device, network: Network, taps: Collection[str]) -> frozenset[int]:
    """The layers, by number, whose pool the input gradient of the layer behind it goes back through in one operation
    (`Device.unpools`): where the choice is a maximum's, and nothing else enters before the pool."""
    return frozenset(
        i
        for i, (layer, behind) in enumerate(zip(network.layers, network.layers[1:], strict=False))
        if layer.pooled and layer.tap not in taps and network.pooling == "max" and device.unpools(behind.filters)
    )


def plan(
    device: Device, network: Network, size: tuple[int, int], taps: Collection[str], *, backward: bool,
    carried: Mapping[str, StylePlace] = MappingProxyType({}),
) -> list[Buffer]:  # fmt: skip
    """The buffers of both walks with their lifetimes.

    carried: those of `taps` where nothing enters but what the convolution behind them takes along.

    Step 0 preprocesses and step 1 + i computes layer i forward. Then the two deepest layers take in their taps'
    gradients, and three steps carry the gradient from layer i to the one before it: through the convolution, with the
    tap's gradient of the layer before that one taken in, and through the pool.
    """
    n = len(network.layers)
    real, at_once = device.activation_dtype, unpooled(device, network, taps)

    def passed_on(i: int) -> int:
        """The step at which the gradient leaves layer i through its convolution."""
        return n + 2 + 3 * (n - 1 - i)

    buffers = [Buffer("input", (*size, 3), device.image_dtype, 0, 1)]
    if backward:
        buffers.append(Buffer("input_gradient", (*size, 3), device.image_dtype, passed_on(0), passed_on(0) + 1))
    convolutions = []
    for i, (layer, (h, w)) in enumerate(zip(network.layers, sizes(network, size), strict=True)):
        convolutions.append((h, w, *layer.channels))
        forward, channels, tapped = 1 + i, layer.channels[1], layer.tap in taps
        place = carried.get(layer.tap)
        shape, pooled_shape = (h, w, channels), (h // 2, w // 2, channels)
        taken_in = n + 1 if i >= n - 2 else passed_on(i + 2) + 1
        if tapped or not layer.pooled:
            last = (taken_in if backward else n) if tapped else forward + 1
            if place is not None:
                last = passed_on(i) if place == "in place" else passed_on(i + 1)
            buffers.append(Buffer(f"{i}.output", shape, real, forward, last))
        if layer.pooled:
            buffers.append(Buffer(f"{i}.pooled", pooled_shape, real, forward, forward + 1))
        if backward:
            arrived = n + 1 if i == n - 1 else passed_on(i + 1)
            masked = arrived + 2 if layer.pooled and i not in at_once else arrived
            buffers.append(Buffer(f"{i}.relu_mask", *device.relu_mask_layout(shape), forward, masked))
            if place != "in place":
                first = taken_in if tapped and place is None else masked
                buffers.append(Buffer(f"{i}.gradient", shape, real, first, passed_on(i)))
            if layer.pooled and i not in at_once:
                buffers.append(Buffer(f"{i}.pooled_gradient", pooled_shape, real, arrived, masked))
            if layer.pooled and network.pooling == "max":
                buffers.append(Buffer(f"{i}.pool_argmax", *device.pool_argmax_layout(pooled_shape), forward, masked))
    workspace = device.workspace_bytes(convolutions)
    buffers.append(Buffer("workspace", (workspace,), np.dtype(np.uint8), 0, passed_on(0) + 1))
    return buffers


def reserve(
    device: Device, network: Network, size: tuple[int, int], taps: Collection[str], *, backward: bool
) -> Buffers:
    """Allocates the arena for images of this size, keeping the activations at `taps`."""
    return views(network, allocate(device, plan(device, network, size, taps, backward=backward)))


def views(network: Network, rooms: Mapping[str, Array]) -> Buffers:
    """Sorts buffers that were planned, by name, to their layers."""
    layers: list[LayerBuffers] = []
    for i in range(len(network.layers)):
        own = LayerBuffers(*(rooms.get(f"{i}.{field}") for field in LayerBuffers._fields))
        if own.relu_mask is not None and own.gradient is None:  # a gradient in place of the features
            own = own._replace(gradient=own.output)
        layers.append(own)
    return Buffers(rooms["input"], rooms.get("input_gradient"), rooms["workspace"], tuple(layers))


def forward(device: Device, network: Network, buffers: Buffers, image: Array) -> None:
    """From the image to the activations at every tap (`buffers.layers[i].output`)."""
    device.bind_workspace(buffers.workspace)
    p = network.preprocessing
    scale = [p.scale / std for std in p.std]
    shift = [-mean / std for mean, std in zip(p.mean, p.std, strict=True)]
    device.preprocess(image, p.channels, scale, shift, buffers.input)
    x = buffers.input
    for layer, b in zip(network.layers, buffers.layers, strict=True):
        device.conv3x3_relu(
            x,
            layer.filters,
            out=b.output,
            relu_mask=b.relu_mask,
            pooling=network.pooling,
            pooled=b.pooled,
            pool_argmax=b.pool_argmax,
        )
        x = b.pooled if layer.pooled else b.output


def backward(
    device: Device, network: Network, buffers: Buffers, taps: Collection[str], out: Array,
    carried: Mapping[str, Array] = MappingProxyType({}),
) -> Iterator[tuple[str, Array]]:  # fmt: skip
    """From the gradients at the taps to the gradient of the image, written to `out`.

    carried: the difference (C, C) that the features are multiplied by, at taps outside of `taps` where the convolution
    behind takes that along.

    Yields every tap of `taps` as the pass comes by, with a buffer (h, w, C) into which the caller writes the gradient
    that enters there. The gradient of the image is complete once the iterator has ended.
    """
    device.bind_workspace(buffers.workspace)
    layers = list(zip(network.layers, buffers.layers, strict=True))

    def entering(i: int) -> Iterator[tuple[str, Array]]:
        if tapped(i):
            yield layers[i][0].tap, layers[i][1].gradient

    def tapped(i: int) -> bool:
        return i >= 0 and layers[i][0].tap in taps

    at_once = unpooled(device, network, (*taps, *carried))
    deepest = len(layers) - 1
    if not tapped(deepest):
        raise AssertionError(f"the deepest layer {layers[deepest][0].tap} has no cost")
    yield from entering(deepest)
    device.relu_gradient(layers[deepest][1].gradient, layers[deepest][1].relu_mask)
    yield from entering(deepest - 1)
    for i in range(deepest, 0, -1):
        (before, into), (layer, b) = layers[i - 1], layers[i]
        if i - 1 in at_once:
            device.conv3x3_unpooled_gradient(
                b.gradient, layer.filters, out=into.gradient, relu_mask=into.relu_mask, pool_argmax=into.pool_argmax
            )
            yield from entering(i - 2)
            continue
        target, relu_mask = (into.pooled_gradient, None) if before.pooled else (into.gradient, into.relu_mask)
        gram_error = carried.get(before.tap)
        device.conv3x3_input_gradient(
            b.gradient, layer.filters, out=target, relu_mask=relu_mask, accumulate=tapped(i - 1) and not before.pooled,
            features=None if gram_error is None else into.output, gram_error=gram_error,
        )  # fmt: skip
        # One layer ahead, so that the tap's activation is gone before the pool below unfolds a gradient as large.
        yield from entering(i - 2)
        if before.pooled:
            device.pool_input_gradient(
                into.pooled_gradient,
                pooling=network.pooling,
                pool_argmax=into.pool_argmax,
                out=into.gradient,
                relu_mask=into.relu_mask,
                accumulate=tapped(i - 1),
            )
    layer, b = layers[0]
    device.conv3x3_input_gradient(
        b.gradient, layer.filters, out=buffers.input_gradient, relu_mask=None, accumulate=False
    )
    p = network.preprocessing
    device.preprocess_gradient(buffers.input_gradient, p.channels, [p.scale / std for std in p.std], out)
