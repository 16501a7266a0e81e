// The functions of conv3x3/wgmma_layout.cuh and the sizes of the tiles, called with everything that
// test_wgmma_layout.py compares with brute force.
#include "../../kernels/cuda/conv3x3/wgmma_sm90.cuh"
#include "../../kernels/cuda/gram/wgmma_sm90.cuh"

extern "C" __global__ void probe_swizzled(unsigned* out, int count) {
    for (int i = 0; i < count; ++i) out[i] = wgmma_sm90::swizzled(i);
}

extern "C" __global__ void probe_descriptor(uint64_t* out, unsigned address, unsigned further) {
    out[0] = wgmma_sm90::advance_descriptor(wgmma_sm90::matrix_descriptor(address), further);
}

extern "C" __global__ void probe_across_descriptor(uint64_t* out, unsigned address, unsigned block_bytes, int k) {
    out[0] = wgmma_sm90::advance_descriptor(wgmma_sm90::mn_major_descriptor(address, block_bytes),
                                            k * wgmma_sm90::mn_major_bytes);
}

extern "C" __global__ void probe_block_offsets(unsigned* out) {  // [block][tap row][k]
    for (int i = 0; i < 24; ++i) out[i] = wgmma_sm90::block_offset(i / 12, i / 4 % 3, i % 4);
}

extern "C" __global__ void probe_sums(int* rows, int* columns, int count) {  // [thread][i]
    for (int i = 0; i < 128 * count; ++i) {
        rows[i] = wgmma_sm90::accum_row(i / count, i % count);
        columns[i] = wgmma_sm90::accum_column(i / count, i % count);
    }
}

extern "C" __global__ void probe_staged(int* wide, int* narrow) {  // [pixel][quad]
    for (int i = 0; i < 16 * 16; ++i) wide[i] = wgmma_sm90::staged<64>(i / 16, i % 16);
    for (int i = 0; i < 64 * 4; ++i) narrow[i] = wgmma_sm90::staged<16>(i / 4, i % 4);
}

// Rows of y, x, channel, split, first k-tile, end k-tile.
extern "C" __global__ void probe_items(int* out, int work_tiles, int tiles_across, int channel_tiles, int split_k,
                                       int k_tiles, int pixel_tiles, int tile_width, int tile_columns) {
    const wgmma_sm90::TileScheduler scheduler = {tiles_across, channel_tiles, split_k, k_tiles};
    for (int i = 0; i < work_tiles; ++i) {
        const wgmma_sm90::WorkTile work_tile =
            wgmma_sm90::work_tile_at(i, scheduler, pixel_tiles, tile_width, tile_columns);
        const int fields[6] = {
            work_tile.y, work_tile.x, work_tile.channel, work_tile.split, work_tile.first_k_tile, work_tile.end_k_tile};
        for (int j = 0; j < 6; ++j) out[6 * i + j] = fields[j];
    }
}

// Where the boxes of one k-tile begin: of pixels [box][3], of filters [tap row][3].
extern "C" __global__ void probe_boxes(int* pixels, int* filters, int y, int x, int channel, int k_tile) {
    const wgmma_sm90::WorkTile work_tile = {y, x, channel, 0, 0, 0};
    for (int i = 0; i < 3; ++i) {
        const Coordinates at = wgmma_sm90::pixels_at(work_tile, k_tile, i),
                          of = wgmma_sm90::filters_at(work_tile, k_tile, i);
        const int values[6] = {at.x, at.y, at.z, of.x, of.y, of.z};
        for (int j = 0; j < 3; ++j) {
            pixels[3 * i + j] = values[j];
            filters[3 * i + j] = values[3 + j];
        }
    }
}

// Shared bytes, threads, width, channels, products, sums.
template <class Tile>
__device__ void sizes(int* out) {
    const int values[6] = {Tile::shared_bytes, Tile::threads,  Tile::boxes * wgmma_sm90::box_width,
                           Tile::columns,      Tile::products, Tile::accum};
    for (int i = 0; i < 6; ++i) out[i] = values[i];
}
extern "C" __global__ void probe_tiles(int* out) {
    sizes<wgmma_sm90::Tile256x128>(out);
    sizes<wgmma_sm90::Tile128x128>(out + 6);
    sizes<wgmma_sm90::Tile64x256>(out + 12);
}

// Shared bytes, threads, side, block_k.
template <class Tile>
__device__ void gram_sizes(int* out) {
    const int values[4] = {Tile::shared_bytes, Tile::threads, Tile::side, Tile::block_k};
    for (int i = 0; i < 4; ++i) out[i] = values[i];
}
extern "C" __global__ void probe_gram_tiles(int* out) {
    gram_sizes<wgmma_sm90::GramTile64x64>(out);
    gram_sizes<wgmma_sm90::GramTile128x128>(out + 4);
}
