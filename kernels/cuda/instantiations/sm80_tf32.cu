// Convolutions of float32 activations on tensor cores, for sm_80 and later: rounded to tf32, or 3xTF32, as exact as
// fp32. What else a network needs in float32 is in conv3x3/rgb_simt.cu and elementwise/pooling.cu, which work on the
// same arrays. Tested by tests/kernels/cuda/conv3x3/test_mma_sm80.py and tests/kernels/cuda/test_compile_sm80.py.
#include "conv3x3/mma_sm80.cuh"
#include "gram/mma_sm80.cuh"
#include "neighbors/mma_sm80.cuh"

#if ARCHITECTURE >= 800
CONV3X3_RELU_MMA_SM80(conv3x3_relu_mma_sm80_tf32_128x128, mma_sm80::Tf32, mma_sm80::Tile128x128)
CONV3X3_RELU_MMA_SM80(conv3x3_relu_mma_sm80_tf32_256x64, mma_sm80::Tf32, mma_sm80::Tile256x64)
CONV3X3_RELU_MMA_SM80(conv3x3_relu_mma_sm80_tf32_128x64, mma_sm80::Tf32, mma_sm80::Tile128x64)
CONV3X3_INPUT_GRADIENT_MMA_SM80(conv3x3_input_gradient_mma_sm80_tf32_128x128, mma_sm80::Tf32, mma_sm80::Tile128x128)
CONV3X3_INPUT_GRADIENT_MMA_SM80(conv3x3_input_gradient_mma_sm80_tf32_256x64, mma_sm80::Tf32, mma_sm80::Tile256x64)
CONV3X3_INPUT_GRADIENT_MMA_SM80(conv3x3_input_gradient_mma_sm80_tf32_128x64, mma_sm80::Tf32, mma_sm80::Tile128x64)
CONV3X3_RELU_MMA_SM80(conv3x3_relu_mma_sm80_3xtf32_128x128, mma_sm80::Tf32x3, mma_sm80::Narrow128x128)
CONV3X3_RELU_MMA_SM80(conv3x3_relu_mma_sm80_3xtf32_256x64, mma_sm80::Tf32x3, mma_sm80::Narrow256x64)
CONV3X3_RELU_MMA_SM80(conv3x3_relu_mma_sm80_3xtf32_128x64, mma_sm80::Tf32x3, mma_sm80::Narrow128x64)
CONV3X3_INPUT_GRADIENT_MMA_SM80(conv3x3_input_gradient_mma_sm80_3xtf32_128x128, mma_sm80::Tf32x3,
                                mma_sm80::Narrow128x128)
CONV3X3_INPUT_GRADIENT_MMA_SM80(conv3x3_input_gradient_mma_sm80_3xtf32_256x64, mma_sm80::Tf32x3, mma_sm80::Narrow256x64)
CONV3X3_INPUT_GRADIENT_MMA_SM80(conv3x3_input_gradient_mma_sm80_3xtf32_128x64, mma_sm80::Tf32x3, mma_sm80::Narrow128x64)
GRAM_MMA_SM80(gram_mma_sm80_tf32_128x128, mma_sm80::RoundedTf32, 128)
GRAM_MMA_SM80(gram_mma_sm80_tf32_64x64, mma_sm80::RoundedTf32, 64)
PACK_GRAM_ERROR_MMA_SM80(pack_gram_error_mma_sm80_tf32, float, true)
STYLE_GRADIENT_MMA_SM80(style_gradient_mma_sm80_tf32_128x128, mma_sm80::Tf32, 128)
STYLE_GRADIENT_MMA_SM80(style_gradient_mma_sm80_tf32_128x64, mma_sm80::Tf32, 64)
GRAM_MMA_SM80(gram_mma_sm80_3xtf32_64x64, mma_sm80::Tf32x3, 64)
PACK_GRAM_ERROR_MMA_SM80(pack_gram_error_mma_sm80_3xtf32, float, false)
STYLE_GRADIENT_MMA_SM80(style_gradient_mma_sm80_3xtf32_128x128, mma_sm80::Tf32x3, 128)
STYLE_GRADIENT_MMA_SM80(style_gradient_mma_sm80_3xtf32_128x64, mma_sm80::Tf32x3, 64)
NEAREST_NEIGHBORS_MMA_SM80(nearest_neighbors_mma_sm80_tf32_128x128, mma_sm80::RoundedTf32, 128)
NEAREST_NEIGHBORS_MMA_SM80(nearest_neighbors_mma_sm80_tf32_64x128, mma_sm80::RoundedTf32, 64)
CANDIDATE_OFFSETS(candidate_offsets_tf32, float)
NEAREST_OF_KEPT(nearest_of_kept_tf32, float)
#endif
CONV3X3_RELU_SPLIT_K_SUM(conv3x3_relu_mma_sm80_fp32_split_k_sum, float)
CONV3X3_INPUT_GRADIENT_SPLIT_K_SUM(conv3x3_input_gradient_mma_sm80_fp32_split_k_sum, float)
