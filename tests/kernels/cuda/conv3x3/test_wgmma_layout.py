"""The address arithmetic of the Hopper convolutions (cuda/conv3x3/wgmma_layout.cuh) against brute force: the swizzle,
matrix descriptors, boxes and coordinates, the sums' places, the epilogue's room and the cutting up of the work."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.devices import compiled
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as hopper
from nstgpu.kernels.cuda.gram import launch_wgmma_sm90 as wgmma_gram
from nstgpu.kernels.cuda.runtime import tensor_map
from nstgpu.kernels.emulator import Library

STEP, WIDTH, HEIGHT, LOADED = tensor_map.STEP_CHANNELS, hopper.BOX_WIDTH, hopper.BOX_HEIGHT, hopper.LOADED_ROWS
BANKS = 32


@pytest.fixture(scope="module")
def probe() -> Library:
    return compiled(Path(__file__).parent / "wgmma_layout_probe.cu")


def ask(probe: Library, kernel: str, *args: Any) -> None:
    probe.launch(kernel, 1, 1, [np.int32(arg) if isinstance(arg, int) else arg for arg in args])


# ---- shared memory --------------------------------------------------------------------------------------------------
def shared_image(rows: np.ndarray) -> np.ndarray:
    """Rows of 64 numbers as the copy engine leaves them: chunk c of row r at chunk c ^ (r % 8), as CUDA's manual draws
    it, in units of 2 bytes."""
    image = np.empty(rows.size, rows.dtype)
    for r, c in itertools.product(range(len(rows)), range(8)):
        at = r * 64 + (c ^ r % 8) * 8
        image[at : at + 8] = rows[r, c * 8 : c * 8 + 8]
    return image


def read_matrix(image: np.ndarray, descriptor: int, rows: int) -> np.ndarray:
    """The (rows, 16) matrix that wgmma finds by a descriptor: fields and addresses as PTX's manual has them."""
    start, group = (descriptor & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4
    assert descriptor >> 62 == 1, "128-byte swizzle"
    assert descriptor >> 49 & 7 == 0, "base offset"
    address = np.arange(rows)[:, None] // 8 * group + np.arange(rows)[:, None] % 8 * 128 + np.arange(16) * 2 + start
    chunk, row = address >> 4 & 7, address >> 7 & 7
    return image[((address & ~0x70) | (chunk ^ row) << 4) // 2]


def test_the_swizzle_is_the_manuals(probe: Library) -> None:
    out = np.empty(4096, np.uint32)
    ask(probe, "probe_swizzled", out, 4096)
    rows = np.arange(4096 // 2).reshape(-1, 64)
    image = shared_image(rows)
    np.testing.assert_array_equal(image[out[::2] // 2], rows.reshape(-1))
    np.testing.assert_array_equal(out[1::2], out[::2] + 1)


@pytest.mark.parametrize("address", [1024, 40 * 1024])
def test_descriptors_find_every_tap_in_one_loaded_box(probe: Library, address: int) -> None:
    """For every block, vertical tap and 16 channels: the rows that wgmma reads are the pixels the convolution wants."""
    box = np.arange(LOADED * WIDTH * STEP).reshape(LOADED, WIDTH, STEP)  # every number another one
    image = np.full(address // 2 + box.size, -1)
    image[address // 2 :] = shared_image(box.reshape(-1, STEP))
    offsets = np.empty((2, 3, 4), np.uint32)
    ask(probe, "probe_block_offsets", offsets)
    descriptor = np.empty(1, np.uint64)
    for block, tap_row, k in itertools.product(range(2), range(3), range(4)):
        ask(probe, "probe_descriptor", descriptor, np.uint32(address), offsets[block, tap_row, k])
        wanted = box[8 * block + tap_row : 8 * block + tap_row + 8, :, 16 * k : 16 * k + 16]
        np.testing.assert_array_equal(read_matrix(image, int(descriptor[0]), 64), wanted.reshape(64, 16))
        if block == 0:  # turned: both blocks as 128 columns
            wanted = box[tap_row : tap_row + 16, :, 16 * k : 16 * k + 16]
            np.testing.assert_array_equal(read_matrix(image, int(descriptor[0]), 128), wanted.reshape(128, 16))


def test_descriptors_find_the_filters(probe: Library) -> None:
    filters = np.arange(128 * STEP).reshape(128, STEP)
    image = np.concatenate([np.full(1024, -1), shared_image(filters)])
    descriptor = np.empty(1, np.uint64)
    for k in range(4):
        ask(probe, "probe_descriptor", descriptor, np.uint32(2048), np.uint32(32 * k))
        np.testing.assert_array_equal(read_matrix(image, int(descriptor[0]), 128), filters[:, 16 * k : 16 * k + 16])


def read_across(image: np.ndarray, descriptor: int, rows: int) -> np.ndarray:
    """The (rows, 16) matrix that wgmma finds where it is told that the operand is transposed: PTX's canonical layout
    ((T, 8, m), (8, k)) : ((1, T, leading), (8 T, stride)) of the 128-byte swizzle, T being 8 elements."""
    start, leading, stride = (descriptor & 0x3FFF) << 4, descriptor >> 16 & 0x3FFF, descriptor >> 32 & 0x3FFF
    assert descriptor >> 62 == 1, "128-byte swizzle"
    assert descriptor >> 49 & 7 == 0, "base offset"
    matrix = np.empty((rows, 16), image.dtype)
    for i, j, m, place, k in itertools.product(range(8), range(8), range(rows // 64), range(8), range(2)):
        element = i + j * 8 + m * leading * 8 + place * 64 + k * stride * 8  # fields are in units of 8 elements
        address = start + 2 * element
        chunk = (address >> 4 & 7) ^ (address >> 7 & 7)
        matrix[i + 8 * j + 64 * m, place + 8 * k] = image[((address & ~0x70) | chunk << 4) // 2]
    return matrix


@pytest.mark.parametrize("tile", wgmma_gram.GRAM_TILES, ids=lambda tile: tile.variant)
def test_descriptors_find_channels_that_lie_across(probe: Library, tile: wgmma_gram.GramTile) -> None:
    """For every 16 pixels of a step: all the tile's channels, and the last 64, as a consumer's rows, alone."""
    features = np.arange(tile.depth * tile.side).reshape(tile.depth, tile.side)  # every number another one
    boxes = [shared_image(features[:, 64 * box : 64 * box + 64]) for box in range(tile.side // 64)]
    base, box_bytes = 16 * 1024, tile.depth * 128
    image = np.concatenate([np.full(base // 2, -1), *boxes])
    descriptor = np.empty(1, np.uint64)
    for k in range(tile.depth // 16):
        wanted = features[16 * k : 16 * k + 16].T
        for first in (0, tile.side - 64):
            address = base + first // 64 * box_bytes
            ask(probe, "probe_across_descriptor", descriptor, np.uint32(address), np.uint32(box_bytes), k)
            found = read_across(image, int(descriptor[0]), tile.side - first)
            np.testing.assert_array_equal(found, wanted[first:])


@pytest.mark.parametrize("columns", [64, 128])
def test_sums_lie_as_the_manual_says(probe: Library, columns: int) -> None:
    """Of a thread: rows 16 w + l / 4 and 8 more, columns 8 j + 2 (l % 4) and the next, w the warp and l the lane."""
    count = columns // 2
    rows, places = np.empty((128, count), np.int32), np.empty((128, count), np.int32)
    ask(probe, "probe_sums", rows, places, count)
    for thread, j, half, pair in itertools.product(range(128), range(columns // 8), range(2), range(2)):
        warp, lane = divmod(thread, 32)
        i = 4 * j + 2 * half + pair
        assert (rows[thread, i], places[thread, i]) == (16 * warp + lane // 4 + 8 * half, 8 * j + 2 * (lane % 4) + pair)
    assert len(set(zip(rows.flat, places.flat, strict=True))) == 64 * columns


def passes(addresses: np.ndarray) -> int:
    """How often the fullest bank is asked for another word: addresses in floats, of lanes that are served together."""
    words = np.unique(addresses)
    return int(np.bincount(words % BANKS, minlength=BANKS).max())


def test_the_epilogues_room_holds_everything_and_banks_are_not_asked_twice(probe: Library) -> None:
    wide, narrow = np.empty((16, 16), np.int32), np.empty((64, 4), np.int32)
    ask(probe, "probe_staged", wide, narrow)
    for places in (wide, narrow):
        np.testing.assert_array_equal(np.sort(places, axis=None), np.arange(0, 1024, 4))
    lane = np.arange(32)
    row, pair = lane // 4, lane % 4 * 2
    for half, j in itertools.product(range(2), range(8)):  # sums as float2, sixteen lanes at a time
        column = 8 * j + pair
        at = wide[row + 8 * half, column // 4] + column % 4
        assert all(passes(np.concatenate([at[part], at[part] + 1])) == 1 for part in (slice(16), slice(16, 32)))
        for second in range(2):  # turned, one by one
            channel = row + 8 * half
            assert passes(narrow[8 * j + pair + second, channel // 4] + channel % 4) <= 2
    for places, eights, most in ((wide, 8, 1), (narrow, 2, 2)):  # squares as float4, eight lanes at a time
        square, eight = lane // eights, lane % eights
        for r, s, quad in itertools.product(range(2), range(2), range(2)):
            at = places[(2 * (square // 4) + r) * 8 + 2 * (square % 4) + s, 2 * eight + quad]
            words = at.reshape(4, 8)[..., None] + np.arange(4)
            assert all(passes(together) <= most for together in words)


# ---- the cutting up -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tile", hopper.TILES, ids=lambda tile: tile.variant)
@pytest.mark.parametrize(("shape", "split_k"), [((33, 40, 64, 72), 1), ((16, 17, 136, 264), 4), ((1, 1, 8, 8), 3)])
def test_items_cover_everything_once(
    probe: Library, tile: hopper.Tile, shape: tuple[int, int, int, int], split_k: int
) -> None:
    height, width, channels_in, channels_out = shape
    work = hopper.cut_up(tile, *shape, split_k=split_k)
    steps = 3 * -(-channels_in // STEP)
    items = np.empty((work.items, 6), np.int32)
    ask(probe, "probe_items", items, work.items, work.across, work.channel_tiles, split_k, steps,
        work.down * work.across, tile.width, tile.channels)  # fmt: skip
    done = np.zeros((work.down * HEIGHT, work.across * tile.width, work.channel_tiles * tile.channels, steps), int)
    for y, x, channel, _, first, end in items:
        assert first < end
        done[y : y + HEIGHT, x : x + tile.width, channel : channel + tile.channels, first:end] += 1
    assert (done == 1).all()
    assert done.shape[0] >= height
    assert done.shape[1] >= width
    assert done.shape[2] >= channels_out


def test_boxes_bring_each_tap_of_each_channel_once(probe: Library) -> None:
    """All pixels and filters of an item's steps, put together by coordinates, are the convolution's products."""
    channels, y, x, first_filter = 2 * STEP, 16, 8, 64
    pixels, filters = np.empty((3, 3), np.int32), np.empty((3, 3), np.int32)
    seen = set()
    for step in range(3 * channels // STEP):
        ask(probe, "probe_boxes", pixels, filters, y, x, first_filter, step)
        for box, tap_row in itertools.product(range(2), range(3)):
            channel, left, top = (int(i) for i in pixels[box])
            of_channel, tap, of_filter = (int(i) for i in filters[tap_row])
            assert (of_channel, of_filter) == (channel, first_filter)
            # The block's pixel (0, 0), by tap row `tap_row`, is the box's row `tap_row`.
            r, s = top + tap_row - y, left - (x + WIDTH * box)
            assert (r + 1) * 3 + s + 1 == tap
            seen.add((channel, box, r, s))
    assert seen == set(itertools.product(range(0, channels, STEP), range(2), (-1, 0, 1), (-1, 0, 1)))


def test_python_knows_the_tiles_sizes(probe: Library) -> None:
    sizes = np.empty((3, 6), np.int32)
    ask(probe, "probe_tiles", sizes)
    for tile, (shared_bytes, threads, width, channels, products, sums) in zip(hopper.TILES, sizes, strict=True):
        assert (tile.shared_bytes, hopper.THREADS) == (shared_bytes, threads)
        assert (tile.width, tile.channels) == (width, channels)
        assert products * sums * 128 * (2 if tile.together else 1) == width * HEIGHT * channels
        assert shared_bytes <= 227 * 1024


def test_python_knows_the_gram_tiles_sizes(probe: Library) -> None:
    sizes = np.empty((2, 4), np.int32)
    ask(probe, "probe_gram_tiles", sizes)
    for tile, found in zip(wgmma_gram.GRAM_TILES, sizes, strict=True):
        assert (tile.shared_bytes, tile.threads, tile.side, tile.depth) == tuple(found)
        assert tile.shared_bytes <= 227 * 1024
