// The 3x3 convolution of float32 activations on Hopper's tensor cores, as exact as float32 or as tf32, by wgmma of
// fp16. Rung 4 of README.md's ladder for the precisions 3xtf32 and tf32; the epilogues are conv3x3/mma_sm80.cuh's.
//
// tf32 has no more bits than fp16 (eleven), only more exponents, and is multiplied at half the rate. So pixels and
// filters are scaled, by powers of two, to just below fp16's largest number, and each becomes one fp16 (`Single`, for
// tf32), or two that are its first 22 bits, x = hi + lo (`Pairs`, for 3xtf32; of the four products lo x lo is left
// out). What is smaller than the largest by 2^18 and more loses bits, but none that are worth 2^-40 of the largest.
// Filters are scaled and cut up on the host. Pixels come as float32, and every consumer cuts up its own in registers,
// from which wgmma can take the first operand. Their scale is of four lanes' own: it comes from the largest of the
// k-tile's channels in the four image rows by one pixel that the products of a step take from them.
//
//     producer     for each k-tile (32 or 64 channels, a column of taps): wait until a pixel stage is free, load its
//                  boxes; wait until a filter stage is free, load the filters of three taps; near the end of the
//                  work tile, have L2 fetch what the epilogue will read
//     consumers    for each step (64 pixels by the k-tile): a batch of wgmma; while it runs, load the next step's
//                  pixels; wait; sums += scale x the batch's; cut up these pixels
//
//     consumer 0   |cut|18 wgmma .......|sum|18 wgmma .......|sum|...      while one adds or stores, the other's
//     consumer 1       |cut|18 wgmma .......|sum|18 wgmma .......|sum|     products keep the tensor cores busy
//
//     A box, 8 pixels wide, 18 rows for 16, as in wgmma_sm90.cuh, of 32 channels:     A filter's row of one tap:
//
//        row -1  [8 pixels x 32 channels: 1024 bytes]           Pairs   [hi 0-15][hi 16-31][lo 0-15][lo 16-31]
//        row  0  [swizzled with that period         ]           Single  [0-15]   [16-31]   [32-47]  [48-63]
//        ...
//        row 16  [tap r of image row y is row y + r ]
//
//     Tiles, pixels x channels:   128x128: one box, a consumer has its upper or lower eight rows and all channels
//                                 256x64:  two boxes, one each
//
// A warp's sixteen rows of a product are two image rows, of eight pixels each; three taps need four image rows, in
// registers. Tensor cores cut sums, so the sums of a step start from zero, lo terms first, and join the rest by a
// rounded addition, as in mma_sm80.cuh. Which channel is which place of a product is free: a lane has four channels
// next to each other, 16 bytes, and the filters are packed to suit; so is which pixel is which row: pixels p and p + 4
// are neighbours, so that eight lanes' 16 bytes lie on all banks.
//
// Bound by the tensor cores with Pairs and 128 channels, where an H100 does 58 GFLOP in 86 us; else by what a consumer
// does between its batches, since a warp goes on only when its last product has read its registers. Tests:
// tests/kernels/cuda/conv3x3/test_wgmma_fp32_sm90.py runs every kernel, in the emulator and
// where there is a GPU for them, against float64.
#pragma once

#include "common/indexing.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/mma_sm80.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/cvt.cuh"
#include "ptx/ld_shared.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/prefetch.cuh"
#include "ptx/setmaxnreg.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

namespace wgmma_fp32_sm90 {

using mma_sm80::ActivationShape;
using mma_sm80::PoolWindow;
using wgmma_sm90::block_rows;
using wgmma_sm90::box_bytes;
using wgmma_sm90::box_height;
using wgmma_sm90::box_width;
using wgmma_sm90::group_bytes;
using wgmma_sm90::group_threads;
using wgmma_sm90::mma_bytes;
using wgmma_sm90::Ring;
using wgmma_sm90::row_bytes;
using wgmma_sm90::TileScheduler;
using wgmma_sm90::warps_per_group;
using wgmma_sm90::WorkTile;

#ifdef HAS_WGMMA

constexpr int taps_down = 3, box_channels = row_bytes / 4,
              slots = 4;  // slot: 16 numbers of a filter's row, for a product

template <int parts_, int boxes_, int columns_, int pixel_stages_, int filter_stages_>
struct Tile {
    static constexpr int parts = parts_, boxes = boxes_, columns = columns_;
    static constexpr int halves = parts == 2 ? 1 : 2;  // boxes one behind the other, of 32 channels each
    static constexpr int k_tile_channels = halves * box_channels;
    static constexpr int steps = boxes;               // of a k-tile and a consumer: 64 pixels each
    static constexpr int k_per_step = slots / parts;  // times 16 channels
    static constexpr int accum = columns / 2;         // sums per step and thread
    // What a consumer does for the next step while its batch runs, as far as there are registers: a product takes its
    // four from a quad, so that image rows which two taps take are there twice.
    static constexpr bool loads_early = parts == 2, cuts_early = parts == 2 && columns == 64;
    static_assert(steps * columns == 128 && (parts == 1 || parts == 2));

    static constexpr int consumers = 2, consumer_warps = consumers * warps_per_group;
    static constexpr int threads = (consumers + 1) * group_threads;
    static constexpr int pixel_stages = pixel_stages_, pixel_bytes = boxes * halves * box_bytes;
    static constexpr int tap_bytes = columns * row_bytes;
    static constexpr int filter_stages = filter_stages_, filter_bytes = taps_down * tap_bytes;
    static constexpr int epilogue_smem_floats = 64 * 16;
    static constexpr int filters_at = pixel_stages * pixel_bytes,
                         epilogue_smem_at = filters_at + filter_stages * filter_bytes;
    static constexpr int barriers_at = epilogue_smem_at + consumer_warps * epilogue_smem_floats * 4;
    static constexpr int shared_bytes = barriers_at + 2 * 8 * (pixel_stages + filter_stages);
    static_assert(filters_at % group_bytes == 0 && filter_bytes % group_bytes == 0);
    static_assert(shared_bytes <= 227 * 1024, "what a block may have");

    static constexpr int producer_registers = 40, consumer_registers = 232;
    static_assert(producer_registers + consumers * consumer_registers <= (consumers + 1) * (65536 / threads / 8 * 8));
};

// Addresses in shared memory.
template <class Tile>
struct Memory {
    unsigned base;

    __device__ __forceinline__ unsigned pixels(int stage) const { return base + stage * Tile::pixel_bytes; }
    __device__ __forceinline__ unsigned filters(int stage) const {
        return base + Tile::filters_at + stage * Tile::filter_bytes;
    }
    __device__ __forceinline__ unsigned pixels_full(int stage) const { return base + Tile::barriers_at + 16 * stage; }
    __device__ __forceinline__ unsigned pixels_empty(int stage) const { return pixels_full(stage) + 8; }
    __device__ __forceinline__ unsigned filters_full(int stage) const {
        return pixels_full(Tile::pixel_stages + stage);
    }
    __device__ __forceinline__ unsigned filters_empty(int stage) const { return filters_full(stage) + 8; }
};

// Which of eight pixels is row g of a fragment, and the reverse.
__device__ __forceinline__ int pixel_of_row(int g) { return g >> 1 | (g & 1) << 2; }
__device__ __forceinline__ int row_of_pixel(int x) { return (x & 3) << 1 | x >> 2; }

// What an epilogue will read, null where it does not.
struct ReadLater {
    const float* out;
    const uint8_t* relu_mask;
};

// Has L2 fetch what the epilogue of a work tile will read. By a whole warp.
template <class Tile>
__device__ __forceinline__ void fetch(const ReadLater& later, const ActivationShape& map, const WorkTile& work_tile) {
    constexpr int line = 128 / sizeof(float), lines = Tile::columns / line,
                  pixels = Tile::boxes * box_width * box_height;
    const int lane = threadIdx.x % 32;
#pragma unroll 4
    for (int i = lane; i < pixels * lines; i += 32) {
        const int pixel = i / lines, channel = work_tile.channel + i % lines * line;
        const int y = work_tile.y + pixel / (Tile::boxes * box_width);
        const int x = work_tile.x + pixel % (Tile::boxes * box_width);
        if (y >= map.height || x >= map.width || channel >= map.channels) continue;
        if (later.out) ptx::prefetch_l2(later.out + map.pixel(y, x) * map.channels + channel);
        if (later.relu_mask && i % lines == 0)
            ptx::prefetch_l2(later.relu_mask + (map.pixel(y, x) * map.channels + channel) / 8);
    }
}

template <class Tile>
__device__ __forceinline__ void produce(const Memory<Tile>& memory, const TensorMap& pixels_map,
                                        const TensorMap& filters_map, const TileScheduler& scheduler,
                                        unsigned pixel_tiles, const ActivationShape& map, const ReadLater& later) {
    constexpr int fetched_before_end = 3;  // k-tiles: while they are multiplied, what is fetched has time to come
    Ring<Tile::pixel_stages> pixels;
    Ring<Tile::filter_stages> filters;
    const bool elected = threadIdx.x % 32 == 0;
    const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles * scheduler.split_k;
    for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x) {
        const WorkTile work_tile =
            wgmma_sm90::work_tile_at(index, scheduler, pixel_tiles, Tile::boxes * box_width, Tile::columns);
        for (int k_tile = work_tile.first_k_tile; k_tile < work_tile.end_k_tile; ++k_tile) {
            ptx::mbarrier_wait(memory.pixels_empty(pixels.stage), pixels.parity ^ 1);
            if (elected) {
                ptx::arrive_expect_tx(memory.pixels_full(pixels.stage), Tile::pixel_bytes);
                for (int i = 0; i < Tile::boxes * Tile::halves; ++i) {
                    const int box = i / Tile::halves, half = k_tile / 3 * Tile::halves + i % Tile::halves;
                    ptx::tma_load_3d(memory.pixels(pixels.stage) + i * box_bytes, pixels_map,
                                     memory.pixels_full(pixels.stage),
                                     wgmma_sm90::pixels_at(work_tile, half * 3 + k_tile % 3, box));
                }
            }
            pixels.advance();
            ptx::mbarrier_wait(memory.filters_empty(filters.stage), filters.parity ^ 1);
            if (elected) {
                ptx::arrive_expect_tx(memory.filters_full(filters.stage), Tile::filter_bytes);
                ptx::tma_load_3d(memory.filters(filters.stage), filters_map, memory.filters_full(filters.stage),
                                 {0, work_tile.channel, k_tile * taps_down});
            }
            filters.advance();
            const int from_end = min(fetched_before_end, work_tile.end_k_tile - work_tile.first_k_tile);
            if ((later.out || later.relu_mask) && k_tile == work_tile.end_k_tile - from_end)
                fetch<Tile>(later, map, work_tile);
        }
    }
}

// A lane's pixels for a step: one of four image rows, of every 16 channels four; and what they are to be scaled by.
template <class Tile>
struct Pixels {
    float values[4][Tile::k_per_step][4];
    float scale, unscale;
};

// The same as the products' first operands.
struct Fragments {
    uint32_t values[4][slots][2];  // image row, 16 channels of a part (hi first), pair
    float unscale;                 // what sums are to be multiplied by
};

// From a block's first row in a box.
template <class Tile>
__device__ __forceinline__ void load_pixels(unsigned box_rows, float filter_unscale, Pixels<Tile>& pixels) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x % group_threads / 32;
    const int pixel = pixel_of_row(lane / 4);
    const unsigned from = box_rows + warp * 2 * group_bytes + pixel * row_bytes + (lane % 4 ^ pixel) * 16;
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
        for (int k = 0; k < Tile::k_per_step; ++k) {
            const float4 four = ptx::load_shared_128((from ^ k % 2 * 64) + row * group_bytes + k / 2 * box_bytes);
            pixels.values[row][k][0] = four.x;
            pixels.values[row][k][1] = four.y;
            pixels.values[row][k][2] = four.z;
            pixels.values[row][k][3] = four.w;
        }
    float largest[4] = {};  // not in one chain
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
        for (int k = 0; k < Tile::k_per_step; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) largest[i] = fmaxf(largest[i], fabsf(pixels.values[row][k][i]));
    float of_all = fmaxf(fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3]));
    of_all = fmaxf(of_all, __shfl_xor_sync(~0u, of_all, 1));
    of_all = fmaxf(of_all, __shfl_xor_sync(~0u, of_all, 2));
    // The largest becomes 2^14 to 2^15. Both scales are normal numbers.
    const int exponent = max(int(__float_as_uint(of_all) >> 23), 15);
    pixels.scale = __uint_as_float(unsigned(268 - exponent) << 23);
    pixels.unscale = __uint_as_float(unsigned(exponent - 14) << 23) * filter_unscale;
}

template <class Tile>
__device__ __forceinline__ void cut_up(const Pixels<Tile>& pixels, Fragments& fragments) {
    fragments.unscale = pixels.unscale;
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
        for (int k = 0; k < Tile::k_per_step; ++k)
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                const float first = pixels.values[row][k][2 * pair], second = pixels.values[row][k][2 * pair + 1];
                const uint32_t hi = ptx::pack<fp16>(first * pixels.scale, second * pixels.scale);
                fragments.values[row][k][pair] = hi;
                if constexpr (Tile::parts == 2) {
                    const float2 rounded = ptx::unpack<fp16>(hi);
                    fragments.values[row][Tile::k_per_step + k][pair] =
                        ptx::pack<fp16>(fmaf(first, pixels.scale, -rounded.x), fmaf(second, pixels.scale, -rounded.y));
                }
            }
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
        for (int slot = 0; slot < slots; ++slot)
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) ptx::wgmma_fence_operand(fragments.values[row][slot][pair]);
}

// A product of 16 channels of one part of the pixels, by tap row, with `slot` of the filters' rows.
template <class Tile>
__device__ __forceinline__ void multiply(float (&accum)[Tile::accum], const Fragments& fragments, int tap_row, int k,
                                         uint64_t filters, int slot, bool add) {
    const auto& upper = fragments.values[tap_row][k];
    const auto& lower = fragments.values[tap_row + 1][k];
    ptx::wgmma_from_registers(accum, upper[0], lower[0], upper[1], lower[1],
                              wgmma_sm90::advance_descriptor(filters, tap_row * Tile::tap_bytes + slot * mma_bytes),
                              add);
}

// The batch of a step, into accumulators that begin anew.
template <class Tile>
__device__ __forceinline__ void multiply_step(float (&accum)[Tile::accum], const Fragments& fragments,
                                              uint64_t filters) {
    constexpr int k_per_step = Tile::k_per_step;
    ptx::wgmma_fence();
    if constexpr (Tile::parts == 2) {
#pragma unroll
        for (int tap_row = 0; tap_row < taps_down; ++tap_row)
#pragma unroll
            for (int k = 0; k < k_per_step; ++k) {
                multiply<Tile>(accum, fragments, tap_row, k_per_step + k, filters, k, tap_row || k);  // lo x hi
                multiply<Tile>(accum, fragments, tap_row, k, filters, k_per_step + k, true);          // hi x lo
            }
    }
#pragma unroll
    for (int tap_row = 0; tap_row < taps_down; ++tap_row)
#pragma unroll
        for (int k = 0; k < k_per_step; ++k)
            multiply<Tile>(accum, fragments, tap_row, k, filters, k, Tile::parts == 2 || tap_row || k);
    ptx::wgmma_commit_group();
}

// Of a consumer: its place in the rings, and the sums of its share of a work tile.
template <class Tile>
struct Consumer {
    const Memory<Tile>& memory;
    const int number;
    const float filter_unscale;
    Ring<Tile::pixel_stages> pixels;
    Ring<Tile::filter_stages> filters;

    // The pixels of step `step` of the k-tile that is next in the ring.
    __device__ __forceinline__ void load(int step, Pixels<Tile>& to) {
        if (step == 0) ptx::mbarrier_wait(memory.pixels_full(pixels.stage), pixels.parity);
        const int block = number * Tile::steps + step;
        const unsigned box = memory.pixels(pixels.stage) + block / 2 * Tile::halves * box_bytes;
        load_pixels(box + block % 2 * block_rows * group_bytes, filter_unscale, to);
        if (step + 1 == Tile::steps) {  // nobody needs them any more
            __syncwarp();
            ptx::mbarrier_arrive(memory.pixels_empty(pixels.stage));
            pixels.advance();
        }
    }

    __device__ __forceinline__ void sum(int k_tiles, float (&sums)[Tile::steps][Tile::accum]) {
        constexpr int buffers = Tile::cuts_early ? 2 : 1;
        static_assert(Tile::steps % buffers == 0, "so that buffers are numbered by constants");
        Fragments fragments[buffers];
        Pixels<Tile> loaded;
#pragma unroll
        for (int step = 0; step < Tile::steps; ++step)
#pragma unroll
            for (int i = 0; i < Tile::accum; ++i) sums[step][i] = 0;
        if (Tile::loads_early) {
            load(0, loaded);
            cut_up(loaded, fragments[0]);
        }
#pragma unroll 1
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
#pragma unroll
            for (int step = 0; step < Tile::steps; ++step) {
                const bool last = step + 1 == Tile::steps, more = !last || k_tile + 1 < k_tiles;
                Fragments& now = fragments[step % buffers];
                Fragments& next = fragments[(step + 1) % buffers];
                if (!Tile::loads_early) {
                    load(step, loaded);
                    cut_up(loaded, now);
                }
                if (step == 0) ptx::mbarrier_wait(memory.filters_full(filters.stage), filters.parity);
                float accum[Tile::accum];
                multiply_step<Tile>(accum, now, wgmma_sm90::matrix_descriptor(memory.filters(filters.stage)));
                if (Tile::loads_early && more) load(last ? 0 : step + 1, loaded);
                if (Tile::cuts_early && more) cut_up(loaded, next);
                ptx::wgmma_wait_group<0>();
                ptx::wgmma_fence_accum(accum);
                if (last) {
                    ptx::mbarrier_arrive(memory.filters_empty(filters.stage));
                    filters.advance();
                }
#pragma unroll
                for (int i = 0; i < Tile::accum; ++i) sums[step][i] = fmaf(accum[i], now.unscale, sums[step][i]);
                if (Tile::loads_early && !Tile::cuts_early && more) cut_up(loaded, next);
            }
        }
    }
};

// A warp's sums, through its epilogue_smem to whole squares of eight channels, one to a lane: 16 pixels (two image
// rows) by 64 channels at a time. Unrolled, this would be much code, and spill; as registers cannot be indexed, the
// loop takes the first 32 sums each time and the others move up.
template <class Tile, class Epilogue>
__device__ __forceinline__ void store_sums(float* epilogue_smem, const ActivationShape& map, const WorkTile& work_tile,
                                           int consumer, float (&sums)[Tile::steps][Tile::accum],
                                           const Epilogue& epilogue, float* partials) {
    constexpr int channels = 64, eights = channels / 8, at_once = 32, count = 64 / at_once;
    const int lane = threadIdx.x % 32, warp = threadIdx.x % group_threads / 32;
    const int eight = lane % eights, square_x = lane / eights * 2;
#pragma unroll 1
    for (int turn = 0; turn < count; ++turn) {
#pragma unroll
        for (int i = 0; i < at_once; i += 2) {
            const int row = wgmma_sm90::accum_row(lane, i), column = wgmma_sm90::accum_column(lane, i);
            float* const to = epilogue_smem + wgmma_sm90::staged<channels>(row, column / 4) + column % 4;
            *reinterpret_cast<float2*>(to) = make_float2(sums[0][i], sums[0][i + 1]);
        }
#pragma unroll
        for (int i = at_once; i < Tile::steps * Tile::accum; ++i) {
            const int to = i - at_once;
            sums[to / Tile::accum][to % Tile::accum] = sums[i / Tile::accum][i % Tile::accum];
        }
        __syncwarp();
        PoolWindow values;
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            const int row = pixel / 2 * 8 + row_of_pixel(square_x + pixel % 2);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float* const from = epilogue_smem + wgmma_sm90::staged<channels>(row, 2 * eight + half);
                const float4 four = *reinterpret_cast<const float4*>(from);
                values[pixel][4 * half] = four.x;
                values[pixel][4 * half + 1] = four.y;
                values[pixel][4 * half + 2] = four.z;
                values[pixel][4 * half + 3] = four.w;
            }
        }
        __syncwarp();
        const int block = consumer * Tile::steps + (Tile::steps == 2 ? turn : 0);
        const int y = work_tile.y + block % 2 * block_rows + warp * 2;
        const int x = work_tile.x + block / 2 * box_width + square_x;
        const int channel = work_tile.channel + (Tile::steps == 2 ? 0 : turn * channels) + eight * 8;
        if (partials)
            mma_sm80::SplitKEpilogue{partials}.store(map, y, x, channel, values);
        else
            epilogue.store(map, y, x, channel, values);
    }
}

template <class Tile, class Epilogue>
__device__ __forceinline__ void convolve(const TensorMap& pixels_map, const TensorMap& filters_map,
                                         const ActivationShape& map, int channels_in, int split_k,
                                         const Epilogue& epilogue, const ReadLater& later, float* partials,
                                         float filter_unscale) {
    DYNAMIC_SHARED(unsigned char, shared);
    const Memory<Tile> memory = {ptx::shared_address_32(shared)};
    constexpr int tile_width = Tile::boxes * box_width;
    const unsigned down = ceil_div(map.height, box_height);
    const TileScheduler scheduler = {ceil_div(map.width, tile_width), ceil_div(map.channels, Tile::columns), split_k,
                                     ceil_div(channels_in, Tile::k_tile_channels) * 3};
    const unsigned pixel_tiles = down * scheduler.tiles_across;
    const size_t split_size = size_t(map.height) * map.width * map.channels;

    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Tile::pixel_stages; ++stage) {
            ptx::mbarrier_init(memory.pixels_full(stage), 1);
            ptx::mbarrier_init(memory.pixels_empty(stage), Tile::consumer_warps);
        }
        for (int stage = 0; stage < Tile::filter_stages; ++stage) {
            ptx::mbarrier_init(memory.filters_full(stage), 1);
            ptx::mbarrier_init(memory.filters_empty(stage), Tile::consumer_warps);
        }
        ptx::fence_barrier_init();
        ptx::prefetch_tensor_map(pixels_map);
        ptx::prefetch_tensor_map(filters_map);
    }
    __syncthreads();

    const int number = threadIdx.x / group_threads;
    if (number == Tile::consumers) {
        ptx::reg_dealloc<Tile::producer_registers>();
        if (threadIdx.x / 32 == Tile::consumer_warps)
            produce<Tile>(memory, pixels_map, filters_map, scheduler, pixel_tiles, map, partials ? ReadLater{} : later);
    } else {
        ptx::reg_alloc<Tile::consumer_registers>();
        float* const epilogue_smem =
            reinterpret_cast<float*>(shared + Tile::epilogue_smem_at) + threadIdx.x / 32 * Tile::epilogue_smem_floats;
        Consumer<Tile> consumer = {memory, number, filter_unscale, {}, {}};
        const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles * scheduler.split_k;
#pragma unroll 1
        for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x) {
            const WorkTile work_tile =
                wgmma_sm90::work_tile_at(index, scheduler, pixel_tiles, tile_width, Tile::columns);
            float sums[Tile::steps][Tile::accum];
            consumer.sum(work_tile.end_k_tile - work_tile.first_k_tile, sums);
            store_sums<Tile>(epilogue_smem, map, work_tile, number, sums, epilogue,
                             partials ? partials + work_tile.split * split_size : nullptr);
        }
    }
}

#endif  // sm_90a or the emulator

}  // namespace wgmma_fp32_sm90

// Kernels by their full names. Of the input gradient "in" and "out" are those of the product, not of the layer.
#define CONV3X3_RELU_WGMMA_FP32_SM90(name, Tile)                                                                \
    extern "C" __global__ void __launch_bounds__(wgmma_fp32_sm90::Tile::threads, 1) name(                       \
        const __grid_constant__ TensorMap pixels, const __grid_constant__ TensorMap filters,                    \
        const float* __restrict__ bias, float* __restrict__ out, uint8_t* __restrict__ relu_mask,               \
        float* __restrict__ pooled, uint8_t* __restrict__ pool_argmax, void* __restrict__ partials, int height, \
        int width, int channels_in, int channels_out, int split_k, int average, float filter_unscale) {         \
        wgmma_fp32_sm90::convolve<wgmma_fp32_sm90::Tile>(                                                       \
            pixels, filters, {height, width, channels_out}, channels_in, split_k,                               \
            mma_sm80::ReluPoolEpilogue<float>{bias, out, relu_mask, pooled, pool_argmax, average}, {},          \
            static_cast<float*>(partials), filter_unscale);                                                     \
    }

#define CONV3X3_INPUT_GRADIENT_WGMMA_FP32_SM90(name, Tile)                                                            \
    extern "C" __global__ void __launch_bounds__(wgmma_fp32_sm90::Tile::threads, 1) name(                             \
        const __grid_constant__ TensorMap pixels, const __grid_constant__ TensorMap filters, float* __restrict__ out, \
        const uint8_t* __restrict__ relu_mask, void* __restrict__ partials, int height, int width, int channels_in,   \
        int channels_out, int split_k, int accumulate, float filter_unscale) {                                        \
        wgmma_fp32_sm90::convolve<wgmma_fp32_sm90::Tile>(                                                             \
            pixels, filters, {height, width, channels_out}, channels_in, split_k,                                     \
            mma_sm80::MaskEpilogue<float>{out, relu_mask, accumulate}, {accumulate ? out : nullptr, relu_mask},       \
            static_cast<float*>(partials), filter_unscale);                                                           \
    }
