"""The emulator: right results of correct kernels under any schedule, a report with lines of every broken one."""

import platform
import re
import subprocess
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.devices import faults
from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER
from nstgpu.kernels.emulator import (
    CompileError,
    KernelFault,
    Library,
    NoCompilerError,
    Report,
    Side,
    compile_library,
    compiler,
)

try:
    COMPILER = compiler.find_compiler()
except NoCompilerError as missing:
    warnings.warn(f"NO EMULATOR TESTS: {missing}", stacklevel=1)
    pytest.skip(str(missing), allow_module_level=True)

HERE = Path(__file__).parent
CORRECT = HERE / "correct_kernels.cu"
BROKEN = HERE / "broken_kernels.cu"
SEEDS = (0, 1, 7)

i32, u32, f32 = np.int32, np.uint32, np.float32


@pytest.fixture(scope="module", params=[False, True], ids=["normal", "checked"])
def compile_correct(request: pytest.FixtureRequest) -> Callable[[int], Library]:
    """The correct kernels for a seed: a fault that the checking build sees in them fails their test."""
    return lambda seed: compile_library([CORRECT], check=request.param, seed=seed)


@pytest.fixture(params=SEEDS)
def library(request: pytest.FixtureRequest, compile_correct: Callable[[int], Library]) -> Library:
    return compile_correct(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def broken(seed: int = 0) -> Library:
    return compile_library([BROKEN], check=True, seed=seed)


def only(reports: tuple[Report, ...], kind: str) -> Report:
    assert [report.kind for report in reports] == [kind], reports
    return reports[0]


def assert_at(side: Side, marker: str) -> None:
    """The side is on the line of broken_kernels.cu that ends in this comment."""
    lines = BROKEN.read_text().splitlines()
    marked = [number for number, line in enumerate(lines, 1) if f"// {marker}" in line]
    assert len(marked) == 1, marker
    assert (Path(side.file).name, side.line) == (BROKEN.name, marked[0])


# ------------------------------------------------------------------------------------------ correct kernels


@pytest.mark.parametrize("n", [1, 255, 256, 1000])
def test_add(library: Library, rng: np.random.Generator, n: int) -> None:
    x, y, total = rng.normal(size=(3, n)).astype(f32)
    library.launch("add", (n + 255) // 256, 256, [x, y, total, i32(n)], uninitialised=[total])
    np.testing.assert_array_equal(total, x + y)


def test_sgemm(library: Library, rng: np.random.Generator) -> None:
    m, n, k = 128, 192, 80
    a, b, c = (rng.normal(size=shape).astype(f32) for shape in ((m, k), (k, n), (m, n)))
    library.launch("sgemm", (n // 64, m // 64), 256, [a, b, c, i32(n), i32(k)], uninitialised=[c])
    exact = a.astype(float) @ b.astype(float)
    assert np.abs(c - exact).max() <= np.finfo(f32).eps * np.sqrt(k) * np.abs(a).max() * np.abs(b).max() * 4


@pytest.mark.parametrize(("kernel", "dtype"), [("block_sum_f32", f32), ("block_sum_f64", np.float64)])
def test_block_sum(library: Library, rng: np.random.Generator, kernel: str, dtype: type) -> None:
    x: np.ndarray[Any, Any] = rng.integers(-100, 100, 5000).astype(dtype)
    sums: np.ndarray[Any, Any] = np.zeros(7, dtype)
    library.launch(kernel, 7, 256, [x, sums, i32(x.size)])
    assert sums.sum() == x.sum()
    strided = [x[(np.arange(x.size) // 256) % 7 == block].sum() for block in range(7)]
    np.testing.assert_array_equal(sums, strided)


def test_warp_synchronous_sum(library: Library, rng: np.random.Generator) -> None:
    x = rng.integers(-100, 100, 1024).astype(f32)
    sums = np.zeros(32, f32)
    library.launch("warp_synchronous_sum", 4, 256, [x, sums])
    np.testing.assert_array_equal(sums, x.reshape(32, 32).sum(1))


def test_lanes_that_return_early(library: Library) -> None:
    out = np.zeros(5 * 64, i32)
    library.launch("survivors", 5, 128, [out])
    assert set(out) == {sum(range(64))}


def test_dynamic_shared_memory(library: Library) -> None:
    x = np.arange(600, dtype=f32)
    library.launch("reverse", 3, 200, [x], shared_bytes=800)
    np.testing.assert_array_equal(x, np.arange(600).reshape(3, 200)[:, ::-1].ravel())


def test_struct_by_value(library: Library, rng: np.random.Generator) -> None:
    affine = np.dtype({"names": ["scale", "shift", "count"], "formats": ["f4", "f4", "i4"], "itemsize": 16})
    x = rng.integers(-9, 9, 100).astype(f32)
    for value in (np.array([(3.0, 5.0, 100)], affine), np.array([(3.0, 5.0, 100)], affine)[0]):
        y = np.zeros(100, f32)
        library.launch("apply", 1, 32, [value, x, y])
        np.testing.assert_array_equal(y, 3 * x + 5)


def test_three_dimensions(library: Library) -> None:
    out = np.full((3 * 2, 2 * 3, 4 * 5), -1, i32)
    library.launch("coordinates", (4, 2, 3), (5, 3, 2), [out])
    z, y, x = np.indices(out.shape)
    np.testing.assert_array_equal(out, x + 100 * y + 10000 * z)


def test_narrow_elements(library: Library, rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, 128).astype(np.uint8)
    wide = np.zeros(128, np.uint16)
    library.launch("narrow", 1, 128, [x, wide])
    np.testing.assert_array_equal(wide, x.astype(int) + x[np.arange(128) ^ 1])


def test_collectives(library: Library) -> None:
    out = np.full((13, 32), -1, i32)
    library.launch("collectives", 1, 32, [out])
    lane = np.arange(32)
    votes = sum(1 << int(i) for i in lane if i % 3 == 0)
    expected = [
        np.full(32, 5),
        lane // 8 * 8 + (lane + 1) % 8,
        np.where(lane >= 3, lane - 3, lane),
        np.where(lane % 8 >= 3, lane - 3, lane),
        np.where(lane + 3 < 32, lane + 3, lane),
        np.where(lane % 8 + 3 < 8, lane + 3, lane),
        lane ^ 9,
        lane ^ 1,
        np.full(32, u32(votes).view(i32)),
        np.full(32, 1),
        np.full(32, 1),
        np.where(lane < 16, lane ^ 1, -(lane ^ 2)),
        np.full(32, 8),
    ]
    np.testing.assert_array_equal(out, expected)


def test_pointer_inside_a_struct(library: Library) -> None:
    x = np.zeros(50, f32)
    target = np.array([(x.ctypes.data, 50)], np.dtype([("address", np.uint64), ("count", i32)], align=True))
    library.launch("fill", 1, 32, [target, f32(4)], buffers=[x])
    assert set(x) == {4}


def test_constants_and_null_pointers(library: Library) -> None:
    index, out = np.array([3, 0, 2, 1], i32), np.zeros(4, f32)
    library.launch("look_up", 1, 4, [index, out, None])
    np.testing.assert_array_equal(out, [1000, 1, 100, 10])


def test_arrays_that_overlap_stay_so(library: Library) -> None:
    x = np.arange(20, dtype=f32)
    library.launch("add", 1, 32, [x[:10], x[:10], x[:10], i32(10)])
    library.launch("add", 1, 32, [x[:10], x[10:], x[10:], i32(10)])
    np.testing.assert_array_equal(x, [*range(0, 20, 2), *range(10, 40, 3)])


def test_printf(library: Library, capfd: pytest.CaptureFixture[str]) -> None:
    library.launch("greet", 3, 40, [])
    assert sorted(capfd.readouterr().out.splitlines()) == [f"hello from block {i}" for i in range(3)]


def test_launches_from_many_threads(library: Library) -> None:
    outs = [np.zeros(64, f32) for _ in range(8)]
    x = np.ones(64, f32)
    launches = [threading.Thread(target=library.launch, args=("add", 1, 64, [x, x, out, i32(64)])) for out in outs]
    for launch in launches:
        launch.start()
    for launch in launches:
        launch.join()
    assert all((out == 2).all() for out in outs)


# ------------------------------------------------------------------------------------------- broken kernels


def test_missing_barrier() -> None:
    reports = faults(broken(), "missing_barrier", 1, 64, [np.zeros(64, f32), np.zeros(64, f32)])
    races = [report for report in reports if report.kind == "data race"]
    assert {report.kind for report in reports} == {"data race", "uninitialised shared memory"}
    for report in races:
        assert "tile" in report.headline
        by_line = sorted(report.sides, key=lambda side: side.line)
        assert_at(by_line[0], "missing_barrier: wrote")
        assert_at(by_line[1], "missing_barrier: reads")
        assert by_line[0].block == by_line[1].block == (0, 0, 0)
        assert by_line[0].lanes[0] + by_line[1].lanes[0] == 63


@pytest.mark.parametrize("seed", range(5))
def test_race_is_seen_under_every_schedule(seed: int) -> None:
    x = np.zeros(192, f32)
    reports = faults(
        broken(seed=seed),
        "missing_second_barrier",
        1,
        64,
        [x, np.zeros(64, f32), i32(3)],
    )
    for report in reports:
        assert report.kind == "data race"
        by_line = sorted(report.sides, key=lambda side: side.line)
        assert_at(by_line[0], "missing_second_barrier: writes")
        assert_at(by_line[1], "missing_second_barrier: read")


def test_missing_syncwarp() -> None:
    reports = faults(broken(), "missing_syncwarp", 1, 32, [np.zeros(32, f32), np.zeros(32, f32)])
    report = next(report for report in reports if report.kind == "data race")
    by_line = sorted(report.sides, key=lambda side: side.line)
    assert_at(by_line[0], "missing_syncwarp: wrote")
    assert_at(by_line[1], "missing_syncwarp: reads")


def test_race_between_blocks() -> None:
    report = only(
        faults(broken(), "race_between_blocks", 4, 32, [np.zeros(4, f32)]),
        "race between blocks",
    )
    assert "argument 0 (float32 4)" in report.headline
    assert report.sides[0].block != report.sides[1].block
    for side in report.sides:
        assert side.lanes == (3,)
        assert_at(side, "race_between_blocks: writes")


def test_race_of_bytes() -> None:
    report = only(faults(broken(), "race_of_bytes", 1, 32, [np.zeros(16, np.uint8)]), "data race")
    assert sorted(side.lanes[0] % 2 for side in report.sides) == [0, 1]
    assert report.sides[0].lanes[0] // 2 == report.sides[1].lanes[0] // 2
    assert report.count == 16


@pytest.mark.parametrize(
    ("kernel", "kind", "action", "grid", "block", "args", "block_index", "lane", "headline"),
    [
        ("write_past_end", "out of bounds", "writes", 2, 32, [40, i32(40)], 1, 8, "offset 160 of argument 0"),
        ("read_before_start", "out of bounds", "reads", 2, 32, [64, 64], 0, 0, "offset -4 of argument 0"),
        ("write_past_shared", "out of bounds", "writes", 1, 32, [32], 0, 31, "offset 128 of shared array first"),
        ("read_past_dynamic", "out of bounds", "reads", 1, 32, [32], 0, 31, "offset 128 of dynamic shared memory"),
        ("float4_across_end", "out of bounds", "reads", 1, 8, [31, 32], 0, 7, "argument 0 (float32 31)"),
        ("copy_past_end", "out of bounds", "reads", 1, 4, [96, 128], 0, 3, "argument 0 (float32 96)"),
        ("uninitialised_shared", "uninitialised shared memory", "reads", 1, 64, [64], 0, 63, "shared array tile"),
    ],
)
def test_one_lane_at_fault(
    kernel: str,
    kind: str,
    action: str,
    grid: int,
    block: int,
    args: list[Any],
    block_index: int,
    lane: int,
    headline: str,
) -> None:
    arrays = [np.zeros(arg, f32) if isinstance(arg, int) else arg for arg in args]
    report = only(faults(broken(), kernel, grid, block, arrays, shared_bytes=128), kind)
    (side,) = report.sides
    assert_at(side, f"{kernel}: {action}")
    assert (side.action, side.block, side.lanes) == (action, (block_index, 0, 0), (lane,))
    assert headline in report.headline
    assert report.count == 1


def test_out_of_bounds_changes_no_memory() -> None:
    arena = np.zeros(64, f32)
    faults(broken(), "write_past_end", 2, 32, [arena[:40], i32(40)])
    assert arena[:40].all()
    assert not arena[40:].any()


def test_uninitialised_global_memory() -> None:
    scratch, y = np.zeros(64, f32), np.zeros(64, f32)
    reports = faults(broken(), "uninitialised_global", 1, 64, [scratch, y], uninitialised=[scratch, y])
    (side,) = only(reports, "uninitialised memory").sides
    assert_at(side, "uninitialised_global: reads")
    assert side.lanes == (5,)
    compile_library([BROKEN], check=True).launch("uninitialised_global", 1, 64, [scratch, y])


def test_write_to_read_only_array() -> None:
    x = np.ones(32, f32)
    x.flags.writeable = False
    (side,) = only(faults(broken(), "write_to_read_only", 1, 32, [x]), "write to read-only memory").sides
    assert_at(side, "write_to_read_only: writes")
    assert x.all()


@pytest.mark.skipif(not COMPILER.is_gcc, reason="clang makes four accesses out of a float4")
def test_misaligned_vector() -> None:
    report = only(
        faults(broken(), "misaligned_float4", 1, 8, [np.zeros(32, f32), np.zeros(8, f32)]),
        "misaligned access",
    )
    assert_at(report.sides[0], "misaligned_float4: reads")
    assert report.count == 6


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("kernel", "block", "kind", "expected"),
    [
        ("mask_names_returned", 64, "warp mask", [("waits", range(32, 48), "for threads 48-63 (returned)")]),
        ("mask_names_absent", 48, "warp mask", [("waits", range(32, 48), "for threads 48-63 (not in the block)")]),
        ("mask_without_caller", 17, "warp mask", [("calls", [16], "calls __shfl_sync with mask 0x0000ffff")]),
        ("shuffle_from_outside", 32, "warp mask", [("asks", None, "__shfl_down_sync, mask 0x0000ffff")]),
        (
            "mask_of_other_branch",
            32,
            "deadlock",
            [
                ("waits", range(16), "__any_sync, mask 0xffffffff, for threads 16-31 (waiting elsewhere)"),
                ("barrier", range(16, 32), "waits at __syncthreads"),
            ],
        ),
        (
            "divergent_barrier",
            64,
            "divergent barrier",
            [("first", range(32), "waits at __syncthreads"), ("second", range(32, 64), "waits at __syncthreads")],
        ),
    ],
)
def test_lanes_that_never_meet(kernel: str, block: int, kind: str, expected: list[Any], check: bool) -> None:
    library = compile_library([BROKEN], check=check)
    with pytest.raises(KernelFault) as caught:
        library.launch(kernel, 1, block, [np.zeros(64, i32)])
    report = only(caught.value.reports, kind)
    assert len(report.sides) == len(expected)
    for side, (marker, lanes, action) in zip(report.sides, expected, strict=True):
        assert_at(side, f"{kernel}: {marker}")
        assert side.block == (0, 0, 0)
        assert action in side.action
        assert side.lanes == tuple(lanes) if lanes else len(side.lanes) == 1


def test_too_much_shared_memory() -> None:
    reports = faults(broken(), "too_much_shared", 1, 32, [np.zeros(32, f32)], shared_bytes=100_000)
    assert_at(only(reports, "shared memory").sides[0], "too_much_shared: declares")


def test_a_fault_is_readable() -> None:
    with pytest.raises(KernelFault) as caught:
        compile_library([BROKEN], check=True).launch("write_past_end", 2, 32, [np.zeros(40, f32), i32(40)])
    assert re.fullmatch(
        r"kernel 'write_past_end':\n"
        r"out of bounds: 4 bytes at offset 160 of argument 0 \(float32 40\), which has 160 bytes\n"
        r"    .*/broken_kernels\.cu:\d+: block \(1, 0, 0\), thread 8: writes",
        str(caught.value),
    )


def test_a_library_works_after_a_fault(rng: np.random.Generator) -> None:
    for check in (False, True):
        library = compile_library([BROKEN, CORRECT], check=check)
        with pytest.raises(KernelFault):
            library.launch("divergent_barrier", 4, 64, [np.zeros(64, i32)])
        x = rng.normal(size=1000).astype(f32)
        total = np.zeros(1000, f32)
        library.launch("add", 4, 256, [x, x, total, i32(1000)])
        np.testing.assert_array_equal(total, 2 * x)


# -------------------------------------------------------------------------------- launches and compilation


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"args": []}, TypeError, "'add' takes 4 arguments, not 0"),
        ({3: 5}, TypeError, "'add': argument 3 must be a NumPy array or scalar, not int"),
        ({3: f32(5)}, TypeError, "argument 3 is an integer of 4 bytes, not float32"),
        ({3: np.int64(5)}, TypeError, "argument 3 is an integer of 4 bytes, not int64"),
        ({3: np.zeros(1, i32)}, TypeError, "argument 3 is passed by value"),
        ({3: None}, TypeError, "argument 3 is not a pointer"),
        ({0: np.zeros(8)}, TypeError, "argument 0 points to floating point of 4 bytes, not to float64"),
        ({0: np.zeros(8, i32)}, TypeError, "argument 0 points to floating point of 4 bytes, not to int32"),
        ({0: np.zeros((8, 2), f32)[:, 0]}, TypeError, "argument 0 must be C-contiguous"),
        ({0: f32(1)}, TypeError, "argument 0 is a pointer of 8 bytes, not float32"),
        ({"block": 1025}, ValueError, "block .1025, 1, 1. is not of 1 to 1024 threads"),
        ({"block": (1, 1, 65)}, ValueError, "block .1, 1, 65. is not of"),
        ({"block": (32, 0)}, ValueError, "block .32, 0, 1. is not of"),
        ({"grid": (1, 70000)}, ValueError, "grid .1, 70000, 1. is not within"),
        ({"shared_bytes": 300_000}, ValueError, "300000 bytes of shared memory"),
        ({"name": "subtract"}, ValueError, "no kernel 'subtract'; the library has add, "),
    ],
)
def test_a_launch_that_cannot_work(change: dict[Any, Any], error: type[Exception], message: str) -> None:
    x = np.zeros(8, f32)
    args = [change.get(index, arg) for index, arg in enumerate([x, x, x.copy(), i32(8)])]
    named = {key: value for key, value in change.items() if isinstance(key, str)}
    with pytest.raises(error, match=message):
        compile_library([CORRECT]).launch(**{"name": "add", "grid": 1, "block": 8, "args": args, **named})


def write_kernel(directory: Path, value: str) -> Path:
    (directory / "value.cuh").write_text(f"#define VALUE {value}\n")
    source = directory / "kernel.cu"
    platform = FOLDER / "common/platform.cuh"
    source.write_text(
        f'#include "{platform}"\n#include "value.cuh"\n'
        'extern "C" __global__ void put(float* x) { x[0] = VALUE * SCALE; }\n'
    )
    return source


def put(source: Path, scale: int) -> float:
    x = np.zeros(1, f32)
    compile_library([source], defines={"SCALE": scale}).launch("put", 1, 1, [x])
    return float(x[0])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "RUNTIME_FLAGS", ("-O0",))  # soon compiled
    return tmp_path / "cache" / "emulator"


@pytest.mark.slow
def test_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_kernel(tmp_path, "3.0f")
    assert put(source, 2) == 6
    assert len(list(cache.glob("*.so"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_compile", lambda *_: pytest.fail("compiled what the cache holds"))
        assert put(source, 2) == 6
    assert put(source, 5) == 15
    write_kernel(tmp_path, "4.0f")
    assert put(source, 2) == 8


@pytest.mark.slow
def test_corrupt_cache_is_rebuilt(tmp_path: Path, cache: Path) -> None:
    source = write_kernel(tmp_path, "3.0f")
    library = compiler.build_library([source], check=False, defines={"SCALE": 2})
    made = {path: path.read_bytes() for path in cache.iterdir()}
    library.write_bytes(made[library][:5000])
    min(cache.glob("*.o"), key=lambda unit: len(made[unit])).write_bytes(b"")
    assert put(source, 2) == 6
    assert {path: path.read_bytes() for path in cache.iterdir()} == made


# ------------------------------------------------------------------------------------------ between blocks
def test_the_last_block_adds_up_what_all_have_left(library: Library, rng: np.random.Generator) -> None:
    """In the same order whichever block is the last, and again without anybody resetting the ticket."""
    x = rng.normal(size=(37, 64)).astype(f32)
    ticket, expected = np.zeros(1, u32), np.zeros(64, f32)
    for row in x:
        expected += 2 * row
    for _ in range(3):
        partials, out = np.full((37, 64), np.nan, f32), np.full(64, np.nan, f32)
        library.launch("sum_by_the_last", 37, 64, [x, partials, out, ticket])
        np.testing.assert_array_equal(out, expected)
        assert ticket[0] == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("without", ["barrier", "release", "acquire"])
def test_a_sum_over_blocks_that_lacks_something_is_reported(without: str, seed: int) -> None:
    arrays = [np.zeros((5, 64), f32), np.zeros(64, f32), np.zeros(1, u32)]
    report = only(faults(broken(seed), f"last_without_{without}", 5, 64, arrays), "race between blocks")
    assert [side.action for side in report.sides] == ["reads", "wrote before"]
    for side in report.sides:  # both in a function that was inlined there
        assert_at(side, f"last_without_{without}: sums")


def test_what_is_written_after_the_fence_is_not_released() -> None:
    arrays = [np.zeros(5, f32), np.zeros(5, f32), np.zeros(1, u32)]
    report = only(faults(broken(), "write_after_release", 5, 32, arrays), "race between blocks")
    assert_at(report.sides[0], "write_after_release: reads")
    assert_at(report.sides[1], "write_after_release: wrote")


def test_an_atomic_and_an_access_that_is_none() -> None:
    reports = faults(broken(), "ticket_without_atomic", 6, 32, [np.zeros(1, u32)])
    assert {report.kind for report in reports} == {"race between blocks"}


@pytest.mark.slow
def test_compile_error_is_the_compilers(tmp_path: Path, cache: Path) -> None:
    source = write_kernel(tmp_path, "undeclared")
    with pytest.raises(CompileError, match=r"(?s)(?=.*value\.cuh:1)(?=.*undeclared)"):
        put(source, 2)
    assert not list(cache.glob("*.new*"))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NoCompilerError, match="install g"):
        compile_library([CORRECT])


@pytest.mark.usefixtures("cache")
@pytest.mark.slow
def test_ucontext_fibers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs where there is no assembly for the processor."""
    monkeypatch.setattr(compiler, "RUNTIME_FLAGS", ("-O0", "-DEMULATOR_UCONTEXT"))
    test_lanes_that_return_early(compile_library([CORRECT]))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flag is of that processor's compilers")
def test_the_compiler_says_nothing_where_the_cpu_lacks_wide_vectors() -> None:
    """What it says is shown as a note at the first run: GCC warned wherever AVX-512 is not to be had."""
    flags = [
        *compiler.FLAGS,
        "-DEMULATOR_CHECK=0",
        "-march=x86-64",
        "-O0",
        f"-I{compiler.HERE}",
        "-c",
        "-o",
        "/dev/null",
    ]
    command = [*COMPILER.command, *flags, str(compiler.HERE / "ptx.cpp")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
