// cvt: 16-bit numbers and tf32 from floats, and back.
// On the emulator emulator/ptx/cvt.cuh takes its place. tests/kernels/emulator/test_ptx.py runs each function alone.
#pragma once

#include "common/element.cuh"

namespace ptx {

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
#if ARCHITECTURE >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("{\n\t.reg .b16 low, high;\n\t"
        "cvt.rn.f16.f32 low, %1;\n\tcvt.rn.f16.f32 high, %2;\n\tmov.b32 %0, {low, high};\n\t}"
        : "=r"(pair)
        : "f"(low), "f"(high));
#endif
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

}  // namespace ptx
