// The kernels of sm80_16bit.cuh for fp16, whose products begin with sm_75: three bits more of every number than bf16,
// and a range that ends at 65504 above and 6e-8 below. Tested by tests/kernels/cuda/conv3x3/test_mma_sm80.py and
// tests/kernels/cuda/test_compile_sm80.py.
#define ELEMENT fp16
#define ELEMENT_ARCHITECTURE 750
#define NAME(of_bf16, of_fp16) of_fp16
#include "instantiations/sm80_16bit.cuh"
