// The 16-bit numbers that memory holds, and names for what tensor cores multiply. Conversions are in ptx/cvt.cuh, and
// tests/kernels/emulator/test_ptx.py holds both to exact rounding.
#pragma once

#include "common/platform.cuh"

struct bf16 {  // the upper half of a float
    uint16_t bits;
};
struct fp16 {  // IEEE 754 binary16
    uint16_t bits;
};
struct tf32 {};  // a float of which tensor cores see 10 bits of the fraction; names a kind of product, holds nothing

template <class Element>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<bf16> = true;
