// The convolutions of hopper_convolution.cuh for bf16 activations and filters. A file of its own, so that both types
// are compiled at the same time.
#include "hopper_convolution.cuh"

HOPPER_KERNELS(bf16)
