"""Which kernels compute an operation: one set for each way of multiplying; `precisions` says who takes which.

A kernel set has a method for each operation that is not the same in every precision; it returns the launches. The set
is chosen once, when a `CudaDevice` is made, by `choose_kernels`. Arguments have been checked.

New kernels for an architecture are a set here and a row there.
"""

import logging
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..device import Array, Pooling, StylePlace
from ..errors import DeviceError
from . import self_test
from .conv3x3 import launch_mma_sm80, launch_simt, launch_wgmma_fp32_sm90, launch_wgmma_sm90
from .conv3x3 import launch_wgmma_unpool_sm90 as unpooling
from .costs import launch as costs
from .elementwise import launch as elementwise
from .gram import launch_mma_sm80 as gram_mma_sm80
from .gram import launch_simt as gram_simt
from .gram import launch_wgmma_sm90 as gram_wgmma_sm90
from .grids import Sums
from .neighbors import launch as neighbors_simt
from .neighbors import launch_mma_sm80 as neighbors_mma_sm80
from .precisions import AUTO, PRECISIONS, on_gpus
from .runtime.launch import Launch
from .runtime.protocol import Runtime
from .runtime.tensor_map import as_half, target_of
from .storage import MEMORY, rounded, widened

Filters = (
    launch_simt.PackedFilters
    | launch_mma_sm80.TensorFilters
    | launch_wgmma_sm90.PackedFilters
    | launch_wgmma_fp32_sm90.PackedFilters
)

_log = logging.getLogger("nstgpu")


class SimtKernels:
    """Activations in float32, multiplied without tensor cores: every GPU, any number of channels."""

    loss_scale = 1.0
    """How many times larger than they are gradients are held within the network. A power of two, so that nothing is
    rounded."""
    channels_multiple = 1
    """That activations must have."""
    by_default_emulated: ClassVar[bool] = True

    def __init__(self, runtime: Runtime, precision: str) -> None:
        self.precision, self.spec = precision, runtime.spec
        self.storage = MEMORY.get(precision, np.dtype(np.float32))
        """What activations and gradients within the network are in memory."""

    @classmethod
    def problem_with(cls, runtime: Runtime, precision: str) -> str | None:
        """Why these kernels are not to be used, though the GPU has what they need; None if they are."""
        del runtime, precision
        return None

    def to_storage(self, values: NDArray[Any]) -> NDArray[Any]:
        """Activations as they are in memory, on the host."""
        return values

    def to_float32(self, values: NDArray[Any]) -> NDArray[Any]:
        """The reverse."""
        return values

    def workspace_bytes(self, height: int, width: int, channels_in: int, channels_out: int) -> int:
        """Scratch memory for a convolution, and the costs of its result."""
        shape = (height, width, channels_out)
        return max(
            self.conv_workspace_bytes(height, width, channels_in, channels_out),
            gram_simt.mean_workspace_bytes(*shape),
            self.gram_workspace_bytes(*shape),
        )

    def conv_workspace_bytes(self, height: int, width: int, channels_in: int, channels_out: int) -> int:
        return launch_simt.workspace_bytes(height, width, channels_in, channels_out)

    def gram_workspace_bytes(self, height: int, width: int, channels: int) -> int:
        """For `gram` and `style_gradient`."""
        shape = (height, width, channels)
        return max(gram_simt.gram_workspace_bytes(*shape), gram_simt.style_gradient_workspace_bytes(*shape))

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        """In host memory. Raises DeviceError for channels that the precision can't take."""
        return launch_simt.pack_filters(kernel, bias)

    def conv3x3_relu(self, x: Array, filters: Filters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                     pooled: Array | None, pool_argmax: Array | None,
                     workspace: Array | None) -> list[Launch]:  # fmt: skip
        return launch_simt.conv3x3_relu(x, launch_simt.as_own(filters), out=out, relu_mask=relu_mask, pooling=pooling,
                                        pooled=pooled, pool_argmax=pool_argmax, workspace=workspace)  # fmt: skip

    def conv3x3_input_gradient(self, gradient: Array, filters: Filters, *, out: Array, relu_mask: Array | None,
                               accumulate: bool, workspace: Array | None) -> list[Launch]:  # fmt: skip
        return launch_simt.conv3x3_input_gradient(
            gradient, launch_simt.as_own(filters), out=out, relu_mask=relu_mask, accumulate=accumulate,
            workspace=workspace,
        )  # fmt: skip

    def pool2x2(self, x: Array, out: Array, pool_argmax: Array | None, pooling: Pooling) -> list[Launch]:
        return elementwise.pool2x2(x, out, pool_argmax, pooling)

    def carries_style(self, filters: Filters) -> StylePlace | None:
        """Whether a style in `input_gradient` is no launch of its own, and if so whether `out` may be the features."""
        del filters
        return None

    def input_gradient(self, gradient: Array, filters: Filters, features: Array | None, gram_error: Array | None, *,
                       out: Array, relu_mask: Array | None, accumulate: bool, workspace: Array,
                       loss_scale: float) -> list[Launch]:  # fmt: skip
        """With a style or without, the one after the other."""
        before: list[Launch] = []
        if features is not None and gram_error is not None:
            before = self.style_gradient(
                features, gram_error, out=out, accumulate=accumulate, mean_error=None, weights=None,
                workspace=workspace, loss_scale=loss_scale,
            )  # fmt: skip
        return before + self.conv3x3_input_gradient(
            gradient, filters, out=out, relu_mask=relu_mask, accumulate=accumulate or bool(before), workspace=workspace
        )

    def unpools(self, filters: Filters) -> bool:
        """Whether there is an `unpooled_gradient` through these filters."""
        del filters
        return False

    def unpooled_gradient(self, gradient: Array, filters: Filters, *, out: Array, relu_mask: Array, pool_argmax: Array,
                          workspace: Array) -> list[Launch]:  # fmt: skip
        raise NotImplementedError

    def pool_input_gradient(self, gradient: Array, pool_argmax: Array | None, out: Array, relu_mask: Array,
                            accumulate: bool) -> list[Launch]:  # fmt: skip
        return elementwise.pool_input_gradient(gradient, pool_argmax, out, relu_mask, accumulate)

    def relu_gradient(self, gradient: Array, relu_mask: Array) -> list[Launch]:
        return elementwise.relu_gradient(gradient, relu_mask)

    def gram(self, features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
        return gram_simt.gram(features, out, weights, workspace)

    def mean(self, features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
        return gram_simt.mean(features, out, weights, workspace)

    def style_gradient(self, features: Array, gram_error: Array, *, out: Array, accumulate: bool,
                       mean_error: Array | None, weights: Array | None, workspace: Array,
                       loss_scale: float) -> list[Launch]:  # fmt: skip
        assert loss_scale == 1.0, "float32 needs none"
        return gram_simt.style_gradient(features, gram_error, out=out, accumulate=accumulate, mean_error=mean_error,
                                        weights=weights, workspace=workspace)  # fmt: skip

    def content_cost(self, features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                     sums: Sums) -> list[Launch]:  # fmt: skip
        return costs.content_cost(features, target, scale, cost, weights, sums)

    def content_gradient(self, features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                         weights: Array | None) -> list[Launch]:  # fmt: skip
        return costs.content_gradient(features, target, scale, out, accumulate, weights)

    def search_workspace_bytes(self, height: int, width: int, channels: int, candidates: int) -> int:
        """For `nearest_neighbors`."""
        return neighbors_simt.search_workspace_bytes(height, width, channels, candidates)

    def nearest_neighbors(self, features: Array, mean: Array, candidates: Array, out: Array,
                          workspace: Array) -> list[Launch]:  # fmt: skip
        return neighbors_simt.nearest_neighbors(features, mean, candidates, out, workspace)


class MmaKernels(SimtKernels):
    """Activations in float32, convolved and multiplied by mma.sync in tf32 or 3xtf32. What tensor cores cannot take,
    images and channels that are no multiple of eight, is packed for the kernels without and goes to them."""

    def conv_workspace_bytes(self, height: int, width: int, channels_in: int, channels_out: int) -> int:
        return launch_mma_sm80.workspace_bytes(height, width, channels_in, channels_out, self.precision, self.spec)

    def gram_workspace_bytes(self, height: int, width: int, channels: int) -> int:
        if not gram_mma_sm80.serves(channels, self.precision):
            return super().gram_workspace_bytes(height, width, channels)
        return max(
            gram_mma_sm80.gram_workspace_bytes(height, width, channels, self.precision, self.spec),
            gram_mma_sm80.style_gradient_workspace_bytes(channels, self.precision),
        )

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        try:
            return launch_mma_sm80.pack_filters(kernel, bias, self.precision)
        except ValueError as problem:
            raise DeviceError(str(problem)) from None

    def conv3x3_relu(self, x: Array, filters: Filters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                     pooled: Array | None, pool_argmax: Array | None,
                     workspace: Array | None) -> list[Launch]:  # fmt: skip
        if not isinstance(filters, launch_mma_sm80.TensorFilters):
            return super().conv3x3_relu(x, filters, out=out, relu_mask=relu_mask, pooling=pooling, pooled=pooled,
                                        pool_argmax=pool_argmax, workspace=workspace)  # fmt: skip
        return launch_mma_sm80.conv3x3_relu(
            x, filters, self.spec, out=out, relu_mask=relu_mask, pooling=pooling, pooled=pooled,
            pool_argmax=pool_argmax, workspace=workspace,
        )  # fmt: skip

    def conv3x3_input_gradient(self, gradient: Array, filters: Filters, *, out: Array, relu_mask: Array | None,
                               accumulate: bool, workspace: Array | None) -> list[Launch]:  # fmt: skip
        if not isinstance(filters, launch_mma_sm80.TensorFilters):
            return super().conv3x3_input_gradient(
                gradient, filters, out=out, relu_mask=relu_mask, accumulate=accumulate, workspace=workspace
            )
        return launch_mma_sm80.conv3x3_input_gradient(
            gradient, filters, self.spec, out=out, relu_mask=relu_mask, accumulate=accumulate, workspace=workspace
        )

    def gram(self, features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
        if not gram_mma_sm80.serves(features.shape[2], self.precision):
            return super().gram(features, out, weights, workspace)
        return gram_mma_sm80.gram(features, out, weights, workspace, self.precision, self.spec)

    def style_gradient(self, features: Array, gram_error: Array, *, out: Array, accumulate: bool,
                       mean_error: Array | None, weights: Array | None, workspace: Array,
                       loss_scale: float) -> list[Launch]:  # fmt: skip
        if not gram_mma_sm80.serves(features.shape[2], self.precision):
            return super().style_gradient(
                features, gram_error, out=out, accumulate=accumulate, mean_error=mean_error, weights=weights,
                workspace=workspace, loss_scale=loss_scale,
            )  # fmt: skip
        return gram_mma_sm80.style_gradient(
            features, gram_error, out=out, accumulate=accumulate, mean_error=mean_error, weights=weights,
            workspace=workspace, precision=self.precision, spec=self.spec, factor=loss_scale,
        )  # fmt: skip

    def search_workspace_bytes(self, height: int, width: int, channels: int, candidates: int) -> int:
        if not neighbors_mma_sm80.serves(channels, self.precision, self.spec):
            return super().search_workspace_bytes(height, width, channels, candidates)
        return neighbors_mma_sm80.search_workspace_bytes(
            height, width, channels, candidates, self.precision, self.spec
        )  # fmt: skip

    def nearest_neighbors(self, features: Array, mean: Array, candidates: Array, out: Array,
                          workspace: Array) -> list[Launch]:  # fmt: skip
        if not neighbors_mma_sm80.serves(features.shape[2], self.precision, self.spec):
            return super().nearest_neighbors(features, mean, candidates, out, workspace)
        return neighbors_mma_sm80.nearest_neighbors(
            features, mean, candidates, out, workspace, self.precision, self.spec
        )  # fmt: skip


class Mma16BitKernels(MmaKernels):
    """Activations in bf16 or fp16, channels in multiples of eight; images, sums and costs in float32."""

    channels_multiple = launch_mma_sm80.CHANNELS_MULTIPLE

    def __init__(self, runtime: Runtime, precision: str) -> None:
        super().__init__(runtime, precision)
        self.loss_scale = PRECISIONS[precision].loss_scale

    def to_storage(self, values: NDArray[Any]) -> NDArray[Any]:
        return rounded(values, self.precision)

    def to_float32(self, values: NDArray[Any]) -> NDArray[Any]:
        return widened(values, self.precision)

    def pool2x2(self, x: Array, out: Array, pool_argmax: Array | None, pooling: Pooling) -> list[Launch]:
        return elementwise.pool2x2_16bit(x, out, pool_argmax, pooling, self.precision)

    def pool_input_gradient(self, gradient: Array, pool_argmax: Array | None, out: Array, relu_mask: Array,
                            accumulate: bool) -> list[Launch]:  # fmt: skip
        return elementwise.pool_input_gradient_16bit(gradient, pool_argmax, out, relu_mask, accumulate, self.precision)

    def relu_gradient(self, gradient: Array, relu_mask: Array) -> list[Launch]:
        return elementwise.relu_gradient_16bit(gradient, relu_mask, self.precision)

    def mean(self, features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
        return gram_simt.mean_16bit(features, out, weights, workspace, self.precision)

    def content_cost(self, features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                     sums: Sums) -> list[Launch]:  # fmt: skip
        return costs.content_cost_16bit(features, target, scale, cost, weights, sums, self.precision)

    def content_gradient(self, features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                         weights: Array | None) -> list[Launch]:  # fmt: skip
        return costs.content_gradient_16bit(features, target, scale, out, accumulate, weights, self.precision)


class OnHopper(MmaKernels):
    """What the sets below share: convolutions by wgmma and TMA, for filters that these kernels have packed."""

    by_default_emulated = False  # since emulating it is slow

    def __init__(self, runtime: Runtime, precision: str) -> None:
        super().__init__(runtime, precision)
        self._target = target_of(runtime, runtime.spec.multiprocessors)

    def conv3x3_relu(self, x: Array, filters: Filters, *, out: Array | None, relu_mask: Array | None, pooling: Pooling,
                     pooled: Array | None, pool_argmax: Array | None,
                     workspace: Array | None) -> list[Launch]:  # fmt: skip
        if isinstance(filters, launch_wgmma_sm90.PackedFilters):
            return launch_wgmma_sm90.conv3x3_relu(
                x, filters, out=out, relu_mask=relu_mask, pooling=pooling, pooled=pooled, pool_argmax=pool_argmax,
                workspace=workspace, target=self._target,
            )  # fmt: skip
        if isinstance(filters, launch_wgmma_fp32_sm90.PackedFilters):
            return launch_wgmma_fp32_sm90.conv3x3_relu(
                x, filters, out=out, relu_mask=relu_mask, pooling=pooling, pooled=pooled, pool_argmax=pool_argmax,
                workspace=workspace, target=self._target,
            )  # fmt: skip
        return super().conv3x3_relu(x, filters, out=out, relu_mask=relu_mask, pooling=pooling, pooled=pooled,
                                    pool_argmax=pool_argmax, workspace=workspace)  # fmt: skip

    def conv3x3_input_gradient(self, gradient: Array, filters: Filters, *, out: Array, relu_mask: Array | None,
                               accumulate: bool, workspace: Array | None) -> list[Launch]:  # fmt: skip
        if isinstance(filters, launch_wgmma_sm90.PackedFilters):
            return launch_wgmma_sm90.conv3x3_input_gradient(
                gradient, filters, out=out, relu_mask=relu_mask, accumulate=accumulate, workspace=workspace,
                target=self._target,
            )  # fmt: skip
        if isinstance(filters, launch_wgmma_fp32_sm90.PackedFilters):
            return launch_wgmma_fp32_sm90.conv3x3_input_gradient(
                gradient, filters, out=out, relu_mask=relu_mask, accumulate=accumulate, workspace=workspace,
                target=self._target,
            )  # fmt: skip
        return super().conv3x3_input_gradient(
            gradient, filters, out=out, relu_mask=relu_mask, accumulate=accumulate, workspace=workspace
        )


class WgmmaKernels(OnHopper, Mma16BitKernels):
    """Activations in 16 bits on Hopper: all but the image's convolution and weighted Grams by wgmma and TMA."""

    def __init__(self, runtime: Runtime, precision: str) -> None:
        super().__init__(runtime, precision)
        self._unpooling = (problem := self_test.known_problem(runtime, as_half(precision), "unpooling")) is None
        if problem:
            _log.warning("pools are gone back through by launches of their own: %s", problem)

    @classmethod
    def problem_with(cls, runtime: Runtime, precision: str) -> str | None:
        return self_test.known_problem(runtime, as_half(precision))

    def conv_workspace_bytes(self, height: int, width: int, channels_in: int, channels_out: int) -> int:
        if not launch_wgmma_sm90.serves(channels_in, channels_out):
            return super().conv_workspace_bytes(height, width, channels_in, channels_out)
        return launch_wgmma_sm90.workspace_bytes(height, width, channels_in, channels_out)

    def gram_workspace_bytes(self, height: int, width: int, channels: int) -> int:
        needed = super().gram_workspace_bytes(height, width, channels)
        if gram_wgmma_sm90.serves(channels):
            return max(needed, gram_wgmma_sm90.gram_workspace_bytes(height, width, channels))
        return needed

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        if not launch_wgmma_sm90.serves(*kernel.shape[2:]):
            return super().pack_filters(kernel, bias)
        return launch_wgmma_sm90.pack_filters(kernel, bias, as_half(self.precision))

    def carries_style(self, filters: Filters) -> StylePlace | None:
        """In bf16: fp16 wants a scale for every column of the difference."""
        if self.precision != "bf16" or not isinstance(filters, launch_wgmma_sm90.PackedFilters):
            return None
        return "in place" if filters.channels_in <= launch_wgmma_sm90.IN_PLACE_CHANNELS else "beside"

    def input_gradient(self, gradient: Array, filters: Filters, features: Array | None, gram_error: Array | None, *,
                       out: Array, relu_mask: Array | None, accumulate: bool, workspace: Array,
                       loss_scale: float) -> list[Launch]:  # fmt: skip
        apart = features is None or gram_error is None or self.carries_style(filters) is None
        if apart or not isinstance(filters, launch_wgmma_sm90.PackedFilters):
            return super().input_gradient(
                gradient, filters, features, gram_error, out=out, relu_mask=relu_mask, accumulate=accumulate,
                workspace=workspace, loss_scale=loss_scale,
            )  # fmt: skip
        return launch_wgmma_sm90.conv3x3_input_gradient(
            gradient, filters, out=out, relu_mask=relu_mask, accumulate=accumulate, workspace=workspace,
            target=self._target, style=(features, gram_error),
        )  # fmt: skip

    def unpools(self, filters: Filters) -> bool:
        return self._unpooling and isinstance(filters, launch_wgmma_sm90.PackedFilters)

    def unpooled_gradient(self, gradient: Array, filters: Any, *, out: Array, relu_mask: Array, pool_argmax: Array,
                          workspace: Array) -> list[Launch]:  # fmt: skip
        return unpooling.conv3x3_unpooled_gradient(
            gradient, filters, out=out, relu_mask=relu_mask, pool_argmax=pool_argmax, workspace=workspace,
            target=self._target,
        )  # fmt: skip

    def gram(self, features: Array, out: Array, weights: Array | None, workspace: Array) -> list[Launch]:
        if weights is not None or not gram_wgmma_sm90.serves(features.shape[2]):
            return super().gram(features, out, weights, workspace)
        return gram_wgmma_sm90.gram(features, out, workspace, self._target)


class WgmmaFloat32Kernels(OnHopper):
    """Activations in float32 on Hopper: convolutions by wgmma and TMA, Grams and the rest as before."""

    @classmethod
    def problem_with(cls, runtime: Runtime, precision: str) -> str | None:
        return self_test.known_problem(runtime, precision)

    def conv_workspace_bytes(self, height: int, width: int, channels_in: int, channels_out: int) -> int:
        if not launch_wgmma_fp32_sm90.serves(channels_in, channels_out):
            return super().conv_workspace_bytes(height, width, channels_in, channels_out)
        precision = launch_wgmma_fp32_sm90.as_precision(self.precision)
        return launch_wgmma_fp32_sm90.workspace_bytes(height, width, channels_in, channels_out, precision)

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        if not launch_wgmma_fp32_sm90.serves(*kernel.shape[2:]):
            return super().pack_filters(kernel, bias)
        precision = launch_wgmma_fp32_sm90.as_precision(self.precision)
        return launch_wgmma_fp32_sm90.pack_filters(kernel, bias, precision)


KERNEL_SETS: dict[str, type[SimtKernels]] = {
    kind.__name__: kind for kind in (SimtKernels, MmaKernels, WgmmaFloat32Kernels, Mma16BitKernels, WgmmaKernels)
}
"""By the name that `precisions` calls them."""


def choose_kernels(runtime: Runtime, precision: str, wgmma: bool | None = None) -> SimtKernels:
    """The set for a precision, or for "auto", on the GPU of this runtime.

    wgmma: whether kernels that are slow to emulate are taken; None takes them on a GPU alone. Raises DeviceError for a
    precision that there is not, or not on this GPU; a set that fails its test is passed over, with a warning.
    """
    capability, emulated = runtime.spec.capability, not runtime.measurable
    if precision == "auto":
        # An emulated tensor core is slower than an emulated multiplication, and whoever asks the emulator for nothing
        # in particular wants to see what is wrong, rather than what is rounded.
        fits = any(row.least <= capability <= row.most for row in PRECISIONS[AUTO].kernel_sets)
        precision = AUTO if fits and not emulated else "fp32"
    *others, last = on_gpus()
    if precision not in (*others, last):
        known = f"{', '.join(others)} or {last}"
        raise DeviceError(f"the {runtime.name} device has no precision {precision!r}; choose {known}")
    rows = [row for row in PRECISIONS[precision].kernel_sets if row.least <= capability <= row.most]
    if not rows:
        raise DeviceError(f"this GPU's tensor cores know no {precision}; choose fp32")
    wanted = not emulated if wgmma is None else wgmma
    for row in reversed(rows):
        kernels = KERNEL_SETS[row.name]
        if not (wanted or kernels.by_default_emulated):
            continue
        if problem := kernels.problem_with(runtime, precision):
            _log.warning("the wgmma kernels are not used, but slower ones: %s", problem)
            continue
        return kernels(runtime, precision)
    raise DeviceError(f"no kernels for {precision} work here; choose fp32")
