// The host's version of kernels/cuda/ptx/address.cuh: plain addresses.
#pragma once

#include "common/platform.cuh"

namespace ptx {

using SharedAddress = uintptr_t;

__forceinline__ SharedAddress shared_address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

}  // namespace ptx
