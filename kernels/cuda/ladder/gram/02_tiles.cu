// Rung 2: tiles in shared memory and in registers, and half of the work. New: the matrix is symmetric.
//
// A block computes 64 x 64 entries with 256 threads, 4 x 4 each, from k-tiles of 16 pixels. Blocks below the diagonal
// do nothing; those above it write their entries twice, the second time with row and column exchanged.
//
//          m
//        +---+---+---+
//     k  | x | x | x |      x: computed           (the convolution's ladder, rungs 3 and 4, has tiles explained)
//        +---+---+---+
//        | . | x | x |      .: written by the block across the diagonal
//        +---+---+---+
//        | . | . | x |
//        +---+---+---+
//
// Bound by idle multiprocessors: 64 channels are one block, which goes through all pixels by itself.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int tile = 64, depth = 16, threads = 256, per_thread = 4, apart = 16;

extern "C" __global__ void __launch_bounds__(threads) gram_02_tiles(const float* __restrict__ features,
                                                                    float* __restrict__ out, int pixels, int channels) {
    if (blockIdx.x < blockIdx.y) return;
    SHARED(float, rows, [depth][tile]);
    SHARED(float, columns, [depth][tile]);
    const int first_row = blockIdx.y * tile, first_column = blockIdx.x * tile;
    const int ty = threadIdx.x / apart, tx = threadIdx.x % apart;
    float sums[per_thread][per_thread] = {};
    for (int p = 0; p < pixels; p += depth) {
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
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
            const int k = first_row + ty + i * apart, m = first_column + tx + j * apart;
            out[k * channels + m] = sums[i][j] / pixels;
            if (blockIdx.x != blockIdx.y) out[m * channels + k] = sums[i][j] / pixels;
        }
    }
}
