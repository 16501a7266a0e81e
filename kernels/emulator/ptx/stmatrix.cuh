// The host's version of kernels/cuda/ptx/stmatrix.cuh. A row is written by the lanes that have its numbers, each its
// own, so the checking build sees who writes what; it also reports rows that share banks. What has been written is
// noted for the copy engine, which must not read it before a fence.
#pragma once

#include "ptx/address.cuh"
#include "ptx/sm90_state.cuh"

namespace ptx {

__forceinline__ void stmatrix_x4(SharedAddress row, const uint32_t (&from)[4], EMULATOR_SITE) {
    emulator::MatrixRows all;
    emulator::exchange_rows("stmatrix", reinterpret_cast<const char*>(row), all, site);
    const unsigned lane = emulator::lane();
    for (unsigned i = 0; i < 4; ++i) {
        char* const to = const_cast<char*>(all.rows[8 * i + lane / 4]) + lane % 4 * 4;
        *reinterpret_cast<volatile uint32_t*>(to) = from[i];
        emulated::note_write(to, 4);
    }
}

__forceinline__ void stmatrix_x4_transposed(SharedAddress row, const uint32_t (&from)[4], EMULATOR_SITE) {
    emulator::MatrixRows all;
    emulator::exchange_rows("stmatrix", reinterpret_cast<const char*>(row), all, site);
    const unsigned lane = emulator::lane();
    for (unsigned i = 0; i < 4; ++i)
        for (unsigned k = 0; k < 2; ++k) {
            char* const to = const_cast<char*>(all.rows[8 * i + lane % 4 * 2 + k]) + lane / 4 * 2;
            *reinterpret_cast<volatile uint16_t*>(to) = uint16_t(from[i] >> 16 * k);
            emulated::note_write(to, 2);
        }
}

}  // namespace ptx
