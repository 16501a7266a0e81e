// prefetch: has L2 fetch a line of memory that will be read, waiting for nothing. On the emulator
// emulator/ptx/prefetch.cuh takes its place. tests/kernels/cuda/conv3x3/test_wgmma_fp32_sm90.py runs kernels that do.
#pragma once

#include "common/platform.cuh"

namespace ptx {

__device__ __forceinline__ void prefetch_l2(const void* address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace ptx
