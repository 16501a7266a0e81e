// mbarrier: barriers in shared memory that count arrivals and loaded bytes, for sm_90a. On the emulator
// emulator/ptx/mbarrier.cuh takes its place. tests/kernels/emulator/test_ptx_sm90.py has a small kernel of them.
#pragma once

#include "ptx/address.cuh"

#ifdef HAS_WGMMA

namespace ptx {

// A byte of dynamic shared memory as barriers, boxes and descriptors are known by. On the emulator, too, it has 32
// bits.
__device__ __forceinline__ unsigned shared_address_32(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// A phase is complete after so many arrivals, and when all the bytes expected in it have been loaded.
__device__ __forceinline__ void mbarrier_init(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// After all mbarrier_init and before __syncthreads: for the copy engine too, they have happened.
__device__ __forceinline__ void fence_barrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// One arrival of a warp, which calls it as a whole.
__device__ __forceinline__ void mbarrier_arrive(unsigned barrier) {
    if (threadIdx.x % 32 == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// One lane's arrival.
__device__ __forceinline__ void arrive_expect_tx(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ bool is_complete(unsigned barrier, unsigned parity) {
    unsigned complete;
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"  // sleeps a while if it is not
        "selp.u32 %0, 1, 0, complete;\n"
        "}\n"
        : "=r"(complete)
        : "r"(barrier), "r"(parity)
        : "memory");
    return complete;
}

__device__ __forceinline__ uint64_t nanoseconds() {
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

// Until the phase of this parity is complete; the phase before the first counts as complete and has parity 1. A warp
// calls it as a whole. A wait of ten seconds can only be a fault of ours: better an error than a GPU that hangs.
__device__ __forceinline__ void mbarrier_wait(unsigned barrier, unsigned parity) {
    if (is_complete(barrier, parity)) return;
    const uint64_t start = nanoseconds();
    while (!is_complete(barrier, parity))
        if (nanoseconds() - start > 10'000'000'000) __trap();
}

}  // namespace ptx

#endif
