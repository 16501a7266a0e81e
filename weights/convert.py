"""`convert`: writes weights of any layout the way the official files are laid out, whole or cut, in float32 or float16.

Reading them is left to `load` and `reader`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WeightsError
from .keras.architecture import named_place
from .load import load_weights
from .model import CUSTOM, Convolution, Preprocessing, Weights

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


def write_canonical(
    path: Path, convolutions: Sequence[Convolution], preprocessing: Preprocessing, *, half: bool = False
) -> None:
    """Writes the official layout: `layer_names`, a group per layer with `weight_names`, kernels in HWIO."""
    import h5py

    from .reader import PREPROCESSING_ATTRIBUTE, PREPROCESSING_NUMBERS, read_weights_file

    stored = [(convolution, *_stored_as(convolution, half)) for convolution in convolutions]
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(part, "w", locking=False) as file:
            names: list[str] = []
            for previous, (convolution, kernel, bias) in zip([None, *convolutions], stored, strict=False):
                if previous is not None and previous.block != convolution.block:
                    pool = f"block{previous.block}_pool"
                    file.create_group(pool).attrs["weight_names"] = np.array([], "S1")
                    names.append(pool)
                name = f"block{convolution.block}_conv{convolution.index}"
                group = file.create_group(name)
                weight_names = [f"{name}_W_1:0", f"{name}_b_1:0"]
                group.attrs["weight_names"] = np.array(weight_names, "S")
                group[weight_names[0]], group[weight_names[1]] = kernel, bias
                names.append(name)
            file.attrs["layer_names"] = np.array(names, "S")
            file.attrs[PREPROCESSING_ATTRIBUTE] = np.bytes_(preprocessing.name)
            if preprocessing.name == CUSTOM:
                p = preprocessing
                file.attrs[PREPROCESSING_NUMBERS] = np.array([*p.channels, p.scale, *p.mean, *p.std], np.float64)
        _check_read_back(read_weights_file(part).convolutions, stored)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # HDF5 raises either when a disk is full
        raise OSError(f"{path}: cannot be written ({error}); check space and permissions there") from error
    finally:
        part.unlink(missing_ok=True)


def _check_destination(destination: Path, source: str | Path) -> None:
    from .store import file_of

    read = file_of(source)
    if destination.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{destination}: an HDF5 file is written; let its name end in {' or '.join(SUFFIXES)}")
    if "th_kernels" in destination.name:
        raise WeightsError(f"{destination}: th_kernels in a name marks Theano's files; choose another name")
    if not destination.parent.is_dir():
        raise WeightsError(f"{destination}: there is no folder {destination.parent}; make it first")
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


def _stored_as(convolution: Convolution, half: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    if not half:
        return convolution.kernel, convolution.bias
    with np.errstate(over="ignore"):  # becomes Inf, and is refused as such
        kernel, bias = convolution.kernel.astype(np.float16), convolution.bias.astype(np.float16)
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise WeightsError(f"{convolution.tap} has numbers beyond float16's 65504; leave out --half")
    return kernel, bias


def _check_read_back(
    read: Sequence[Convolution], stored: Sequence[tuple[Convolution, NDArray[Any], NDArray[Any]]]
) -> None:
    for found, (convolution, kernel, bias) in zip(read, stored, strict=True):
        same = (found.block, found.index) == (convolution.block, convolution.index)
        if not (same and np.array_equal(found.kernel, kernel) and np.array_equal(found.bias, bias)):
            raise OSError(f"{convolution.tap} does not read back as it was written")
