// The convolutions of conv3x3/wgmma_sm90.cuh for fp16 activations and filters, and the Gram matrix of gram/wgmma_sm90.cuh.
// A file of its own, so that both types are compiled at the same time.
#include "conv3x3/wgmma_sm90.cuh"
#include "gram/wgmma_sm90.cuh"

HOPPER_KERNELS(fp16)
HOPPER_GRAM_KERNELS(fp16)
