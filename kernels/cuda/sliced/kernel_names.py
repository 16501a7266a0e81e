"""What the kernels are called that exist once for each type of features, in full; as in conv3x3/kernel_names.py."""

PROJECT = {"fp32": "project_fp32", "bf16": "project_bf16", "fp16": "project_fp16"}
"""By what features are held in."""

SLICED_GRADIENT = {
    "fp32": "sliced_gradient_fp32",
    "bf16": "sliced_gradient_bf16",
    "fp16": "sliced_gradient_fp16",
}
"""Likewise."""
