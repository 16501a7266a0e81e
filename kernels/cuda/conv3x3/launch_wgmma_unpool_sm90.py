"""Launching the input gradient of a convolution behind a 2x2 max pool, up to what was pooled, in one: for Hopper
(cuda/conv3x3/wgmma_unpool_sm90.cuh). Tiles and slices are those of the input gradient by itself, so that the same sums
are rounded in the same way.

Everything here is arithmetic on shapes and needs no GPU.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...device import Array
from ..runtime.launch import Launch
from ..runtime.tensor_map import ELEMENT_BYTES, STEP_CHANNELS, Element, Target, TensorMap
from ..split_k import ceil_div, int32s, partials_in
from . import launch_wgmma_sm90 as convolution
from .kernel_names import WGMMA_SM90
from .launch_wgmma_sm90 import BOX_HEIGHT, BOX_WIDTH, ConvPlan, PackedFilters, Tile

CORNERS = 4  # of a square that is pooled
CORNER_MAPS = np.dtype([("words", np.uint64, CORNERS * 16)])  # passed to a kernel by value
SUM_THREADS = 256  # of a block that adds slices up, each for eight channels of a pixel

TILES: dict[Tile, Tile] = {
    tile: replace(tile, masks=3, filter_stages=min(tile.filter_stages, 7 if tile.boxes == 1 else 5))
    for tile in convolution.TILES
}
"""By the tile of the input gradient: three masks, and filter stages as there is room for beside them."""


def corner_map(address: int, element: Element, shape: tuple[int, int, int], corner: int) -> TensorMap:
    """Of pixels (2 y + r, 2 x + s) of (H, W, C), for corner 2 r + s: a box of 64 channels, 8 pixels and 16 rows."""
    height, width, channels = shape
    down, across = divmod(corner, 2)
    pixel = channels * ELEMENT_BYTES
    return TensorMap(
        address + (down * width + across) * pixel,
        element,
        (channels, ceil_div(width - across, 2), ceil_div(height - down, 2)),
        (STEP_CHANNELS, BOX_WIDTH, BOX_HEIGHT),
        (2 * pixel, 2 * width * pixel),
    )


def choose_work(shape: tuple[int, int, int], unpooled: tuple[int, int, int]) -> ConvPlan:
    """The input gradient's tile and slices for a gradient of (h, w, C_out) `shape`, over all of (H, W, C_in) `unpooled`
    that pixels of the gradient stand for; slices leave their parts for the gradient's own pixels alone."""
    height, width, channels_out = shape
    work = convolution.choose_work(height, width, channels_out, unpooled[2], backward=True)
    return cut_up(work.tile, shape, unpooled, work.split_k)


def cut_up(tile: Tile, shape: tuple[int, int, int], unpooled: tuple[int, int, int], split_k: int = 1) -> ConvPlan:
    """This tile of the input gradient's over everything."""
    height, width, channels_out = shape
    if split_k == 1:
        height, width = (ceil_div(side, 2) for side in unpooled[:2])
    return convolution.cut_up(TILES[tile], height, width, channels_out, unpooled[2], split_k)


def conv3x3_unpooled_gradient(gradient: Array, filters: PackedFilters, *, out: Array, relu_mask: Array,
                              pool_argmax: Array, workspace: Array | None, target: Target,
                              work: ConvPlan | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_unpooled_gradient` on 16-bit gradients; `workspace` is uint8, as long as the input gradient's
    own. `work` is for tests and benchmarks. Arrays begin at multiples of 16 bytes, and the caller keeps `out` and
    `gradient` alive. Raises ValueError for a workspace too small, DeviceError from the driver."""
    height, width, channels_out = gradient.shape
    channels_in, element = filters.channels_in, filters.element
    work = work or choose_work(gradient.shape, out.shape)
    partials = partials_in(workspace, convolution.partial_bytes(work, height, width, channels_in))
    maps = convolution.operand_maps(gradient, filters.backward, element, work.tile, target)
    corners = _corner_maps(out, element, target)
    sizes = int32s(height, width, channels_out, channels_in, work.split_k, *out.shape[:2])
    args = (*maps, corners, relu_mask, pool_argmax, partials, *sizes)
    launches = [convolution.launch_of("unpooled_gradient", work, element, args, target)]
    if work.split_k > 1:
        pixels = ceil_div(out.shape[0], 2) * ceil_div(out.shape[1], 2)
        grid = (ceil_div(pixels * (channels_in // 8), SUM_THREADS), 1, 1)
        of_sums = int32s(work.split_k, height, width, channels_in, *out.shape[:2])
        sliced = (partials, out, relu_mask, pool_argmax, *of_sums)
        name = WGMMA_SM90["unpooled_gradient", element, "split_k_sum"]
        launches.append(Launch(name, grid, (SUM_THREADS, 1, 1), sliced))
    return launches


def _corner_maps(out: Array, element: Element, target: Target) -> NDArray[Any]:
    encoded = np.zeros(1, CORNER_MAPS)
    for corner in range(CORNERS):
        of_corner = target.encode(corner_map(target.address(out), element, out.shape, corner))
        encoded["words"][0, 16 * corner : 16 * (corner + 1)] = of_corner["words"][0]
    return encoded
