"""The VGG among the layers of a file whose model's configuration is there: which are its convolutions, in which order,
what normalizes them and what stands in front.
"""

from collections.abc import Sequence

from ..errors import WeightsError
from . import front, graph
from .stored import (
    NAME_THEM,
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
)
from .trunk import Trunk, epsilon_of


def configured_chain(listing: Listing, model: graph.Model, found: Trunk) -> StoredChain:
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
        convolutions.append(convolution_of(entry, normalization))

    preprocessing, problem = None, None
    try:
        preprocessing = front.preprocessing_before(found.first, _Moments(listing, normalizations).of)
    except WeightsError as error:
        problem = str(error)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        problem = f"what stands before its first convolution cannot be read; {front.REMEDY}"
    notes = notes_on(listing, used, convolutions)
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
    if listing.order_told and len(layers) == len(entries) and not nested(entries):
        return dict(zip(layers, entries, strict=True))
    raise WeightsError(f"the order of its convolutions cannot be told; {NAME_THEM}")


class _Moments:
    """Gain and offset of the layers in front that keep their numbers in the file."""

    def __init__(self, listing: Listing, normalizations: dict[graph.Layer, Entry]) -> None:
        self._entries = [entry for entry in listing.entries if entry.kind == "normalization"]
        self._normalizations = normalizations

    def of(self, layer: graph.Layer) -> tuple[list[float], list[float]] | None:
        if layer in self._normalizations:
            return gain_and_offset(_normalization(layer, self._normalizations[layer]))
        found = [entry for entry in self._entries if layer.name == entry.name or layer.group == entry.group]
        return mean_and_variance(found[0]) if found and found[0].arrays else None


def _normalization(layer: graph.Layer, entry: Entry) -> StoredNormalization:
    scale, center = bool(layer.settings.get("scale", True)), bool(layer.settings.get("center", True))
    return normalization_of(entry, epsilon_of(layer), scale=scale, center=center)
