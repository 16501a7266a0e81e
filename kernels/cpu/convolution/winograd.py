"""Winograd's minimal filtering F(4x4, 3x3): four times fewer multiplications for a 3x3 convolution.

A 4x4 square of outputs comes from 6x6 inputs as y = A [(G w G^T) * (B d B^T)] A^T (Lavin & Gray 2016; Winograd 1980).
Summed over channels the middle is 36 matrix products. Here are only the transforms; who gathers and multiplies is
`cpu`.

The points of interpolation are 0, ±2/3, ±3/2 and infinity. In float32 they err 2.3 times less than the usual 0, ±1,
±2 (5.2e-7 against 1.2e-6, relative, over 128 channels), and 1/p of a point is a point. Turning a filter by 180 degrees
takes its value at p to p^2 times its value at 1/p, so the transformed filters of the forward convolution, read in
another order, are those of the backward one: they are stored once.
"""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

POINTS = (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))
OUTPUTS, TAPS = 4, 3
INPUTS = OUTPUTS + TAPS - 1
PRODUCTS = INPUTS**2

Matrix = NDArray[np.float64]


class Transform(NamedTuple):
    """The transforms of one direction, float32, each to be applied along both dimensions."""

    input: NDArray[np.float32]
    """B (6, 6)"""
    output: NDArray[np.float32]
    """A (4, 6)"""


def cook_toom() -> tuple[Matrix, Matrix, Matrix]:
    """A (4, 6), G (6, 3), B (6, 6) with A [(G w) * (B d)] = the four valid correlations of d (6) with w (3)."""
    a = [[p**power for power in range(OUTPUTS)] for p in POINTS] + [[Fraction(0)] * (OUTPUTS - 1) + [Fraction(1)]]
    g, b = [], []
    for index, p in enumerate(POINTS):
        others = [q for other, q in enumerate(POINTS) if other != index]
        norm = math.prod((p - q for q in others), start=Fraction(1))
        g.append([p**power / norm for power in range(TAPS)])
        b.append([*_monic(others), Fraction(0)])
    g.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
    b.append(_monic(list(POINTS)))
    return np.array(a, float).T, np.array(g, float), np.array(b, float)


def _monic(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients, constant first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [low - root * high for low, high in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def transforms() -> tuple[Transform, Transform]:
    """Those of the forward convolution, and those of the backward one, which takes the same transformed filters.

    With R the turn by 180 degrees, G R = D G for a matrix D that permutes and scales, hence
    A [(G R w) * (B d)] = (A D) [(G w) * (P B d)] with P its permutation transposed.
    """
    a, g, b = cook_toom()
    exchange = np.zeros((INPUTS, INPUTS))  # D
    for row, flipped in enumerate(g[:, ::-1]):
        (column,) = (k for k, other in enumerate(g) if np.allclose(np.cross(flipped, other), 0))
        exchange[row, column] = (flipped @ g[column]) / (g[column] @ g[column])
    permutation = (exchange != 0).T.astype(float)
    pairs = (b, a), (permutation @ b, a @ exchange)
    forward, backward = (Transform(into.astype(np.float32), out.astype(np.float32)) for into, out in pairs)
    return forward, backward


def transform_filters(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """(3, 3, C_in, C_out) -> (36, C_in, C_out) float32."""
    _, g, _ = cook_toom()
    both, (channels_in, channels_out) = np.kron(g, g), kernel.shape[2:]
    transformed = np.empty((PRODUCTS, channels_in, channels_out), np.float32)
    step = max(1, (1 << 15) // channels_out)  # a few input channels at a time, so that float64 stays in cache
    for first in range(0, channels_in, step):
        some = kernel[:, :, first : first + step].reshape(TAPS**2, -1).astype(np.float64)
        transformed[:, first : first + step] = (both @ some).reshape(PRODUCTS, -1, channels_out)
    return transformed


def transform_rows(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """(3, 3, C_in, C_out) -> (6, 3 C_in, C_out) float32: transformed down the columns alone."""
    _, g, _ = cook_toom()
    channels_in, channels_out = kernel.shape[2:]
    return np.tensordot(g, kernel.astype(np.float64), 1).astype(np.float32).reshape(6, 3 * channels_in, channels_out)
