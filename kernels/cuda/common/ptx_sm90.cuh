// The instructions that only sm_90a has, each as one function: mbarriers, boxes loaded by the copy engine (TMA),
// products of a warpgroup (wgmma), and the passing on of registers. The first half is PTX; the second does the same on
// the emulator, as unhelpfully as the instructions are allowed to be. conv3x3/wgmma_sm90.cuh and gram/wgmma_sm90.cuh
// include this; tested through them and by tests/kernels/test_hopper_instructions.py.
//
// All operands in shared memory are dynamic shared memory, and known by 32-bit addresses there.
#pragma once

#include "conv3x3/wgmma_layout.cuh"
#include "common/ptx_sm80.cuh"

namespace hopper {

// What the driver's cuTensorMapEncodeTiled makes (kernels/cuda/conv3x3/launch_wgmma_sm90.py asks it), or for the emulator: the address, three
// sizes, two pitches in bytes, three sizes of the box, and a mark.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

template <class Element>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<bf16> = true;

constexpr int warps_per_group = 4, group_threads = 128;  // of a warpgroup

}  // namespace hopper

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace hopper {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// ------------------------------------------------------------------------------------------------- mbarriers

// A phase is complete after so many arrivals, and when all the bytes expected in it have been loaded.
__device__ __forceinline__ void barrier_init(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// After all barrier_init and before __syncthreads: for the copy engine too, they have happened.
__device__ __forceinline__ void barriers_are_initialised() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// One arrival of a warp, which calls it as a whole.
__device__ __forceinline__ void arrive(unsigned barrier) {
    if (threadIdx.x % 32 == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// One lane's arrival.
__device__ __forceinline__ void arrive_expecting(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ bool is_complete(unsigned barrier, unsigned parity) {
    unsigned complete;
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"  // sleeps a while if it is not
        "selp.u32 %0, 1, 0, complete;\n"
        "}\n"
        : "=r"(complete)
        : "r"(barrier), "r"(parity)
        : "memory");
    return complete;
}

__device__ __forceinline__ uint64_t nanoseconds() {
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

// Until the phase of this parity is complete; the phase before the first counts as complete and has parity 1. A warp
// calls it as a whole. A wait of ten seconds can only be a fault of ours: better an error than a GPU that hangs.
__device__ __forceinline__ void wait(unsigned barrier, unsigned parity) {
    if (is_complete(barrier, parity)) return;
    const uint64_t start = nanoseconds();
    while (!is_complete(barrier, parity))
        if (nanoseconds() - start > 10'000'000'000) __trap();
}

// ------------------------------------------------------------------------------------------- the copy engine

__device__ __forceinline__ void prefetch(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Loads the map's box at these coordinates, zeros outside; its bytes count towards the barrier's phase. One lane.
__device__ __forceinline__ void load_box(unsigned to, const TensorMap& map, unsigned barrier, const Coordinates& at) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(to),
        "l"(&map), "r"(barrier), "r"(at.x), "r"(at.y), "r"(at.z)
        : "memory");
}

// ------------------------------------------------------------------------------------------------- registers

// Every warp of a warpgroup.
template <int registers>
__device__ __forceinline__ void give_registers() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void take_registers() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// -------------------------------------------------------------------------------------------------- products

// Before the first product of a batch: the sums' registers are as they should be.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until no more than `pending` of the warp's batches are under way.
template <int pending>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// After the last wait, before anyone reads the sums: to the compiler they have changed only now.
template <int count>
__device__ __forceinline__ void products_have_changed(float (&sums)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define HOPPER_SUMS4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define HOPPER_SUMS16(i) HOPPER_SUMS4(i), HOPPER_SUMS4(i + 4), HOPPER_SUMS4(i + 8), HOPPER_SUMS4(i + 12)
#define HOPPER_NAMES32                                                                                                \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
    "%30,%31"
#define HOPPER_NAMES64                                                                                                \
    HOPPER_NAMES32                                                                                                    \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,"   \
    "%59,%60,%61,%62,%63"
#define HOPPER_PRODUCT(shape, type, names, left, right, add, across)                                                  \
    "{\n.reg .pred add;\nsetp.ne.b32 add, " add ", 0;\n"                                                              \
    "wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" names "}, " left ", " right                      \
    ", add, 1, 1, " across ", " across ";\n}\n"

// sums := left right^T [+ sums], asynchronously: 64 rows by 64 or 128 columns, 16 deep. `across`: both operands lie so.
template <class Element, bool across = false>
__device__ __forceinline__ void product(float (&sums)[32], uint64_t left, uint64_t right, int add) {
    if constexpr (is_bf16<Element>)
        asm volatile(HOPPER_PRODUCT("m64n64k16", "bf16", HOPPER_NAMES32, "%32", "%33", "%34", "%35")
                     : HOPPER_SUMS16(0), HOPPER_SUMS16(16)
                     : "l"(left), "l"(right), "r"(add), "n"(int(across)));
    else
        asm volatile(HOPPER_PRODUCT("m64n64k16", "f16", HOPPER_NAMES32, "%32", "%33", "%34", "%35")
                     : HOPPER_SUMS16(0), HOPPER_SUMS16(16)
                     : "l"(left), "l"(right), "r"(add), "n"(int(across)));
}
template <class Element, bool across = false>
__device__ __forceinline__ void product(float (&sums)[64], uint64_t left, uint64_t right, int add) {
    if constexpr (is_bf16<Element>)
        asm volatile(HOPPER_PRODUCT("m64n128k16", "bf16", HOPPER_NAMES64, "%64", "%65", "%66", "%67")
                     : HOPPER_SUMS16(0), HOPPER_SUMS16(16), HOPPER_SUMS16(32), HOPPER_SUMS16(48)
                     : "l"(left), "l"(right), "r"(add), "n"(int(across)));
    else
        asm volatile(HOPPER_PRODUCT("m64n128k16", "f16", HOPPER_NAMES64, "%64", "%65", "%66", "%67")
                     : HOPPER_SUMS16(0), HOPPER_SUMS16(16), HOPPER_SUMS16(32), HOPPER_SUMS16(48)
                     : "l"(left), "l"(right), "r"(add), "n"(int(across)));
}

}  // namespace hopper

#endif  // sm_90a
#else   // ------------------------------------------------------------------------------------- on the emulator

// How the emulation is unhelpful. A load is carried out at once or only when somebody waits for its barrier, as a
// coin decides (HOPPER_LOADS: 0 always at once, 1 always late, 2 the coin). A product reads its operands and writes its
// sums only at the wait that waits for it. So a wait left out, a stage given back too early and a barrier too few show
// as wrong sums or as a deadlock, which is reported as one: nobody made progress for whole rounds of all lanes.
//
// How it waits: when a warp finds its phase incomplete, its lanes go to the block's barrier, the only place where the
// emulator lets all others run, and look again when everyone alive has come to wait. So one must not mix these waits
// with __syncthreads, and a warp waits as a whole. Where a coin says so, a warp also lets all others go as far as they
// can when it need not, between any two of its instructions. Nothing here is watched by the checking build, whose
// shadow cells know no copy engine.
#ifndef HOPPER_LOADS
#define HOPPER_LOADS 2
#endif

#define HOPPER_UNCHECKED __attribute__((no_sanitize("thread")))

namespace hopper {
namespace emulated {

constexpr unsigned first_address = 1024;  // of dynamic shared memory; aligned to it, as on a GPU
constexpr int most_loads = 64, most_products = 32, most_warps = 12;
constexpr uint64_t map_mark = 0x70616d726f736e74;  // "tnsormap"

// No containers and no copies of whole structs here: the checking build would take their accesses for the kernel's.
struct Load {
    uint64_t map[16];
    unsigned to, barrier;
    Coordinates at;
};
struct Product {
    uint64_t left, right;
    int columns, add, batch;
    bool is_bf16, across;
    float* sums[warpSize];
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
    uint64_t events, coin;
    float left[16][mma_depth], right[mma_depth][256], sums[16][256];
};

HOPPER_UNCHECKED inline State& state() {
    static thread_local State state;
    // Shared memory is fresh in every block and full of 0xff, so this tells whether the block is a new one.
    static const char declaration = 0;
    auto* const known = static_cast<uint64_t*>(
        emulator::shared_array(&declaration, "the copy engine's mark", 8, 8, {__FILE__, __LINE__}));
    if (*known != 1) {
        *known = 1;
        state.memory = static_cast<unsigned char*>(emulator::dynamic_shared(1, {__FILE__, __LINE__}));
        state.load_count = 0;
        for (Warp& warp : state.warps) warp.count = warp.batch = warp.begun = 0;
        state.events = 0;
        state.coin = 0x9e3779b97f4a7c15 * (blockIdx.x + 1);
    }
    return state;
}

// A fault of the kernel's: the lane never goes on, and the report of the deadlock that follows quotes `what`. A
// collective that never completes, since even and odd lanes go to different ones.
HOPPER_UNCHECKED inline void stop(const char* what, emulator::Site site) {
    static thread_local char names[most_warps][2][96];
    char* const name = names[threadIdx.x / warpSize][emulator::lane() % 2];
    int length = 0;
    for (; what[length] && length < 95; ++length) name[length] = what[length];
    name[length] = 0;
    emulator::collective(name, ~0u, nullptr, [](void* const*, unsigned) {}, site);
}

HOPPER_UNCHECKED inline uint64_t toss(State& now) {  // xorshift
    now.coin ^= now.coin << 13;
    now.coin ^= now.coin >> 7;
    return now.coin ^= now.coin << 17;
}

HOPPER_UNCHECKED inline void let_others_run() { emulator::barrier({__FILE__, 0}); }  // the same place for all

// A warp's collective, after which the others may run: `combine` sees the operands of all lanes.
template <class Operand>
struct Courteous {
    Operand* operand;
    bool yields;
};
template <auto combine, class Operand>
HOPPER_UNCHECKED void collective(const char* name, Operand& operand, emulator::Site site) {
    Courteous<Operand> courteous = {&operand, false};
    emulator::collective(name, ~0u, &courteous, [](void* const* all, unsigned) __attribute__((no_sanitize("thread"))) {
        State& now = state();
        Operand* operands[warpSize];
        for (unsigned lane = 0; lane < warpSize; ++lane)
            operands[lane] = static_cast<Courteous<Operand>*>(all[lane])->operand;
        combine(now, operands);
        const bool yields = toss(now) % 4 == 0;
        for (unsigned lane = 0; lane < warpSize; ++lane) static_cast<Courteous<Operand>*>(all[lane])->yields = yields;
    }, site);
    if (courteous.yields) let_others_run();
}

struct Word {  // an mbarrier
    uint16_t count, pending_and_parity;  // arrivals per phase; those missing in bits 0-14, the parity in bit 15
    int32_t bytes;                       // still expected
};

HOPPER_UNCHECKED inline Word& word(State& now, unsigned barrier) {
    return *reinterpret_cast<Word*>(now.memory + (barrier - first_address));
}
HOPPER_UNCHECKED inline unsigned parity_of(const Word& word) { return word.pending_and_parity >> 15; }

HOPPER_UNCHECKED inline void complete_if_done(Word& word) {
    if ((word.pending_and_parity & 0x7fff) == 0 && word.bytes == 0)
        word.pending_and_parity = (~word.pending_and_parity & 0x8000) | word.count;
}

HOPPER_UNCHECKED inline void run_load(State& now, const Load& load) {
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
    Word& to_tell = word(now, load.barrier);
    to_tell.bytes -= 2 * box[0] * box[1] * box[2];
    complete_if_done(to_tell);
    ++now.events;
}

// Carries out, of the loads put off, those for this barrier.
HOPPER_UNCHECKED inline void run_loads_for(State& now, unsigned barrier) {
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

struct Waiting {  // a lane's operand
    unsigned barrier, parity;
    uint64_t events;  // at the last look
    int unchanged;    // looks in a row
    bool complete;
    const char* fault;
};

HOPPER_UNCHECKED inline void look(State& now, Waiting** lanes) {
    Waiting& first = *lanes[0];
    const char* fault = nullptr;
    for (unsigned lane = 1; lane < warpSize; ++lane)
        if (lanes[lane]->barrier != first.barrier || lanes[lane]->parity != first.parity)
            fault = "mbarrier.try_wait: lanes wait for different barriers";
    if (parity_of(word(now, first.barrier)) == first.parity) run_loads_for(now, first.barrier);
    const bool complete = parity_of(word(now, first.barrier)) != first.parity;
    if (complete) ++now.events;
    const int unchanged = now.events == first.events ? first.unchanged + 1 : 0;
    if (unchanged > 8) fault = "mbarrier.try_wait, whose phase never completes";  // rounds for nothing, at least two
    for (unsigned lane = 0; lane < warpSize; ++lane) {
        lanes[lane]->complete = complete;
        lanes[lane]->fault = fault;
        lanes[lane]->events = now.events;
        lanes[lane]->unchanged = unchanged;
    }
}

struct Arriving {  // a lane's operand
    unsigned barrier;
    const char* fault;
};

HOPPER_UNCHECKED inline const char* arrive_at(State& now, unsigned barrier, int bytes) {
    Word& to = word(now, barrier);
    if ((to.pending_and_parity & 0x7fff) == 0) return "mbarrier.arrive, once too often in a phase";
    to.bytes += bytes;
    --to.pending_and_parity;
    complete_if_done(to);
    ++now.events;
    return nullptr;
}

HOPPER_UNCHECKED inline void arrive_once(State& now, Arriving** lanes) {
    const char* const fault = arrive_at(now, lanes[0]->barrier, 0);
    for (unsigned lane = 0; lane < warpSize; ++lane) lanes[lane]->fault = fault;
}

// 16 elements of a row of a matrix as a descriptor describes it, by PTX's canonical layouts for the 128-byte swizzle:
// K-major ((8, m), (T, 2)) : ((8 T, stride), (1, T)), MN-major ((T, 8, m), (8, k)) : ((1, T, leading), (8 T, stride)),
// where T is 8 elements.
HOPPER_UNCHECKED inline void read_row(const State& now, uint64_t descriptor, int row, bool is_bf16, bool across,
                                      float (&to)[mma_depth]) {
    const unsigned start = (descriptor & 0x3fff) << 4;
    const unsigned leading = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    for (int k = 0; k < mma_depth; ++k) {
        const unsigned offset = across ? row % 64 * 2 + row / 64 * leading + k % 8 * 128 + k / 8 * stride
                                       : row % 8 * 128 + row / 8 * stride + k * 2;
        const unsigned address = swizzled(start + offset);
        const auto* const from = now.memory + (address - first_address);
        const uint16_t bits = from[0] | from[1] << 8;
        to[k] = is_bf16 ? emulator::float_of(bf16{bits}) : emulator::float_of(fp16{bits});
    }
}

// The warp's 16 rows of a product.
HOPPER_UNCHECKED inline void run_product(State& now, const Product& product, int warp) {
    for (int row = 0; row < 16; ++row)
        read_row(now, product.left, warp % warps_per_group * 16 + row, product.is_bf16, product.across, now.left[row]);
    for (int column = 0; column < product.columns; ++column) {
        float values[mma_depth];
        read_row(now, product.right, column, product.is_bf16, product.across, values);
        for (int k = 0; k < mma_depth; ++k) now.right[k][column] = values[k];
    }
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < product.columns; ++column) now.sums[row][column] = 0;
        for (int k = 0; k < mma_depth; ++k)
            for (int column = 0; column < product.columns; ++column)
                now.sums[row][column] += now.left[row][k] * now.right[k][column];
    }
    for (int lane = 0; lane < warpSize; ++lane)
        for (int i = 0; i < product.columns / 2; ++i) {
            const float sum = now.sums[lane / 4 + (i >> 1 & 1) * 8][i / 4 * 8 + lane % 4 * 2 + (i & 1)];
            product.sums[lane][i] = sum + (product.add ? product.sums[lane][i] : 0.0f);
        }
    ++now.events;
}

struct Issued {  // a lane's operand
    float* sums;
    uint64_t left, right;
    int columns, add;
    bool is_bf16, across;
    const char* fault;
};

HOPPER_UNCHECKED inline int warp_number() { return threadIdx.x / warpSize; }

HOPPER_UNCHECKED inline void issue(State& now, Issued** lanes) {
    Warp& warp = now.warps[warp_number()];
    const Issued& first = *lanes[0];
    constexpr uint64_t must = uint64_t{3} << 62 | uint64_t{7} << 49;  // swizzle, base offset
    const char* fault = nullptr;
    if (!warp.begun) fault = "wgmma.mma_async without wgmma.fence before its batch";
    if (warp.count == most_products) fault = "wgmma: no wait for 32 products";
    for (uint64_t descriptor : {first.left, first.right})
        if ((descriptor & must) != uint64_t{1} << 62) fault = "wgmma: the emulator knows the 128-byte swizzle only";
    for (unsigned lane = 1; lane < warpSize; ++lane)
        if (lanes[lane]->left != first.left || lanes[lane]->right != first.right || !lanes[lane]->add != !first.add)
            fault = "wgmma: lanes have different operands";
    for (unsigned lane = 0; lane < warpSize; ++lane) lanes[lane]->fault = fault;
    if (fault) return;
    Product& product = warp.products[warp.count++];
    product.left = first.left;
    product.right = first.right;
    product.columns = first.columns;
    product.add = first.add;
    product.batch = warp.batch;
    product.is_bf16 = first.is_bf16;
    product.across = first.across;
    ++now.events;
    for (unsigned lane = 0; lane < warpSize; ++lane) product.sums[lane] = lanes[lane]->sums;
}

struct Nothing {};

HOPPER_UNCHECKED inline void begin(State& now, Nothing**) {
    now.warps[warp_number()].begun = true;
    ++now.events;
}

HOPPER_UNCHECKED inline void commit(State& now, Nothing**) {
    Warp& warp = now.warps[warp_number()];
    ++warp.batch;
    warp.begun = false;
    ++now.events;
}

template <int pending>
HOPPER_UNCHECKED void finish(State& now, Nothing**) {
    Warp& warp = now.warps[warp_number()];
    int done = 0;  // batches are in order; those not yet committed cannot be waited for
    for (; done < warp.count && warp.products[done].batch < warp.batch - pending; ++done)
        run_product(now, warp.products[done], warp_number());
    for (int i = done; i < warp.count; ++i) {
        const Product& from = warp.products[i];
        Product& to = warp.products[i - done];
        to.left = from.left;
        to.right = from.right;
        to.columns = from.columns;
        to.add = from.add;
        to.batch = from.batch;
        to.is_bf16 = from.is_bf16;
        to.across = from.across;
        for (int lane = 0; lane < warpSize; ++lane) to.sums[lane] = from.sums[lane];
    }
    warp.count -= done;
    ++now.events;
}

}  // namespace emulated

HOPPER_UNCHECKED inline unsigned shared_address(const void* pointer) {
    return emulated::first_address + unsigned(static_cast<const unsigned char*>(pointer) - emulated::state().memory);
}

HOPPER_UNCHECKED inline void barrier_init(unsigned barrier, int arrivals) {
    emulated::Word& word = emulated::word(emulated::state(), barrier);
    word.count = word.pending_and_parity = arrivals;
    word.bytes = 0;
}

inline void barriers_are_initialised() {}

HOPPER_UNCHECKED inline void arrive_expecting(unsigned barrier, int bytes, EMULATOR_SITE) {
    if (const char* fault = emulated::arrive_at(emulated::state(), barrier, bytes)) emulated::stop(fault, site);
}

HOPPER_UNCHECKED inline void arrive(unsigned barrier, EMULATOR_SITE) {
    emulated::Arriving arriving = {barrier, nullptr};
    emulated::collective<emulated::arrive_once>("mbarrier.arrive", arriving, site);
    if (arriving.fault) emulated::stop(arriving.fault, site);
}

HOPPER_UNCHECKED inline void wait(unsigned barrier, unsigned parity, EMULATOR_SITE) {
    emulated::Waiting waiting = {barrier, parity, 0, 0, false, nullptr};
    for (;;) {
        emulated::collective<emulated::look>("mbarrier.try_wait", waiting, site);
        if (waiting.fault) emulated::stop(waiting.fault, site);
        if (waiting.complete) return;
        emulated::let_others_run();
    }
}

inline void prefetch(const TensorMap&) {}

HOPPER_UNCHECKED inline void load_box(unsigned to, const TensorMap& map, unsigned barrier, const Coordinates& at,
                                      EMULATOR_SITE) {
    emulated::State& now = emulated::state();
    if (map.words[9] != emulated::map_mark) emulated::stop("a tensor map that is not the emulator's", site);
    if (2 * map.words[6] != row_bytes || to % group_bytes)
        emulated::stop("a box whose rows are not of 128 bytes, or not aligned to 1024", site);
    if (now.load_count == emulated::most_loads) emulated::stop("more than 64 loads that nobody waits for", site);
    emulated::Load& load = now.loads[now.load_count];
    for (int word = 0; word < 16; ++word) load.map[word] = map.words[word];
    load.to = to;
    load.barrier = barrier;
    load.at.x = at.x;
    load.at.y = at.y;
    load.at.z = at.z;
    if (HOPPER_LOADS == 0 || (HOPPER_LOADS == 2 && emulated::toss(now) & 1)) emulated::run_load(now, load);
    else ++now.load_count;
    ++now.events;
}

template <int registers>
__forceinline__ void give_registers() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}
template <int registers>
__forceinline__ void take_registers() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}

HOPPER_UNCHECKED inline void products_begin(EMULATOR_SITE) {
    emulated::Nothing nothing;
    emulated::collective<emulated::begin>("wgmma.fence", nothing, site);
}

HOPPER_UNCHECKED inline void products_commit(EMULATOR_SITE) {
    emulated::Nothing nothing;
    emulated::collective<emulated::commit>("wgmma.commit_group", nothing, site);
}
template <int pending>
HOPPER_UNCHECKED void products_wait(EMULATOR_SITE) {
    emulated::Nothing nothing;
    emulated::collective<emulated::finish<pending>>("wgmma.wait_group", nothing, site);
}

template <int count>
inline void products_have_changed(float (&)[count]) {}

template <class Element, bool across = false, int count>
HOPPER_UNCHECKED void product(float (&sums)[count], uint64_t left, uint64_t right, int add, EMULATOR_SITE) {
    emulated::Issued issued = {sums, left, right, 2 * count, add, is_bf16<Element>, across, nullptr};
    emulated::collective<emulated::issue>("wgmma.mma_async", issued, site);
    if (issued.fault) emulated::stop(issued.fault, site);
}

}  // namespace hopper

#endif
