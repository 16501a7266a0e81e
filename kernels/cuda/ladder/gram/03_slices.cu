// Rung 3: the sum is cut up among blocks. New: slices of the pixels (split-K), added in one order.
//
// Each tile has many blocks, blockIdx.z, and each of these a slice of the pixels. They leave partial sums in a
// workspace; whoever is the last of a tile to arrive adds them, slice 0 first. Which block that is changes from run to
// run, the order of the additions does not: two runs give the same bytes. Atomic additions would not.
//
//     slice 0 --> partial 0 --+
//     slice 1 --> partial 1 --+--> the last block to arrive: ((0 + 1) + 2) + ...
//     slice 2 --> partial 2 --+
//
// Bound by the fp32 units and their loads, as the convolution's rung 4, once there are as many slices as fill the chip.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/reduce.cuh"

constexpr int tile = 64, depth = 16, threads = 256, per_thread = 4, apart = 16;

// partials: (slices, channels, channels); arrived: a zero for each tile, and zeros again afterwards.
extern "C" __global__ void __launch_bounds__(threads) gram_03_slices(const float* __restrict__ features,
                                                                     float* __restrict__ out,
                                                                     float* __restrict__ partials,
                                                                     unsigned* __restrict__ arrived, int pixels,
                                                                     int channels) {
    if (blockIdx.x < blockIdx.y) return;
    SHARED(float, rows, [depth][tile]);
    SHARED(float, columns, [depth][tile]);
    const int first_row = blockIdx.y * tile, first_column = blockIdx.x * tile;
    const int ty = threadIdx.x / apart, tx = threadIdx.x % apart;
    const int slice = blockIdx.z, slices = gridDim.z, k_tiles = (pixels + depth - 1) / depth;
    float sums[per_thread][per_thread] = {};
    for (int p = k_tiles * slice / slices * depth; p < k_tiles * (slice + 1) / slices * depth; p += depth) {
        for (int load = threadIdx.x; load < depth * tile; load += threads) {
            const int d = load / tile, c = load % tile;
            const bool inside = p + d < pixels;
            rows[d][c] = inside ? features[(p + d) * channels + first_row + c] : 0.0f;
            columns[d][c] = inside ? features[(p + d) * channels + first_column + c] : 0.0f;
        }
        __syncthreads();
        for (int d = 0; d < depth; ++d) {
            float a[per_thread], b[per_thread];
#pragma unroll
            for (int i = 0; i < per_thread; ++i) a[i] = rows[d][ty + i * apart];
#pragma unroll
            for (int j = 0; j < per_thread; ++j) b[j] = columns[d][tx + j * apart];
#pragma unroll
            for (int i = 0; i < per_thread; ++i)
#pragma unroll
                for (int j = 0; j < per_thread; ++j) sums[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
    const auto entry = [&](int i, int j) {
        return (first_row + ty + i * apart) * channels + first_column + tx + j * apart;
    };
#pragma unroll
    for (int i = 0; i < per_thread; ++i)
#pragma unroll
        for (int j = 0; j < per_thread; ++j) partials[slice * channels * channels + entry(i, j)] = sums[i][j];
    if (!last_to_arrive(&arrived[blockIdx.y * gridDim.x + blockIdx.x], slices)) return;
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
            float sum = 0.0f;
            for (int s = 0; s < slices; ++s) sum += __ldcg(&partials[s * channels * channels + entry(i, j)]);
            const int k = first_row + ty + i * apart, m = first_column + tx + j * apart;
            out[k * channels + m] = sum / pixels;
            if (blockIdx.x != blockIdx.y) out[m * channels + k] = sum / pixels;
        }
    }
}
