// The moments of features F (pixels x channels) whose pixels have weights w: the Gram matrix G = F^T diag(w) F / (H W)
// and the mean; and the gradient of a cost of both, w (F D + s). All on FFMA in float32, on the main loop of
// common/gemm_simt.cuh.
//
//        channels            G is symmetric: only tiles on and above the diagonal are computed, and mirrored. Its sum runs
//      +---+---+---+         over pixels and is long where the matrix is small, so splits of the pixels go to different
//      | 0 | 1 | 2 |         blocks (gridDim.y), and a second launch adds them in a fixed order; so with the mean.
//      +---+---+---+
//          | 3 | 4 |         128x128 a block of 256 threads, or 64x64 of 64 threads, 8x8 sums a thread, 8 pixels a step
//          +---+---+
//              | 5 |
//              +---+
//
// F D is a convolution with one tap (conv3x3/implicit_gemm_simt.cuh), splits included, and all that is done besides is
// done as it ends. Without weights G has kernels of its own, which load none.
//
// Bound by FFMA, and at 64 channels about as much by device memory. An H100 takes 48 to 59 us for a Gram of 1 GFLOP, 35
// to 43% of its fp32 rate, and 52 us for the style gradient of 64x64x512, 80% (benchmarks/results/h100_2026-11-26.md).
// launch_simt.py launches them; tests/kernels/cuda/gram/test_simt.py runs every kernel alone, in the emulator, against
// float64.
#include "common/indexing.cuh"
#include "common/reduce.cuh"
#include "conv3x3/implicit_gemm_simt.cuh"
#include "gram/upper_triangle.cuh"

namespace {

// MatrixRows of common/gemm_simt.cuh for features whose every row is multiplied by its weight, on the way into shared
// memory.
template <class Tile, int span, bool vector>
class WeightedRows {
    static constexpr int per_row = span / 4, stride = Tile::threads / per_row, loads = simt::block_k / stride;
    static_assert(Tile::threads % per_row == 0 && simt::block_k % stride == 0, "whole rows per pass");

    const float* next_;
    const float* weights_end_;
    int pitch_, rows_left_, left_in_row_;
    float4 fetched_[loads];
    float weight_[loads];

  public:
    __device__ __forceinline__ WeightedRows(const float* matrix, const float* weights, int pitch, int first_column,
                                            int first_row, int end) {
        const int row = first_row + threadIdx.x / per_row, column = first_column + threadIdx.x % per_row * 4;
        next_ = matrix + size_t(row) * pitch + column;
        weights_end_ = weights + end;
        pitch_ = pitch;
        rows_left_ = end - row;
        left_in_row_ = pitch - column;
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const bool inside = i * stride < rows_left_;
            fetched_[i] = simt::load4<vector>(next_ + i * stride * pitch_, inside ? left_in_row_ : 0);
            weight_[i] = inside ? weights_end_[i * stride - rows_left_] : 0.0f;
        }
    }
    __device__ __forceinline__ void advance() {
        rows_left_ -= simt::block_k;
        next_ += simt::block_k * pitch_;
    }
    template <int pitch>
    static __device__ __forceinline__ int offset() {
        return threadIdx.x / per_row * pitch + threadIdx.x % per_row * 4;
    }
    template <int pitch>
    __device__ __forceinline__ void put(float* to) const {
#pragma unroll
        for (int i = 0; i < loads; ++i)
            *reinterpret_cast<float4*>(to + i * stride * pitch) =
                make_float4(weight_[i] * fetched_[i].x, weight_[i] * fetched_[i].y, weight_[i] * fetched_[i].z,
                            weight_[i] * fetched_[i].w);
    }
};

// `partials` is [tile][split][row][column]; sums over pixels [first, end) of a split, splits being multiples of
// `block_k` long.
template <class Tile, bool vector, bool weighted>
__device__ __forceinline__ void gram_split(const float* features, const float* weights, float* partials, int pixels,
                                           int channels) {
    static_assert(Tile::rows == Tile::columns, "a tile below the diagonal is the transpose of one above");
    constexpr int side = Tile::rows;
    const TileAt at = upper_triangle_tile(blockIdx.x, ceil_div(channels, side));
    const int k_tiles = ceil_div(pixels, simt::block_k);
    const int first_k_tile = int64_t{k_tiles} * blockIdx.y / gridDim.y;
    const int end_k_tile = int64_t{k_tiles} * (blockIdx.y + 1) / gridDim.y;

    const int first = first_k_tile * simt::block_k;
    simt::MatrixRows<Tile, side, simt::fours_if(vector), false> loader_b(features, channels, at.column * side, first,
                                                                         pixels);
    SHARED(typename Tile::Stage, stages, [2]);
    simt::Accum accum;
    if constexpr (weighted) {
        WeightedRows<Tile, side, vector> loader_a(features, weights, channels, at.row * side, first, pixels);
        simt::multiply<Tile>(loader_a, loader_b, end_k_tile - first_k_tile, stages, accum);
    } else {
        simt::MatrixRows<Tile, side, simt::fours_if(vector), false> loader_a(features, channels, at.row * side, first,
                                                                             pixels);
        simt::multiply<Tile>(loader_a, loader_b, end_k_tile - first_k_tile, stages, accum);
    }

    const simt::Corner corner = simt::thread_corner<Tile>();
    float* to = partials + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * side * side;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        float* row = to + (corner.row + i / 4 * 32 + i % 4) * side + corner.column;
        *reinterpret_cast<float4*>(row) = make_float4(accum[i][0], accum[i][1], accum[i][2], accum[i][3]);
        *reinterpret_cast<float4*>(row + 16) = make_float4(accum[i][4], accum[i][5], accum[i][6], accum[i][7]);
    }
}

constexpr int sum_threads = 256, sum_groups = 16;  // splits are added up modulo 16, then these sixteen sums

// Adds up the splits and mirrors. A thread takes four neighbours of a row of the tile, and every `ranks`th of the sixteen
// groups of their splits: `ranks` is many where there are few elements to share, else few, so that each has several
// loads under way.
//
//     split    0 1 2 ... 15 16 17 ...       group 3: splits 3, 19, 35, ...
//     group    0 1 2 ... 15  0  1 ...       element: group 0 + group 1 + ... + group 15, whatever `ranks` is
template <int ranks>
__device__ __forceinline__ void gram_add_splits(const void* partials, float* out, int split_k, int side, int channels,
                                                float scale) {
    constexpr int quads = sum_threads / ranks, elements = 4 * quads, each = sum_groups / ranks;
    SHARED(float4, groups, [sum_groups][quads]);
    const int quad = threadIdx.x % quads, rank = threadIdx.x / quads;
    const int64_t stride = int64_t{side} * side / 4;
    const float4* const from =
        static_cast<const float4*>(partials) + blockIdx.x * split_k * stride + blockIdx.y * quads + quad;
    float4 sum[each];
#pragma unroll
    for (int i = 0; i < each; ++i) sum[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int first = rank; first < split_k; first += sum_groups) {
#pragma unroll
        for (int i = 0; i < each; ++i) {
            const int split = first + i * ranks;
            if (split >= split_k) continue;
            const float4 part = from[split * stride];
            sum[i].x += part.x;
            sum[i].y += part.y;
            sum[i].z += part.z;
            sum[i].w += part.w;
        }
    }
#pragma unroll
    for (int i = 0; i < each; ++i) groups[rank + i * ranks][quad] = sum[i];
    __syncthreads();
    if (threadIdx.x >= elements) return;

    float total = 0.0f;
#pragma unroll
    for (int group = 0; group < sum_groups; ++group) {
        const float part = reinterpret_cast<const float*>(groups[group])[threadIdx.x];
        total = group == 0 ? part : total + part;
    }
    const TileAt at = upper_triangle_tile(blockIdx.x, ceil_div(channels, side));
    const int element = blockIdx.y * elements + threadIdx.x;
    const int row = at.row * side + element / side, column = at.column * side + element % side;
    // Of a tile on the diagonal only the upper half is taken: with weights, the lower is rounded differently.
    if (row > column || column >= channels) return;
    out[size_t(row) * channels + column] = scale * total;
    if (row != column) out[size_t(column) * channels + row] = scale * total;
}

}  // namespace

#define GRAM_SIMT(name, Tile, vector)                                                                        \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                   \
        const float* __restrict__ features, void* __restrict__ partials, int pixels, int channels) {         \
        gram_split<Tile, vector, false>(features, nullptr, static_cast<float*>(partials), pixels, channels); \
    }

#define GRAM_WEIGHTED_SIMT(name, Tile, vector)                                                              \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                  \
        const float* __restrict__ features, const float* __restrict__ weights, void* __restrict__ partials, \
        int pixels, int channels) {                                                                         \
        gram_split<Tile, vector, true>(features, weights, static_cast<float*>(partials), pixels, channels); \
    }

GRAM_SIMT(gram_simt_128x128, simt::Tile128x128, true)
GRAM_SIMT(gram_simt_64x64, simt::Tile64x64, true)
GRAM_SIMT(gram_simt_64x64_any, simt::Tile64x64, false)
GRAM_WEIGHTED_SIMT(gram_weighted_simt_128x128, simt::Tile128x128, true)
GRAM_WEIGHTED_SIMT(gram_weighted_simt_64x64, simt::Tile64x64, true)
GRAM_WEIGHTED_SIMT(gram_weighted_simt_64x64_any, simt::Tile64x64, false)

#define GRAM_SPLIT_K_SUM(name, ranks)                                                                              \
    extern "C" __global__ void __launch_bounds__(sum_threads) name(const void* __restrict__ partials,              \
                                                                   float* __restrict__ out, int split_k, int side, \
                                                                   int channels, float scale) {                    \
        gram_add_splits<ranks>(partials, out, split_k, side, channels, scale);                                     \
    }

GRAM_SPLIT_K_SUM(gram_by_16_split_k_sum, 16)
GRAM_SPLIT_K_SUM(gram_by_4_split_k_sum, 4)

// partials[split][channel] := the split's share of sum_p weights[p] features[p, channel]; null weights are ones. A
// block takes 64 channels, four to a thread if rows are multiples of four long, and every so many pixels of its split.
template <bool vector>
__device__ __forceinline__ void mean_split(const float* features, const float* weights, float* partials, int pixels,
                                           int channels) {
    constexpr int each = vector ? 4 : 1, across = 64 / each, down = 256 / across;
    SHARED(float, accum, [down][64]);
    const int column = threadIdx.x % across * each, row = threadIdx.x / across, channel = blockIdx.x * 64 + column;
    const int first = int64_t{pixels} * blockIdx.y / gridDim.y, end = int64_t{pixels} * (blockIdx.y + 1) / gridDim.y;
    float sum[each] = {};
    if (channel < channels) {
#pragma unroll 4
        for (int pixel = first + row; pixel < end; pixel += down) {
            const float* from = features + size_t(pixel) * channels + channel;
            const float weight = weights ? weights[pixel] : 1.0f;
            if constexpr (vector) {
                const float4 values = *reinterpret_cast<const float4*>(from);
                sum[0] += weight * values.x;
                sum[1] += weight * values.y;
                sum[2] += weight * values.z;
                sum[3] += weight * values.w;
            } else {
                sum[0] += weight * *from;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < each; ++i) accum[row][column + i] = sum[i];
    store_split_of_64(accum, partials, channels);
}

#define MEAN(name, vector)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256) name(const float* __restrict__ features,                      \
                                                           const float* __restrict__ weights,                       \
                                                           void* __restrict__ partials, int pixels, int channels) { \
        mean_split<vector>(features, weights, static_cast<float*>(partials), pixels, channels);                     \
    }

MEAN(mean_fp32, true)
MEAN(mean_fp32_any, false)

// Adds up the splits of a mean: a warp to a channel.
extern "C" __global__ void __launch_bounds__(THREADS) mean_split_k_sum(const void* __restrict__ partials,
                                                                       float* __restrict__ out, int split_k,
                                                                       int channels, float scale) {
    const int channel = blockIdx.x * WARPS + threadIdx.x / 32;
    if (channel >= channels) return;
    float sum = 0.0f;
    for (int split = threadIdx.x % 32; split < split_k; split += 32)
        sum += static_cast<const float*>(partials)[size_t(split) * channels + channel];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) out[channel] = scale * sum;
}

// out := weights (accum + mean_error) [+ out]; a null mean_error is zero, null weights are ones.
struct StyleGradient {
    float* out;
    const float* mean_error;
    const float* weights;
    int accumulate;

    // The square at (2 square_y, 2 square_x), channels from `channel` on, as in conv3x3/implicit_gemm_simt.cuh.
    template <int partner>
    __device__ __forceinline__ void store(const simt::ActivationShape& map, int square_y, int square_x, int channel,
                                          simt::PoolWindow& v) const {
        const int left_in_row = map.channels - channel;
        const bool vector = map.channels % 4 == 0;
        if (left_in_row <= 0) return;
        const float4 moved = mean_error ? load(mean_error + channel, left_in_row, vector) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int pixel = 0; pixel < 4; ++pixel) {
            const int row = 2 * square_y + pixel / 2, column = 2 * square_x + pixel % 2;
            if (row >= map.height || column >= map.width) continue;
            const float weight = weights ? weights[size_t(row) * map.width + column] : 1.0f;
            float* to = out + map.offset(row, column) + channel;
            const float4 before = accumulate ? load(to, left_in_row, vector) : make_float4(0, 0, 0, 0);
            v[pixel][0] = before.x + weight * (v[pixel][0] + moved.x);
            v[pixel][1] = before.y + weight * (v[pixel][1] + moved.y);
            v[pixel][2] = before.z + weight * (v[pixel][2] + moved.z);
            v[pixel][3] = before.w + weight * (v[pixel][3] + moved.w);
            simt::store4(to, v[pixel], left_in_row, vector);
        }
    }

  private:
    static __device__ __forceinline__ float4 load(const float* from, int left_in_row, bool vector) {
        return vector ? simt::load4<true>(from, left_in_row) : simt::load4<false>(from, left_in_row);
    }
};

#define STYLE_GRADIENT_SIMT(name, Tile, vector)                                                           \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                \
        const float* __restrict__ features, const float* __restrict__ gram_error,                         \
        const float* __restrict__ mean_error, const float* __restrict__ weights, float* __restrict__ out, \
        void* __restrict__ partials, int height, int width, int channels, int accumulate) {               \
        const simt::ActivationShape map = {height, width, channels};                                      \
        simt::convolve<Tile, 1, vector>(features, map, {0, simt::block_k}, gram_error, channels, map,     \
                                        StyleGradient{out, mean_error, weights, accumulate},              \
                                        static_cast<float*>(partials));                                   \
    }

STYLE_GRADIENT_SIMT(style_gradient_simt_128x64, simt::Tile128x64, true)
STYLE_GRADIENT_SIMT(style_gradient_simt_128x32, simt::Tile128x32, true)
STYLE_GRADIENT_SIMT(style_gradient_simt_128x64_any, simt::Tile128x64, false)

extern "C" __global__ void __launch_bounds__(256) style_gradient_simt_split_k_sum(
    const void* __restrict__ partials, const float* __restrict__ mean_error, const float* __restrict__ weights,
    float* __restrict__ out, int split_k, int rows, int height, int width, int channels, int accumulate) {
    simt::add_partials(static_cast<const float*>(partials), split_k, rows, {height, width, channels},
                       StyleGradient{out, mean_error, weights, accumulate});
}
