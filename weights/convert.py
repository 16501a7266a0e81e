"""`convert`: writes weights of any layout the way the official files are laid out, whole or cut, in float32 or float16.

Reading them is left to `load` and `reader`.
"""

import os
from pathlib import Path

from .errors import WeightsError
from .keras.architecture import named_place
from .load import load_weights
from .model import Convolution, Weights
from .writer import write_canonical

SUFFIXES = (".h5", ".hdf5")


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    half: bool = False,
    up_to: str | None = None,
    preprocessing: str | None = None,
    theano: bool | None = None,
) -> Weights:
    """Loads `source` as `load_weights` would and writes it to `destination`, which it returns as loaded from there.

    `half` rounds to float16. `up_to` is the last tap needed, such as "relu4_2"; what lies behind it is left out. The
    preprocessing is kept in the file. The input is never overwritten, and the file gets its name when it has been read
    back and found right. Raises `WeightsError`, one line.
    """
    destination = Path(destination)
    _check_destination(destination, source)
    weights = load_weights(source, preprocessing=preprocessing, theano=theano)
    convolutions = weights.convolutions if up_to is None else _first(weights, up_to)
    write_canonical(destination, convolutions, weights.preprocessing, half=half)
    return load_weights(destination)


def _check_destination(destination: Path, source: str | Path) -> None:
    from .official.store import file_of

    read = file_of(source)
    if destination.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{destination}: an HDF5 file is written; let its name end in {' or '.join(SUFFIXES)}")
    if "th_kernels" in destination.name:
        raise WeightsError(f"{destination}: th_kernels in a name marks Theano's files; choose another name")
    folder = next((one for one in destination.parents if os.path.lexists(one)), Path())
    if not folder.is_dir():
        raise WeightsError(f"{destination}: {folder} is no folder; choose another place")
    if destination.is_dir():
        raise WeightsError(f"{destination}: a directory; give the file to write")
    if destination.exists() and read.exists() and os.path.samefile(destination, read):
        raise WeightsError(f"{destination} is the input and would be overwritten; choose another name")


def _first(weights: Weights, up_to: str) -> tuple[Convolution, ...]:
    place = named_place(up_to)
    for count, convolution in enumerate(weights.convolutions, start=1):
        if place is not None and (convolution.block, convolution.index) == (place.block, place.index):
            return weights.convolutions[:count]
    raise WeightsError(f"{weights.name} has no layer {up_to!r}; it has {', '.join(weights.taps)}")
