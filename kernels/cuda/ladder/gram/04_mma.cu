// Rung 4: tensor cores. New: both operands lie across, and ldmatrix turns them.
//
// G = A^T A with features A bf16, (pixels, channels). mma wants pairs that follow each other along the sum, which here
// runs over pixels, but in memory channels follow each other. ldmatrix.trans transposes 8 x 8 on the way to registers, so
// tiles stay in shared memory as they lie in memory: 64 pixels x 64 channels, rows of 128 bytes, pieces swizzled.
//
//     shared memory, row p:   | c0 c1 c2 ... |        fragment:   rows k = channels, along the sum pixels
//                 row p+1:    | c0 c1 c2 ... |   ->               (c0, p) (c0, p+1) in one word
//
// Four warps, 32 x 32 entries each, slices and their order as in rung 3. The product's own kernels
// (../../gram/mma_sm80.cuh, wgmma_sm90.cuh) load the next tile meanwhile.
// Bound by the wait for each k-tile: what the convolution's rung 9 does against that would do it here.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/reduce.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

#if ARCHITECTURE >= 800

constexpr int tile = 64, threads = 128, row_bytes = 2 * tile;

__device__ __forceinline__ int swizzled(int row, int piece) { return row * row_bytes + (piece ^ row % 8) * 16; }

extern "C" __global__ void __launch_bounds__(threads) gram_04_mma(const bf16* __restrict__ features,
                                                                  float* __restrict__ out, float* __restrict__ partials,
                                                                  unsigned* __restrict__ arrived, int pixels,
                                                                  int channels) {
    if (blockIdx.x < blockIdx.y) return;
    SHARED(unsigned char, shared, [2 * tile * row_bytes]);
    const ptx::SharedAddress rows_at = ptx::shared_address(shared), columns_at = rows_at + tile * row_bytes;
    const int first_row = blockIdx.y * tile, first_column = blockIdx.x * tile;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
    const int slice = blockIdx.z, slices = gridDim.z, k_tiles = (pixels + tile - 1) / tile;
    float sums[2][4][4] = {};
    for (int k_tile = k_tiles * slice / slices; k_tile < k_tiles * (slice + 1) / slices; ++k_tile) {
        for (int load = threadIdx.x; load < tile * 8; load += threads) {
            const int row = load / 8, piece = load % 8, p = k_tile * tile + row;
            const bf16* source = p < pixels ? &features[p * channels + piece * 8] : features;
            ptx::cp_async_16(rows_at + swizzled(row, piece), source + first_row, p < pixels);
            ptx::cp_async_16(columns_at + swizzled(row, piece), source + first_column, p < pixels);
        }
        ptx::cp_async_commit();
        ptx::cp_async_wait<0>();
        __syncthreads();
#pragma unroll
        for (int p = 0; p < tile; p += 16) {
            uint32_t a[2][4], b[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {  // matrices: channels 0-7, 8-15 of pixels 0-7, then of pixels 8-15
                const int row = p + lane / 16 * 8 + lane % 8, channel = warp_row + m * 16 + lane / 8 % 2 * 8;
                ptx::ldmatrix_x4_transposed(a[m], rows_at + swizzled(row, channel / 8));
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {  // matrices: pixels 0-7, 8-15 of channels 0-7, then of channels 8-15
                const int row = p + lane / 8 % 2 * 8 + lane % 8, channel = warp_column + n * 16 + lane / 16 * 8;
                ptx::ldmatrix_x4_transposed(b[n], columns_at + swizzled(row, channel / 8));
            }
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    const uint32_t pair[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
                    ptx::mma_m16n8k16(bf16{}, sums[m][n], a[m], pair);
                }
            }
        }
        __syncthreads();
    }
    const auto row_of = [&](int m, int i) { return first_row + warp_row + m * 16 + lane / 4 + i / 2 * 8; };
    const auto column_of = [&](int n, int i) { return first_column + warp_column + n * 8 + lane % 4 * 2 + i % 2; };
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                partials[(slice * channels + row_of(m, i)) * channels + column_of(n, i)] = sums[m][n][i];
    if (!last_to_arrive(&arrived[blockIdx.y * gridDim.x + blockIdx.x], slices)) return;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int k = row_of(m, i), column = column_of(n, i);
                float sum = 0.0f;
                for (int s = 0; s < slices; ++s) sum += __ldcg(&partials[(s * channels + k) * channels + column]);
                out[k * channels + column] = sum / pixels;
                if (blockIdx.x != blockIdx.y) out[column * channels + k] = sum / pixels;
            }
        }
    }
}

#endif
