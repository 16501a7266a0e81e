// One small product whose first operand is in registers: 64 rows by 64 columns by 16, of fp16. With `overwritten` a
// register changes before the product has been waited for, and test_ptx_sm90.py sees that the emulator shows it.
#include "common/tensor_map.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/ld_shared.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

using namespace wgmma_sm90;

extern "C" __global__ void __launch_bounds__(128, 1) register_product(const uint32_t* __restrict__ a,
                                                                      const __grid_constant__ TensorMap filters,
                                                                      float* out, float* first, int overwritten) {
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned base = ptx::shared_address_32(shared), full = base + 8192;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(full, 1);
        ptx::fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::arrive_expect_tx(full, 8192);
        ptx::tma_load_3d(base, filters, full, {0, 0, 0});
    }
    __syncwarp();
    uint32_t registers[4];
    for (int i = 0; i < 4; ++i) registers[i] = a[threadIdx.x * 4 + i];
    float accum[32];
    for (int i = 0; i < 32; ++i) accum[i] = i;
    ptx::mbarrier_wait(full, 0);
    const float4 four = ptx::load_shared_128(base);
    ptx::wgmma_fence();
    ptx::wgmma_from_registers(accum, registers[0], registers[1], registers[2], registers[3], matrix_descriptor(base),
                              1);
    ptx::wgmma_commit_group();
    if (overwritten) registers[overwritten - 1] = 0;
    ptx::wgmma_wait_group<0>();
    for (int i = 0; i < 32; ++i) out[threadIdx.x * 32 + i] = accum[i];
    if (threadIdx.x == 0) *reinterpret_cast<float4*>(first) = four;
}
