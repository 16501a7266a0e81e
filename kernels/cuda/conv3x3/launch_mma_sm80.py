"""Launching the 3x3 convolutions on tensor cores (cuda/tensor_*.cu): packed filters, grids, workspaces.

Everything here is arithmetic on shapes and needs no GPU; `tensor_tiles` chooses tiles, the runtime carries launches
out. The counterpart in fp32 without tensor cores is `convolution`, whose masks and choices these kernels share.

Activations are what a precision keeps in memory: bf16 (the bits, in uint16), fp16, or float32 for tf32 and 3xtf32;
images, sums, biases and partial sums are float32 always. Channel counts are multiples of eight, so that 16-byte copies,
mask bytes and stores hold whole groups. Where tf32 and 3xtf32 meet others, or an image's three, `convolution` does the
work, whose arrays are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...device import Array, Pooling
from ..gpu_spec import GpuSpec
from ..runtime.launch import Launch
from ..split_k import ceil_div, finish_grid, partials_in, split_k_bytes
from ..storage import MEMORY, rounded
from . import launch_simt as convolution
from .kernel_names import MMA_SM80
from .launch_simt import IMAGE_CHANNELS, PackedFilters
from .tile_model import CHANNEL_GROUP, PRODUCTS, ROW_BYTES, TAPS, TILE_WIDTH, ConvPlan, choose

CHANNELS_MULTIPLE = 8
CHUNKS = 8  # of 16 bytes in a row of 128
SLICE = 16  # 16-bit numbers that one product takes of a row
IMAGE_TILE_HEIGHT, GRADIENT_TILE_HEIGHT = 8, 16  # of the image's kernels, 16 wide

# Column 8 j + 2 t + b of 32 is output channel 8 t + 2 j + b: cuda/conv3x3/mma_sm80.cuh says why.
COLUMNS = np.array([8 * t + 2 * j + b for j in range(4) for t in range(4) for b in range(2)])


class TensorFilters(NamedTuple):
    """A convolution's weights as the kernels copy them to shared memory.

    `forward` is (blocks of input channels, 9, output channels padded to 64, 8 chunks, channels of 16 bytes); a step
    copies the rows of one block and tap as they are. Rows are in the order of COLUMNS, and chunk c of row n is at place
    c ^ n % 8. `backward` is the same with the taps turned by 180 degrees and the channels swapped. Padding is zero.

    Of an image's convolution they are the fragments of the products, as words of two numbers, (..., 32 lanes, 2):
    `forward` (64 output channels, 3 rows of taps, 8 columns of these), `backward` (64 output channels, 3 columns of
    taps, 4 slices of 16 channels, 3 rows of taps).
    """

    precision: str
    forward: Array
    backward: Array
    bias: Array  # float32, padded to a multiple of 64
    channels_in: int
    channels_out: int


Filters = TensorFilters | PackedFilters


def pack_filters(kernel: NDArray[np.float32], bias: NDArray[np.float32], precision: str) -> Filters:
    """Packs a (3, 3, C_in, C_out) kernel and its (C_out,) bias, in host memory, for both directions.

    Raises ValueError for channel counts that a precision of 16 bits can't take.
    """
    _, _, channels_in, channels_out = kernel.shape
    image = channels_in == IMAGE_CHANNELS
    fits = channels_out % CHANNELS_MULTIPLE == 0 and (image or channels_in % CHANNELS_MULTIPLE == 0)
    if MEMORY[precision] == np.float32 and (image or not fits):
        return convolution.pack_filters(kernel, bias)
    if not fits:
        raise ValueError(f"{precision} takes channels in multiples of {CHANNELS_MULTIPLE}, not {channels_in} "
                         f"to {channels_out}; choose fp32")  # fmt: skip
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    pack = (_pack_image, _pack_to_image) if image else (_pack, _pack)
    padded_bias = np.pad(bias, (0, -channels_out % CHANNEL_GROUP)).astype(np.float32)
    forward, backward = pack[0](kernel, precision), pack[1](turned, precision)
    return TensorFilters(precision, forward, backward, padded_bias, channels_in, channels_out)


def workspace_bytes(height: int, width: int, channels_in: int, channels_out: int, precision: str, spec: GpuSpec) -> int:
    """Scratch memory that a convolution of these sizes needs, forward and backward."""
    if channels_in % CHANNELS_MULTIPLE or channels_out % CHANNELS_MULTIPLE:
        return convolution.workspace_bytes(height, width, channels_in, channels_out)
    directions = ((height, width, channels_in, channels_out), (height, width, channels_out, channels_in))
    return max(partial_bytes(choose(shape, precision, spec), shape) for shape in directions)


def partial_bytes(work: ConvPlan, shape: tuple[int, int, int, int]) -> int:
    """Scratch memory for the sums of the slices; none for a single one."""
    height, width, _, channels_out = shape
    return split_k_bytes(work.split_k, height * width * channels_out)


def conv3x3_relu(x: Array, filters: TensorFilters, spec: GpuSpec, *, out: Array | None, relu_mask: Array | None,
                 pooling: Pooling, pooled: Array | None, pool_argmax: Array | None, workspace: Array | None,
                 work: ConvPlan | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_relu`; `workspace` is uint8, `workspace_bytes` long. `work` overrides the model's choice."""
    height, width, channels_in = x.shape
    shape = (height, width, channels_in, filters.channels_out)
    outputs = (filters.bias, out, relu_mask, pooled, pool_argmax)
    results = (np.int32(height), np.int32(width), np.int32(filters.channels_out), np.int32(pooling == "average"))
    if channels_in == IMAGE_CHANNELS:
        tiles = ceil_div(height, IMAGE_TILE_HEIGHT) * ceil_div(width, TILE_WIDTH)
        grid = (tiles * ceil_div(filters.channels_out, CHANNEL_GROUP), 1, 1)
        name = MMA_SM80["relu", filters.precision, "rgb"]
        return [Launch(name, grid, (128, 1, 1), (x, filters.forward, *outputs, *results))]
    work = work or choose(shape, filters.precision, spec)
    partials = partials_in(workspace, partial_bytes(work, shape))
    name = MMA_SM80["relu", filters.precision, work.tile.name]
    args = (x, filters.forward, *outputs, partials, *map(np.int32, shape), results[-1])
    launch = Launch(name, work.grid, (work.tile.threads, 1, 1), args, work.shared_bytes)
    if work.split_k == 1:
        return [launch]
    args = (partials, *outputs, np.int32(work.split_k), *results)
    name = MMA_SM80["relu", filters.precision, "split_k_sum"]
    return [launch, Launch(name, finish_grid(height, width, shape[3]), (256, 1, 1), args)]


def conv3x3_input_gradient(gradient: Array, filters: TensorFilters, spec: GpuSpec, *, out: Array,
                           relu_mask: Array | None, accumulate: bool, workspace: Array | None,
                           work: ConvPlan | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_input_gradient`; `workspace` is uint8, `workspace_bytes` long. `work` overrides the choice."""
    height, width, channels_out = gradient.shape
    shape = (height, width, channels_out, filters.channels_in)
    if filters.channels_in == IMAGE_CHANNELS:
        grid = (ceil_div(height, GRADIENT_TILE_HEIGHT) * ceil_div(width, TILE_WIDTH), 1, 1)
        args = (gradient, filters.backward, out, relu_mask, *map(np.int32, shape[:3]), np.int32(accumulate))
        halo_bytes = (GRADIENT_TILE_HEIGHT + 2) * (TILE_WIDTH + 2) * ROW_BYTES
        name = MMA_SM80["input_gradient", filters.precision, "rgb"]
        return [Launch(name, grid, (128, 1, 1), args, halo_bytes)]
    work = work or choose(shape, filters.precision, spec)
    partials = partials_in(workspace, partial_bytes(work, shape))
    name = MMA_SM80["input_gradient", filters.precision, work.tile.name]
    args = (gradient, filters.backward, out, relu_mask, partials, *map(np.int32, shape), np.int32(accumulate))
    launch = Launch(name, work.grid, (work.tile.threads, 1, 1), args, work.shared_bytes)
    if work.split_k == 1:
        return [launch]
    sizes = (np.int32(work.split_k), np.int32(height), np.int32(width), np.int32(filters.channels_in))
    name = MMA_SM80["input_gradient", filters.precision, "split_k_sum"]
    args = (partials, out, relu_mask, *sizes, np.int32(accumulate))
    return [launch, Launch(name, finish_grid(height, width, shape[3]), (256, 1, 1), args)]


def _pack(kernel: NDArray[np.float32], precision: str) -> NDArray[Any]:
    """(3, 3, C, K) as `TensorFilters.forward` is laid out."""
    row = PRODUCTS[precision].row_channels
    _, _, channels, columns = kernel.shape
    taps = kernel.reshape(TAPS, channels, columns)
    padded = np.pad(taps, ((0, 0), (0, -channels % row), (0, -columns % CHANNEL_GROUP)))
    steps = padded.reshape(TAPS, -1, row, padded.shape[2]).transpose(1, 0, 3, 2)
    groups = steps.reshape(*steps.shape[:2], -1, len(COLUMNS), row)[:, :, :, COLUMNS]
    chunks = rounded(groups.reshape(*steps.shape[:3], CHUNKS, row // CHUNKS), precision)
    places = np.arange(CHUNKS) ^ (np.arange(padded.shape[2]) % CHUNKS)[:, None]
    packed = np.empty_like(chunks)
    np.put_along_axis(packed, places[None, None, :, :, None], chunks, axis=3)
    return packed


def _pack_image(kernel: NDArray[np.float32], precision: str) -> NDArray[np.uint32]:
    """(3, 3, 3, K) as the fragments (K / 64, 3 rows, 8 columns of fragments, 32 lanes, 2): a row of taps is a slice."""
    columns = kernel.shape[3]
    rows = np.pad(kernel.reshape(3, 9, columns), ((0, 0), (0, SLICE - 9), (0, -columns % CHANNEL_GROUP)))
    groups = rows.reshape(3, SLICE, -1, len(COLUMNS))[..., COLUMNS].reshape(3, SLICE, -1, 8, 8)
    return _fragments(groups.transpose(2, 0, 3, 1, 4), precision)


def _pack_to_image(kernel: NDArray[np.float32], precision: str) -> NDArray[np.uint32]:
    """(3, 3, C, 3) as the fragments (C / 64, 3 columns of taps, 4 slices, 3 rows of taps, 32 lanes, 2)."""
    channels = kernel.shape[2]
    padded = np.pad(kernel, ((0, 0), (0, 0), (0, -channels % CHANNEL_GROUP), (0, 8 - IMAGE_CHANNELS)))
    split_k = padded.reshape(3, 3, -1, CHANNEL_GROUP // SLICE, SLICE, 8)
    return _fragments(split_k.transpose(2, 1, 3, 0, 4, 5), precision)


def _fragments(matrices: NDArray[np.float32], precision: str) -> NDArray[np.uint32]:
    """(..., 16, 8) as B of mma.m16n8k16: word i of lane 4 g + t holds rows 8 i + 2 t and the next, of column g."""
    halves = rounded(matrices, precision).view(np.uint16).astype(np.uint32)
    words = halves[..., 0::2, :] | halves[..., 1::2, :] << np.uint32(16)  # (..., 8 pairs of rows, 8 columns)
    lanes = words.reshape(*words.shape[:-2], 2, 4, 8).swapaxes(-1, -3)  # (..., g, t, word)
    return np.ascontiguousarray(lanes.reshape(*words.shape[:-2], 32, 2))
