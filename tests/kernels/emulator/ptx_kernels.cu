// One kernel per instruction of the folder ptx up to sm_89, for test_ptx.py: fragments and rows come from the host and
// go back as they are.
#include "common/element.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/cvt.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

// Every lane's registers from memory, [warp][lane][register], and the sums back to where they came from.
template <class T, int depth_registers>
__device__ void multiply(const uint32_t* a, const uint32_t* b, float* sums) {
    const int thread = blockIdx.x * 32 + threadIdx.x;
    uint32_t from_a[2 * depth_registers], from_b[depth_registers];
    float result[4];
    for (int i = 0; i < 2 * depth_registers; ++i) from_a[i] = a[thread * 2 * depth_registers + i];
    for (int i = 0; i < depth_registers; ++i) from_b[i] = b[thread * depth_registers + i];
    for (int i = 0; i < 4; ++i) result[i] = sums[thread * 4 + i];
    if constexpr (sizeof(T) == 2 && depth_registers == 2)
        ptx::mma_m16n8k16(T{}, result, from_a, from_b);
    else
        ptx::mma_m16n8k8(T{}, result, from_a, from_b);
    for (int i = 0; i < 4; ++i) sums[thread * 4 + i] = result[i];
}

#define MULTIPLY(name, type, depth_registers)                                            \
    extern "C" __global__ void name(const uint32_t* a, const uint32_t* b, float* sums) { \
        multiply<type, depth_registers>(a, b, sums);                                     \
    }
MULTIPLY(mma_fp16_k8, fp16, 1)
MULTIPLY(mma_fp16_k16, fp16, 2)
#if ARCHITECTURE >= 800
MULTIPLY(mma_bf16_k16, bf16, 2)
MULTIPLY(mma_tf32_k8, tf32, 2)
#endif

// Rows of 16 bytes, in shared memory as they are in `rows`; lane i brings row order[i].
template <bool transposed>
__device__ void load(const uint4* rows, const int* order, uint32_t* words) {
    SHARED(uint4, held, [32]);
    const int lane = threadIdx.x;
    held[lane] = rows[lane];
    __syncwarp();
    uint32_t received[4];
    const ptx::SharedAddress row = ptx::shared_address(&held[order[lane]]);
    if (transposed)
        ptx::ldmatrix_x4_transposed(received, row);
    else
        ptx::ldmatrix_x4(received, row);
    for (int i = 0; i < 4; ++i) words[4 * lane + i] = received[i];
}

extern "C" __global__ void ldmatrix(const uint4* rows, const int* order, uint32_t* words) {
    load<false>(rows, order, words);
}
extern "C" __global__ void ldmatrix_transposed(const uint4* rows, const int* order, uint32_t* words) {
    load<true>(rows, order, words);
}

// What is in shared memory before and after the wait for the first of two groups, and at the end.
extern "C" __global__ void copies(const uint4* from, uint4* seen) {
    SHARED(uint4, held, [2][64]);
    const int t = threadIdx.x;
    held[0][t] = held[1][t] = make_uint4(7, 7, 7, 7);
    for (int group = 0; group < 2; ++group) {
        ptx::cp_async_16(ptx::shared_address(&held[group][t]), from + 64 * group + t, t % 3 != 0);
        ptx::cp_async_commit();
    }
    seen[t] = held[0][t];  // copies: reads too soon
    ptx::cp_async_wait<1>();
    seen[64 + t] = held[0][t];
    seen[128 + t] = held[1][t];  // copies: reads the other too soon
    ptx::cp_async_wait<0>();
    seen[192 + t] = held[1][t];
}

// Words, before and after the wait for them.
extern "C" __global__ void copies_of_words(const uint32_t* from, uint32_t* seen) {
    SHARED(uint32_t, held, [64]);
    const int t = threadIdx.x;
    held[t] = 7;
    ptx::cp_async_4(ptx::shared_address(&held[t]), from + t, t % 3 != 0);
    ptx::cp_async_commit();
    seen[t] = held[t];
    ptx::cp_async_wait<0>();
    seen[64 + t] = held[t];
}

// A ring of `stages` buffers that is right: each step waits, meets the others, refills what was used a step ago.
extern "C" __global__ void ring(const uint4* from, uint4* out, int steps) {
    constexpr int stages = 3;
    SHARED(uint4, held, [stages][64]);
    const int t = threadIdx.x;
    uint4 sum = make_uint4(0, 0, 0, 0);
    for (int step = 0; step < stages - 1; ++step) {
        if (step < steps) ptx::cp_async_16(ptx::shared_address(&held[step][t]), from + step * 64 + t, true);
        ptx::cp_async_commit();
    }
    for (int step = 0; step < steps; ++step) {
        ptx::cp_async_wait<stages - 2>();
        __syncthreads();
        const int next = step + stages - 1;
        if (next < steps) ptx::cp_async_16(ptx::shared_address(&held[next % stages][t]), from + next * 64 + t, true);
        ptx::cp_async_commit();
        sum.x += held[step % stages][63 - t].x;
    }
    out[t] = sum;
}

extern "C" __global__ void wait_without_barrier(const uint4* from, uint4* out) {
    SHARED(uint4, held, [64]);
    const ptx::SharedAddress to = ptx::shared_address(&held[threadIdx.x]);
    ptx::cp_async_16(to, from + threadIdx.x, true);  // wait_without_barrier: copies
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    out[threadIdx.x] = held[63 - threadIdx.x];  // wait_without_barrier: reads
}

extern "C" __global__ void barrier_without_wait(const uint4* from, uint4* out) {
    SHARED(uint4, held, [64]);
    const ptx::SharedAddress to = ptx::shared_address(&held[threadIdx.x]);
    ptx::cp_async_16(to, from + threadIdx.x, true);  // barrier_without_wait: copies
    ptx::cp_async_commit();
    __syncthreads();
    out[threadIdx.x] = held[63 - threadIdx.x];  // barrier_without_wait: reads
    ptx::cp_async_wait<0>();
}

// The old contents may still be read when the copy begins, although a barrier comes before its wait.
extern "C" __global__ void refilled_too_soon(const uint4* from, uint4* out) {
    SHARED(uint4, held, [64]);
    held[threadIdx.x] = make_uint4(1, 2, 3, 4);
    __syncthreads();
    out[threadIdx.x] = held[63 - threadIdx.x];                                            // refilled_too_soon: reads
    ptx::cp_async_16(ptx::shared_address(&held[threadIdx.x]), from + threadIdx.x, true);  // refilled_too_soon: copies
    ptx::cp_async_commit();
    __syncthreads();
    ptx::cp_async_wait<0>();
}

extern "C" __global__ void copy_past_end(const uint4* from, uint4* out) {
    SHARED(uint4, held, [32]);
    ptx::cp_async_16(ptx::shared_address(&held[threadIdx.x]), from + threadIdx.x + 1, true);  // copy_past_end: reads
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    out[threadIdx.x] = held[threadIdx.x];
}

extern "C" __global__ void copy_misaligned(const uint32_t* from) {
    SHARED(uint4, held, [32]);
    ptx::cp_async_16(ptx::shared_address(&held[threadIdx.x]), from + 1, true);  // copy_misaligned: asks
}

extern "C" __global__ void copy_to_global(const uint4* from, uint4* out) {
    ptx::cp_async_16(ptx::shared_address(&out[threadIdx.x]), from + threadIdx.x, true);  // copy_to_global: asks
}

extern "C" __global__ void rows_in_global(const uint4* rows, uint32_t* out) {
    uint32_t words[4];
    ptx::ldmatrix_x4(words, ptx::shared_address(&rows[threadIdx.x]));  // rows_in_global: asks
    out[threadIdx.x] = words[0];
}

// A row that another lane has written, with no __syncwarp between.
extern "C" __global__ void unordered_rows(uint32_t* out) {
    SHARED(uint4, held, [32]);
    held[31 - threadIdx.x] = make_uint4(1, 2, 3, 4);  // unordered_rows: wrote
    uint32_t words[4];
    ptx::ldmatrix_x4(words, ptx::shared_address(&held[threadIdx.x]));  // unordered_rows: reads
    out[threadIdx.x] = words[0];
}

extern "C" __global__ void rows_past_end(uint32_t* out) {
    SHARED(uint4, held, [32]);
    held[threadIdx.x] = make_uint4(1, 2, 3, 4);
    __syncwarp();
    uint32_t words[4];
    ptx::ldmatrix_x4(words, ptx::shared_address(&held[threadIdx.x]) + 16);  // rows_past_end: reads
    out[threadIdx.x] = words[0];
}

extern "C" __global__ void half_a_warp(uint32_t* out) {
    SHARED(uint4, held, [32]);
    held[threadIdx.x] = make_uint4(1, 2, 3, 4);
    __syncwarp();
    if (threadIdx.x >= 16) return;
    uint32_t words[4];
    ptx::ldmatrix_x4(words, ptx::shared_address(&held[threadIdx.x]));  // half_a_warp: waits
    out[threadIdx.x] = words[0];
}

// The same column of eight rows of 128 bytes.
extern "C" __global__ void conflicting_rows(uint32_t* out) {
    SHARED(uint4, held, [32][8]);
    for (int i = 0; i < 8; ++i) held[threadIdx.x][i] = make_uint4(1, 2, 3, 4);
    __syncwarp();
    uint32_t words[4];
    ptx::ldmatrix_x4(words, ptx::shared_address(&held[threadIdx.x][0]));  // conflicting_rows: brings
    out[threadIdx.x] = words[0];
}

// 16-bit numbers there and back, and what tf32 leaves of a float.
extern "C" __global__ void round_numbers(const float* x, uint32_t* bf16_pairs, uint32_t* fp16_pairs,
                                         uint32_t* tf32_bits, float* back, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    bf16_pairs[i] = ptx::pack<bf16>(x[i], -x[i]);
    fp16_pairs[i] = ptx::pack<fp16>(x[i], -x[i]);
#if ARCHITECTURE >= 800
    tf32_bits[i] = ptx::round_to_tf32(x[i]);
#endif
    const float2 from_bf16 = ptx::unpack<bf16>(bf16_pairs[i]), from_fp16 = ptx::unpack<fp16>(fp16_pairs[i]);
    back[4 * i] = from_bf16.x;
    back[4 * i + 1] = from_bf16.y;
    back[4 * i + 2] = from_fp16.x;
    back[4 * i + 3] = from_fp16.y;
}

// Arrays of 16-bit numbers are checked by their dtype: bf16 are uint16, fp16 float16.
extern "C" __global__ void widen(const bf16* first, const fp16* second, float* out) {
    const int i = threadIdx.x;
    out[i] = ptx::unpack<bf16>(first[i].bits).x + ptx::unpack<fp16>(second[i].bits).x;
}
