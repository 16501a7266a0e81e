"""Numbers that tests of kernels start from, and how near to the exact ones their results must be."""

from collections.abc import Callable
from typing import Any

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 1e-40, -1e-40, 1.0, -1.0, 3e38, -3e38],
                   np.float32)  # fmt: skip
"""Numbers that a sort may trip over."""


def random(*shape: int, seed: int = 0) -> Any:
    """Normal numbers in float32."""
    return random64(*shape, seed=seed).astype(np.float32)


def random64(*shape: int, seed: int = 0) -> Any:
    """The same in float64, before they are rounded."""
    return np.random.default_rng(seed).standard_normal(shape)


def uniform(*shape: int, seed: int = 0) -> Any:
    """Numbers from 0 to 1 in float64."""
    return np.random.default_rng(seed).random(shape)


def mean_one(height: int, width: int, seed: int = 9, dtype: Any = np.float32) -> Any:
    """Weights of pixels, some of them zero."""
    weights = np.maximum(random64(height, width, seed=seed).astype(dtype) + dtype(0.5), dtype(0))
    return (weights / weights.mean()).astype(dtype) if weights.any() else np.ones_like(weights)


def filters_and_bias(channels_in: int, channels_out: int) -> tuple[Any, Any]:
    """The (3, 3, C_in, C_out) kernel is such that sums have a size of about one."""
    kernel = random(3, 3, channels_in, channels_out, seed=1) / np.float32(3 * np.sqrt(channels_in))
    return kernel, random(channels_out, seed=2) / np.float32(4)


def layer(shape: tuple[int, int, int, int]) -> tuple[Any, Any, Any]:
    """x, kernel and bias, such that about half of the activations are positive and not all alike."""
    return random(*shape[:3]), *filters_and_bias(*shape[2:])


def mask_bits(mask: Any) -> Any:
    """As devices keep the signs of activations."""
    return np.packbits(mask, axis=2, bitorder="little")


def rows_to_sort(count: int, length: int, seed: int = 0) -> Any:
    """All kinds of rows: any floats, few values many times, special ones, sorted and falling."""
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[], Any]] = [
        lambda: rng.integers(0, 2**32, length, dtype=np.uint32).view(np.float32),
        lambda: np.maximum(rng.standard_normal(length), 0).astype(np.float32),
        lambda: rng.choice(SPECIAL, length),
        lambda: np.sort(rng.standard_normal(length)).astype(np.float32)[::-1],
        lambda: rng.integers(-2, 3, length).astype(np.float32),
        lambda: np.full(length, -7.5, np.float32),
    ]
    return np.stack([kinds[row % len(kinds)]() for row in range(count)])


def root_mean_square(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def within(actual: Any, expected: Any, terms: int, factor: float = 8, what: str = "result") -> None:
    """The rounding of a sum of `terms` random terms grows with its square root; `factor` is the room above that."""
    within_share(actual, expected, factor * EPSILON * float(np.sqrt(terms)), what)


def within_share(actual: Any, expected: Any, share: float, what: str = "result") -> None:
    """The error's root mean square is at most this share of the expected numbers'."""
    if np.size(expected) == 0:
        return
    error, scale = root_mean_square(actual - expected), root_mean_square(expected)
    print(f"{what}: {error:.1e} of {scale:.1e}, {error / max(share * scale, 1e-300):.1%} of the budget")
    assert error <= share * scale, what


def within_bound(actual: Any, expected: Any, bound: Any, what: str = "result") -> None:
    """No number's error is above its own bound."""
    share = float(np.max(np.abs(actual - expected) / np.maximum(bound, 1e-300), initial=0))
    print(f"{what}: at most {share:.1%} of the bound")
    assert share <= 1, what
