// The Gram matrix F^T diag(w) F / (H W) of features F (pixels x channels) and the gradient w (F D + s) of a cost of it,
// on tensor cores by mma.sync, for every kind of number that conv3x3/mma_sm80.cuh multiplies. gram/simt.cu has the same
// without tensor cores, and adds up the splits of both. launch_mma_sm80.py launches these kernels;
// tests/kernels/cuda/gram/test_mma_sm80.py runs each of them in the emulator.
//
//        channels                        The Gram matrix sums over pixels, while memory has a pixel's channels side by
//      +---+---+---+                     side: both operands lie across. Of 16-bit numbers ldmatrix turns fragments as
//      | 0 | 1 | 2 |  tiles of 128x128   it loads them. 32-bit ones are read as they lie, four channels of a pixel at
//      +---+---+---+  (or 64x64) on and  once, and the rows and columns of a product are numbered as they come. Pixels
//          | 3 | 4 |  above the diago-   are divided among blocks in splits (gridDim.y); a tile on the diagonal copies
//          +---+---+  nal, in the order  its channels once for both operands. A warp takes 64x32 of 128x128, or 32x32
//              | 5 |  of blockIdx.x      of 64x64.
//              +---+
//
// F D is a matrix product in the order of memory: what a convolution with one tap would be, so that D is packed as
// filters are. It is packed on the device, for it changes with every step, and column by column it is brought to the
// same size by a power of two, which is exact: gradients may be 1e-9, which fp16 doesn't have. A block takes 128 pixels
// x 64 or 128 channels, a warp 32 x 64.
//
// Both read C numbers a pixel for C to 2 C multiply-adds of each: bound by device memory at 64 channels, by tensor
// cores at 512. An H100 takes 27 us for the style gradient of 512x512x64 in bf16, 83% of memory's roofline, 12 us for
// 64x64x512, 26% of that of the tensor cores (benchmarks/results/h100_2026-11-26.md).
#pragma once

#include "common/indexing.cuh"
#include "conv3x3/mma_sm80.cuh"
#include "gram/upper_triangle.cuh"

namespace mma_sm80 {

// ---------------------------------------------------------------------------------------------------- Gram matrix

// A warp takes 64x32 of 128x128, or 32x32 of 64x64: 32 products of 16x8 between two barriers, either way.
template <class Element, int tile_side>
struct GramTile {
    static constexpr int side = tile_side, threads = 2 * side, warps_across = side / 32;
    static constexpr int blocks_per_sm = 512 / threads;  // of 128 registers a thread
    static constexpr int fragments_down = side / 32, fragments_across = 4;
    static constexpr int row_bytes = side * int(sizeof(Element)), block_k = operand_bytes / row_bytes;
    static constexpr int mma_k = 32 / int(sizeof(Element));  // pixels of one mma
    static constexpr int stages = ARCHITECTURE < 800 ? 2 : 4;

    static constexpr int chunks = row_bytes / chunk_bytes, rows_per_pass = threads / chunks;
    static constexpr int passes = block_k / rows_per_pass;
    static_assert(rows_per_pass % 8 == 0, "so that a thread's rows have one swizzle_xor");
};

// Chunk c of a pixel's row is at offset c ^ swizzle_xor. Eight lanes read eight pixels' chunk at once by ldmatrix, or
// two neighbouring chunks of four pixels by 16-byte loads: either way they lie on all 32 banks.
template <class Element>
__device__ __forceinline__ int row_swizzle_xor(int pixel) {
    return sizeof(Element) == 2 ? pixel & 7 : (pixel & 3) * 2;
}

#if ARCHITECTURE >= 800
// Tf32 of conv3x3/mma_sm80.cuh rounds one operand, since filters have been rounded before; here both are pixels.
struct RoundedTf32 {
    using Element = float;
    static constexpr int k_steps_at_once = Tf32::k_steps_at_once;

    template <int m, int n>
    static __device__ __forceinline__ void multiply(uint32_t (&a)[m][4], uint32_t (&b)[n][2], float (&accum)[m][n][4]) {
#pragma unroll
        for (int j = 0; j < n; ++j)
#pragma unroll
            for (int k = 0; k < 2; ++k) b[j][k] = ptx::round_to_tf32(__uint_as_float(b[j][k]));
        Tf32::multiply(a, b, accum);
    }
};
#endif

// One split's fragments, (channels x pixels) and (pixels x channels), from an operand's stage in shared memory. The
// warp's first row and column are multiples of 32; `memory` is where dynamic shared memory begins, stages are offsets.
//
// 16 bits: fragments are channels in their order. 32 bits: row g (or g + 8) of fragment 2 q + r is channel
// 32 q + 4 g + 2 r (or + 1), and column c of fragment j is channel 4 c + j.
template <class Tile, class Element, int m, int n>
__device__ __forceinline__ void load_k_step(const unsigned char* memory, int smem_a, int smem_b, int k_step,
                                            int warp_row, int warp_column, uint32_t (&a)[m][4], uint32_t (&b)[n][2]) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(Element) == 2) {
        const int in_matrix = lane & 7, upper = lane >> 4, odd = lane >> 3 & 1;  // of four matrices, two by two
        const int of_a = (k_step * Tile::mma_k + upper * 8 + in_matrix) * Tile::row_bytes +
                         (warp_row / 8 ^ odd ^ row_swizzle_xor<Element>(in_matrix)) * chunk_bytes;
        const int of_b = (k_step * Tile::mma_k + odd * 8 + in_matrix) * Tile::row_bytes +
                         (warp_column / 8 ^ upper ^ row_swizzle_xor<Element>(in_matrix)) * chunk_bytes;
        const ptx::SharedAddress a_at = ptx::shared_address(memory) + smem_a + of_a;
        const ptx::SharedAddress b_at = ptx::shared_address(memory) + smem_b + of_b;
#pragma unroll
        for (int i = 0; i < m; ++i) ptx::ldmatrix_x4_transposed(a[i], a_at ^ (i * 2 * chunk_bytes));
#pragma unroll
        for (int j = 0; j < n; j += 2) {
            uint32_t two[4];
            ptx::ldmatrix_x4_transposed(two, b_at ^ (j * chunk_bytes));
            b[j][0] = two[0];
            b[j][1] = two[1];
            b[j + 1][0] = two[2];
            b[j + 1][1] = two[3];
        }
    } else {
        const int pixel = k_step * Tile::mma_k + lane % 4;
        const auto four = [&](int operand, int later, int channel) {
            const int offset = (channel / 4 ^ lane / 4 ^ row_swizzle_xor<Element>(lane % 4)) * chunk_bytes;
            return *reinterpret_cast<const uint4*>(memory + operand + (pixel + later) * Tile::row_bytes + offset);
        };
#pragma unroll
        for (int later = 0; later < 2; ++later) {
#pragma unroll
            for (int i = 0; i < m; i += 2) {
                const uint4 channels = four(smem_a, 4 * later, warp_row + 16 * i);
                a[i][2 * later] = channels.x;
                a[i][2 * later + 1] = channels.y;
                a[i + 1][2 * later] = channels.z;
                a[i + 1][2 * later + 1] = channels.w;
            }
            const uint4 channels = four(smem_b, 4 * later, warp_column);
            b[0][later] = channels.x;
            b[1][later] = channels.y;
            b[2][later] = channels.z;
            b[3][later] = channels.w;
        }
    }
}

// The first operand times its pixels' weights, which begin at `weights` for this split. fp16 could overflow where a few
// pixels have all the weight: its products are kept 256 times smaller, and the sums are made up for it.
template <class Element>
constexpr float weighing = 1.0f;
template <>
constexpr float weighing<fp16> = 1.0f / 256;

template <class Element, int m>
__device__ __forceinline__ void weigh(const float* weights, uint32_t (&a)[m][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int later = 0; later < 2; ++later) {
        if constexpr (sizeof(Element) == 2) {
            const float2 weight = *reinterpret_cast<const float2*>(weights + 8 * later + lane % 4 * 2);
#pragma unroll
            for (int i = 0; i < 2 * m; ++i) {
                uint32_t& word = a[i / 2][2 * later + i % 2];
                const float2 pair = ptx::unpack<Element>(word);
                word = ptx::pack<Element>(weighing<Element> * weight.x * pair.x, weighing<Element> * weight.y * pair.y);
            }
        } else {
            const float weight = weights[4 * later + lane % 4];
#pragma unroll
            for (int i = 0; i < 2 * m; ++i) {
                uint32_t& word = a[i / 2][2 * later + i % 2];
                word = __float_as_uint(weight * __uint_as_float(word));
            }
        }
    }
}

// `partials` is [tile][split][row][column], as gram/simt.cu adds them up; null weights are ones.
template <class MmaPolicy, class Tile>
__device__ __forceinline__ void gram_split(const typename MmaPolicy::Element* features, const float* weights,
                                           float* partials, int pixels, int channels) {
    using Element = typename MmaPolicy::Element;
    constexpr int m = Tile::fragments_down, n = Tile::fragments_across, side = Tile::side;
    DYNAMIC_SHARED(unsigned char, memory);

    const TileAt at = upper_triangle_tile(blockIdx.x, ceil_div(channels, side));
    const bool diagonal = at.row == at.column;
    const int all_k_tiles = ceil_div(pixels, Tile::block_k);
    const int first_k_tile = int64_t{all_k_tiles} * blockIdx.y / gridDim.y;
    const int k_tiles = int64_t{all_k_tiles} * (blockIdx.y + 1) / gridDim.y - first_k_tile;

    // Stages of one operand or two, then the weights of each stage's pixels.
    const int stage_bytes = channels > side ? 2 * operand_bytes : operand_bytes;
    const int smem_b = diagonal ? 0 : operand_bytes;
    float* const weights_at = reinterpret_cast<float*>(memory + Tile::stages * stage_bytes);

    constexpr int chunk_channels = chunk_bytes / int(sizeof(Element));
    const int row = threadIdx.x / Tile::chunks, chunk = threadIdx.x % Tile::chunks;
    const int a_channel = at.row * side + chunk * chunk_channels, to_b = (at.column - at.row) * side;
    const bool a_inside = a_channel < channels, b_inside = a_channel + to_b < channels;
    const int offset = row * Tile::row_bytes + (chunk ^ row_swizzle_xor<Element>(row)) * chunk_bytes;
    int pixel = first_k_tile * Tile::block_k;
    const Element* next = features + size_t(pixel + row) * channels + a_channel;
    const auto copy = [&](int stage) {
        const ptx::SharedAddress to = ptx::shared_address(memory) + stage * stage_bytes + offset;
#pragma unroll
        for (int pass = 0; pass < Tile::passes; ++pass) {
            const bool inside = pixel + row + pass * Tile::rows_per_pass < pixels;
            const Element* const from = next + pass * Tile::rows_per_pass * channels;
            const int later = pass * Tile::rows_per_pass * Tile::row_bytes;
            ptx::cp_async_16(to + later, from, inside && a_inside);
            if (!diagonal) ptx::cp_async_16(to + operand_bytes + later, from + to_b, inside && b_inside);
        }
        if (weights && threadIdx.x < Tile::block_k) {
            const int weighed = pixel + threadIdx.x;
            ptx::cp_async_4(ptx::shared_address(weights_at + stage * Tile::block_k + threadIdx.x), weights + weighed,
                            weighed < pixels);
        }
        pixel += Tile::block_k;
        next += Tile::block_k * channels;
    };
#pragma unroll
    for (int stage = 0; stage < Tile::stages - 1; ++stage) {
        if (stage < k_tiles) copy(stage);
        ptx::cp_async_commit();
    }

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_row = warp / Tile::warps_across * 16 * m, warp_column = warp % Tile::warps_across * 8 * n;
    float accum[m][n][4] = {};
    int stage = 0;
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        ptx::cp_async_wait<Tile::stages - 2>();
        // Everybody's copies for this step have arrived, and everybody is done with the stage that is refilled next.
        __syncthreads();
#pragma unroll MmaPolicy::k_steps_at_once
        for (int k_step = 0; k_step < Tile::block_k / Tile::mma_k; ++k_step) {
            uint32_t a[m][4], b[n][2];
            load_k_step<Tile, Element>(memory, stage * stage_bytes, stage * stage_bytes + smem_b, k_step, warp_row,
                                       warp_column, a, b);
            if (k_step == 0) {  // the first operands are on their way: copies are issued while they come
                if (k_tile + Tile::stages - 1 < k_tiles) copy(stage == 0 ? Tile::stages - 1 : stage - 1);
                ptx::cp_async_commit();
            }
            if (weights) weigh<Element>(weights_at + stage * Tile::block_k + k_step * Tile::mma_k, a);
            MmaPolicy::multiply(a, b, accum);
        }
        stage = stage == Tile::stages - 1 ? 0 : stage + 1;
    }

    const float scale = weights ? 1.0f / weighing<Element> : 1.0f;
    float* const to = partials + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * side * side;
#pragma unroll
    for (int i = 0; i < m; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if constexpr (sizeof(Element) == 2) {
                const int row = warp_row + 16 * i + 8 * half + lane / 4, column = warp_column + lane % 4 * 2;
#pragma unroll
                for (int j = 0; j < n; ++j)
                    *reinterpret_cast<float2*>(to + row * side + column + 8 * j) =
                        make_float2(scale * accum[i][j][2 * half], scale * accum[i][j][2 * half + 1]);
            } else {
                const int row = warp_row + i / 2 * 32 + lane / 4 * 4 + i % 2 * 2 + half;
                const int column = warp_column + lane % 4 * 8;
#pragma unroll
                for (int k = 0; k < 2; ++k)
                    *reinterpret_cast<float4*>(to + row * side + column + 4 * k) =
                        make_float4(accum[i][0][2 * half + k], accum[i][1][2 * half + k], accum[i][2][2 * half + k],
                                    accum[i][3][2 * half + k]);
            }
        }
    }
}

// -------------------------------------------------------------------------------------------------- style gradient

// A warp takes 32 pixels x 64 channels of 128 pixels x 64 or 128 channels; pixels are counted through the whole map.
template <class MmaPolicy, int tile_channels>
struct FlatTile {
    static constexpr int pixels = 128, channels = tile_channels, threads = 2 * channels;
    static constexpr int warps_across = channels / warp_channels, fragments_down = 2, fragments_across = 8;
    static constexpr int stages = ARCHITECTURE < 800 ? 2 : 3;
    // Turing's shared memory holds one block; 3xTF32 wants more registers than two of 256 threads leave it.
    static constexpr bool alone = ARCHITECTURE < 800 || (channels == 128 && MmaPolicy::k_steps_at_once == 1);
    static constexpr int blocks_per_sm = alone ? 1 : channels == 128 ? 2 : 3;
    static constexpr int pixel_bytes = pixels * row_bytes, stage_bytes = pixel_bytes + channels * row_bytes;
    static constexpr int rows_per_pass = threads / (row_bytes / chunk_bytes);
    static_assert(rows_per_pass % 8 == 0, "so that a thread's rows have one swizzle_xor");
};

// A gram_error (C, C) as shared memory wants it: rows of 128 bytes, [block of channels summed over][column], columns
// padded to 64 and in the order that conv3x3/mma_sm80.cuh gives them, chunk c of a row at offset c ^ row % 8. After
// them, for each channel, what its column has been divided by.
template <class Element>
struct PackedGramError {
    static constexpr int block_channels = row_bytes / int(sizeof(Element));
    int blocks, columns;

    __device__ __forceinline__ explicit PackedGramError(int channels)
        : blocks((channels + block_channels - 1) / block_channels),  // with ceil_div the main loop is ordered otherwise
          columns((channels + warp_channels - 1) / warp_channels * warp_channels) {}
    __device__ __forceinline__ size_t block_bytes() const { return size_t(columns) * row_bytes; }
    __device__ __forceinline__ size_t scales_at() const { return blocks * block_bytes(); }
};

// A block packs eight neighbouring columns, 32 threads to each. A column's largest number comes to lie between 2^14 and
// 2^15, where fp16 ends; of the others, those below a 2^29th of it lose bits, and the rest are rounded as in any range.
template <class Element, bool rounds>
__device__ __forceinline__ void pack_gram_error(const float* gram_error, unsigned char* packed, int channels) {
    constexpr int threads_down = 32, target = 14;
    SHARED(unsigned, largest, [8][8]);
    const PackedGramError<Element> layout(channels);
    const int column = blockIdx.x * 8 + threadIdx.x % 8, down = threadIdx.x / 8;
    const bool inside = column < channels;

    unsigned bits = 0;  // of the largest absolute value: they are in the order of the numbers
    for (int row = down; row < channels && inside; row += threads_down)
        bits = max(bits, __float_as_uint(gram_error[size_t(row) * channels + column]) & 0x7fffffffu);
    bits = max(bits, __shfl_xor_sync(~0u, bits, 8));
    bits = max(bits, __shfl_xor_sync(~0u, bits, 16));
    if (threadIdx.x % 32 < 8) largest[threadIdx.x / 32][threadIdx.x % 8] = bits;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < 8; ++warp) bits = max(bits, largest[warp][threadIdx.x % 8]);
    // Exponents as a float has them, of which 0 and 255 are no numbers' or too small to have an inverse.
    const unsigned exponent = min(127 + target + 127 - (bits >> 23), 253u);
    const float scale = bits == 0 ? 1.0f : __uint_as_float(exponent << 23);
    if (down == 0)
        reinterpret_cast<float*>(packed + layout.scales_at())[column] =
            bits == 0 ? 1.0f : __uint_as_float((254 - exponent) << 23);

    constexpr int chunk_channels = chunk_bytes / int(sizeof(Element)), chunks = row_bytes / chunk_bytes;
    const int row = column / 32 * 32 + column % 8 / 2 * 8 + column / 8 % 4 * 2 + column % 2;
    for (int chunk = down; chunk < layout.blocks * chunks; chunk += threads_down) {
        float v[chunk_channels];
#pragma unroll
        for (int i = 0; i < chunk_channels; ++i) {
            const int from = chunk * chunk_channels + i;
            v[i] = inside && from < channels ? scale * gram_error[size_t(from) * channels + column] : 0.0f;
        }
        uint4 words;
        if constexpr (sizeof(Element) == 2) {
            words = make_uint4(ptx::pack<Element>(v[0], v[1]), ptx::pack<Element>(v[2], v[3]),
                               ptx::pack<Element>(v[4], v[5]), ptx::pack<Element>(v[6], v[7]));
        } else {
            const auto word = [](float x) { return rounds ? ptx::round_to_tf32(x) : __float_as_uint(x); };
            words = make_uint4(word(v[0]), word(v[1]), word(v[2]), word(v[3]));
        }
        unsigned char* const to = packed + chunk / chunks * layout.block_bytes() + size_t(row) * row_bytes;
        *reinterpret_cast<uint4*>(to + (chunk % chunks ^ (row & 7)) * chunk_bytes) = words;
    }
}

// out := factor weights (F D + mean_error) [+ out]; null weights are ones, a null mean_error is zero.
template <class MmaPolicy, class Tile>
__device__ __forceinline__ void style_gradient(const typename MmaPolicy::Element* features, const unsigned char* packed,
                                               const float* mean_error, const float* weights,
                                               typename MmaPolicy::Element* out, int pixels, int channels, float factor,
                                               int accumulate) {
    using Element = typename MmaPolicy::Element;
    constexpr int m = Tile::fragments_down, n = Tile::fragments_across, chunks = row_bytes / chunk_bytes;
    constexpr int block_channels = PackedGramError<Element>::block_channels;
    DYNAMIC_SHARED(unsigned char, memory);

    // Tiles of channels vary fastest, so that blocks that run together share their pixels.
    const PackedGramError<Element> layout(channels);
    const int across = layout.columns / Tile::channels, k_tiles = layout.blocks;
    const int first_pixel = blockIdx.x / across * Tile::pixels, first_channel = blockIdx.x % across * Tile::channels;
    const ptx::SharedAddress ring = ptx::shared_address(memory);

    const int row = threadIdx.x / chunks;
    int channel = threadIdx.x % chunks * (block_channels / chunks);
    const Element* next_pixels = features + size_t(first_pixel + row) * channels + channel;
    const unsigned char* next_columns = packed + size_t(first_channel) * row_bytes + threadIdx.x * chunk_bytes;
    const int offset = row * row_bytes + (threadIdx.x % chunks ^ (row & 7)) * chunk_bytes;
    const auto copy = [&](int stage) {
        const ptx::SharedAddress to = ring + stage * Tile::stage_bytes;
#pragma unroll
        for (int later = 0; later < Tile::pixels; later += Tile::rows_per_pass)
            ptx::cp_async_16(to + offset + later * row_bytes, next_pixels + later * channels,
                             first_pixel + row + later < pixels && channel < channels);
#pragma unroll
        for (int i = 0; i < Tile::channels * row_bytes; i += Tile::threads * chunk_bytes)
            ptx::cp_async_16(to + Tile::pixel_bytes + threadIdx.x * chunk_bytes + i, next_columns + i, true);
        channel += block_channels;
        next_pixels += block_channels;
        next_columns += layout.block_bytes();
    };
#pragma unroll
    for (int stage = 0; stage < Tile::stages - 1; ++stage) {
        if (stage < k_tiles) copy(stage);
        ptx::cp_async_commit();
    }

    // Who brings which row to ldmatrix is as in conv3x3/mma_sm80.cuh, but that pixels are in their own order.
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_pixel = warp / Tile::warps_across * 16 * m, warp_channel = warp % Tile::warps_across * warp_channels;
    const int pixel_row = warp_pixel + (lane & 15), column_row = warp_channel + (lane & 7) + (lane >> 4) * 8;
    const int pixel_offset = pixel_row * row_bytes + (lane >> 4 ^ (pixel_row & 7)) * chunk_bytes;
    const int column_offset =
        Tile::pixel_bytes + column_row * row_bytes + ((lane >> 3 & 1) ^ (column_row & 7)) * chunk_bytes;

    float accum[m][n][4] = {};
    int stage = 0;
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        ptx::cp_async_wait<Tile::stages - 2>();
        __syncthreads();  // everybody's copies have arrived, and everybody is done with the stage that is refilled
        const ptx::SharedAddress pixels_at = ring + stage * Tile::stage_bytes + pixel_offset;
        const ptx::SharedAddress columns_at = ring + stage * Tile::stage_bytes + column_offset;
#pragma unroll MmaPolicy::k_steps_at_once
        for (int k_step = 0; k_step < k_steps_per_row; ++k_step) {
            uint32_t a[m][4], b[n][2];
#pragma unroll
            for (int i = 0; i < m; ++i)
                ptx::ldmatrix_x4(a[i], (pixels_at ^ (k_step * 2 * chunk_bytes)) + i * 16 * row_bytes);
#pragma unroll
            for (int j = 0; j < n; j += 2) {
                uint32_t two[4];
                ptx::ldmatrix_x4(two, (columns_at ^ (k_step * 2 * chunk_bytes)) + j * 8 * row_bytes);
                b[j][0] = two[0];
                b[j][1] = two[1];
                b[j + 1][0] = two[2];
                b[j + 1][1] = two[3];
            }
            if (k_step == 0) {
                if (k_tile + Tile::stages - 1 < k_tiles) copy(stage == 0 ? Tile::stages - 1 : stage - 1);
                ptx::cp_async_commit();
            }
            MmaPolicy::multiply(a, b, accum);
        }
        stage = stage == Tile::stages - 1 ? 0 : stage + 1;
    }

    const float* const scales = reinterpret_cast<const float*>(packed + layout.scales_at());
    const int lane_channel = first_channel + warp_channel + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < m; ++i) {
        const int pixel = first_pixel + warp_pixel + 16 * i + lane / 4;  // and the one eight further
#pragma unroll
        for (int group = 0; group < 2; ++group) {
            const int channel = lane_channel + 32 * group;
            if (channel >= channels) continue;
            Element* const to = out + size_t(pixel) * channels + channel;
            float v[2][8] = {}, scale[8] = {}, moved[8] = {};
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if (accumulate && pixel + 8 * half < pixels) add8(to + 8 * half * channels, v[half]);
            add8(scales + channel, scale);
            if (mean_error) add8(mean_error + channel, moved);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                if (pixel + 8 * half >= pixels) continue;
                const float weight = weights ? factor * weights[pixel + 8 * half] : factor;
#pragma unroll
                for (int k = 0; k < 8; ++k)
                    v[half][k] += weight * (scale[k] * accum[i][4 * group + k / 2][2 * half + k % 2] + moved[k]);
                store8(to + 8 * half * channels, v[half]);
            }
        }
    }
}

}  // namespace mma_sm80

// Kernels by their full names, for one kind of products and one tile.
#define GRAM_MMA_SM80(name, MmaPolicy, side)                                                                  \
    extern "C" __global__ void __launch_bounds__(mma_sm80::GramTile<MmaPolicy::Element, side>::threads,       \
                                                 mma_sm80::GramTile<MmaPolicy::Element, side>::blocks_per_sm) \
    name(const MmaPolicy::Element* __restrict__ features, const float* __restrict__ weights,                  \
         void* __restrict__ partials, int pixels, int channels) {                                             \
        mma_sm80::gram_split<MmaPolicy, mma_sm80::GramTile<MmaPolicy::Element, side>>(                        \
            features, weights, static_cast<float*>(partials), pixels, channels);                              \
    }
#define STYLE_GRADIENT_MMA_SM80(name, MmaPolicy, columns)                                                            \
    extern "C" __global__ void __launch_bounds__(mma_sm80::FlatTile<MmaPolicy, columns>::threads,                    \
                                                 mma_sm80::FlatTile<MmaPolicy, columns>::blocks_per_sm)              \
    name(const MmaPolicy::Element* __restrict__ features, const void* __restrict__ packed,                           \
         const float* __restrict__ mean_error, const float* __restrict__ weights,                                    \
         MmaPolicy::Element* __restrict__ out, int pixels, int channels, float factor, int accumulate) {             \
        mma_sm80::style_gradient<MmaPolicy, mma_sm80::FlatTile<MmaPolicy, columns>>(                                 \
            features, static_cast<const unsigned char*>(packed), mean_error, weights, out, pixels, channels, factor, \
            accumulate);                                                                                             \
    }
#define PACK_GRAM_ERROR_MMA_SM80(name, Element, rounds)                                                        \
    extern "C" __global__ void __launch_bounds__(256) name(const float* __restrict__ gram_error,               \
                                                           void* __restrict__ packed, int channels) {          \
        mma_sm80::pack_gram_error<Element, rounds>(gram_error, static_cast<unsigned char*>(packed), channels); \
    }
