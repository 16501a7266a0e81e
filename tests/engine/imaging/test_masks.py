"""Masks: what a picture of a region becomes, at the image's size and at every tap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nstgpu import Weights
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging import masks
from nstgpu.engine.imaging.files import ImageError
from nstgpu.engine.model import network
from nstgpu.kernels import open_device


def disc(height: int, width: int, radius: float = 0.3) -> Any:
    """A disc in the middle, its edge one pixel soft."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.clip(radius * height - np.hypot(y - height / 2, x - width / 2) + 0.5, 0, 1).astype(np.float32)


# Reading


def test_gray_is_taken_as_it_is(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    Image.fromarray(levels).save(tmp_path / "mask.png")
    mask = masks.read(tmp_path / "mask.png")
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, levels / 255, atol=1e-7)
    assert mask.min() == 0
    assert mask.max() == 1


def test_colours_count_by_their_luminance_and_alpha_multiplies() -> None:
    rgba = np.zeros((2, 2, 4), np.float32)
    rgba[0, 0] = [1, 0, 0, 1]
    rgba[0, 1] = [0, 1, 0, 0.5]
    rgba[1, 0] = [1, 1, 1, 0.25]
    np.testing.assert_allclose(masks.read(rgba), [[0.299, 0.2935], [0.25, 0]], atol=1e-6)


def test_booleans_are_masks() -> None:
    region = disc(20, 30) > 0.5
    np.testing.assert_array_equal(masks.read(region), region.astype(np.float32))


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4)), np.zeros((4, 4), bool), np.dstack([np.ones((4, 4, 3)), np.zeros((4, 4))])]
)
def test_an_empty_mask_is_refused(bad: Any) -> None:
    with pytest.raises(SettingsError, match=r"^the mask of style 2 is empty"):
        masks.read(bad, "the mask of style 2")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    nan = disc(8, 8)
    nan[3, 3] = np.nan
    for bad, reason in ((nan, "NaN"), (np.full((4, 4), 7.0), "values from 7"), (tmp_path / "none.png", "cannot read")):
        with pytest.raises(ImageError, match=f"^the content mask: .*{reason}") as raised:
            masks.read(bad, "the content mask")
        assert "\n" not in str(raised.value)


# Fitting it to the image


def test_the_right_size_is_left_alone() -> None:
    mask = disc(37, 53)
    np.testing.assert_array_equal(masks.fit(mask, (37, 53)), mask)


@pytest.mark.parametrize("size", [(24, 36), (25, 37), (96, 144), (97, 145), (300, 450)])
def test_fitting_keeps_place_area_and_range(size: tuple[int, int]) -> None:
    fitted = masks.fit(disc(96, 144), size)
    assert fitted.shape == size
    assert fitted.dtype == np.float32
    assert fitted.min() == 0
    assert fitted.max() == 1
    np.testing.assert_allclose(fitted.mean(), disc(96, 144).mean(), rtol=0.01)
    assert np.abs(fitted - disc(*size)).mean() < 0.02


def test_shrinking_counts_every_pixel() -> None:
    """Stripes finer than the small image are gray there, not black or white."""
    stripes = np.zeros((64, 64), np.float32)
    stripes[::2] = 1
    np.testing.assert_allclose(masks.fit(stripes, (16, 16))[1:-1], 0.5, atol=0.02)


def test_other_proportions_are_refused() -> None:
    for size in ((96, 96), (144, 96), (96, 160)):
        with pytest.raises(
            SettingsError, match=f"^the mask of style 1 is 144x96 px and its picture {size[1]}x{size[0]}"
        ):
            masks.fit(disc(96, 144), size, "the mask of style 1")


def test_a_thumbnail_of_any_rounding_has_its_pictures_proportions() -> None:
    for height, width in ((1023, 767), (333, 1000), (480, 641)):
        for long_side in (50, 97, 128, 200):
            for rounding in (np.floor, np.ceil):
                scale = long_side / max(height, width)
                thumbnail = (max(1, int(rounding(height * scale))), max(1, int(rounding(width * scale))))
                assert masks.fit(np.ones(thumbnail, np.float32), (height, width)).shape == (height, width)
                assert masks.fit(np.ones((height, width), np.float32), thumbnail).shape == thumbnail


# Feathering it


def test_a_feathered_edge_falls_off_over_so_many_pixels_to_either_side() -> None:
    mask = np.zeros((20, 40), np.float32)
    mask[:, 20:] = 1
    feathered = masks.feather(mask, 3)
    np.testing.assert_allclose(feathered[7, 16:24], np.array([0, 1, 3, 6, 10, 13, 15, 16]) / 16, atol=1e-6)
    assert (feathered[:, :17] == 0).all()
    assert (feathered[:, 23:] == 1).all()
    assert masks.feather(mask, 0) is mask


def test_feathered_masks_reach_no_further_and_still_complete_each_other() -> None:
    mask = (disc(60, 80) > 0.5).astype(np.float32)
    feathered = masks.feather(mask, 5)
    near = np.zeros_like(mask)
    for down in range(-5, 6):
        for across in range(-5, 6):
            near = np.maximum(near, np.roll(mask, (down, across), (0, 1)))
    assert (feathered[near == 0] == 0).all()
    np.testing.assert_allclose(feathered + masks.feather(1 - mask, 5), 1, atol=1e-6)
    np.testing.assert_allclose(feathered.sum(), mask.sum(), rtol=1e-5)


# At the taps


def test_pyramid_is_the_average_pool_of_the_network(thin: Callable[..., Weights]) -> None:
    """Odd sizes: against average pooling as the device does it, through a convolution that only copies."""
    device = open_device("reference")
    chain = network.build(device, thin([[4, 4], [4], [4, 4]]), "relu3_2", "average")
    sizes = network.sizes(chain, (37, 53))
    assert sizes == [(37, 53), (37, 53), (18, 26), (9, 13), (9, 13)]
    mask = disc(37, 53)
    levels = masks.pyramid(mask, sizes)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    copying = device.pack_filters(kernel, np.zeros(1, np.float32))
    below = mask[..., None].astype(np.float64)
    for level, size in ((2, (18, 26)), (3, (9, 13))):
        pooled = np.zeros((*size, 1))
        device.conv3x3_relu(
            below, copying, out=None, relu_mask=None, pooling="average", pooled=pooled, pool_argmax=None
        )
        np.testing.assert_allclose(levels[level], pooled[..., 0], atol=1e-6)
        below = pooled
    np.testing.assert_array_equal(levels[0], mask)
    np.testing.assert_array_equal(levels[4], levels[3])


def test_sizes_that_are_no_pooling_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="does not pool to"):
        masks.pyramid(disc(16, 16), [(16, 16), (9, 8)])


def test_weights_have_mean_one_and_the_masks_proportions() -> None:
    mask = disc(31, 47)
    weights = masks.weights_mean_one(mask)
    assert weights.dtype == np.float32
    assert weights.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weights * mask.max(), mask * weights.max(), rtol=1e-5)
    np.testing.assert_allclose(masks.weights_mean_one(np.full((5, 7), 0.3, np.float32)), 1, rtol=1e-6)


def test_tap_weights_name_the_mask_and_the_tap_where_it_vanishes() -> None:
    """A region of 6x6 pixels is half a pixel and more down to the third pool, and too little after the fourth."""
    sizes = {f"relu{block}_1": (64 >> block - 1, 96 >> block - 1) for block in range(1, 6)}
    mask = np.zeros((64, 96), np.float32)
    mask[20:26, 30:36] = 1
    weights = masks.tap_weights(mask, sizes, ["relu4_1", "relu1_1"], "the mask of style 2")
    assert {tap: values.shape for tap, values in weights.items()} == {"relu4_1": (8, 12), "relu1_1": (64, 96)}
    assert all(values.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6) for values in weights.values())
    with pytest.raises(SettingsError) as raised:
        masks.tap_weights(mask, sizes, sizes, "the mask of style 2")
    assert str(raised.value).startswith("the mask of style 2 covers 0.14 pixels of 6x4 at relu5_1, which is too few")
    lenient = masks.tap_weights(mask, sizes, sizes, None)
    assert not lenient["relu5_1"].any()
    np.testing.assert_array_equal(lenient["relu4_1"], weights["relu4_1"])
