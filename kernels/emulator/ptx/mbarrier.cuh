// The host's version of kernels/cuda/ptx/mbarrier.cuh. How it waits is in sm90_state.cuh.
#pragma once

#include "ptx/sm90_state.cuh"

namespace ptx {

namespace emulated {

struct Waiting {  // a lane's operand
    unsigned barrier, parity;
    uint64_t events;  // at the last look
    int unchanged;    // looks in a row
    bool complete;
    const char* fault;
};

EMULATOR_UNCHECKED inline void look(State& now, Waiting** lanes) {
    Waiting& first = *lanes[0];
    const char* fault = nullptr;
    for (unsigned lane = 1; lane < warpSize; ++lane)
        if (lanes[lane]->barrier != first.barrier || lanes[lane]->parity != first.parity)
            fault = "mbarrier.try_wait: lanes wait for different barriers";
    if (parity_of(word(now, first.barrier)) == first.parity) run_loads_for(now, first.barrier);
    const bool complete = parity_of(word(now, first.barrier)) != first.parity;
    if (complete) {
        ++now.events;
        emulator::order_block();
    }
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

EMULATOR_UNCHECKED inline const char* arrive_at(State& now, unsigned barrier, int bytes) {
    Word& to = word(now, barrier);
    if ((to.pending_and_parity & 0x7fff) == 0) return "mbarrier.arrive, once too often in a phase";
    to.bytes += bytes;
    --to.pending_and_parity;
    complete_if_done(to);
    ++now.events;
    return nullptr;
}

EMULATOR_UNCHECKED inline void arrive_once(State& now, Arriving** lanes) {
    const char* const fault = arrive_at(now, lanes[0]->barrier, 0);
    for (unsigned lane = 0; lane < warpSize; ++lane) lanes[lane]->fault = fault;
}

}  // namespace emulated

EMULATOR_UNCHECKED inline unsigned shared_address_32(const void* pointer) {
    return emulated::first_address + unsigned(static_cast<const unsigned char*>(pointer) - emulated::state().memory);
}

EMULATOR_UNCHECKED inline void mbarrier_init(unsigned barrier, int arrivals) {
    emulated::Word& word = emulated::word(emulated::state(), barrier);
    word.count = word.pending_and_parity = arrivals;
    word.bytes = 0;
}

inline void fence_barrier_init() {}

EMULATOR_UNCHECKED inline void arrive_expect_tx(unsigned barrier, int bytes, EMULATOR_SITE) {
    if (const char* fault = emulated::arrive_at(emulated::state(), barrier, bytes)) emulated::stop(fault, site);
}

EMULATOR_UNCHECKED inline void mbarrier_arrive(unsigned barrier, EMULATOR_SITE) {
    emulated::Arriving arriving = {barrier, nullptr};
    emulated::collective<emulated::arrive_once>("mbarrier.arrive", arriving, site);
    if (arriving.fault) emulated::stop(arriving.fault, site);
}

EMULATOR_UNCHECKED inline void mbarrier_wait(unsigned barrier, unsigned parity, EMULATOR_SITE) {
    emulated::Waiting waiting = {barrier, parity, 0, 0, false, nullptr};
    for (;;) {
        emulated::collective<emulated::look>("mbarrier.try_wait", waiting, site);
        if (waiting.fault) emulated::stop(waiting.fault, site);
        if (waiting.complete) return;
        emulated::let_others_run();
    }
}

}  // namespace ptx
