// prmt: bytes of two words put together anew. On the emulator emulator/ptx/prmt.cuh takes its place.
// tests/kernels/emulator/test_ptx.py runs each function alone.
#pragma once

#include "common/platform.cuh"

namespace ptx {

// Byte i of the result is named by bits 4 i to 4 i + 2 of the selector, 0-3 of `low` and 4-7 of `high`; where bit
// 4 i + 3 is set, it is that byte's highest bit, eight times.
__device__ __forceinline__ uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
    uint32_t result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
    return result;
}

}  // namespace ptx
