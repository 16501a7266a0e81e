"""Our kernels as functions on arrays of the caller's: convolutions, pools, pixels. `cost_functions` has the others.

    y = conv3x3_relu(x, (kernel, bias))

What holds for all of them:

- Arrays are NumPy's, which are computed on the cpu device, or lie on an NVIDIA GPU (CuPy, PyTorch, JAX, Numba,
  anything with DLPack or `__cuda_array_interface__`), where our CUDA kernels compute. Results are of the first array's
  kind. `device` "reference" or "emulator" has arrays in host memory computed by the oracle or by the same CUDA kernels.
- Activations are (H, W, C), one image, contiguous: PyTorch's channels_last memory, permuted. They and the gradients
  with respect to them are float32, or on a GPU and the emulator float16 or bfloat16 (`ml_dtypes`), with C a multiple of
  eight; images of three channels, Grams, costs and weights of pixels are float32 always. "reference" has float64 too.
- `out` is written and returned, None makes a new array; `accumulate` adds to `out`. Nothing written may overlap
  anything read, except where it is said.
- On a GPU nothing waits for the host: our stream waits for the caller's current one, which then waits for ours.
  `stream` names another: a stream of any library, or its number, where 1 is the legacy default stream and 2 the
  per-thread one. JAX has no current stream; there the call returns when the result is there, unless `stream` is given.
- A thread keeps a device and a workspace per GPU and precision, until it ends or calls `release`.

Errors: ArrayError, a ValueError, for what an array is; DeviceError for a device or precision that is not to be had;
OutOfMemoryError, a DeviceError, where the GPU has no memory left for a workspace.
"""

from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from .calls import Call
from .device import Pooling
from .errors import ArrayError
from .interop import library_of

A = TypeVar("A")
"""An array of the caller's kind."""
IMAGE_CHANNELS = 3


class PackedFilters:
    """The weights of one convolution, from `pack_filters`: packed for a device where that is first needed.

    precision: what convolutions with them are computed in; None goes by their input. It may be used by any thread.
    """

    def __init__(self, kernel: NDArray[np.floating[Any]], bias: NDArray[np.floating[Any]],
                 precision: str | None = None) -> None:  # fmt: skip
        self.kernel, self.bias, self.precision = kernel, bias, precision
        self.channels_in, self.channels_out = kernel.shape[2:]

    def __repr__(self) -> str:
        precision = f" in {self.precision}" if self.precision else ""
        return f"<PackedFilters of {self.channels_in} to {self.channels_out} channels{precision}>"


def pack_filters(kernel: Any, bias: Any | None = None, *, precision: str | None = None) -> PackedFilters:
    """The weights of a 3x3 convolution, to be used more than once.

    kernel (3, 3, C_in, C_out) and bias (C_out,), None for zeros, are arrays of any library and are copied. PyTorch's
    (C_out, C_in, 3, 3) is `kernel.permute(2, 3, 1, 0)`. precision: "fp32", "tf32" or "3xtf32" for float32 activations,
    "bf16", "fp16"; None goes by the dtype of what is convolved. Raises ArrayError.
    """
    weights = _host_copy("kernel", kernel)
    if weights.ndim != 4 or weights.shape[:2] != (3, 3) or 0 in weights.shape:
        hint = "; PyTorch's is kernel.permute(2, 3, 1, 0)" if weights.shape[2:] == (3, 3) else ""
        raise ArrayError(f"pack_filters: kernel has shape {weights.shape}; it must be (3, 3, C_in, C_out){hint}")
    channels = weights.shape[3]
    offsets = np.zeros(channels, weights.dtype) if bias is None else _host_copy("bias", bias)
    if offsets.shape != (channels,):
        raise ArrayError(f"pack_filters: bias has shape {offsets.shape}; it must be ({channels},)")
    return PackedFilters(weights, offsets, precision)


@overload
def conv3x3_relu(x: A, filters: Any, *, out: A | None = None, relu_mask: None = None, pool: Pooling | None = None,
                 pool_argmax: None = None, stream: Any = None, device: str | None = None) -> A: ...  # fmt: skip
@overload
def conv3x3_relu(x: A, filters: Any, *, out: A | None = None, relu_mask: A | bool | None = None,
                 pool: Pooling | None = None, pool_argmax: A | bool | None = None, stream: Any = None,
                 device: str | None = None) -> Any: ...  # fmt: skip
def conv3x3_relu(x: Any, filters: Any, *, out: Any | None = None, relu_mask: Any | None = None,
                 pool: Pooling | None = None, pool_argmax: Any | None = None, stream: Any = None,
                 device: str | None = None) -> Any:  # fmt: skip
    """relu(conv(x, kernel) + bias) with zero padding of 1, and, if `pool` says so, its 2x2 pool, in one kernel.

        y[i, j, k] = max(0, b[k] + sum_{r,s,c} x[i+r-1, j+s-1, c] w[r, s, c, k])

    x (H, W, C_in); of three channels it is an image, float32. filters: a kernel (3, 3, C_in, C_out), a pair (kernel,
    bias), or what `pack_filters` made of them, which is faster. pool: None, "max" or "average".
    relu_mask, pool_argmax: True for what `relu_gradient` and `pool_input_gradient` need to know; or arrays that an
    earlier call made so, to be written to. Their layout belongs to the device.

    Returns the activations (H, W, C_out), pooled (H // 2, W // 2, C_out), of x's dtype, or for an image of the filters'
    precision. Where relu_mask or pool_argmax is asked for, a tuple of these: (y, relu_mask, pool_argmax).
    """
    packed = _as_filters(filters)
    call = _call_of("conv3x3_relu", x, packed, stream, device)
    values = call.input("x", x, ("H", "W", packed.channels_in), _before(packed, call))
    height, width = values.shape[:2]
    shape, pooled = (height, width, packed.channels_out), (height // 2, width // 2, packed.channels_out)
    _check_pooling("conv3x3_relu", pool, pool_argmax, pooled if pool else shape)
    y = call.output("out", out, pooled if pool else shape, call.activations)
    mask_shape, mask_dtype = call.device.relu_mask_layout(shape)
    argmax_shape, argmax_dtype = call.device.pool_argmax_layout(pooled)
    mask = call.wanted("relu_mask", relu_mask, mask_shape, mask_dtype.name)
    argmax = call.wanted("pool_argmax", pool_argmax, argmax_shape, argmax_dtype.name)
    with call.running([(height, width, packed.channels_in, packed.channels_out)]) as on:
        on.conv3x3_relu(
            values, call.filters(packed, packed.kernel, packed.bias),
            out=None if pool else y.memory, relu_mask=mask and mask.memory, pooling=pool or "max",
            pooled=y.memory if pool else None, pool_argmax=argmax and argmax.memory,
        )  # fmt: skip
    return call.results([y, mask, argmax])


def conv3x3_input_gradient(gradient: A, filters: Any, *, relu_mask: A | None = None, out: A | None = None,
                           accumulate: bool = False, stream: Any = None,
                           device: str | None = None) -> A:  # fmt: skip
    """The gradient with respect to a convolution's input, from that with respect to its output before the ReLU.

        dx[i, j, c] = sum_{r,s,k} dz[i-r+1, j-s+1, k] w[r, s, c, k],  then times relu_mask

    gradient (H, W, C_out), to be masked by `relu_gradient` first; filters as for `conv3x3_relu`. relu_mask: that of the
    layer before, whose output was this convolution's input: what did not pass its ReLU gets no gradient.
    Returns (H, W, C_in), of gradient's dtype; of three channels float32.
    """
    packed = _as_filters(filters)
    call = _call_of("conv3x3_input_gradient", gradient, packed, stream, device)
    above = call.input("gradient", gradient, ("H", "W", packed.channels_out), call.activations)
    height, width = above.shape[:2]
    shape = (height, width, packed.channels_in)
    mask_shape, mask_dtype = call.device.relu_mask_layout(shape)
    mask = call.optional("relu_mask", relu_mask, mask_shape, mask_dtype.name)
    below = call.output("out", _added_to(out, accumulate, "conv3x3_input_gradient"), shape, _before(packed, call))
    with call.running([(height, width, packed.channels_in, packed.channels_out)]) as on:
        on.conv3x3_input_gradient(
            above,
            call.filters(packed, packed.kernel, packed.bias),
            out=below.memory,
            relu_mask=mask,
            accumulate=accumulate,
        )
    return call.result(below)  # type: ignore[no-any-return]


@overload
def pool2x2(x: A, *, pool: Pooling = "max", pool_argmax: None = None, out: A | None = None, stream: Any = None,
            device: str | None = None) -> A: ...  # fmt: skip
@overload
def pool2x2(x: A, *, pool: Pooling = "max", pool_argmax: A | bool | None = None, out: A | None = None,
            stream: Any = None, device: str | None = None) -> Any: ...  # fmt: skip
def pool2x2(x: Any, *, pool: Pooling = "max", pool_argmax: Any | None = None, out: Any | None = None,
            stream: Any = None, device: str | None = None) -> Any:  # fmt: skip
    """The maximum or the average of each 2x2 square of x (H, W, C), whose odd last row or column is no part of one.

    `conv3x3_relu` has it on the way. pool_argmax: True for what `pool_input_gradient` needs to know of max pooling, or
    an array that an earlier call made so. Returns (H // 2, W // 2, C), of x's dtype; where pool_argmax is asked for,
    the pair of these.
    """
    call = Call("pool2x2", x, stream=stream, device=device)
    values = call.input("x", x, ("H", "W", "C"), call.activations)
    height, width, channels = values.shape
    shape = (height // 2, width // 2, channels)
    if pool is None:
        raise ArrayError("pool2x2: pool is None; choose max or average")
    _check_pooling("pool2x2", pool, pool_argmax, shape)
    pooled = call.output("out", out, shape, call.activations)
    argmax_shape, argmax_dtype = call.device.pool_argmax_layout(shape)
    argmax = call.wanted("pool_argmax", pool_argmax, argmax_shape, argmax_dtype.name)
    with call.running() as on:
        on.pool2x2(values, pooling=pool, out=pooled.memory, pool_argmax=argmax and argmax.memory)
    return call.results([pooled, argmax])


def pool_input_gradient(gradient: A, relu_mask: A, *, pool: Pooling = "max", pool_argmax: A | None = None,
                        out: A | None = None, accumulate: bool = False, stream: Any = None,
                        device: str | None = None) -> A:  # fmt: skip
    """The gradient before a ReLU and its 2x2 pool, from that with respect to the pooled output.

    gradient (H // 2, W // 2, C); relu_mask and, of max pooling, pool_argmax are what `conv3x3_relu` made. A pooled
    gradient goes to the pixel that was the maximum, or a quarter of it to each of the four, where it passed the ReLU.
    Returns (H, W, C), of gradient's dtype.
    """
    call = Call("pool_input_gradient", gradient, stream=stream, device=device)
    above = call.input("gradient", gradient, ("H // 2", "W // 2", "C"), call.activations)
    channels = above.shape[2]
    (*_, packed_channels), mask_dtype = call.device.relu_mask_layout((1, 1, channels))
    mask = call.input("relu_mask", relu_mask, ("H", "W", packed_channels), mask_dtype.name)
    height, width = mask.shape[:2]
    if above.shape[:2] != (height // 2, width // 2):
        raise ArrayError(
            f"pool_input_gradient: gradient has shape {above.shape}, the pool of {height} x {width} pixels "
            f"{(height // 2, width // 2, channels)}"
        )
    _check_pooling("pool_input_gradient", pool, pool_argmax, above.shape)
    if pool == "max" and pool_argmax is None:
        raise ArrayError("pool_input_gradient: max pooling needs the pool_argmax that conv3x3_relu made")
    argmax_shape, argmax_dtype = call.device.pool_argmax_layout(above.shape)
    argmax = call.optional("pool_argmax", pool_argmax, argmax_shape, argmax_dtype.name)
    shape = (height, width, channels)
    below = call.output("out", _added_to(out, accumulate, "pool_input_gradient"), shape, call.activations)
    with call.running() as on:
        on.pool_input_gradient(
            above, pooling=pool, pool_argmax=argmax, out=below.memory, relu_mask=mask, accumulate=accumulate
        )
    return call.result(below)  # type: ignore[no-any-return]


def relu_gradient(gradient: A, relu_mask: A, *, out: A | None = None, stream: Any = None,
                  device: str | None = None) -> A:  # fmt: skip
    """gradient (H, W, C) where the ReLU let its input through, else 0. `out` may be `gradient`."""
    call = Call("relu_gradient", gradient, stream=stream, device=device)
    in_place = out is gradient
    if in_place:
        given = below = call.output("out", out, _shape_of("relu_gradient", gradient), call.activations)
        values = given.memory
    else:
        values = call.input("gradient", gradient, ("H", "W", "C"), call.activations)
        below = call.output("out", out, values.shape, call.activations)
    mask_shape, mask_dtype = call.device.relu_mask_layout(values.shape)
    mask = call.input("relu_mask", relu_mask, mask_shape, mask_dtype.name)
    with call.running() as on:
        if not in_place:
            on.copy(values, below.memory)
        on.relu_gradient(below.memory, mask)
    return call.result(below)  # type: ignore[no-any-return]


def unpack_relu_mask(relu_mask: Any, channels: int, *, stream: Any = None,
                     device: str | None = None) -> NDArray[np.bool_]:  # fmt: skip
    """A relu_mask of so many channels as (H, W, channels) booleans in host memory, to look at."""
    call = Call("unpack_relu_mask", relu_mask, precision="fp32", stream=stream, device=device)
    (*_, packed_channels), dtype = call.device.relu_mask_layout((1, 1, channels))
    mask = call.input("relu_mask", relu_mask, ("H", "W", packed_channels), dtype.name)
    with call.running() as on:
        return on.unpack_relu_mask(mask, channels)


def adam_step(image: A, gradient: A, first: A, second: A, step: A, *, learning_rate: float, beta1: float = 0.9,
              beta2: float = 0.999, epsilon: float = 1e-8, stream: Any = None,
              device: str | None = None) -> None:  # fmt: skip
    """One step of Adam (Kingma & Ba 2015) in place, pixels clamped to [0, 1].

        t += 1;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  x = x - lr m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps)

    image, gradient, first (m) and second (v): (H, W, C), float32; step (t): (1,), int32. All but gradient are written,
    so they can't be JAX's; begin with zeros.
    """
    call = Call("adam_step", image, stream=stream, device=device)
    shape = _shape_of("adam_step", image)
    pixels = call.output("image", image, shape, call.images).memory
    m = call.output("first", first, shape, call.images).memory
    v = call.output("second", second, shape, call.images).memory
    count = call.output("step", step, (1,), "int32").memory
    direction = call.input("gradient", gradient, shape, call.images)
    with call.running() as on:
        on.adam_step(
            pixels, direction, m, v, count, learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon
        )


def resize(image: A, height: int, width: int, *, out: A | None = None, stream: Any = None,
           device: str | None = None) -> A:  # fmt: skip
    """An image (H, W, 3), float32, as (height, width, 3): separable Lanczos-3 with the centers of pixels aligned,
    antialiased when shrinking. May overshoot the range of its input."""
    call = Call("resize", image, stream=stream, device=device)
    pixels = call.input("image", image, ("H", "W", IMAGE_CHANNELS), call.images)
    if height < 1 or width < 1:
        raise ArrayError(f"resize: an image of {height} x {width} pixels; it must have one at least")
    resized = call.output("out", out, (height, width, IMAGE_CHANNELS), call.images)
    with call.running() as on:
        on.resize(pixels, resized.memory)
    return call.result(resized)  # type: ignore[no-any-return]


def _as_filters(filters: Any) -> PackedFilters:
    if isinstance(filters, PackedFilters):
        return filters
    return pack_filters(*filters) if isinstance(filters, tuple) else pack_filters(filters)


def _call_of(operation: str, first: Any, packed: PackedFilters, stream: Any, device: str | None) -> Call:
    return Call(operation, first, precision=packed.precision, stream=stream, device=device)


def _before(packed: PackedFilters, call: Call) -> str:
    """The dtype of a convolution's input."""
    return call.images if packed.channels_in == IMAGE_CHANNELS else call.activations


def _check_pooling(operation: str, pool: str | None, argmax: Any, shape: tuple[int, ...]) -> None:
    if pool not in (None, "max", "average"):
        raise ArrayError(f"{operation}: pool is {pool!r}; choose max, average or None")
    if argmax is not None and argmax is not False and pool != "max":
        raise ArrayError(f"{operation}: pool_argmax belongs to max pooling, not to {pool}")
    if 0 in shape:
        raise ArrayError(f"{operation}: a pool needs 2 x 2 pixels at least")


def _added_to(out: A | None, accumulate: bool, operation: str) -> A | None:
    if accumulate and out is None:
        raise ArrayError(f"{operation}: accumulate adds to out, which is not given")
    return out


def _shape_of(operation: str, array: Any) -> tuple[int, int, int]:
    shape: tuple[int, ...] = tuple(array.shape)
    if len(shape) != 3:
        raise ArrayError(f"{operation}: an array of shape {shape}; it must be (H, W, C)")
    height, width, channels = shape
    return height, width, channels


def _host_copy(name: str, array: Any) -> NDArray[np.floating[Any]]:
    try:
        values = library_of(array).copied(array)
    except ArrayError as error:
        raise ArrayError(f"pack_filters: {name} {error}") from None
    if values.dtype.kind != "f":
        raise ArrayError(f"pack_filters: {name} is {values.dtype}; it must be of floats")
    return values
