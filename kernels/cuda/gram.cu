// The Gram matrix G = F^T F / (H W) of features F (pixels x channels), and the gradient of its cost, F S. Both are
// products on the main loop of tile.cuh. G is symmetric: only tiles on and above the diagonal are computed, and
// mirrored. Its sum runs over pixels and is long where the matrix is small, so slices of the pixels go to different
// blocks (gridDim.y), and a second launch adds them in a fixed order. F S is a convolution with one tap and ends as
// the backward convolution does (pixels.cuh), slices included. kernels/gram.py launches them;
// tests/kernels/test_gram_kernels.py runs every kernel alone, in the emulator, against float64.
#include "pixels.cuh"

namespace {

struct TileAt {
    int row, column;
};

// The tile at `index` among those with row <= column, in reading order.
__device__ __forceinline__ TileAt upper_tile(int index, int tiles_across) {
    int row = 0;
    for (; index >= tiles_across - row; ++row) index -= tiles_across - row;
    return {row, row + index};
}

// `partials` is [tile][slice][row][column]; sums over pixels [first, end) of a slice, slices being multiples of
// `depth` long.
template <class Tile, bool vector>
__device__ __forceinline__ void gram_slice(const float* features, float* partials, int pixels, int channels) {
    static_assert(Tile::rows == Tile::columns, "a tile below the diagonal is the transpose of one above");
    constexpr int side = Tile::rows;
    const TileAt at = upper_tile(blockIdx.x, (channels + side - 1) / side);
    const int steps = (pixels + tile::depth - 1) / tile::depth;
    const int first_step = int64_t{steps} * blockIdx.y / gridDim.y;
    const int end_step = int64_t{steps} * (blockIdx.y + 1) / gridDim.y;

    const int first = first_step * tile::depth;
    tile::MatrixRows<Tile, side, vector, false> left(features, channels, at.row * side, first, pixels);
    tile::MatrixRows<Tile, side, vector, false> right(features, channels, at.column * side, first, pixels);
    SHARED(typename Tile::Stage, stages, [2]);
    tile::Sums sums;
    tile::multiply<Tile>(left, right, end_step - first_step, stages, sums);

    const tile::Corner corner = tile::thread_corner<Tile>();
    float* to = partials + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * side * side;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        float* row = to + (corner.row + i / 4 * 32 + i % 4) * side + corner.column;
        *reinterpret_cast<float4*>(row) = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
        *reinterpret_cast<float4*>(row + 16) = make_float4(sums[i][4], sums[i][5], sums[i][6], sums[i][7]);
    }
}

constexpr int sum_elements = 16, sum_groups = 16;  // of a block: neighbours in a row of the tile, and slices modulo 16

}  // namespace

#define GRAM(name, Tile, vector)                                                                                   \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) gram_##name(                  \
        const float* __restrict__ features, void* __restrict__ partials, int pixels, int channels) {               \
        gram_slice<Tile, vector>(features, static_cast<float*>(partials), pixels, channels);                       \
    }

GRAM(128x128, tile::Tile128x128, true)
GRAM(64x64, tile::Tile64x64, true)
GRAM(64x64_any, tile::Tile64x64, false)

// Adds up the slices and mirrors: a thread adds every 16th slice of one element, then one adds these sixteen sums.
extern "C" __global__ void __launch_bounds__(sum_elements* sum_groups)
    gram_slices(const void* __restrict__ partials, float* __restrict__ out, int slices, int side, int channels,
                float scale) {
    SHARED(float, sums, [sum_groups][sum_elements]);
    const int group = threadIdx.x / sum_elements, element = blockIdx.y * sum_elements + threadIdx.x % sum_elements;
    const size_t stride = size_t(side) * side;
    const float* from = static_cast<const float*>(partials) + blockIdx.x * slices * stride + element;
    float sum = 0.0f;
#pragma unroll 4
    for (int slice = group; slice < slices; slice += sum_groups) sum += from[slice * stride];
    sums[group][threadIdx.x % sum_elements] = sum;
    __syncthreads();
    if (group > 0) return;

    for (int other = 1; other < sum_groups; ++other) sum += sums[other][threadIdx.x];
    const TileAt at = upper_tile(blockIdx.x, (channels + side - 1) / side);
    const int row = at.row * side + element / side, column = at.column * side + element % side;
    if (row >= channels || column >= channels) return;
    out[size_t(row) * channels + column] = scale * sum;
    if (at.row != at.column) out[size_t(column) * channels + row] = scale * sum;
}

// out := F S [+ out]. Slices, where there are any, are added by conv3x3_backward_slices.
#define STYLE_GRADIENT(name, Tile, vector)                                                                         \
    extern "C" __global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm) style_gradient_##name(        \
        const float* __restrict__ features, const float* __restrict__ difference, float* __restrict__ out,         \
        void* __restrict__ partials, int height, int width, int channels, int accumulate) {                        \
        const pixels::Map map = {height, width, channels};                                                         \
        pixels::convolve<Tile, 1, vector>(features, map, {0, tile::depth}, difference, channels, map,              \
                                          pixels::Backward{out, nullptr, accumulate},                              \
                                          static_cast<float*>(partials));                                          \
    }

STYLE_GRADIENT(128x64, tile::Tile128x64, true)
STYLE_GRADIENT(128x32, tile::Tile128x32, true)
STYLE_GRADIENT(128x64_any, tile::Tile128x64, false)
