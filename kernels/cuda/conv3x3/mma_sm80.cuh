// The 3x3 convolution on tensor cores by mma.sync, sm_75 and later, for every kind of number that they take: an
// implicit matrix product of pixels and filters. Rung 3 of README.md's ladder.
//
// The input gradient is the same product with flipped filters, so there is one main loop and two epilogues.
// instantiations/ makes kernels of this, launch_mma_sm80.py packs filters, tile_model.py chooses tiles;
// tests/kernels/cuda/conv3x3/test_mma_sm80.py runs all of it in the emulator, test_compile_sm80.py reads the SASS.
//
// A block takes a tile of the map, 16 pixels wide, and 64 or 128 output channels. The sum goes over blocks of input
// channels, 128 bytes of a pixel each, and for each of them over the nine taps: a k-tile of the loop.
//
//      128x128: 8 rows of 16 pixels                 a warp: 64 pixels x 64 channels
//
//      +------------18------------+                        64 channels (8 fragments of 8)
//      | +----------16----------+ |                   +-------------------+
//      | | warp 0, 1            | |    16 pixels      | m16n8 | m16n8 |...|     one row of the image
//     10 8           (4 rows)   | |    16 pixels      |       |       |   |     the row below: with the one above,
//      | | warp 2, 3            | |    16 pixels      |       |       |   |     a lane holds whole 2x2 pool windows
//      | |           (4 rows)   | |    16 pixels      |       |       |   |
//      | +----------------------+ |                   +-------------------+
//      +--------------------------+
//
//   pixels   One halo, tile plus border, serves all nine taps of a block of channels: ldmatrix takes the address of
//            every row, so a tap is an offset. That asks L2 for 1.3 to 1.7 times the tile's bytes and not for nine times.
//            There are two halos: while one is multiplied, the next block of channels arrives in the other, a few rows
//            with every tap. Zero padding, and channels that end within a block, are copies of zeros.
//   filters  Packed on the host as shared memory wants them, so that a k-tile's are one run of bytes; a ring of stages:
//
//            k-tile       0        1        2        3                 8        9
//            tap          (0,0)    (0,1)    (0,2)    (1,0)    ...      (2,2)    (0,0) of the next 128 bytes
//            multiplied   halo 0, filters of the stage k-tile % stages ...      halo 1
//            copied       filters of k-tile + stages - 1, some rows of halo 1   halo 0
//
// Both are rows of 128 bytes, 16-byte chunk c of row h at offset c ^ swizzle_xor(h). That is h for filters and h / 2
// for pixels, for eight rows that ldmatrix reads at once are neighbours among the filters and two apart among the
// pixels: either way they lie on all 32 banks.
//
//            chunk    0 1 2 3 4 5 6 7
//            row 0    0 1 2 3 4 5 6 7
//            row 1    1 0 3 2 5 4 7 6      the offset of each chunk, for swizzle_xor(h) = h
//            row 2    2 3 0 1 6 7 4 5
//            ...      ...
//            row 7    7 6 5 4 3 2 1 0
//
// Which row of the product is which pixel, and which column which channel, is free, and chosen such that a lane's sums
// are whole 2x2 squares of pixels and eight neighbouring channels: pooling, mask bytes and 16-byte stores then need
// neither shuffles nor shared memory. Sixteen rows of a fragment are sixteen pixels next to each other, the even ones
// first: lane 4 g + t holds rows g and g + 8, so pixels 2 g and 2 g + 1, and the fragment below has the pixels below.
// Column 8 j + 2 t + b of 32 is channel 8 t + 2 j + b.
//
// Bound by the tensor cores, whose mma.sync on an H100 reaches about half of what wgmma does: with mma.sync alone a
// gradient at 2048 px in bf16 takes 17.7 ms, with wgmma 12.8; in 3xtf32 the convolutions at 512 px do 54 to 62 TFLOP/s
// (benchmarks/results/h100_2026-11-26.md).
#pragma once

#include "common/element.cuh"
#include "common/indexing.cuh"
#include "common/tile_constants.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/cvt.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

namespace mma_sm80 {

// --------------------------------------------------------------------------------------------------------- shapes

constexpr int chunk_bytes = 16,
              k_steps_per_row = row_bytes / (2 * chunk_bytes);  // a k-step is what one mma takes of a row
constexpr int taps = 9;

// A warp does warp_pixels x 64. With 64 pixels it reads 8 ldmatrix.x4 for 32 products of 16x8, half of what shared
// memory can give to sm_80's tensor cores, and keeps 128 sums a lane. A step is so much work (a thousand cycles, where
// two blocks take turns) that two stages of filters hide their way from L2; three do where there is room.
// tile_model.py chooses the numbers, common/tile_constants.cuh has them.
template <int tile_pixels, int tile_channels, int warp_pixels, int tile_stages, int resident>
struct Tile {
    static constexpr int pixels = tile_pixels, channels = tile_channels, height = pixels / tile_width;
    static constexpr int warps_across = channels / warp_channels, threads = pixels / warp_pixels * warps_across * 32;
    static constexpr int blocks_per_sm = resident;
    static constexpr int fragments_down = warp_pixels / 16, fragments_across = warp_channels / 8;

    // Turing has 64 KB of shared memory, and its copies have happened when they are issued.
    static constexpr int stages = ARCHITECTURE < 800 ? 2 : tile_stages;
    static constexpr int filter_bytes = channels * row_bytes;
    static constexpr int halo_width = tile_width + 2, halo_rows = (height + 2) * halo_width;
    static constexpr int halo_bytes = halo_rows * row_bytes;

    // A pass of the block copies this many rows. The next halo's passes are spread over the taps from which it still
    // arrives in time: a copy is waited for `stages - 1` steps after its issue.
    static constexpr int rows_per_pass = threads / (row_bytes / chunk_bytes);
    static constexpr int halo_passes = ceil_div(halo_rows, rows_per_pass);
    static constexpr int halo_taps = taps - (stages - 2);
    static constexpr int passes_per_tap = ceil_div(halo_passes, halo_taps);

    static_assert(fragments_down % 2 == 0, "whole squares to a lane");
    static_assert(filter_bytes % (threads * chunk_bytes) == 0, "whole passes to a step's filters");
};

struct ActivationShape {  // of activations, (height, width, channels)
    int height, width, channels;

    __device__ __forceinline__ size_t pixel(int y, int x) const { return size_t(y) * width + x; }
};

// ------------------------------------------------------------------------------------------------------- products

// What is multiplied: how numbers lie in memory, and the product of one k-step of a warp's fragments, accum += A B.
template <class T>
struct Half {  // bf16 or fp16
    using Element = T;
    static constexpr int k_steps_at_once = 4;

    template <int m, int n>
    static __device__ __forceinline__ void multiply(uint32_t (&a)[m][4], const uint32_t (&b)[n][2],
                                                    float (&accum)[m][n][4]) {
#pragma unroll
        for (int i = 0; i < m; ++i)
#pragma unroll
            for (int j = 0; j < n; ++j) ptx::mma_m16n8k16(T{}, accum[i][j], a[i], b[j]);
    }
};

#if ARCHITECTURE >= 800

// Pixels are rounded here, filters on the host: a tensor core would cut both, and sums would drift towards zero.
struct Tf32 {
    using Element = float;
    static constexpr int k_steps_at_once = 4;

    template <int m, int n>
    static __device__ __forceinline__ void multiply(uint32_t (&a)[m][4], const uint32_t (&b)[n][2],
                                                    float (&accum)[m][n][4]) {
#pragma unroll
        for (int i = 0; i < m; ++i)
#pragma unroll
            for (int k = 0; k < 4; ++k) a[i][k] = ptx::round_to_tf32(__uint_as_float(a[i][k]));
#pragma unroll
        for (int i = 0; i < m; ++i)
#pragma unroll
            for (int j = 0; j < n; ++j) ptx::mma_m16n8k8(tf32{}, accum[i][j], a[i], b[j]);
    }
};

// 3xTF32, as exact as fp32: x = hi + lo to 22 bits, and of the four products all but lo x lo. Tensor cores
// cut their sums instead of rounding them, so that thousands of terms drift: by 2.5e-6 of tf32's sums over 128 channels
// in the emulator. Here each k-step is added up from zero, lo terms first, and joins the sums by a rounded addition
// (after Ootomo and Yokota, 2022), for 1.6e-7.
struct Tf32x3 {
    using Element = float;
    static constexpr int k_steps_at_once = 1;

    // Hi is rounded by hand, in two instructions. What tensor cores cut off lo is at random above or below, since
    // hi was rounded; a NaN is lost from hi, but stays in lo.
    static __device__ __forceinline__ void split(uint32_t x, uint32_t& hi, uint32_t& lo) {
        hi = (x + 0x1000) & 0xffffe000;
        lo = __float_as_uint(__uint_as_float(x) - __uint_as_float(hi));
    }

    template <int m, int n>
    static __device__ __forceinline__ void multiply(uint32_t (&a)[m][4], const uint32_t (&b)[n][2],
                                                    float (&accum)[m][n][4]) {
        uint32_t lo_a[m][4];
#pragma unroll
        for (int i = 0; i < m; ++i)
#pragma unroll
            for (int k = 0; k < 4; ++k) split(a[i][k], a[i][k], lo_a[i][k]);
#pragma unroll
        for (int j = 0; j < n; ++j) {
            uint32_t hi_b[2], lo_b[2];
#pragma unroll
            for (int k = 0; k < 2; ++k) split(b[j][k], hi_b[k], lo_b[k]);
            float k_step_accum[m][4] = {};
#pragma unroll
            for (int i = 0; i < m; ++i) ptx::mma_m16n8k8(tf32{}, k_step_accum[i], lo_a[i], hi_b);
#pragma unroll
            for (int i = 0; i < m; ++i) ptx::mma_m16n8k8(tf32{}, k_step_accum[i], a[i], lo_b);
#pragma unroll
            for (int i = 0; i < m; ++i) ptx::mma_m16n8k8(tf32{}, k_step_accum[i], a[i], hi_b);
#pragma unroll
            for (int i = 0; i < m; ++i)
#pragma unroll
                for (int k = 0; k < 4; ++k) accum[i][j][k] += k_step_accum[i][k];
        }
    }
};

#endif

// ------------------------------------------------------------------------------------------------------ finishing

// Four pixels of a square, in reading order, in eight neighbouring channels.
using PoolWindow = float[4][8];

template <class Element>
__device__ __forceinline__ void store8(Element* to, const float (&v)[8]) {
    if constexpr (sizeof(Element) == 2) {
        *reinterpret_cast<uint4*>(to) = make_uint4(ptx::pack<Element>(v[0], v[1]), ptx::pack<Element>(v[2], v[3]),
                                                   ptx::pack<Element>(v[4], v[5]), ptx::pack<Element>(v[6], v[7]));
    } else {
        reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
}

__device__ __forceinline__ void add8(const float* from, float (&v)[8]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float4 four = reinterpret_cast<const float4*>(from)[half];
        v[4 * half] += four.x;
        v[4 * half + 1] += four.y;
        v[4 * half + 2] += four.z;
        v[4 * half + 3] += four.w;
    }
}

template <class Element>
__device__ __forceinline__ void add8(const Element* from, float (&v)[8]) {
    const uint4 eight = *reinterpret_cast<const uint4*>(from);
    const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = ptx::unpack<Element>(pairs[i]);
        v[2 * i] += pair.x;
        v[2 * i + 1] += pair.y;
    }
}

// y := relu(accum + bias), kept as far as it is wanted: null pointers are not. Layouts as in
// kernels/cuda/conv3x3/launch_simt.py.
template <class Element>
struct ReluPoolEpilogue {
    static constexpr bool in_units = false, with_style = false;  // for conv3x3/wgmma_sm90.cuh: squares of pixels
    const float* bias;                       // padded to a multiple of 64
    Element* out;
    uint8_t* relu_mask;
    Element* pooled;
    uint8_t* pool_argmax;
    int average;

    // The square whose first pixel is (y, x), channels from `channel` on, a multiple of eight; maybe beyond the map.
    __device__ __forceinline__ void store(const ActivationShape& map, int y, int x, int channel, PoolWindow& v) const {
        if (channel >= map.channels || y >= map.height || x >= map.width) return;
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            add8(bias + channel, v[pixel]);
            unsigned positive = 0;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                v[pixel][k] = v[pixel][k] < 0.0f ? 0.0f : v[pixel][k];  // lets a NaN through, so that it shows
                positive |= (v[pixel][k] > 0.0f ? 1u : 0u) << k;
            }
            if (y + pixel / 2 >= map.height || x + pixel % 2 >= map.width) continue;
            const size_t at = map.pixel(y + pixel / 2, x + pixel % 2);
            if (out) store8(out + at * map.channels + channel, v[pixel]);
            if (relu_mask) relu_mask[at * (map.channels / 8) + channel / 8] = positive;
        }
        if (!pooled || y + 1 >= map.height || x + 1 >= map.width) return;
        const size_t at = size_t(y / 2) * (map.width / 2) + x / 2;
        float result[8];
        unsigned chosen = 0;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            if (average) {
                result[k] = 0.25f * ((v[0][k] + v[1][k]) + (v[2][k] + v[3][k]));
            } else {
                unsigned first = 0;
                result[k] = v[0][k];
#pragma unroll
                for (unsigned pixel = 1; pixel < 4; ++pixel) {
                    if (v[pixel][k] > result[k]) {
                        result[k] = v[pixel][k];
                        first = pixel;
                    }
                }
                chosen |= first << 2 * k;
            }
        }
        store8(pooled + at * map.channels + channel, result);
        if (pool_argmax) *reinterpret_cast<uint16_t*>(pool_argmax + at * (map.channels / 4) + channel / 4) = chosen;
    }
};

// out := (accum [+ out]) [* relu_mask]; a null mask masks nothing.
template <class Element>
struct MaskEpilogue {
    Element* out;
    const uint8_t* relu_mask;
    int accumulate;

    // All that is read is under way before anything is stored, which might be the same to the compiler.
    __device__ __forceinline__ void store(const ActivationShape& map, int y, int x, int channel, PoolWindow& v) const {
        if (channel >= map.channels) return;
        bool inside[4];
        size_t at[4];
        unsigned passed[4];
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            inside[pixel] = y + pixel / 2 < map.height && x + pixel % 2 < map.width;
            at[pixel] = map.pixel(y + pixel / 2, x + pixel % 2);
            passed[pixel] = 0xff;
            if (relu_mask && inside[pixel]) passed[pixel] = relu_mask[at[pixel] * (map.channels / 8) + channel / 8];
        }
        if (accumulate) {
#pragma unroll
            for (int pixel = 0; pixel < 4; ++pixel)
                if (inside[pixel]) add8(out + at[pixel] * map.channels + channel, v[pixel]);
        }
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
#pragma unroll
            for (int k = 0; k < 8; ++k) v[pixel][k] = passed[pixel] >> k & 1 ? v[pixel][k] : 0.0f;
            if (inside[pixel]) store8(out + at[pixel] * map.channels + channel, v[pixel]);
        }
    }
};

// A split of the sum, for add_partials: float32, [split][pixel][channel].
struct SplitKEpilogue {
    float* partials;

    __device__ __forceinline__ void store(const ActivationShape& map, int y, int x, int channel, PoolWindow& v) const {
        if (channel >= map.channels) return;
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            if (y + pixel / 2 >= map.height || x + pixel % 2 >= map.width) continue;
            const size_t at = size_t(blockIdx.z) * map.height * map.width + map.pixel(y + pixel / 2, x + pixel % 2);
            store8(partials + at * map.channels + channel, v[pixel]);
        }
    }
};

// A lane's sums as squares: the first pixel of its first square is (y, x), its first channel `channel`. Unrolled, this
// would be several times as much code as the main loop, run once a block. Registers cannot be indexed, so the loop
// takes the first square each time and the others move up.
template <int m, int n, class Epilogue>
__device__ __forceinline__ void store_accum(const ActivationShape& map, int y, int x, int channel,
                                            const float (&accum)[m][n][4], const Epilogue& epilogue) {
    constexpr int across = n / 4, count = m / 2 * across;
    PoolWindow squares[count];
#pragma unroll
    for (int i = 0; i < count; ++i)
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel)
#pragma unroll
            for (int k = 0; k < 8; ++k)
                squares[i][pixel][k] = accum[i / across * 2 + pixel / 2][i % across * 4 + k / 2][pixel % 2 * 2 + k % 2];
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
        epilogue.store(map, y + i / across * 2, x, channel + i % across * 32, squares[0]);
#pragma unroll
        for (int later = 1; later < count; ++later)
#pragma unroll
            for (int pixel = 0; pixel < 4; ++pixel)
#pragma unroll
                for (int k = 0; k < 8; ++k) squares[later - 1][pixel][k] = squares[later][pixel][k];
    }
}

// ------------------------------------------------------------------------------------------------------ main loop

__device__ __forceinline__ int pixel_swizzle_xor(int row) { return row >> 1 & 7; }

// Where a lane's row of a fragment of pixels begins, given the row of the halo: the lower sixteen lanes bring the first
// chunk of the row's first k-step, the others the second. The k-steps after it are at that address ^ 32, ^ 64 and ^ 96.
__device__ __forceinline__ ptx::SharedAddress offset_of_pixel(ptx::SharedAddress halo, int row, int lane) {
    return halo + (row * row_bytes | (pixel_swizzle_xor(row) ^ lane >> 4) * chunk_bytes);
}

// Copies halos, one block of channels after the other: a thread has chunk threadIdx.x % 8 of row threadIdx.x / 8 of
// each pass. `begin` says where to and takes the next block of channels; `next` copies a row of it and moves on by a
// pass.
template <class Tile, class Element>
class HaloCopier {
    static constexpr int chunks = row_bytes / chunk_bytes, block_channels = row_bytes / int(sizeof(Element));
    static constexpr int step_down = Tile::rows_per_pass / Tile::halo_width;
    static constexpr int step_across = Tile::rows_per_pass % Tile::halo_width;
    static_assert(Tile::rows_per_pass % (2 * chunks) == 0, "so that a thread's rows have one swizzle_xor");

    const Element* corner_;  // this thread's chunk of the halo's first pixel, which may lie outside the map
    int y0_, x0_, height_, width_, channels_;
    int channels_left_;  // from this thread's chunk on
    int row_, y_, x_;    // of the next copy: in the halo, and in the map
    ptx::SharedAddress to_;

  public:
    __device__ __forceinline__ HaloCopier(const Element* input, const ActivationShape& map, int y0, int x0,
                                          int first_block) {
        const int channel = (first_block - 1) * block_channels + int(threadIdx.x) % chunks * (block_channels / chunks);
        corner_ = input + (int64_t{y0 - 1} * map.width + (x0 - 1)) * map.channels + channel;
        y0_ = y0 - 1;
        x0_ = x0 - 1;
        height_ = map.height;
        width_ = map.width;
        channels_ = map.channels;
        channels_left_ = map.channels - channel;
    }
    __device__ __forceinline__ void begin(ptx::SharedAddress halo) {
        corner_ += block_channels;
        channels_left_ -= block_channels;
        row_ = threadIdx.x / chunks;
        y_ = y0_ + row_ / Tile::halo_width;
        x_ = x0_ + row_ % Tile::halo_width;
        to_ = halo + row_ * row_bytes + (threadIdx.x % chunks ^ pixel_swizzle_xor(row_)) * chunk_bytes;
    }
    __device__ __forceinline__ void next() {
        if (row_ < Tile::halo_rows) {
            const bool inside = unsigned(y_) < unsigned(height_) && unsigned(x_) < unsigned(width_);
            const Element* from = corner_ + int64_t{(y_ - y0_) * width_ + (x_ - x0_)} * channels_;
            ptx::cp_async_16(to_, from, inside && channels_left_ > 0);
        }
        row_ += Tile::rows_per_pass;
        to_ += Tile::rows_per_pass * row_bytes;
        y_ += step_down;
        x_ += step_across;
        if (x_ >= x0_ + Tile::halo_width) {
            x_ -= Tile::halo_width;
            ++y_;
        }
    }
};

template <class MmaPolicy, class Tile, class Epilogue>
__device__ __forceinline__ void convolve(const typename MmaPolicy::Element* x, const ActivationShape& in,
                                         const void* filters, const ActivationShape& result, const Epilogue& epilogue,
                                         float* partials) {
    using Element = typename MmaPolicy::Element;
    constexpr int m = Tile::fragments_down, n = Tile::fragments_across;
    DYNAMIC_SHARED(unsigned char, memory);

    // Where this block is: output channels vary fastest, so that blocks that run together share their pixels.
    const int across = ceil_div(result.channels, Tile::channels);
    const int tiles_in_row = ceil_div(result.width, tile_width);
    const int tile = blockIdx.x / across, first_channel = blockIdx.x % across * Tile::channels;
    const int y0 = tile / tiles_in_row * Tile::height, x0 = tile % tiles_in_row * tile_width;
    constexpr int block_channels = row_bytes / sizeof(Element);
    const int blocks = ceil_div(in.channels, block_channels);
    const int first_block = blocks * blockIdx.z / gridDim.z, end_block = blocks * (blockIdx.z + 1) / gridDim.z;
    const int k_tiles = (end_block - first_block) * taps;

    ptx::SharedAddress halo = ptx::shared_address(memory), next_halo = halo + Tile::halo_bytes;
    const ptx::SharedAddress ring = end_block - first_block > 1 ? next_halo + Tile::halo_bytes : next_halo;

    const size_t filter_step = size_t(result.channels + warp_channels - 1) / warp_channels * warp_channels * row_bytes;
    const char* next_filters = static_cast<const char*>(filters) + first_block * taps * filter_step +
                               first_channel * row_bytes + threadIdx.x * chunk_bytes;
    const auto copy_filters = [&](int stage) {
#pragma unroll
        for (int i = 0; i < Tile::filter_bytes; i += Tile::threads * chunk_bytes)
            ptx::cp_async_16(ring + stage * Tile::filter_bytes + threadIdx.x * chunk_bytes + i, next_filters + i, true);
        next_filters += filter_step;
    };

    HaloCopier<Tile, Element> copier(x, in, y0, x0, first_block);
    copier.begin(halo);
#pragma unroll 4
    for (int pass = 0; pass < Tile::halo_passes; ++pass) copier.next();
#pragma unroll
    for (int stage = 0; stage < Tile::stages - 1; ++stage) {
        copy_filters(stage);
        ptx::cp_async_commit();
    }

    // Fragment i of this warp is row warp_y + i of the tile; lane r of its first 16 brings pixel r, the others the same
    // pixels' second chunk. Of the filters eight lanes bring eight rows' chunk, the next eight their second chunk.
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_y = warp / Tile::warps_across * m, warp_channel = warp % Tile::warps_across * warp_channels;
    const int halo_row = warp_y * Tile::halo_width + (lane & 7) * 2 + (lane >> 3 & 1);
    const int filter_row = warp_channel + (lane & 7) + (lane >> 4) * 8;
    const int filter_offset = filter_row * row_bytes + ((lane >> 3 & 1) ^ (filter_row & 7)) * chunk_bytes;

    float accum[m][n][4] = {};
    int stage = 0, k_tile = 0;
#pragma unroll 1
    for (int block = first_block; block < end_block; ++block) {
        copier.begin(next_halo);
        int tap_row = halo_row;
#pragma unroll 1
        for (int tap = 0; tap < taps; ++tap, ++k_tile) {
            ptx::cp_async_wait<Tile::stages - 2>();
            // Everybody's copies for this k_tile have arrived, and everybody is done with the k_tile before, whose
            // stage (and with the last tap, whose halo) is refilled from here on.
            __syncthreads();

            ptx::SharedAddress pixels_at[m];
#pragma unroll
            for (int i = 0; i < m; ++i) pixels_at[i] = offset_of_pixel(halo, tap_row + i * Tile::halo_width, lane);
            const ptx::SharedAddress filters_at = ring + stage * Tile::filter_bytes + filter_offset;
#pragma unroll MmaPolicy::k_steps_at_once
            for (int k_step = 0; k_step < k_steps_per_row; ++k_step) {
                uint32_t a[m][4], b[n][2];
#pragma unroll
                for (int i = 0; i < m; ++i) ptx::ldmatrix_x4(a[i], pixels_at[i] ^ (k_step * 2 * chunk_bytes));
#pragma unroll
                for (int j = 0; j < n; j += 2) {
                    uint32_t two[4];
                    ptx::ldmatrix_x4(two, (filters_at ^ (k_step * 2 * chunk_bytes)) + j * 8 * row_bytes);
                    b[j][0] = two[0];
                    b[j][1] = two[1];
                    b[j + 1][0] = two[2];
                    b[j + 1][1] = two[3];
                }
                if (k_step == 0) {  // the first operands are on their way: copies are issued while they come
                    if (k_tile + Tile::stages - 1 < k_tiles) copy_filters(stage == 0 ? Tile::stages - 1 : stage - 1);
                    if (tap < Tile::halo_taps && block + 1 < end_block) {
#pragma unroll
                        for (int i = 0; i < Tile::passes_per_tap; ++i) copier.next();
                    }
                    ptx::cp_async_commit();
                }
                MmaPolicy::multiply(a, b, accum);
            }
            tap_row += tap % 3 == 2 ? Tile::halo_width - 2 : 1;
            stage = stage == Tile::stages - 1 ? 0 : stage + 1;
        }
        const ptx::SharedAddress other = halo;
        halo = next_halo;
        next_halo = other;
    }

    const int y = y0 + warp_y, left = x0 + lane / 4 * 2, channel = first_channel + warp_channel + lane % 4 * 8;
    if (partials)
        store_accum(result, y, left, channel, accum, SplitKEpilogue{partials});
    else
        store_accum(result, y, left, channel, accum, epilogue);
}

// Adds the splits in order and finishes: a thread per square and eight channels.
template <class Epilogue>
__device__ __forceinline__ void add_partials(const float* partials, int split_k, const ActivationShape& result,
                                             const Epilogue& epilogue) {
    const int eights = result.channels / 8, squares_across = ceil_div(result.width, 2);
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, square = thread / eights;
    const int channel = thread % eights * 8, y = square / squares_across * 2, x = square % squares_across * 2;
    if (y >= result.height) return;
    const size_t split_size = size_t(result.height) * result.width * result.channels;
    const float* from = partials + result.pixel(y, x) * result.channels + channel;
    PoolWindow accum = {};
#pragma unroll 1
    for (int split = 0; split < split_k; ++split, from += split_size) {
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel)
            if (y + pixel / 2 < result.height && x + pixel % 2 < result.width)
                add8(from + result.pixel(pixel / 2, pixel % 2) * result.channels, accum[pixel]);
    }
    epilogue.store(result, y, x, channel, accum);
}

}  // namespace mma_sm80

// Kernels by their full names, for one kind of products and one tile. Of the input gradient "in" and "out" are those of
// the product, not of the layer.
#define CONV3X3_RELU_MMA_SM80(name, MmaPolicy, Tile)                                                                \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                          \
        const MmaPolicy::Element* __restrict__ x, const void* __restrict__ filters, const float* __restrict__ bias, \
        MmaPolicy::Element* __restrict__ out, uint8_t* __restrict__ relu_mask,                                      \
        MmaPolicy::Element* __restrict__ pooled, uint8_t* __restrict__ pool_argmax, void* __restrict__ partials,    \
        int height, int width, int channels_in, int channels_out, int average) {                                    \
        mma_sm80::convolve<MmaPolicy, Tile>(                                                                        \
            x, {height, width, channels_in}, filters, {height, width, channels_out},                                \
            mma_sm80::ReluPoolEpilogue<MmaPolicy::Element>{bias, out, relu_mask, pooled, pool_argmax, average},     \
            static_cast<float*>(partials));                                                                         \
    }

#define CONV3X3_INPUT_GRADIENT_MMA_SM80(name, MmaPolicy, Tile)                                                      \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                          \
        const MmaPolicy::Element* __restrict__ gradient, const void* __restrict__ filters,                          \
        MmaPolicy::Element* __restrict__ out, const uint8_t* __restrict__ relu_mask, void* __restrict__ partials,   \
        int height, int width, int channels_in, int channels_out, int accumulate) {                                 \
        mma_sm80::convolve<MmaPolicy, Tile>(                                                                        \
            gradient, {height, width, channels_in}, filters, {height, width, channels_out},                         \
            mma_sm80::MaskEpilogue<MmaPolicy::Element>{out, relu_mask, accumulate}, static_cast<float*>(partials)); \
    }

// Those that add up what the blocks of a split sum have left.
#define CONV3X3_RELU_SPLIT_K_SUM(name, Element)                                                                        \
    extern "C" __global__ void __launch_bounds__(256) name(                                                            \
        const void* __restrict__ partials, const float* __restrict__ bias, Element* __restrict__ out,                  \
        uint8_t* __restrict__ relu_mask, Element* __restrict__ pooled, uint8_t* __restrict__ pool_argmax, int split_k, \
        int height, int width, int channels, int average) {                                                            \
        mma_sm80::add_partials(                                                                                        \
            static_cast<const float*>(partials), split_k, {height, width, channels},                                   \
            mma_sm80::ReluPoolEpilogue<Element>{bias, out, relu_mask, pooled, pool_argmax, average});                  \
    }

#define CONV3X3_INPUT_GRADIENT_SPLIT_K_SUM(name, Element)                                                    \
    extern "C" __global__ void __launch_bounds__(256) name(                                                  \
        const void* __restrict__ partials, Element* __restrict__ out, const uint8_t* __restrict__ relu_mask, \
        int split_k, int height, int width, int channels, int accumulate) {                                  \
        mma_sm80::add_partials(static_cast<const float*>(partials), split_k, {height, width, channels},      \
                               mma_sm80::MaskEpilogue<Element>{out, relu_mask, accumulate});                 \
    }
