// Adam's step on an image, and the iteration that a CUDA graph repeats: costs recorded, the step, the average of the
// iterates. Images are (H, W, 3) float32, RGB in [0, 1]; here they are n = 3 H W numbers.
//
// A thread takes four neighbouring numbers of a grid-stride loop. Each is bound by device memory, or by the launch: 3
// us each on an H100 at 512 px (benchmarks/results/h100_2026-11-26.md). Launched by optimizer_steps/launch.py;
// tests/kernels/cuda/elementwise/test_kernels.py runs every kernel against float64.
#include "common/indexing.cuh"
#include "optimizer_steps/clamped.cuh"

// step := step + 1. A launch of its own, before adam_step: every block of that one reads the count, so none of them
// could change it; and since it lives on the device, one CUDA graph serves all iterations.
extern "C" __global__ void __launch_bounds__(1) advance_step(int* step) { *step += 1; }

struct AdamRates {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, rate, spread, epsilon;
};

// Of step t. 1 - b^t is taken as -expm1(t log b), with log b from the host in double: 1 - powf(b, t) would lose four of
// its seven digits at b = 0.999 and t = 1.
__device__ __forceinline__ AdamRates adam_rates(float t, float learning_rate, float beta1, float one_minus_beta1,
                                                float log_beta1, float beta2, float one_minus_beta2, float log_beta2,
                                                float epsilon) {
    const float rate = learning_rate / -expm1f(t * log_beta1), spread = 1.0f / -expm1f(t * log_beta2);
    return {beta1, one_minus_beta1, beta2, one_minus_beta2, rate, spread, epsilon};
}

__device__ __forceinline__ void adam(float& x, float g, float& m, float& v, const AdamRates& by) {
    m = by.beta1 * m + by.one_minus_beta1 * g;
    v = by.beta2 * v + by.one_minus_beta2 * (g * g);
    x = clamped(x - by.rate * m / (sqrtf(v * by.spread) + by.epsilon));
}

// m := b1 m + (1 - b1) g;  v := b2 v + (1 - b2) g^2;
// x := clamp(x - learning_rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon)),  t = *step
extern "C" __global__ void __launch_bounds__(256) adam_step(
    float* __restrict__ image, const float* __restrict__ gradient, float* __restrict__ first,
    float* __restrict__ second, const int* __restrict__ step, int64_t n, float learning_rate, float beta1,
    float one_minus_beta1, float log_beta1, float beta2, float one_minus_beta2, float log_beta2, float epsilon) {
    const Grid<> grid;
    const float t = static_cast<float>(*step);
    const AdamRates by =
        adam_rates(t, learning_rate, beta1, one_minus_beta1, log_beta1, beta2, one_minus_beta2, log_beta2, epsilon);
    for (const int64_t i : grid.stride(n / 4)) {
        float4 x = reinterpret_cast<float4*>(image)[i], m = reinterpret_cast<float4*>(first)[i],
               v = reinterpret_cast<float4*>(second)[i];
        const float4 g = reinterpret_cast<const float4*>(gradient)[i];
        adam(x.x, g.x, m.x, v.x, by);
        adam(x.y, g.y, m.y, v.y, by);
        adam(x.z, g.z, m.z, v.z, by);
        adam(x.w, g.w, m.w, v.w, by);
        reinterpret_cast<float4*>(image)[i] = x;
        reinterpret_cast<float4*>(first)[i] = m;
        reinterpret_cast<float4*>(second)[i] = v;
    }
    const int64_t last = n / 4 * 4 + grid.thread;
    if (last < n) adam(image[last], gradient[last], first[last], second[last], by);
}

// What an iteration measured goes to its slot in the ring, which the host reads. If all of it is finite the iteration
// counts: progress[0] and *step go up by one. If not, progress[1] becomes 0, and until the host has set it again
// neither this kernel nor the next does anything. One warp.
extern "C" __global__ void __launch_bounds__(32) record_costs(const float* __restrict__ costs, int count,
                                                              float* __restrict__ ring, int slots,
                                                              int* __restrict__ progress, int* __restrict__ step) {
    if (progress[1] == 0) return;
    float* const slot = ring + progress[0] % slots * count;
    bool finite = true;
    for (int i = threadIdx.x; i < count; i += 32) {
        const float cost = costs[i];
        slot[i] = cost;
        finite = finite && fabsf(cost) <= 3.402823466e38f;
    }
    finite = __all_sync(~0u, finite);
    __syncwarp();  // everybody has read progress
    if (threadIdx.x == 0) {
        progress[1] = finite;
        progress[0] += finite;
        *step += finite;
    }
}

// good := x;  adam_step;  average := average + weights[progress[0] - 1] (x - average): what is left of an iteration
// once `record_costs` has run, and nothing at all once it has found a cost that is not finite: the host learns of that
// a few launches later, and finds everything as it was.
extern "C" __global__ void __launch_bounds__(256) adam_iteration(
    float* __restrict__ image, const float* __restrict__ gradient, float* __restrict__ first,
    float* __restrict__ second, float* __restrict__ average, float* __restrict__ good, const int* __restrict__ progress,
    const float* __restrict__ weights, const int* __restrict__ step, int64_t n, float learning_rate, float beta1,
    float one_minus_beta1, float log_beta1, float beta2, float one_minus_beta2, float log_beta2, float epsilon) {
    if (progress[1] == 0) return;
    const Grid<> grid;
    const float t = static_cast<float>(*step), weight = weights[progress[0] - 1];
    const AdamRates by =
        adam_rates(t, learning_rate, beta1, one_minus_beta1, log_beta1, beta2, one_minus_beta2, log_beta2, epsilon);
    for (const int64_t i : grid.stride(n / 4)) {
        float4 x = reinterpret_cast<float4*>(image)[i], m = reinterpret_cast<float4*>(first)[i],
               v = reinterpret_cast<float4*>(second)[i], a = reinterpret_cast<float4*>(average)[i];
        const float4 g = reinterpret_cast<const float4*>(gradient)[i];
        reinterpret_cast<float4*>(good)[i] = x;
        adam(x.x, g.x, m.x, v.x, by);
        adam(x.y, g.y, m.y, v.y, by);
        adam(x.z, g.z, m.z, v.z, by);
        adam(x.w, g.w, m.w, v.w, by);
        a.x += weight * (x.x - a.x);
        a.y += weight * (x.y - a.y);
        a.z += weight * (x.z - a.z);
        a.w += weight * (x.w - a.w);
        reinterpret_cast<float4*>(image)[i] = x;
        reinterpret_cast<float4*>(first)[i] = m;
        reinterpret_cast<float4*>(second)[i] = v;
        reinterpret_cast<float4*>(average)[i] = a;
    }
    const int64_t last = n / 4 * 4 + grid.thread;
    if (last < n) {
        good[last] = image[last];
        adam(image[last], gradient[last], first[last], second[last], by);
        average[last] += weight * (image[last] - average[last]);
    }
}
