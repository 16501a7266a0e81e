// Which tile of a symmetric matrix a block computes, when only those on and above the diagonal are: the Gram kernels of
// gram/simt.cu, gram/mma_sm80.cuh and gram/wgmma_sm90.cuh number their tiles alike, and one kernel adds up the splits
// of all. A few integer operations, once a block; tested through these kernels, in tests/kernels/cuda/gram/test_simt.py
// and its neighbors.
#pragma once

#include "common/platform.cuh"

struct TileAt {
    int row, column;
};

// The tile at `index` among those with row <= column, in reading order.
__device__ __forceinline__ TileAt upper_triangle_tile(int index, int tiles_across) {
    int row = 0;
    for (; index >= tiles_across - row; ++row) index -= tiles_across - row;
    return {row, row + index};
}
