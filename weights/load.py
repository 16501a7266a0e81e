"""`load_weights`: from what a person asked for (a file, "random:0") to the `Weights` the engine takes.

Holds the choice, the random network and the checksum; what stands inside a file is left to `reader`.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .architecture import VGG19
from .model import CAFFE, TORCHVISION, Convolution, Preprocessing, Weights, WeightsError

PREPROCESSINGS = {preprocessing.name: preprocessing for preprocessing in (CAFFE, TORCHVISION)}
VGG19_WIDTHS = (64, 128, 256, 512, 512)
NOT_YET = ("mini", "vgg19", "vgg16")


def load_weights(spec: str | Path, *, preprocessing: str | None = None, theano: bool | None = None) -> Weights:
    """The VGG-like network named by `spec`: a path to an HDF5 or `.keras` file, or "random:SEED".

    A file's kernels come back as float32 (3, 3, C_in, C_out), whatever layout and precision it stores; dense
    layers are left out. "random:SEED" has VGG-19's shapes, He-scaled normal kernels and zero biases, the same
    for the same seed.

    `preprocessing` is "caffe" (the default: BGR, 0..255, minus the mean) or "torchvision" (RGB, 0..1,
    standardised). `theano` says whether the file's kernels are rotated by 180°, as Theano stored them; None
    goes by what the file and its name tell. Raises `WeightsError`, one line, for anything unusable.
    """
    if preprocessing is not None and preprocessing not in PREPROCESSINGS:
        raise WeightsError(f"preprocessing {preprocessing!r} is not known; use one of {', '.join(PREPROCESSINGS)}")
    chosen = PREPROCESSINGS[preprocessing or CAFFE.name]
    if spec in NOT_YET:
        raise WeightsError(f"weights {spec!r} are not there yet; use random:0 or the path of a weights file")
    if isinstance(spec, str) and spec.startswith("random:"):
        return _random_vgg19(spec, chosen)

    from .reader import read_weights_file  # h5py is needed, and paid for, only here

    stored = read_weights_file(Path(spec), theano=theano)
    convolutions = tuple(layer.convolution for layer in stored.layers)
    return Weights(Path(spec).name, stored.layout, convolutions, chosen, checksum_of(convolutions))


def checksum_of(convolutions: Iterable[Convolution]) -> str:
    """SHA-256 (hex) as `Weights.checksum` documents it."""
    digest = hashlib.sha256()
    for convolution in convolutions:
        digest.update(convolution.kernel.astype("<f4", copy=False).data)
        digest.update(convolution.bias.astype("<f4", copy=False).data)
    return digest.hexdigest()


def _random_vgg19(spec: str, preprocessing: Preprocessing) -> Weights:
    seed = spec.removeprefix("random:")
    if not re.fullmatch(r"[0-9]{1,18}", seed):
        raise WeightsError(f"weights {spec!r}: the seed must be a whole number of at most 18 digits, as in random:0")
    generator = np.random.default_rng(int(seed))
    convolutions = []
    channels = 3
    for block, (width, depth) in enumerate(zip(VGG19_WIDTHS, VGG19, strict=True), start=1):
        for index in range(1, depth + 1):
            kernel = generator.standard_normal((3, 3, channels, width), dtype=np.float32)
            kernel *= np.float32(np.sqrt(2 / (9 * channels)))  # He et al. 2015: keeps the variance through a ReLU
            bias = np.zeros(width, np.float32)
            for array in (kernel, bias):
                array.setflags(write=False)
            convolutions.append(Convolution(block, index, kernel, bias))
            channels = width
    return Weights(spec, "generated", tuple(convolutions), preprocessing, checksum_of(convolutions))
