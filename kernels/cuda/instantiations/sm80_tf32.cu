// Convolutions of float32 activations on tensor cores, for sm_80 and later: rounded to tf32, or 3xTF32, as exact as
// fp32. What else a network needs in float32 is in conv3x3/rgb_simt.cu and elementwise/pooling.cu, which work on the same arrays.
#include "conv3x3/mma_sm80.cuh"
#include "gram/mma_sm80.cuh"

#if ARCHITECTURE >= 800
TENSOR_CONVOLUTION(tensor_tf32, tensor::Tf32, 128x128, tensor::Tile128x128)
TENSOR_CONVOLUTION(tensor_tf32, tensor::Tf32, 256x64, tensor::Tile256x64)
TENSOR_CONVOLUTION(tensor_tf32, tensor::Tf32, 128x64, tensor::Tile128x64)
TENSOR_CONVOLUTION(tensor_3xtf32, tensor::SplitTf32, 128x128, tensor::Narrow128x128)
TENSOR_CONVOLUTION(tensor_3xtf32, tensor::SplitTf32, 256x64, tensor::Narrow256x64)
TENSOR_CONVOLUTION(tensor_3xtf32, tensor::SplitTf32, 128x64, tensor::Narrow128x64)
TENSOR_GRAM(tensor_tf32, tensor::RoundedTf32, 128)
TENSOR_GRAM(tensor_tf32, tensor::RoundedTf32, 64)
TENSOR_DIFFERENCE(tensor_tf32, float, true)
TENSOR_STYLE_GRADIENT(tensor_tf32, tensor::Tf32, 128)
TENSOR_STYLE_GRADIENT(tensor_tf32, tensor::Tf32, 64)
TENSOR_GRAM(tensor_3xtf32, tensor::SplitTf32, 64)
TENSOR_DIFFERENCE(tensor_3xtf32, float, false)
TENSOR_STYLE_GRADIENT(tensor_3xtf32, tensor::SplitTf32, 128)
TENSOR_STYLE_GRADIENT(tensor_3xtf32, tensor::SplitTf32, 64)
#endif
TENSOR_CONVOLUTION_SLICES(tensor_fp32, float)
