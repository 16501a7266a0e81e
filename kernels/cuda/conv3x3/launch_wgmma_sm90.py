"""Launching the 3x3 convolutions and the Gram matrix for Hopper's tensor cores (cuda/hopper_*.cu): filters, tensor
maps, tiles and grids.

bf16 or fp16 in and out, in memory as `tensor_convolution` has them, and sums in fp32; for compute capability 9.0 and
for the emulator, and for channels that are multiples of eight on both sides: the copy engine wants 16-byte rows. The
Gram matrix is float32, and without weights: with them `tensor_gram` has it. The kernels find their inputs not by
pointers but by tensor maps, 128 bytes that say where an array lies and what box of it is to be loaded: the driver
encodes them (`encode_with_driver`, by ctypes), or for the emulator `encode_for_emulator`.

Everything else here is arithmetic on shapes and needs no GPU. How far `choose_work` is from what an
H100 takes is in benchmarks/results. `problem_with` runs every kernel once on a small layer; nobody should use them on a
GPU where `known_problem`, which asks it in a process of its own and remembers the answer, has something to say.
"""

import ctypes
import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...cache import cache_directory, cached, digest
from ...device import Array, Pooling
from ...errors import DeviceError, OutOfMemoryError
from ...reference import Reference
from ..gram.launch_simt import GramWork, add_slices
from ..runtime.cupy_runtime import CudaRuntime
from ..runtime.launch import Launch
from ..runtime.nvrtc import FOLDER, cubin_key, find_nvrtc
from ..runtime.protocol import Runtime
from .launch_mma_sm80 import MEMORY, rounded, widened

_log = logging.getLogger("nstgpu")

Element = Literal["bf16", "fp16"]

ELEMENT_BYTES = 2
CHANNELS = 8  # activations have a multiple of them: 16 bytes
STEP_CHANNELS = 64  # 128 bytes, the span of the swizzle: `step_channels` in cuda/conv3x3/wgmma_layout.cuh
BOX_WIDTH, BOX_HEIGHT, LOADED_ROWS = 8, 16, 18  # the box's, likewise
THREADS = 384
MULTIPROCESSORS = 132  # of an H100 or H200 in an SXM module

WORTH_SPLITTING = 4  # steps of a Gram matrix; what a shorter slice saves is lost in adding it up

# What `choose_work` reckons with, in clocks of one multiprocessor.
PRODUCTS_PER_CLOCK = 2048  # 16-bit multiply-adds of the tensor cores
L2_BYTES_PER_CLOCK = 46  # its share of 10.8 TB/s, at 1755 MHz
EPILOGUE_SUMS_PER_CLOCK = 8  # a guess: bias, masks and stores; no tensor core works meanwhile if `together`
UNHIDDEN = 0.25  # a guess: of products and loads, how much of the shorter the longer does not hide
SECOND_LAUNCH_CLOCKS = 4000  # a guess: 2 us


@dataclass(frozen=True)
class TensorMap:
    """An array of 16-bit elements, and the box of it that one load takes; the innermost dimension first."""

    address: int
    element: Element
    sizes: tuple[int, int, int]
    box: tuple[int, int, int]

    @property
    def pitches(self) -> tuple[int, int]:
        """Bytes from one row to the next, and from one plane to the next."""
        row = self.sizes[0] * ELEMENT_BYTES
        return row, row * self.sizes[1]


Encode = Callable[[TensorMap], NDArray[Any]]
ENCODED = np.dtype([("words", np.uint64, 16)])  # one of these is passed to a kernel by value


class Target(NamedTuple):
    """What of a runtime the launches depend on; `target_of` makes it."""

    address: Callable[[Array], int]
    encode: Encode
    multiprocessors: int = MULTIPROCESSORS
    """Blocks to launch at most. Results do not depend on it."""


class PackedFilters(NamedTuple):
    """A convolution's weights as 16-bit numbers, for both directions: `forward` (C_out, 9, C_in), taps in reading
    order; `backward` (C_in, 9, C_out), turned by 180 degrees. The bias is float32."""

    forward: Array
    backward: Array
    bias: Array
    channels_in: int
    channels_out: int
    element: Element


@dataclass(frozen=True)
class Tile:
    """What one block computes at a time, by one of the kernels' variants: `Tile` in cuda/conv3x3/wgmma_sm90.cuh."""

    variant: str
    boxes: int  # side by side
    channels: int
    together: bool  # both consumers at one item, instead of taking turns
    pixel_stages: int
    filter_stages: int

    @property
    def width(self) -> int:
        return self.boxes * BOX_WIDTH

    @property
    def step_bytes(self) -> int:
        """Loaded for 64 channels of a column of three taps."""
        return (self.boxes * LOADED_ROWS * BOX_WIDTH + 3 * self.channels) * STEP_CHANNELS * ELEMENT_BYTES

    @property
    def shared_bytes(self) -> int:
        row = STEP_CHANNELS * ELEMENT_BYTES
        pixels = self.pixel_stages * self.boxes * LOADED_ROWS * BOX_WIDTH * row
        filters = self.filter_stages * self.channels * row
        return pixels + filters + 8 * 4096 + 16 * (self.pixel_stages + self.filter_stages + 1)


TILES = (
    Tile("256x128", 2, 128, True, 3, 5),
    Tile("128x128", 1, 128, False, 4, 7),
    Tile("64x256", 2, 64, False, 4, 6),
)


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


class Work(NamedTuple):
    """A convolution cut up: `down` x `across` tiles of pixels, `channel_tiles`, and the sum in `slices`."""

    tile: Tile
    down: int
    across: int
    channel_tiles: int
    slices: int

    @property
    def items(self) -> int:
        return self.down * self.across * self.channel_tiles * self.slices


# ---- tensor maps ----------------------------------------------------------------------------------------------------
def activations_map(address: int, element: Element, shape: tuple[int, int, int]) -> TensorMap:
    """Of (H, W, C): a box of 64 channels, 8 pixels and 18 rows."""
    height, width, channels = shape
    return TensorMap(address, element, (channels, width, height), (STEP_CHANNELS, BOX_WIDTH, LOADED_ROWS))


def filters_map(address: int, element: Element, channels_in: int, channels_out: int, tile: Tile) -> TensorMap:
    """Of (C_out, 9, C_in): a box of 64 channels of one tap of as many filters as the tile has."""
    return TensorMap(address, element, (channels_in, 9, channels_out), (STEP_CHANNELS, 1, tile.channels))


def features_map(address: int, element: Element, shape: tuple[int, int, int], tile: GramTile) -> TensorMap:
    """Of (H, W, C), whose pixels are counted through: a box of 64 channels of as many pixels as the tile's steps."""
    height, width, channels = shape
    return TensorMap(address, element, (channels, height * width, 1), (STEP_CHANNELS, tile.depth, 1))


def encode_for_emulator(tensor_map: TensorMap) -> NDArray[Any]:
    """As cuda/common/ptx_sm90.cuh reads it: address, sizes, pitches, box, mark."""
    encoded = np.zeros(1, ENCODED)
    words = (tensor_map.address, *tensor_map.sizes, *tensor_map.pitches, *tensor_map.box)
    encoded["words"][0, :10] = (*words, int.from_bytes(b"tnsormap", "little"))
    return encoded


# The driver's numbers: CUtensorMapDataType, and for the rest CU_TENSOR_MAP_...
_DATA_TYPES = {"fp16": 6, "bf16": 9}
_INTERLEAVE_NONE, _SWIZZLE_128B, _L2_PROMOTION_256B, _OOB_FILL_ZEROS = 0, 3, 3, 0


@functools.lru_cache(maxsize=1024)
def encode_with_driver(tensor_map: TensorMap) -> NDArray[Any]:
    """By the driver's cuTensorMapEncodeTiled; raises DeviceError where there is none, or where it refuses."""
    room = (ctypes.c_ubyte * 192)()
    start = -ctypes.addressof(room) % 64  # the driver wants it so aligned
    status = _driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(ctypes.addressof(room) + start),
        ctypes.c_int(_DATA_TYPES[tensor_map.element]),
        ctypes.c_uint32(3),
        ctypes.c_void_p(tensor_map.address),
        (ctypes.c_uint64 * 3)(*tensor_map.sizes),
        (ctypes.c_uint64 * 2)(*tensor_map.pitches),
        (ctypes.c_uint32 * 3)(*tensor_map.box),
        (ctypes.c_uint32 * 3)(1, 1, 1),
        *map(ctypes.c_int, (_INTERLEAVE_NONE, _SWIZZLE_128B, _L2_PROMOTION_256B, _OOB_FILL_ZEROS)),
    )
    if status != 0:
        raise DeviceError(f"cuTensorMapEncodeTiled: error {status} for {tensor_map}")
    encoded = np.zeros(1, ENCODED)
    ctypes.memmove(encoded.ctypes.data, ctypes.addressof(room) + start, encoded.nbytes)
    return encoded


@functools.cache
def _driver() -> Any:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise DeviceError("no NVIDIA driver was found on this machine, which is to encode tensor maps") from error
    if not hasattr(driver, "cuTensorMapEncodeTiled"):
        raise DeviceError("the NVIDIA driver knows no tensor maps: install version 525 or newer")
    return driver


def target_of(runtime: Runtime, multiprocessors: int = MULTIPROCESSORS) -> Target:
    """How launches for this runtime find their arrays."""
    encode = encode_for_emulator if runtime.name == "emulator" else encode_with_driver
    return Target(runtime.address, encode, multiprocessors)


# ---- filters --------------------------------------------------------------------------------------------------------
def serves(channels_in: int, channels_out: int) -> bool:
    """Whether these kernels can convolve from and to so many channels, in both directions."""
    return channels_in % CHANNELS == 0 and channels_out % CHANNELS == 0


def pack_filters(kernel: NDArray[np.float32], bias: NDArray[np.float32], element: Element) -> PackedFilters:
    """Packs a (3, 3, C_in, C_out) kernel and its (C_out,) bias, in host memory, for both directions."""
    channels_in, channels_out = kernel.shape[2:]
    if not serves(channels_in, channels_out):
        raise ValueError(f"{channels_in} to {channels_out} channels; both must be multiples of {CHANNELS}")
    values = rounded(kernel, element)
    forward = values.reshape(9, channels_in, channels_out).transpose(2, 0, 1)
    backward = values[::-1, ::-1].reshape(9, channels_in, channels_out).transpose(1, 0, 2)
    return PackedFilters(
        np.ascontiguousarray(forward), np.ascontiguousarray(backward), np.ascontiguousarray(bias, np.float32),
        channels_in, channels_out, element,
    )  # fmt: skip


# ---- tiles and slices -----------------------------------------------------------------------------------------------
def choose_work(height: int, width: int, channels_in: int, channels_out: int) -> Work:
    """The tile and the slices with the least clocks by `reckoned_clocks`; of equals the first tile, the fewest slices.

    A function of the shapes alone, so that the same convolution is added up in the same order on every GPU.
    """
    candidates = (cut_up(tile, height, width, channels_in, channels_out, slices) for tile in TILES
                  for slices in _worthwhile_slices(tile, height, width, channels_in, channels_out))  # fmt: skip
    return min(candidates, key=lambda work: reckoned_clocks(work, channels_in))


def cut_up(tile: Tile, height: int, width: int, channels_in: int, channels_out: int, slices: int = 1) -> Work:
    """This tile over everything; every slice has at least one step."""
    if not 1 <= slices <= _steps(channels_in):
        raise ValueError(f"{slices} slices of {_steps(channels_in)} steps")
    down, across = _ceil_div(height, BOX_HEIGHT), _ceil_div(width, tile.width)
    return Work(tile, down, across, _ceil_div(channels_out, tile.channels), slices)


def reckoned_clocks(work: Work, channels_in: int) -> float:
    """How long one multiprocessor is busy: the rounds of items, each bound by tensor cores or by L2, and epilogues,
    which consumers that take turns hide behind each other's products, up to the last."""
    tile = work.tile
    sums = tile.width * BOX_HEIGHT * tile.channels
    times = sums * 3 * STEP_CHANNELS / PRODUCTS_PER_CLOCK, tile.step_bytes / L2_BYTES_PER_CLOCK
    products = _ceil_div(_steps(channels_in), work.slices) * (max(times) + UNHIDDEN * min(times))
    epilogue = sums / EPILOGUE_SUMS_PER_CLOCK
    rounds = _ceil_div(work.items, MULTIPROCESSORS)
    clocks = rounds * products + (rounds if tile.together else 1) * epilogue
    if work.slices > 1:  # written as fp32, and read again
        clocks += SECOND_LAUNCH_CLOCKS + 8 * sums * work.items / MULTIPROCESSORS / L2_BYTES_PER_CLOCK
    return clocks


def partial_bytes(work: Work, height: int, width: int, channels_out: int) -> int:
    """Scratch memory for the sums of the slices; none for a single one."""
    return work.slices * height * width * channels_out * 4 if work.slices > 1 else 0


def workspace_bytes(height: int, width: int, channels_in: int, channels_out: int) -> int:
    """Scratch memory that a convolution of these sizes needs, forward and backward."""
    forward = choose_work(height, width, channels_in, channels_out)
    backward = choose_work(height, width, channels_out, channels_in)
    return max(partial_bytes(forward, height, width, channels_out), partial_bytes(backward, height, width, channels_in))


# ---- launches -------------------------------------------------------------------------------------------------------
def conv3x3_relu(x: Array, filters: PackedFilters, *, out: Array | None, mask: Array | None, pooling: Pooling,
                 pooled: Array | None, choice: Array | None, workspace: Array | None, target: Target,
                 work: Work | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_relu` on 16-bit activations; `workspace` is uint8, `workspace_bytes` long.

    Arrays begin at multiples of 16 bytes, and the caller keeps `x` alive, for the launches hold but its address. `work`
    is for tests and benchmarks; None chooses. Raises ValueError for a workspace too small, DeviceError from the driver.
    """
    height, width, channels_in = x.shape
    channels_out = filters.channels_out
    work = work or choose_work(height, width, channels_in, channels_out)
    partials = _partials_in(workspace, work, (height, width, channels_out))
    outputs = (filters.bias, out, mask, pooled, choice)
    average = np.int32(pooling == "average")
    maps = _maps(x, filters.forward, filters.element, work.tile, target)
    args = (*maps, *outputs, partials, *_sizes(height, width, channels_in, channels_out, work.slices), average)
    launches = [_launch("forward", work, filters.element, args, target)]
    if work.slices > 1:
        sliced = (partials, *outputs, *_sizes(work.slices, height, width, channels_out), average)
        launches.append(_finish("forward", filters.element, (height, width, channels_out), sliced))
    return launches


def conv3x3_input_gradient(gradient: Array, filters: PackedFilters, *, out: Array, mask: Array | None,
                           accumulate: bool, workspace: Array | None, target: Target,
                           work: Work | None = None) -> list[Launch]:  # fmt: skip
    """`Device.conv3x3_input_gradient` on 16-bit gradients; otherwise as `conv3x3_relu`."""
    height, width, channels_out = gradient.shape
    channels_in = filters.channels_in
    work = work or choose_work(height, width, channels_out, channels_in)
    partials = _partials_in(workspace, work, (height, width, channels_in))
    maps = _maps(gradient, filters.backward, filters.element, work.tile, target)
    args = (*maps, out, mask, partials, *_sizes(height, width, channels_out, channels_in, work.slices),
            np.int32(accumulate))  # fmt: skip
    launches = [_launch("backward", work, filters.element, args, target)]
    if work.slices > 1:
        sliced = (partials, out, mask, *_sizes(work.slices, height, width, channels_in), np.int32(accumulate))
        launches.append(_finish("backward", filters.element, (height, width, channels_in), sliced))
    return launches


# ---- the Gram matrix ------------------------------------------------------------------------------------------------
def serves_gram(channels: int) -> bool:
    """Whether `gram` takes features of so many channels."""
    return channels % CHANNELS == 0


def choose_gram(height: int, width: int, channels: int, slices: int | None = None) -> GramWork:
    """Tiles on and above the diagonal, narrow where one holds everything; slices, if they are not given, until every
    multiprocessor has a block, as long as each has a few steps. Like `choose_work` a function of the shape alone."""
    tile = _gram_tile(channels)
    across, steps = _ceil_div(channels, tile.side), _ceil_div(height * width, tile.depth)
    tiles = across * (across + 1) // 2
    slices = slices or max(1, min(MULTIPROCESSORS // tiles, steps // WORTH_SPLITTING))
    if slices > steps:
        raise ValueError(f"{slices} slices of {steps} steps")
    return GramWork(tile.variant, tile.side, tile.threads, 1, tiles, slices)


def gram_workspace_bytes(height: int, width: int, channels: int) -> int:
    """Scratch memory that `gram` needs for features of this shape."""
    return choose_gram(height, width, channels).nbytes


def gram(features: Array, out: Array, workspace: Array, target: Target, slices: int | None = None) -> list[Launch]:
    """`Device.gram` without weights, of features in 16 bits; `workspace` is uint8, `gram_workspace_bytes` long, and
    `slices` are for tests and benchmarks. Otherwise as `conv3x3_relu`."""
    height, width, channels = features.shape
    tile, work = _gram_tile(channels), choose_gram(height, width, channels, slices)
    if workspace.nbytes < work.nbytes:
        raise ValueError(f"the workspace has {workspace.nbytes} bytes of {work.nbytes}")
    element: Element = "fp16" if features.dtype == MEMORY["fp16"] else "bf16"
    encoded = target.encode(features_map(target.address(features), element, features.shape, tile))
    args = (encoded, workspace, *_sizes(height * width, channels))
    grid, block = (work.tiles, work.slices, 1), (tile.threads, 1, 1)
    products = Launch(f"hopper_{element}_gram_{tile.variant}", grid, block, args, tile.shared_bytes)
    return [products, add_slices(work, features.shape, workspace, out)]


def _gram_tile(channels: int) -> GramTile:
    narrow, wide = GRAM_TILES
    return narrow if channels <= narrow.side else wide


def _maps(x: Array, filters: Array, element: Element, tile: Tile, target: Target) -> tuple[NDArray[Any], NDArray[Any]]:
    channels_out, _, channels_in = filters.shape
    of_pixels = activations_map(target.address(x), element, x.shape)
    of_filters = filters_map(target.address(filters), element, channels_in, channels_out, tile)
    return target.encode(of_pixels), target.encode(of_filters)


def _launch(direction: str, work: Work, element: Element, args: tuple[object, ...], target: Target) -> Launch:
    kernel = f"hopper_{element}_{direction}_{work.tile.variant}"
    grid = (min(work.items, target.multiprocessors), 1, 1)
    return Launch(kernel, grid, (THREADS, 1, 1), args, work.tile.shared_bytes)


def _finish(direction: str, element: Element, shape: tuple[int, int, int], args: tuple[object, ...]) -> Launch:
    height, width, channels = shape
    threads = _ceil_div(height, 2) * _ceil_div(width, 2) * (channels // CHANNELS)
    grid = (_ceil_div(threads, 256), 1, 1)
    return Launch(f"hopper_{element}_{direction}_slices", grid, (256, 1, 1), args)


def _partials_in(workspace: Array | None, work: Work, shape: tuple[int, int, int]) -> Array | None:
    """The workspace if there are slices to keep, else None: how a kernel knows that it is to finish by itself."""
    needed = partial_bytes(work, *shape)
    if needed == 0:
        return None
    if workspace is None or workspace.nbytes < needed:
        raise ValueError(f"the workspace has {0 if workspace is None else workspace.nbytes} bytes of {needed}")
    return workspace


def _worthwhile_slices(tile: Tile, height: int, width: int, channels_in: int, channels_out: int) -> Iterator[int]:
    """As many as one wave of blocks has room for, and none without two steps."""
    items = cut_up(tile, height, width, channels_in, channels_out).items
    return iter(range(1, max(1, min(MULTIPROCESSORS // items, _steps(channels_in) // 2)) + 1))


def _steps(channels_in: int) -> int:
    return 3 * _ceil_div(channels_in, STEP_CHANNELS)


def _sizes(*sizes: int) -> tuple[np.int32, ...]:
    return tuple(map(np.int32, sizes))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


# ---- the self-test --------------------------------------------------------------------------------------------------
SELF_TEST_SHAPE = (19, 21, 72, 136)  # tiles, channels and steps that end within a box, and more than one of each
SELF_TEST_BOUND = {"bf16": 2.0**-7, "fp16": 2.0**-10}  # twice what rounding the result takes, of the largest
GRAM_TEST_SHAPES = ((31, 29, 56), (13, 31, 136))  # for each tile: likewise, and more steps than stages
GRAM_TEST_BOUND = 2.0**-16  # sums of a few hundred terms in fp32
SELF_TEST_SECONDS = 120  # in which a kernel that never ends is given up


def known_problem(runtime: Runtime, element: Element) -> str | None:
    """`problem_with` these kernels in one element type, found out without harm.

    On a GPU in a process of its own, whatever becomes of that; the answer is kept on disk, beside the compiled kernels,
    for as long as kernels, driver and this module stay the same. A test that could not be carried out is a problem too,
    but is not kept.
    """
    if not isinstance(runtime, CudaRuntime):
        return problem_with(runtime, runtime.spec.multiprocessors, (element,))
    index = runtime.allocate(1).data.device_id

    def produce(target: Path) -> None:
        target.write_text(json.dumps(_problem_alone(index, element)))

    try:
        key = _self_test_key(element, runtime.architecture)
        problem: str | None = json.loads(cached(cache_directory("cubin"), key, ".json", produce).content)
    except (OSError, DeviceError) as error:
        return f"they could not be tested: {error}"
    return problem


def _self_test_key(element: Element, architecture: str) -> str:
    """Names all that the answer depends on."""
    version = ctypes.c_int()
    _driver().cuDriverGetVersion(ctypes.byref(version))
    sources = (FOLDER / "instantiations" / f"sm90_{element}.cu", FOLDER / "gram" / "simt.cu")
    kernels = [cubin_key(find_nvrtc().version, source, architecture) for source in sources]
    return digest(repr((kernels, version.value)).encode() + Path(__file__).read_bytes())


def _problem_alone(index: int, element: Element) -> str | None:
    """`problem_with` as another process finds it; raises DeviceError or OSError where that comes to no answer."""
    _log.info("testing the kernels for tensor cores (first run only)")
    command = [sys.executable, "-m", __name__, str(index), element]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"their test did not end in {SELF_TEST_SECONDS} s"
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines() or ["nothing"]
        raise DeviceError(f"the test ended with code {ended.returncode} and said: {said[-1]}")
    answer: str | None = json.loads(ended.stdout.splitlines()[-1])
    return answer


def problem_with(
    runtime: Runtime, multiprocessors: int = MULTIPROCESSORS, elements: Sequence[Element] = ("bf16", "fp16")
) -> str | None:
    """What is wrong with these kernels on this runtime, in one line; None if they compute what they should.

    Runs each kernel of every tile once, forward and backward, and of the Gram matrix, in these element types, against
    float64. A fault of a kernel (a trap, an illegal access) makes a GPU unusable for the whole process: call this in
    one of its own first.
    """
    target = target_of(runtime, multiprocessors)
    for element in elements:
        tests: list[tuple[str, float, Callable[[int], float]]] = [
            (f"tile {tile.variant}", SELF_TEST_BOUND[element],
             functools.partial(_self_test_error, runtime, target, element, tile)) for tile in TILES
        ]  # fmt: skip
        tests += [
            (f"gram {tile.variant}", GRAM_TEST_BOUND,
             functools.partial(_gram_test_error, runtime, target, element, shape))
            for tile, shape in zip(GRAM_TILES, GRAM_TEST_SHAPES, strict=True)
        ]  # fmt: skip
        for what, bound, test in tests:
            for slices in (1, 2):
                try:
                    error = test(slices)
                except OutOfMemoryError:
                    raise  # which says nothing of the kernels
                except DeviceError as problem:
                    return f"{what} in {element}: {problem}"
                if not error <= bound:  # so that a NaN is a problem
                    return f"{what} in {element}, {slices} slices: off by {error:.2g} of the largest value"
    return None


def _self_test_error(runtime: Runtime, target: Target, element: Element, tile: Tile, slices: int) -> float:
    """The largest error of activations and input gradients, relative to the largest of each."""
    height, width, channels_in, channels_out = SELF_TEST_SHAPE
    random = np.random.default_rng(0)
    kernel = random.standard_normal((3, 3, channels_in, channels_out)) / (3 * np.sqrt(channels_in))
    filters = pack_filters(kernel.astype(np.float32), np.zeros(channels_out, np.float32), element)
    x = rounded(random.standard_normal((height, width, channels_in)).astype(np.float32), element)
    gradient = rounded(random.standard_normal((height, width, channels_out)).astype(np.float32), element)

    held = functools.partial(_held, runtime)
    on_device = filters._replace(
        forward=held(filters.forward), backward=held(filters.backward), bias=held(filters.bias)
    )
    x_held, gradient_held = held(x), held(gradient)
    y, back = held(np.zeros_like(gradient)), held(np.zeros_like(x))
    forward = cut_up(tile, height, width, channels_in, channels_out, slices)
    backward = cut_up(tile, height, width, channels_out, channels_in, slices)
    room = max(partial_bytes(forward, height, width, channels_out), partial_bytes(backward, height, width, channels_in))
    workspace = runtime.allocate(room)
    for launch in (
        *conv3x3_relu(x_held, on_device, out=y, mask=None, pooling="max", pooled=None, choice=None,
                      workspace=workspace, target=target, work=forward),
        *conv3x3_input_gradient(gradient_held, on_device, out=back, mask=None, accumulate=False,
                                workspace=workspace, target=target, work=backward),
    ):  # fmt: skip
        runtime.launch(launch)

    reference = Reference()
    exact = reference.pack_filters(
        widened(filters.forward, element).transpose(1, 2, 0).reshape(kernel.shape), filters.bias
    )
    expected_y = np.empty(gradient.shape)
    expected_back = np.empty(x.shape)
    reference.conv3x3_relu(widened(x, element).astype(np.float64), exact, out=expected_y, mask=None, pooling="max",
                           pooled=None, choice=None)  # fmt: skip
    reference.conv3x3_input_gradient(widened(gradient, element).astype(np.float64), exact, out=expected_back,
                                     mask=None, accumulate=False)  # fmt: skip
    return max(
        float(np.max(np.abs(widened(runtime.download(ours), element) - expected)) / np.max(np.abs(expected)))
        for ours, expected in ((y, expected_y), (back, expected_back))
    )


def _gram_test_error(
    runtime: Runtime, target: Target, element: Element, shape: tuple[int, int, int], slices: int
) -> float:
    """The largest error of the Gram matrix of features of this shape, relative to its largest number."""
    features = rounded(np.random.default_rng(0).standard_normal(shape).astype(np.float32), element)
    features_held, out = _held(runtime, features), _held(runtime, np.zeros((shape[2], shape[2]), np.float32))
    workspace = runtime.allocate(choose_gram(*shape, slices).nbytes)
    for launch in gram(features_held, out, workspace, target, slices):
        runtime.launch(launch)
    expected = np.empty(out.shape)
    Reference().gram(widened(features, element).astype(np.float64), expected)
    return float(np.max(np.abs(runtime.download(out) - expected)) / np.max(np.abs(expected)))


def _held(runtime: Runtime, values: NDArray[Any]) -> Array:
    room = runtime.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
    runtime.upload(values, room)
    return room


if __name__ == "__main__":  # what `_problem_alone` calls, with the number of a GPU and an element type
    chosen: Element = "fp16" if sys.argv[2] == "fp16" else "bf16"
    print(json.dumps(problem_with(CudaRuntime(int(sys.argv[1]), chosen), elements=(chosen,))))
