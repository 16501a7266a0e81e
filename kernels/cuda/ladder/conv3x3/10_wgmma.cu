// Rung 10: Hopper. New: wgmma, whose operands stay in shared memory; the copy engine (TMA); mbarriers; warps with jobs.
//
// One wgmma.m64n64k16 of a warpgroup (four warps) multiplies 64 pixels x 16 channels by 64 output channels, straight from
// shared memory and asynchronously: no ldmatrix, no fragments but the sums'. One thread asks the copy engine for a box
// of x or filters; it computes the addresses, fills in zeros beyond the edges and swizzles as it writes.
//
//     warps 0-3   pixels 0..63    of the box    wait for full[s] -> 12 wgmma -> arrive at empty[s]
//     warps 4-7   pixels 64..127  of the box    the same
//     warp 8      lane 0                        wait for empty[s] -> ask for stage s, which fills full[s]
//
// The box is 8 pixels wide, 16 high and 64 channels deep, loaded with a row more above and below. Eight pixels of 128
// bytes are one period of the swizzle, 1024 bytes, so the box serves three vertical taps: one further down begins 1024
// bytes further on. A stage is such a box, shifted for one horizontal tap, and three taps of 64 filters.
//
// Bound by the tensor cores, and by the pauses between tiles: a block fills its pipeline, and stores, while they rest.
// The product's own kernel (../../conv3x3/wgmma_sm90.cuh) has persistent blocks, whose next tile is loaded while the
// last is stored, 128 channels a tile, and stores through the copy engine.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/cvt.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

#ifdef HAS_WGMMA

namespace layout = wgmma_sm90;

constexpr int consumers = 2, tile_channels = 64, stages = 4;
constexpr int filter_bytes = tile_channels * layout::row_bytes;  // of a tap
constexpr int stage_bytes = layout::box_bytes + 3 * filter_bytes;
constexpr int shared_bytes = stages * stage_bytes + 2 * stages * 8;  // of a launch

extern "C" __global__ void __launch_bounds__(consumers* layout::group_threads + 32) conv3x3_10_wgmma(
    const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap filters, const float* __restrict__ bias,
    bf16* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned boxes = ptx::shared_address_32(shared), full = boxes + stages * stage_bytes;
    const unsigned empty = full + stages * 8;
    const int across = (width + layout::box_width - 1) / layout::box_width;
    const int top = blockIdx.x / across * layout::box_height, left = blockIdx.x % across * layout::box_width;
    const int first_channel = blockIdx.y * tile_channels, steps = 3 * channels_in / layout::block_k;
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < stages; ++stage) {
            ptx::mbarrier_init(full + stage * 8, 1);
            ptx::mbarrier_init(empty + stage * 8, consumers * layout::warps_per_group);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads();

    layout::Ring<stages> ring;
    if (warp == consumers * layout::warps_per_group) {  // the producer
        for (int step = 0; step < steps; ++step, ring.advance()) {
            ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
            if (threadIdx.x % 32 != 0) continue;
            const int c = step / 3 * layout::block_k, s = step % 3;
            const unsigned to = boxes + ring.stage * stage_bytes, barrier = full + ring.stage * 8;
            ptx::arrive_expect_tx(barrier, stage_bytes);
            ptx::tma_load_3d(to, x, barrier, {c, left + s - 1, top - 1});
            for (int r = 0; r < 3; ++r)
                ptx::tma_load_3d(to + layout::box_bytes + r * filter_bytes, filters, barrier,
                                 {c, r * 3 + s, first_channel});
        }
        return;
    }

    const int group = threadIdx.x / layout::group_threads, thread = threadIdx.x % layout::group_threads;
    float sums[32];
    for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
        const unsigned box = boxes + ring.stage * stage_bytes;
        ptx::wgmma_fence();
#pragma unroll
        for (int r = 0; r < 3; ++r) {
#pragma unroll
            for (int k = 0; k < layout::block_k / layout::mma_k; ++k)
                ptx::wgmma<bf16>(
                    sums, layout::matrix_descriptor(box + layout::block_offset(group, r, k)),
                    layout::matrix_descriptor(box + layout::box_bytes + r * filter_bytes + k * layout::mma_bytes),
                    step + r + k > 0);  // the very first begins from zero
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<0>();
        ptx::mbarrier_arrive(empty + ring.stage * 8);
    }
    ptx::wgmma_fence_accum(sums);
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        const int row = layout::accum_row(thread, i), y = top + group * layout::block_rows + row / layout::box_width;
        const int to = left + row % layout::box_width, k = first_channel + layout::accum_column(thread, i);
        if (y < height && to < width)
            *reinterpret_cast<uint32_t*>(&out[(y * width + to) * channels_out + k]) =
                ptx::pack<bf16>(fmaxf(sums[i] + bias[k], 0.0f), fmaxf(sums[i + 1] + bias[k + 1], 0.0f));
    }
}

#endif
