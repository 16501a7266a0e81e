// The costs and what they send back: style on Gram matrices and moments, content on activations, total variation on
// pixels. The Wasserstein cost of style is in wasserstein/newton_schulz.cu.
//
// A cost is one launch: every block leaves its partial sum, and the last to arrive adds them up (common/reduce.cuh).
// Which thread takes what depends on the shape alone and every sum is a tree or a short run, so two runs give the same
// bytes, on any GPU, and the error grows with log n.
//
//     blocks       0   1   2  ...  n-1        each:  its elements -> a sum; a ticket
//     partials    [ ] [ ] [ ]      [ ]        the last of them:  factor * the sum of all partials -> cost
//
// Each reads its arrays once and is bound by device memory where they are large, and by the launch where they are
// Grams: an H100 takes 3 us for the cost of any Gram, 5.7 us for a content cost of 64x64x512, 97% of memory's roofline
// (benchmarks/results/h100_2026-11-26.md). Launched by elementwise/launch.py;
// tests/kernels/cuda/elementwise/test_kernels.py runs every kernel against float64.
#include "common/indexing.cuh"
#include "common/reduce.cuh"
#include "common/tile_constants.cuh"

__device__ __forceinline__ float4 difference_of(const float* a, const float* b, int64_t quad) {
    const float4 x = reinterpret_cast<const float4*>(a)[quad], y = reinterpret_cast<const float4*>(b)[quad];
    return make_float4(x.x - y.x, x.y - y.y, x.z - y.z, x.w - y.w);
}

__device__ __forceinline__ void add_squares(float4& accum, float4 d) {
    accum.x += d.x * d.x;
    accum.y += d.y * d.y;
    accum.z += d.z * d.z;
    accum.w += d.w * d.w;
}

__device__ __forceinline__ float4 scaled(float scale, float4 d) {
    return make_float4(scale * d.x, scale * d.y, scale * d.z, scale * d.w);
}

__device__ __forceinline__ float4 added(const float4* before, float4 d) {
    const float4 b = *before;
    return make_float4(b.x + d.x, b.y + d.y, b.z + d.z, b.w + d.w);
}

// cost := factor * sum (gram - target)^2; gram_error := scale * (gram - target) [+ gram_error]. n = C^2. By `blocks`
// blocks, of which this is `block`. Products and sums are fused by name: left to the compiler, one kernel did so and the
// other did not, and the same costs together had other last bits than one by one (seen on an H100).
__device__ __forceinline__ void style_cost_by_blocks(const float* gram, const float* target, int64_t n, float scale,
                                                     float* gram_error, float* partials, float factor, float* cost,
                                                     unsigned* ticket, int accumulate, unsigned block,
                                                     unsigned blocks) {
    const int64_t thread = int64_t{block} * THREADS + threadIdx.x, threads = int64_t{blocks} * THREADS;
    float4 accum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (const int64_t i : GridStride<int64_t>{thread, threads, n / 4}) {
        const float4 d = difference_of(gram, target, i);
        add_squares(accum, d);
        float4* const to = reinterpret_cast<float4*>(gram_error) + i;
        const float4 before = accumulate ? *to : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        *to = make_float4(fmaf(scale, d.x, before.x), fmaf(scale, d.y, before.y), fmaf(scale, d.z, before.z),
                          fmaf(scale, d.w, before.w));
    }
    const int64_t last = n / 4 * 4 + thread;
    if (last < n) {
        const float d = gram[last] - target[last];
        accum.x += d * d;
        gram_error[last] = fmaf(scale, d, accumulate ? gram_error[last] : 0.0f);
    }
    const float total = block_sum((accum.x + accum.y) + (accum.z + accum.w));
    sum_over_blocks(total, block, blocks, partials, factor, cost, ticket);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) style_cost(const float* __restrict__ gram,
                                                                    const float* __restrict__ target, int64_t n,
                                                                    float scale, float* __restrict__ gram_error,
                                                                    void* __restrict__ partials, float factor,
                                                                    float* __restrict__ cost,
                                                                    unsigned* __restrict__ ticket, int accumulate) {
    style_cost_by_blocks(gram, target, n, scale, gram_error, static_cast<float*>(partials), factor, cost, ticket,
                         accumulate, blockIdx.x, gridDim.x);
}

// The same of several Grams at once, whose blocks are neighbors: those of all layers are done in the time of one.
struct StyleCosts {
    const float* gram[most_style_costs];
    const float* target[most_style_costs];
    float* gram_error[most_style_costs];
    float* cost[most_style_costs];
    int64_t n[most_style_costs];
    float scale[most_style_costs], factor[most_style_costs];
    int accumulate[most_style_costs], first_block[most_style_costs + 1];
};

extern "C" __global__ void __launch_bounds__(THREADS) style_costs(const __grid_constant__ StyleCosts of, int count,
                                                                  void* __restrict__ partials,
                                                                  unsigned* __restrict__ tickets) {
    int i = 0;
    while (i + 1 < count && int(blockIdx.x) >= of.first_block[i + 1]) ++i;
    const int first = of.first_block[i];
    style_cost_by_blocks(of.gram[i], of.target[i], of.n[i], of.scale[i], of.gram_error[i],
                         static_cast<float*>(partials) + first, of.factor[i], of.cost[i], tickets + i, of.accumulate[i],
                         blockIdx.x - first, of.first_block[i + 1] - first);
}

// The cost of covariances S = gram - M and of M = mean mean^T, dS and dM their differences from the target's:
//
//     cost := factor * sum dS^2 + sum dM^2
//     gram_error := scale * dS [+ gram_error];  mean_error := scale * (dM - dS) mean [+ mean_error]
//
// A warp takes a row, so that the row's part of the mean_error needs no barrier.
extern "C" __global__ void __launch_bounds__(THREADS) moments_cost(
    const float* __restrict__ gram, const float* __restrict__ mean, const float* __restrict__ target_gram,
    const float* __restrict__ target_mean, int channels, float scale, float* __restrict__ gram_error,
    float* __restrict__ mean_error, void* __restrict__ partials, float factor, float* __restrict__ cost,
    unsigned* __restrict__ ticket, int accumulate) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    float squares = 0.0f;
    if (row < channels) {
        const float mean_here = mean[row], target_here = target_mean[row];
        float product = 0.0f;
        for (int column = lane; column < channels; column += 32) {
            const size_t at = size_t(row) * channels + column;
            const float outer = mean_here * mean[column] - target_here * target_mean[column];
            const float covariance = gram[at] - target_gram[at] - outer;
            squares += covariance * covariance + outer * outer;
            product += (outer - covariance) * mean[column];
            gram_error[at] = scale * covariance + (accumulate ? gram_error[at] : 0.0f);
        }
        product = warp_sum(product);
        if (lane == 0) mean_error[row] = scale * product + (accumulate ? mean_error[row] : 0.0f);
    }
    const float total = block_sum(squares);
    sum_over_blocks(total, partials, factor, cost, ticket);
}

// cost := factor * sum (features - target)^2
extern "C" __global__ void __launch_bounds__(THREADS) content_cost_fp32(const float* __restrict__ features,
                                                                        const float* __restrict__ target, int64_t n,
                                                                        void* __restrict__ partials, float factor,
                                                                        float* __restrict__ cost,
                                                                        unsigned* __restrict__ ticket) {
    const Grid<THREADS> grid;
    float4 accum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (const int64_t i : grid.stride(n / 4)) add_squares(accum, difference_of(features, target, i));
    const int64_t last = n / 4 * 4 + grid.thread;
    if (last < n) {
        const float d = features[last] - target[last];
        accum.x += d * d;
    }
    const float total = block_sum((accum.x + accum.y) + (accum.z + accum.w));
    sum_over_blocks(total, partials, factor, cost, ticket);
}

// A pixel's channels all have its weight: of `per_pixel` quads, or of as many single channels where they are no
// multiple of four.
template <bool vector>
__device__ __forceinline__ void content_cost_by_weight(const float* features, const float* target, const float* weights,
                                                       int64_t count, int per_pixel, float* partials, float factor,
                                                       float* cost, unsigned* ticket) {
    float sum = 0.0f;
    for (const int64_t i : grid_stride<THREADS>(count)) {
        const float weight = weights[i / per_pixel];
        float4 squares = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (vector) {
            add_squares(squares, difference_of(features, target, i));
        } else {
            squares.x = (features[i] - target[i]) * (features[i] - target[i]);
        }
        sum += weight * ((squares.x + squares.y) + (squares.z + squares.w));
    }
    const float total = block_sum(sum);
    sum_over_blocks(total, partials, factor, cost, ticket);
}

template <bool vector>
__device__ __forceinline__ void content_gradient_by_weight(const float* features, const float* target,
                                                           const float* weights, int64_t count, int per_pixel,
                                                           float scale, float* out, int accumulate) {
    for (const int64_t i : grid_stride<THREADS>(count)) {
        const float by = scale * weights[i / per_pixel];
        if (vector) {
            const float4 values = scaled(by, difference_of(features, target, i));
            float4* const to = reinterpret_cast<float4*>(out) + i;
            *to = accumulate ? added(to, values) : values;
        } else {
            out[i] = by * (features[i] - target[i]) + (accumulate ? out[i] : 0.0f);
        }
    }
}

// The same with weights: cost := factor * sum_p weights[p] |features[p] - target[p]|^2, and
// out[p] := scale * weights[p] (features[p] - target[p]) [+ out[p]].
#define CONTENT_COST_WEIGHTED(name, vector)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                                    \
        const float* __restrict__ features, const float* __restrict__ target, const float* __restrict__ weights,   \
        int64_t count, int per_pixel, void* __restrict__ partials, float factor, float* __restrict__ cost,         \
        unsigned* __restrict__ ticket) {                                                                           \
        content_cost_by_weight<vector>(features, target, weights, count, per_pixel, static_cast<float*>(partials), \
                                       factor, cost, ticket);                                                      \
    }

#define CONTENT_GRADIENT_WEIGHTED(name, vector)                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                                  \
        const float* __restrict__ features, const float* __restrict__ target, const float* __restrict__ weights, \
        int64_t count, int per_pixel, float scale, float* __restrict__ out, int accumulate) {                    \
        content_gradient_by_weight<vector>(features, target, weights, count, per_pixel, scale, out, accumulate); \
    }

CONTENT_COST_WEIGHTED(content_cost_weighted_fp32, true)
CONTENT_COST_WEIGHTED(content_cost_weighted_fp32_any, false)
CONTENT_GRADIENT_WEIGHTED(content_gradient_weighted_fp32, true)
CONTENT_GRADIENT_WEIGHTED(content_gradient_weighted_fp32_any, false)

// out := scale * (features - target) [+ out]
extern "C" __global__ void __launch_bounds__(THREADS) content_gradient_fp32(const float* __restrict__ features,
                                                                            const float* __restrict__ target, int64_t n,
                                                                            float scale, float* __restrict__ out,
                                                                            int accumulate) {
    const Grid<THREADS> grid;
    for (const int64_t i : grid.stride(n / 4)) {
        const float4 values = scaled(scale, difference_of(features, target, i));
        float4* const to = reinterpret_cast<float4*>(out) + i;
        *to = accumulate ? added(to, values) : values;
    }
    const int64_t last = n / 4 * 4 + grid.thread;
    if (last < n) out[last] = scale * (features[last] - target[last]) + (accumulate ? out[last] : 0.0f);
}

// Total variation of an image (height, 3 * columns), row_values = 3 * columns, a row to a block and a turn:
//
//     cost := factor * (across * sum (x[i, j+1] - x[i, j])^2 + down * sum (x[i+1, j] - x[i, j])^2)
//     gradient += scale * the derivative of that sum
//
// `across` and `down` are one over the number of such pairs, 0 where there is none. Each pixel gathers from its four
// neighbours, so nobody writes where another does; a pair is counted by its left or upper end.
extern "C" __global__ void __launch_bounds__(THREADS) tv_cost(const float* __restrict__ image, int height,
                                                              int row_values, float across, float down, float scale,
                                                              float* __restrict__ gradient, void* __restrict__ partials,
                                                              float factor, float* __restrict__ cost,
                                                              unsigned* __restrict__ ticket) {
    float sum = 0.0f;
    for (int row = blockIdx.x; row < height; row += gridDim.x) {
        for (int element = threadIdx.x; element < row_values; element += THREADS) {
            const int64_t at = int64_t{row} * row_values + element;
            const float x = image[at];
            const float left = element >= 3 ? x - image[at - 3] : 0.0f;
            const float right = element < row_values - 3 ? image[at + 3] - x : 0.0f;
            const float above = row > 0 ? x - image[at - row_values] : 0.0f;
            const float below = row < height - 1 ? image[at + row_values] - x : 0.0f;
            sum += across * (right * right) + down * (below * below);
            gradient[at] += 2.0f * scale * (across * (left - right) + down * (above - below));
        }
    }
    const float total = block_sum(sum);
    sum_over_blocks(total, partials, factor, cost, ticket);
}

// The end of an iteration without masks and borders: the network's gradient into RGB, tv_cost and the square
// of what comes of both, in one pass. Of RGB number c of a pixel the network's gradient has `from_c` and its scale.
extern "C" __global__ void __launch_bounds__(THREADS) image_gradient(
    const float* __restrict__ network_gradient, int from_0, int from_1, int from_2, float scale_0, float scale_1,
    float scale_2, const float* __restrict__ image, int height, int row_values, float across, float down, float scale,
    float* __restrict__ gradient, void* __restrict__ partials, float* __restrict__ cost, float* __restrict__ square,
    unsigned* __restrict__ tickets) {
    float sum = 0.0f, squares = 0.0f;
    for (int row = blockIdx.x; row < height; row += gridDim.x) {
        for (int element = threadIdx.x; element < row_values; element += THREADS) {
            const int64_t at = int64_t{row} * row_values + element;
            const int channel = element % 3;
            const int from = channel == 0 ? from_0 : channel == 1 ? from_1 : from_2;
            const float by = channel == 0 ? scale_0 : channel == 1 ? scale_1 : scale_2;
            const float x = image[at];
            const float left = element >= 3 ? x - image[at - 3] : 0.0f;
            const float right = element < row_values - 3 ? image[at + 3] - x : 0.0f;
            const float above = row > 0 ? x - image[at - row_values] : 0.0f;
            const float below = row < height - 1 ? image[at + row_values] - x : 0.0f;
            sum += across * (right * right) + down * (below * below);
            const float before = __fmul_rn(network_gradient[at - channel + from], by);  // rounded, as in two launches
            const float g = before + 2.0f * scale * (across * (left - right) + down * (above - below));
            gradient[at] = g;
            squares += g * g;
        }
    }
    float* const runs = static_cast<float*>(partials);
    sum_over_blocks(block_sum(sum), runs, 1.0f, cost, tickets);
    __syncthreads();
    sum_over_blocks(block_sum(squares), runs + most_partials, 1.0f, square, tickets + 1);
}
