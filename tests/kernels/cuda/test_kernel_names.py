"""Kernels can be found: what Python can launch is what the sources define, and grep finds each name, whole, in the one
CUDA file that defines it and in Python."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nstgpu.kernels.cuda.conv3x3 import kernel_names as of_convolutions
from nstgpu.kernels.cuda.costs import kernel_names as of_costs
from nstgpu.kernels.cuda.elementwise import kernel_names as of_elements
from nstgpu.kernels.cuda.gram import kernel_names as of_grams
from nstgpu.kernels.cuda.neighbors import kernel_names as of_neighbors
from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER, SOURCES
from nstgpu.kernels.cuda.sliced import kernel_names as of_sliced
from nstgpu.kernels.emulator import NoCompilerError, find_compiler
from nstgpu.kernels.emulator.compiler import kernels_in

ONLY_IN_TESTS = {"conv3x3_relu_naive", "conv3x3_input_gradient_naive", "gram_naive"}


@pytest.fixture(scope="module")
def defined() -> dict[str, Path]:
    """The kernels of all sources as the compiler sees them, each with its source."""
    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    names = [(name, source) for source in SOURCES for name in kernels_in(source)]
    assert len(dict(names)) == len(names), "a name is used twice"
    return dict(names)


def tables() -> set[str]:
    """What the literal tables of names hold."""
    modules = (of_convolutions, of_costs, of_elements, of_grams, of_neighbors, of_sliced)
    found = [table for module in modules for name, table in vars(module).items() if name.isupper()]
    assert len(found) > 10
    return {name for table in found for name in table.values()}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FOLDER.rglob("*.py"):
        if path.name != "kernel_names.py":
            yield path, ast.parse(path.read_text())


def first_arguments() -> Iterator[tuple[str, ast.expr]]:
    """What every Launch(...) of the package is given as the kernel."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Launch":
                yield f"{path.name}:{node.lineno}", node.args[0]


def test_every_kernel_that_is_defined_is_launched_and_no_other(defined: dict[str, Path]) -> None:
    written = {node.value for _, tree in trees() for node in ast.walk(tree)
               if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    assert tables() | (written & set(defined)) == set(defined) - ONLY_IN_TESTS


def test_no_launch_spells_a_name_that_is_not_defined(defined: dict[str, Path]) -> None:
    spelled = {name: where.value for name, where in first_arguments() if isinstance(where, ast.Constant)}
    assert len(spelled) > 20
    assert not {where: name for where, name in spelled.items() if name not in defined}


def test_no_name_is_pasted_together() -> None:
    assert not [where for where, name in first_arguments() if isinstance(name, ast.JoinedStr | ast.BinOp)]


def test_grep_finds_every_kernel_in_the_one_file_that_defines_it(defined: dict[str, Path]) -> None:
    texts = {path: path.read_text() for path in sorted(FOLDER.rglob("*.cu*"))}
    words = {path: set(re.findall(r"\w+", text)) for path, text in texts.items()}
    found = {name: [path.relative_to(FOLDER) for path in words if name in words[path]] for name in defined}
    assert not {name: paths for name, paths in found.items() if len(paths) != 1}
    for name, source in defined.items():  # in the source itself, or in a header that it includes
        (path,) = found[name]
        assert FOLDER / path == source or str(path) in texts[source], name
