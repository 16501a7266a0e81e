"""What the kernels of `neighbors` are called, each in full; as in conv3x3/kernel_names.py. Those that exist once are
named where they are launched."""

NORMALIZE_FEATURES = {
    "fp32": "normalize_features_fp32",
    "fp32_any": "normalize_features_fp32_any",
    "bf16": "normalize_features_bf16",
    "fp16": "normalize_features_fp16",
}
"""By what memory holds; fp32_any is for channels that are no multiple of four."""

NEAREST_NEIGHBORS_SIMT = {
    "fp32": "nearest_neighbors_simt_fp32",
    "fp32_any": "nearest_neighbors_simt_fp32_any",
    "bf16": "nearest_neighbors_simt_bf16",
    "fp16": "nearest_neighbors_simt_fp16",
}
"""Likewise."""

NEAREST_NEIGHBORS_MMA_SM80 = {
    ("bf16", 128): "nearest_neighbors_mma_sm80_bf16_128x128",
    ("bf16", 64): "nearest_neighbors_mma_sm80_bf16_64x128",
    ("fp16", 128): "nearest_neighbors_mma_sm80_fp16_128x128",
    ("fp16", 64): "nearest_neighbors_mma_sm80_fp16_64x128",
    ("tf32", 128): "nearest_neighbors_mma_sm80_tf32_128x128",
    ("tf32", 64): "nearest_neighbors_mma_sm80_tf32_64x128",
}
"""By precision and the pixels of a tile."""

CANDIDATE_OFFSETS = {
    "bf16": "candidate_offsets_bf16",
    "fp16": "candidate_offsets_fp16",
    "tf32": "candidate_offsets_tf32",
}
"""By precision."""

NEAREST_OF_KEPT = {
    "bf16": "nearest_of_kept_bf16",
    "fp16": "nearest_of_kept_fp16",
    "tf32": "nearest_of_kept_tf32",
}
"""Likewise."""

NEIGHBORS_COST = {
    "fp32": "neighbors_cost_fp32",
    "fp32_any": "neighbors_cost_fp32_any",
    "bf16": "neighbors_cost_bf16",
    "fp16": "neighbors_cost_fp16",
}
"""By what memory holds, as above."""

NEIGHBORS_GRADIENT = {
    "fp32": "neighbors_gradient_fp32",
    "fp32_any": "neighbors_gradient_fp32_any",
    "bf16": "neighbors_gradient_bf16",
    "fp16": "neighbors_gradient_fp16",
}
"""Likewise."""
