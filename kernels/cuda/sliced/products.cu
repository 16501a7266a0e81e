// The products of products.cuh with features in float32, of any number of channels; instantiations/sm80_16bit.cuh has
// those in 16 bits.
#include "sliced/products.cuh"

PROJECT(project_fp32, float)
SLICED_GRADIENT(sliced_gradient_fp32, float)
