// The first layer's convolution for networks in 16-bit numbers: forward from an image of three float32 channels, and
// the gradient back to it.
//
//     forward:   16x8 pixels x 64 channels a block, a warp two rows;     k = 9 of 16: a row of three taps x RGB,
//                the image is split into hi + lo, both multiplied                    neighbours in memory
//     backward:  16x16 pixels a block, a warp four rows, all channels;   n = 3 of 8 columns are used
//
// Both read and write every activation once and are bound by memory; tensor cores keep their 27 multiplications per sum
// out of the way. An H100 takes 27 and 18 us at 512 px, 47% and 67% of that roofline (benchmarks/results/
// h100_2026-11-26.md). Launched by launch_mma_sm80.py; tested with the others,
// tests/kernels/cuda/conv3x3/test_mma_sm80.py.
#pragma once

#include "common/indexing.cuh"
#include "conv3x3/mma_sm80.cuh"

namespace mma_sm80 {

constexpr int image_channels = 3, image_columns = 3 * image_channels;  // of a row of three taps

// Forward: a block takes 16x8 pixels and 64 channels, a warp two rows of pixels. A row of three taps is one k-step: its
// nine numbers lie next to each other in the image, and the k-step's other seven are zero. The image is not rounded: it
// is split into two 16-bit numbers, which the same filters multiply.
constexpr int forward_image_height = 8, forward_image_threads = 128;

template <class T>
__device__ __forceinline__ void convolve_image(const float* x, const ActivationShape& result, const uint32_t* filters,
                                               const ReluPoolEpilogue<T>& epilogue) {
    constexpr int m = 2, n = warp_channels / 8;
    constexpr int halo_pitch = (tile_width + 2) * image_channels, halo_height = forward_image_height + 2;
    SHARED(float, halo, [halo_height * halo_pitch]);

    const int across = ceil_div(result.channels, warp_channels);
    const int tiles_in_row = ceil_div(result.width, tile_width);
    const int tile = blockIdx.x / across, group = blockIdx.x % across;
    const int y0 = tile / tiles_in_row * forward_image_height, x0 = tile % tiles_in_row * tile_width;
    for (int i = threadIdx.x; i < halo_height * halo_pitch; i += forward_image_threads) {
        const int row = y0 - 1 + i / halo_pitch, column = (x0 - 1) * image_channels + i % halo_pitch;
        const unsigned row_length = result.width * image_channels;
        const bool inside = unsigned(row) < unsigned(result.height) && unsigned(column) < row_length;
        halo[i] = inside ? x[size_t(row) * row_length + column] : 0.0f;
    }
    __syncthreads();

    const int lane = threadIdx.x % 32, warp_y = threadIdx.x / 32 * m, in_group = lane % 4;
    const float* const window = halo + warp_y * halo_pitch + lane / 4 * 2 * image_channels + in_group * 2;
    const uint2* next_filters = reinterpret_cast<const uint2*>(filters) + group * 3 * n * 32 + lane;
    float accum[m][n][4] = {};
#pragma unroll
    for (int r = 0; r < 3; ++r) {
        uint32_t b[n][2];
#pragma unroll
        for (int j = 0; j < n; ++j) {
            const uint2 words = next_filters[(r * n + j) * 32];
            b[j][0] = words.x;
            b[j][1] = words.y;
        }
#pragma unroll
        for (int i = 0; i < m; ++i) {
            uint32_t hi[4], lo[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {  // the even or the odd pixel; numbers 0 to 7 of the k-step, or the ninth
                const float* const from = window + (i + r) * halo_pitch + k % 2 * image_channels + k / 2 * 8;
                const bool first = k < 2 || in_group == 0, second = k < 2;
                const float low = first ? from[0] : 0.0f, high = second ? from[1] : 0.0f;
                hi[k] = ptx::pack<T>(low, high);
                const float2 rounded = ptx::unpack<T>(hi[k]);
                lo[k] = ptx::pack<T>(low - rounded.x, high - rounded.y);
            }
#pragma unroll
            for (int j = 0; j < n; ++j) ptx::mma_m16n8k16(T{}, accum[i][j], lo, b[j]);
#pragma unroll
            for (int j = 0; j < n; ++j) ptx::mma_m16n8k16(T{}, accum[i][j], hi, b[j]);
        }
    }
    store_accum(result, y0 + warp_y, x0 + lane / 4 * 2, group * warp_channels + in_group * 8, accum, epilogue);
}

// Backward: a block takes 16x16 pixels, a warp four rows of them, all channels. A fragment of gradients, loaded once,
// serves the three rows of pixels that it is a neighbour of. Of a product's eight columns three are used.
using ImageTile = Tile<256, 64, 64, 2, 3>;

template <class T>
__device__ __forceinline__ void convolve_to_image(const T* gradient, const ActivationShape& in, const uint32_t* filters,
                                                  float* out, const uint8_t* relu_mask, int accumulate) {
    constexpr int m = ImageTile::fragments_down;
    DYNAMIC_SHARED(unsigned char, memory);
    const int tiles_in_row = ceil_div(in.width, tile_width);
    const int y0 = blockIdx.x / tiles_in_row * ImageTile::height, x0 = blockIdx.x % tiles_in_row * tile_width;
    const int blocks = (in.channels + row_bytes / 2 - 1) / (row_bytes / 2);
    const ptx::SharedAddress halo = ptx::shared_address(memory);
    const int lane = threadIdx.x % 32, warp_y = threadIdx.x / 32 * m;
    const int halo_row = warp_y * ImageTile::halo_width + (lane & 7) * 2 + (lane >> 3 & 1);
    const uint2* next_filters = reinterpret_cast<const uint2*>(filters) + lane;

    HaloCopier<ImageTile, T> copier(gradient, in, y0, x0, 0);
    float accum[m][4] = {};
#pragma unroll 1
    for (int block = 0; block < blocks; ++block) {
        if (block > 0) __syncthreads();  // the previous block of channels is done with
        copier.begin(halo);
#pragma unroll 4
        for (int pass = 0; pass < ImageTile::halo_passes; ++pass) copier.next();
        ptx::cp_async_commit();
        ptx::cp_async_wait<0>();
        __syncthreads();
#pragma unroll
        for (int s = 0; s < 3; ++s) {
#pragma unroll
            for (int k_step = 0; k_step < k_steps_per_row; ++k_step) {
                uint32_t b[3][2];
#pragma unroll
                for (int r = 0; r < 3; ++r, next_filters += 32) {
                    const uint2 words = *next_filters;
                    b[r][0] = words.x;
                    b[r][1] = words.y;
                }
#pragma unroll
                for (int i = 0; i < m + 2; ++i) {
                    uint32_t a[4];
                    ptx::ldmatrix_x4(a, offset_of_pixel(halo, halo_row + i * ImageTile::halo_width + s, lane) ^
                                            (k_step * 2 * chunk_bytes));
#pragma unroll
                    for (int r = 0; r < 3; ++r)
                        if (i - r >= 0 && i - r < m) ptx::mma_m16n8k16(T{}, accum[i - r], a, b[r]);
                }
            }
        }
    }

    const int channel = lane % 4 * 2;
    if (channel >= image_channels) return;
#pragma unroll
    for (int i = 0; i < m; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int y = y0 + warp_y + i, x = x0 + lane / 4 * 2 + k / 2, c = channel + k % 2;
            if (y >= in.height || x >= in.width || c >= image_channels) continue;
            float* const to = out + in.pixel(y, x) * image_channels + c;
            const float value = accumulate ? accum[i][k] + *to : accum[i][k];
            *to = !relu_mask || relu_mask[in.pixel(y, x)] >> c & 1 ? value : 0.0f;
        }
}

}  // namespace mma_sm80

#define CONV3X3_RELU_RGB_MMA_SM80(name, T)                                                                 \
    extern "C" __global__ void __launch_bounds__(mma_sm80::forward_image_threads, 3) name(                 \
        const float* __restrict__ x, const uint32_t* __restrict__ filters, const float* __restrict__ bias, \
        T* __restrict__ out, uint8_t* __restrict__ relu_mask, T* __restrict__ pooled,                      \
        uint8_t* __restrict__ pool_argmax, int height, int width, int channels, int average) {             \
        mma_sm80::convolve_image<T>(                                                                       \
            x, {height, width, channels}, filters,                                                         \
            mma_sm80::ReluPoolEpilogue<T>{bias, out, relu_mask, pooled, pool_argmax, average});            \
    }

#define CONV3X3_INPUT_GRADIENT_RGB_MMA_SM80(name, T)                                                               \
    extern "C" __global__ void __launch_bounds__(mma_sm80::ImageTile::threads, mma_sm80::ImageTile::blocks_per_sm) \
    name(const T* __restrict__ gradient, const uint32_t* __restrict__ filters, float* __restrict__ out,            \
         const uint8_t* __restrict__ relu_mask, int height, int width, int channels, int accumulate) {             \
        mma_sm80::convolve_to_image<T>(gradient, {height, width, channels}, filters, out, relu_mask, accumulate);  \
    }
