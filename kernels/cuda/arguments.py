"""Checks of an operation's arguments, so that a kernel may trust its own: shapes, dtypes, layout and alignment."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..device import MOST_VECTORS, Array
from .grids import WORKSPACE_BYTES
from .runtime.protocol import Runtime

FLOAT = np.dtype(np.float32)
COUNT = np.dtype(np.int32)
BYTE = np.dtype(np.uint8)
ALIGNMENT = 16  # bytes, of a float4

Shape = tuple[int, ...]
Wanted = tuple[Array, Shape, np.dtype[Any]]
"""An argument, and the shape and dtype it must have."""


class Arguments:
    """Checks for arrays of one runtime. Each raises ValueError with a line that names operation and argument."""

    def __init__(self, runtime: Runtime) -> None:
        self._address = runtime.address

    def check(self, operation: str, alignment: int = ALIGNMENT, /, **arguments: Wanted) -> None:
        """None passes: where it may stand is the contract's business."""
        for name, (array, shape, dtype) in arguments.items():
            if array is None:
                continue
            try:
                address = self._address(array)
            except ValueError as error:
                raise ValueError(f"{operation}: {name} {error}") from None
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{operation}: {name} has shape {array.shape} and dtype {array.dtype}; it must be {shape}, {dtype}"
                )
            if not array.flags.c_contiguous:
                raise ValueError(f"{operation}: {name} is not C-contiguous")
            if address % alignment:
                raise ValueError(f"{operation}: {name} does not start on a {alignment}-byte boundary")

    def check_vectors(self, operation: str, shape: Shape, **arguments: Array) -> None:
        """For what may be a row of a matrix."""
        alignment = row_alignment(math.prod(shape))
        self.check(operation, alignment, **{name: (array, shape, FLOAT) for name, array in arguments.items()})

    def check_sums(self, operation: str, workspace: Array, out: Array, shape: Shape = (1,), name: str = "cost") -> None:
        """Costs are neighbours in one vector, and sums need scratch memory."""
        self.check(operation, FLOAT.itemsize, **{name: (out, shape, FLOAT)})
        check_workspace(operation, workspace)


def check_workspace(operation: str, workspace: Array) -> None:
    """For sums, which need some."""
    if workspace.nbytes < WORKSPACE_BYTES:
        raise ValueError(f"{operation}: the workspace has {workspace.nbytes} bytes of {WORKSPACE_BYTES}")


def row_alignment(size: int) -> int:
    """Rows of a matrix begin where they may, unless they are as long as some float4."""
    return FLOAT.itemsize if size % 4 else ALIGNMENT


def count_of(vectors: Array) -> int:
    """How many vectors the rows of a matrix are."""
    count = len(vectors)
    if not 1 <= count <= MOST_VECTORS:
        raise ValueError(f"there are {count} vectors; it must be 1 to {MOST_VECTORS}")
    return count


def moments(
    channels: int, matrices: Mapping[str, Array], vectors: Mapping[str, Array] | None = None
) -> dict[str, Wanted]:
    """Matrices and vectors as so many channels want them."""
    wanted: dict[str, Wanted] = {name: (matrix, (channels, channels), FLOAT) for name, matrix in matrices.items()}
    return wanted | {name: (vector, (channels,), FLOAT) for name, vector in (vectors or {}).items()}


def activations_shape(array: Array) -> tuple[int, int, int]:
    if len(array.shape) != 3:
        raise ValueError(f"activations have shape {array.shape}; it must be (H, W, C)")
    height, width, channels = array.shape
    return height, width, channels


def image_shape(array: Array) -> tuple[int, int, int]:
    if len(array.shape) != 3 or array.shape[2] != 3:
        raise ValueError(f"an image has shape {array.shape}; it must be (H, W, 3)")
    return activations_shape(array)


def padded_shape(shape: tuple[int, int, int], larger: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape with as wide a border on all sides as the larger one has above and below."""
    border = max(0, (larger[0] - shape[0]) // 2)
    return (shape[0] + 2 * border, shape[1] + 2 * border, 3)


def permutation(channels: Sequence[int]) -> Sequence[int]:
    if sorted(channels) != [0, 1, 2]:
        raise ValueError(f"channels are {tuple(channels)}; they must be 0, 1 and 2 in some order")
    return channels
