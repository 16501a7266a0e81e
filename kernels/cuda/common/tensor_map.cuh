// What the copy engine (TMA) is told of an array, as a kernel's argument, and of the box of it that a load takes.
// Tested by tests/kernels/emulator/test_ptx_sm90.py and tests/kernels/cuda/conv3x3/test_wgmma_sm90.py.
#pragma once

#include "common/platform.cuh"

// What the driver's cuTensorMapEncodeTiled makes (kernels/cuda/runtime/tensor_map.py asks it), or for the emulator: the
// address, three sizes, two pitches in bytes, three sizes of the box, and a mark.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

struct Coordinates {  // of a box's first element, innermost dimension first; they may be negative
    int x, y, z;
};
