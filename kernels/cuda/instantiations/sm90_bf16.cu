// The kernels of sm90_16bit.cuh for bf16. Tested by tests/kernels/cuda/conv3x3/test_wgmma_sm90.py.
#define ELEMENT bf16
#define NAME(of_bf16, of_fp16) of_bf16
#include "instantiations/sm90_16bit.cuh"
ROUND_GRAM_ERROR_WGMMA_SM90(round_gram_error_wgmma_sm90_bf16, bf16)
