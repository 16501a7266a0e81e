"""Windows and macOS, as far as they can be played here: the command line where their Python lacks what this one has.

The pictures are those of this platform, to the byte; a look at the sources says that nothing of POSIX is imported
where it would end the program.
"""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nstgpu
from harness import elsewhere

ROOT = Path(nstgpu.__file__).parent
ALIKE = ("--threads", "2", "--average", "0.5", "--quiet")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a content, a style and what `run` makes of them on this platform."""
    folder = tmp_path_factory.mktemp("platforms")
    for seed, name in enumerate(("content.png", "style.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    arguments = ["run", "content.png", "style.png", "--iterations", "3", *ALIKE, "-o", "here.png"]
    subprocess.run([sys.executable, "-m", "nstgpu", *arguments], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("platform", sorted(elsewhere.MODULES))
def test_a_picture_is_painted_and_a_run_resumed(here: Path, platform: str) -> None:
    def nstgpu_there(*arguments: str) -> None:
        command = [sys.executable, elsewhere.__file__, platform, *arguments]
        ran = subprocess.run(command, cwd=here, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr

    picture, checkpoint = f"{platform}.png", f"{platform}.ckpt"
    nstgpu_there(
        "run", "content.png", "style.png", "--iterations", "2", *ALIKE, "-o", picture, "--checkpoint", checkpoint,
        "--animation", f"{platform}.webp", "--json", f"{platform}.json",
    )  # fmt: skip
    nstgpu_there("resume", checkpoint, "--iterations", "3", "--quiet")
    assert np.array_equal(np.asarray(Image.open(here / "here.png")), np.asarray(Image.open(here / picture)))


@pytest.mark.parametrize("module", elsewhere.MODULES["win32"])
def test_what_windows_lacks_is_imported_where_it_can_be_done_without(module: str) -> None:
    """In a function, or guarded; and never at the top of a module, where it would end every command."""
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks", ".venv"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                assert module not in {name.name for name in node.names}, path
