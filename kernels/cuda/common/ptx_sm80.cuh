// The instructions that CUDA C++ has no word for, each in a device version and, for the emulator, a host version
// (emulator/ptx.h): tensor-core products, the matrix loads that feed them, asynchronous copies into shared memory, and
// the 16-bit numbers and roundings that belong to them. No PTX is anywhere else. Functions are called as their
// instructions are, and whoever calls them must know those; tests/kernels/test_ptx.py runs each alone.
//
// sm_75 has fp16 products of half the depth and no asynchronous copies: there mma_m16n8k16 is two of its products, and
// a copy has happened when cp_async_16 returns. bf16 and tf32 begin with sm_80. The emulator takes these roads with
// -DARCHITECTURE=750.
#pragma once

#include "common/platform.cuh"

struct bf16 {  // the upper half of a float
    uint16_t bits;
};
struct fp16 {  // IEEE 754 binary16
    uint16_t bits;
};
struct tf32 {};  // a float of which tensor cores see 10 bits of the fraction; names a kind of product, holds nothing

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)

#include "../../emulator/ptx.h"

#else

namespace ptx {

using SharedAddress = uint32_t;  // a byte of shared memory, to compute with

__device__ __forceinline__ SharedAddress shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ------------------------------------------------------------------------------------------------ 16-bit numbers

// Two numbers in 32 bits, the first in the lower half, rounded to nearest (of two equally near to the even one).
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <class T>
__device__ __forceinline__ float2 unpack(uint32_t pair);

template <>
__device__ __forceinline__ uint32_t pack<bf16>(float low, float high) {
#if ARCHITECTURE >= 800
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    const auto round = [](float x) {
        const uint32_t bits = __float_as_uint(x);
        return x != x ? 0x7fffu : bits + 0x7fff + (bits >> 16 & 1) >> 16;
    };
    return round(low) | round(high) << 16;
#endif
}

template <>
__device__ __forceinline__ float2 unpack<bf16>(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000));
}

template <>
__device__ __forceinline__ uint32_t pack<fp16>(float low, float high) {
    uint32_t pair;
    asm("{\n\t.reg .b16 low, high;\n\t"
        "cvt.rn.f16.f32 low, %1;\n\tcvt.rn.f16.f32 high, %2;\n\tmov.b32 %0, {low, high};\n\t}"
        : "=r"(pair)
        : "f"(low), "f"(high));
    return pair;
}

template <>
__device__ __forceinline__ float2 unpack<fp16>(uint32_t pair) {
    float2 values;
    asm("{\n\t.reg .b16 low, high;\n\t"
        "mov.b32 {low, high}, %2;\n\tcvt.f32.f16 %0, low;\n\tcvt.f32.f16 %1, high;\n\t}"
        : "=f"(values.x), "=f"(values.y)
        : "r"(pair));
    return values;
}

// To nearest, of two equally near the one further from zero.
__device__ __forceinline__ uint32_t round_to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// -------------------------------------------------------------------------------------------------- tensor cores

// sums := sums + A B for the warp, A 16 x 8 or 16 x 16, B of that depth x 8, accumulated in fp32. The first argument
// only names the kind of numbers.
__device__ __forceinline__ void mma_m16n8k8(fp16, float (&sums)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

#define MMA(shape, kind, type)                                                                                     \
    __device__ __forceinline__ void mma_##shape(type, float (&sums)[4], const uint32_t (&a)[4],                    \
                                                const uint32_t (&b)[2]) {                                          \
        asm volatile("mma.sync.aligned." #shape ".row.col.f32." kind "." kind ".f32 "                              \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                             \
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                          \
    }
#if ARCHITECTURE >= 800
MMA(m16n8k16, "f16", fp16)
MMA(m16n8k16, "bf16", bf16)
MMA(m16n8k8, "tf32", tf32)
#endif
#undef MMA

// Four 8x8 matrices of 16-bit numbers (or 8x4 of 32 bits): lane 8 i + r brings the address of row r of matrix i, and
// word i of lane 4 g + t gets numbers 2 t and 2 t + 1 of row g of matrix i. Transposed: numbers g of rows 2 t, 2 t + 1.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&to)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&to)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

// -------------------------------------------------------------------------------------------- asynchronous copies

// 16 bytes from global to shared memory, past L1; zeros if they are not wanted, and then `from` may be anywhere. A lane
// sees what it has copied once it has waited; the others, once a barrier follows.
__device__ __forceinline__ void cp_async_16(SharedAddress to, const void* from, bool wanted) {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(wanted ? 16 : 0) : "memory");
#else
    const uint4 bytes = wanted ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(bytes.x), "r"(bytes.y), "r"(bytes.z),
                 "r"(bytes.w)
                 : "memory");
#endif
}

// The same of 4 bytes, by way of L1.
__device__ __forceinline__ void cp_async_4(SharedAddress to, const void* from, bool wanted) {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(wanted ? 4 : 0) : "memory");
#else
    const uint32_t word = wanted ? *static_cast<const uint32_t*>(from) : 0;
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
#endif
}

// Closes the group of the copies issued since the last one; waits until no more than the last `groups_left` are under
// way.
__device__ __forceinline__ void cp_async_commit() {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

}  // namespace ptx

#endif

namespace ptx {

#if ARCHITECTURE < 800
__device__ __forceinline__ void mma_m16n8k16(fp16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const uint32_t first_a[2] = {a[0], a[1]}, second_a[2] = {a[2], a[3]}, first_b[1] = {b[0]}, second_b[1] = {b[1]};
    mma_m16n8k8(fp16{}, sums, first_a, first_b);
    mma_m16n8k8(fp16{}, sums, second_a, second_b);
}
#endif

}  // namespace ptx
