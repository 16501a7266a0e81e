"""Every kernel source compiled for every architecture we claim, with no GPU: resources within budget, no warnings.

Also the compiler's own behaviour: its cache, what it says and when, and that the gate would notice what it looks for.
"""

import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from nstgpu.kernels.cuda.runtime import nvrtc
from nstgpu.kernels.cuda.runtime.nvrtc import CompileError, Cubin, Nvrtc, compile_sources, wheel_of
from nstgpu.kernels.errors import DeviceError

try:
    NVRTC = nvrtc.find_nvrtc()
except DeviceError as error:
    warnings.warn(f"THE COMPILE GATE DOES NOT RUN: {error}", stacklevel=1)
    pytest.skip(str(error), allow_module_level=True)

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
if NVRTC.version[0] == 12:
    ARCHITECTURES.insert(0, "sm_70")

# CUDA 13's compiler gets every source once, and the long ones for the GPU that most of them are written for.
WITH_NVRTC_13 = {
    "sm_75": nvrtc.SOURCES,
    "sm_90a": tuple(nvrtc.FOLDER / f"{name}.cu" for name in ("instantiations/sm90_bf16", "instantiations/sm80_tf32")),
}
CASES = [(NVRTC.version[0], architecture) for architecture in ARCHITECTURES]
CASES += [(13, architecture) for architecture in WITH_NVRTC_13 if NVRTC.version[0] != 13]

# Registers a thread may take, by the first pattern that its kernel's name holds. An SM has 65536.
REGISTERS = {
    r"_mma_sm80_": 255,  # test_compile_sm80.py has their budgets
    r"_wgmma_sm90_": 168,  # what they start with; setmaxnreg then moves registers from the producer to the consumers
    r"_128x128$": 128,  # tiles of 256 threads: two blocks to an SM
    # narrower tiles, of 64 or 128 threads: 384 to an SM
    r"^(conv3x3|gram|style_gradient|square_product|project|sliced_gradient|nearest_neighbors_simt)": 168,
    r"^scatter_digits$": 128,  # two blocks to an SM, whose shared memory has room for few more
    r"^sort_rows_in_block$": 255,  # one block to a row, and few rows
    r"": 64,  # bound by device memory: 1024 threads to an SM hide its latency
}
STATIC_SHARED_BYTES = 48 * 1024


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"cuda{case[0]}-{case[1]}")
def cubins(request: pytest.FixtureRequest) -> dict[str, Cubin]:
    major, architecture = request.param
    called, sources = NVRTC, nvrtc.SOURCES
    if major != NVRTC.version[0]:
        called, sources = nvrtc_called(major), WITH_NVRTC_13[architecture]
    compiled = compile_sources(sources, architecture, called)
    return {f"{source.parent.name}/{source.name}": cubin for source, cubin in zip(sources, compiled, strict=True)}


def nvrtc_called(major: int) -> Nvrtc:
    """NVRTC of this version; skips, loudly, where it is not installed."""
    try:
        return nvrtc.find_nvrtc(major)
    except DeviceError as error:
        warnings.warn(f"THE COMPILE GATE OF CUDA {major} DOES NOT RUN: {error}", stacklevel=1)
        pytest.skip(str(error))


@pytest.mark.slow
def test_no_kernel_spills(cubins: dict[str, Cubin]) -> None:
    spilling = {
        f"{source}: {kernel}": taken
        for source, cubin in cubins.items()
        for kernel, taken in cubin.kernels.items()
        if taken.spill_bytes or taken.stack_bytes
    }
    assert not spilling


@pytest.mark.slow
def test_registers_and_shared_memory_stay_within_budget(cubins: dict[str, Cubin]) -> None:
    over = {
        f"{source}: {kernel}": taken
        for source, cubin in cubins.items()
        for kernel, taken in cubin.kernels.items()
        if taken.registers > register_budget(kernel) or taken.shared_bytes > STATIC_SHARED_BYTES
    }
    assert not over


@pytest.mark.slow
def test_nothing_warns(cubins: dict[str, Cubin]) -> None:
    assert not {source: cubin.warnings for source, cubin in cubins.items() if cubin.warnings}


@pytest.mark.slow
def test_each_source_has_kernels_and_no_name_is_used_twice(cubins: dict[str, Cubin]) -> None:
    assert all(cubin.image.startswith(b"\x7fELF") for cubin in cubins.values())
    empty = {source for source, cubin in cubins.items() if not cubin.kernels}
    assert empty <= {"instantiations/sm90_fp32.cu"}  # all of which is for one architecture
    names = [kernel for cubin in cubins.values() for kernel in cubin.kernels]
    assert len(set(names)) == len(names)
    assert {source: set(cubin.names) for source, cubin in cubins.items()} == {
        source: set(cubin.kernels) for source, cubin in cubins.items()
    }


def register_budget(kernel: str) -> int:
    return next(budget for pattern, budget in REGISTERS.items() if re.search(pattern, kernel))


# ---- the gate sees what it looks for --------------------------------------------------------------------------------
def test_a_spill_is_seen(tmp_path: Path) -> None:
    loads = "".join(f"float v{i} = x[{i} * n];" for i in range(128))
    sums = "".join(f"x[{i} + n] = v{i} * v{127 - i};" for i in range(128))
    source = tmp_path / "spilling.cu"
    source.write_text(f'extern "C" __global__ void __launch_bounds__(1024) wide(float* x, int n) {{ {loads} {sums} }}')
    assert NVRTC.compile(source, "sm_80").kernels["wide"].spill_bytes > 0


@pytest.mark.parametrize("major", [12, 13])
def test_kernels_are_known_without_a_log(tmp_path: Path, major: int) -> None:
    """Beside a driver NVRTC has a cache, and what comes out of that has none: kernels were missing on a GPU."""
    source = tmp_path / "silent.cu"
    source.write_text(
        "__device__ __noinline__ int helper(int x) { return x * x + clock(); }\n"
        'extern "C" __global__ void one(int* x) { *x = helper(*x); }\n'
        'extern "C" __global__ void two() {}\n'
    )
    cubin = nvrtc_called(major).compile(source, "sm_90a")
    assert sorted(Cubin(cubin.image, log="").names) == ["one", "two"] == sorted(cubin.kernels)


@pytest.mark.parametrize("version", [(12, 8), (12, 9), (13, 0)])
def test_nvrtc_is_asked_to_compile_rather_than_look_it_up(version: tuple[int, int]) -> None:
    assert ("--no-cache" in nvrtc.flags_of(version)) == (version >= (12, 9))


def test_ignored_register_requests_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "setmaxnreg.cu"
    source.write_text(
        'extern "C" __global__ void ask(int* x) {'
        ' asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\\n"); x[threadIdx.x] = 1; }'
    )
    assert any("C7508" in line for line in NVRTC.compile(source, "sm_90a").warnings)


def test_shared_memory_is_read_from_the_log(tmp_path: Path) -> None:
    source = tmp_path / "shared.cu"
    source.write_text(
        'extern "C" __global__ void swap(int* x) { __shared__ int s[100];'
        " s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[threadIdx.x] = s[99 - threadIdx.x]; }"
    )
    taken = NVRTC.compile(source, "sm_80").kernels["swap"]
    assert taken.shared_bytes == 400
    assert 0 < taken.registers < 32


# ---- the compiler ---------------------------------------------------------------------------------------------------
@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source with a header, and an empty cache."""
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "one.cuh").write_text("constexpr int one = 1;\n")
    path = tmp_path / "count.cu"
    path.write_text('#include "one.cuh"\nextern "C" __global__ void count(int* x) { *x += one; }\n')
    return path


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "cubin").iterdir())


def announcements(caplog: pytest.LogCaptureFixture) -> int:
    return sum("compiling kernels (first run only)" in record.message for record in caplog.records)


@pytest.mark.slow
def test_a_cubin_is_compiled_once_and_said_so_once(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nstgpu")
    other = source.with_name("other.cu")
    other.write_text('extern "C" __global__ void other(int* x) { *x = 2; }\n')
    first = compile_sources([source, other], "sm_80")
    again = compile_sources([source, other], "sm_80")
    assert first == again
    assert [list(cubin.kernels) for cubin in first] == [["count"], ["other"]]
    assert announcements(caplog) == 1
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"rubbish", None], ids=["emptied", "overwritten", "cut short"])
@pytest.mark.slow
def test_a_corrupt_entry_is_rebuilt(source: Path, tmp_path: Path, damage: bytes | None) -> None:
    (first,) = compile_sources([source], "sm_80")
    (entry,) = entries(tmp_path)
    entry.write_bytes(entry.read_bytes()[:-1] if damage is None else damage)
    (again,) = compile_sources([source], "sm_80")
    assert again.kernels == first.kernels
    (rebuilt,) = entries(tmp_path)
    assert rebuilt.read_bytes().endswith(again.image)


@pytest.mark.slow
def test_a_changed_header_is_compiled_anew(source: Path, tmp_path: Path) -> None:
    (before,) = compile_sources([source], "sm_80")
    source.with_name("one.cuh").write_text("constexpr int one = 2;\n")
    (after,) = compile_sources([source], "sm_80")
    assert before.image != after.image
    assert len(entries(tmp_path)) == 2


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_only_warns(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "file"))
    (cubin,) = compile_sources([source], "sm_80")
    assert list(cubin.kernels) == ["count"]
    assert "cannot be kept" in caplog.text


@pytest.mark.slow
def test_a_source_that_does_not_compile_is_named_with_the_log(source: Path, tmp_path: Path) -> None:
    source.write_text('extern "C" __global__ void count(int* x) { *x = undeclared; }\n')
    with pytest.raises(CompileError, match=r"count\.cu does not compile for sm_80(.|\n)*undeclared"):
        compile_sources([source], "sm_80")
    assert not entries(tmp_path)


# ---- finding it -----------------------------------------------------------------------------------------------------
COMPILE = """
import ctypes, sys
from pathlib import Path
from nstgpu.kernels.cuda.runtime import nvrtc
folder = Path(sys.argv[1])
nvrtc._candidates = lambda: [str(path) for path in folder.glob("*nvrtc.so.*")]
(folder / "one.cu").write_text('extern "C" __global__ void one(int* x) { *x = 1; }')
try:
    print(*nvrtc.find_nvrtc().compile(folder / "one.cu", "sm_80").kernels)
except nvrtc.DeviceError as error:
    print(error)
"""


def compiled_with(folder: Path, libraries: list[Path]) -> str:
    """What a process of its own says, which finds these libraries in a folder and no others."""
    for library in libraries:
        (folder / library.name).symlink_to(library)
    command = [sys.executable, "-c", COMPILE, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(params=[12, 13])
def wheel(request: pytest.FixtureRequest) -> tuple[int, Path, list[Path]]:
    """A version, its library in the pip wheel, and the builtins beside it."""
    nvrtc_called(request.param)
    libraries = (Path(name) for name in nvrtc._candidates() if "site-packages" in name)
    library = next((path for path in libraries if path.name == f"libnvrtc.so.{request.param}"), None)
    if library is None:
        pytest.skip(f"NVRTC {request.param} is no pip wheel's")
    return request.param, library, list(library.parent.glob("libnvrtc-builtins.so.*"))


@pytest.mark.slow
def test_the_builtins_beside_the_library_are_loaded_before_it_is_asked(
    wheel: tuple[int, Path, list[Path]], tmp_path: Path
) -> None:
    """Version 13 would look for them where the loader looks."""
    _, library, builtins = wheel
    assert compiled_with(tmp_path, [library, *builtins]) == "one"


@pytest.mark.slow
def test_missing_builtins_are_one_line_with_the_command(wheel: tuple[int, Path, list[Path]], tmp_path: Path) -> None:
    major, library, builtins = wheel
    said = compiled_with(tmp_path, [library])
    assert said.endswith(f" does not find its {builtins[0].name}: pip install --force-reinstall {wheel_of(major)}")
    assert "\n" not in said
    assert "one.cu" not in said


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((7, 5), "sm_75"), ((8, 0), "sm_80"), ((8, 8), "sm_86"), ((9, 0), "sm_90a"), ((12, 1), "sm_120")],
)
def test_architecture_of_a_gpu(capability: tuple[int, int], architecture: str) -> None:
    assert nvrtc.architecture_for(capability, (70, 75, 80, 86, 90, 100, 120)) == architecture


@pytest.mark.parametrize("capability", [(6, 1), (11, 0)])
def test_a_gpu_we_cannot_compile_for_is_refused(capability: tuple[int, int]) -> None:
    with pytest.raises(DeviceError, match=r"{}\.{}".format(*capability)):
        nvrtc.architecture_for(capability, (61, 75, 80, 90))
