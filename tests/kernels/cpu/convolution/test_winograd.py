"""The transforms of F(4x4, 3x3): exact in float64, accurate in float32, and one set of filters for both directions."""

from typing import Any

import numpy as np
import pytest

from nstgpu.kernels.cpu.convolution import winograd


def both_ways(matrix: Any, x: Any) -> Any:
    """(6, 6, ...) -> (n, n, ...) by a matrix (n, 6): M x M^T, in the precision of its arguments."""
    return np.moveaxis(np.tensordot(matrix, np.tensordot(matrix, x, 1), (1, 1)), 0, 1)


def test_one_dimension_is_exact() -> None:
    a, g, b = winograd.cook_toom()
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(6), rng.standard_normal(3)
    expected = [d[i : i + 3] @ w for i in range(4)]
    np.testing.assert_allclose(a @ ((g @ w) * (b @ d)), expected, rtol=1e-12)


def test_filters_of_rows_are_transformed_down_the_columns_alone() -> None:
    rng = np.random.default_rng(4)
    kernel, d = rng.standard_normal((3, 3, 4, 5)), rng.standard_normal((6, 3, 4))
    a, _, b = winograd.cook_toom()
    products = np.einsum("pc,pck->pk", np.tensordot(b, d, 1).reshape(6, 12), winograd.transform_rows(kernel))
    expected = [np.einsum("rsc,rsck->k", d[row : row + 3], kernel) for row in range(4)]
    np.testing.assert_allclose(a @ products, expected, atol=2e-5)


@pytest.mark.parametrize("backward", [False, True])
def test_both_directions_from_one_set_of_filters(backward: bool) -> None:
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((3, 3, 4, 5))
    filters = winograd.transform_filters(kernel)
    transform = winograd.transforms()[backward]
    if backward:
        filters, kernel = filters.swapaxes(1, 2), kernel[::-1, ::-1].swapaxes(2, 3)
    x = rng.standard_normal((6, 6, kernel.shape[2]))
    inputs = both_ways(transform.input, x).reshape(36, -1)
    y = both_ways(transform.output, np.einsum("pc,pck->pk", inputs, filters).reshape(6, 6, -1))
    expected = np.array(
        [[np.einsum("rsc,rsck->k", x[i : i + 3, j : j + 3], kernel) for j in range(4)] for i in range(4)]
    )
    np.testing.assert_allclose(y, expected, atol=2e-5)


def test_error_in_float32_is_near_that_of_plain_products() -> None:
    rng = np.random.default_rng(2)
    tiles, channels = 500, 256
    x = np.maximum(rng.standard_normal((tiles, 6, 6, channels)), 0).astype(np.float32)
    kernel = rng.standard_normal((3, 3, channels, 1)).astype(np.float32)
    transform, filters = winograd.transforms()[0], winograd.transform_filters(kernel)
    inputs = both_ways(transform.input, x.transpose(1, 2, 0, 3)).reshape(36, tiles, channels)
    y = both_ways(transform.output, np.matmul(inputs, filters).reshape(6, 6, tiles)).reshape(16, tiles)
    squares = x.astype(np.float64)
    expected = [
        np.einsum("trsc,rsc->t", squares[:, i : i + 3, j : j + 3], kernel[..., 0].astype(np.float64))
        for i in range(4)
        for j in range(4)
    ]
    error = np.linalg.norm(y - expected) / np.linalg.norm(expected)
    print(f"relative error {error:.2e}")
    assert error <= 1e-6  # the usual points 0, ±1, ±2 give 1.3e-6
