"""`inspect`: everything there is to say about a weights file, as plain values.

Printing is left to the command line.
"""

from dataclasses import dataclass
from pathlib import Path

from .load import checksum_of, chosen_preprocessing
from .model import CUSTOM, Preprocessing
from .official.catalogue import VGG19_LAYERS, VGG19_PLACES, md5_of, official_file, official_layers


@dataclass(frozen=True)
class LayerFacts:
    """One convolution of a weights file."""

    name: str
    """As the file calls it."""
    tap: str
    """Canonical name of its activation, such as "relu4_2"."""
    kernel_shape: tuple[int, ...]
    """(3, 3, C_in, C_out), whatever order the file stores."""
    precision: str
    """As stored: "float16", "float32", "float64" or "bfloat16"."""
    parameters: int
    """Numbers in kernel and bias."""


@dataclass(frozen=True)
class Inspection:
    """What a weights file holds."""

    path: str
    size: int
    """Bytes."""
    md5: str
    """Of the whole file (hex)."""
    layout: str
    """How the file stores the network, in words."""
    layers: tuple[LayerFacts, ...]
    preprocessing: str
    """Name of the preprocessing it is loaded with unless told otherwise."""
    notes: tuple[str, ...]
    """What was left out or folded in, and what the file does not say and was taken for granted."""
    checksum: str
    """`Weights.checksum`: the same numbers have the same, whatever file they came from."""
    official: str | None
    """The official file or layers it equals, in words."""


def inspect(spec: str | Path, *, preprocessing: str | None = None, theano: bool | None = None) -> Inspection:
    """Read and check a weights file and say what it holds.

    `spec` is its path, or "vgg19" or "vgg16" for a file that was fetched; `preprocessing` and `theano` as in
    `load_weights`. Raises `WeightsError`, one line, wherever `load_weights` would.
    """
    from .official.store import file_of
    from .reader import read_weights_file  # h5py is needed, and paid for, only here

    path = file_of(spec)
    stored = read_weights_file(path, theano=theano, any_preprocessing=preprocessing is not None)
    convolutions = stored.convolutions
    chosen = chosen_preprocessing(preprocessing, stored.preprocessing)
    size, md5 = path.stat().st_size, md5_of(path)
    official: str | None
    if (known := official_file(size, md5)) is not None:
        official = f"the official {known.model} file, {known.file_name}"
    else:
        official = _official_layers_in_words(official_layers(convolutions), len(convolutions))
    return Inspection(
        path=str(path),
        size=size,
        md5=md5,
        layout=stored.layout,
        layers=tuple(
            LayerFacts(
                layer.name,
                layer.convolution.tap,
                layer.convolution.kernel.shape,
                layer.precision,
                layer.convolution.kernel.size + layer.convolution.bias.size,
            )
            for layer in stored.layers
        ),
        preprocessing=chosen.name,
        notes=(*_numbers_of(chosen), *stored.notes, *stored.guesses),
        checksum=checksum_of(convolutions),
        official=official,
    )


def _numbers_of(preprocessing: Preprocessing) -> list[str]:
    """A preprocessing that has no name of its own, in words."""
    if preprocessing.name != CUSTOM:
        return []
    p = preprocessing
    order = "".join("RGB"[channel] for channel in p.channels)
    mean, std = (", ".join(f"{number:g}" for number in numbers) for numbers in (p.mean, p.std))
    return [f"preprocessing: ({order} 0..{p.scale:g} - ({mean})) / ({std})"]


def _official_layers_in_words(equal: int, total: int) -> str | None:
    if equal == 0:
        return None
    if equal == len(VGG19_LAYERS):
        return "all convolutions of official VGG-19"
    first, last = VGG19_PLACES[0].keras_name, VGG19_PLACES[equal - 1].keras_name
    layers = f"layers {first}..{last} equal" if equal > 1 else f"layer {first} equals"
    rest = "" if equal == total else f"; the other {total - equal} do not"
    return f"{layers} official VGG-19{rest}"
