"""What every operation means: plain NumPy in any dtype, each a few obvious lines, never optimised.

The other devices are tested against this one, in float64; nothing here is tested against them. The contract of each
operation (which buffers, which options) stands in `kernels.device`; the docstrings here give the formulas.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .device import FLAT, Layout, OneByOne, Pooling, StylePlace
from .errors import DeviceError
from .random.directions import directions as draw_directions
from .timing import host_roofline, seconds_of

Floats = NDArray[np.floating[Any]]

_DTYPES = {"auto": np.float64, "fp64": np.float64, "fp32": np.float32}


class ReferenceFilters(NamedTuple):
    """A kernel (3, 3, C_in, C_out) and its bias (C_out,), as they came."""

    kernel: Floats
    bias: Floats


class Reference(OneByOne):
    """The oracle. `precision` is "fp64" (the default) or "fp32"."""

    name = "reference"
    loss_scale, measurable, in_host_memory, stream = 1.0, True, True, None

    def __init__(self, precision: str = "auto") -> None:
        if precision not in _DTYPES:
            raise DeviceError(f"the reference device has no precision {precision!r}; choose fp64 or fp32")
        self.precision = "fp64" if precision == "auto" else precision
        self.activation_dtype = self.image_dtype = np.dtype(_DTYPES[precision])

    # ---- memory -------------------------------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> NDArray[np.uint8]:
        return np.zeros(nbytes, np.uint8)

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
        return shape, np.dtype(bool)

    def pool_argmax_layout(self, pooled_shape: tuple[int, int, int]) -> Layout:
        return pooled_shape, np.dtype(np.uint8)

    def unpack_relu_mask(self, relu_mask: NDArray[np.bool_], channels: int) -> NDArray[np.bool_]:  # noqa: ARG002
        return relu_mask.copy()

    def unpack_pool_argmax(self, pool_argmax: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:  # noqa: ARG002
        return pool_argmax.copy()

    def workspace_bytes(self, convolutions: Sequence[tuple[int, int, int, int]],  # noqa: ARG002
                        searches: Sequence[tuple[int, int, int, int]] = ()) -> int:  # fmt: skip # noqa: ARG002
        return 0

    def bind_workspace(self, workspace: NDArray[np.uint8]) -> None:
        pass

    def pack_filters(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> ReferenceFilters:
        return ReferenceFilters(kernel.astype(self.activation_dtype), bias.astype(self.activation_dtype))

    # ---- measuring ----------------------------------------------------------------------------------------------
    def elapsed(self, work: Callable[[], object]) -> float:
        return seconds_of(work)

    def roofline(self) -> tuple[float, float] | None:
        return host_roofline(self.activation_dtype)

    # ---- the network --------------------------------------------------------------------------------------------
    def preprocess(self, image: Floats, channels: Sequence[int], scale: Sequence[float],
                   shift: Sequence[float], out: Floats) -> None:  # fmt: skip
        """out[..., k] = image[..., channels[k]] scale[k] + shift[k]"""
        out[...] = image[..., list(channels)] * np.asarray(scale) + np.asarray(shift)

    def preprocess_gradient(self, gradient: Floats, channels: Sequence[int], scale: Sequence[float],
                            out: Floats) -> None:  # fmt: skip
        """out[..., channels[k]] = gradient[..., k] scale[k]"""
        out[..., list(channels)] = gradient * np.asarray(scale)

    def conv3x3_relu(self, x: Floats, filters: ReferenceFilters, *, out: Floats | None,
                     relu_mask: NDArray[np.bool_] | None, pooling: Pooling, pooled: Floats | None,
                     pool_argmax: NDArray[np.uint8] | None) -> None:  # fmt: skip
        """y[i, j, k] = max(0, b[k] + sum_{r,s,c} x[i+r-1, j+s-1, c] w[r, s, c, k]), x zero outside; then the pool"""
        y = np.maximum(_convolve(x, filters.kernel) + filters.bias, 0)
        if out is not None:
            out[...] = y
        if relu_mask is not None:
            relu_mask[...] = y > 0
        if pooled is not None:
            self.pool2x2(y, pooling=pooling, out=pooled, pool_argmax=pool_argmax)

    def conv3x3_input_gradient(self, gradient: Floats, filters: ReferenceFilters, *, out: Floats,
                               relu_mask: NDArray[np.bool_] | None, accumulate: bool, features: Floats | None = None,
                               gram_error: Floats | None = None) -> None:  # fmt: skip
        """dx[i, j, c] = sum_{r,s,k} dz[i-r+1, j-s+1, k] w[r, s, c, k]: the same convolution with the filters turned by
        180 degrees and their channels swapped; and with a style, sum_k F[i, j, k] D[k, c] beside it."""
        result = _convolve(gradient, filters.kernel[::-1, ::-1].swapaxes(2, 3))
        if features is not None and gram_error is not None:
            result += features @ gram_error
        _store(result, out, accumulate)
        if relu_mask is not None:
            out *= relu_mask

    def carries_style(self, filters: ReferenceFilters) -> StylePlace | None:  # noqa: ARG002
        return None

    def pool2x2(self, x: Floats, *, pooling: Pooling, out: Floats, pool_argmax: NDArray[np.uint8] | None) -> None:
        """p[i, j] = max, or the mean, of the four x[2i+r, 2j+s]; of equals the first in reading order is chosen"""
        quads = _quads(x)
        out[...] = quads.max(axis=0) if pooling == "max" else quads.mean(axis=0)
        if pool_argmax is not None:
            pool_argmax[...] = quads.argmax(axis=0)

    def pool_input_gradient(self, gradient: Floats, *, pooling: Pooling, pool_argmax: NDArray[np.uint8] | None,
                            out: Floats, relu_mask: NDArray[np.bool_], accumulate: bool) -> None:  # fmt: skip
        """Each pooled gradient goes to the pixel that was chosen, or a quarter of it to each of the four; the odd last
        row and column, which no pool saw, get none."""
        result = np.zeros_like(out)
        height, width = gradient.shape[:2]
        for index, (r, s) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            share = gradient / 4 if pooling == "average" else gradient * (pool_argmax == index)
            result[r : 2 * height : 2, s : 2 * width : 2] = share
        _store(result, out, accumulate)
        out *= relu_mask

    def relu_gradient(self, gradient: Floats, relu_mask: NDArray[np.bool_]) -> None:
        """dz = da where z > 0, else 0"""
        gradient *= relu_mask

    # ---- costs --------------------------------------------------------------------------------------------------
    def gram(self, features: Floats, out: Floats, *, weights: Floats | None = None) -> None:
        """G[k, m] = 1/(H W) sum_{i,j} w[i, j] a[i, j, k] a[i, j, m]"""
        pixels = features.reshape(-1, features.shape[2])
        out[...] = pixels.T @ _weighted(features, weights).reshape(pixels.shape) / len(pixels)

    def mean(self, features: Floats, out: Floats, *, weights: Floats | None = None) -> None:
        """m[k] = 1/(H W) sum_{i,j} w[i, j] a[i, j, k]"""
        out[...] = _weighted(features, weights).mean(axis=(0, 1))

    def style_cost(self, gram: Floats, target: Floats, scale: float, *, cost: Floats, gram_error: Floats,
                   accumulate: bool = False) -> None:  # fmt: skip
        """J = 1/(4 C^2) sum (G - A)^2;  D = scale (G - A)"""
        cost[...] = np.sum((gram - target) ** 2) / (4 * len(gram) ** 2)
        _store(scale * (gram - target), gram_error, accumulate)

    def moments_cost(self, gram: Floats, mean: Floats, target_gram: Floats, target_mean: Floats, scale: float, *,
                     cost: Floats, gram_error: Floats, mean_error: Floats,
                     accumulate: bool = False) -> None:  # fmt: skip
        """J = 1/(4 C^2) (sum dS^2 + sum dM^2) with M = m m^T, S = G - M, dS and dM their differences from the target;
        D = scale dS;  s = scale (dM - dS) m"""
        outer, target_outer = np.outer(mean, mean), np.outer(target_mean, target_mean)
        outers = outer - target_outer
        covariances = (gram - outer) - (target_gram - target_outer)
        cost[...] = (np.sum(covariances**2) + np.sum(outers**2)) / (4 * len(gram) ** 2)
        _store(scale * covariances, gram_error, accumulate)
        _store(scale * (outers - covariances) @ mean, mean_error, accumulate)

    def w2_root(self, gram: Floats, mean: Floats, ridge: float, out: Floats, *, scratch: Floats) -> None:  # noqa: ARG002
        """R = (G - m m^T + ridge I)^(1/2)"""
        out[...] = _power(_covariance(gram, mean, ridge), 0.5)

    def w2_cost(self, gram: Floats, mean: Floats, target_root: Floats, target_mean: Floats, ridge: float,
                scale: float, *, cost: Floats, gram_error: Floats, mean_error: Floats,
                scratch: Floats, accumulate: bool = False) -> None:  # fmt: skip # noqa: ARG002
        """J = 1/C (|m - n|^2 + tr S + tr T - 2 tr Q^(1/2)) with S = G - m m^T + ridge I, T = R R, Q = R S R, n the
        target's mean;  E = I - R Q^(-1/2) R;  D = scale E;  s = scale (m - n - E m)"""
        covariance, root = _covariance(gram, mean, ridge), target_root.astype(np.float64)
        product = root @ covariance @ root
        traces = np.trace(covariance) + np.sum(root**2) - 2 * np.trace(_power(product, 0.5))
        cost[...] = (np.sum((mean - target_mean) ** 2) + traces) / len(gram)
        change = np.eye(len(gram)) - root @ _power(product, -0.5) @ root
        _store(scale * change, gram_error, accumulate)
        _store(scale * (mean - target_mean - change @ mean), mean_error, accumulate)

    def style_gradient(self, features: Floats, gram_error: Floats, *, out: Floats, accumulate: bool,
                       mean_error: Floats | None = None, weights: Floats | None = None) -> None:  # fmt: skip
        """dJ/da[i, j] = w[i, j] (a[i, j] D + s), since D is symmetric"""
        _store(_weighted(features @ gram_error + (0 if mean_error is None else mean_error), weights), out, accumulate)

    def content_cost(self, features: Floats, target: Floats, scale: float, *, cost: Floats,
                     weights: Floats | None = None) -> None:  # fmt: skip
        """J = scale/2 sum_{i,j} w[i, j] |a[i, j] - t[i, j]|^2"""
        cost[...] = scale / 2 * np.sum(_weighted((features - target) ** 2, weights))

    def content_gradient(self, features: Floats, target: Floats, scale: float, *, out: Floats, accumulate: bool,
                         weights: Floats | None = None) -> None:  # fmt: skip
        """dJ/da[i, j] = scale w[i, j] (a[i, j] - t[i, j])"""
        _store(scale * _weighted(features - target, weights), out, accumulate)

    def normalize_features(self, features: Floats, mean: Floats, out: Floats) -> None:
        """u = (a - m) / |a - m|, 0 where |a - m| <= FLAT |a|"""
        out[...] = _directions(features, mean)[0]

    def nearest_neighbors(self, features: Floats, mean: Floats, candidates: Floats, out: NDArray[np.int32]) -> None:
        """n[i, j] = argmax_k <a[i, j] - m, s[k]>"""
        out[...] = ((features - mean) @ candidates.T).argmax(axis=2)

    def neighbors_cost(self, features: Floats, mean: Floats, candidates: Floats, matches: NDArray[np.int32],
                       scale: float, *, cost: Floats, weights: Floats | None = None) -> None:  # fmt: skip
        """J = scale sum_{i,j} w[i, j] (1 - <u[i, j], s[n[i, j]]>)"""
        cosines = np.sum(_directions(features, mean)[0] * candidates[matches], axis=2, keepdims=True)
        cost[...] = scale * np.sum(_weighted(1 - cosines, weights))

    def neighbors_gradient(self, features: Floats, mean: Floats, candidates: Floats, matches: NDArray[np.int32],
                           scale: float, *, out: Floats, accumulate: bool,
                           weights: Floats | None = None) -> None:  # fmt: skip
        """dJ/da[i, j] = scale w[i, j] (<u, s> u - s) / |a - m|, of u and s at [i, j]; 0 where u = 0"""
        directions, lengths = _directions(features, mean)
        matched = candidates[matches]
        cosines = np.sum(directions * matched, axis=2, keepdims=True)
        _store(scale * _weighted((cosines * directions - matched) / lengths, weights), out, accumulate)

    def tv_cost(self, image: Floats, scale: float, *, cost: Floats, gradient: Floats) -> None:
        """J = mean (x[i, j+1] - x[i, j])^2 + mean (x[i+1, j] - x[i, j])^2"""
        across, down = np.diff(image, axis=1), np.diff(image, axis=0)
        cost[...] = np.mean(across**2) + np.mean(down**2)
        gradient[:, 1:] += 2 * scale / across.size * across
        gradient[:, :-1] -= 2 * scale / across.size * across
        gradient[1:] += 2 * scale / down.size * down
        gradient[:-1] -= 2 * scale / down.size * down

    # ---- the sliced Wasserstein distance -------------------------------------------------------------------------
    def random_directions(self, seed: int, counter: NDArray[np.int32], out: Floats) -> None:
        """`kernels.random.directions` has the recipe."""
        out[...] = draw_directions(seed, int(counter[0]), *out.shape)

    def project(self, features: Floats, directions: Floats, out: Floats) -> None:
        """P[k, p] = sum_c D[k, c] a[p, c]"""
        out[...] = directions @ features.reshape(-1, features.shape[2]).T

    def sort_scratch_bytes(self, rows: int, length: int) -> int:  # noqa: ARG002
        return 0

    def sort_rows(self, values: Floats, order: NDArray[np.int32] | None, *, scratch: NDArray[Any]) -> None:  # noqa: ARG002
        """o[k] = the stable argsort of v[k];  v[k, i] = v[k, o[k, i]]"""
        places = np.argsort(values, axis=1, kind="stable")
        rows = np.take_along_axis(values, places, axis=1)
        values[...] = np.where(rows == 0, 0, rows)
        if order is not None:
            order[...] = places

    def sliced_cost(self, values: Floats, order: NDArray[np.int32], target: Floats, scale: float, *, cost: Floats,
                    residual: Floats, weights: Floats | None = None, accumulate: bool = False) -> None:  # fmt: skip
        """J = 1/(N K) sum_{k,i} w (v[k, i] - T_k(u))^2 with w the weight of pixel o[k, i], u its rank;
        R[k, o[k, i]] = scale w (v[k, i] - T_k(u))"""
        by_pixel = np.ones(values.shape[1]) if weights is None else weights.reshape(-1).astype(np.float64)
        weight = by_pixel[order]
        ranks = (np.cumsum(weight, axis=1) - weight / 2) / values.shape[1]
        target_ranks = (np.arange(target.shape[1]) + 0.5) / target.shape[1]
        wanted = np.stack([np.interp(rank, target_ranks, row) for rank, row in zip(ranks, target, strict=True)])
        cost[...] = np.mean(weight * (values - wanted) ** 2)
        result = np.empty_like(residual)
        np.put_along_axis(result, order, scale * weight * (values - wanted), axis=1)
        _store(result, residual, accumulate)

    def sliced_gradient(self, residual: Floats, directions: Floats, *, out: Floats, accumulate: bool) -> None:
        """dJ/da[p, c] = sum_k R[k, p] D[k, c]"""
        _store((residual.T @ directions).reshape(out.shape), out, accumulate)

    # ---- pixels -------------------------------------------------------------------------------------------------
    def adam_step(self, image: Floats, gradient: Floats, first: Floats, second: Floats, step: NDArray[np.int32], *,
                  learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:  # fmt: skip
        """m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  x = x - lr m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps), clamped"""
        step += 1
        t = int(step[0])
        first[...] = beta1 * first + (1 - beta1) * gradient
        second[...] = beta2 * second + (1 - beta2) * gradient**2
        image -= learning_rate * (first / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + epsilon)
        self.clamp(image)

    def adam_iteration(self, image: Floats, gradient: Floats, first: Floats, second: Floats, step: NDArray[np.int32],
                       average: Floats, good: Floats, *, costs: Floats, ring: Floats, progress: NDArray[np.int32],
                       weights: Floats, learning_rate: float, beta1: float, beta2: float,
                       epsilon: float) -> None:  # fmt: skip
        """The costs go into the ring; if finite, good = x, x takes a step of Adam, average += w[i] (x - average)"""
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
        """x = x - lr g, clamped"""
        image -= learning_rate * gradient
        self.clamp(image)

    def clamped_step(self, image: Floats, direction: Floats, step: float, out: Floats) -> None:
        """out = min(max(x + step d, 0), 1)"""
        out[...] = np.clip(image + step * direction, 0, 1)

    def project_gradient(self, image: Floats, gradient: Floats, out: Floats) -> None:
        """out = 0 where x <= 0 and g > 0, or x >= 1 and g < 0; g elsewhere"""
        held = ((image <= 0) & (gradient > 0)) | ((image >= 1) & (gradient < 0))
        out[...] = np.where(held, 0, gradient)

    def weigh(self, image: Floats, weights: Floats) -> None:
        """x[i, j] = x[i, j] w[i, j]"""
        image *= weights[:, :, None]

    def clamp(self, image: Floats) -> None:
        """x = min(max(x, 0), 1)"""
        np.clip(image, 0, 1, out=image)

    def resize(self, image: Floats, out: Floats) -> None:
        """out = R_down image R_across^T, each R the matrix of `lanczos_matrix`"""
        down = lanczos_matrix(image.shape[0], out.shape[0])
        across = lanczos_matrix(image.shape[1], out.shape[1])
        out[...] = np.einsum("ih,hwc,jw->ijc", down, image, across, optimize=True)

    def pad_edge(self, image: Floats, out: Floats) -> None:
        """out[i + b, j + b] = image[i, j], and beyond it the nearest pixel"""
        border = (len(out) - len(image)) // 2
        out[...] = np.pad(image, ((border, border), (border, border), (0, 0)), mode="edge")

    def pad_edge_gradient(self, gradient: Floats, out: Floats) -> None:
        """The transpose of `pad_edge`: rows beyond the edge are added to the edge's, then columns."""
        border = (len(gradient) - len(out)) // 2
        out[...] = _folded(_folded(gradient, border).swapaxes(0, 1), border).swapaxes(0, 1)

    # ---- vectors ------------------------------------------------------------------------------------------------
    def blend(self, values: Floats, weight: float, out: Floats) -> None:
        """out = out + weight (v - out)"""
        out += weight * (values - out)

    def dots(self, vectors: Floats, values: Floats, out: Floats) -> None:
        """out[k] = sum_i v[k, i] x[i]"""
        out[...] = vectors @ values

    def combine(self, vectors: Floats, coefficients: Sequence[float], out: Floats) -> None:
        """out[i] = sum_k c[k] v[k, i]"""
        out[...] = np.asarray(coefficients) @ vectors


def _folded(values: Floats, border: int) -> Floats:
    """(n + 2 border, ...) -> (n, ...): what lies before the first row and behind the last is added to them."""
    inner = values[border : len(values) - border].copy()
    inner[0] += values[:border].sum(axis=0)
    inner[-1] += values[len(values) - border :].sum(axis=0)
    return inner


def lanczos_matrix(size_in: int, size_out: int) -> NDArray[np.float64]:
    """R (size_out, size_in), rows summing to 1: R[i, j] ~ L(((j + 1/2) - (i + 1/2) s) / max(s, 1)) with
    s = size_in / size_out and L(t) = sinc(t) sinc(t / 3) for |t| < 3. At the border the filter is cut and rescaled."""
    ratio = size_in / size_out
    centres = (np.arange(size_out)[:, None] + 0.5) * ratio
    t = (np.arange(size_in)[None, :] + 0.5 - centres) / max(ratio, 1.0)
    taps = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)
    weights: NDArray[np.float64] = taps / taps.sum(axis=1, keepdims=True)
    return weights


def _convolve(x: Floats, kernel: Floats) -> Floats:
    height, width = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    terms = [padded[r : r + height, s : s + width] @ kernel[r, s] for r in range(3) for s in range(3)]
    total: Floats = np.sum(terms, axis=0)
    return total


def _quads(y: Floats) -> Floats:
    """The four pixels of every 2x2 square, (4, H // 2, W // 2, C); an odd last row or column is left out."""
    height, width = y.shape[0] // 2 * 2, y.shape[1] // 2 * 2
    return np.stack([y[r:height:2, s:width:2] for r in range(2) for s in range(2)])


def _weighted(values: Floats, weights: Floats | None) -> Floats:
    return values if weights is None else values * weights[:, :, None]


def _directions(features: Floats, mean: Floats) -> tuple[Floats, Floats]:
    """u (H, W, C), and what it was divided by, (H, W, 1): infinite where u is 0."""
    centered = features - mean
    lengths = np.linalg.norm(centered, axis=2, keepdims=True)
    lengths[lengths <= FLAT * np.linalg.norm(features, axis=2, keepdims=True)] = np.inf
    return centered / lengths, lengths


def _covariance(gram: Floats, mean: Floats, ridge: float) -> Floats:
    """In float64, whatever comes in: the eigenvalues of a product of two span ten decades."""
    exact = mean.astype(np.float64)
    return gram - np.outer(exact, exact) + ridge * np.eye(len(gram))


def _power(matrix: Floats, exponent: float) -> Floats:
    """Of a symmetric positive definite matrix, by its eigenvectors."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    power: Floats = (vectors * values**exponent) @ vectors.T
    return power


def _store(values: Floats, out: Floats, accumulate: bool) -> None:
    out[...] = out + values if accumulate else values
