// ldmatrix: the fragments of products, from rows in shared memory.
// On the emulator emulator/ptx/ldmatrix.cuh takes its place. tests/kernels/emulator/test_ptx.py runs each function
// alone.
#pragma once

#include "ptx/address.cuh"

namespace ptx {

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

}  // namespace ptx
