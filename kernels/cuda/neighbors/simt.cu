// The kernels of neighbors_simt.cuh for float32, with channels in fours and of any number, and what merges the parts of
// a search in every precision. instantiations/sm80_16bit.cuh has those for bf16 and fp16.
// tests/kernels/cuda/neighbors/test_neighbors.py runs them.
#include "neighbors/neighbors_simt.cuh"

NORMALIZE_FEATURES(normalize_features_fp32, float, true)
NORMALIZE_FEATURES(normalize_features_fp32_any, float, false)
NEAREST_NEIGHBORS_SIMT(nearest_neighbors_simt_fp32, float, true)
NEAREST_NEIGHBORS_SIMT(nearest_neighbors_simt_fp32_any, float, false)
NEIGHBORS_COST(neighbors_cost_fp32, float, true)
NEIGHBORS_COST(neighbors_cost_fp32_any, float, false)
NEIGHBORS_GRADIENT(neighbors_gradient_fp32, float, true)
NEIGHBORS_GRADIENT(neighbors_gradient_fp32_any, float, false)

// matches[pixel] := the nearest of partials[part][pixel], part after part. Bound by memory: a thread a pixel.
extern "C" __global__ void __launch_bounds__(THREADS) nearest_neighbors_merge(const void* __restrict__ partials,
                                                                              int* __restrict__ matches, int pixels,
                                                                              int parts) {
    const neighbors::Nearest* const found = static_cast<const neighbors::Nearest*>(partials);
    for (const int64_t pixel : grid_stride<THREADS>(int64_t{pixels})) {
        neighbors::Nearest nearest = found[pixel];
        for (int part = 1; part < parts; ++part)
            nearest = neighbors::nearer(nearest, found[size_t(part) * pixels + pixel]);
        matches[pixel] = nearest.index;
    }
}
