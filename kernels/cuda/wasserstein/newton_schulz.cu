// The Wasserstein distance of two normal distributions and its gradient: products of square matrices, and the little
// that is done before, between and after them. Which products in which order is kernels/cuda/wasserstein/launch.py's
// business, and why; tests/kernels/cuda/wasserstein/test_newton_schulz.py runs every kernel in the emulator against
// float64.
//
// The matrices are small, 64 to 512 rows, and each product waits for the one before: what counts is how soon one is
// done. So a tile of 64x32 is all that a block has, and its four warps each add up a quarter of the terms in the main
// loop of common/gemm_simt.cuh. At 512 rows that is 128 blocks to a product, one for every multiprocessor of a large
// GPU, and two products that do not depend on each other go into one launch.
//
// Bound by how soon one product after another is done, not by any rate: an iteration with w2 at 512 px and `mini` takes
// an H100 1.5 ms, with gram 0.58 (benchmarks/results/h100_2026-11-26.md).
#include "common/gemm_simt.cuh"
#include "common/indexing.cuh"
#include "common/reduce.cuh"
#include "common/transposed_rows.cuh"

namespace {

using Tile = simt::Tile64x32;
constexpr int split_k = square_product_warps;  // of the terms: warps of a block, blockDim.y
static_assert(Tile::threads == 32);

template <bool vector>
__device__ __forceinline__ void multiply(const float* a, const float* b, const float* base, float* out, int channels,
                                         float factor, float share, float diagonal) {
    const int first_row = blockIdx.x * Tile::rows, first_column = blockIdx.y * Tile::columns;
    const int k_tiles = ceil_div(channels, split_k * simt::block_k);  // of every warp alike
    const int first_term = threadIdx.y * k_tiles * simt::block_k;

    SHARED(typename Tile::Stage, stages, [split_k][2]);
    constexpr simt::Fours fours = simt::fours_if(vector);
    simt::TransposedRows<Tile, Tile::rows, float, fours> rows(a, channels, channels, first_row, first_term);
    simt::MatrixRows<Tile, Tile::columns, fours, false> columns(b, channels, first_column, first_term, channels);
    simt::Accum accum;
    simt::multiply<Tile>(rows, columns, k_tiles, stages[threadIdx.y], accum);

    // (0 + 2) + (1 + 3), by way of the memory of the stages; a lane finds its own sums in each warp's.
    constexpr int tile_fours = Tile::rows * Tile::columns / 4;
    static_assert(sizeof stages >= 2 * tile_fours * sizeof(float4));
    float4* const passed = reinterpret_cast<float4*>(stages);
#pragma unroll
    for (int half = split_k / 2; half > 0; half /= 2) {
        if (threadIdx.y >= half && threadIdx.y < 2 * half) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const float* from = &accum[i / 2][i % 2 * 4];
                passed[(threadIdx.y - half) * tile_fours + i * 32 + threadIdx.x] =
                    make_float4(from[0], from[1], from[2], from[3]);
            }
        }
        __syncthreads();
        if (threadIdx.y < half) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const float4 other = passed[threadIdx.y * tile_fours + i * 32 + threadIdx.x];
                float* to = &accum[i / 2][i % 2 * 4];
                to[0] += other.x;
                to[1] += other.y;
                to[2] += other.z;
                to[3] += other.w;
            }
        }
        __syncthreads();
    }
    if (threadIdx.y > 0) return;

    const simt::Corner corner = simt::thread_corner<Tile>();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int row = first_row + corner.row + i / 4 * 32 + i % 4;
        if (row >= channels) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int column = first_column + corner.column + 16 * half;
            const size_t at = size_t(row) * channels + column;
            const int left_in_row = channels - column;
            if (left_in_row <= 0) continue;
            const float4 before = base ? simt::load4<vector>(base + at, left_in_row) : make_float4(0, 0, 0, 0);
            const float sum[4] = {
                share * before.x + factor * accum[i][4 * half + 0], share * before.y + factor * accum[i][4 * half + 1],
                share * before.z + factor * accum[i][4 * half + 2], share * before.w + factor * accum[i][4 * half + 3]};
            float values[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) values[j] = row == column + j ? sum[j] + diagonal : sum[j];
            if (vector) {
                *reinterpret_cast<float4*>(out + at) = make_float4(values[0], values[1], values[2], values[3]);
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    if (j < left_in_row) out[at + j] = values[j];
            }
        }
    }
}

}  // namespace

// out := factor * a b + share * base + diagonal * I, a null base being zero; with gridDim.z = 2 also out_1 :=
// the same of a_1, b_1 and base_1.
#define SQUARE_PRODUCT(name, vector)                                                                          \
    extern "C" __global__ void __launch_bounds__(Tile::threads* split_k) name(                                \
        const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ base,             \
        float* __restrict__ out, const float* __restrict__ a_1, const float* __restrict__ b_1,                \
        const float* __restrict__ base_1, float* __restrict__ out_1, int channels, float factor, float share, \
        float diagonal) {                                                                                     \
        if (blockIdx.z == 0)                                                                                  \
            multiply<vector>(a, b, base, out, channels, factor, share, diagonal);                             \
        else                                                                                                  \
            multiply<vector>(a_1, b_1, base_1, out_1, channels, factor, share, diagonal);                     \
    }

SQUARE_PRODUCT(square_product, true)
SQUARE_PRODUCT(square_product_any, false)

// out := gram - mean mean^T + ridge I; partials[block] := its rows' share of the sum of out * other, elementwise, or,
// where `other` is null, of out's trace. A warp takes a row, here and below.
extern "C" __global__ void __launch_bounds__(THREADS) w2_covariance(const float* __restrict__ gram,
                                                                    const float* __restrict__ mean,
                                                                    const float* __restrict__ other, int channels,
                                                                    float ridge, float* __restrict__ out,
                                                                    void* __restrict__ partials) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32;
    float sum = 0.0f;
    if (row < channels) {
        for (int column = threadIdx.x % 32; column < channels; column += 32) {
            const size_t at = size_t(row) * channels + column;
            const float diagonal = row == column ? 1.0f : 0.0f;
            const float value = gram[at] - mean[row] * mean[column] + ridge * diagonal;
            sum += value * (other ? other[at] : diagonal);
            out[at] = value;
        }
    }
    const float total = block_sum(sum);
    if (threadIdx.x == 0) static_cast<float*>(partials)[blockIdx.x] = total;
}

// Both matrices divided by the root of the sum of `count` partials, which every block adds up for itself; `second` may
// be given as the identity, and then holds what that becomes.
extern "C" __global__ void __launch_bounds__(THREADS) w2_normalise(float* __restrict__ first,
                                                                   float* __restrict__ second, int identity,
                                                                   const void* __restrict__ partials, int count,
                                                                   int channels) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += static_cast<const float*>(partials)[i];
    const float factor = 1.0f / sqrtf(block_sum(sum));
    const int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= channels) return;
    for (int column = threadIdx.x % 32; column < channels; column += 32) {
        const size_t at = size_t(row) * channels + column;
        first[at] *= factor;
        second[at] = factor * (identity ? (row == column ? 1.0f : 0.0f) : second[at]);
    }
}

// With E `change` and E S `moved`: cost := factor * the sum of |mean - target_mean|^2 + tr E S E;
// gram_error := scale * E [+ gram_error]; mean_error := scale * (mean - target_mean - E mean) [+ mean_error]
extern "C" __global__ void __launch_bounds__(THREADS) w2_cost(
    const float* __restrict__ change, const float* __restrict__ moved, const float* __restrict__ mean,
    const float* __restrict__ target_mean, int channels, float scale, float* __restrict__ gram_error,
    float* __restrict__ mean_error, void* __restrict__ partials, float factor, float* __restrict__ cost,
    unsigned* __restrict__ ticket, int accumulate) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    float sum = 0.0f;
    if (row < channels) {
        float product = 0.0f;
        for (int column = lane; column < channels; column += 32) {
            const size_t at = size_t(row) * channels + column;
            const float e = change[at];
            sum += moved[at] * e;
            product += e * mean[column];
            gram_error[at] = scale * e + (accumulate ? gram_error[at] : 0.0f);
        }
        product = warp_sum(product);
        if (lane == 0) {
            const float away = mean[row] - target_mean[row];
            sum += away * away;
            mean_error[row] = scale * (away - product) + (accumulate ? mean_error[row] : 0.0f);
        }
    }
    const float total = block_sum(sum);
    sum_over_blocks(total, partials, factor, cost, ticket);
}
