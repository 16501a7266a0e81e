// The host's version of kernels/cuda/ptx/prmt.cuh.
#pragma once

#include "common/platform.cuh"

namespace ptx {

__forceinline__ uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
    const uint64_t both = uint64_t{high} << 32 | low;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t nibble = selector >> 4 * i & 15, byte = uint32_t(both >> 8 * (nibble & 7)) & 0xff;
        result |= (nibble & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
    }
    return result;
}

}  // namespace ptx
