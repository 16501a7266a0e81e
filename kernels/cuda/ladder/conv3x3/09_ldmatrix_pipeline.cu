// Rung 9: fragments by the instruction made for them, and copies that nobody carries. New: ldmatrix, swizzled rows,
// and cp.async.
//
// ldmatrix brings a whole A (16 x 16), or two B's, to the lanes that need them: 6 instructions for 16 mma, where rung 8
// had 24 loads. It reads eight rows of 16 bytes at a time. 64 channels of a pixel are a row of 128 bytes, all 32 banks,
// so the same piece of eight rows would be eight times the same banks. Hence piece q of row p lies at place q ^ (p % 8):
//
//     row 0   0 1 2 3 4 5 6 7        piece 2 of rows 0..7 lies in
//     row 1   1 0 3 2 5 4 7 6        columns 2 3 0 1 6 7 4 5: every bank once
//     row 2   2 3 0 1 6 7 4 5
//
// cp.async copies from memory to shared memory past the registers and is waited for by groups. Three stages of filters
// (one tap of 64 channels each) and two of halos are on their way or in use:
//
//     step          0    1    2  ...  8  |  9   10     one tap a step, nine taps a halo
//     filters for   2    3    4      10  | 11   12     asked for two steps ahead
//     halo          of the next 64 channels, asked for at the first step of these
//
// Bound by the tensor cores' own rate under mma.sync, about two thirds of what wgmma has on an H100.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "ptx/cp_async.cuh"
#include "ptx/cvt.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

#if ARCHITECTURE >= 800

constexpr int tile_width = 16, tile_height = 8, tile_channels = 64, depth = 64, threads = 128;
constexpr int halo_width = tile_width + 2, halo = halo_width * (tile_height + 2), row_bytes = 2 * depth;
constexpr int halo_bytes = halo * row_bytes, filter_bytes = tile_channels * row_bytes;
constexpr int halos = 2, stages = 3;
constexpr int shared_bytes = halos * halo_bytes + stages * filter_bytes;  // of a launch

// Where the 16 bytes of piece 0..7 of a row lie.
__device__ __forceinline__ int swizzled(int row, int piece) { return row * row_bytes + (piece ^ row % 8) * 16; }

extern "C" __global__ void __launch_bounds__(threads) conv3x3_09_ldmatrix_pipeline(
    const bf16* __restrict__ x, const bf16* __restrict__ filters, const float* __restrict__ bias,
    bf16* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    DYNAMIC_SHARED(unsigned char, shared);
    const ptx::SharedAddress halo_at = ptx::shared_address(shared), filters_at = halo_at + halos * halo_bytes;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int across = (width + tile_width - 1) / tile_width;
    const int top = blockIdx.x / across * tile_height, left = blockIdx.x % across * tile_width;
    const int first_channel = blockIdx.y * tile_channels, steps = 9 * channels_in / depth;

    const auto load_halo = [&](int chunk) {
        for (int load = thread; load < halo * 8; load += threads) {
            const int p = load / 8, piece = load % 8;
            const int y = top + p / halo_width - 1, from = left + p % halo_width - 1;
            const bool inside = y >= 0 && y < height && from >= 0 && from < width;
            const bf16* source = inside ? &x[(y * width + from) * channels_in + chunk * depth + piece * 8] : x;
            ptx::cp_async_16(halo_at + chunk % halos * halo_bytes + swizzled(p, piece), source, inside);
        }
    };
    const auto load_filters = [&](int step) {
        const int tap = step % 9, c = step / 9 * depth;
        for (int load = thread; load < tile_channels * 8; load += threads) {
            const int k = load / 8, piece = load % 8;
            ptx::cp_async_16(filters_at + step % stages * filter_bytes + swizzled(k, piece),
                             &filters[(tap * channels_out + first_channel + k) * channels_in + c + piece * 8], true);
        }
    };

    load_halo(0);
    load_filters(0);
    ptx::cp_async_commit();
    load_filters(1);
    ptx::cp_async_commit();
    float sums[2][8][4] = {};
    for (int step = 0; step < steps; ++step) {
        const int tap = step % 9, chunk = step / 9;
        ptx::cp_async_wait<1>();  // all but the last group: this step's filters, and its halo
        __syncthreads();          // everybody's have arrived, and nobody reads what is loaded next
        if (step + 2 < steps) load_filters(step + 2);
        if (tap == 0 && (chunk + 1) * depth < channels_in) load_halo(chunk + 1);
        ptx::cp_async_commit();  // a group every step, empty or not, so that they can be counted
        const ptx::SharedAddress pixels = halo_at + chunk % halos * halo_bytes;
        const ptx::SharedAddress weights = filters_at + step % stages * filter_bytes;
#pragma unroll
        for (int k16 = 0; k16 < depth / 16; ++k16) {
            uint32_t a[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {  // lanes 0-7: rows 0-7; 8-15: rows 8-15; then the same, 8 channels on
                const int row = (warp * 2 + m + tap / 3) * halo_width + tap % 3 + lane % 16;
                ptx::ldmatrix_x4(a[m], pixels + swizzled(row, k16 * 2 + lane / 16));
            }
#pragma unroll
            for (int n = 0; n < 8; n += 2) {  // lanes 0-7: 8 filters; 8-15: 8 channels on; then the next 8 filters
                uint32_t b[4];
                const int k = n * 8 + lane / 16 * 8 + lane % 8;
                ptx::ldmatrix_x4(b, weights + swizzled(k, k16 * 2 + lane / 8 % 2));
                const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    ptx::mma_m16n8k16(bf16{}, sums[m][n], a[m], first);
                    ptx::mma_m16n8k16(bf16{}, sums[m][n + 1], a[m], second);
                }
            }
        }
    }
    const int g = lane / 4, t = lane % 4;
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
