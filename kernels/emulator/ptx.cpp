// What a tensor core computes, and what the lanes of a warp tell each other before it does. NVIDIA's manual leaves the
// order and the rounding of the additions open; this is what others have measured of sm_80 to sm_89, bit for bit (Xie,
// Yang, Yang, Yang: MMA-Sim, arXiv 2511.10909), the least exact of the GPUs that have bf16. Eight products of 16-bit
// numbers, or four of tf32, and the accumulator are cut to 24 bits below the largest exponent among them and added, and
// the sum is cut, not rounded, to a float. Over thousands of terms that drifts towards zero: a kernel that is exact
// enough here has allowed for it. sm_90 and later keep one bit more.
#include <algorithm>
#include <cmath>

#include "worker.h"

namespace emulator {
namespace {

constexpr int mma_rows = 16, mma_columns = 8, max_depth = 16;
constexpr int kept_bits = 24;

// A row of B or of the result: what is done for one number is done for eight. A cast keeps the bits.
typedef float FloatRow __attribute__((vector_size(mma_columns * sizeof(float))));
typedef double Row __attribute__((vector_size(mma_columns * sizeof(double))));
typedef int32_t IntRow __attribute__((vector_size(mma_columns * sizeof(int32_t))));
typedef int64_t LongRow __attribute__((vector_size(mma_columns * sizeof(int64_t))));

template <class To>
To load(const void* from) {
    To to;
    memcpy(&to, from, sizeof to);
    return to;
}

constexpr int64_t exponent_of_double = 0x7ff0000000000000, one = int64_t{1} << 52;  // one step of it

template <Number number>
constexpr int bits_of = number == Number::tf32 ? 32 : 16;
template <Number number>
constexpr int products_at_once = number == Number::tf32 ? 4 : 8;
template <Number number>
constexpr uint32_t exponent_bits = number == Number::bf16 ? 0x7f80 : number == Number::fp16 ? 0x7c00 : 0x7f800000;
template <Number number>
constexpr uint32_t magnitude_bits = number == Number::tf32 ? 0x7fffe000 : 0x7fff;
template <Number number>
constexpr double least_normal = number == Number::fp16 ? 0x1p-14 : 0x1p-126;

template <Number number>
float value_of(uint32_t bits) {
    if (number == Number::bf16) return bit_cast<float>(bits << 16);
    if (number == Number::tf32) return bit_cast<float>(bits & ~0x1fffu);  // the rest does not reach a tensor core
    const uint32_t sign = (bits & 0x8000) << 16, rest = (bits & 0x7fff) << 13;
    const float finite = bit_cast<float>(rest) * 0x1p112f;
    return bit_cast<float>(sign | (rest < 0x0f800000 ? bit_cast<uint32_t>(finite) : rest | 0x7f800000));
}

// Numbers, and the powers of two that their exponents stand for: the least normal one's for those below it, and 0 for
// zero, as its products say nothing about the exponent of a sum.
struct Factors {
    double value[max_depth * mma_rows], scale[max_depth * mma_rows];

    template <Number number>
    void set(const uint32_t* bits, int count) {
        for (int i = 0; i < count; ++i) {
            value[i] = value_of<number>(bits[i]);
            const double power = bit_cast<double>(bit_cast<int64_t>(value[i]) & exponent_of_double);
            scale[i] = value[i] == 0 ? 0 : power < least_normal<number> ? least_normal<number> : power;
        }
    }
};

template <Number number>
bool all_zero(const uint32_t* bits, int count) {
    uint32_t any = 0;
    for (int i = 0; i < count; ++i) any |= bits[i] & magnitude_bits<number>;
    return any == 0;
}

template <Number number>
bool all_finite(const uint32_t* bits, int count) {
    bool finite = true;
    for (int i = 0; i < count; ++i) finite &= (bits[i] & exponent_bits<number>) != exponent_bits<number>;
    return finite;
}

// sums += `count` products of a row of A, from a[k] on, and of as many rows of B; the largest exponents among the
// terms.
Row add_products(const Factors& a, int k, const Factors& b, int row, int count, float* sums) {
    Row sum = __builtin_convertvector(load<FloatRow>(sums), Row);
    Row largest = (Row)((LongRow)sum & exponent_of_double);
    largest = largest > 0x1p-126 ? largest : Row{} + 0x1p-126;
    for (int i = 0; i < count; ++i) {
        const Row scale = a.scale[k + i] * load<Row>(b.scale + (row + i) * mma_columns);
        largest = scale > largest ? scale : largest;
    }
    const Row per_unit = (Row)((1023 * one - (LongRow)largest) + (1023 + kept_bits) * one);  // 2^24 / largest
    IntRow total = __builtin_convertvector(sum * per_unit, IntRow);
    for (int i = 0; i < count; ++i) {
        const Row product = a.value[k + i] * load<Row>(b.value + (row + i) * mma_columns);
        total += __builtin_convertvector(product * per_unit, IntRow);
    }
    sum = __builtin_convertvector(total, Row) * (largest * (1.0 / (1 << kept_bits)));

    const FloatRow nearest = __builtin_convertvector(sum, FloatRow);
    const Row back = __builtin_convertvector(nearest, Row);
    const LongRow away = (LongRow)(sum > 0 ? back > sum : back < sum) & (LongRow)(back * back < 0x1p256);
    const IntRow bits = (IntRow)nearest + __builtin_convertvector(away, IntRow);  // -1 where it was rounded up
    memcpy(sums, &bits, sizeof bits);
    return largest;
}

struct Operands {  // one lane's fragments
    float* sums;
    const uint32_t *a, *b;
};

// Lane 4 g + t holds, of the accumulators, columns 2 t and 2 t + 1 of rows g and g + 8; of A, rows g and g + 8, and of
// B, column g, and in each register two neighbours along the sum, 2 t and 2 t + 1 of eight 16-bit numbers, or one, t of
// four tf32. PTX ISA, "Matrix Fragments for mma.m16n8k8" and "k16".
template <Number number, int depth>
void multiply_fragments(void* const* operands, unsigned) {
    constexpr int in_word = 32 / bits_of<number>, step = 4 * in_word;
    constexpr uint32_t low = bits_of<number> == 32 ? ~0u : 0xffff;
    uint32_t a_bits[mma_rows][depth], b_bits[depth][mma_columns];
    float before[mma_rows][mma_columns], sums[mma_rows][mma_columns];
    for (unsigned lane = 0; lane < warpSize; ++lane) {
        const Operands& has = *static_cast<const Operands*>(operands[lane]);
        const int group = lane / 4, in_group = lane % 4;
        for (int i = 0; i < 4; ++i) before[group + i / 2 * 8][2 * in_group + i % 2] = has.sums[i];
        for (int i = 0; i < depth / step; ++i)
            for (int j = 0; j < in_word; ++j) {
                const int k = i * step + in_group * in_word + j, shift = 16 * j;
                a_bits[group][k] = has.a[2 * i] >> shift & low;
                a_bits[group + 8][k] = has.a[2 * i + 1] >> shift & low;
                b_bits[k][group] = has.b[i] >> shift & low;
            }
    }
    // Tiles reach beyond images and channels, where all is zero: products of zeros change a sum of -0 alone.
    const bool b_zero = all_zero<number>(b_bits[0], depth * mma_columns);
    const bool b_finite = b_zero || all_finite<number>(b_bits[0], depth * mma_columns);
    bool skipped[mma_rows], all_skipped = true;
    for (int i = 0; i < mma_rows; ++i) {
        skipped[i] = b_zero ? all_finite<number>(a_bits[i], depth) : b_finite && all_zero<number>(a_bits[i], depth);
        all_skipped &= skipped[i];
        for (int j = 0; j < mma_columns; ++j) sums[i][j] = before[i][j] + (skipped[i] ? 0.0f : -0.0f);
    }
    Factors a, b;
    if (!all_skipped) {
        a.set<number>(a_bits[0], mma_rows * depth);
        b.set<number>(b_bits[0], depth * mma_columns);
    }
    Row largest = {};
    for (int i = 0; i < mma_rows; ++i)
        for (int k = 0; k < depth && !skipped[i]; k += products_at_once<number>) {
            const Row exponents = add_products(a, i * depth + k, b, k, products_at_once<number>, sums[i]);
            largest = exponents > largest ? exponents : largest;
        }
    // An infinity or NaN somewhere: once more, with nothing cut, which beside an infinity makes no difference.
    bool finite = true;
    for (int j = 0; j < mma_columns; ++j) finite &= largest[j] < INFINITY;
    for (int i = 0; i < mma_rows && !all_skipped; ++i)
        for (int j = 0; j < mma_columns; ++j) finite &= !skipped[i] || std::isfinite(before[i][j]);
    for (int i = 0; i < mma_rows && !finite; ++i)
        for (int j = 0; j < mma_columns; ++j) {
            double sum = before[i][j];
            for (int k = 0; k < depth; ++k) sum += a.value[i * depth + k] * b.value[k * mma_columns + j];
            sums[i][j] = static_cast<float>(sum);
        }
    for (unsigned lane = 0; lane < warpSize; ++lane) {
        const Operands& has = *static_cast<const Operands*>(operands[lane]);
        for (int i = 0; i < 4; ++i) has.sums[i] = sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
}

struct Brought {  // a row, by a lane, and what the lane is told
    const char* own;
    MatrixRows* all;
    const char* name;
    const Lane* lane;
};

void tell_rows(void* const* operands, unsigned) {
    MatrixRows all;
    for (unsigned lane = 0; lane < warpSize; ++lane) all.rows[lane] = static_cast<const Brought*>(operands[lane])->own;
    for (unsigned lane = 0; lane < warpSize; ++lane) *static_cast<const Brought*>(operands[lane])->all = all;
    if constexpr (!EMULATOR_CHECK) return;
    for (unsigned first = 0; first < warpSize; first += 8) {
        unsigned groups = 0;  // of four banks
        for (unsigned i = 0; i < 8; ++i) groups |= 1u << reinterpret_cast<uintptr_t>(all.rows[first + i]) / 16 % 8;
        if (groups == 0xff) continue;
        const Lane& lane = *static_cast<const Brought*>(operands[first])->lane;
        worker->launch->reports.add("bank conflict", lane.wait.site, [&](Report& report) {
            report.headline = "the eight rows of a matrix share " + std::to_string(__builtin_popcount(groups)) +
                              " of the eight groups of four banks";
            const std::string in =
                std::string("brings the first, in ") + static_cast<const Brought*>(operands[first])->name;
            report.sides = {worker->side(in, lane, 0, lane.wait.site)};
        });
    }
}

}  // namespace

void multiply_add(Number number, int depth, float* sums, const uint32_t* a, const uint32_t* b, Site site) {
    const Combine combine = number == Number::bf16   ? multiply_fragments<Number::bf16, 16>
                            : number == Number::tf32 ? multiply_fragments<Number::tf32, 8>
                            : depth == 16            ? multiply_fragments<Number::fp16, 16>
                                                     : multiply_fragments<Number::fp16, 8>;
    Operands operands{sums, a, b};
    worker->collective("mma", ~0u, &operands, combine, site);
}

void exchange_rows(const char* name, const char* row, MatrixRows& all, Site site) {
    const std::string what = std::string("a row of ") + name;
    worker->require_shared(what.c_str(), row, site);
    worker->require_alignment(what.c_str(), row, 16, site);
    Brought operand{row, &all, name, worker->running};
    worker->collective(name, ~0u, &operand, tell_rows, site);
}

}  // namespace emulator
