// The kernels of sm90_16bit.cuh for fp16. Tested by tests/kernels/cuda/conv3x3/test_wgmma_sm90.py.
#define ELEMENT fp16
#define NAME(of_bf16, of_fp16) of_fp16
#include "instantiations/sm90_16bit.cuh"
