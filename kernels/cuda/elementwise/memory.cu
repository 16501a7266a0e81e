// Copying and zeroing device memory, so that even these are launches of ours that a CUDA graph can hold. Sixteen
// bytes a thread while they last, then one; both ends of a copy start on a 16-byte boundary, or it goes by words.
// Bound by device memory. Launched by elementwise/launch.py; tests/kernels/cuda/elementwise/test_kernels.py runs
// every kernel.
#include "common/indexing.cuh"

extern "C" __global__ void __launch_bounds__(256) copy_memory(const void* __restrict__ source, void* __restrict__ out,
                                                              int64_t bytes) {
    const Grid<> grid;
    const int64_t words = bytes / 16;
    for (const int64_t i : grid.stride(words)) static_cast<uint4*>(out)[i] = static_cast<const uint4*>(source)[i];
    const int64_t last = words * 16 + grid.thread;
    if (last < bytes) static_cast<uint8_t*>(out)[last] = static_cast<const uint8_t*>(source)[last];
}

// For an end that starts on a 4-byte boundary only, as the rows of a matrix may.
extern "C" __global__ void __launch_bounds__(256) copy_words(const void* __restrict__ source, void* __restrict__ out,
                                                             int64_t words) {
    for (const int64_t i : grid_stride(words)) static_cast<uint32_t*>(out)[i] = static_cast<const uint32_t*>(source)[i];
}

// A window of rows: so many words of each, a pitch apart on either side. Blocks go down the rows in y.
template <typename Word>
__device__ __forceinline__ void copy_window(const Word* __restrict__ source, Word* __restrict__ out, int rows,
                                            int row_words, int64_t source_pitch, int64_t out_pitch) {
    const Grid<0, int> grid;
    for (int row = blockIdx.y; row < rows; row += gridDim.y)
        for (const int i : grid.stride(row_words)) out[row * out_pitch + i] = source[row * source_pitch + i];
}

extern "C" __global__ void __launch_bounds__(256) copy_window_16(const void* __restrict__ source,
                                                                 void* __restrict__ out, int rows, int row_words,
                                                                 int64_t source_pitch, int64_t out_pitch) {
    copy_window(static_cast<const uint4*>(source), static_cast<uint4*>(out), rows, row_words, source_pitch, out_pitch);
}

extern "C" __global__ void __launch_bounds__(256) copy_window_4(const void* __restrict__ source, void* __restrict__ out,
                                                                int rows, int row_words, int64_t source_pitch,
                                                                int64_t out_pitch) {
    copy_window(static_cast<const uint32_t*>(source), static_cast<uint32_t*>(out), rows, row_words, source_pitch,
                out_pitch);
}

extern "C" __global__ void __launch_bounds__(256) zero_memory(void* __restrict__ out, int64_t bytes) {
    const Grid<> grid;
    const int64_t words = bytes / 16;
    for (const int64_t i : grid.stride(words)) static_cast<uint4*>(out)[i] = make_uint4(0, 0, 0, 0);
    const int64_t last = words * 16 + grid.thread;
    if (last < bytes) static_cast<uint8_t*>(out)[last] = 0;
}
