"""Blocks told by names, pools and widths, with no file at hand."""

import pytest

from nstgpu.weights import WeightsError
from nstgpu.weights.keras.architecture import VGG16, VGG19, places

WIDTHS = (64, 128, 256, 512, 512)


def depths_of(widths, pool_count=None, blocks=None):
    """Convolutions per block, for layers whose names say nothing."""
    found = places([f"conv2d_{number}" for number in range(len(widths))], widths, blocks, pool_count)
    assert [place.index for place in found] == [index for depth in _depths(found) for index in range(1, depth + 1)]
    return _depths(found)


def _depths(found):
    blocks = [place.block for place in found]
    return tuple(blocks.count(block) for block in range(1, blocks[-1] + 1))


def widths_of(depths, widths=WIDTHS):
    return [width for width, depth in zip(widths, depths, strict=False) for _ in range(depth)]


@pytest.mark.parametrize("pools", [None, 0, 4, 5])
@pytest.mark.parametrize("depths", [VGG16, VGG19])
def test_whole_vgg(depths, pools):
    assert depths_of(widths_of(depths), pools) == depths
    assert depths_of([32] * sum(depths), pools) == depths  # by its count alone


@pytest.mark.parametrize("depths", [(2, 2, 4), (2, 2, 3), (2, 2, 4, 4), (2, 2, 4, 4, 1), (2, 2, 4, 2), (2, 1)])
def test_first_layers_of_a_vgg(depths):
    for pools in (None, len(depths) - 1, len(depths)):
        assert depths_of(widths_of(depths), pools) == depths


def test_width_changes_tell_other_networks():
    assert depths_of([8, 16, 16, 16, 32]) == (1, 3, 1)
    assert depths_of([8, 16, 16, 16, 32], pool_count=2) == (1, 3, 1)
    assert depths_of([8, 16, 32], pool_count=3) == (1, 1, 1)


@pytest.mark.parametrize(
    ("widths", "pools"),
    [([4, 4], 1), ([4] * 8, None), ([8, 16, 16, 16, 32], 3), ([8, 16, 16, 16, 32], 1), ([4] * 3, 2)],
)
def test_what_fits_several_networks_is_refused(widths, pools):
    with pytest.raises(WeightsError, match="cannot be told"):
        depths_of(widths, pools)


def test_blocks_told_by_the_file_count_more_than_widths():
    assert depths_of([8, 16, 16, 16], blocks=[1, 1, 2, 2]) == (2, 2)


def test_names_count_more_than_everything():
    found = places(["conv1_1", "conv2_1", "conv2_2"], [4, 4, 4], [1, 1, 1], 1)
    assert [place.keras_name for place in found] == ["block1_conv1", "block2_conv1", "block2_conv2"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["block1_conv2"], "block1_conv1"),
        (["block1_conv1", "block1_conv3"], "block2_conv1"),
        (["block1_conv1", "block3_conv1"], "block2_conv1"),
        (["relu1_1", "relu2_2"], "block2_conv1"),
    ],
)
def test_gap_in_the_names(names, missing):
    with pytest.raises(WeightsError, match=f"the layer {missing} is missing"):
        places(names, [4] * len(names), None, None)
