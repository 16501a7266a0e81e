// cp.async.bulk.tensor: boxes that the copy engine (TMA) loads and stores, for sm_90a. On the emulator emulator/ptx/tma.cuh takes
// its place. tests/kernels/emulator/test_ptx_sm90.py has a small kernel of them.
#pragma once

#include "common/tensor_map.cuh"
#include "ptx/mbarrier.cuh"

#ifdef HAS_WGMMA

namespace ptx {

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Loads the map's box at these coordinates, zeros outside; its bytes count towards the barrier's phase. One lane.
__device__ __forceinline__ void tma_load_3d(unsigned to, const TensorMap& map, unsigned barrier,
                                            const Coordinates& at) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(to),
        "l"(&map), "r"(barrier), "r"(at.x), "r"(at.y), "r"(at.z)
        : "memory");
}

// Stores a box at these coordinates, what lies outside is left out. The lane that issues it commits and waits for it.
__device__ __forceinline__ void tma_store_3d(const TensorMap& map, unsigned from, const Coordinates& at) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
                 "r"(from), "r"(at.x), "r"(at.y), "r"(at.z)
                 : "memory");
}
__device__ __forceinline__ void tma_store_commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until no more than `pending` of the lane's groups have still to read shared memory.
template <int pending>
__device__ __forceinline__ void tma_store_wait_group_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

// By whoever has written shared memory that the copy engine is to read, before the barrier that tells it so.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace ptx

#endif
