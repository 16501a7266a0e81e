// The products of products.cuh with features in float32, of any number of channels; instantiations/sm80_16bit.cuh has
// those in 16 bits. Tested by tests/kernels/cuda/sliced/test_sliced.py.
#include "sliced/products.cuh"

PROJECT(project_fp32, float)
SLICED_GRADIENT(sliced_gradient_fp32, float)
