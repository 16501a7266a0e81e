// The 3x3 convolution on Hopper's tensor cores: bf16 or fp16 activations and filters, sums in fp32. Rung 4 of
// README.md's ladder. The same product as conv3x3/mma_sm80.cuh has, pixels times filters, and the same epilogues; what
// differs is who does the work. A block has three warpgroups: two keep the tensor cores busy, and one warp of the third
// the copy engine:
//
//     producer     for each k-tile (64 channels, a column of taps): wait until a pixel stage is free, load its boxes;
//                  for each of its three taps: wait until a filter stage is free, load its filters
//     consumers    for each k-tile wait until its pixels are there; for each tap until its filters are; a batch of eight
//                  wgmma, and when the batch before has finished, give its stages back
//
//     producer    |P0 f f f|P1 f f f|P2 f f f|...               P: boxes of pixels, f: filters of one tap
//     pixels      [stage 0][stage 1][stage 2]      full -> wgmma reads -> empty, by two mbarriers a stage
//     filters     [0][1][2][3][4]
//     consumer 0  . . |8 wgmma|8 wgmma|8 wgmma|...|epilogue|    256x128: both at one work tile, a box each
//     consumer 1  . . |8 wgmma|8 wgmma|8 wgmma|...|epilogue|    others: by turns, one's epilogue beside the other's wgmma
//
//     A box, 8 pixels wide, loaded 18 rows high for 16:       The work tile 256x128: two boxes and 128 channels
//
//        row -1  [8 pixels x 64 channels: 1024 bytes]             box 0  box 1      128 channels
//        row  0  [swizzled with that period         ]            +------+------+    +----------+
//        ...                                                     |16 x 8|16 x 8| x  | 64 x 128 |
//        row 16  [tap r reads from row r on         ]            +------+------+    +----------+
//
// Stages are rings in shared memory. The boxes overhang the image, where the copy engine reads zeros: that is the
// padding. Blocks stay for many tiles, so the producer fills the stages for the next tile during the epilogue of the
// last.
//
// Bound by the tensor cores in blocks 3 and 4 of VGG-19 at 512 px, where an H100 reaches 86 to 91% of what its matrix
// product does. Where channels are few, by the epilogue on the way there (53% at conv1_2) and on the way back, whose
// epilogue is conv3x3/wgmma_epilogue_sm90.cuh, or conv3x3/wgmma_unpool_sm90.cuh behind a pool, by what L2 and shared memory are asked for: 38 us at conv1_2, 65%
// (benchmarks/results/h100_2026-11-26.md, h100_2026-11-27_epilogue.md). From 64 channels to 64, filters stay in shared
// memory. conv3x3/wgmma_layout.cuh knows where everything lies, the folder ptx the instructions, launch_wgmma_sm90.py
// tiles and launches. tests/kernels/cuda/conv3x3/test_wgmma_sm90.py
// runs every kernel, in the emulator and where there is a GPU for them, against float64.
#pragma once

#include "common/element.cuh"
#include "common/indexing.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/mma_sm80.cuh"
#include "conv3x3/wgmma_epilogue_sm90.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "conv3x3/wgmma_unpool_sm90.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/setmaxnreg.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

namespace wgmma_sm90 {

using mma_sm80::PoolWindow;

#ifdef HAS_WGMMA

// --------------------------------------------------------------------------------------------- the main loop

// A work tile is `boxes` side by side times `columns` channels. Either the two consumers are cooperative, with a box
// each, which asks least of L2; or they play ping-pong, and one stores its work tile while the other multiplies the
// next. Whichever way, a consumer has 128 sums a thread. With swap_ab the filters are the rows of a product and a box's
// 128 pixels are its columns, instead of 64 pixels and 64 filters: as many multiplications for 6 KB read from shared
// memory, not 8.
template <int boxes_, int columns_, bool cooperative_, bool swap_ab_, int pixel_stages_, int filter_stages_, int masks_>
struct Tile {
    static constexpr int boxes = boxes_, columns = columns_;
    static constexpr bool cooperative = cooperative_, swap_ab = swap_ab_;
    static_assert(boxes == 2 || !cooperative);
    static_assert(columns == 64 || (columns == 128 && !swap_ab));

    static constexpr int consumers = 2, consumer_warps = consumers * warps_per_group;
    static constexpr int threads = (consumers + 1) * group_threads;
    static constexpr int releasing_warps = cooperative ? consumer_warps : warps_per_group;
    static constexpr int consumer_boxes = cooperative ? 1 : boxes;
    static constexpr int products = swap_ab ? consumer_boxes : 2 * consumer_boxes;  // wgmma per 16 channels
    static constexpr int accum = (swap_ab ? box_width * box_height : columns) / 2;  // per product and thread
    static_assert(products * accum == 128);

    // Where all filters of 64 channels fit, a stage for each tap and one for a style's difference, they stay for all of
    // the block's work tiles.
    static constexpr bool resident = filter_stages_ == 10;
    static_assert(!resident || columns == block_k);
    static constexpr int pixel_stages = pixel_stages_, pixel_bytes = boxes * box_bytes;
    static constexpr int filter_stages = filter_stages_, filter_bytes = columns * row_bytes;
    static constexpr int units = boxes * columns / unit_channels;  // of a work tile, for the input gradient's epilogue
    static constexpr int consumer_units = cooperative ? units / consumers : units;
    static constexpr int unit_mask_bytes = masks_ * mask_bytes;  // in shared memory
    static constexpr int epilogue_smem_floats = 64 * 16;         // of a warp, for the other's
    static constexpr int filters_at = pixel_stages * pixel_bytes,
                         epilogue_at = filters_at + filter_stages * filter_bytes;
    static constexpr int masks_at = epilogue_at + unit_buffers * unit_bytes;
    static constexpr int barriers_at = masks_at + unit_buffers * unit_mask_bytes;
    static constexpr int shared_bytes = barriers_at + 2 * 8 * (pixel_stages + filter_stages + 6);
    static_assert(unit_buffers * unit_bytes == consumer_warps * epilogue_smem_floats * 4);
    static_assert(filters_at % group_bytes == 0 && filter_bytes % group_bytes == 0);
    static_assert(shared_bytes <= 227 * 1024, "what a block may have");

    // Registers per thread: 168 at the launch; then the producer's warpgroup gives most of its own to the consumers,
    // who use up to 231 (read in the SASS).
    static constexpr int producer_registers = 56, consumer_registers = 224;
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
    __device__ __forceinline__ unsigned turn(int consumer) const {
        return filters_full(Tile::filter_stages) + 8 * consumer;
    }
    // Of a unit: its buffer is free; ready for a consumer; staged. Of one that is unpooled: all four corners staged.
    __device__ __forceinline__ unsigned unit(int buffer) const {
        return base + Tile::epilogue_at + buffer * unit_bytes;
    }
    __device__ __forceinline__ unsigned unit_free(int buffer) const { return turn(2 + buffer); }
    __device__ __forceinline__ unsigned unit_staged(int buffer) const { return turn(4 + buffer); }
    __device__ __forceinline__ unsigned unit_ready(int consumer, int buffer) const {
        return turn(6 + 2 * consumer + buffer);
    }
    __device__ __forceinline__ unsigned unit_done(int buffer) const { return turn(10 + buffer); }
};

// Loads a k-tile's boxes, the first of them from `at`, or a tap's filters, into the next stage, once that is free. The producer's warp.
template <class Tile>
__device__ __forceinline__ void load_boxes(const Memory<Tile>& memory, Ring<Tile::pixel_stages>& pixels,
                                           const TensorMap& map, const Coordinates& at) {
    ptx::mbarrier_wait(memory.pixels_empty(pixels.stage), pixels.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
        ptx::arrive_expect_tx(memory.pixels_full(pixels.stage), Tile::pixel_bytes);
        for (int box = 0; box < Tile::boxes; ++box)
            ptx::tma_load_3d(memory.pixels(pixels.stage) + box * box_bytes, map, memory.pixels_full(pixels.stage),
                             {at.x, at.y + box * box_width, at.z});
    }
    pixels.advance();
}
template <class Tile>
__device__ __forceinline__ void load_filters(const Memory<Tile>& memory, Ring<Tile::filter_stages>& filters,
                                             const TensorMap& map, const Coordinates& at) {
    ptx::mbarrier_wait(memory.filters_empty(filters.stage), filters.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
        ptx::arrive_expect_tx(memory.filters_full(filters.stage), Tile::filter_bytes);
        ptx::tma_load_3d(memory.filters(filters.stage), map, memory.filters_full(filters.stage), at);
    }
    filters.advance();
}

template <class Tile, class Epilogue>
__device__ __forceinline__ void produce(const Memory<Tile>& memory, const TensorMap& pixels_map,
                                        const TensorMap& filters_map, const TileScheduler& scheduler,
                                        unsigned pixel_tiles, const Epilogue& epilogue) {
    Ring<Tile::pixel_stages> pixels;
    Ring<Tile::filter_stages> filters;
    const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles * scheduler.split_k;
    for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x) {
        const WorkTile work_tile = work_tile_at(index, scheduler, pixel_tiles, Tile::boxes * box_width, Tile::columns);
#pragma unroll 1
        for (int k_tile = work_tile.first_k_tile; k_tile < work_tile.end_k_tile; ++k_tile) {
            load_boxes<Tile>(memory, pixels, pixels_map, pixels_at(work_tile, k_tile, 0));
            if (Tile::resident && index != blockIdx.x) continue;
#pragma unroll 1
            for (int tap_row = 0; tap_row < 3; ++tap_row)
                load_filters<Tile>(memory, filters, filters_map, filters_at(work_tile, k_tile, tap_row));
        }
        if constexpr (Epilogue::with_style) {
            const int style_k_tiles = work_tile.split ? 0 : epilogue.style.k_tiles;
#pragma unroll 1
            for (int k_tile = 0; k_tile < style_k_tiles; ++k_tile) {
                load_boxes<Tile>(memory, pixels, epilogue.style.features, pixels_at(work_tile, 3 * k_tile + 1, 0));
                if (!Tile::resident || index == blockIdx.x)
                    load_filters<Tile>(memory, filters, epilogue.style.difference,
                                       {k_tile * block_k, 0, work_tile.channel});
            }
        }
    }
}

// A batch of wgmma: 64 channels of a tap, of all boxes of the work tile or of the consumer's. `add` is 0 where the sums
// begin.
template <class Tile, class Element>
__device__ __forceinline__ void multiply_tap(uint64_t of_boxes, uint64_t of_stage, int tap_row, int add,
                                             float (&accum)[Tile::products][Tile::accum]) {
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < block_k / mma_k; ++k) {
#pragma unroll
        for (int i = 0; i < Tile::products; ++i) {
            const int box = Tile::swap_ab ? i : i / 2, block = Tile::swap_ab ? 0 : i % 2;
            const uint64_t of_pixels = advance_descriptor(of_boxes, box * box_bytes + block_offset(block, tap_row, k));
            const uint64_t of_filters = advance_descriptor(of_stage, k * mma_bytes);
            ptx::wgmma<Element>(accum[i], Tile::swap_ab ? of_filters : of_pixels,
                                Tile::swap_ab ? of_pixels : of_filters, add | k);
        }
    }
    ptx::wgmma_commit_group();
}

// The sums of one work tile: of all its boxes, or of the consumer's. `style_k_tiles` more follow, of one tap, the middle.
template <class Tile, class Element>
__device__ __forceinline__ void multiply(const Memory<Tile>& memory, int k_tiles, int style_k_tiles, int consumer,
                                         Ring<Tile::pixel_stages>& pixels, Ring<Tile::filter_stages>& filters,
                                         float (&accum)[Tile::products][Tile::accum]) {
    const int first_box = Tile::cooperative ? consumer : 0;
    int pixels_before = 0, filters_before = 0;  // the stages of the batch before
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        ptx::mbarrier_wait(memory.pixels_full(pixels.stage), pixels.parity);
        const uint64_t of_boxes = matrix_descriptor(memory.pixels(pixels.stage) + first_box * box_bytes);
#pragma unroll
        for (int tap_row = 0; tap_row < 3; ++tap_row) {
            const int stage = Tile::resident ? 3 * k_tile + tap_row : filters.stage;
            ptx::mbarrier_wait(memory.filters_full(stage), Tile::resident ? 0 : filters.parity);
            const uint64_t of_stage = matrix_descriptor(memory.filters(stage));
            multiply_tap<Tile, Element>(of_boxes, of_stage, tap_row, k_tile | tap_row, accum);
            // The batch before has finished when no more than this one is under way.
            ptx::wgmma_wait_group<1>();
            if (!Tile::resident && (k_tile | tap_row)) ptx::mbarrier_arrive(memory.filters_empty(filters_before));
            if (k_tile && tap_row == 0) ptx::mbarrier_arrive(memory.pixels_empty(pixels_before));
            filters_before = filters.stage;
            filters.advance();
        }
        pixels_before = pixels.stage;
        pixels.advance();
    }
#pragma unroll 1
    for (int k_tile = 0; k_tile < style_k_tiles; ++k_tile) {
        ptx::mbarrier_wait(memory.pixels_full(pixels.stage), pixels.parity);
        const int stage = Tile::resident ? Tile::filter_stages - 1 : filters.stage;
        ptx::mbarrier_wait(memory.filters_full(stage), Tile::resident ? 0 : filters.parity);
        multiply_tap<Tile, Element>(matrix_descriptor(memory.pixels(pixels.stage) + first_box * box_bytes),
                                    matrix_descriptor(memory.filters(stage)), 1, 1, accum);
        ptx::wgmma_wait_group<1>();
        if (!Tile::resident) ptx::mbarrier_arrive(memory.filters_empty(filters_before));
        ptx::mbarrier_arrive(memory.pixels_empty(pixels_before));
        filters_before = filters.stage;
        pixels_before = pixels.stage;
        filters.advance();
        pixels.advance();
    }
    if (!Tile::cooperative) ptx::mbarrier_arrive(memory.turn(1 - consumer));
    ptx::wgmma_wait_group<0>();
#pragma unroll
    for (int i = 0; i < Tile::products; ++i) ptx::wgmma_fence_accum(accum[i]);
    if (!Tile::resident) ptx::mbarrier_arrive(memory.filters_empty(filters_before));
    ptx::mbarrier_arrive(memory.pixels_empty(pixels_before));
}

// A warp's sums of a work tile, through its epilogue_smem to whole squares of eight channels, one to a lane: 16 pixels
// (two image rows) by 64 channels at a time, or with swap_ab, 64 pixels (eight rows) by 16 channels. (y, x) is the
// consumer's first pixel.
// Unrolled, this would be several times as much code as the main loop, and spill; as registers cannot be indexed, the
// loop takes the first 32 sums each time and the others move up.
template <class Tile, class Epilogue>
__device__ __forceinline__ void store_accum(float* epilogue_smem, const ActivationShape& map, int y, int x, int channel,
                                            float (&accum)[Tile::products][Tile::accum], const Epilogue& epilogue,
                                            float* partials) {
    constexpr int channels = Tile::swap_ab ? 16 : 64, eights = channels / 8, at_once = 32;
    constexpr int parts = Tile::accum / at_once, count = Tile::products * parts;
    const int lane = threadIdx.x % 32, warp = threadIdx.x % group_threads / 32;
    const int eight = lane % eights, square_y = lane / eights / 4 * 2, square_x = lane / eights % 4 * 2;
#pragma unroll 1
    for (int turn = 0; turn < count; ++turn) {
#pragma unroll
        for (int i = 0; i < at_once; i += 2) {
            const int row = accum_row(lane, i), column = accum_column(lane, i);
            if constexpr (Tile::swap_ab) {
                epilogue_smem[staged<channels>(column, row / 4) + row % 4] = accum[0][i];
                epilogue_smem[staged<channels>(column + 1, row / 4) + row % 4] = accum[0][i + 1];
            } else {
                float* const to = epilogue_smem + staged<channels>(row, column / 4) + column % 4;
                *reinterpret_cast<float2*>(to) = make_float2(accum[0][i], accum[0][i + 1]);
            }
        }
#pragma unroll
        for (int i = at_once; i < Tile::products * Tile::accum; ++i) {
            const int to = i - at_once;
            accum[to / Tile::accum][to % Tile::accum] = accum[i / Tile::accum][i % Tile::accum];
        }
        __syncwarp();
        PoolWindow values;
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            const int at = (square_y + pixel / 2) * box_width + square_x + pixel % 2;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float* const from = epilogue_smem + staged<channels>(at, 2 * eight + half);
                const float4 four = *reinterpret_cast<const float4*>(from);
                values[pixel][4 * half] = four.x;
                values[pixel][4 * half + 1] = four.y;
                values[pixel][4 * half + 2] = four.z;
                values[pixel][4 * half + 3] = four.w;
            }
        }
        __syncwarp();
        const int product = turn / parts, part = turn % parts;
        const int box = Tile::swap_ab ? product : product / 2, block = Tile::swap_ab ? 0 : product % 2;
        const int to_y = y + block * block_rows + (Tile::swap_ab ? part * 8 : warp * 2) + square_y;
        const int to_x = x + box * box_width + square_x;
        const int to_channel = channel + (Tile::swap_ab ? warp : part) * channels + eight * 8;
        if (partials)
            mma_sm80::SplitKEpilogue{partials}.store(map, to_y, to_x, to_channel, values);
        else
            epilogue.store(map, to_y, to_x, to_channel, values);
    }
}

template <class Tile, class Element, class Epilogue>
__device__ __forceinline__ void convolve(const TensorMap& pixels_map, const TensorMap& filters_map,
                                         const ActivationShape& map, int channels_in, int split_k,
                                         const Epilogue& epilogue, float* partials) {
    constexpr bool in_units = Epilogue::in_units;
    DYNAMIC_SHARED(unsigned char, shared);
    const Memory<Tile> memory = {ptx::shared_address_32(shared)};
    constexpr int tile_width = Tile::boxes * box_width;
    const unsigned down = ceil_div(map.height, box_height);
    const TileScheduler scheduler = {ceil_div(map.width, tile_width), ceil_div(map.channels, Tile::columns), split_k,
                                     ceil_div(channels_in, block_k) * 3};
    const unsigned pixel_tiles = down * scheduler.tiles_across;
    const size_t split_size = size_t(map.height) * map.width * map.channels;

    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Tile::pixel_stages; ++stage) {
            ptx::mbarrier_init(memory.pixels_full(stage), 1);
            ptx::mbarrier_init(memory.pixels_empty(stage), Tile::releasing_warps);
        }
        for (int stage = 0; stage < Tile::filter_stages; ++stage) {
            ptx::mbarrier_init(memory.filters_full(stage), 1);
            ptx::mbarrier_init(memory.filters_empty(stage), Tile::releasing_warps);
        }
        for (int consumer = 0; consumer < Tile::consumers; ++consumer)
            ptx::mbarrier_init(memory.turn(consumer), warps_per_group);
        for (int buffer = 0; buffer < unit_buffers; ++buffer) {
            ptx::mbarrier_init(memory.unit_free(buffer), 1);
            ptx::mbarrier_init(memory.unit_staged(buffer), warps_per_group);
            ptx::mbarrier_init(memory.unit_done(buffer), warps_per_group);
            if constexpr (in_units)
                for (int consumer = 0; consumer < Tile::consumers; ++consumer)
                    ptx::mbarrier_init(memory.unit_ready(consumer, buffer), Epilogue::ready_arrivals);
        }
        ptx::fence_barrier_init();
        ptx::prefetch_tensor_map(pixels_map);
        ptx::prefetch_tensor_map(filters_map);
        if constexpr (in_units) prefetch_results(epilogue);
    }
    __syncthreads();

    const int consumer = threadIdx.x / group_threads;
    if (consumer == Tile::consumers) {
        ptx::reg_dealloc<Tile::producer_registers>();
        const int warp = threadIdx.x / 32 - Tile::consumer_warps;
        if (warp == 0) produce<Tile>(memory, pixels_map, filters_map, scheduler, pixel_tiles, epilogue);
        if constexpr (in_units) {
            if (warp % 2 && warp / 2 < Epilogue::loaders && !partials)
                load_units<Tile>(memory, shared, epilogue, map, scheduler, pixel_tiles);
            if (warp == 2 && !partials) store_units<Tile>(memory, epilogue, scheduler, pixel_tiles);
        }
    } else {
        ptx::reg_alloc<Tile::consumer_registers>();
        float* const epilogue_smem =
            reinterpret_cast<float*>(shared + Tile::epilogue_at) + threadIdx.x / 32 * Tile::epilogue_smem_floats;
        const int first_box = Tile::cooperative ? consumer : 0;
        Ring<Tile::pixel_stages> pixels;
        Ring<Tile::filter_stages> filters;
        const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles * scheduler.split_k;
        bool others = !Tile::cooperative && consumer == 1;  // this work tile is the other consumer's
        unsigned turn = consumer ^ 1;  // parity of the phase to wait for: the first turn is consumer 0's
        unsigned unit_parity = 0;
#pragma unroll 1
        for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x) {
            const WorkTile work_tile = work_tile_at(index, scheduler, pixel_tiles, tile_width, Tile::columns);
            const int k_tiles = work_tile.end_k_tile - work_tile.first_k_tile;
            int style_k_tiles = 0;
            if constexpr (Epilogue::with_style) style_k_tiles = work_tile.split ? 0 : epilogue.style.k_tiles;
            if (others) {
                pixels.skip(k_tiles + style_k_tiles);
                filters.skip(3 * k_tiles + style_k_tiles);
            } else {
                // A parity tells a phase from the next, not from the one after that: so nobody may wait for stages
                // before the other has seen his.
                if (!Tile::cooperative) ptx::mbarrier_wait(memory.turn(consumer), turn);
                turn ^= 1;
                float accum[Tile::products][Tile::accum];
                multiply<Tile, Element>(memory, k_tiles, style_k_tiles, consumer, pixels, filters, accum);
                const int x = work_tile.x + first_box * box_width;
                float* const to = partials ? partials + work_tile.split * split_size : nullptr;
                if constexpr (!in_units) {
                    store_accum<Tile>(epilogue_smem, map, work_tile.y, x, work_tile.channel, accum, epilogue, to);
                } else if (partials) {
                    store_partials<Tile>(map, work_tile.y, x, work_tile.channel, accum, to);
                } else {
                    stage_units<Tile, Element>(memory, shared, epilogue, consumer, unit_parity, accum);
                    unit_parity ^= 1;
                }
            }
            others ^= !Tile::cooperative;
        }
    }
}

#endif  // sm_90a or the emulator

}  // namespace wgmma_sm90

// Kernels by their full names. Of the input gradient "in" and "out" are those of the product, not of the layer.
#define CONV3X3_RELU_WGMMA_SM90(name, Element, Tile)                                                              \
    extern "C" __global__ void __launch_bounds__(wgmma_sm90::Tile::threads, 1) name(                              \
        const __grid_constant__ TensorMap pixels, const __grid_constant__ TensorMap filters,                      \
        const float* __restrict__ bias, Element* __restrict__ out, uint8_t* __restrict__ relu_mask,               \
        Element* __restrict__ pooled, uint8_t* __restrict__ pool_argmax, void* __restrict__ partials, int height, \
        int width, int channels_in, int channels_out, int split_k, int average) {                                 \
        wgmma_sm90::convolve<wgmma_sm90::Tile, Element>(                                                          \
            pixels, filters, {height, width, channels_out}, channels_in, split_k,                                 \
            mma_sm80::ReluPoolEpilogue<Element>{bias, out, relu_mask, pooled, pool_argmax, average},              \
            static_cast<float*>(partials));                                                                       \
    }

#define CONV3X3_INPUT_GRADIENT_WGMMA_SM90(name, Element, Tile)                                              \
    extern "C" __global__ void __launch_bounds__(wgmma_sm90::Tile::threads, 1) name(                        \
        const __grid_constant__ TensorMap pixels, const __grid_constant__ TensorMap filters,                \
        const __grid_constant__ TensorMap out, const __grid_constant__ TensorMap features,                  \
        const __grid_constant__ TensorMap difference, const uint8_t* __restrict__ relu_mask,                \
        void* __restrict__ partials, int height, int width, int channels_in, int channels_out, int split_k, \
        int accumulate, int style_k_tiles) {                                                                \
        wgmma_sm90::convolve<wgmma_sm90::Tile, Element>(                                                    \
            pixels, filters, {height, width, channels_out}, channels_in, split_k,                           \
            wgmma_sm90::MaskUnits{out, relu_mask, accumulate, {features, difference, style_k_tiles}},       \
            static_cast<float*>(partials));                                                                 \
    }

// height and width are those of the gradient; what comes of it lies before a 2x2 pool, and may have an odd row or column
// more. Blocks that share a sum leave its parts for the gradient's own pixels.
#define CONV3X3_UNPOOLED_GRADIENT_WGMMA_SM90(name, Element, Tile)                                                     \
    extern "C" __global__ void __launch_bounds__(wgmma_sm90::Tile::threads, 1) name(                                  \
        const __grid_constant__ TensorMap pixels, const __grid_constant__ TensorMap filters,                          \
        const __grid_constant__ wgmma_sm90::CornerMaps out, const uint8_t* __restrict__ relu_mask,                    \
        const uint8_t* __restrict__ pool_argmax, void* __restrict__ partials, int height, int width, int channels_in, \
        int channels_out, int split_k, int unpooled_height, int unpooled_width) {                                     \
        const mma_sm80::ActivationShape unpooled = {unpooled_height, unpooled_width, channels_out};                   \
        const int rows = partials ? height : ceil_div(unpooled_height, 2);                                            \
        const int columns = partials ? width : ceil_div(unpooled_width, 2);                                           \
        wgmma_sm90::convolve<wgmma_sm90::Tile, Element>(                                                              \
            pixels, filters, {rows, columns, channels_out}, channels_in, split_k,                                     \
            wgmma_sm90::UnpoolUnits{out, relu_mask, pool_argmax, unpooled}, static_cast<float*>(partials));           \
    }

// out := difference in 16 bits; four numbers a thread.
#define ROUND_GRAM_ERROR_WGMMA_SM90(name, Element)                                                 \
    extern "C" __global__ void __launch_bounds__(256) name(const float* __restrict__ difference,   \
                                                           Element* __restrict__ out, int count) { \
        const int at = 4 * (blockIdx.x * blockDim.x + threadIdx.x);                                \
        if (at >= count) return;                                                                   \
        const float4 four = *reinterpret_cast<const float4*>(difference + at);                     \
        *reinterpret_cast<uint2*>(out + at) =                                                      \
            make_uint2(ptx::pack<Element>(four.x, four.y), ptx::pack<Element>(four.z, four.w));    \
    }
