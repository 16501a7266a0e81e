"""The operations of `neighbors` on the CUDA device."""

# ruff: noqa: ARG002

from ...device import Array
from ...errors import DeviceError


class NeighborOperations:
    """What `CudaDevice` has of them."""

    def normalize_features(self, features: Array, mean: Array, out: Array) -> None:
        raise _missing()

    def nearest_neighbors(self, features: Array, mean: Array, candidates: Array, out: Array) -> None:
        raise _missing()

    def neighbors_cost(self, features: Array, mean: Array, candidates: Array, matches: Array, scale: float, *,
                       cost: Array, weights: Array | None = None) -> None:  # fmt: skip
        raise _missing()

    def neighbors_gradient(self, features: Array, mean: Array, candidates: Array, matches: Array, scale: float, *,
                           out: Array, accumulate: bool, weights: Array | None = None) -> None:  # fmt: skip
        raise _missing()


def _missing() -> DeviceError:
    return DeviceError("the CUDA kernels of neighbors are not there yet; use the cpu device")
