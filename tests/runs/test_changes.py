"""What may change while a run goes on: its text, and what is refused of it."""

from typing import Any

import pytest

from harness.refusals import refusal
from nstgpu.engine.errors import SettingsError
from nstgpu.runs.changes import Change, applied, changes_of, fitting, parsed
from nstgpu.runs.settings import Options


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("250 style_weight=2e4", {"style_weight": 2e4}),
        ("1 tv_weight=0.0 content_weight=none", {"tv_weight": 0.0, "content_weight": None}),
        ("7 style_layers=relu1_1=2,relu2_1", {"style_layers": ("relu1_1=2", "relu2_1")}),
        ("7 style_layers=none style_lambdas=relu1_1=1e-5", {"style_layers": (), "style_lambdas": ("relu1_1=1e-5",)}),
        ("9 style_scales=0.5,1.0", {"style_scales": (0.5, 1.0)}),
        ("9 style_sizes=300", {"style_sizes": (300,)}),
        ("9 colors=match statistics=gram=1,w2=0.5", {"colors": "match", "statistics": "gram=1,w2=0.5"}),
        ("9 size=724", {"size": 724}),
        ("250 stop", {}),
    ],
)
def test_a_change_is_what_its_text_says(text: str, values: dict[str, Any]) -> None:
    change = parsed(text)
    assert change.values == values
    assert parsed(str(change)) == change


def test_numbers_keep_every_bit() -> None:
    change = Change(3, {"style_weight": 0.1 + 0.2})
    assert parsed(str(change)).values["style_weight"] == 0.1 + 0.2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ITERATION NAME=VALUE"),
        ("250", "ITERATION NAME=VALUE"),
        ("0 tv_weight=1", "ITERATION NAME=VALUE"),
        ("-1 tv_weight=1", "ITERATION NAME=VALUE"),
        ("²50 tv_weight=1", "ITERATION NAME=VALUE"),
        ("9" * 5000 + " tv_weight=1", "ITERATION NAME=VALUE"),
        ("5 tv_weight", "no NAME=VALUE"),
        ("5 tv_weight=1 tv_weight=2", "a second one"),
        ("5 tv_weight=nan", "no number"),
        ("5 tv_weight=1e999", "no number"),
        ("5 tv_weight=much", "no number"),
        ("5 size=1.5", "no number"),
        ("5 size=none", "must be a number of pixels"),
        ("5 size=99999999999", "cannot be"),
        ("5 output=/etc/passwd", "'output' does not change"),
        ("5 content=other.png", "'content' does not change"),
        ("5 content_mask=/etc/passwd", "does not change"),
        ("5 weights=other.h5", "does not change"),
        ("5 style_sizes=300 style_scales=2", "two ways to say one thing"),
        ("5 tv_weight=-1", "tv_weight"),
        ("5 learning_rate=0", "learning rate"),
        ("5 colors=blue", "blue"),
        ("5 statistics=sharp", "sharp"),
        ("5 style_layers=relu1_1=-1", "zero or more"),
        ("5 style_lambdas=relu1_1", "no number"),
        ("5 style_scales=1,2,3", "--style-scale"),
    ],
)
def test_what_is_no_change_is_refused(text: str, why: str) -> None:
    message = refusal(SettingsError, changes_of, Options(content="a.png", styles=("b.png",), changes=(text,)))
    assert why in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"style_weight": "2"},
        {"style_weight": [2]},
        {"style_weight": float("inf")},
        {"style_layers": "relu1_1"},
        {"style_layers": ["relu1_1 relu2_1"]},
        {"colors": "match\nsize=9"},
        {"colors": ""},
        {"__class__": 1},
        {"x" * 10000: 1},
        {"changes": ["5 stop"]},
    ],
)
def test_json_that_is_no_change_is_refused(values: dict[str, Any]) -> None:
    assert len(refusal(SettingsError, fitting, values, "the change")) < 500


def test_changes_stand_in_their_order() -> None:
    def refused(*texts: str) -> str:
        return refusal(SettingsError, changes_of, Options(content="a.png", styles=("b.png",), changes=texts))

    assert "in their order" in refused("5 tv_weight=1", "4 tv_weight=2")
    assert "in their order" in refused("5 stop", "6 tv_weight=2")
    assert "200 times" in refused(*["5 tv_weight=1"] * 201)
    assert "200 times" in refused("5 style_layers=" + "relu1_1," * 5000)


def test_a_setting_takes_the_place_of_the_other_way_to_say_it() -> None:
    options = Options(style_layers=("relu1_1=2",), style_scales=(0.5,), size=96)
    assert applied(options, {"style_lambdas": ("relu1_1=1",)}).style_layers == ()
    assert applied(options, {"style_sizes": (300,)}).style_scales == ()
    assert applied(options, {"tv_weight": 1.0}).style_layers == ("relu1_1=2",)
    assert applied(options, {"size": 136}).size == 96
