// The 3x3 convolution with zero padding and its input gradient on FFMA, float32. Rung 2 of README.md's ladder.
//
// An implicit matrix product: pixels x (taps, channels) times filters. The gradient with respect to the input is the
// same product with flipped filters, so there is one main loop (common/gemm_simt.cuh), one loader of windows and two
// epilogues (conv3x3/implicit_gemm_simt.cuh). A forward launch computes relu(conv + bias) and whichever of activations,
// mask bits, pool and argmaxes are wanted; a backward launch accumulates and masks.
//
//        8 channels of a tap      N = 128, 64 or 32 output channels
//          +--------+            +----------------------+
//          | pixels |  k = 8     |  8 rows of filters   |
//    M =   | of 2x2 |            +-----+-----+-----+----+
//    128   | pool   |            | 64  |     |     |    |   a warp holds 64x32 sums,
//    pix-  | win-   |            | x32 |     |     |    |   a thread 8x8 of them:
//    els   | dows   |            +-----+-----+-----+----+   rows r..r+3 and r+32..r+35,
//          |        |            |     |     |     |    |   columns c..c+3 and c+16..c+19
//          +--------+            +-----+-----+-----+----+
//
// Small maps split the sum over taps and channels among blocks (gridDim.z) and add the parts in order in a second
// launch. Bound by FFMA: 88% of what is issued in the main loop of 128x128 are FFMA, and an H100 reaches 82 to 87% of
// the fp32 rate from conv1_2 to conv4_4 (benchmarks/results/h100_2026-11-26.md). launch_simt.py chooses tiles and packs
// the filters; tests/kernels/cuda/conv3x3/test_simt.py runs every kernel of this file alone, in the emulator, against
// float64. The first layer, from and to three channels, is in conv3x3/rgb_simt.cu.
#include "conv3x3/implicit_gemm_simt.cuh"

#define CONV3X3_RELU_SIMT(name, Tile, vector)                                                                       \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                          \
        const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,             \
        float* __restrict__ out, uint8_t* __restrict__ relu_mask, float* __restrict__ pooled,                       \
        uint8_t* __restrict__ pool_argmax, void* __restrict__ partials, int height, int width, int channels_in,     \
        int channels_out, int pitch, int next_row, int next_channels, int average) {                                \
        simt::convolve<Tile, 9, vector>(x, {height, width, channels_in}, {next_row, next_channels}, filters, pitch, \
                                        {height, width, channels_out},                                              \
                                        simt::ReluPoolEpilogue{bias, out, relu_mask, pooled, pool_argmax, average}, \
                                        static_cast<float*>(partials));                                             \
    }

#define CONV3X3_INPUT_GRADIENT_SIMT(name, Tile, vector)                                                             \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) name(                          \
        const float* __restrict__ gradient, const float* __restrict__ filters, float* __restrict__ out,             \
        const uint8_t* __restrict__ relu_mask, void* __restrict__ partials, int height, int width, int channels_in, \
        int channels_out, int pitch, int next_row, int next_channels, int accumulate) {                             \
        simt::convolve<Tile, 9, vector>(gradient, {height, width, channels_in}, {next_row, next_channels}, filters, \
                                        pitch, {height, width, channels_out},                                       \
                                        simt::MaskEpilogue{out, relu_mask, accumulate},                             \
                                        static_cast<float*>(partials));                                             \
    }

// The tile is pixels x output channels. Of the input gradient "in" and "out" are those of the product, not of the
// layer. `any` loads channels one by one, for counts that are no multiple of four.
CONV3X3_RELU_SIMT(conv3x3_relu_simt_128x128, simt::Tile128x128, true)
CONV3X3_RELU_SIMT(conv3x3_relu_simt_128x64, simt::Tile128x64, true)
CONV3X3_RELU_SIMT(conv3x3_relu_simt_128x32, simt::Tile128x32, true)
CONV3X3_RELU_SIMT(conv3x3_relu_simt_128x64_any, simt::Tile128x64, false)
CONV3X3_INPUT_GRADIENT_SIMT(conv3x3_input_gradient_simt_128x128, simt::Tile128x128, true)
CONV3X3_INPUT_GRADIENT_SIMT(conv3x3_input_gradient_simt_128x64, simt::Tile128x64, true)
CONV3X3_INPUT_GRADIENT_SIMT(conv3x3_input_gradient_simt_128x32, simt::Tile128x32, true)
CONV3X3_INPUT_GRADIENT_SIMT(conv3x3_input_gradient_simt_128x64_any, simt::Tile128x64, false)

extern "C" __global__ void __launch_bounds__(256) conv3x3_relu_simt_split_k_sum(
    const void* __restrict__ partials, const float* __restrict__ bias, float* __restrict__ out,
    uint8_t* __restrict__ relu_mask, float* __restrict__ pooled, uint8_t* __restrict__ pool_argmax, int split_k,
    int rows, int height, int width, int channels, int average) {
    simt::add_partials(static_cast<const float*>(partials), split_k, rows, {height, width, channels},
                       simt::ReluPoolEpilogue{bias, out, relu_mask, pooled, pool_argmax, average});
}

extern "C" __global__ void __launch_bounds__(256) conv3x3_input_gradient_simt_split_k_sum(
    const void* __restrict__ partials, float* __restrict__ out, const uint8_t* __restrict__ relu_mask, int split_k,
    int rows, int height, int width, int channels, int accumulate) {
    simt::add_partials(static_cast<const float*>(partials), split_k, rows, {height, width, channels},
                       simt::MaskEpilogue{out, relu_mask, accumulate});
}
