// Kernels that are right, and that use between them all of CUDA that the emulator knows. test_emulator.py compares
// their results with NumPy's, and expects the checking build to find nothing in them.
#include "../../kernels/cuda/common/platform.cuh"

extern "C" __global__ void __launch_bounds__(256) add(const float* __restrict__ x, const float* __restrict__ y,
                                                      float* __restrict__ sum, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) sum[i] = x[i] + y[i];
}

struct __align__(8) Affine {
    float scale, shift;
    int count;
};

extern "C" __global__ void apply(const __grid_constant__ Affine affine, const float* x, float* y) {
    for (int i = threadIdx.x; i < affine.count; i += blockDim.x) y[i] = fmaf(affine.scale, x[i], affine.shift);
}

// Every thread of a 3-D grid of 3-D blocks writes down who it is.
extern "C" __global__ void coordinates(int* out) {
    const int width = gridDim.x * blockDim.x, height = gridDim.y * blockDim.y;
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    const int z = blockIdx.z * blockDim.z + threadIdx.z;
    out[(z * height + y) * width + x] = x + 100 * y + 10000 * z;
}

// C = A B with 64x64 tiles, 256 threads of 4x4 each, float4 loads and two buffers; sides are multiples of 64 and 16.
extern "C" __global__ void __launch_bounds__(256) sgemm(const float* __restrict__ a, const float* __restrict__ b,
                                                        float* __restrict__ c, int n, int k) {
    SHARED(float, a_tile, [2][16][68]);
    SHARED(float, b_tile, [2][16][64]);
    const int t = threadIdx.x, row = blockIdx.y * 64, column = blockIdx.x * 64;
    const int my_row = t / 16 * 4, my_column = t % 16 * 4;

    auto load = [&](int stage, int k0) {
        const float4 from_a = *reinterpret_cast<const float4*>(&a[(row + t / 4) * k + k0 + t % 4 * 4]);
        a_tile[stage][t % 4 * 4 + 0][t / 4] = from_a.x;
        a_tile[stage][t % 4 * 4 + 1][t / 4] = from_a.y;
        a_tile[stage][t % 4 * 4 + 2][t / 4] = from_a.z;
        a_tile[stage][t % 4 * 4 + 3][t / 4] = from_a.w;
        *reinterpret_cast<float4*>(&b_tile[stage][t / 16][t % 16 * 4]) =
            __ldg(reinterpret_cast<const float4*>(&b[(k0 + t / 16) * n + column + t % 16 * 4]));
    };

    float sum[4][4] = {};
    load(0, 0);
    __syncthreads();
    for (int k0 = 0, stage = 0; k0 < k; k0 += 16, stage ^= 1) {
        if (k0 + 16 < k) load(stage ^ 1, k0 + 16);
#pragma unroll
        for (int step = 0; step < 16; ++step) {
            float left[4], right[4];
            *reinterpret_cast<float4*>(left) = *reinterpret_cast<const float4*>(&a_tile[stage][step][my_row]);
            *reinterpret_cast<float4*>(right) = *reinterpret_cast<const float4*>(&b_tile[stage][step][my_column]);
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sum[i][j] += left[i] * right[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
        *reinterpret_cast<float4*>(&c[(row + my_row + i) * n + column + my_column]) =
            make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
}

template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
    for (int delta = 16; delta; delta /= 2) value += __shfl_down_sync(0xffffffff, value, delta);
    return value;
}

// One sum per block: by shuffles within the warps, through shared memory between them.
template <class T>
__device__ void block_sum(const T* x, T* sums, int n) {
    SHARED(T, partial, [32]);
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = warp_sum(threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : T(0));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// A kernel per type, from a macro.
#define BLOCK_SUM(name, type) \
    extern "C" __global__ void name(const type* x, type* sums, int n) { block_sum(x, sums, n); }
BLOCK_SUM(block_sum_f32, float)
BLOCK_SUM(block_sum_f64, double)

// The same within one warp and through shared memory alone: __syncwarp is all that orders the lanes.
extern "C" __global__ void warp_synchronous_sum(const float* x, float* sums) {
    SHARED(float, partial, [256]);
    const int t = threadIdx.x, lane = t % 32;
    partial[t] = x[blockIdx.x * 256 + t];
    for (int delta = 16; delta; delta /= 2) {
        __syncwarp();
        const float other = lane < delta ? partial[t + delta] : 0.0f;
        __syncwarp();
        if (lane < delta) partial[t] += other;
    }
    if (lane == 0) sums[(blockIdx.x * 256 + t) / 32] = partial[t];
}

// Half of each block returns early, a quarter at a time; the rest goes through barriers without them.
extern "C" __global__ void survivors(int* out) {
    SHARED(int, total, );
    const int t = threadIdx.x;
    if (t >= 96) return;
    if (t == 0) total = 0;
    __syncthreads();
    if (t >= 64) return;
    for (int i = 0; i < 64; ++i) {
        if (i == t) total += t;
        __syncthreads();
    }
    out[blockIdx.x * 64 + t] = total;
}

// Reverses each block's part of x in dynamic shared memory.
extern "C" __global__ void reverse(float* x) {
    DYNAMIC_SHARED(float, staging);
    const int t = threadIdx.x;
    staging[t] = x[blockIdx.x * blockDim.x + t];
    __syncthreads();
    x[blockIdx.x * blockDim.x + t] = staging[blockDim.x - 1 - t];
}

// Bytes and half words of one 32-bit word belong to different lanes.
extern "C" __global__ void narrow(const unsigned char* x, unsigned short* wide) {
    SHARED(unsigned char, bytes, [128]);
    bytes[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    wide[threadIdx.x] = bytes[threadIdx.x] + bytes[threadIdx.x ^ 1];
}

// Every warp collective, one row of 32 results each; the last rows run in half warps with other masks.
extern "C" __global__ void collectives(int* out) {
    const int lane = threadIdx.x % 32;
    int row = 0;
    auto put = [&](int value) { out[(row++) * 32 + lane] = value; };
    put(__shfl_sync(~0u, lane, 5));
    put(__shfl_sync(~0u, lane, lane + 1, 8));
    put(__shfl_up_sync(~0u, lane, 3));
    put(__shfl_up_sync(~0u, lane, 3, 8));
    put(__shfl_down_sync(~0u, lane, 3));
    put(__shfl_down_sync(~0u, lane, 3, 8));
    put(__shfl_xor_sync(~0u, lane, 9));
    put(static_cast<int>(__shfl_xor_sync(~0u, lane * 1e9, 1) / 1e9));
    put(static_cast<int>(__ballot_sync(~0u, lane % 3 == 0)));
    put(__any_sync(~0u, lane == 7) + 2 * __any_sync(~0u, lane == 32));
    put(__all_sync(~0u, lane < 32) + 2 * __all_sync(~0u, lane < 31));
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    if (lane < 16) {
        put(__shfl_xor_sync(half, lane, 1));
    } else {
        put(-__shfl_xor_sync(half, lane, 2));
    }
    put(__popc(__ballot_sync(half, lane & 1)));
}

// Writes through a pointer that arrives in a struct.
struct Target {
    float* address;
    int count;
};
extern "C" __global__ void fill(Target target, float value) {
    for (int i = threadIdx.x; i < target.count; i += blockDim.x) target.address[i] = value;
}

extern "C" __global__ void greet() {
    if (threadIdx.x == 0) printf("hello from block %u\n", blockIdx.x);
}

__constant__ const float table[4] = {1.0f, 10.0f, 100.0f, 1000.0f};

extern "C" __global__ void look_up(const int* index, float* out, float* none) {
    out[threadIdx.x] = table[index[threadIdx.x]];
    if (none) none[0] = 1.0f;
}

// The last block to arrive adds up what all have left, and finds the ticket at zero the next time.
extern "C" __global__ void sum_by_the_last(const float* x, float* partials, float* out, unsigned* ticket) {
    SHARED(int, last, );
    partials[blockIdx.x * blockDim.x + threadIdx.x] = 2.0f * x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last) return;
    float sum = 0.0f;
    for (unsigned block = 0; block < gridDim.x; ++block) sum += __ldcg(&partials[block * blockDim.x + threadIdx.x]);
    out[threadIdx.x] = sum;
}
