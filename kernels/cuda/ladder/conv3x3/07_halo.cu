// Rung 7: nine taps from one load. New: a halo, which a convolution has and a matrix product has not.
//
// A block's 128 pixels are a rectangle, 16 wide and 8 high. Eight channels of it and of one pixel more on every side
// are loaded once; all nine taps are read from there. That is 180 pixels loaded in place of 9 x 128, 6.4 times less.
//
//     +--------------------+     a thread's 8 pixels lie in a row: for a row of taps
//     | o  halo, 18 x 10 o |     it loads 10 pixels to registers, and the three taps
//     |   +------------+   |     are 8 of them each, shifted by one:
//     |   |  16 x 8    |   |
//     |   |   pixels   |   |        s = 0   [0 1 2 3 4 5 6 7] 8 9
//     |   +------------+   |        s = 1    0[1 2 3 4 5 6 7 8]9
//     +--------------------+        s = 2    0 1[2 3 4 5 6 7 8 9]
//
// Bound by the fp32 units, at last: 64 products for 2 float4 of filters and 3 1/3 floats of pixels. Two barriers for
// nine taps; while a block waits, the others on its multiprocessor multiply.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int tile_width = 16, tile_height = 8, tile_channels = 64, depth = 8, threads = 128, columns = 8;
constexpr int halo_width = tile_width + 2, halo_height = tile_height + 2, halo = halo_width * halo_height;

__device__ __forceinline__ void load4(float* to, const float* from) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

extern "C" __global__ void __launch_bounds__(threads) conv3x3_07_halo(const float* __restrict__ x,
                                                                      const float* __restrict__ filters,
                                                                      const float* __restrict__ bias,
                                                                      float* __restrict__ out, int height, int width,
                                                                      int channels_in, int channels_out) {
    SHARED(float, pixels, [depth][halo]);
    SHARED(float, weights, [9][depth][tile_channels]);
    const int thread = threadIdx.x, ty = thread / columns, tx = thread % columns;
    const int across = (width + tile_width - 1) / tile_width;
    const int top = blockIdx.x / across * tile_height, left = blockIdx.x % across * tile_width;
    const int first_channel = blockIdx.y * tile_channels;
    const int i = ty / 2, j = ty % 2 * 8;  // of this thread's first pixel, within the rectangle
    float sums[8][8] = {};
    for (int c = 0; c < channels_in; c += depth) {
        for (int load = thread; load < halo * depth / 4; load += threads) {
            const int p = load / 2, d = load % 2 * 4;
            const int y = top + p / halo_width - 1, from = left + p % halo_width - 1;
            float four[4] = {};
            if (y >= 0 && y < height && from >= 0 && from < width)
                load4(four, &x[(y * width + from) * channels_in + c + d]);
#pragma unroll
            for (int e = 0; e < 4; ++e) pixels[d + e][p] = four[e];
        }
        for (int load = thread; load < 9 * depth * tile_channels / 4; load += threads) {
            const int tap = load / (depth * tile_channels / 4), d = load / (tile_channels / 4) % depth;
            const int k = load % (tile_channels / 4) * 4;
            *reinterpret_cast<float4*>(&weights[tap][d][k]) = *reinterpret_cast<const float4*>(
                &filters[(tap * channels_in + c + d) * channels_out + first_channel + k]);
        }
        __syncthreads();
        for (int d = 0; d < depth; ++d) {
#pragma unroll
            for (int r = 0; r < 3; ++r) {
                float a[10];
#pragma unroll
                for (int p = 0; p < 10; ++p) a[p] = pixels[d][(i + r) * halo_width + j + p];
#pragma unroll
                for (int s = 0; s < 3; ++s) {
                    float b[8];
                    load4(b, &weights[r * 3 + s][d][tx * 4]);
                    load4(b + 4, &weights[r * 3 + s][d][tx * 4 + 32]);
#pragma unroll
                    for (int m = 0; m < 8; ++m)
#pragma unroll
                        for (int n = 0; n < 8; ++n) sums[m][n] += a[m + s] * b[n];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 8; ++m) {
        const int y = top + i, to = left + j + m;
        if (y >= height || to >= width) continue;
#pragma unroll
        for (int n = 0; n < 8; n += 4) {
            const int k = first_channel + tx * 4 + n / 4 * 32;
            *reinterpret_cast<float4*>(&out[(y * width + to) * channels_out + k]) =
                make_float4(fmaxf(sums[m][n] + bias[k], 0.0f), fmaxf(sums[m][n + 1] + bias[k + 1], 0.0f),
                            fmaxf(sums[m][n + 2] + bias[k + 2], 0.0f), fmaxf(sums[m][n + 3] + bias[k + 3], 0.0f));
        }
    }
}
