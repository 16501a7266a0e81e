"""Launching the Gram matrix for Hopper's tensor cores (gram/wgmma_sm90.cuh): tiles, split-K, grids.

Of features in bf16 or fp16, without weights: with them `launch_mma_sm80` has it. The result is float32. Everything here
is arithmetic on shapes and needs no GPU.
"""

from dataclasses import dataclass

from ...device import Array
from ..gpu_spec import MULTIPROCESSORS
from ..runtime.launch import Launch
from ..runtime.tensor_map import CHANNELS, ELEMENT_BYTES, STEP_CHANNELS, Element, Target, TensorMap
from ..split_k import ceil_div, check_workspace, int32s
from ..storage import MEMORY
from .kernel_names import GRAM_WGMMA_SM90
from .launch_simt import GramPlan, add_slices

WORTH_SPLITTING = 4  # steps of a Gram matrix; what a shorter slice saves is lost in adding it up


@dataclass(frozen=True)
class GramTile:
    """A square of the Gram matrix, which one block computes for a slice: `GramTile` in cuda/gram/wgmma_sm90.cuh."""

    side: int
    depth: int  # pixels of a step, which a box has
    stages: int

    @property
    def variant(self) -> str:
        return f"{self.side}x{self.side}"

    @property
    def threads(self) -> int:
        """A warpgroup for 64 rows, and a warp that loads."""
        return self.side // 64 * 128 + 32

    @property
    def shared_bytes(self) -> int:
        operands = 1 if self.side == 64 else 2
        return self.stages * (operands * self.side * self.depth * ELEMENT_BYTES + 16)


GRAM_TILES = (GramTile(64, 128, 6), GramTile(128, 64, 4))


def features_map(address: int, element: Element, shape: tuple[int, int, int], tile: GramTile) -> TensorMap:
    """Of (H, W, C), whose pixels are counted through: a box of 64 channels of as many pixels as the tile's steps."""
    height, width, channels = shape
    return TensorMap(address, element, (channels, height * width, 1), (STEP_CHANNELS, tile.depth, 1))


def serves(channels: int) -> bool:
    """Whether `gram` takes features of so many channels."""
    return channels % CHANNELS == 0


def choose_gram(height: int, width: int, channels: int, split_k: int | None = None) -> GramPlan:
    """Tiles on and above the diagonal, narrow where one holds everything; slices, if they are not given, until every
    multiprocessor has a block, as long as each has a few steps. Like `choose_work` a function of the shape alone."""
    tile = _gram_tile(channels)
    across, steps = ceil_div(channels, tile.side), ceil_div(height * width, tile.depth)
    tiles = across * (across + 1) // 2
    split_k = split_k or max(1, min(MULTIPROCESSORS // tiles, steps // WORTH_SPLITTING))
    if split_k > steps:
        raise ValueError(f"{split_k} slices of {steps} steps")
    return GramPlan(tile.variant, tile.side, tile.threads, 1, tiles, split_k)


def gram_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `gram` needs for features of this shape."""
    return choose_gram(height, width, channels).nbytes


def gram(features: Array, out: Array, workspace: Array, target: Target, split_k: int | None = None) -> list[Launch]:
    """`Device.gram` without weights, of features in 16 bits; `workspace` is uint8, `gram_workspace_bytes` long, and
    `slices` are for tests and benchmarks. Otherwise as the convolutions."""
    height, width, channels = features.shape
    tile, work = _gram_tile(channels), choose_gram(height, width, channels, split_k)
    check_workspace(workspace, work.nbytes)
    element: Element = "fp16" if features.dtype == MEMORY["fp16"] else "bf16"
    encoded = target.encode(features_map(target.address(features), element, features.shape, tile))
    args = (encoded, workspace, *int32s(height * width, channels))
    grid, block = (work.tiles, work.split_k, 1), (tile.threads, 1, 1)
    products = Launch(GRAM_WGMMA_SM90[element, tile.variant], grid, block, args, tile.shared_bytes)
    return [products, add_slices(work, features.shape, workspace, out)]


def _gram_tile(channels: int) -> GramTile:
    narrow, wide = GRAM_TILES
    return narrow if channels <= narrow.side else wide
