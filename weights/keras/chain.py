"""Chooses the VGG among the layers of a file: by its model's configuration, else by names, numbers and order alone.

Where a head follows it is left out, batch normalization is paired with its convolution, and what stands in front of
the first convolution becomes the preprocessing. What cannot be told for certain is refused.
"""

import itertools
import re
from collections.abc import Sequence

from ..errors import WeightsError
from ..model import CAFFE, Preprocessing
from . import front, graph
from .architecture import VGG16, VGG19, Place, Step, blocks_between_pools, named_place, refuse_twins
from .configured import configured_chain
from .stored import (
    FRONT,
    NAME_THEM,
    SAVE_WHOLE,
    Entry,
    Listing,
    StoredChain,
    StoredNormalization,
    convolution_of,
    gain_and_offset,
    mean_and_variance,
    nested,
    normalization_of,
    notes_on,
    ranks,
)
from .trunk import KERAS_EPSILON, VGG_BLOCKS, trunk

MAX_CONVOLUTIONS = 256
"""With the head's. A VGG's own are counted later."""
_ASIDE = frozenset({"embedding", "lstm", "gru", "conv2d_transpose", "multi_head_attention", "einsum_dense"})
"""Kinds that never stand between a VGG's convolutions, where only kinds are known."""
_CHANGES = frozenset(
    {"activation", "permute", "softmax", "leaky_re_lu", "elu", "p_re_lu", "add", "subtract", "multiply", "average"}
    | {"maximum", "minimum", "concatenate", "dot", "cropping2d", "up_sampling2d", "reshape", "unit_normalization"}
    | {"layer_normalization", "group_normalization"}
)
"""Kinds that make another picture of the one they are given, where the order of kinds is told."""
_BREAKS = re.compile(
    r"(leaky_re_lu|p_re_lu|elu|thresholded_re_lu|add|concatenate|multiply|average|maximum|minimum|subtract|dot|"
    r"up_sampling2d|layer_normalization|group_normalization)(_\d+)?"
)
"""Keras's own names of layers that no VGG has between its convolutions."""


def chain_of(listing: Listing, model: graph.Model | None) -> StoredChain:
    """The chain of a VGG, or an empty one where the file has no convolution.

    Raises `WeightsError` for what is no VGG, and where its order, its pooling or its normalization can't be told.
    """
    if model is not None and (found := trunk(model)) is not None:
        return configured_chain(listing, model, found)
    return _listed(listing)


def _listed(listing: Listing) -> StoredChain:
    convolutions = [entry for entry in listing.entries if entry.is_convolution]
    if len(convolutions) > MAX_CONVOLUTIONS:
        raise WeightsError(
            f"not VGG-like: it holds {len(convolutions)} convolutions; use a VGG-16 or VGG-19 weights file"
        )
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
    made = [convolution_of(entry, normalizations.get(entry.name)) for entry in chosen]
    used = {entry.name for entry in chosen} | {one.name for one in normalizations.values()}
    return StoredChain(
        listing.layout,
        tuple(made),
        blocks,
        pool_count=len(pools) if chosen[0].group else None,
        theano=listing.theano,
        preprocessing=preprocessing,
        front_problem=problem,
        notes=notes_on(listing, used, made),
        guesses=(*guesses, *more, *warned),
    )


def _chosen(listing: Listing, convolutions: Sequence[Entry]) -> tuple[list[Entry], list[str], bool]:
    """The chain's convolutions in order, what was guessed on the way, and whether their names tell their places."""
    refuse_twins(entry.name for entry in convolutions)
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
        known = entry.kind in ("convolution", "batch normalization", "dense", *FRONT)
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
    if listing.numbered or nested(chosen):
        return None
    steps = [
        Step(entry.name, entry.kind == "pool") for entry in listing.entries if entry in chosen or entry.kind == "pool"
    ]
    return tuple(blocks_between_pools(steps)) if any(step.is_pool for step in steps) else None


def _paired(listing: Listing, chosen: Sequence[Entry]) -> tuple[dict[str, StoredNormalization], list[str]]:
    """The batch normalizations between the chosen convolutions and their ReLUs, by the convolutions' names."""
    normalizing = [entry for entry in listing.entries if entry.kind == "batch normalization"]
    inside = {entry.container for entry in chosen}
    in_one = any(entry.container in inside for entry in normalizing if entry.container and not entry.group)
    if listing.numbered or in_one:
        pairs = _paired_by_kind(listing, chosen, [entry for entry in normalizing if entry.container in inside])
    else:
        pairs = _paired_by_order(listing, chosen)
    found = {name: normalization_of(entry, KERAS_EPSILON) for name, entry in pairs.items()}
    guesses = []
    if found:
        guesses.append(
            f"the file does not say the epsilon of its batch normalizations; Keras's {KERAS_EPSILON} is taken"
        )
    return found, guesses


def _paired_by_kind(listing: Listing, chosen: Sequence[Entry], beside: Sequence[Entry]) -> dict[str, Entry]:
    """Where only the order within a kind is told: as many as convolutions, and as wide, are theirs."""
    if not beside:
        return {}
    if not listing.numbered:
        raise _unpaired(listing, beside[0])  # a nested model's ReLUs are not listed
    widths = [_width(entry) for entry in chosen]
    theirs = [_width(entry) for entry in beside]
    if len({entry.container for entry in chosen}) == 1 and theirs[: len(widths)] == widths:
        pairs = {entry.name: beside[i] for i, entry in enumerate(chosen)}
        if not listing.as_written or _paired_by_order(listing, chosen) != pairs:
            raise _unpaired(listing, beside[0])
        return pairs
    if any(width in widths for width in theirs):
        raise _unpaired(listing, next(entry for entry in beside if _width(entry) in widths))
    return {}


def _paired_by_order(listing: Listing, chosen: Sequence[Entry]) -> dict[str, Entry]:
    """Where layers are listed in the model's order, ReLUs among them unless they are part of the convolutions."""
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
    unsure = [entry for name, entry in pairs.items() if name not in activated and name != last]
    if unsure:
        raise _unpaired(listing, unsure[0])
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
    in_front = _CHANGES if chosen[0].group and not listing.numbered else frozenset()
    before = tuple(
        entry for entry in before if entry.kind in FRONT or entry.kind in in_front or _normalizes_pictures(entry)
    )
    operations = [re.sub(r"_\d+$", "", entry.name) for entry in before]
    if operations == ["tf.__operators__.getitem", "tf.nn.bias_add"]:
        return CAFFE, None, ()
    if operations == ["slicing_op_lambda", "tf_op_lambda"]:
        return CAFFE, None, ("the two operations in front of its first convolution are taken for preprocess_input",)
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
            gain, offset = mean_and_variance(entry)
            channels = front.scaled(channels, gain, offset)
        elif entry.kind == "batch normalization":
            channels = front.scaled(channels, *gain_and_offset(normalization_of(entry, KERAS_EPSILON)))
        else:
            return None, f"what its layer {entry.name!r} does to the picture is not in the file; {front.REMEDY}", ()
    try:
        return front.preprocessing_of(channels), None, guesses
    except WeightsError as error:
        return None, str(error), ()


def _normalizes_pictures(entry: Entry) -> bool:
    return entry.kind == "batch normalization" and _width(entry) == 3
