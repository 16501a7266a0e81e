// The host's version of kernels/cuda/ptx/tma.cuh: a box is copied at once, or when somebody waits for it. A store of
// what has been written with no fence since is reported.
#pragma once

#include "ptx/sm90_state.cuh"

namespace ptx {

inline void prefetch_tensor_map(const TensorMap&) {}

EMULATOR_UNCHECKED inline void tma_load_3d(unsigned to, const TensorMap& map, unsigned barrier, const Coordinates& at,
                                           EMULATOR_SITE) {
    emulated::State& now = emulated::state();
    if (map.words[9] != emulated::map_mark) emulated::stop("a tensor map that is not the emulator's", site);
    if (2 * map.words[6] != wgmma_sm90::row_bytes || to % wgmma_sm90::group_bytes)
        emulated::stop("a box whose rows are not of 128 bytes, or not aligned to 1024", site);
    if (now.load_count == emulated::most_loads) emulated::stop("more than 64 loads that nobody waits for", site);
    emulated::Load& load = now.loads[now.load_count];
    for (int word = 0; word < 16; ++word) load.map[word] = map.words[word];
    load.to = to;
    load.barrier = barrier;
    load.at.x = at.x;
    load.at.y = at.y;
    load.at.z = at.z;
    if (EMULATOR_LOADS == 0 || (EMULATOR_LOADS == 2 && emulated::toss(now) & 1))
        emulated::run_load(now, load);
    else
        ++now.load_count;
    ++now.events;
}

namespace emulated {

// Carries out the stores put off of this lane's first `count` groups.
EMULATOR_UNCHECKED inline void run_stores_of(State& now, unsigned thread, unsigned groups_done) {
    int kept = 0;
    for (int i = 0; i < now.store_count; ++i) {
        Store& store = now.stores[i];
        if (store.thread == thread && store.group < groups_done) {
            run_store(now, store);
            continue;
        }
        Store& to = now.stores[kept++];
        for (int word = 0; word < 16; ++word) to.map[word] = store.map[word];
        to.from = store.from;
        to.thread = store.thread;
        to.group = store.group;
        to.at.x = store.at.x;
        to.at.y = store.at.y;
        to.at.z = store.at.z;
    }
    now.store_count = kept;
}

}  // namespace emulated

EMULATOR_UNCHECKED inline void tma_store_3d(const TensorMap& map, unsigned from, const Coordinates& at, EMULATOR_SITE) {
    emulated::State& now = emulated::state();
    if (map.words[9] != emulated::map_mark) emulated::stop("a tensor map that is not the emulator's", site);
    if (2 * map.words[6] != wgmma_sm90::row_bytes || from % wgmma_sm90::group_bytes)
        emulated::stop("a box whose rows are not of 128 bytes, or not aligned to 1024", site);
    if (now.store_count == emulated::most_stores) emulated::stop("more than 16 stores that nobody waits for", site);
    if (emulated::is_unfenced(now, from, 2 * map.words[6] * map.words[7] * map.words[8]))
        emulated::stop("a store of what was written without fence.proxy.async", site);
    emulated::Store& store = now.stores[now.store_count];
    for (int word = 0; word < 16; ++word) store.map[word] = map.words[word];
    store.from = from;
    store.thread = threadIdx.x;
    store.group = now.store_groups[threadIdx.x];
    store.at.x = at.x;
    store.at.y = at.y;
    store.at.z = at.z;
    if (EMULATOR_LOADS == 0 || (EMULATOR_LOADS == 2 && emulated::toss(now) & 1))
        emulated::run_store(now, store);
    else
        ++now.store_count;
    ++now.events;
}

EMULATOR_UNCHECKED inline void tma_store_commit_group() { ++emulated::state().store_groups[threadIdx.x]; }

template <int pending>
EMULATOR_UNCHECKED void tma_store_wait_group_read() {
    emulated::State& now = emulated::state();
    const unsigned groups = now.store_groups[threadIdx.x];
    if (groups > unsigned(pending)) emulated::run_stores_of(now, threadIdx.x, groups - pending);
    ++now.events;
}

EMULATOR_UNCHECKED inline void fence_proxy_async() { ++emulated::state().fences[threadIdx.x]; }

}  // namespace ptx
