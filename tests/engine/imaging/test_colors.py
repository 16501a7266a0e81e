"""Colours: statistics that match, luminance and chroma that stay, and gray pictures that break nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.imaging import colors as colours
from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.files import ImageError


def correlated(seed: int, height: int = 40, width: int = 56, spread: float = 0.08, mean: Any = (0.5, 0.5, 0.5)) -> Any:
    """Noise whose channels are correlated, well inside [0, 1]."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((height, width, 3)) @ rng.uniform(-1, 1, (3, 3)) * spread
    return np.clip(mixed + mean, 0.02, 0.98)


def gray(seed: int) -> Any:
    return np.repeat(correlated(seed)[..., :1], 3, axis=2)


def moments(image: Any) -> tuple[Any, Any]:
    flat = image.reshape(-1, 3)
    return flat.mean(axis=0), np.cov(flat.T, bias=True)


def mapped(style: Any, content: Any) -> Any:
    """Before clamping."""
    matrix, offset = colours.color_map(style, content)
    return style @ matrix.T + offset


def angle(a: Any, b: Any) -> Any:
    """The cosine between colours at every pixel."""
    return np.sum(a * b, axis=2) / (np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2))


STYLE, CONTENT = correlated(1), correlated(2, 33, 44, mean=(0.4, 0.55, 0.6))


def test_mean_and_covariance_match() -> None:
    for mine, wanted in zip(moments(mapped(STYLE, CONTENT)), moments(CONTENT), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-12)


def test_the_map_is_symmetric_and_moves_colours_least() -> None:
    """Against the two other maps of Gatys et al., which give the same covariance: Cholesky's and the symmetric one."""
    matrix, _ = colours.color_map(STYLE, CONTENT)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0
    (mean_s, s), (mean_c, c) = moments(STYLE), moments(CONTENT)

    def root(m: Any) -> Any:
        values, axes = np.linalg.eigh(m)
        return (axes * np.sqrt(values)) @ axes.T

    def moved(a: Any) -> float:
        return float(np.mean(np.sum(((STYLE - mean_s) @ a.T + mean_c - STYLE) ** 2, axis=2)))

    cholesky = np.linalg.cholesky(c) @ np.linalg.inv(np.linalg.cholesky(s))
    symmetric = root(c) @ np.linalg.inv(root(s))
    for other in (cholesky, symmetric):
        np.testing.assert_allclose(other @ s @ other.T, c, atol=1e-12)
        assert moved(matrix) < moved(other)


def test_matching_twice_changes_nothing() -> None:
    once = colours.match(STYLE, CONTENT)
    np.testing.assert_allclose(colours.match(once, CONTENT), once, atol=2e-3)  # a few values are clamped
    np.testing.assert_allclose(mapped(mapped(STYLE, CONTENT), CONTENT), mapped(STYLE, CONTENT), atol=1e-10)
    np.testing.assert_allclose(colours.match(CONTENT, CONTENT), CONTENT, atol=1e-12)


def test_a_match_is_clamped_and_keeps_its_dtype() -> None:
    loud = correlated(3, spread=0.5).astype(np.float32)
    result = colours.match(STYLE.astype(np.float32), loud)
    assert result.dtype == np.float32
    assert result.shape == STYLE.shape
    assert (result.min(), result.max()) == (0, 1)


def test_a_gray_content_makes_the_style_gray() -> None:
    result = colours.match(STYLE, gray(4))
    np.testing.assert_allclose(result, result[..., :1].repeat(3, axis=2), atol=1e-9)
    assert result.std() == pytest.approx(gray(4).std(), rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_gray_style_takes_mean_and_contrast_and_no_noise_is_blown_up(noise: float) -> None:
    style = gray(4) + noise * np.random.default_rng(0).standard_normal(gray(4).shape)
    result = mapped(style, CONTENT)
    mean, covariance = moments(result)
    np.testing.assert_allclose(mean, moments(CONTENT)[0], atol=1e-12)
    axis = np.ones(3) / np.sqrt(3)
    assert axis @ covariance @ axis == pytest.approx(axis @ moments(CONTENT)[1] @ axis, rel=1e-2)
    chroma = result - mean
    chroma -= (chroma @ axis)[..., None] * axis
    assert chroma.std() < 0.01


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_one_colour_alone(value: float) -> None:
    plain = np.full((8, 9, 3), value)
    np.testing.assert_allclose(colours.match(plain, CONTENT), np.broadcast_to(moments(CONTENT)[0], plain.shape))
    np.testing.assert_allclose(colours.match(STYLE, plain), value, atol=1e-9)
    np.testing.assert_allclose(colours.luminance(plain, CONTENT), colours.luma(CONTENT).mean())
    np.testing.assert_allclose(colours.luminance(STYLE, plain), value, atol=1e-9)


def test_luminance_is_gray_with_the_contents_mean_and_deviation() -> None:
    plain, fitted = colours.luminance(STYLE), colours.luminance(STYLE, CONTENT)
    for result in (plain, fitted):
        np.testing.assert_array_equal(result, result[..., :1].repeat(3, axis=2))
    np.testing.assert_allclose(plain[..., 0], STYLE @ [0.299, 0.587, 0.114], atol=1e-12)
    assert fitted.mean() == pytest.approx(colours.luma(CONTENT).mean(), abs=1e-9)
    assert fitted.std() == pytest.approx(colours.luma(CONTENT).std(), abs=1e-9)
    assert np.corrcoef(plain.ravel(), fitted.ravel())[0, 1] == pytest.approx(1)


def test_luminance_of_a_gray_picture_is_itself() -> None:
    np.testing.assert_allclose(colours.luminance(gray(4)), gray(4), atol=1e-12)
    np.testing.assert_allclose(colours.luma(np.ones((2, 2, 3))), 1, atol=1e-12)


def test_luminance_of_the_result_with_the_contents_chroma() -> None:
    """In gamut I and Q (here: the colour less its luminance) are the content's; and the luminance the result's."""
    result, content = correlated(5, spread=0.04), correlated(6, spread=0.04)
    mixed = colours.luminance_of_content(result, content)
    np.testing.assert_allclose(colours.luma(mixed), colours.luma(result), atol=1e-12)
    np.testing.assert_allclose(
        mixed - colours.luma(mixed)[..., None], content - colours.luma(content)[..., None], atol=1e-12
    )
    np.testing.assert_allclose(colours.luminance_of_content(content, content), content, atol=1e-12)
    assert colours.luminance_of_content(result.astype(np.float32), content).dtype == np.float32


def test_out_of_gamut_the_luminance_and_the_hue_stay() -> None:
    result, content = correlated(5, spread=0.5), correlated(6, spread=0.4)
    mixed = colours.luminance_of_content(result, content)
    assert 0 <= mixed.min() <= mixed.max() <= 1
    np.testing.assert_allclose(colours.luma(mixed), colours.luma(result), atol=1e-12)
    chroma, wanted = (image - colours.luma(image)[..., None] for image in (mixed, content))
    shrunk = np.linalg.norm(chroma, axis=2) / np.linalg.norm(wanted, axis=2)
    assert shrunk.max() < 1 + 1e-9
    assert 0.05 < np.mean(shrunk < 0.999) < 0.95
    seen = np.linalg.norm(chroma, axis=2) > 1e-6
    np.testing.assert_allclose(angle(chroma[seen][None], wanted[seen][None]), 1, atol=1e-6)
    touching = (mixed.min(axis=2) < 1e-9) | (mixed.max(axis=2) > 1 - 1e-9)
    assert touching[shrunk < 0.999].all()


def test_gray_contents_and_results() -> None:
    np.testing.assert_allclose(colours.luminance_of_content(STYLE, gray(4)), colours.luminance(STYLE), atol=1e-12)
    black, white = np.zeros_like(STYLE), np.ones_like(STYLE)
    np.testing.assert_allclose(colours.luminance_of_content(black, STYLE), black, atol=1e-12)
    np.testing.assert_allclose(colours.luminance_of_content(white, STYLE), white, atol=1e-12)


def test_sizes_must_agree() -> None:
    with pytest.raises(ImageError, match="the result is 56x40 and the content 44x33; resize the content"):
        colours.luminance_of_content(STYLE, CONTENT)


def test_on_real_pictures(shared_data: Path) -> None:
    content = images.read(shared_data / "images/content/tubingen.jpg").pixels
    style = images.read(shared_data / "images/style/starry_night.jpg").pixels
    style, content = style.astype(np.float64), content.astype(np.float64)
    for mine, wanted in zip(moments(mapped(style, content)), moments(content), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-12)


def test_what_is_not_seen_of_a_style_does_not_count_in_its_colours() -> None:
    rng = np.random.default_rng(3)
    style, content = 0.3 + 0.3 * rng.random((20, 30, 3)), 0.3 + 0.3 * rng.random((16, 16, 3))
    beside = np.concatenate([style, np.zeros((20, 15, 3))], axis=1)
    seen = np.ones((20, 45), np.float32)
    seen[:, 30:] = 0
    np.testing.assert_allclose(colours.match(beside, content, seen)[:, :30], colours.match(style, content), atol=1e-12)
    np.testing.assert_allclose(
        colours.luminance(beside, content, seen)[:, :30], colours.luminance(style, content), atol=1e-12
    )
    assert colours.is_gray(colours.luminance(style))
    assert not colours.is_gray(style)
