"""What the kernels that exist once for each type of numbers are called; as in conv3x3/kernel_names.py. Those that exist
only once are named where they are launched."""

MAX_POOL = {
    "fp32_any": "max_pool_fp32_any",
    "fp32": "max_pool_fp32",
    "bf16": "max_pool_bf16",
    "fp16": "max_pool_fp16",
}
"""By precision of the activations; `any` takes any number of channels."""

AVERAGE_POOL = {
    "fp32_any": "average_pool_fp32_any",
    "fp32": "average_pool_fp32",
    "bf16": "average_pool_bf16",
    "fp16": "average_pool_fp16",
}
"""Likewise."""

MAX_POOL_INPUT_GRADIENT = {
    "fp32_any": "max_pool_input_gradient_fp32_any",
    "fp32": "max_pool_input_gradient_fp32",
    "bf16": "max_pool_input_gradient_bf16",
    "fp16": "max_pool_input_gradient_fp16",
}
"""By precision of the gradient; `any` takes any number of channels."""

AVERAGE_POOL_INPUT_GRADIENT = {
    "fp32_any": "average_pool_input_gradient_fp32_any",
    "fp32": "average_pool_input_gradient_fp32",
    "bf16": "average_pool_input_gradient_bf16",
    "fp16": "average_pool_input_gradient_fp16",
}
"""Likewise."""

RELU_GRADIENT = {
    "fp32_any": "relu_gradient_fp32_any",
    "fp32": "relu_gradient_fp32",
    "bf16": "relu_gradient_bf16",
    "fp16": "relu_gradient_fp16",
}
"""Likewise."""

COPY_WINDOW = {16: "copy_window_16", 4: "copy_window_4"}
"""By the bytes of a word."""
