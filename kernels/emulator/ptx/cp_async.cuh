// The host's version of kernels/cuda/ptx/cp_async.cuh: the runtime moves the bytes, when they are waited for.
#pragma once

#include "ptx/address.cuh"

namespace ptx {

__forceinline__ void cp_async_16(SharedAddress to, const void* from, bool wanted, EMULATOR_SITE) {
    if (ARCHITECTURE >= 800) return emulator::copy_async(reinterpret_cast<void*>(to), from, 16, wanted ? 16 : 0, site);
    *reinterpret_cast<uint4*>(to) = wanted ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}
__forceinline__ void cp_async_4(SharedAddress to, const void* from, bool wanted, EMULATOR_SITE) {
    if (ARCHITECTURE >= 800) return emulator::copy_async(reinterpret_cast<void*>(to), from, 4, wanted ? 4 : 0, site);
    *reinterpret_cast<uint32_t*>(to) = wanted ? *static_cast<const uint32_t*>(from) : 0;
}
__forceinline__ void cp_async_commit() { emulator::commit_copies(); }
template <int groups_left>
__forceinline__ void cp_async_wait() {
    emulator::wait_for_copies(groups_left);
}

}  // namespace ptx
