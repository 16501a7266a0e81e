"""Transparent pixels: whatever lies under them, the painting is the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.pictures import noise
from nstgpu import Weights
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging.files import Picture
from nstgpu.engine.imaging.transparency import visible
from nstgpu.engine.transfer import Style, StyleTransfer

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


def cut_out(colors: np.ndarray, hidden: float) -> np.ndarray:
    """Opaque on the left, half transparent in the middle, transparent on the right, with a color under it."""
    alpha = np.ones(colors.shape[:2], np.float32)
    third = colors.shape[1] // 3
    alpha[:, third : 2 * third], alpha[:, 2 * third :] = 0.5, 0
    return np.dstack([np.where(alpha[..., None] > 0, colors, np.float32(hidden)), alpha])


def test_hidden_colors_become_those_of_what_is_visible_near_by() -> None:
    pixels = np.zeros((33, 47, 3), np.float32)
    pixels[:, :20], pixels[:, 20:] = [0.2, 0.4, 0.6], [1, 0, 1]
    alpha = np.zeros((33, 47), np.float32)
    alpha[:, :20] = 1
    seen = visible(Picture(pixels, alpha, "cut out")).pixels
    assert np.abs(seen - [0.2, 0.4, 0.6]).max() < 1e-6
    alpha[:, :20] = 0
    alpha[16, 3] = 1  # a single pixel
    seen = visible(Picture(pixels, alpha, "a dot")).pixels
    assert np.abs(seen - [0.2, 0.4, 0.6]).max() < 1e-6


def test_what_is_visible_stays_to_the_last_bit() -> None:
    pixels = noise(0, 20, 30)
    opaque = Picture(pixels, None, "opaque")
    assert visible(opaque) is opaque
    alpha = (np.random.default_rng(1).random((20, 30)) > 0.5).astype(np.float32)
    np.testing.assert_array_equal(visible(Picture(pixels, alpha, "holes")).pixels[alpha == 1], pixels[alpha == 1])


@pytest.mark.parametrize("settings", [{}, {"size": 24}, {"colors": "match"}, {"style_scale": 0.7}], ids=str)
@pytest.mark.parametrize(
    "region", [None, np.tile(np.linspace(0, 1, 36, dtype=np.float32), (30, 1))], ids=["", "region"]
)
def test_colors_under_a_transparent_style_do_not_matter(thin: Thin, settings: dict[str, Any], region: Any) -> None:
    def painted(hidden: float) -> np.ndarray:
        styles = [Style(cut_out(noise(1, 30, 36), hidden), region=region), noise(2, 20, 20)]
        transfer = StyleTransfer(noise(0, 24, 32), styles, weights=thin(), device="cpu", threads=1, **settings)
        return transfer.run(3).image

    np.testing.assert_array_equal(painted(0.0), painted(1.0))


def test_a_style_counts_where_it_is_visible(thin: Thin) -> None:
    """As with its alpha for a region."""
    opaque = noise(1, 30, 36)
    alpha = cut_out(opaque, 0.0)[..., 3]
    transparent = visible(Picture(opaque, alpha, "style"))

    def cost(style: Any) -> float:
        transfer = StyleTransfer(noise(0, 24, 32), style, weights=thin(), device="cpu", threads=1)
        return transfer.cost_and_gradient(noise(3, 24, 32))[0].total

    assert cost(np.dstack([opaque, alpha])) == cost(Style(transparent.pixels, region=alpha)) != cost(opaque)


def test_colors_under_a_transparent_content_do_not_matter(thin: Thin) -> None:
    def painted(hidden: float) -> tuple[np.ndarray, Any]:
        content = cut_out(noise(0, 24, 32), hidden)
        result = StyleTransfer(content, noise(1, 20, 20), weights=thin(), device="cpu", threads=1).run(3)
        return result.image, result.alpha

    (black, alpha), (white, _) = painted(0.0), painted(1.0)
    np.testing.assert_array_equal(black, white)
    np.testing.assert_array_equal(alpha, cut_out(noise(0, 24, 32), 0.0)[..., 3])


def test_a_style_of_which_nothing_is_left_is_named(thin: Thin) -> None:
    def given(style: Any) -> None:
        StyleTransfer(noise(0, 24, 32), style, weights=thin(), device="cpu", threads=1)

    with pytest.raises(SettingsError, match="the style image is transparent everywhere"):
        given(np.dstack([noise(1, 20, 20), np.zeros((20, 20), np.float32)]))
    dot = cut_out(noise(1, 30, 36), 0.0)
    dot[..., 3] = 0
    dot[3, 4, 3] = 1
    with pytest.raises(SettingsError, match=r"what is visible of image covers 0\.25 pixels of 18x15 at relu2_1"):
        given(dot)
    right = np.zeros((30, 36), np.float32)
    right[:, 26:] = 1
    with pytest.raises(SettingsError, match="the region of image selects only what is transparent"):
        given(Style(cut_out(noise(1, 30, 36), 0.0), region=right))
