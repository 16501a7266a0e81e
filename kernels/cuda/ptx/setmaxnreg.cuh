// setmaxnreg: registers passed from one warpgroup to another, for sm_90a. On the emulator emulator/ptx/setmaxnreg.cuh
// takes its place. tests/kernels/emulator/test_ptx_sm90.py has a small kernel of them.
#pragma once

#include "common/platform.cuh"

#ifdef HAS_WGMMA

namespace ptx {

// Every warp of a warpgroup.
template <int registers>
__device__ __forceinline__ void reg_dealloc() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void reg_alloc() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace ptx

#endif
