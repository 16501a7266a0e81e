"""The ways weights have been laid out in HDF5, each read into the same list of layers.

Follows what a file says about itself: its lists of layer and weight names, its numbering, its model configuration.
Access to the file is left to `hdf5`, choosing the VGG among the layers to `chain`, other programs' files to `others`,
and checking shapes and numbers to `reader`.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import h5py

from ..errors import WeightsError
from ..formats import others
from ..hdf5 import access as hdf5
from . import graph
from .chain import chain_of
from .stored import SAVE_WHOLE, Entry, Listing, StoredChain, StoredConvolution, entry_of, ranks, role_of
from .written_order import written_order

MAX_GROUPS = 10_000
MAX_NESTING = 16
_KINDS = {
    "conv2d": "convolution",
    "dense": "dense",
    "batch_normalization": "batch normalization",
    "sync_batch_normalization": "batch normalization",
    "max_pooling2d": "pool",
    "average_pooling2d": "pool",
    "re_lu": "activation",
    "activation": "activation",
    "zero_padding2d": "padding",
    "dropout": "padding",
    "spatial_dropout2d": "padding",
    "gaussian_dropout": "padding",
    "gaussian_noise": "padding",
    "alpha_dropout": "padding",
    "activity_regularization": "padding",
    "tf_op_lambda": "operation",
    "slicing_op_lambda": "operation",
}
"""Of Keras 3's groups."""
_ALWAYS_HOLD_NUMBERS = frozenset({"convolution", "dense", "batch normalization"})


def stored_chain(files: Sequence[h5py.File], config: Any) -> StoredChain:
    """The convolutions in `files`, one file or the shards of one, in order from the image.

    `config` is the archive's model configuration (parsed JSON), or None. Raises `WeightsError` for a file in no known
    layout, and for layers that are no chain of convolutions.
    """
    file = files[0]
    if len(files) == 1:
        if "nb_layers" in file.attrs:
            return _first_vgg_file(file)
        if (names := hdf5.name_list(file, "layer_names")) is not None:
            return _named_layers(file, file, names, "Keras weights (layer_names)")
        saved = hdf5.member(file, "model_weights")
        if isinstance(saved, h5py.Group) and (names := hdf5.name_list(saved, "layer_names")) is not None:
            return _named_layers(file, saved, names, "Keras model.save (model_weights)")
        if config is None and (chain := others.chain_in(file)) is not None:
            return chain
    return _numbered_layers(files, config)


def _named_layers(file: h5py.File, root: h5py.Group, names: Sequence[str], layout: str) -> StoredChain:
    """`layer_names` lists the groups in `root`, and each group's `weight_names` its datasets."""
    entries: list[Entry] = []
    for name in names:
        group = hdf5.member(root, name)
        if not isinstance(group, h5py.Group):
            raise WeightsError(f"its layer {name!r} is listed but not there; fetch the file again")
        entries += _layers_in(name, group) or [Entry(name, _kind_of(name), {})]
    description = hdf5.text(file, "model_config")
    config = json.loads(description) if description else None
    backend = hdf5.text(root, "backend") or hdf5.text(file, "backend")
    listing = Listing(layout, tuple(entries), order_told=True, numbered=False, theano=backend == "theano")
    return chain_of(listing, graph.model_of(config))


def _kind_of(name: str) -> str:
    """What a layer without weights is, as far as its name tells."""
    lower = name.lower()
    if lower.startswith("tf.") and not lower.startswith("tf.nn.relu"):
        return "operation"
    if match := re.fullmatch(r"(rescaling|normalization|lambda)(_\d+)?", lower):
        return match[1]
    if "pool" in lower and "global" not in lower:
        return "pool"
    if re.search(r"activation|relu|re_lu|^act\d*", lower) and not re.search("leaky|prelu", lower):
        return "activation"
    return "padding" if "padding" in lower or "dropout" in lower else "other"


def _layers_in(name: str, group: h5py.Group) -> list[Entry]:
    """The layer that `group` stores, or the several of a nested model, or none where there are no weights.

    A nested model's trainable weights come before those of its frozen layers and before moving means, so names and not
    places tell which weights belong together.
    """
    found: dict[str, dict[str, h5py.Dataset]] = {}
    key = ""
    for weight_name in hdf5.name_list(group, "weight_names") or ():
        data = hdf5.dataset(group, weight_name)
        if data is None:
            raise WeightsError(f"the weight {weight_name!r} of its layer {name!r} is missing; fetch the file again")
        path, _, last = weight_name.rpartition("/")
        flat = re.sub(r"_(W|b|gamma|beta|running_mean|running_std)(_\d+)?(:\d+)?$", "", last)
        if path or flat != last:
            key = path or flat
        elif not found or len(data.shape or ()) > 1:  # with names that say nothing, a kernel begins a layer
            key = weight_name
        arrays = found.setdefault(key, {})
        role = role_of(weight_name)
        arrays[role if role not in arrays else weight_name] = data
    if len(found) == 1:
        return [entry_of(name, next(iter(found.values())))]
    return [entry_of(key.rpartition("/")[2], arrays, container=name) for key, arrays in found.items()]


def _numbered_layers(files: Sequence[h5py.File], config: Any) -> StoredChain:
    """Keras 3: a group per layer, its arrays in `vars/0`, `vars/1`, …; groups of a kind are numbered."""
    entries: list[Entry] = []
    series: set[tuple[str, str]] = set()
    variables, as_written = _variables(files)
    for path, (name, arrays) in variables.items():
        container, _, group_name = path.rpartition("/")
        entry = _numbered_entry(name or group_name, path, container, arrays)
        entries.append(entry)
        if entry.is_convolution:
            series.add((container, re.sub(r"_\d+$", "", group_name)))
    _refuse_missing_numbers(entries, config is not None)
    model = graph.model_of(config)
    if not any(entry.arrays for entry in entries):
        raise WeightsError("HDF5, but with no Keras weights inside; use a VGG-16 or VGG-19 weights file from Keras")
    layout = "Keras 3 weights (vars/0, vars/1)" if config is None else "Keras 3 archive (.keras)"
    remedy = SAVE_WHOLE
    if config is not None and model is None:
        remedy = "build the model with keras.Sequential or keras.Model(inputs, outputs), not as a class of its own"
    listing = Listing(
        layout,
        tuple(entries),
        order_told=len(series) == 1,
        numbered=not (as_written and _are_functional(entries)),
        as_written=as_written,
        remedy=remedy,
    )
    return chain_of(listing, model)


def _are_functional(entries: Sequence[Entry]) -> bool:
    """Whether every model that holds convolutions lists an input first, as only those made of inputs and outputs do:
    their layers are stored in the order in which they work."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.container, entry)
    return all(first[entry.container].kind == "input_layer" for entry in entries if entry.is_convolution)


def _numbered_entry(name: str, path: str, container: str, arrays: dict[str, h5py.Dataset]) -> Entry:
    stem = re.sub(r"_\d+$", "", path.rpartition("/")[2])
    kind = _KINDS.get(stem, stem)
    if sorted(map(int, arrays)) != list(range(len(arrays))):
        raise _incomplete(name)
    entry = Entry(name, kind, arrays, group=path, container=container)
    if kind in _ALWAYS_HOLD_NUMBERS and not arrays:
        raise _incomplete(name)
    shape = ranks(entry)
    if kind == "convolution" or (kind == stem and shape in ([4], [4, 1])):
        if shape not in ([4], [4, 1]):
            raise WeightsError(
                f"its layer {name!r} holds arrays of ranks {shape}, not a kernel (4) and a bias (1); "
                "use a VGG-16 or VGG-19 file"
            )
        if stem not in ("conv2d_transpose", "depthwise_conv2d", "separable_conv2d"):
            keys = sorted(arrays, key=int)
            held = dict(zip(("kernel", "bias"), (arrays[key] for key in keys), strict=False))
            return Entry(name, "convolution", held, group=path, container=container)
    if kind == stem and shape[:1] == [2]:
        return Entry(name, "dense", arrays, group=path, container=container)
    return entry


def _refuse_missing_numbers(entries: Sequence[Entry], configured: bool) -> None:
    """Keras numbers the groups of a kind without a gap, and a layer's arrays too: what is missing lies elsewhere."""
    counts: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        group = entry.group.rpartition("/")[2]
        match = re.fullmatch(r"(conv2d)(?:_(\d{1,9}))?", group)
        if match is not None:
            counts.setdefault((entry.container, match[1]), []).append(int(match[2] or 0))
    for (_, kind), numbers in counts.items():
        if sorted(numbers) != list(range(len(numbers))):
            gap = next(number for number in range(len(numbers) + 1) if number not in numbers)
            raise _incomplete(f"{kind}_{gap}" if gap else kind)
    biased = ["bias" in entry.arrays for entry in entries if entry.is_convolution]
    if not configured and len(biased) > 1 and all(biased[:-1]) and not biased[-1]:
        raise _incomplete(next(entry.name for entry in reversed(entries) if entry.is_convolution))


def _incomplete(name: str) -> WeightsError:
    return WeightsError(
        f"does not hold all numbers of its layer {name!r}: one of several shards, or of a model that was never built; "
        "give the .weights.json that lists the shards, or save the model again"
    )


def _variables(files: Sequence[h5py.File]) -> tuple[dict[str, tuple[str | None, dict[str, h5py.Dataset]]], bool]:
    """Every layer's own name, where it is there, and its arrays by number, by the layer's path; shards put together.

    And whether they come in the order in which they were written; else kind by kind, each by its numbers.
    """
    found: dict[str, tuple[str | None, dict[str, h5py.Dataset]]] = {}
    as_written = True
    for file in files:
        for path, variables, told in _variable_groups(file):
            as_written = as_written and told
            name, arrays = found.get(path, (None, {}))
            for key in variables:
                if re.fullmatch("[0-9]{1,6}", key) and (data := hdf5.dataset(variables, key)) is not None:
                    if key in arrays:
                        raise WeightsError(f"its layer {path!r} is stored twice; save the model again")
                    arrays[key] = data
            # Since Keras 3.8 the layer's own name is there too.
            found[path] = (name or hdf5.text(variables, "name"), arrays)
    if not as_written:
        found = dict(sorted(found.items(), key=lambda item: [_numbered(part) for part in item[0].split("/")]))
    return {
        path: (name, dict(sorted(arrays.items(), key=lambda one: int(one[0]))))
        for path, (name, arrays) in found.items()
    }, as_written


def _variable_groups(file: h5py.File) -> Iterator[tuple[str, h5py.Group, bool]]:
    """Every layer's (path, `vars`, whether its place among the others is that in which it was written)."""
    pending = [(file, "", 0, True)]
    seen = 0
    while pending:
        group, path, nesting, told = pending.pop()
        seen += 1
        if seen > MAX_GROUPS or nesting > MAX_NESTING:  # hard links can make a group contain itself
            raise WeightsError("its groups have no end; it is no weights file that Keras wrote")
        children = []
        order = written_order(group)
        told = told and (order is not None or len(group) < 2)
        for child_name in order or sorted(group, key=_numbered):
            child = hdf5.member(group, child_name)
            if not isinstance(child, h5py.Group) or re.search("optimizer|seed_generator|metric", child_name):
                continue
            if child_name == "vars":
                yield path, child, told
            else:
                children.append((child, f"{path}/{child_name}", nesting + 1, told))
        pending += reversed(children)


def _numbered(name: str) -> tuple[str, int]:
    """Sorts conv2d, conv2d_1, conv2d_2, …, conv2d_10 as numbers."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return stem, int(number or 0)


def _first_vgg_file(file: h5py.File) -> StoredChain:
    """`layer_{k}` with `param_0`, `param_1`: k counts padding and pooling too, and so tells the pools."""
    layers: list[StoredConvolution] = []
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
        shape = [len(data.shape or ()) for data in weights]
        if shape == [4, 1]:
            layers.append(StoredConvolution(f"layer_{k}", *weights))
            positions.append(k)
        elif shape and shape[0] != 2:
            raise WeightsError(f"its layer_{k} holds arrays of ranks {shape}; use a VGG-16 or VGG-19 file")

    # Within a block every step from one convolution to the next is the same (1, or 2 with padding between); a
    # pool makes it one longer. Equal steps throughout tell nothing.
    steps = [after - before for before, after in itertools.pairwise(positions)]
    blocks = None
    if len(set(steps)) > 1:
        if max(steps) != min(steps) + 1:
            raise WeightsError("not VGG-like: its convolutions are not evenly spaced; use a VGG-16 or VGG-19 file")
        blocks = tuple(1 + sum(step > min(steps) for step in steps[:i]) for i in range(len(positions)))
    return StoredChain("first VGG files (nb_layers)", tuple(layers), blocks, theano=True)
