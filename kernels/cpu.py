"""The same operations on NumPy and its BLAS, in float32, made fast and frugal.

Every operation is cut into items of work that fit a core's cache (strips of rows, or of 4x4 tiles), and a few threads
take them one by one; an item is gathered, multiplied and finished (bias, ReLU, mask, pool) before the next. Masks and
choices are bits. `kernels.device` has the contracts, `kernels.reference` the formulas, `kernels.winograd` the
transforms.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from . import winograd
from .device import DeviceError, Layout, Pooling
from .reference import host_roofline, lanczos_matrix, seconds_of
from .workers import Workers, default_count

Floats = NDArray[np.float32]
Bits = NDArray[np.uint8]

STRIP_BYTES = 4 << 20  # of transformed or gathered input per item: what a core's share of the caches holds
LEAST_TILES = 128  # rows of a product under which a BLAS slows down
LEAST_CHANNELS = 64  # columns, likewise
BLOCK_BYTES = 1 << 20  # element-wise work runs in blocks of rows of this size
GRAM_PIXELS, GRAM_PARTS = 2048, 16  # a Gram is the sum of at most so many parts of at least so many pixels

FORWARD, BACKWARD = winograd.transforms()


class CpuFilters(NamedTuple):
    """Either `transformed` (36, C_in, C_out), which serves both directions, or the operands of plain products,
    `forward` (9, C_in, C_out) and, turned and swapped, `backward` (9, C_out, C_in)."""

    transformed: Floats | None
    forward: Floats | None
    backward: Floats | None
    bias: Floats


class Item(NamedTuple):
    """Rows and output channels of a convolution that one worker computes at a time."""

    top: int
    bottom: int
    first: int
    last: int


Finish = Callable[[int, Item, Floats], None]
"""finish(worker, item, target): does the rest on `target` (rows, W, channels), where the convolution was written."""


class Cpu:
    """NumPy made to work. `precision` is "fp32"; `threads` None takes every core this process may use."""

    name = "cpu"
    precision = "fp32"
    activation_dtype = image_dtype = np.dtype(np.float32)

    def __init__(self, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in ("auto", "fp32"):
            raise DeviceError(f"the cpu device has no precision {precision!r}; choose fp32")
        if threads is not None and threads < 1:
            raise DeviceError(f"{threads} threads were asked for; at least 1 is needed")
        self._workers = Workers(default_count() if threads is None else threads)
        self._workspace = np.empty(0, np.float32)

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> NDArray[np.uint8]:
        return np.empty(nbytes, np.uint8)

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
                most = max(most, self._workers.count * _scratch_floats(height, width, c, k, self._workers.count))
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
        def finish(_: int, item: Item, y: Floats) -> None:
            top, bottom, first, last = item
            y += filters.bias[first:last]
            np.maximum(y, 0, out=y)
            bits = slice(first // 8, _bytes(last))  # items start at multiples of eight channels
            if mask is not None:
                mask[top:bottom, :, bits] = np.packbits(y > 0, axis=2)
            if pooled is not None:
                rows = slice(top // 2, top // 2 + (bottom - top) // 2)  # items start on even rows
                _pool(y, pooling, pooled[rows, :, first:last], None if choice is None else choice[:, rows, :, bits])

        self._convolve(x, filters.transformed, filters.forward, FORWARD, out, len(filters.bias), finish)

    def conv3x3_input_gradient(self, gradient: Floats, filters: CpuFilters, *, out: Floats,
                               mask: Bits | None, accumulate: bool) -> None:  # fmt: skip
        def finish(_: int, item: Item, y: Floats) -> None:
            top, bottom, first, last = item
            rows = out[top:bottom, :, first:last]
            if accumulate:
                rows += y
            if mask is not None:
                rows *= _unpack(mask[top:bottom, :, first // 8 : _bytes(last)], last - first)

        swapped = None if filters.transformed is None else filters.transformed.swapaxes(1, 2)
        target = None if accumulate else out
        self._convolve(gradient, swapped, filters.backward, BACKWARD, target, out.shape[2], finish)

    def pool_input_gradient(self, gradient: Floats, *, pooling: Pooling, choice: Bits | None,
                            out: Floats, mask: Bits, accumulate: bool) -> None:  # fmt: skip
        height, width, channels = gradient.shape

        def task(_: int, rows: slice) -> None:
            g = gradient[rows]
            top, bottom = 2 * rows.start, 2 * rows.start + 2 * len(g)
            if pooling == "average":
                quarter = g * np.float32(0.25)
                shares = [quarter] * 4
            else:
                assert choice is not None
                down, right = (_unpack(plane[rows], channels) for plane in choice)
                lower, upper = g * down, g * ~down
                shares = [upper * ~right, upper * right, lower * ~right, lower * right]
            for index, share in enumerate(shares):
                corner = out[top + index // 2 : bottom : 2, index % 2 : 2 * width : 2]
                if accumulate:
                    corner += share
                else:
                    corner[...] = share
            out[top:bottom] *= _unpack(mask[top:bottom], channels)

        if not accumulate:
            out[2 * height :] = 0
            out[:, 2 * width :] = 0
        elif len(out) > 2 * height:
            out[2 * height :] *= _unpack(mask[2 * height :], channels)
        self._workers.run(task, _blocks(gradient))

    def relu_gradient(self, gradient: Floats, mask: Bits) -> None:
        def task(_: int, rows: slice) -> None:
            gradient[rows] *= _unpack(mask[rows], gradient.shape[2])

        self._workers.run(task, _blocks(gradient))

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Floats, out: Floats) -> None:
        pixels = features.reshape(-1, features.shape[2])
        count, channels = _gram_parts(len(pixels)), features.shape[2]
        parts = self._workspace[: count * channels**2].reshape(count, channels, channels)
        edges = [len(pixels) * index // count for index in range(count + 1)]

        def task(_: int, index: int) -> None:
            part = pixels[edges[index] : edges[index + 1]]
            np.matmul(part.T, part, out=parts[index])  # NumPy sees the transpose and computes one triangle (SYRK)

        self._workers.run(task, range(count))
        np.add.reduce(parts, axis=0, out=out)
        out *= np.float32(1 / len(pixels))

    def style_cost(self, gram: Floats, target: Floats, scale: float, *, cost: Floats, difference: Floats) -> None:
        np.subtract(gram, target, out=difference)
        cost[...] = _squares(difference) / (4 * len(gram) ** 2)
        difference *= np.float32(scale)

    def style_gradient(self, features: Floats, difference: Floats, *, out: Floats, accumulate: bool) -> None:
        flat, result = (a.reshape(-1, features.shape[2]) for a in (features, out))

        def task(_: int, rows: slice) -> None:
            if accumulate:
                result[rows] += flat[rows] @ difference
            else:
                np.matmul(flat[rows], difference, out=result[rows])

        self._workers.run(task, _blocks(flat))

    def content_cost(self, features: Floats, target: Floats, scale: float, *, cost: Floats) -> None:
        blocks = _blocks(features)
        sums = [0.0] * len(blocks)

        def task(_: int, index: int) -> None:
            rows = blocks[index]
            sums[index] = _squares(features[rows] - target[rows])

        self._workers.run(task, range(len(blocks)))
        cost[...] = scale / 2 * sum(sums)

    def content_gradient(
        self, features: Floats, target: Floats, scale: float, *, out: Floats, accumulate: bool
    ) -> None:
        def task(_: int, rows: slice) -> None:
            change = features[rows] - target[rows]
            change *= np.float32(scale)
            if accumulate:
                out[rows] += change
            else:
                out[rows] = change

        self._workers.run(task, _blocks(features))

    def tv_cost(self, image: Floats, scale: float, *, cost: Floats, gradient: Floats) -> None:
        total = 0.0
        for axis in (1, 0):
            change = np.diff(image, axis=axis)
            total += _squares(change) / change.size
            change *= np.float32(2 * scale / change.size)
            after, before = (gradient[:, 1:], gradient[:, :-1]) if axis == 1 else (gradient[1:], gradient[:-1])
            after += change
            before -= change
        cost[...] = total

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

        self._workers.run(task, _blocks(image))

    def descent_step(self, image: Floats, gradient: Floats, *, learning_rate: float) -> None:
        for rows in _blocks(image):
            image[rows] -= np.float32(learning_rate) * gradient[rows]
        self.clamp(image)

    def clamp(self, image: Floats) -> None:
        np.clip(image, 0, 1, out=image)

    def resize(self, image: Floats, out: Floats) -> None:
        down = lanczos_matrix(image.shape[0], out.shape[0]).astype(np.float32)
        across = lanczos_matrix(image.shape[1], out.shape[1]).astype(np.float32)
        rows = (down @ image.reshape(len(image), -1)).reshape(out.shape[0], image.shape[1], 3)
        np.matmul(across, rows, out=out)

    # ---- convolutions -------------------------------------------------------------------------------------------
    def _convolve(self, x: Floats, transformed: Floats | None, plain: Floats | None, transform: winograd.Transform,
                  out: Floats | None, channels_out: int, finish: Finish) -> None:  # fmt: skip
        """Convolves x item by item, into `out` or, where that is None, scratch, and hands each item to `finish`."""
        height, width, channels = x.shape
        workers = self._workers.count
        size = _scratch_floats(height, width, channels, channels_out, workers)

        def task(worker: int, item: Item) -> None:
            scratch = self._workspace[worker * size : (worker + 1) * size]
            shape = (item.bottom - item.top, width, item.last - item.first)
            if out is None:
                target, scratch = _take(scratch, shape)
            else:
                target = out[item.top : item.bottom, :, item.first : item.last]
            if transformed is not None:
                _winograd(x, transformed[:, :, item.first : item.last], transform, item, target, scratch)
            else:
                assert plain is not None
                (_gather_first if channels <= channels_out else _multiply_first)(x, plain, item, target, scratch)
            finish(worker, item, target)

        self._workers.run(task, _items(height, width, channels, channels_out, workers))


def _items(height: int, width: int, channels: int, channels_out: int, workers: int) -> list[Item]:
    """Cuts a convolution into items: rows first, then, for small maps that leave workers idle, output channels."""
    tiled = winograd.pays(channels, channels_out)
    if tiled:
        tile_rows, across = -(-height // 4), -(-width // 4)
        per_item = STRIP_BYTES // (36 * 4 * max(channels, channels_out))
        rows = max(1, max(per_item, LEAST_TILES) // across) * 4
        count = -(-height // rows)
        count = min(tile_rows, -(-count // workers) * workers if count >= workers else count)
        rows = -(-tile_rows // count) * 4
    else:
        rows = max(2, STRIP_BYTES // (width * 9 * 4 * min(channels, channels_out)) // 2 * 2)
    tops = range(0, height, rows)
    parts = min(-(-workers // len(tops)), max(1, channels_out // LEAST_CHANNELS)) if tiled else 1
    step = -(-channels_out // parts // 8) * 8
    return [
        Item(top, min(top + rows, height), first, min(first + step, channels_out))
        for top in tops
        for first in range(0, channels_out, step)
    ]


def _scratch_floats(height: int, width: int, channels: int, channels_out: int, workers: int) -> int:
    """Scratch memory of one worker for any item of this convolution, in floats; a multiple of 16 (a cache line)."""
    item = _items(height, width, channels, channels_out, workers)[0]
    rows, kept = item.bottom - item.top, item.last - item.first
    target = rows * width * kept
    if winograd.pays(channels, channels_out):
        down, across = -(-rows // 4), -(-width // 4)
        tiles = down * across
        padded = (4 * down + 2) * (4 * across + 2) * channels
        size = target + padded + tiles * (36 * max(channels, kept) + max(36 * channels, 16 * kept))
    elif channels <= channels_out:
        size = target + channels * (rows + 2) * (width + 2) + 9 * channels * rows * width
    else:
        size = target + 9 * channels_out * (rows + 2) * width + channels_out * rows * width
    return -(-size // 16) * 16


def _winograd(
    x: Floats, filters: Floats, transform: winograd.Transform, item: Item, target: Floats, scratch: Floats
) -> None:
    """target := the convolution of the item's rows, by tiles of 4x4 outputs from 6x6 inputs."""
    height, width, channels = x.shape
    rows, kept = target.shape[0], filters.shape[2]
    down, across = -(-rows // 4), -(-width // 4)
    tiles = down * across

    padded, scratch = _take(scratch, (4 * down + 2, 4 * across + 2, channels))
    first, last = max(item.top - 1, 0), min(item.top + 4 * down + 1, height)  # rows of x that the padded strip holds
    above = first - (item.top - 1)
    padded[:above] = 0
    padded[above + last - first :] = 0
    padded[:, 0] = 0
    padded[:, 1 + width :] = 0
    padded[above : above + last - first, 1 : 1 + width] = x[first:last]

    # Two areas are enough: what is in one is finished when the next step writes there.
    one, two = np.split(scratch, [36 * tiles * max(channels, kept)])
    squares, _ = _take(one, (6, 6, down, across, channels))
    row, column, channel = padded.strides
    strides = (row, column, 4 * row, 4 * column, channel)
    np.copyto(squares, as_strided(padded, squares.shape, strides))
    inputs, _ = _take(two, (36, tiles, channels))
    np.matmul(transform.input, squares.reshape(36, -1), out=inputs.reshape(36, -1))
    products, _ = _take(one, (36, tiles, kept))
    np.matmul(inputs, filters, out=products)
    outputs, _ = _take(two, (4, 4, down, across, kept))
    np.matmul(transform.output, products.reshape(36, -1), out=outputs.reshape(16, -1))
    for r in range(4):
        for s in range(4):
            place = target[r::4, s::4]
            place[...] = outputs[r, s, : place.shape[0], : place.shape[1]]


def _gather_first(x: Floats, filters: Floats, item: Item, target: Floats, scratch: Floats) -> None:
    """target := the convolution by one product with nine shifted copies of every channel: for few input channels."""
    height, width, channels = x.shape
    rows = item.bottom - item.top
    planes, scratch = _take(scratch, (channels, rows + 2, width + 2))
    first, last = max(item.top - 1, 0), min(item.bottom + 1, height)
    above = first - (item.top - 1)
    planes[:, :above] = 0
    planes[:, above + last - first :] = 0
    planes[:, :, 0] = 0
    planes[:, :, -1] = 0
    planes[:, above : above + last - first, 1:-1] = x[first:last].transpose(2, 0, 1)
    columns, _ = _take(scratch, (9, channels, rows, width))
    for r in range(3):
        for s in range(3):
            columns[3 * r + s] = planes[:, r : r + rows, s : s + width]
    matrix = columns.reshape(9 * channels, -1).T
    result = np.matmul(matrix, filters.reshape(9 * channels, -1))
    target[...] = result.reshape(target.shape)


def _multiply_first(x: Floats, filters: Floats, item: Item, target: Floats, scratch: Floats) -> None:
    """target := the convolution as nine products that are shifted and added: for few output channels."""
    height, width, channels = x.shape
    rows, kept = item.bottom - item.top, filters.shape[2]
    first, last = max(item.top - 1, 0), min(item.bottom + 1, height)
    planes, scratch = _take(scratch, (9, kept, last - first, width))
    matrix = filters.swapaxes(1, 2).reshape(9 * kept, channels)
    np.matmul(matrix, x[first:last].reshape(-1, channels).T, out=planes.reshape(9 * kept, -1))
    total, _ = _take(scratch, (kept, rows, width))
    total[...] = 0
    for r in range(3):
        start = item.top + r - 1  # row of x that the first row of the item sees through this row of the filter
        inside = slice(max(start, 0) - start, min(start + rows, height) - start)
        source = slice(inside.start + start - first, inside.stop + start - first)
        for s in range(3):
            left, right = max(1 - s, 0), min(width, width + 1 - s)
            total[:, inside, left:right] += planes[3 * r + s, :, source, left + s - 1 : right + s - 1]
    target[...] = total.transpose(1, 2, 0)


def _take(scratch: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The head of the scratch memory in this shape, and the rest."""
    size = int(np.prod(shape))
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
        right = np.where(down, corners[3] > corners[2], corners[1] > corners[0])
        choice[0], choice[1] = np.packbits(down, axis=2), np.packbits(right, axis=2)


def _bytes(channels: int) -> int:
    return -(-channels // 8)


def _unpack(bits: Bits, channels: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits, axis=-1, count=channels).view(np.bool_)


def _gram_parts(pixels: int) -> int:
    return min(max(pixels // GRAM_PIXELS, 1), GRAM_PARTS)


def _blocks(values: Floats) -> list[slice]:
    """Slices of the first axis of about BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // max(1, values[0].nbytes))
    return [slice(start, min(start + step, len(values))) for start in range(0, len(values), step)]


def _squares(values: Floats) -> float:
    """Sum of squares: float32 inside a row, float64 over rows, always in the same order."""
    rows = values.reshape(len(values), -1)
    return float(np.sum(np.einsum("ij,ij->i", rows, rows), dtype=np.float64))
