// A loader for simt::multiply (common/gemm_simt.cuh) of rows that lie along what is summed over, in float32 or 16 bits:
// it transposes them on their way into shared memory, two threads a row's next eight numbers, four each.
//
//     memory                         shared memory, [k][row]
//     row 0   k0 k1 k2 k3 | k4 ...       0   1   2 ...         thread 0 loads k0 to k3 of row 0 at once and stores them
//     row 1   k0 k1 k2 k3 | k4 ...   k0  .   .   .             one below the other; thread 1 has k4 to k7
//
// Tested through the kernels built on it, in tests/kernels/cuda/neighbors/test_neighbors.py,
// tests/kernels/cuda/sliced/test_sliced.py and tests/kernels/cuda/wasserstein/test_newton_schulz.py.
#pragma once

#include "common/element.cuh"
#include "common/gemm_simt.cuh"
#include "ptx/cvt.cuh"

namespace simt {

template <class T>
struct Raw {  // four numbers as memory holds them
    using Quad = uint2;
};
template <>
struct Raw<float> {
    using Quad = float4;
};

template <class T>
__device__ __forceinline__ float4 as_floats(typename Raw<T>::Quad quad) {
    if constexpr (sizeof(T) == 4) {
        return quad;
    } else {
        const float2 low = ptx::unpack<T>(quad.x), high = ptx::unpack<T>(quad.y);
        return make_float4(low.x, low.y, high.x, high.y);
    }
}

// As simt::load4, of numbers that are kept as they are; in 16 bits rows are multiples of four long.
template <class T, Fours fours>
__device__ __forceinline__ typename Raw<T>::Quad load_quad(const T* from, int left_in_row, int length) {
    if constexpr (sizeof(T) == 4)
        return load4<fours>(from, left_in_row, length);
    else
        return left_in_row > 0 ? *reinterpret_cast<const uint2*>(from) : make_uint2(0, 0);
}

// `span` rows of a matrix from first_row on, from column first_column on. Beyond the last row the last is taken again,
// for sums that nobody stores; beyond the end of a row there are zeros. `centered`: less the mean, a row itself.
template <class Tile, int span, class T, Fours fours, bool centered = false>
class TransposedRows {
    static constexpr int stride = Tile::threads / 2, loads = span / stride;
    static_assert(span % stride == 0 && block_k == 8, "whole rows per pass, two threads a row");

    const T* next_[loads];
    const float* mean_;
    int pitch_, left_in_row_;  // from the thread's first
    typename Raw<T>::Quad fetched_[loads];
    float4 fetched_mean_;

  public:
    __device__ __forceinline__ TransposedRows(const T* matrix, int rows, int pitch, int first_row, int first_column = 0,
                                              const float* mean = nullptr) {
        const int column = first_column + threadIdx.x % 2 * 4;
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int row = min(first_row + int(threadIdx.x) / 2 + i * stride, rows - 1);
            next_[i] = matrix + size_t(row) * pitch + column;
        }
        if constexpr (centered) mean_ = mean + column;
        pitch_ = pitch;
        left_in_row_ = pitch - column;
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < loads; ++i) fetched_[i] = load_quad<T, fours>(next_[i], left_in_row_, pitch_);
        if constexpr (centered) fetched_mean_ = load4<fours>(mean_, left_in_row_, pitch_);
    }
    __device__ __forceinline__ void advance() {
        left_in_row_ -= block_k;
#pragma unroll
        for (int i = 0; i < loads; ++i) next_[i] += block_k;
        if constexpr (centered) mean_ += block_k;
    }
    template <int pitch>
    static __device__ __forceinline__ int offset() {
        return threadIdx.x % 2 * 4 * pitch + threadIdx.x / 2;
    }
    // With a pitch of A, four more than a multiple of 32, no bank is asked twice, as in
    // conv3x3/implicit_gemm_simt.cuh; of B's, without the four floats more, two lanes share one: 4 stores in a step of
    // 512 FFMA.
    template <int pitch>
    __device__ __forceinline__ void put(float* to) const {
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            float4 v = as_floats<T>(fetched_[i]);
            if constexpr (centered)
                v = make_float4(v.x - fetched_mean_.x, v.y - fetched_mean_.y, v.z - fetched_mean_.z,
                                v.w - fetched_mean_.w);
            to[i * stride + 0 * pitch] = v.x;
            to[i * stride + 1 * pitch] = v.y;
            to[i * stride + 2 * pitch] = v.z;
            to[i * stride + 3 * pitch] = v.w;
        }
    }
};

}  // namespace simt
