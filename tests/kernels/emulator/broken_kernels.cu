// Kernels with one fault each. test_emulator.py expects the emulator to name the line, or the two lines, that end in
// a comment with the kernel's name and what is done there.
#include "../../kernels/cuda/common/platform.cuh"

extern "C" __global__ void missing_barrier(const float* x, float* y) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = x[threadIdx.x];       // missing_barrier: wrote
    y[threadIdx.x] = tile[63 - threadIdx.x];  // missing_barrier: reads
}

// The barrier at the loop's end is gone: a fast warp overwrites what a slow one still reads.
extern "C" __global__ void missing_second_barrier(const float* x, float* y, int steps) {
    SHARED(float, tile, [64]);
    float sum = 0;
    for (int step = 0; step < steps; ++step) {
        tile[threadIdx.x] = x[step * 64 + threadIdx.x];  // missing_second_barrier: writes
        __syncthreads();
        sum += tile[63 - threadIdx.x];  // missing_second_barrier: read
    }
    y[threadIdx.x] = sum;
}

extern "C" __global__ void missing_syncwarp(const float* x, float* y) {
    SHARED(float, tile, [32]);
    tile[threadIdx.x] = x[threadIdx.x];                               // missing_syncwarp: wrote
    const float own = __shfl_sync(~0u, x[threadIdx.x], threadIdx.x);  // orders no memory
    y[threadIdx.x] = own + tile[31 - threadIdx.x];                    // missing_syncwarp: reads
}

extern "C" __global__ void race_between_blocks(float* y) {
    if (threadIdx.x == 3) y[0] = blockIdx.x;  // race_between_blocks: writes
}

extern "C" __global__ void race_of_bytes(unsigned char* y) {
    y[threadIdx.x / 2] = threadIdx.x;  // race_of_bytes: writes
}

extern "C" __global__ void write_past_end(float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = 1.0f;  // write_past_end: writes
}

extern "C" __global__ void read_before_start(const float* x, float* y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i - 1];  // read_before_start: reads
}

extern "C" __global__ void write_past_shared(float* y) {
    SHARED(float, first, [32]);
    SHARED(float, second, [32]);
    first[threadIdx.x + 1] = 1.0f;  // write_past_shared: writes
    second[threadIdx.x] = 2.0f;
    y[threadIdx.x] = second[threadIdx.x];
}

extern "C" __global__ void read_past_dynamic(float* y) {
    DYNAMIC_SHARED(float, staging);
    staging[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = staging[threadIdx.x + 1];  // read_past_dynamic: reads
}

extern "C" __global__ void float4_across_end(const float* x, float* y) {
    const float4 four = *reinterpret_cast<const float4*>(x + 4 * threadIdx.x);  // float4_across_end: reads
    y[threadIdx.x] = four.x + four.y + four.z + four.w;
}

extern "C" __global__ void misaligned_float4(const float* x, float* y) {
    const float4 four = *reinterpret_cast<const float4*>(x + threadIdx.x);  // misaligned_float4: reads
    y[threadIdx.x] = four.x;
}

extern "C" __global__ void uninitialised_shared(float* y) {
    SHARED(float, tile, [64]);
    if (threadIdx.x < 63) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];  // uninitialised_shared: reads
}

extern "C" __global__ void uninitialised_global(float* scratch, float* y) {
    if (threadIdx.x != 5) scratch[threadIdx.x] = 1.0f;
    y[threadIdx.x] = scratch[threadIdx.x];  // uninitialised_global: reads
}

extern "C" __global__ void write_to_read_only(float* x) {
    x[threadIdx.x] = 0.0f;  // write_to_read_only: writes
}

struct Block128 {
    int words[32];
};
extern "C" __global__ void copy_past_end(const Block128* x, Block128* y) {
    y[threadIdx.x] = x[threadIdx.x];  // copy_past_end: reads
}

extern "C" __global__ void mask_names_returned(int* y) {
    if (threadIdx.x >= 48) return;
    y[threadIdx.x] = __shfl_xor_sync(~0u, threadIdx.x, 1);  // mask_names_returned: waits
}

extern "C" __global__ void mask_names_absent(int* y) {
    y[threadIdx.x] = __shfl_xor_sync(~0u, threadIdx.x, 1);  // mask_names_absent: waits
}

extern "C" __global__ void mask_without_caller(int* y) {
    y[threadIdx.x] = __shfl_sync(0x0000ffff, threadIdx.x, 0);  // mask_without_caller: calls
}

extern "C" __global__ void mask_of_other_branch(int* y) {
    if (threadIdx.x < 16) {
        y[threadIdx.x] = __any_sync(~0u, 1);  // mask_of_other_branch: waits
    } else {
        __syncthreads();  // mask_of_other_branch: barrier
        y[threadIdx.x] = 0;
    }
}

extern "C" __global__ void shuffle_from_outside(int* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0x0000ffff, threadIdx.x, 8);  // shuffle_from_outside: asks
}

extern "C" __global__ void divergent_barrier(int* y) {
    if (threadIdx.x < 32) {
        __syncthreads();  // divergent_barrier: first
        y[threadIdx.x] = 1;
    } else {
        __syncthreads();  // divergent_barrier: second
        y[threadIdx.x] = 2;
    }
}

extern "C" __global__ void too_much_shared(float* y) {
    SHARED(float, tile, [40000]);
    DYNAMIC_SHARED(float, staging);  // too_much_shared: declares
    y[threadIdx.x] = tile[0] + staging[0];
}

// What the last block reads is not ordered after what the others have written, each time for want of something else.
template <bool barrier, bool release, bool acquire>
__forceinline__ void sum_by_the_last(float* partials, float* out, unsigned* ticket) {
    SHARED(int, last, );
    const int lane = threadIdx.x;
    partials[blockIdx.x * blockDim.x + lane] = 1.0f;
    if (barrier) __syncthreads();
    if (lane == 0) {
        if (release) __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
        if (acquire) __threadfence();
    }
    __syncthreads();
    if (!last) return;
    float sum = 0.0f;
    for (unsigned block = 0; block < gridDim.x; ++block)
        sum += partials[block * blockDim.x + lane];
    out[lane] = sum;
}
extern "C" __global__ void last_without_barrier(float* partials, float* out, unsigned* ticket) {
    sum_by_the_last<false, true, true>(partials, out, ticket);  // last_without_barrier: sums
}
extern "C" __global__ void last_without_release(float* partials, float* out, unsigned* ticket) {
    sum_by_the_last<true, false, true>(partials, out, ticket);  // last_without_release: sums
}
extern "C" __global__ void last_without_acquire(float* partials, float* out, unsigned* ticket) {
    sum_by_the_last<true, true, false>(partials, out, ticket);  // last_without_acquire: sums
}
extern "C" __global__ void ticket_without_atomic(unsigned* ticket) {
    if (threadIdx.x > 0) return;
    if (blockIdx.x % 2)
        atomicInc(ticket, 100);  // ticket_without_atomic: counts
    else
        *ticket += 1;  // ticket_without_atomic: adds
}
extern "C" __global__ void write_after_release(float* partials, float* out, unsigned* ticket) {
    if (threadIdx.x > 0) return;
    __threadfence();
    partials[blockIdx.x] = 1.0f;  // write_after_release: wrote
    const bool last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
    if (last)
        for (unsigned block = 0; block < gridDim.x; ++block)
            out[block] = partials[block];  // write_after_release: reads
}
