"""Sums cut into parts: split-K, its partial sums in the workspace, and the arithmetic of grids.

Where a launch has too few tiles to fill a GPU, several blocks share the sum of a tile: each writes what it has to the
workspace, and a second launch adds that up. The number of parts is a function of the shape, so that the same sum is
added up in the same order on every GPU of a kind.
"""

from __future__ import annotations

import numpy as np

from ..device import Array


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def int32s(*sizes: int) -> tuple[np.int32, ...]:
    """Sizes as a kernel takes them."""
    return tuple(map(np.int32, sizes))


def split_k_bytes(split_k: int, sums: int) -> int:
    """Scratch memory for the parts of so many float32 sums; none for a single part."""
    return split_k * sums * 4 if split_k > 1 else 0


def partials_in(workspace: Array | None, needed: int) -> Array | None:
    """The workspace if there are parts to keep, else None: how a kernel knows that it is to finish by itself."""
    if needed == 0:
        return None
    if workspace is None:
        raise ValueError(f"the workspace has 0 bytes of {needed}")
    check_workspace(workspace, needed)
    return workspace


def check_workspace(workspace: Array, needed: int) -> None:
    """Raises ValueError for one that is too short."""
    if workspace.nbytes < needed:
        raise ValueError(f"the workspace has {workspace.nbytes} bytes of {needed}")


def finish_grid(height: int, width: int, channels: int) -> tuple[int, int, int]:
    """Of the launch that adds parts up, 256 threads a block: a thread for eight channels of a 2x2 square of pixels."""
    return (ceil_div(ceil_div(height, 2) * ceil_div(width, 2) * ceil_div(channels, 8), 256), 1, 1)
