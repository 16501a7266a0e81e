// The two products of the sliced Wasserstein distance, of features with directions and of residuals with directions, by
// the main loop of common/gemm_simt.cuh on FFMA: float32 sums whatever features are held in.
//
//     project            out (directions, pixels) := D F^T       both operands are transposed on their way in
//     sliced_gradient    out (pixels, channels) := R^T D         both come as they lie
//
// A block has a tile of 64 pixels and 64 directions or channels. Bound by device memory and FFMA alike at 64
// directions: 262,144 pixels of 64 channels move 134 MB or less and take 2.1 GFLOP. An H100 takes 91 and 72 us of bf16
// (benchmarks/results/h100_2026-11-27_styles.md), 24 and 30 TFLOP/s; with more channels FFMA bounds it. Launched by launch.py; tests/kernels/cuda/sliced/test_sliced.py.
#pragma once

#include "common/gemm_simt.cuh"
#include "common/indexing.cuh"
#include "common/transposed_rows.cuh"
#include "ptx/cvt.cuh"

namespace sliced {

using Tile = simt::Tile64x64;

// Four neighbours of a row that may end among them: zeros beyond. In 16 bits rows are multiples of four long.
template <class Element>
__device__ __forceinline__ float4 load_four(const Element* from, int left_in_row, int length) {
    return simt::as_floats<Element>(simt::load_quad<Element, simt::Fours::asked>(from, left_in_row, length));
}

// `aligned`: rows are multiples of four long.
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

// 64 rows of a matrix, transposed, or 64 columns as they lie.
template <class Element>
using Transposed = simt::TransposedRows<Tile, Tile::rows, Element, simt::Fours::asked>;
using AsTheyLie = simt::MatrixRows<Tile, Tile::rows, simt::Fours::asked, false>;
static_assert(Tile::rows == Tile::columns);

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
    AsTheyLie rows(residual, pixels, first_pixel, 0, count), columns(directions, channels, first_channel, 0, count);
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
            if (accumulate) before = load_four<Element>(to, left, channels);
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
