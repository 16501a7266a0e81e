// The way back through a 2x2 pool and through a bare ReLU: both unpack the bits that the forward convolution left.
//
//     relu_mask   (H, W, ceil(C / 8)) bytes, bit c % 8 of byte c / 8: the ReLU let channel c through
//     pool_argmax  (H / 2, W / 2, ceil(C / 4)) bytes, two bits a channel: which pixel of the square was the maximum,
//             2 r + s for row r and column s
//
// All of it is bound by device memory. A thread of the pool takes one 2x2 square and four channels (one, where C is
// no multiple of four), so every pooled gradient and pool_argmax is read once and every store is a float4.
//
// An H100 reaches 86 to 112% of what its copies do (benchmarks/results/h100_2026-11-26.md: what fits L2 is faster).
// Launched by elementwise/launch.py; tests/kernels/cuda/elementwise/test_elementwise.py runs every kernel against the
// reference.
#include "common/indexing.cuh"

template <int width>
struct alignas(width * sizeof(float)) Channels {  // neighbours in one pixel, loaded and stored at once
    float at[width];
};

template <int width>
__device__ __forceinline__ Channels<width> load(const float* address) {
    return *reinterpret_cast<const Channels<width>*>(address);
}

template <int width>
__device__ __forceinline__ void store(float* address, const Channels<width>& values) {
    *reinterpret_cast<Channels<width>*>(address) = values;
}

// out := (pool^T(gradient) [+ out]) * relu_mask. Squares cover the whole of `out`: those that hang over an odd last row
// or column were never pooled and get no gradient, but are masked like the others.
template <bool maximum, int width>
__device__ __forceinline__ void pool_input_gradient(const float* __restrict__ gradient,
                                                    const uint8_t* __restrict__ pool_argmax, float* __restrict__ out,
                                                    const uint8_t* __restrict__ relu_mask, int height, int columns,
                                                    int channels, int accumulate) {
    const int groups = channels / width;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y, column = thread / groups, channel = thread % groups * width;
    if (2 * column >= columns) return;

    Channels<width> pooled = {};
    unsigned chosen = 0;
    if (row < height / 2 && column < columns / 2) {
        const int64_t square = int64_t{row} * (columns / 2) + column;
        pooled = load<width>(gradient + square * channels + channel);
        if (maximum) chosen = pool_argmax[square * ceil_div(channels, 4) + channel / 4] >> (channel % 4 * 2);
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
        const int y = 2 * row + corner / 2, x = 2 * column + corner % 2;
        if (y >= height || x >= columns) continue;
        const int64_t pixel = int64_t{y} * columns + x;
        const unsigned passed = relu_mask[pixel * ceil_div(channels, 8) + channel / 8] >> (channel % 8);
        float* const address = out + pixel * channels + channel;
        Channels<width> values = {};
        if (accumulate) values = load<width>(address);
#pragma unroll
        for (int k = 0; k < width; ++k) {
            const bool takes = !maximum || (chosen >> (2 * k) & 3) == corner;
            const float share = maximum ? pooled.at[k] : 0.25f * pooled.at[k];
            values.at[k] = passed >> k & 1 ? values.at[k] + (takes ? share : 0.0f) : 0.0f;
        }
        store(address, values);
    }
}

#define POOL_INPUT_GRADIENT(name, maximum, width)                                                             \
    extern "C" __global__ void __launch_bounds__(256) name(                                                   \
        const float* __restrict__ gradient, const uint8_t* __restrict__ pool_argmax, float* __restrict__ out, \
        const uint8_t* __restrict__ relu_mask, int height, int columns, int channels, int accumulate) {       \
        pool_input_gradient<maximum, width>(gradient, pool_argmax, out, relu_mask, height, columns, channels, \
                                            accumulate);                                                      \
    }
POOL_INPUT_GRADIENT(max_pool_input_gradient_fp32, true, 4)
POOL_INPUT_GRADIENT(max_pool_input_gradient_fp32_any, true, 1)
POOL_INPUT_GRADIENT(average_pool_input_gradient_fp32, false, 4)
POOL_INPUT_GRADIENT(average_pool_input_gradient_fp32_any, false, 1)

// gradient := gradient * relu_mask, for C a multiple of eight: no mask byte is shared by two pixels or padded, so the
// whole array is one run of float4s, two to a byte.
extern "C" __global__ void __launch_bounds__(256) relu_gradient_fp32(float* __restrict__ gradient,
                                                                     const uint8_t* __restrict__ relu_mask,
                                                                     int64_t bytes) {
    for (const int64_t i : grid_stride(2 * bytes)) {
        const unsigned passed = relu_mask[i / 2] >> (i % 2 * 4);
        Channels<4> values = load<4>(gradient + 4 * i);
#pragma unroll
        for (int k = 0; k < 4; ++k) values.at[k] = passed >> k & 1 ? values.at[k] : 0.0f;
        store(gradient + 4 * i, values);
    }
}

// The same for any C.
extern "C" __global__ void __launch_bounds__(256) relu_gradient_fp32_any(float* __restrict__ gradient,
                                                                         const uint8_t* __restrict__ relu_mask,
                                                                         int64_t pixels, int channels) {
    for (const int64_t i : grid_stride(pixels * channels)) {
        const int64_t pixel = i / channels;
        const int channel = static_cast<int>(i % channels);
        const unsigned passed = relu_mask[pixel * ceil_div(channels, 8) + channel / 8] >> (channel % 8);
        if (!(passed & 1)) gradient[i] = 0.0f;
    }
}
