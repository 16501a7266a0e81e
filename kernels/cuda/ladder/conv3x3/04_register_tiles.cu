// Rung 4: a thread has many outputs. New: register tiles.
//
// A block computes 64 pixels x 64 channels with 256 threads, 4 x 4 outputs each: for every place of the sum a thread
// loads 4 + 4 floats from shared memory and multiplies 16 times, where rung 3 loaded 2 to multiply once. The sixteen
// sums stay in registers. A thread's pixels and channels lie 16 apart, so that a warp's loads ask each bank once.
//
//          tx = 0..15, channels tx, tx + 16, tx + 32, tx + 48
//         +----+----+----+----+
//      ty |    |    |    |    |      pixels ty, ty + 16, ty + 32, ty + 48
//         +----+----+----+----+
//
// Pixels lie transposed in shared memory, [channel][pixel], one float more a row: written by channels and read by
// pixels, both without bank conflicts.
// Bound by shared memory still: half a load for each multiplication.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int tile = 64, depth = 16, threads = 256, per_thread = 4, apart = 16;

extern "C" __global__ void __launch_bounds__(threads) conv3x3_04_register_tiles(
    const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,
    float* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    SHARED(float, pixels, [depth][tile + 1]);
    SHARED(float, weights, [depth][tile]);
    const int first_pixel = blockIdx.x * tile, first_channel = blockIdx.y * tile;
    const int ty = threadIdx.x / apart, tx = threadIdx.x % apart;
    float sums[per_thread][per_thread] = {};
    for (int tap = 0; tap < 9; ++tap) {
        for (int c = 0; c < channels_in; c += depth) {
            for (int load = threadIdx.x; load < tile * depth; load += threads) {
                const int p = load / depth, d = load % depth, pixel = first_pixel + p;
                const int y = pixel / width + tap / 3 - 1, from = pixel % width + tap % 3 - 1;
                const bool inside = pixel < height * width && y >= 0 && y < height && from >= 0 && from < width;
                pixels[d][p] = inside ? x[(y * width + from) * channels_in + c + d] : 0.0f;
            }
            for (int load = threadIdx.x; load < depth * tile; load += threads) {
                const int d = load / tile, k = load % tile;
                weights[d][k] = filters[(tap * channels_in + c + d) * channels_out + first_channel + k];
            }
            __syncthreads();
            for (int d = 0; d < depth; ++d) {
                float a[per_thread], b[per_thread];
#pragma unroll
                for (int m = 0; m < per_thread; ++m) a[m] = pixels[d][ty + m * apart];
#pragma unroll
                for (int n = 0; n < per_thread; ++n) b[n] = weights[d][tx + n * apart];
#pragma unroll
                for (int m = 0; m < per_thread; ++m)
#pragma unroll
                    for (int n = 0; n < per_thread; ++n) sums[m][n] += a[m] * b[n];
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (int m = 0; m < per_thread; ++m) {
        const int pixel = first_pixel + ty + m * apart;
        if (pixel >= height * width) continue;
#pragma unroll
        for (int n = 0; n < per_thread; ++n) {
            const int k = first_channel + tx + n * apart;
            out[pixel * channels_out + k] = fmaxf(sums[m][n] + bias[k], 0.0f);
        }
    }
}
