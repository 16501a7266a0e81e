// Where everything lies in the Hopper convolutions: what a block computes, which boxes it loads at which coordinates,
// the 128-byte swizzle, and how wgmma is told where its operands are, also those of the Gram matrix. Plain functions of
// integers, which tests/kernels/cuda/conv3x3/test_wgmma_layout.py compares with brute force. Who waits for whom
// conv3x3/wgmma_sm90.cuh and gram/wgmma_sm90.cuh know.
//
// A box is 8 pixels wide, 16 high and 64 channels deep. One pixel's 64 channels of 16 bits are a row of 128 bytes in
// shared memory, and the eight pixels of an image row are 1024 bytes: exactly the period of the swizzle. So a box that
// is loaded with one image row more above and below (`loaded_rows`) serves all three vertical taps: a tap further down
// is the same matrix 1024 bytes further on, swizzled alike. Only the three horizontal taps need boxes of their own.
// That is 3 x 18 image rows loaded instead of 9 x 16, 2.7 times less asked of L2.
#pragma once

#include "common/platform.cuh"
#include "common/tensor_map.cuh"
#include "common/tile_constants.cuh"

namespace wgmma_sm90 {

// block_k channels of one tap are in one stage of the pipeline; a box of box_width x box_height pixels holds two blocks
// of wgmma's 64 rows, and is loaded with loaded_rows, for three vertical taps.
constexpr int row_bytes = 2 * block_k;               // one pixel's, or one filter's
constexpr int group_rows = 8;                        // after which the swizzle repeats
constexpr int group_bytes = group_rows * row_bytes;  // 1024
static_assert(box_width == group_rows && loaded_rows == box_height + 2);
constexpr int block_rows = 8;  // image rows of such a block
constexpr int box_bytes = loaded_rows * group_bytes;
constexpr int mma_k = 16, mma_bytes = 2 * mma_k;         // channels per instruction, and their bytes
constexpr int warps_per_group = 4, group_threads = 128;  // of a warpgroup

// 16-byte chunks of a row are exchanged: bits 4-6 of the address, exclusive or bits 7-9.
__device__ __forceinline__ unsigned swizzled(unsigned address) { return address ^ (address >> 3 & 0x70); }

// A matrix in shared memory as wgmma is told of it: rows of 128 swizzled bytes, contiguous along the sum ("K-major"),
// eight rows every 1024 bytes. From bit 0 the address / 16, from 16 the distance of columns (unused when swizzled,
// conventionally 1), from 32 the distance of groups of eight rows / 16, and from 62 the swizzle: 1 is 128 bytes.
__device__ __forceinline__ uint64_t matrix_descriptor(unsigned address) {
    return uint64_t{1} << 62 | uint64_t{group_bytes >> 4} << 32 | uint64_t{1} << 16 | (address & 0x3ffff) >> 4;
}

// The same matrix so many bytes further on. The sum cannot leave its 14 bits: shared memory ends below 256 KB.
__device__ __forceinline__ uint64_t advance_descriptor(uint64_t descriptor, unsigned bytes) {
    return descriptor + (bytes >> 4);
}

// A matrix that lies across ("MN-major"): each of its 16 or more places along the sum is 128 swizzled bytes, 64 rows of
// the matrix side by side. Eight such places are 1024 bytes, the next eight follow at once; the next 64 rows of the
// matrix are `block_bytes` further on. Swizzled, it is the former distance that the field from bit 32 has ("stride"),
// and the latter that from 16 ("leading").
__device__ __forceinline__ uint64_t mn_major_descriptor(unsigned address, unsigned block_bytes) {
    return uint64_t{1} << 62 | uint64_t{group_bytes >> 4} << 32 | uint64_t{block_bytes >> 4} << 16 |
           (address & 0x3ffff) >> 4;
}
constexpr int mn_major_bytes = mma_k * row_bytes;  // from one instruction's places along the sum to the next's

// Where in a box the 64 pixels of block 0 or 1 begin, as tap row 0..2 sees them: channels 16 k and up.
__device__ __forceinline__ unsigned block_offset(int block, int tap_row, int k) {
    return (block * block_rows + tap_row) * group_bytes + k * mma_bytes;
}

// What one thread of a warpgroup holds of the sums of an m64 wgmma: element i is at this row and column.
__device__ __forceinline__ int accum_row(int thread, int i) {
    return thread / 32 * 16 + thread % 32 / 4 + (i >> 1 & 1) * 8;
}
__device__ __forceinline__ int accum_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + (i & 1); }

// The stages of a ring one after the other, and the parity of the phase that each is in.
template <int stages>
struct Ring {
    int stage = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
    __device__ __forceinline__ void skip(unsigned count) {
        const unsigned end = stage + count, rounds = end / stages;
        stage = end - rounds * stages;
        parity ^= rounds & 1;
    }
};

// What is to be computed, cut up: tiles of pixels, of channels, and splits of the sum.
struct TileScheduler {
    int tiles_across, channel_tiles, split_k,
        k_tiles;  // k_tiles: (64 channels, horizontal tap), three vertical taps each
};

// One tile of one split: the image coordinates and the channel it begins at, and its k-tiles.
struct WorkTile {
    int y, x, channel, split, first_k_tile, end_k_tile;
};

// Channel tiles of the same pixels are neighbours, so that these pixels are read from L2; splits are furthest apart.
__device__ __forceinline__ WorkTile work_tile_at(unsigned index, const TileScheduler& scheduler, unsigned pixel_tiles,
                                                 int tile_width, int tile_columns) {
    const unsigned pixels = index / scheduler.channel_tiles, split = pixels / pixel_tiles;
    const unsigned tile = pixels - split * pixel_tiles, down = tile / scheduler.tiles_across;
    return {int(down) * box_height,
            int(tile - down * scheduler.tiles_across) * tile_width,
            int(index - pixels * scheduler.channel_tiles) * tile_columns,
            int(split),
            int(scheduler.k_tiles * split / scheduler.split_k),
            int(scheduler.k_tiles * (split + 1) / scheduler.split_k)};
}

// In (channels, width, height): 64 channels of box `box` of a work tile, shifted by the k-tile's horizontal tap and one
// up.
__device__ __forceinline__ Coordinates pixels_at(const WorkTile& work_tile, int k_tile, int box) {
    return {k_tile / 3 * block_k, work_tile.x + box * box_width + k_tile % 3 - 1, work_tile.y - 1};
}

// In (channels, taps, filters): 64 channels of tap (tap_row, k_tile % 3), of the work tile's filters.
__device__ __forceinline__ Coordinates filters_at(const WorkTile& work_tile, int k_tile, int tap_row) {
    return {k_tile / 3 * block_k, tap_row * 3 + k_tile % 3, work_tile.channel};
}

// The epilogue's shared memory: sums on their way from the lanes that have them to the lanes that finish whole squares.
// The offset in floats of four channels (`quad`) of a pixel, such that neither side asks a bank twice (64 channels) or
// more than twice (16).
template <int channels>
__device__ __forceinline__ int staged(int pixel, int quad) {
    static_assert(channels == 64 || channels == 16);
    if (channels == 16) return pixel * 16 + (quad ^ (pixel >> 1 & 3)) * 4;
    const int swizzle_xor = (pixel & 3) << 1 | (pixel >> 2 & 1);
    return pixel * 64 + (quad ^ swizzle_xor ^ quad >> 3) * 4;
}

}  // namespace wgmma_sm90
