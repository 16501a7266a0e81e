"""What this machine offers, found by asking: the GPU and all that stands between it and us, the compilers, the BLAS.

Nothing is chosen here; `device.open_device` chooses, and `nstgpu doctor` shows both.
"""

import ctypes
import os
import platform
from dataclasses import dataclass
from importlib import metadata, util
from typing import Any

import numpy as np

from .blas import find_openblas
from .cache import cache_directory
from .compiler import find_nvrtc
from .device import DeviceError
from .emulator import NoCompilerError, find_compiler
from .runtimes import cuda_problem


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for. `remedy` is the command that would mend it, empty where nothing is amiss."""

    name: str
    found: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Everything worth knowing before a run, in the order in which it matters; never raises."""
    findings = [Finding("host", f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")]
    findings += [_blas(), *_gpu(), _cupy(), _nvrtc(), _emulator(), _cache()]
    return findings


def choice() -> tuple[str, str]:
    """What `auto` would choose here, and why."""
    problem = cuda_problem()
    return ("cpu", problem) if problem else ("cuda", "an NVIDIA GPU, its driver and CuPy are there")


def _blas() -> Finding:
    build: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = build.get("Build Dependencies", {}).get("blas", {})
    name = f"NumPy {np.__version__} with {blas.get('name', 'an unknown BLAS')} {blas.get('version', '')}".strip()
    openblas = find_openblas()
    if openblas is None:
        return Finding("BLAS", name)
    threads = openblas.get_num_threads()
    found = f"{name}, {threads} thread{'s' * (threads != 1)}, products for {openblas.get_corename().decode()}"
    if not os.environ.get("OPENBLAS_CORETYPE"):
        return Finding("BLAS", found)
    # It may be needed, but on a processor with AVX-512 "Haswell" halves the speed of products.
    return Finding("BLAS", f"{found}, as OPENBLAS_CORETYPE says", "unset OPENBLAS_CORETYPE")


def _gpu() -> list[Finding]:
    problem = cuda_problem()
    if problem and not problem.startswith("CuPy"):
        return [Finding("GPU", problem)]
    driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    findings = [Finding("driver", f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")]
    for index in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        digits = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            digits.append(value.value)
        text = f"{name.value.decode()}, {memory.value / 2**30:.0f} GiB, compute capability {digits[0]}.{digits[1]}"
        findings.append(Finding(f"GPU {index}", text))
    return findings


def _cupy() -> Finding:
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        try:
            return Finding("CuPy", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    has_gpu = (cuda_problem() or "").startswith("CuPy")
    return Finding("CuPy", "not installed", "pip install 'nstgpu[cuda12]'" if has_gpu else "")


def _nvrtc() -> Finding:
    try:
        nvrtc = find_nvrtc()
    except DeviceError as error:
        needed = util.find_spec("cupy") is not None and cuda_problem() is None
        return Finding("NVRTC", f"not found ({error})", "pip install nvidia-cuda-nvrtc-cu12" if needed else "")
    return Finding("NVRTC", f"{nvrtc.version[0]}.{nvrtc.version[1]}")


def _emulator() -> Finding:
    try:
        return Finding("emulator", f"compiles with {find_compiler().version.splitlines()[0]}")
    except NoCompilerError as error:
        return Finding("emulator", str(error))


def _cache() -> Finding:
    folder = cache_directory("")
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return Finding("kernel cache", f"{folder}, {len(files)} file{'s' * (len(files) != 1)}, {size / 2**20:.1f} MiB")
