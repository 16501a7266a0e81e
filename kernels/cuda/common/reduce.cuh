// Sums over a warp, over a block and over a grid, for the kernels that reduce: always the same tree, so two runs give the
// same bytes, and the error grows with log n. Used by costs/terms.cu, elementwise/blas1.cu and wasserstein/newton_schulz.cu
// and tested through them, in tests/kernels/cuda/elementwise/test_kernels.py and
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

// The sum over the block, the same in every thread. A barrier must lie between two calls.
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

// Whether this is the last of `blocks` to come here: what every block has written before, this one may read, past L1 by
// __ldcg. The ticket was 0 and is 0 again, for the next launch. Which block is the last is chance; so what it does must
// not depend on that.
__device__ __forceinline__ bool last_to_arrive(unsigned* ticket, unsigned blocks) {
    SHARED(int, last, );
    __syncthreads();  // the fence is of one thread, but for what all have written
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(ticket, blocks - 1) == blocks - 1;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// out := factor * the sum of what `blocks` blocks have for totals, which each leaves in the partials; the last adds them
// up, in their order. Every thread of the block has its total, by `block_sum`.
__device__ __forceinline__ void sum_over_blocks(float total, unsigned block, unsigned blocks, float* partials,
                                                float factor, float* out, unsigned* ticket) {
    if (threadIdx.x == 0) partials[block] = total;
    if (last_to_arrive(ticket, blocks)) {
        float sum = 0.0f;
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < blocks; i += THREADS) sum += __ldcg(partials + i);
        total = block_sum(sum);
        if (threadIdx.x == 0) *out = factor * total;
    }
}
__device__ __forceinline__ void sum_over_blocks(float total, void* partials, float factor, float* out,
                                                unsigned* ticket) {
    sum_over_blocks(total, blockIdx.x, gridDim.x, static_cast<float*>(partials), factor, out, ticket);
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
