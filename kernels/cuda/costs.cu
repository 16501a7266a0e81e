// The costs and what they send back: style on Gram matrices, content on activations, total variation on pixels.
//
// A cost is summed in two launches. The first leaves one partial sum a block, the second adds those up; which thread
// takes what depends on the shape alone and every sum is a tree or a short run, so two runs give the same bytes, on
// any GPU, and the error grows with log n. No atomics.
#include "platform.cuh"

constexpr int THREADS = 256;  // kernels/pointwise.py launches as many

// The sum over the block, the same in every thread. To be called once in a kernel.
__device__ __forceinline__ float block_sum(float value) {
    SHARED(float, warp_sums, [THREADS / 32]);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; ++warp) total += warp_sums[warp];
    return total;
}

__device__ __forceinline__ float4 difference_of(const float* a, const float* b, int64_t quad) {
    const float4 x = reinterpret_cast<const float4*>(a)[quad], y = reinterpret_cast<const float4*>(b)[quad];
    return make_float4(x.x - y.x, x.y - y.y, x.z - y.z, x.w - y.w);
}

__device__ __forceinline__ void add_squares(float4& sums, float4 d) {
    sums.x += d.x * d.x;
    sums.y += d.y * d.y;
    sums.z += d.z * d.z;
    sums.w += d.w * d.w;
}

__device__ __forceinline__ float4 scaled(float scale, float4 d) {
    return make_float4(scale * d.x, scale * d.y, scale * d.z, scale * d.w);
}

// partials[block] := its share of sum (gram - target)^2; difference := scale * (gram - target). n = C^2.
extern "C" __global__ void __launch_bounds__(THREADS)
style_cost(const float* __restrict__ gram, const float* __restrict__ target, int64_t n, float scale,
           float* __restrict__ difference, void* __restrict__ partials) {
    const int64_t thread = int64_t{blockIdx.x} * THREADS + threadIdx.x, threads = int64_t{gridDim.x} * THREADS;
    float4 sums = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int64_t i = thread; i < n / 4; i += threads) {
        const float4 d = difference_of(gram, target, i);
        add_squares(sums, d);
        reinterpret_cast<float4*>(difference)[i] = scaled(scale, d);
    }
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) {
        const float d = gram[last] - target[last];
        sums.x += d * d;
        difference[last] = scale * d;
    }
    const float total = block_sum((sums.x + sums.y) + (sums.z + sums.w));
    if (threadIdx.x == 0) static_cast<float*>(partials)[blockIdx.x] = total;
}

// partials[block] := its share of sum (features - target)^2
extern "C" __global__ void __launch_bounds__(THREADS)
content_cost(const float* __restrict__ features, const float* __restrict__ target, int64_t n,
             void* __restrict__ partials) {
    const int64_t thread = int64_t{blockIdx.x} * THREADS + threadIdx.x, threads = int64_t{gridDim.x} * THREADS;
    float4 sums = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int64_t i = thread; i < n / 4; i += threads) add_squares(sums, difference_of(features, target, i));
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) {
        const float d = features[last] - target[last];
        sums.x += d * d;
    }
    const float total = block_sum((sums.x + sums.y) + (sums.z + sums.w));
    if (threadIdx.x == 0) static_cast<float*>(partials)[blockIdx.x] = total;
}

// out := scale * (features - target) [+ out]
extern "C" __global__ void __launch_bounds__(THREADS)
content_gradient(const float* __restrict__ features, const float* __restrict__ target, int64_t n, float scale,
                 float* __restrict__ out, int accumulate) {
    const int64_t thread = int64_t{blockIdx.x} * THREADS + threadIdx.x, threads = int64_t{gridDim.x} * THREADS;
    for (int64_t i = thread; i < n / 4; i += threads) {
        float4 values = scaled(scale, difference_of(features, target, i));
        float4* const address = reinterpret_cast<float4*>(out) + i;
        if (accumulate) {
            const float4 before = *address;
            values = make_float4(before.x + values.x, before.y + values.y, before.z + values.z, before.w + values.w);
        }
        *address = values;
    }
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) out[last] = scale * (features[last] - target[last]) + (accumulate ? out[last] : 0.0f);
}

// Total variation of an image (height, 3 * columns), row_elements = 3 * columns, a row to a block and a turn:
//
//     partials[block] := its share of  across * sum (x[i, j+1] - x[i, j])^2 + down * sum (x[i+1, j] - x[i, j])^2
//     gradient += scale * the derivative of that sum
//
// `across` and `down` are one over the number of such pairs, 0 where there is none. Each pixel gathers from its four
// neighbours, so nobody writes where another does; a pair is counted by its left or upper end.
extern "C" __global__ void __launch_bounds__(THREADS)
tv_cost(const float* __restrict__ image, int height, int row_elements, float across, float down, float scale,
        float* __restrict__ gradient, void* __restrict__ partials) {
    float sum = 0.0f;
    for (int row = blockIdx.x; row < height; row += gridDim.x) {
        for (int element = threadIdx.x; element < row_elements; element += THREADS) {
            const int64_t at = int64_t{row} * row_elements + element;
            const float x = image[at];
            const float left = element >= 3 ? x - image[at - 3] : 0.0f;
            const float right = element < row_elements - 3 ? image[at + 3] - x : 0.0f;
            const float above = row > 0 ? x - image[at - row_elements] : 0.0f;
            const float below = row < height - 1 ? image[at + row_elements] - x : 0.0f;
            sum += across * (right * right) + down * (below * below);
            gradient[at] += 2.0f * scale * (across * (left - right) + down * (above - below));
        }
    }
    const float total = block_sum(sum);
    if (threadIdx.x == 0) static_cast<float*>(partials)[blockIdx.x] = total;
}

// cost := factor * sum of the partials, by a single block.
extern "C" __global__ void __launch_bounds__(THREADS)
finish_cost(const void* __restrict__ partials, int count, float factor, float* __restrict__ cost) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += static_cast<const float*>(partials)[i];
    const float total = block_sum(sum);
    if (threadIdx.x == 0) *cost = factor * total;
}
