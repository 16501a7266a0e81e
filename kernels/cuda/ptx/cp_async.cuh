// cp.async: asynchronous copies of a thread, from global to shared memory. sm_75 has none: there a copy has happened
// when the function returns. On the emulator emulator/ptx/cp_async.cuh takes its place.
// tests/kernels/emulator/test_ptx.py runs each function alone.
#pragma once

#include "ptx/address.cuh"

namespace ptx {

// 16 bytes from global to shared memory, past L1; zeros if they are not wanted, and then `from` may be anywhere. A lane
// sees what it has copied once it has waited; the others, once a barrier follows.
__device__ __forceinline__ void cp_async_16(SharedAddress to, const void* from, bool wanted) {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(wanted ? 16 : 0) : "memory");
#else
    const uint4 bytes = wanted ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(bytes.x), "r"(bytes.y), "r"(bytes.z),
                 "r"(bytes.w)
                 : "memory");
#endif
}

// The same of 4 bytes, by way of L1.
__device__ __forceinline__ void cp_async_4(SharedAddress to, const void* from, bool wanted) {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(wanted ? 4 : 0) : "memory");
#else
    const uint32_t word = wanted ? *static_cast<const uint32_t*>(from) : 0;
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
#endif
}

// Closes the group of the copies issued since the last one; waits until no more than the last `groups_left` are under
// way.
__device__ __forceinline__ void cp_async_commit() {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
#if ARCHITECTURE >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

}  // namespace ptx
