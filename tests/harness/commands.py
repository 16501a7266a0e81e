"""The command line, as tests call it: in this process, or in one of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from typer.testing import CliRunner, Result

from nstgpu.cli import app
from nstgpu.engine.imaging import files

PROGRAM = [sys.executable, "-c", "from nstgpu.cli import main; main()"]
"""What starts it in a process of its own; its arguments follow."""


def nstgpu(*arguments: str) -> Result:
    """What a command printed, and its exit code; a traceback is never right."""
    result = CliRunner().invoke(app, arguments)
    assert "Traceback" not in result.output
    return result


def nstgpu_in(folder: Path, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """The same in a process of its own, in another folder, with `given` on its standard input."""
    command = [*PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, timeout=120, check=False)


def fill(folder: Path, weights: Path) -> None:
    """Makes a folder with content.jpg (40x30), style.png (35x25) and the weights in it."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    files.save(folder / "content.jpg", rng.random((30, 40, 3)))
    files.save(folder / "style.png", rng.random((25, 35, 3)))
    shutil.copy(weights, folder)
