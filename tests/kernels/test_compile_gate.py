"""Every kernel source compiled for every architecture we claim, with no GPU: resources within budget, no warnings.

Also the compiler's own behaviour: its cache, what it says and when, and that the gate would notice what it looks for.
"""

import logging
import re
import warnings
from pathlib import Path

import pytest

from nstgpu.kernels import compiler
from nstgpu.kernels.compiler import CompileError, Cubin, compile_sources
from nstgpu.kernels.device import DeviceError

try:
    NVRTC = compiler.find_nvrtc()
except DeviceError as error:
    warnings.warn(f"THE COMPILE GATE DOES NOT RUN: {error}", stacklevel=1)
    pytest.skip(str(error), allow_module_level=True)

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
if NVRTC.version[0] == 12:
    ARCHITECTURES.insert(0, "sm_70")

# Registers a thread may take, by the first pattern that its kernel's name holds. An SM has 65536.
REGISTERS = {
    r"^tensor_": 255,  # test_tensor_compile.py has their budgets
    r"^hopper_": 168,  # what they start with; setmaxnreg then moves registers from the producer to the consumers
    r"_128x128$": 128,  # tiles of 256 threads: two blocks to an SM
    r"^(conv3x3|gram|style_gradient|square_product)": 168,  # narrower tiles, of 64 or 128 threads: 384 to an SM
    r"": 64,  # bound by device memory: 1024 threads to an SM hide its latency
}
STATIC_SHARED_BYTES = 48 * 1024


@pytest.fixture(scope="module", params=ARCHITECTURES)
def cubins(request: pytest.FixtureRequest) -> dict[str, Cubin]:
    compiled = compile_sources(compiler.SOURCES, request.param)
    return {source.name: cubin for source, cubin in zip(compiler.SOURCES, compiled, strict=True)}


def test_no_kernel_spills(cubins: dict[str, Cubin]) -> None:
    spilling = {
        f"{source}: {kernel}": taken
        for source, cubin in cubins.items()
        for kernel, taken in cubin.kernels.items()
        if taken.spill_bytes or taken.stack_bytes
    }
    assert not spilling


def test_registers_and_shared_memory_stay_within_budget(cubins: dict[str, Cubin]) -> None:
    over = {
        f"{source}: {kernel}": taken
        for source, cubin in cubins.items()
        for kernel, taken in cubin.kernels.items()
        if taken.registers > register_budget(kernel) or taken.shared_bytes > STATIC_SHARED_BYTES
    }
    assert not over


def test_nothing_warns(cubins: dict[str, Cubin]) -> None:
    assert not {source: cubin.warnings for source, cubin in cubins.items() if cubin.warnings}


def test_each_source_has_kernels_and_no_name_is_used_twice(cubins: dict[str, Cubin]) -> None:
    assert all(cubin.kernels and cubin.image.startswith(b"\x7fELF") for cubin in cubins.values())
    names = [kernel for cubin in cubins.values() for kernel in cubin.kernels]
    assert len(set(names)) == len(names)


def register_budget(kernel: str) -> int:
    return next(budget for pattern, budget in REGISTERS.items() if re.search(pattern, kernel))


# ---- the gate sees what it looks for --------------------------------------------------------------------------------
def test_a_spill_is_seen(tmp_path: Path) -> None:
    loads = "".join(f"float v{i} = x[{i} * n];" for i in range(128))
    sums = "".join(f"x[{i} + n] = v{i} * v{127 - i};" for i in range(128))
    source = tmp_path / "spilling.cu"
    source.write_text(f'extern "C" __global__ void __launch_bounds__(1024) wide(float* x, int n) {{ {loads} {sums} }}')
    assert NVRTC.compile(source, "sm_80").kernels["wide"].spill_bytes > 0


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
def test_a_corrupt_entry_is_rebuilt(source: Path, tmp_path: Path, damage: bytes | None) -> None:
    (first,) = compile_sources([source], "sm_80")
    (entry,) = entries(tmp_path)
    entry.write_bytes(entry.read_bytes()[:-1] if damage is None else damage)
    (again,) = compile_sources([source], "sm_80")
    assert again.kernels == first.kernels
    (rebuilt,) = entries(tmp_path)
    assert rebuilt.read_bytes().endswith(again.image)


def test_a_changed_header_is_compiled_anew(source: Path, tmp_path: Path) -> None:
    (before,) = compile_sources([source], "sm_80")
    source.with_name("one.cuh").write_text("constexpr int one = 2;\n")
    (after,) = compile_sources([source], "sm_80")
    assert before.image != after.image
    assert len(entries(tmp_path)) == 2


def test_a_cache_that_cannot_be_written_only_warns(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "file"))
    (cubin,) = compile_sources([source], "sm_80")
    assert list(cubin.kernels) == ["count"]
    assert "cannot be kept" in caplog.text


def test_a_source_that_does_not_compile_is_named_with_the_log(source: Path, tmp_path: Path) -> None:
    source.write_text('extern "C" __global__ void count(int* x) { *x = undeclared; }\n')
    with pytest.raises(CompileError, match=r"count\.cu does not compile for sm_80(.|\n)*undeclared"):
        compile_sources([source], "sm_80")
    assert not entries(tmp_path)


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((7, 5), "sm_75"), ((8, 0), "sm_80"), ((8, 8), "sm_86"), ((9, 0), "sm_90a"), ((12, 1), "sm_120")],
)
def test_architecture_of_a_gpu(capability: tuple[int, int], architecture: str) -> None:
    assert compiler.architecture_for(capability, (70, 75, 80, 86, 90, 100, 120)) == architecture


@pytest.mark.parametrize("capability", [(6, 1), (11, 0)])
def test_a_gpu_we_cannot_compile_for_is_refused(capability: tuple[int, int]) -> None:
    with pytest.raises(DeviceError, match=r"{}\.{}".format(*capability)):
        compiler.architecture_for(capability, (61, 75, 80, 90))
