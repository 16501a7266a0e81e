// What every kernel source includes first: it makes one .cu file compile both for a GPU (NVRTC or nvcc) and
// for the emulator (the host's C++ compiler). Kernels are ordinary CUDA C++ in all but one respect:
//
//     SHARED(float, tile, [16][132]);      // instead of  __shared__ float tile[16][132];
//     SHARED(int, count, );                // a scalar has no dimensions
//     DYNAMIC_SHARED(float, staging);      // float* staging: the bytes that the launch asked for
//
// because the emulator keeps shared memory in an arena of the block's, reached through a reference. Arrays are
// aligned to 16 bytes (a float4), dynamic shared memory to 1024 (a 128-byte swizzle's period). A kernel is
//
//     extern "C" __global__ void __launch_bounds__(256) scale(const float* __restrict__ x, float* y, int n)
//
// and a templated one is a __device__ function called by such a wrapper (a macro may generate it). PTX is in the
// folder ptx, one family of instructions a header; for the host, emulator/ptx has headers of the same names. Tested by
// tests/kernels/emulator/test_emulator.py and tests/kernels/cuda/test_compile_gate.py.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

#define ARCHITECTURE __CUDA_ARCH__  // 800 for compute capability 8.0
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HAS_WGMMA  // and the copy engine, mbarriers and setmaxnreg: sm_90a alone
#endif
#define SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions
#define DYNAMIC_SHARED(type, name)                                          \
    extern __shared__ __align__(1024) unsigned char dynamic_shared_bytes[]; \
    type* const name = reinterpret_cast<type*>(dynamic_shared_bytes)

#ifdef __CUDACC_RTC__  // has no <cstdint>
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
using uintptr_t = unsigned long long;
#else
#include <cstdint>
#endif

#else

#ifndef ARCHITECTURE
#define ARCHITECTURE 900
#endif
#define HAS_WGMMA
#include "../../emulator/device.h"

#endif
