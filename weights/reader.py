"""Reads and checks one weights file: from a path to convolutions in the engine's form, or one clear line.

The only place where a bad file's many ways of failing become `WeightsError`. How layouts differ is left to
`layouts`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import WeightsError
from .formats.foreign import read_foreign
from .formats.tensors import guess_at, published_preprocessing
from .hdf5 import access as hdf5
from .keras import archive
from .keras.architecture import places
from .keras.layouts import stored_chain
from .keras.shards import refuse_one_of_several, shards_of
from .keras.stored import StoredChain, StoredConvolution, StoredNormalization
from .model import CUSTOM, PREPROCESSINGS, Convolution, Preprocessing
from .shortage import is_shortage

PREPROCESSING_ATTRIBUTE = "nstgpu_preprocessing"
"""Of the root: the name of the preprocessing that belongs to the weights, in files that `convert` wrote."""
PREPROCESSING_NUMBERS = "nstgpu_preprocessing_numbers"
"""The numbers of one that has no name of its own: three channels, the scale, three means, three deviations."""
MAX_CHANNELS = 4096
MAX_CONVOLUTIONS = 64
MAX_MESSAGE = 400
_OF_TORCHVISION = re.compile(r"vgg(11|13|16|19)(_bn)?-[0-9a-f]{8}\.pth")
"""As torchvision calls the files it downloads."""


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A convolution, and how the file stored it."""

    name: str
    precision: str
    """The stored numbers' format: "float16", "float32", "float64" or "bfloat16"."""
    convolution: Convolution


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """A file's convolutions in order from the image, and its layout in words."""

    layout: str
    layers: tuple[StoredLayer, ...]
    preprocessing: Preprocessing | None
    """Where the file says so."""
    notes: tuple[str, ...] = ()
    """What was left out or folded into the convolutions."""
    guesses: tuple[str, ...] = ()
    """What the file does not say and was taken for granted."""

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        return tuple(layer.convolution for layer in self.layers)


def read_weights_file(path: Path, *, theano: bool | None = None, any_preprocessing: bool = False) -> StoredWeights:
    """All convolutions of the file at `path`, as float32 (3, 3, C_in, C_out), read-only.

    It is HDF5, `.keras`, a `.weights.json` with its shards, or what `foreign` reads, which shows in its first bytes,
    whatever its suffix.
    `theano` overrides what the file and its name say about kernels rotated by 180°. With `any_preprocessing` it does
    not matter that the file's own cannot be told. Raises `WeightsError`, one line that names the file, for anything
    unusable.
    """
    with _one_line_errors(path):
        if (foreign := _foreign(path)) is not None:
            return replace(foreign, guesses=()) if any_preprocessing else foreign
        with _opened(path) as (files, config):
            chain = stored_chain(files, config)
            preprocessing = _preprocessing(files[0]) or chain.preprocessing
            if preprocessing is None and chain.front_problem is not None and not any_preprocessing:
                raise WeightsError(chain.front_problem)
            if theano is None and (chain.theano or "th_kernels" in path.name):
                theano = True
            read = _read(chain, theano, preprocessing)
            if chain.order is None or chain.preprocessing is None or any_preprocessing:
                return read
            published = published_preprocessing(read.layers[0].convolution.kernel)
            if published is not None:
                return replace(read, preprocessing=published)
            guess = guess_at(chain.preprocessing, "files of its kind mostly take it")
            return replace(read, guesses=(*read.guesses, guess))


def _foreign(path: Path) -> StoredWeights | None:
    """What another program than Keras wrote; None where Keras did, and where no file can be opened."""
    if not path.is_file() or not os.access(path, os.R_OK) or h5py.is_hdf5(path) or shards_of(path) is not None:
        return None
    found = read_foreign(path)
    if found is None:
        return None
    layers = tuple(StoredLayer(*layer) for layer in found.layers)
    guesses = () if found.guess is None or _OF_TORCHVISION.fullmatch(path.name) else (found.guess,)
    return StoredWeights(found.layout, layers, found.preprocessing, guesses=guesses)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise WeightsError(_one_line(f"{path}: {error}")) from error
    except Exception as error:
        if is_shortage(error):
            raise MemoryError(f"reading {path}") from error
        # A damaged file can fail anywhere inside HDF5, zlib or the JSON parser, each with its own exceptions.
        reason = str(error) or type(error).__name__
        raise WeightsError(_one_line(f"{path}: damaged, or no weights file ({reason}); fetch it again")) from error


def _one_line(message: str) -> str:
    # Names out of a hostile file may hold line breaks or terminal codes, or be endless.
    line = "".join(character if character.isprintable() else " " for character in message)
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[h5py.File], Any]]:
    """The HDF5 file at `path`, or inside the archive there, or the shards listed there; and the archive's model
    configuration or None."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            kind = "a directory" if path.is_dir() else "no plain file"
            raise WeightsError(f"{kind}; give the weights file itself")
        with path.open("rb") as stream:
            start = stream.read(8)
    except FileNotFoundError:
        raise WeightsError("no such file; give the path of a weights file, or mini, vgg19, vgg16 or random:0") from None
    except OSError as error:
        raise WeightsError(f"cannot be opened ({error.strerror}); check its permissions") from error
    if start.startswith(archive.SIGNATURE):
        with archive.unpacked(path) as (weights, config), hdf5.open_hdf5(weights) as file:
            yield [file], config
    elif start == hdf5.SIGNATURE or h5py.is_hdf5(path):
        refuse_one_of_several(path)
        with hdf5.open_hdf5(path) as file:
            yield [file], None
    elif start.lstrip()[:1] == b"{" and (shards := shards_of(path)) is not None:
        with ExitStack() as stack:
            yield [stack.enter_context(hdf5.open_hdf5(shard)) for shard in shards], None
    else:
        raise WeightsError("neither HDF5 nor a .keras archive; give a weights file as Keras saves it")


def _preprocessing(file: h5py.File) -> Preprocessing | None:
    name = hdf5.text(file, PREPROCESSING_ATTRIBUTE)
    if name == CUSTOM:
        stored = np.zeros(0)
        if PREPROCESSING_NUMBERS in file.attrs and file.attrs.get_id(PREPROCESSING_NUMBERS).shape == (10,):
            stored = np.asarray(file.attrs[PREPROCESSING_NUMBERS], np.float64)
        if stored.shape != (10,) or sorted(stored[:3]) != [0, 1, 2] or not np.isfinite(stored).all() or 0 in stored[7:]:
            raise WeightsError("the numbers of its preprocessing are damaged; convert it again from the original")
        r, g, b, scale, *rest = stored.tolist()
        m0, m1, m2, s0, s1, s2 = rest
        return Preprocessing(CUSTOM, (int(r), int(g), int(b)), scale, (m0, m1, m2), (s0, s1, s2))
    if name is not None and name not in PREPROCESSINGS:
        raise WeightsError(
            f"its preprocessing {name!r} is none of {', '.join(PREPROCESSINGS)}; convert it again from the original"
        )
    return None if name is None else PREPROCESSINGS[name]


def _read(chain: StoredChain, theano: bool | None, preprocessing: Preprocessing | None) -> StoredWeights:
    stored = chain.convolutions
    if not stored:
        raise WeightsError("holds no 2D convolution; use a VGG-16 or VGG-19 weights file")
    if len(stored) > MAX_CONVOLUTIONS:
        raise WeightsError(f"not VGG-like: it holds {len(stored)} convolutions; use a VGG-16 or VGG-19 weights file")
    if chain.order is not None and theano is None:
        theano = False
    order = chain.order or _kernel_order(stored, theano)
    widths = _check_channels(stored, order)
    where = places([convolution.name for convolution in stored], widths, chain.blocks, chain.pool_count)

    layers = []
    for convolution, place in zip(stored, where, strict=True):
        kernel = hdf5.read_float32(convolution.kernel)
        if order == "OIWH":
            kernel = kernel.transpose(3, 2, 1, 0)
        if theano:
            kernel = kernel[:, :, ::-1, ::-1] if order == "OIHW" else kernel[::-1, ::-1]
        if order == "OIHW":
            kernel = kernel.transpose(2, 3, 1, 0)
        bias = _bias(convolution, kernel.shape[-1])
        if convolution.normalization is not None:
            kernel, bias = _folded(kernel, bias, convolution.normalization)
        kernel = np.ascontiguousarray(kernel)
        for array in (kernel, bias):
            array.setflags(write=False)
        checked = Convolution(place.block, place.index, kernel, bias)
        layers.append(StoredLayer(convolution.name, hdf5.precision(convolution.kernel), checked))
    notes = [order] * (order != "HWIO") + ["rotated by 180° as in Theano"] * bool(theano)
    layout = ", ".join([chain.layout, *notes])
    said = (tuple(map(_one_line, words)) for words in (chain.notes, chain.guesses))
    return StoredWeights(layout, tuple(layers), preprocessing, *said)


def _bias(convolution: StoredConvolution, width: int) -> NDArray[np.float32]:
    if convolution.bias is None:
        return np.zeros(width, np.float32)
    return hdf5.read_float32(convolution.bias).reshape(width)


def _folded(
    kernel: NDArray[np.float32], bias: NDArray[np.float32], normalization: StoredNormalization
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias of the convolution that gives what the batch normalization behind (kernel, bias) gives.

    gamma (conv(x) + bias - mean) / sqrt(variance + epsilon) + beta, linear in x.
    """
    width = kernel.shape[-1]
    numbers = {}
    for role in ("gamma", "beta", "mean", "variance"):
        data = getattr(normalization, role)
        if data is None:
            numbers[role] = np.full(width, float(role == "gamma"))
            continue
        if data.size != width:
            raise WeightsError(
                f"its layer {normalization.name!r} normalizes {data.size} channels, but {width} come to it; "
                "use a VGG-16 or VGG-19 weights file"
            )
        numbers[role] = hdf5.read_float32(data).reshape(width).astype(np.float64)
    spread = numbers["variance"] + normalization.epsilon
    if not (spread > 0).all():
        raise WeightsError(f"its layer {normalization.name!r} has variances of zero or less; save it again")
    gain = numbers["gamma"] / np.sqrt(spread)
    with np.errstate(over="ignore"):
        folded = (kernel * gain).astype(np.float32)
        shifted = ((bias - numbers["mean"]) * gain + numbers["beta"]).astype(np.float32)
    if not (np.isfinite(folded).all() and np.isfinite(shifted).all()):
        raise WeightsError(f"its layer {normalization.name!r} normalizes to numbers beyond float32; save it again")
    return folded, shifted


def _kernel_order(stored: Sequence[StoredConvolution], theano: bool | None) -> str:
    """The order, "HWIO" or "OIHW", that makes every kernel 3x3; where both do, the one `theano` goes with."""
    shapes = [convolution.kernel.shape for convolution in stored]
    spatial = {"HWIO": slice(0, 2), "OIHW": slice(2, 4)}
    for order in ("OIHW", "HWIO") if theano else ("HWIO", "OIHW"):
        if all(shape[spatial[order]] == (3, 3) for shape in shapes):
            if order == "OIHW" and theano is None:
                raise WeightsError(
                    "its kernels are stored (C_out, C_in, 3, 3), and whether they are rotated by 180° cannot "
                    "be seen: use nstgpu weights convert with --theano if Theano wrote them, else with --no-theano "
                    "(in Python, theano=True or theano=False)"
                )
            return order
    odd = next((i for i, shape in enumerate(shapes) if (3, 3) not in (shape[:2], shape[2:])), 0)
    raise WeightsError(
        f"not VGG-like: the kernel of its layer {stored[odd].name!r} has shape {shapes[odd]}, not 3x3; "
        "use a VGG-16 or VGG-19 weights file"
    )


def _check_channels(stored: Sequence[StoredConvolution], order: str) -> list[int]:
    """Every convolution's output channels, once they are seen to chain; looks at shapes only."""
    channels, source, numbers = 3, "an RGB image", 0
    widths = []
    for convolution in stored:
        shape = convolution.kernel.shape
        if len(shape) != 4 or (shape[:2] if order == "HWIO" else shape[2:]) != (3, 3):
            raise WeightsError(f"not VGG-like: the kernel of its layer {convolution.name!r} has shape {shape}, not 3x3")
        takes, gives = (shape[2], shape[3]) if order == "HWIO" else (shape[1], shape[0])
        if takes != channels:
            raise WeightsError(
                f"its layer {convolution.name!r} takes {takes} channels, but {source} gives {channels}; "
                "use a file that holds a whole VGG, or its first layers with none left out"
            )
        if not 0 < gives <= MAX_CHANNELS:
            raise WeightsError(f"its layer {convolution.name!r} gives {gives:,} channels, which no VGG does")
        bias = convolution.bias
        if bias is not None and (bias.size != gives or (order != "OIWH" and bias.shape != (gives,))):
            raise WeightsError(
                f"the bias of its layer {convolution.name!r} has shape {bias.shape}, "
                f"not ({gives},); use a VGG-16 or VGG-19 weights file"
            )
        numbers += 9 * takes * gives
        if numbers > hdf5.MAX_VALUES:
            raise WeightsError(f"declares over {hdf5.MAX_VALUES:,} numbers in its kernels: too many for a VGG")
        channels, source = gives, repr(convolution.name)
        widths.append(gives)
    return widths
