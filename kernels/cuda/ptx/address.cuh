// Addresses in shared memory as numbers to compute with, which is how instructions take them. Tested with the
// instructions, in tests/kernels/emulator/test_ptx.py.
#pragma once

#include "common/platform.cuh"

namespace ptx {

using SharedAddress = uint32_t;  // a byte of shared memory, to compute with

__device__ __forceinline__ SharedAddress shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace ptx
