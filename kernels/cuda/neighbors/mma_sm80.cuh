// The search for each pixel's nearest candidate (neighbors_simt.cuh says of what) on tensor cores by mma.sync, sm_80
// and later, in three launches:
//
//   offsets   o[j] := -<m, S[j]>, so that <F[p] - m, S[j]> is o[j] + <F[p], S[j]>: a product of what memory holds.
//   search    That product, tile by tile, of which each pixel keeps its best four. No matrix of products is anywhere.
//   rescore   The four again in float32, channel by channel as neighbors_simt.cuh adds them up; the best of them, and
//             of equals the one of the lowest index, is the match.
//
//             candidates, 128 a tile
//            +------+------+------+      A block takes 128 pixels (64 where shared memory is short), whose channels
//        128 |  ->  |  ->  |  ->  |      lie in shared memory all the while, and goes through its candidates from left
//     pixels |      |      |      |      to right; a ring of stages brings 128 bytes of 128 candidates at a time. Where
//            +------+------+------+      pixels are few, candidates are split over gridDim.y.
//             split 0 | split 1
//                                        A warp takes 64x64 of a tile. Four lanes have a row of a fragment, and its
//     lane of four   0   1   2   3       best four, one each in falling order. Of a tile's products only the largest
//     has the best  1st 2nd 3rd 4th      is looked at, unless it is above the fourth.
//
// What is promised. The order of products is total, the higher and of equals the lower index, and no product depends on
// where its tile is: tiles, splits and the order of blocks decide nothing. The four kept are the best four of the
// products as tensor cores compute them: in 16 bits exact but for the sum, which is cut to some 22 bits of its largest
// terms; in tf32 of operands rounded to 11 bits. So the match is the one that float32 finds whenever the best is
// further above the fifth, of all candidates, than that error; else it may be one that is as near, within the error.
// What is no number never enters; a pixel for which none does gets the first candidate.
//
// Bound by the tensor cores, which do 2 C FLOP for a product that is then looked at once: 16,384 pixels among as many
// candidates of 256 channels are 137 GFLOP, 0.18 ms of an H100 at what wgmma has, 0.23 at what mma.sync has; expected
// is 0.27 ms. With few channels the looking counts, some 100 instructions for a fragment's row that has found one.
//
// kernels/cuda/neighbors/launch_mma_sm80.py launches these kernels; tests/kernels/cuda/neighbors/test_mma_sm80.py runs
// them in the emulator, on its checking build, and on a GPU where there is one, and
// tests/kernels/cuda/test_compile_sm80.py reads their SASS.
#pragma once

#include "common/tile_constants.cuh"
#include "conv3x3/mma_sm80.cuh"
#include "gram/mma_sm80.cuh"
#include "neighbors/neighbors_simt.cuh"

namespace neighbors {

constexpr int no_candidate = 0x7fffffff;  // the index of an entry that is empty; its score is -infinity

__device__ __forceinline__ float negative_infinity() { return __int_as_float(0xff800000); }

// offsets[j] := -<mean, candidates[j]>; beyond the last candidate -infinity, up to whole tiles. A warp a candidate.
template <int width, class T>
__device__ __forceinline__ void candidate_offsets(const T* candidates, const float* mean, float* offsets, int channels,
                                                  int count) {
    const int padded = ceil_div(count, search_candidates) * search_candidates;
#pragma unroll 1
    for (const int64_t candidate : pixels_of_warp(padded)) {
        float product = 0.0f;
        if (candidate < count) {
#pragma unroll 1
            for (int channel = threadIdx.x % 32 * width; channel < channels; channel += 32 * width) {
                float s[width], m[width];
                load<width>(candidates + candidate * channels + channel, s);
                load<width>(mean + channel, m);
#pragma unroll
                for (int k = 0; k < width; ++k) product += m[k] * s[k];
            }
        }
        product = warp_sum(product);
        if (threadIdx.x % 32 == 0) offsets[candidate] = candidate < count ? -product : negative_infinity();
    }
}

// ---- the best four, one in each of four neighbouring lanes, in falling order ----------------------------------------
static_assert(kept_candidates == 4, "a lane each");

__device__ __forceinline__ Nearest from_lane(Nearest value, int lane) {
    return {__shfl_sync(~0u, value.score, lane), __shfl_sync(~0u, value.index, lane)};
}

// The best four of two lists: `other` is the entry 3 - threadIdx.x % 4 of the second.
__device__ __forceinline__ Nearest merged(Nearest mine, Nearest other) {
    mine = nearer(mine, other);  // which are the best four, rising and then falling or the reverse
#pragma unroll
    for (int distance = 2; distance > 0; distance /= 2) {
        other = from_lane(mine, threadIdx.x % 32 ^ distance);
        const bool other_is_nearer =
            other.score > mine.score || (other.score == mine.score && other.index < mine.index);
        if (other_is_nearer == !(threadIdx.x & distance)) mine = other;
    }
    return mine;
}

// matches[p] := the nearest of the best four of all parts in kept[part][pixel], by their products in float32.
template <class T>
__device__ __forceinline__ void nearest_of_kept(const T* features, const float* mean, const T* candidates,
                                                const Nearest* kept, int* matches, int pixels, int channels, int count,
                                                int parts) {
    constexpr int at_once = 16 / int(sizeof(T));
    const int64_t wanted = (int64_t{blockIdx.x} * THREADS + threadIdx.x) / kept_candidates;
    const int64_t pixel = min(wanted, int64_t{pixels} - 1);
    const int place = threadIdx.x % kept_candidates;
    Nearest mine = kept[pixel * kept_candidates + place];
#pragma unroll 1
    for (int part = 1; part < parts; ++part)
        mine = merged(mine, kept[(int64_t{part} * pixels + pixel) * kept_candidates + kept_candidates - 1 - place]);

    const bool there = mine.index < count;
    const T* const from = features + pixel * channels;
    const T* const candidate = candidates + int64_t{there ? mine.index : 0} * channels;
    float product = 0.0f;
#pragma unroll 2
    for (int channel = 0; channel < channels; channel += at_once) {
        float f[at_once], s[at_once], m[at_once];
#pragma unroll
        for (int k = 0; k < at_once; k += 4) {
            load<4>(from + channel + k, reinterpret_cast<float(&)[4]>(f[k]));
            load<4>(candidate + channel + k, reinterpret_cast<float(&)[4]>(s[k]));
            load<4>(mean + channel + k, reinterpret_cast<float(&)[4]>(m[k]));
        }
#pragma unroll
        for (int k = 0; k < at_once; ++k) product += (f[k] - m[k]) * s[k];
    }
    // As the search of neighbors_simt.cuh: what is no number stays behind the first candidate.
    Nearest nearest = nearer({negative_infinity(), 0}, {there ? product : negative_infinity(), mine.index});
#pragma unroll
    for (int distance = 1; distance < kept_candidates; distance *= 2)
        nearest = nearer(nearest, from_lane(nearest, threadIdx.x % 32 ^ distance));
    if (place == 0 && wanted < pixels) matches[pixel] = nearest.index;
}

// ---- the search -----------------------------------------------------------------------------------------------------
// Shared memory: all k-tiles of the block's pixels, 128 bytes of a pixel each; `stages` of candidates; offsets.
template <int tile_pixels>
struct SearchTile {
    static constexpr int pixels = tile_pixels, candidates = search_candidates, warps_across = candidates / 64;
    static constexpr int threads = pixels / 64 * warps_across * 32, blocks_per_sm = 256 / threads;
    static constexpr int pixel_bytes = pixels * mma_sm80::row_bytes;
    static constexpr int stage_bytes = candidates * mma_sm80::row_bytes;
    static constexpr int rows_per_pass = threads / (mma_sm80::row_bytes / mma_sm80::chunk_bytes);
    static_assert(rows_per_pass % 8 == 0, "so that a thread's rows have one swizzle_xor");
};

// kept[part][pixel] := the best four of this part's candidates (blockIdx.y), in falling order. `stages` is 2 or 3.
template <class MmaPolicy, class Tile>
__device__ __forceinline__ void search(const typename MmaPolicy::Element* features,
                                       const typename MmaPolicy::Element* candidates, const float* offsets,
                                       Nearest* kept, int pixels, int channels, int count, int stages) {
    using Element = typename MmaPolicy::Element;
    using mma_sm80::chunk_bytes;
    using mma_sm80::row_bytes;
    constexpr int m = 4, n = 8, chunks = row_bytes / chunk_bytes;
    constexpr int chunk_channels = chunk_bytes / int(sizeof(Element)), row_channels = chunks * chunk_channels;
    DYNAMIC_SHARED(unsigned char, memory);

    const int k_tiles = ceil_div(channels, row_channels), tiles = ceil_div(count, Tile::candidates);
    const int first_tile = int64_t{tiles} * blockIdx.y / gridDim.y;
    const int end_tile = int64_t{tiles} * (blockIdx.y + 1) / gridDim.y;
    const int steps = (end_tile - first_tile) * k_tiles, first_pixel = blockIdx.x * Tile::pixels;
    const ptx::SharedAddress pixels_at = ptx::shared_address(memory), ring = pixels_at + k_tiles * Tile::pixel_bytes;
    // A tile's offsets are read as it begins. While it does, those of a later one arrive: so many steps are between.
    const int slots = k_tiles == 1 ? 3 : 2, slots_offset = k_tiles * Tile::pixel_bytes + stages * Tile::stage_bytes;

    const int row = threadIdx.x / chunks, chunk_channel = threadIdx.x % chunks * chunk_channels;
    const int row_offset = row * row_bytes + (threadIdx.x % chunks ^ (row & 7)) * chunk_bytes;
    const int pitch = Tile::rows_per_pass * channels;  // of a pass
    const Element* next_pixels = features + size_t(first_pixel + row) * channels + chunk_channel;
    const Element* next_candidates =
        candidates + size_t(first_tile * Tile::candidates + row) * channels + chunk_channel;
    int copied = 0, copied_k = 0, copied_tile = first_tile, copied_slot = 0;
    const auto copy = [&](int stage) {
        const bool inside = copied_k * row_channels + chunk_channel < channels;
        if (copied < k_tiles) {  // the pixels, beside their first candidates
#pragma unroll
            for (int pass = 0; pass < Tile::pixels / Tile::rows_per_pass; ++pass)
                ptx::cp_async_16(
                    pixels_at + copied * Tile::pixel_bytes + row_offset + pass * Tile::rows_per_pass * row_bytes,
                    next_pixels + pass * pitch, inside && first_pixel + row + pass * Tile::rows_per_pass < pixels);
            next_pixels += row_channels;
        }
        const int candidate = copied_tile * Tile::candidates + row;
#pragma unroll
        for (int pass = 0; pass < Tile::candidates / Tile::rows_per_pass; ++pass)
            ptx::cp_async_16(ring + stage * Tile::stage_bytes + row_offset + pass * Tile::rows_per_pass * row_bytes,
                             next_candidates + pass * pitch, inside && candidate + pass * Tile::rows_per_pass < count);
        next_candidates += row_channels;
        if (copied_k == 0 && threadIdx.x < Tile::candidates / 4)
            ptx::cp_async_16(pixels_at + slots_offset + (copied_slot * Tile::candidates + threadIdx.x * 4) * 4,
                             offsets + copied_tile * Tile::candidates + threadIdx.x * 4, true);
        ++copied;
        if (++copied_k == k_tiles) {
            copied_k = 0;
            ++copied_tile;
            copied_slot = copied_slot == slots - 1 ? 0 : copied_slot + 1;
            next_candidates += size_t(Tile::candidates) * channels - k_tiles * row_channels;
        }
    };
#pragma unroll 1
    for (int stage = 0; stage < stages - 1; ++stage) {
        if (stage < steps) copy(stage);
        ptx::cp_async_commit();
    }

    // Who brings which row to ldmatrix is as in the style gradient of gram/mma_sm80.cuh.
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_pixel = warp / Tile::warps_across * 64, warp_candidate = warp % Tile::warps_across * 64;
    const int pixel_row = warp_pixel + (lane & 15), candidate_row = warp_candidate + (lane & 7) + (lane >> 4) * 8;
    const int pixel_offset = pixel_row * row_bytes + (lane >> 4 ^ (pixel_row & 7)) * chunk_bytes;
    const int candidate_offset = candidate_row * row_bytes + ((lane >> 3 & 1) ^ (candidate_row & 7)) * chunk_bytes;

    Nearest best[m][2];
    float least[m][2];  // the fourth's score
#pragma unroll
    for (int i = 0; i < 2 * m; ++i) {
        best[i / 2][i % 2] = {negative_infinity(), no_candidate};
        least[i / 2][i % 2] = negative_infinity();
    }

    float accum[m][n][4];
    int stage = 0, step = 0, slot = 0;
#pragma unroll 1
    for (int tile = first_tile; tile < end_tile; ++tile) {
#pragma unroll 1
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
            if (stages == 3)
                ptx::cp_async_wait<1>();
            else
                ptx::cp_async_wait<0>();
            __syncthreads();  // everybody's copies have arrived, and everybody is done with the stage that is refilled
            if (k_tile == 0) {
                const float* const from = reinterpret_cast<const float*>(memory + slots_offset) +
                                          slot * Tile::candidates + warp_candidate + lane % 4 * 2;
#pragma unroll
                for (int j = 0; j < n; ++j) {
                    const float2 offset = *reinterpret_cast<const float2*>(from + 8 * j);
#pragma unroll
                    for (int i = 0; i < m; ++i) {
                        accum[i][j][0] = accum[i][j][2] = offset.x;
                        accum[i][j][1] = accum[i][j][3] = offset.y;
                    }
                }
                slot = slot == slots - 1 ? 0 : slot + 1;
            }
            const ptx::SharedAddress a_at = pixels_at + k_tile * Tile::pixel_bytes + pixel_offset;
            const ptx::SharedAddress b_at = ring + stage * Tile::stage_bytes + candidate_offset;
#pragma unroll MmaPolicy::k_steps_at_once
            for (int k_step = 0; k_step < mma_sm80::k_steps_per_row; ++k_step) {
                uint32_t a[m][4], b[n][2];
#pragma unroll
                for (int i = 0; i < m; ++i)
                    ptx::ldmatrix_x4(a[i], (a_at ^ (k_step * 2 * chunk_bytes)) + i * 16 * row_bytes);
#pragma unroll
                for (int j = 0; j < n; j += 2) {
                    uint32_t two[4];
                    ptx::ldmatrix_x4(two, (b_at ^ (k_step * 2 * chunk_bytes)) + j * 8 * row_bytes);
                    b[j][0] = two[0];
                    b[j][1] = two[1];
                    b[j + 1][0] = two[2];
                    b[j + 1][1] = two[3];
                }
                if (k_step == 0) {
                    if (step + stages - 1 < steps) copy(stage == 0 ? stages - 1 : stage - 1);
                    ptx::cp_async_commit();
                }
                MmaPolicy::multiply(a, b, accum);
            }
            stage = stage == stages - 1 ? 0 : stage + 1;
            ++step;
        }

        const int column = tile * Tile::candidates + warp_candidate + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < m; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const auto largest = [&] {  // of the lane's 16, none of which may be a number
                    float top = negative_infinity();
#pragma unroll
                    for (int j = 0; j < n; ++j)
                        top = fmaxf(top, fmaxf(accum[i][j][2 * half], accum[i][j][2 * half + 1]));
                    return top;
                };
                float top = largest();
                // As long as a row has one that is better than its fourth, and four times at most: the four lanes agree
                // on the best of theirs, which takes its place among the four; whose it was goes on to its next.
#pragma unroll 1
                while (__any_sync(~0u, top > least[i][half])) {
                    int at = 0;
#pragma unroll
                    for (int e = 2 * n - 1; e >= 0; --e)
                        if (accum[i][e / 2][2 * half + e % 2] == top) at = e;
                    const Nearest own = {top, column + at / 2 * 8 + at % 2};
                    Nearest first = nearer(own, from_lane(own, lane ^ 1));
                    first = nearer(first, from_lane(first, lane ^ 2));
                    const bool enters = first.score > least[i][half];
                    Nearest& here = best[i][half];
                    const Nearest left = from_lane(here, lane - 1);  // of lane 0 of four somebody else's, unused
                    if (enters && first.score > here.score)
                        here = lane % 4 != 0 && first.score > left.score ? left : first;
                    least[i][half] = __shfl_sync(~0u, here.score, lane | 3);
                    const bool gone = enters && first.index == own.index;
#pragma unroll
                    for (int e = 0; e < 2 * n; ++e)
                        if (gone && e == at) accum[i][e / 2][2 * half + e % 2] = negative_infinity();
                    top = largest();
                }
            }
        }
    }

    // The warps that share pixels merge what they have, in the memory of the ring.
    static_assert(Tile::warps_across == 2, "one gives, the other takes");
    Nearest* const given = reinterpret_cast<Nearest*>(memory);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * m; ++i)
        if (warp_candidate != 0)
            given[(warp_pixel + i * 8 + lane / 4) * kept_candidates + lane % 4] = best[i / 2][i % 2];
    __syncthreads();
    if (warp_candidate != 0) return;
#pragma unroll
    for (int i = 0; i < 2 * m; ++i) {
        const int row = warp_pixel + i * 8 + lane / 4;
        const Nearest four = merged(best[i / 2][i % 2], given[row * kept_candidates + kept_candidates - 1 - lane % 4]);
        if (first_pixel + row < pixels)
            kept[(size_t(blockIdx.y) * pixels + first_pixel + row) * kept_candidates + lane % 4] = four;
    }
}

}  // namespace neighbors

// Kernels by their full names.
#define NEAREST_NEIGHBORS_MMA_SM80(name, MmaPolicy, tile_pixels)                                                     \
    extern "C" __global__ void __launch_bounds__(neighbors::SearchTile<tile_pixels>::threads,                        \
                                                 neighbors::SearchTile<tile_pixels>::blocks_per_sm)                  \
    name(const MmaPolicy::Element* __restrict__ features, const MmaPolicy::Element* __restrict__ candidates,         \
         const float* __restrict__ offsets, void* __restrict__ kept, int pixels, int channels, int count,            \
         int stages) {                                                                                               \
        neighbors::search<MmaPolicy, neighbors::SearchTile<tile_pixels>>(                                            \
            features, candidates, offsets, static_cast<neighbors::Nearest*>(kept), pixels, channels, count, stages); \
    }

#define CANDIDATE_OFFSETS(name, T)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) name(                                                   \
        const T* __restrict__ candidates, const float* __restrict__ mean, float* __restrict__ offsets, int channels, \
        int count) {                                                                                                 \
        neighbors::candidate_offsets<4>(candidates, mean, offsets, channels, count);                                 \
    }

#define NEAREST_OF_KEPT(name, T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) name(                                                    \
        const T* __restrict__ features, const float* __restrict__ mean, const T* __restrict__ candidates,             \
        const void* __restrict__ kept, int* __restrict__ matches, int pixels, int channels, int count, int parts) {   \
        neighbors::nearest_of_kept(features, mean, candidates, static_cast<const neighbors::Nearest*>(kept), matches, \
                                   pixels, channels, count, parts);                                                   \
    }
