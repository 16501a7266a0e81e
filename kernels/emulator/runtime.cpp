// Runs a launch: spreads its blocks over host threads, and the lanes of a block over fibers. A lane runs until it
// must wait for others; then the next that is ready takes its place. When none is ready and some still wait, the
// block is stuck, and a report says who waits where. Blocks and lanes run in an order drawn from the launch's
// seed; what happens within a block depends on the seed alone, and not on the number of host threads.

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "worker.h"

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

__thread Worker* worker;
const Kernel* Kernel::first;

namespace {

char* map_memory(size_t bytes) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(memory);
}

std::string ranges(const std::vector<unsigned>& numbers) {
    std::string text;
    for (size_t first = 0, last; first < numbers.size(); first = last + 1) {
        for (last = first; last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1;) ++last;
        text += (first ? "," : "") + std::to_string(numbers[first]);
        if (last != first) text += '-' + std::to_string(numbers[last]);
    }
    return text;
}

std::string hex(unsigned mask) {
    char text[16];
    snprintf(text, sizeof text, "0x%08x", mask);
    return text;
}

}  // namespace

// --------------------------------------------------------------------------------------------------- blocks

Worker::Worker() : arena(map_memory(arena_bytes)) {
    const auto memory = reinterpret_cast<uintptr_t>(map_memory((max_lanes + 1) * stack_bytes));
    stacks = reinterpret_cast<char*>((memory + stack_bytes - 1) & ~(stack_bytes - 1));
}

void Worker::work(Launch& to_run) {
    worker = this;
    launch = &to_run;
    gridDim = launch->grid;
    blockDim = launch->block;
    for (unsigned i = 0; i < launch->lane_count; ++i)
        lanes[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    while (!launch->stuck) {
        const uint64_t turn = launch->next++;
        if (turn >= launch->block_count) break;
        run_block((launch->first_block + turn * launch->block_stride) % launch->block_count);
    }
}

void Worker::run_block(uint64_t to_run) {
    block = to_run;
    const uint64_t row = block / gridDim.x;
    blockIdx = {unsigned(block % gridDim.x), unsigned(row % gridDim.y), unsigned(row / gridDim.y)};
    live = launch->lane_count;
    ready_count = at_barrier = shared_count = 0;
    shared_end = shared_bytes = 0;
    diverged = lane_was_stopped = false;
    for (unsigned i = 0; i < live; ++i) {
        lanes[i].progress = Progress::unstarted;
        lanes[i].wait.what = nullptr;
        lanes[i].copies.clear();
        lanes[i].open_group = 0;
    }
    for (unsigned i = 0; i < launch->warp_count; ++i) warps[i].rendezvous_count = 0;

    random.state = launch->seed * 0xd1342543de82ef95 + block;
    const auto shuffle = [this](uint8_t* order, unsigned count) {
        for (unsigned i = 0; i < count; ++i) {
            const unsigned j = random.below(i + 1);
            order[i] = order[j];
            order[j] = i;
        }
    };
    shuffle(warp_order, launch->warp_count);
    shuffle(lane_order, warpSize);

    if constexpr (EMULATOR_CHECK) check::begin_block();
    make_ready();
    resume(next_ready());
    if (live) report_stuck();
}

// Everyone who is alive: warps in a random order and lanes in a random order within them, another one each time.
void Worker::make_ready() {
    const unsigned warp_turn = random.below(launch->warp_count), lane_turn = random.below(warpSize);
    for (unsigned i = 0; i < launch->warp_count; ++i) {
        const unsigned first = warp_order[(i + warp_turn) % launch->warp_count] * warpSize;
        for (unsigned j = 0; j < warpSize; ++j) {
            const unsigned lane = first + lane_order[j ^ lane_turn];
            if (lane < launch->lane_count && lanes[lane].alive()) ready[ready_count++] = &lanes[lane];
        }
    }
}

// --------------------------------------------------------------------------------------------------- fibers

char* Worker::take_stack() {
    if (free_stacks.empty()) {
        char* stack = stacks + stack_count++ * stack_bytes;
        mprotect(stack, 4096, PROT_NONE);  // an overflow is a plain crash, and no write into a neighbour's stack
        return stack;
    }
    char* stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
}

void Worker::start(Lane& lane, char* stack) {
    lane.stack = stack;
    lane.progress = Progress::started;
}

// Suspends whoever is running until somebody resumes it.
void Worker::resume(Lane* lane) {
    if (lane == running) return;
    Context& from = running ? running->context : scheduler;
    running = lane;
    if (!lane) return switch_context(from, scheduler);
    if (lane->progress == Progress::unstarted) {
        start(*lane, take_stack());
        // The stacks' tops would all fall on the same few sets of the cache if they were not shifted a little.
        const size_t shift = (lane->stack - stacks) / stack_bytes * 5 % 256 * 64;
        prepare(lane->context, lane->stack, stack_bytes - shift, [] { worker->run_lanes(); });
    }
    threadIdx = lane->index;
    switch_context(from, lane->context);
}

// The life of a fiber: as long as lanes have not started, it takes the next one.
void Worker::run_lanes() {
    for (;;) {
        launch->kernel->invoke(launch->arguments);
        retire(Progress::returned);
        Lane* next = next_ready();
        if (next && next->progress == Progress::unstarted) {
            start(*next, running->stack);
            running = next;
            threadIdx = next->index;
        } else {
            free_stacks.push_back(running->stack);
            resume(next);  // and never comes back
        }
    }
}

void Worker::retire(Progress progress) {
    running->progress = progress;
    if (--live && at_barrier == live) complete_barrier();
}

void Worker::stop() {
    lane_was_stopped = true;
    retire(Progress::stopped);
    free_stacks.push_back(running->stack);  // its next user begins at the top, well above this call
    resume(next_ready());
    __builtin_unreachable();
}

// ------------------------------------------------------------------------------------------- synchronisation

void Worker::barrier(Site site) {
    Lane& self = *running;
    self.wait = {"__syncthreads", site, 0};
    if (at_barrier == 0) barrier_site = site;
    diverged |= !(site == barrier_site);
    if (++at_barrier == live) complete_barrier();
    resume(next_ready());
    self.wait.what = nullptr;
}

void Worker::complete_barrier() {
    if (diverged) return;  // and so nobody is ready
    at_barrier = 0;
    if constexpr (EMULATOR_CHECK) check::barrier();
    make_ready();
}

void Worker::collective(const char* name, unsigned mask, void* operand, Combine combine, Site site) {
    Lane& self = *running;
    const unsigned position = number(self) % warpSize, first = number(self) - position;
    self.wait = {name, site, mask};
    if (!(mask >> position & 1)) {
        launch->reports.add("warp mask", site, [&](Report& report) {
            report.headline = "a lane outside the mask of its collective";
            report.sides = {side(std::string("calls ") + name + " with mask " + hex(mask), self, 0, site)};
        });
        stop();
    }

    Warp& warp = warps[first / warpSize];
    Rendezvous* meeting = warp.rendezvous;
    Rendezvous* const end = meeting + warp.rendezvous_count;
    while (meeting != end && (meeting->name != name || meeting->mask != mask)) ++meeting;
    if (meeting == end) {
        ++warp.rendezvous_count;
        meeting->name = name;
        meeting->mask = mask;
        meeting->arrived = 0;
    }
    meeting->arrived |= 1u << position;
    meeting->operands[position] = operand;

    if (meeting->arrived == mask) {
        combine(meeting->operands, mask);
        const Rendezvous& last = warp.rendezvous[--warp.rendezvous_count];
        if (meeting != &last) *meeting = last;
        const unsigned turn = random.below(warpSize);
        for (unsigned i = 0; i < warpSize; ++i) {
            const unsigned other = lane_order[i ^ turn];
            if (mask >> other & 1) ready[ready_count++] = &lanes[first + other];
        }
    }
    resume(next_ready());
    self.wait.what = nullptr;
}

// Whom a collective still waits for, and why they don't come: "48-63 (returned)".
std::string Worker::missing(const Wait& wait, unsigned warp) const {
    std::vector<unsigned> returned, absent, elsewhere;
    for (unsigned lane = warp * warpSize; lane < (warp + 1) * warpSize; ++lane) {
        if (!(wait.mask >> lane % warpSize & 1)) continue;
        const Wait& other = lanes[lane].wait;
        if (lane >= launch->lane_count)
            absent.push_back(lane);
        else if (!lanes[lane].alive())
            returned.push_back(lane);
        else if (other.what != wait.what || other.mask != wait.mask)
            elsewhere.push_back(lane);
    }
    std::string text;
    if (!returned.empty()) text += " " + ranges(returned) + " (returned)";
    if (!absent.empty()) text += " " + ranges(absent) + " (not in the block)";
    if (!elsewhere.empty()) text += " " + ranges(elsewhere) + " (waiting elsewhere)";
    return text;
}

void Worker::report_stuck() {
    launch->stuck = true;
    struct Group {  // of lanes that wait for the same at the same place
        Wait wait;
        unsigned warp;
        std::vector<unsigned> lanes;
    };
    std::vector<Group> groups;
    for (unsigned i = 0; i < launch->lane_count; ++i) {
        if (!lanes[i].alive()) continue;
        free_stacks.push_back(lanes[i].stack);
        const Wait& wait = lanes[i].wait;
        const unsigned warp = wait.mask ? i / warpSize : 0;
        const auto same = [&](const Group& group) {
            return group.wait.what == wait.what && group.wait.site == wait.site && group.wait.mask == wait.mask &&
                   group.warp == warp;
        };
        auto group = std::find_if(groups.begin(), groups.end(), same);
        if (group == groups.end()) group = groups.insert(group, {wait, warp, {}});
        group->lanes.push_back(i);
    }
    if (lane_was_stopped) return;

    const char* kind = "divergent barrier";
    const char* headline = "lanes of one block are at different __syncthreads";
    std::vector<Side> sides;
    for (const Group& group : groups) {
        std::string action = std::string("waits at ") + group.wait.what;
        if (group.wait.mask) {
            const std::string others = missing(group.wait, group.warp);
            if (others.find("elsewhere") == std::string::npos) {
                kind = "warp mask";
                headline = "a collective waits for lanes that will never come";
            } else if (!strcmp(kind, "divergent barrier")) {
                kind = "deadlock";
                headline = "every lane waits for another one";
            }
            action += ", mask " + hex(group.wait.mask) + ", for threads" + others;
        }
        sides.push_back({action, ranges(group.lanes), block, 0, group.wait.site});
    }
    launch->reports.add(kind, groups[0].wait.site, [&](Report& report) {
        report.headline = headline;
        report.sides = sides;
    });
}

// --------------------------------------------------------------------------------------------- shared memory

void* Worker::shared_array(const void* declaration, const char* name, size_t bytes, size_t element_bytes,
                           size_t alignment, Site site) {
    for (unsigned i = 0; i < shared_count; ++i)
        if (shared[i].declaration == declaration) return shared[i].base;

    if (shared_bytes + bytes > max_shared_bytes || shared_count == max_shared_arrays) {
        launch->reports.add("shared memory", site, [&](Report& report) {
            report.headline = "more than 227 KB or 32 arrays in one block";
            report.sides = {side(std::string("declares ") + name, *running, 0, site)};
        });
        stop();
    }
    shared_bytes += bytes;
    char* base = arena + (shared_end + redzone_bytes + alignment - 1) / alignment * alignment;
    shared_end = base + bytes - arena;
    shared[shared_count++] = {declaration, base};
    memset(base, 0xff, bytes);  // a NaN, or as an index one that hurts
    if constexpr (EMULATOR_CHECK) check::add_shared_array(base, bytes, element_bytes, name);
    return base;
}

void Worker::require_alignment(const char* what, const void* address, size_t bytes, Site site) {
    if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
    launch->reports.add("misaligned access", site, [&](Report& report) {
        report.headline = std::string(what) + " is not a multiple of " + std::to_string(bytes) + " bytes";
        report.sides = {side("asks for it", *running, 0, site)};
    });
    stop();
}

void Worker::require_shared(const char* what, const void* address, Site site) {
    if (static_cast<const char*>(address) - arena < ptrdiff_t(arena_bytes) && address >= arena) return;
    launch->reports.add("out of bounds", site, [&](Report& report) {
        report.headline = std::string(what) + " is not in shared memory";
        report.sides = {side("asks for it", *running, 0, site)};
    });
    stop();
}

// ------------------------------------------------------------------------------------------ asynchronous copies

void Worker::copy_async(Copy copy, Site site) {
    require_shared("the destination of an asynchronous copy", copy.to, site);
    require_alignment("the destination of an asynchronous copy", copy.to, copy.bytes, site);
    if (copy.source_bytes) require_alignment("the source of an asynchronous copy", copy.from, copy.bytes, site);
    copy.group = running->open_group;
    if constexpr (EMULATOR_CHECK) check::issue_copy(copy);
    running->copies.push_back(copy);
}

void Worker::wait_for_copies(unsigned groups_left) {
    std::vector<Copy>& copies = running->copies;
    const auto is_left = [&](const Copy& copy) { return copy.group + groups_left >= running->open_group; };
    const auto first_left = std::find_if(copies.begin(), copies.end(), is_left);
    for (auto copy = copies.begin(); copy != first_left; ++copy) {
        memcpy(copy->to, copy->from, copy->source_bytes);
        memset(copy->to + copy->source_bytes, 0, copy->bytes - copy->source_bytes);
        if constexpr (EMULATOR_CHECK) check::complete_copy(*copy);
    }
    copies.erase(copies.begin(), first_left);
}

// ------------------------------------------------------------------------------------ what device.h declares

void barrier(Site site) { worker->barrier(site); }

void collective(const char* name, unsigned mask, void* operand, Combine combine, Site site) {
    worker->collective(name, mask, operand, combine, site);
}

void mark_written(const void* to, size_t bytes) {
    if constexpr (EMULATOR_CHECK) check::mark_written(to, bytes);
}
void order_block() {
    if constexpr (EMULATOR_CHECK) check::barrier();
}

void sync_warp(unsigned mask, Site site) {
    const Combine order = [](void* const*, unsigned mask) {
        if constexpr (EMULATOR_CHECK) check::order_lanes(worker->number(*worker->running) / warpSize, mask);
    };
    worker->collective("__syncwarp", mask, nullptr, order, site);
}

namespace {

struct Shuffle {
    uint64_t value;
    unsigned source;
    const Lane* lane;
};

void combine_shuffles(void* const* operands, unsigned mask) {
    uint64_t values[warpSize];
    for (unsigned i = 0; i < warpSize; ++i)
        if (mask >> i & 1) values[i] = static_cast<Shuffle*>(operands[i])->value;
    for (unsigned i = 0; i < warpSize; ++i) {
        if (!(mask >> i & 1)) continue;
        Shuffle& shuffle = *static_cast<Shuffle*>(operands[i]);
        if (mask >> shuffle.source & 1) {
            shuffle.value = values[shuffle.source];
            continue;
        }
        shuffle.value = ~uint64_t{0};
        const Wait& wait = shuffle.lane->wait;
        worker->launch->reports.add("warp mask", wait.site, [&](Report& report) {
            report.headline = "a shuffle reads a lane that its mask does not name";
            const std::string action = "asks lane " + std::to_string(shuffle.source) + " of its warp in ";
            report.sides = {worker->side(action + wait.what + ", mask " + hex(mask), *shuffle.lane, 0, wait.site)};
        });
    }
}

void combine_ballots(void* const* operands, unsigned mask) {
    unsigned votes = 0;
    for (unsigned i = 0; i < warpSize; ++i)
        if (mask >> i & 1) votes |= *static_cast<unsigned*>(operands[i]) << i;
    for (unsigned i = 0; i < warpSize; ++i)
        if (mask >> i & 1) *static_cast<unsigned*>(operands[i]) = votes;
}

}  // namespace

uint64_t shuffle(const char* name, unsigned mask, uint64_t value, unsigned source, Site site) {
    Shuffle operand{value, source, worker->running};
    worker->collective(name, mask, &operand, combine_shuffles, site);
    return operand.value;
}

unsigned ballot(const char* name, unsigned mask, bool predicate, Site site) {
    unsigned operand = predicate;
    worker->collective(name, mask, &operand, combine_ballots, site);
    return operand;
}

void* shared_array(const void* declaration, const char* name, size_t bytes, size_t element_bytes, Site site) {
    return worker->shared_array(declaration, name, bytes, element_bytes, 16, site);
}

void* dynamic_shared(size_t element_bytes, Site site) {
    static const char declaration = 0;
    return worker->shared_array(&declaration, "dynamic shared memory", worker->launch->shared_bytes, element_bytes,
                                dynamic_alignment, site);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned source_bytes, Site site) {
    const Copy copy = {static_cast<char*>(to), static_cast<const char*>(from), bytes,
                       source_bytes,           __builtin_return_address(0),    0};
    worker->copy_async(copy, site);
}

uint32_t atomic_inc(uint32_t* address, uint32_t last, Site site) {
    worker->require_alignment("the operand of an atomic", address, sizeof *address, site);
    if constexpr (EMULATOR_CHECK) check::atomic(address, sizeof *address, __builtin_return_address(0));
    uint32_t before = __atomic_load_n(address, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n(address, &before, before >= last ? 0 : before + 1, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {}
    return before;
}

void thread_fence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if constexpr (EMULATOR_CHECK) check::thread_fence();
}

void commit_copies() { ++worker->running->open_group; }

void wait_for_copies(unsigned groups_left) { worker->wait_for_copies(groups_left); }

// ------------------------------------------------------------------------------------------ what Python calls

// A line per report, "report KIND HEADLINE COUNT", and after it one per side, "side ACTION LANES BLOCK PC LINE FILE",
// with tabs between; faults.py reads it.
std::string Reports::text() const {
    std::string text;
    for (const Report& report : reports) {
        text += std::string("report\t") + report.kind + '\t' + report.headline + '\t';
        text += std::to_string(report.count) + '\n';
        for (const Side& side : report.sides) {
            text += "side\t" + side.action + '\t' + side.lanes + '\t' + std::to_string(side.block) + '\t';
            text += std::to_string(side.pc) + '\t' + std::to_string(side.site.line) + '\t';
            text += std::string(side.site.file ? side.site.file : "") + '\n';
        }
    }
    return text;
}

}  // namespace emulator

using namespace emulator;

#define EXPORT extern "C" __attribute__((visibility("default")))

// A line per kernel, "name p8f4 i4": library.py reads it.
EXPORT const char* emulator_kernels() {
    static std::string text;
    text.clear();
    for (const Kernel* kernel = Kernel::first; kernel; kernel = kernel->next) {
        text += kernel->name;
        for (const Parameter* parameter = kernel->parameters; parameter->kind; ++parameter) {
            text += std::string(" ") + parameter->kind + std::to_string(parameter->bytes);
            if (parameter->kind == 'p') text += parameter->pointee_kind + std::to_string(parameter->pointee_bytes);
        }
        text += '\n';
    }
    return text.c_str();
}

// Runs a kernel of this library to its end; not to be called twice at once. What went wrong is in the result, which
// lasts until the next launch and is empty if nothing did.
EXPORT const char* emulator_launch(const char* name, const uint32_t* grid, const uint32_t* block,
                                   void* const* arguments, uint32_t shared_bytes, uint64_t seed, const Buffer* buffers,
                                   uint32_t buffer_count) {
    static std::string text;
    static std::vector<std::unique_ptr<Worker>> workers;

    Launch launch;
    launch.kernel = Kernel::first;
    while (strcmp(launch.kernel->name, name) != 0) launch.kernel = launch.kernel->next;
    launch.arguments = arguments;
    launch.grid = {grid[0], grid[1], grid[2]};
    launch.block = {block[0], block[1], block[2]};
    launch.lane_count = block[0] * block[1] * block[2];
    launch.warp_count = (launch.lane_count + warpSize - 1) / warpSize;
    launch.shared_bytes = shared_bytes;
    launch.seed = seed;
    launch.block_count = uint64_t{grid[0]} * grid[1] * grid[2];

    // A random step through the blocks that has no divisor in common with their number meets each of them once.
    const auto divisor = [](uint64_t a, uint64_t b) {
        while (b) std::swap(a %= b, b);
        return a;
    };
    Random random{seed};
    launch.first_block = random() % launch.block_count;
    const unsigned longest = std::min<uint64_t>(launch.block_count, 1 << 30);
    do launch.block_stride = 1 + random.below(longest);
    while (divisor(launch.block_count, launch.block_stride) != 1);

    // The checking build runs one block after another, so that the same seed gives the same reports.
    const uint64_t cores = EMULATOR_CHECK ? 1 : std::max(1u, std::thread::hardware_concurrency());
    const uint64_t used = std::min(cores, launch.block_count);
    while (workers.size() < used) workers.push_back(std::make_unique<Worker>());
    if constexpr (EMULATOR_CHECK) check::begin_launch(buffers, buffer_count);
    std::vector<std::thread> threads;
    for (uint64_t i = 1; i < used; ++i) threads.emplace_back([&launch, i] { workers[i]->work(launch); });
    workers[0]->work(launch);
    for (std::thread& thread : threads) thread.join();
    if constexpr (EMULATOR_CHECK) check::end_launch();
    fflush(stdout);  // what the kernels have printed
    text = launch.reports.text();
    return text.c_str();
}
