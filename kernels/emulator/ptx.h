// The host's versions of what cuda/common/ptx_sm80.cuh has: the same names, the same fragments, the same order of events. Tensor
// cores multiply as ptx.cpp says; asynchronous copies are the runtime's. tests/kernels/test_ptx.py has the layouts
// against brute force.
//
// A collective here is all 32 lanes', as .aligned asks. A row that ldmatrix is given is read by the lanes that receive
// it, each its own four bytes, so the checking build sees who needs what of whom; it also reports rows that share banks,
// which a GPU would only be slow at.
#pragma once

#include "device.h"

namespace emulator {

// What the arrays are that a kernel takes such numbers from: NumPy has a float16, and bf16 are the bits in uint16.
template <>
constexpr char kind_of<bf16> = 'i';
template <>
constexpr char kind_of<fp16> = 'f';

__forceinline__ float float_of(bf16 x) { return bit_cast<float>(uint32_t{x.bits} << 16); }

// To nearest, of two equally near the even one; a NaN stays one.
__forceinline__ bf16 to_bf16(float x) {
    const auto bits = bit_cast<uint32_t>(x);
    if (x != x) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

__forceinline__ float float_of(fp16 x) {
    const uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
    if (rest >= 0x7c00) return bit_cast<float>(sign | 0x7f800000 | rest << 13);  // infinite, or no number
    const float scaled = bit_cast<float>(rest << 13) * 0x1p112f;                 // subnormals too: a power of two
    return bit_cast<float>(sign | bit_cast<uint32_t>(scaled));
}

__forceinline__ fp16 to_fp16(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (x != x) return {uint16_t(sign | 0x7fff)};
    if (rest >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and more round to infinity
    // 2^-14 is the least normal number: below it the last bit stands for 2^-24, which this addition rounds to.
    if (rest < 0x38800000) return {uint16_t(sign | (bit_cast<uint32_t>(rounded(bit_cast<float>(rest) + 0.5f)) & 0x7ff))};
    return {uint16_t(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13)};
}

}  // namespace emulator

namespace ptx {

using SharedAddress = uintptr_t;

__forceinline__ SharedAddress shared_address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

// ------------------------------------------------------------------------------------------------- 16-bit numbers

template <class T>
__forceinline__ uint32_t pack(float low, float high) {
    if constexpr (std::is_same_v<T, bf16>)
        return emulator::to_bf16(low).bits | uint32_t{emulator::to_bf16(high).bits} << 16;
    else
        return emulator::to_fp16(low).bits | uint32_t{emulator::to_fp16(high).bits} << 16;
}

template <class T>
__forceinline__ float2 unpack(uint32_t pair) {
    return {emulator::float_of(T{uint16_t(pair)}), emulator::float_of(T{uint16_t(pair >> 16)})};
}

// To nearest, of two equally near the one further from zero.
__forceinline__ uint32_t round_to_tf32(float x) {
    const auto bits = emulator::bit_cast<uint32_t>(x);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;
}

// ------------------------------------------------------------------------------------------------- tensor cores

__forceinline__ void mma_m16n8k8(fp16, float (&sums)[4], const uint32_t (&a)[2], const uint32_t (&b)[1],
                                 EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::fp16, 8, sums, a, b, site);
}
#if ARCHITECTURE >= 800
__forceinline__ void mma_m16n8k16(fp16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::fp16, 16, sums, a, b, site);
}
__forceinline__ void mma_m16n8k16(bf16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::bf16, 16, sums, a, b, site);
}
__forceinline__ void mma_m16n8k8(tf32, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 EMULATOR_SITE) {
    emulator::multiply_add(emulator::Number::tf32, 8, sums, a, b, site);
}
#endif

// Volatile: all is read, used or not.
__forceinline__ void ldmatrix_x4(uint32_t (&to)[4], SharedAddress row, EMULATOR_SITE) {
    emulator::MatrixRows all;
    emulator::exchange_rows(reinterpret_cast<const char*>(row), all, site);
    const unsigned lane = emulator::lane();
    for (unsigned i = 0; i < 4; ++i)
        to[i] = *reinterpret_cast<const volatile uint32_t*>(all.rows[8 * i + lane / 4] + lane % 4 * 4);
}

__forceinline__ void ldmatrix_x4_transposed(uint32_t (&to)[4], SharedAddress row, EMULATOR_SITE) {
    emulator::MatrixRows all;
    emulator::exchange_rows(reinterpret_cast<const char*>(row), all, site);
    const unsigned lane = emulator::lane();
    for (unsigned i = 0; i < 4; ++i) {
        const char* const* const first = all.rows + 8 * i + lane % 4 * 2;
        const uint32_t low = *reinterpret_cast<const volatile uint16_t*>(first[0] + lane / 4 * 2);
        const uint32_t high = *reinterpret_cast<const volatile uint16_t*>(first[1] + lane / 4 * 2);
        to[i] = low | high << 16;
    }
}

// ------------------------------------------------------------------------------------------- asynchronous copies

__forceinline__ void cp_async_16(SharedAddress to, const void* from, bool wanted, EMULATOR_SITE) {
    if (ARCHITECTURE >= 800) return emulator::copy_async(reinterpret_cast<void*>(to), from, 16, wanted ? 16 : 0, site);
    *reinterpret_cast<uint4*>(to) = wanted ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}
__forceinline__ void cp_async_4(SharedAddress to, const void* from, bool wanted, EMULATOR_SITE) {
    if (ARCHITECTURE >= 800) return emulator::copy_async(reinterpret_cast<void*>(to), from, 4, wanted ? 4 : 0, site);
    *reinterpret_cast<uint32_t*>(to) = wanted ? *static_cast<const uint32_t*>(from) : 0;
}
__forceinline__ void cp_async_commit() { emulator::commit_copies(); }
template <int groups_left>
__forceinline__ void cp_async_wait() { emulator::wait_for_copies(groups_left); }

}  // namespace ptx
