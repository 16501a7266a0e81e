// Which elements a thread takes, for kernels that go through an array of any length with a grid of any size, and the
// rounding up that tiles need. Plain arithmetic: it compiles to what the loops would if they were written out.
// tests/kernels/cuda/common/test_indexing.py runs it alone, in the emulator, and every kernel of elementwise/ runs
// through it.
//
//     for (const int64_t i : grid_stride(n)) ...        thread t of T takes t, t + T, t + 2 T, ... below n
//
//     n = 7, T = 4     element   0 1 2 3 4 5 6
//                      thread    0 1 2 3 0 1 2          neighbours in a warp touch neighbours in memory
#pragma once

#include "common/platform.cuh"

// How many groups of `size` cover `count`.
template <class Index>
constexpr __device__ __forceinline__ Index ceil_div(Index count, int size) {
    return (count + size - 1) / size;
}

// The elements from `first` on, below `last`, that are one thread's, for a range-based loop.
template <class Index>
struct GridStride {
    struct Iterator {
        Index i, stride;

        __device__ __forceinline__ Index operator*() const { return i; }
        __device__ __forceinline__ void operator++() { i += stride; }
        __device__ __forceinline__ bool operator!=(Index end) const { return i < end; }
    };
    Index first, threads, last;

    __device__ __forceinline__ Iterator begin() const { return {first, threads}; }
    __device__ __forceinline__ Index end() const { return last; }
};

// This thread's number in the grid, and how many there are (along x). `block_threads` is what a block has, where that
// is known as the kernel is compiled; 0 asks the launch.
template <int block_threads = 0, class Index = int64_t>
struct Grid {
    const Index thread = Index(blockIdx.x) * (block_threads ? block_threads : blockDim.x) + threadIdx.x;
    const Index threads = Index(gridDim.x) * (block_threads ? block_threads : blockDim.x);

    __device__ __forceinline__ GridStride<Index> stride(Index end) const { return {thread, threads, end}; }
    __device__ __forceinline__ GridStride<Index> stride(Index begin, Index end) const {
        return {begin + thread, threads, end};
    }
};

template <int block_threads = 0, class Index>
__device__ __forceinline__ GridStride<Index> grid_stride(Index end) {
    return Grid<block_threads, Index>().stride(end);
}
