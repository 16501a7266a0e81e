// The kernels of sm90_16bit.cuh for bf16.
#define ELEMENT bf16
#define NAME(of_bf16, of_fp16) of_bf16
#include "instantiations/sm90_16bit.cuh"
