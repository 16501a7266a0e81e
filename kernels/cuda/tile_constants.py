"""Writes common/tile_constants.cuh: what Python and C++ must agree on, from the tables that the launchers choose by.

    python -m nstgpu.kernels.cuda.tile_constants

writes the header anew; tests/kernels/cuda/test_tile_constants.py says when it is out of date.
"""

from pathlib import Path

from ..device import MOST_VECTORS
from .conv3x3 import launch_simt, launch_wgmma_sm90, launch_wgmma_unpool_sm90, tile_model
from .conv3x3 import launch_wgmma_fp32_sm90 as conv_fp32
from .costs import merging
from .gram import launch_mma_sm80 as gram_mma_sm80
from .gram import launch_simt as gram_simt
from .gram import launch_wgmma_sm90 as gram_wgmma_sm90
from .grids import MOST_PARTIALS
from .neighbors import launch_mma_sm80 as neighbors_mma_sm80
from .runtime.tensor_map import STEP_CHANNELS
from .sliced import launch as sliced
from .wasserstein import launch as wasserstein

HEADER = Path(__file__).parent / "common" / "tile_constants.cuh"


def header() -> str:
    """The text of the header, of the constants as they are now."""
    side = gram_simt.NARROW_SIDE
    simt = {tile.variant.removesuffix("_any"): (tile.pixels, tile.channels) for tile in launch_simt.TILES}
    simt |= {f"{side}x{side}": (side, side)}
    simt |= {f"{wasserstein.TILE_ROWS}x{wasserstein.TILE_COLUMNS}": (wasserstein.TILE_ROWS, wasserstein.TILE_COLUMNS)}
    mma = [
        (prefix + tile.name, (tile.pixels, tile.channels, tile.warp_pixels, tile.stages, tile.blocks_per_sm))
        for prefix, tiles in (("Tile", tile_model.WIDE), ("Narrow", tile_model.NARROW))
        for tile in tiles
    ]
    wgmma = [
        (f"Tile{tile.variant}",
         (tile.boxes, tile.channels, tile.together, tile.swap_ab, tile.pixel_stages, tile.filter_stages, tile.masks))
        for tile in (*launch_wgmma_sm90.TILES, launch_wgmma_sm90.RESIDENT)
    ]  # fmt: skip
    wgmma += [
        (f"Tile{tile.variant}_unpool",
         (tile.boxes, tile.channels, tile.together, tile.swap_ab, tile.pixel_stages, tile.filter_stages, tile.masks))
        for tile in launch_wgmma_unpool_sm90.TILES.values()
    ]  # fmt: skip
    grams = [(f"GramTile{tile.variant}", (tile.side, tile.depth, tile.stages)) for tile in gram_wgmma_sm90.GRAM_TILES]
    of_fp32 = [
        (f"{prefix}{tile.variant}",
         (parts, tile.boxes, tile.channels, tile.pixel_stages, tile.filter_stages))
        for prefix, parts, tiles in (("Single", 1, conv_fp32.SINGLE), ("Pairs", 2, conv_fp32.PAIRS))
        for tile in tiles
    ]  # fmt: skip
    lines = [
        "// What Python and C++ must agree on. Written by `python -m nstgpu.kernels.cuda.tile_constants` from the",
        "// tables that the launchers choose by: change it there. docs/decisions/tile-constants.md says why;",
        "// tests/kernels/cuda/test_tile_constants.py sees to it that both agree.",
        "#pragma once",
        "",
        "namespace simt {  // conv3x3/launch_simt.py, gram/launch_simt.py, wasserstein/launch.py",
        _constant("block_k", launch_simt.DEPTH),
        "template <int rows, int columns>",
        "struct Tile;",
        *(_alias(f"Tile{name}", "Tile", sizes) for name, sizes in simt.items()),
        "}  // namespace simt",
        "",
        "namespace mma_sm80 {  // conv3x3/tile_model.py, gram/launch_mma_sm80.py",
        _constant("row_bytes", tile_model.ROW_BYTES),
        _constant("tile_width", tile_model.TILE_WIDTH),
        _constant("warp_channels", tile_model.CHANNEL_GROUP),
        _constant("operand_bytes", gram_mma_sm80.OPERAND_BYTES),
        "template <int tile_pixels, int tile_channels, int warp_pixels, int tile_stages, int resident>",
        "struct Tile;",
        *(_alias(name, "Tile", values) for name, values in mma),
        "}  // namespace mma_sm80",
        "",
        "namespace wgmma_sm90 {  // conv3x3/launch_wgmma_sm90.py, gram/launch_wgmma_sm90.py",
        _constant("block_k", STEP_CHANNELS),
        _constant("box_width", launch_wgmma_sm90.BOX_WIDTH),
        _constant("box_height", launch_wgmma_sm90.BOX_HEIGHT),
        _constant("loaded_rows", launch_wgmma_sm90.LOADED_ROWS),
        "template <int boxes_, int columns_, bool cooperative_, bool swap_ab_, int pixel_stages_, int filter_stages_, "
        "int masks_>",
        "struct Tile;",
        *(_alias(name, "Tile", values) for name, values in wgmma),
        "template <int side_, int block_k_, int stages_>",
        "struct GramTile;",
        *(_alias(name, "GramTile", values) for name, values in grams),
        "}  // namespace wgmma_sm90",
        "",
        "namespace wgmma_fp32_sm90 {  // conv3x3/launch_wgmma_fp32_sm90.py",
        "template <int parts_, int boxes_, int columns_, int pixel_stages_, int filter_stages_>",
        "struct Tile;",
        *(_alias(name, "Tile", values) for name, values in of_fp32),
        "}  // namespace wgmma_fp32_sm90",
        "",
        "// kernels/device.py, grids.py, costs/merging.py, wasserstein/, sliced/, neighbors/launch_mma_sm80.py",
        _constant("max_vectors", MOST_VECTORS),
        _constant("most_style_costs", merging.MOST_STYLE_COSTS),
        _constant("most_partials", MOST_PARTIALS),
        _constant("square_product_warps", wasserstein.SLICES),
        _constant("sort_tile", sliced.SORT_TILE),
        _constant("search_candidates", neighbors_mma_sm80.CANDIDATES),
        _constant("kept_groups", neighbors_mma_sm80.KEPT),
        _constant("group_candidates", neighbors_mma_sm80.GROUP),
    ]
    return "\n".join(lines) + "\n"


def _constant(name: str, value: int) -> str:
    return f"constexpr int {name} = {value};"


def _alias(name: str, template: str, values: tuple[int, ...]) -> str:
    written = (str(value).lower() for value in values)  # bools as C++ has them
    return f"using {name} = {template}<{', '.join(written)}>;"


if __name__ == "__main__":
    HEADER.write_text(header())
