// The host's version of kernels/cuda/ptx/wgmma.cuh: operands by PTX's canonical layouts, read when the product is
// waited for.
#pragma once

#include "ptx/sm90_state.cuh"

namespace ptx {

namespace emulated {

// 16 elements of a row of a matrix as a descriptor describes it, by PTX's canonical layouts for the 128-byte swizzle:
// K-major ((8, m), (T, 2)) : ((8 T, stride), (1, T)), MN-major ((T, 8, m), (8, k)) : ((1, T, leading), (8 T, stride)),
// where T is 8 elements.
EMULATOR_UNCHECKED inline void read_row(const State& now, uint64_t descriptor, int row, bool is_bf16, bool mn_major,
                                        float (&to)[mma_k]) {
    const unsigned start = (descriptor & 0x3fff) << 4;
    const unsigned leading = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    for (int k = 0; k < mma_k; ++k) {
        const unsigned offset = mn_major ? row % 64 * 2 + row / 64 * leading + k % 8 * 128 + k / 8 * stride
                                         : row % 8 * 128 + row / 8 * stride + k * 2;
        const unsigned address = swizzled(start + offset);
        const auto* const from = now.memory + (address - first_address);
        const uint16_t bits = from[0] | from[1] << 8;
        to[k] = is_bf16 ? emulator::float_of(bf16{bits}) : emulator::float_of(fp16{bits});
    }
}

// The first operand where it is in registers, four of each lane: rows l / 4 and 8 more, places 2 (l % 4) and the next,
// and 8 more.
EMULATOR_UNCHECKED inline void read_registers(State& now, const Product& product) {
    for (int lane = 0; lane < warpSize; ++lane)
        for (int i = 0; i < 8; ++i) {
            const uint32_t pair = *product.registers[lane][i / 2];
            const int row = lane / 4 + i / 2 % 2 * 8, k = lane % 4 * 2 + i / 4 * 8 + i % 2;
            now.a[row][k] = emulator::float_of(fp16{uint16_t(i % 2 ? pair >> 16 : pair)});
        }
}

EMULATOR_UNCHECKED inline float cut(double sum) {  // towards zero, as tensor cores do
    const float near = static_cast<float>(sum);
    const bool larger = near > 0 ? near > sum : near < sum;
    return larger && near - near == 0 ? emulator::bit_cast<float>(emulator::bit_cast<uint32_t>(near) - 1) : near;
}

// The warp's 16 rows of a product. Where the first operand is in registers, sums are cut.
EMULATOR_UNCHECKED inline void run_product(State& now, const Product& product, int warp) {
    if (product.in_registers)
        read_registers(now, product);
    else
        for (int row = 0; row < 16; ++row)
            read_row(now, product.a, warp % warps_per_group * 16 + row, product.is_bf16, product.mn_major, now.a[row]);
    for (int column = 0; column < product.columns; ++column) {
        float values[mma_k];
        read_row(now, product.b, column, product.is_bf16, product.mn_major, values);
        for (int k = 0; k < mma_k; ++k) now.b[k][column] = values[k];
    }
    if (product.in_registers) {
        for (int lane = 0; lane < warpSize; ++lane)
            for (int i = 0; i < product.columns / 2; ++i) {
                const int row = lane / 4 + (i >> 1 & 1) * 8, column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
                double sum = product.add ? product.accum[lane][i] : 0.0f;
                for (int k = 0; k < mma_k; ++k) sum += double{now.a[row][k]} * now.b[k][column];
                product.accum[lane][i] = cut(sum);
            }
        ++now.events;
        return;
    }
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < product.columns; ++column) now.accum[row][column] = 0;
        for (int k = 0; k < mma_k; ++k)
            for (int column = 0; column < product.columns; ++column)
                now.accum[row][column] += now.a[row][k] * now.b[k][column];
    }
    for (int lane = 0; lane < warpSize; ++lane)
        for (int i = 0; i < product.columns / 2; ++i) {
            const float sum = now.accum[lane / 4 + (i >> 1 & 1) * 8][i / 4 * 8 + lane % 4 * 2 + (i & 1)];
            product.accum[lane][i] = sum + (product.add ? product.accum[lane][i] : 0.0f);
        }
    ++now.events;
}

struct Issued {  // a lane's operand
    float* accum;
    uint64_t a, b;
    int columns, add;
    bool is_bf16, mn_major;
    const char* fault;
    const uint32_t* registers[4];  // instead of a
};

EMULATOR_UNCHECKED inline int warp_number() { return threadIdx.x / warpSize; }

EMULATOR_UNCHECKED inline void issue(State& now, Issued** lanes) {
    Warp& warp = now.warps[warp_number()];
    const Issued& first = *lanes[0];
    constexpr uint64_t must = uint64_t{3} << 62 | uint64_t{7} << 49;  // swizzle, base offset
    const char* fault = nullptr;
    if (!warp.begun) fault = "wgmma.mma_async without wgmma.fence before its batch";
    if (warp.count == most_products) fault = "wgmma: no wait for 32 products";
    for (uint64_t descriptor : {first.registers[0] ? first.b : first.a, first.b})
        if ((descriptor & must) != uint64_t{1} << 62) fault = "wgmma: the emulator knows the 128-byte swizzle only";
    for (unsigned lane = 1; lane < warpSize; ++lane)
        if (lanes[lane]->a != first.a || lanes[lane]->b != first.b || !lanes[lane]->add != !first.add)
            fault = "wgmma: lanes have different operands";
    for (unsigned lane = 0; lane < warpSize; ++lane) lanes[lane]->fault = fault;
    if (fault) return;
    Product& product = warp.products[warp.count++];
    product.a = first.a;
    product.b = first.b;
    product.columns = first.columns;
    product.add = first.add;
    product.batch = warp.batch;
    product.is_bf16 = first.is_bf16;
    product.mn_major = first.mn_major;
    product.in_registers = first.registers[0];
    ++now.events;
    for (unsigned lane = 0; lane < warpSize; ++lane) {
        product.accum[lane] = lanes[lane]->accum;
        for (int i = 0; i < 4; ++i) product.registers[lane][i] = lanes[lane]->registers[i];
    }
}

struct Nothing {};

EMULATOR_UNCHECKED inline void begin(State& now, Nothing**) {
    now.warps[warp_number()].begun = true;
    ++now.events;
}

EMULATOR_UNCHECKED inline void commit(State& now, Nothing**) {
    Warp& warp = now.warps[warp_number()];
    ++warp.batch;
    warp.begun = false;
    ++now.events;
}

template <int pending>
EMULATOR_UNCHECKED void finish(State& now, Nothing**) {
    Warp& warp = now.warps[warp_number()];
    int done = 0;  // batches are in order; those not yet committed cannot be waited for
    for (; done < warp.count && warp.products[done].batch < warp.batch - pending; ++done)
        run_product(now, warp.products[done], warp_number());
    for (int i = done; i < warp.count; ++i) {
        const Product& from = warp.products[i];
        Product& to = warp.products[i - done];
        to.a = from.a;
        to.b = from.b;
        to.columns = from.columns;
        to.add = from.add;
        to.batch = from.batch;
        to.is_bf16 = from.is_bf16;
        to.in_registers = from.in_registers;
        for (unsigned lane = 0; lane < warpSize; ++lane)
            for (int part = 0; part < 4; ++part) to.registers[lane][part] = from.registers[lane][part];
        to.mn_major = from.mn_major;
        for (int lane = 0; lane < warpSize; ++lane) to.accum[lane] = from.accum[lane];
    }
    warp.count -= done;
    ++now.events;
}

}  // namespace emulated

EMULATOR_UNCHECKED inline void wgmma_fence(EMULATOR_SITE) {
    emulated::Nothing nothing;
    emulated::collective<emulated::begin>("wgmma.fence", nothing, site);
}

EMULATOR_UNCHECKED inline void wgmma_commit_group(EMULATOR_SITE) {
    emulated::Nothing nothing;
    emulated::collective<emulated::commit>("wgmma.commit_group", nothing, site);
}
template <int pending>
EMULATOR_UNCHECKED void wgmma_wait_group(EMULATOR_SITE) {
    emulated::Nothing nothing;
    emulated::collective<emulated::finish<pending>>("wgmma.wait_group", nothing, site);
}

template <int count>
inline void wgmma_fence_accum(float (&)[count]) {}
inline void wgmma_fence_operand(uint32_t&) {}

template <class Element, bool mn_major = false, int count>
EMULATOR_UNCHECKED void wgmma(float (&accum)[count], uint64_t a, uint64_t b, int add, EMULATOR_SITE) {
    emulated::Issued issued = {accum, a, b, 2 * count, add, is_bf16<Element>, mn_major, nullptr, {}};
    emulated::collective<emulated::issue>("wgmma.mma_async", issued, site);
    if (issued.fault) emulated::stop(issued.fault, site);
}

// The registers of the first operand, too, are read when the product is waited for.
template <int count>
EMULATOR_UNCHECKED void wgmma_from_registers(float (&accum)[count], const uint32_t& a0, const uint32_t& a1,
                                             const uint32_t& a2, const uint32_t& a3, uint64_t b, int add,
                                             EMULATOR_SITE) {
    emulated::Issued issued = {accum, 0, b, 2 * count, add, false, false, nullptr, {&a0, &a1, &a2, &a3}};
    emulated::collective<emulated::issue>("wgmma.mma_async", issued, site);
    if (issued.fault) emulated::stop(issued.fault, site);
}

}  // namespace ptx
