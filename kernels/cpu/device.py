"""The same operations on NumPy and its BLAS, in float32, made fast and frugal.

Every operation is cut into items of work that fit a core's cache (strips of rows, or of 4x4 tiles), and a few threads
take them one by one; an item is gathered, multiplied and finished (bias, ReLU, mask, pool) before the next. Masks and
choices are bits. `kernels.device` has the contracts, `kernels.reference` the formulas, `kernels.winograd` the
transforms.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..device import Layout, Pooling
from ..errors import DeviceError
from ..timing import host_roofline, seconds_of
from . import winograd
from .openblas import single_threaded
from .strips import Strip, cut, plain_rows, scratch, tile_rows, tiles_across
from .thread_pool import Workers, check_threads, default_count

Floats = NDArray[np.float32]
Bits = NDArray[np.uint8]

BLOCK_BYTES = 1 << 20  # element-wise work runs in blocks of rows of this size
RESIZE_RUN, RESIZE_BYTES = 64, 8 << 20  # a side of what a resize computes at a time, and half-way there, its bytes
GRAM_PIXELS, GRAM_PARTS = 512, 16  # a Gram is the sum of at most so many parts of at least so many pixels
MEAN_PIXELS, DOT_TERMS = 1024, 16384  # are added up in float32; sums of those, in float64

FORWARD, BACKWARD = winograd.transforms()


class CpuFilters(NamedTuple):
    """Either `transformed` (36, C_in, C_out), which serves both directions, or the operands of plain products,
    `forward` (9, C_in, C_out) and, turned and swapped, `backward` (9, C_out, C_in)."""

    transformed: Floats | None
    forward: Floats | None
    backward: Floats | None
    bias: Floats


Finish = Callable[[Strip, Floats], None]
"""finish(strip, target): does the rest on `target` (h, w, channels), where the convolution was written."""


class Cpu:
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

    def mask_layout(self, shape: tuple[int, int, int]) -> Layout:
        height, width, channels = shape
        return (height, width, _bytes(channels)), np.dtype(np.uint8)

    def choice_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        """Two planes of bits: which row of the square, and which column."""
        height, width, channels = pooled_shape
        return (2, height, width, _bytes(channels)), np.dtype(np.uint8)

    def unpack_mask(self, mask: Bits, channels: int) -> NDArray[np.bool_]:
        return _unpack(mask, channels)

    def unpack_choice(self, choice: Bits, channels: int) -> NDArray[np.uint8]:
        row, column = (_unpack(plane, channels).view(np.uint8) for plane in choice)
        return 2 * row + column

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]]) -> int:
        most = 0
        for height, width, channels_in, channels_out in convolutions:
            for c, k in ((channels_in, channels_out), (channels_out, channels_in)):
                most = max(most, scratch(height, width, c, k, self._workers.count).total)
            most = max(most, _gram_parts(height * width) * channels_out**2)
        return 4 * most

    def bind_workspace(self, workspace: NDArray[np.uint8]) -> None:
        self._workspace = workspace.view(np.float32)

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> CpuFilters:
        bias = bias.astype(np.float32)
        channels_in, channels_out = kernel.shape[2:]
        if winograd.pays(channels_in, channels_out):
            return CpuFilters(winograd.transform_filters(kernel), None, None, bias)
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        forward, backward = (np.ascontiguousarray(k, np.float32).reshape(9, *k.shape[2:]) for k in (kernel, turned))
        return CpuFilters(None, forward, backward, bias)

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

    def conv3x3_relu(self, x: Floats, filters: CpuFilters, *, out: Floats | None, mask: Bits | None,
                     pooling: Pooling, pooled: Floats | None, choice: Bits | None) -> None:  # fmt: skip
        def finish(strip: Strip, y: Floats) -> None:
            rows = y.reshape(len(y), -1)
            rows += biases[: rows.shape[1]]  # in long rows, since adding channel by channel is five times slower
            np.maximum(rows, zeros[: rows.shape[1]], out=rows)  # NumPy vectorises this for an array, not for a scalar
            if mask is not None:
                mask[strip.window] = _pack(y > 0)
            if pooled is not None:
                rows_of, columns_of = strip.pooled
                chosen = None if choice is None else choice[:, rows_of, columns_of]
                _pool(y, pooling, pooled[rows_of, columns_of], chosen)

        biases = np.tile(filters.bias, x.shape[1])
        zeros = np.zeros_like(biases)

        self._convolve(x, filters.transformed, filters.forward, FORWARD, out, len(filters.bias), finish)

    def conv3x3_input_gradient(self, gradient: Floats, filters: CpuFilters, *, out: Floats,
                               mask: Bits | None, accumulate: bool) -> None:  # fmt: skip
        def finish(strip: Strip, y: Floats) -> None:
            own = out[strip.window]
            if accumulate:
                own += y
            if mask is not None:
                own *= _unpack(mask[strip.window], out.shape[2])

        swapped = None if filters.transformed is None else filters.transformed.swapaxes(1, 2)
        target = None if accumulate else out
        self._convolve(gradient, swapped, filters.backward, BACKWARD, target, out.shape[2], finish)

    def pool_input_gradient(self, gradient: Floats, *, pooling: Pooling, choice: Bits | None,
                            out: Floats, mask: Bits, accumulate: bool) -> None:  # fmt: skip
        height, width, channels = gradient.shape
        corners = [(r, c) for r in range(2) for c in range(2)]

        def task(_: int, rows: slice) -> None:
            g = gradient[rows]
            top, bottom = 2 * rows.start, 2 * rows.stop
            places = [out[top + r : bottom : 2, c : 2 * width : 2] for r, c in corners]
            let = [mask[top + r : bottom : 2, c : 2 * width : 2] for r, c in corners]
            if pooling == "average":
                shares = [g * np.float32(0.25)] * 4
            else:
                assert choice is not None
                down, right = choice[:, rows]
                chosen = [(down if r else ~down) & (right if c else ~right) for r, c in corners]
                let = [bits & here for bits, here in zip(let, chosen, strict=True)]
                shares = [g] * 4
            for place, share, bits in zip(places, shares, let, strict=True):
                if accumulate:
                    place += share * _unpack(bits, channels)
                else:
                    np.multiply(share, _unpack(bits, channels), out=place)

        if accumulate:  # what was there is masked as a whole
            self.relu_gradient(out, mask)
        else:
            out[2 * height :] = 0
            out[:, 2 * width :] = 0
        self._workers.run(task, _blocks(gradient, self._workers.count))

    def relu_gradient(self, gradient: Floats, mask: Bits) -> None:
        def task(_: int, rows: slice) -> None:
            gradient[rows] *= _unpack(mask[rows], gradient.shape[2])

        self._workers.run(task, _blocks(gradient, self._workers.count))

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Floats, out: Floats, *, weights: Floats | None = None) -> None:
        pixels = features.reshape(-1, features.shape[2])
        roots = None if weights is None else np.sqrt(weights.reshape(-1, 1))
        count, channels = _gram_parts(len(pixels)), features.shape[2]
        parts = self._workspace[: count * channels**2].reshape(count, channels, channels)
        edges = [len(pixels) * index // count for index in range(count + 1)]

        def task(_: int, index: int) -> None:
            part = pixels[edges[index] : edges[index + 1]]
            if roots is None:
                np.matmul(part.T, part, out=parts[index])  # NumPy sees the transpose and computes one triangle (SYRK)
                return
            part_roots = roots[edges[index] : edges[index + 1]]
            for number, rows in enumerate(_blocks(part)):  # so that what is weighted stays in the cache
                weighted = part[rows] * part_roots[rows]
                if number == 0:
                    np.matmul(weighted.T, weighted, out=parts[index])
                else:
                    parts[index] += weighted.T @ weighted

        self._workers.run(task, range(count))
        np.add.reduce(parts, axis=0, out=out)
        out *= np.float32(1 / len(pixels))

    def mean(self, features: Floats, out: Floats, *, weights: Floats | None = None) -> None:
        pixels = features.reshape(-1, features.shape[2])
        blocks = [slice(start, start + MEAN_PIXELS) for start in range(0, len(pixels), MEAN_PIXELS)]
        flat = np.ones(len(pixels), np.float32) if weights is None else weights.reshape(-1)
        sums = np.empty((len(blocks), features.shape[2]))

        def task(_: int, index: int) -> None:
            sums[index] = flat[blocks[index]] @ pixels[blocks[index]]

        self._workers.run(task, range(len(blocks)))
        out[...] = np.add.reduce(sums, axis=0) / len(pixels)

    def style_cost(self, gram: Floats, target: Floats, scale: float, *, cost: Floats, difference: Floats,
                   accumulate: bool = False) -> None:  # fmt: skip
        change = gram - target
        cost[...] = _squares(change) / (4 * len(gram) ** 2)
        change *= np.float32(scale)
        _store(change, difference, accumulate)

    def moments_cost(self, gram: Floats, mean: Floats, target_gram: Floats, target_mean: Floats, scale: float, *,
                     cost: Floats, difference: Floats, shift: Floats, accumulate: bool = False) -> None:  # fmt: skip
        outers = np.outer(mean, mean)
        outers -= np.outer(target_mean, target_mean)
        covariances = gram - target_gram
        covariances -= outers
        cost[...] = (_squares(covariances) + _squares(outers)) / (4 * len(gram) ** 2)
        outers -= covariances
        _store(np.float32(scale) * (outers @ mean), shift, accumulate)
        covariances *= np.float32(scale)
        _store(covariances, difference, accumulate)

    def w2_root(self, gram: Floats, mean: Floats, ridge: float, out: Floats, *, scratch: Floats) -> None:  # noqa: ARG002
        with single_threaded():
            values, vectors = np.linalg.eigh(_covariance(gram, mean, ridge))
            out[...] = (vectors * np.sqrt(values)) @ vectors.T

    def w2_cost(self, gram: Floats, mean: Floats, target_root: Floats, target_mean: Floats, ridge: float,
                scale: float, *, cost: Floats, difference: Floats, shift: Floats,
                scratch: Floats, accumulate: bool = False) -> None:  # fmt: skip # noqa: ARG002
        """By eigenvectors in float64, which keeps the small eigenvalues of Q: 45 ms at 512 channels on one core, where
        the sixty products of the GPU's iteration take 140."""
        channels = len(gram)
        moved = mean.astype(np.float64) - target_mean
        with single_threaded():
            covariance, root = _covariance(gram, mean, ridge), target_root.astype(np.float64)
            values, vectors = np.linalg.eigh(root @ covariance @ root)
            sqrt = np.sqrt(values)
            turned = (root @ vectors) / np.sqrt(sqrt)
            change = turned @ turned.T  # R Q^(-1/2) R; one triangle, as in `gram`
        np.negative(change, out=change)
        change.flat[:: channels + 1] += 1
        traces = np.trace(covariance) + np.vdot(root, root) - 2 * np.sum(sqrt)
        cost[...] = (moved @ moved + traces) / channels
        _store(scale * (moved - change @ mean), shift, accumulate)
        change *= scale
        _store(change, difference, accumulate)

    def style_gradient(self, features: Floats, difference: Floats, *, out: Floats, accumulate: bool,
                       shift: Floats | None = None, weights: Floats | None = None) -> None:  # fmt: skip
        flat, result = (a.reshape(-1, features.shape[2]) for a in (features, out))
        column = None if weights is None else weights.reshape(-1, 1)

        def task(_: int, rows: slice) -> None:
            target = np.matmul(flat[rows], difference, out=None if accumulate else result[rows])
            if shift is not None:
                target += shift
            if column is not None:
                target *= column[rows]
            if accumulate:
                result[rows] += target

        self._workers.run(task, _blocks(flat, self._workers.count))

    def content_cost(self, features: Floats, target: Floats, scale: float, *, cost: Floats,
                     weights: Floats | None = None) -> None:  # fmt: skip
        blocks = _blocks(features)
        sums = [0.0] * len(blocks)

        def task(_: int, index: int) -> None:
            rows = blocks[index]
            change = features[rows] - target[rows]
            sums[index] = _squares(change) if weights is None else _weighted_squares(change, weights[rows])

        self._workers.run(task, range(len(blocks)))
        cost[...] = scale / 2 * sum(sums)

    def content_gradient(self, features: Floats, target: Floats, scale: float, *, out: Floats, accumulate: bool,
                         weights: Floats | None = None) -> None:  # fmt: skip
        def task(_: int, rows: slice) -> None:
            change = features[rows] - target[rows]
            change *= np.float32(scale) if weights is None else np.float32(scale) * weights[rows, :, None]
            _store(change, out[rows], accumulate)

        self._workers.run(task, _blocks(features, self._workers.count))

    def tv_cost(self, image: Floats, scale: float, *, cost: Floats, gradient: Floats) -> None:
        height, width, channels = image.shape
        across, down = height * (width - 1) * channels, (height - 1) * width * channels
        sums = np.zeros((2, height))  # of every row, and from it to the next

        def task(_: int, rows: slice) -> None:
            own = gradient[rows]
            change = np.diff(image[rows], axis=1)
            sums[0, rows] = _squares_by_row(change)
            change *= np.float32(2 * scale / across)
            own[:, 1:] += change
            own[:, :-1] -= change
            above, below = max(rows.start - 1, 0), min(rows.stop + 1, height)
            change = np.diff(image[above:below], axis=0)
            own_pairs = change[rows.start - above :]
            sums[1, rows.start : rows.start + len(own_pairs)] = _squares_by_row(own_pairs)
            change *= np.float32(2 * scale / down)
            own[above + 1 - rows.start :] += change[: rows.stop - 1 - above]
            own[: len(own_pairs)] -= own_pairs

        self._workers.run(task, _blocks(image, self._workers.count))
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

        self._workers.run(task, _blocks(image, self._workers.count))

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
        for rows in _blocks(image):
            image[rows] -= np.float32(learning_rate) * gradient[rows]
        self.clamp(image)

    def step_within(self, image: Floats, direction: Floats, step: float, out: Floats) -> None:
        def task(_: int, rows: slice) -> None:
            moved = np.float32(step) * direction[rows]
            moved += image[rows]
            np.clip(moved, 0, 1, out=out[rows])

        self._workers.run(task, _blocks(image, self._workers.count))

    def free_gradient(self, image: Floats, gradient: Floats, out: Floats) -> None:
        def task(_: int, rows: slice) -> None:
            x, g = image[rows], gradient[rows]
            held = ((x <= 0) & (g > 0)) | ((x >= 1) & (g < 0))
            np.copyto(out[rows], g)
            np.copyto(out[rows], 0, where=held)

        self._workers.run(task, _blocks(image, self._workers.count))

    def weigh(self, image: Floats, weights: Floats) -> None:
        image *= weights[:, :, None]

    def clamp(self, image: Floats) -> None:
        np.clip(image, 0, 1, out=image)

    def resize(self, image: Floats, out: Floats) -> None:
        height, width = image.shape[:2]
        across = [(columns, *_lanczos(width, out.shape[1], columns)) for columns in _runs(out.shape[1])]

        def task(_: int, rows: slice) -> None:
            taken, down = _lanczos(height, out.shape[0], rows)
            band = (down @ image[taken].reshape(len(down.T), -1)).reshape(len(down), width, 3)
            for columns, seen, weights in across:
                out[rows, columns] = np.matmul(weights, band[:, seen])

        self._workers.run(task, _runs(out.shape[0], max(1, min(RESIZE_RUN, RESIZE_BYTES // image[0].nbytes))))

    def extend(self, image: Floats, out: Floats) -> None:
        border = (len(out) - len(image)) // 2
        height, width = image.shape[:2]
        out[border : border + height, border : border + width] = image
        out[border : border + height, :border] = image[:, :1]
        out[border : border + height, border + width :] = image[:, -1:]
        out[:border], out[border + height :] = out[border], out[border + height - 1]

    def extend_gradient(self, gradient: Floats, out: Floats) -> None:
        border = (len(gradient) - len(out)) // 2
        height, width = out.shape[:2]
        for block in _blocks(out):
            rows = gradient[border + block.start : border + block.stop].copy()
            if block.start == 0:
                rows[0] += gradient[:border].sum(axis=0)
            if block.stop == height:
                rows[-1] += gradient[border + height :].sum(axis=0)
            out[block] = rows[:, border : border + width]
            out[block, 0] += rows[:, :border].sum(axis=1)
            out[block, -1] += rows[:, border + width :].sum(axis=1)

    # ---- vectors ------------------------------------------------------------------------------------------------
    def blend(self, values: Floats, weight: float, out: Floats) -> None:
        def task(_: int, rows: slice) -> None:
            change = values[rows] - out[rows]
            change *= np.float32(weight)
            out[rows] += change

        self._workers.run(task, _blocks(out, self._workers.count))

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

    # ---- convolutions -------------------------------------------------------------------------------------------
    def _convolve(self, x: Floats, transformed: Floats | None, plain: Floats | None, transform: winograd.Transform,
                  out: Floats | None, channels_out: int, finish: Finish) -> None:  # fmt: skip
        """Convolves x strip by strip, into `out` or, where that is None, scratch, and hands each strip to `finish`."""
        height, width, channels = x.shape
        workers = self._workers.count
        sizes = scratch(height, width, channels, channels_out, workers)
        shared = self._workspace[: sizes.shared]
        own = self._workspace[sizes.shared : sizes.total].reshape(workers, sizes.worker)

        def target_of(strip: Strip, scratch: Floats) -> tuple[Floats, Floats]:
            if out is not None:
                return out[strip.window], scratch
            return _take(scratch, (strip.bottom - strip.top, strip.right - strip.left, channels_out))

        if transformed is None:
            assert plain is not None
            direct = _gather_first if channels <= channels_out else _multiply_first

            def multiply(worker: int, strip: Strip) -> None:
                target, scratch = target_of(strip, own[worker])
                direct(x, plain, strip, target, scratch)
                finish(strip, target)

            rows = plain_rows(width, channels, channels_out)
            tops = range(0, height, rows)
            self._workers.run(multiply, [Strip(top, min(top + rows, height), 0, width) for top in tops])
            return

        cutting = cut(height, width, channels, channels_out, workers)
        strips = cutting.strips()
        if not cutting.in_phases:

            def convolve(worker: int, strip: Strip) -> None:
                target, scratch = target_of(strip, own[worker])
                tiles = len(tile_rows(strip)) * tiles_across(strip)
                inputs, scratch = _take(scratch, (36, tiles, channels))
                products, scratch = _take(scratch, (36, tiles, channels_out))
                _transform_input(x, transform, strip, inputs, scratch)
                np.matmul(inputs, transformed, out=products)
                _transform_output(products, transform, target, scratch)
                finish(strip, target)

            self._workers.run(convolve, strips)
            return

        # A map too small for every worker to have a strip worth multiplying: all tiles are transformed, then each
        # worker takes some of the 36 products whole, so that the filters are read once.
        across = -(-width // 4)
        tiles = -(-height // 4) * across
        inputs, shared = _take(shared, (36, tiles, channels))
        products, _ = _take(shared, (36, tiles, channels_out))

        def places(strip: Strip) -> slice:
            rows = tile_rows(strip)
            return slice(rows.start * across, rows.stop * across)

        def enter(worker: int, strip: Strip) -> None:
            _transform_input(x, transform, strip, inputs[:, places(strip)], own[worker])

        def some_products(_: int, some: slice) -> None:
            np.matmul(inputs[some], transformed[some], out=products[some])

        def leave(worker: int, strip: Strip) -> None:
            target, scratch = target_of(strip, own[worker])
            _transform_output(products[:, places(strip)], transform, target, scratch)
            finish(strip, target)

        step = max(1, 12 // workers)
        self._workers.run(enter, strips)
        self._workers.run(some_products, [slice(first, first + step) for first in range(0, 36, step)])
        self._workers.run(leave, strips)


# The transforms go a row of tiles at a time, which stays in the cache, and by few large products: threads that call
# OpenBLAS for small ones wait for each other.


def _transform_input(x: Floats, transform: winograd.Transform, strip: Strip, inputs: Floats, scratch: Floats) -> None:
    """inputs (36, tiles, C) := B d B^T of every 6x6 square d of the strip."""
    height, width, channels = x.shape
    rows, across = tile_rows(strip), tiles_across(strip)
    vertical, scratch = _take(scratch, (6, 4 * across + 2, channels))  # B d, and zeros beside the map
    left = max(strip.left - 1, 0)
    right = min(strip.left + 4 * across + 1, width)
    begin, end = left - (strip.left - 1), right - (strip.left - 1)
    vertical[:, :begin] = 0
    vertical[:, end:] = 0
    inside = vertical[:, begin:end].reshape(6, -1)
    row, column, channel = vertical.strides
    overlapping = as_strided(vertical, (6, 6, across, channels), (row, column, 4 * column, channel))
    columns, _ = _take(scratch, overlapping.shape)
    both = inputs.reshape(6, 6, len(rows), across * channels).transpose(2, 0, 1, 3)
    for tile_row, out in zip(rows, both, strict=True):
        first = 4 * tile_row - 1
        top, bottom = max(first, 0), min(first + 6, height)
        matrix = transform.input[:, top - first : bottom - first]  # the rows above and below the map are zero
        np.matmul(matrix, x[top:bottom, left:right].reshape(bottom - top, -1), out=inside)
        np.copyto(columns, overlapping)
        np.matmul(transform.input, columns.reshape(6, 6, -1), out=out)


def _transform_output(products: Floats, transform: winograd.Transform, target: Floats, scratch: Floats) -> None:
    """target := A m A^T of every m in products (36, tiles, C), cut to its size."""
    height, width, channels = target.shape
    down, across = -(-height // 4), -(-width // 4)
    columns, scratch = _take(scratch, (6, 4, across, channels))  # m A^T
    vertical, _ = _take(scratch, (6, across, 4, channels))
    inside = vertical.reshape(6, -1)[:, : width * channels]
    for row, squares in enumerate(products.reshape(6, 6, down, across * channels).transpose(2, 0, 1, 3)):
        np.matmul(transform.output, squares, out=columns.reshape(6, 4, -1))
        np.copyto(vertical, columns.swapaxes(1, 2))
        place = target[4 * row : 4 * row + 4]
        np.matmul(transform.output[: len(place)], inside, out=place.reshape(len(place), -1))


def _gather_first(x: Floats, filters: Floats, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target := the convolution by one product with nine shifted copies of every channel: for few input channels."""
    height, width, channels = x.shape
    rows = strip.bottom - strip.top
    planes, scratch = _take(scratch, (channels, rows + 2, width + 2))
    first, last = max(strip.top - 1, 0), min(strip.bottom + 1, height)
    above = first - (strip.top - 1)
    planes[:, :above] = 0
    planes[:, above + last - first :] = 0
    planes[:, :, 0] = 0
    planes[:, :, -1] = 0
    planes[:, above : above + last - first, 1:-1] = x[first:last].transpose(2, 0, 1)
    gathered, _ = _take(scratch, (9, channels, rows, width))
    for r in range(3):
        for s in range(3):
            gathered[3 * r + s] = planes[:, r : r + rows, s : s + width]
    columns, matrix = gathered.reshape(9 * channels, -1), filters.reshape(9 * channels, -1)
    np.matmul(columns.T, matrix, out=target.reshape(rows * width, -1))


def _multiply_first(x: Floats, filters: Floats, strip: Strip, target: Floats, scratch: Floats) -> None:
    """target := the convolution as nine products that are shifted and added: for few output channels."""
    height, width, channels = x.shape
    rows, kept = strip.bottom - strip.top, filters.shape[2]
    first, last = max(strip.top - 1, 0), min(strip.bottom + 1, height)
    planes, scratch = _take(scratch, (9, kept, last - first, width))
    matrix = filters.swapaxes(1, 2).reshape(9 * kept, channels)
    np.matmul(matrix, x[first:last].reshape(-1, channels).T, out=planes.reshape(9 * kept, -1))
    total, _ = _take(scratch, (kept, rows, width))
    total[...] = 0
    for r in range(3):
        start = strip.top + r - 1  # row of x that the first row of the strip sees through this row of the filter
        inside = slice(max(start, 0) - start, min(start + rows, height) - start)
        source = slice(inside.start + start - first, inside.stop + start - first)
        for s in range(3):
            left, right = max(1 - s, 0), min(width, width + 1 - s)
            total[:, inside, left:right] += planes[3 * r + s, :, source, left + s - 1 : right + s - 1]
    target[...] = total.transpose(1, 2, 0)


def _take(scratch: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The head of the scratch memory in this shape, and the rest."""
    size = math.prod(shape)
    return scratch[:size].reshape(shape), scratch[size:]


def _pool(y: Floats, pooling: Pooling, pooled: Floats, choice: Bits | None) -> None:
    height, width = pooled.shape[:2]
    corners = [y[r : 2 * height : 2, s : 2 * width : 2] for r in range(2) for s in range(2)]
    if pooling == "average":
        np.add(corners[0], corners[1], out=pooled)
        pooled += corners[2]
        pooled += corners[3]
        pooled *= np.float32(0.25)
        return
    upper, lower = np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3])
    np.maximum(upper, lower, out=pooled)
    if choice is not None:  # of equals the first in reading order
        down = lower > upper
        right = (down & (corners[3] > corners[2])) | (~down & (corners[1] > corners[0]))
        choice[0], choice[1] = _pack(down), _pack(right)


def _bytes(channels: int) -> int:
    return -(-channels // 8)


def _pack(values: NDArray[np.bool_]) -> Bits:
    """(..., C) booleans -> (..., C / 8) bytes. NumPy keeps the interpreter's lock unless the axis it packs is long."""
    *shape, channels = values.shape
    if channels % 8:
        return np.packbits(values, axis=-1)
    return np.packbits(values.reshape(-1)).reshape(*shape, channels // 8)


def _unpack(bits: Bits, channels: int) -> NDArray[np.bool_]:
    """The reverse of `_pack`."""
    if channels % 8:
        return np.unpackbits(bits, axis=-1, count=channels).view(np.bool_)
    return np.unpackbits(bits.reshape(-1)).view(np.bool_).reshape(*bits.shape[:-1], channels)


def _gram_parts(pixels: int) -> int:
    return min(max(pixels // GRAM_PIXELS, 1), GRAM_PARTS)


def _blocks(values: Floats, workers: int = 1) -> list[slice]:
    """Slices of the first axis of about BLOCK_BYTES, one for each worker at least."""
    step = max(1, min(BLOCK_BYTES // max(1, values[0].nbytes), -(-len(values) // workers)))
    return [slice(start, min(start + step, len(values))) for start in range(0, len(values), step)]


def _runs(length: int, step: int = RESIZE_RUN) -> list[slice]:
    """An axis of the output of `resize`, cut up: a run's products take in little that its filters do not reach."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _lanczos(size_in: int, size_out: int, run: slice) -> tuple[slice, Floats]:
    """A run's rows of `lanczos_matrix`, and the columns, `taken`, outside which they are zero."""
    ratio = size_in / size_out
    widened = max(ratio, 1.0)
    first, last = (run.start + 0.5) * ratio - 3 * widened, (run.stop - 0.5) * ratio + 3 * widened
    taken = slice(max(0, math.floor(first)), min(size_in, math.ceil(last)))
    centres = (np.arange(run.start, run.stop)[:, None] + 0.5) * ratio
    t = (np.arange(taken.start, taken.stop)[None, :] + 0.5 - centres) / widened
    taps = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)
    return taken, (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


def _squares_by_row(values: Floats) -> Floats:
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    squares: Floats = np.einsum("ij,ij->i", rows, rows)
    return squares


def _squares(values: Floats) -> float:
    """Sum of squares: float32 inside a row, float64 over rows, always in the same order."""
    return float(np.sum(_squares_by_row(values), dtype=np.float64))


def _weighted_squares(values: Floats, weights: Floats) -> float:
    """The same of values (H, W, C), a pixel's squares times its weight."""
    pixels = values.reshape(-1, values.shape[2])
    return float(np.sum(np.einsum("ij,ij->i", pixels, pixels) * weights.reshape(-1), dtype=np.float64))


def _covariance(gram: Floats, mean: Floats, ridge: float) -> NDArray[np.float64]:
    exact = mean.astype(np.float64)
    covariance: NDArray[np.float64] = gram - np.outer(exact, exact)
    covariance.flat[:: len(gram) + 1] += ridge
    return covariance


def _store(values: NDArray[np.floating[Any]], out: Floats, accumulate: bool) -> None:
    if accumulate:
        out += values.astype(np.float32, copy=False)
    else:
        out[...] = values
