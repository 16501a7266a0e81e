// Rung 1: the formula. out[k, m] = 1/pixels sum_p features[p, k] features[p, m]
//
// One thread an entry. The threads of a warp have 32 columns m of one row k: a load of features[p, m] is one line, that
// of features[p, k] one float for all. Bound by loads, two for each multiplication, and by idle multiprocessors: 64
// channels are 4096 threads, of which an H100 could run 270,000, and each goes through all pixels by itself.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

extern "C" __global__ void __launch_bounds__(256) gram_01_naive(const float* __restrict__ features,
                                                                float* __restrict__ out, int pixels, int channels) {
    const int entry = blockIdx.x * 256 + threadIdx.x, k = entry / channels, m = entry % channels;
    if (k >= channels) return;
    float sum = 0.0f;
    for (int p = 0; p < pixels; ++p) sum += features[p * channels + k] * features[p * channels + m];
    out[entry] = sum / pixels;
}
