// A pixel kept in [0, 1], as every optimizer's step ends. tests/kernels/cuda/elementwise/test_kernels.py runs the
// steps.
#pragma once

#include "common/platform.cuh"

// Not by min and max, which would turn a NaN into a colour and hide that a run has diverged.
__device__ __forceinline__ float clamped(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }
