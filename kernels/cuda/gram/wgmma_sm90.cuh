// The Gram matrix F^T F / (H W) of bf16 or fp16 features F (pixels x channels) on Hopper's tensor cores, sums in fp32.
// Tiles on and above the diagonal are computed, and pixels are divided among blocks in splits (gridDim.y), as in
// gram/mma_sm80.cuh, which also has the Gram matrix with weights; gram/simt.cu adds up the splits of both.
// Who does the work is as in conv3x3/wgmma_sm90.cuh, with one ring of stages:
//
//     producer     for each k-tile (so many pixels): wait until a stage is free, load boxes of 64 channels for it
//     consumers    64 rows of the tile each; for each k-tile wait until its pixels are there; a batch of wgmma, and when
//                  the batch before has finished, give its stage back
//
//                        B: boxes of 64 channels x 64 pixels
//                      [ box 2 ][ box 3 ]
//       A: [ box 0 ]   +----------------+
//          consumer 0  |   64 x 128     |      128x128; 64x64 has one box of 128 pixels, which is both operands,
//          [ box 1 ]   +----------------+      and one consumer
//          consumer 1  |   64 x 128     |
//                      +----------------+
//
// The sum runs over pixels, and memory has a pixel's channels side by side: both operands lie across ("MN-major"), and
// wgmma turns them as it reads them. A tile on the diagonal loads its channels once, for both operands. What boxes
// bring from beyond the last pixel and the last channel is zero.
//
// Bound by device memory at few channels: 512x512x64 takes an H100 9.8 us with the adding, as fast as its copies; where
// channels are many, by launches and splits: 64x64x512 takes 16.6 us, 7 to 8 of them for the products and the rest for
// adding (benchmarks/results/h100_2026-11-26.md). conv3x3/wgmma_layout.cuh knows where everything lies, the folder ptx
// the instructions, launch_wgmma_sm90.py tiles and launches. tests/kernels/cuda/gram/test_wgmma_sm90.py runs every
// kernel, in the emulator and where there is a GPU for them.
#pragma once

#include "common/element.cuh"
#include "common/indexing.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "gram/upper_triangle.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

namespace wgmma_sm90 {

#ifdef HAS_WGMMA

// side x side sums, `block_k` pixels a k-tile.
template <int side_, int block_k_, int stages_>
struct GramTile {
    static constexpr int side = side_, block_k = block_k_, stages = stages_;
    static_assert(side == 64 || side == 128);
    static_assert(block_k % mma_k == 0 && block_k <= 256, "what a box may have");

    static constexpr int consumers = side / 64, consumer_warps = consumers * warps_per_group;
    static constexpr int threads = 32 * (consumer_warps + 1);
    static constexpr int accum = side / 2;  // of 64 rows, per thread

    static constexpr int box_bytes = block_k * row_bytes, boxes = side / wgmma_sm90::block_k;
    static constexpr int operand_bytes = boxes * box_bytes, stage_bytes = (side == 64 ? 1 : 2) * operand_bytes;
    static constexpr int barriers_at = stages * stage_bytes, shared_bytes = barriers_at + 16 * stages;
    static_assert(box_bytes % group_bytes == 0 && shared_bytes <= 227 * 1024);
};

// `partials` is [tile][split][row][column], as gram/simt.cu adds them up.
template <class Tile, class Element>
__device__ __forceinline__ void gram_split(const TensorMap& features, float* partials, int pixels, int channels) {
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned base = ptx::shared_address_32(shared);
    const auto full = [=](int stage) { return base + Tile::barriers_at + 16 * stage; };
    const auto empty = [=](int stage) { return full(stage) + 8; };
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Tile::stages; ++stage) {
            ptx::mbarrier_init(full(stage), 1);
            ptx::mbarrier_init(empty(stage), Tile::consumer_warps);
        }
        ptx::fence_barrier_init();
        ptx::prefetch_tensor_map(features);
    }
    __syncthreads();

    const TileAt at = upper_triangle_tile(blockIdx.x, ceil_div(channels, Tile::side));
    const bool diagonal = at.row == at.column;  // as is the only tile of 64x64
    const int all_k_tiles = ceil_div(pixels, Tile::block_k);
    const int first_k_tile = int64_t{all_k_tiles} * blockIdx.y / gridDim.y;
    const int k_tiles = int64_t{all_k_tiles} * (blockIdx.y + 1) / gridDim.y - first_k_tile;
    const int warp = threadIdx.x / 32;
    Ring<Tile::stages> ring;

    if (warp == Tile::consumer_warps) {
        const bool elected = threadIdx.x % 32 == 0;
        const int boxes = (diagonal ? 1 : 2) * Tile::boxes;
#pragma unroll 1
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
            ptx::mbarrier_wait(empty(ring.stage), ring.parity ^ 1);
            if (elected) {
                ptx::arrive_expect_tx(full(ring.stage), boxes * Tile::box_bytes);
#pragma unroll 1
                for (int box = 0; box < boxes; ++box) {
                    const int tile = box < Tile::boxes ? at.row : at.column;
                    const int channel = tile * Tile::side + box % Tile::boxes * block_k;
                    ptx::tma_load_3d(base + ring.stage * Tile::stage_bytes + box * Tile::box_bytes, features,
                                     full(ring.stage), {channel, (first_k_tile + k_tile) * Tile::block_k, 0});
                }
            }
            ring.advance();
        }
        return;
    }

    const int consumer = warp / warps_per_group, thread = threadIdx.x % group_threads;
    float accum[Tile::accum];
    int before = 0;  // the stage of the batch before
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        ptx::mbarrier_wait(full(ring.stage), ring.parity);
        const unsigned stage = base + ring.stage * Tile::stage_bytes;
        const uint64_t desc_a = mn_major_descriptor(stage + consumer * Tile::box_bytes, Tile::box_bytes);
        const uint64_t desc_b = mn_major_descriptor(stage + (diagonal ? 0 : Tile::operand_bytes), Tile::box_bytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < Tile::block_k / mma_k; ++k)
            ptx::wgmma<Element, true>(accum, advance_descriptor(desc_a, k * mn_major_bytes),
                                      advance_descriptor(desc_b, k * mn_major_bytes), k_tile | k);
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<1>();  // until the batch before has finished
        if (k_tile) ptx::mbarrier_arrive(empty(before));
        before = ring.stage;
        ring.advance();
    }
    ptx::wgmma_wait_group<0>();
    ptx::wgmma_fence_accum(accum);

    float* const to =
        partials + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * Tile::side * Tile::side + consumer * 64 * Tile::side;
#pragma unroll
    for (int i = 0; i < Tile::accum; i += 2)
        *reinterpret_cast<float2*>(to + accum_row(thread, i) * Tile::side + accum_column(thread, i)) =
            make_float2(accum[i], accum[i + 1]);
}

#endif  // sm_90a or the emulator

}  // namespace wgmma_sm90

// A kernel by its full name.
#define GRAM_WGMMA_SM90(name, Element, Tile)                                                                          \
    extern "C" __global__ void __launch_bounds__(wgmma_sm90::Tile::threads, 1) name(                                  \
        const __grid_constant__ TensorMap features, void* __restrict__ partials, int pixels, int channels) {          \
        wgmma_sm90::gram_split<wgmma_sm90::Tile, Element>(features, static_cast<float*>(partials), pixels, channels); \
    }
