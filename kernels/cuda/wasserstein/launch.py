"""Launching the Wasserstein distance of normal distributions (cuda/wasserstein/newton_schulz.cu): which products, in
which order.

What is wanted of two covariances S and T is the optimal transport map from S to T, M = T (S T)^(-1/2), symmetric and
positive definite. With R = T^(1/2) it is R (R S R)^(-1/2) R, and E = I - M gives the cost too: the part of the distance
that the covariances contribute is tr E S E, never negative, and as accurate as E where the sum of traces would be the
small difference of large numbers.

M comes from products alone, by the iteration of Newton and Schulz for the sign of [[0, T], [S, 0]], whose blocks are M
and its inverse (Higham, "Functions of Matrices", 2008, theorem 5.2):

    Y = T / sqrt(tr S T),  Z = S / sqrt(tr S T);     repeat:  P = Z Y,  Y = a Y - b Y P,  Z = a Z - b P Z;     Y -> M

It begins with S and T themselves. The textbook's way, the root of R S R, begins with a product whose small eigenvalues
are lost to rounding: in float32, on covariances of VGG-19 with a ridge of 1e-3 of the mean variance, its gradients are
off by 1e-4 as a rule and by all of it at worst; here by 2e-6 to 6e-6. Keeping a Y out of the sum of the product, where
every partial sum would be rounded at its size, saves up to a third of that. The root of one covariance S is the same
iteration with I in the place of the other.

Each round acts on the roots x of the eigenvalues of Z Y as x (a - b x^2). `sign_rounds` chooses a and b.
"""

from __future__ import annotations

import math

import numpy as np

from ...device import W2_SCRATCH, Array
from ..grids import BLOCK, Sums, rows_grid
from ..runtime.launch import Launch

TILE_ROWS, TILE_COLUMNS = 64, 32  # of a block: `Tile` in cuda/wasserstein/newton_schulz.cu
LANES, SLICES = 32, 4  # a block's warps share the terms of a product

SMALLEST = 1e-6
"""The least x that still arrives at one: about the ridge over the root of tr S T. A ridge of 1e-3 of the mean variance
was seen to give 2e-5 to 1e-4 on layers of VGG. Below it, that direction of M falls short."""


def sign_rounds(smallest: float = SMALLEST, tolerance: float = 1e-7) -> list[tuple[float, float]]:
    """(a, b) of each round, until everything from `smallest` to 1 has come within `tolerance` of 1.

    The plain iteration, (3/2, 1/2), moves a small x by half of itself. Scaled for the interval that is left, x grows by
    up to 2.6 (Chen & Chow 2014): 20 rounds instead of 38. The scaling throws the largest x back to near the smallest,
    and beyond zero if rounding has made it more than one, so the interval is taken to end a little above.
    """
    rounds = []
    while 1 - smallest > tolerance:
        mu = math.sqrt(3 / (1 + smallest + smallest**2)) / 1.03 if smallest < 0.5 else 1.0
        a, b = 1.5 * mu, 0.5 * mu**3
        rounds.append((a, b))
        smallest = min(smallest * (a - b * smallest**2), a - b)
    return rounds


ROUNDS = tuple(sign_rounds())


def w2_root(gram: Array, mean: Array, ridge: float, out: Array, scratch: Array, workspace: Array) -> list[Launch]:
    """`Device.w2_root`; `workspace` is uint8, `grids.WORKSPACE_BYTES` long."""
    y, z, *others = (scratch[index] for index in range(W2_SCRATCH))
    rounds, y_last, p, *_ = _iterate(y, z, *others)
    a, b = ROUNDS[-1]
    return [
        _covariance(gram, mean, ridge, None, y, workspace),
        _normalise(y, z, True, workspace),
        *rounds,
        _product((y_last, p, y_last, out), factor=-b, share=a),
    ]


def w2_cost(gram: Array, mean: Array, target_root: Array, target_mean: Array, ridge: float, scale: float, *,
            cost: Array, gram_error: Array, mean_error: Array, scratch: Array, accumulate: bool,
            sums: Sums) -> list[Launch]:  # fmt: skip
    """`Device.w2_cost`."""
    workspace = sums.workspace
    y, z, *others = (scratch[index] for index in range(W2_SCRATCH))
    rounds, y_last, p, change, covariance, moved = _iterate(y, z, *others)
    a, b = ROUNDS[-1]
    args = (change, moved, mean, target_mean, np.int32(len(gram)), np.float32(scale), gram_error, mean_error,
            *sums.args(1 / len(gram), cost), np.int32(accumulate))  # fmt: skip
    return [
        _product((target_root, target_root, None, y)),
        _covariance(gram, mean, ridge, y, z, workspace),
        _normalise(y, z, False, workspace),
        *rounds,
        _product((y_last, p, y_last, change), factor=b, share=-a, diagonal=1.0),  # I - M
        _covariance(gram, mean, ridge, None, covariance, workspace),
        _product((change, covariance, None, moved)),
        Launch("w2_cost", rows_grid(len(gram)), BLOCK, args),
    ]


def _iterate(y: Array, z: Array, p: Array, next_y: Array, next_z: Array
             ) -> tuple[list[Launch], Array, Array, Array, Array, Array]:  # fmt: skip
    """All rounds up to the last P; then, of the five matrices, Y and P of that round, and the three that are free."""
    launches = []
    for a, b in ROUNDS[:-1]:
        launches += [
            _product((z, y, None, p)),
            _product((y, p, y, next_y), (p, z, z, next_z), factor=-b, share=a),
        ]
        y, z, next_y, next_z = next_y, next_z, y, z
    return [*launches, _product((z, y, None, p))], y, p, z, next_y, next_z


def _covariance(gram: Array, mean: Array, ridge: float, other: Array | None, out: Array, workspace: Array) -> Launch:
    """Also leaves in the workspace what `_normalise` wants: the trace of its product with `other`, or of its own."""
    args = (gram, mean, other, np.int32(len(gram)), np.float32(ridge), out, workspace)
    return Launch("w2_covariance", rows_grid(len(gram)), BLOCK, args)


def _normalise(first: Array, second: Array, identity: bool, workspace: Array) -> Launch:
    grid = rows_grid(len(first))
    args = (first, second, np.int32(identity), workspace, np.int32(grid[0]), np.int32(len(first)))
    return Launch("w2_normalise", grid, BLOCK, args)


Operands = tuple[Array, Array, Array | None, Array]


def _product(
    first: Operands, second: Operands | None = None, *, factor: float = 1.0, share: float = 0.0, diagonal: float = 0.0
) -> Launch:
    """out := factor * left right + share * base + diagonal * I, of one or two (left, right, base, out) at once."""
    channels = len(first[0])
    kernel = "square_product" if channels % 4 == 0 else "square_product_any"
    grid = (math.ceil(channels / TILE_ROWS), math.ceil(channels / TILE_COLUMNS), 1 if second is None else 2)
    numbers = (np.int32(channels), np.float32(factor), np.float32(share), np.float32(diagonal))
    return Launch(kernel, grid, (LANES, SLICES, 1), (*first, *(second or (None,) * 4), *numbers))
