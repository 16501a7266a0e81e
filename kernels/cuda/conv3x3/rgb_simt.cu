// The first layer's convolution in float32, from an RGB image to any number of channels, and its gradient back to the
// three channels.
//
//     forward: 8x16 pixels x 64 channels a block              backward: 16x32 pixels a block, 8 channels at a time
//
//       +--------18--------+                                    +---------34---------+
//       | +------16------+ |  the halo of the image and         | +-------32-------+ |  a thread has 4 pixels above
//      10 8 2x2 a thread | |  all 27 x 64 filters in           18 16 4 above each   | |  each other: a window of 6x3
//       | +--------------+ |  shared memory, loaded once        | | other a thread | |  serves 12 sums
//       +------------------+                                    +--------------------+
//
// With 27 multiplications per output both are bound by device memory, so they read every activation once. An H100 takes
// 51 and 61 us at 512 px, 47% and 38% of that roofline (benchmarks/results/h100_2026-11-26.md). The forward kernel ends
// as every convolution does (conv3x3/implicit_gemm_simt.cuh). launch_simt.py launches both;
// tests/kernels/cuda/conv3x3/test_simt.py runs each of them alone, in the emulator, against float64.
#include "common/indexing.cuh"
#include "conv3x3/implicit_gemm_simt.cuh"

namespace {

constexpr int image_channels = 3, filter_rows = 9 * image_channels;

// Forward: a block takes 8x16 pixels and 64 channels, a thread one 2x2 square and eight channels.
constexpr int forward_rows = 8, forward_columns = 16, forward_channels = 64, forward_threads = 256;

// Backward: a block takes 16x32 pixels in chunks of eight channels (a 32-byte sector each), a thread four pixels
// above each other: a window of 6x3 pixels serves twelve outputs.
constexpr int backward_rows = 16, backward_columns = 32, backward_channels = 8, backward_threads = 128;
constexpr int per_thread = backward_rows * backward_columns / backward_threads;

__device__ __forceinline__ float dot(const float4& a, const float4& b, float sum) {
    return a.w * b.w + (a.z * b.z + (a.y * b.y + (a.x * b.x + sum)));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(forward_threads, 2) conv3x3_relu_simt_rgb(
    const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,
    float* __restrict__ out, uint8_t* __restrict__ relu_mask, float* __restrict__ pooled,
    uint8_t* __restrict__ pool_argmax, int height, int width, int channels, int average) {
    constexpr int halo_rows = forward_rows + 2, halo_columns = forward_columns + 2;
    SHARED(float, halo, [halo_rows][halo_columns][image_channels]);
    SHARED(float, weights, [filter_rows][forward_channels]);

    const int chunks = ceil_div(channels, forward_channels);
    const int tiles_across = ceil_div(width, forward_columns);
    const int first_channel = blockIdx.x % chunks * forward_channels, tile = blockIdx.x / chunks;
    const int y0 = tile / tiles_across * forward_rows, x0 = tile % tiles_across * forward_columns;

    for (int i = threadIdx.x; i < halo_rows * halo_columns * image_channels; i += forward_threads) {
        const int row = i / (halo_columns * image_channels), column = i % (halo_columns * image_channels);
        const int image_row = y0 - 1 + row, first = (x0 - 1) * image_channels + column;
        const bool inside = unsigned(image_row) < height && unsigned(first) < width * image_channels;
        (&halo[0][0][0])[i] = inside ? x[size_t(image_row) * width * image_channels + first] : 0.0f;
    }
    const int padded = ceil_div(channels, 4) * 4;
    for (int i = threadIdx.x; i < filter_rows * forward_channels / 4; i += forward_threads) {
        const int row = i / (forward_channels / 4), channel = i % (forward_channels / 4) * 4;
        *reinterpret_cast<float4*>(&weights[row][channel]) =
            simt::load4<true>(filters + row * padded + first_channel + channel, padded - first_channel - channel);
    }
    __syncthreads();

    // Bit 0 of the lane selects among squares, so that neighbours read the same weights (see simt::thread_corner);
    // bits 1 to 3 among groups of four channels, so that eight lanes store 128 bytes.
    const int lane = threadIdx.x % 32, group = lane >> 1 & 7;
    const int square = threadIdx.x / 32 * 4 + (lane >> 4 << 1 | (lane & 1));
    const int row = square / (forward_columns / 2) * 2, column = square % (forward_columns / 2) * 2;
    simt::PoolWindow accum[2] = {};  // of channels 4 group and up, and 32 further on
#pragma unroll
    for (int c = 0; c < image_channels; ++c) {
        float window[4][4];
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
            for (int s = 0; s < 4; ++s) window[r][s] = halo[row + r][column + s][c];
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float* from = &weights[tap * image_channels + c][32 * half + 4 * group];
                const float4 w = *reinterpret_cast<const float4*>(from);
#pragma unroll
                for (int pixel = 0; pixel < 4; ++pixel) {
                    const float value = window[tap / 3 + pixel / 2][tap % 3 + pixel % 2];
                    accum[half][pixel][0] += value * w.x;
                    accum[half][pixel][1] += value * w.y;
                    accum[half][pixel][2] += value * w.z;
                    accum[half][pixel][3] += value * w.w;
                }
            }
        }
    }
    const simt::ReluPoolEpilogue epilogue{bias, out, relu_mask, pooled, pool_argmax, average};
#pragma unroll
    for (int half = 0; half < 2; ++half)
        epilogue.store<2>({height, width, channels}, (y0 + row) / 2, (x0 + column) / 2,
                          first_channel + 32 * half + 4 * group, accum[half]);
}

extern "C" __global__ void __launch_bounds__(backward_threads, 4) conv3x3_input_gradient_simt_rgb(
    const float* __restrict__ gradient, const float* __restrict__ filters, float* __restrict__ out,
    const uint8_t* __restrict__ relu_mask, int height, int width, int channels, int accumulate) {
    constexpr int halo_rows = backward_rows + 2, halo_columns = backward_columns + 2;
    // By fours of channels, then pixels: a warp reads 32 neighbouring pixels of one four, no bank twice per eight
    // lanes.
    SHARED(float4, halo, [backward_channels / 4][halo_rows][halo_columns]);
    SHARED(float4, weights, [filter_rows][backward_channels / 4]);

    const int tiles_across = ceil_div(width, backward_columns);
    const int y0 = blockIdx.x / tiles_across * backward_rows, x0 = blockIdx.x % tiles_across * backward_columns;
    const int column = threadIdx.x % backward_columns, row = threadIdx.x / backward_columns * per_thread;
    const int padded = ceil_div(channels, 8) * 8;
    float accum[per_thread][image_channels] = {};

    for (int first_channel = 0; first_channel < channels; first_channel += backward_channels) {
        if (first_channel > 0) __syncthreads();  // the previous chunk is done with
        for (int i = threadIdx.x; i < halo_rows * halo_columns * 2; i += backward_threads) {
            const int four = i % 2, pixel = i / 2, halo_row = pixel / halo_columns, halo_column = pixel % halo_columns;
            const int y = y0 - 1 + halo_row, from_x = x0 - 1 + halo_column, channel = first_channel + 4 * four;
            const bool inside = unsigned(y) < height && unsigned(from_x) < width;
            const float* from = gradient + (int64_t{y} * width + from_x) * channels + channel;
            const int left = inside ? channels - channel : 0;
            halo[four][halo_row][halo_column] =
                channels % 4 == 0 ? simt::load4<true>(from, left) : simt::load4<false>(from, left);
        }
        for (int i = threadIdx.x; i < filter_rows * 2; i += backward_threads) {
            const float* from = filters + i / 2 * padded + first_channel + i % 2 * 4;
            weights[i / 2][i % 2] = *reinterpret_cast<const float4*>(from);
        }
        __syncthreads();

#pragma unroll 1
        for (int four = 0; four < backward_channels / 4; ++four) {
#pragma unroll
            for (int s = 0; s < 3; ++s) {
                float4 window[per_thread + 2];
#pragma unroll
                for (int r = 0; r < per_thread + 2; ++r) window[r] = halo[four][row + r][column + s];
#pragma unroll
                for (int r = 0; r < 3; ++r) {
#pragma unroll
                    for (int c = 0; c < image_channels; ++c) {
                        const float4 w = weights[(r * 3 + s) * image_channels + c][four];
#pragma unroll
                        for (int i = 0; i < per_thread; ++i) accum[i][c] = dot(window[i + r], w, accum[i][c]);
                    }
                }
            }
        }
    }

    const int out_x = x0 + column;
    if (out_x >= width) return;
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
        const int y = y0 + row + i;
        if (y >= height) break;
        const size_t position = size_t(y) * width + out_x;
        const unsigned bits = relu_mask ? relu_mask[position] : ~0u;
        float* to = out + position * image_channels;
#pragma unroll
        for (int c = 0; c < image_channels; ++c) {
            const float value = accumulate ? accum[i][c] + to[c] : accum[i][c];
            to[c] = bits >> c & 1 ? value : 0.0f;
        }
    }
}
