// The convolutions of hopper_convolution.cuh for bf16 activations and filters, and the Gram matrix of hopper_gram.cuh.
// A file of its own, so that both types are compiled at the same time.
#include "hopper_convolution.cuh"
#include "hopper_gram.cuh"

HOPPER_KERNELS(bf16)
HOPPER_GRAM_KERNELS(bf16)
