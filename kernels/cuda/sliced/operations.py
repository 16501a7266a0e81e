# ruff: noqa: ARG002
"""The sliced Wasserstein distance on the CUDA device."""

from ...device import Array
from ...errors import DeviceError

NOT_YET = "the cuda device does not know the sliced Wasserstein distance yet; take the cpu device"


class SlicedOperations:
    """Those operations of `CudaDevice`."""

    def random_directions(self, seed: int, counter: Array, out: Array) -> None:
        raise DeviceError(NOT_YET)

    def project(self, features: Array, directions: Array, out: Array) -> None:
        raise DeviceError(NOT_YET)

    def sort_scratch_bytes(self, rows: int, length: int) -> int:
        raise DeviceError(NOT_YET)

    def sort_rows(self, values: Array, order: Array | None, *, scratch: Array) -> None:
        raise DeviceError(NOT_YET)

    def sliced_cost(self, values: Array, order: Array, target: Array, scale: float, *, cost: Array, residual: Array,
                    weights: Array | None = None, accumulate: bool = False) -> None:  # fmt: skip
        raise DeviceError(NOT_YET)

    def sliced_gradient(self, residual: Array, directions: Array, *, out: Array, accumulate: bool) -> None:
        raise DeviceError(NOT_YET)
