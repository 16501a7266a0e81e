"""Places: how a picture is divided among styles, and which part of each pixel is painted."""

from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.places import Place, divide, painted


def half(height: int = 20, width: int = 40) -> Any:
    mask = np.zeros((height, width), np.float32)
    mask[:, : width // 2] = 1
    return mask


def ramp(height: int = 20, width: int = 40) -> Any:
    return np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))


def parts(places: list[Place]) -> list[Any]:
    return [place.weights for place in places]


def test_styles_without_masks_share_one_place_by_weight() -> None:
    (place,) = divide([None, None], [1.0, 3.0], None)
    assert place.weights is None
    assert place.shares == {0: 0.25, 1: 0.75}


def test_a_masked_style_has_the_share_of_its_area() -> None:
    (place,) = divide([half()], [2.0], None)
    np.testing.assert_array_equal(place.weights, half())
    assert place.shares == {0: 0.5}


def test_two_halves_are_two_places() -> None:
    first, second = divide([half(), 1 - half()], [1.0, 5.0], None)
    np.testing.assert_array_equal(first.weights, half())
    np.testing.assert_array_equal(second.weights, 1 - half())
    assert [first.shares, second.shares] == [{0: 0.5}, {1: 0.5}]


def test_one_style_everywhere_and_one_in_a_half() -> None:
    """Alone in the rest, and there measured alone."""
    rest, both = divide([None, half()], [1.0, 1.0], None)
    np.testing.assert_array_equal(rest.weights, 1 - half())
    np.testing.assert_array_equal(both.weights, half())
    assert [rest.shares, both.shares] == [{0: 0.5}, {0: 0.25, 1: 0.25}]


@pytest.mark.parametrize("order", [1, -1])
def test_a_soft_edge_is_no_place_of_its_own(order: int) -> None:
    places = divide([ramp(), 1 - ramp()][::order], [1.0, 1.0], None)
    assert len(places) == 2
    for part, mask in zip(parts(places), [ramp(), 1 - ramp()][::order], strict=True):
        np.testing.assert_allclose(part, mask, atol=1e-5)


def test_masks_that_hardly_overlap_or_leave_a_seam_are_two_places() -> None:
    wide = half(20, 400)
    wide[:, 200] = 1
    left, right = divide([wide, 1 - half(20, 400)], [1.0, 1.0], None)
    assert left.weights is not None
    assert right.weights is not None
    np.testing.assert_array_equal(left.weights[:, 200], 0.5)
    np.testing.assert_array_equal(right.weights[:, 200], 0.5)
    assert sum(sum(place.shares.values()) for place in (left, right)) == pytest.approx(1)


def test_every_pixel_is_divided_up() -> None:
    """Whatever the masks: each place's parts sum to what is painted, and the shares to its mean."""
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 20)).astype(np.float32) for _ in range(3)]
    free: Any = rng.random((30, 20)).astype(np.float32)
    places = divide([*masks, None], [1.0, 2.0, 3.0, 4.0], free)
    np.testing.assert_allclose(sum(parts(places)), free, atol=1e-5)
    assert sum(sum(place.shares.values()) for place in places) == pytest.approx(free.mean(), rel=1e-5)
    for number, mask in enumerate(masks):  # and each style is wanted where, and as much as, its mask says
        own = sum(parts([place for place in places if number in place.shares]))
        np.testing.assert_allclose(own, mask * free, atol=1e-5)


def test_painted_is_what_any_style_wants_and_the_content_mask_leaves() -> None:
    assert painted([None], None) is None
    assert painted([half(), None], None) is None
    assert painted([half(), 1 - half()], None) is None
    np.testing.assert_array_equal(painted([half()], None), half())
    np.testing.assert_array_equal(painted([half()], ramp()), half() * ramp())
    np.testing.assert_array_equal(painted([half(), None], ramp()), ramp())
