"""Chooses the VGG among the layers of a file: by its model's configuration, else by names, numbers and order alone.

Where a head follows it is left out, batch normalization is paired with its convolution, and what stands in front of
the first convolution becomes the preprocessing. What cannot be told for certain is refused.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from . import front, graph
from .architecture import VGG16, VGG19, Place, Step, blocks_between_pools, named_place
from .model import CAFFE, Preprocessing, WeightsError
from .stored import (
    Entry,
    StoredChain,
    StoredConvolution,
    StoredNormalization,
    normalization_of,
    ranks,
    some_of,
    vector,
)
from .trunk import KERAS_EPSILON, VGG_BLOCKS, Trunk, epsilon_of, trunk

NAME_THEM = "name its layers block1_conv1, block1_conv2, … and save it again"
SAVE_WHOLE = "save the whole model as .keras"
_ASIDE = frozenset({"embedding", "lstm", "gru", "conv2d_transpose", "multi_head_attention", "einsum_dense"})
"""Kinds that never stand between a VGG's convolutions, where only kinds are known."""
_BREAKS = re.compile(
    r"(leaky_re_lu|p_re_lu|elu|thresholded_re_lu|add|concatenate|multiply|average|maximum|minimum|subtract|dot|"
    r"up_sampling2d|layer_normalization|group_normalization)(_\d+)?"
)
"""Keras's own names of layers that no VGG has between its convolutions."""
_FRONT = frozenset({"rescaling", "normalization", "lambda", "operation"})


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
    remedy: str = SAVE_WHOLE
    """What makes a file of which everything can be told: not what was just done."""


def chain_of(listing: Listing, model: graph.Model | None) -> StoredChain:
    """The chain of a VGG, or an empty one where the file has no convolution.

    Raises `WeightsError` for what is no VGG, and where its order, its pooling or its normalization can't be told.
    """
    if model is not None and (found := trunk(model)) is not None:
        return _configured(listing, model, found)
    return _listed(listing)


# ---- with the model's configuration


def _configured(listing: Listing, model: graph.Model, found: Trunk) -> StoredChain:
    others = {layer.name for layer in model.layers()} - {layer.name for layer in found.all_convolutions}
    stored = [entry for entry in listing.entries if entry.is_convolution and entry.name not in others]
    if len(stored) != len(found.all_convolutions):
        raise WeightsError(
            f"its model has {len(found.all_convolutions)} convolutions, but it stores {len(stored)}; save it again"
        )
    kernels = _matched(found.all_convolutions, stored, listing)
    normalizing = [entry for entry in listing.entries if entry.kind == "batch normalization"]
    normalizations = (
        _matched(found.all_normalizations, normalizing, listing)
        if len(normalizing) == len(found.all_normalizations)
        else {}
    )
    convolutions, used = [], set()
    for one in found.convolutions:
        entry = kernels[one.layer]
        normalization = None
        if one.normalization is not None:
            layer = one.normalization
            if layer not in normalizations:
                raise WeightsError(f"the numbers of its layer {layer.name!r} are missing; save it again")
            normalization = _normalization(layer, normalizations[layer])
            used.add(normalizations[layer].name)
        used.add(entry.name)
        convolutions.append(_convolution(entry, normalization))

    preprocessing, problem = None, None
    try:
        preprocessing = front.preprocessing_before(found.first, _Moments(listing, normalizations).of)
    except WeightsError as error:
        problem = str(error)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        problem = f"what stands before its first convolution cannot be read; {front.REMEDY}"
    notes = _notes(listing, used, convolutions)
    if preprocessing is not None:
        notes += ("the layers in front of its first convolution became the preprocessing",)
    return StoredChain(
        listing.layout,
        tuple(convolutions),
        tuple(one.block for one in found.convolutions),
        theano=listing.theano,
        preprocessing=preprocessing,
        front_problem=problem,
        notes=notes,
        guesses=tuple(
            f"its model has no ReLU behind {one.layer.name!r}; one is put there"
            for one in found.convolutions
            if not one.activated
        ),
    )


def _matched(layers: Sequence[graph.Layer], entries: Sequence[Entry], listing: Listing) -> dict[graph.Layer, Entry]:
    """Each layer's entry: by its name, by where Keras 3 stores it, or by its number in the order of the file."""
    by_name = {entry.name: entry for entry in entries}
    names = {layer.name for layer in layers}
    if by_name.keys() >= names and len(names) == len(layers):
        return {layer: by_name[layer.name] for layer in layers}
    by_group = {entry.group: entry for entry in entries if entry.group}
    if by_group.keys() >= {layer.group for layer in layers}:
        return {layer: by_group[layer.group] for layer in layers}
    if listing.order_told and len(layers) == len(entries) and not _nested(entries):
        return dict(zip(layers, entries, strict=True))
    raise WeightsError(f"the order of its convolutions cannot be told; {NAME_THEM}")


class _Moments:
    """Gain and offset of the layers in front that keep their numbers in the file."""

    def __init__(self, listing: Listing, normalizations: dict[graph.Layer, Entry]) -> None:
        self._entries = [entry for entry in listing.entries if entry.kind == "normalization"]
        self._normalizations = normalizations

    def of(self, layer: graph.Layer) -> tuple[list[float], list[float]] | None:
        if layer in self._normalizations:
            return _gain_and_offset(_normalization(layer, self._normalizations[layer]))
        found = [entry for entry in self._entries if layer.name == entry.name or layer.group == entry.group]
        return _mean_and_variance(found[0]) if found and found[0].arrays else None


def _normalization(layer: graph.Layer, entry: Entry) -> StoredNormalization:
    scale, center = bool(layer.settings.get("scale", True)), bool(layer.settings.get("center", True))
    return normalization_of(entry, epsilon_of(layer), scale=scale, center=center)


def _gain_and_offset(one: StoredNormalization) -> tuple[list[float], list[float]]:
    mean, variance = vector(one.mean), vector(one.variance)
    gamma = vector(one.gamma) if one.gamma is not None else [1.0] * len(mean)
    beta = vector(one.beta) if one.beta is not None else [0.0] * len(mean)
    gain = [g / (v + one.epsilon) ** 0.5 for g, v in zip(gamma, variance, strict=True)]
    return gain, [b - m * g for b, m, g in zip(beta, mean, gain, strict=True)]


def _mean_and_variance(entry: Entry) -> tuple[list[float], list[float]]:
    arrays = entry.arrays
    mean, variance = ("mean", "variance") if "mean" in arrays else ("0", "1")
    return front.normalization(vector(arrays[mean]), vector(arrays[variance]))


# ---- without one


def _listed(listing: Listing) -> StoredChain:
    convolutions = [entry for entry in listing.entries if entry.is_convolution]
    _refuse_canonical_names_of_other_kinds(listing)
    chosen, guesses, named = _chosen(listing, convolutions)
    if not chosen:
        return StoredChain(listing.layout, (), theano=listing.theano)
    _refuse_strangers_between(listing, chosen)
    _refuse_breaks(listing, chosen, named)
    normalizations, more = _paired(listing, chosen)
    blocks = None if named else _blocks(listing, chosen)
    pools = [entry for entry in listing.entries if entry.kind == "pool"]
    preprocessing, problem, warned = _front_of(listing, chosen)
    made = [_convolution(entry, normalizations.get(entry.name)) for entry in chosen]
    used = {entry.name for entry in chosen} | {one.name for one in normalizations.values()}
    return StoredChain(
        listing.layout,
        tuple(made),
        blocks,
        pool_count=len(pools) if listing.numbered else None,
        theano=listing.theano,
        preprocessing=preprocessing,
        front_problem=problem,
        notes=_notes(listing, used, made),
        guesses=(*guesses, *more, *warned),
    )


def _chosen(listing: Listing, convolutions: Sequence[Entry]) -> tuple[list[Entry], list[str], bool]:
    """The chain's convolutions in order, what was guessed on the way, and whether their names tell their places."""
    named = {place: entry for entry in convolutions if (place := named_place(entry.name)) is not None}
    if len(named) == len(convolutions) or Place(1, 1) in named:
        chosen = {}
        for place in sorted(named):
            if place.block > VGG_BLOCKS and not named[place].is_3x3:
                break
            chosen[place] = named[place]
        if listing.order_told and _strangers(convolutions, list(chosen.values())):
            chosen = {place: entry for place, entry in chosen.items() if place.block <= VGG_BLOCKS}
            if strangers := _strangers(convolutions, list(chosen.values())):
                first, *_, last = chosen.values()
                raise WeightsError(
                    f"not VGG-like: its layer {strangers[0].name!r} stands between {first.name!r} and {last.name!r}"
                )
        return list(chosen.values()), [], True
    if not listing.order_told:
        raise WeightsError(f"the order of its convolutions cannot be told; {listing.remedy}, or {NAME_THEM}")
    ordered, guesses = _order_within_models(convolutions)
    count = next((i for i, entry in enumerate(ordered) if not entry.is_3x3), len(ordered))
    if 0 < count < len(ordered) and count in (sum(VGG16), sum(VGG19)):
        ordered = ordered[:count]  # a head of 7x7 and 1x1 convolutions
    elif 0 < count < len(ordered):
        odd = ordered[count]
        raise WeightsError(
            f"not VGG-like: the kernel of its layer {odd.name!r} has shape {odd.arrays['kernel'].shape}, not 3x3; if "
            f"it belongs to a head, {listing.remedy}, or {NAME_THEM}"
        )
    return ordered, guesses, False


def _strangers(convolutions: Sequence[Entry], chosen: Sequence[Entry]) -> list[Entry]:
    """Convolutions that are none of the chosen, but stand between them."""
    at = [i for i, entry in enumerate(convolutions) if entry in chosen]
    return [entry for entry in convolutions[min(at) : max(at)] if entry not in chosen] if at else []


def _nested(entries: Sequence[Entry]) -> bool:
    """Whether several of them lie in one nested model of a list of layers, frozen ones behind the others."""
    inside = [entry.container for entry in entries if entry.container and not entry.group]
    return len(inside) > len(set(inside))


def _order_within_models(convolutions: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Those of a nested model by the numbers in their names: Keras lists its frozen layers behind all others."""
    ordered: list[Entry] = []
    guesses: list[str] = []
    for container, group in itertools.groupby(convolutions, key=lambda entry: "" if entry.group else entry.container):
        members = list(group)
        if container and len(members) > 1:
            by_number = _by_number(members)
            if by_number is None or (by_number != members and not _fit(by_number)):
                raise WeightsError(
                    f"the order of the convolutions in its model {container!r} cannot be told, since frozen layers are "
                    f"stored behind the others; {SAVE_WHOLE}, or {NAME_THEM}"
                )
            if by_number != members:
                guesses.append(f"the convolutions of its model {container!r} are taken in the order of their numbers")
            members = by_number
        ordered += members
    return ordered, guesses


def _by_number(entries: Sequence[Entry]) -> list[Entry] | None:
    """Entries whose names differ in numbers alone, in their order; None for other names."""
    found = {}
    for entry in entries:
        stem, number = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", entry.name, re.DOTALL).groups()  # type: ignore[union-attr]
        key = (*(int(one) for one in re.findall(r"\d{1,9}", stem)), int(number or 0))
        found[re.sub(r"\d+", "#", stem), key] = entry
    stems = {stem for stem, _ in found}
    if len(stems) > 1 or len(found) < len(entries):
        return None
    return [found[key] for key in sorted(found)]


def _fit(entries: Sequence[Entry]) -> bool:
    """Whether each takes as many channels as the one before gives."""
    shapes = [entry.arrays["kernel"].shape for entry in entries]
    axes = (2, 3) if all(shape[:2] == (3, 3) for shape in shapes) else (1, 0)
    return all(after[axes[0]] == before[axes[1]] for before, after in itertools.pairwise(shapes))


def _refuse_canonical_names_of_other_kinds(listing: Listing) -> None:
    for entry in listing.entries:
        if not entry.is_convolution and named_place(entry.name) and not entry.name.startswith("relu"):
            if not entry.arrays:
                raise WeightsError(f"its layer {entry.name!r} is listed but holds no weights; fetch the file again")
            raise WeightsError(
                f"its layer {entry.name!r} holds arrays of ranks {ranks(entry)}, not a kernel (4) and a bias (1); "
                "use a VGG-16 or VGG-19 file"
            )


def _refuse_strangers_between(listing: Listing, chosen: Sequence[Entry]) -> None:
    """Layers with weights that are neither a convolution nor known to stand aside."""
    entries = listing.entries
    if listing.numbered:
        inside = {entry.container for entry in chosen}
        suspects = [entry for entry in entries if entry.container in inside and entry.kind not in _ASIDE]
    else:
        at = [i for i, entry in enumerate(entries) if entry in chosen]
        suspects = list(entries[: max(at)])
    for entry in suspects:
        known = entry.kind in ("convolution", "batch normalization", "dense", *_FRONT)
        if entry.arrays and not known:
            raise WeightsError(
                f"its layer {entry.name!r} holds arrays of ranks {ranks(entry)}: neither a 2D convolution nor a "
                f"dense layer; use a VGG-16 or VGG-19 file, or {listing.remedy}"
            )


def _refuse_breaks(listing: Listing, chosen: Sequence[Entry], named: bool) -> None:
    """Layers without weights that make something else than a VGG of the same convolutions."""
    entries = listing.entries
    if listing.numbered:
        # Where kinds are known and no order: what a head may have is no reason to refuse layers with a VGG's names.
        inside = {entry.container for entry in chosen}
        if named and any(entry.arrays and entry not in chosen for entry in entries):
            return
        suspects = [entry for entry in entries if entry.container in inside]
    else:
        at = [i for i, entry in enumerate(entries) if entry in chosen]
        suspects = list(entries[min(at) : max(at)])
    for entry in suspects:
        kind = entry.group.rpartition("/")[2] or entry.name
        if not entry.arrays and _BREAKS.fullmatch(kind):
            raise WeightsError(
                f"its layer {entry.name!r} ({kind}) is none of a VGG's; if it belongs to a head, {listing.remedy}"
            )


def _blocks(listing: Listing, chosen: Sequence[Entry]) -> tuple[int, ...] | None:
    """By the pools that are listed between; None where none is, or where a nested model's are not."""
    if listing.numbered or _nested(chosen):
        return None
    steps = [
        Step(entry.name, entry.kind == "pool") for entry in listing.entries if entry in chosen or entry.kind == "pool"
    ]
    return tuple(blocks_between_pools(steps)) if any(step.is_pool for step in steps) else None


def _paired(listing: Listing, chosen: Sequence[Entry]) -> tuple[dict[str, StoredNormalization], list[str]]:
    """The batch normalizations between the chosen convolutions and their ReLUs, by the convolutions' names."""
    normalizing = [entry for entry in listing.entries if entry.kind == "batch normalization"]
    if not normalizing:
        return {}, []
    pair = _paired_by_kind if listing.numbered else _paired_by_order
    pairs = pair(listing, chosen, normalizing)
    found = {name: normalization_of(entry, KERAS_EPSILON) for name, entry in pairs.items()}
    guesses = []
    if found:
        guesses.append(
            f"the file does not say the epsilon of its batch normalizations; Keras's {KERAS_EPSILON} is taken"
            + (", and that they stand before the ReLUs" if listing.numbered else "")
        )
    return found, guesses


def _paired_by_kind(listing: Listing, chosen: Sequence[Entry], normalizing: Sequence[Entry]) -> dict[str, Entry]:
    """Keras 3's numbers tell the order within a kind: as many as convolutions, and as wide, are theirs."""
    inside = {entry.container for entry in chosen}
    beside = [entry for entry in normalizing if entry.container in inside]
    widths = [_width(entry) for entry in chosen]
    theirs = [_width(entry) for entry in beside]
    if len(inside) == 1 and theirs[: len(widths)] == widths:
        if any(entry.kind == "activation" and entry.container in inside for entry in listing.entries):
            return {entry.name: beside[i] for i, entry in enumerate(chosen)}
        raise _unpaired(listing, beside[0])
    if any(width in widths for width in theirs):
        raise _unpaired(listing, next(entry for entry in beside if _width(entry) in widths))
    return {}


def _paired_by_order(listing: Listing, chosen: Sequence[Entry], normalizing: Sequence[Entry]) -> dict[str, Entry]:
    if any(entry.container and entry.container in {one.container for one in chosen} for entry in normalizing):
        raise _unpaired(listing, normalizing[0])  # a nested model's ReLUs are not listed
    pairs: dict[str, Entry] = {}
    activated: set[str] = set()
    current, open_ = None, False
    for entry in listing.entries:
        if entry in chosen:
            current, open_ = entry, True
        elif current is None:
            continue
        elif entry.kind == "batch normalization" and current in chosen[:-1] and not open_:
            raise WeightsError(
                f"its layer {entry.name!r} normalizes behind the ReLU or the pool of {current.name!r}, where it cannot "
                "become part of a convolution; use a VGG that normalizes before its ReLUs, or none"
            )
        elif entry.kind == "batch normalization" and open_ and current.name not in pairs:
            pairs[current.name] = entry
        elif entry.kind == "activation" and open_:
            activated.add(current.name)
            open_ = False
        elif entry.kind != "padding":
            open_ = False
    last = chosen[-1].name
    if last in pairs and last not in activated and not activated:
        del pairs[last]  # where ReLUs are part of the convolutions, this is the head's
    for name, entry in pairs.items():
        if name not in activated and name != last:
            raise _unpaired(listing, entry)
    return pairs


def _unpaired(listing: Listing, entry: Entry) -> WeightsError:
    return WeightsError(
        f"whether its batch normalization {entry.name!r} stands before a ReLU, behind it or in the head cannot be "
        f"told; {listing.remedy}"
    )


def _width(entry: Entry) -> int:
    if entry.is_convolution:
        shape = entry.arrays["kernel"].shape
        return int(shape[3] if shape[:2] == (3, 3) else shape[0])
    return int(next(iter(entry.arrays.values())).size)


def _front_of(listing: Listing, chosen: Sequence[Entry]) -> tuple[Preprocessing | None, str | None, tuple[str, ...]]:
    """The preprocessing of the layers in front, why it can't be told, and what was taken for granted."""
    first = min(i for i, entry in enumerate(listing.entries) if entry in chosen)
    before = listing.entries if listing.numbered else listing.entries[:first]
    before = tuple(entry for entry in before if entry.kind in _FRONT or _normalizes_pictures(entry))
    operations = [re.sub(r"_\d+$", "", entry.name) for entry in before if entry.kind == "operation"]
    if operations == ["tf.__operators__.getitem", "tf.nn.bias_add"]:
        return CAFFE, None, ()
    guesses: tuple[str, ...] = ()
    channels: tuple[front.Channel, ...] = front.IMAGE
    for entry in sorted(before, key=lambda entry: entry.kind != "rescaling"):
        if entry.kind == "rescaling" and len(before) == sum(one.kind == "normalization" for one in before) + 1:
            channels = front.rescaled(1 / 255, 0.0)
            guesses = (
                f"the scale of its layer {entry.name!r} is not in the file: 1/255 is taken, which makes RGB from 0 to "
                "1; where it makes -1 to 1 add --preprocessing tf",
            )
        elif entry.kind == "normalization" and entry.arrays:
            gain, offset = _mean_and_variance(entry)
            channels = front.scaled(channels, gain, offset)
        elif entry.kind == "batch normalization":
            channels = front.scaled(channels, *_gain_and_offset(normalization_of(entry, KERAS_EPSILON)))
        else:
            return None, f"what its layer {entry.name!r} does to the picture is not in the file; {front.REMEDY}", ()
    try:
        return front.preprocessing_of(channels), None, guesses
    except WeightsError as error:
        return None, str(error), ()


def _normalizes_pictures(entry: Entry) -> bool:
    return entry.kind == "batch normalization" and _width(entry) == 3


# ---- for both


def _convolution(entry: Entry, normalization: StoredNormalization | None) -> StoredConvolution:
    return StoredConvolution(entry.name, entry.arrays["kernel"], entry.arrays.get("bias"), normalization)


def _notes(listing: Listing, used: Iterable[str], convolutions: Sequence[StoredConvolution]) -> tuple[str, ...]:
    notes = []
    taken = set(used)
    left = [entry for entry in listing.entries if entry.arrays and entry.name not in taken and entry.kind not in _FRONT]
    if left:
        notes.append(f"left out: {some_of([entry.name for entry in left])}")
    folded = [one.normalization for one in convolutions if one.normalization is not None]
    if folded:
        notes.append(f"batch normalization folded into {len(folded)} convolutions (epsilon {folded[0].epsilon:g})")
    without = sum(one.bias is None for one in convolutions)
    if without:
        notes.append(f"{without} convolutions have no bias: zeros")
    return tuple(notes)


def with_notes(chain: StoredChain, *notes: str) -> StoredChain:
    """The chain with more to say about it."""
    return replace(chain, notes=(*chain.notes, *notes))
