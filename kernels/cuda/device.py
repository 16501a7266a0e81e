"""The device whose every operation is a launch of our own CUDA kernels: "cuda" on a GPU, "emulator" without one.

Here arguments are checked, so that a kernel may trust its own, and operations become launches: those that are the
same in every precision directly, the others through the kernel set that `kernel_sets` has chosen. `kernels.device` has
the contracts, `kernels.reference` the formulas.

In bf16 and fp16 activations and the gradients within the network have 16 bits. Everything else is float32: images and
what is one of the network's two ends, Grams, means, costs, what they send back, and every sum.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..device import W2_SCRATCH, Array, Layout
from .arguments import (
    ALIGNMENT,
    BYTE,
    COUNT,
    FLOAT,
    Arguments,
    activations_shape,
    check_workspace,
    count_of,
    image_shape,
    moments,
    padded_shape,
    permutation,
    row_alignment,
)
from .conv3x3.launch_simt import pool_argmax_layout, relu_mask_layout
from .conv3x3.operations import ConvolutionOperations
from .costs import launch as costs
from .elementwise import launch as elementwise
from .grids import MOST_TICKETS, WORKSPACE_BYTES, Sums
from .kernel_sets import Filters, choose_kernels
from .launching import Launching
from .neighbors.operations import NeighborOperations
from .optimizer_steps import launch as optimizer_steps
from .runtime.launch import Launch
from .runtime.protocol import Runtime
from .sliced.operations import SlicedOperations
from .wasserstein import launch as wasserstein


class CudaDevice(Launching, ConvolutionOperations, NeighborOperations, SlicedOperations):
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

    image_dtype, in_host_memory = FLOAT, False

    def __init__(self, runtime: Runtime, precision: str = "fp32", *, wgmma: bool | None = None,
                 on_launch: Callable[[Launch], None] | None = None) -> None:  # fmt: skip
        self._kernels = choose_kernels(runtime, precision, wgmma)
        self.precision, self.activation_dtype = self._kernels.precision, self._kernels.storage
        self._search = self._kernels.nearest_neighbors
        self.loss_scale = self._kernels.loss_scale
        """How many times larger than they are gradients are held within the network: what `style_gradient` and
        `content_gradient` write, up to what `preprocess_gradient` reads. A power of two, so that nothing is rounded."""
        self.name, self.measurable = runtime.name, runtime.measurable
        self.on_launch = on_launch
        self._runtime = runtime
        self._arguments = Arguments(runtime)
        self._check, self._check_vectors = self._arguments.check, self._arguments.check_vectors
        self._workspace = runtime.allocate(0)
        tickets = np.zeros(MOST_TICKETS, np.uint32)
        self._sums = Sums(self._workspace, runtime.allocate(tickets.nbytes).view(np.uint32))
        runtime.upload(tickets, self._sums.tickets)

    @property
    def stream(self) -> Runtime:
        return self._runtime

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> Array:
        return self._runtime.allocate(nbytes)

    def free_bytes(self) -> int | None:
        return self._runtime.free_bytes()

    def upload(self, values: NDArray[Any], out: Array) -> None:
        self._check("upload", 1, out=(out, values.shape, out.dtype))
        if out.dtype == self.activation_dtype:
            values = self._kernels.to_storage(values)
        self._runtime.upload(np.ascontiguousarray(values, out.dtype), out)

    def download(self, values: Array) -> NDArray[Any]:
        """Activations in 16 bits come as float32."""
        self._check("download", 1, values=(values, values.shape, values.dtype))
        host = self._runtime.download(values)
        return self._kernels.to_float32(host) if host.dtype == self.activation_dtype else host

    def copy(self, values: Array, out: Array) -> None:
        """Of windows too, whose rows lie together but not side by side."""
        if values.shape == out.shape and not (values.flags.c_contiguous and out.flags.c_contiguous):
            shape, ends = out.shape[1:], (values, out)
            self._check("copy", FLOAT.itemsize, values=(values[0], shape, out.dtype), out=(out[0], shape, out.dtype))
            steps = [*(self._runtime.address(end) for end in ends), *(end.strides[0] for end in ends), out[0].nbytes]
            if any(step % FLOAT.itemsize for step in steps):
                raise ValueError(f"copy: rows of {out[0].nbytes} bytes do not begin and end on 4-byte boundaries")
            self._run(elementwise.copy_window(values, out, all(step % ALIGNMENT == 0 for step in steps)))
            return
        words = out.nbytes % 4 == 0
        self._check("copy", 4 if words else ALIGNMENT, values=(values, out.shape, out.dtype),
                    out=(out, out.shape, out.dtype))  # fmt: skip
        aligned = all(self._runtime.address(array) % ALIGNMENT == 0 for array in (values, out))
        self._run(elementwise.copy(values, out, aligned))

    def zero(self, out: Array) -> None:
        self._check("zero", out=(out, out.shape, out.dtype))
        self._run(elementwise.zero(out))

    def relu_mask_layout(self, shape: tuple[int, int, int]) -> Layout:
        return relu_mask_layout(shape)

    def pool_argmax_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        return pool_argmax_layout(pooled_shape)

    def unpack_relu_mask(self, relu_mask: Array, channels: int) -> NDArray[np.bool_]:
        bits = np.unpackbits(self.download(relu_mask), axis=2, count=channels, bitorder="little")
        return bits.astype(bool)

    def unpack_pool_argmax(self, pool_argmax: Array, channels: int) -> NDArray[np.uint8]:
        packed = self.download(pool_argmax)
        pairs = packed[..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
        return pairs.reshape(*packed.shape[:2], -1)[..., :channels]

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]],
                        searches: Sequence[tuple[int, int, int, int]] = ()) -> int:  # fmt: skip
        needs = (self._kernels.workspace_bytes(*sizes) for sizes in convolutions)
        of_searches = (self._kernels.search_workspace_bytes(*sizes) for sizes in searches)
        return max([WORKSPACE_BYTES, *needs, *of_searches])

    def bind_workspace(self, workspace: Array) -> None:
        self._check("bind_workspace", workspace=(workspace, (workspace.size,), BYTE))
        self._workspace, self._sums = workspace, self._sums._replace(workspace=workspace)

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        """Raises DeviceError for channels that a precision of 16 bits can't take."""
        packed = self._kernels.pack_filters(kernel, bias)
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
        shape = image_shape(image)
        self._check("preprocess", FLOAT.itemsize, image=(image, shape, FLOAT), out=(out, shape, FLOAT))
        self._run(elementwise.preprocess(image, permutation(channels), scale, shift, out))

    def preprocess_gradient(self, gradient: Array, channels: Sequence[int], scale: Sequence[float],
                            out: Array) -> None:  # fmt: skip
        shape = image_shape(gradient)
        self._check("preprocess_gradient", FLOAT.itemsize, gradient=(gradient, shape, FLOAT), out=(out, shape, FLOAT))
        scale = [factor / self.loss_scale for factor in scale]
        self._run(elementwise.preprocess_gradient(gradient, permutation(channels), scale, out))

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Array, out: Array, *, weights: Array | None = None) -> None:
        shape = activations_shape(features)
        self._check("gram", features=(features, shape, self.activation_dtype), out=(out, (shape[2], shape[2]), FLOAT),
                    weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_channels("gram", shape[2])
        self._run(self._kernels.gram(features, out, weights, self._workspace))

    def mean(self, features: Array, out: Array, *, weights: Array | None = None) -> None:
        shape = activations_shape(features)
        self._check("mean", features=(features, shape, self.activation_dtype), out=(out, (shape[2],), FLOAT),
                    weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_channels("mean", shape[2])
        self._run(self._kernels.mean(features, out, weights, self._workspace))

    def style_cost(self, gram: Array, target: Array, scale: float, *, cost: Array, gram_error: Array,
                   accumulate: bool = False) -> None:  # fmt: skip
        self._check_sums("style_cost", cost)
        self._check("style_cost", **moments(len(gram), {"gram": gram, "target": target, "gram_error": gram_error}))
        self._run(costs.style_cost(gram, target, scale, cost, gram_error, accumulate, self._sums))

    def moments_cost(self, gram: Array, mean: Array, target_gram: Array, target_mean: Array, scale: float, *,
                     cost: Array, gram_error: Array, mean_error: Array, accumulate: bool = False) -> None:  # fmt: skip
        self._check_sums("moments_cost", cost)
        matrices = {"gram": gram, "target_gram": target_gram, "gram_error": gram_error}
        vectors = {"mean": mean, "target_mean": target_mean, "mean_error": mean_error}
        self._check("moments_cost", **moments(len(gram), matrices, vectors))
        self._run(
            costs.moments_cost(gram, mean, target_gram, target_mean, scale, cost, gram_error, mean_error, accumulate,
                                   self._sums)
        )  # fmt: skip

    def w2_root(self, gram: Array, mean: Array, ridge: float, out: Array, *, scratch: Array) -> None:
        self._check("w2_root", **moments(len(gram), {"gram": gram, "out": out}, {"mean": mean}),
                    scratch=(scratch, (W2_SCRATCH, *gram.shape), FLOAT))  # fmt: skip
        check_workspace("w2_root", self._workspace)
        self._run(wasserstein.w2_root(gram, mean, ridge, out, scratch, self._workspace))

    def w2_cost(self, gram: Array, mean: Array, target_root: Array, target_mean: Array, ridge: float, scale: float, *,
                cost: Array, gram_error: Array, mean_error: Array, scratch: Array,
                accumulate: bool = False) -> None:  # fmt: skip
        """`wasserstein` says how accurate it is, and with what ridge."""
        self._check_sums("w2_cost", cost)
        matrices = {"gram": gram, "target_root": target_root, "gram_error": gram_error}
        vectors = {"mean": mean, "target_mean": target_mean, "mean_error": mean_error}
        self._check("w2_cost", **moments(len(gram), matrices, vectors),
                    scratch=(scratch, (W2_SCRATCH, *gram.shape), FLOAT))  # fmt: skip
        self._run(
            wasserstein.w2_cost(gram, mean, target_root, target_mean, ridge, scale, cost=cost, gram_error=gram_error,
                                mean_error=mean_error, scratch=scratch, accumulate=accumulate, sums=self._sums)
        )  # fmt: skip

    def style_gradient(self, features: Array, gram_error: Array, *, out: Array, accumulate: bool,
                       mean_error: Array | None = None, weights: Array | None = None) -> None:  # fmt: skip
        shape = activations_shape(features)
        self._check("style_gradient", features=(features, shape, self.activation_dtype),
                    out=(out, shape, self.activation_dtype), gram_error=(gram_error, (shape[2], shape[2]), FLOAT),
                    mean_error=(mean_error, shape[2:], FLOAT), weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_channels("style_gradient", shape[2])
        self._run(
            self._kernels.style_gradient(features, gram_error, out=out, accumulate=accumulate, mean_error=mean_error,
                                         weights=weights, workspace=self._workspace, loss_scale=self.loss_scale)
        )  # fmt: skip

    def content_cost(self, features: Array, target: Array, scale: float, *, cost: Array,
                     weights: Array | None = None) -> None:  # fmt: skip
        shape = features.shape if weights is None else activations_shape(features)
        self._check_sums("content_cost", cost)
        self._check("content_cost", features=(features, shape, self.activation_dtype),
                    target=(target, shape, self.activation_dtype), weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_channels("content_cost", shape[-1])
        self._run(self._kernels.content_cost(features, target, scale, cost, weights, self._sums))

    def content_gradient(self, features: Array, target: Array, scale: float, *, out: Array, accumulate: bool,
                         weights: Array | None = None) -> None:  # fmt: skip
        shape = features.shape if weights is None else activations_shape(features)
        self._check("content_gradient", features=(features, shape, self.activation_dtype),
                    target=(target, shape, self.activation_dtype), out=(out, shape, self.activation_dtype),
                    weights=(weights, shape[:2], FLOAT))  # fmt: skip
        self._check_channels("content_gradient", shape[-1])
        scale *= self.loss_scale
        self._run(self._kernels.content_gradient(features, target, scale, out, accumulate, weights))

    def tv_cost(self, image: Array, scale: float, *, cost: Array, gradient: Array) -> None:
        shape = image_shape(image)
        self._check("tv_cost", FLOAT.itemsize, image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT))
        self._check_sums("tv_cost", cost)
        self._run(costs.tv_cost(image, scale, cost, gradient, self._sums))

    # ---- pixels -------------------------------------------------------------------------------------------------
    def adam_step(self, image: Array, gradient: Array, first: Array, second: Array, step: Array, *,
                  learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        shape = image.shape
        self._check("adam_step", image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT),
                    first=(first, shape, FLOAT), second=(second, shape, FLOAT), step=(step, (1,), COUNT))  # fmt: skip
        self._run(optimizer_steps.adam_step(image, gradient, first, second, step, learning_rate, beta1, beta2, epsilon))

    def adam_iteration(self, image: Array, gradient: Array, first: Array, second: Array, step: Array, average: Array,
                       good: Array, *, costs: Array, ring: Array, progress: Array, weights: Array,
                       learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        shape = image_shape(image)
        images = {"image": image, "gradient": gradient, "first": first, "second": second, "average": average}
        self._check("adam_iteration", **{name: (array, shape, FLOAT) for name, array in images.items()},
                    good=(good, shape, FLOAT), step=(step, (1,), COUNT))  # fmt: skip
        self._check("adam_iteration", 4, costs=(costs, (costs.size,), FLOAT), progress=(progress, (2,), COUNT),
                    ring=(ring, (len(ring), costs.size), FLOAT), weights=(weights, (weights.size,), FLOAT))  # fmt: skip
        self._run(
            optimizer_steps.adam_iteration(image, gradient, first, second, step, average, good, costs, ring, progress,
                                     weights, learning_rate, beta1, beta2, epsilon)
        )  # fmt: skip

    def descent_step(self, image: Array, gradient: Array, *, learning_rate: float) -> None:
        shape = image.shape
        self._check("descent_step", image=(image, shape, FLOAT), gradient=(gradient, shape, FLOAT))
        self._run(optimizer_steps.descent_step(image, gradient, learning_rate))

    def clamped_step(self, image: Array, direction: Array, step: float, out: Array) -> None:
        self._check_vectors("clamped_step", image.shape, image=image, direction=direction, out=out)
        self._run(optimizer_steps.clamped_step(image, direction, step, out))

    def project_gradient(self, image: Array, gradient: Array, out: Array) -> None:
        self._check_vectors("project_gradient", image.shape, image=image, gradient=gradient, out=out)
        self._run(optimizer_steps.project_gradient(image, gradient, out))

    def weigh(self, image: Array, weights: Array) -> None:
        shape = activations_shape(image)
        self._check("weigh", FLOAT.itemsize, image=(image, shape, FLOAT), weights=(weights, shape[:2], FLOAT))
        self._run(elementwise.weigh(image, weights))

    def clamp(self, image: Array) -> None:
        self._check("clamp", image=(image, image.shape, FLOAT))
        self._run(optimizer_steps.clamp(image))

    def resize(self, image: Array, out: Array) -> None:
        shape, shape_out = image_shape(image), image_shape(out)
        self._check("resize", image=(image, shape, FLOAT), out=(out, shape_out, FLOAT))
        between = (shape_out[0], shape[1], 3)
        rows = self.allocate(4 * between[0] * between[1] * 3).view(FLOAT).reshape(between)
        self._run(elementwise.resize(image, rows, out))

    def pad_edge(self, image: Array, out: Array) -> None:
        shape, larger = image_shape(image), image_shape(out)
        self._check("pad_edge", image=(image, shape, FLOAT), out=(out, padded_shape(shape, larger), FLOAT))
        self._run(elementwise.pad_edge(image, out))

    def pad_edge_gradient(self, gradient: Array, out: Array) -> None:
        shape, larger = image_shape(out), image_shape(gradient)
        self._check(
            "pad_edge_gradient", gradient=(gradient, padded_shape(shape, larger), FLOAT), out=(out, shape, FLOAT)
        )
        self._run(elementwise.pad_edge_gradient(gradient, out))

    # ---- vectors ------------------------------------------------------------------------------------------------
    def blend(self, values: Array, weight: float, out: Array) -> None:
        self._check_vectors("blend", out.shape, values=values, out=out)
        self._run(elementwise.blend(values, weight, out))

    def dots(self, vectors: Array, values: Array, out: Array) -> None:
        shape = (count_of(vectors), values.size)
        self._check_vectors("dots", values.shape, values=values)
        self._check("dots", row_alignment(values.size), vectors=(vectors, shape, FLOAT))
        self._check_sums("dots", out, shape[:1], name="out")
        self._run(elementwise.dots(vectors, values, out, self._sums))

    def combine(self, vectors: Array, coefficients: Sequence[float], out: Array) -> None:
        shape = (count_of(vectors), out.size)
        if len(coefficients) != shape[0]:
            raise ValueError(f"combine: {len(coefficients)} coefficients for {shape[0]} vectors")
        self._check_vectors("combine", out.shape, out=out)
        self._check("combine", row_alignment(out.size), vectors=(vectors, shape, FLOAT))
        self._run(elementwise.combine(vectors, coefficients, out))

    # ---- launching ----------------------------------------------------------------------------------------------
    def _uploaded(self, values: NDArray[Any]) -> Array:
        out = self.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
        self._runtime.upload(values, out)
        return out

    def _check_channels(self, operation: str, channels: int) -> None:
        if channels % self._kernels.channels_multiple:
            raise ValueError(
                f"{operation}: {channels} channels in 16 bits; it must be a multiple of "
                f"{self._kernels.channels_multiple}"
            )

    def _check_sums(self, operation: str, out: Array, shape: tuple[int, ...] = (1,), name: str = "cost") -> None:
        self._arguments.check_sums(operation, self._workspace, out, shape, name)
