// Everything between an image and its gradient in bf16, sums in float32, for sm_80 and later: the convolutions
// (conv3x3/mma_sm80.cuh), a network's two ends (conv3x3/rgb_mma_sm80.cuh), what is between them on the way back
// (elementwise/pooling_16bit.cuh), means and costs (costs/terms_16bit.cuh). Older GPUs get the kernels that need no tensor cores, which
// nobody launches there.
#include "conv3x3/mma_sm80.cuh"
#include "costs/terms_16bit.cuh"
#include "conv3x3/rgb_mma_sm80.cuh"
#include "gram/mma_sm80.cuh"
#include "elementwise/pooling_16bit.cuh"

#if ARCHITECTURE >= 800
TENSOR_CONVOLUTION(tensor_bf16, tensor::Half<bf16>, 128x128, tensor::Tile128x128)
TENSOR_CONVOLUTION(tensor_bf16, tensor::Half<bf16>, 256x64, tensor::Tile256x64)
TENSOR_CONVOLUTION(tensor_bf16, tensor::Half<bf16>, 128x64, tensor::Tile128x64)
TENSOR_ENDS(tensor_bf16, bf16)
TENSOR_GRAM(tensor_bf16, tensor::Half<bf16>, 128)
TENSOR_GRAM(tensor_bf16, tensor::Half<bf16>, 64)
TENSOR_DIFFERENCE(tensor_bf16, bf16, true)
TENSOR_STYLE_GRADIENT(tensor_bf16, tensor::Half<bf16>, 128)
TENSOR_STYLE_GRADIENT(tensor_bf16, tensor::Half<bf16>, 64)
#endif
TENSOR_CONVOLUTION_SLICES(tensor_bf16, bf16)
TENSOR_POOL(tensor_bf16, bf16)
TENSOR_COSTS(tensor_bf16, bf16)
