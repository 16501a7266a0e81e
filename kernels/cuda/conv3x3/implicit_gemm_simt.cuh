// Pixels as the rows of a matrix product: the order they come in, the loader that gathers a convolution's windows,
// and what is done with the sums: bias, ReLU, mask bits and pooling forward; mask and accumulation backward. Used
// by the convolutions and the style gradient, and tested through them in tests/kernels/cuda/conv3x3/test_simt.py and
// tests/kernels/cuda/gram/test_simt.py. What bounds them is said in common/gemm_simt.cuh.
//
// Rows come in 2x2 squares, four rows a square, squares in reading order: row 4 q + 2 r + s is pixel (r, s) of
// square q. A thread's four consecutive rows are then one window of the pool, which needs neither shared memory nor
// shuffles, and a tile is a run of squares that wastes nothing at the right border. The last row or column of
// squares may hang over an odd side; such pixels load zeros and are not stored.
#pragma once

#include "common/gemm_simt.cuh"
#include "common/indexing.cuh"
#include "common/platform.cuh"

namespace simt {

struct ActivationShape {  // of activations, (height, width, channels)
    int height, width, channels;

    // The position of a square in reading order. Unsigned, for that division is the shorter one.
    __device__ __forceinline__ int2 position_of(unsigned square) const {
        const unsigned across = ceil_div(unsigned(width), 2), down = square / across;
        return make_int2(square - down * across, down);
    }
    __device__ __forceinline__ size_t offset(int y, int x) const { return (size_t(y) * width + x) * channels; }
};

// How a convolution walks through its input, in floats: from the last tap of a row of three to the first of the
// next, and from the last of nine to the first at the next eight channels. The host works it out, for arguments
// stay in constant memory and what the kernel computes takes registers from the main loop.
struct Walk {
    int next_row, next_channels;
};

// Rows of A: for each pixel the `taps` (9 or 1) neighbours' channels, eight channels a step, all taps of these
// eight before the next eight: the nine loads of a neighbourhood follow each other and eight of them are found in
// L1. Positions are a 64-bit address of the thread's first pixel and 32-bit offsets from there: images may exceed
// 2^31.
template <class Tile, int taps, bool vector>
class PixelTaps {
    static_assert(taps == 9 || taps == 1);
    static_assert(simt::block_k == 8, "two float4 a pixel and k_tile");
    static constexpr int loads = Tile::rows * 2 / Tile::threads, stride = Tile::threads / 2;

    const float* next_;             // this step's channels of the tap's neighbour of the thread's first pixel
    unsigned tap_;                  // a bit, as in inside_
    int channels_, channels_left_;  // left from this step's first
    Walk walk_;
    unsigned offset_[loads];  // floats from the thread's first pixel to the others
    unsigned inside_[loads];  // bit t: tap t lies in the image
    float4 fetched_[loads];

  public:
    __device__ __forceinline__ PixelTaps(const float* input, const ActivationShape& map, const Walk& walk,
                                         int first_square, int first_k_tile) {
        constexpr int border = taps == 9 ? 1 : 0;
        const int tap = first_k_tile % taps, channel = first_k_tile / taps * simt::block_k;
        tap_ = 1u << tap;
        channels_left_ = map.channels - channel;
        channels_ = map.channels;
        walk_ = walk;
        int y0 = 0, x0 = 0;
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int row = threadIdx.x / 2 + i * stride;
            const int2 square = map.position_of(first_square + row / 4);
            const int y = square.y * 2 + (row >> 1 & 1), x = square.x * 2 + (row & 1);
            if (i == 0) {
                y0 = y;
                x0 = x;
                next_ = input + ((int64_t{y} - border + tap / 3) * map.width + x - border + tap % 3) * map.channels +
                        channel + threadIdx.x % 2 * 4;
            }
            // Not negative: squares come in reading order, and a thread's pixels have the same position in theirs.
            offset_[i] = ((y - y0) * map.width + (x - x0)) * map.channels;
            inside_[i] = 0;
            if (y < map.height && x < map.width) {
#pragma unroll
                for (int t = 0; t < taps; ++t) {
                    const unsigned row = y - border + t / 3, column = x - border + t % 3;  // -1 wraps to the outside
                    inside_[i] |= (row < map.height && column < map.width ? 1u : 0u) << t;
                }
            }
        }
        stop_at_the_end();
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int left = vector ? 4 : channels_left_ - int(threadIdx.x % 2) * 4;
            fetched_[i] = simt::load4<vector>(i == 0 ? next_ : next_ + offset_[i], inside_[i] & tap_ ? left : 0);
        }
    }
    __device__ __forceinline__ void advance() {
        tap_ <<= 1;
        int floats = tap_ & 0b001001000 ? walk_.next_row : channels_;
        if (tap_ == 1u << taps) {
            tap_ = 1;
            floats = walk_.next_channels;
            channels_left_ -= simt::block_k;
            stop_at_the_end();
        }
        next_ += floats;
    }
    // Transposed: channels are the stage's rows. A warp puts 16 pixels of two groups of four channels; a row is 4
    // floats longer than a multiple of 32, so those groups lie 16 banks apart and no bank is asked twice.
    template <int pitch>
    static __device__ __forceinline__ int offset() {
        return threadIdx.x % 2 * 4 * pitch + threadIdx.x / 2;
    }
    template <int pitch>
    __device__ __forceinline__ void put(float* to) const {
        static_assert(pitch % 32 == 4);
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            to[i * stride + 0 * pitch] = fetched_[i].x;
            to[i * stride + 1 * pitch] = fetched_[i].y;
            to[i * stride + 2 * pitch] = fetched_[i].z;
            to[i * stride + 3 * pitch] = fetched_[i].w;
        }
    }

  private:
    // A thread whose four channels do not exist has nothing inside. Checked once in nine steps, not at every load.
    __device__ __forceinline__ void stop_at_the_end() {
        if (channels_left_ > int(threadIdx.x % 2) * 4) return;
#pragma unroll
        for (int i = 0; i < loads; ++i) inside_[i] = 0;
    }
};

// One square's values in four neighbouring channels, [pixel][channel].
using PoolWindow = float[4][4];

// Stores what is inside of `left_in_row` values, at once where every row is a multiple of four long.
__device__ __forceinline__ void store4(float* to, const float (&values)[4], int left_in_row, bool vector) {
    if (vector) {
        *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < left_in_row) to[j] = values[j];
    }
}

// y := relu(accum + bias), kept as far as it is wanted: null pointers are not. kernels/cuda/conv3x3/launch_simt.py has
// the layouts.
struct ReluPoolEpilogue {
    const float* bias;  // padded to a multiple of four
    float* out;
    uint8_t* relu_mask;
    float* pooled;
    uint8_t* pool_argmax;
    int average;

    // The square at (2 square_y, 2 square_x), channels from `channel` on, a multiple of four. Every lane of the warp
    // calls this, inside the map or not; lane ^ partner has the same square and the other half of a mask's byte.
    template <int partner>
    __device__ __forceinline__ void store(const ActivationShape& map, int square_y, int square_x, int channel,
                                          PoolWindow& y) const {
        const int left_in_row = map.channels - channel, y0 = 2 * square_y, x0 = 2 * square_x;
        const bool vector = map.channels % 4 == 0, wanted = left_in_row > 0;
        const float4 b = wanted ? *reinterpret_cast<const float4*>(bias + channel) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            y[pixel][0] = relu(y[pixel][0] + b.x);
            y[pixel][1] = relu(y[pixel][1] + b.y);
            y[pixel][2] = relu(y[pixel][2] + b.z);
            y[pixel][3] = relu(y[pixel][3] + b.w);
        }
        if (out) {
#pragma unroll
            for (int pixel = 0; pixel < 4; ++pixel) {
                const int row = y0 + pixel / 2, column = x0 + pixel % 2;
                if (wanted && row < map.height && column < map.width)
                    store4(out + map.offset(row, column) + channel, y[pixel], left_in_row, vector);
            }
        }
        if (relu_mask) store_mask<partner>(map, y0, x0, channel, y);
        if (pooled && wanted && y0 + 1 < map.height && x0 + 1 < map.width) {
            const size_t position = size_t(square_y) * (map.width / 2) + square_x;
            float result[4];
            unsigned chosen = 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (average) {
                    result[j] = 0.25f * ((y[0][j] + y[1][j]) + (y[2][j] + y[3][j]));
                } else {
                    unsigned first = 0;
                    result[j] = y[0][j];
#pragma unroll
                    for (unsigned pixel = 1; pixel < 4; ++pixel) {
                        if (y[pixel][j] > result[j]) {
                            result[j] = y[pixel][j];
                            first = pixel;
                        }
                    }
                    chosen |= first << 2 * j;
                }
            }
            store4(pooled + position * map.channels + channel, result, left_in_row, vector);
            if (pool_argmax) pool_argmax[position * ceil_div(map.channels, 4) + channel / 4] = chosen;
        }
    }

  private:
    // Lets a NaN through, so that a bad weights file shows as one instead of as zeros.
    static __device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

    // A byte holds eight channels, a lane has four: of the square's four bytes each of the two partners stores two.
    // Bits beyond the last channel are zero: of the last four because the padding of filters and bias is.
    template <int partner>
    __device__ __forceinline__ void store_mask(const ActivationShape& map, int y0, int x0, int channel,
                                               const PoolWindow& y) const {
        unsigned bits = 0;
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel)
#pragma unroll
            for (int j = 0; j < 4; ++j) bits |= (y[pixel][j] > 0.0f ? 1u : 0u) << (4 * pixel + j);
        if (channel >= map.channels) bits = 0;
        const unsigned others = __shfl_xor_sync(~0u, bits, partner);
        const bool high = channel & 4;  // this lane's bits are the upper halves
        const unsigned lower = high ? others : bits, upper = high ? bits : others;
        const int row = y0 + high, bytes = ceil_div(map.channels, 8);
        if (row >= map.height || channel / 8 >= bytes) return;
        uint8_t* to = relu_mask + (size_t(row) * map.width + x0) * bytes + channel / 8;
        const unsigned low = lower >> 8 * high, up = upper >> 8 * high;  // four bits of each of the two pixels
        if (x0 < map.width) to[0] = (low & 15) | (up & 15) << 4;
        if (x0 + 1 < map.width) to[bytes] = (low >> 4 & 15) | (up >> 4 & 15) << 4;
    }
};

// out := (accum [+ out]) [* relu_mask]; a null mask masks nothing.
struct MaskEpilogue {
    float* out;
    const uint8_t* relu_mask;
    int accumulate;

    template <int partner>
    __device__ __forceinline__ void store(const ActivationShape& map, int square_y, int square_x, int channel,
                                          PoolWindow& v) const {
        const int left_in_row = map.channels - channel;
        const bool vector = map.channels % 4 == 0;
        if (left_in_row <= 0) return;
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            const int row = 2 * square_y + pixel / 2, column = 2 * square_x + pixel % 2;
            if (row >= map.height || column >= map.width) continue;
            float* to = out + map.offset(row, column) + channel;
            if (accumulate) {
                const float4 before = vector ? simt::load4<true>(to, left_in_row) : simt::load4<false>(to, left_in_row);
                v[pixel][0] += before.x;
                v[pixel][1] += before.y;
                v[pixel][2] += before.z;
                v[pixel][3] += before.w;
            }
            if (relu_mask) {
                const size_t position = size_t(row) * map.width + column;
                const unsigned bits = relu_mask[position * ceil_div(map.channels, 8) + channel / 8] >> (channel & 4);
#pragma unroll
                for (int j = 0; j < 4; ++j) v[pixel][j] = bits >> j & 1 ? v[pixel][j] : 0.0f;
            }
            store4(to, v[pixel], left_in_row, vector);
        }
    }
};

template <class Tile>
struct Shared {  // of `convolve`; one object, whose stages lie at a constant address
    typename Tile::Stages stages;
    int2 positions[Tile::rows / 4];
    static_assert(Tile::threads >= Tile::rows / 4);
};

// The product of gathered pixels, `taps` neighbours each, and a matrix of filters, in the order of PixelTaps:
// blocks are tiles of squares (x), of columns (y) and splits of the k-tiles (z). A single split ends in `epilogue`; of
// several, each leaves its sums in `partials`, [split][row][column], for `add_partials`.
template <class Tile, int taps, bool vector, class Epilogue>
__device__ __forceinline__ void convolve(const float* x, const ActivationShape& in, const Walk& walk,
                                         const float* filters, int pitch, const ActivationShape& result,
                                         const Epilogue& epilogue, float* partials) {
    // Tiles as blockIdx has them, without a division whose results would be kept through the main loop.
    const int first_square = blockIdx.x * (Tile::rows / 4), first_column = blockIdx.y * Tile::columns;
    const int k_tiles = taps * ceil_div(in.channels, simt::block_k);
    const int first_k_tile = k_tiles * blockIdx.z / gridDim.z, end_k_tile = k_tiles * (blockIdx.z + 1) / gridDim.z;

    // Where the tile's squares are, for afterwards: worked out now and kept in shared memory, not in registers.
    SHARED(Shared<Tile>, shared, );
    if (threadIdx.x < Tile::rows / 4) shared.positions[threadIdx.x] = result.position_of(first_square + threadIdx.x);

    PixelTaps<Tile, taps, vector> loader_a(x, in, walk, first_square, first_k_tile);
    // With nine taps the filters are packed, padding included; with one they are a square matrix as it comes.
    simt::MatrixRows<Tile, Tile::columns, simt::fours_if(vector), taps == 9> loader_b(
        filters, pitch, first_column, first_k_tile * simt::block_k, in.channels);
    simt::Accum accum;
    simt::multiply<Tile>(loader_a, loader_b, end_k_tile - first_k_tile, shared.stages, accum);

    const simt::Corner corner = simt::thread_corner<Tile>();
#pragma unroll
    for (int down = 0; down < 2; ++down) {
        const int square = (corner.row + 32 * down) / 4;  // of the tile's
        const int2 position = shared.positions[square];
#pragma unroll
        for (int across = 0; across < 2; ++across) {
            const int channel = first_column + corner.column + 16 * across;
            PoolWindow values;
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) values[i][j] = accum[4 * down + i][4 * across + j];
            if (!partials) {
                epilogue.template store<2>(result, position.y, position.x, channel, values);
            } else if (channel < result.channels) {
                const int padded = ceil_div(result.channels, 4) * 4;
                const size_t rows = size_t(gridDim.x) * Tile::rows;
                const size_t row = blockIdx.z * rows + size_t(first_square + square) * 4;
                float* to = partials + row * padded + channel;
#pragma unroll
                for (int i = 0; i < 4; ++i) store4(to + size_t(i) * padded, values[i], 4, true);
            }
        }
    }
}

// Adds the splits of `convolve` in order and finishes: a thread per square and four channels, an even number of fours.
template <class Epilogue>
__device__ __forceinline__ void add_partials(const float* partials, int split_k, int rows,
                                             const ActivationShape& result, const Epilogue& epilogue) {
    const int fours = ceil_div(result.channels, 8) * 2, padded = ceil_div(result.channels, 4) * 4;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, square = thread / fours, channel = thread % fours * 4;
    PoolWindow accum = {};
    if (channel < result.channels && square < rows / 4) {
        const float* from = partials + size_t(square) * 4 * padded + channel;
        for (int split = 0; split < split_k; ++split, from += size_t(rows) * padded) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float4 part = *reinterpret_cast<const float4*>(from + size_t(i) * padded);
                accum[i][0] += part.x;
                accum[i][1] += part.y;
                accum[i][2] += part.z;
                accum[i][3] += part.w;
            }
        }
    }
    const int2 position = result.position_of(square);
    epilogue.template store<1>(result, position.y, position.x, channel, accum);
}

}  // namespace simt
