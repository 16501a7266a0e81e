"""The instructions of cuda/ptx up to sm_89 as the emulator has them: fragments as the PTX manual lays them out, sums as
tensor cores cut them, data of asynchronous copies at the wait and not before, and a report for every kernel that relies
on less."""

import math
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.devices import faults
from nstgpu.kernels.emulator import Library, NoCompilerError, compile_library, find_compiler

try:
    find_compiler()
except NoCompilerError as missing:
    warnings.warn(f"NO EMULATOR TESTS: {missing}", stacklevel=1)
    pytest.skip(str(missing), allow_module_level=True)

SOURCE = Path(__file__).with_name("ptx_kernels.cu")
KINDS = ["mma_bf16_k16", "mma_fp16_k16", "mma_fp16_k8", "mma_tf32_k8"]
DEPTHS = {"mma_bf16_k16": 16, "mma_fp16_k16": 16, "mma_fp16_k8": 8, "mma_tf32_k8": 8}
KEPT_BITS = 24  # of a sum below the largest exponent in it

f32, u32, u16 = np.float32, np.uint32, np.uint16


def checked(seed: int = 0) -> Library:
    return compile_library([SOURCE], check=True, seed=seed)


@pytest.fixture(scope="module", params=[False, True], ids=["normal", "checked"])
def library(request: pytest.FixtureRequest) -> Library:
    return compile_library([SOURCE], check=request.param)


# ---- numbers --------------------------------------------------------------------------------------------------------
def bf16_bits(x: Any) -> Any:
    """To nearest, ties to even, by the distances of the two neighbours; what is not finite is not rounded."""
    exact = np.asarray(x, f32)
    below = exact.view(u32) >> 16
    with np.errstate(invalid="ignore"):
        error = [np.abs((bits << 16).view(f32).astype(np.float64) - exact) for bits in (below, below + 1)]
    up = (error[1] < error[0]) | ((error[1] == error[0]) & (below % 2 == 1))
    return (below + (up & np.isfinite(exact))).astype(u16)


def encode(kind: str, x: Any) -> Any:
    """Bits of numbers that the kind holds exactly."""
    if "bf16" in kind:
        return bf16_bits(x).astype(u32)
    return np.asarray(x, f32).view(u32) if "tf32" in kind else np.asarray(x, np.float16).view(u16).astype(u32)


def decode(kind: str, bits: Any) -> Any:
    if "bf16" in kind:
        return (np.asarray(bits, u32) << 16).view(f32)
    return bits.view(f32) if "tf32" in kind else bits.astype(u16).view(np.float16).astype(f32)


SPECIAL = [
    *(0.0, -0.0, 1.0, 1.00390625, 1.01171875, 65504.0, 65519.9, 65520.0, 1e38, 3.4e38, math.inf, -math.inf),
    *(2.0**-14, 2.0**-24, 2.0**-25, 2.0**-25 * 1.001, 3 * 2.0**-25, 6.1e-5, 1e-40, 1 + 2.0**-11, 1 + 3 * 2.0**-11),
]


@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_are_rounded_to_nearest(library: Library) -> None:
    x = np.array([*SPECIAL, *np.random.default_rng(0).integers(0, 2**32, 4000, dtype=u32).view(f32)], f32)
    x = x[~np.isnan(x)]
    bf16, fp16, tf32 = np.zeros((3, x.size), u32)
    back = np.zeros((x.size, 4), f32)
    library.launch("round_numbers", x.size // 128 + 1, 128, [x, bf16, fp16, tf32, back, np.int32(x.size)])
    finite = np.abs(x) < 3.38e38
    np.testing.assert_array_equal(bf16[finite] & 0xFFFF, bf16_bits(x[finite]))
    np.testing.assert_array_equal(fp16 & 0xFFFF, x.astype(np.float16).view(u16))
    np.testing.assert_array_equal(bf16 >> 16, bf16 & 0xFFFF ^ 0x8000)
    np.testing.assert_array_equal(fp16 >> 16, fp16 & 0xFFFF ^ 0x8000)
    np.testing.assert_array_equal(back[:, 0], (bf16 << 16).view(f32))
    np.testing.assert_array_equal(back[:, 2], x.astype(np.float16).astype(f32))
    np.testing.assert_array_equal(back[:, 1::2], -back[:, ::2])
    assert not (tf32 & 0x1FFF)[finite].any()
    error = np.abs(tf32.view(f32)[finite].astype(np.float64) - x[finite])
    step = np.exp2(np.maximum(np.floor(np.log2(np.maximum(np.abs(x[finite]), 1e-45))), -126) - 10)
    assert (error <= step / 2).all()


def test_nan_stays_nan(library: Library) -> None:
    x = np.array([np.nan, -np.nan], f32)
    x = np.append(x, np.array([0x7F800001, 0xFFFFFFFF], u32).view(f32))
    bf16, fp16, tf32 = np.zeros((3, x.size), u32)
    back = np.zeros((x.size, 4), f32)
    library.launch("round_numbers", 1, 32, [x, bf16, fp16, tf32, back, np.int32(x.size)])
    assert np.isnan(back).all()
    assert np.isnan(tf32.view(f32)).all()


def test_arrays_of_16_bit_numbers_are_told_apart(library: Library) -> None:
    out, x = np.zeros(4, f32), np.arange(4)
    library.launch("widen", 1, 4, [bf16_bits(x), x.astype(np.float16), out])
    np.testing.assert_array_equal(out, 2 * x)
    with pytest.raises(TypeError, match="argument 1 points to floating point of 2 bytes, not to uint16"):
        library.launch("widen", 1, 4, [bf16_bits(x), bf16_bits(x), out])
    with pytest.raises(TypeError, match="argument 0 points to an integer of 2 bytes, not to float16"):
        library.launch("widen", 1, 4, [x.astype(np.float16), x.astype(np.float16), out])


# ---- products -------------------------------------------------------------------------------------------------------
def place_a(kind: str, lane: int, i: int) -> tuple[int, int]:
    """Row and column of A that element i of a lane's fragment is: PTX ISA, "Matrix Fragments for mma.m16n8k*"."""
    group, in_group = lane >> 2, lane % 4
    if "tf32" in kind:
        return (group if i in (0, 2) else group + 8), (in_group if i < 2 else in_group + 4)
    row = group if i < 2 or 4 <= i < 6 else group + 8
    return row, in_group * 2 + (i & 1) + (8 if i >= 4 else 0)


def place_b(kind: str, lane: int, i: int) -> tuple[int, int]:
    group, in_group = lane >> 2, lane % 4
    if "tf32" in kind:
        return (in_group if i < 1 else in_group + 4), group
    return in_group * 2 + (i & 1) + (8 if i >= 2 else 0), group


def place_c(lane: int, i: int) -> tuple[int, int]:
    return (lane >> 2) + (8 if i >= 2 else 0), (lane % 4) * 2 + (i & 1)


def fragments(kind: str, matrix: Any, place: Any, registers: int) -> Any:
    per_register = 1 if "tf32" in kind else 2
    words = np.zeros((32, registers), u32)
    for lane in range(32):
        for i in range(registers * per_register):
            words[lane, i // per_register] |= matrix[place(kind, lane, i)] << u32(16 * (i % per_register))
    return words


def multiply(library: Library, kind: str, a: Any, b: Any, c: Any) -> Any:
    """a (16, K) and b (K, 8) as bits, c (16, 8) float32: their product, by one mma."""
    registers = DEPTHS[kind] // (4 if "tf32" in kind else 8)
    sums = np.array([[c[place_c(lane, i)] for i in range(4)] for lane in range(32)], f32)
    of_a = fragments(kind, a, place_a, 2 * registers)
    library.launch(kind, 1, 32, [of_a, fragments(kind, b, place_b, registers), sums])
    result = np.zeros((16, 8), f32)
    for lane in range(32):
        for i in range(4):
            result[place_c(lane, i)] = sums[lane, i]
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_integers_are_exact(library: Library, kind: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (16, DEPTHS[kind])), rng.integers(-9, 10, (DEPTHS[kind], 8))
    c = rng.integers(-99, 100, (16, 8))
    np.testing.assert_array_equal(multiply(library, kind, encode(kind, a), encode(kind, b), c), a @ b + c)


def exponent(x: Fraction, least: int) -> int:
    """Of a number as hardware holds it: subnormal ones have the least normal one's."""
    if x == 0:
        return least
    return max(least, math.frexp(float(x))[1] - 1)


def cut(x: Fraction, unit: Fraction) -> Fraction:
    return int(x / unit) * unit  # int cuts


def cut_sum(terms: list[tuple[Fraction, int]]) -> Fraction:
    """Terms with their exponents, each cut below the largest of these, and the sum cut to a float."""
    unit = Fraction(2) ** (max(e for x, e in terms if x != 0 or e == -126) - KEPT_BITS)
    total = sum((cut(x, unit) for x, _ in terms), Fraction(0))
    return cut(total, Fraction(2) ** (exponent(total, -126) - 23))


def exact_product(kind: str, a: Any, b: Any, c: Any) -> Any:
    """The same as the tensor core's documented model, number by number in rational arithmetic."""
    least = -14 if "fp16" in kind else -126
    at_once = 4 if "tf32" in kind else 8
    result = np.zeros((16, 8), f32)
    for i in range(16):
        for j in range(8):
            total = Fraction(float(c[i, j]))
            for first in range(0, DEPTHS[kind], at_once):
                terms = [(total, exponent(total, -126)), (Fraction(0), -126)]
                for k in range(first, first + at_once):
                    x, y = Fraction(float(a[i, k])), Fraction(float(b[k, j]))
                    terms.append((x * y, exponent(x, least) + exponent(y, least)))
                total = cut_sum(terms)
            result[i, j] = float(total)
    return result


@pytest.mark.parametrize("spread", [0, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_cut_as_tensor_cores_cut_them(library: Library, kind: str, spread: int) -> None:
    rng = np.random.default_rng(1)
    depth = DEPTHS[kind]

    def numbers(*shape: int) -> Any:
        x = rng.standard_normal(shape) * 2.0 ** rng.integers(-spread, spread + 1, shape)
        return encode(kind, np.where(rng.random(shape) < 0.1, 0, x))

    a, b, c = numbers(16, depth), numbers(depth, 8), rng.standard_normal((16, 8)).astype(f32)
    seen = a & ~u32(0x1FFF) if "tf32" in kind else a, b & ~u32(0x1FFF) if "tf32" in kind else b
    expected = exact_product(kind, decode(kind, seen[0]), decode(kind, seen[1]), c)
    np.testing.assert_array_equal(multiply(library, kind, a, b, c), expected)


def test_subnormal_fp16_keep_the_least_exponent(library: Library) -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(0, 0x0800, (16, 16)).astype(u32)  # the smallest fp16 there are, subnormal ones among them
    b = encode("fp16", rng.standard_normal((16, 8)))
    c = np.full((16, 8), 2.0**-20, f32)
    expected = exact_product("mma_fp16_k16", decode("fp16", a), decode("fp16", b), c)
    np.testing.assert_array_equal(multiply(library, "mma_fp16_k16", a, b, c), expected)


def test_what_is_cut_is_lost(library: Library) -> None:
    """1 + 3/4 ulp is 1, where rounding would give the next float; the same below zero."""
    a, b = np.zeros((16, 16)), np.zeros((16, 8))
    a[:, 0], b[0] = 1, 0.75 * 2.0**-23
    for sign in (1, -1):
        result = multiply(library, "mma_bf16_k16", encode("bf16", sign * a), encode("bf16", b), np.full((16, 8), sign))
        np.testing.assert_array_equal(result, sign)


@pytest.mark.parametrize("kind", KINDS)
def test_infinity_and_nan_go_where_they_belong(library: Library, kind: str) -> None:
    depth = DEPTHS[kind]
    a, b, c = np.ones((16, depth), f32), np.ones((depth, 8), f32), np.zeros((16, 8), f32)
    a[3, 2], a[5, 1], c[9, 4], b[4, 6] = np.inf, np.nan, -np.inf, 0
    a[7, 4] = np.inf  # meets the zero
    with np.errstate(invalid="ignore"):
        expected = np.array([[sum(a[i] * b[:, j]) + c[i, j] for j in range(8)] for i in range(16)])
    np.testing.assert_array_equal(multiply(library, kind, encode(kind, a), encode(kind, b), c), expected)


def test_a_sum_overflows_to_infinity(library: Library) -> None:
    a, b = np.full((16, 16), 2.0**120), np.full((16, 8), 2.0**7)
    result = multiply(library, "mma_bf16_k16", encode("bf16", a), encode("bf16", b), np.zeros((16, 8)))
    assert np.isposinf(result).all()


# ---- matrix loads ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("permuted", [False, True])
def test_ldmatrix(library: Library, permuted: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**16, (32, 8), dtype=u16)
    order = np.arange(32, dtype=np.int32)
    if permuted:  # within the eight rows of a matrix, so that no banks are shared
        order = np.concatenate([8 * i + rng.permutation(8) for i in rng.permutation(4)]).astype(np.int32)
    words = np.zeros((32, 4, 2), u16)
    library.launch("ldmatrix", 1, 32, [rows.view(u32), order, words.view(u32)])
    matrices = rows[order].reshape(4, 8, 8)
    for lane in range(32):
        for i in range(4):
            expected = matrices[i, lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2]
            np.testing.assert_array_equal(words[lane, i], expected)
    library.launch("ldmatrix_transposed", 1, 32, [rows.view(u32), order, words.view(u32)])
    for lane in range(32):
        for i in range(4):
            expected = matrices[i, lane % 4 * 2 : lane % 4 * 2 + 2, lane // 4]
            np.testing.assert_array_equal(words[lane, i], expected)


# ---- asynchronous copies --------------------------------------------------------------------------------------------
def test_copied_data_appears_at_the_wait_and_not_before() -> None:
    source = np.random.default_rng(0).integers(0, 2**32, (128, 4), dtype=u32)
    seen = np.zeros((4, 64, 4), u32)
    compile_library([SOURCE]).launch("copies", 1, 64, [source, seen])
    expected = source.reshape(2, 64, 4).copy()
    expected[:, ::3] = 0  # were not wanted
    np.testing.assert_array_equal(seen, [np.full((64, 4), 7), expected[0], np.full((64, 4), 7), expected[1]])


@pytest.mark.parametrize(("architecture", "before"), [(900, 7), (750, None)])
def test_copies_of_words(architecture: int, before: int | None) -> None:
    """Older GPUs have copied when they are asked to."""
    source = np.random.default_rng(0).integers(0, 2**32, 64, dtype=u32)
    expected, seen = np.where(np.arange(64) % 3 != 0, source, 0), np.zeros((2, 64), u32)
    compile_library([SOURCE], defines={"ARCHITECTURE": architecture}).launch("copies_of_words", 1, 64, [source, seen])
    np.testing.assert_array_equal(seen, [np.full(64, before) if before else expected, expected])


def test_a_ring_of_copies(library: Library) -> None:
    source, out = np.random.default_rng(0).integers(0, 2**20, (7, 64, 4), dtype=u32), np.zeros((64, 4), u32)
    for steps in (1, 2, 7):
        library.launch("ring", 1, 64, [source, out, np.int32(steps)])
        np.testing.assert_array_equal(out[:, 0], source[:steps, ::-1, 0].sum(0))


# ---- sm_75 ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("check", [False, True])
def test_without_asynchronous_copies_and_deep_products(check: bool) -> None:
    library = compile_library([SOURCE], check=check, defines={"ARCHITECTURE": 750})
    assert "mma_bf16_k16" not in library.kernels
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (16, 16)), rng.integers(-9, 10, (16, 8))
    product = multiply(library, "mma_fp16_k16", encode("fp16", a), encode("fp16", b), np.zeros((16, 8)))
    np.testing.assert_array_equal(product, a @ b)
    test_a_ring_of_copies(library)


# ---- what the checking build sees -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kernel", "threads", "args", "kind", "markers"),
    [
        ("wait_without_barrier", 64, [(64, 4), (64, 4)], "data race", ["reads", "copies"]),
        ("barrier_without_wait", 64, [(64, 4), (64, 4)], "data race", ["reads", "copies"]),
        ("refilled_too_soon", 64, [(64, 4), (64, 4)], "data race", ["reads", "copies"]),
        ("copy_past_end", 32, [(32, 4), (32, 4)], "out of bounds", ["reads"]),
        ("copy_misaligned", 32, [(200,)], "misaligned access", ["asks"]),
        ("copy_to_global", 32, [(32, 4), (32, 4)], "out of bounds", ["asks"]),
        ("rows_in_global", 32, [(32, 4), (32,)], "out of bounds", ["asks"]),
        ("unordered_rows", 32, [(32,)], "data race", ["reads", "wrote"]),
        ("rows_past_end", 32, [(32,)], "out of bounds", ["reads"]),
        ("half_a_warp", 32, [(32,)], "warp mask", ["waits"]),
        ("conflicting_rows", 32, [(32,)], "bank conflict", ["brings"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 3])
def test_a_fault_is_named_with_its_lines(
    kernel: str, threads: int, args: list[Any], kind: str, markers: list[str], seed: int
) -> None:
    arrays = [np.zeros(shape, u32) for shape in args]
    reports = faults(checked(seed=seed), kernel, 1, threads, arrays)
    places = [{(Path(side.file).name, side.line) for side in report.sides} for report in reports if report.kind == kind]
    assert places
    assert all(place == {(SOURCE.name, line_of(f"{kernel}: {marker}")) for marker in markers} for place in places)


def test_a_race_with_a_copy_says_what_is_missing() -> None:
    arrays = [np.zeros((64, 4), u32) for _ in range(2)]
    (report,) = faults(checked(), "barrier_without_wait", 1, 64, arrays)
    assert [side.action for side in report.sides] == ["reads", "began a copy and has not waited for it"]


def test_reading_what_is_under_way_is_a_race() -> None:
    reports = faults(checked(), "copies", 1, 64, [np.zeros((128, 4), u32), np.zeros((256, 4), u32)])
    places = {report.sides[0].line: report.kind for report in reports}
    marked = (line_of("copies: reads too soon"), line_of("copies: reads the other too soon"))
    assert places == dict.fromkeys(marked, "data race")


def line_of(marker: str) -> int:
    (number,) = (n for n, line in enumerate(SOURCE.read_text().splitlines(), 1) if line.endswith(f"// {marker}"))
    return number
