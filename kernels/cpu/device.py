"""The same operations on NumPy and its BLAS, in float32, made fast and frugal.

Every operation is cut into items of work that fit a core's cache (strips of rows, or of 4x4 tiles), and a few threads
take them one by one; an item is gathered, multiplied and finished (bias, ReLU, mask, pool) before the next. Masks and
choices are bits. `kernels.device` has the contracts, `kernels.reference` the formulas, `kernels.winograd` the
transforms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..device import Layout, OneByOne, Pooling, StylePlace
from ..errors import DeviceError
from ..timing import host_roofline, seconds_of
from . import moments, resizing, wasserstein
from .bits import Bits, byte_count, chosen_corners, pack, pool_squares, unpack, words
from .convolution import winograd
from .convolution.convolve import convolve
from .convolution.filters import CpuFilters, pack_filters
from .convolution.strips import Strip, scratch
from .neighbors import NeighborOperations
from .sums import blocks_of, squares, squares_by_row, store, weighted_squares
from .thread_pool import Workers, check_threads, default_count
from .wasserstein import SlicedOperations

Floats = NDArray[np.float32]

DOT_TERMS = 16384  # are added up in float32; sums of those, in float64

FORWARD, BACKWARD = winograd.transforms()


class Cpu(OneByOne, NeighborOperations, SlicedOperations):
    """NumPy made to work. `precision` is "fp32"; `threads` None takes every core this process may use."""

    name = "cpu"
    precision = "fp32"
    activation_dtype = image_dtype = np.dtype(np.float32)
    loss_scale, measurable, in_host_memory, stream = 1.0, True, True, None

    def __init__(self, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in ("auto", "fp32"):
            raise DeviceError(f"the cpu device has no precision {precision!r}; choose fp32")
        check_threads(threads)
        self._workers = Workers(default_count() if threads is None else threads)
        self._workspace = np.empty(0, np.float32)

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> NDArray[np.uint8]:
        return np.empty(nbytes, np.uint8)

    def free_bytes(self) -> int | None:
        return None

    def upload(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        out[...] = values

    def download(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.copy()

    def copy(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        out[...] = values

    def zero(self, out: NDArray[Any]) -> None:
        out[...] = 0

    def relu_mask_layout(self, shape: tuple[int, int, int]) -> Layout:
        height, width, channels = shape
        return (height, width, byte_count(channels)), np.dtype(np.uint8)

    def pool_argmax_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        """Two planes of bits: which row of the square, and which column."""
        height, width, channels = pooled_shape
        return (2, height, width, byte_count(channels)), np.dtype(np.uint8)

    def unpack_relu_mask(self, relu_mask: Bits, channels: int) -> NDArray[np.bool_]:
        return unpack(relu_mask, channels)

    def unpack_pool_argmax(self, pool_argmax: Bits, channels: int) -> NDArray[np.uint8]:
        row, column = (unpack(plane, channels).view(np.uint8) for plane in pool_argmax)
        return 2 * row + column

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]],
                        searches: Sequence[tuple[int, int, int, int]] = ()) -> int:  # fmt: skip # noqa: ARG002
        most = 0
        for height, width, channels_in, channels_out in convolutions:
            for c, k in ((channels_in, channels_out), (channels_out, channels_in)):
                most = max(most, scratch(height, width, c, k, self._workers.count).total)
            most = max(most, moments.gram_parts(height * width) * channels_out**2)
        return 4 * most

    def bind_workspace(self, workspace: NDArray[np.uint8]) -> None:
        self._workspace = workspace.view(np.float32)

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> CpuFilters:
        return pack_filters(kernel, bias)

    # ---- measuring ----------------------------------------------------------------------------------------------
    def elapsed(self, work: Callable[[], object]) -> float:
        return seconds_of(work)

    def roofline(self) -> tuple[float, float] | None:
        return host_roofline(self.activation_dtype)

    # ---- the network --------------------------------------------------------------------------------------------
    def preprocess(self, image: Floats, channels: Sequence[int], scale: Sequence[float],
                   shift: Sequence[float], out: Floats) -> None:  # fmt: skip
        for k, channel in enumerate(channels):
            np.multiply(image[..., channel], np.float32(scale[k]), out=out[..., k])
            out[..., k] += np.float32(shift[k])

    def preprocess_gradient(self, gradient: Floats, channels: Sequence[int], scale: Sequence[float],
                            out: Floats) -> None:  # fmt: skip
        for k, channel in enumerate(channels):
            np.multiply(gradient[..., k], np.float32(scale[k]), out=out[..., channel])

    def conv3x3_relu(self, x: Floats, filters: CpuFilters, *, out: Floats | None, relu_mask: Bits | None,
                     pooling: Pooling, pooled: Floats | None, pool_argmax: Bits | None) -> None:  # fmt: skip
        biases = np.tile(filters.bias, x.shape[1])
        zeros = np.zeros_like(biases)

        def finish(strip: Strip, y: Floats) -> None:
            rows = y.reshape(len(y), -1)
            rows += biases[: rows.shape[1]]  # in long rows, since adding channel by channel is five times slower
            np.maximum(rows, zeros[: rows.shape[1]], out=rows)  # NumPy vectorises this for an array, not for a scalar
            if relu_mask is not None:
                relu_mask[strip.window] = pack(y > 0)
            if pooled is not None:
                rows_of, columns_of = strip.pooled
                chosen = None if pool_argmax is None else pool_argmax[:, rows_of, columns_of]
                pool_squares(y, pooling, pooled[rows_of, columns_of], chosen)

        convolve(x, filters.method, filters.forward, FORWARD, out, len(filters.bias), finish, self._workers,
                 self._workspace)  # fmt: skip

    def conv3x3_input_gradient(self, gradient: Floats, filters: CpuFilters, *, out: Floats,
                               relu_mask: Bits | None, accumulate: bool, features: Floats | None = None,
                               gram_error: Floats | None = None) -> None:  # fmt: skip
        if features is not None and gram_error is not None:
            self.style_gradient(features, gram_error, out=out, accumulate=accumulate)
            accumulate = True

        def finish(strip: Strip, y: Floats) -> None:
            own = out[strip.window]
            if accumulate:
                own += y
            if relu_mask is not None:
                own *= unpack(relu_mask[strip.window], out.shape[2])

        target = None if accumulate else out
        transform = BACKWARD if filters.method == "squares" else FORWARD
        turned = filters.forward.swapaxes(1, 2) if filters.backward is None else filters.backward
        convolve(gradient, filters.method, turned, transform, target, out.shape[2], finish, self._workers,
                 self._workspace)  # fmt: skip

    def carries_style(self, filters: CpuFilters) -> StylePlace | None:  # noqa: ARG002
        """A product of its own is as good."""
        return None

    def pool2x2(self, x: Floats, *, pooling: Pooling, out: Floats, pool_argmax: Bits | None) -> None:
        def task(_: int, rows: slice) -> None:
            chosen = None if pool_argmax is None else pool_argmax[:, rows]
            pool_squares(x[2 * rows.start : 2 * rows.stop], pooling, out[rows], chosen)

        self._workers.run(task, blocks_of(out, self._workers.count))

    def pool_input_gradient(self, gradient: Floats, *, pooling: Pooling, pool_argmax: Bits | None,
                            out: Floats, relu_mask: Bits, accumulate: bool) -> None:  # fmt: skip
        height, width, channels = gradient.shape

        def squares_of(values: NDArray[Any], rows: slice) -> NDArray[Any]:
            """(2, 2, rows, W, ...), a corner of every square after the other."""
            tall = values[2 * rows.start : 2 * rows.stop, : 2 * width]
            return tall.reshape(-1, 2, width, 2, values.shape[2]).transpose(1, 3, 0, 2, 4)

        def task(_: int, rows: slice) -> None:
            places, share = squares_of(out, rows), gradient[rows]
            if pooling == "average":
                share, let = share * np.float32(0.25), squares_of(words(relu_mask), rows).copy()
            else:
                assert pool_argmax is not None
                let = chosen_corners(*words(pool_argmax[:, rows]))
                let &= squares_of(words(relu_mask), rows)
            if accumulate:
                places += share * unpack(let.view(np.uint8), channels)
            else:
                np.multiply(share, unpack(let.view(np.uint8), channels), out=places)

        if accumulate:  # what was there is masked as a whole
            self.relu_gradient(out, relu_mask)
        else:
            out[2 * height :] = 0
            out[:, 2 * width :] = 0
        self._workers.run(task, blocks_of(gradient, self._workers.count))

    def relu_gradient(self, gradient: Floats, relu_mask: Bits) -> None:
        def task(_: int, rows: slice) -> None:
            gradient[rows] *= unpack(relu_mask[rows], gradient.shape[2])

        self._workers.run(task, blocks_of(gradient, self._workers.count))

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Floats, out: Floats, *, weights: Floats | None = None) -> None:
        moments.gram(features, weights, out, self._workers, self._workspace)

    def mean(self, features: Floats, out: Floats, *, weights: Floats | None = None) -> None:
        moments.mean(features, weights, out, self._workers)

    def style_cost(self, gram: Floats, target: Floats, scale: float, *, cost: Floats, gram_error: Floats,
                   accumulate: bool = False) -> None:  # fmt: skip
        change = gram - target
        cost[...] = squares(change) / (4 * len(gram) ** 2)
        change *= np.float32(scale)
        store(change, gram_error, accumulate)

    def moments_cost(self, gram: Floats, mean: Floats, target_gram: Floats, target_mean: Floats, scale: float, *,
                     cost: Floats, gram_error: Floats, mean_error: Floats,
                     accumulate: bool = False) -> None:  # fmt: skip
        outers = np.outer(mean, mean)
        outers -= np.outer(target_mean, target_mean)
        covariances = gram - target_gram
        covariances -= outers
        cost[...] = (squares(covariances) + squares(outers)) / (4 * len(gram) ** 2)
        outers -= covariances
        store(np.float32(scale) * (outers @ mean), mean_error, accumulate)
        covariances *= np.float32(scale)
        store(covariances, gram_error, accumulate)

    def w2_root(self, gram: Floats, mean: Floats, ridge: float, out: Floats, *, scratch: Floats) -> None:  # noqa: ARG002
        wasserstein.w2_root(gram, mean, ridge, out)

    def w2_cost(self, gram: Floats, mean: Floats, target_root: Floats, target_mean: Floats, ridge: float,
                scale: float, *, cost: Floats, gram_error: Floats, mean_error: Floats,
                scratch: Floats, accumulate: bool = False) -> None:  # fmt: skip # noqa: ARG002
        wasserstein.w2_cost(gram, mean, target_root, target_mean, ridge, scale, cost=cost, gram_error=gram_error,
                            mean_error=mean_error, accumulate=accumulate)  # fmt: skip

    def style_gradient(self, features: Floats, gram_error: Floats, *, out: Floats, accumulate: bool,
                       mean_error: Floats | None = None, weights: Floats | None = None) -> None:  # fmt: skip
        flat, result = (a.reshape(-1, features.shape[2]) for a in (features, out))
        column = None if weights is None else weights.reshape(-1, 1)

        def task(_: int, rows: slice) -> None:
            target = np.matmul(flat[rows], gram_error, out=None if accumulate else result[rows])
            if mean_error is not None:
                target += mean_error
            if column is not None:
                target *= column[rows]
            if accumulate:
                result[rows] += target

        self._workers.run(task, blocks_of(flat, self._workers.count, work=features.shape[2] / 32))

    def content_cost(self, features: Floats, target: Floats, scale: float, *, cost: Floats,
                     weights: Floats | None = None) -> None:  # fmt: skip
        blocks = blocks_of(features)
        sums = [0.0] * len(blocks)

        def task(_: int, index: int) -> None:
            rows = blocks[index]
            change = features[rows] - target[rows]
            sums[index] = squares(change) if weights is None else weighted_squares(change, weights[rows])

        self._workers.run(task, range(len(blocks)))
        cost[...] = scale / 2 * sum(sums)

    def content_gradient(self, features: Floats, target: Floats, scale: float, *, out: Floats, accumulate: bool,
                         weights: Floats | None = None) -> None:  # fmt: skip
        def task(_: int, rows: slice) -> None:
            change = features[rows] - target[rows]
            change *= np.float32(scale) if weights is None else np.float32(scale) * weights[rows, :, None]
            store(change, out[rows], accumulate)

        self._workers.run(task, blocks_of(features, self._workers.count))

    def tv_cost(self, image: Floats, scale: float, *, cost: Floats, gradient: Floats) -> None:
        height, width, channels = image.shape
        across, down = height * (width - 1) * channels, (height - 1) * width * channels
        sums = np.zeros((2, height))  # of every row, and from it to the next

        def task(_: int, rows: slice) -> None:
            own = gradient[rows]
            change = np.diff(image[rows], axis=1)
            sums[0, rows] = squares_by_row(change)
            change *= np.float32(2 * scale / across)
            own[:, 1:] += change
            own[:, :-1] -= change
            above, below = max(rows.start - 1, 0), min(rows.stop + 1, height)
            change = np.diff(image[above:below], axis=0)
            own_pairs = change[rows.start - above :]
            sums[1, rows.start : rows.start + len(own_pairs)] = squares_by_row(own_pairs)
            change *= np.float32(2 * scale / down)
            own[above + 1 - rows.start :] += change[: rows.stop - 1 - above]
            own[: len(own_pairs)] -= own_pairs

        self._workers.run(task, blocks_of(image, self._workers.count))
        cost[...] = np.sum(sums[0]) / across + np.sum(sums[1, : height - 1]) / down

    # ---- pixels -------------------------------------------------------------------------------------------------
    def adam_step(self, image: Floats, gradient: Floats, first: Floats, second: Floats, step: NDArray[np.int32], *,
                  learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        step += 1
        t = int(step[0])
        rate = np.float32(learning_rate / (1 - beta1**t))
        spread = np.float32(1 / (1 - beta2**t))

        def task(_: int, rows: slice) -> None:
            g, m, v = gradient[rows], first[rows], second[rows]
            m *= np.float32(beta1)
            m += np.float32(1 - beta1) * g
            v *= np.float32(beta2)
            v += np.float32(1 - beta2) * g * g
            image[rows] -= rate * m / (np.sqrt(v * spread) + np.float32(epsilon))
            self.clamp(image[rows])

        self._workers.run(task, blocks_of(image, self._workers.count))

    def adam_iteration(self, image: Floats, gradient: Floats, first: Floats, second: Floats, step: NDArray[np.int32],
                       average: Floats, good: Floats, *, costs: Floats, ring: Floats, progress: NDArray[np.int32],
                       weights: Floats, learning_rate: float, beta1: float, beta2: float,
                       epsilon: float) -> None:  # fmt: skip
        if progress[1] == 0:
            return
        ring[progress[0] % len(ring)] = costs
        if not np.all(np.isfinite(costs)):
            progress[1] = 0
            return
        progress[0] += 1
        good[...] = image
        self.adam_step(image, gradient, first, second, step, learning_rate=learning_rate, beta1=beta1, beta2=beta2,
                       epsilon=epsilon)  # fmt: skip
        self.blend(image, float(weights[progress[0] - 1]), average)

    def descent_step(self, image: Floats, gradient: Floats, *, learning_rate: float) -> None:
        for rows in blocks_of(image):
            image[rows] -= np.float32(learning_rate) * gradient[rows]
        self.clamp(image)

    def clamped_step(self, image: Floats, direction: Floats, step: float, out: Floats) -> None:
        def task(_: int, rows: slice) -> None:
            moved = np.float32(step) * direction[rows]
            moved += image[rows]
            np.clip(moved, 0, 1, out=out[rows])

        self._workers.run(task, blocks_of(image, self._workers.count))

    def project_gradient(self, image: Floats, gradient: Floats, out: Floats) -> None:
        def task(_: int, rows: slice) -> None:
            x, g = image[rows], gradient[rows]
            held = ((x <= 0) & (g > 0)) | ((x >= 1) & (g < 0))
            np.copyto(out[rows], g)
            np.copyto(out[rows], 0, where=held)

        self._workers.run(task, blocks_of(image, self._workers.count))

    def weigh(self, image: Floats, weights: Floats) -> None:
        image *= weights[:, :, None]

    def clamp(self, image: Floats) -> None:
        np.clip(image, 0, 1, out=image)

    def resize(self, image: Floats, out: Floats) -> None:
        resizing.resize(image, out, self._workers)

    def pad_edge(self, image: Floats, out: Floats) -> None:
        resizing.pad_edge(image, out)

    def pad_edge_gradient(self, gradient: Floats, out: Floats) -> None:
        resizing.pad_edge_gradient(gradient, out)

    # ---- vectors ------------------------------------------------------------------------------------------------
    def blend(self, values: Floats, weight: float, out: Floats) -> None:
        def task(_: int, rows: slice) -> None:
            change = values[rows] - out[rows]
            change *= np.float32(weight)
            out[rows] += change

        self._workers.run(task, blocks_of(out, self._workers.count))

    def dots(self, vectors: Floats, values: Floats, out: Floats) -> None:
        blocks = [slice(start, start + DOT_TERMS) for start in range(0, len(values), DOT_TERMS)]
        sums = np.empty((len(blocks), len(vectors)))

        def task(_: int, index: int) -> None:
            sums[index] = vectors[:, blocks[index]] @ values[blocks[index]]

        self._workers.run(task, range(len(blocks)))
        out[...] = np.add.reduce(sums, axis=0)

    def combine(self, vectors: Floats, coefficients: Sequence[float], out: Floats) -> None:
        row = np.asarray(coefficients, np.float32)

        def task(_: int, block: slice) -> None:
            np.matmul(row, vectors[:, block], out=out[block])

        blocks = [slice(start, start + DOT_TERMS) for start in range(0, len(out), DOT_TERMS)]
        self._workers.run(task, blocks)
