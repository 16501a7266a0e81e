"""What this machine offers, found by asking: the GPU and all that stands between it and us, the compilers, the BLAS.

Nothing is chosen here; `open.open_device` chooses, and `nstgpu doctor` shows both.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .cache import cache_base, cache_problem, kept
from .cpu.openblas import find_openblas
from .cuda.runtime.driver import (
    Problem,
    ask_driver,
    cuda_problem,
    cupy_problem,
    driver_problem,
    gpu_problem,
    installed_cupy,
    nvrtc_problem,
)
from .cuda.runtime.nvrtc import find_nvrtc
from .emulator import NoCompilerError, find_compiler
from .errors import DeviceError

IMPORT_SECONDS = 60  # in which CuPy is imported, or something is amiss


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    name: str
    found: str
    problem: str = ""
    """What is amiss, empty where nothing is."""
    remedy: str = ""
    """The command that would mend it, or what to do."""


def diagnose() -> list[Finding]:
    """Everything worth knowing before a run, in the order in which it matters; never raises."""
    looks: dict[str, Callable[[], list[Finding]]] = {
        "host": _host, "BLAS": _blas, "GPU": _gpu, "CuPy": _cupy, "NVRTC": _nvrtc, "emulator": _emulator,
        "kernel cache": _cache,
    }  # fmt: skip
    return [finding for name, look in looks.items() for finding in _safely(name, look)]


def _safely(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:
        return [Finding(name, f"could not be looked at ({type(error).__name__}: {error})")]


def choice() -> tuple[str, str]:
    """What `auto` would choose here, and why; never raises."""
    try:
        problem = cuda_problem()
    except Exception as error:
        problem = f"the GPU could not be looked at ({type(error).__name__}: {error})"
    return ("cpu", problem) if problem else ("cuda", "an NVIDIA GPU, its driver and CuPy are there")


def _host() -> list[Finding]:
    return [Finding("host", f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")]


def _blas() -> list[Finding]:
    build: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = build.get("Build Dependencies", {}).get("blas", {})
    name = f"NumPy {np.__version__} with {blas.get('name', 'an unknown BLAS')} {blas.get('version', '')}".strip()
    openblas = find_openblas()
    if openblas is None:
        return [Finding("BLAS", name)]
    threads = openblas.get_num_threads()
    found = f"{name}, {threads} thread{'s' * (threads != 1)}, products for {openblas.get_corename().decode()}"
    if not os.environ.get("OPENBLAS_CORETYPE"):
        return [Finding("BLAS", found)]
    # It may be needed, but on a processor with AVX-512 "Haswell" halves the speed of products.
    chosen = f"OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']} chooses its products"
    return [Finding("BLAS", f"{found}, as OPENBLAS_CORETYPE says", chosen, "unset OPENBLAS_CORETYPE")]


def _gpu() -> list[Finding]:
    driver = ask_driver()
    problem = driver_problem(driver)
    if driver is None or not driver.gpus:
        assert problem is not None
        return [Finding("GPU", problem.what, problem.what if problem.remedy else "", problem.remedy)]
    spoken = f"CUDA {driver.version[0]}.{driver.version[1]}"
    findings = [Finding("driver", spoken, *((problem.what, problem.remedy) if problem else ()))]
    for index, gpu in enumerate(driver.gpus):
        capability = f"compute capability {gpu.capability[0]}.{gpu.capability[1]}"
        problem = gpu_problem(driver, index)
        text = f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB, {capability}"
        findings.append(Finding(f"GPU {index}", text, *((problem.what, problem.remedy) if problem else ())))
    return findings


def _cupy() -> list[Finding]:
    installed, driver = installed_cupy(), ask_driver()
    found = " and ".join(f"{name} {version}" for name, version in installed.items()) or "not installed"
    problem = None
    if driver is not None and driver.gpus:
        problem = cupy_problem(driver)
    extra = f"pip install 'nstgpu[cuda{13 if driver is not None and driver.version[0] >= 13 else 12}]'"
    if len(installed) > 1:
        what = f"{len(installed)} CuPys are installed, {' and '.join(installed)}, and overwrite each other's files"
        problem = Problem(what, f"pip uninstall -y {' '.join(installed)} && {extra}")
    elif installed and problem is None and (broken := _broken(*installed)):
        problem = Problem(f"CuPy is not whole: {broken}", f"pip uninstall -y {' '.join(installed)} && {extra}")
    return [Finding("CuPy", found, *((problem.what, problem.remedy) if problem else ()))]


def _broken(name: str) -> str:
    """What is missing of an installed package, or why it cannot be imported; empty if it can."""
    files = [file for file in metadata.files(name) or () if file.suffix != ".pyc"]
    if missing := sum(not Path(str(file.locate())).exists() for file in files):
        return f"{missing} of {name}'s {len(files)} files are missing"
    command = [sys.executable, "-c", "import cupy"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"importing it takes more than {IMPORT_SECONDS} s"
    if ended.returncode == 0:
        return ""
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Error" in line), f"code {ended.returncode}")
    return f"it cannot be imported ({said})"


def _nvrtc() -> list[Finding]:
    driver = ask_driver()
    wanted = driver is not None and bool(driver.gpus)
    try:
        nvrtc = find_nvrtc()
    except DeviceError as error:
        what, _, remedy = str(error).rpartition(": ")
        return [Finding("NVRTC", "not found", *((what, remedy) if wanted else ()))]
    found = f"{nvrtc.version[0]}.{nvrtc.version[1]}"
    try:
        nvrtc.check_builtins()
    except DeviceError as error:
        what, _, remedy = str(error).rpartition(": ")
        return [Finding("NVRTC", found, what, remedy)]
    problem = None
    if driver is not None:
        each = (nvrtc_problem(driver, index) for index in range(len(driver.gpus)) if not gpu_problem(driver, index))
        problem = next((found for found in each if found), None)
    return [Finding("NVRTC", found, *((problem.what, problem.remedy) if problem else ()))]


def _emulator() -> list[Finding]:
    try:
        return [Finding("emulator", f"compiles with {find_compiler().version.splitlines()[0]}")]
    except NoCompilerError as error:
        return [Finding("emulator", str(error))]


def _cache() -> list[Finding]:
    entries = kept()
    files, size = sum(entry.files for entry in entries), sum(entry.bytes for entry in entries)
    found = f"{cache_base()}, {files} files, {size / 2**20:.1f} MiB"
    problem = cache_problem()
    if problem is None:
        return [Finding("kernel cache", found)]
    what, _, remedy = problem.partition("; ")
    return [Finding("kernel cache", f"{cache_base()}, not used", f"compiled kernels cannot be kept: {what}", remedy)]
