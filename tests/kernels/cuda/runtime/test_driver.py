"""What stands between this process and a GPU, told with a driver of our own: each fault has its line and its remedy."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nstgpu.kernels import diagnose, open_device
from nstgpu.kernels.cuda.runtime import driver
from nstgpu.kernels.cuda.runtime.driver import ask_driver, problems
from nstgpu.kernels.errors import DeviceError

SOURCE = """
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
static int told(const char* name, int otherwise) { const char* v = getenv(name); return v ? atoi(v) : otherwise; }
int cuInit(unsigned flags) { (void)flags; return told("FAKE_INIT", 0); }
int cuDriverGetVersion(int* version) { *version = told("FAKE_VERSION", 12080); return 0; }
int cuDeviceGetCount(int* count) { *count = told("FAKE_COUNT", 1); return 0; }
int cuDeviceGet(int* device, int index) { *device = index; return 0; }
int cuDeviceGetName(char* name, int length, int device) { (void)device; strncpy(name, "Fake", length); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { (void)device; *bytes = 8ull << 30; return 0; }
int cuDeviceGetAttribute(int* value, int which, int device) {
    *value = which == 75 ? told(device ? "FAKE_SECOND" : "FAKE_MAJOR", 8) : 0;
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text(SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"], check=True)
    return folder / "libcuda.so.1"


@pytest.fixture(autouse=True)
def machine(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 8.0, a driver of CUDA 12.8, CuPy and NVRTC for CUDA 12."""
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: load(str(library) if "cuda.so.1" in name else name))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("FAKE_PACKAGES", str(tmp_path))
    installed(monkeypatch, "cupy-cuda12x")
    nvrtc_of(monkeypatch, 12)


def installed(monkeypatch: pytest.MonkeyPatch, *names: str, whole: bool = True) -> None:
    packages = Path(tempfile.mkdtemp(dir=os.environ["FAKE_PACKAGES"]))
    for name in (*names, "cupy-xarray", "numpy"):
        (about := packages / f"{name.replace('-', '_')}-14.2.0.dist-info").mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.2.0\n")
    monkeypatch.setattr(
        driver, "sys", SimpleNamespace(platform="linux", path=[str(packages), str(packages / "none"), str(packages)])
    )
    spec = SimpleNamespace(origin="cupy/__init__.py" if whole else None) if names else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(diagnose, "_broken", lambda _: "")


def nvrtc_of(monkeypatch: pytest.MonkeyPatch, major: int, check: Callable[[], None] = lambda: None) -> None:
    known = (70, 75, 80, 90, 120) if major == 12 else (75, 80, 90, 110, 120)
    nvrtc = SimpleNamespace(version=(major, 0), architectures=known, check_builtins=check)
    for module in (driver, diagnose):
        monkeypatch.setattr(module, "find_nvrtc", lambda: nvrtc)


def to_mend() -> list[str]:
    return [f"{finding.problem}: {finding.remedy}" for finding in diagnose.diagnose() if finding.problem]


def test_a_machine_with_all_of_it_has_nothing_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert ask_driver() == driver.Driver((12, 8), 0, (driver.Gpu("Fake", 8 << 30, (8, 0)),))
    assert not list(problems())
    assert not to_mend()
    assert driver.gpu_is_there()
    assert diagnose.choice()[0] == "cuda"


CUDA_12_TOO_OLD = "the driver is too old for CUDA 12 (it speaks 11.4): update the NVIDIA driver to 525 or newer"
FAILS = "the NVIDIA driver fails with code"


@pytest.mark.parametrize(
    ("says", "line"),
    [({"FAKE_VERSION": "11040"}, CUDA_12_TOO_OLD),
     ({"FAKE_INIT": "803"}, f"{FAILS} 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH): the driver was updated beneath its"),
     ({"FAKE_INIT": "999"}, f"{FAILS} 999 (CUDA_ERROR_UNKNOWN): sudo modprobe -r nvidia_uvm"),
     ({"FAKE_INIT": "777"}, f"{FAILS} 777: see what nvidia-smi says"),
     ({"FAKE_MAJOR": "5"}, "GPU 0 has compute capability 5.0; the kernels need 7.0 or newer: use --device cpu"),
     ({"FAKE_MAJOR": "15"}, "this NVRTC cannot compile for compute capability 15.0: pip uninstall -y "
                            "nvidia-cuda-nvrtc-cu12 && pip install -U nvidia-cuda-nvrtc"),
     ({"FAKE_MAJOR": "5", "FAKE_COUNT": "2", "FAKE_SECOND": "9"}, "GPU 0 has compute capability 5.0; the kernels need "
                                                                  "7.0 or newer: export CUDA_VISIBLE_DEVICES=1"),
     ({"FAKE_COUNT": "0", "CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES=7 leaves the driver no GPU: unset")],
)  # fmt: skip
def test_what_the_driver_says_is_to_be_mended(says: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in says.items():
        monkeypatch.setenv(name, value)
    device, why = diagnose.choice()
    assert device == "cpu"
    assert why.startswith(line)
    assert [said for said in to_mend() if said.startswith(line)]


@pytest.mark.parametrize(
    ("names", "whole", "version", "line"),
    [([], True, "12080", "CuPy is not installed: pip install 'nstgpu[cuda12]'"),
     ([], True, "13000", "CuPy is not installed: pip install 'nstgpu[cuda13]'"),
     (["cupy-cuda12x"], False, "12080", "CuPy is not whole: cupy-cuda12x is there, but its files are not: "
                                        "pip uninstall -y cupy-cuda12x && pip install 'nstgpu[cuda12]'"),
     (["cupy-cuda13x"], True, "12080", "the driver is too old for CUDA 13 (it speaks 12.8): "
                                       "pip uninstall -y cupy-cuda13x && pip install 'nstgpu[cuda12]'")],
)  # fmt: skip
def test_a_cupy_that_cannot_work_is_to_be_mended(
    names: list[str], whole: bool, version: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *names, whole=whole)
    monkeypatch.setenv("FAKE_VERSION", version)
    assert diagnose.choice() == ("cpu", line)
    assert line in to_mend()


def test_a_card_without_a_driver_is_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "ask_driver", lambda: None)
    monkeypatch.setattr(driver, "ask_driver", lambda: None)
    monkeypatch.setattr(driver, "has_nvidia_card", lambda: False)
    assert str(driver.driver_problem(None)) == ("no NVIDIA driver was found on this machine; the device cpu needs none")
    assert not [line for line in to_mend() if "driver" in line]
    monkeypatch.setattr(driver, "has_nvidia_card", lambda: True)
    (line,) = (line for line in to_mend() if "driver" in line)
    assert line.startswith(
        "no NVIDIA driver was found on this machine, which has an NVIDIA card: install NVIDIA's driver"
    )
    assert not driver.gpu_is_there()


def test_two_cupys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "cupy-cuda13x", "cupy-cuda12x")
    assert (
        "2 CuPys are installed, cupy-cuda12x and cupy-cuda13x, and overwrite each other's files: "
        "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install 'nstgpu[cuda12]'"
    ) in to_mend()


def test_an_nvrtc_newer_than_the_driver_is_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc_of(monkeypatch, 13)
    line = "the driver is too old for CUDA 13 (it speaks 12.8): pip install nvidia-cuda-nvrtc-cu12"
    assert diagnose.choice() == ("cpu", line)
    assert line in to_mend()


def test_missing_builtins_are_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise DeviceError("NVRTC 13.0 does not find its libnvrtc-builtins.so.13.0: pip install it")

    nvrtc_of(monkeypatch, 13, missing)
    assert "NVRTC 13.0 does not find its libnvrtc-builtins.so.13.0: pip install it" in to_mend()


def test_a_package_with_files_missing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "there.py").write_text("")
    files = [
        SimpleNamespace(suffix=".py", locate=lambda name=name: tmp_path / name) for name in ("there.py", "gone.py")
    ]
    monkeypatch.setattr(metadata, "files", lambda _: files)
    assert diagnose._broken("cupy-cuda12x") == "1 of cupy-cuda12x's 2 files are missing"


def test_whatever_fails_doctor_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise PermissionError("no")

    for name in (
        "find_openblas",
        "ask_driver",
        "installed_cupy",
        "find_nvrtc",
        "find_compiler",
        "kept",
        "cuda_problem",
    ):
        monkeypatch.setattr(diagnose, name, fails)
    names = [finding.name for finding in diagnose.diagnose()]
    assert names == ["host", "BLAS", "GPU", "CuPy", "NVRTC", "emulator", "kernel cache"]
    assert diagnose.choice()[0] == "cpu"


# ---- auto -----------------------------------------------------------------------------------------------------------
def test_auto_says_that_a_gpu_is_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    installed(monkeypatch)
    assert [open_device("auto").name for _ in range(2)] == ["cpu", "cpu"]
    assert [record.message for record in caplog.records] == [
        "the GPU is not used: CuPy is not installed: pip install 'nstgpu[cuda12]'"
    ]


@pytest.mark.parametrize("says", [{"FAKE_COUNT": "0"}, {"FAKE_INIT": "100"}])
def test_auto_says_nothing_where_no_gpu_is(
    says: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in says.items():
        monkeypatch.setenv(name, value)
    assert open_device("auto").name == "cpu"
    assert not caplog.text
