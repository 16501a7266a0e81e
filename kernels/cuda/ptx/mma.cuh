// mma.sync: products of a warp's tensor cores, called as their instructions are. sm_75 has fp16 products of half the
// depth: there mma_m16n8k16 is two of them. bf16 and tf32 begin with sm_80. On the emulator emulator/ptx/mma.cuh takes
// its place. tests/kernels/emulator/test_ptx.py runs each function alone.
#pragma once

#include "common/element.cuh"

namespace ptx {

// accum := accum + A B for the warp, A 16 x 8 or 16 x 16, B of that depth x 8, accumulated in fp32. The first argument
// only names the kind of numbers.
__device__ __forceinline__ void mma_m16n8k8(fp16, float (&accum)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(accum[0]), "+f"(accum[1]), "+f"(accum[2]), "+f"(accum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

#define MMA(shape, kind, type)                                                                               \
    __device__                                                                                               \
    __forceinline__ void mma_##shape(type, float(&accum)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) { \
        asm volatile("mma.sync.aligned." #shape ".row.col.f32." kind "." kind                                \
                     ".f32 "                                                                                 \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                       \
                     : "+f"(accum[0]), "+f"(accum[1]), "+f"(accum[2]), "+f"(accum[3])                        \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                    \
    }
#if ARCHITECTURE >= 800
MMA(m16n8k16, "f16", fp16)
MMA(m16n8k16, "bf16", bf16)
MMA(m16n8k8, "tf32", tf32)
#else
__device__ __forceinline__ void mma_m16n8k16(fp16, float (&accum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const uint32_t first_a[2] = {a[0], a[1]}, second_a[2] = {a[2], a[3]}, first_b[1] = {b[0]}, second_b[1] = {b[1]};
    mma_m16n8k8(fp16{}, accum, first_a, first_b);
    mma_m16n8k8(fp16{}, accum, second_a, second_b);
}
#endif
#undef MMA

}  // namespace ptx
