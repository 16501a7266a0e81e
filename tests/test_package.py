"""The package's face: its names, its layout, and that importing it costs nothing."""

import ast
import collections
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import nstgpu

ROOT = Path(nstgpu.__file__).parent
PACKAGES = ("cli", "batch", "studio", "runs", "engine", "kernels", "weights")
MODULES = sorted(
    {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")} - {ROOT / "weights/training/distill.py"}
)
"""What is installed; `weights/training/distill.py` made the bundled model, and stays at home."""


def test_public_names() -> None:
    for name in nstgpu.__all__:
        assert getattr(nstgpu, name) is not None
    assert set(nstgpu.__all__) <= set(dir(nstgpu))
    with pytest.raises(AttributeError, match="Trainer"):
        _ = nstgpu.Trainer


def test_import_is_lazy() -> None:
    heavy = ["numpy", "PIL", "h5py", "rich", "cupy", "typer", "platformdirs", "urllib.request", "starlette", "uvicorn"]
    code = f"import sys, nstgpu; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = (
        f"import sys, nstgpu.cli; print([name for name in {[n for n in heavy if n != 'typer']} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"


def test_imports_run_one_way() -> None:
    allowed = {"kernels": {"kernels"}, "weights": {"weights"}, "engine": {"engine", "kernels", "weights", ""}}
    allowed["runs"] = {"runs", *allowed["engine"]}
    allowed["studio"] = {"studio", *allowed["runs"]}
    allowed["batch"] = {"batch", *allowed["runs"]}
    allowed["cli"] = {"cli", *allowed["batch"], *allowed["studio"]}
    for path in MODULES:
        place = ["nstgpu", *path.relative_to(ROOT).with_suffix("").parts]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = [*place[: -node.level], *(node.module or "").split(".")]
                home = target[1] if len(target) > 1 else ""
                assert home in allowed[place[1]], f"{path.relative_to(ROOT)} imports from {'.'.join(target)}"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nstgpu"):
                pytest.fail(f"{path.relative_to(ROOT)} imports {node.module} absolutely")


def imported_from_outside(path: Path) -> set[str]:
    """The top-level names of all that a module imports absolutely, at whatever depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


def test_all_that_is_imported_is_declared() -> None:
    """As a dependency or under an extra; so nothing of a framework, and nothing that only comes along with others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    distributions = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in declared}
    called = {"pillow": "PIL", "pillow-heif": "pillow_heif", "cupy-cuda12x": "cupy", "cupy-cuda13x": "cupy"}
    called["python-multipart"] = "python_multipart"
    standard = {*sys.stdlib_module_names, "tomllib"}  # which Python 3.10 lacks, and does without
    known = {called.get(name, name) for name in distributions} - {"torch"} | standard
    for path in MODULES:
        # The seam names it for type checkers alone, which bring it along.
        seam = {"typing_extensions"} if path == ROOT / "kernels/device.py" else set()
        assert imported_from_outside(path) <= known | seam, path


def test_every_folder_with_sources_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    sources = [
        path
        for package in PACKAGES
        for kind in ("py", "cu", "cuh", "h", "cpp")
        for path in (ROOT / package).rglob(f"*.{kind}")
    ]
    folders = {".".join(("nstgpu", *path.parent.relative_to(ROOT).parts)) for path in sources}
    assert sorted(setuptools["packages"]) == sorted({"nstgpu", *folders} - {"nstgpu.weights.training"})
    for path in sources:
        patterns = setuptools["package-data"].get(".".join(("nstgpu", *path.parent.relative_to(ROOT).parts)), [])
        assert path.suffix == ".py" or any(path.match(pattern) for pattern in patterns), path


def test_the_module_runs_as_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "nstgpu", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"nstgpu {nstgpu.__version__}\n"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """The modules of this package that a file imports, those for its types alone included."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (
                [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                if node.module
                else [*package[: len(package) - node.level + 1]]
            )
            found |= {".".join(base), *(".".join([*base, alias.name]) for alias in node.names)} & modules
    return found - {module_of(path)}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Depth first: a module that is met again before its own imports are done stands in a circle."""
    by_module = {module_of(path): path for path in MODULES}
    imports = {module: imports_of(path, set(by_module)) for module, path in by_module.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(imports[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(imports):
        visit(module, ())


@pytest.mark.slow
def test_every_room_of_kernels_has_a_quick_test() -> None:
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "quick", "--collect-only"]
    ran = subprocess.run([*command, "tests/kernels"], cwd=tests.parent, capture_output=True, text=True, check=False)
    rooms = {str(path.parent.relative_to(tests.parent)) for path in (tests / "kernels").rglob("test_*.py")}
    assert "tests/kernels/cuda/gram" in rooms
    assert not {room for room in rooms if f"{room}/test_" not in ran.stdout}, ran.stdout + ran.stderr


def test_files_and_folders_stay_small() -> None:
    """So that each has one job, and is read in one sitting."""
    longest = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert not {str(path): lines for path, lines in longest.items() if lines > 450}
    assert longest[ROOT / "engine" / "transfer.py"] <= 350
    folders = collections.Counter(path.parent for path in [*MODULES, *Path(__file__).parent.rglob("*.py")])
    assert not {str(folder): files for folder, files in folders.items() if files > 12}


def test_every_kernel_source_says_where_it_is_tested() -> None:
    """The head of each CUDA file names its tests, and they are there."""
    for source in (ROOT / "kernels/cuda").rglob("*.cu*"):
        head = "".join(itertools.takewhile(lambda line: line.startswith("//"), source.open()))
        tests = re.findall(r"tests/[\w/]+\.py", head)
        assert tests, f"{source.relative_to(ROOT)} names no test in its head"
        for test in tests:
            assert (ROOT / test).is_file(), f"{source.relative_to(ROOT)} names {test}, which is not there"
