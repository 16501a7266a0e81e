// The epilogue of the input gradient on Hopper: (sums [+ what lies in `out`]) [* mask], rounded once to 16 bits. Nobody
// who multiplies waits for memory here; three warps beside the consumers see to that:
//
//     loader       for each unit: wait until its buffer is free; have the copy engine bring what lies in `out`, if that
//                  is to be added; bring the mask's bits by plain loads, all of them under way at once
//     consumers    wait until the unit is ready, which it has long been; add, mask, round; stmatrix into the buffer
//     storer       wait until the unit is staged, have the copy engine store it, and give the buffer back
//
//     loader      |load 0|load 1|      |load 0|load 1|
//     consumer    |   wgmma     |unit 0|unit 1|    wgmma    |unit 0|...
//     storer                          |store 0|store 1|
//     buffers     [unit: 128 pixels x 64 channels, 16 KB] x 2, and [its mask, 1 KB] x 2
//
// A unit lies in its buffer as boxes of pixels do, rows of 128 bytes swizzled, so that a lane's sums go there by
// stmatrix as they are: transposed where the filters are the rows of the product, else not. A warp writes and reads
// its own 16 pixels or channels of a unit and nobody else's.
//
// Bound by device memory where channels are few, and hidden behind the products of the other consumer elsewhere: some
// 3 instructions a sum, where going through float32 squares of pixels took 25. conv3x3/wgmma_sm90.cuh has the main loop;
// tests/kernels/cuda/conv3x3/test_wgmma_sm90.py runs all of it, in the emulator and where there is a GPU for it.
#pragma once

#include "common/element.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/mma_sm80.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/cvt.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/prmt.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tma.cuh"

namespace wgmma_sm90 {

using mma_sm80::ActivationShape;

// What is staged at a time, and where.
constexpr int unit_pixels = box_width * box_height, unit_channels = block_k;
constexpr int unit_bytes = unit_pixels * row_bytes, mask_bytes = unit_pixels * unit_channels / 8;
constexpr int unit_buffers = 2;

// What is multiplied beside the convolution: a style's gradient F D, (pixels x channels) by a symmetric difference, in
// k_tiles of 64 channels; 0 for none. Boxes of features are those of pixels, boxes of the difference those of filters.
struct StyleTerm {
    const TensorMap &features, &difference;
    int k_tiles;
};

// out := (sums [+ out]) [* relu_mask]; a null mask masks nothing.
struct MaskUnits {
    static constexpr bool in_units = true, with_style = true;
    static constexpr int loaders = 1, ready_arrivals = 2;  // the loader's own, and that with the copy engine's bytes
    const TensorMap& out;                                  // boxes of a unit
    const uint8_t* relu_mask;
    int accumulate;
    StyleTerm style;
};

#ifdef HAS_WGMMA

__device__ __forceinline__ void prefetch_results(const MaskUnits& epilogue) { ptx::prefetch_tensor_map(epilogue.out); }

// Unit `unit` of a work tile in (channels, width, height).
template <class Tile>
__device__ __forceinline__ Coordinates unit_at(const WorkTile& work_tile, int unit) {
    return {work_tile.channel + unit / Tile::boxes * unit_channels, work_tile.x + unit % Tile::boxes * box_width,
            work_tile.y};
}

// Where the mask of a pixel's 16 channels 16 w and up lies (swap_ab): a lane reads those of two pixels of each image row
// one after the other.
__device__ __forceinline__ int pair_mask_at(int w, int pixel) {
    return w * 256 + pixel / 2 % 4 * 64 + pixel / 8 * 4 + pixel % 2 * 2;
}

// A pixel's bits of a unit: eight bytes, or with swap_ab as pair_mask_at says.
template <class Tile>
__device__ __forceinline__ void keep_mask(unsigned char* to, int pixel, const uint2& bits) {
    if constexpr (Tile::swap_ab) {
        *reinterpret_cast<uint16_t*>(to + pair_mask_at(0, pixel)) = bits.x;
        *reinterpret_cast<uint16_t*>(to + pair_mask_at(1, pixel)) = bits.x >> 16;
        *reinterpret_cast<uint16_t*>(to + pair_mask_at(2, pixel)) = bits.y;
        *reinterpret_cast<uint16_t*>(to + pair_mask_at(3, pixel)) = bits.y >> 16;
    } else {
        *reinterpret_cast<uint2*>(to + pixel * 8) = bits;
    }
}

// A unit's mask into shared memory, by one warp. A lane has every fourth image row of a column.
template <class Tile>
__device__ __forceinline__ void load_mask(unsigned char* to, const uint8_t* relu_mask, const ActivationShape& map,
                                          const Coordinates& at) {
    constexpr int rows = 32 / box_width, per_lane = box_height / rows;
    const int lane = threadIdx.x % 32, x = at.y + lane % box_width, bytes = map.channels / 8 - at.x / 8;
    int y = at.z + lane / box_width;
    const int step = rows * map.width * (map.channels / 8);
    const uint8_t* from = relu_mask + map.pixel(y, x) * (map.channels / 8) + at.x / 8;
    if (x >= map.width) y = map.height;
    if (map.channels % 64 == 0) {
        uint2 bits[per_lane];
#pragma unroll
        for (int i = 0; i < per_lane; ++i, from += step) {
            bits[i] = make_uint2(0, 0);
            if (y + i * rows < map.height && bytes > 0) bits[i] = *reinterpret_cast<const uint2*>(from);
        }
#pragma unroll
        for (int i = 0; i < per_lane; ++i) keep_mask<Tile>(to, lane + i * 32, bits[i]);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < per_lane; ++i, from += step) {
        uint2 bits = make_uint2(0, 0);
        if (y + i * rows < map.height) {
#pragma unroll
            for (int byte = 0; byte < 8; ++byte)
                if (byte < bytes) (byte < 4 ? bits.x : bits.y) |= uint32_t(from[byte]) << byte % 4 * 8;
        }
        keep_mask<Tile>(to, lane + i * 32, bits);
    }
}

template <class Tile, class Memory>
__device__ __forceinline__ void load_units(const Memory& memory, unsigned char* shared, const MaskUnits& epilogue,
                                           const ActivationShape& map, const TileScheduler& scheduler,
                                           unsigned pixel_tiles) {
    Ring<unit_buffers> buffers;
    const bool elected = threadIdx.x % 32 == 0;
    const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles;
    int consumer = 0;
    for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x, consumer ^= 1) {
        const WorkTile work_tile = work_tile_at(index, scheduler, pixel_tiles, Tile::boxes * box_width, Tile::columns);
#pragma unroll 1
        for (int unit = 0; unit < Tile::units; ++unit) {
            const Coordinates at = unit_at<Tile>(work_tile, unit);
            const int buffer = buffers.stage;
            const unsigned ready = memory.unit_ready(Tile::cooperative ? buffer : consumer, buffer);
            ptx::mbarrier_wait(memory.unit_free(buffer), buffers.parity ^ 1);
            if (elected) {
                ptx::arrive_expect_tx(ready, epilogue.accumulate ? unit_bytes : 0);
                if (epilogue.accumulate) ptx::tma_load_3d(memory.unit(buffer), epilogue.out, ready, at);
            }
            if (epilogue.relu_mask)
                load_mask<Tile>(shared + Tile::masks_at + buffer * Tile::unit_mask_bytes, epilogue.relu_mask, map, at);
            __syncwarp();
            ptx::mbarrier_arrive(ready);
            buffers.advance();
        }
    }
}

template <class Tile, class Memory>
__device__ __forceinline__ void store_units(const Memory& memory, const MaskUnits& epilogue,
                                            const TileScheduler& scheduler, unsigned pixel_tiles) {
    Ring<unit_buffers> buffers;
    const bool elected = threadIdx.x % 32 == 0;
    const unsigned work_tiles = pixel_tiles * scheduler.channel_tiles;
    for (unsigned index = blockIdx.x; index < work_tiles; index += gridDim.x) {
        const WorkTile work_tile = work_tile_at(index, scheduler, pixel_tiles, Tile::boxes * box_width, Tile::columns);
#pragma unroll 1
        for (int unit = 0; unit < Tile::units; ++unit) {
            ptx::mbarrier_wait(memory.unit_staged(buffers.stage), buffers.parity);
            if (elected) {
                ptx::tma_store_3d(epilogue.out, memory.unit(buffers.stage), unit_at<Tile>(work_tile, unit));
                ptx::tma_store_commit_group();
                ptx::tma_store_wait_group_read<0>();
            }
            __syncwarp();
            ptx::mbarrier_arrive(memory.unit_free(buffers.stage));
            buffers.advance();
        }
    }
}

// Where a lane has its sums of a unit: 16 groups of eight pixels by eight channels to a warp, of which a lane has two
// pairs each, and stmatrix takes two at a time.
constexpr int pairs_of_groups = 8;
template <class Tile>
struct LaneOfUnit {
    int lane = threadIdx.x % 32, warp = threadIdx.x % group_threads / 32;
    int offset;  // of this lane's row of the four matrices of the first two groups

    __device__ __forceinline__ LaneOfUnit() {
        const int matrix = lane / 8, row = lane % 8;
        offset = Tile::swap_ab ? (matrix / 2 * 8 + row) * row_bytes + ((2 * warp + matrix % 2) ^ row) * 16
                               : (16 * warp + matrix % 2 * 8 + row) * row_bytes + (matrix / 2 ^ row) * 16;
    }
    __device__ __forceinline__ ptx::SharedAddress row(ptx::SharedAddress unit, int pair) const {
        if (Tile::swap_ab) return unit + offset + pair * 2 * group_bytes;
        return unit + pair / 4 * (64 * row_bytes) + (offset ^ pair % 4 * 32);
    }
    // Sum k of a pair, of the consumer's unit i.
    static __device__ __forceinline__ float& sum(float (&accum)[Tile::products][Tile::accum], int i, int pair, int k) {
        return Tile::swap_ab ? accum[i % Tile::products][(8 * pair + k) % Tile::accum]
                             : accum[pair / 4][(32 * i + 8 * (pair % 4) + k) % Tile::accum];
    }
    // The lane's bits of a mask in shared memory. With swap_ab a word for the group's eight pixels: of two of them, 16
    // channels each. Else a pixel's 64, of four pixels that lie eight apart.
    __device__ __forceinline__ void read_mask(const unsigned char* mask, uint32_t (&words)[16]) const {
#pragma unroll
        for (int four = 0; four < 4; ++four) {
            if constexpr (Tile::swap_ab) {
                const int at = pair_mask_at(warp, lane % 4 * 2) + four * 16;
                const uint4 loaded = *reinterpret_cast<const uint4*>(mask + at);
                words[4 * four] = loaded.x << (7 - lane / 4);
                words[4 * four + 1] = loaded.y << (7 - lane / 4);
                words[4 * four + 2] = loaded.z << (7 - lane / 4);
                words[4 * four + 3] = loaded.w << (7 - lane / 4);
            } else {
                const int pixel = four / 2 * 64 + warp * 16 + four % 2 * 8 + lane / 4;
                const uint2 loaded = *reinterpret_cast<const uint2*>(mask + pixel * 8);
                words[4 * four] = loaded.x << (7 - lane % 4 * 2);
                words[4 * four + 1] = loaded.x << (6 - lane % 4 * 2);
                words[4 * four + 2] = loaded.y << (7 - lane % 4 * 2);
                words[4 * four + 3] = loaded.y << (6 - lane % 4 * 2);
            }
        }
    }
    // Of numbers 2 j and 2 j + 1 of a pair: the highest bits of two bytes of those words, spread over 16 bits each.
    static __device__ __forceinline__ uint32_t passed(const uint32_t (&words)[16], int pair, int j) {
        const int group = 2 * pair + j / 2, half = j % 2;  // half: the other eight channels, or pixels
        if constexpr (Tile::swap_ab) {
            return ptx::permute_bytes(words[group], 0, half ? 0xbb99 : 0xaa88);
        } else {
            const int from = (group / 8 * 2 + half) * 4 + group % 8 / 4 * 2, byte = group % 4;
            return ptx::permute_bytes(words[from], words[from + 1], 0xcc88 + byte * 0x1111);
        }
    }
    __device__ __forceinline__ void store(ptx::SharedAddress unit, int pair, const uint32_t (&four)[4]) const {
        if constexpr (Tile::swap_ab)
            ptx::stmatrix_x4_transposed(row(unit, pair), four);
        else
            ptx::stmatrix_x4(row(unit, pair), four);
    }
};

// A consumer's sums of a work tile, a unit after the other. `parity` is of the consumer's work tiles.
template <class Tile, class Element, class Memory>
__device__ __forceinline__ void stage_units(const Memory& memory, unsigned char* shared, const MaskUnits& epilogue,
                                            int consumer, unsigned parity,
                                            float (&accum)[Tile::products][Tile::accum]) {
    const LaneOfUnit<Tile> at;
#pragma unroll
    for (int i = 0; i < Tile::consumer_units; ++i) {
        const int buffer = Tile::cooperative ? consumer : i;
        ptx::mbarrier_wait(memory.unit_ready(consumer, buffer), Tile::cooperative ? i : parity);
        const ptx::SharedAddress unit = ptx::shared_address(shared + Tile::epilogue_at + buffer * unit_bytes);

        if (epilogue.accumulate) {
#pragma unroll
            for (int pair = 0; pair < pairs_of_groups; ++pair) {
                uint32_t before[4];
                if constexpr (Tile::swap_ab)
                    ptx::ldmatrix_x4_transposed(before, at.row(unit, pair));
                else
                    ptx::ldmatrix_x4(before, at.row(unit, pair));
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float2 two = ptx::unpack<Element>(before[j]);
                    at.sum(accum, i, pair, 2 * j) += two.x;
                    at.sum(accum, i, pair, 2 * j + 1) += two.y;
                }
            }
        }
        uint32_t words[16];
        if (epilogue.relu_mask) {
            at.read_mask(shared + Tile::masks_at + buffer * Tile::unit_mask_bytes, words);
        } else {
#pragma unroll
            for (uint32_t& word : words) word = ~0u;
        }
#pragma unroll
        for (int pair = 0; pair < pairs_of_groups; ++pair) {
            uint32_t rounded[4];
#pragma unroll
            for (int j = 0; j < 4; ++j)
                rounded[j] = ptx::pack<Element>(at.sum(accum, i, pair, 2 * j), at.sum(accum, i, pair, 2 * j + 1)) &
                             at.passed(words, pair, j);
            at.store(unit, pair, rounded);
        }
        ptx::fence_proxy_async();
        __syncwarp();
        ptx::mbarrier_arrive(memory.unit_staged(buffer));
    }
}

// A split's sums as they are, for add_partials: float32, [pixel][channel]. (y, x) is the consumer's first pixel.
template <class Tile>
__device__ __forceinline__ void store_partials(const ActivationShape& map, int y, int x, int channel,
                                               const float (&accum)[Tile::products][Tile::accum], float* partials) {
    const int thread = threadIdx.x % group_threads;
#pragma unroll
    for (int product = 0; product < Tile::products; ++product)
#pragma unroll
        for (int i = 0; i < Tile::accum; i += 2) {
            const int row = accum_row(thread, i), column = accum_column(thread, i);
            const int pixel = Tile::swap_ab ? column : product % 2 * 64 + row;
            const int to_y = y + pixel / box_width;
            const int to_x = x + pixel % box_width + (Tile::swap_ab ? product * box_width : 0);
            const int to_channel = channel + (Tile::swap_ab ? row : column);
            if (to_y >= map.height || to_x >= map.width || to_channel >= map.channels) continue;
            float* const to = partials + map.pixel(to_y, to_x) * map.channels + to_channel;
            if constexpr (Tile::swap_ab) {
                to[0] = accum[product][i];
                if (to_x + 1 < map.width) to[map.channels] = accum[product][i + 1];
            } else {
                *reinterpret_cast<float2*>(to) = make_float2(accum[product][i], accum[product][i + 1]);
            }
        }
}

#endif  // sm_90a or the emulator

}  // namespace wgmma_sm90
