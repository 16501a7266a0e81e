"""The device whose every operation is a launch of our own CUDA kernels: "cuda" on a GPU, "emulator" without one.

Here arguments are checked, so that a kernel may trust its own, and operations become launches: `convolution`, `gram`,
`wasserstein` and `pointwise` know the grids, `runtimes` does the rest. `kernels.device` has the contracts,
`kernels.reference` the formulas.

In bf16 and fp16 activations and the gradients within the network have 16 bits. Everything else is float32: images and
what is one of the network's two ends, Grams, means, costs, what they send back, and every sum.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..device import MOST_VECTORS, W2_SCRATCH, Array, Layout, Pooling
from ..errors import DeviceError
from . import self_test
from .conv3x3 import launch_mma_sm80 as tensor_convolution
from .conv3x3 import launch_simt as convolution
from .conv3x3 import launch_wgmma_sm90 as hopper
from .conv3x3.launch_mma_sm80 import CHANNELS_MULTIPLE
from .conv3x3.launch_simt import IMAGE_CHANNELS
from .elementwise import launch as pointwise
from .gram import launch_mma_sm80 as tensor_gram
from .gram import launch_simt as gram
from .gram import launch_wgmma_sm90 as wgmma_gram
from .runtime import tensor_map
from .runtime.launch import Launch
from .runtime.protocol import Runtime
from .storage import MEMORY, rounded, widened
from .wasserstein import launch as wasserstein

FLOAT = np.dtype(np.float32)
COUNT = np.dtype(np.int32)
BYTE = np.dtype(np.uint8)
ALIGNMENT = 16  # bytes, of a float4

PRECISIONS = ("fp32", "tf32", "3xtf32", "bf16", "fp16")
LEAST_CAPABILITY = {"fp16": 75, "bf16": 80, "tf32": 80, "3xtf32": 80}
IN_16_BITS: tuple[tensor_map.Element, ...] = ("bf16", "fp16")

GRADIENT_SCALE = 2.0**16
"""Of fp16, whose normal numbers reach from 2^-14 to 2^16. With the weights that are chosen where none are given,
VGG-19's filters and mini's have gradients of at most 2^-8 at 64 px and 2^-12 at 256 px, and at 256 px a root mean
square of 2^-29 where the content enters, of 2^-18 where a style does. They fall with the pixel count."""

Filters = tensor_convolution.Filters | hopper.PackedFilters
_log = logging.getLogger("nstgpu")

Shape = tuple[int, ...]
Wanted = tuple[Array, Shape, np.dtype[Any]]
"""An argument, and the shape and dtype it must have."""


class Gpu:
    """Operations as launches, one after the other on the runtime's stream.

    precision: "fp32", or the convolutions on tensor cores: "tf32" takes 11 bits of every factor, "3xtf32" all 24;
    "bf16" and "fp16" also keep activations in 16 bits, of which 8 and 11 are significant. "auto" is bf16 on a GPU whose
    tensor cores know it, else fp32. The runtime must have been made for the same.
    wgmma: whether convolutions and unweighted Grams in 16 bits go to the kernels for compute capability 9.0 where they
    serve; by default they do on a GPU. They are tested first, and where they compute something else, they are not used
    and a warning says so.
    on_launch: told of every launch just before it happens, to count or to time. One thread to an instance.

    Every operation raises ValueError for an argument of the wrong shape, dtype, layout or device, and DeviceError where
    a kernel can't be launched. In fp16 what is beyond its range becomes infinite, and so do the costs or the gradient's
    norm that come of it.
    """

    image_dtype = FLOAT

    def __init__(
        self,
        runtime: Runtime,
        precision: str = "fp32",
        *,
        wgmma: bool | None = None,
        on_launch: Callable[[Launch], None] | None = None,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            known = f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
            raise DeviceError(f"the {runtime.name} device has no precision {precision!r}; choose {known}")
        capability = runtime.spec.capability
        self.precision = _chosen(runtime) if precision == "auto" else precision
        if capability < LEAST_CAPABILITY.get(self.precision, 0):
            raise DeviceError(f"this GPU's tensor cores know no {self.precision}; choose fp32")
        self.name = runtime.name
        self.on_launch = on_launch
        self.activation_dtype = MEMORY.get(self.precision, FLOAT)
        self.gradient_scale = GRADIENT_SCALE if self.precision == "fp16" else 1.0
        """How many times larger than they are gradients are held within the network: what `style_gradient` and
        `content_gradient` write, up to what `preprocess_gradient` reads. A power of two, so that nothing is rounded."""
        self._element = next((element for element in IN_16_BITS if element == self.precision), None)
        self._on_tensor_cores = self.precision != "fp32"
        self._runtime = runtime
        self._workspace = runtime.allocate(0)
        wanted = runtime.name == "cuda" if wgmma is None else wgmma
        self._hopper = _hopper_target(runtime, self._element) if self._element and wanted and capability == 90 else None

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> Array:
        return self._runtime.allocate(nbytes)

    def free_bytes(self) -> int | None:
        return self._runtime.free_bytes()

    def upload(self, values: NDArray[Any], out: Array) -> None:
        self._check("upload", 1, out=(out, values.shape, out.dtype))
        if out.dtype == MEMORY["bf16"]:
            values = rounded(values, "bf16")
        self._runtime.upload(np.ascontiguousarray(values, out.dtype), out)

    def download(self, values: Array) -> NDArray[Any]:
        """Activations in 16 bits come as float32."""
        self._check("download", 1, values=(values, values.shape, values.dtype))
        host = self._runtime.download(values)
        return next((widened(host, element) for element in IN_16_BITS if host.dtype == MEMORY[element]), host)

    def copy(self, values: Array, out: Array) -> None:
        """Of windows too, whose rows lie together but not side by side."""
        if values.shape == out.shape and not (values.flags.c_contiguous and out.flags.c_contiguous):
            shape, ends = out.shape[1:], (values, out)
            self._check("copy", FLOAT.itemsize, values=(values[0], shape, out.dtype), out=(out[0], shape, out.dtype))
            steps = [*(self._runtime.address(end) for end in ends), *(end.strides[0] for end in ends), out[0].nbytes]
            if any(step % FLOAT.itemsize for step in steps):
                raise ValueError(f"copy: rows of {out[0].nbytes} bytes do not begin and end on 4-byte boundaries")
            self._run(pointwise.copy_window(values, out, all(step % ALIGNMENT == 0 for step in steps)))
            return
        words = out.nbytes % 4 == 0
        self._check("copy", 4 if words else ALIGNMENT, values=(values, out.shape, out.dtype),
                    out=(out, out.shape, out.dtype))  # fmt: skip
        aligned = all(self._runtime.address(array) % ALIGNMENT == 0 for array in (values, out))
        self._run(pointwise.copy(values, out, aligned))

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
            sizes, shape = (height, width, channels_in, channels_out), (height, width, channels_out)
            needs.append(gram.mean_workspace_bytes(*shape))
            if self._hopper and hopper.serves(channels_in, channels_out):
                needs.append(hopper.workspace_bytes(*sizes))
            elif self._on_tensor_cores:
                needs.append(tensor_convolution.workspace_bytes(*sizes, self.precision, self._runtime.spec))
            else:
                needs.append(convolution.workspace_bytes(*sizes))
            if self._multiplies_in_tensor_cores(channels_out):
                needs.append(tensor_gram.gram_workspace_bytes(*shape, self.precision, self._runtime.spec))
                needs.append(tensor_gram.style_gradient_workspace_bytes(channels_out, self.precision))
                if self._hopper and wgmma_gram.serves(channels_out):
                    needs.append(wgmma_gram.gram_workspace_bytes(*shape))
            else:
                needs.append(gram.gram_workspace_bytes(*shape))
                needs.append(gram.style_gradient_workspace_bytes(*shape))
        return max(needs)

    def bind_workspace(self, workspace: Array) -> None:
        self._check("bind_workspace", workspace=(workspace, (workspace.size,), BYTE))
        self._workspace = workspace

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        """Raises DeviceError for channels that a precision of 16 bits can't take."""
        channels_in, channels_out = kernel.shape[2:]
        packed: Filters
        if self._element and self._hopper and hopper.serves(channels_in, channels_out):
            packed = hopper.pack_filters(kernel, bias, self._element)
        elif self._on_tensor_cores:
            try:
                packed = tensor_convolution.pack_filters(kernel, bias, self.precision)
            except ValueError as problem:
                raise DeviceError(str(problem)) from None
        else:
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
        return self._runtime.roofline(self.precision)

    # ---- the network --------------------------------------------------------------------------------------------
    def preprocess(self, image: Array, channels: Sequence[int], scale: Sequence[float],
                   shift: Sequence[float], out: Array) -> None:  # fmt: skip
        shape = _image_shape(image)
        self._check("preprocess", FLOAT.itemsize, image=(image, shape, FLOAT), out=(out, shape, FLOAT))
        self._run(pointwise.preprocess(image, _permutation(channels), scale, shift, out))

    def preprocess_gradient(self, gradient: Array, channels: Sequence[int], scale: Sequence[float],
                            out: Array) -> None:  # fmt: skip
        shape = _image_shape(gradient)
        self._check("preprocess_gradient", FLOAT.itemsize, gradient=(gradient, shape, FLOAT), out=(out, shape, FLOAT))
        scale = [factor / self.gradient_scale for factor in scale]
        self._run(pointwise.preprocess_gradient(gradient, _permutation(channels), scale, out))

    def conv3x3_relu(self, x: Array, filters: Filters, *, out: Array | None, mask: Array | None, pooling: Pooling,
                     pooled: Array | None, choice: Array | None) -> None:  # fmt: skip
        height, width = x.shape[:2]
        shape, pooled_shape = ((h, w, filters.channels_out) for h, w in ((height, width), (height // 2, width // 2)))
        self._check(
            "conv3x3_relu",
            x=(x, (height, width, filters.channels_in), self._before(filters)),
            out=(out, shape, self.activation_dtype),
            mask=(mask, *convolution.mask_layout(shape)),
            pooled=(pooled, pooled_shape, self.activation_dtype),
            choice=(choice, *convolution.choice_layout(pooled_shape)),
        )
        if isinstance(filters, hopper.PackedFilters):
            launches = hopper.conv3x3_relu(
                x, filters, out=out, mask=mask, pooling=pooling, pooled=pooled, choice=choice,
                workspace=self._workspace, target=self._wgmma(),
            )  # fmt: skip
        else:  # filters that no tensor core can take are packed for, and go to, the plain kernels
            launches = tensor_convolution.conv3x3_relu(
                x, filters, self._runtime.spec, out=out, mask=mask, pooling=pooling, pooled=pooled, choice=choice,
                workspace=self._workspace,
            )  # fmt: skip
        self._run(launches)

    def conv3x3_input_gradient(self, gradient: Array, filters: Filters, *, out: Array, mask: Array | None,
                               accumulate: bool) -> None:  # fmt: skip
        height, width = gradient.shape[:2]
        shape = (height, width, filters.channels_in)
        self._check(
            "conv3x3_input_gradient",
            gradient=(gradient, (height, width, filters.channels_out), self.activation_dtype),
            out=(out, shape, self._before(filters)),
            mask=(mask, *convolution.mask_layout(shape)),
        )
        if isinstance(filters, hopper.PackedFilters):
            launches = hopper.conv3x3_input_gradient(
                gradient, filters, out=out, mask=mask, accumulate=accumulate, workspace=self._workspace,
                target=self._wgmma(),
            )  # fmt: skip
        else:
            launches = tensor_convolution.conv3x3_input_gradient(
                gradient, filters, self._runtime.spec, out=out, mask=mask, accumulate=accumulate,
                workspace=self._workspace,
            )  # fmt: skip
        self._run(launches)

    def pool_input_gradient(self, gradient: Array, *, pooling: Pooling, choice: Array | None, out: Array,
                            mask: Array, accumulate: bool) -> None:  # fmt: skip
        height, width, channels = shape = _shape3(out)
        pooled_shape = (height // 2, width // 2, channels)
        if (choice is not None) != (pooling == "max"):
            given = "without" if choice is None else "with"
            raise ValueError(f"pool_input_gradient: {pooling} pooling {given} choice")
        self._check(
            "pool_input_gradient",
            gradient=(gradient, pooled_shape, self.activation_dtype),
            choice=(choice, *convolution.choice_layout(pooled_shape)),
            out=(out, shape, self.activation_dtype),
            mask=(mask, *convolution.mask_layout(shape)),
        )
        if self._element:
            self._check_eights("pool_input_gradient", channels)
            launches = tensor_convolution.pool_input_gradient(gradient, choice, out, mask, accumulate, self._element)
        else:
            launches = pointwise.pool_input_gradient(gradient, choice, out, mask, accumulate)
        self._run(launches)

    def relu_gradient(self, gradient: Array, mask: Array) -> None:
        shape = _shape3(gradient)
        self._check("relu_gradient", gradient=(gradient, shape, self.activation_dtype),
                    mask=(mask, *convolution.mask_layout(shape)))  # fmt: skip
        if self._element:
            self._check_eights("relu_gradient", shape[2])
            launches = tensor_convolution.relu_gradient(gradient, mask, self._element)
        else:
            launches = pointwise.relu_gradient(gradient, mask)
        self._run(launches)

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Array, out: Array, *, weights: Array | None = None) -> None:
        shape = _shape3(features)
        self._check("gram", features=(features, shape, self.activation_dtype), out=(out, (shape[2], shape[2]), FLOAT),
                    weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_eights("gram", shape[2])
        if self._hopper and weights is None and wgmma_gram.serves(shape[2]):
            launches = wgmma_gram.gram(features, out, self._workspace, self._hopper)
        elif self._multiplies_in_tensor_cores(shape[2]):
            launches = tensor_gram.gram(features, out, weights, self._workspace, self.precision, self._runtime.spec)
        else:
            launches = gram.gram(features, out, weights, self._workspace)
        self._run(launches)

    def mean(self, features: Array, out: Array, *, weights: Array | None = None) -> None:
        shape = _shape3(features)
        self._check("mean", features=(features, shape, self.activation_dtype), out=(out, (shape[2],), FLOAT),
                    weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_eights("mean", shape[2])
        self._run(gram.mean(features, out, weights, self._workspace, self._element))

    def style_cost(self, gram: Array, target: Array, scale: float, *, cost: Array, difference: Array,
                   accumulate: bool = False) -> None:  # fmt: skip
        self._check_sums("style_cost", cost)
        self._check("style_cost", **_moments(len(gram), {"gram": gram, "target": target, "difference": difference}))
        self._run(pointwise.style_cost(gram, target, scale, cost, difference, accumulate, self._workspace))

    def moments_cost(self, gram: Array, mean: Array, target_gram: Array, target_mean: Array, scale: float, *,
                     cost: Array, difference: Array, shift: Array, accumulate: bool = False) -> None:  # fmt: skip
        self._check_sums("moments_cost", cost)
        matrices = {"gram": gram, "target_gram": target_gram, "difference": difference}
        vectors = {"mean": mean, "target_mean": target_mean, "shift": shift}
        self._check("moments_cost", **_moments(len(gram), matrices, vectors))
        self._run(
            pointwise.moments_cost(gram, mean, target_gram, target_mean, scale, cost, difference, shift, accumulate,
                                   self._workspace)
        )  # fmt: skip

    def w2_root(self, gram: Array, mean: Array, ridge: float, out: Array, *, scratch: Array) -> None:
        self._check("w2_root", **_moments(len(gram), {"gram": gram, "out": out}, {"mean": mean}),
                    scratch=(scratch, (W2_SCRATCH, *gram.shape), FLOAT))  # fmt: skip
        self._check_workspace("w2_root")
        self._run(wasserstein.w2_root(gram, mean, ridge, out, scratch, self._workspace))

    def w2_cost(self, gram: Array, mean: Array, target_root: Array, target_mean: Array, ridge: float, scale: float, *,
                cost: Array, difference: Array, shift: Array, scratch: Array,
                accumulate: bool = False) -> None:  # fmt: skip
        """`wasserstein` says how accurate it is, and with what ridge."""
        self._check_sums("w2_cost", cost)
        matrices = {"gram": gram, "target_root": target_root, "difference": difference}
        vectors = {"mean": mean, "target_mean": target_mean, "shift": shift}
        self._check("w2_cost", **_moments(len(gram), matrices, vectors),
                    scratch=(scratch, (W2_SCRATCH, *gram.shape), FLOAT))  # fmt: skip
        self._run(
            wasserstein.w2_cost(gram, mean, target_root, target_mean, ridge, scale, cost=cost, difference=difference,
                                shift=shift, scratch=scratch, accumulate=accumulate, workspace=self._workspace)
        )  # fmt: skip

    def style_gradient(self, features: Array, difference: Array, *, out: Array, accumulate: bool,
                       shift: Array | None = None, weights: Array | None = None) -> None:  # fmt: skip
        shape = _shape3(features)
        self._check("style_gradient", features=(features, shape, self.activation_dtype),
                    out=(out, shape, self.activation_dtype), difference=(difference, (shape[2], shape[2]), FLOAT),
                    shift=(shift, shape[2:], FLOAT), weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_eights("style_gradient", shape[2])
        if self._multiplies_in_tensor_cores(shape[2]):
            launches = tensor_gram.style_gradient(
                features, difference, out=out, accumulate=accumulate, shift=shift, weights=weights,
                workspace=self._workspace, precision=self.precision, spec=self._runtime.spec,
                factor=self.gradient_scale,
            )  # fmt: skip
        else:
            launches = gram.style_gradient(
                features, difference, out=out, accumulate=accumulate, shift=shift, weights=weights,
                workspace=self._workspace,
            )  # fmt: skip
        self._run(launches)

    def content_cost(self, features: Array, target: Array, scale: float, *, cost: Array,
                     weights: Array | None = None) -> None:  # fmt: skip
        shape = features.shape if weights is None else _shape3(features)
        self._check_sums("content_cost", cost)
        self._check("content_cost", features=(features, shape, self.activation_dtype),
                    target=(target, shape, self.activation_dtype), weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_eights("content_cost", shape[-1])
        self._run(pointwise.content_cost(features, target, scale, cost, weights, self._workspace, self._element))

    def content_gradient(self, features: Array, target: Array, scale: float, *, out: Array, accumulate: bool,
                         weights: Array | None = None) -> None:  # fmt: skip
        shape = features.shape if weights is None else _shape3(features)
        self._check("content_gradient", features=(features, shape, self.activation_dtype),
                    target=(target, shape, self.activation_dtype), out=(out, shape, self.activation_dtype),
                    weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_eights("content_gradient", shape[-1])
        scale *= self.gradient_scale
        self._run(pointwise.content_gradient(features, target, scale, out, accumulate, weights, self._element))

    def tv_cost(self, image: Array, scale: float, *, cost: Array, gradient: Array) -> None:
        shape = _image_shape(image)
        self._check("tv_cost", FLOAT.itemsize, image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT))
        self._check_sums("tv_cost", cost)
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

    def step_within(self, image: Array, direction: Array, step: float, out: Array) -> None:
        self._check_vectors("step_within", image.shape, image=image, direction=direction, out=out)
        self._run(pointwise.step_within(image, direction, step, out))

    def free_gradient(self, image: Array, gradient: Array, out: Array) -> None:
        self._check_vectors("free_gradient", image.shape, image=image, gradient=gradient, out=out)
        self._run(pointwise.free_gradient(image, gradient, out))

    def weigh(self, image: Array, weights: Array) -> None:
        shape = _shape3(image)
        self._check("weigh", FLOAT.itemsize, image=(image, shape, FLOAT), weights=(weights, shape[:2], FLOAT))
        self._run(pointwise.weigh(image, weights))

    def clamp(self, image: Array) -> None:
        self._check("clamp", image=(image, image.shape, FLOAT))
        self._run(pointwise.clamp(image))

    def resize(self, image: Array, out: Array) -> None:
        shape, shape_out = _image_shape(image), _image_shape(out)
        self._check("resize", image=(image, shape, FLOAT), out=(out, shape_out, FLOAT))
        between = (shape_out[0], shape[1], 3)
        rows = self.allocate(4 * between[0] * between[1] * 3).view(FLOAT).reshape(between)
        self._run(pointwise.resize(image, rows, out))

    def extend(self, image: Array, out: Array) -> None:
        shape, larger = _image_shape(image), _image_shape(out)
        self._check("extend", image=(image, shape, FLOAT), out=(out, _extended(shape, larger), FLOAT))
        self._run(pointwise.extend(image, out))

    def extend_gradient(self, gradient: Array, out: Array) -> None:
        shape, larger = _image_shape(out), _image_shape(gradient)
        self._check("extend_gradient", gradient=(gradient, _extended(shape, larger), FLOAT), out=(out, shape, FLOAT))
        self._run(pointwise.extend_gradient(gradient, out))

    # ---- vectors ------------------------------------------------------------------------------------------------
    def blend(self, values: Array, weight: float, out: Array) -> None:
        self._check_vectors("blend", out.shape, values=values, out=out)
        self._run(pointwise.blend(values, weight, out))

    def dots(self, vectors: Array, values: Array, out: Array) -> None:
        shape = (_count(vectors), values.size)
        self._check_vectors("dots", values.shape, values=values)
        self._check("dots", _alignment(values.size), vectors=(vectors, shape, FLOAT))
        self._check_sums("dots", out, shape[:1], name="out")
        self._run(pointwise.dots(vectors, values, out, self._workspace))

    def combine(self, vectors: Array, coefficients: Sequence[float], out: Array) -> None:
        shape = (_count(vectors), out.size)
        if len(coefficients) != shape[0]:
            raise ValueError(f"combine: {len(coefficients)} coefficients for {shape[0]} vectors")
        self._check_vectors("combine", out.shape, out=out)
        self._check("combine", _alignment(out.size), vectors=(vectors, shape, FLOAT))
        self._run(pointwise.combine(vectors, coefficients, out))

    # ---- graphs -------------------------------------------------------------------------------------------------
    @property
    def graphs(self) -> "Gpu":
        return self

    def capture(self, work: Callable[[], object]) -> Callable[[], None]:
        return self._runtime.capture(work)

    def mark(self) -> Callable[[], None]:
        return self._runtime.mark()

    def fetch(self, values: Array) -> Callable[[], NDArray[Any]]:
        self._check("fetch", 1, values=(values, values.shape, values.dtype))
        return self._runtime.fetch(values)

    def mailbox(self, shape: Shape) -> tuple[Array, NDArray[np.float32]]:
        on_device, on_host = self._runtime.mailbox(math.prod(shape) * FLOAT.itemsize)
        return on_device.view(FLOAT).reshape(shape), on_host.view(FLOAT).reshape(shape)

    def adam_iteration(self, image: Array, gradient: Array, first: Array, second: Array, step: Array, average: Array,
                       good: Array, *, costs: Array, ring: Array, progress: Array, weights: Array,
                       learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        shape = _image_shape(image)
        images = {"image": image, "gradient": gradient, "first": first, "second": second, "average": average}
        self._check("adam_iteration", **{name: (array, shape, FLOAT) for name, array in images.items()},
                    good=(good, shape, FLOAT), step=(step, (1,), COUNT))  # fmt: skip
        self._check("adam_iteration", 4, costs=(costs, (costs.size,), FLOAT), progress=(progress, (2,), COUNT),
                    ring=(ring, (len(ring), costs.size), FLOAT), weights=(weights, (weights.size,), FLOAT))  # fmt: skip
        self._run(
            pointwise.adam_iteration(image, gradient, first, second, step, average, good, costs, ring, progress,
                                     weights, learning_rate, beta1, beta2, epsilon)
        )  # fmt: skip

    # ---- launching ----------------------------------------------------------------------------------------------
    def _run(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            if self.on_launch is not None:
                self.on_launch(launch)
            self._runtime.launch(launch)

    def _multiplies_in_tensor_cores(self, channels: int) -> bool:
        """Whether Grams and style gradients of so many channels do."""
        return self._on_tensor_cores and tensor_gram.serves(channels, self.precision)

    def _before(self, filters: Filters) -> np.dtype[Any]:
        """What a convolution's input is held in, and the gradient with respect to it."""
        return FLOAT if filters.channels_in == IMAGE_CHANNELS else self.activation_dtype

    def _wgmma(self) -> tensor_map.Target:
        if self._hopper is None:
            raise ValueError("these filters were packed by a device that uses wgmma, which this one does not")
        return self._hopper

    def _uploaded(self, values: NDArray[Any]) -> Array:
        out = self.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
        self._runtime.upload(values, out)
        return out

    def _check(self, operation: str, alignment: int = ALIGNMENT, /, **arguments: Wanted) -> None:
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

    def _check_vectors(self, operation: str, shape: Shape, **arguments: Array) -> None:
        """For what may be a row of a matrix."""
        alignment = _alignment(math.prod(shape))
        self._check(operation, alignment, **{name: (array, shape, FLOAT) for name, array in arguments.items()})

    def _check_eights(self, operation: str, channels: int) -> None:
        if self._element and channels % CHANNELS_MULTIPLE:
            raise ValueError(
                f"{operation}: {channels} channels in 16 bits; it must be a multiple of {CHANNELS_MULTIPLE}"
            )

    def _check_sums(self, operation: str, out: Array, shape: Shape = (1,), name: str = "cost") -> None:
        """Costs are neighbours in one vector, and sums need scratch memory."""
        self._check(operation, FLOAT.itemsize, **{name: (out, shape, FLOAT)})
        self._check_workspace(operation)

    def _check_workspace(self, operation: str) -> None:
        has, needed = self._workspace.nbytes, pointwise.WORKSPACE_BYTES
        if has < needed:
            raise ValueError(f"{operation}: the workspace has {has} bytes of {needed}")


def _chosen(runtime: Runtime) -> str:
    """What "auto" is. An emulated tensor core is slower than an emulated multiplication, and whoever asks the emulator
    for nothing in particular wants to see what is wrong, rather than what is rounded."""
    fast = runtime.name == "cuda" and runtime.spec.capability >= LEAST_CAPABILITY["bf16"]
    return "bf16" if fast else "fp32"


def _hopper_target(runtime: Runtime, element: tensor_map.Element) -> tensor_map.Target | None:
    """How to launch the kernels for compute capability 9.0; None, with a warning, where they fail their test."""
    if problem := self_test.known_problem(runtime, element):
        _log.warning("the wgmma kernels are not used, but slower ones: %s", problem)
        return None
    return tensor_map.target_of(runtime, runtime.spec.multiprocessors)


def _alignment(size: int) -> int:
    """Rows of a matrix begin where they may, unless they are as long as some float4."""
    return FLOAT.itemsize if size % 4 else ALIGNMENT


def _count(vectors: Array) -> int:
    count = len(vectors)
    if not 1 <= count <= MOST_VECTORS:
        raise ValueError(f"there are {count} vectors; it must be 1 to {MOST_VECTORS}")
    return count


def _moments(
    channels: int, matrices: Mapping[str, Array], vectors: Mapping[str, Array] | None = None
) -> dict[str, Wanted]:
    wanted: dict[str, Wanted] = {name: (matrix, (channels, channels), FLOAT) for name, matrix in matrices.items()}
    return wanted | {name: (vector, (channels,), FLOAT) for name, vector in (vectors or {}).items()}


def _shape3(array: Array) -> tuple[int, int, int]:
    if len(array.shape) != 3:
        raise ValueError(f"activations have shape {array.shape}; it must be (H, W, C)")
    height, width, channels = array.shape
    return height, width, channels


def _extended(shape: tuple[int, int, int], larger: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape with as wide a border on all sides as the larger one has above and below."""
    border = max(0, (larger[0] - shape[0]) // 2)
    return (shape[0] + 2 * border, shape[1] + 2 * border, 3)


def _image_shape(array: Array) -> tuple[int, int, int]:
    if len(array.shape) != 3 or array.shape[2] != 3:
        raise ValueError(f"an image has shape {array.shape}; it must be (H, W, 3)")
    return _shape3(array)


def _permutation(channels: Sequence[int]) -> Sequence[int]:
    if sorted(channels) != [0, 1, 2]:
        raise ValueError(f"channels are {tuple(channels)}; they must be 0, 1 and 2 in some order")
    return channels
