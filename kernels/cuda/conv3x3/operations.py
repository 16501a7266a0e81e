"""The network's operations on the CUDA device, convolutions and what lies between them: arguments checked, then
launched."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ...device import Array, Pooling, StylePlace
from ..arguments import FLOAT, activations_shape
from ..kernel_sets import Filters, SimtKernels
from ..runtime.launch import Launch
from ..runtime.protocol import Runtime
from .launch_simt import IMAGE_CHANNELS, pool_argmax_layout, relu_mask_layout


class ConvolutionOperations:
    """What `CudaDevice` has of them, and how all its operations are launched."""

    activation_dtype: np.dtype[Any]
    loss_scale: float
    _kernels: SimtKernels
    _workspace: Array
    _check: Callable[..., None]
    _check_channels: Callable[[str, int], None]
    _as_few: Callable[[Sequence[Launch]], Iterable[Launch]]
    _runtime: Runtime
    on_launch: Callable[[Launch], object] | None

    def _run(self, launches: Sequence[Launch]) -> None:
        for launch in self._as_few(launches):
            if self.on_launch is not None:
                self.on_launch(launch)
            self._runtime.launch(launch)

    def conv3x3_relu(self, x: Array, filters: Filters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                     pooled: Array | None, pool_argmax: Array | None) -> None:  # fmt: skip
        height, width = x.shape[:2]
        shape, pooled_shape = ((h, w, filters.channels_out) for h, w in ((height, width), (height // 2, width // 2)))
        self._check(
            "conv3x3_relu",
            x=(x, (height, width, filters.channels_in), self._before(filters)),
            out=(out, shape, self.activation_dtype),
            relu_mask=(relu_mask, *relu_mask_layout(shape)),
            pooled=(pooled, pooled_shape, self.activation_dtype),
            pool_argmax=(pool_argmax, *pool_argmax_layout(pooled_shape)),
        )
        self._run(
            self._kernels.conv3x3_relu(x, filters, out=out, relu_mask=relu_mask, pooling=pooling, pooled=pooled,
                                       pool_argmax=pool_argmax, workspace=self._workspace)
        )  # fmt: skip

    def carries_style(self, filters: Filters) -> StylePlace | None:
        return self._kernels.carries_style(filters)

    def conv3x3_input_gradient(self, gradient: Array, filters: Filters, *, out: Array, relu_mask: Array | None,
                               accumulate: bool, features: Array | None = None,
                               gram_error: Array | None = None) -> None:  # fmt: skip
        height, width, channels = shape = (*gradient.shape[:2], filters.channels_in)
        self._check(
            "conv3x3_input_gradient",
            gradient=(gradient, (height, width, filters.channels_out), self.activation_dtype),
            out=(out, shape, self._before(filters)),
            relu_mask=(relu_mask, *relu_mask_layout(shape)),
            features=(features, shape, self.activation_dtype),
            gram_error=(gram_error, (channels, channels), FLOAT),
        )
        if (features is None) != (gram_error is None):
            raise ValueError("conv3x3_input_gradient: features and a gram_error belong together")
        self._run(self._kernels.input_gradient(gradient, filters, features, gram_error, out=out, relu_mask=relu_mask,
                                               accumulate=accumulate, workspace=self._workspace,
                                               loss_scale=self.loss_scale))  # fmt: skip

    def unpools(self, filters: Filters) -> bool:
        return self._kernels.unpools(filters)

    def conv3x3_unpooled_gradient(self, gradient: Array, filters: Filters, *, out: Array, relu_mask: Array,
                                  pool_argmax: Array) -> None:  # fmt: skip
        if not self._kernels.unpools(filters):
            raise ValueError("conv3x3_unpooled_gradient: not through these filters; ask unpools")
        height, width, channels = shape = (*out.shape[:2], filters.channels_in)
        pooled = (height // 2, width // 2)
        self._check(
            "conv3x3_unpooled_gradient",
            gradient=(gradient, (*pooled, filters.channels_out), self.activation_dtype),
            out=(out, shape, self.activation_dtype),
            relu_mask=(relu_mask, *relu_mask_layout(shape)),
            pool_argmax=(pool_argmax, *pool_argmax_layout((*pooled, channels))),
        )
        self._run(self._kernels.unpooled_gradient(gradient, filters, out=out, relu_mask=relu_mask,
                                                  pool_argmax=pool_argmax, workspace=self._workspace))  # fmt: skip

    def pool2x2(self, x: Array, *, pooling: Pooling, out: Array, pool_argmax: Array | None) -> None:
        height, width, channels = shape = activations_shape(x)
        pooled_shape = (height // 2, width // 2, channels)
        self._check("pool2x2", x=(x, shape, self.activation_dtype), out=(out, pooled_shape, self.activation_dtype),
                    pool_argmax=(pool_argmax, *pool_argmax_layout(pooled_shape)))  # fmt: skip
        self._check_channels("pool2x2", channels)
        self._run(self._kernels.pool2x2(x, out, pool_argmax, pooling))

    def pool_input_gradient(self, gradient: Array, *, pooling: Pooling, pool_argmax: Array | None, out: Array,
                            relu_mask: Array, accumulate: bool) -> None:  # fmt: skip
        height, width, channels = shape = activations_shape(out)
        pooled_shape = (height // 2, width // 2, channels)
        if (pool_argmax is not None) != (pooling == "max"):
            given = "without" if pool_argmax is None else "with"
            raise ValueError(f"pool_input_gradient: {pooling} pooling {given} pool_argmax")
        self._check(
            "pool_input_gradient",
            gradient=(gradient, pooled_shape, self.activation_dtype),
            pool_argmax=(pool_argmax, *pool_argmax_layout(pooled_shape)),
            out=(out, shape, self.activation_dtype),
            relu_mask=(relu_mask, *relu_mask_layout(shape)),
        )
        self._check_channels("pool_input_gradient", channels)
        self._run(self._kernels.pool_input_gradient(gradient, pool_argmax, out, relu_mask, accumulate))

    def relu_gradient(self, gradient: Array, relu_mask: Array) -> None:
        shape = activations_shape(gradient)
        self._check("relu_gradient", gradient=(gradient, shape, self.activation_dtype),
                    relu_mask=(relu_mask, *relu_mask_layout(shape)))  # fmt: skip
        self._check_channels("relu_gradient", shape[2])
        self._run(self._kernels.relu_gradient(gradient, relu_mask))

    def _before(self, filters: Filters) -> np.dtype[Any]:
        """What a convolution's input is held in, and the gradient with respect to it."""
        return FLOAT if filters.channels_in == IMAGE_CHANNELS else self.activation_dtype
