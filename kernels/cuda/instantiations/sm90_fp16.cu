// The kernels of sm90_16bit.cuh for fp16.
#define ELEMENT fp16
#define NAME(of_bf16, of_fp16) of_fp16
#include "instantiations/sm90_16bit.cuh"
