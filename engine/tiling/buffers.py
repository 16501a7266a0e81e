"""The buffers of an objective, by what they are for. Their names in the arena are spelled here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...kernels.device import Array
from .geometry import TapTile


def target_name(tap: str, style: int) -> str:
    """Of a style's Gram at a tap, or the root of its covariance."""
    return f"{tap} target {style}"


def gram_name(tap: str, mask_id: int | None) -> str:
    """Of the image's Gram at a tap, in one region."""
    return f"{tap} image {mask_id}"


def gram_error_name(tap: str, mask_id: int | None) -> str:
    """Of what the image's Gram sends back into the network."""
    return f"{tap} difference {mask_id}"


def partial_gram_name(tap: str) -> str:
    """Of one tile's own Gram."""
    return f"{tap} partial"


def mean_name(gram: str) -> str:
    """Of the mean that goes with the Gram of this name."""
    return f"{gram} mean"


def content_name(tap: str, number: int | None = None) -> str:
    """Of the content's activations at a tap: whole, or for a replica those at the tile of this number."""
    return f"{tap} content" if number is None else f"{tap} content {number}"


def weights_name(tap: str, mask_id: int | None, number: int, part: TapTile) -> str | None:
    """Of the weights of a tile's piece; None where there is nothing to weigh.

    Where there is no mask, pieces that are alike share theirs.
    """
    if mask_id is not None:
        return f"{tap} mask {mask_id} of tile {number}"
    if part.whole:
        return None
    return f"{tap} weights {part.shape} {part.own}"


@dataclass(frozen=True, eq=False)
class StyleBuffers:
    """What is kept of one style at one tap."""

    gram: Array
    """(C, C); for "w2" the root of the covariance."""
    mean: Array | None
    """(C,); None for "gram"."""


@dataclass(frozen=True, eq=False)
class TapBuffers:
    """What is kept of the image at one tap, in one region. Means are None for "gram"."""

    gram: Array
    """(C, C)"""
    mean: Array | None
    """(C,)"""
    gram_error: Array
    """(C, C): the derivative of the style cost with respect to the Gram, up to a factor of its own."""
    mean_error: Array | None
    """(C,)"""


@dataclass(frozen=True, eq=False)
class PersistentBuffers:
    """What lives as long as an objective."""

    image: Array
    """(H, W, 3)"""
    gradient: Array
    """(H, W, 3)"""
    trainable_mask: Array | None
    """(H, W)"""
    kept: Array | None
    """(H, W, 3): the content where the mask is not one, times what the mask leaves."""
    scratch: Array | None
    """For "w2"."""
    content: Mapping[str, Array]
    """(h, w, C) by tap"""
    styles: Mapping[tuple[str, int], StyleBuffers]
    """By tap, and number of the style."""
    taps: Mapping[tuple[str, int | None], TapBuffers]
    """By tap, and mask_id."""


def persistent_buffers(
    named: Mapping[str, Array],
    content_taps: Sequence[str],
    style_taps: Sequence[str],
    styles: int,
    mask_ids: Sequence[int | None],
) -> PersistentBuffers:
    """Sorts the buffers that `MemoryPlan.persistent` names."""

    def mean_of(gram: str) -> Array | None:
        return named.get(mean_name(gram))

    def of_style(tap: str, style: int) -> StyleBuffers:
        gram = target_name(tap, style)
        return StyleBuffers(named[gram], mean_of(gram))

    def of_tap(tap: str, mask_id: int | None) -> TapBuffers:
        gram, error = gram_name(tap, mask_id), gram_error_name(tap, mask_id)
        return TapBuffers(named[gram], mean_of(gram), named[error], mean_of(error))

    return PersistentBuffers(
        named["image"],
        named["gradient"],
        named.get("trainable_mask"),
        named.get("kept"),
        named.get("scratch"),
        {tap: named[content_name(tap)] for tap in content_taps},
        {(tap, style): of_style(tap, style) for tap in style_taps for style in range(styles)},
        {(tap, mask_id): of_tap(tap, mask_id) for tap in style_taps for mask_id in mask_ids},
    )


@dataclass(frozen=True, eq=False)
class TileBuffers:
    """What depends on tiles, beside the arena."""

    named: Mapping[str, Array]
    """With the weights of pieces under `weights_name`."""

    @property
    def costs(self) -> Array:
        """The vector of all costs that are measured."""
        return self.named["costs"]

    def partial(self, tap: str) -> StyleBuffers | None:
        """For one tile's own statistics; None where there is one tile."""
        gram = partial_gram_name(tap)
        return StyleBuffers(self.named[gram], self.named.get(mean_name(gram))) if gram in self.named else None
