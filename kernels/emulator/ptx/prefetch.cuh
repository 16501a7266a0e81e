// The host's version of kernels/cuda/ptx/prefetch.cuh: it changes nothing that a kernel could see, but what is asked
// for has to be there.
#pragma once

#include "common/platform.cuh"

namespace ptx {

inline void prefetch_l2(const void* address) { (void)*static_cast<const volatile unsigned char*>(address); }

}  // namespace ptx
