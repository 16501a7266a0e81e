// The epilogue of the input gradient on Hopper where a 2x2 max pool lies before the convolution: the sums are the pool's
// gradient, and what is stored is the gradient of what was pooled, through the ReLU before it,
//
//     out[2 y + r, 2 x + s] := round(sums[y, x])  where the pool chose corner 2 r + s and the ReLU let it through, else 0
//
// so that nobody writes the pool's gradient to read it again. Corners are arrays of their own, with a tensor map each:
// every second pixel of every second row. A unit (conv3x3/wgmma_epilogue_sm90.cuh) is staged once for each of them:
//
//     loader      |masks 0|     |masks 1|          the two bits of each choice, and whether the chosen pixel passed
//     consumer    |  wgmma  |unit 0: corners 0 1 2 3|unit 1: corners 0 1 2 3|    wgmma    |
//     storer                       |0|1|2|3|               |0|1|2|3|
//     buffers     [corner of a unit: 16 KB] x 2, and [masks of a unit: 3 x 1 KB] x 2
//
// Who is allowed to stage: a consumer whom the loader has told that its masks are ready, which it does after everybody
// who stages into the same buffers has done with the unit before; and then it waits until the storer has stored what
// lies in a buffer. An odd last row or column was never pooled and gets zeros.
//
// Bound by device memory where channels are few: at conv2_1, 512 px, 33.5 MB are stored, 13 us at 2.6 TB/s, beside 10 us
// of products. Predicted for an H100, not measured: of 16 + 13 us (conv2_1 and its pool) 21 are left, at the three other
// pools 3, 2 and 2 us and four launches of some 2 us are saved. Launched by conv3x3/launch_wgmma_unpool_sm90.py.
// Tests: tests/kernels/cuda/conv3x3/test_wgmma_unpool_sm90.py
#pragma once

#include "common/element.cuh"
#include "common/indexing.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/mma_sm80.cuh"
#include "conv3x3/wgmma_epilogue_sm90.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/cvt.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"

namespace wgmma_sm90 {

constexpr int corners = 4;

struct CornerMaps {  // of corner 2 r + s: pixels (2 y + r, 2 x + s), in boxes of a unit
    TensorMap of[corners];
};

struct UnpoolUnits {
    static constexpr bool in_units = true, with_style = false;
    static constexpr int loaders = 2, ready_arrivals = loaders;
    const CornerMaps& out;
    const uint8_t *relu_mask, *pool_argmax;  // of what was pooled, and of the pool
    ActivationShape unpooled;
};

// Whether a pool took a pixel (y, x) of its result from what lies before it: not beyond the last whole square.
__device__ __forceinline__ bool was_pooled(const ActivationShape& unpooled, int y, int x) {
    return 2 * y + 1 < unpooled.height && 2 * x + 1 < unpooled.width;
}

#ifdef HAS_WGMMA

__device__ __forceinline__ void prefetch_results(const UnpoolUnits& epilogue) {
#pragma unroll
    for (int corner = 0; corner < corners; ++corner) ptx::prefetch_tensor_map(epilogue.out.of[corner]);
}

// The even bits of a word, side by side.
__device__ __forceinline__ uint32_t even_bits(uint32_t word) {
    word &= 0x55555555;
    word = (word | word >> 1) & 0x33333333;
    word = (word | word >> 2) & 0x0f0f0f0f;
    word = (word | word >> 4) & 0x00ff00ff;
    return (word | word >> 8) & 0xffff;
}

// What is known of 32 channels of a pooled pixel.
struct ChoiceBits {
    uint32_t passed, right, lower;  // the ReLU let the chosen pixel through; s and r of the choice

    // From two bits a channel in two words, and the mask's bits at the four corners.
    __device__ __forceinline__ ChoiceBits(uint32_t first, uint32_t second, const uint32_t (&mask)[corners]) {
        right = even_bits(first) | even_bits(second) << 16;
        lower = even_bits(first >> 1) | even_bits(second >> 1) << 16;
        const uint32_t above = (mask[0] & ~right) | (mask[1] & right), below = (mask[2] & ~right) | (mask[3] & right);
        passed = (above & ~lower) | (below & lower);
    }
};

// A pixel's choices, two bits a channel, and what the ReLU let through at its four corners: of 64 channels.
struct Choices {
    uint4 of;
    uint2 mask[corners];

    // Into shared memory: `passed`, `right` and `lower`, one after the other.
    template <class Tile>
    __device__ __forceinline__ void keep(unsigned char* to, int pixel) const {
        const uint32_t of_first[corners] = {mask[0].x, mask[1].x, mask[2].x, mask[3].x};
        const uint32_t of_second[corners] = {mask[0].y, mask[1].y, mask[2].y, mask[3].y};
        const ChoiceBits low(of.x, of.y, of_first), high(of.z, of.w, of_second);
        keep_mask<Tile>(to, pixel, make_uint2(low.passed, high.passed));
        keep_mask<Tile>(to + mask_bytes, pixel, make_uint2(low.right, high.right));
        keep_mask<Tile>(to + 2 * mask_bytes, pixel, make_uint2(low.lower, high.lower));
    }
};

// A unit's masks into shared memory, by two warps that take 32 pixels in turn: one has too few loads under way, and for
// more it has no registers.
template <class Tile>
__device__ __forceinline__ void load_choices(unsigned char* to, const UnpoolUnits& epilogue, const Coordinates& at) {
    constexpr int loaders = UnpoolUnits::loaders;
    const ActivationShape& unpooled = epilogue.unpooled;
    const int thread = threadIdx.x / 64 % loaders * 32 + threadIdx.x % 32;
    const int across = unpooled.channels / 8, down = unpooled.width * across;
    if (unpooled.channels % unit_channels == 0) {
#pragma unroll 1
        for (int pixel = thread; pixel < unit_pixels; pixel += 32 * loaders) {
            const int y = at.z + pixel / box_width, x = at.y + pixel % box_width;
            Choices choices = {};
            if (at.x < unpooled.channels && was_pooled(unpooled, y, x)) {
                const unsigned square = unsigned(y) * (unpooled.width / 2) + x;
                const unsigned corner = (unsigned(2 * y) * unpooled.width + 2 * x) * across;
                const uint8_t* const passed = epilogue.relu_mask + (corner + at.x / 8);
                choices.of = *reinterpret_cast<const uint4*>(epilogue.pool_argmax + (square * across * 2 + at.x / 4));
#pragma unroll
                for (int k = 0; k < corners; ++k)
                    choices.mask[k] = *reinterpret_cast<const uint2*>(passed + k / 2 * down + k % 2 * across);
            }
            choices.keep<Tile>(to, pixel);
        }
        return;
    }
    // Eight channels after eight, for one pixel after the other.
#pragma unroll 1
    for (int i = thread; i < unit_pixels * (unit_channels / 8); i += 32 * loaders) {
        const int pixel = i / 8, y = at.z + pixel / box_width, x = at.y + pixel % box_width, eight = at.x / 8 + i % 8;
        uint32_t choices = 0, mask[corners] = {};
        if (eight < across && was_pooled(unpooled, y, x)) {
            const unsigned square = unsigned(y) * (unpooled.width / 2) + x;
            choices = reinterpret_cast<const uint16_t*>(epilogue.pool_argmax)[square * across + eight];
#pragma unroll
            for (int corner = 0; corner < corners; ++corner)
                mask[corner] =
                    epilogue.relu_mask[unpooled.pixel(2 * y + corner / 2, 2 * x + corner % 2) * across + eight];
        }
        const ChoiceBits bits(choices, 0, mask);
        unsigned char* const byte = to + (Tile::swap_ab ? pair_mask_at(i % 8 / 2, pixel) + i % 2 : i);
        byte[0] = bits.passed;
        byte[mask_bytes] = bits.right;
        byte[2 * mask_bytes] = bits.lower;
    }
}

template <class Tile, class Memory>
__device__ __forceinline__ void load_units(const Memory& memory, unsigned char* shared, const UnpoolUnits& epilogue,
                                           const ActivationShape&, const TileScheduler& scheduler,
                                           unsigned pixel_tiles) {
    // The unit that must have been staged before a consumer is told of the next: the one before it, or where each consumer
    // has a buffer of its own, the one before that.
    Ring<unit_buffers> before{Tile::cooperative ? 0 : 1, 1};
    static_assert(Tile::units % unit_buffers == 0);
    const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles;
    int consumer = 0;
    for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x, consumer ^= 1) {
        const WorkTile work_tile = work_tile_at(index, scheduler, pixel_tiles, Tile::boxes * box_width, Tile::columns);
#pragma unroll 1
        for (int unit = 0; unit < Tile::units; ++unit) {
            const int buffer = unit % unit_buffers;
            if (Tile::cooperative) ptx::mbarrier_wait(memory.unit_done(before.stage), before.parity);
            load_choices<Tile>(shared + Tile::masks_at + buffer * Tile::unit_mask_bytes, epilogue,
                               unit_at<Tile>(work_tile, unit));
            if (!Tile::cooperative) ptx::mbarrier_wait(memory.unit_done(before.stage), before.parity);
            before.advance();
            __syncwarp();
            ptx::mbarrier_arrive(memory.unit_ready(Tile::cooperative ? buffer : consumer, buffer));
        }
    }
}

template <class Tile, class Memory>
__device__ __forceinline__ void store_units(const Memory& memory, const UnpoolUnits& epilogue,
                                            const TileScheduler& scheduler, unsigned pixel_tiles) {
    Ring<unit_buffers> buffers;
    const bool elected = threadIdx.x % 32 == 0;
    const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles;
    for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x) {
        const WorkTile work_tile = work_tile_at(index, scheduler, pixel_tiles, Tile::boxes * box_width, Tile::columns);
#pragma unroll 1
        for (int turn = 0; turn < corners * Tile::units; ++turn) {  // two consumers together: a corner of each in turn
            const int unit = Tile::cooperative ? turn / (2 * corners) * 2 + turn % 2 : turn / corners;
            const int corner = Tile::cooperative ? turn / 2 % corners : turn % corners;
            ptx::mbarrier_wait(memory.unit_staged(buffers.stage), buffers.parity);
            if (elected) {
                ptx::tma_store_3d(epilogue.out.of[corner], memory.unit(buffers.stage), unit_at<Tile>(work_tile, unit));
                ptx::tma_store_commit_group();
                ptx::tma_store_wait_group_read<0>();
            }
            __syncwarp();
            ptx::mbarrier_arrive(memory.unit_free(buffers.stage));
            buffers.advance();
        }
    }
}

template <class Tile, class Element, class Memory>
__device__ __forceinline__ void stage_units(const Memory& memory, unsigned char* shared, const UnpoolUnits&,
                                            int consumer, unsigned parity,
                                            float (&accum)[Tile::products][Tile::accum]) {
    const LaneOfUnit<Tile> at;
#pragma unroll
    for (int i = 0; i < Tile::consumer_units; ++i) {
        const int of_masks = Tile::cooperative ? consumer : i;
        ptx::mbarrier_wait(memory.unit_ready(consumer, of_masks), Tile::cooperative ? i : parity);
        const unsigned char* const masks = shared + Tile::masks_at + of_masks * Tile::unit_mask_bytes;
        uint32_t rounded[pairs_of_groups][4];
        {
            uint32_t passed[16];
            at.read_mask(masks, passed);
#pragma unroll
            for (int pair = 0; pair < pairs_of_groups; ++pair)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    rounded[pair][j] =
                        ptx::pack<Element>(at.sum(accum, i, pair, 2 * j), at.sum(accum, i, pair, 2 * j + 1)) &
                        at.passed(passed, pair, j);
        }
#pragma unroll 1
        for (int corner = 0; corner < corners; ++corner) {
            const int buffer = Tile::cooperative ? consumer : corner % 2;
            ptx::mbarrier_wait(memory.unit_free(buffer), (Tile::cooperative ? corner : corner / 2) % 2 ^ 1);
            const ptx::SharedAddress unit = ptx::shared_address(shared + Tile::epilogue_at + buffer * unit_bytes);
            const uint32_t not_right = corner % 2 ? 0 : ~0u, not_lower = corner / 2 ? 0 : ~0u;
            uint32_t chosen[16], lower[16];
            at.read_mask(masks + mask_bytes, chosen);
            at.read_mask(masks + 2 * mask_bytes, lower);
#pragma unroll
            for (int word = 0; word < 16; ++word) chosen[word] = (chosen[word] ^ not_right) & (lower[word] ^ not_lower);
#pragma unroll
            for (int pair = 0; pair < pairs_of_groups; ++pair) {
                uint32_t four[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) four[j] = rounded[pair][j] & at.passed(chosen, pair, j);
                at.store(unit, pair, four);
            }
            ptx::fence_proxy_async();
            __syncwarp();
            ptx::mbarrier_arrive(memory.unit_staged(buffer));
        }
        ptx::mbarrier_arrive(memory.unit_done(of_masks));
    }
}

// Adds the parts of the sums in order and unpools them: a thread for eight channels of a pixel.
template <class Element>
__device__ __forceinline__ void unpool_partials(const float* partials, int split_k, const ActivationShape& pooled,
                                                const uint8_t* relu_mask, const uint8_t* pool_argmax, Element* out,
                                                const ActivationShape& unpooled) {
    const int eights = unpooled.channels / 8, across = ceil_div(unpooled.width, 2);
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, pixel = thread / eights;
    const int channel = thread % eights * 8, y = pixel / across, x = pixel % across;
    if (2 * y >= unpooled.height) return;
    float sums[8] = {};
    unsigned chosen = 0;
    const bool inside = was_pooled(unpooled, y, x);
    if (inside) {
        const float* from = partials + pooled.pixel(y, x) * pooled.channels + channel;
        const size_t split_size = size_t(pooled.height) * pooled.width * pooled.channels;
#pragma unroll 1
        for (int split = 0; split < split_k; ++split, from += split_size) mma_sm80::add8(from, sums);
        const size_t square = pooled.pixel(y, x);
        chosen = *reinterpret_cast<const uint16_t*>(pool_argmax + square * (pooled.channels / 4) + channel / 4);
    }
#pragma unroll
    for (unsigned corner = 0; corner < corners; ++corner) {
        const int to_y = 2 * y + corner / 2, to_x = 2 * x + corner % 2;
        if (to_y >= unpooled.height || to_x >= unpooled.width) continue;
        const size_t at = unpooled.pixel(to_y, to_x);
        const unsigned passed = relu_mask[at * eights + channel / 8];
        float values[8];
#pragma unroll
        for (int k = 0; k < 8; ++k)
            values[k] = inside && (chosen >> 2 * k & 3) == corner && passed >> k & 1 ? sums[k] : 0.0f;
        mma_sm80::store8(out + at * unpooled.channels + channel, values);
    }
}

#endif  // sm_90a or the emulator

}  // namespace wgmma_sm90

#define CONV3X3_UNPOOLED_GRADIENT_SPLIT_K_SUM(name, Element)                                                          \
    extern "C" __global__ void __launch_bounds__(256) name(                                                           \
        const void* __restrict__ partials, Element* __restrict__ out, const uint8_t* __restrict__ relu_mask,          \
        const uint8_t* __restrict__ pool_argmax, int split_k, int height, int width, int channels,                    \
        int unpooled_height, int unpooled_width) {                                                                    \
        wgmma_sm90::unpool_partials<Element>(static_cast<const float*>(partials), split_k, {height, width, channels}, \
                                             relu_mask, pool_argmax, out,                                             \
                                             {unpooled_height, unpooled_width, channels});                            \
    }
