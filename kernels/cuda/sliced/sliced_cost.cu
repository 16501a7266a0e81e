// Random directions, and the squared distance of sorted projections to a target's with what it sends back.
//
// Directions are drawn by Philox as kernels/random/directions.py has it, and come out with the same bytes: sums of
// whole numbers, then a root and a quotient in float64, which are rounded alike everywhere.
//
// The cost goes through each row in runs, a block to a run (blockIdx.x) of every gridDim.y-th row: where the value's rank
// falls between two of the target's, the difference, its square to the block's partial sum, and the difference to its
// pixel. All blocks are at the same few rows, so that what they scatter stays in L2 until it is whole: with all rows at
// once, 64 of 262,144 took an H100 0.90 ms, while 64 of 65,536, which fit L2, took 0.08. Without weights a rank is known from the place. With them it is a running sum of the weights in the row's
// order: one launch leaves the sum of each run, and the cost's begins with those of the runs before its own. Every sum
// is added up in an order that depends on the shape alone.
//
// Bound by device memory: value, place, two of the target's and the residual, 16 to 20 bytes a value, the last of them
// scattered within rows that the L2 cache holds: 0.64 ms on an H100 for 64 rows of 262,144 (0.13 predicted).
// Launched by launch.py; tests/kernels/cuda/sliced/test_sliced.py compares it with the reference.
#include "common/reduce.cuh"

namespace {

struct Words {
    uint32_t x, y, z, w;
};

__device__ __forceinline__ Words philox(Words c, uint32_t key_x, uint32_t key_y) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64_t first = uint64_t{0xd2511f53u} * c.x, second = uint64_t{0xcd9e8d57u} * c.z;
        c = {static_cast<uint32_t>(second >> 32) ^ c.y ^ key_x, static_cast<uint32_t>(second),
             static_cast<uint32_t>(first >> 32) ^ c.w ^ key_y, static_cast<uint32_t>(first)};
        key_x += 0x9e3779b9u;
        key_y += 0xbb67ae85u;
    }
    return c;
}

__device__ __forceinline__ int sum_of_bytes(uint32_t word) {
    return (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24);
}

// The sum over this thread and those before it, and over the block.
struct Running {
    float sum, total;
};

__device__ __forceinline__ Running running_sum(float value, float (&warp_sums)[WARPS]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const float other = __shfl_up_sync(~0u, sum, distance);
        if (lane >= distance) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    float before = 0.0f, total = 0.0f;
#pragma unroll
    for (int other = 0; other < WARPS; ++other) {
        if (other == warp) before = total;
        total += warp_sums[other];
    }
    __syncthreads();
    return {before + sum, total};
}

// The run of a row that is this block's.
struct Run {
    int first, end;
};

__device__ __forceinline__ Run own_run(int length) {
    const int turns = (length - 1) / THREADS + 1, of_block = (turns - 1) / int(gridDim.x) + 1;
    const int64_t first = int64_t{blockIdx.x} * of_block * THREADS;
    return {int(min(first, int64_t{length})), int(min(first + int64_t{of_block} * THREADS, int64_t{length}))};
}

}  // namespace

// out (gridDim.x, channels) := unit vectors, a block to each.
extern "C" __global__ void __launch_bounds__(THREADS) random_directions(uint32_t seed_low, uint32_t seed_high,
                                                                        const int* __restrict__ counter, int channels,
                                                                        float* __restrict__ out) {
    SHARED(int64_t, warp_sums, [WARPS]);
    const uint32_t direction = blockIdx.x, turn = *counter;
    const auto draw = [&](int channel) {
        const Words words = philox({uint32_t(channel), direction, turn, 0}, seed_low, seed_high);
        return 2 * (sum_of_bytes(words.x) + sum_of_bytes(words.y) + sum_of_bytes(words.z) + sum_of_bytes(words.w)) -
               4079;
    };
    int64_t sum = 0;
    for (int channel = threadIdx.x; channel < channels; channel += THREADS) {
        const int x = draw(channel);
        sum += int64_t{x} * x;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
    __syncthreads();
    int64_t squares = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) squares += warp_sums[warp];
    const double norm = sqrt(static_cast<double>(squares));
    for (int channel = threadIdx.x; channel < channels; channel += THREADS)
        out[size_t(blockIdx.x) * channels + channel] = static_cast<float>(draw(channel) / norm);
}

// sums[row][run] := of the weights of the run's pixels.
extern "C" __global__ void __launch_bounds__(THREADS) sliced_weight_sums(const int* __restrict__ order,
                                                                         const float* __restrict__ weights, int length,
                                                                         float* __restrict__ sums) {
    const Run run = own_run(length);
    const int* const places = order + size_t(blockIdx.y) * length;
    float sum = 0.0f;
    for (int64_t i = run.first + threadIdx.x; i < run.end; i += THREADS) sum += weights[places[i]];
    const float total = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

namespace {

template <bool weighted>
__device__ __forceinline__ void cost_of_run(const float* values, const int* order, const float* target,
                                            const float* weights, const float* weight_sums, int rows, int length,
                                            int most, float scale, float* residual, int accumulate, float* partials,
                                            float factor, float* cost, unsigned* ticket) {
    SHARED(float, warp_sums, [WARPS]);
    const Run run = own_run(length);
    const int64_t twice = 2 * int64_t{length};
    float sum = 0.0f;
#pragma unroll 1
    for (int number = blockIdx.y; number < rows; number += gridDim.y) {
        const size_t row = size_t(number) * length;
        const float* const wanted = target + size_t(number) * most;

        double base = 0.0;
        if (weighted)
            for (int before = 0; before < blockIdx.x; ++before) base += weight_sums[number * gridDim.x + before];

        for (int64_t start = run.first; start < run.end; start += THREADS) {  // the same turns for every thread
            const int64_t i = start + threadIdx.x;
            const bool valid = i < run.end;
            const int place = valid ? order[row + i] : 0;
            float weight = 1.0f, share = 0.0f;
            int before = 0;
            if (weighted) {
                weight = valid ? weights[place] : 0.0f;
                const Running running = running_sum(weight, warp_sums);
                const double rank = base + (running.sum - 0.5f * weight);
                const double at = min(max(rank * most / length - 0.5, 0.0), most - 1.0);
                before = static_cast<int>(at);
                share = static_cast<float>(at - before);
                base += running.total;
            } else if (most == length) {
                before = static_cast<int>(min(i, int64_t{length} - 1));
            } else {  // (i + 1/2) / length * most - 1/2, in whole numbers
                const int64_t at = min(max((2 * i + 1) * most - length, int64_t{0}), twice * (most - 1));
                before = static_cast<int>(at / twice);
                share = static_cast<float>(at - before * twice) / static_cast<float>(twice);
            }
            if (!valid) continue;
            const float lower = wanted[before], upper = wanted[min(before + 1, most - 1)];
            const float away = values[row + i] - (lower + share * (upper - lower));
            sum += weight * away * away;
            float* const to = residual + row + place;
            *to = scale * weight * away + (accumulate ? *to : 0.0f);
        }
    }
    const float total = block_sum(sum);
    sum_over_blocks(total, blockIdx.y * gridDim.x + blockIdx.x, gridDim.y * gridDim.x, partials, factor, cost, ticket);
}

}  // namespace

// cost := factor * sum weight (value - T(rank))^2; residual[row][place] := scale * weight *
// (value - T(rank)) [+ residual[row][place]]; target is (rows, most).
extern "C" __global__ void __launch_bounds__(THREADS, 4) sliced_cost(
    const float* __restrict__ values, const int* __restrict__ order, const float* __restrict__ target, int rows,
    int length, int most, float scale, float* __restrict__ residual, int accumulate, void* __restrict__ partials,
    float factor, float* __restrict__ cost, unsigned* __restrict__ ticket) {
    cost_of_run<false>(values, order, target, nullptr, nullptr, rows, length, most, scale, residual, accumulate,
                       static_cast<float*>(partials), factor, cost, ticket);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) sliced_cost_weighted(
    const float* __restrict__ values, const int* __restrict__ order, const float* __restrict__ target,
    const float* __restrict__ weights, const float* __restrict__ weight_sums, int rows, int length, int most,
    float scale, float* __restrict__ residual, int accumulate, void* __restrict__ partials, float factor,
    float* __restrict__ cost, unsigned* __restrict__ ticket) {
    cost_of_run<true>(values, order, target, weights, weight_sums, rows, length, most, scale, residual, accumulate,
                      static_cast<float*>(partials), factor, cost, ticket);
}
