"""The device whose every operation is a launch of our own CUDA kernels: "cuda" on a GPU, "emulator" without one.

Here arguments are checked, so that a kernel may trust its own, and operations become launches: `convolution`, `gram`
and `pointwise` know the grids, `runtimes` does the rest. `kernels.device` has the contracts, `kernels.reference` the
formulas.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import convolution, gram, pointwise
from .convolution import PackedFilters
from .device import Array, DeviceError, Layout, Pooling
from .launch import Launch
from .runtimes import Runtime

FLOAT = np.dtype(np.float32)
COUNT = np.dtype(np.int32)
BYTE = np.dtype(np.uint8)
ALIGNMENT = 16  # bytes, of a float4

Shape = tuple[int, ...]
Wanted = tuple[Array, Shape, np.dtype[Any]]
"""An argument, and the shape and dtype it must have."""


class Gpu:
    """Operations as launches, one after the other on the runtime's stream. `precision` is "fp32".

    on_launch: told of every launch just before it happens, to count or to time. One thread to an instance.

    Every operation raises ValueError for an argument of the wrong shape, dtype, layout or device, and DeviceError where
    a kernel can't be launched.
    """

    precision = "fp32"
    activation_dtype = image_dtype = FLOAT

    def __init__(
        self, runtime: Runtime, precision: str = "auto", *, on_launch: Callable[[Launch], None] | None = None
    ) -> None:
        if precision not in ("auto", "fp32"):
            raise DeviceError(f"the {runtime.name} device has no precision {precision!r}; choose fp32")
        self.name = runtime.name
        self.on_launch = on_launch
        self._runtime = runtime
        self._workspace = runtime.allocate(0)

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> Array:
        return self._runtime.allocate(nbytes)

    def upload(self, values: NDArray[Any], out: Array) -> None:
        self._check("upload", out=(out, values.shape, out.dtype))
        self._runtime.upload(np.ascontiguousarray(values, out.dtype), out)

    def download(self, values: Array) -> NDArray[Any]:
        self._check("download", 1, values=(values, values.shape, values.dtype))
        return self._runtime.download(values)

    def copy(self, values: Array, out: Array) -> None:
        self._check("copy", values=(values, out.shape, out.dtype), out=(out, out.shape, out.dtype))
        self._run(pointwise.copy(values, out))

    def zero(self, out: Array) -> None:
        self._check("zero", out=(out, out.shape, out.dtype))
        self._run(pointwise.zero(out))

    def mask_layout(self, shape: tuple[int, int, int]) -> Layout:
        return convolution.mask_layout(shape)

    def choice_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        return convolution.choice_layout(pooled_shape)

    def unpack_mask(self, mask: Array, channels: int) -> NDArray[np.bool_]:
        bits = np.unpackbits(self.download(mask), axis=2, count=channels, bitorder="little")
        return bits.astype(bool)

    def unpack_choice(self, choice: Array, channels: int) -> NDArray[np.uint8]:
        packed = self.download(choice)
        pairs = packed[..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
        return pairs.reshape(*packed.shape[:2], -1)[..., :channels]

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]]) -> int:
        needs = [pointwise.WORKSPACE_BYTES]
        for height, width, channels_in, channels_out in convolutions:
            needs.append(convolution.workspace_bytes(height, width, channels_in, channels_out))
            needs.append(gram.gram_workspace_bytes(height, width, channels_out))
            needs.append(gram.style_gradient_workspace_bytes(height, width, channels_out))
        return max(needs)

    def bind_workspace(self, workspace: Array) -> None:
        self._check("bind_workspace", workspace=(workspace, (workspace.size,), BYTE))
        self._workspace = workspace

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> PackedFilters:
        packed = convolution.pack_filters(kernel, bias)
        return packed._replace(
            forward=self._uploaded(packed.forward),
            backward=self._uploaded(packed.backward),
            bias=self._uploaded(packed.bias),
        )

    # ---- measuring ----------------------------------------------------------------------------------------------
    def elapsed(self, work: Callable[[], object]) -> float:
        return self._runtime.elapsed(work)

    def roofline(self) -> tuple[float, float] | None:
        return self._runtime.roofline()

    # ---- the network --------------------------------------------------------------------------------------------
    def preprocess(self, image: Array, channels: Sequence[int], scale: Sequence[float],
                   shift: Sequence[float], out: Array) -> None:  # fmt: skip
        shape = _image_shape(image)
        self._check("preprocess", image=(image, shape, FLOAT), out=(out, shape, FLOAT))
        self._run(pointwise.preprocess(image, _permutation(channels), scale, shift, out))

    def preprocess_gradient(self, gradient: Array, channels: Sequence[int], scale: Sequence[float],
                            out: Array) -> None:  # fmt: skip
        shape = _image_shape(gradient)
        self._check("preprocess_gradient", gradient=(gradient, shape, FLOAT), out=(out, shape, FLOAT))
        self._run(pointwise.preprocess_gradient(gradient, _permutation(channels), scale, out))

    def conv3x3_relu(self, x: Array, filters: PackedFilters, *, out: Array | None, mask: Array | None, pooling: Pooling,
                     pooled: Array | None, choice: Array | None) -> None:  # fmt: skip
        height, width = x.shape[:2]
        shape, pooled_shape = ((h, w, filters.channels_out) for h, w in ((height, width), (height // 2, width // 2)))
        self._check(
            "conv3x3_relu",
            x=(x, (height, width, filters.channels_in), FLOAT),
            out=(out, shape, FLOAT),
            mask=(mask, *convolution.mask_layout(shape)),
            pooled=(pooled, pooled_shape, FLOAT),
            choice=(choice, *convolution.choice_layout(pooled_shape)),
        )
        self._run(
            convolution.conv3x3_relu(
                x, filters, out=out, mask=mask, pooling=pooling, pooled=pooled, choice=choice, workspace=self._workspace
            )
        )

    def conv3x3_input_gradient(self, gradient: Array, filters: PackedFilters, *, out: Array, mask: Array | None,
                               accumulate: bool) -> None:  # fmt: skip
        height, width = gradient.shape[:2]
        shape = (height, width, filters.channels_in)
        self._check(
            "conv3x3_input_gradient",
            gradient=(gradient, (height, width, filters.channels_out), FLOAT),
            out=(out, shape, FLOAT),
            mask=(mask, *convolution.mask_layout(shape)),
        )
        self._run(
            convolution.conv3x3_input_gradient(
                gradient, filters, out=out, mask=mask, accumulate=accumulate, workspace=self._workspace
            )
        )

    def pool_input_gradient(self, gradient: Array, *, pooling: Pooling, choice: Array | None, out: Array,
                            mask: Array, accumulate: bool) -> None:  # fmt: skip
        height, width, channels = shape = _shape3(out)
        pooled_shape = (height // 2, width // 2, channels)
        if (choice is not None) != (pooling == "max"):
            given = "without" if choice is None else "with"
            raise ValueError(f"pool_input_gradient: {pooling} pooling {given} choice")
        self._check(
            "pool_input_gradient",
            gradient=(gradient, pooled_shape, FLOAT),
            choice=(choice, *convolution.choice_layout(pooled_shape)),
            out=(out, shape, FLOAT),
            mask=(mask, *convolution.mask_layout(shape)),
        )
        self._run(pointwise.pool_input_gradient(gradient, choice, out, mask, accumulate))

    def relu_gradient(self, gradient: Array, mask: Array) -> None:
        shape = _shape3(gradient)
        self._check("relu_gradient", gradient=(gradient, shape, FLOAT), mask=(mask, *convolution.mask_layout(shape)))
        self._run(pointwise.relu_gradient(gradient, mask))

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Array, out: Array) -> None:
        shape = _shape3(features)
        self._check("gram", features=(features, shape, FLOAT), out=(out, (shape[2], shape[2]), FLOAT))
        self._run(gram.gram(features, out, self._workspace))

    def style_cost(self, gram: Array, target: Array, scale: float, *, cost: Array, difference: Array) -> None:
        shape = (len(gram), len(gram))
        self._check("style_cost", gram=(gram, shape, FLOAT), target=(target, shape, FLOAT),
                    difference=(difference, shape, FLOAT))  # fmt: skip
        self._check_cost("style_cost", cost)
        self._run(pointwise.style_cost(gram, target, scale, cost, difference, self._workspace))

    def style_gradient(self, features: Array, difference: Array, *, out: Array, accumulate: bool) -> None:
        shape = _shape3(features)
        self._check("style_gradient", features=(features, shape, FLOAT), out=(out, shape, FLOAT),
                    difference=(difference, (shape[2], shape[2]), FLOAT))  # fmt: skip
        self._run(gram.style_gradient(features, difference, out=out, accumulate=accumulate, workspace=self._workspace))

    def content_cost(self, features: Array, target: Array, scale: float, *, cost: Array) -> None:
        shape = features.shape
        self._check("content_cost", features=(features, shape, FLOAT), target=(target, shape, FLOAT))
        self._check_cost("content_cost", cost)
        self._run(pointwise.content_cost(features, target, scale, cost, self._workspace))

    def content_gradient(self, features: Array, target: Array, scale: float, *, out: Array, accumulate: bool) -> None:
        shape = features.shape
        self._check("content_gradient", features=(features, shape, FLOAT), target=(target, shape, FLOAT),
                    out=(out, shape, FLOAT))  # fmt: skip
        self._run(pointwise.content_gradient(features, target, scale, out, accumulate))

    def tv_cost(self, image: Array, scale: float, *, cost: Array, gradient: Array) -> None:
        shape = _image_shape(image)
        self._check("tv_cost", image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT))
        self._check_cost("tv_cost", cost)
        self._run(pointwise.tv_cost(image, scale, cost, gradient, self._workspace))

    # ---- pixels -------------------------------------------------------------------------------------------------
    def adam_step(self, image: Array, gradient: Array, first: Array, second: Array, step: Array, *,
                  learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        shape = image.shape
        self._check("adam_step", image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT),
                    first=(first, shape, FLOAT), second=(second, shape, FLOAT), step=(step, (1,), COUNT))  # fmt: skip
        self._run(pointwise.adam_step(image, gradient, first, second, step, learning_rate, beta1, beta2, epsilon))

    def descent_step(self, image: Array, gradient: Array, *, learning_rate: float) -> None:
        shape = image.shape
        self._check("descent_step", image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT))
        self._run(pointwise.descent_step(image, gradient, learning_rate))

    def clamp(self, image: Array) -> None:
        self._check("clamp", image=(image, image.shape, FLOAT))
        self._run(pointwise.clamp(image))

    def resize(self, image: Array, out: Array) -> None:
        shape, shape_out = _image_shape(image), _image_shape(out)
        self._check("resize", image=(image, shape, FLOAT), out=(out, shape_out, FLOAT))
        between = (shape_out[0], shape[1], 3)
        rows = self.allocate(4 * between[0] * between[1] * 3).view(FLOAT).reshape(between)
        self._run(pointwise.resize(image, rows, out))

    # ---- launching ----------------------------------------------------------------------------------------------
    def _run(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            if self.on_launch is not None:
                self.on_launch(launch)
            self._runtime.launch(launch)

    def _uploaded(self, values: NDArray[Any]) -> Array:
        out = self.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
        self._runtime.upload(values, out)
        return out

    def _check(self, operation: str, alignment: int = ALIGNMENT, **arguments: Wanted) -> None:
        """None passes: where it may stand is the contract's business."""
        for name, (array, shape, dtype) in arguments.items():
            if array is None:
                continue
            try:
                address = self._runtime.address(array)
            except ValueError as error:
                raise ValueError(f"{operation}: {name} {error}") from None
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{operation}: {name} has shape {array.shape} and dtype {array.dtype}; it must be {shape}, {dtype}"
                )
            if not array.flags.c_contiguous:
                raise ValueError(f"{operation}: {name} is not C-contiguous")
            if address % alignment:
                raise ValueError(f"{operation}: {name} does not start on a {alignment}-byte boundary")

    def _check_cost(self, operation: str, cost: Array) -> None:
        """The costs are neighbours in one vector, and their sums need scratch memory."""
        self._check(operation, alignment=FLOAT.itemsize, cost=(cost, (1,), FLOAT))
        has, needed = self._workspace.nbytes, pointwise.WORKSPACE_BYTES
        if has < needed:
            raise ValueError(f"{operation}: the workspace has {has} bytes of {needed}")


def _shape3(array: Array) -> tuple[int, int, int]:
    if len(array.shape) != 3:
        raise ValueError(f"activations have shape {array.shape}; it must be (H, W, C)")
    height, width, channels = array.shape
    return height, width, channels


def _image_shape(array: Array) -> tuple[int, int, int]:
    if len(array.shape) != 3 or array.shape[2] != 3:
        raise ValueError(f"an image has shape {array.shape}; it must be (H, W, 3)")
    return _shape3(array)


def _permutation(channels: Sequence[int]) -> Sequence[int]:
    if sorted(channels) != [0, 1, 2]:
        raise ValueError(f"channels are {tuple(channels)}; they must be 0, 1 and 2 in some order")
    return channels
