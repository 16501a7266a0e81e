// Lanczos-3 resampling, separable: an image is resized down its columns and then across its rows. Not in the loop: a
// run resizes two or three images.
// A thread per number of the result; bound by loads of L1, two dozen for each. Launched by elementwise/launch.py;
// tests/kernels/cuda/elementwise/test_kernels.py runs both kernels against the reference.
#include "common/platform.cuh"

// L(t) = sinc(t) sinc(t / 3) for |t| < 3, else 0
__device__ __forceinline__ float lanczos(float t) {
    constexpr float three_over_pi_squared = 0.303963550927f;
    if (t == 0.0f) return 1.0f;
    return fabsf(t) < 3.0f ? three_over_pi_squared * sinpif(t) * sinpif(t / 3.0f) / (t * t) : 0.0f;
}

// sum_j w_j line[j * stride] / sum_j w_j over the j inside, for element i of size_out: w_j = L(t) with
// t = ((j + 1/2) - (i + 1/2) s) / max(s, 1) and s = size_in / size_out.
//
// Multiplied out, t is a ratio of two integers, both exact in float32 wherever |t| < 3, so no digits are lost however
// large the image. The range of j is only guessed, a little too wide: outside of it L is zero.
__device__ __forceinline__ float resampled(const float* __restrict__ line, int64_t stride, int i, int size_in,
                                           int size_out) {
    const float ratio = static_cast<float>(size_in) / static_cast<float>(size_out);
    const float centre = (i + 0.5f) * ratio, reach = 3.0f * fmaxf(ratio, 1.0f);
    const int begin = max(0, static_cast<int>(centre - reach) - 2);
    const int end = min(size_in, static_cast<int>(centre + reach) + 2);
    const float unit = 1.0f / (2.0f * max(size_in, size_out));
    float sum = 0.0f, weights = 0.0f;
    for (int j = begin; j < end; ++j) {
        const int64_t numerator = (2 * j + 1) * int64_t{size_out} - (2 * i + 1) * int64_t{size_in};
        const float weight = lanczos(static_cast<float>(numerator) * unit);
        sum += weight * line[j * stride];
        weights += weight;
    }
    return sum / weights;
}

// (height_in, row_values) -> (height_out, row_values)
extern "C" __global__ void __launch_bounds__(256) resize_down(const float* __restrict__ image, float* __restrict__ out,
                                                              int height_in, int height_out, int row_values) {
    const int element = blockIdx.x * 256 + threadIdx.x, row = blockIdx.y;
    if (element >= row_values) return;
    out[int64_t{row} * row_values + element] = resampled(image + element, row_values, row, height_in, height_out);
}

// (rows, width_in, 3) -> (rows, width_out, 3)
extern "C" __global__ void __launch_bounds__(256) resize_across(const float* __restrict__ image,
                                                                float* __restrict__ out, int width_in, int width_out) {
    const int element = blockIdx.x * 256 + threadIdx.x, row = blockIdx.y;
    if (element >= 3 * width_out) return;
    const float* const line = image + int64_t{row} * width_in * 3 + element % 3;
    out[int64_t{row} * width_out * 3 + element] = resampled(line, 3, element / 3, width_in, width_out);
}
