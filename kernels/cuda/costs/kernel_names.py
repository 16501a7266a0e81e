"""What the kernels of the content cost are called, each in full; as in conv3x3/kernel_names.py. Those that exist once
are named where they are launched."""

CONTENT_COST = {
    "fp32": "content_cost_fp32",
    "weighted_fp32": "content_cost_weighted_fp32",
    "weighted_fp32_any": "content_cost_weighted_fp32_any",
    "bf16": "content_cost_bf16",
    "fp16": "content_cost_fp16",
}
"""By precision of the features."""

CONTENT_GRADIENT = {
    "fp32": "content_gradient_fp32",
    "weighted_fp32": "content_gradient_weighted_fp32",
    "weighted_fp32_any": "content_gradient_weighted_fp32_any",
    "bf16": "content_gradient_bf16",
    "fp16": "content_gradient_fp16",
}
"""Likewise."""

CONTENT_COST_AND_GRADIENT = {
    "bf16": "content_cost_and_gradient_bf16",
    "fp16": "content_cost_and_gradient_fp16",
}
"""Of both at once, where features have 16 bits."""
