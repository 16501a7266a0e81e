// The host's version of kernels/cuda/ptx/mma.cuh: the same fragments, and sums as emulator/ptx.cpp says. A collective
// here is all 32 lanes', as .aligned asks. -DARCHITECTURE=750 takes the older GPUs' road.
#pragma once

#include "common/element.cuh"

namespace ptx {

__forceinline__ void mma_m16n8k8(fp16, float (&accum)[4], const uint32_t (&a)[2], const uint32_t (&b)[1],
                                 EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::fp16, 8, accum, a, b, site);
}
#if ARCHITECTURE >= 800
__forceinline__ void mma_m16n8k16(fp16, float (&accum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::fp16, 16, accum, a, b, site);
}
__forceinline__ void mma_m16n8k16(bf16, float (&accum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::bf16, 16, accum, a, b, site);
}
__forceinline__ void mma_m16n8k8(tf32, float (&accum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::tf32, 8, accum, a, b, site);
}
#else
__forceinline__ void mma_m16n8k16(fp16, float (&accum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const uint32_t first_a[2] = {a[0], a[1]}, second_a[2] = {a[2], a[3]}, first_b[1] = {b[0]}, second_b[1] = {b[1]};
    mma_m16n8k8(fp16{}, accum, first_a, first_b);
    mma_m16n8k8(fp16{}, accum, second_a, second_b);
}
#endif

}  // namespace ptx
