// The two products of the sliced Wasserstein distance, of features with directions and of residuals with directions, by
// the main loop of common/gemm_simt.cuh on FFMA: float32 sums whatever features are held in.
//
//     project            out (directions, pixels) := D F^T       both operands are transposed on their way in
//     sliced_gradient    out (pixels, channels) := R^T D         both come as they lie
//
// A block has a tile of 64 pixels and 64 directions or channels. Bound by device memory and FFMA alike at 64
// directions: 262,144 pixels of 64 channels move 134 MB and take 2.1 GFLOP, 0.04 to 0.06 ms each on an H100 (predicted,
// not measured); with more channels by FFMA. Launched by launch.py; tests/kernels/cuda/sliced/test_sliced.py.
#pragma once

#include "common/gemm_simt.cuh"
#include "common/indexing.cuh"
#include "ptx/cvt.cuh"

namespace sliced {

using Tile = simt::Tile64x64;

// Four neighbours of a row that may end among them: zeros beyond. `aligned`: rows are multiples of four long, as they
// always are in 16 bits.
__device__ __forceinline__ float4 load_four(const float* from, int left_in_row, bool aligned) {
    return aligned ? simt::load4<true>(from, left_in_row) : simt::load4<false>(from, left_in_row);
}

template <class Element>
__device__ __forceinline__ float4 load_four(const Element* from, int left_in_row, bool) {
    if (left_in_row <= 0) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const uint2 pairs = *reinterpret_cast<const uint2*>(from);
    const float2 low = ptx::unpack<Element>(pairs.x), high = ptx::unpack<Element>(pairs.y);
    return make_float4(low.x, low.y, high.x, high.y);
}

__device__ __forceinline__ void store_four(float* to, float4 values, int left_in_row, bool aligned) {
    if (aligned) {
        if (left_in_row > 0) *reinterpret_cast<float4*>(to) = values;
        return;
    }
    if (left_in_row > 0) to[0] = values.x;
    if (left_in_row > 1) to[1] = values.y;
    if (left_in_row > 2) to[2] = values.z;
    if (left_in_row > 3) to[3] = values.w;
}

template <class Element>
__device__ __forceinline__ void store_four(Element* to, float4 values, int left_in_row, bool) {
    if (left_in_row > 0)
        *reinterpret_cast<uint2*>(to) =
            make_uint2(ptx::pack<Element>(values.x, values.y), ptx::pack<Element>(values.z, values.w));
}

// 64 rows of a matrix, transposed on their way into shared memory: two lanes load eight columns of a row.
template <class Element>
class Transposed {
    static constexpr int loads = 2, stride = Tile::threads / 2;
    static_assert(Tile::rows == loads * stride && Tile::columns == loads * stride && simt::block_k == 8);

    const Element* next_;
    int pitch_, rows_left_, left_in_row_;  // from the thread's first
    float4 fetched_[loads];

  public:
    __device__ __forceinline__ Transposed(const Element* matrix, int rows, int pitch, int first_row) {
        const int row = first_row + threadIdx.x / 2, column = threadIdx.x % 2 * 4;
        next_ = matrix + size_t(row) * pitch + column;
        pitch_ = pitch;
        rows_left_ = rows - row;
        left_in_row_ = pitch - column;
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < loads; ++i)
            fetched_[i] = load_four(next_ + i * stride * size_t(pitch_), i * stride < rows_left_ ? left_in_row_ : 0,
                                    pitch_ % 4 == 0);
    }
    __device__ __forceinline__ void advance() {
        next_ += simt::block_k;
        left_in_row_ -= simt::block_k;
    }
    template <int pitch>
    static __device__ __forceinline__ int offset() {
        return threadIdx.x % 2 * 4 * pitch + threadIdx.x / 2;
    }
    template <int pitch>
    __device__ __forceinline__ void put(float* to) const {
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            to[i * stride + 0 * pitch] = fetched_[i].x;
            to[i * stride + 1 * pitch] = fetched_[i].y;
            to[i * stride + 2 * pitch] = fetched_[i].z;
            to[i * stride + 3 * pitch] = fetched_[i].w;
        }
    }
};

// 64 columns of a matrix as they lie: sixteen lanes load a row's.
class AsTheyLie {
    static constexpr int per_row = 16, stride = Tile::threads / per_row, loads = simt::block_k / stride;
    static_assert(Tile::rows == 4 * per_row && Tile::columns == 4 * per_row);

    const float* next_;
    int pitch_, rows_left_, left_in_row_;
    float4 fetched_[loads];

  public:
    __device__ __forceinline__ AsTheyLie(const float* matrix, int rows, int pitch, int first_column) {
        const int row = threadIdx.x / per_row, column = first_column + threadIdx.x % per_row * 4;
        next_ = matrix + size_t(row) * pitch + column;
        pitch_ = pitch;
        rows_left_ = rows - row;
        left_in_row_ = pitch - column;
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < loads; ++i)
            fetched_[i] = load_four(next_ + i * stride * size_t(pitch_), i * stride < rows_left_ ? left_in_row_ : 0,
                                    pitch_ % 4 == 0);
    }
    __device__ __forceinline__ void advance() {
        rows_left_ -= simt::block_k;
        next_ += simt::block_k * size_t(pitch_);
    }
    template <int pitch>
    static __device__ __forceinline__ int offset() {
        return threadIdx.x / per_row * pitch + threadIdx.x % per_row * 4;
    }
    template <int pitch>
    __device__ __forceinline__ void put(float* to) const {
#pragma unroll
        for (int i = 0; i < loads; ++i) *reinterpret_cast<float4*>(to + i * stride * pitch) = fetched_[i];
    }
};

// out[k][p] := sum_c directions[k][c] features[p][c]; a thread's four neighbouring pixels leave together.
template <class Element>
__device__ __forceinline__ void project(const Element* features, const float* directions, int pixels, int count,
                                        int channels, float* out) {
    const int first_pixel = blockIdx.x * Tile::rows, first = blockIdx.y * Tile::columns;
    SHARED(typename Tile::Stage, stages, [2]);
    Transposed<Element> rows(features, pixels, channels, first_pixel);
    Transposed<float> columns(directions, count, channels, first);
    simt::Accum accum;
    simt::multiply<Tile>(rows, columns, ceil_div(channels, simt::block_k), stages, accum);
    const simt::Corner corner = simt::thread_corner<Tile>();
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const int direction = first + corner.column + j / 4 * 16 + j % 4;
        if (direction >= count) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int pixel = first_pixel + corner.row + 32 * half;
            store_four(
                out + size_t(direction) * pixels + pixel,
                make_float4(accum[4 * half][j], accum[4 * half + 1][j], accum[4 * half + 2][j], accum[4 * half + 3][j]),
                pixels - pixel, pixels % 4 == 0);
        }
    }
}

// out[p][c] := factor * sum_k residual[k][p] directions[k][c] [+ out[p][c]]
template <class Element>
__device__ __forceinline__ void gradient(const float* residual, const float* directions, int pixels, int count,
                                         int channels, float factor, Element* out, int accumulate) {
    const int first_pixel = blockIdx.x * Tile::rows, first_channel = blockIdx.y * Tile::columns;
    SHARED(typename Tile::Stage, stages, [2]);
    AsTheyLie rows(residual, count, pixels, first_pixel), columns(directions, count, channels, first_channel);
    simt::Accum accum;
    simt::multiply<Tile>(rows, columns, ceil_div(count, simt::block_k), stages, accum);
    const simt::Corner corner = simt::thread_corner<Tile>();
    const bool aligned = channels % 4 == 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int pixel = first_pixel + corner.row + i / 4 * 32 + i % 4;
        if (pixel >= pixels) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int channel = first_channel + corner.column + 16 * half, left = channels - channel;
            Element* const to = out + size_t(pixel) * channels + channel;
            float4 before = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (accumulate) before = load_four(to, left, aligned);
            const float* const sums = &accum[i][4 * half];
            store_four(to,
                       make_float4(before.x + factor * sums[0], before.y + factor * sums[1],
                                   before.z + factor * sums[2], before.w + factor * sums[3]),
                       left, aligned);
        }
    }
}

}  // namespace sliced

// Kernels by their full names.
#define PROJECT(name, Element)                                                                             \
    extern "C" __global__ void __launch_bounds__(sliced::Tile::threads) name(                              \
        const Element* __restrict__ features, const float* __restrict__ directions, int pixels, int count, \
        int channels, float* __restrict__ out) {                                                           \
        sliced::project(features, directions, pixels, count, channels, out);                               \
    }

#define SLICED_GRADIENT(name, Element)                                                                                 \
    extern "C" __global__ void __launch_bounds__(sliced::Tile::threads) name(                                          \
        const float* __restrict__ residual, const float* __restrict__ directions, int pixels, int count, int channels, \
        float factor, Element* __restrict__ out, int accumulate) {                                                     \
        sliced::gradient(residual, directions, pixels, count, channels, factor, out, accumulate);                      \
    }
