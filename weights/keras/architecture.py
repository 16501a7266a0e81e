"""Where a file's convolutions stand in a VGG: which block, and which place in it.

Works on names and widths alone, and so needs no file; model configurations are `trunk`'s.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import WeightsError

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
"""Convolutions per block."""


@dataclass(frozen=True, order=True)
class Place:
    """A convolution's 1-based block and 1-based index within the block."""

    block: int
    index: int

    @property
    def keras_name(self) -> str:
        """As the official files call it: "block4_conv2"."""
        return f"block{self.block}_conv{self.index}"


class Step(NamedTuple):
    """A convolution or a pooling layer in the model's own list of layers."""

    name: str
    is_pool: bool


def named_place(layer: str) -> Place | None:
    """The place a canonical layer name states (block4_conv2, conv4_2, relu4_2), or None."""
    match = re.fullmatch(r"(?:block([1-9]\d?)_conv|(?:conv|relu)([1-9]\d?)_)([1-9]\d?)", layer)
    return Place(int(match[1] or match[2]), int(match[3])) if match else None


def refuse_twins(names: Iterable[str]) -> None:
    """Refuses layers of which several state the same place."""
    seen: set[Place] = set()
    for name in names:
        if (place := named_place(name)) in seen:
            raise WeightsError(
                f"holds several layers named {name!r}, as of two networks; save the one that is wanted alone"
            )
        if place is not None:
            seen.add(place)


def places(
    names: Sequence[str], widths: Sequence[int], blocks: Sequence[int] | None, pool_count: int | None
) -> list[Place]:
    """Every convolution's place, in order from the image.

    `names` and `widths` (output channels) are per convolution; `blocks` is each one's block where the file's
    own list of layers told the pooling, and `pool_count` the number of pooling layers where only that is
    known. Names decide, then `blocks`, then the shapes of VGG-19 and VGG-16, then changes of width. Raises
    `WeightsError` for a gap in the names, and where what is known fits more than one network.
    """
    named = [place for name in names if (place := named_place(name)) is not None]
    if len(named) == len(names):
        _check_contiguous(named)
        return named
    if blocks is None:
        depths = _depths_from_widths(widths, pool_count)
        blocks = [block for block, depth in enumerate(depths, start=1) for _ in range(depth)]
    return [
        Place(block, index) for block, members in itertools.groupby(blocks) for index, _ in enumerate(members, start=1)
    ]


def blocks_between_pools(steps: Iterable[Step]) -> list[int]:
    """The 1-based block of every convolution among `steps`.

    Raises `WeightsError` where a pool follows another, or comes first.
    """
    blocks: list[int] = []
    pools: list[str] = []
    for step in steps:
        if step.is_pool:
            pools.append(step.name)
            continue
        if len(pools) > (1 if blocks else 0):
            raise WeightsError(f"not VGG-like: no convolution stands before its pooling layer {pools[-1]!r}")
        blocks.append((blocks[-1] if blocks else 1) + len(pools))
        pools.clear()
    return blocks


def _check_contiguous(named: Sequence[Place]) -> None:
    expected = [Place(1, 1)]
    for place in named:
        if place not in expected:
            raise WeightsError(
                f"the layer {expected[-1].keras_name} is missing: {place.keras_name} comes in its place; "
                "use a file that holds every layer up to its last"
            )
        expected = [Place(place.block, place.index + 1), Place(place.block + 1, 1)]


def _depths_from_widths(widths: Sequence[int], pool_count: int | None) -> list[int]:
    """Convolutions per block, told by where the width changes: in a VGG only a pool comes between."""
    runs = [len(list(members)) for _, members in itertools.groupby(widths)]
    count = len(widths)
    if pool_count == 0:  # some writers leave out layers that have no weights
        pool_count = None

    # Blocks 4 and 5 of a VGG are equally wide, and a pool may end the chain: where there are widths, or the
    # whole count, to recognise it by, a VGG's own shape says more than the runs do.
    fits = {
        depths
        for vgg in (VGG19, VGG16)
        if (len(runs) > 1 or count == sum(vgg))
        and (depths := _first_layers(vgg, count))
        and _fits(depths, widths, pool_count)
    }
    if tuple(runs) in fits:
        return runs
    if len(fits) == 1:
        return list(fits.pop())
    if pool_count is None:
        runs_are_blocks = not fits and (len(runs) > 1 or count <= 2)
    else:
        runs_are_blocks = pool_count == len(runs) - 1 or pool_count == len(runs) == count
    if runs_are_blocks:
        return runs
    raise WeightsError(
        f"where the pooling stands among its {count} convolutions cannot be told from the file; save the "
        "whole model (.keras, or model.save to .h5), or name the layers block1_conv1, block1_conv2, …"
    )


def _first_layers(depths: Sequence[int], count: int) -> tuple[int, ...]:
    """The blocks of the first `count` convolutions, or () when there are not so many."""
    if count > sum(depths):
        return ()
    starts = itertools.accumulate(depths, initial=0)
    return tuple(min(depth, count - start) for depth, start in zip(depths, starts, strict=False) if start < count)


def _fits(depths: Sequence[int], widths: Sequence[int], pool_count: int | None) -> bool:
    remaining = iter(widths)
    constant = all(len(set(itertools.islice(remaining, depth))) == 1 for depth in depths)
    return constant and pool_count in (None, len(depths) - 1, len(depths))
