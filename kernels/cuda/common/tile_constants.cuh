// What Python and C++ must agree on. Written by `python -m nstgpu.kernels.cuda.tile_constants` from the
// tables that the launchers choose by: change it there. docs/decisions/tile-constants.md says why;
// tests/kernels/cuda/test_tile_constants.py sees to it that both agree.
#pragma once

namespace simt {  // conv3x3/launch_simt.py, gram/launch_simt.py, wasserstein/launch.py
constexpr int block_k = 8;
template <int rows, int columns>
struct Tile;
using Tile128x128 = Tile<128, 128>;
using Tile128x64 = Tile<128, 64>;
using Tile128x32 = Tile<128, 32>;
using Tile64x64 = Tile<64, 64>;
using Tile64x32 = Tile<64, 32>;
}  // namespace simt

namespace mma_sm80 {  // conv3x3/tile_model.py, gram/launch_mma_sm80.py
constexpr int row_bytes = 128;
constexpr int tile_width = 16;
constexpr int warp_channels = 64;
constexpr int operand_bytes = 8192;
template <int tile_pixels, int tile_channels, int warp_pixels, int tile_stages, int resident>
struct Tile;
using Tile128x128 = Tile<128, 128, 64, 2, 2>;
using Tile256x64 = Tile<256, 64, 64, 3, 2>;
using Tile128x64 = Tile<128, 64, 32, 3, 3>;
using Narrow128x128 = Tile<128, 128, 32, 3, 1>;
using Narrow256x64 = Tile<256, 64, 32, 3, 1>;
using Narrow128x64 = Tile<128, 64, 32, 3, 2>;
}  // namespace mma_sm80

namespace wgmma_sm90 {  // conv3x3/launch_wgmma_sm90.py, gram/launch_wgmma_sm90.py
constexpr int block_k = 64;
constexpr int box_width = 8;
constexpr int box_height = 16;
constexpr int loaded_rows = 18;
template <int boxes_, int columns_, bool cooperative_, bool swap_ab_, int pixel_stages_, int filter_stages_, int masks_>
struct Tile;
using Tile256x128 = Tile<2, 128, true, false, 3, 5, 1>;
using Tile128x128 = Tile<1, 128, false, false, 4, 7, 1>;
using Tile64x256 = Tile<2, 64, false, true, 4, 6, 1>;
using Tile64x256_resident = Tile<2, 64, false, true, 3, 10, 1>;
using Tile256x128_unpool = Tile<2, 128, true, false, 3, 5, 3>;
using Tile128x128_unpool = Tile<1, 128, false, false, 4, 7, 3>;
using Tile64x256_unpool = Tile<2, 64, false, true, 4, 5, 3>;
template <int side_, int block_k_, int stages_>
struct GramTile;
using GramTile64x64 = GramTile<64, 128, 6>;
using GramTile128x128 = GramTile<128, 64, 4>;
}  // namespace wgmma_sm90

namespace wgmma_fp32_sm90 {  // conv3x3/launch_wgmma_fp32_sm90.py
template <int parts_, int boxes_, int columns_, int pixel_stages_, int filter_stages_>
struct Tile;
using Single128x128 = Tile<1, 1, 128, 2, 2>;
using Single256x64 = Tile<1, 2, 64, 2, 2>;
using Pairs128x128 = Tile<2, 1, 128, 2, 3>;
using Pairs256x64 = Tile<2, 2, 64, 3, 3>;
}  // namespace wgmma_fp32_sm90

// kernels/device.py, grids.py, costs/merging.py, wasserstein/, sliced/, neighbors/launch_mma_sm80.py
constexpr int max_vectors = 64;
constexpr int most_style_costs = 16;
constexpr int most_partials = 1024;
constexpr int square_product_warps = 4;
constexpr int sort_tile = 4096;
constexpr int search_candidates = 128;
constexpr int kept_groups = 2;
constexpr int group_candidates = 8;
