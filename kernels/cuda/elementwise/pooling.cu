// A 2x2 pool by itself, and the way back through one and through a bare ReLU. In a network the forward convolution pools
// and leaves the bits that the way back unpacks:
//
//     relu_mask   (H, W, ceil(C / 8)) bytes, bit c % 8 of byte c / 8: the ReLU let channel c through
//     pool_argmax  (H / 2, W / 2, ceil(C / 4)) bytes, two bits a channel: which pixel of the square was the maximum,
//             2 r + s for row r and column s
//
// All of it is bound by device memory. A thread of the pool takes one 2x2 square and four channels (one, where C is
// no multiple of four), so every pooled gradient and pool_argmax is read once and every store is a float4.
//
// An H100 reaches 86 to 112% of what its copies do (benchmarks/results/h100_2026-11-26.md: what fits L2 is faster).
// Launched by elementwise/launch.py; tests/kernels/cuda/elementwise/test_kernels.py runs every kernel against the
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

// out := the maximum, or the mean, of each 2x2 square of x, of which an odd last row or column is no part; a null
// pool_argmax is not wanted. A block's row of squares is blockIdx.y; a thread takes four channels of a square, of which
// without `vector` some may be beyond the last.
template <bool maximum, bool vector>
__device__ __forceinline__ void pool(const float* __restrict__ x, float* __restrict__ out,
                                     uint8_t* __restrict__ pool_argmax, int columns, int channels) {
    const int groups = ceil_div(channels, 4), thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int column = thread / groups, channel = thread % groups * 4;
    if (column >= columns / 2) return;

    Channels<4> pixels[4];
#pragma unroll
    for (int pixel = 0; pixel < 4; ++pixel) {
        const int64_t at = (int64_t{2 * blockIdx.y + pixel / 2}) * columns + 2 * column + pixel % 2;
        const float* const from = x + at * channels + channel;
        if (vector) {
            pixels[pixel] = load<4>(from);
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k) pixels[pixel].at[k] = channel + k < channels ? from[k] : 0.0f;
        }
    }
    Channels<4> pooled;
    unsigned chosen = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        if (maximum) {
            unsigned first = 0;
            pooled.at[k] = pixels[0].at[k];
#pragma unroll
            for (unsigned pixel = 1; pixel < 4; ++pixel) {
                if (pixels[pixel].at[k] > pooled.at[k]) {
                    pooled.at[k] = pixels[pixel].at[k];
                    first = pixel;
                }
            }
            chosen |= first << 2 * k;
        } else {
            pooled.at[k] = 0.25f * ((pixels[0].at[k] + pixels[1].at[k]) + (pixels[2].at[k] + pixels[3].at[k]));
        }
    }
    const int64_t square = int64_t{blockIdx.y} * (columns / 2) + column;
    float* const to = out + square * channels + channel;
    if (vector) {
        store(to, pooled);
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (channel + k < channels) to[k] = pooled.at[k];
    }
    if (pool_argmax) pool_argmax[square * groups + channel / 4] = chosen;
}

#define POOL(name, maximum, vector)                                                                              \
    extern "C" __global__ void __launch_bounds__(256) name(const float* __restrict__ x, float* __restrict__ out, \
                                                           uint8_t* __restrict__ pool_argmax, int columns,       \
                                                           int channels) {                                       \
        pool<maximum, vector>(x, out, pool_argmax, columns, channels);                                           \
    }
POOL(max_pool_fp32, true, true)
POOL(max_pool_fp32_any, true, false)
POOL(average_pool_fp32, false, true)
POOL(average_pool_fp32_any, false, false)

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
