// The kernels of sm80_16bit.cuh for bf16, whose products begin with sm_80.
#define ELEMENT bf16
#define ELEMENT_ARCHITECTURE 800
#define NAME(of_bf16, of_fp16) of_bf16
#include "instantiations/sm80_16bit.cuh"
