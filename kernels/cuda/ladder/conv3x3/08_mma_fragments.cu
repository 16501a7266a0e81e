// Rung 8: tensor cores. New: mma.sync and its fragments; activations and filters are bf16, sums float32.
//
// One mma.m16n8k16 multiplies 16 pixels x 16 channels by 16 channels x 8 output channels: 2048 products in one
// instruction of a warp. What it takes is spread over the lanes in a fixed way (a fragment); lane l = 4 g + t has
//
//     A  16 x 16                    B  16 x 8                   sums  16 x 8
//     a0: row g,     2t  2t+1       b0: rows 2t   2t+1, col g   row g:     columns 2t  2t+1
//     a1: row g + 8, 2t  2t+1       b1: rows 2t+8 2t+9, col g   row g + 8: columns 2t  2t+1
//     a2: row g,     2t+8 2t+9
//     a3: row g + 8, 2t+8 2t+9      two bf16 in 32 bits each
//
// A block is rung 7's rectangle with 64 output channels. A warp has two rows of 16 pixels, which are two A's, and all
// eight B's. Channels follow each other in shared memory for x and filters both (filters are [tap][k][c] from here
// on), so that a pair is one 32-bit load. A row is 16 channels and 8 more for nothing: rows 48 bytes apart are in
// different banks for all eight g.
// Bound by waiting: 24 loads and 16 mma of a warp take turns, and all of it stops at two barriers for nine taps.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "ptx/cvt.cuh"
#include "ptx/mma.cuh"

#if ARCHITECTURE >= 800  // which has bf16

constexpr int tile_width = 16, tile_height = 8, tile_channels = 64, depth = 16, threads = 128;
constexpr int halo_width = tile_width + 2, halo = halo_width * (tile_height + 2);
constexpr int pitch = (depth + 8) / 2;  // words of two bf16 from one row to the next

extern "C" __global__ void __launch_bounds__(threads) conv3x3_08_mma_fragments(
    const bf16* __restrict__ x, const bf16* __restrict__ filters, const float* __restrict__ bias,
    bf16* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    SHARED(uint32_t, pixels, [halo][pitch]);
    SHARED(uint32_t, weights, [9][tile_channels][pitch]);
    const int thread = threadIdx.x, warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
    const int across = (width + tile_width - 1) / tile_width;
    const int top = blockIdx.x / across * tile_height, left = blockIdx.x % across * tile_width;
    const int first_channel = blockIdx.y * tile_channels;
    float sums[2][8][4] = {};
    for (int c = 0; c < channels_in; c += depth) {
        for (int load = thread; load < halo * 2; load += threads) {
            const int p = load / 2, d = load % 2 * 8, y = top + p / halo_width - 1, from = left + p % halo_width - 1;
            const bool inside = y >= 0 && y < height && from >= 0 && from < width;
            *reinterpret_cast<uint4*>(&pixels[p][d / 2]) =
                inside ? *reinterpret_cast<const uint4*>(&x[(y * width + from) * channels_in + c + d])
                       : make_uint4(0, 0, 0, 0);
        }
        for (int load = thread; load < 9 * tile_channels * 2; load += threads) {
            const int tap = load / (tile_channels * 2), k = load / 2 % tile_channels, d = load % 2 * 8;
            *reinterpret_cast<uint4*>(&weights[tap][k][d / 2]) = *reinterpret_cast<const uint4*>(
                &filters[(tap * channels_out + first_channel + k) * channels_in + c + d]);
        }
        __syncthreads();
        for (int tap = 0; tap < 9; ++tap) {
            uint32_t a[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                const int row = (warp * 2 + m + tap / 3) * halo_width + tap % 3;  // where the sixteen pixels begin
#pragma unroll
                for (int word = 0; word < 4; ++word) a[m][word] = pixels[row + g + word % 2 * 8][t + word / 2 * 4];
            }
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                uint32_t b[2];
#pragma unroll
                for (int word = 0; word < 2; ++word) b[word] = weights[tap][n * 8 + g][t + word * 4];
#pragma unroll
                for (int m = 0; m < 2; ++m) ptx::mma_m16n8k16(bf16{}, sums[m][n], a[m], b);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        const int y = top + warp * 2 + m;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int to = left + g + half * 8;
            if (y >= height || to >= width) continue;
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const int k = first_channel + n * 8 + 2 * t;
                *reinterpret_cast<uint32_t*>(&out[(y * width + to) * channels_out + k]) = ptx::pack<bf16>(
                    fmaxf(sums[m][n][half * 2] + bias[k], 0.0f), fmaxf(sums[m][n][half * 2 + 1] + bias[k + 1], 0.0f));
            }
        }
    }
}

#endif
