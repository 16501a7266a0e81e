// The functions of common/indexing.cuh, called with what test_indexing.py compares with Python's own.
#include "../../kernels/cuda/common/indexing.cuh"

extern "C" __global__ void count_visits(int* visits, int64_t begin, int64_t end) {
    const Grid<> grid;
    for (const int64_t i : grid.stride(begin, end)) visits[i] += 1;
}

extern "C" __global__ void who_visits(int* by, int end) {
    for (const int i : grid_stride<4>(end)) by[i] = blockIdx.x * 4 + threadIdx.x;
}

extern "C" __global__ void groups(int* out, int counts, int size) {
    for (int count = 0; count < counts; ++count) out[count] = ceil_div(count, size);
}
