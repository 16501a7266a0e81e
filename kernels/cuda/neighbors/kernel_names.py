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

NEIGHBORS_COST = {
    "fp32": "neighbors_cost_fp32",
    "fp32_any": "neighbors_cost_fp32_any",
    "bf16": "neighbors_cost_bf16",
    "fp16": "neighbors_cost_fp16",
}
"""Likewise."""

NEIGHBORS_GRADIENT = {
    "fp32": "neighbors_gradient_fp32",
    "fp32_any": "neighbors_gradient_fp32_any",
    "bf16": "neighbors_gradient_bf16",
    "fp16": "neighbors_gradient_fp16",
}
"""Likewise."""
