"""The ways Keras has laid out weights in HDF5, each read into the same list of convolutions.

Follows what a file says about itself: its lists of layer and weight names, its numbering, its model
configuration. Access to the file is left to `hdf5`, the network's structure to `architecture`, and checking
shapes and numbers to `reader`.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py

from . import hdf5
from .architecture import Step, blocks_between_pools, configured_convolutions, named_place
from .model import WeightsError

MAX_GROUPS = 10_000
MAX_NESTING = 16


@dataclass(frozen=True)
class StoredConvolution:
    """A convolution's two datasets, and the layer's name in the file."""

    name: str
    kernel: h5py.Dataset
    bias: h5py.Dataset


@dataclass(frozen=True)
class StoredChain:
    """A file's convolutions in order from the image, and what else it tells about them."""

    layout: str
    """In words."""
    convolutions: tuple[StoredConvolution, ...]
    blocks: tuple[int, ...] | None
    """The 1-based block of each convolution, where the file's list of layers tells its pooling."""
    pool_count: int | None
    """How many pooling layers the model has, where the file tells that much."""
    theano: bool
    """Whether the file says that Theano wrote its kernels."""


@dataclass(frozen=True)
class _Layer:
    """A layer's name and its weights, kernel first."""

    name: str
    weights: tuple[h5py.Dataset, ...]


def stored_chain(file: h5py.File, config: Any) -> StoredChain:
    """The convolutions in `file`; `config` is the archive's model configuration (parsed JSON), or None.

    Raises `WeightsError` for a file in no known layout, and for layers that are no chain of convolutions.
    """
    if "nb_layers" in file.attrs:
        return _first_vgg_file(file)
    if (names := hdf5.name_list(file, "layer_names")) is not None:
        return _named_layers(file, file, names, "Keras weights (layer_names)")
    saved = hdf5.member(file, "model_weights")
    if isinstance(saved, h5py.Group) and (names := hdf5.name_list(saved, "layer_names")) is not None:
        return _named_layers(file, saved, names, "Keras model.save (model_weights)")
    return _numbered_layers(file, config)


def _named_layers(file: h5py.File, root: h5py.Group, names: Sequence[str], layout: str) -> StoredChain:
    """`layer_names` lists the groups in `root`, and each group's `weight_names` its datasets."""
    layers: list[_Layer] = []
    steps: list[Step] | None = []
    for name in names:
        group = hdf5.member(root, name)
        if not isinstance(group, h5py.Group):
            raise WeightsError(f"its layer {name!r} is listed but not there; fetch the file again")
        held = list(_layers_in(name, group))
        layers += held
        if not held:
            if named_place(name) and not name.startswith("relu"):
                raise WeightsError(f"its layer {name!r} is listed but holds no weights; fetch the file again")
            if steps is not None and "pool" in name.lower() and "global" not in name.lower():
                steps.append(Step(name, is_pool=True))
        elif len(held) > 1:
            steps = None  # a nested model's pools are not listed
        elif steps is not None and _rank(held[0].weights[0]) == 4:
            steps.append(Step(name, is_pool=False))

    blocks = None
    if steps is not None and any(step.is_pool for step in steps):
        blocks = tuple(blocks_between_pools(steps))
    description = hdf5.text(file, "model_config")
    backend = hdf5.text(root, "backend") or hdf5.text(file, "backend")
    chain = StoredChain(layout, tuple(_convolutions(layers)), blocks, None, backend == "theano")
    return _in_order(chain, json.loads(description) if description else None, order_told=True)


def _layers_in(name: str, group: h5py.Group) -> Iterator[_Layer]:
    """The layer that `group` stores, or the several of a nested model, or none where there are no weights."""
    found: list[tuple[str, list[h5py.Dataset]]] = []
    for weight_name in hdf5.name_list(group, "weight_names") or ():
        data = hdf5.dataset(group, weight_name)
        if data is None:
            raise WeightsError(f"the weight {weight_name!r} of its layer {name!r} is missing; fetch the file again")
        if not found or _rank(data) > 1:  # a kernel comes first, and what follows belongs to it
            found.append((weight_name, []))
        found[-1][1].append(data)
    for weight_name, weights in found:
        yield _Layer(name if len(found) == 1 else _layer_of(weight_name), tuple(weights))


def _layer_of(weight_name: str) -> str:
    """The inner layer's name in "vgg19/block1_conv1/kernel:0" or, as Keras 1 had it, "block1_conv1_W_1:0"."""
    *path, last = weight_name.split("/")
    return path[-1] if path else re.sub(r"_[Wb](_\d+)?(:\d+)?$", "", last)


def _numbered_layers(file: h5py.File, config: Any) -> StoredChain:
    """Keras 3: a group per layer, its arrays in `vars/0`, `vars/1`, …; groups of a kind are numbered."""
    layers: list[_Layer] = []
    series: set[tuple[str, str]] = set()
    pool_count = 0
    for container, group_name, variables in _variable_groups(file):
        kind = re.sub(r"_\d+$", "", group_name)
        numbers = sorted((key for key in variables if re.fullmatch("[0-9]+", key)), key=int)
        weights = tuple(data for key in numbers if (data := hdf5.dataset(variables, key)) is not None)
        if kind in ("max_pooling2d", "average_pooling2d"):
            pool_count += 1
        elif weights:
            # Since Keras 3.8 the layer's own name is there too.
            layers.append(_Layer(hdf5.text(variables, "name") or group_name, weights))
            if _rank(weights[0]) == 4:
                series.add((container, kind))
    if not layers:
        raise WeightsError("HDF5, but with no Keras weights inside; use a VGG-16 or VGG-19 weights file from Keras")
    layout = "Keras 3 weights (vars/0, vars/1)" if config is None else "Keras 3 archive (.keras)"
    chain = StoredChain(layout, tuple(_convolutions(layers)), None, pool_count, theano=False)
    return _in_order(chain, config, order_told=len(series) == 1)


def _variable_groups(file: h5py.File) -> Iterator[tuple[str, str, h5py.Group]]:
    """Every layer's (path of its container, name of its group, its `vars`), groups of a kind in order."""
    pending = [(file, "", "", 0)]
    seen = 0
    while pending:
        group, container, name, nesting = pending.pop()
        seen += 1
        if seen > MAX_GROUPS or nesting > MAX_NESTING:  # hard links can make a group contain itself
            raise WeightsError("its groups have no end; it is no weights file that Keras wrote")
        children = []
        for child_name in sorted(group, key=_numbered):
            child = hdf5.member(group, child_name)
            if not isinstance(child, h5py.Group) or re.search("optimizer|seed_generator|metric", child_name):
                continue
            if child_name == "vars":
                yield container, name, child
            else:
                children.append((child, f"{container}/{name}", child_name, nesting + 1))
        pending += reversed(children)


def _numbered(name: str) -> tuple[str, int]:
    """Sorts conv2d, conv2d_1, conv2d_2, …, conv2d_10 as numbers."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return stem, int(number or 0)


def _first_vgg_file(file: h5py.File) -> StoredChain:
    """`layer_{k}` with `param_0`, `param_1`: k counts padding and pooling too, and so tells the pools."""
    layers: list[_Layer] = []
    positions: list[int] = []
    for k in range(hdf5.count(file, "nb_layers") or 0):
        group = hdf5.member(file, f"layer_{k}")
        if not isinstance(group, h5py.Group):
            raise WeightsError(f"its layer_{k} is missing; fetch the file again")
        weights = []
        for number in range(hdf5.count(group, "nb_params") or 0):
            data = hdf5.dataset(group, f"param_{number}")
            if data is None:
                raise WeightsError(f"param_{number} of its layer_{k} is missing; fetch the file again")
            weights.append(data)
        if weights:
            layers.append(_Layer(f"layer_{k}", tuple(weights)))
            if _rank(weights[0]) == 4:
                positions.append(k)

    # Within a block every step from one convolution to the next is the same (1, or 2 with padding between); a
    # pool makes it one longer. Equal steps throughout tell nothing.
    steps = [after - before for before, after in itertools.pairwise(positions)]
    blocks = None
    if len(set(steps)) > 1:
        if max(steps) != min(steps) + 1:
            raise WeightsError("not VGG-like: its convolutions are not evenly spaced; use a VGG-16 or VGG-19 file")
        blocks = tuple(1 + sum(step > min(steps) for step in steps[:i]) for i in range(len(positions)))
    return StoredChain("first VGG files (nb_layers)", tuple(_convolutions(layers)), blocks, None, theano=True)


def _convolutions(layers: Iterable[_Layer]) -> Iterator[StoredConvolution]:
    """The layers that are convolutions; dense ones are left out, and anything else is refused."""
    for layer in layers:
        ranks = [_rank(data) for data in layer.weights]
        if ranks == [4, 1]:
            yield StoredConvolution(layer.name, *layer.weights)
        elif ranks[0] == 4:
            raise WeightsError(
                f"its layer {layer.name!r} holds arrays of ranks {ranks}, not a kernel (4) and a bias (1); "
                "use a VGG-16 or VGG-19 file"
            )
        elif ranks[0] != 2:
            raise WeightsError(
                f"its layer {layer.name!r} holds arrays of ranks {ranks}: neither a 2D convolution nor a "
                "dense layer; use a VGG-16 or VGG-19 file"
            )


def _rank(data: h5py.Dataset) -> int:
    return len(data.shape or ())


def _in_order(chain: StoredChain, config: Any, *, order_told: bool) -> StoredChain:
    """`chain` in the order its names tell, or its model's configuration, or (`order_told`) as it stands."""
    by_name = {convolution.name: convolution for convolution in chain.convolutions}
    configured = configured_convolutions(config) if config is not None else None
    if configured is not None:
        if len(configured) != len(chain.convolutions):
            raise WeightsError(
                f"its model has {len(configured)} convolutions, but it stores {len(chain.convolutions)}; save it again"
            )
        chain = replace(chain, blocks=tuple(convolution.block for convolution in configured))
        names = {convolution.name for convolution in configured}
        if by_name.keys() == names and len(names) == len(configured):
            return replace(chain, convolutions=tuple(by_name[convolution.name] for convolution in configured))
    named = {place: by_name[name] for name in by_name if (place := named_place(name)) is not None}
    if len(named) == len(chain.convolutions):
        return replace(chain, convolutions=tuple(named[place] for place in sorted(named)))
    if not order_told:
        raise WeightsError(
            "the order of its convolutions cannot be told; save the whole model as .keras, "
            "or name the layers block1_conv1, block1_conv2, …"
        )
    return chain
