"""What the book shows is what the program does: commands are run, or at least understood, and code works.

A block that is not run says why in a comment before it: <!-- not run: reason -->. Commands of other pages than the
first ones paint for minutes, on pictures that are not there; they are parsed, so that no option in them is out of
date.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from PIL import Image

import nstgpu
from harness import commands
from nstgpu.cli import app

ROOT = Path(nstgpu.__file__).parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
RUN = ("start.md", "library.md", "kernels_api.md")
"""Pages whose blocks are run, one after the other, in a folder with examples/, content.jpg and style.jpg."""
_BLOCK = re.compile(r"^(?:<!-- (?P<mark>.+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(mark, text) of the page's blocks in a language; the mark is the comment on the line before, or ""."""
    return [
        (found["mark"] or "", found["text"])
        for found in _BLOCK.finditer(page.read_text())
        if found["language"] == language
    ]


def arguments_of(text: str) -> list[list[str]]:
    """The arguments of each `nstgpu` in a block."""
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("nstgpu ") and "..." not in line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examples").mkdir()
    for name in ("content.jpg", "style.jpg"):
        small = Image.open(ROOT / "examples" / name).resize((96, 72))
        small.save(tmp_path / name)
        small.save(tmp_path / "examples" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_understood(page: Path) -> None:
    for _, text in blocks(page, ""):
        for arguments in arguments_of(text):
            if "[" in " ".join(arguments):  # a synopsis
                continue
            group: Any = typer.main.get_command(app)
            context = click.Context(group)
            while hasattr(group, "commands") and arguments:
                name, *arguments = arguments
                assert name in group.commands, f"{page.name}: nstgpu {name}"
                group = group.commands[name]
            parser = group.make_parser(context)
            parser.parse_args(list(arguments))  # an option that is not there raises


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", RUN)
def test_blocks_of_the_first_pages_run(name: str) -> None:
    page = ROOT / "docs" / name
    ran = 0
    for mark, text in blocks(page, ""):
        if not mark.startswith("not run: "):
            for arguments in arguments_of(text):
                result = commands.nstgpu(*arguments)
                assert result.exit_code == 0, f"{arguments}: {result.output}"
                ran += 1
    names: dict[str, object] = {}
    for _, text in blocks(page, "python"):
        exec(compile(text, name, "exec"), names)
        ran += 1
    assert ran


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs; .ci/run builds it anyway")
def test_the_book_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "reference" / "cli" / "index.html").read_text().count("--style-weight") >= 1
