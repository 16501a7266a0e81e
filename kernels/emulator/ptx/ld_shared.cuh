// The host's version of kernels/cuda/ptx/ld_shared.cuh. What the copy engine has brought is unknown to the checking
// build, so this is not watched: a load that comes too early shows as a wrong number, for loads are carried out late.
#pragma once

#include "ptx/sm90_state.cuh"

namespace ptx {

EMULATOR_UNCHECKED inline float4 load_shared_128(unsigned address) {
    const auto* const from =
        reinterpret_cast<const float*>(emulated::state().memory + (address - emulated::first_address));
    return {from[0], from[1], from[2], from[3]};
}

}  // namespace ptx
