"""The model that chooses tiles: everything covered, everything fits, whole waves, slices for small maps alone."""

import time
from typing import Any

import pytest

from nstgpu.kernels.cuda.conv3x3.tile_model import (
    PRODUCTS,
    TAPS,
    TILE_WIDTH,
    Tile,
    choose,
    cut,
    cycles,
    resident_blocks,
)
from nstgpu.kernels.cuda.gpu_spec import H200, GpuSpec, spec_of

CHIPS = {
    "T4": spec_of((7, 5), 40),
    "A100": spec_of((8, 0), 108),
    "RTX 3090": spec_of((8, 6), 82),
    "RTX 4090": spec_of((8, 9), 128),
    "H200": H200,
    "B200": spec_of((10, 0), 148),
    "RTX 5090": spec_of((12, 0), 170),
}
LAYERS = [(0, 64, 64), (1, 64, 128), (1, 128, 128), (2, 128, 256), (2, 256, 256), (3, 256, 512), (3, 512, 512),
          (4, 512, 512)]  # fmt: skip
NETWORK = [
    (size >> block, size >> block, *channels)
    for size in (224, 256, 512, 1024, 2048)
    for block, low, high in LAYERS
    for channels in ((low, high), (high, low))
]
ODD = [(1, 1, 8, 8), (17, 341, 16, 24), (83, 61, 72, 200), (500, 1, 8, 192), (16384, 16384, 64, 64)]

BF16 = PRODUCTS["bf16"]


def changed(spec: GpuSpec, **values: Any) -> GpuSpec:
    return GpuSpec(**{**spec.__dict__, **values})


@pytest.mark.parametrize("precision", PRODUCTS)
@pytest.mark.parametrize("spec", CHIPS.values(), ids=CHIPS)
def test_the_choice_covers_the_map_and_fits_the_chip(spec: GpuSpec, precision: str) -> None:
    for shape in NETWORK + ODD:
        height, width, channels_in, channels_out = shape
        work = choose(shape, precision, spec)
        assert 0 <= work.down * work.tile.height - height < work.tile.height
        assert 0 <= work.across * TILE_WIDTH - width < TILE_WIDTH
        assert 0 <= work.columns * work.tile.channels - channels_out < work.tile.channels
        assert -(-channels_out // 64) * 64 % work.tile.channels == 0, "beyond the packed filters"
        assert 1 <= work.split_k <= -(-channels_in // PRODUCTS[precision].row_channels)
        assert work.shared_bytes <= spec.block_shared_bytes
        assert resident_blocks(work, spec) >= 1
        assert work.grid[0] < 2**31
        assert work.grid[2] < 65536
        assert work.grid[0] * work.grid[2] == work.blocks


def test_shared_memory_is_halos_and_stages() -> None:
    tile = Tile("128x64", 128, 64, 32, 3)
    halo, filters = 10 * 18 * 128, 64 * 128
    assert tile.threads == 128
    assert tile.shared_bytes(1, 80) == halo + 3 * filters
    assert tile.shared_bytes(5, 80) == 2 * halo + 3 * filters
    assert tile.shared_bytes(5, 75) == 2 * halo + 2 * filters


def test_blocks_that_a_multiprocessor_holds() -> None:
    work = cut(BF16.tiles[0], (64, 64, 512, 512), 1, BF16, 90)
    assert work.tile.name == "128x128"
    assert work.shared_bytes == 2 * 23040 + 2 * 16384
    assert resident_blocks(work, CHIPS["H200"]) == 2  # by registers: 256 x 128 threads x 2
    assert resident_blocks(work, CHIPS["RTX 4090"]) == 1  # by shared memory
    assert resident_blocks(work, CHIPS["T4"]) == 0
    assert cycles(work, (64, 64, 512, 512), BF16, CHIPS["T4"]) == float("inf")


def test_a_block_too_many_is_a_turn_more() -> None:
    """66 x 2 tiles on 132 multiprocessors against 67 x 2, where math is all that counts."""
    spec = changed(H200, l2_bytes=1e9, memory_bytes=1e9)
    tile = BF16.tiles[0]

    def time_of(tiles: int) -> float:
        shape = (8 * tiles, TILE_WIDTH, 512, 256)
        return cycles(cut(tile, shape, 1, BF16, 90), shape, BF16, spec)

    assert time_of(67) > 1.15 * time_of(66)
    assert 0.95 * time_of(66) < time_of(30) <= time_of(66)


def test_the_time_never_beats_the_tensor_cores() -> None:
    for spec in CHIPS.values():
        for shape in NETWORK:
            height, width, channels_in, channels_out = shape
            products = height * width * TAPS * channels_in * channels_out
            least = products / (spec.mma_per_clock * spec.multiprocessors)
            assert cycles(choose(shape, "fp16", spec), shape, PRODUCTS["fp16"], spec) >= least


@pytest.mark.parametrize("rate", ["mma_per_clock", "l2_bytes", "memory_bytes"])
def test_a_faster_chip_is_not_slower(rate: str) -> None:
    for shape in NETWORK[:16]:
        for tile in BF16.tiles:
            work = cut(tile, shape, 1, BF16, 90)
            faster = changed(H200, **{rate: 2 * getattr(H200, rate)})
            assert cycles(work, shape, BF16, faster) <= cycles(work, shape, BF16, H200)


def test_a_slow_l2_is_felt_most_by_tiles_that_load_most() -> None:
    """Pixels come as a halo, once for nine taps, filters with every tap: of two tiles of a size the higher one asks for
    less, of two of a height the wider one."""
    shape = (128, 128, 256, 256)
    slow = changed(H200, l2_bytes=4)
    times = {tile.name: cycles(cut(tile, shape, 1, BF16, 90), shape, BF16, slow) for tile in BF16.tiles}
    assert times["256x64"] < times["128x128"] < times["128x64"]
    assert choose(shape, "bf16", slow).tile.name == "256x64"


def test_small_maps_are_sliced_and_large_ones_are_not() -> None:
    assert choose((16, 16, 512, 512), "bf16", H200).split_k == 8
    assert choose((32, 32, 512, 512), "bf16", H200).split_k > 1
    for shape in NETWORK:
        if shape[0] >= 256:
            assert choose(shape, "bf16", H200).split_k == 1


@pytest.mark.parametrize("precision", PRODUCTS)
def test_slices_take_little_memory(precision: str) -> None:
    for spec in CHIPS.values():
        for shape in NETWORK + ODD:
            work = choose(shape, precision, spec)
            if work.split_k > 1:
                assert work.split_k * shape[0] * shape[1] * shape[3] * 4 <= 128 << 20


def test_the_tile_for_a_layer() -> None:
    assert choose((512, 512, 64, 64), "bf16", H200).tile.name == "256x64"
    assert choose((256, 256, 128, 192), "bf16", H200).tile.channels == 64  # packed filters end at 192
    assert choose((64, 64, 512, 512), "bf16", CHIPS["RTX 4090"]).tile.name == "128x128"


def test_a_gpu_that_is_not_in_the_table_is_like_the_next_older_one() -> None:
    assert spec_of((8, 7), 16).block_shared_bytes == spec_of((8, 6), 16).block_shared_bytes
    assert spec_of((12, 1), 48).mma_per_clock == spec_of((12, 0), 48).mma_per_clock
    assert spec_of((8, 7), 16).capability == 87


def test_a_chip_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="no bf16 tile fits 40000 bytes of shared memory"):
        choose((8, 8, 64, 64), "bf16", changed(H200, block_shared_bytes=40000))


def test_choosing_takes_no_time() -> None:
    choose.cache_clear()
    began = time.perf_counter()
    for shape in NETWORK:
        choose(shape, "3xtf32", H200)
    assert time.perf_counter() - began < 0.5
