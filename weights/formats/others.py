"""A VGG in HDF5 by other programs than Keras: torchvision's names, Caffe's snapshots, MatConvNet's models.

Each is read into the same chain of convolutions; access to the file is left to `hdf5`.
"""

import itertools
import re
from collections.abc import Sequence

import h5py
import numpy as np

from ..errors import WeightsError
from ..hdf5 import access as hdf5
from ..keras.architecture import Place, named_place
from ..keras.stored import StoredChain, StoredConvolution, StoredNormalization, some_of
from ..model import CAFFE, MATCONVNET, TORCHVISION, Preprocessing

TORCH_EPSILON = 1e-5
"""Of PyTorch's batch normalization."""
MAX_LAYERS = 1000


def chain_in(file: h5py.File) -> StoredChain | None:
    """The VGG in a file of one of these programs, or None for any other file."""
    return _torchvision(file) or _caffe(file) or _matconvnet(file)


def _torchvision(file: h5py.File) -> StoredChain | None:
    """`features.0.weight` and so on, or groups of those names; the numbers count ReLUs and pools too."""
    arrays = {name.replace("/", "."): data for name, data in _datasets(file)}
    numbers = sorted(
        {int(match[1]) for name in arrays if (match := re.fullmatch(r"features\.(\d{1,4})\.weight", name)) is not None}
    )
    if not numbers:
        return None
    convolutions: list[StoredConvolution] = []
    blocks: list[int] = []
    block, expected = 1, 0
    for number in numbers:
        weight = arrays[f"features.{number}.weight"]
        bias = arrays.get(f"features.{number}.bias")
        mean, variance = (arrays.get(f"features.{number}.running_{word}") for word in ("mean", "var"))
        if mean is not None and variance is not None:
            if not convolutions or number != expected - 1:
                raise WeightsError(f"not VGG-like: its features.{number} normalizes behind no convolution")
            last = convolutions.pop()
            folded = StoredNormalization(f"features.{number}", weight, bias, mean, variance, TORCH_EPSILON)
            convolutions.append(StoredConvolution(last.name, last.kernel, last.bias, folded))
            expected = number + 2  # a ReLU comes between
            continue
        if number == expected + 1:
            block += 1
        elif number != expected:
            raise WeightsError(f"not VGG-like: its features.{number} comes where features.{expected} should")
        convolutions.append(StoredConvolution(f"features.{number}", weight, bias))
        blocks.append(block)
        expected = number + 2
    return _chain("torchvision's names in HDF5 (features.0.weight)", convolutions, blocks, "OIHW", TORCHVISION)


def _caffe(file: h5py.File) -> StoredChain | None:
    """A snapshot: `data/conv1_1/0` is the kernel, `data/conv1_1/1` the bias."""
    root = hdf5.member(file, "data")
    if not isinstance(root, h5py.Group):
        return None
    found: dict[Place, StoredConvolution] = {}
    left = []
    for name in root:
        layer = hdf5.member(root, name)
        if not isinstance(layer, h5py.Group):
            continue
        kernel, bias = hdf5.dataset(layer, "0"), hdf5.dataset(layer, "1")
        if kernel is None:
            continue
        if (place := named_place(name)) is None or len(kernel.shape or ()) != 4 or kernel.shape[2:] != (3, 3):
            left.append(name)
        else:
            found[place] = StoredConvolution(name, kernel, bias)
    if not found:
        return None
    chain = [found[place] for place in sorted(found)]
    return _chain("Caffe's HDF5 (data/conv1_1/0)", chain, None, "OIHW", CAFFE, left)


def _matconvnet(file: h5py.File) -> StoredChain | None:
    """MATLAB 7.3: `layers` lists structs by reference; axes come in the opposite order, HWIO as (O, I, W, H)."""
    listed = hdf5.member(file, "layers")
    if not isinstance(listed, h5py.Dataset) or not _holds_references(listed):
        return None
    found: dict[Place, StoredConvolution] = {}
    left = []
    for layer in _referred(listed):
        if not isinstance(layer, h5py.Group):
            continue
        name = _matlab_text(layer)
        weights = hdf5.dataset(layer, "weights")
        if weights is not None and _holds_references(weights):
            arrays = [one for one in _referred(weights) if isinstance(one, h5py.Dataset)]
        else:  # in its first versions
            arrays = [one for word in ("filters", "biases") if (one := hdf5.dataset(layer, word)) is not None]
        if not arrays:
            continue
        place = named_place(name)
        if place is None or len(arrays) != 2 or (arrays[0].shape or ())[2:] != (3, 3):
            left.append(name)
        else:
            found[place] = StoredConvolution(name, *arrays)
    if not found:
        return None
    chain = [found[place] for place in sorted(found)]
    return _chain("MatConvNet's model (MATLAB 7.3)", chain, None, "OIWH", MATCONVNET, left)


def _chain(
    layout: str,
    convolutions: Sequence[StoredConvolution],
    blocks: Sequence[int] | None,
    order: str,
    preprocessing: Preprocessing,
    left: Sequence[str] = (),
) -> StoredChain:
    notes = [f"left out: {some_of(left)}"] if left else []
    folded = sum(one.normalization is not None for one in convolutions)
    if folded:
        notes.append(f"batch normalization folded into {folded} convolutions (epsilon {TORCH_EPSILON:g})")
    return StoredChain(
        layout,
        tuple(convolutions),
        None if blocks is None else tuple(blocks),
        order=order,
        preprocessing=preprocessing,
        notes=tuple(notes),
    )


def _datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    """The datasets of the features and their paths, whether dots or groups part the names."""
    pending: list[tuple[h5py.Group, str]] = [(file, "")]
    found: list[tuple[str, h5py.Dataset]] = []
    while pending:
        group, path = pending.pop()
        for name in itertools.islice(group, 10 * MAX_LAYERS):
            inner = path + name
            if not inner.startswith("features") or inner.count("/") > 2:
                continue
            one = hdf5.member(group, name)
            if isinstance(one, h5py.Group):
                pending.append((one, f"{inner}/"))
            elif (data := hdf5.dataset(group, name)) is not None:
                found.append((inner, data))
    return found


def _holds_references(data: h5py.Dataset) -> bool:
    return h5py.check_ref_dtype(data.dtype) is h5py.Reference and 0 < data.size <= MAX_LAYERS


def _referred(data: h5py.Dataset) -> list[h5py.Group | h5py.Dataset]:
    """What a dataset of references names, in order; all of it lies in the same file."""
    found = []
    for reference in np.ravel(data[...]):
        if not reference:
            raise WeightsError(f"a reference in its {data.name!r} leads nowhere; fetch the file again")
        one = data.file[reference]
        if isinstance(one, h5py.Dataset) and (one.external or one.is_virtual):
            raise WeightsError(f"{one.name!r} keeps its numbers in another file; save the weights into one file")
        found.append(one)
    return found


def _matlab_text(layer: h5py.Group) -> str:
    """A struct's name, which MATLAB stores as 16-bit characters."""
    data = hdf5.dataset(layer, "name")
    if data is None or data.dtype.kind != "u" or data.size > 100:
        return ""
    return "".join(map(chr, np.ravel(data[...])))
