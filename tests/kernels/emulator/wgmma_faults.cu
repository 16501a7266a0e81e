// One small product, 64 pixels by 64 filters by `steps` times 64 channels, in the way of conv3x3/wgmma_sm90.cuh: a warp
// that loads and a warpgroup that multiplies, two stages. Without a fault it is right; with each of those below it is
// wrong in one place, and test_ptx_sm90.py sees that the emulator shows it. Beside it, one box after the other loaded,
// changed and stored, in the way of conv3x3/wgmma_epilogue_sm90.cuh; and stmatrix and prmt alone.
#include "common/element.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/prmt.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

using namespace wgmma_sm90;

enum Fault {
    none,
    no_wait_for_full,      // multiplies what may not have come
    no_wait_for_empty,     // loads over what is being multiplied
    released_too_early,    // gives a stage back before its products are done
    no_wait_for_products,  // reads sums that may not be there
    too_few_bytes,         // a phase that is complete before all of its loads
    too_many_bytes,        // a phase that is never complete
    no_fence,              // no wgmma.fence before a batch
    wrong_parity,          // waits for the phase before
    one_arrival_too_many,
    not_swizzled,  // a descriptor without the swizzle
    lanes_differ,  // a warp's lanes with different descriptors
    // of the copy
    no_wait_for_load,
    no_wait_for_store,  // loads over what is being stored
    not_committed,      // so that the wait is for nothing
    no_proxy_fence,     // the copy engine may not see what was written
};
constexpr int stages = 2, stage_bytes = 16384;

extern "C" __global__ void __launch_bounds__(160, 1) small_product(const __grid_constant__ TensorMap pixels,
                                                                   const __grid_constant__ TensorMap filters,
                                                                   float* out, int steps, int fault) {
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned base = ptx::shared_address_32(shared), barriers = base + stages * stage_bytes;
    const auto full = [=](int stage) { return barriers + 16 * stage; };
    const auto empty = [=](int stage) { return barriers + 16 * stage + 8; };
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < stages; ++stage) {
            ptx::mbarrier_init(full(stage), 1);
            ptx::mbarrier_init(empty(stage), 4);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads();
    const bool elected = threadIdx.x % 32 == 0;

    if (threadIdx.x >= 128) {
        for (int step = 0; step < steps; ++step) {
            const int stage = step % stages;
            const unsigned to = base + stage * stage_bytes;
            if (fault != no_wait_for_empty) ptx::mbarrier_wait(empty(stage), (step / stages & 1) ^ 1);
            if (elected) {
                const int bytes = fault == too_few_bytes ? 8192 : fault == too_many_bytes ? 16400 : 16384;
                ptx::arrive_expect_tx(full(stage), bytes);
                ptx::tma_load_3d(to, pixels, full(stage), {64 * step, 0, 0});
                ptx::tma_load_3d(to + 8192, filters, full(stage), {64 * step, 0, 0});
            }
        }
        return;
    }
    float accum[32];
    for (float& sum : accum) sum = 0;
    for (int step = 0; step < steps; ++step) {
        const int stage = step % stages;
        const unsigned parity = (step / stages & 1) ^ (fault == wrong_parity ? 1 : 0);
        if (fault != no_wait_for_full) ptx::mbarrier_wait(full(stage), parity);
        uint64_t desc_a = matrix_descriptor(base + stage * stage_bytes);
        const uint64_t desc_b = matrix_descriptor(base + stage * stage_bytes + 8192);
        if (fault == not_swizzled) desc_a &= ~(uint64_t{3} << 62);
        if (fault == lanes_differ && threadIdx.x % 32 == 5) desc_a = advance_descriptor(desc_a, 32);
        if (fault != no_fence) ptx::wgmma_fence();
        for (int k = 0; k < 4; ++k)
            ptx::wgmma<bf16>(accum, advance_descriptor(desc_a, k * mma_bytes),
                             advance_descriptor(desc_b, k * mma_bytes), step | k);
        ptx::wgmma_commit_group();
        if (fault == released_too_early) ptx::mbarrier_arrive(empty(stage));
        if (fault != no_wait_for_products || step + 1 < steps) ptx::wgmma_wait_group<0>();
        if (fault != released_too_early) ptx::mbarrier_arrive(empty(stage));
        if (fault == one_arrival_too_many) ptx::mbarrier_arrive(empty(stage));
    }
    for (int i = 0; i < 32; ++i) out[accum_row(threadIdx.x, i) * 64 + accum_column(threadIdx.x, i)] = accum[i];
}

// Adds one to the bits of every number, a box of 8 rows of 64 numbers at a time. One warp.
extern "C" __global__ void small_copy(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to,
                                      int boxes, int fault) {
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned box = ptx::shared_address_32(shared), barrier = box + 1024;
    const int lane = threadIdx.x;
    if (lane == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::fence_barrier_init();
    }
    __syncthreads();
    for (int i = 0; i < boxes; ++i) {
        if (lane == 0) {
            ptx::arrive_expect_tx(barrier, 1024);
            ptx::tma_load_3d(box, from, barrier, {0, 8 * i, 0});
        }
        if (fault != no_wait_for_load) ptx::mbarrier_wait(barrier, i & 1);
        for (int half = 0; half < 2; ++half) {
            // Chunks 4 half to 4 half + 3 of the eight rows.
            const int row = lane % 8, chunk = 4 * half + lane / 8;
            const ptx::SharedAddress at = ptx::shared_address(shared) + row * row_bytes + (chunk ^ row) * 16;
            uint32_t words[4];
            ptx::ldmatrix_x4(words, at);
            for (uint32_t& word : words) word += 0x10001;
            ptx::stmatrix_x4(at, words);
        }
        if (fault != no_proxy_fence) ptx::fence_proxy_async();
        __syncwarp();
        if (lane == 0) {
            ptx::tma_store_3d(to, box, {0, 8 * i, 0});
            if (fault != not_committed) ptx::tma_store_commit_group();
            if (fault != no_wait_for_store) ptx::tma_store_wait_group_read<0>();
        }
        __syncwarp();
    }
}

// Every lane's words to the rows that the lanes bring, in an order.
template <bool transposed>
__device__ void store(const uint32_t* words, const int* order, uint4* rows) {
    DYNAMIC_SHARED(uint4, held);
    const int lane = threadIdx.x;
    uint32_t sent[4];
    for (int i = 0; i < 4; ++i) sent[i] = words[4 * lane + i];
    const ptx::SharedAddress row = ptx::shared_address(&held[order[lane]]);
    if (transposed)
        ptx::stmatrix_x4_transposed(row, sent);
    else
        ptx::stmatrix_x4(row, sent);
    __syncwarp();
    rows[lane] = held[lane];
}
extern "C" __global__ void stmatrix(const uint32_t* words, const int* order, uint4* rows) {
    store<false>(words, order, rows);
}
extern "C" __global__ void stmatrix_transposed(const uint32_t* words, const int* order, uint4* rows) {
    store<true>(words, order, rows);
}

extern "C" __global__ void prmt(const uint32_t* low, const uint32_t* high, const uint32_t* selector, uint32_t* out) {
    out[threadIdx.x] = ptx::permute_bytes(low[threadIdx.x], high[threadIdx.x], selector[threadIdx.x]);
}
