"""Numbers that an option can't have: one line that names the option, in our own words, for every command."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nstgpu.cli import app

VALUES = ["nan", "-1", "", "banana", "9" * 30]
SOUND = {"9" * 30}
"""What some options take."""
COMMANDS = {
    "run": ["content.jpg", "style.png", "-o", "new.png", "--iterations", "1", "--size", "16", "--scales", "1"],
    "plan": ["content.jpg"],
    "layers": ["content.jpg", "-o", "new", "--units", "1"],
    "reconstruct": ["content.jpg", "-o", "new.png", "--size", "16", "--iterations", "1"],
    "profile": ["--size", "16"],
}
OPTIONS = {
    "run": [
        *("--style-scale", "--style-size", "--mask-feather", "--noise", "--size", "--iterations", "--min-size"),
        *("--scales", "--border", "--average", "--settled-fall", "--learning-rate", "--seed", "--content-weight"),
        *("--style-weight", "--tv-weight", "--content-layer", "--content-w", "--style-layer", "--style-lambda"),
        *("--depth", "--quality", "--save-every", "--checkpoint-every", "--threads", "--tile", "--style"),
        *("--match-every", "--style-turns", "--directions"),
    ],
    "plan": ["--size", "--memory", "--tile", "--iterations", "--threads", "--style-turns"],
    "layers": ["--unit", "--units", "--size", "--threads"],
    "reconstruct": ["--size", "--iterations", "--threads", "--seed"],
    "profile": ["--size", "--rounds", "--threads", "--directions"],
}
BEFORE = {
    "--content-layer": "relu1_2=",
    "--content-w": "relu1_2=",
    "--style-layer": "relu1_1=",
    "--style": "style.png=",
}
BEFORE["--style-lambda"] = BEFORE["--style-layer"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "option"), [(name, one) for name, many in OPTIONS.items() for one in many])
@pytest.mark.parametrize("value", VALUES)
def test_the_option_is_named(command: str, option: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    options = [text for text in COMMANDS[command] if option != "--style" or text != "style.png"]
    given = f"{option}={BEFORE.get(option, '')}{value}"
    if value in SOUND and command in ("plan", "profile", "layers"):
        pytest.skip("may be fine, and then takes its time")
    result = CliRunner().invoke(app, [command, *options, "--weights", "small.h5", "--device", "cpu", given])
    if result.exit_code == 0 and value in SOUND:
        return
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == (1 if "not finite" in line else 2), result.output
    assert line.startswith("nstgpu: ")
    assert option in line
    assert "Input should" not in line
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "a", "b", "--seed", "banana"], "--seed is 'banana'; it must be a whole number, 0 or more"),
        (["run", "a", "b", "--size", "3"], "--size is 3; it must be 16 or more"),
        (["run", "a", "b", "--noise", ""], "--noise is ''; it must be a number, 0 to 1"),
        (["run", "a", "b", "--quality", "101"], "--quality is 101; it must be 1 to 100"),
        (["layers", "a", "--unit", "q"], "--unit is 'q'; it must be a whole number;"),
        (["plan", "--memory", "x"], "--memory is 'x'; it must be a number;"),
    ],
)
def test_in_our_own_words(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_a_style_too_long_is_told_by_its_scale(folder: Path) -> None:
    before = sorted(folder.iterdir())
    shared = ["run", "content.jpg", "style.png", "--weights", "small.h5", "--iterations", "1", "--size", "32"]
    result = CliRunner().invoke(app, [*shared, "--style-scale", "1e30"])
    assert result.exit_code == 2
    assert "nstgpu: --style-scale is 1e+30, which makes the style style" in result.stderr
    assert "at most 1048576 are possible" in result.stderr
    assert sorted(folder.iterdir()) == before
