// The kernels of sm80_16bit.cuh for bf16, whose products begin with sm_80. Tested by
// tests/kernels/cuda/conv3x3/test_mma_sm80.py and tests/kernels/cuda/test_compile_sm80.py.
#define ELEMENT bf16
#define ELEMENT_ARCHITECTURE 800
#define NAME(of_bf16, of_fp16) of_bf16
#include "instantiations/sm80_16bit.cuh"
