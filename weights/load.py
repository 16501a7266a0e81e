"""`load_weights`: from what a person asked for (a file, "mini", "vgg19", "random:0") to the `Weights` the engine takes.

Holds the choice, the random network and the checksum; what stands inside a file is left to `reader`, and where fetched
files lie to `store`.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .errors import WeightsError
from .keras.architecture import VGG19
from .model import CAFFE, PREPROCESSINGS, Convolution, Preprocessing, Weights, WeightsGuess
from .official.catalogue import official_named

VGG19_WIDTHS = (64, 128, 256, 512, 512)


def load_weights(spec: str | Path, *, preprocessing: str | None = None, theano: bool | None = None) -> Weights:
    """The VGG-like network named by `spec`: "mini", "vgg19", "vgg16", "random:SEED", or the path of a file.

    "mini" is the bundled one (weights/mini.md); files are HDF5, `.keras`, or what `foreign` reads of PyTorch,
    safetensors, NumPy, Caffe and MatConvNet. "vgg19" and "vgg16" are the official files, once `fetch` has put them on
    this machine; they are verified each time. A file's kernels come back as float32 (3, 3, C_in, C_out), whatever
    layout and precision it stores; dense layers are left out. "random:SEED" has VGG-19's shapes, He-scaled normal
    kernels and zero biases, the same for the same seed.

    `preprocessing` is "caffe" (BGR, 0..255, minus the mean), "torchvision" (RGB, 0..1, standardised), "unit" (RGB,
    0..1), "tf" (RGB, -1..1) or "matconvnet" (RGB, 0..255, minus the mean); None goes by what the file says, its layers
    in front of the first convolution among it, and is "caffe" where it says nothing. What a file does not say and is
    taken for granted is warned of (`WeightsGuess`). `theano` says whether the file's kernels are rotated by
    180°, as Theano stored them; None goes by what the file and its name tell. Raises `WeightsError`, one line, for
    anything unusable.
    """
    chosen_preprocessing(preprocessing, None)  # refuses an unknown one before a file is read
    if isinstance(spec, str) and spec.startswith("random:"):
        return _random_vgg19(spec, chosen_preprocessing(preprocessing, None))

    from .official.store import BUNDLED, file_of
    from .reader import read_weights_file  # h5py is needed, and paid for, only here

    path = file_of(spec)
    stored = read_weights_file(path, theano=theano, any_preprocessing=preprocessing is not None)
    for guess in stored.guesses:
        warnings.warn(f"{path.name}: {guess}", WeightsGuess, stacklevel=2)
    return Weights(
        str(spec) if official_named(spec) or spec == BUNDLED else path.name,
        stored.layout,
        stored.convolutions,
        chosen_preprocessing(preprocessing, stored.preprocessing),
        checksum_of(stored.convolutions),
    )


def chosen_preprocessing(asked: str | None, stored: Preprocessing | None) -> Preprocessing:
    """The one asked for by name, else what the file says, else `CAFFE`; `WeightsError` for an unknown name."""
    if asked is None:
        return stored or CAFFE
    if asked not in PREPROCESSINGS:
        raise WeightsError(f"preprocessing {asked!r} is not known; use one of {', '.join(PREPROCESSINGS)}")
    return PREPROCESSINGS[asked]


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
