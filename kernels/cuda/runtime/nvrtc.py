"""Compiles the .cu files for a GPU: NVRTC, found on this machine, to one cubin a file and exact architecture.

Needs neither a GPU nor CuPy: the test suite compiles for every architecture we claim and reads what each kernel takes.
NVRTC is called by ctypes, because CuPy's own compiler appends an -arch that knows no sm_90a. Cubins are kept on disk
(`cache`); loading and launching them is `runtimes`' business.
"""

import ctypes
import ctypes.util
import functools
import importlib.util
import json
import logging
import os
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ...cache import cache_directory, cached, digest
from ...errors import DeviceError
from ..precisions import AUTO, PRECISIONS

FOLDER = Path(__file__).parents[1]
"""Where the CUDA sources lie, and the folder that their #include lines count from."""
SOURCES = tuple(sorted(source for source in FOLDER.rglob("*.cu") if "ladder" not in source.parts))
"""Of the product; the course's kernels are compiled by whoever asks for them."""
PLAIN = tuple(source for source in SOURCES if source.parent.name != "instantiations")
"""What every precision needs; fp32 needs nothing else."""
FLAGS = ("-std=c++17", "--generate-line-info", "--ptxas-options=-v")
CACHING = (12, 9)
"""The first NVRTC with a cache of its own, beside the driver: what comes out of it has no log. Ours is enough."""

_log = logging.getLogger("nstgpu")


class CompileError(DeviceError):
    """NVRTC rejected a source; the message is its log."""


class Resources(NamedTuple):
    """What one kernel takes, as ptxas reports it."""

    registers: int
    """Of each thread."""
    shared_bytes: int
    """Of each block, not counting what a launch adds."""
    spill_bytes: int
    """Stored and loaded again for want of registers."""
    stack_bytes: int


class Cubin(NamedTuple):
    """One source compiled for one architecture."""

    image: bytes
    log: str
    """What NVRTC and ptxas said."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its kernels: each has a section of parameters, `.nv.constant0.NAME`, in the ELF file that the image is.

        The log is no place to look them up: what comes out of a cache has none.
        """
        (table,) = struct.unpack_from("<Q", self.image, 0x28)
        size, count, of_names = struct.unpack_from("<HHH", self.image, 0x3A)
        sections = [struct.unpack_from("<I20xQ", self.image, table + size * number) for number in range(count)]
        places = []
        for name_at, _ in sections:
            begin = sections[of_names][1] + name_at
            places.append(self.image[begin : self.image.index(b"\0", begin)].decode())
        return tuple(name.removeprefix(_PARAMETERS) for name in places if name.startswith(_PARAMETERS))

    @property
    def kernels(self) -> dict[str, Resources]:
        """What each takes, as the log tells. A kernel's spills include those of the functions it calls."""
        kernels: dict[str, Resources] = {}
        name, stack, spills = "", 0, 0
        for line in self.log.splitlines():
            if entry := _ENTRY.search(line):
                name, stack, spills = entry[1], 0, 0
            elif frame := _STACK.search(line):
                stack += int(frame[1])
                spills += int(frame[2]) + int(frame[3])
            elif used := _USED.search(line):
                shared = _SHARED.search(line)
                kernels[name] = Resources(int(used[1]), int(shared[1]) if shared else 0, spills, stack)
        return kernels

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(line.strip() for line in self.log.splitlines() if _WARNING.search(line))


_PARAMETERS = ".nv.constant0."
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_MISSING_BUILTINS = re.compile(r"[\w.-]*nvrtc-builtins[\w.-]*\w")
_WARNING = re.compile(r"\bwarning\b(?!: Architectures prior to)|\bC75\d\d\b")  # an old GPU is no kernel's fault


class Nvrtc:
    """NVIDIA's runtime compiler. Any thread may call it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        architectures = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", architectures)
        self.version = (major.value, minor.value)
        self.architectures = tuple(architectures)
        """Compute capabilities, 75 for 7.5."""

    def compile(self, source: Path, architecture: str) -> Cubin:
        """The kernels of a .cu file for an architecture such as "sm_90a"; raises CompileError."""
        options = [f"-arch={architecture}", f"-I{source.parent}", f"-I{FOLDER}", *flags_of(self.version)]
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            *(ctypes.byref(program), ctypes.c_char_p(source.read_bytes()), source.name.encode(), 0, None, None),
        )
        try:
            encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(program, len(options), encoded)
            log = self._text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if status != 0:
                if missing := _MISSING_BUILTINS.search(log):
                    raise DeviceError(self._without(missing[0]))
                raise CompileError(f"{source.name} does not compile for {architecture}:\n{log.strip()}")
            return Cubin(self._text(program, "CUBIN"), log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def check_builtins(self) -> None:
        """Raises DeviceError where the library is not there that compiling needs."""
        name = f"libnvrtc-builtins.so.{self.version[0]}.{self.version[1]}"
        if sys.platform != "win32":
            try:
                ctypes.CDLL(name)  # loaded already, by its path, or where the loader looks
            except OSError as error:
                raise DeviceError(self._without(name)) from error

    def _without(self, builtins: str) -> str:
        remedy = f"pip install --force-reinstall {wheel_of(self.version[0])}"
        return f"NVRTC {self.version[0]}.{self.version[1]} does not find its {builtins}: {remedy}"

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            raise DeviceError(f"{function}: {self._library.nvrtcGetErrorString(status).decode()}")

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, content)
        return content.raw


def flags_of(version: tuple[int, int]) -> tuple[str, ...]:
    """What this NVRTC is asked for, whatever it compiles."""
    return (*FLAGS, "--no-cache") if version >= CACHING else FLAGS


def sources_for(precision: str) -> tuple[Path, ...]:
    """The kernels that computing in `precision` launches; compiling only these is what a first use waits for.

    Of Hopper's hardly anything is left to compile for another GPU: 0.13 s of 1.4.
    """
    known = PRECISIONS.get(AUTO if precision == "auto" else precision)
    return (*PLAIN, *(FOLDER / "instantiations" / name for name in (known.sources if known else ())))


@functools.cache
def find_nvrtc(major: int | None = None) -> Nvrtc:
    """NVRTC from the pip wheels, else of the toolkit, else wherever the loader finds it; version 12 before 13, whose
    cubins older drivers refuse, unless `major` names one. Raises DeviceError with what to install."""
    for name in _candidates():
        try:
            _load_builtins(Path(name))
            nvrtc = Nvrtc(ctypes.CDLL(name))
        except (OSError, AttributeError):  # no library, or none of NVRTC's
            continue
        if major in (None, nvrtc.version[0]):
            return nvrtc
    wanted = "NVRTC" if major is None else f"NVRTC {major}"
    raise DeviceError(f"{wanted}, which compiles the kernels, was not found: pip install {wheel_of(major or 12)}")


def wheel_of(major: int) -> str:
    """The pip package of NVRTC for CUDA 12 or 13."""
    return "nvidia-cuda-nvrtc-cu12" if major == 12 else "nvidia-cuda-nvrtc"


def _load_builtins(library: Path) -> None:
    """Loads what NVRTC asks the loader for when it compiles: the wheel of version 13 does not say where that lies."""
    if library.parent != Path():
        for pattern in ("libnvrtc-builtins.so.*", "nvrtc-builtins64_*.dll"):
            for builtins in sorted(library.parent.glob(pattern)):
                ctypes.CDLL(str(builtins))


def _candidates() -> Iterator[str]:
    wheels = importlib.util.find_spec("nvidia")
    sites = (wheels and wheels.submodule_search_locations) or ()
    for pattern in ("cuda_nvrtc/lib/libnvrtc.so.*", "cu1*/lib/libnvrtc.so.*", "cu*/bin/**/nvrtc64_*_0.dll"):
        for site in sites:
            yield from (str(path) for path in sorted(Path(site).glob(pattern)))
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if toolkit := os.environ.get(variable):
            for pattern in ("lib64/libnvrtc.so.*", "bin/**/nvrtc64_*_0.dll"):
                yield from (str(path) for path in sorted(Path(toolkit).glob(pattern)))
    yield from ("libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so")
    if found := ctypes.util.find_library("nvrtc"):
        yield found


def architecture_for(capability: tuple[int, int], supported: Sequence[int]) -> str:
    """What to compile for on a GPU of this compute capability, given the capabilities NVRTC knows.

    9.0 gets sm_90a, whose instructions exist there and nowhere else; any other the newest of its generation that is no
    newer than itself. Raises DeviceError where there is none.
    """
    major, minor = capability
    if major < 7:
        raise DeviceError(f"the GPU has compute capability {major}.{minor}; the kernels need 7.0 or newer")
    fitting = [known for known in supported if known // 10 == major and known % 10 <= minor]
    if not fitting:
        known_to_12 = max(supported) > 10 * major + minor
        remedy = f"pip install -U {wheel_of(12 if known_to_12 else 13)}"
        if 70 in supported and not known_to_12:  # version 12 is taken before 13 where both are there
            remedy = f"pip uninstall -y {wheel_of(12)} && {remedy}"
        raise DeviceError(f"this NVRTC cannot compile for compute capability {major}.{minor}: {remedy}")
    return "sm_90a" if max(fitting) == 90 else f"sm_{max(fitting)}"


def compile_sources(sources: Sequence[Path], architecture: str, nvrtc: Nvrtc | None = None) -> list[Cubin]:
    """Each source for this architecture, from the cache or compiled now, on all cores; by `find_nvrtc` if left open.

    Says so once through the logger "nstgpu" where something has to be compiled. Raises CompileError or DeviceError.
    """
    compiler = nvrtc or find_nvrtc()
    announced = threading.Lock()

    def announce() -> None:
        if announced.acquire(blocking=False):
            _log.info("compiling kernels (first run only)")

    headers = _bytes_of(FOLDER.rglob("*.cuh"))  # once, for reading them again and again takes longer than all cubins do

    def compiled(source: Path) -> Cubin:
        return _compile_cached(compiler, source, architecture, headers, announce)

    with ThreadPoolExecutor(min(len(sources), os.cpu_count() or 1)) as pool:
        return list(pool.map(compiled, sources))


def _compile_cached(
    nvrtc: Nvrtc, source: Path, architecture: str, headers: bytes, announce: Callable[[], None]
) -> Cubin:
    def compile_now() -> Cubin:
        announce()
        return nvrtc.compile(source, architecture)

    key = cubin_key(nvrtc.version, source, architecture, headers)
    entry = cached(cache_directory("cubin"), key, ".cubin", lambda target: _pack(compile_now(), target))
    return _unpack(entry.content)


def cubin_key(version: tuple[int, int], source: Path, architecture: str, headers: bytes | None = None) -> str:
    """Names everything the cubin depends on; any header of the folders might be included.

    headers: what is known of those in FOLDER; None looks at them.
    """
    parts = [repr((version, architecture, flags_of(version), source.name)).encode(), source.read_bytes()]
    beside = b"" if FOLDER in source.parents else _bytes_of(source.parent.glob("*.cuh"))
    return digest(_joined([*parts, beside, _bytes_of(FOLDER.rglob("*.cuh")) if headers is None else headers]))


def _bytes_of(files: Iterable[Path]) -> bytes:
    """The names and contents of these files."""
    return _joined(part for file in sorted(files) for part in (file.name.encode(), file.read_bytes()))


def _joined(parts: Iterable[bytes]) -> bytes:
    """Of other parts other bytes."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _pack(cubin: Cubin, target: Path) -> None:
    """The log as a line of JSON, then the image."""
    target.write_bytes(json.dumps(cubin.log).encode() + b"\n" + cubin.image)


def _unpack(content: bytes) -> Cubin:
    log, _, image = content.partition(b"\n")
    return Cubin(image, json.loads(log))
