// Steps along a direction that keep pixels in [0, 1], and the gradient projected to where such a step can go: gradient
// descent, the line search of L-BFGS. Images are (H, W, 3) float32; here they are n = 3 H W numbers.
//
// A thread takes four neighbouring numbers of a grid-stride loop. Each is bound by device memory, or by the launch: 3
// us each on an H100 at 512 px (benchmarks/results/h100_2026-11-26.md). Launched by optimizer_steps/launch.py;
// tests/kernels/cuda/elementwise/test_kernels.py runs every kernel against float64.
#include "common/indexing.cuh"
#include "optimizer_steps/clamped.cuh"

// image := clamp(image - learning_rate * gradient)
extern "C" __global__ void __launch_bounds__(256) descent_step(float* __restrict__ image,
                                                               const float* __restrict__ gradient, int64_t n,
                                                               float learning_rate) {
    const Grid<> grid;
    for (const int64_t i : grid.stride(n / 4)) {
        const float4 x = reinterpret_cast<float4*>(image)[i], g = reinterpret_cast<const float4*>(gradient)[i];
        reinterpret_cast<float4*>(image)[i] =
            make_float4(clamped(x.x - learning_rate * g.x), clamped(x.y - learning_rate * g.y),
                        clamped(x.z - learning_rate * g.z), clamped(x.w - learning_rate * g.w));
    }
    const int64_t last = n / 4 * 4 + grid.thread;
    if (last < n) image[last] = clamped(image[last] - learning_rate * gradient[last]);
}

// image := min(max(image, 0), 1)
extern "C" __global__ void __launch_bounds__(256) clamp_pixels(float* __restrict__ image, int64_t n) {
    const Grid<> grid;
    for (const int64_t i : grid.stride(n / 4)) {
        const float4 x = reinterpret_cast<float4*>(image)[i];
        reinterpret_cast<float4*>(image)[i] = make_float4(clamped(x.x), clamped(x.y), clamped(x.z), clamped(x.w));
    }
    const int64_t last = n / 4 * 4 + grid.thread;
    if (last < n) image[last] = clamped(image[last]);
}

// out := clamp(image + step * direction); `out` may be one of the two. Here and below n is a multiple of four or the
// arrays may start anywhere: rows of a matrix do.
extern "C" __global__ void __launch_bounds__(256) clamped_step(const float* image, const float* direction, int64_t n,
                                                               float step, float* out) {
    const Grid<> grid;
    const int64_t quads = n % 4 ? 0 : n / 4;
    for (const int64_t i : grid.stride(quads)) {
        const float4 x = reinterpret_cast<const float4*>(image)[i], d = reinterpret_cast<const float4*>(direction)[i];
        reinterpret_cast<float4*>(out)[i] = make_float4(clamped(x.x + step * d.x), clamped(x.y + step * d.y),
                                                        clamped(x.z + step * d.z), clamped(x.w + step * d.w));
    }
    for (const int64_t i : grid.stride(4 * quads, n)) out[i] = clamped(image[i] + step * direction[i]);
}

__device__ __forceinline__ float freed(float x, float g) {
    return (x <= 0.0f && g > 0.0f) || (x >= 1.0f && g < 0.0f) ? 0.0f : g;
}

// out := gradient, 0 where a step against it would leave [0, 1]; `out` may be `gradient`.
extern "C" __global__ void __launch_bounds__(256) project_gradient(const float* __restrict__ image,
                                                                   const float* gradient, int64_t n, float* out) {
    const Grid<> grid;
    const int64_t quads = n % 4 ? 0 : n / 4;
    for (const int64_t i : grid.stride(quads)) {
        const float4 x = reinterpret_cast<const float4*>(image)[i], g = reinterpret_cast<const float4*>(gradient)[i];
        reinterpret_cast<float4*>(out)[i] =
            make_float4(freed(x.x, g.x), freed(x.y, g.y), freed(x.z, g.z), freed(x.w, g.w));
    }
    for (const int64_t i : grid.stride(4 * quads, n)) out[i] = freed(image[i], gradient[i]);
}
