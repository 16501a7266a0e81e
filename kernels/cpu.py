"""The same operations on NumPy and its BLAS, in float32, with no allocation beyond what NumPy itself needs.

Convolutions are GEMMs over strips of rows small enough to stay in cache while they are gathered, multiplied and
finished (bias, ReLU, mask, pool). `kernels.device` has the contracts, `kernels.reference` the formulas.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .device import DeviceError, Layout, Pooling
from .reference import lanczos_matrix

Floats = NDArray[np.float32]

STRIP_BYTES = 4 << 20  # of gathered input per GEMM: about an L2 cache and a share of L3
ROW_BYTES = 4 << 20  # element-wise work runs in blocks of rows of this size


class CpuFilters(NamedTuple):
    """GEMM operands: forward (9 C_in, C_out), backward (9 C_out, C_in) turned by 180 degrees, and the bias."""

    forward: Floats
    backward: Floats
    bias: Floats


class Cpu:
    """NumPy made to work. `precision` is "fp32"."""

    name = "cpu"
    precision = "fp32"
    activation_dtype = image_dtype = np.dtype(np.float32)

    def __init__(self, precision: str = "auto") -> None:
        if precision not in ("auto", "fp32"):
            raise DeviceError(f"the cpu device has no precision {precision!r}; choose fp32")
        self._workspace = np.empty(0, np.uint8)

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
        return shape, np.dtype(bool)

    def choice_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        return pooled_shape, np.dtype(np.uint8)

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]]) -> int:
        return max(_strip_bytes(*shape) for shape in convolutions)

    def bind_workspace(self, workspace: NDArray[np.uint8]) -> None:
        self._workspace = workspace

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> CpuFilters:
        channels_in, channels_out = kernel.shape[2:]
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        return CpuFilters(
            np.ascontiguousarray(kernel, np.float32).reshape(9 * channels_in, channels_out),
            np.ascontiguousarray(turned, np.float32).reshape(9 * channels_out, channels_in),
            bias.astype(np.float32),
        )

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

    def conv3x3_relu(self, x: Floats, filters: CpuFilters, *, out: Floats | None, mask: NDArray[np.bool_] | None,
                     pooling: Pooling, pooled: Floats | None, choice: NDArray[np.uint8] | None) -> None:  # fmt: skip
        for top, bottom, strip in self._strips(x, filters.forward):
            y = strip if out is None else out[top:bottom]
            y = np.add(strip, filters.bias, out=y)
            np.maximum(y, 0, out=y)
            if mask is not None:
                np.greater(y, 0, out=mask[top:bottom])
            if pooled is not None:
                # Strips start on even rows, so every 2x2 square lies in one of them.
                rows = slice(top // 2, top // 2 + (bottom - top) // 2)
                _pool(y, pooling, pooled[rows], None if choice is None else choice[rows])

    def conv3x3_input_gradient(self, gradient: Floats, filters: CpuFilters, *, out: Floats,
                               mask: NDArray[np.bool_] | None, accumulate: bool) -> None:  # fmt: skip
        for top, bottom, strip in self._strips(gradient, filters.backward):
            rows = out[top:bottom]
            if accumulate:
                rows += strip
            else:
                rows[...] = strip
            if mask is not None:
                rows *= mask[top:bottom]

    def pool_input_gradient(self, gradient: Floats, *, pooling: Pooling, choice: NDArray[np.uint8] | None,
                            out: Floats, mask: NDArray[np.bool_], accumulate: bool) -> None:  # fmt: skip
        height, width = gradient.shape[:2]
        if not accumulate:
            out[2 * height :] = 0
            out[:, 2 * width :] = 0
        for index in range(4):
            corner = out[index // 2 : 2 * height : 2, index % 2 : 2 * width : 2]
            share = gradient * (np.float32(0.25) if pooling == "average" else choice == index)
            if accumulate:
                corner += share
            else:
                corner[...] = share
        out *= mask

    def relu_gradient(self, gradient: Floats, mask: NDArray[np.bool_]) -> None:
        gradient *= mask

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Floats, out: Floats) -> None:
        pixels = features.reshape(-1, features.shape[2])
        np.matmul(pixels.T, pixels, out=out)
        out *= np.float32(1 / len(pixels))

    def style_cost(self, gram: Floats, target: Floats, scale: float, *, cost: Floats, difference: Floats) -> None:
        np.subtract(gram, target, out=difference)
        cost[...] = _squares(difference) / (4 * len(gram) ** 2)
        difference *= np.float32(scale)

    def style_gradient(self, features: Floats, difference: Floats, *, out: Floats, accumulate: bool) -> None:
        flat, result = (a.reshape(-1, features.shape[2]) for a in (features, out))
        for rows in _blocks(flat):
            if accumulate:
                result[rows] += flat[rows] @ difference
            else:
                np.matmul(flat[rows], difference, out=result[rows])

    def content_cost(self, features: Floats, target: Floats, scale: float, *, cost: Floats) -> None:
        cost[...] = scale / 2 * sum(_squares(features[rows] - target[rows]) for rows in _blocks(features))

    def content_gradient(
        self, features: Floats, target: Floats, scale: float, *, out: Floats, accumulate: bool
    ) -> None:
        for rows in _blocks(features):
            change = features[rows] - target[rows]
            change *= np.float32(scale)
            if accumulate:
                out[rows] += change
            else:
                out[rows] = change

    def tv_cost(self, image: Floats, scale: float, *, cost: Floats, gradient: Floats) -> None:
        total = 0.0
        for axis in (1, 0):
            change = np.diff(image, axis=axis)
            if not change.size:
                continue
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
        for rows in _blocks(image):
            g, m, v = gradient[rows], first[rows], second[rows]
            m *= np.float32(beta1)
            m += np.float32(1 - beta1) * g
            v *= np.float32(beta2)
            v += np.float32(1 - beta2) * g * g
            image[rows] -= rate * m / (np.sqrt(v * spread) + np.float32(epsilon))
        self.clamp(image)

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

    # ---- strips -------------------------------------------------------------------------------------------------
    def _strips(self, x: Floats, matrix: Floats) -> Any:
        """Convolves x (H, W, C) by the GEMM operand `matrix` (9 C, K), strip by strip from the top: yields the first
        row, the row after the last, and the result (rows, W, K) in workspace that the next strip overwrites."""
        height, width, channels = x.shape
        channels_out = matrix.shape[1]
        rows = _strip_rows(height, width, channels)
        pixels = rows * width
        space = self._workspace.view(np.float32)
        columns = space[: pixels * 9 * channels].reshape(rows, width, 3, 3, channels)
        products = space[columns.size : columns.size + pixels * channels_out].reshape(rows, width, channels_out)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            for r in range(3):
                first, last = max(top + r - 1, 0), min(bottom + r - 1, height)  # of x, with what lies inside
                at = columns[first - (top + r - 1) : last - (top + r - 1), :, r]
                source = x[first:last]
                columns[: first - (top + r - 1), :, r] = 0
                columns[last - (top + r - 1) : bottom - top, :, r] = 0
                at[:, 1:, 0], at[:, :1, 0] = source[:, :-1], 0
                at[:, :, 1] = source
                at[:, :-1, 2], at[:, -1:, 2] = source[:, 1:], 0
            count = (bottom - top) * width
            strip = products[: bottom - top]
            np.matmul(columns.reshape(pixels, -1)[:count], matrix, out=strip.reshape(count, channels_out))
            yield top, bottom, strip


def _strip_rows(height: int, width: int, channels: int) -> int:
    """Rows in a strip: an even number, so that no pool is cut, filling STRIP_BYTES."""
    rows = STRIP_BYTES // (width * 9 * channels * 4) // 2 * 2
    return min(max(rows, 2), height)


def _strip_bytes(height: int, width: int, channels_in: int, channels_out: int) -> int:
    def size(c: int, k: int) -> int:
        return _strip_rows(height, width, c) * width * (9 * c + k) * 4

    return max(size(channels_in, channels_out), size(channels_out, channels_in))


def _pool(y: Floats, pooling: Pooling, pooled: Floats, choice: NDArray[np.uint8] | None) -> None:
    height, width = pooled.shape[:2]
    corners = [y[r : 2 * height : 2, s : 2 * width : 2] for r in range(2) for s in range(2)]
    if pooling == "average":
        np.add(corners[0], corners[1], out=pooled)
        pooled += corners[2]
        pooled += corners[3]
        pooled *= np.float32(0.25)
        return
    pooled[...] = corners[0]
    for corner in corners[1:]:
        np.maximum(pooled, corner, out=pooled)
    if choice is not None:
        choice[...] = 3
        for index in (2, 1, 0):  # of equals the first in reading order stays
            np.copyto(choice, np.uint8(index), where=corners[index] == pooled)


def _blocks(values: Floats) -> list[slice]:
    """Slices of the first axis of about ROW_BYTES."""
    step = max(1, ROW_BYTES // max(1, values[0].nbytes))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def _squares(values: Floats) -> float:
    """Sum of squares: float32 inside a row, float64 over rows, always in the same order."""
    rows = values.reshape(len(values), -1)
    return float(np.sum(np.einsum("ij,ij->i", rows, rows), dtype=np.float64))
