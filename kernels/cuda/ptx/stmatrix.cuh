// stmatrix: the fragments of products, to rows in shared memory, for sm_90a. On the emulator emulator/ptx/stmatrix.cuh
// takes its place. tests/kernels/emulator/test_ptx.py runs each function alone.
#pragma once

#include "ptx/address.cuh"

#ifdef HAS_WGMMA

namespace ptx {

// What ldmatrix_x4 reads, the other way about: four 8x8 matrices of 16-bit numbers, lane 8 i + r brings the address of
// row r of matrix i, and word i of lane 4 g + t has numbers 2 t and 2 t + 1 of row g of matrix i. Transposed: numbers g
// of rows 2 t and 2 t + 1.
__device__ __forceinline__ void stmatrix_x4(SharedAddress row, const uint32_t (&from)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(from[0]),
                 "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}
__device__ __forceinline__ void stmatrix_x4_transposed(SharedAddress row, const uint32_t (&from)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(from[0]),
                 "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}

}  // namespace ptx

#endif
