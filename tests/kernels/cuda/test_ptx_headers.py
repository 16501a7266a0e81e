"""Walls around PTX: it is in kernels/cuda/ptx and nowhere else, those headers know no host, and the emulator has one of
the same name for each, with the same functions."""

import re
from pathlib import Path

import pytest

from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER

HEADERS = sorted((FOLDER / "ptx").glob("*.cuh"))
HOST = FOLDER.parent / "emulator" / "ptx"


def code(path: Path) -> str:
    """Without comments."""
    return re.sub(r"//.*", "", path.read_text())


def functions(path: Path) -> set[str]:
    """The names that a kernel can call, of namespace ptx."""
    text = re.sub(r"namespace emulated \{.*?\}  // namespace emulated", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"namespace emulator \{.*?\}  // namespace emulator", "", text, flags=re.DOTALL)
    found = set(
        re.findall(r"^ *(?:__device__|__forceinline__|EMULATOR_UNCHECKED|inline)[^;=(]*? (\w+)(?:<\w+>)?\(", text, re.M)
    )
    return {re.sub(r"##|shape", "", name) for name in found if not name.endswith("_")}


def test_there_is_a_header_for_each_family() -> None:
    assert {path.stem for path in HEADERS} >= {"cvt", "ldmatrix", "cp_async", "mma", "mbarrier", "tma", "wgmma"}


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_no_header_of_the_device_has_a_branch_for_the_host(header: Path) -> None:
    assert not re.search(r"__CUDACC|emulator|EMULATOR|__GNUC__|#else.*host", code(header))


def test_ptx_is_nowhere_else() -> None:
    others = [path for path in FOLDER.rglob("*.cu*") if path.parent.name != "ptx"]
    assert len(others) > 20
    assert not [path.name for path in others if re.search(r"\basm\b", code(path))]


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_the_host_has_the_same_functions(header: Path) -> None:
    assert functions(header)
    assert functions(header) - functions(HOST / header.name) <= {"is_complete", "nanoseconds"}
