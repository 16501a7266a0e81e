"""The cost as a whole: every style representation, masks and several styles, against differences and against itself."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import uniform
from nstgpu.engine.costs.terms import Costs
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.transfer import Style, StyleTransfer
from nstgpu.weights import Weights

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps


def quartered_mask(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth, from 0 to 1, different in every quarter."""
    coarse = np.random.default_rng(seed).random((4, 4))
    mask = np.kron(coarse, np.ones((-(-height // 4), -(-width // 4))))[:height, :width]
    return mask.astype(np.float32)


SETTINGS: list[dict[str, Any]] = [
    {"style_statistics": "gram"},
    {"style_statistics": "moments"},
    {"style_statistics": "w2"},
]
STYLES: dict[str, Callable[[], Any]] = {
    "one": lambda: uniform(21, 30, 3, seed=1),
    "two": lambda: [uniform(21, 30, 3, seed=1), Style(uniform(25, 22, 3, seed=2), weight=0.3)],
    "masked": lambda: [
        Style(uniform(21, 30, 3, seed=1), mask=quartered_mask(5, 22, 27)),
        Style(uniform(25, 22, 3, seed=2), weight=2.0, mask=quartered_mask(6, 22, 27), region=quartered_mask(7, 25, 22)),
        uniform(20, 20, 3, seed=3),
    ],
}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["style_statistics"])
@pytest.mark.parametrize("styles", STYLES)
@pytest.mark.parametrize("kept", [False, True], ids=["free", "content mask"])
def test_gradient_matches_central_differences(thin: Thin, settings: dict[str, Any], styles: str, kept: bool) -> None:
    keep = quartered_mask(8, 22, 27) * 0.9 if kept else None
    transfer = StyleTransfer(
        uniform(22, 27, 3, seed=0),
        STYLES[styles](),
        weights=thin(),
        device="reference",
        content_layers={"relu2_1": 0.7},
        style_layers={"relu1_1": 1.0, "relu2_1": 0.5, "relu3_1": 2.0},
        style_weight=30.0,
        content_weight=1.0,
        tv_weight=0.2,
        content_mask=keep,
        **settings,
    )
    image = 0.2 + 0.6 * uniform(22, 27, 3, seed=9)
    costs, gradient = transfer.cost_and_gradient(image)
    assert costs.style > 0
    assert math.isclose(costs.gradient_norm, float(np.linalg.norm(gradient)), rel_tol=1e-9)
    direction = np.random.default_rng(10).standard_normal(image.shape)
    step = 1e-6
    ahead, _ = transfer.cost_and_gradient(image + step * direction)
    behind, _ = transfer.cost_and_gradient(image - step * direction)
    numeric = (ahead.total - behind.total) / (2 * step)
    assert float(np.sum(gradient * direction)) == pytest.approx(numeric, rel=2e-6)


@pytest.mark.parametrize("border", [1, 6])
@pytest.mark.parametrize("tile", ["off", 24])
def test_gradient_with_a_border_matches_central_differences(thin: Thin, border: int, tile: Any) -> None:
    transfer = StyleTransfer(
        uniform(22, 27, 3, seed=0),
        [
            Style(uniform(21, 30, 3, seed=1), mask=quartered_mask(5, 22, 27), region=quartered_mask(7, 21, 30)),
            uniform(20, 20, 3, seed=2),
        ],
        weights=thin(),
        device="reference",
        style_weight=30.0,
        content_weight=1.0,
        tv_weight=0.2,
        border=border,
        tile=tile,
    )
    image, direction, step = 0.2 + 0.6 * uniform(22, 27, 3, seed=9), uniform(22, 27, 3, seed=10) - 0.5, 1e-6
    costs, gradient = transfer.cost_and_gradient(image)
    ahead, behind = (transfer.cost_and_gradient(image + sign * step * direction)[0].total for sign in (1, -1))
    assert float(np.sum(gradient * direction)) == pytest.approx((ahead - behind) / (2 * step), rel=2e-6)
    assert costs.gradient_norm == pytest.approx(float(np.linalg.norm(gradient)))


def test_the_edge_of_a_flat_picture_is_like_its_middle(thin: Thin) -> None:
    """Zero padding makes an edge of it; with a border the first layer sees none."""
    flat, style = np.full((24, 32, 3), 0.6), uniform(24, 32, 3, seed=1)

    def edge_and_middle(border: int) -> np.ndarray:
        transfer = StyleTransfer(
            flat, style, weights=thin(), device="reference", style_layers={"relu1_1": 1.0}, content_layers=[],
            style_weight=1.0, tv_weight=0.0, border=border,
        )  # fmt: skip
        _, gradient = transfer.cost_and_gradient(flat)
        return np.array([np.abs(gradient[1, 8:-8]).mean(), np.abs(gradient[11, 8:-8]).mean()])

    edge, middle = edge_and_middle(0)
    assert abs(edge / middle - 1) > 0.05
    edge, middle = edge_and_middle(2)
    assert edge == pytest.approx(middle, rel=1e-9)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["style_statistics"])
@pytest.mark.parametrize("device", ["cpu", "emulator"])
def test_devices_agree_with_the_reference(thin: Thin, device: str, settings: dict[str, Any]) -> None:
    def evaluated(name: str) -> tuple[Costs, np.ndarray]:
        transfer = StyleTransfer(
            uniform(22, 27, 3, seed=0),
            STYLES["masked"](),
            weights=thin(),
            device=name,
            style_weight=30.0,
            content_weight=1.0,
            content_mask=quartered_mask(8, 22, 27) * 0.9,
            **settings,
        )
        return transfer.cost_and_gradient(uniform(22, 27, 3, seed=9).astype(np.float32))

    (costs, gradient), (expected, right) = evaluated(device), evaluated("reference")
    assert costs.total == pytest.approx(expected.total, rel=1e-5)
    assert costs.per_layer == pytest.approx(expected.per_layer, rel=1e-4)
    assert np.linalg.norm(gradient - right) <= 1e-4 * np.linalg.norm(right)


def test_equal_styles_weigh_as_one(thin: Thin) -> None:
    """Shares sum to one: the same style twice, or with a mask that is white everywhere, costs what it costs once."""
    style, image = uniform(21, 30, 3, seed=1), uniform(24, 32, 3, seed=9)
    layers: dict[str, Any] = {"style_layers": {"relu1_1": 1.0}, "content_layers": [], "style_weight": 1.0}

    def cost(styles: Any) -> Costs:
        transfer = StyleTransfer(image, styles, weights=thin(), device="reference", **layers)
        return transfer.cost_and_gradient(image)[0]

    once = cost(style)
    twice = cost([style, Style(style, weight=3.0)])
    assert twice.style == pytest.approx(once.style)
    everywhere = cost(Style(style, mask=np.ones((24, 32), np.float32)))
    assert everywhere.style == pytest.approx(once.style)


def test_a_masked_style_leaves_the_rest_alone(thin: Thin) -> None:
    """relu1_1 sees one pixel around: no gradient further than that from the mask."""
    mask = np.zeros((24, 32), np.float32)
    mask[:, :16] = 1
    transfer = StyleTransfer(
        uniform(24, 32, 3, seed=0), Style(uniform(21, 30, 3, seed=1), mask=mask), weights=thin(), device="reference",
        style_layers={"relu1_1": 1.0}, content_layers=[], style_weight=1.0, tv_weight=0.0,
    )  # fmt: skip
    _, gradient = transfer.cost_and_gradient(uniform(24, 32, 3, seed=9))
    assert np.abs(gradient[:, :16]).max() > 0
    assert np.abs(gradient[:, 17:]).max() == 0


@pytest.mark.parametrize("by", ["style mask", "content mask"])
def test_a_small_mask_is_as_strong_inside_as_none(thin: Thin, by: str) -> None:
    """On noise, which is alike everywhere: the layer weights, and the gradient of each pixel."""
    mask = np.zeros((64, 80), np.float32)
    mask[12:44, 16:40] = 1  # 15% of the area
    content, style, image = uniform(64, 80, 3, seed=0), 0.5 * uniform(40, 40, 3, seed=1), uniform(64, 80, 3, seed=9)

    def painter(style: Any, **settings: Any) -> StyleTransfer:
        return StyleTransfer(content, style, weights=thin(), device="reference", **settings)

    whole = painter(style, tv_weight=0.0, content_weight=0.0)
    if by == "style mask":
        masked = painter(Style(style, mask=mask), tv_weight=0.0, content_weight=0.0)
    else:
        masked = painter(style, content_mask=1 - mask, tv_weight=0.0, content_weight=0.0)
    assert masked.style_layers == pytest.approx(whole.style_layers, rel=1e-5)
    assert masked.style_weight == pytest.approx(whole.style_weight, rel=1e-5)
    (_, inside), (_, everywhere) = masked.cost_and_gradient(image), whole.cost_and_gradient(image)
    middle = np.s_[20:36, 24:32]
    assert np.abs(inside[middle]).mean() == pytest.approx(np.abs(everywhere[middle]).mean(), rel=0.1)
    assert (inside[mask == 0] == 0).all()


def test_a_style_of_one_half_does_not_bend_the_one_that_is_everywhere(thin: Thin) -> None:
    """Where the other half looks like the style already, nothing is to be done, whatever the first half looks like."""
    left = np.zeros((24, 96), np.float32)
    left[:, :48] = 1
    texture = np.tile(uniform(8, 8, 3, seed=1), (3, 12, 1))
    image = texture.copy()
    image[:, :48] = uniform(24, 48, 3, seed=2) ** 3
    transfer = StyleTransfer(
        image, [texture, Style(uniform(24, 48, 3, seed=2) ** 3, mask=left)], weights=thin(), device="reference",
        style_layers={"relu1_1": 1.0}, content_layers=[], style_weight=1.0, tv_weight=0.0, border=4,
    )  # fmt: skip
    _, gradient = transfer.cost_and_gradient(image)
    assert np.abs(gradient[:, 52:-4]).max() < 0.1 * np.abs(gradient[:, :44]).max()


def test_two_styles_in_two_halves_are_measured_there(thin: Thin) -> None:
    """An image made of both styles, each in its half, has no style cost at 1x1 statistics of those halves."""
    left, right = np.zeros((16, 32), np.float32), np.zeros((16, 32), np.float32)
    left[:, :16], right[:, 16:] = 1, 1
    first, second = np.full((16, 16, 3), 0.2), np.full((16, 16, 3), 0.7)
    image = np.concatenate([first, second], axis=1)
    styles = [Style(first, mask=left), Style(second, mask=right)]
    fitting, swapped = (
        StyleTransfer(
            image, given, weights=thin(), device="reference", style_layers=["relu1_1"], content_layers=[]
        ).cost_and_gradient(image)[0]
        for given in (styles, [Style(first, mask=right), Style(second, mask=left)])
    )
    assert fitting.style < 0.1 * swapped.style


@pytest.mark.parametrize(
    ("styles", "settings", "message"),
    [
        ([], {}, "no style was given"),
        (Style(uniform(8, 8, 3, seed=1), weight=0.0), {}, "weight of the style"),
        (Style(uniform(8, 8, 3, seed=1), scale=-1.0), {}, "scale of the style"),
        (Style(uniform(20, 20, 3, seed=1), mask=np.zeros((24, 32))), {}, "empty"),
        (Style(uniform(20, 20, 3, seed=1), mask=np.ones((24, 24))), {}, "proportions"),
        (
            Style(uniform(20, 20, 3, seed=1), mask=np.eye(24, 32)),
            {"content_mask": np.ones((24, 32))},
            "mask of image.*too few",
        ),
        (uniform(20, 20, 3, seed=1), {"content_mask": np.ones((24, 32))}, "what the content mask leaves covers"),
        (uniform(20, 20, 3, seed=1), {"mask_feather": -1}, "mask_feather is -1"),
        (uniform(20, 20, 3, seed=1), {"mask_feather": 33}, "at most the picture's long side, 32"),
        (uniform(20, 20, 3, seed=1), {"style_statistics": "mean"}, "choose gram, moments"),
        (uniform(20, 20, 3, seed=1), {"colors": "sepia"}, "style, match or content-luminance"),
    ],
)
def test_wrong_styles_are_named(thin: Thin, styles: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        StyleTransfer(uniform(24, 32, 3, seed=0), styles, weights=thin(), device="reference", **settings)
