// What happens to pixels outside the network: colours in and out of the weights' convention, and the optimisers'
// steps. Images are (H, W, 3) float32, RGB in [0, 1]; here they are H W pixels, or n = 3 H W numbers.
//
// A thread takes a pixel, or four neighbouring numbers of a grid-stride loop. Each is bound by device memory, or by the
// launch: 3 us each on an H100 at 512 px (benchmarks/results/h100_2026-11-26.md). Launched by elementwise/launch.py;
// tests/kernels/test_pointwise_kernels.py runs every kernel against float64.
#include "common/platform.cuh"

// Not by min and max, which would turn a NaN into a colour and hide that a run has diverged.
__device__ __forceinline__ float clamped(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }

// out[., k] := image[., channel_k] * scale_k + shift_k
extern "C" __global__ void __launch_bounds__(256) preprocess(const float* __restrict__ image, float* __restrict__ out,
                                                             int64_t pixels,  //
                                                             int channel_0, int channel_1, int channel_2, float scale_0,
                                                             float scale_1, float scale_2,  //
                                                             float shift_0, float shift_1, float shift_2) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = thread; i < pixels; i += threads) {
        const float* const pixel = image + 3 * i;
        out[3 * i] = pixel[channel_0] * scale_0 + shift_0;
        out[3 * i + 1] = pixel[channel_1] * scale_1 + shift_1;
        out[3 * i + 2] = pixel[channel_2] * scale_2 + shift_2;
    }
}

// out[., channel_k] := gradient[., k] * scale_k
extern "C" __global__ void __launch_bounds__(256) preprocess_gradient(const float* __restrict__ gradient,
                                                                      float* __restrict__ out, int64_t pixels,
                                                                      int channel_0, int channel_1, int channel_2,
                                                                      float scale_0, float scale_1, float scale_2) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = thread; i < pixels; i += threads) {
        float* const pixel = out + 3 * i;
        pixel[channel_0] = gradient[3 * i] * scale_0;
        pixel[channel_1] = gradient[3 * i + 1] * scale_1;
        pixel[channel_2] = gradient[3 * i + 2] * scale_2;
    }
}

// (H, W, 3) -> (H + 2 border, W + 2 border, 3): beyond the image its nearest pixel.
extern "C" __global__ void __launch_bounds__(256) pad_edge(const float* __restrict__ image, float* __restrict__ out,
                                                           int height, int width, int border) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    const int row_elements = 3 * (width + 2 * border);
    const int64_t elements = int64_t{height + 2 * border} * row_elements;
    for (int64_t i = thread; i < elements; i += threads) {
        const int row = static_cast<int>(i / row_elements), element = static_cast<int>(i % row_elements);
        const int y = min(max(row - border, 0), height - 1), x = min(max(element / 3 - border, 0), width - 1);
        out[i] = image[(int64_t{y} * width + x) * 3 + element % 3];
    }
}

// Its transpose: a pixel at the edge takes the gradients of its copies, row by row.
extern "C" __global__ void __launch_bounds__(256) pad_edge_gradient(const float* __restrict__ gradient,
                                                                    float* __restrict__ out, int height, int width,
                                                                    int border) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    const int64_t elements = int64_t{height} * width * 3, row_elements = 3 * (int64_t{width} + 2 * border);
    for (int64_t i = thread; i < elements; i += threads) {
        const int64_t pixel = i / 3;
        const int y = static_cast<int>(pixel / width), x = static_cast<int>(pixel % width), channel = i % 3;
        const int top = y == 0 ? 0 : y + border, bottom = y + border + (y == height - 1 ? border : 0);
        const int left = x == 0 ? 0 : x + border, right = x + border + (x == width - 1 ? border : 0);
        float sum = 0.0f;
        for (int row = top; row <= bottom; ++row)
            for (int column = left; column <= right; ++column)
                sum += gradient[row * row_elements + 3 * column + channel];
        out[i] = sum;
    }
}

// step := step + 1. A launch of its own, before adam_step: every block of that one reads the count, so none of them
// could change it; and since it lives on the device, one CUDA graph serves all iterations.
extern "C" __global__ void __launch_bounds__(1) advance_step(int* step) { *step += 1; }

struct AdamRates {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, rate, spread, epsilon;
};

__device__ __forceinline__ void adam(float& x, float g, float& m, float& v, const AdamRates& by) {
    m = by.beta1 * m + by.one_minus_beta1 * g;
    v = by.beta2 * v + by.one_minus_beta2 * (g * g);
    x = clamped(x - by.rate * m / (sqrtf(v * by.spread) + by.epsilon));
}

// m := b1 m + (1 - b1) g;  v := b2 v + (1 - b2) g^2;
// x := clamp(x - learning_rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon)),  t = *step
//
// 1 - b^t is taken as -expm1(t log b), with log b from the host in double: 1 - powf(b, t) would lose four of its seven
// digits at b = 0.999 and t = 1.
extern "C" __global__ void __launch_bounds__(256) adam_step(
    float* __restrict__ image, const float* __restrict__ gradient, float* __restrict__ first,
    float* __restrict__ second, const int* __restrict__ step, int64_t n, float learning_rate, float beta1,
    float one_minus_beta1, float log_beta1, float beta2, float one_minus_beta2, float log_beta2, float epsilon) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    const float t = static_cast<float>(*step);
    const AdamRates by = {beta1,
                          one_minus_beta1,
                          beta2,
                          one_minus_beta2,
                          learning_rate / -expm1f(t * log_beta1),
                          1.0f / -expm1f(t * log_beta2),
                          epsilon};
    for (int64_t i = thread; i < n / 4; i += threads) {
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
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) adam(image[last], gradient[last], first[last], second[last], by);
}

// What an iteration measured goes to its place in the ring, which the host reads. If all of it is finite the iteration
// counts: progress[0] and *step go up by one. If not, progress[1] becomes 0, and until the host has set it again
// neither this kernel nor the next does anything. One warp.
extern "C" __global__ void __launch_bounds__(32) record_costs(const float* __restrict__ costs, int count,
                                                              float* __restrict__ ring, int places,
                                                              int* __restrict__ progress, int* __restrict__ step) {
    if (progress[1] == 0) return;
    float* const place = ring + progress[0] % places * count;
    bool finite = true;
    for (int i = threadIdx.x; i < count; i += 32) {
        const float cost = costs[i];
        place[i] = cost;
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
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    const float t = static_cast<float>(*step), weight = weights[progress[0] - 1];
    const AdamRates by = {beta1,
                          one_minus_beta1,
                          beta2,
                          one_minus_beta2,
                          learning_rate / -expm1f(t * log_beta1),
                          1.0f / -expm1f(t * log_beta2),
                          epsilon};
    for (int64_t i = thread; i < n / 4; i += threads) {
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
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) {
        good[last] = image[last];
        adam(image[last], gradient[last], first[last], second[last], by);
        average[last] += weight * (image[last] - average[last]);
    }
}

// image := clamp(image - learning_rate * gradient)
extern "C" __global__ void __launch_bounds__(256) descent_step(float* __restrict__ image,
                                                               const float* __restrict__ gradient, int64_t n,
                                                               float learning_rate) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = thread; i < n / 4; i += threads) {
        const float4 x = reinterpret_cast<float4*>(image)[i], g = reinterpret_cast<const float4*>(gradient)[i];
        reinterpret_cast<float4*>(image)[i] =
            make_float4(clamped(x.x - learning_rate * g.x), clamped(x.y - learning_rate * g.y),
                        clamped(x.z - learning_rate * g.z), clamped(x.w - learning_rate * g.w));
    }
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) image[last] = clamped(image[last] - learning_rate * gradient[last]);
}

// image := min(max(image, 0), 1)
extern "C" __global__ void __launch_bounds__(256) clamp_pixels(float* __restrict__ image, int64_t n) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = thread; i < n / 4; i += threads) {
        const float4 x = reinterpret_cast<float4*>(image)[i];
        reinterpret_cast<float4*>(image)[i] = make_float4(clamped(x.x), clamped(x.y), clamped(x.z), clamped(x.w));
    }
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) image[last] = clamped(image[last]);
}

// out := clamp(image + step * direction); `out` may be one of the two. Here and below n is a multiple of four or the
// arrays may start anywhere: rows of a matrix do.
extern "C" __global__ void __launch_bounds__(256) clamped_step(const float* image, const float* direction, int64_t n,
                                                               float step, float* out) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    const int64_t quads = n % 4 ? 0 : n / 4;
    for (int64_t i = thread; i < quads; i += threads) {
        const float4 x = reinterpret_cast<const float4*>(image)[i], d = reinterpret_cast<const float4*>(direction)[i];
        reinterpret_cast<float4*>(out)[i] = make_float4(clamped(x.x + step * d.x), clamped(x.y + step * d.y),
                                                        clamped(x.z + step * d.z), clamped(x.w + step * d.w));
    }
    for (int64_t i = 4 * quads + thread; i < n; i += threads) out[i] = clamped(image[i] + step * direction[i]);
}

__device__ __forceinline__ float freed(float x, float g) {
    return (x <= 0.0f && g > 0.0f) || (x >= 1.0f && g < 0.0f) ? 0.0f : g;
}

// out := gradient, 0 where a step against it would leave [0, 1]; `out` may be `gradient`.
extern "C" __global__ void __launch_bounds__(256) project_gradient(const float* __restrict__ image,
                                                                   const float* gradient, int64_t n, float* out) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    const int64_t quads = n % 4 ? 0 : n / 4;
    for (int64_t i = thread; i < quads; i += threads) {
        const float4 x = reinterpret_cast<const float4*>(image)[i], g = reinterpret_cast<const float4*>(gradient)[i];
        reinterpret_cast<float4*>(out)[i] =
            make_float4(freed(x.x, g.x), freed(x.y, g.y), freed(x.z, g.z), freed(x.w, g.w));
    }
    for (int64_t i = 4 * quads + thread; i < n; i += threads) out[i] = freed(image[i], gradient[i]);
}

// image[p, k] := image[p, k] * weights[p]. n = H W channels.
extern "C" __global__ void __launch_bounds__(256) weigh_pixels(float* __restrict__ image,
                                                               const float* __restrict__ weights, int64_t n,
                                                               int channels) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = thread; i < n; i += threads) image[i] *= weights[i / channels];
}
