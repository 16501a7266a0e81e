// Rung 3: what a block needs is loaded once, into shared memory. New: an implicit matrix product, cut into tiles.
//
// Written as a product, the convolution has a row for each pixel, a column for each output channel, and sums over
// 9 C_in places, a tap and a channel each:  out[p, k] = sum_(tap, c) A[p, (tap, c)] B[(tap, c), k],  where row p of A is
// never made: A[p, (tap, c)] is x at the pixel that the tap sees from p (hence implicit), and B is filters as they lie.
//
//                 16 channels k
//               +---------------+
//               |  weights 16   |   a k-tile: 16 channels c of one tap
//               +---------------+
//     +------+  +---------------+
//     |  16  |  |   16 x 16     |   a block's outputs, one a thread
//     |pixels|  |               |   each float loaded is used 16 times
//     +------+  +---------------+
//       16 c
//
// Bound by shared memory: two loads from it for each multiplication, of which it serves one a lane and clock.
// Tests: tests/kernels/cuda/ladder/test_ladder.py
#include "common/platform.cuh"

constexpr int tile = 16;  // pixels, channels and the depth of a k-tile

extern "C" __global__ void __launch_bounds__(tile* tile) conv3x3_03_shared_tiles(
    const float* __restrict__ x, const float* __restrict__ filters, const float* __restrict__ bias,
    float* __restrict__ out, int height, int width, int channels_in, int channels_out) {
    SHARED(float, pixels, [tile][tile]);
    SHARED(float, weights, [tile][tile]);
    const int row = threadIdx.y, column = threadIdx.x;
    const int pixel = blockIdx.x * tile + row, k = blockIdx.y * tile + column;
    const int i = pixel / width, j = pixel % width;
    float sum = bias[k];
    for (int tap = 0; tap < 9; ++tap) {
        const int y = i + tap / 3 - 1, from = j + tap % 3 - 1;
        const bool inside = pixel < height * width && y >= 0 && y < height && from >= 0 && from < width;
        for (int c = 0; c < channels_in; c += tile) {
            pixels[row][column] = inside ? x[(y * width + from) * channels_in + c + column] : 0.0f;
            weights[row][column] = filters[(tap * channels_in + c + row) * channels_out + k];
            __syncthreads();  // all of the k-tile is there
            for (int d = 0; d < tile; ++d) sum += pixels[row][d] * weights[d][column];
            __syncthreads();  // nobody reads it any more
        }
    }
    if (pixel < height * width) out[pixel * channels_out + k] = fmaxf(sum, 0.0f);
}
