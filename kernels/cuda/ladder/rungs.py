"""The rungs of both ladders: their kernels, and how each is launched. `benchmarks/ladder.py` times them, the tests hold
each to the reference, and docs/course/ tells what each one adds.

Nothing of the product uses these kernels: they are compiled by whoever asks for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.tensor_map import TensorMap
from ..split_k import ceil_div

FOLDER = Path(__file__).parent
SLICES = 16
"""Of the pixels, for the Gram rungs that cut them up."""

Shape = tuple[int, int, int, int]
"""H, W, C_in, C_out"""


@dataclass(frozen=True)
class Rung:
    """One step of a ladder. Its kernel stands in `source` and is called `kernel`."""

    source: Path
    kernel: str
    grid: Callable[[Shape], tuple[int, int, int]]
    block: tuple[int, int]
    """Threads in x and y."""
    precision: str = "fp32"
    """Of activations: "fp32" or "bf16"; sums are float32 always."""
    shared_bytes: int = 0
    """Dynamic ones."""
    channels: int = 1
    """Of which those of the input are multiples; those of the output are of 64 from rung 2 on."""
    by_tensor_map: bool = False
    """Whether the kernel takes activations and filters as tensor maps, for the copy engine."""
    sliced: bool = False
    """Whether it takes a workspace for SLICES partial sums and counters that are zero (`workspace`)."""

    @property
    def name(self) -> str:
        """ "01_naive" """
        return self.source.stem


def _pixels(pixels: int, channels: int) -> Callable[[Shape], tuple[int, int, int]]:
    """Blocks of so many pixels in a row, and so many output channels."""
    return lambda shape: (ceil_div(shape[0] * shape[1], pixels), ceil_div(shape[3], channels), 1)


def _rectangles(width: int, height: int) -> Callable[[Shape], tuple[int, int, int]]:
    """Blocks of a rectangle of pixels, and 64 output channels."""
    return lambda shape: (ceil_div(shape[1], width) * ceil_div(shape[0], height), ceil_div(shape[3], 64), 1)


def _entries(slices: int) -> Callable[[Shape], tuple[int, int, int]]:
    """Blocks of 64 x 64 entries of a Gram matrix, and a slice of the pixels."""
    return lambda shape: (shape[2] // 64, shape[2] // 64, slices)


_CONVOLUTION, _GRAM = FOLDER / "conv3x3", FOLDER / "gram"
CONV3X3 = (
    Rung(_CONVOLUTION / "01_naive.cu", "conv3x3_01_naive", _pixels(256, 1), (256, 1)),
    Rung(_CONVOLUTION / "02_coalesced.cu", "conv3x3_02_coalesced", _pixels(4, 64), (64, 4)),
    Rung(_CONVOLUTION / "03_shared_tiles.cu", "conv3x3_03_shared_tiles", _pixels(16, 16), (16, 16), channels=16),
    Rung(_CONVOLUTION / "04_register_tiles.cu", "conv3x3_04_register_tiles", _pixels(64, 64), (256, 1), channels=16),
    Rung(_CONVOLUTION / "05_vector_loads.cu", "conv3x3_05_vector_loads", _pixels(128, 64), (128, 1), channels=8),
    Rung(_CONVOLUTION / "06_double_buffering.cu", "conv3x3_06_double_buffering", _pixels(128, 64), (128, 1),
         channels=8),
    Rung(_CONVOLUTION / "07_halo.cu", "conv3x3_07_halo", _rectangles(16, 8), (128, 1), channels=8),
    Rung(_CONVOLUTION / "08_mma_fragments.cu", "conv3x3_08_mma_fragments", _rectangles(16, 8), (128, 1), "bf16",
         channels=16),
    Rung(_CONVOLUTION / "09_ldmatrix_pipeline.cu", "conv3x3_09_ldmatrix_pipeline", _rectangles(16, 8), (128, 1), "bf16",
         shared_bytes=2 * 180 * 128 + 3 * 64 * 128, channels=64),
    Rung(_CONVOLUTION / "10_wgmma.cu", "conv3x3_10_wgmma", _rectangles(8, 16), (288, 1), "bf16",
         shared_bytes=4 * (18 * 1024 + 3 * 64 * 128) + 2 * 4 * 8, channels=64, by_tensor_map=True),
)  # fmt: skip
"""Tiles are the kernels' own: each says in its head what a block computes."""
GRAM = (
    Rung(_GRAM / "01_naive.cu", "gram_01_naive", lambda shape: (ceil_div(shape[2] ** 2, 256), 1, 1), (256, 1)),
    Rung(_GRAM / "02_tiles.cu", "gram_02_tiles", _entries(1), (256, 1), channels=64),
    Rung(_GRAM / "03_slices.cu", "gram_03_slices", _entries(SLICES), (256, 1), channels=64, sliced=True),
    Rung(_GRAM / "04_mma.cu", "gram_04_mma", _entries(SLICES), (128, 1), "bf16", channels=64, sliced=True),
)


def packed_filters(filters: NDArray[np.float32], rung: Rung) -> NDArray[np.float32]:
    """(3, 3, C_in, C_out) as a rung takes them: so in fp32, (9, C_out, C_in) in bf16, (C_out, 9, C_in) for tensor maps.

    float32 still.
    """
    if rung.precision == "fp32":
        return filters
    taps = filters.reshape(9, *filters.shape[2:])
    return np.ascontiguousarray(taps.transpose((2, 0, 1) if rung.by_tensor_map else (0, 2, 1)))


def tensor_maps(x: int, filters: int, shape: Shape) -> tuple[TensorMap, TensorMap]:
    """Of activations and filters at these addresses, for rung 10: the boxes that its copy engine loads."""
    height, width, channels_in, channels_out = shape
    return (
        TensorMap(x, "bf16", (channels_in, width, height), (64, 8, 18)),
        TensorMap(filters, "bf16", (channels_in, 9, channels_out), (64, 1, 64)),
    )


def multiplications(ladder: tuple[Rung, ...], shape: Shape) -> int:
    """Of the whole operation; of a Gram matrix all entries count, though half are computed."""
    height, width, channels_in, channels_out = shape
    return height * width * channels_in * (9 * channels_out if ladder is CONV3X3 else channels_in)
