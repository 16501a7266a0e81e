// The same as instantiations/sm80_bf16.cu in fp16, for sm_75 and later: three bits more of every number, and a range that ends at
// 65504 above and 6e-8 below.
#include "conv3x3/mma_sm80.cuh"
#include "costs/terms_16bit.cuh"
#include "conv3x3/rgb_mma_sm80.cuh"
#include "gram/mma_sm80.cuh"
#include "elementwise/pooling_16bit.cuh"

#if ARCHITECTURE >= 750
TENSOR_CONVOLUTION(tensor_fp16, tensor::Half<fp16>, 128x128, tensor::Tile128x128)
TENSOR_CONVOLUTION(tensor_fp16, tensor::Half<fp16>, 256x64, tensor::Tile256x64)
TENSOR_CONVOLUTION(tensor_fp16, tensor::Half<fp16>, 128x64, tensor::Tile128x64)
TENSOR_ENDS(tensor_fp16, fp16)
TENSOR_GRAM(tensor_fp16, tensor::Half<fp16>, 128)
TENSOR_GRAM(tensor_fp16, tensor::Half<fp16>, 64)
TENSOR_DIFFERENCE(tensor_fp16, fp16, true)
TENSOR_STYLE_GRADIENT(tensor_fp16, tensor::Half<fp16>, 128)
TENSOR_STYLE_GRADIENT(tensor_fp16, tensor::Half<fp16>, 64)
#endif
TENSOR_CONVOLUTION_SLICES(tensor_fp16, fp16)
TENSOR_POOL(tensor_fp16, fp16)
TENSOR_COSTS(tensor_fp16, fp16)
