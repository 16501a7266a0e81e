// The convolutions of conv3x3/wgmma_sm90.cuh and the Gram matrix of gram/wgmma_sm90.cuh for 16-bit numbers.
// sm90_bf16.cu and sm90_fp16.cu include this once each, with ELEMENT and NAME as in sm80_16bit.cuh, so that both types
// are compiled at the same time. The sources of one architecture are compiled for all: others get what adds up splits,
// and nothing else. Tested by tests/kernels/cuda/conv3x3/test_wgmma_sm90.py and
// tests/kernels/cuda/gram/test_wgmma_sm90.py.
#include "conv3x3/wgmma_sm90.cuh"
#include "gram/wgmma_sm90.cuh"

#ifdef HAS_WGMMA
CONV3X3_RELU_WGMMA_SM90(NAME(conv3x3_relu_wgmma_sm90_bf16_256x128, conv3x3_relu_wgmma_sm90_fp16_256x128), ELEMENT,
                        Tile256x128)
CONV3X3_RELU_WGMMA_SM90(NAME(conv3x3_relu_wgmma_sm90_bf16_128x128, conv3x3_relu_wgmma_sm90_fp16_128x128), ELEMENT,
                        Tile128x128)
CONV3X3_RELU_WGMMA_SM90(NAME(conv3x3_relu_wgmma_sm90_bf16_64x256, conv3x3_relu_wgmma_sm90_fp16_64x256), ELEMENT,
                        Tile64x256)
CONV3X3_RELU_WGMMA_SM90(NAME(conv3x3_relu_wgmma_sm90_bf16_64x256_resident,
                             conv3x3_relu_wgmma_sm90_fp16_64x256_resident),
                        ELEMENT, Tile64x256_resident)
CONV3X3_INPUT_GRADIENT_WGMMA_SM90(NAME(conv3x3_input_gradient_wgmma_sm90_bf16_256x128,
                                       conv3x3_input_gradient_wgmma_sm90_fp16_256x128),
                                  ELEMENT, Tile256x128)
CONV3X3_INPUT_GRADIENT_WGMMA_SM90(NAME(conv3x3_input_gradient_wgmma_sm90_bf16_128x128,
                                       conv3x3_input_gradient_wgmma_sm90_fp16_128x128),
                                  ELEMENT, Tile128x128)
CONV3X3_INPUT_GRADIENT_WGMMA_SM90(NAME(conv3x3_input_gradient_wgmma_sm90_bf16_64x256,
                                       conv3x3_input_gradient_wgmma_sm90_fp16_64x256),
                                  ELEMENT, Tile64x256)
CONV3X3_INPUT_GRADIENT_WGMMA_SM90(NAME(conv3x3_input_gradient_wgmma_sm90_bf16_64x256_resident,
                                       conv3x3_input_gradient_wgmma_sm90_fp16_64x256_resident),
                                  ELEMENT, Tile64x256_resident)
CONV3X3_UNPOOLED_GRADIENT_WGMMA_SM90(NAME(conv3x3_unpooled_gradient_wgmma_sm90_bf16_256x128,
                                          conv3x3_unpooled_gradient_wgmma_sm90_fp16_256x128),
                                     ELEMENT, Tile256x128_unpool)
CONV3X3_UNPOOLED_GRADIENT_WGMMA_SM90(NAME(conv3x3_unpooled_gradient_wgmma_sm90_bf16_128x128,
                                          conv3x3_unpooled_gradient_wgmma_sm90_fp16_128x128),
                                     ELEMENT, Tile128x128_unpool)
CONV3X3_UNPOOLED_GRADIENT_WGMMA_SM90(NAME(conv3x3_unpooled_gradient_wgmma_sm90_bf16_64x256,
                                          conv3x3_unpooled_gradient_wgmma_sm90_fp16_64x256),
                                     ELEMENT, Tile64x256_unpool)
CONV3X3_UNPOOLED_GRADIENT_SPLIT_K_SUM(NAME(conv3x3_unpooled_gradient_wgmma_sm90_bf16_split_k_sum,
                                           conv3x3_unpooled_gradient_wgmma_sm90_fp16_split_k_sum),
                                      ELEMENT)
GRAM_WGMMA_SM90(NAME(gram_wgmma_sm90_bf16_64x64, gram_wgmma_sm90_fp16_64x64), ELEMENT, GramTile64x64)
GRAM_WGMMA_SM90(NAME(gram_wgmma_sm90_bf16_128x128, gram_wgmma_sm90_fp16_128x128), ELEMENT, GramTile128x128)
#endif
CONV3X3_RELU_SPLIT_K_SUM(NAME(conv3x3_relu_wgmma_sm90_bf16_split_k_sum, conv3x3_relu_wgmma_sm90_fp16_split_k_sum),
                         ELEMENT)
CONV3X3_INPUT_GRADIENT_SPLIT_K_SUM(NAME(conv3x3_input_gradient_wgmma_sm90_bf16_split_k_sum,
                                        conv3x3_input_gradient_wgmma_sm90_fp16_split_k_sum),
                                   ELEMENT)
