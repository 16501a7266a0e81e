"""Launching the Gram matrix and the style gradient (cuda/gram.cu): tiles, slices of pixels, grids.

Everything here is arithmetic on shapes and needs no GPU; carrying out the launches is the runtime's business.

G = F^T F reads C floats per pixel for C (C + 1) FLOP on and above the diagonal: (C + 1) / 4 FLOP per byte of device
memory, 16 at 64 channels and 128 at 512, so that memory bounds the first layer about as much as FFMA does, and FFMA the
others. Tiles of 128x128 do 32 FLOP per byte asked of L1 and L2, those of 64x64 16. F S does C / 4 FLOP per byte of
device memory, on the tiles of the convolutions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .convolution import DEPTH, MULTIPROCESSORS, add_slices, choose_tile, partial_bytes, partials_in
from .device import Array
from .launch import Launch

WORTH_SPLITTING = 16  # steps of DEPTH pixels; what a shorter slice saves is lost in adding it up
SUM_ELEMENTS = 16  # of a block that adds slices up: `sum_elements` in cuda/gram.cu


class GramWork(NamedTuple):
    """A Gram matrix cut up: `tiles` of side x side on and above the diagonal, the sum over pixels in `slices`."""

    variant: str
    side: int
    threads: int
    resident: int  # blocks that a multiprocessor holds at once
    tiles: int
    slices: int

    @property
    def nbytes(self) -> int:
        return self.tiles * self.slices * self.side**2 * 4


def choose_gram(height: int, width: int, channels: int) -> GramWork:
    """Narrow tiles where wide ones would be mostly padding, and slices until a GPU is full; of the shapes alone."""
    if channels % 4:
        variant, side, threads, resident = "64x64_any", 64, 64, 6
    elif channels <= 64:
        variant, side, threads, resident = "64x64", 64, 64, 6
    else:
        variant, side, threads, resident = "128x128", 128, 256, 2
    across = -(-channels // side)
    tiles = across * (across + 1) // 2
    steps = -(-height * width // DEPTH)
    slices = min(MULTIPROCESSORS * resident // tiles, steps // WORTH_SPLITTING)
    return GramWork(variant, side, threads, resident, tiles, max(1, slices))


def gram_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `gram` needs for features of this shape."""
    return choose_gram(height, width, channels).nbytes


def gram(features: Array, out: Array, workspace: Array) -> list[Launch]:
    """`Device.gram`; `workspace` is uint8, `gram_workspace_bytes` long."""
    height, width, channels = features.shape
    work = choose_gram(height, width, channels)
    if workspace.nbytes < work.nbytes:
        raise ValueError(f"the workspace has {workspace.nbytes} bytes of {work.nbytes}")
    products = Launch(
        f"gram_{work.variant}",
        (work.tiles, work.slices, 1),
        (work.threads, 1, 1),
        (features, workspace, np.int32(height * width), np.int32(channels)),
    )
    sums = Launch(
        "gram_slices",
        (work.tiles, work.side**2 // SUM_ELEMENTS, 1),
        (256, 1, 1),
        (
            workspace,
            out,
            np.int32(work.slices),
            np.int32(work.side),
            np.int32(channels),
            np.float32(1 / (height * width)),
        ),
    )
    return [products, sums]


def style_gradient_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `style_gradient` needs for features of this shape."""
    return partial_bytes(choose_tile(height, width, channels, channels, taps=1), channels)


def style_gradient(features: Array, difference: Array, *, out: Array, accumulate: bool,
                   workspace: Array | None) -> list[Launch]:  # fmt: skip
    """`Device.style_gradient`; `workspace` is uint8, `style_gradient_workspace_bytes` long."""
    height, width, channels = features.shape
    work = choose_tile(height, width, channels, channels, taps=1)
    partials = partials_in(workspace, work, channels)
    launch = Launch(
        f"style_gradient_{work.tile.variant}",
        work.grid,
        (work.tile.threads, 1, 1),
        (
            features,
            difference,
            out,
            partials,
            np.int32(height),
            np.int32(width),
            np.int32(channels),
            np.int32(accumulate),
        ),
    )
    return [launch, *add_slices(work, partials, out, None, accumulate)]
