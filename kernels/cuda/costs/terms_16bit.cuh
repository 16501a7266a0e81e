// Means of activations of 16-bit numbers, the content cost and what it sends back; gram/simt.cu and costs/terms.cu have
// the same for float32. Sums are float32 and are added up as there, in an order that depends on the shape alone. Bound by memory: a thread takes eight channels, 16 bytes, of a pixel.
// Launched by kernels/cuda/gram/launch_simt.py and kernels/cuda/elementwise/launch.py.
// tests/kernels/cuda/test_device_16bit.py runs every kernel against float64.
#pragma once

#include "common/indexing.cuh"
#include "common/reduce.cuh"
#include "conv3x3/mma_sm80.cuh"

namespace mma_sm80 {

// partials[split][channel] := the split's share of sum_p weights[p] features[p, channel]; null weights are ones. A
// block takes 64 channels and every so many pixels of its split.
template <class T>
__device__ __forceinline__ void mean_split(const T* features, const float* weights, float* partials, int pixels,
                                           int channels) {
    constexpr int across = 8, down = THREADS / across;
    SHARED(float, accum, [down][64]);
    const int column = threadIdx.x % across * 8, row = threadIdx.x / across, channel = blockIdx.x * 64 + column;
    const int first = int64_t{pixels} * blockIdx.y / gridDim.y, end = int64_t{pixels} * (blockIdx.y + 1) / gridDim.y;
    float sum[8] = {};
    if (channel < channels) {
#pragma unroll 4
        for (int pixel = first + row; pixel < end; pixel += down) {
            const float weight = weights ? weights[pixel] : 1.0f;
            float values[8] = {};
            add8(features + size_t(pixel) * channels + channel, values);
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += weight * values[k];
        }
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) accum[row][column + k] = sum[k];
    store_split_of_64(accum, partials, channels);
}

template <class T>
__device__ __forceinline__ void difference_of_eight(const T* features, const T* target, int64_t eight, float (&d)[8]) {
    float other[8] = {};
#pragma unroll
    for (int k = 0; k < 8; ++k) d[k] = 0.0f;
    add8(features + 8 * eight, d);
    add8(target + 8 * eight, other);
#pragma unroll
    for (int k = 0; k < 8; ++k) d[k] -= other[k];
}

__device__ __forceinline__ float sum_of_squares(const float (&d)[8]) {
    const float halves[2] = {(d[0] * d[0] + d[1] * d[1]) + (d[2] * d[2] + d[3] * d[3]),
                             (d[4] * d[4] + d[5] * d[5]) + (d[6] * d[6] + d[7] * d[7])};
    return halves[0] + halves[1];
}

// cost := factor * sum_p weights[p] |features[p] - target[p]|^2, of `eights` groups of channels, a pixel
// having `per_pixel` of them; null weights are ones.
template <class T>
__device__ __forceinline__ void content_cost(const T* features, const T* target, const float* weights, int64_t eights,
                                             int per_pixel, float* partials, float factor, float* cost,
                                             unsigned* ticket) {
    float sum = 0.0f;
    for (const int64_t i : grid_stride<THREADS>(eights)) {
        float d[8];
        difference_of_eight(features, target, i, d);
        sum += (weights ? weights[i / per_pixel] : 1.0f) * sum_of_squares(d);
    }
    const float total = block_sum(sum);
    sum_over_blocks(total, partials, factor, cost, ticket);
}

// out[p] := scale * weights[p] (features[p] - target[p]) [+ out[p]], likewise.
template <class T>
__device__ __forceinline__ void content_gradient(const T* features, const T* target, const float* weights,
                                                 int64_t eights, int per_pixel, float scale, T* out, int accumulate) {
    for (const int64_t i : grid_stride<THREADS>(eights)) {
        const float by = weights ? scale * weights[i / per_pixel] : scale;
        float d[8];
        difference_of_eight(features, target, i, d);
#pragma unroll
        for (int k = 0; k < 8; ++k) d[k] *= by;
        if (accumulate) add8(out + 8 * i, d);
        store8(out + 8 * i, d);
    }
}

// Both at once: features and target are read once.
template <class T>
__device__ __forceinline__ void content_cost_and_gradient(const T* features, const T* target, const float* weights,
                                                          int64_t eights, int per_pixel, float scale, T* out,
                                                          int accumulate, float* partials, float factor, float* cost,
                                                          unsigned* ticket) {
    float sum = 0.0f;
    for (const int64_t i : grid_stride<THREADS>(eights)) {
        const float weight = weights ? weights[i / per_pixel] : 1.0f, by = scale * weight;
        float d[8];
        difference_of_eight(features, target, i, d);
        sum += weight * sum_of_squares(d);
#pragma unroll
        for (int k = 0; k < 8; ++k) d[k] *= by;
        if (accumulate) add8(out + 8 * i, d);
        store8(out + 8 * i, d);
    }
    sum_over_blocks(block_sum(sum), partials, factor, cost, ticket);
}

}  // namespace mma_sm80

// Kernels by their full names.
#define MEAN_16BIT(name, T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                                     \
        const T* __restrict__ features, const float* __restrict__ weights, void* __restrict__ partials, int pixels, \
        int channels) {                                                                                             \
        mma_sm80::mean_split(features, weights, static_cast<float*>(partials), pixels, channels);                   \
    }

#define CONTENT_COST_16BIT(name, T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                                     \
        const T* __restrict__ features, const T* __restrict__ target, const float* __restrict__ weights,            \
        int64_t eights, int per_pixel, void* __restrict__ partials, float factor, float* __restrict__ cost,         \
        unsigned* __restrict__ ticket) {                                                                            \
        mma_sm80::content_cost(features, target, weights, eights, per_pixel, static_cast<float*>(partials), factor, \
                               cost, ticket);                                                                       \
    }

#define CONTENT_COST_AND_GRADIENT_16BIT(name, T)                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                                       \
        const T* __restrict__ features, const T* __restrict__ target, const float* __restrict__ weights,              \
        int64_t eights, int per_pixel, float scale, T* __restrict__ out, int accumulate, void* __restrict__ partials, \
        float factor, float* __restrict__ cost, unsigned* __restrict__ ticket) {                                      \
        mma_sm80::content_cost_and_gradient(features, target, weights, eights, per_pixel, scale, out, accumulate,     \
                                            static_cast<float*>(partials), factor, cost, ticket);                     \
    }

#define CONTENT_GRADIENT_16BIT(name, T)                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                           \
        const T* __restrict__ features, const T* __restrict__ target, const float* __restrict__ weights,  \
        int64_t eights, int per_pixel, float scale, T* __restrict__ out, int accumulate) {                \
        mma_sm80::content_gradient(features, target, weights, eights, per_pixel, scale, out, accumulate); \
    }
