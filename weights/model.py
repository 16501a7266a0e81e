"""What a loaded VGG is: its convolutions in order, and the preprocessing that belongs to them.

Only the immutable result lives here; reading files is left to the other modules of this package.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class WeightsGuess(UserWarning):
    """Something that a weights file does not say was taken for granted."""


@dataclass(frozen=True)
class Preprocessing:
    """Maps an RGB image in [0, 1] to the network's input: x = (image[..., channels] * scale - mean) / std.

    `channels` indexes RGB: (2, 1, 0) makes BGR. `scale`, `mean` and `std` are in the network's units.
    """

    name: str
    channels: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CAFFE = Preprocessing("caffe", (2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
TORCHVISION = Preprocessing("torchvision", (0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CUSTOM = "custom"
"""Name of any other preprocessing, read from a model's own layers."""
UNIT = Preprocessing("unit", (0, 1, 2), 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SIGNED = Preprocessing("tf", (0, 1, 2), 2.0, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
"""RGB from -1 to 1; Keras's own name for it is "tf"."""
MATCONVNET = Preprocessing("matconvnet", (0, 1, 2), 255.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
"""Of Caffe's networks where the first kernels were turned to RGB: MatConvNet's, the classic .npz of VGG-16."""
PREPROCESSINGS = {one.name: one for one in (CAFFE, TORCHVISION, UNIT, SIGNED, MATCONVNET)}


@dataclass(frozen=True, eq=False)
class Convolution:
    """One 3x3 convolution: `kernel` (3, 3, C_in, C_out) and `bias` (C_out,), float32, read-only."""

    block: int
    """1-based; a 2x2 pool stands between one block and the next."""
    index: int
    """1-based within the block."""
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"<Convolution {self.tap}: {self.kernel.shape[2]} -> {self.kernel.shape[3]} channels>"

    @property
    def tap(self) -> str:
        """Canonical name of this layer's activation after its ReLU, such as "relu4_2"."""
        return f"relu{self.block}_{self.index}"


@dataclass(frozen=True, eq=False)
class Weights:
    """A VGG-like chain of 3x3 convolutions, whole or truncated, of any widths."""

    name: str
    """As a person would say it: "vgg19_blocks1to3.h5", "mini", "random:0"."""
    layout: str
    """How the file stored it, in words; "generated" when there was no file."""
    convolutions: tuple[Convolution, ...]
    preprocessing: Preprocessing
    checksum: str
    """SHA-256 (hex) over every kernel's and bias's float32 little-endian bytes, in order: the same numbers
    have the same checksum, whatever file they came from."""

    def __repr__(self) -> str:
        reach = (
            f"{len(self.convolutions)} layer{'s' * (len(self.convolutions) != 1)} to {self.taps[-1]}"
            if self.convolutions
            else "no layers"
        )
        return f"<Weights {self.name!r}: {reach}, {self.preprocessing.name}, sha256 {self.checksum[:12]}>"

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of all activations that can be tapped, in order from the image."""
        return tuple(convolution.tap for convolution in self.convolutions)
