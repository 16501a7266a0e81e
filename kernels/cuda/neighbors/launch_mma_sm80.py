"""Launching the search for nearest neighbors on tensor cores (neighbors/mma_sm80.cuh): which tile, how many parts.

Everything here is arithmetic on shapes and needs no GPU. Candidates are split into parts where pixels alone would not
fill the GPU; neither parts nor tiles decide what is found.
"""

from typing import NamedTuple

import numpy as np

from ...device import Array
from ..conv3x3.launch_mma_sm80 import CHANNELS_MULTIPLE
from ..conv3x3.tile_model import PRODUCTS, ROW_BYTES
from ..gpu_spec import GpuSpec
from ..grids import BLOCK, MOST_BLOCKS, THREADS
from ..runtime.launch import Launch
from ..split_k import ceil_div, check_workspace, int32s
from .kernel_names import CANDIDATE_OFFSETS, NEAREST_NEIGHBORS_MMA_SM80, NEAREST_OF_KEPT

CANDIDATES = 128  # of a tile
KEPT, GROUP = 2, 8  # groups of a pixel, and candidates of a group, to be computed again in float32
TILES = ((128, 3), (128, 2), (64, 3), (64, 2))  # pixels and stages, from the best
MOST_THREADS = 256  # that a multiprocessor's registers serve
RESERVED_BYTES = 1 << 10  # of shared memory, that every block takes besides its own
LEAST_CAPABILITY = 80
PART_OVERHEAD = 2  # tiles; what a part costs before it multiplies and after
NEAREST_BYTES = 8  # a score and an index


class SearchWork(NamedTuple):
    """The search cut up: `down` tiles of pixels, and `parts` of the candidates."""

    pixels: int
    stages: int
    shared_bytes: int
    down: int
    parts: int

    @property
    def threads(self) -> int:
        return self.pixels


def serves(channels: int, precision: str, spec: GpuSpec) -> bool:
    """Whether these kernels search among features of so many channels. 3xtf32 is to be as exact as fp32, and is left to
    the kernels of fp32."""
    return (
        spec.capability >= LEAST_CAPABILITY
        and precision in CANDIDATE_OFFSETS
        and channels % CHANNELS_MULTIPLE == 0
        and _tile(channels, precision, spec) is not None
    )


def choose_search(pixels: int, channels: int, candidates: int, precision: str, spec: GpuSpec) -> SearchWork:
    """As many parts as end first: the waves of blocks, times the tiles of a part. Raises ValueError for what these
    kernels do not serve."""
    chosen = _tile(channels, precision, spec)
    if chosen is None:
        raise ValueError(f"{channels} channels in {precision} have no tile for a search")
    rows, stages, shared_bytes = chosen
    resident = min(MOST_THREADS // rows, spec.shared_bytes // (shared_bytes + RESERVED_BYTES))
    at_once = spec.multiprocessors * resident
    down, across = ceil_div(pixels, rows), ceil_div(candidates, CANDIDATES)

    def time(parts: int) -> int:
        return ceil_div(down * parts, at_once) * (ceil_div(across, parts) + PART_OVERHEAD)

    parts = min(range(1, min(across, ceil_div(at_once, down)) + 1), key=time)
    return SearchWork(rows, stages, shared_bytes, down, parts)


def search_workspace_bytes(height: int, width: int, channels: int, candidates: int, precision: str,
                           spec: GpuSpec) -> int:  # fmt: skip
    """Scratch memory that `nearest_neighbors` needs: an offset for each candidate, and what each part keeps."""
    work = choose_search(height * width, channels, candidates, precision, spec)
    return _offsets_bytes(candidates) + work.parts * height * width * KEPT * NEAREST_BYTES


def nearest_neighbors(features: Array, mean: Array, candidates: Array, out: Array, workspace: Array, precision: str,
                      spec: GpuSpec) -> list[Launch]:  # fmt: skip
    """`Device.nearest_neighbors`; `workspace` is uint8, `search_workspace_bytes` long. Raises ValueError for one that
    is shorter."""
    height, width, channels = features.shape
    pixels, count = height * width, len(candidates)
    work = choose_search(pixels, channels, count, precision, spec)
    offsets_bytes = _offsets_bytes(count)
    check_workspace(workspace, search_workspace_bytes(height, width, channels, count, precision, spec))
    offsets, kept = workspace[:offsets_bytes].view(np.float32), workspace[offsets_bytes:]
    warps = (min(ceil_div(offsets_bytes // 4, THREADS // 32), MOST_BLOCKS), 1, 1)
    rescored = THREADS // (KEPT * GROUP)  # pixels of a block
    sizes = int32s(pixels, channels, count)
    return [
        Launch(CANDIDATE_OFFSETS[precision], warps, BLOCK, (candidates, mean, offsets, *sizes[1:])),
        Launch(NEAREST_NEIGHBORS_MMA_SM80[precision, work.pixels], (work.down, work.parts, 1), (work.threads, 1, 1),
               (features, candidates, offsets, kept, *sizes, np.int32(work.stages)), work.shared_bytes),
        Launch(NEAREST_OF_KEPT[precision], (ceil_div(pixels, rescored), 1, 1), BLOCK,
               (features, mean, candidates, kept, out, *sizes, np.int32(work.parts)), rescored * channels * 4),
    ]  # fmt: skip


def _tile(channels: int, precision: str, spec: GpuSpec) -> tuple[int, int, int] | None:
    """Pixels, stages and shared memory of the best tile that a block has room for, if there is one."""
    k_tiles = ceil_div(channels, PRODUCTS[precision].row_channels)
    offsets = (3 if k_tiles == 1 else 2) * CANDIDATES * 4  # as many as the kernel has slots
    for pixels, stages in TILES:
        shared_bytes = k_tiles * pixels * ROW_BYTES + stages * CANDIDATES * ROW_BYTES + offsets
        if shared_bytes <= spec.block_shared_bytes:
            return pixels, stages, shared_bytes
    return None


def _offsets_bytes(candidates: int) -> int:
    return ceil_div(candidates, CANDIDATES) * CANDIDATES * 4
