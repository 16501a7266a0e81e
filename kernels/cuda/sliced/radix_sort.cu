// Rows of floats sorted, rising and stable, and where each value came from: a radix sort of our own, all rows in one
// launch. A float becomes a whole number of 32 bits in the same order (`to_key`): every NaN the largest, -0 the same as
// 0. Four passes of eight bits, from the lowest, put the keys in the order of one digit each and leave equals as they
// were; a pass goes from one memory to the other, and the fourth ends where the first began.
//
// A row is cut into tiles of 4096, a block to a tile (blockIdx.x) of a row (blockIdx.y). A pass is three launches:
//
//     keys      | 7 2 7 1 | 1 7 2 2 |                      two tiles of one row; digits below 8
//     count_digits                how many of each digit a tile has        1: 1 1    2: 1 2    7: 2 1
//     scan_digits                 where each of them begins in the row     1: 0 1    2: 2 3    7: 5 7
//     scatter_digits              to that place, and its rank among the tile's equals
//     next      | 1 1 2 2 2 7 7 7 |
//
// A rank is found by warps, without atomics. A warp has 512 neighbours of the tile and takes 32 at a time; eight
// ballots tell a lane who else has its digit, and the warp's own counter in shared memory how many there were before:
//
//     warp 0    warp 1   ...  warp 7         counters [8][256]; summed down the warps, then along the digits, they say
//     16 x 32   16 x 32       16 x 32        where in the tile each warp's run of a digit begins
//
// Sorted so in shared memory, a tile leaves as runs of neighbours, 16 keys a run on average. What fits one tile is
// sorted by one launch of `sort_rows_in_block`, which never leaves shared memory between passes.
//
// Bound by device memory: 4 bytes to count and 16 to move (12 in the first pass, whose places are implied), 76 bytes a
// value. 262,144 values in each of 64 rows are 1.28 GB: 0.38 ms of an H100's 3.35 TB/s were predicted, twice that as long
// as ranking is not hidden behind it, and an H100 takes 1.09 ms (benchmarks/results/h100_2026-11-27_styles.md): ranking
// bounds it, twice in every pass. Launched by launch.py;
// tests/kernels/cuda/sliced/test_sliced.py compares every byte with NumPy's stable sort, in the emulator.
#include "common/platform.cuh"
#include "common/tile_constants.cuh"

namespace {

constexpr int threads = 256, warps = threads / 32, digits = 256, passes = 4;
constexpr int items = sort_tile / threads;  // of a thread
static_assert(threads == digits, "a thread looks after a digit");

__device__ __forceinline__ uint32_t to_key(uint32_t bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;  // not a number
    if (bits == 0x80000000u) bits = 0;                           // -0
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ uint32_t from_key(uint32_t key) {
    if (key == 0xffffffffu) return 0x7fc00000u;
    return key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
}

__device__ __forceinline__ int digit_of(uint32_t key, int shift) { return key >> shift & (digits - 1); }

// Where in the tile a thread's item lies: a warp's are neighbours, and come in the tile's order.
__device__ __forceinline__ int place_of(int item) { return (threadIdx.x / 32 * items + item) * 32 + threadIdx.x % 32; }

// The lanes with this lane's digit, itself among them, of those that have a key.
__device__ __forceinline__ unsigned peers_of(int digit, bool valid) {
    unsigned peers = __ballot_sync(~0u, valid);
#pragma unroll
    for (int bit = 0; bit < 8; ++bit) {
        const unsigned set = __ballot_sync(~0u, digit >> bit & 1);
        peers &= digit >> bit & 1 ? set : ~set;
    }
    return peers;
}

using Counts = int[warps][digits];

__device__ __forceinline__ void clear(Counts& counts) {
#pragma unroll
    for (int warp = 0; warp < warps; ++warp) counts[warp][threadIdx.x] = 0;
    __syncthreads();
}

// How many keys of this digit the warp has met before; meets those of one round, which are the lane's and its peers'.
__device__ __forceinline__ int count(int (&of_warp)[digits], int digit, bool valid) {
    const int lane = threadIdx.x % 32;
    const unsigned peers = peers_of(digit, valid), earlier = peers & ((1u << lane) - 1);
    const int before = valid ? of_warp[digit] : 0;
    __syncwarp();
    if (valid && earlier == 0) of_warp[digit] = before + __popc(peers);
    __syncwarp();
    return before + __popc(earlier);
}

// A thread's ranks among its warp's 512 keys, two to a register, in order of their items.
struct Ranks {
    uint32_t pairs[items / 2];

    __device__ __forceinline__ void set(int item, uint32_t rank) {
        pairs[item / 2] = item % 2 ? pairs[item / 2] | rank << 16 : rank;
    }
    __device__ __forceinline__ int of(int item) const { return pairs[item / 2] >> item % 2 * 16 & 0xffff; }
};

// The sum of what the threads before this one have.
__device__ __forceinline__ int sum_before(int value, int (&warp_sums)[warps]) {
    const int lane = threadIdx.x % 32;
    int sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(~0u, sum, distance);
        if (lane >= distance) sum += other;
    }
    if (lane == 31) warp_sums[threadIdx.x / 32] = sum;
    __syncthreads();
    int before = sum - value;
    for (int warp = 0; warp < threadIdx.x / 32; ++warp) before += warp_sums[warp];
    return before;
}

// counts[warp][digit] := where in the sorted tile that run begins; returns where the run of digit threadIdx.x begins.
__device__ __forceinline__ int starts_of(Counts& counts, int (&warp_sums)[warps]) {
    __syncthreads();
    int total = 0;
#pragma unroll
    for (int warp = 0; warp < warps; ++warp) total += counts[warp][threadIdx.x];
    const int first = sum_before(total, warp_sums);
    int start = first;
#pragma unroll
    for (int warp = 0; warp < warps; ++warp) {
        const int here = counts[warp][threadIdx.x];
        counts[warp][threadIdx.x] = start;
        start += here;
    }
    __syncthreads();
    return first;
}

}  // namespace

// counts[row][tile][digit] := how many keys of the tile have the digit at `shift`; `first`: keys are floats yet.
extern "C" __global__ void __launch_bounds__(threads) count_digits(const uint32_t* __restrict__ keys, int length,
                                                                   int shift, int first, int* __restrict__ counts) {
    SHARED(int, counted, [warps][digits]);
    const int start = blockIdx.x * sort_tile, here = min(sort_tile, length - start);
    const uint32_t* const from = keys + size_t(blockIdx.y) * length + start;
    clear(counted);
#pragma unroll 4
    for (int item = 0; item < items; ++item) {
        const int place = place_of(item);
        const bool valid = place < here;
        uint32_t key = valid ? from[place] : 0;
        if (first) key = to_key(key);
        count(counted[threadIdx.x / 32], digit_of(key, shift), valid);
    }
    __syncthreads();
    int total = 0;
#pragma unroll
    for (int warp = 0; warp < warps; ++warp) total += counted[warp][threadIdx.x];
    counts[(size_t(blockIdx.y) * gridDim.x + blockIdx.x) * digits + threadIdx.x] = total;
}

// counts[row][tile][digit] := where in the row the tile's keys of that digit go; a block to a row.
extern "C" __global__ void __launch_bounds__(threads) scan_digits(int* __restrict__ counts, int tiles) {
    SHARED(int, warp_sums, [warps]);
    int* const own = counts + size_t(blockIdx.x) * tiles * digits + threadIdx.x;
    int total = 0;
#pragma unroll 8
    for (int tile = 0; tile < tiles; ++tile) total += own[size_t(tile) * digits];
    int start = sum_before(total, warp_sums);
#pragma unroll 8
    for (int tile = 0; tile < tiles; ++tile) {
        const int here = own[size_t(tile) * digits];
        own[size_t(tile) * digits] = start;
        start += here;
    }
}

// out := keys, and places_out := places, in the order of the digit at `shift`; `first`: keys are floats yet, and places
// those where they lie; `last`: they become floats. Null places_out are not wanted.
extern "C" __global__ void __launch_bounds__(threads, 2) scatter_digits(
    const uint32_t* __restrict__ keys, const int* __restrict__ places, const int* __restrict__ starts, int length,
    int shift, int first, int last, uint32_t* __restrict__ out, int* __restrict__ places_out) {
    SHARED(int, counts, [warps][digits]);
    SHARED(int, warp_sums, [warps]);
    SHARED(int, offsets, [digits]);
    SHARED(uint32_t, sorted, [sort_tile]);
    SHARED(int, sorted_places, [sort_tile]);
    const int start = blockIdx.x * sort_tile, here = min(sort_tile, length - start);
    const size_t row = size_t(blockIdx.y) * length;
    clear(counts);

    uint32_t key[items];
    Ranks ranks;
#pragma unroll
    for (int item = 0; item < items; ++item) {
        const int place = place_of(item);
        key[item] = place < here ? keys[row + start + place] : 0;
        if (first) key[item] = to_key(key[item]);
    }
#pragma unroll
    for (int item = 0; item < items; ++item)
        ranks.set(item, count(counts[threadIdx.x / 32], digit_of(key[item], shift), place_of(item) < here));

    const int first_of_digit = starts_of(counts, warp_sums);
    const size_t tile = size_t(blockIdx.y) * gridDim.x + blockIdx.x;
    offsets[threadIdx.x] = starts[tile * digits + threadIdx.x] - first_of_digit;
#pragma unroll
    for (int item = 0; item < items; ++item) {
        const int place = place_of(item);
        if (place >= here) continue;
        const int to = counts[threadIdx.x / 32][digit_of(key[item], shift)] + ranks.of(item);
        sorted[to] = key[item];
        if (places_out) sorted_places[to] = first ? start + place : places[row + start + place];
    }
    __syncthreads();
#pragma unroll 4
    for (int item = 0; item < items; ++item) {
        const int place = item * threads + threadIdx.x;
        if (place >= here) break;
        const uint32_t sorted_key = sorted[place];
        const size_t to = row + offsets[digit_of(sorted_key, shift)] + place;
        out[to] = last ? from_key(sorted_key) : sorted_key;
        if (places_out) places_out[to] = sorted_places[place];
    }
}

// values := each row sorted, places := where in the row each came from (null: not wanted), of rows that are no longer
// than a tile; a block to a row.
extern "C" __global__ void __launch_bounds__(threads, 1) sort_rows_in_block(uint32_t* __restrict__ values,
                                                                            int* __restrict__ places, int length) {
    SHARED(int, counts, [warps][digits]);
    SHARED(int, warp_sums, [warps]);
    SHARED(uint32_t, sorted, [sort_tile]);
    SHARED(int, sorted_places, [sort_tile]);
    const size_t row = size_t(blockIdx.x) * length;

    uint32_t key[items];
    int came_from[items];
    Ranks ranks;
#pragma unroll
    for (int item = 0; item < items; ++item) {
        const int place = place_of(item);
        key[item] = place < length ? to_key(values[row + place]) : 0;
        came_from[item] = place;
    }
#pragma unroll 1
    for (int pass = 0; pass < passes; ++pass) {
        const int shift = 8 * pass;
        clear(counts);
#pragma unroll
        for (int item = 0; item < items; ++item)
            ranks.set(item, count(counts[threadIdx.x / 32], digit_of(key[item], shift), place_of(item) < length));
        starts_of(counts, warp_sums);
#pragma unroll
        for (int item = 0; item < items; ++item) {
            if (place_of(item) >= length) continue;
            const int to = counts[threadIdx.x / 32][digit_of(key[item], shift)] + ranks.of(item);
            sorted[to] = key[item];
            sorted_places[to] = came_from[item];
        }
        __syncthreads();
#pragma unroll
        for (int item = 0; item < items; ++item) {
            const int place = place_of(item);
            if (place >= length) continue;
            key[item] = sorted[place];
            came_from[item] = sorted_places[place];
        }
        // The next pass clears the counters, which nobody reads any more, and has barriers before it writes here.
    }
#pragma unroll
    for (int item = 0; item < items; ++item) {
        const int place = place_of(item);
        if (place >= length) continue;
        values[row + place] = from_key(key[item]);
        if (places) places[row + place] = came_from[item];
    }
}
