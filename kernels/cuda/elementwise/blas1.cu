// Vectors of n numbers, which are images laid out in a row: what an optimiser on the device is made of. They may be
// rows of a matrix (vectors, n): where n is no multiple of four, such rows start anywhere, and everything goes one by
// one; else by fours. kernels/cuda/elementwise/launch.py launches them.
//
// Bound by device memory: every number is read once. Launched by elementwise/launch.py;
// tests/kernels/cuda/elementwise/test_kernels.py runs every kernel against float64.
#include "common/indexing.cuh"
#include "common/reduce.cuh"
#include "common/tile_constants.cuh"

struct Coefficients {
    float of[max_vectors];
};

// out := out + weight * (values - out)
extern "C" __global__ void __launch_bounds__(THREADS) lerp(const float* __restrict__ values, float* __restrict__ out,
                                                           int64_t n, float weight) {
    const Grid<THREADS> grid;
    const int64_t quads = n % 4 ? 0 : n / 4;
    for (const int64_t i : grid.stride(quads)) {
        const float4 v = reinterpret_cast<const float4*>(values)[i];
        float4 o = reinterpret_cast<float4*>(out)[i];
        o.x += weight * (v.x - o.x);
        o.y += weight * (v.y - o.y);
        o.z += weight * (v.z - o.z);
        o.w += weight * (v.w - o.w);
        reinterpret_cast<float4*>(out)[i] = o;
    }
    for (const int64_t i : grid.stride(4 * quads, n)) out[i] += weight * (values[i] - out[i]);
}

// out[k] := vectors[k] . values, k = blockIdx.y. Each has a ticket, and its blocks' partial sums.
extern "C" __global__ void __launch_bounds__(THREADS) gemv(const float* __restrict__ vectors,
                                                           const float* __restrict__ values, int64_t n,
                                                           void* __restrict__ partials, float* __restrict__ out,
                                                           unsigned* __restrict__ tickets) {
    const float* const vector = vectors + int64_t{blockIdx.y} * n;
    const Grid<THREADS> grid;
    const int64_t quads = n % 4 ? 0 : n / 4;
    float4 accum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (const int64_t i : grid.stride(quads)) {
        const float4 a = reinterpret_cast<const float4*>(vector)[i], b = reinterpret_cast<const float4*>(values)[i];
        accum.x += a.x * b.x;
        accum.y += a.y * b.y;
        accum.z += a.z * b.z;
        accum.w += a.w * b.w;
    }
    for (const int64_t i : grid.stride(4 * quads, n)) accum.x += vector[i] * values[i];
    const float total = block_sum((accum.x + accum.y) + (accum.z + accum.w));
    float* const run = static_cast<float*>(partials) + size_t(blockIdx.y) * gridDim.x;
    sum_over_blocks(total, blockIdx.x, gridDim.x, run, 1.0f, out + blockIdx.y, tickets + blockIdx.y);
}

// out := sum_k by.of[k] vectors[k], in the order of k
extern "C" __global__ void __launch_bounds__(THREADS) linear_combination(const float* __restrict__ vectors,
                                                                         const __grid_constant__ Coefficients by,
                                                                         int count, int64_t n,
                                                                         float* __restrict__ out) {
    const Grid<THREADS> grid;
    const int64_t quads = n % 4 ? 0 : n / 4;
    for (const int64_t i : grid.stride(quads)) {
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
        for (int k = 0; k < count; ++k) {
            const float4 v = *reinterpret_cast<const float4*>(vectors + k * n + 4 * i);
            sum.x += by.of[k] * v.x;
            sum.y += by.of[k] * v.y;
            sum.z += by.of[k] * v.z;
            sum.w += by.of[k] * v.w;
        }
        reinterpret_cast<float4*>(out)[i] = sum;
    }
    for (const int64_t i : grid.stride(4 * quads, n)) {
        float sum = 0.0f;
#pragma unroll 4
        for (int k = 0; k < count; ++k) sum += by.of[k] * vectors[k * n + i];
        out[i] = sum;
    }
}
