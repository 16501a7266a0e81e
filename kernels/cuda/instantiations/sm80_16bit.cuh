// Everything between an image and its gradient in 16-bit numbers, sums in float32: the convolutions
// (conv3x3/mma_sm80.cuh), the first layer's (conv3x3/rgb_mma_sm80.cuh), what is between them on the way back
// (elementwise/pooling_16bit.cuh), Grams (gram/mma_sm80.cuh), means and costs (costs/terms_16bit.cuh), nearest
// neighbors (neighbors/mma_sm80.cuh, neighbors_simt.cuh), and the products of the sliced distance
// (sliced/products.cuh). Tested by tests/kernels/cuda/test_device_16bit.py, and by the tests that the headers name.
//
// sm80_bf16.cu and sm80_fp16.cu include this once each, with
//
//     ELEMENT                   the numbers' type
//     ELEMENT_ARCHITECTURE      the first GPU whose tensor cores know it; an older one gets what needs none
//     NAME(of_bf16, of_fp16)    that of the two which is this type's: so every kernel's name is spelled here in full
#include "conv3x3/mma_sm80.cuh"
#include "conv3x3/rgb_mma_sm80.cuh"
#include "costs/terms_16bit.cuh"
#include "elementwise/pooling_16bit.cuh"
#include "gram/mma_sm80.cuh"
#include "neighbors/mma_sm80.cuh"
#include "neighbors/neighbors_simt.cuh"
#include "sliced/products.cuh"

#if ARCHITECTURE >= ELEMENT_ARCHITECTURE
CONV3X3_RELU_MMA_SM80(NAME(conv3x3_relu_mma_sm80_bf16_128x128, conv3x3_relu_mma_sm80_fp16_128x128),
                      mma_sm80::Half<ELEMENT>, mma_sm80::Tile128x128)
CONV3X3_RELU_MMA_SM80(NAME(conv3x3_relu_mma_sm80_bf16_256x64, conv3x3_relu_mma_sm80_fp16_256x64),
                      mma_sm80::Half<ELEMENT>, mma_sm80::Tile256x64)
CONV3X3_RELU_MMA_SM80(NAME(conv3x3_relu_mma_sm80_bf16_128x64, conv3x3_relu_mma_sm80_fp16_128x64),
                      mma_sm80::Half<ELEMENT>, mma_sm80::Tile128x64)
CONV3X3_RELU_RGB_MMA_SM80(NAME(conv3x3_relu_mma_sm80_bf16_rgb, conv3x3_relu_mma_sm80_fp16_rgb), ELEMENT)
CONV3X3_INPUT_GRADIENT_MMA_SM80(NAME(conv3x3_input_gradient_mma_sm80_bf16_128x128,
                                     conv3x3_input_gradient_mma_sm80_fp16_128x128),
                                mma_sm80::Half<ELEMENT>, mma_sm80::Tile128x128)
CONV3X3_INPUT_GRADIENT_MMA_SM80(NAME(conv3x3_input_gradient_mma_sm80_bf16_256x64,
                                     conv3x3_input_gradient_mma_sm80_fp16_256x64),
                                mma_sm80::Half<ELEMENT>, mma_sm80::Tile256x64)
CONV3X3_INPUT_GRADIENT_MMA_SM80(NAME(conv3x3_input_gradient_mma_sm80_bf16_128x64,
                                     conv3x3_input_gradient_mma_sm80_fp16_128x64),
                                mma_sm80::Half<ELEMENT>, mma_sm80::Tile128x64)
CONV3X3_INPUT_GRADIENT_RGB_MMA_SM80(NAME(conv3x3_input_gradient_mma_sm80_bf16_rgb,
                                         conv3x3_input_gradient_mma_sm80_fp16_rgb),
                                    ELEMENT)
GRAM_MMA_SM80(NAME(gram_mma_sm80_bf16_128x128, gram_mma_sm80_fp16_128x128), mma_sm80::Half<ELEMENT>, 128)
GRAM_MMA_SM80(NAME(gram_mma_sm80_bf16_64x64, gram_mma_sm80_fp16_64x64), mma_sm80::Half<ELEMENT>, 64)
PACK_GRAM_ERROR_MMA_SM80(NAME(pack_gram_error_mma_sm80_bf16, pack_gram_error_mma_sm80_fp16), ELEMENT, true)
STYLE_GRADIENT_MMA_SM80(NAME(style_gradient_mma_sm80_bf16_128x128, style_gradient_mma_sm80_fp16_128x128),
                        mma_sm80::Half<ELEMENT>, 128)
STYLE_GRADIENT_MMA_SM80(NAME(style_gradient_mma_sm80_bf16_128x64, style_gradient_mma_sm80_fp16_128x64),
                        mma_sm80::Half<ELEMENT>, 64)
#endif
#if ARCHITECTURE >= 800  // whose copies run ahead
NEAREST_NEIGHBORS_MMA_SM80(NAME(nearest_neighbors_mma_sm80_bf16_128x128, nearest_neighbors_mma_sm80_fp16_128x128),
                           mma_sm80::Half<ELEMENT>, 128)
NEAREST_NEIGHBORS_MMA_SM80(NAME(nearest_neighbors_mma_sm80_bf16_64x128, nearest_neighbors_mma_sm80_fp16_64x128),
                           mma_sm80::Half<ELEMENT>, 64)
CANDIDATE_OFFSETS(NAME(candidate_offsets_bf16, candidate_offsets_fp16), ELEMENT)
NEAREST_OF_KEPT(NAME(nearest_of_kept_bf16, nearest_of_kept_fp16), ELEMENT)
#endif
CONV3X3_RELU_SPLIT_K_SUM(NAME(conv3x3_relu_mma_sm80_bf16_split_k_sum, conv3x3_relu_mma_sm80_fp16_split_k_sum), ELEMENT)
CONV3X3_INPUT_GRADIENT_SPLIT_K_SUM(NAME(conv3x3_input_gradient_mma_sm80_bf16_split_k_sum,
                                        conv3x3_input_gradient_mma_sm80_fp16_split_k_sum),
                                   ELEMENT)
POOL_16BIT(NAME(max_pool_bf16, max_pool_fp16), ELEMENT, true)
POOL_16BIT(NAME(average_pool_bf16, average_pool_fp16), ELEMENT, false)
POOL_INPUT_GRADIENT_16BIT(NAME(max_pool_input_gradient_bf16, max_pool_input_gradient_fp16), ELEMENT, true)
POOL_INPUT_GRADIENT_16BIT(NAME(average_pool_input_gradient_bf16, average_pool_input_gradient_fp16), ELEMENT, false)
RELU_GRADIENT_16BIT(NAME(relu_gradient_bf16, relu_gradient_fp16), ELEMENT)
MEAN_16BIT(NAME(mean_bf16, mean_fp16), ELEMENT)
CONTENT_COST_16BIT(NAME(content_cost_bf16, content_cost_fp16), ELEMENT)
CONTENT_COST_AND_GRADIENT_16BIT(NAME(content_cost_and_gradient_bf16, content_cost_and_gradient_fp16), ELEMENT)
CONTENT_GRADIENT_16BIT(NAME(content_gradient_bf16, content_gradient_fp16), ELEMENT)
PROJECT(NAME(project_bf16, project_fp16), ELEMENT)
SLICED_GRADIENT(NAME(sliced_gradient_bf16, sliced_gradient_fp16), ELEMENT)
NORMALIZE_FEATURES(NAME(normalize_features_bf16, normalize_features_fp16), ELEMENT, true)
NEAREST_NEIGHBORS_SIMT(NAME(nearest_neighbors_simt_bf16, nearest_neighbors_simt_fp16), ELEMENT, true)
NEIGHBORS_COST(NAME(neighbors_cost_bf16, neighbors_cost_fp16), ELEMENT, true)
NEIGHBORS_GRADIENT(NAME(neighbors_gradient_bf16, neighbors_gradient_fp16), ELEMENT, true)
