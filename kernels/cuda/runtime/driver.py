"""What stands between this process and a GPU: the NVIDIA driver, what it says of its GPUs, CuPy and NVRTC.

Everything is asked without importing CuPy, so that a machine without a GPU pays nothing. What fails is a `Problem` with
its remedy; what follows from one is left to `open.open_device` and to `nstgpu doctor`.
"""

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ...errors import DeviceError
from .nvrtc import architecture_for, find_nvrtc, wheel_of

NO_DEVICE, STUB_LIBRARY = 100, 34
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
LEAST_CUDA = 12
LEAST_DRIVER = {12: 525, 13: 580}  # the first that speak it

CODES = {
    2: ("CUDA_ERROR_OUT_OF_MEMORY", "nvidia-smi shows which processes hold the memory"),
    STUB_LIBRARY: ("CUDA_ERROR_STUB_LIBRARY", "take the toolkit's stubs folder out of LD_LIBRARY_PATH"),
    46: ("CUDA_ERROR_DEVICE_UNAVAILABLE", "another process has it alone: sudo nvidia-smi -c DEFAULT"),
    NO_DEVICE: ("CUDA_ERROR_NO_DEVICE", ""),
    101: ("CUDA_ERROR_INVALID_DEVICE", "check CUDA_VISIBLE_DEVICES against nvidia-smi -L"),
    304: ("CUDA_ERROR_OPERATING_SYSTEM", "sudo nvidia-modprobe -u, and in a container pass it the GPUs (--gpus all)"),
    800: ("CUDA_ERROR_NOT_PERMITTED", "check who may open /dev/nvidia*: ls -l /dev/nvidia*"),
    802: ("CUDA_ERROR_SYSTEM_NOT_READY", "sudo systemctl restart nvidia-fabricmanager"),
    803: ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the driver was updated beneath its kernel module: sudo reboot"),
    804: (
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "take the cuda-compat folder out of LD_LIBRARY_PATH, or update the NVIDIA driver",
    ),
    999: ("CUDA_ERROR_UNKNOWN", "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm, else sudo reboot"),
}
"""What the driver's codes are called, and what helps."""
ANY_CODE = "see what nvidia-smi says, then sudo reboot or install the NVIDIA driver anew"

_CUPY = re.compile(r"cupy(-cuda(?P<cuda>\d\d)\w*|-rocm-[\w-]+)?")


@dataclass(frozen=True)
class Problem:
    """Why a GPU cannot be used."""

    what: str
    remedy: str = ""
    """A command, or what to do; empty where nothing is amiss."""

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else f"{self.what}; the device cpu needs none"


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int
    """Bytes."""
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """What the driver answers."""

    version: tuple[int, int]
    """Of CUDA, as it speaks it."""
    code: int
    """Of cuInit and of counting the GPUs; 0 where both went well."""
    gpus: tuple[Gpu, ...]


def ask_driver() -> Driver | None:
    """None where there is no driver; never raises."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version, count = ctypes.c_int(), ctypes.c_int()
        code = library.cuInit(0)
        library.cuDriverGetVersion(ctypes.byref(version))
        code = code or library.cuDeviceGetCount(ctypes.byref(count))
        gpus = tuple(_gpu(library, index) for index in range(0 if code else count.value))
    except (OSError, AttributeError):  # no library, or none of a driver's
        return None
    return Driver((version.value // 1000, version.value % 1000 // 10), code, gpus)


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    for value, attribute in ((major, CAPABILITY_MAJOR), (minor, CAPABILITY_MINOR)):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return Gpu(name.value.decode(errors="replace"), memory.value, (major.value, minor.value))


def has_nvidia_card() -> bool:
    """Whether Linux lists a display controller of NVIDIA's, with or without a driver; False elsewhere."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def gpu_is_there() -> bool:
    """Whether the driver counts a GPU, or fails in a way that it does not where there is none."""
    driver = ask_driver()
    return driver is not None and (bool(driver.gpus) or driver.code not in (0, NO_DEVICE, STUB_LIBRARY))


def problems(index: int = 0) -> Iterator[Problem]:
    """Why GPU `index` cannot be used, the most telling first; nothing if it can."""
    driver = ask_driver()
    if found := driver_problem(driver):
        yield found
    elif driver is not None and index >= len(driver.gpus):
        yield Problem(
            f"there is no GPU {index}", f"this machine has {len(driver.gpus)}, counted from 0; nvidia-smi -L lists them"
        )
    elif driver is not None:
        for each in (gpu_problem(driver, index), cupy_problem(driver), nvrtc_problem(driver, index)):
            if each:
                yield each


def cuda_problem(index: int = 0) -> str | None:
    """Why GPU `index` can't be used, in one line that says what to do; None if it can.

    Asks the driver before anything is imported, so that a machine without a GPU pays nothing.
    """
    return next((str(problem) for problem in problems(index)), None)


def driver_problem(driver: Driver | None) -> Problem | None:
    """What is amiss with the driver as a whole."""
    if driver is None:
        missing = "no NVIDIA driver was found on this machine"
        if has_nvidia_card():
            remedy = "install NVIDIA's driver, or pass the GPUs into the container (docker run --gpus all)"
            return Problem(f"{missing}, which has an NVIDIA card", remedy)
        return Problem(missing)
    if driver.code not in (0, NO_DEVICE):
        name, remedy = CODES.get(driver.code, ("", ANY_CODE))
        return Problem(f"the NVIDIA driver fails with code {driver.code}{f' ({name})' if name else ''}", remedy)
    if not driver.gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            return Problem(f"CUDA_VISIBLE_DEVICES={hidden} leaves the driver no GPU", "unset CUDA_VISIBLE_DEVICES")
        return Problem("the NVIDIA driver finds no GPU that it can use")
    if driver.version[0] < LEAST_CUDA:
        return _too_old(driver, LEAST_CUDA, f"update the NVIDIA driver to {LEAST_DRIVER[LEAST_CUDA]} or newer")
    return None


def gpu_problem(driver: Driver, index: int) -> Problem | None:
    """Whether a GPU is one that the kernels run on."""
    gpu = driver.gpus[index]
    if gpu.capability[0] >= 7:
        return None
    fit = [str(other) for other, each in enumerate(driver.gpus) if each.capability[0] >= 7]
    what = f"GPU {index} has compute capability {gpu.capability[0]}.{gpu.capability[1]}; the kernels need 7.0 or newer"
    return Problem(what, f"export CUDA_VISIBLE_DEVICES={','.join(fit)}" if fit else "use --device cpu, or another GPU")


def cupy_problem(driver: Driver) -> Problem | None:
    """Whether CuPy is there, whole as far as a look at it tells, and speaks what the driver speaks."""
    installed = installed_cupy()
    extra = f"pip install 'nstgpu[cuda{13 if driver.version[0] >= 13 else 12}]'"
    spec = importlib.util.find_spec("cupy")
    if not installed and spec is None:
        return Problem("CuPy is not installed", extra)
    if spec is None or spec.origin is None:
        names = " ".join(installed)
        remedy = f"pip uninstall -y {names} && {extra}" if installed else f"{extra} --force-reinstall"
        return Problem(f"CuPy is not whole: {names or 'its package'} is there, but its files are not", remedy)
    for name in installed:
        match = _CUPY.fullmatch(name)
        cuda = int((match and match["cuda"]) or 0)
        if len(installed) == 1 and cuda > max(driver.version[0], LEAST_CUDA):
            return _too_old(driver, cuda, f"pip uninstall -y {name} && {extra}")
    return None


def installed_cupy() -> dict[str, str]:
    """CuPy's packages, which all go by one name when they are imported, and their versions."""
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):  # by their names, since to open every package's takes a fifth of a second
        for path in sorted(Path(folder or ".").glob("cupy*.*-info")):
            distribution = metadata.Distribution.at(path)
            name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
            if _CUPY.fullmatch(name):
                found.setdefault(name, distribution.version)
    return dict(sorted(found.items()))


def nvrtc_problem(driver: Driver, index: int) -> Problem | None:
    """Whether NVRTC is there, compiles for the GPU, and makes what the driver takes."""
    try:
        nvrtc = find_nvrtc()
        architecture_for(driver.gpus[index].capability, nvrtc.architectures)
    except DeviceError as error:
        what, _, remedy = str(error).rpartition(": ")
        return Problem(what, remedy) if what else None  # a GPU too old is `gpu_problem`'s
    if nvrtc.version[0] > max(driver.version[0], LEAST_CUDA):
        return _too_old(driver, nvrtc.version[0], f"pip install {wheel_of(driver.version[0])}")
    return None


def _too_old(driver: Driver, cuda: int, remedy: str) -> Problem:
    return Problem(f"the driver is too old for CUDA {cuda} (it speaks {driver.version[0]}.{driver.version[1]})", remedy)
