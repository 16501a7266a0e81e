"""What a weights file stores, before it is known to be a VGG: layers with their arrays, and the chain made of them.

Finding them in a file is left to `layouts`, choosing the chain to `chain`, reading the numbers to `reader`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import h5py

from ..errors import WeightsError
from ..hdf5 import access as hdf5
from ..model import Preprocessing
from . import front

NAME_THEM = "name its layers block1_conv1, block1_conv2, … and save it again"
SAVE_WHOLE = "save the whole model as .keras"
FRONT = frozenset({"rescaling", "normalization", "lambda", "operation"})
"""Kinds that stand before the first convolution."""
_ROLES = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",  # Keras 1 calls it so
}


@dataclass(frozen=True)
class StoredNormalization:
    """A batch normalization's datasets, each per channel, and its epsilon."""

    name: str
    gamma: h5py.Dataset | None
    beta: h5py.Dataset | None
    mean: h5py.Dataset
    variance: h5py.Dataset
    epsilon: float


@dataclass(frozen=True)
class StoredConvolution:
    """A convolution's datasets, the layer's name in the file, and what normalizes its result before the ReLU."""

    name: str
    kernel: h5py.Dataset
    bias: h5py.Dataset | None
    normalization: StoredNormalization | None = None


@dataclass(frozen=True)
class StoredChain:
    """A file's convolutions in order from the image, and what else it tells about them."""

    layout: str
    """In words."""
    convolutions: tuple[StoredConvolution, ...]
    blocks: tuple[int, ...] | None = None
    """The 1-based block of each convolution, where the file's list of layers tells its pooling."""
    pool_count: int | None = None
    """How many pooling layers the model has, where the file tells that much."""
    theano: bool = False
    """Whether the file says that Theano wrote its kernels."""
    order: str | None = None
    """The order of a kernel's axes where the layout settles it, such as "OIHW"."""
    preprocessing: Preprocessing | None = None
    """Where the file says so."""
    front_problem: str | None = None
    """Why the preprocessing can't be told, unless the user tells it."""
    notes: tuple[str, ...] = ()
    """What was left out or folded in."""
    guesses: tuple[str, ...] = ()
    """What the file does not say and was taken for granted: the user is to know."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A layer as a file stores it; `arrays` by role, none for a layer without weights."""

    name: str
    kind: str
    """"convolution", "batch normalization", "dense", "pool", "activation", "input scaling", or the file's own word."""
    arrays: dict[str, h5py.Dataset]
    group: str = ""
    """Where Keras 3 stores its variables."""
    container: str = ""
    """The nested model that it lies in, as far as the file tells."""

    @property
    def is_convolution(self) -> bool:
        return self.kind == "convolution"

    @property
    def is_3x3(self) -> bool:
        shape = self.arrays["kernel"].shape
        return (3, 3) in (shape[:2], shape[2:])


def role_of(weight_name: str) -> str:
    """What an array is to its layer, by its name: "kernel" of "vgg19/block1_conv1/kernel:0" or "block1_conv1_W_1:0"."""
    last = re.sub(r":\d+$", "", weight_name.rpartition("/")[2])
    flat = re.search(r"(?:^|_)(W|b|gamma|beta|running_mean|running_std)(?:_\d+)?$", last)
    role = flat[1] if flat else last
    return _ROLES.get(role, role)


def entry_of(name: str, arrays: dict[str, h5py.Dataset], container: str = "") -> Entry:
    """A layer whose kind shows in its arrays alone; `WeightsError` for what no chain can leave out unseen."""
    if any(role.startswith("lora_") for role in arrays) and _rank(arrays.get("kernel")) == 4:
        raise WeightsError(
            f"its layer {name!r} has LoRA's arrays beside its kernel; save the model as .keras, which merges them"
        )
    if {"moving_mean", "moving_variance"} <= arrays.keys():
        return Entry(name, "batch normalization", arrays, container=container)
    if {"mean", "variance"} <= arrays.keys():
        return Entry(name, "normalization", arrays, container=container)
    kernels = [data for data in arrays.values() if _rank(data) > 1]
    named = arrays.get("kernel", kernels[0] if kernels else None)
    rank = _rank(named)
    if named is None:
        return Entry(name, "vectors", arrays, container=container)
    if rank == 4 and len(kernels) == 1 and all(_rank(data) == 1 for data in arrays.values() if data is not named):
        rest = [data for data in arrays.values() if data is not named]
        if len(rest) <= 1 and "depthwise" not in name and "transpose" not in name:
            bias = {"bias": rest[0]} if rest else {}
            return Entry(name, "convolution", {"kernel": named} | bias, container=container)
    if rank == 2:
        return Entry(name, "dense", arrays, container=container)
    return Entry(name, "unknown", arrays, container=container)


def ranks(entry: Entry) -> list[int]:
    """The number of axes of each of its arrays."""
    return [_rank(data) for data in entry.arrays.values()]


def normalization_of(
    entry: Entry, epsilon: float, *, scale: bool | None = None, center: bool | None = None
) -> StoredNormalization:
    """A batch normalization's arrays by their names or, numbered as Keras 3 stores them, by their order.

    `scale` and `center` say whether it has a gamma and a beta, where that is known. Raises `WeightsError` where it
    cannot be told.
    """
    arrays = entry.arrays
    if "moving_mean" in arrays:
        return StoredNormalization(
            entry.name,
            arrays.get("gamma"),
            arrays.get("beta"),
            arrays["moving_mean"],
            arrays["moving_variance"],
            epsilon,
        )
    held = [arrays[key] for key in sorted(arrays, key=int)]
    wanted = 4 if scale is None and center is None else 2 + bool(scale) + bool(center)
    if scale is None and len(held) in (2, 4):
        scale = center = len(held) == 4
        wanted = len(held)
    if len(held) != wanted:
        raise WeightsError(
            f"its layer {entry.name!r} normalizes with {len(held)} arrays, and which they are cannot be told; "
            "save the whole model as .keras, which says so"
        )
    gamma = held.pop(0) if scale else None
    beta = held.pop(0) if center else None
    return StoredNormalization(entry.name, gamma, beta, held[0], held[1], epsilon)


def some_of(names: Sequence[str]) -> str:
    """Names in words, the first few."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rank(data: h5py.Dataset | None) -> int:
    return 0 if data is None else len(data.shape or ())


def vector(data: h5py.Dataset) -> list[float]:
    """A dataset's numbers, flat; `WeightsError` for more than a picture's channels could need."""
    if data.size is None or data.size > 16:
        raise WeightsError(f"{data.name!r} holds {data.size} numbers for the channels of a picture; save it again")
    return [float(number) for number in hdf5.read_float32(data).ravel()]


@dataclass(frozen=True)
class Listing:
    """A file's layers as it stores them."""

    layout: str
    entries: tuple[Entry, ...]
    order_told: bool
    """Whether they come in the model's order (those of a nested model aside)."""
    numbered: bool
    """Keras 3's numbered groups, which tell a layer's kind and, without a configuration, no order between kinds."""
    theano: bool = False
    as_written: bool = False
    """Whether numbered groups come in the order in which they were written."""
    remedy: str = SAVE_WHOLE
    """What makes a file of which everything can be told: not what was just done."""


def convolution_of(entry: Entry, normalization: StoredNormalization | None) -> StoredConvolution:
    return StoredConvolution(entry.name, entry.arrays["kernel"], entry.arrays.get("bias"), normalization)


def notes_on(listing: Listing, used: Iterable[str], convolutions: Sequence[StoredConvolution]) -> tuple[str, ...]:
    notes = []
    taken = set(used)
    left = [entry for entry in listing.entries if entry.arrays and entry.name not in taken and entry.kind not in FRONT]
    if left:
        notes.append(f"left out: {some_of([entry.name for entry in left])}")
    folded = [one.normalization for one in convolutions if one.normalization is not None]
    if folded:
        notes.append(f"batch normalization folded into {len(folded)} convolutions (epsilon {folded[0].epsilon:g})")
    without = sum(one.bias is None for one in convolutions)
    if without:
        notes.append(f"{without} convolutions have no bias: zeros")
    return tuple(notes)


def nested(entries: Sequence[Entry]) -> bool:
    """Whether several of them lie in one nested model of a list of layers, frozen ones behind the others."""
    inside = [entry.container for entry in entries if entry.container and not entry.group]
    return len(inside) > len(set(inside))


def gain_and_offset(one: StoredNormalization) -> tuple[list[float], list[float]]:
    mean, variance = vector(one.mean), vector(one.variance)
    gamma = vector(one.gamma) if one.gamma is not None else [1.0] * len(mean)
    beta = vector(one.beta) if one.beta is not None else [0.0] * len(mean)
    gain = [g / (v + one.epsilon) ** 0.5 for g, v in zip(gamma, variance, strict=True)]
    return gain, [b - m * g for b, m, g in zip(beta, mean, gain, strict=True)]


def mean_and_variance(entry: Entry) -> tuple[list[float], list[float]]:
    arrays = entry.arrays
    mean, variance = ("mean", "variance") if "mean" in arrays else ("0", "1")
    return front.normalization(vector(arrays[mean]), vector(arrays[variance]))
