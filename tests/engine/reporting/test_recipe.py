"""Options to TOML and back, alone and inside a picture of any format, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.files import ImageError
from nstgpu.engine.reporting import recipe

OPTIONS: dict[str, Any] = {
    "nstgpu": "1.0",
    "content": "content.jpg",
    "style": ["starry night.jpg", "b.jpg=0.3"],
    "size": 512,
    "tv_weight": 0.1,
    "learning-rate": 1e-05,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "third": 1 / 3,
    "whole": 2.0,
    "minus zero": -0.0,
    "seed": 2**63 + 1,
    "average": True,
    "quiet": False,
    "iterations": [500, 250, 100],
    "style_layers": {"relu1_1": 1.0, "relu2_1": 0.25, "block3_conv1": 3},
    "none of them": [],
    "no layers": {},
}


@pytest.mark.parametrize("suffix", [".toml", ".png", ".jpg", ".webp", ".tif", "16.png", "16.tif"])
def test_options_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    text = recipe.dump(OPTIONS)
    if suffix == ".toml":
        path.write_text(text, encoding="utf-8")
    else:
        entries = {"nstgpu": "1.0", recipe.KEY: text, "costs": "total 3"}
        images.save(path, np.zeros((8, 8, 3)), recipe=entries, depth=16 if "16" in suffix else 8)
        assert images.read_recipe(path) == entries
    options = recipe.load(path)
    assert options == OPTIONS
    assert list(options) == list(OPTIONS)
    assert repr(options) == repr(OPTIONS)  # types, order and every bit of the floats
    assert recipe.dump(options) == text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "мой кот ☆ 星月夜 😀.jpg",
        'quo"ted\\back\\slash.png',
        "tab\tnew\nline\rreturn\0null\x1f\x7f\x80.jpg",
        "[table] # = 'x' \"\"\" '''",
        "C:\\new\\u0041.jpg",
        " spaces . dots ",
        "\ufeffbom \u2028 \u202e",
    ],
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    options = {"content": name, "style": [name, name], "masks": {name: 0.5}, name: 1}
    (tmp_path / "a.toml").write_text(recipe.dump(options), encoding="utf-8", newline="")
    assert recipe.load(tmp_path / "a.toml") == options
    images.save(tmp_path / "a.png", np.zeros((8, 8, 3)), recipe={recipe.KEY: recipe.dump(options)})
    assert recipe.load(tmp_path / "a.png") == options


def test_what_becomes_of_other_types() -> None:
    text = recipe.dump({"a": Path("b") / "c.png", "b": (1, 2), "c": None, "d": np.float64(0.1), "e": [Path("x")]})
    assert text.splitlines()[1:] == [f'a = "{Path("b") / "c.png"}"', "b = [1, 2]", "d = 0.1", 'e = ["x"]']


def test_the_text_is_toml_that_one_can_read() -> None:
    text = recipe.dump({"content": "cat.jpg", "size": 512, "style_layers": {"relu1_1": 1.0, "a b": 0.5}})
    assert text.startswith("# nstgpu run --recipe FILE")
    assert text.splitlines()[1:] == [
        'content = "cat.jpg"',
        "size = 512",
        'style_layers = {relu1_1 = 1.0, "a b" = 0.5}',
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "the option x is nan; a recipe holds finite numbers only"),
        ([1.0, -math.inf], "the option x is -inf"),
        ({"relu1_1": math.inf}, "the option x is inf"),
        ({"relu1_1": "much"}, "the option x is a table of more than numbers"),
        ({"relu1_1": True}, "the option x is a table of more than numbers"),
        ({1: 1.0}, "the option x has a name of type int"),
        (["a", ["b"]], "the option x is of type list"),
        ([None], "the option x is of type NoneType"),
        (object(), "the option x is of type object"),
        (np.float32(0.1), "the option x is of type float32"),
        (b"bytes", "the option x is of type bytes"),
        ("caf\udce9.jpg", r"the option x is 'caf\udce9.jpg', which isn't Unicode"),
    ],
)
def test_what_a_recipe_cannot_hold(value: Any, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        recipe.dump({"x": value})
    assert said in str(raised.value)
    str(raised.value).encode()  # and it can be printed
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size = \n", "is not valid TOML"),
        ("size = 1\nsize = 2\n", "is not valid TOML"),
        ("when = 1979-05-27", "the option when is of type date"),
        ("x = nan", "the option x is nan"),
        ("x = inf", "the option x is inf"),
        ("[a.b]\nc = 1", "the option a is a table of more than numbers"),
    ],
)
def test_toml_that_is_no_recipe(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError) as raised:
        recipe.load(tmp_path / "a.toml")
    assert said in str(raised.value)
    assert "a.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tables_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfsize = 16\r\n")  # as Windows' editor saves it
    assert recipe.load(tmp_path / "a.toml") == {"size": 16}
    (tmp_path / "a.toml").write_text("size = 0x10 # sixteen\n[style_layers]\nrelu1_1 = 1\n'relu2_1' = 0.5\n")
    assert recipe.load(tmp_path / "a.toml") == {"size": 16, "style_layers": {"relu1_1": 1, "relu2_1": 0.5}}


def test_where_there_is_no_recipe(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        images.save(tmp_path / f"a{suffix}", np.zeros((8, 8, 3)), recipe={"nstgpu": "1.0"})
        with pytest.raises(SettingsError, match=rf"there is no recipe in .*a\{suffix}; give a picture as nstgpu run"):
            recipe.load(tmp_path / f"a{suffix}")
    with pytest.raises(SettingsError, match=r"cannot read .*none\.toml: No such file"):
        recipe.load(tmp_path / "none.toml")
    with pytest.raises(ImageError, match=r"cannot read .*none\.png: No such file"):
        recipe.load(tmp_path / "none.png")
    (tmp_path / "latin.toml").write_bytes("x = 'é'".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"cannot read .*latin\.toml: .*; give a recipe in TOML, in UTF-8"):
        recipe.load(tmp_path / "latin.toml")
    (tmp_path / "recipe.txt").write_text("size = 1")
    with pytest.raises(ImageError, match=r"is text, not a picture; PNG, JPEG, WebP, TIFF"):
        recipe.load(tmp_path / "recipe.txt")


def test_what_a_recipe_of_an_earlier_version_left_to_the_picture(tmp_path: Path) -> None:
    beside = {"nstgpu": "0.1", "weights": "mini", "weights sha256": "ab", "device": "cpu", "precision": "fp32"}
    images.save(tmp_path / "a.png", np.zeros((8, 8, 3)), recipe={**beside, recipe.KEY: "size = 16\n"})
    told = {"size": 16, "nstgpu": "", "weights": "mini", "weights_sha256": "ab", "device": "cpu", "precision": "fp32"}
    assert recipe.load(tmp_path / "a.png") == told


MOST = recipe.MOST_BYTES - 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a=" + "[" * MOST, "nested too deeply"),
        ("a=" + "{a=" * (MOST // 4), "nested too deeply"),
        ("a." * (MOST // 2) + "b=1", "nested too deeply"),
        ("'a'." * (MOST // 4) + "b=1", "nested too deeply"),
        ("[" + "a." * (MOST // 2) + "b]", "nested too deeply"),
        ("a = {" + "b." * 1000 + "c = 1}", "nested too deeply"),
        ("a=0x" + "f" * MOST, "beyond 64 bits"),
        ("a=" + "9" * MOST, "is not valid TOML"),
        ("a=-18446744073709551616", "beyond 64 bits"),
        ("a=1e400", "finite numbers only"),
        ("a='" + "x" * 5000 + "'", "too long"),
        ("a=[" + "1," * 300 + "]", "too long"),
        ("".join(f"a{number}=1\n" for number in range(300)), "300 options"),
        ("#" * 10**6, "over 65536 bytes"),
        ("#" + "é" * 40000, "over 65536 bytes"),
    ],
)
def test_nesting_numbers_and_lengths_are_bounded(tmp_path: Path, text: str, said: str) -> None:
    """In a line each, and in no time: the parser takes 23 seconds for 64 KiB of dots."""
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    images.save(tmp_path / "a.png", np.zeros((8, 8, 3)), recipe={recipe.KEY: text})
    for name in ("a.toml", "a.png"):
        with pytest.raises(SettingsError, match=said) as raised:
            recipe.load(tmp_path / name)
        assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
@pytest.mark.parametrize(
    "text", ["[" * 60000, '{"a":' * 10000 + "1" + "}" * 10000, '{"nstgpu recipe": [[[1]]]}', "1e400"]
)
def test_descriptions_nested_for_their_own_sake_are_no_recipe(tmp_path: Path, suffix: str, text: str) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = text
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert images.read_recipe(tmp_path / f"a.{suffix}") == {}
