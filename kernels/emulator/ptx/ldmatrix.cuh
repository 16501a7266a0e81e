// The host's version of kernels/cuda/ptx/ldmatrix.cuh. A row that it is given is read by the lanes that receive it,
// each its own four bytes, so the checking build sees who needs what of whom; it also reports rows that share banks,
// which a GPU would only be slow at.
#pragma once

#include "ptx/address.cuh"

namespace ptx {

// Volatile: all is read, used or not.
__forceinline__ void ldmatrix_x4(uint32_t (&to)[4], SharedAddress row, EMULATOR_SITE) {
    emulator::MatrixRows all;
    emulator::exchange_rows("ldmatrix", reinterpret_cast<const char*>(row), all, site);
    const unsigned lane = emulator::lane();
    for (unsigned i = 0; i < 4; ++i)
        to[i] = *reinterpret_cast<const volatile uint32_t*>(all.rows[8 * i + lane / 4] + lane % 4 * 4);
}

__forceinline__ void ldmatrix_x4_transposed(uint32_t (&to)[4], SharedAddress row, EMULATOR_SITE) {
    emulator::MatrixRows all;
    emulator::exchange_rows("ldmatrix", reinterpret_cast<const char*>(row), all, site);
    const unsigned lane = emulator::lane();
    for (unsigned i = 0; i < 4; ++i) {
        const char* const* const first = all.rows + 8 * i + lane % 4 * 2;
        const uint32_t low = *reinterpret_cast<const volatile uint16_t*>(first[0] + lane / 4 * 2);
        const uint32_t high = *reinterpret_cast<const volatile uint16_t*>(first[1] + lane / 4 * 2);
        to[i] = low | high << 16;
    }
}

}  // namespace ptx
