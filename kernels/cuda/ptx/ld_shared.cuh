// ld.shared: what the copy engine has brought to shared memory, to registers, by the same addresses, for sm_90a. On the
// emulator emulator/ptx/ld_shared.cuh takes its place.
// tests/kernels/cuda/conv3x3/test_wgmma_fp32_sm90.py runs kernels that read so.
#pragma once

#include "ptx/mbarrier.cuh"

#ifdef HAS_WGMMA

namespace ptx {

// 16 bytes, from a multiple of 16; never moved to before a wait for a barrier.
__device__ __forceinline__ float4 load_shared_128(unsigned address) {
    float4 four;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(four.x), "=f"(four.y), "=f"(four.z), "=f"(four.w)
                 : "r"(address)
                 : "memory");
    return four;
}

}  // namespace ptx

#endif
