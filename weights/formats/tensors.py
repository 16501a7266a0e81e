"""Named tensors, as other programs than Keras save a VGG: which are its convolutions, and in which order.

Whoever opens a file says what its tensors are called, how they are shaped, and how to read one; nothing is read before
all shapes are known to fit.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..keras.architecture import named_place, places
from ..model import CAFFE, MATCONVNET, TORCHVISION, Convolution, Preprocessing

MAX_CHANNELS = 4096
MAX_CONVOLUTIONS = 64
MAX_VALUES = 100_000_000
EPSILON = 1e-5
"""Of batch normalization, in PyTorch and Caffe alike; no file says it."""
NUMBER_TYPES = {"float16": "f2", "float32": "f4", "float64": "f8", "bfloat16": "u2"}
"""How the numbers of each precision lie in a file, as NumPy calls it, without the byte order."""
ROLES = {
    "weight": "weight",
    "kernel": "weight",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "variance",
}
_HEADS = re.compile(r"classifier|head|pre_logits|^fc|\.fc|dense|predictions|top|aux", re.IGNORECASE)
# The corners of the first kernel, for its first three outputs (rows: blue, green, red), of the networks as Simonyan and
# Zisserman published them, whatever file they are in.
_VGG16 = (
    (0.42947057, 0.11727387, 0.03401296),
    (0.55037946, 0.02087744, 0.09883115),
    (0.4800154, -0.17269668, 0.03755771),
)
_VGG19 = (
    (0.34119523, 0.09563112, 0.0177449),
    (0.46418372, 0.03355668, 0.10245045),
    (0.39416704, -0.08419707, -0.03631314),
)
_VGG19_BESIDE = (0.33999205, 0.13363543, 0.02129423)
"""Of VGG-19, blue, one column to the right of the corner: tells rows from columns."""


class Tensor(NamedTuple):
    """One array in a file."""

    shape: tuple[int, ...]
    precision: str
    """One of `NUMBER_TYPES`; any other is told of where such a tensor is needed, and is never read."""
    read: Callable[[], NDArray[Any]]
    """All its numbers in that shape, as any floating-point type."""


class NamedConvolution(NamedTuple):
    name: str
    precision: str
    convolution: Convolution


@dataclass(frozen=True, eq=False)
class ForeignWeights:
    """The convolutions of a file that Keras did not write, in order from the image."""

    layout: str
    layers: tuple[NamedConvolution, ...]
    preprocessing: Preprocessing
    guess: str | None = None
    """Why it was taken, where the numbers are none that were published."""


@dataclass(frozen=True)
class _Layer:
    name: str
    """As the file calls it, without what tells its tensors apart."""
    weight: str
    number: int
    """Where it stands, among its like."""


def decoded(data: bytes, precision: str, byte_order: str = "<") -> NDArray[Any]:
    """Numbers of a `precision`, as they lie in a file, as a flat array; bfloat16 as float32."""
    numbers = np.frombuffer(data, byte_order + NUMBER_TYPES[precision])
    if precision == "bfloat16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def chain(
    tensors: Mapping[str, Tensor], layout: str, preprocessing: Preprocessing | None, *, swapped: bool = False
) -> ForeignWeights:
    """The VGG among `tensors`, called like "features.0.weight" or "conv1_1.bias", as float32 (3, 3, C_in, C_out).

    Kernels may be stored (C_out, C_in, 3, 3) or (3, 3, C_in, C_out); a missing bias is zero; batch normalization is
    folded into the convolution before it. `preprocessing` is what such files are made for, None where only their names
    tell; the numbers tell where they are the published ones. `swapped` says that rows and columns may have changed
    places, and then VGG-19's numbers tell. Raises `WeightsError`.
    """
    roles = _by_role(tensors)
    found, where = _layers(tensors, roles)
    for layer in found:
        _check_precision(layer, tensors, roles)
    order = _order([tensors[layer.weight].shape for layer in found])
    norms = [_norm_of(layer, where, roles) for layer in found]
    widths = _checked_widths(found, order, tensors, roles)
    blocks = _blocks_by_number(found, norms) if where == "number" else None
    names = [layer.name.rpartition(".")[2] if where == "name" else layer.name for layer in found]
    named = [_place_name(name) or name for name in names]
    layers = []
    for layer, place, norm in zip(found, places(named, widths, blocks, None), norms, strict=True):
        kernel = _float64(tensors[layer.weight])
        kernel = kernel.transpose(2, 3, 1, 0) if order == "OIHW" else kernel
        bias_name = roles.get((layer.name, "bias"))
        bias = np.zeros(kernel.shape[3]) if bias_name is None else _float64(tensors[bias_name])
        if norm is not None:
            kernel, bias = _folded(kernel, bias.reshape(-1), norm, tensors, roles)
        convolution = Convolution(place.block, place.index, _float32(kernel, layer), _float32(bias.reshape(-1), layer))
        layers.append(NamedConvolution(layer.name, tensors[layer.weight].precision, convolution))
    if swapped and _is_swapped(layers[0].convolution.kernel):
        layers = [layer._replace(convolution=_turned(layer.convolution)) for layer in layers]
    folded = ", batch normalization folded in" if any(norm is not None for norm in norms) else ""
    first = layers[0].convolution.kernel
    if (published := published_preprocessing(first)) is not None:
        return ForeignWeights(layout + folded, tuple(layers), published)
    why = "files of its kind mostly take it"
    if preprocessing is None:
        preprocessing = _preprocessing_by_names(where, tensors)
        why = "its layers are called as in networks that take it"
    return ForeignWeights(layout + folded, tuple(layers), preprocessing, guess_at(preprocessing, why))


def guess_at(preprocessing: Preprocessing, why: str) -> str:
    """What a user is told of a preprocessing that nothing in the file says."""
    return (
        f"the file does not say which preprocessing it takes: {preprocessing.name} is used, since {why}; if the "
        "pictures look wrong, give another by --preprocessing"
    )


def _by_role(tensors: Mapping[str, Tensor]) -> dict[tuple[str, str], str]:
    """(layer, role) -> the tensor's name."""
    roles: dict[tuple[str, str], str] = {}
    for name in tensors:
        layer, _, last = re.sub(r":\d+$", "", name).replace("/", ".").rpartition(".")
        if last in ROLES and roles.setdefault((layer, ROLES[last]), name) != name:
            raise WeightsError(f"its layer {layer!r} is there twice; save one network alone")
    return roles


def _layers(tensors: Mapping[str, Tensor], roles: Mapping[tuple[str, str], str]) -> tuple[list[_Layer], str]:
    """The convolutions of the one series that begins at an image, in order; and by what they are ordered."""
    series: dict[tuple[str, str], list[_Layer]] = {}
    others = []
    for (name, role), tensor in roles.items():
        if role != "weight" or len(tensors[tensor].shape) != 4:
            continue
        *path, last = name.split(".")
        place = next(
            (place for part in reversed(name.split(".")) if (place := named_place(_place_name(part) or part))), None
        )
        if place is not None:
            series.setdefault(("name", ""), []).append(_Layer(name, tensor, 100 * place.block + place.index))
        elif re.fullmatch("[0-9]{1,4}", last):
            path = path[:-1] if path and re.fullmatch(r"slice_?\d+", path[-1]) else path
            series.setdefault(("number", ".".join(path)), []).append(_Layer(name, tensor, int(last)))
        else:
            others.append(name)
    starts = []
    for key, members in series.items():
        members.sort(key=lambda layer: layer.number)
        if 3 in (tensors[members[0].weight].shape[1:3]):
            starts.append(key)
    if len(starts) != 1:
        what = "no convolution that takes an image" if not starts else f"{len(starts)} networks"
        names = [name for name, role in roles if role == "weight"][:4]
        raise WeightsError(
            f"not a VGG alone: {what} among {', '.join(names) or 'nothing that is called like weights'}; "
            "save the state_dict of a VGG, with names like features.0.weight or conv1_1.weight"
        )
    where, prefix = starts[0]
    first = prefix.partition(".")[0]
    for key, members in series.items():
        others += [layer.name for layer in members if key != starts[0]]
    for name in others:
        if not _HEADS.search(name) and (not first or name.partition(".")[0] == first):
            raise WeightsError(f"not VGG-like: its convolution {name!r} is none of a chain; use a VGG-16 or VGG-19")
    chosen = series[starts[0]]
    numbers = [layer.number for layer in chosen]
    if len(set(numbers)) != len(numbers):
        raise WeightsError(f"several of its convolutions are called like {chosen[0].name!r}; save one network alone")
    return chosen, where


def _check_precision(layer: _Layer, tensors: Mapping[str, Tensor], roles: Mapping[tuple[str, str], str]) -> None:
    for name in (layer.weight, roles.get((layer.name, "bias"), layer.weight)):
        if tensors[name].precision not in NUMBER_TYPES:
            raise WeightsError(
                f"its tensor {name!r} holds {tensors[name].precision}, not floating-point numbers; use a file with "
                "float weights"
            )


def _place_name(part: str) -> str | None:
    """ "conv1_1" for "conv1_1", "Conv1_1" and "conv_1_1"."""
    match = re.fullmatch(r"conv_?([1-9]\d?)_([1-9]\d?)(?:_3x3)?", part, re.IGNORECASE)
    return f"conv{match[1]}_{match[2]}" if match else None


def _order(shapes: list[tuple[int, ...]]) -> str:
    for order, spatial in (("OIHW", slice(2, 4)), ("HWIO", slice(0, 2))):
        if all(shape[spatial] == (3, 3) for shape in shapes):
            return order
    odd = next((shape for shape in shapes if (3, 3) not in (shape[:2], shape[2:])), shapes[0])
    raise WeightsError(f"not VGG-like: a kernel of shape {odd}, not 3x3; use a VGG-16 or VGG-19")


def _norm_of(layer: _Layer, where: str, roles: Mapping[tuple[str, str], str]) -> str | None:
    """The name of the batch normalization that follows `layer`, if any does."""
    *path, last = layer.name.split(".")
    if where == "number":
        candidates = [".".join([*path, str(layer.number + 1)])]
    else:
        place = f"{layer.number // 100}_{layer.number % 100}"
        beside = [f"bn{place}", f"bn_{place}", f"norm{place}", f"batchnorm{place}", f"{last}_bn", f"bn_{last}"]
        candidates = [".".join([*path, name]) for name in beside] + [f"{layer.name}.bn"]
    return next((name for name in candidates if (name, "mean") in roles and (name, "variance") in roles), None)


def _blocks_by_number(layers: list[_Layer], norms: list[str | None]) -> list[int] | None:
    """Blocks by the numbers of a torch.nn.Sequential: after a convolution (and its norm) come a ReLU, and perhaps a
    pool; None where convolutions alone are numbered. Raises `WeightsError` for a gap."""
    if [layer.number for layer in layers] == list(range(layers[0].number, layers[0].number + len(layers))):
        return None
    blocks = [1]
    for before, norm, after in zip(layers, norms, layers[1:], strict=False):
        step = after.number - before.number - (norm is not None)
        if step not in (2, 3):
            raise WeightsError(
                f"not VGG-like: from its layer {before.name!r} to {after.name!r} there is not a ReLU, or a ReLU and a "
                "pool; use a file that holds every layer up to its last"
            )
        blocks.append(blocks[-1] + (step == 3))
    return blocks


def _checked_widths(
    layers: list[_Layer], order: str, tensors: Mapping[str, Tensor], roles: Mapping[tuple[str, str], str]
) -> list[int]:
    """Every convolution's output channels, once they are seen to chain; looks at shapes only."""
    if len(layers) > MAX_CONVOLUTIONS:
        raise WeightsError(f"not VGG-like: it holds {len(layers)} convolutions; use a VGG-16 or VGG-19 weights file")
    channels, numbers, widths = 3, 0, []
    for layer in layers:
        shape = tensors[layer.weight].shape
        takes, gives = (shape[2], shape[3]) if order == "HWIO" else (shape[1], shape[0])
        if takes != channels:
            raise WeightsError(
                f"its layer {layer.name!r} takes {takes} channels, where {channels} come; "
                "use a file that holds a whole VGG, or its first layers with none left out"
            )
        if not 0 < gives <= MAX_CHANNELS:
            raise WeightsError(f"its layer {layer.name!r} gives {gives:,} channels, which no VGG does")
        bias = roles.get((layer.name, "bias"))
        if bias is not None and np.prod(tensors[bias].shape) != gives:
            raise WeightsError(f"the bias of its layer {layer.name!r} has shape {tensors[bias].shape}, not ({gives},)")
        numbers += 9 * takes * gives
        if numbers > MAX_VALUES:
            raise WeightsError(f"declares over {MAX_VALUES:,} numbers in its kernels: too many for a VGG")
        channels = gives
        widths.append(gives)
    return widths


def _folded(
    kernel: NDArray[Any],
    bias: NDArray[Any],
    norm: str,
    tensors: Mapping[str, Tensor],
    roles: Mapping[tuple[str, str], str],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kernel and bias that give what batch normalization makes of theirs, with its statistics of the training."""
    width = kernel.shape[3]

    def read(role: str, default: float) -> NDArray[Any]:
        name = roles.get((norm, role))
        if name is None:
            return np.full(width, default)
        if tensors[name].shape != (width,):
            raise WeightsError(f"the batch normalization {norm!r} is not of its convolution's {width} channels")
        return _float64(tensors[name])

    with np.errstate(all="ignore"):  # a negative variance becomes NaN, and is refused as such
        scale = read("weight", 1.0) / np.sqrt(read("variance", 1.0) + EPSILON)
        return kernel * scale, (bias - read("mean", 0.0)) * scale + read("bias", 0.0)


def _float64(tensor: Tensor) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # NaN is refused later, in words
        return np.asarray(tensor.read(), np.float64)


def _float32(numbers: NDArray[Any], layer: _Layer) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(numbers, np.float32)
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise WeightsError(f"its layer {layer.name!r} holds {bad:,} NaN or infinite numbers; fetch it again")
    array.setflags(write=False)
    return array


def _preprocessing_by_names(where: str, tensors: Mapping[str, Tensor]) -> Preprocessing:
    """What networks with such names are made for: torchvision's, or Caffe's numbers for PyTorch.

    Gatys's port and others of Caffe's keep its names (conv1_1); Johnson's have torchvision's, but number the classifier
    otherwise.
    """
    johnson = "classifier.1.weight" in tensors and "classifier.0.weight" not in tensors
    return TORCHVISION if where == "number" and not johnson else CAFFE


def published_preprocessing(first: NDArray[np.float32]) -> Preprocessing | None:
    """What the published numbers were trained with, where the first kernel has them, in either order of the colors."""
    corner = first[0, 0, :, :3]
    for known in (_VGG16, _VGG19):
        for order, preprocessing in ((1, CAFFE), (-1, MATCONVNET)):
            if corner.shape == (3, 3) and np.allclose(corner[::order], known, rtol=2e-3, atol=2e-4):
                return preprocessing
    return None


def _is_swapped(kernel: NDArray[np.float32]) -> bool:
    below = kernel[1, 0, :, :3]
    return below.shape == (3, 3) and any(np.allclose(row, _VGG19_BESIDE, rtol=2e-3, atol=2e-4) for row in below)


def _turned(convolution: Convolution) -> Convolution:
    kernel = np.ascontiguousarray(convolution.kernel.transpose(1, 0, 2, 3))
    kernel.setflags(write=False)
    return Convolution(convolution.block, convolution.index, kernel, convolution.bias)
