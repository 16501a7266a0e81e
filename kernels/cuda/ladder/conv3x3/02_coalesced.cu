// Rung 2: the same, with other threads side by side. New: coalesced loads.
//
// The threads of a warp have 32 output channels that follow each other, of one pixel. Filters and outputs lie channel
// by channel, so a warp's load of filters is one line of 128 bytes, and its load of x one float for all (a broadcast).
//
//     warp:   channel k    k+1    k+2   ...            filters[r, s, c]:  | k k+1 k+2 ... k+31 |   one line
//                                                      x[p, c]:           | * |                    one float
//
// Bound by the number of loads: two for each multiplication, all of which L1 has to answer.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int block_channels = 64, block_pixels = 4;

extern "C" __global__ void __launch_bounds__(block_channels* block_pixels) conv3x3_02_coalesced(
    const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,
    float* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    const int pixel = blockIdx.x * block_pixels + threadIdx.y, k = blockIdx.y * block_channels + threadIdx.x;
    if (pixel >= height * width) return;
    const int i = pixel / width, j = pixel % width;
    float sum = bias[k];
    for (int r = 0; r < 3; ++r) {
        for (int s = 0; s < 3; ++s) {
            const int y = i + r - 1, from = j + s - 1;
            if (y < 0 || y >= height || from < 0 || from >= width) continue;
            for (int c = 0; c < channels_in; ++c)
                sum += x[(y * width + from) * channels_in + c] *
                       filters[((r * 3 + s) * channels_in + c) * channels_out + k];
        }
    }
    out[pixel * channels_out + k] = fmaxf(sum, 0.0f);
}
