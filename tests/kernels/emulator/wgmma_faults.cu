// One small product, 64 pixels by 64 filters by `steps` times 64 channels, in the way of conv3x3/wgmma_sm90.cuh: a warp
// that loads and a warpgroup that multiplies, two stages. Without a fault it is right; with each of those below it is
// wrong in one place, and test_ptx_sm90.py sees that the emulator shows it.
#include "common/element.cuh"
#include "common/tensor_map.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/mbarrier.cuh"
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
