// The host's version of kernels/cuda/ptx/cvt.cuh: the same roundings.
#pragma once

#include "common/element.cuh"

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
    if (rest < 0x38800000)
        return {uint16_t(sign | (bit_cast<uint32_t>(rounded(bit_cast<float>(rest) + 0.5f)) & 0x7ff))};
    return {uint16_t(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13)};
}

}  // namespace emulator

namespace ptx {

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

}  // namespace ptx
