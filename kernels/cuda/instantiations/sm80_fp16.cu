// The kernels of sm80_16bit.cuh for fp16, whose products begin with sm_75: three bits more of every number than bf16,
// and a range that ends at 65504 above and 6e-8 below.
#define ELEMENT fp16
#define ELEMENT_ARCHITECTURE 750
#define NAME(of_bf16, of_fp16) of_fp16
#include "instantiations/sm80_16bit.cuh"
