// Rung 6: the next k-tile is on its way while this one is multiplied. New: double buffering.
//
// The same tiles as rung 5, twice in shared memory. A thread asks for its part of the next k-tile, multiplies the
// present one, and only then writes what has arrived in its registers to the other stage. One barrier a k-tile is left.
//
//     loads        [ tile 1 ]      [ tile 2 ]      [ tile 3 ]
//     products     [ tile 0      ] [ tile 1      ] [ tile 2      ]
//     to shared                 [1]             [2]             [3]   | a barrier after each
//
// Bound by what x costs: each of its floats is loaded from L2 nine times, once a tap, and written to shared memory.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int tile_pixels = 128, tile_channels = 64, depth = 8, threads = 128, columns = 8, stages = 2;

__device__ __forceinline__ void load4(float* to, const float* from) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

extern "C" __global__ void __launch_bounds__(threads) conv3x3_06_double_buffering(
    const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,
    float* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    SHARED(float, pixels, [stages][depth][tile_pixels]);
    SHARED(float, weights, [stages][depth][tile_channels]);
    const int thread = threadIdx.x, ty = thread / columns, tx = thread % columns;
    const int first_pixel = blockIdx.x * tile_pixels, first_channel = blockIdx.y * tile_channels;
    const int pixel = first_pixel + thread, i = pixel / width, j = pixel % width;
    const int k_tiles = 9 * channels_in / depth, weights_d = thread / 16, weights_k = thread % 16 * 4;

    float eight[depth];  // this thread's part of a k-tile on its way
    float4 four;
    const auto fetch = [&](int k_tile) {
        const int tap = k_tile * depth / channels_in, c = k_tile * depth % channels_in;
        const int y = i + tap / 3 - 1, from = j + tap % 3 - 1;
        const bool inside = pixel < height * width && y >= 0 && y < height && from >= 0 && from < width;
#pragma unroll
        for (int d = 0; d < depth; ++d) eight[d] = 0.0f;
        if (inside) {
            load4(eight, &x[(y * width + from) * channels_in + c]);
            load4(eight + 4, &x[(y * width + from) * channels_in + c + 4]);
        }
        four = *reinterpret_cast<const float4*>(
            &filters[(tap * channels_in + c + weights_d) * channels_out + first_channel + weights_k]);
    };
    const auto store = [&](int stage) {
#pragma unroll
        for (int d = 0; d < depth; ++d) pixels[stage][d][thread] = eight[d];
        *reinterpret_cast<float4*>(&weights[stage][weights_d][weights_k]) = four;
    };

    float sums[8][8] = {};
    fetch(0);
    store(0);
    __syncthreads();
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        const int stage = k_tile % stages;
        if (k_tile + 1 < k_tiles) fetch(k_tile + 1);
#pragma unroll
        for (int place = 0; place < depth; ++place) {
            float a[8], b[8];
            load4(a, &pixels[stage][place][ty * 4]);
            load4(a + 4, &pixels[stage][place][ty * 4 + 64]);
            load4(b, &weights[stage][place][tx * 4]);
            load4(b + 4, &weights[stage][place][tx * 4 + 32]);
#pragma unroll
            for (int m = 0; m < 8; ++m)
#pragma unroll
                for (int n = 0; n < 8; ++n) sums[m][n] += a[m] * b[n];
        }
        if (k_tile + 1 < k_tiles) store(1 - stage);  // which was read before the last barrier
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 8; ++m) {
        const int target = first_pixel + ty * 4 + m % 4 + m / 4 * 64;
        if (target >= height * width) continue;
#pragma unroll
        for (int n = 0; n < 8; n += 4) {
            const int k = first_channel + tx * 4 + n / 4 * 32;
            *reinterpret_cast<float4*>(&out[target * channels_out + k]) =
                make_float4(fmaxf(sums[m][n] + bias[k], 0.0f), fmaxf(sums[m][n + 1] + bias[k + 1], 0.0f),
                            fmaxf(sums[m][n + 2] + bias[k + 2], 0.0f), fmaxf(sums[m][n + 3] + bias[k + 3], 0.0f));
        }
    }
}
