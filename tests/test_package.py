"""The package's face: its names, its layout, and that importing it costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nstgpu

ROOT = Path(nstgpu.__file__).parent
PACKAGES = ("cli", "engine", "kernels", "weights")


def test_public_names() -> None:
    for name in nstgpu.__all__:
        assert getattr(nstgpu, name) is not None
    assert set(nstgpu.__all__) <= set(dir(nstgpu))
    with pytest.raises(AttributeError, match="Trainer"):
        _ = nstgpu.Trainer


def test_import_is_lazy() -> None:
    heavy = ["numpy", "PIL", "h5py", "rich", "cupy", "typer", "platformdirs", "urllib.request"]
    code = f"import sys, nstgpu; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = (
        f"import sys, nstgpu.cli; print([name for name in {[n for n in heavy if n != 'typer']} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"


def test_imports_run_one_way() -> None:
    allowed = {"cli": {"cli", "engine", "kernels", "weights", ""}, "engine": {"engine", "kernels", "weights", ""}}
    allowed |= {"kernels": {"kernels"}, "weights": {"weights"}}
    for package in PACKAGES:
        for path in sorted(set((ROOT / package).rglob("*.py")) - {ROOT / "weights" / "distill.py"}):
            place = ["nstgpu", *path.relative_to(ROOT).with_suffix("").parts]
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    target = [*place[: -node.level], *(node.module or "").split(".")]
                    home = target[1] if len(target) > 1 else ""
                    assert home in allowed[package], f"{path.relative_to(ROOT)} imports from {'.'.join(target)}"
                elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nstgpu"):
                    pytest.fail(f"{path.relative_to(ROOT)} imports {node.module} absolutely")


def test_no_framework_and_no_scipy() -> None:
    """In what is installed; `weights/distill.py` made the bundled model, and stays at home."""
    for package in PACKAGES:
        for path in sorted(set((ROOT / package).rglob("*.py")) - {ROOT / "weights" / "distill.py"}):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                assert not {name.split(".")[0] for name in names} & {"torch", "tensorflow", "jax", "scipy"}, path
