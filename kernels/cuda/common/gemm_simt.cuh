// The matrix product behind the convolutions, the Gram matrix and its gradient: a block's tile of A B, fp32 on FFMA.
// Who multiplies what is a policy: two loaders bring `block_k` columns of A and rows of B at a time into shared
// memory, and the caller does something with the sums. Here are the shapes, the main loop and the loader of a plain
// matrix; common/transposed_rows.cuh has the one that transposes on the way, and conv3x3/implicit_gemm_simt.cuh the one
// that gathers a convolution's windows. Tested through
// the kernels built on it, in tests/kernels/cuda/conv3x3/test_simt.py and tests/kernels/cuda/gram/test_simt.py.
//
// What the numbers are chosen for. A thread holds 8x8 sums and reads 16 operands for 64 FFMA; a warp holds 64x32. In
// one step of `block_k` a thread of the widest tile issues 512 FFMA, 32 shared loads, 7 instructions that move operands
// in and some 31 of bookkeeping: 88% of what is issued are FFMA (counted in the SASS for sm_80 and sm_90), an upper
// bound for the share of the peak. 128 registers let an SM hold 16 warps, 168 let it hold 12, so that others run while
// one waits at the barrier. Shared memory has two stages: the next step's operands travel from global memory through
// registers while the current ones are multiplied, and one barrier per step suffices.
//
// Registers are short: 64 sums, 32 operands, 8 on their way in, and what is left must hold the bookkeeping without a
// spill on any architecture. Where the code does something roundabout, that is why, and the compile gate is its test.
#pragma once

#include "common/platform.cuh"
#include "common/tile_constants.cuh"

namespace simt {

template <int rows_, int columns_>
struct Tile {
    static constexpr int rows = rows_, columns = columns_;
    static_assert(rows % 64 == 0 && columns % 32 == 0, "whole warps");
    static constexpr int threads = rows / 64 * (columns / 32) * 32;
    // Of 65536 registers: 128 a thread in blocks of 256, 168 in smaller ones, which have more to keep per thread.
    static constexpr int blocks_per_sm = threads == 256 ? 2 : 384 / threads;

    // One step's operands. A row of A is 4 floats longer than it need be: see PixelTaps::put.
    static constexpr int a_pitch = rows + 4, b_pitch = columns;
    struct Stage {
        float smem_a[block_k * a_pitch], smem_b[block_k * b_pitch];
    };
    using Stages = Stage[2];
};

using Accum = float[8][8];

// Where in the tile a thread's sums belong: rows row..row+3 and row+32..row+35, columns column..column+3 and
// column+16..column+19. In fours, so that operands come as float4 and outputs leave as float4.
struct Corner {
    int row, column;
};

// A warp's 16-byte shared loads are served in two passes instead of four if lanes i and i^1, or i and i^2, ask for the
// same address (others' measurements; not yet ours). So bit 0 of the lane selects among rows and bit 1 among columns:
// one pair shares its part of B, the other its part of A. Each pass reads different banks: eight or four neighbouring
// float4 of one row of the stage.
template <class Tile>
__device__ __forceinline__ Corner thread_corner() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps_down = Tile::rows / 64;
    const int lane_row = (lane & 1) | (lane >> 3) << 1, lane_column = lane >> 1 & 3;
    return {warp % warps_down * 64 + lane_row * 4, warp / warps_down * 32 + lane_column * 4};
}

// accum += one step: the thread's columns of A times its rows of B.
template <class Tile>
__device__ __forceinline__ void multiply_k_tile(const float* smem_a, const float* smem_b, Accum& accum) {
#pragma unroll
    for (int k = 0; k < block_k; ++k) {
        float a[8], b[8];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* from = smem_a + k * Tile::a_pitch + 32 * half;
            *reinterpret_cast<float4*>(a + 4 * half) = *reinterpret_cast<const float4*>(from);
            from = smem_b + k * Tile::b_pitch + 16 * half;
            *reinterpret_cast<float4*>(b + 4 * half) = *reinterpret_cast<const float4*>(from);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) accum[i][j] += a[i] * b[j];
    }
}

// `k_tiles` times `block_k` columns of A times rows of B, added up in this order; at least one step. `stages` are in
// shared memory and belong to this function till it returns; what the caller wrote there elsewhere can be read
// after that.
template <class Tile, class LoaderA, class LoaderB>
__device__ __forceinline__ void multiply(LoaderA& loader_a, LoaderB& loader_b, int k_tiles,
                                         typename Tile::Stages& stages, Accum& accum) {
    const Corner corner = thread_corner<Tile>();

#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) accum[i][j] = 0.0f;

    loader_a.fetch();
    loader_b.fetch();
    loader_a.template put<Tile::a_pitch>(stages[0].smem_a + LoaderA::template offset<Tile::a_pitch>());
    loader_b.template put<Tile::b_pitch>(stages[0].smem_b + LoaderB::template offset<Tile::b_pitch>());
    __syncthreads();

    // Where in `stages` this thread reads the current stage and writes the other. Carried from step to step, or the
    // compiler computes them anew from threadIdx each time; as numbers, because pointers into shared memory take
    // two registers.
    float* const memory = reinterpret_cast<float*>(stages);
    constexpr int b_half = sizeof stages[0].smem_a / sizeof(float);
    int to_other = sizeof stages[0] / sizeof(float);
    int a_from = corner.row, b_from = b_half + corner.column;
    int a_to = to_other + LoaderA::template offset<Tile::a_pitch>();
    int b_to = to_other + b_half + LoaderB::template offset<Tile::b_pitch>();

    // One step too many is fetched and put, and nobody reads it: the loaders see to it that it is there or skipped.
    // With the loads under an `if` instead, the compiler moves them behind the multiplications that are there to
    // hide them; with the last step after the loop, the code doubles.
#pragma unroll 1
    for (; k_tiles > 0; --k_tiles) {
        loader_a.advance();
        loader_b.advance();
        loader_a.fetch();
        loader_b.fetch();
        multiply_k_tile<Tile>(memory + a_from, memory + b_from, accum);
        // The other stage was last read before the previous barrier, so nobody is still at it.
        loader_a.template put<Tile::a_pitch>(memory + a_to);
        loader_b.template put<Tile::b_pitch>(memory + b_to);
        a_from += to_other;
        b_from += to_other;
        a_to -= to_other;
        b_to -= to_other;
        to_other = -to_other;
        __syncthreads();
    }
}

// Whether rows are multiples of four long, so that four neighbours can be loaded at once: `asked` of every row's length.
enum class Fours { always, never, asked };
constexpr __device__ __forceinline__ Fours fours_if(bool vector) { return vector ? Fours::always : Fours::never; }

// Four neighbours of a row that may end among them: zeros beyond its end. `vector`: rows are multiples of four long.
template <bool vector>
__device__ __forceinline__ float4 load4(const float* from, int left_in_row) {
    if (vector) return left_in_row > 0 ? *reinterpret_cast<const float4*>(from) : make_float4(0, 0, 0, 0);
    return make_float4(left_in_row > 0 ? from[0] : 0.0f, left_in_row > 1 ? from[1] : 0.0f,
                       left_in_row > 2 ? from[2] : 0.0f, left_in_row > 3 ? from[3] : 0.0f);
}

template <Fours fours>
__device__ __forceinline__ float4 load4(const float* from, int left_in_row, int length) {
    if (fours == Fours::asked) return length % 4 ? load4<false>(from, left_in_row) : load4<true>(from, left_in_row);
    return load4 < fours == Fours::always > (from, left_in_row);
}

// B, or A transposed, as it lies in memory: rows of `pitch` floats, of which a tile takes `span` from first_column
// on. Neighbouring threads load neighbouring float4, and store them so: 128 bytes for eight lanes, no bank twice.
// `padded`: there are rows for every step and the one too many, and a pitch that is a multiple of four. Then no
// load needs a check: beyond the last column a thread takes the last ones again, for sums that nobody stores.
template <class Tile, int span, Fours fours, bool padded>
class MatrixRows {
    static constexpr int per_row = span / 4, stride = Tile::threads / per_row, loads = block_k / stride;
    static_assert(Tile::threads % per_row == 0 && block_k % stride == 0, "whole rows per pass, whole passes per step");

    const float* next_;
    int pitch_, rows_left_, left_in_row_;  // from the thread's first
    float4 fetched_[loads];

  public:
    __device__ __forceinline__ MatrixRows(const float* matrix, int pitch, int first_column, int first_row, int end) {
        const int row = first_row + threadIdx.x / per_row, wanted = first_column + threadIdx.x % per_row * 4;
        const int column = padded ? min(wanted, pitch - 4) : wanted;
        next_ = matrix + size_t(row) * pitch + column;
        pitch_ = pitch;
        rows_left_ = end - row;
        left_in_row_ = pitch - column;
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const float* from = next_ + i * stride * pitch_;
            if (padded)
                fetched_[i] = *reinterpret_cast<const float4*>(from);
            else
                fetched_[i] = load4<fours>(from, i * stride < rows_left_ ? left_in_row_ : 0, pitch_);
        }
    }
    __device__ __forceinline__ void advance() {
        rows_left_ -= block_k;
        next_ += block_k * pitch_;
    }
    template <int pitch>
    static __device__ __forceinline__ int offset() {
        return threadIdx.x / per_row * pitch + threadIdx.x % per_row * 4;
    }
    template <int pitch>
    __device__ __forceinline__ void put(float* to) const {
#pragma unroll
        for (int i = 0; i < loads; ++i) *reinterpret_cast<float4*>(to + i * stride * pitch) = fetched_[i];
    }
};

}  // namespace simt
