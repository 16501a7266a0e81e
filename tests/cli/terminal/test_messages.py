"""What a file's names and texts may put on the terminal: letters."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nstgpu.cli import app
from nstgpu.cli.terminal.messages import MOST, notes, printable, say
from nstgpu.engine.imaging import files as images


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 星 мой.jpg C:\\new", "plain é 星 мой.jpg C:\\new"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m\x90q\x9c\x85", "\\x9b31m\\x90q\\x9c\\x85"),
        ("a\nb\rc\td\x7f\0", "a\\x0ab\\x0dc\\x09d\\x7f\\x00"),
        ("\u202egpj.exe\u2066\u2069\u200f\u061c", "\\u202egpj.exe\\u2066\\u2069\\u200f\\u061c"),
        ("\u2028\u2029\ufeff\u200b\u00ad", "\\u2028\\u2029\\ufeff\\u200b\\xad"),
        ("caf\udce9 \ud800 \U000e0041", "caf\\xe9 \\ud800 \\U000e0041"),
        ("👩\u200d🎨 می\u200cخواهم Screenshot\u202f3", "👩\u200d🎨 می\u200cخواهم Screenshot\u202f3"),
    ],
)
def test_escape_codes_are_shown_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_control_character_is_left() -> None:
    for code in range(0x11000):
        shown = printable(chr(code))
        assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in shown), hex(code)
        assert all(unicodedata.bidirectional(c) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI") for c in shown)
        shown.encode()


def test_a_line_that_never_ends_is_cut() -> None:
    assert len(printable("\x1b" * 10**6)) == len(printable("a" * 10**6)) == MOST
    assert printable("a" * MOST) == "a" * MOST


def test_a_terminal_that_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/null") as read_only:  # writing to it fails
        monkeypatch.setattr("sys.stderr", read_only)
        say("a line")
    monkeypatch.setattr("sys.stderr", read_only)  # closed
    say("a line")


@pytest.mark.parametrize(
    "command", [["run", "NAME", "NAME"], ["run", "--recipe", "NAME"], ["weights", "inspect", "NAME"]]
)
def test_names_of_files_in_errors(tmp_path: Path, command: list[str]) -> None:
    name = str(tmp_path / "a\x1b[31m\x07\u202e.png")
    result = CliRunner().invoke(app, [part.replace("NAME", name) for part in command])
    assert result.exit_code == 2
    assert "a\\x1b[31m\\x07\\u202e.png" in result.stderr or command[0] == "weights"  # which puts spaces
    assert not set("\x1b\x07\u202e") & set(result.output + result.stderr)


def test_names_that_come_from_a_picture(tmp_path: Path) -> None:
    images.save(
        tmp_path / "a.png", np.zeros((8, 8, 3)), recipe={"nstgpu recipe": 'content="a"\n"\\u001b[31mred" = 1\n'}
    )
    result = CliRunner().invoke(app, ["run", "--recipe", str(tmp_path / "a.png")])
    assert result.exit_code == 2
    assert "\\x1b[31mred" in result.stderr
    assert "\x1b" not in result.stderr


def test_what_libraries_will_do_otherwise_one_day_is_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    with notes(quiet=False):
        warnings.warn("'parseString' deprecated - use 'parse_string'", DeprecationWarning, stacklevel=1)
        warnings.warn("the picture lacks its end marker", stacklevel=1)
    assert capsys.readouterr().err == "note: the picture lacks its end marker\n"
