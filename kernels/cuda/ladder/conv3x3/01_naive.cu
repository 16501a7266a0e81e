// Rung 1: the formula. out[i, j, k] = max(0, bias[k] + sum_{r,s,c} x[i+r-1, j+s-1, c] filters[r, s, c, k])
//
// One thread an output; the threads of a warp have 32 pixels that follow each other, of one output channel k.
//
//     warp:   pixel p     p+1     p+2   ...            x:        p          C floats further on: p + 1
//                 |        |       |                          | c c c c ... | c c c c ... |
//             out[p, k]  ...                             a warp's load touches 32 lines to use 4 bytes of each
//
// Bound by the lines of L1: 32 of them for each load of x, and a multiplication needs one such load.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

extern "C" __global__ void __launch_bounds__(256) conv3x3_01_naive(const float* __restrict__ x,
                                                                   const float* __restrict__ filters,
                                                                   const float* __restrict__ bias,
                                                                   float* __restrict__ out, int height, int width,
                                                                   int channels_in, int channels_out) {
    const int pixel = blockIdx.x * 256 + threadIdx.x, k = blockIdx.y;
    if (pixel >= height * width) return;
    const int i = pixel / width, j = pixel % width;
    float sum = bias[k];
    for (int r = 0; r < 3; ++r) {
        for (int s = 0; s < 3; ++s) {
            const int y = i + r - 1, from = j + s - 1;
            if (y < 0 || y >= height || from < 0 || from >= width) continue;  // zeros beyond the edges
            for (int c = 0; c < channels_in; ++c)
                sum += x[(y * width + from) * channels_in + c] *
                       filters[((r * 3 + s) * channels_in + c) * channels_out + k];
        }
    }
    out[pixel * channels_out + k] = fmaxf(sum, 0.0f);
}
