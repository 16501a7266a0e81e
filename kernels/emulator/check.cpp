// The checking build's eyes. Kernels are compiled with -fsanitize=thread, so that the compiler calls __tsan_read4
// and the like before every access. Here those calls find the buffer that an address belongs to, and compare the
// access with what a shadow cell remembers of earlier ones. The runtime tells when lanes get ordered: all of a
// block at the end of an interval (from one barrier to the next), those of a warp by __syncwarp.
//
// Two accesses race if one is a write and nothing orders them: they are of two blocks, of two warps in one
// interval, or of two lanes of a warp with no __syncwarp between. This does not depend on the order in which the
// fibers happened to run. A cell remembers the last write, which is enough, and two readers as far apart as can
// be (other block, other warp, other lane), which is enough where __syncwarp names the whole warp. Cells are as
// wide as the buffer's elements, up to four bytes; of narrower accesses the last one is remembered.
//
// Blocks are ordered where one has written, fenced and done an atomic, and the other has done an atomic on the same
// word after it, fenced and read. A fence releases what its own lane has done, and what the block had done at the last
// barrier, no more; what the atomic has brought counts for its own lane from the next fence on, and for the others from
// the next barrier on. An atomic races with an access that is none.
//
// An asynchronous copy writes at some time between its issue and its wait. It is checked as a write at its issue (so
// whoever has read the old contents must be ordered before), as a write at its wait (so whoever reads the new ones must
// be ordered after), and whoever touches its destination in between races with it, barriers or not.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>

#include "worker.h"

extern "C" {  // the linker's: where this library is
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));
}

namespace emulator {
namespace {

// Intervals are numbered through the life of the process, so a number tells the block and the launch too, and
// cells need no clearing between them: their accesses are merely old.
struct Access {
    uint32_t interval;
    uint32_t clock;  // of the lane, counting its __syncwarps
    uint32_t pc;
    uint32_t lane : 10, bytes : 4, atomic : 1;
    uint32_t initialised : 4, under_way : 4;  // of the cell's bytes, by whomever; kept in its write
};

struct Cell {
    Access write, reads[2];
};

// What a block has released: everything before an interval, and in it what one lane has done up to its clock.
struct Released {
    uint32_t block_start, interval, clock, lane;

    bool covers(const Access& access) const {
        if (access.interval < block_start || access.interval > interval) return false;
        return access.interval < interval || (access.lane == lane && access.clock <= clock);
    }
};
using Knowledge = std::vector<Released>;  // of other blocks

void add(Knowledge& to, const Knowledge& more) { to.insert(to.end(), more.begin(), more.end()); }

struct Region {
    uintptr_t base;
    size_t bytes;
    unsigned shift;  // a cell stands for 1 << shift bytes
    bool shared, writable, initialised;
    const char* name;
    Cell* cells;

    bool contains(uintptr_t address) const { return address - base < bytes; }
};

struct {
    uint32_t interval = 0, block_start, launch_start;
    std::vector<std::pair<uint32_t, uint64_t>> blocks;  // first interval and number of each, in the order they ran
    std::vector<Region> regions;                        // the launch's buffers, then the block's shared arrays
    size_t buffer_count, recent;                        // the region that was accessed last
    uint32_t clocks[max_lanes][warpSize];               // what each lane has seen of each lane of its warp
    Cell* shared_cells;                                 // one for every byte of the arena
    std::map<uintptr_t, Knowledge> released;            // by the word that atomics are done on
    Knowledge of_block;                                 // what every lane knows
    struct {
        Knowledge released, brought, known;  // by its last fence; by atomics since then; before the next barrier
    } lanes[max_lanes];
} now;

Cell* allocate_cells(size_t count) {
    void* cells = calloc(count, sizeof(Cell));
    if (!cells) throw std::bad_alloc();
    return static_cast<Cell*>(cells);
}

void add_region(uintptr_t base, size_t bytes, size_t element_bytes, bool shared, bool writable, bool initialised,
                const char* name) {
    const unsigned shift = element_bytes % 4 == 0 ? 2 : element_bytes % 2 == 0 ? 1 : 0;
    Cell* cells = shared ? now.shared_cells + (base - reinterpret_cast<uintptr_t>(worker->arena))
                         : allocate_cells((bytes >> shift) + 1);
    now.regions.push_back({base, bytes, shift, shared, writable, initialised, name, cells});
}

// ---------------------------------------------------------------------------------------------------- order

bool is_ordered(const Access& before, unsigned lane) {
    if (before.interval < now.block_start) {
        const auto covers = [&](const Released& released) { return released.covers(before); };
        const Knowledge &all = now.of_block, &own = now.lanes[lane].known;
        return std::any_of(all.begin(), all.end(), covers) || std::any_of(own.begin(), own.end(), covers);
    }
    if (before.interval != now.interval || before.lane == lane) return true;
    return before.lane / warpSize == lane / warpSize && now.clocks[lane][before.lane % warpSize] >= before.clock;
}

// How much is gained by remembering a reader besides another one.
int distance(const Access& kept, const Access& other) {
    if (other.interval < now.block_start) return 3;
    if (other.interval != kept.interval || other.lane == kept.lane) return 0;
    return other.lane / warpSize != kept.lane / warpSize ? 2 : 1;
}

uint64_t block_of(const Access& access) {
    auto block = now.blocks.end() - 1;
    while (block->first > access.interval) --block;
    return block->second;
}

// -------------------------------------------------------------------------------------------------- reports

std::string place(const Region& region, uintptr_t address, size_t bytes) {
    const auto offset = static_cast<long long>(address - region.base);
    return std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " of " + region.name;
}

template <class Headline>
void report(const char* kind, uint32_t pc, bool write, Headline headline) {
    worker->launch->reports.add(kind, pc, 0, [&](Report& report) {
        report.headline = headline();
        report.sides = {worker->side(write ? "writes" : "reads", *worker->running, pc, {})};
    });
}

void report_race(const std::string& where, const Access& access, bool write, const Access& before, const char* did) {
    const char* kind = before.interval < now.block_start ? "race between blocks" : "data race";
    worker->launch->reports.add(kind, access.pc, before.pc, [&](Report& report) {
        report.headline = where;
        report.sides = {worker->side(write ? "writes" : "reads", *worker->running, access.pc, {}),
                        {did, std::to_string(before.lane), block_of(before), before.pc, {}}};
    });
}

// Names the nearest buffer or array, unless even that is further away than it is long.
[[noreturn]] void stop_out_of_bounds(uintptr_t address, size_t bytes, bool write, uint32_t pc) {
    report("out of bounds", pc, write, [&] {
        const Region* nearest = nullptr;
        uintptr_t least = ~uintptr_t{0};
        for (const Region& region : now.regions) {
            const uintptr_t end = region.base + region.bytes;
            const uintptr_t gap = address < region.base ? region.base - address : address + bytes - end;
            if (gap < least && gap < region.bytes + 4096) {
                least = gap;
                nearest = &region;
            }
        }
        if (!nearest) return std::to_string(bytes) + " bytes far from every buffer";
        return place(*nearest, address, bytes) + ", which has " + std::to_string(nearest->bytes) + " bytes";
    });
    worker->stop();
}

// ------------------------------------------------------------------------------------------------- accesses

void check_cell(const Region& region, uintptr_t address, size_t bytes, Cell& cell, Access access, bool write) {
    const uint32_t oldest = region.shared ? now.block_start : now.launch_start;
    const auto conflicts = [&](const Access& before) {
        return before.interval >= oldest && before.bytes & access.bytes && !(before.atomic && access.atomic) &&
               !is_ordered(before, access.lane);
    };
    const bool current = cell.write.interval >= oldest, under_way = current && cell.write.under_way & access.bytes;
    if (under_way)
        report_race(place(region, address, bytes), access, write, cell.write, "began a copy and has not waited for it");
    else if (conflicts(cell.write))
        report_race(place(region, address, bytes), access, write, cell.write, "wrote before");
    const uint32_t initialised = current ? cell.write.initialised : 0;
    if (access.atomic && !region.initialised && access.bytes & ~initialised)
        report("uninitialised memory", access.pc, true,
               [&] { return place(region, address, bytes) + ", which nobody has written"; });
    if (write) {
        for (const Access& read : cell.reads)
            if (conflicts(read)) report_race(place(region, address, bytes), access, true, read, "read before");
        access.initialised = initialised | access.bytes;
        access.under_way = current ? cell.write.under_way & ~access.bytes : 0;
        cell.write = access;
        return;
    }
    // Where a lane has been stopped, what it should have written is missing through no other fault.
    if (!region.initialised && access.bytes & ~initialised && !under_way && !worker->lane_was_stopped)
        report(region.shared ? "uninitialised shared memory" : "uninitialised memory", access.pc, false,
               [&] { return place(region, address, bytes) + ", which nobody has written"; });
    if (distance(access, cell.reads[0]) >= distance(access, cell.reads[1])) cell.reads[1] = cell.reads[0];
    cell.reads[0] = access;
}

// Calls visit(offset, bytes, cell, access) for each cell that this access of the running lane covers a part of.
template <class Visit>
void for_cells(const Region& region, size_t offset, size_t bytes, uint32_t pc, Visit visit) {
    const unsigned lane = worker->number(*worker->running);
    Access access = {now.interval, now.clocks[lane][lane % warpSize], pc, lane, 0, 0, 0, 0};
    const size_t width = size_t{1} << region.shift;
    for (size_t at = offset; at < offset + bytes;) {
        const size_t within = at % width, covered = std::min(width - within, offset + bytes - at);
        access.bytes = ((1u << covered) - 1) << within;
        visit(at, covered, region.cells[at >> region.shift], access);
        at += covered;
    }
}

// Tables in the library itself, and threadIdx and its like, which clang has checked although they are const.
bool is_constant(uintptr_t address) {
    if (address - reinterpret_cast<uintptr_t>(__ehdr_start) < size_t(_end - __ehdr_start)) return true;
    for (const uint3* variable : {&threadIdx, &blockIdx, &blockDim, &gridDim})
        if (address - reinterpret_cast<uintptr_t>(variable) < sizeof *variable) return true;
    return false;
}

uint32_t pc_of(const void* return_address) {
    return uint32_t(static_cast<const char*>(return_address) - 1 - __ehdr_start);
}

void check_access(const void* pointer, size_t bytes, bool write, bool aligned, const void* return_address,
                  bool atomic = false) {
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    const auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    if (!worker || !worker->running || !bytes || (address ^ here) < stack_bytes) return;  // or a lane's own stack
    const uint32_t pc = pc_of(return_address);

    if (now.recent >= now.regions.size() || !now.regions[now.recent].contains(address)) {
        const auto contains = [&](const Region& region) { return region.contains(address); };
        const auto found = std::find_if(now.regions.begin(), now.regions.end(), contains);
        if (found == now.regions.end()) {
            if (is_constant(address)) return;
            stop_out_of_bounds(address, bytes, write, pc);
        }
        now.recent = found - now.regions.begin();
    }
    const Region& region = now.regions[now.recent];
    const size_t offset = address - region.base;
    if (offset + bytes > region.bytes) stop_out_of_bounds(address, bytes, write, pc);
    if (aligned && address % bytes) {
        report("misaligned access", pc, write,
               [&] { return place(region, address, bytes) + ", which is not a multiple of its size"; });
        worker->stop();
    }
    if (write && !region.writable) {
        report("write to read-only memory", pc, true, [&] { return place(region, address, bytes); });
        worker->stop();
    }

    for_cells(region, offset, bytes, pc, [&](size_t at, size_t covered, Cell& cell, Access access) {
        access.atomic = atomic;
        check_cell(region, region.base + at, covered, cell, access, write);
    });
}

// The destination of a copy, which has just begun, or arrived as if the lane wrote it now.
void mark_copy(const Copy& copy, bool under_way) {
    const auto address = reinterpret_cast<uintptr_t>(copy.to);
    const auto contains = [&](const Region& region) { return region.contains(address); };
    const Region& region = *std::find_if(now.regions.begin(), now.regions.end(), contains);
    for_cells(region, address - region.base, copy.bytes, pc_of(copy.caller),
              [&](size_t, size_t, Cell& cell, Access access) {
                  access.initialised = cell.write.initialised | access.bytes;
                  access.under_way = (cell.write.under_way & ~access.bytes) | (under_way ? access.bytes : 0);
                  cell.write = access;
              });
}

}  // namespace

// ------------------------------------------------------------------------------------ what the runtime tells

namespace check {

void begin_launch(const Buffer* buffers, unsigned count) {
    now.launch_start = now.interval + 1;
    now.blocks.clear();
    now.buffer_count = count;
    now.released.clear();
    if (!now.shared_cells) now.shared_cells = allocate_cells(arena_bytes);
    for (const Buffer* buffer = buffers; buffer != buffers + count; ++buffer)
        add_region(buffer->base, buffer->bytes, buffer->element_bytes, false, buffer->writable, buffer->initialised,
                   buffer->name);
}

void end_launch() {
    for (size_t i = 0; i < now.buffer_count; ++i) free(now.regions[i].cells);
    now.regions.clear();
}

void begin_block() {
    now.block_start = ++now.interval;
    now.blocks.push_back({now.interval, worker->block});
    now.regions.erase(now.regions.begin() + now.buffer_count, now.regions.end());
    now.of_block.clear();
    for (unsigned lane = 0; lane < worker->launch->lane_count; ++lane) now.lanes[lane] = {};
    memset(now.clocks, 0, worker->launch->lane_count * sizeof now.clocks[0]);
    for (unsigned lane = 0; lane < worker->launch->lane_count; ++lane) now.clocks[lane][lane % warpSize] = 1;
}

void barrier() {
    ++now.interval;
    for (unsigned lane = 0; lane < worker->launch->lane_count; ++lane) {
        add(now.of_block, now.lanes[lane].known);
        now.lanes[lane].known.clear();
    }
}

void thread_fence() {
    const unsigned lane = worker->number(*worker->running);
    auto& self = now.lanes[lane];
    add(self.known, self.brought);
    self.brought.clear();
    uint32_t& clock = now.clocks[lane][lane % warpSize];
    self.released = {{now.block_start, now.interval, clock++, lane}};
    add(self.released, now.of_block);
    add(self.released, self.known);
}

void atomic(const void* address, size_t bytes, const void* caller) {
    check_access(address, bytes, true, true, caller, true);
    auto& self = now.lanes[worker->number(*worker->running)];
    Knowledge& released = now.released[reinterpret_cast<uintptr_t>(address)];
    add(self.brought, released);
    add(released, self.released);
}

// Each lane of the mask has now seen what any of them had.
void order_lanes(unsigned warp, unsigned mask) {
    auto* const clocks = &now.clocks[warp * warpSize];
    uint32_t seen[warpSize] = {};
    for (unsigned i = 0; i < warpSize; ++i)
        for (unsigned j = 0; j < warpSize && mask >> i & 1; ++j) seen[j] = std::max(seen[j], clocks[i][j]);
    for (unsigned i = 0; i < warpSize; ++i)
        if (mask >> i & 1) {
            memcpy(clocks[i], seen, sizeof seen);
            ++clocks[i][i];
        }
}

void add_shared_array(char* base, size_t bytes, size_t element_bytes, const char* name) {
    add_region(reinterpret_cast<uintptr_t>(base), bytes, element_bytes, true, true, false, name);
}

void issue_copy(const Copy& copy) {
    check_access(copy.from, copy.source_bytes, false, false, copy.caller);
    check_access(copy.to, copy.bytes, true, false, copy.caller);
    mark_copy(copy, true);
}

void complete_copy(const Copy& copy) { mark_copy(copy, false); }

// By nobody's lane, at the beginning of the block: before whatever comes after the first barrier.
void mark_written(const void* to, size_t bytes) {
    const auto address = reinterpret_cast<uintptr_t>(to);
    const auto contains = [&](const Region& region) { return region.contains(address); };
    const Region& region = *std::find_if(now.regions.begin(), now.regions.end(), contains);
    for_cells(region, address - region.base, bytes, 0, [&](size_t, size_t, Cell& cell, Access access) {
        access.interval = now.block_start;
        access.initialised =
            cell.write.interval >= now.block_start ? cell.write.initialised | access.bytes : access.bytes;
        cell.write = access;
    });
}

}  // namespace check
}  // namespace emulator

// ----------------------------------------------------------------------------------- what the compiler calls

using emulator::check_access;

#define HOOK extern "C" __attribute__((noinline))
#define CALLER __builtin_return_address(0)
#define ACCESSES(bytes)                                                                               \
    HOOK void __tsan_read##bytes(void* p) { check_access(p, bytes, false, true, CALLER); }            \
    HOOK void __tsan_write##bytes(void* p) { check_access(p, bytes, true, true, CALLER); }            \
    HOOK void __tsan_unaligned_read##bytes(void* p) { check_access(p, bytes, false, false, CALLER); } \
    HOOK void __tsan_unaligned_write##bytes(void* p) { check_access(p, bytes, true, false, CALLER); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

HOOK void __tsan_read_range(void* p, size_t bytes) { check_access(p, bytes, false, false, CALLER); }
HOOK void __tsan_write_range(void* p, size_t bytes) { check_access(p, bytes, true, false, CALLER); }
HOOK void __tsan_init() {}
HOOK void __tsan_func_entry(void*) {}
HOOK void __tsan_func_exit() {}
HOOK void __tsan_vptr_update(void**, void*) {}
HOOK void __tsan_vptr_read(void**) {}

// A kernel's memcpy, memmove and memset: clang makes these calls of them, and for GCC device.h does.
HOOK void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    check_access(from, bytes, false, false, CALLER);
    check_access(to, bytes, true, false, CALLER);
    return memmove(to, from, bytes);
}
// An argument that is passed by value is copied from outside every buffer, on some processors by this call.
static bool is_argument(const void* from) {
    const auto* parameters = emulator::worker->launch->kernel->parameters;
    for (unsigned i = 0; parameters[i].kind; ++i)
        if (emulator::worker->launch->arguments[i] == from) return true;
    return false;
}
HOOK void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    if (is_argument(from)) return memcpy(to, from, bytes);
    check_access(from, bytes, false, false, CALLER);
    check_access(to, bytes, true, false, CALLER);
    return memcpy(to, from, bytes);
}
HOOK void* __tsan_memset(void* to, int value, size_t bytes) {
    check_access(to, bytes, true, false, CALLER);
    return memset(to, value, bytes);
}
