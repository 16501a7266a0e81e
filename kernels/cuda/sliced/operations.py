"""The operations of the sliced Wasserstein distance on the CUDA device: arguments checked, then launched."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...device import MOST_DIRECTIONS, Array
from ..arguments import BYTE, COUNT, FLOAT, activations_shape
from ..grids import Sums
from ..runtime.launch import Launch
from . import launch as sliced
from .kernel_names import PROJECT


class SlicedOperations:
    """What `CudaDevice` has of them."""

    precision: str
    activation_dtype: np.dtype[Any]
    loss_scale: float
    _check: Callable[..., None]
    _check_channels: Callable[[str, int], None]
    _check_sums: Callable[..., None]
    _run: Callable[[Sequence[Launch]], None]
    _sums: Sums

    def random_directions(self, seed: int, counter: Array, out: Array) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"random_directions: seed is {seed}; it must be 0 to 2^64 - 1")
        shape = _matrix("random_directions", "out", out)
        self._check("random_directions", 4, counter=(counter, (1,), COUNT), out=(out, shape, FLOAT))
        self._run(sliced.random_directions(seed, counter, out))

    def project(self, features: Array, directions: Array, out: Array) -> None:
        height, width, channels = activations_shape(features)
        count, _ = _matrix("project", "directions", directions)
        self._check("project", features=(features, (height, width, channels), self.activation_dtype),
                    directions=(directions, (count, channels), FLOAT),
                    out=(out, (count, height * width), FLOAT))  # fmt: skip
        self._check_channels("project", channels)
        self._run(sliced.project(features, directions, out, self._stored_as))

    def sort_scratch_bytes(self, rows: int, length: int) -> int:
        return sliced.sort_scratch_bytes(rows, length)

    def sort_rows(self, values: Array, order: Array | None, *, scratch: Array) -> None:
        shape = _matrix("sort_rows", "values", values)
        least = sliced.sort_scratch_bytes(1, shape[1])
        self._check("sort_rows", 4, values=(values, shape, FLOAT), order=(order, shape, COUNT))
        if least:
            if scratch is None or scratch.nbytes < least:
                raise ValueError(f"sort_rows: scratch has {0 if scratch is None else scratch.nbytes} bytes of {least}")
            self._check("sort_rows", 4, scratch=(scratch, (scratch.size,), BYTE))
        self._run(sliced.sort_rows(values, order, scratch))

    def sliced_cost(self, values: Array, order: Array, target: Array, scale: float, *, cost: Array, residual: Array,
                    weights: Array | None = None, accumulate: bool = False) -> None:  # fmt: skip
        count, length = shape = _matrix("sliced_cost", "values", values)
        if count > MOST_DIRECTIONS:
            raise ValueError(f"sliced_cost: {count} directions; it must be {MOST_DIRECTIONS} at most")
        if weights is not None and weights.size != length:
            raise ValueError(f"sliced_cost: weights of {weights.size} pixels for {length}")
        of_target = _matrix("sliced_cost", "target", target)
        self._check_sums("sliced_cost", cost)
        self._check("sliced_cost", 4, values=(values, shape, FLOAT), order=(order, shape, COUNT),
                    target=(target, (count, of_target[1]), FLOAT), residual=(residual, shape, FLOAT))  # fmt: skip
        if weights is not None:
            self._check("sliced_cost", 4, weights=(weights, weights.shape, FLOAT))
        self._run(sliced.sliced_cost(values, order, target, scale, cost, residual, weights, accumulate, self._sums))

    def sliced_gradient(self, residual: Array, directions: Array, *, out: Array, accumulate: bool) -> None:
        height, width, channels = shape = activations_shape(out)
        count, _ = _matrix("sliced_gradient", "directions", directions)
        self._check("sliced_gradient", residual=(residual, (count, height * width), FLOAT),
                    directions=(directions, (count, channels), FLOAT),
                    out=(out, shape, self.activation_dtype))  # fmt: skip
        self._check_channels("sliced_gradient", channels)
        self._run(sliced.sliced_gradient(residual, directions, out, accumulate, self.loss_scale, self._stored_as))

    @property
    def _stored_as(self) -> str:
        """What features are held in."""
        return self.precision if self.precision in PROJECT else "fp32"


def _matrix(operation: str, name: str, array: Array) -> tuple[int, int]:
    if len(array.shape) != 2 or 0 in array.shape:
        raise ValueError(f"{operation}: {name} has shape {array.shape}; it must be a matrix")
    rows, columns = array.shape
    return rows, columns
