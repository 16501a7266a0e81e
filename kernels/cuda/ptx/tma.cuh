// cp.async.bulk.tensor: boxes that the copy engine (TMA) loads, for sm_90a. On the emulator emulator/ptx/tma.cuh takes
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

}  // namespace ptx

#endif
