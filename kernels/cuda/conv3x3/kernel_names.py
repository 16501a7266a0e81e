"""What the kernels of the 3x3 convolution are called, each name in full, so that grep finds it here and where it is
defined. tests/kernels/cuda/test_kernel_names.py compares these tables with the compiled sources."""

SIMT = {
    ("relu", "128x128"): "conv3x3_relu_simt_128x128",
    ("relu", "128x64"): "conv3x3_relu_simt_128x64",
    ("relu", "128x32"): "conv3x3_relu_simt_128x32",
    ("relu", "128x64_any"): "conv3x3_relu_simt_128x64_any",
    ("relu", "rgb"): "conv3x3_relu_simt_rgb",
    ("relu", "split_k_sum"): "conv3x3_relu_simt_split_k_sum",
    ("input_gradient", "128x128"): "conv3x3_input_gradient_simt_128x128",
    ("input_gradient", "128x64"): "conv3x3_input_gradient_simt_128x64",
    ("input_gradient", "128x32"): "conv3x3_input_gradient_simt_128x32",
    ("input_gradient", "128x64_any"): "conv3x3_input_gradient_simt_128x64_any",
    ("input_gradient", "rgb"): "conv3x3_input_gradient_simt_rgb",
    ("input_gradient", "split_k_sum"): "conv3x3_input_gradient_simt_split_k_sum",
}
"""By what is computed and the tile, pixels x output channels."""

MMA_SM80 = {
    ("relu", "bf16", "128x128"): "conv3x3_relu_mma_sm80_bf16_128x128",
    ("relu", "bf16", "256x64"): "conv3x3_relu_mma_sm80_bf16_256x64",
    ("relu", "bf16", "128x64"): "conv3x3_relu_mma_sm80_bf16_128x64",
    ("relu", "bf16", "rgb"): "conv3x3_relu_mma_sm80_bf16_rgb",
    ("relu", "bf16", "split_k_sum"): "conv3x3_relu_mma_sm80_bf16_split_k_sum",
    ("relu", "fp16", "128x128"): "conv3x3_relu_mma_sm80_fp16_128x128",
    ("relu", "fp16", "256x64"): "conv3x3_relu_mma_sm80_fp16_256x64",
    ("relu", "fp16", "128x64"): "conv3x3_relu_mma_sm80_fp16_128x64",
    ("relu", "fp16", "rgb"): "conv3x3_relu_mma_sm80_fp16_rgb",
    ("relu", "fp16", "split_k_sum"): "conv3x3_relu_mma_sm80_fp16_split_k_sum",
    ("relu", "tf32", "128x128"): "conv3x3_relu_mma_sm80_tf32_128x128",
    ("relu", "tf32", "256x64"): "conv3x3_relu_mma_sm80_tf32_256x64",
    ("relu", "tf32", "128x64"): "conv3x3_relu_mma_sm80_tf32_128x64",
    ("relu", "tf32", "split_k_sum"): "conv3x3_relu_mma_sm80_fp32_split_k_sum",
    ("relu", "3xtf32", "128x128"): "conv3x3_relu_mma_sm80_3xtf32_128x128",
    ("relu", "3xtf32", "256x64"): "conv3x3_relu_mma_sm80_3xtf32_256x64",
    ("relu", "3xtf32", "128x64"): "conv3x3_relu_mma_sm80_3xtf32_128x64",
    ("relu", "3xtf32", "split_k_sum"): "conv3x3_relu_mma_sm80_fp32_split_k_sum",
    ("input_gradient", "bf16", "128x128"): "conv3x3_input_gradient_mma_sm80_bf16_128x128",
    ("input_gradient", "bf16", "256x64"): "conv3x3_input_gradient_mma_sm80_bf16_256x64",
    ("input_gradient", "bf16", "128x64"): "conv3x3_input_gradient_mma_sm80_bf16_128x64",
    ("input_gradient", "bf16", "rgb"): "conv3x3_input_gradient_mma_sm80_bf16_rgb",
    ("input_gradient", "bf16", "split_k_sum"): "conv3x3_input_gradient_mma_sm80_bf16_split_k_sum",
    ("input_gradient", "fp16", "128x128"): "conv3x3_input_gradient_mma_sm80_fp16_128x128",
    ("input_gradient", "fp16", "256x64"): "conv3x3_input_gradient_mma_sm80_fp16_256x64",
    ("input_gradient", "fp16", "128x64"): "conv3x3_input_gradient_mma_sm80_fp16_128x64",
    ("input_gradient", "fp16", "rgb"): "conv3x3_input_gradient_mma_sm80_fp16_rgb",
    ("input_gradient", "fp16", "split_k_sum"): "conv3x3_input_gradient_mma_sm80_fp16_split_k_sum",
    ("input_gradient", "tf32", "128x128"): "conv3x3_input_gradient_mma_sm80_tf32_128x128",
    ("input_gradient", "tf32", "256x64"): "conv3x3_input_gradient_mma_sm80_tf32_256x64",
    ("input_gradient", "tf32", "128x64"): "conv3x3_input_gradient_mma_sm80_tf32_128x64",
    ("input_gradient", "tf32", "split_k_sum"): "conv3x3_input_gradient_mma_sm80_fp32_split_k_sum",
    ("input_gradient", "3xtf32", "128x128"): "conv3x3_input_gradient_mma_sm80_3xtf32_128x128",
    ("input_gradient", "3xtf32", "256x64"): "conv3x3_input_gradient_mma_sm80_3xtf32_256x64",
    ("input_gradient", "3xtf32", "128x64"): "conv3x3_input_gradient_mma_sm80_3xtf32_128x64",
    ("input_gradient", "3xtf32", "split_k_sum"): "conv3x3_input_gradient_mma_sm80_fp32_split_k_sum",
}
"""By what is computed, precision and tile, pixels x output channels."""

WGMMA_SM90 = {
    ("relu", "bf16", "256x128"): "conv3x3_relu_wgmma_sm90_bf16_256x128",
    ("relu", "bf16", "128x128"): "conv3x3_relu_wgmma_sm90_bf16_128x128",
    ("relu", "bf16", "64x256"): "conv3x3_relu_wgmma_sm90_bf16_64x256",
    ("relu", "bf16", "64x256_resident"): "conv3x3_relu_wgmma_sm90_bf16_64x256_resident",
    ("relu", "bf16", "split_k_sum"): "conv3x3_relu_wgmma_sm90_bf16_split_k_sum",
    ("relu", "fp16", "256x128"): "conv3x3_relu_wgmma_sm90_fp16_256x128",
    ("relu", "fp16", "128x128"): "conv3x3_relu_wgmma_sm90_fp16_128x128",
    ("relu", "fp16", "64x256"): "conv3x3_relu_wgmma_sm90_fp16_64x256",
    ("relu", "fp16", "64x256_resident"): "conv3x3_relu_wgmma_sm90_fp16_64x256_resident",
    ("relu", "fp16", "split_k_sum"): "conv3x3_relu_wgmma_sm90_fp16_split_k_sum",
    ("input_gradient", "bf16", "256x128"): "conv3x3_input_gradient_wgmma_sm90_bf16_256x128",
    ("input_gradient", "bf16", "128x128"): "conv3x3_input_gradient_wgmma_sm90_bf16_128x128",
    ("input_gradient", "bf16", "64x256"): "conv3x3_input_gradient_wgmma_sm90_bf16_64x256",
    ("input_gradient", "bf16", "64x256_resident"): "conv3x3_input_gradient_wgmma_sm90_bf16_64x256_resident",
    ("input_gradient", "bf16", "split_k_sum"): "conv3x3_input_gradient_wgmma_sm90_bf16_split_k_sum",
    ("input_gradient", "fp16", "256x128"): "conv3x3_input_gradient_wgmma_sm90_fp16_256x128",
    ("input_gradient", "fp16", "128x128"): "conv3x3_input_gradient_wgmma_sm90_fp16_128x128",
    ("input_gradient", "fp16", "64x256"): "conv3x3_input_gradient_wgmma_sm90_fp16_64x256",
    ("input_gradient", "fp16", "64x256_resident"): "conv3x3_input_gradient_wgmma_sm90_fp16_64x256_resident",
    ("input_gradient", "fp16", "split_k_sum"): "conv3x3_input_gradient_wgmma_sm90_fp16_split_k_sum",
    ("unpooled_gradient", "bf16", "256x128"): "conv3x3_unpooled_gradient_wgmma_sm90_bf16_256x128",
    ("unpooled_gradient", "bf16", "128x128"): "conv3x3_unpooled_gradient_wgmma_sm90_bf16_128x128",
    ("unpooled_gradient", "bf16", "64x256"): "conv3x3_unpooled_gradient_wgmma_sm90_bf16_64x256",
    ("unpooled_gradient", "bf16", "split_k_sum"): "conv3x3_unpooled_gradient_wgmma_sm90_bf16_split_k_sum",
    ("unpooled_gradient", "fp16", "256x128"): "conv3x3_unpooled_gradient_wgmma_sm90_fp16_256x128",
    ("unpooled_gradient", "fp16", "128x128"): "conv3x3_unpooled_gradient_wgmma_sm90_fp16_128x128",
    ("unpooled_gradient", "fp16", "64x256"): "conv3x3_unpooled_gradient_wgmma_sm90_fp16_64x256",
    ("unpooled_gradient", "fp16", "split_k_sum"): "conv3x3_unpooled_gradient_wgmma_sm90_fp16_split_k_sum",
}
"""Likewise."""

WGMMA_FP32_SM90 = {
    ("relu", "tf32", "128x128"): "conv3x3_relu_wgmma_sm90_tf32_128x128",
    ("relu", "tf32", "256x64"): "conv3x3_relu_wgmma_sm90_tf32_256x64",
    ("relu", "tf32", "split_k_sum"): "conv3x3_relu_mma_sm80_fp32_split_k_sum",
    ("relu", "3xtf32", "128x128"): "conv3x3_relu_wgmma_sm90_3xtf32_128x128",
    ("relu", "3xtf32", "256x64"): "conv3x3_relu_wgmma_sm90_3xtf32_256x64",
    ("relu", "3xtf32", "split_k_sum"): "conv3x3_relu_mma_sm80_fp32_split_k_sum",
    ("input_gradient", "tf32", "128x128"): "conv3x3_input_gradient_wgmma_sm90_tf32_128x128",
    ("input_gradient", "tf32", "256x64"): "conv3x3_input_gradient_wgmma_sm90_tf32_256x64",
    ("input_gradient", "tf32", "split_k_sum"): "conv3x3_input_gradient_mma_sm80_fp32_split_k_sum",
    ("input_gradient", "3xtf32", "128x128"): "conv3x3_input_gradient_wgmma_sm90_3xtf32_128x128",
    ("input_gradient", "3xtf32", "256x64"): "conv3x3_input_gradient_wgmma_sm90_3xtf32_256x64",
    ("input_gradient", "3xtf32", "split_k_sum"): "conv3x3_input_gradient_mma_sm80_fp32_split_k_sum",
}
"""Likewise."""

ROUND_GRAM_ERROR = {"bf16": "round_gram_error_wgmma_sm90_bf16"}
"""By precision: what makes an operand of the input gradient of a style's difference. fp16 would lose small ones."""
