// A 2x2 pool by itself, and the way back through one and through a bare ReLU, in 16-bit numbers; elementwise/pooling.cu has
// the formats of masks and argmaxes and the same for float32. Bound by memory: a thread takes eight channels, 16 bytes,
// of a square or of a pixel. Launched by kernels/cuda/conv3x3/launch_mma_sm80.py. An H100 reaches 58 to 109% of what
// its copies do (benchmarks/results/h100_2026-11-26.md). tests/kernels/cuda/conv3x3/test_mma_sm80.py runs every kernel
// against the reference.
#pragma once

#include "common/indexing.cuh"
#include "conv3x3/mma_sm80.cuh"

namespace mma_sm80 {

template <class T>
__device__ __forceinline__ void mask_and_store(T* to, const uint8_t* relu_mask, float (&v)[8]) {
    const unsigned passed = *relu_mask;
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = passed >> k & 1 ? v[k] : 0.0f;
    store8(to, v);
}

// out := the maximum, or the mean, of each 2x2 square of x; a null pool_argmax is not wanted.
template <bool maximum, class T>
__device__ __forceinline__ void pool(const T* x, T* out, uint8_t* pool_argmax, int columns, int channels) {
    const int eights = channels / 8, thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int column = thread / eights, channel = thread % eights * 8;
    if (column >= columns / 2) return;

    float pixels[4][8] = {}, pooled[8];
#pragma unroll
    for (int pixel = 0; pixel < 4; ++pixel) {
        const size_t at = size_t(2 * blockIdx.y + pixel / 2) * columns + 2 * column + pixel % 2;
        add8(x + at * channels + channel, pixels[pixel]);
    }
    unsigned chosen = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        if (maximum) {
            unsigned first = 0;
            pooled[k] = pixels[0][k];
#pragma unroll
            for (unsigned pixel = 1; pixel < 4; ++pixel) {
                if (pixels[pixel][k] > pooled[k]) {
                    pooled[k] = pixels[pixel][k];
                    first = pixel;
                }
            }
            chosen |= first << 2 * k;
        } else {
            pooled[k] = 0.25f * ((pixels[0][k] + pixels[1][k]) + (pixels[2][k] + pixels[3][k]));
        }
    }
    const size_t square = size_t(blockIdx.y) * (columns / 2) + column;
    store8(out + square * channels + channel, pooled);
    if (pool_argmax) *reinterpret_cast<uint16_t*>(pool_argmax + square * (channels / 4) + channel / 4) = chosen;
}

// out := (pool^T(gradient) [+ out]) * relu_mask; squares that hang over an odd last row or column get no gradient.
template <bool maximum, class T>
__device__ __forceinline__ void pool_input_gradient(const T* gradient, const uint8_t* pool_argmax, T* out,
                                                    const uint8_t* relu_mask, const ActivationShape& map,
                                                    int accumulate) {
    const int eights = map.channels / 8, thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = 2 * blockIdx.y, x = thread / eights * 2, channel = thread % eights * 8;
    if (x >= map.width) return;

    float pooled[8] = {};
    unsigned chosen = 0;
    if (y + 1 < map.height && x + 1 < map.width) {
        const size_t square = size_t(y / 2) * (map.width / 2) + x / 2;
        add8(gradient + square * map.channels + channel, pooled);
        if (maximum)
            chosen = *reinterpret_cast<const uint16_t*>(pool_argmax + square * (map.channels / 4) + channel / 4);
    }
#pragma unroll
    for (int pixel = 0; pixel < 4; ++pixel) {
        if (y + pixel / 2 >= map.height || x + pixel % 2 >= map.width) continue;
        const size_t at = map.pixel(y + pixel / 2, x + pixel % 2);
        T* const to = out + at * map.channels + channel;
        float v[8] = {};
        if (accumulate) add8(to, v);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const float share = maximum ? pooled[k] : 0.25f * pooled[k];
            v[k] += !maximum || (chosen >> 2 * k & 3) == pixel ? share : 0.0f;
        }
        mask_and_store(to, relu_mask + at * eights + channel / 8, v);
    }
}

}  // namespace mma_sm80

// Kernels by their full names.
#define POOL_16BIT(name, T, maximum)                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) name(                                                           \
        const T* __restrict__ x, T* __restrict__ out, uint8_t* __restrict__ pool_argmax, int columns, int channels) { \
        mma_sm80::pool<maximum>(x, out, pool_argmax, columns, channels);                                              \
    }

#define POOL_INPUT_GRADIENT_16BIT(name, T, maximum)                                                              \
    extern "C" __global__ void __launch_bounds__(256) name(                                                      \
        const T* __restrict__ gradient, const uint8_t* __restrict__ pool_argmax, T* __restrict__ out,            \
        const uint8_t* __restrict__ relu_mask, int height, int width, int channels, int accumulate) {            \
        mma_sm80::pool_input_gradient<maximum>(gradient, pool_argmax, out, relu_mask, {height, width, channels}, \
                                               accumulate);                                                      \
    }

#define RELU_GRADIENT_16BIT(name, T)                                                                               \
    extern "C" __global__ void __launch_bounds__(256) name(T* __restrict__ gradient,                               \
                                                           const uint8_t* __restrict__ relu_mask, int64_t bytes) { \
        for (const int64_t i : grid_stride(bytes)) {                                                               \
            float v[8] = {};                                                                                       \
            mma_sm80::add8(gradient + 8 * i, v);                                                                   \
            mma_sm80::mask_and_store(gradient + 8 * i, relu_mask + i, v);                                          \
        }                                                                                                          \
    }
