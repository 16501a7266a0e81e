// The host's version of kernels/cuda/ptx/tma.cuh: a box is copied at once, or when somebody waits for it.
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

}  // namespace ptx
