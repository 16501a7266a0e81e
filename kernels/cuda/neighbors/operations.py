"""The operations of `neighbors` on the CUDA device: checks, and then the launches of `launch`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...device import Array
from ..arguments import COUNT, FLOAT, Arguments, activations_shape, check_workspace
from ..grids import Sums
from ..runtime.launch import Launch
from . import launch


class NeighborOperations:
    """What `CudaDevice` has of them."""

    _search: Callable[[Array, Array, Array, Array, Array], Sequence[Launch]]
    """`nearest_neighbors` of a kernel set."""
    activation_dtype: np.dtype[Any]
    loss_scale: float
    _arguments: Arguments
    _workspace: Array
    _sums: Sums
    _run: Callable[[Sequence[Launch]], None]
    _check_channels: Callable[[str, int], None]

    def normalize_features(self, features: Array, mean: Array, out: Array) -> None:
        shape = self._check_pixels("normalize_features", features, mean)
        self._arguments.check("normalize_features", out=(out, shape, self.activation_dtype))
        self._run(launch.normalize_features(features, mean, out))

    def nearest_neighbors(self, features: Array, mean: Array, candidates: Array, out: Array) -> None:
        shape = self._check_pixels("nearest_neighbors", features, mean)
        self._check_candidates("nearest_neighbors", candidates, shape[2])
        self._arguments.check("nearest_neighbors", 4, out=(out, shape[:2], COUNT))
        self._run(self._search(features, mean, candidates, out, self._workspace))

    def neighbors_cost(self, features: Array, mean: Array, candidates: Array, matches: Array, scale: float, *,
                       cost: Array, weights: Array | None = None) -> None:  # fmt: skip
        self._check_matched("neighbors_cost", features, mean, candidates, matches, weights)
        self._arguments.check("neighbors_cost", 4, cost=(cost, (1,), FLOAT))
        check_workspace("neighbors_cost", self._workspace)
        self._run(
            launch.neighbors_cost(features, mean, candidates, matches, scale, cost, weights, self._sums)
        )  # fmt: skip

    def neighbors_gradient(self, features: Array, mean: Array, candidates: Array, matches: Array, scale: float, *,
                           out: Array, accumulate: bool, weights: Array | None = None) -> None:  # fmt: skip
        shape = self._check_matched("neighbors_gradient", features, mean, candidates, matches, weights)
        self._arguments.check("neighbors_gradient", out=(out, shape, self.activation_dtype))
        scale *= self.loss_scale
        self._run(
            launch.neighbors_gradient(features, mean, candidates, matches, scale, out, accumulate, weights)
        )  # fmt: skip

    def _check_matched(self, operation: str, features: Array, mean: Array, candidates: Array, matches: Array,
                       weights: Array | None) -> tuple[int, int, int]:  # fmt: skip
        shape = self._check_pixels(operation, features, mean)
        self._check_candidates(operation, candidates, shape[2])
        self._arguments.check(
            operation, 4, matches=(matches, shape[:2], COUNT), weights=(weights, shape[:2], FLOAT)
        )  # fmt: skip
        return shape

    def _check_pixels(self, operation: str, features: Array, mean: Array) -> tuple[int, int, int]:
        shape = activations_shape(features)
        self._arguments.check(
            operation, features=(features, shape, self.activation_dtype), mean=(mean, shape[2:], FLOAT)
        )  # fmt: skip
        self._check_channels(operation, shape[2])
        return shape

    def _check_candidates(self, operation: str, candidates: Array, channels: int) -> None:
        if not len(candidates):
            raise ValueError(f"{operation}: there are no candidates; it takes one at least")
        self._arguments.check(operation, candidates=(candidates, (len(candidates), channels), self.activation_dtype))
