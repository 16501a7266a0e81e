// Rung 5: four floats a load. New: vector loads, and register tiles of 8 x 8.
//
// A block computes 128 pixels x 64 channels with 128 threads. Everything is loaded as float4, from memory and from
// shared memory: a quarter of the instructions, and a warp's 16 bytes a lane are what both serve fastest. For a
// place of the sum a thread loads 2 + 2 float4 and multiplies 64 times.
//
//         tx = 0..7: channels 4 tx .. 4 tx + 3, and 32 more
//         +---------+    +---------+
//      ty |  4 x 4  |    |  4 x 4  |     pixels 4 ty .. 4 ty + 3
//         +---------+    +---------+
//         |  4 x 4  |    |  4 x 4  |     and 64 more
//         +---------+    +---------+
//
// Bound by waiting: multiplications wait for a k-tile's loads, then loads wait for the multiplications.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int tile_pixels = 128, tile_channels = 64, depth = 8, threads = 128, columns = 8;

__device__ __forceinline__ void load4(float* to, const float* from) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

extern "C" __global__ void __launch_bounds__(threads) conv3x3_05_vector_loads(
    const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,
    float* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    SHARED(float, pixels, [depth][tile_pixels]);
    SHARED(float, weights, [depth][tile_channels]);
    const int thread = threadIdx.x, ty = thread / columns, tx = thread % columns;
    const int first_pixel = blockIdx.x * tile_pixels, first_channel = blockIdx.y * tile_channels;
    const int pixel = first_pixel + thread;  // whose channels this thread loads
    const int i = pixel / width, j = pixel % width;
    float sums[8][8] = {};
    for (int tap = 0; tap < 9; ++tap) {
        const int y = i + tap / 3 - 1, from = j + tap % 3 - 1;
        const bool inside = pixel < height * width && y >= 0 && y < height && from >= 0 && from < width;
        for (int c = 0; c < channels_in; c += depth) {
            float eight[depth] = {};
            if (inside) {
                load4(eight, &x[(y * width + from) * channels_in + c]);
                load4(eight + 4, &x[(y * width + from) * channels_in + c + 4]);
            }
#pragma unroll
            for (int d = 0; d < depth; ++d) pixels[d][thread] = eight[d];
            const int d = thread / 16, k = thread % 16 * 4;
            *reinterpret_cast<float4*>(&weights[d][k]) = *reinterpret_cast<const float4*>(
                &filters[(tap * channels_in + c + d) * channels_out + first_channel + k]);
            __syncthreads();
#pragma unroll
            for (int place = 0; place < depth; ++place) {
                float a[8], b[8];
                load4(a, &pixels[place][ty * 4]);
                load4(a + 4, &pixels[place][ty * 4 + 64]);
                load4(b, &weights[place][tx * 4]);
                load4(b + 4, &weights[place][tx * 4 + 32]);
#pragma unroll
                for (int m = 0; m < 8; ++m)
#pragma unroll
                    for (int n = 0; n < 8; ++n) sums[m][n] += a[m] * b[n];
            }
            __syncthreads();
        }
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
