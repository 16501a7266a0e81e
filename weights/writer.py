"""Writes weights to a file as the official ones are laid out, whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WeightsError
from .model import CUSTOM, Convolution, Preprocessing


def write_canonical(
    path: Path, convolutions: Sequence[Convolution], preprocessing: Preprocessing, *, half: bool = False
) -> None:
    """Writes the official layout: `layer_names`, a group per layer with `weight_names`, kernels in HWIO."""
    import h5py

    from .reader import PREPROCESSING_ATTRIBUTE, PREPROCESSING_NUMBERS, read_weights_file

    stored = [(convolution, *_stored_as(convolution, half)) for convolution in convolutions]
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
