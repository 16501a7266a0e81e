"""The seam between the engine and whatever computes: the `Device` protocol, and nothing else; `open` picks one.

The engine is written once against these operations. Every one writes into buffers that its caller planned beforehand,
so nothing is allocated in the loop; every one has the same meaning on every device, and `kernels.reference` is that
meaning in a few lines of NumPy. How a device computes, packs its filters or stores its masks is its own business.

Shapes. An image is (H, W, 3); activations are (H, W, C), channels contiguous, batch 1. A `relu_mask` says where a ReLU
let its input through, a `pool_argmax` which of four pixels a max pool took; their layouts belong to the device
(`relu_mask_layout`, `pool_argmax_layout`). A `cost` is a view of one element of a vector on the device. `weights` of
pixels are (H, W), of image_dtype, with a mean of one; None stands for ones. `accumulate` adds to what an output holds;
it never concerns a cost. Nothing written may overlap anything read, except where an operation says so.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    A = TypeVar("A", default=Any)
else:
    from typing import TypeVar

    A = TypeVar("A")
"""A device's arrays: numpy.ndarray, or cupy.ndarray. `Device` without it is any device."""

Array = Any  # of whichever device is at hand, where code is written for all of them
Filters = Any  # a convolution's weights, packed the way a device likes them
Layout = tuple[tuple[int, ...], np.dtype[Any]]
StylePlace = Literal["beside", "in place"]
Pooling = Literal["max", "average"]

W2_SCRATCH = 5  # matrices of scratch memory for `w2_root` and `w2_cost`
MOST_VECTORS = 64  # in one `dots` or `combine`
MOST_DIRECTIONS = 256  # in one `sliced_cost`
FLAT = 1e-5
"""Features no further from their mean than this share of their own length have no direction: rounding decides it."""


class OneByOne:
    """A device whose operations are done when they return, one after the other, on arrays of NumPy's."""

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def unpools(self, filters: Any) -> bool:  # noqa: ARG002
        return False

    def conv3x3_unpooled_gradient(
        self, gradient: Any, filters: Any, *, out: Any, relu_mask: Any, pool_argmax: Any
    ) -> None:
        device: Any = self
        pooled = np.empty((out.shape[0] // 2, out.shape[1] // 2, out.shape[2]), out.dtype)
        device.conv3x3_input_gradient(gradient, filters, out=pooled, relu_mask=None, accumulate=False)
        device.pool_input_gradient(
            pooled, pooling="max", pool_argmax=pool_argmax, out=out, relu_mask=relu_mask, accumulate=False
        )


class Device(Protocol[A]):
    """Some forty fused operations. All scalars are Python floats; all reductions run in a fixed order."""

    name: str
    precision: str
    activation_dtype: np.dtype[Any]
    """Of activations and the gradients with respect to them. In 16 bits bf16 is uint16, `download` gives float32, and
    what a gradient is multiplied by meanwhile is the device's business."""
    image_dtype: np.dtype[Any]
    """Of images, the network's input, gradients with respect to both, Grams, costs and optimiser state."""
    loss_scale: float
    """By how much gradients within the network are larger than they are, a power of two; known to the operations that
    lead in and out."""

    measurable: bool
    """Whether the time that it takes says anything: not of an emulated GPU."""
    in_host_memory: bool
    """Whether any NumPy array will do, one that lies in a mapped file too."""

    @property
    def stream(self) -> "Stream[A] | None":
        """None where an operation is done when it returns."""

    def together(self) -> AbstractContextManager[None]:
        """Until it ends, the device may hold back what it is asked for, to do several operations as one: their results
        are there once it has ended. Costs of styles, and a content cost and its gradient, must not depend on each other
        but by what they accumulate to."""

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> A:
        """One block of device memory as uint8; the engine cuts it into buffers. Raises MemoryError."""

    def free_bytes(self) -> int | None:
        """Device memory that could still be allocated; None where it is the host's."""

    def upload(self, values: NDArray[Any], out: A) -> None:
        """out := values, from host memory, converted to out's dtype."""

    def download(self, values: A) -> NDArray[Any]:
        """A copy in host memory; waits for what is under way."""

    def copy(self, values: A, out: A) -> None:
        """out := values, both on the device; either may be a window of rows and columns of something larger."""

    def zero(self, out: A) -> None:
        """out := 0."""

    def relu_mask_layout(self, shape: tuple[int, int, int]) -> Layout:
        """Shape and dtype of the relu_mask of activations of this shape."""

    def pool_argmax_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        """Shape and dtype of the choices of a max pool with this output."""

    def unpack_relu_mask(self, relu_mask: A, channels: int) -> NDArray[np.bool_]:
        """A relu_mask as (H, W, channels) booleans in host memory, to look at."""

    def unpack_pool_argmax(self, pool_argmax: A, channels: int) -> NDArray[np.uint8]:
        """Choices as (H, W, channels) in host memory, each 2 r + s of the pixel chosen, to look at."""

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]],
                        searches: Sequence[tuple[int, int, int, int]] = ()) -> int:  # fmt: skip
        """Scratch memory needed at most by any operation on a network of these (H, W, C_in, C_out), and by
        `nearest_neighbors` of features (H, W, C) among M candidates, (H, W, C, M) each."""

    def bind_workspace(self, workspace: A) -> None:
        """Gives the device its scratch memory: uint8, at least `workspace_bytes` long."""

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Filters:
        """Prepares a (3, 3, C_in, C_out) kernel and its (C_out,) bias for both directions."""

    # ---- measuring ----------------------------------------------------------------------------------------------
    def elapsed(self, work: Callable[[], object]) -> float:
        """Seconds that the device takes for what `work` asks of it."""

    def roofline(self) -> tuple[float, float] | None:
        """FLOP/s and bytes/s that this device can reach at best; None where time says nothing."""

    # ---- the network --------------------------------------------------------------------------------------------
    def preprocess(self, image: A, channels: Sequence[int], scale: Sequence[float],
                   shift: Sequence[float], out: A) -> None:  # fmt: skip
        """out[..., k] := image[..., channels[k]] * scale[k] + shift[k]."""

    def preprocess_gradient(self, gradient: A, channels: Sequence[int], scale: Sequence[float],
                            out: A) -> None:  # fmt: skip
        """out[..., channels[k]] := gradient[..., k] * scale[k]."""

    def conv3x3_relu(self, x: A, filters: Filters, *, out: A | None, relu_mask: A | None, pooling: Pooling,
                     pooled: A | None, pool_argmax: A | None) -> None:  # fmt: skip
        """y := relu(conv(x, kernel) + bias), zero padding 1; out := y; relu_mask := y > 0; pooled := pool2x2(y).

        Outputs that are None are not wanted. `pool_argmax` belongs to max pooling alone.
        """

    def conv3x3_input_gradient(self, gradient: A, filters: Filters, *, out: A, relu_mask: A | None, accumulate: bool,
                               features: A | None = None, gram_error: A | None = None) -> None:  # fmt: skip
        """out := (conv^T(gradient, kernel) [+ features gram_error] [+ out]) [* relu_mask].

        features like `out`, gram_error (C, C) of image_dtype and symmetric: as `style_gradient` has them, both or none.
        """

    def carries_style(self, filters: Filters) -> StylePlace | None:
        """Whether `conv3x3_input_gradient` through these filters does better to take a style along than to add to what
        `style_gradient` has written, and if so whether `out` may be the features themselves."""

    def unpools(self, filters: Filters) -> bool:
        """Whether `conv3x3_unpooled_gradient` through these filters does better than its two parts."""

    def conv3x3_unpooled_gradient(self, gradient: A, filters: Filters, *, out: A, relu_mask: A, pool_argmax: A) -> None:
        """out (H, W, C) := pool^T(conv^T(gradient, kernel)) * relu_mask, for max pooling and a gradient of
        (H / 2, W / 2, K): `conv3x3_input_gradient` and `pool_input_gradient`. Only where `unpools` says so."""

    def pool2x2(self, x: A, *, pooling: Pooling, out: A, pool_argmax: A | None) -> None:
        """out := pool2x2(x), where no convolution does it on the way. `pool_argmax` as there."""

    def pool_input_gradient(self, gradient: A, *, pooling: Pooling, pool_argmax: A | None, out: A,
                            relu_mask: A, accumulate: bool) -> None:  # fmt: skip
        """out := (pool^T(gradient) [+ out]) * relu_mask."""

    def relu_gradient(self, gradient: A, relu_mask: A) -> None:
        """gradient := gradient * relu_mask, in place."""

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: A, out: A, *, weights: A | None = None) -> None:
        """out (C, C) := F^T diag(weights) F / (H W), F the features as (H W, C)."""

    def mean(self, features: A, out: A, *, weights: A | None = None) -> None:
        """out (C,) := the weighted mean over the pixels, sum_p weights[p] F[p] / (H W)."""

    def style_cost(self, gram: A, target: A, scale: float, *, cost: A, gram_error: A,
                   accumulate: bool = False) -> None:  # fmt: skip
        """cost := 1/(4 C^2) sum (gram - target)^2; gram_error := scale * (gram - target) [+ gram_error]."""

    def moments_cost(self, gram: A, mean: A, target_gram: A, target_mean: A, scale: float, *,
                     cost: A, gram_error: A, mean_error: A, accumulate: bool = False) -> None:  # fmt: skip
        """cost := 1/(4 C^2) (sum dS^2 + sum dM^2), where M = mean mean^T, S = gram - M, and dS and dM are the
        differences from the same of the target; gram_error := scale * dS [+ gram_error];
        mean_error (C,) := scale * (dM - dS) mean [+ mean_error]. `style_gradient` with both is the gradient."""

    def w2_root(self, gram: A, mean: A, ridge: float, out: A, *, scratch: A) -> None:
        """out (C, C) := (gram - mean mean^T + ridge I)^(1/2), the root of a covariance, for `w2_cost`.

        scratch (W2_SCRATCH, C, C) of image_dtype. The ridge stands for the eigenvalues that rounding has lost: 1e-3 of
        the mean variance is enough for float32, and never less than 1e-4 of the mean of the gram's diagonal.
        """

    def w2_cost(self, gram: A, mean: A, target_root: A, target_mean: A, ridge: float, scale: float, *,
                cost: A, gram_error: A, mean_error: A, scratch: A,
                accumulate: bool = False) -> None:  # fmt: skip
        """The squared 2-Wasserstein distance of normal distributions, divided by C, with S = gram - mean mean^T +
        ridge I, R = target_root of the same ridge and Q = R S R:

            cost := 1/C (|mean - target_mean|^2 + tr S + tr R^2 - 2 tr Q^(1/2))
            E = I - R Q^(-1/2) R
            gram_error := scale * E [+ gram_error]
            mean_error (C,) := scale * (mean - target_mean - E mean) [+ mean_error]

        scratch (W2_SCRATCH, C, C) of image_dtype.
        """

    def style_gradient(self, features: A, gram_error: A, *, out: A, accumulate: bool,
                       mean_error: A | None = None, weights: A | None = None) -> None:  # fmt: skip
        """out[p] := weights[p] (features[p] gram_error + mean_error) [+ out[p]]; a mean_error of None is zero."""

    def content_cost(self, features: A, target: A, scale: float, *, cost: A,
                     weights: A | None = None) -> None:  # fmt: skip
        """cost := scale * 1/2 sum_p weights[p] |features[p] - target[p]|^2."""

    def content_gradient(self, features: A, target: A, scale: float, *, out: A, accumulate: bool,
                         weights: A | None = None) -> None:  # fmt: skip
        """out[p] := scale * weights[p] (features[p] - target[p]) [+ out[p]]."""

    # ---- neighbors: features are compared by their direction from a mean (C,), cos(a, b) = <a, b> / (|a| |b|) -------
    def normalize_features(self, features: A, mean: A, out: A) -> None:
        """out[p] := u(p), the direction (features[p] - mean) / |features[p] - mean|; 0 where that length is at most
        FLAT |features[p]|. As (H W, C) they are candidates of `nearest_neighbors`."""

    def nearest_neighbors(self, features: A, mean: A, candidates: A, out: A) -> None:
        """out (H, W), int32 := argmax_j <features[p] - mean, candidates[j]>, of equals the lowest j.

        candidates (M, C), of activation_dtype, finite, M below 2^31. Candidates whose products differ by no more than
        rounding may take each other's place. Features that are not finite get some j from 0 to M - 1.
        """

    def neighbors_cost(self, features: A, mean: A, candidates: A, matches: A, scale: float, *, cost: A,
                       weights: A | None = None) -> None:  # fmt: skip
        """cost := scale * sum_p weights[p] (1 - <u(p), s(p)>), s(p) = candidates[matches[p]] of unit length or 0,
        matches (H, W) int32 from `nearest_neighbors`: the cosine distance to what was matched."""

    def neighbors_gradient(self, features: A, mean: A, candidates: A, matches: A, scale: float, *, out: A,
                           accumulate: bool, weights: A | None = None) -> None:  # fmt: skip
        """out[p] := scale * weights[p] (<u, s> u - s) / |features[p] - mean| [+ out[p]], and 0 where u is: the gradient
        of `neighbors_cost` with mean and matches held fixed."""

    # ---- total variation ----------------------------------------------------------------------------------------
    def tv_cost(self, image: A, scale: float, *, cost: A, gradient: A) -> None:
        """cost := mean (horizontal difference)^2 + mean (vertical difference)^2; gradient += scale * its gradient."""

    # ---- the sliced Wasserstein distance: K directions, N = H W pixels ------------------------------------------
    def random_directions(self, seed: int, counter: A, out: A) -> None:
        """out (K, C) of image_dtype := K unit vectors at random, a function of seed and counter[0] that is the same, in
        float32 bit for bit, on every device (`kernels.random`).

        counter (1,), int32, is only read, when the operation is carried out: a captured graph draws others each time.
        0 <= seed < 2^64.
        """

    def project(self, features: A, directions: A, out: A) -> None:
        """out (K, N) of image_dtype := directions F^T, F the features as (N, C)."""

    def sort_scratch_bytes(self, rows: int, length: int) -> int:
        """Scratch memory for `sort_rows` to sort so many rows at a time."""

    def sort_rows(self, values: A, order: A | None, *, scratch: A) -> None:
        """values (K, N) of image_dtype := each row sorted, rising, NaN last; order (K, N), int32, := the place in its
        row that each came from. Stable; -0 counts as 0, and becomes it.

        scratch: uint8, `sort_scratch_bytes(rows, N)` long for some number of rows, one at least.
        """

    def sliced_cost(self, values: A, order: A, target: A, scale: float, *, cost: A, residual: A,
                    weights: A | None = None, accumulate: bool = False) -> None:  # fmt: skip
        """The squared distance of sorted projections to a target's, with K up to MOST_DIRECTIONS:

            p = order[k, i], the pixel;  u = (w[p] / 2 + sum of w before it in the row) / N, its rank in (0, 1)
            d = values[k, i] - T_k(u), T_k through ((j + 1/2) / M, target[k, j]), straight between, level beyond
            cost := 1/(N K) sum_{k,i} w[p] d^2
            residual[k, p] := scale * w[p] d [+ residual[k, p]]

        values and order (K, N) from `sort_rows`, target (K, M) sorted likewise, residual (K, N) in the pixels' order.
        With a scale of 2/(N K), `sliced_gradient` of the residual is the cost's gradient, order and directions fixed.
        """

    def sliced_gradient(self, residual: A, directions: A, *, out: A, accumulate: bool) -> None:
        """out (H, W, C) := residual^T directions [+ out], residual (K, N)."""

    # ---- pixels -------------------------------------------------------------------------------------------------
    def adam_step(self, image: A, gradient: A, first: A, second: A, step: A, *,
                  learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        """One step of Adam in place, pixels clamped to [0, 1]; `step` (int32, one element) counts on the device."""

    def adam_iteration(self, image: A, gradient: A, first: A, second: A, step: A, average: A,
                       good: A, *, costs: A, ring: A, progress: A, weights: A,
                       learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        """ring[progress[0] % len(ring)] := costs, and if all of them are finite, progress[0] goes up by one and

            good := image; `adam_step`; `blend` of image into average by weights[progress[0] - 1]

        If not, progress[1] := 0. Where progress[1] is 0 to begin with, nothing happens. progress is int32, (2,); ring
        is (places, n) for costs (n,).
        """

    def descent_step(self, image: A, gradient: A, *, learning_rate: float) -> None:
        """image := clamp(image - learning_rate * gradient)."""

    def clamped_step(self, image: A, direction: A, step: float, out: A) -> None:
        """out := clamp(image + step * direction). `out` may be one of the two."""

    def project_gradient(self, image: A, gradient: A, out: A) -> None:
        """out := gradient, but 0 where a step against it would leave [0, 1]: image <= 0 and gradient > 0, or image >= 1
        and gradient < 0. `out` may be `gradient`."""

    def weigh(self, image: A, weights: A) -> None:
        """image[i, j] := image[i, j] * weights[i, j], in place; weights (H, W) are given."""

    def clamp(self, image: A) -> None:
        """image := min(max(image, 0), 1), in place."""

    def resize(self, image: A, out: A) -> None:
        """Separable Lanczos-3 with the pixel centres aligned; antialiased when shrinking. May overshoot."""

    def pad_edge(self, image: A, out: A) -> None:
        """out (H + 2 b, W + 2 b, 3) := image (H, W, 3), and b more pixels on every side, copies of the nearest."""

    def pad_edge_gradient(self, gradient: A, out: A) -> None:
        """out (H, W, 3) := pad_edge^T(gradient), gradient (H + 2 b, W + 2 b, 3): a pixel takes its copies' shares."""

    # ---- vectors: of any one shape, of image_dtype --------------------------------------------------------------
    def blend(self, values: A, weight: float, out: A) -> None:
        """out := out + weight * (values - out)."""

    def dots(self, vectors: A, values: A, out: A) -> None:
        """out (K,) := vectors (K, n) times values (n,), K from 1 to MOST_VECTORS."""

    def combine(self, vectors: A, coefficients: Sequence[float], out: A) -> None:
        """out (n,) := sum_k coefficients[k] * vectors[k], vectors (K, n), K likewise."""


class Stream(Protocol[A]):
    """Operations asked for ahead of the host: a runtime's queue, with its graphs, events and pinned memory."""

    def capture(self, work: Callable[[], object]) -> Callable[[], None]:
        """Calls `work` without carrying out what it asks for; returns a function that asks for all of that at once.

        In `work` nothing may be allocated, uploaded or downloaded, and the buffers it uses must outlive the function.
        """

    def record_event(self) -> Callable[[], None]:
        """Returns a function that waits for all that has been asked for until now."""

    def download_async(self, values: A) -> Callable[[], NDArray[Any]]:
        """The values (contiguous) as they are once what has been asked for until now is done: returns a function that
        waits for them, in any thread. What is asked for meanwhile goes on."""

    def alloc_pinned_mapped(self, nbytes: int) -> tuple[A, NDArray[np.uint8]]:
        """Host memory that the device writes and the host reads, as each of them sees it, uint8."""
