// What the host's versions of mbarrier.cuh, tma.cuh and wgmma.cuh share: what a block has under way.
//
// It is as unhelpful as the instructions are allowed to be. A load is carried out at once or only when somebody waits
// for its barrier, as a coin decides (EMULATOR_LOADS: 0 always at once, 1 always late, 2 the coin). A product reads its
// operands and writes its accumulators only at the wait that waits for it. So a wait left out, a stage given back too
// early and a barrier too few show as wrong sums or as a deadlock, which is reported as one: nobody made progress for
// whole rounds of all lanes.
//
// How it waits: when a warp finds its phase incomplete, its lanes go to the block's barrier, the only place where the
// emulator lets all others run, and look again when everyone alive has come to wait. So one must not mix these waits
// with __syncthreads, and a warp waits as a whole. Where a coin says so, a warp also lets all others go as far as they
// can when it need not, between any two of its instructions. Nothing here is watched by the checking build, whose
// shadow cells know no copy engine.
#pragma once

#include "common/tensor_map.cuh"
#include "conv3x3/wgmma_layout.cuh"
#include "ptx/cvt.cuh"

#ifndef EMULATOR_LOADS
#define EMULATOR_LOADS 2
#endif

#define EMULATOR_UNCHECKED __attribute__((no_sanitize("thread")))

namespace ptx::emulated {

using namespace wgmma_sm90;  // the swizzle and the sizes

constexpr unsigned first_address = 1024;  // of dynamic shared memory; aligned to it, as on a GPU
constexpr int most_loads = 64, most_stores = 16, most_products = 32, most_warps = 12;
constexpr int most_threads = most_warps * warpSize, most_bytes = 227 * 1024;
constexpr uint64_t map_mark = 0x70616d726f736e74;  // "tnsormap"

// No containers and no copies of whole structs here: the checking build would take their accesses for the kernel's.
struct Load {
    uint64_t map[16];
    unsigned to, barrier;
    Coordinates at;
};
struct Store {
    uint64_t map[16];
    unsigned from, thread, group;
    Coordinates at;
};
struct Product {
    uint64_t a, b;
    int columns, add, batch;
    bool is_bf16, mn_major, in_registers;
    float* accum[warpSize];
    const uint32_t* registers[warpSize][4];  // of the first operand, if they have it instead of shared memory
};
struct Warp {
    Product products[most_products];
    int count, batch;
    bool begun;
};
struct State {  // of the block that this host thread runs
    unsigned char* memory;
    Load loads[most_loads];
    int load_count;
    Warp warps[most_warps];
    Store stores[most_stores];
    int store_count;
    uint32_t store_groups[most_threads];  // that a thread has committed
    // Who has written two bytes last by stmatrix, plus one, and the writer's fences until then.
    struct {
        uint16_t thread, fences;
    } written[most_bytes / 2];
    uint16_t fences[most_threads];  // of a thread, for what the copy engine reads
    uint64_t events, coin;
    float a[16][mma_k], b[mma_k][256], accum[16][256];
};

EMULATOR_UNCHECKED inline State& state() {
    static thread_local State state;
    // Shared memory is fresh in every block and full of 0xff, so this tells whether the block is a new one.
    static const char declaration = 0;
    auto* const known = static_cast<uint64_t*>(
        emulator::shared_array(&declaration, "the copy engine's mark", 8, 8, {__FILE__, __LINE__}));
    if (*known != 1) {
        *known = 1;
        state.memory = static_cast<unsigned char*>(emulator::dynamic_shared(1, {__FILE__, __LINE__}));
        state.load_count = state.store_count = 0;
        for (int i = 0; i < most_threads; ++i) state.store_groups[i] = state.fences[i] = 0;
        for (int i = 0; i < most_bytes / 2; ++i) state.written[i].thread = 0;
        for (Warp& warp : state.warps) warp.count = warp.batch = warp.begun = 0;
        state.events = 0;
        state.coin = 0x9e3779b97f4a7c15 * (blockIdx.x + 1);
    }
    return state;
}

// A fault of the kernel's: the lane never goes on, and the report of the deadlock that follows quotes `what`. A
// collective that never completes, since even and odd lanes go to different ones.
EMULATOR_UNCHECKED inline void stop(const char* what, emulator::Site site) {
    static thread_local char names[most_warps][2][96];
    char* const name = names[threadIdx.x / warpSize][emulator::lane() % 2];
    int length = 0;
    for (; what[length] && length < 95; ++length) name[length] = what[length];
    name[length] = 0;
    emulator::collective(name, ~0u, nullptr, [](void* const*, unsigned) {}, site);
}

EMULATOR_UNCHECKED inline uint64_t toss(State& now) {  // xorshift
    now.coin ^= now.coin << 13;
    now.coin ^= now.coin >> 7;
    return now.coin ^= now.coin << 17;
}

EMULATOR_UNCHECKED inline void let_others_run() { emulator::barrier({__FILE__, 0}); }  // the same place for all

// A warp's collective, after which the others may run: `combine` sees the operands of all lanes.
template <class Operand>
struct Courteous {
    Operand* operand;
    bool yields;
};
template <auto combine, class Operand>
EMULATOR_UNCHECKED void collective(const char* name, Operand& operand, emulator::Site site) {
    Courteous<Operand> courteous = {&operand, false};
    emulator::collective(
        name, ~0u, &courteous,
        [](void* const* all, unsigned) __attribute__((no_sanitize("thread"))) {
            State& now = state();
            Operand* operands[warpSize];
            for (unsigned lane = 0; lane < warpSize; ++lane)
                operands[lane] = static_cast<Courteous<Operand>*>(all[lane])->operand;
            combine(now, operands);
            const bool yields = toss(now) % 4 == 0;
            for (unsigned lane = 0; lane < warpSize; ++lane)
                static_cast<Courteous<Operand>*>(all[lane])->yields = yields;
        },
        site);
    if (courteous.yields) let_others_run();
}

struct Word {                            // an mbarrier
    uint16_t count, pending_and_parity;  // arrivals per phase; those missing in bits 0-14, the parity in bit 15
    int32_t bytes;                       // still expected
};

EMULATOR_UNCHECKED inline Word& word(State& now, unsigned barrier) {
    return *reinterpret_cast<Word*>(now.memory + (barrier - first_address));
}
EMULATOR_UNCHECKED inline unsigned parity_of(const Word& word) { return word.pending_and_parity >> 15; }

EMULATOR_UNCHECKED inline void complete_if_done(Word& word) {
    if ((word.pending_and_parity & 0x7fff) == 0 && word.bytes == 0)
        word.pending_and_parity = (~word.pending_and_parity & 0x8000) | word.count;
}

EMULATOR_UNCHECKED inline void run_load(State& now, const Load& load) {
    const uint64_t* const map = load.map;
    const auto* const from = reinterpret_cast<const unsigned char*>(map[0]);
    const int sizes[3] = {int(map[1]), int(map[2]), int(map[3])}, box[3] = {int(map[6]), int(map[7]), int(map[8])};
    unsigned offset = load.to - first_address;
    for (int z = load.at.z; z < load.at.z + box[2]; ++z)
        for (int y = load.at.y; y < load.at.y + box[1]; ++y)
            for (int x = load.at.x; x < load.at.x + box[0]; ++x, offset += 2) {
                const bool inside = x >= 0 && x < sizes[0] && y >= 0 && y < sizes[1] && z >= 0 && z < sizes[2];
                const unsigned char* element = from + 2 * int64_t{x} + int64_t(map[4]) * y + int64_t(map[5]) * z;
                unsigned char* const to = now.memory + swizzled(offset);
                to[0] = inside ? element[0] : 0;
                to[1] = inside ? element[1] : 0;
            }
    emulator::mark_written(now.memory + (load.to - first_address), 2 * box[0] * box[1] * box[2]);
    Word& to_tell = word(now, load.barrier);
    to_tell.bytes -= 2 * box[0] * box[1] * box[2];
    complete_if_done(to_tell);
    ++now.events;
}

EMULATOR_UNCHECKED inline void run_store(State& now, const Store& store) {
    const uint64_t* const map = store.map;
    auto* const to = reinterpret_cast<unsigned char*>(map[0]);
    const int sizes[3] = {int(map[1]), int(map[2]), int(map[3])}, box[3] = {int(map[6]), int(map[7]), int(map[8])};
    unsigned offset = store.from - first_address;
    for (int z = store.at.z; z < store.at.z + box[2]; ++z)
        for (int y = store.at.y; y < store.at.y + box[1]; ++y)
            for (int x = store.at.x; x < store.at.x + box[0]; ++x, offset += 2) {
                if (x < 0 || x >= sizes[0] || y < 0 || y >= sizes[1] || z < 0 || z >= sizes[2]) continue;
                unsigned char* element = to + 2 * int64_t{x} + int64_t(map[4]) * y + int64_t(map[5]) * z;
                const unsigned char* const from = now.memory + swizzled(offset);
                element[0] = from[0];
                element[1] = from[1];
            }
    ++now.events;
}

// The running thread has written these bytes, as every thread does; and whether somebody who has written some of these
// has not fenced since.
EMULATOR_UNCHECKED inline void note_write(const void* to, int bytes) {
    State& now = state();
    const int64_t offset = static_cast<const unsigned char*>(to) - now.memory;
    if (offset < 0 || offset + bytes > most_bytes) return;
    for (int64_t i = offset / 2; i < (offset + bytes + 1) / 2; ++i) {
        now.written[i].thread = threadIdx.x + 1;
        now.written[i].fences = now.fences[threadIdx.x];
    }
}
EMULATOR_UNCHECKED inline bool is_unfenced(State& now, unsigned from, unsigned bytes) {
    const unsigned first = (from - first_address) / 2;
    for (unsigned i = first; i < first + bytes / 2; ++i) {
        const unsigned thread = now.written[i].thread;
        if (thread && now.fences[thread - 1] == now.written[i].fences) return true;
    }
    return false;
}

// Carries out, of the loads put off, those for this barrier.
EMULATOR_UNCHECKED inline void run_loads_for(State& now, unsigned barrier) {
    int kept = 0;
    for (int i = 0; i < now.load_count; ++i) {
        const Load& load = now.loads[i];
        if (load.barrier == barrier) {
            run_load(now, load);
            continue;
        }
        Load& to = now.loads[kept++];
        for (int word = 0; word < 16; ++word) to.map[word] = load.map[word];
        to.to = load.to;
        to.barrier = load.barrier;
        to.at.x = load.at.x;
        to.at.y = load.at.y;
        to.at.z = load.at.z;
    }
    now.load_count = kept;
}

}  // namespace ptx::emulated
