// The search for each pixel's nearest candidate (neighbors_simt.cuh says of what) on tensor cores by mma.sync, sm_80
// and later, in three launches:
//
//   offsets   o[j] := -<m, S[j]>, so that <F[p] - m, S[j]> is o[j] + <F[p], S[j]>: a product of what memory holds.
//   search    That product, tile by tile, of which each pixel keeps the two groups of eight neighbouring candidates
//             that have the highest. No matrix of products is anywhere.
//   rescore   The sixteen again in float32, channel by channel as neighbors_simt.cuh adds them up; the best of them,
//             and of equals the one of the lowest index, is the match.
//
//             candidates, 128 a tile
//            +------+------+------+      A block takes 128 pixels (64 where shared memory is short), whose channels
//        128 |  ->  |  ->  |  ->  |      lie in shared memory all the while, and goes through its candidates from left
//     pixels |      |      |      |      to right; a ring of stages brings 128 bytes of 128 candidates at a time. Where
//            +------+------+------+      pixels are few, candidates are split over gridDim.y.
//             split 0 | split 1
//
//     a warp's 64x64                     Which column of the product is which candidate is free, and chosen such that a
//     lane  0    1    2    3             lane has two groups of neighbours in each of its rows. Of a group only the
//          +--+ +--+ +--+ +--+           largest product counts, with the group's number: seven maxima and eight
//     row  |16| |16| |16| |16|           instructions that let it in among the lane's best two, for eight products, and
//          +--+ +--+ +--+ +--+           no branch. Lanes, warps and splits are merged in the end.
//
// Column 8 j + 2 t + b of 64 is candidate 16 t + 2 j + b. Eight rows that ldmatrix reads at once, the t and b of a j,
// are spread over all banks if 16-byte chunk c of candidate h lies at offset c ^ (h / 16 % 4 * 2 + h % 2).
//
// What is promised. The order of groups is total, the higher product and of equals the lower candidates, and no product
// depends on where its tile is: tiles, splits and the order of blocks decide nothing. The two groups kept are those of
// the best two of all groups, by products as tensor cores compute them: in 16 bits exact but for the sum, which is cut
// to some 22 bits of its largest terms; in tf32 of operands rounded to 11 bits. So the match is the one that float32
// finds unless two other groups have products that are no further below the best than that error; then it may be
// one that is as near, within the error. Equals among equal candidates are decided by their index however many there
// are. What is no number never enters; a pixel for which nothing does gets the first candidate.
//
// Bound by the tensor cores, which do 2 C FLOP for a product that is then looked at once: 16,384 pixels among as many
// candidates of 256 channels are 137 GFLOP, 0.18 ms of an H100 at what wgmma has, 0.23 at what mma.sync has; it
// takes 0.33, and with the second launch 0.41 (0.27 expected). A first version kept the best four of a row, found one by
// one as they came, and took 0.49 to 0.54 ms; the kernel of neighbors_simt.cuh takes 3.25 ms.
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

constexpr int no_group = 0x7fffffff;  // of an entry that is empty; its score is -infinity

__device__ __forceinline__ float negative_infinity() { return __int_as_float(0xff800000); }

// Of what is beyond the last candidate: below all products, and finite, so that sums with it are as of others.
constexpr float padding_offset = -1e38f;

// offsets[j] := -<mean, candidates[j]>, and what makes padding lose, up to whole tiles. A warp a candidate.
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
        if (threadIdx.x % 32 == 0) offsets[candidate] = candidate < count ? -product : padding_offset;
    }
}

// ---- the best two groups ---------------------------------------------------------------------------------------------
static_assert(kept_groups == 2, "the first and the second");

struct BestTwo {
    Nearest first, second;  // their indices are groups

    // What is no number never enters; of equals those who came first stay.
    __device__ __forceinline__ void enter(float score, int group) {
        const bool leads = score > first.score, follows = score > second.score;
        second.score = leads ? first.score : follows ? score : second.score;
        second.index = leads ? first.index : follows ? group : second.index;
        first.score = leads ? score : first.score;
        first.index = leads ? group : first.index;
    }
    __device__ __forceinline__ void merge(const Nearest& other_first, const Nearest& other_second) {
        const bool leads = nearer(first, other_first).index != first.index;  // groups are different, or nobody's
        second = leads ? nearer(first, other_second) : nearer(other_first, second);
        if (leads) first = other_first;
    }
};

__device__ __forceinline__ Nearest from_lane(Nearest value, int lane) {
    return {__shfl_sync(~0u, value.score, lane), __shfl_sync(~0u, value.index, lane)};
}

// matches[p] := the nearest in the best two groups of all parts, kept[part][pixel], by products in float32. Sixteen
// threads have a pixel, whose centered channels lie in shared memory; bound by L2, which brings the candidates.
template <class T>
__device__ __forceinline__ void nearest_of_kept(const T* features, const float* mean, const T* candidates,
                                                const Nearest* kept, int* matches, int pixels, int channels, int count,
                                                int parts) {
    constexpr int per_pixel = kept_groups * group_candidates, block_pixels = THREADS / per_pixel;
    constexpr int at_once = 16 / int(sizeof(T));
    DYNAMIC_SHARED(float, centered);  // [block_pixels][channels]
    const int64_t first_pixel = int64_t{blockIdx.x} * block_pixels;
    const int here = min(int64_t{pixels} - first_pixel, int64_t{block_pixels});
    for (int at = threadIdx.x * 4; at < here * channels; at += THREADS * 4) {
        float f[4], m[4];
        load<4>(features + first_pixel * channels + at, f);
        load<4>(mean + at % channels, m);
        *reinterpret_cast<float4*>(centered + at) = make_float4(f[0] - m[0], f[1] - m[1], f[2] - m[2], f[3] - m[3]);
    }
    __syncthreads();

    const int pixel = min(int(threadIdx.x) / per_pixel, here - 1), place = threadIdx.x % per_pixel;
    const Nearest* const two = kept + (first_pixel + pixel) * kept_groups;
    BestTwo best = {two[0], two[1]};
#pragma unroll 1
    for (int part = 1; part < parts; ++part) {
        const Nearest* const others = two + int64_t{part} * pixels * kept_groups;
        best.merge(others[0], others[1]);
    }
    const int group = place < group_candidates ? best.first.index : best.second.index;
    const int index = group == no_group ? count : group * group_candidates + place % group_candidates;

    // As the search of neighbors_simt.cuh: what is no number stays behind the first candidate.
    Nearest nearest = {negative_infinity(), 0};
    if (index < count) {
        const T* const candidate = candidates + size_t(index) * channels;
        const float* const from = centered + pixel * channels;
        float product = 0.0f;
#pragma unroll 4
        for (int channel = 0; channel < channels; channel += at_once) {
            float s[at_once], f[at_once];
#pragma unroll
            for (int k = 0; k < at_once; k += 4) {
                load<4>(candidate + channel + k, reinterpret_cast<float(&)[4]>(s[k]));
                load<4>(from + channel + k, reinterpret_cast<float(&)[4]>(f[k]));
            }
#pragma unroll
            for (int k = 0; k < at_once; ++k) product += f[k] * s[k];
        }
        nearest = nearer(nearest, {product, index});
    }
#pragma unroll
    for (int distance = 1; distance < per_pixel; distance *= 2)
        nearest = nearer(nearest, from_lane(nearest, threadIdx.x % 32 ^ distance));
    if (place == 0 && threadIdx.x / per_pixel < here) matches[first_pixel + pixel] = nearest.index;
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
    static_assert(rows_per_pass == 8 || rows_per_pass == 16, "see candidate_swizzle_xor");
};

// Of candidate `row`, as the head says; rows of one pass of a copy, below 16, and the first row of a pass add up.
__device__ __forceinline__ constexpr int candidate_swizzle_xor(int row) { return (row >> 4 & 3) * 2 + (row & 1); }

// kept[part][pixel] := the best two groups of this part's candidates (blockIdx.y), the better first. `stages` is 2 or 3.
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
    const int pixel_to = row * row_bytes + (threadIdx.x % chunks ^ (row & 7)) * chunk_bytes;
    const int candidate_to = row * row_bytes + (threadIdx.x % chunks ^ candidate_swizzle_xor(row)) * chunk_bytes;
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
                    pixels_at + copied * Tile::pixel_bytes + pixel_to + pass * Tile::rows_per_pass * row_bytes,
                    next_pixels + pass * pitch, inside && first_pixel + row + pass * Tile::rows_per_pass < pixels);
            next_pixels += row_channels;
        }
        const int candidate = copied_tile * Tile::candidates + row;
#pragma unroll
        for (int pass = 0; pass < Tile::candidates / Tile::rows_per_pass; ++pass)
            ptx::cp_async_16(ring + stage * Tile::stage_bytes + pass * Tile::rows_per_pass * row_bytes +
                                 (candidate_to ^ candidate_swizzle_xor(pass * Tile::rows_per_pass) * chunk_bytes),
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

    // Who brings which pixel to ldmatrix is as in the style gradient of gram/mma_sm80.cuh. Lane 8 i + r brings row r of
    // matrix i: candidate 16 (r / 2) + r % 2, two later in the upper matrices, of the first or the second chunk.
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_pixel = warp / Tile::warps_across * 64, warp_candidate = warp % Tile::warps_across * 64;
    const int pixel_row = warp_pixel + (lane & 15),
              candidate_row = warp_candidate + (lane >> 1 & 3) * 16 + (lane & 1) + (lane >> 4) * 2;
    const int pixel_offset = pixel_row * row_bytes + (lane >> 4 ^ (pixel_row & 7)) * chunk_bytes;
    const int candidate_offset =
        candidate_row * row_bytes + ((lane >> 3 & 1) ^ candidate_swizzle_xor(candidate_row)) * chunk_bytes;

    BestTwo best[m][2];
#pragma unroll
    for (int i = 0; i < 2 * m; ++i)
        best[i / 2][i % 2] = {{negative_infinity(), no_group}, {negative_infinity(), no_group}};

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
                                          slot * Tile::candidates + warp_candidate + lane % 4 * 16;
#pragma unroll
                for (int j = 0; j < n; ++j) {
                    const float2 offset = *reinterpret_cast<const float2*>(from + 2 * j);
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
                    ptx::ldmatrix_x4(two, (b_at ^ (k_step * 2 * chunk_bytes)) + j * 2 * row_bytes);
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

        const int group = (tile * Tile::candidates + warp_candidate + lane % 4 * 16) / group_candidates;
#pragma unroll
        for (int i = 0; i < m; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int eight = 0; eight < 2; ++eight) {
                    float top = fmaxf(accum[i][4 * eight][2 * half], accum[i][4 * eight][2 * half + 1]);
#pragma unroll
                    for (int j = 4 * eight + 1; j < 4 * eight + 4; ++j)
                        top = fmaxf(top, fmaxf(accum[i][j][2 * half], accum[i][j][2 * half + 1]));
                    best[i][half].enter(top, group + eight);
                }
            }
        }
    }

    // Four lanes have other candidates of the same rows, and then two warps, one of which gives by way of the ring.
    static_assert(Tile::warps_across == 2 && n * 2 == 2 * group_candidates, "what a lane and a pair of warps have");
    BestTwo* const given = reinterpret_cast<BestTwo*>(memory);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * m; ++i) {
        BestTwo& two = best[i / 2][i % 2];
#pragma unroll
        for (int distance = 1; distance < 4; distance *= 2)
            two.merge(from_lane(two.first, lane ^ distance), from_lane(two.second, lane ^ distance));
        if (warp_candidate != 0 && lane % 4 == 0) given[warp_pixel + i * 8 + lane / 4] = two;
    }
    __syncthreads();
    if (warp_candidate != 0 || lane % 4 != 0) return;
#pragma unroll
    for (int i = 0; i < 2 * m; ++i) {
        const int row = warp_pixel + i * 8 + lane / 4;
        if (first_pixel + row >= pixels) continue;
        BestTwo& two = best[i / 2][i % 2];
        two.merge(given[row].first, given[row].second);
        Nearest* const to = kept + (size_t(blockIdx.y) * pixels + first_pixel + row) * kept_groups;
        to[0] = two.first;
        to[1] = two.second;
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
