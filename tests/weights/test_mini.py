"""The bundled model: what it is, that it is small, and that it sees as VGG-19 sees."""

from pathlib import Path

import numpy as np

from nstgpu.engine.imaging import files as images
from nstgpu.engine.memory.arena import Buffer, allocate
from nstgpu.engine.model import network
from nstgpu.kernels import open_device
from nstgpu.weights import Weights, inspect, load_weights
from nstgpu.weights.official.store import BUNDLED_FILE

MOST_BYTES = 2_500_000


def test_it_is_small_and_laid_out_as_the_official_files() -> None:
    assert BUNDLED_FILE.stat().st_size <= MOST_BYTES
    inspection = inspect("mini")
    assert [layer.name for layer in inspection.layers] == [
        *(f"block{block}_conv{index}" for block, depth in ((1, 2), (2, 2), (3, 4)) for index in range(1, depth + 1))
    ]
    assert {layer.precision for layer in inspection.layers} == {"float16"}
    assert inspection.preprocessing == "caffe"


def test_its_widths_suit_tensor_cores() -> None:
    weights = load_weights("mini")
    assert weights.name == "mini"
    assert weights.taps == (
        "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    )  # fmt: skip
    assert all(convolution.bias.size % 16 == 0 for convolution in weights.convolutions)


def activations(weights: Weights, image: np.ndarray) -> dict[str, np.ndarray]:
    device = open_device("cpu", threads=1)
    net = network.build(device, weights, weights.taps[-1], "max")
    buffers = network.reserve(device, net, image.shape[:2], set(weights.taps), backward=False)
    (held,) = allocate(device, [Buffer("image", image.shape, device.image_dtype, 0, 0)]).values()
    device.upload(image, held)
    network.forward(device, net, buffers, held)
    return {layer.tap: device.download(b.output) for layer, b in zip(net.layers, buffers.layers, strict=True)}


def test_the_teacher_follows_linearly_from_it(shared_data: Path) -> None:
    """On a picture it was not trained on: of every layer's energy, what the best linear map leaves over."""
    teacher = load_weights(shared_data / "weights" / "vgg19_blocks1to3.h5")
    image = images.read(shared_data / "images" / "content" / "tubingen.jpg").pixels[100:356, 200:456]
    seen, true = activations(load_weights("mini"), image), activations(teacher, image)
    for tap, most in zip(seen, (0.01, 0.03, 0.06, 0.08, 0.1, 0.1, 0.05, 0.08), strict=True):
        own, target = (values[tap].reshape(-1, values[tap].shape[2]).astype(np.float64) for values in (seen, true))
        linear = np.linalg.lstsq(own, target, rcond=None)[0]
        left = np.sum(np.square(target - own @ linear)) / np.sum(np.square(target))
        assert left <= most, tap
