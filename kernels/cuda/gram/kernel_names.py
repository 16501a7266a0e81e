"""What the kernels of the Gram matrix, the mean and the style gradient are called; as in conv3x3/kernel_names.py."""

GRAM_SIMT = {
    "128x128": "gram_simt_128x128",
    "64x64": "gram_simt_64x64",
    "64x64_any": "gram_simt_64x64_any",
}
"""By the tile, a square of channels."""

GRAM_WEIGHTED_SIMT = {
    "128x128": "gram_weighted_simt_128x128",
    "64x64": "gram_weighted_simt_64x64",
    "64x64_any": "gram_weighted_simt_64x64_any",
}
"""Likewise, of pixels that have weights."""

GRAM_MMA_SM80 = {
    ("bf16", "128x128"): "gram_mma_sm80_bf16_128x128",
    ("bf16", "64x64"): "gram_mma_sm80_bf16_64x64",
    ("fp16", "128x128"): "gram_mma_sm80_fp16_128x128",
    ("fp16", "64x64"): "gram_mma_sm80_fp16_64x64",
    ("tf32", "128x128"): "gram_mma_sm80_tf32_128x128",
    ("tf32", "64x64"): "gram_mma_sm80_tf32_64x64",
    ("3xtf32", "64x64"): "gram_mma_sm80_3xtf32_64x64",
}
"""By precision and tile; with weights and without."""

GRAM_WGMMA_SM90 = {
    ("bf16", "128x128"): "gram_wgmma_sm90_bf16_128x128",
    ("bf16", "64x64"): "gram_wgmma_sm90_bf16_64x64",
    ("fp16", "128x128"): "gram_wgmma_sm90_fp16_128x128",
    ("fp16", "64x64"): "gram_wgmma_sm90_fp16_64x64",
}
"""By precision and tile; without weights."""

GRAM_SPLIT_K_SUM = {16: "gram_by_16_split_k_sum", 4: "gram_by_4_split_k_sum"}
"""By how many threads share the slices of an element; of every precision."""

MEAN = {
    "fp32_any": "mean_fp32_any",
    "fp32": "mean_fp32",
    "bf16": "mean_bf16",
    "fp16": "mean_fp16",
}
"""By precision of the features; of any number of channels, or of multiples of four or eight."""

STYLE_GRADIENT_SIMT = {
    "128x64": "style_gradient_simt_128x64",
    "128x32": "style_gradient_simt_128x32",
    "128x64_any": "style_gradient_simt_128x64_any",
}
"""By the tile, pixels x channels."""

STYLE_GRADIENT_MMA_SM80 = {
    ("bf16", "128x128"): "style_gradient_mma_sm80_bf16_128x128",
    ("bf16", "128x64"): "style_gradient_mma_sm80_bf16_128x64",
    ("fp16", "128x128"): "style_gradient_mma_sm80_fp16_128x128",
    ("fp16", "128x64"): "style_gradient_mma_sm80_fp16_128x64",
    ("tf32", "128x128"): "style_gradient_mma_sm80_tf32_128x128",
    ("tf32", "128x64"): "style_gradient_mma_sm80_tf32_128x64",
    ("3xtf32", "128x128"): "style_gradient_mma_sm80_3xtf32_128x128",
    ("3xtf32", "128x64"): "style_gradient_mma_sm80_3xtf32_128x64",
}
"""By precision and tile, pixels x channels."""

PACK_GRAM_ERROR_MMA_SM80 = {
    "bf16": "pack_gram_error_mma_sm80_bf16",
    "fp16": "pack_gram_error_mma_sm80_fp16",
    "tf32": "pack_gram_error_mma_sm80_tf32",
    "3xtf32": "pack_gram_error_mma_sm80_3xtf32",
}
"""By precision: what packs the matrix that the style gradient multiplies by."""
