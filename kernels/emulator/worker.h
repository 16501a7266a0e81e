// A launch, and one host thread's part in it: the fibers of the block that it is running, which of them waits
// for what, and the block's shared memory. runtime.cpp runs it; check.cpp, in the checking build, watches it.
#pragma once

#define EMULATOR_RUNTIME
#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "device.h"
#include "fiber.h"

namespace emulator {

constexpr unsigned max_lanes = 1024, max_warps = max_lanes / warpSize;
constexpr unsigned max_shared_arrays = 32;
constexpr size_t max_shared_bytes = 227 << 10;
constexpr size_t redzone_bytes = 256, dynamic_alignment = 1024;
constexpr size_t arena_bytes = max_shared_bytes + max_shared_arrays * (redzone_bytes + 16) + dynamic_alignment;
constexpr size_t stack_bytes = 64 << 10;  // and so aligned: an address tells which stack it is on

inline bool operator==(Site a, Site b) { return a.line == b.line && a.file == b.file; }

// One of the places in the source that a report is about, by site or, where that has no file, by program counter.
struct Side {
    std::string action;
    std::string lanes;  // thread numbers in the block: "0-31,64"
    uint64_t block;
    uint32_t pc;  // offset in the library
    Site site;
};

struct Report {
    const char* kind;
    uintptr_t place, other_place;  // tell the same fault at other lines apart
    std::string headline;
    std::vector<Side> sides;
    uint64_t count;
};

class Reports {
  public:
    // One line may be at fault in every block, so `describe` (which fills in headline and sides) is called once.
    template <class Describe>
    void add(const char* kind, uintptr_t place, uintptr_t other_place, Describe describe) {
        std::lock_guard<std::mutex> lock(mutex);
        for (Report& report : reports)
            if (!strcmp(report.kind, kind) && report.place == place && report.other_place == other_place) {
                ++report.count;
                return;
            }
        if (reports.size() == most) return;
        reports.push_back({kind, place, other_place, "", {}, 1});
        describe(reports.back());
    }
    template <class Describe>
    void add(const char* kind, Site site, Describe describe) {
        add(kind, reinterpret_cast<uintptr_t>(site.file), site.line, describe);
    }
    std::string text() const;

  private:
    static constexpr size_t most = 50;
    std::mutex mutex;
    std::vector<Report> reports;
};

// Global memory that a launch may touch; `_Buffer` in library.py mirrors it.
struct Buffer {
    uintptr_t base;
    uint64_t bytes;
    uint32_t element_bytes, writable, initialised;
    const char* name;
};

struct Launch {
    const Kernel* kernel;
    void* const* arguments;
    uint3 grid, block;
    unsigned lane_count, warp_count;
    size_t shared_bytes;
    uint64_t seed;
    uint64_t block_count, first_block, block_stride;  // blocks run in the order first + i * stride mod count
    std::atomic<uint64_t> next{0};
    std::atomic<bool> stuck{false};
    Reports reports;
};

struct Random {  // splitmix64
    uint64_t state;

    uint64_t operator()() {
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    unsigned below(unsigned bound) { return uint32_t((*this)()) * uint64_t{bound} >> 32; }
};

enum class Progress : uint8_t { unstarted, started, returned, stopped };

struct Wait {
    const char* what;  // null: does not wait
    Site site;
    unsigned mask;  // of a warp collective; 0 for a barrier
};

struct Copy {  // asynchronous, issued and not yet waited for
    char* to;
    const char* from;
    unsigned bytes, source_bytes;  // what the source lacks is filled with zeros
    const void* caller;
    unsigned group;
};

struct Lane {
    Context context;
    char* stack;
    uint3 index;
    Progress progress;
    Wait wait;
    std::vector<Copy> copies;  // under way, in the order of their groups
    unsigned open_group;

    bool alive() const { return progress <= Progress::started; }
};

// Lanes of a warp on their way into the same collective with the same mask.
struct Rendezvous {
    const char* name;
    unsigned mask, arrived;
    void* operands[warpSize];
};

struct Warp {
    unsigned rendezvous_count;
    Rendezvous rendezvous[warpSize];
};

class Worker {
  public:
    Worker();
    void work(Launch& launch);

    // What the running lane asks for.
    void barrier(Site site);
    void collective(const char* name, unsigned mask, void* operand, Combine combine, Site site);
    void* shared_array(const void* declaration, const char* name, size_t bytes, size_t element_bytes, size_t alignment,
                       Site site);
    void require_alignment(const char* what, const void* address, size_t bytes, Site site);
    void require_shared(const char* what, const void* address, Site site);
    void copy_async(Copy copy, Site site);
    void wait_for_copies(unsigned groups_left);
    [[noreturn]] void stop();  // as it was about to do what can't be done

    unsigned number(const Lane& lane) const { return unsigned(&lane - lanes); }
    Side side(std::string action, const Lane& lane, uint32_t pc, Site site) const {
        return {std::move(action), std::to_string(number(lane)), block, pc, site};
    }

    Launch* launch;
    uint64_t block;
    Lane* running = nullptr;  // null: the scheduler
    bool lane_was_stopped;    // so that what its neighbours miss is no fault of theirs
    char* arena;

  private:
    void run_block(uint64_t block);
    void run_lanes();
    void make_ready();
    Lane* next_ready() { return ready_count ? ready[--ready_count] : nullptr; }
    void resume(Lane* lane);
    void start(Lane& lane, char* stack);
    void retire(Progress progress);
    void complete_barrier();
    void report_stuck();
    std::string missing(const Wait& wait, unsigned warp) const;
    char* take_stack();

    Lane lanes[max_lanes];
    Warp warps[max_warps];
    Lane* ready[max_lanes];
    unsigned ready_count, live, at_barrier;
    Site barrier_site;
    bool diverged;  // lanes have come to two different barriers
    Context scheduler;
    Random random;
    uint8_t warp_order[max_warps], lane_order[warpSize];

    struct {
        const void* declaration;
        char* base;
    } shared[max_shared_arrays];
    unsigned shared_count;
    size_t shared_end, shared_bytes;  // with and without the redzones between

    char* stacks;
    unsigned stack_count = 0;
    std::vector<char*> free_stacks;
};

extern __thread Worker* worker;

namespace check {

void begin_launch(const Buffer* buffers, unsigned count);
void end_launch();
void begin_block();
void barrier();
void order_lanes(unsigned warp, unsigned mask);
void add_shared_array(char* base, size_t bytes, size_t element_bytes, const char* name);
void issue_copy(const Copy& copy);
void complete_copy(const Copy& copy);
void mark_written(const void* to, size_t bytes);
void atomic(const void* address, size_t bytes, const void* caller);
void thread_fence();

}  // namespace check

}  // namespace emulator
