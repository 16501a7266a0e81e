// Sums over a warp and over a block, for the kernels that reduce: always the same tree, so two runs give the same
// bytes, and the error grows with log n. Used by costs/terms.cu, elementwise/blas1.cu and wasserstein/newton_schulz.cu
// and tested through them, in tests/kernels/cuda/elementwise/test_elementwise.py and
// tests/kernels/cuda/wasserstein/test_newton_schulz.py.
#pragma once

#include "common/platform.cuh"

constexpr int THREADS = 256;  // of a block that reduces; kernels/cuda/elementwise/launch.py launches as many
constexpr int WARPS = THREADS / 32;

// The sum over the warp, the same in every lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
    return value;
}

// The sum over the block, the same in every thread. To be called once in a kernel.
__device__ __forceinline__ float block_sum(float value) {
    SHARED(float, warp_sums, [WARPS]);
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) total += warp_sums[warp];
    return total;
}

// partials[split][channel] := the sum down a column of `accum`, for the 64 channels of this block (blockIdx.x) and its
// split of the pixels (blockIdx.y); once every thread has left its own there.
template <int down>
__device__ __forceinline__ void store_split_of_64(const float (&accum)[down][64], float* partials, int channels) {
    __syncthreads();
    const int channel = blockIdx.x * 64 + threadIdx.x;
    if (threadIdx.x >= 64 || channel >= channels) return;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < down; ++i) total += accum[i][threadIdx.x];
    partials[size_t(blockIdx.y) * channels + channel] = total;
}
