// wgmma: products of a warpgroup's tensor cores, whose operands are in shared memory and described by descriptors
// (conv3x3/wgmma_layout.cuh), for sm_90a. On the emulator emulator/ptx/wgmma.cuh takes its place.
// tests/kernels/emulator/test_ptx_sm90.py has a small kernel of them.
#pragma once

#include "common/element.cuh"

#ifdef HAS_WGMMA

namespace ptx {

// Before the first product of a batch: the accumulators' registers are as they should be.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until no more than `pending` of the warp's batches are under way.
template <int pending>
__device__ __forceinline__ void wgmma_wait_group() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// After the last wait, before anyone reads the accumulators: to the compiler they have changed only now.
template <int count>
__device__ __forceinline__ void wgmma_fence_accum(float (&accum)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) asm volatile("" : "+f"(accum[i])::"memory");
}

// After a register of the first operand was computed and before the fence of its batch: that is where it is computed.
__device__ __forceinline__ void wgmma_fence_operand(uint32_t& a) { asm volatile("" : "+r"(a)::"memory"); }

#define WGMMA_ACCUM4(i) "+f"(accum[i]), "+f"(accum[i + 1]), "+f"(accum[i + 2]), "+f"(accum[i + 3])
#define WGMMA_ACCUM16(i) WGMMA_ACCUM4(i), WGMMA_ACCUM4(i + 4), WGMMA_ACCUM4(i + 8), WGMMA_ACCUM4(i + 12)
#define WGMMA_REGISTERS32                                                                                            \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
    "%30,%31"
#define WGMMA_REGISTERS64                                                                                           \
    WGMMA_REGISTERS32                                                                                               \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58," \
    "%59,%60,%61,%62,%63"
#define WGMMA(shape, type, names, a, b, add, mn_major)                                                             \
    "{\n.reg .pred add;\nsetp.ne.b32 add, " add                                                                    \
    ", 0;\n"                                                                                                       \
    "wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" names "}, " a ", " b ", add, 1, 1, " mn_major \
    ", " mn_major ";\n}\n"

// accum := A B^T [+ accum], asynchronously: 64 rows by 64 or 128 columns, 16 deep. `mn_major`: both operands lie so,
// else K-major.
template <class Element, bool mn_major = false>
__device__ __forceinline__ void wgmma(float (&accum)[32], uint64_t a, uint64_t b, int add) {
    if constexpr (is_bf16<Element>)
        asm volatile(WGMMA("m64n64k16", "bf16", WGMMA_REGISTERS32, "%32", "%33", "%34", "%35")
                     : WGMMA_ACCUM16(0), WGMMA_ACCUM16(16)
                     : "l"(a), "l"(b), "r"(add), "n"(int(mn_major)));
    else
        asm volatile(WGMMA("m64n64k16", "f16", WGMMA_REGISTERS32, "%32", "%33", "%34", "%35")
                     : WGMMA_ACCUM16(0), WGMMA_ACCUM16(16)
                     : "l"(a), "l"(b), "r"(add), "n"(int(mn_major)));
}
template <class Element, bool mn_major = false>
__device__ __forceinline__ void wgmma(float (&accum)[64], uint64_t a, uint64_t b, int add) {
    if constexpr (is_bf16<Element>)
        asm volatile(WGMMA("m64n128k16", "bf16", WGMMA_REGISTERS64, "%64", "%65", "%66", "%67")
                     : WGMMA_ACCUM16(0), WGMMA_ACCUM16(16), WGMMA_ACCUM16(32), WGMMA_ACCUM16(48)
                     : "l"(a), "l"(b), "r"(add), "n"(int(mn_major)));
    else
        asm volatile(WGMMA("m64n128k16", "f16", WGMMA_REGISTERS64, "%64", "%65", "%66", "%67")
                     : WGMMA_ACCUM16(0), WGMMA_ACCUM16(16), WGMMA_ACCUM16(32), WGMMA_ACCUM16(48)
                     : "l"(a), "l"(b), "r"(add), "n"(int(mn_major)));
}

#define WGMMA_FROM_REGISTERS(shape, names, a0, a1, a2, a3, b, add)                                         \
    "{\n.reg .pred add;\nsetp.ne.b32 add, " add                                                            \
    ", 0;\n"                                                                                               \
    "wgmma.mma_async.sync.aligned." shape ".f32.f16.f16 {" names "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " b \
    ", add, 1, 1, 0;\n}\n"

// The same for fp16 and a first operand in registers, which must not change until the product has been waited for: of
// lane l, in a pair each, rows l / 4 (a0, a2) and 8 more (a1, a3) of the warp's sixteen, places 2 (l % 4) and the next
// (a0, a1), and 8 more (a2, a3).
__device__ __forceinline__ void wgmma_from_registers(float (&accum)[32], const uint32_t& a0, const uint32_t& a1,
                                                     const uint32_t& a2, const uint32_t& a3, uint64_t b, int add) {
    asm volatile(WGMMA_FROM_REGISTERS("m64n64k16", WGMMA_REGISTERS32, "%32", "%33", "%34", "%35", "%36", "%37")
                 : WGMMA_ACCUM16(0), WGMMA_ACCUM16(16)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_from_registers(float (&accum)[64], const uint32_t& a0, const uint32_t& a1,
                                                     const uint32_t& a2, const uint32_t& a3, uint64_t b, int add) {
    asm volatile(WGMMA_FROM_REGISTERS("m64n128k16", WGMMA_REGISTERS64, "%64", "%65", "%66", "%67", "%68", "%69")
                 : WGMMA_ACCUM16(0), WGMMA_ACCUM16(16), WGMMA_ACCUM16(32), WGMMA_ACCUM16(48)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(add));
}

#undef WGMMA_FROM_REGISTERS
#undef WGMMA
#undef WGMMA_REGISTERS64
#undef WGMMA_REGISTERS32
#undef WGMMA_ACCUM16
#undef WGMMA_ACCUM4

}  // namespace ptx

#endif
