// The second oracle: convolution, its gradient and the Gram matrix as their formulas read. Rung 1 of README.md's
// ladder.
//
// One thread per output, nothing shared, nothing packed: the filters stay (3, 3, C_in, C_out). Bound by the loads of
// L1: two for each multiplication. Too slow to be used; it is here so that a fast kernel that disagrees with the
// reference can be told from a compiler or a GPU that does. tests/kernels/cuda/conv3x3/test_simt.py and
// gram/test_simt.py launch these alone.
#include "common/platform.cuh"

// out[i, j, k] = max(0, bias[k] + sum_{r,s,c} x[i+r-1, j+s-1, c] kernel[r, s, c, k])
extern "C" __global__ void conv3x3_relu_naive(const float* x, const float* kernel, const float* bias, float* out,
                                              int height, int width, int channels_in, int channels_out) {
    const int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, pixel = index / channels_out;
    const int k = index % channels_out, i = pixel / width, j = pixel % width;
    if (i >= height) return;
    float sum = bias[k];
    for (int r = 0; r < 3; ++r) {
        for (int s = 0; s < 3; ++s) {
            const int y = i + r - 1, from = j + s - 1;
            if (y < 0 || y >= height || from < 0 || from >= width) continue;
            for (int c = 0; c < channels_in; ++c)
                sum += x[(int64_t{y} * width + from) * channels_in + c] *
                       kernel[((r * 3 + s) * channels_in + c) * channels_out + k];
        }
    }
    out[index] = sum < 0.0f ? 0.0f : sum;
}

// out[i, j, c] = sum_{r,s,k} gradient[i-r+1, j-s+1, k] kernel[r, s, c, k]
extern "C" __global__ void conv3x3_input_gradient_naive(const float* gradient, const float* kernel, float* out,
                                                        int height, int width, int channels_in, int channels_out) {
    const int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, pixel = index / channels_in;
    const int c = index % channels_in, i = pixel / width, j = pixel % width;
    if (i >= height) return;
    float sum = 0.0f;
    for (int r = 0; r < 3; ++r) {
        for (int s = 0; s < 3; ++s) {
            const int y = i - r + 1, from = j - s + 1;
            if (y < 0 || y >= height || from < 0 || from >= width) continue;
            for (int k = 0; k < channels_out; ++k)
                sum += gradient[(int64_t{y} * width + from) * channels_out + k] *
                       kernel[((r * 3 + s) * channels_in + c) * channels_out + k];
        }
    }
    out[index] = sum;
}

// out[k, m] = 1/pixels sum_p features[p, k] features[p, m]
extern "C" __global__ void gram_naive(const float* features, float* out, int pixels, int channels) {
    const int m = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y;
    if (m >= channels) return;
    float sum = 0.0f;
    for (int64_t p = 0; p < pixels; ++p) sum += features[p * channels + k] * features[p * channels + m];
    out[k * channels + m] = sum / pixels;
}
