"""Receptive fields against brute force: change every pixel, see which units change."""

from collections.abc import Callable

import numpy as np
import pytest

from nstgpu.engine.model import network
from nstgpu.engine.model.receptive_field import ReceptiveField, Window, receptive_fields
from nstgpu.kernels import open_device
from nstgpu.kernels.device import Pooling
from nstgpu.weights import Convolution, Weights
from nstgpu.weights.keras.architecture import VGG19
from nstgpu.weights.model import TORCHVISION

Thin = Callable[..., Weights]


def positive(weights: Weights) -> Weights:
    """The same network with positive filters: whatever a unit sees has an influence on it, and none cancels."""
    convolutions = tuple(
        Convolution(c.block, c.index, np.abs(c.kernel) + np.float32(0.01), np.abs(c.bias)) for c in weights.convolutions
    )
    return Weights("positive", "generated", convolutions, TORCHVISION, weights.checksum)


# Odd sizes throughout, so that the pools leave rows out; one size small enough for fields to be cut on all sides.
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("size", [(15, 11), (7, 23)])
def test_field_is_exactly_what_has_an_influence(thin: Thin, size: tuple[int, int], pooling: Pooling) -> None:
    weights = positive(thin([[2, 2], [2], [2, 2]]))
    device = open_device("reference")
    net = network.build(device, weights, weights.taps[-1], pooling)
    buffers = network.reserve(device, net, size, weights.taps, backward=False)
    fields = receptive_fields(weights)
    image = np.random.default_rng(0).random((*size, 3))

    def activations(image: np.ndarray) -> dict[str, np.ndarray]:
        network.forward(device, net, buffers, image)
        layers = zip(net.layers, buffers.layers, strict=True)
        return {layer.tap: b.output.copy() for layer, b in layers if b.output is not None}

    before = activations(image)
    seen = {tap: np.zeros((*values.shape[:2], *size), bool) for tap, values in before.items()}
    for row, column in np.ndindex(size):
        changed = image.copy()
        changed[row, column] += 1e3  # large enough to be any max
        for tap, values in activations(changed).items():
            seen[tap][..., row, column] = (values != before[tap]).any(axis=2)

    assert set(seen) == set(fields)
    for tap, influences in seen.items():
        for row, column in np.ndindex(influences.shape[:2]):
            window = fields[tap].window(row, column).clipped(*size)
            expected = np.zeros(size, bool)
            expected[window.top : window.bottom, window.left : window.right] = True
            np.testing.assert_array_equal(influences[row, column], expected, err_msg=f"{tap} at {row}, {column}")


def test_fields_of_vgg19(thin: Thin) -> None:
    """The sizes in the literature."""
    fields = receptive_fields(thin([[1] * depth for depth in VGG19]))
    sizes = {tap: field.size for tap, field in fields.items()}
    assert sizes == {
        "relu1_1": 3, "relu1_2": 5, "relu2_1": 10, "relu2_2": 14,
        "relu3_1": 24, "relu3_2": 32, "relu3_3": 40, "relu3_4": 48,
        "relu4_1": 68, "relu4_2": 84, "relu4_3": 100, "relu4_4": 116,
        "relu5_1": 156, "relu5_2": 188, "relu5_3": 220, "relu5_4": 252,
    }  # fmt: skip
    assert [fields[f"relu{block}_1"].stride for block in range(1, 6)] == [1, 2, 4, 8, 16]


def test_window_is_cut_at_the_border() -> None:
    field = ReceptiveField(size=10, stride=2, margin=4)
    assert field.window(0, 5) == Window(-4, 6, 6, 16)
    assert field.window(0, 5).clipped(20, 13) == Window(0, 6, 6, 13)
