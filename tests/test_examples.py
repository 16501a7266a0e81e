"""The scripts in examples/ run as they are, at a size that costs little."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

import nstgpu
from nstgpu import StyleTransfer
from nstgpu.engine.imaging import files as images

EXAMPLES = Path(nstgpu.__file__).parent / "examples"


@pytest.mark.parametrize(
    ("script", "arguments", "written"),
    [
        ("library.py", ["content.jpg", "style.jpg"], "painted.png"),
        ("batch.py", ["pictures", "style.jpg", "out", "48"], "out/content.png"),
        ("watch_folder.py", ["pictures", "style.jpg", "out", "1"], "out/content.png"),
        ("masks.py", ["content.jpg", "style.jpg", "content.jpg"], "two_styles.png"),
        ("early_stop.py", ["content.jpg", "style.jpg"], "settled.png"),
        ("change.py", ["content.jpg", "style.jpg"], "bolder.png"),
        ("thread.py", ["content.jpg", "style.jpg"], "threaded.png"),
    ],
)
def test_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, arguments: list[str], written: str
) -> None:
    for name in ("content.jpg", "style.jpg"):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "pictures").mkdir()
    shutil.copy(EXAMPLES / "content.jpg", tmp_path / "pictures")
    make, run = StyleTransfer.__init__, StyleTransfer.run

    def small(self: StyleTransfer, *args: object, **settings: object) -> None:
        make(self, *args, **{**settings, "size": 48})  # type: ignore[arg-type]

    def short(self: StyleTransfer, iterations: object = 0, **settings: object) -> object:
        few = [2] * len(iterations) if isinstance(iterations, list) else 2
        return run(self, few, **{**settings, "min_size": 20})  # type: ignore[arg-type]

    monkeypatch.setattr(StyleTransfer, "__init__", small)
    monkeypatch.setattr(StyleTransfer, "run", short)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert images.read(tmp_path / written).pixels.std() > 0.01


def test_kernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With PyTorch, where it is, and without."""
    for missing in (False, True):
        if missing:
            monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.setattr(sys, "argv", ["kernels.py", "24"])
        runpy.run_path(str(EXAMPLES / "kernels.py"), run_name="__main__")
        said = capsys.readouterr().out
        errors = [float(number) for number in re.findall(r"(?:off by|gradient by) (\S+?e-\d+)", said)]
        assert errors
        assert max(errors) < 1e-5
    assert "PyTorch is not installed; the same kernel on NumPy arrays:" in said
