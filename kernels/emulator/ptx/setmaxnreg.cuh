// The host's version of kernels/cuda/ptx/setmaxnreg.cuh: nothing to pass on.
#pragma once

#include "common/platform.cuh"

namespace ptx {

template <int registers>
__forceinline__ void reg_dealloc() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}
template <int registers>
__forceinline__ void reg_alloc() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}

}  // namespace ptx
