"""The frozen network as a chain: a tuple of layers, a walk forward and a walk backward, and the buffers both need.

Costs are somebody else's: the walk forward leaves the activations at the taps, and the walk backward asks for the
gradient at each tap as it passes by.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..kernels.device import Array, Device, Filters, Pooling
from ..weights import Preprocessing, Weights
from .memory import Buffer, allocate, lay_out
from .taps import SettingsError


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
    mask: Array | None
    pooled: Array | None
    choice: Array | None
    gradient: Array | None
    pooled_gradient: Array | None


@dataclass(frozen=True, eq=False)
class Buffers:
    """What the walks write, for one image size."""

    input: Array
    input_gradient: Array | None
    workspace: Array
    layers: tuple[LayerBuffers, ...]
    nbytes: int


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


def plan(
    device: Device, network: Network, size: tuple[int, int], taps: Collection[str], *, backward: bool
) -> list[Buffer]:
    """The buffers of both walks with their lifetimes.

    Step 0 preprocesses, step 1 + i computes layer i forward, step 2 n - i carries the gradient from layer i to the one
    before it (or to the input). A tap's activation lives until its gradient has been taken, one step before that.
    """
    n = len(network.layers)
    real = device.activation_dtype
    buffers = [Buffer("input", (*size, 3), real, 0, 1)]
    if backward:
        buffers.append(Buffer("input_gradient", (*size, 3), real, 2 * n, 2 * n + 1))
    convolutions = []
    for i, (layer, (h, w)) in enumerate(zip(network.layers, sizes(network, size), strict=True)):
        convolutions.append((h, w, *layer.channels))
        forward, back, channels = 1 + i, 2 * n - i, layer.channels[1]
        tapped = layer.tap in taps
        shape, pooled_shape = (h, w, channels), (h // 2, w // 2, channels)
        if tapped or not layer.pooled:
            last = (back if backward else n) if tapped else forward + 1
            buffers.append(Buffer(f"{i}.output", shape, real, forward, last))
        if layer.pooled:
            buffers.append(Buffer(f"{i}.pooled", pooled_shape, real, forward, forward + 1))
        if backward:
            buffers.append(Buffer(f"{i}.mask", *device.mask_layout(shape), forward, back))
            buffers.append(Buffer(f"{i}.gradient", shape, real, back - 1, back))
            if layer.pooled:
                buffers.append(Buffer(f"{i}.pooled_gradient", pooled_shape, real, back - 1, back - 1))
                if network.pooling == "max":
                    buffers.append(Buffer(f"{i}.choice", *device.choice_layout(pooled_shape), forward, back))
    workspace = device.workspace_bytes(convolutions)
    buffers.append(Buffer("workspace", (workspace,), np.dtype(np.uint8), 0, 2 * n + 1))
    return buffers


def reserve(
    device: Device, network: Network, size: tuple[int, int], taps: Collection[str], *, backward: bool
) -> Buffers:
    """Allocates the arena for images of this size, keeping the activations at `taps`."""
    planned = plan(device, network, size, taps, backward=backward)
    views = allocate(device, planned)
    layers = tuple(
        LayerBuffers(*(views.get(f"{i}.{field}") for field in LayerBuffers._fields)) for i in range(len(network.layers))
    )
    nbytes = lay_out(planned)[1]
    return Buffers(views["input"], views.get("input_gradient"), views["workspace"], layers, nbytes)


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
            x, layer.filters, out=b.output, mask=b.mask, pooling=network.pooling, pooled=b.pooled, choice=b.choice
        )
        x = b.pooled if layer.pooled else b.output


def backward(
    device: Device, network: Network, buffers: Buffers, tap_gradient: Callable[[str, Array], bool], out: Array
) -> None:
    """From the gradients at the taps to the gradient of the image, written to `out`.

    `tap_gradient(tap, buffer)` writes the gradient that enters at a tap, and says whether there was one.
    """
    device.bind_workspace(buffers.workspace)
    layers = list(zip(network.layers, buffers.layers, strict=True))
    layer, b = layers[-1]
    if not tap_gradient(layer.tap, b.gradient):
        raise AssertionError(f"the deepest layer {layer.tap} has no cost")
    device.relu_gradient(b.gradient, b.mask)
    for (before, into), (layer, b) in zip(reversed(layers[:-1]), reversed(layers[1:]), strict=True):
        injected = tap_gradient(before.tap, into.gradient)
        if before.pooled:
            device.conv3x3_input_gradient(
                b.gradient, layer.filters, out=into.pooled_gradient, mask=None, accumulate=False
            )
            device.pool_input_gradient(
                into.pooled_gradient,
                pooling=network.pooling,
                choice=into.choice,
                out=into.gradient,
                mask=into.mask,
                accumulate=injected,
            )
        else:
            device.conv3x3_input_gradient(
                b.gradient, layer.filters, out=into.gradient, mask=into.mask, accumulate=injected
            )
    layer, b = layers[0]
    device.conv3x3_input_gradient(b.gradient, layer.filters, out=buffers.input_gradient, mask=None, accumulate=False)
    p = network.preprocessing
    device.preprocess_gradient(buffers.input_gradient, p.channels, [p.scale / std for std in p.std], out)
