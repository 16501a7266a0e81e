// Features F (pixels x channels) compared with candidates S (count x channels) by their direction from a mean m: the
// directions themselves, each pixel's nearest candidate, the cost of what was matched, and its gradient. `T` is what
// memory holds, float, bf16 or fp16; it becomes float32 while it is loaded, and all arithmetic is float32.
//
// The search is a matrix product (F - m) S^T on FFMA, on the main loop of common/gemm_simt.cuh, of which only the best
// of every row is kept. Nothing of the size pixels x count is anywhere:
//
//             candidates, 64 a tile
//            +----+----+----+----+      A block takes 128 pixels and goes through its tiles of candidates from left to
//        128 | -> | -> | -> | -> |      right. A thread holds 8x8 products of a tile and the best of its 8 rows so far.
//     pixels |    |    |    |    |      Where pixels are few, candidates are split over gridDim.y, and a second launch
//            +----+----+----+----+      merges what each part has found.
//              split 0 | split 1
//
// Which candidate wins is a total order, the higher product and of equals the lower index, and a product is always
// added up channel by channel: so neither tiles nor splits decide it. A product that is no number never wins.
//
// mma_sm80.cuh searches on tensor cores. Here what bounds is FFMA: a tile does 21 FLOP for a byte of float32 that it asks of L2, 43 for one of 16 bits. The others take a
// warp a pixel, read it once from device memory, which bounds them, and are added up in a fixed order.
// kernels/cuda/neighbors/launch.py launches them; tests/kernels/cuda/neighbors/test_neighbors.py runs every kernel in
// the emulator, on its checking build, and on a GPU where there is one, against float64.
#pragma once

#include "common/element.cuh"
#include "common/gemm_simt.cuh"
#include "common/indexing.cuh"
#include "common/reduce.cuh"
#include "common/transposed_rows.cuh"
#include "ptx/cvt.cuh"

namespace neighbors {

// ---- four channels, or one, as floats -------------------------------------------------------------------------------
template <int width, class T>
__device__ __forceinline__ void load(const T* from, float (&v)[width]) {
    if constexpr (width == 1) {
        v[0] = *from;
    } else {
        const float4 four = simt::as_floats<T>(*reinterpret_cast<const typename simt::Raw<T>::Quad*>(from));
        v[0] = four.x;
        v[1] = four.y;
        v[2] = four.z;
        v[3] = four.w;
    }
}

template <int width, class T>
__device__ __forceinline__ void store(T* to, const float (&v)[width]) {
    if constexpr (width == 1)
        *to = v[0];
    else if constexpr (sizeof(T) == 4)
        *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
    else
        *reinterpret_cast<uint2*>(to) = make_uint2(ptx::pack<T>(v[0], v[1]), ptx::pack<T>(v[2], v[3]));
}

// ---- the search -----------------------------------------------------------------------------------------------------
struct Nearest {
    float score;
    int index;
};

__device__ __forceinline__ Nearest nearer(Nearest a, Nearest b) {
    return b.score > a.score || (b.score == a.score && b.index < a.index) ? b : a;
}

// Each pixel's nearest among this part's candidates: to `matches` where there is one part, else to
// partials[part][pixel].
template <class Tile, class T, bool vector>
__device__ __forceinline__ void nearest_neighbors(const T* features, const float* mean, const T* candidates,
                                                  int* matches, Nearest* partials, int pixels, int channels,
                                                  int count) {
    static_assert(Tile::threads >= Tile::rows, "a thread a row in the end");
    constexpr int warps_across = Tile::columns / 32;
    constexpr simt::Fours fours = simt::fours_if(vector);
    const int first_row = blockIdx.x * Tile::rows, tiles = ceil_div(count, Tile::columns);
    const int first_tile = int64_t{tiles} * blockIdx.y / gridDim.y;
    const int end_tile = int64_t{tiles} * (blockIdx.y + 1) / gridDim.y;
    const simt::Corner corner = simt::thread_corner<Tile>();
    SHARED(typename Tile::Stage, stages, [2]);
    SHARED(Nearest, of_warps, [warps_across][Tile::rows]);

    Nearest best[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) best[i] = {__int_as_float(0xff800000), first_tile * Tile::columns};  // -infinity

#pragma unroll 1
    for (int tile = first_tile; tile < end_tile; ++tile) {
        simt::TransposedRows<Tile, Tile::rows, T, fours, true> left(features, pixels, channels, first_row, 0, mean);
        simt::TransposedRows<Tile, Tile::columns, T, fours> right(candidates, count, channels, tile * Tile::columns);
        simt::Accum accum;
        simt::multiply<Tile>(left, right, ceil_div(channels, simt::block_k), stages, accum);
        // Columns in rising order, so that of equals the first stays. Those beyond the last candidate are that one.
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const int index = min(tile * Tile::columns + corner.column + j / 4 * 16 + j % 4, count - 1);
#pragma unroll
            for (int i = 0; i < 8; ++i)
                if (accum[i][j] > best[i].score) best[i] = {accum[i][j], index};
        }
    }

    // Four lanes of a warp have other columns of the same rows (simt::thread_corner), and then whole warps.
    const int lane = threadIdx.x % 32, warp_across = threadIdx.x / 32 / (Tile::rows / 64);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int distance = 2; distance <= 4; distance *= 2) {
            const Nearest other = {__shfl_xor_sync(~0u, best[i].score, distance),
                                   __shfl_xor_sync(~0u, best[i].index, distance)};
            best[i] = nearer(best[i], other);
        }
        if ((lane >> 1 & 3) == 0) of_warps[warp_across][corner.row + i / 4 * 32 + i % 4] = best[i];
    }
    __syncthreads();
    const int pixel = first_row + threadIdx.x;
    if (threadIdx.x >= Tile::rows || pixel >= pixels) return;
    Nearest nearest = of_warps[0][threadIdx.x];
#pragma unroll
    for (int warp = 1; warp < warps_across; ++warp) nearest = nearer(nearest, of_warps[warp][threadIdx.x]);
    if (gridDim.y == 1)
        matches[pixel] = nearest.index;
    else
        partials[size_t(blockIdx.y) * pixels + pixel] = nearest;
}

// ---- a warp a pixel -------------------------------------------------------------------------------------------------
// What a pixel has to do with its direction, the same in every lane.
struct Cosine {
    float inverse_length;  // 1 / |F - m|; 0 where that is at most `flat` |F|: no direction
    float cosine;          // of the direction and the candidate
};

// `candidate` null: only the length.
template <int width, class T>
__device__ __forceinline__ Cosine cosine_of(const T* pixel, const float* mean, const T* candidate, int channels,
                                            float flat) {
    float squares = 0.0f, own = 0.0f, product = 0.0f;
#pragma unroll 1
    for (int channel = threadIdx.x % 32 * width; channel < channels; channel += 32 * width) {
        float v[width], m[width], s[width] = {};
        load<width>(pixel + channel, v);
        load<width>(mean + channel, m);
        if (candidate) load<width>(candidate + channel, s);
#pragma unroll
        for (int k = 0; k < width; ++k) {
            const float centered = v[k] - m[k];
            squares += centered * centered;
            own += v[k] * v[k];
            product += centered * s[k];
        }
    }
    const float length = sqrtf(warp_sum(squares)), own_length = sqrtf(warp_sum(own));
    const float inverse = length <= flat * own_length ? 0.0f : 1.0f / length;
    return {inverse, inverse * warp_sum(product)};
}

// The pixels of this warp: every so many.
__device__ __forceinline__ GridStride<int64_t> pixels_of_warp(int pixels) {
    return {int64_t{blockIdx.x} * WARPS + threadIdx.x / 32, int64_t{gridDim.x} * WARPS, pixels};
}

// out[p] := u(p), the direction (F[p] - m) / |F[p] - m|, or 0.
template <int width, class T>
__device__ __forceinline__ void normalize_features(const T* features, const float* mean, T* out, int pixels,
                                                   int channels, float flat) {
#pragma unroll 1
    for (const int64_t pixel : pixels_of_warp(pixels)) {
        const T* const from = features + pixel * channels;
        const Cosine at = cosine_of<width>(from, mean, static_cast<const T*>(nullptr), channels, flat);
#pragma unroll 1
        for (int channel = threadIdx.x % 32 * width; channel < channels; channel += 32 * width) {
            float v[width], m[width];
            load<width>(from + channel, v);
            load<width>(mean + channel, m);
#pragma unroll
            for (int k = 0; k < width; ++k) v[k] = at.inverse_length * (v[k] - m[k]);
            store<width>(out + pixel * channels + channel, v);
        }
    }
}

// cost := factor * sum_p weights[p] (1 - <u(p), S[matches[p]]>); null weights are ones.
template <int width, class T>
__device__ __forceinline__ void neighbors_cost(const T* features, const float* mean, const T* candidates,
                                               const int* matches, const float* weights, int pixels, int channels,
                                               float flat, float* partials, float factor, float* cost,
                                               unsigned* ticket) {
    float sum = 0.0f;
#pragma unroll 1
    for (const int64_t pixel : pixels_of_warp(pixels)) {
        const T* const candidate = candidates + size_t(matches[pixel]) * channels;
        const Cosine at = cosine_of<width>(features + pixel * channels, mean, candidate, channels, flat);
        sum += (weights ? weights[pixel] : 1.0f) * (1.0f - at.cosine);
    }
    const float total = block_sum(threadIdx.x % 32 == 0 ? sum : 0.0f);  // every lane has its warp's
    sum_over_blocks(total, partials, factor, cost, ticket);
}

// out[p] := scale weights[p] (<u, s> u - s) / |F[p] - m| [+ out[p]], s = S[matches[p]]; 0 where u is.
template <int width, class T>
__device__ __forceinline__ void neighbors_gradient(const T* features, const float* mean, const T* candidates,
                                                   const int* matches, const float* weights, float scale, T* out,
                                                   int accumulate, int pixels, int channels, float flat) {
#pragma unroll 1
    for (const int64_t pixel : pixels_of_warp(pixels)) {
        const T* const from = features + pixel * channels;
        const T* const candidate = candidates + size_t(matches[pixel]) * channels;
        const Cosine at = cosine_of<width>(from, mean, candidate, channels, flat);
        const float along = at.cosine * at.inverse_length;
        const float factor = scale * (weights ? weights[pixel] : 1.0f) * at.inverse_length;
#pragma unroll 1
        for (int channel = threadIdx.x % 32 * width; channel < channels; channel += 32 * width) {
            T* const to = out + pixel * channels + channel;
            float v[width], m[width], s[width], before[width] = {};
            load<width>(from + channel, v);
            load<width>(mean + channel, m);
            load<width>(candidate + channel, s);
            if (accumulate) load<width>(static_cast<const T*>(to), before);
#pragma unroll
            for (int k = 0; k < width; ++k) v[k] = factor * (along * (v[k] - m[k]) - s[k]) + before[k];
            store<width>(to, v);
        }
    }
}

}  // namespace neighbors

// Kernels by their full names. `vector`: channels are a multiple of four. Blocks of a warp a pixel ask for 4 to an SM:
// without a number ptxas spills to fit more.
#define NEAREST_NEIGHBORS_SIMT(name, T, vector)                                                                        \
    extern "C" __global__ void __launch_bounds__(simt::Tile128x64::threads, simt::Tile128x64::blocks_per_sm) name(     \
        const T* __restrict__ features, const float* __restrict__ mean, const T* __restrict__ candidates,              \
        int* __restrict__ matches, void* __restrict__ partials, int pixels, int channels, int count) {                 \
        neighbors::nearest_neighbors<simt::Tile128x64, T, vector>(                                                     \
            features, mean, candidates, matches, static_cast<neighbors::Nearest*>(partials), pixels, channels, count); \
    }

#define NORMALIZE_FEATURES(name, T, vector)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) name(const T* __restrict__ features,                      \
                                                                  const float* __restrict__ mean, T* __restrict__ out, \
                                                                  int pixels, int channels, float flat) {              \
        neighbors::normalize_features<vector ? 4 : 1>(features, mean, out, pixels, channels, flat);                    \
    }

#define NEIGHBORS_COST(name, T, vector)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) name(                                                \
        const T* __restrict__ features, const float* __restrict__ mean, const T* __restrict__ candidates,         \
        const int* __restrict__ matches, const float* __restrict__ weights, int pixels, int channels, float flat, \
        void* __restrict__ partials, float factor, float* __restrict__ cost, unsigned* __restrict__ ticket) {     \
        neighbors::neighbors_cost<vector ? 4 : 1>(features, mean, candidates, matches, weights, pixels, channels, \
                                                  flat, static_cast<float*>(partials), factor, cost, ticket);     \
    }

#define NEIGHBORS_GRADIENT(name, T, vector)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) name(                                              \
        const T* __restrict__ features, const float* __restrict__ mean, const T* __restrict__ candidates,       \
        const int* __restrict__ matches, const float* __restrict__ weights, float scale, T* __restrict__ out,   \
        int accumulate, int pixels, int channels, float flat) {                                                 \
        neighbors::neighbors_gradient<vector ? 4 : 1>(features, mean, candidates, matches, weights, scale, out, \
                                                      accumulate, pixels, channels, flat);                      \
    }
