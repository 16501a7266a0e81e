"""The emulated wgmma, copy engine and mbarriers (cuda/ptx, emulator/ptx): a small kernel that uses them gets the
right product whatever the order of things, and each way of using them wrongly shows, as wrong sums or as a reported
fault."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.devices import compiled
from nstgpu.kernels.cuda.runtime.tensor_map import TensorMap, encode_for_emulator
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.emulator import KernelFault, Library

SOURCE = Path(__file__).parent / "wgmma_faults.cu"
FAULTS = {
    name: number
    for number, name in enumerate(
        ["none", "no_wait_for_full", "no_wait_for_empty", "released_too_early", "no_wait_for_products",
         "too_few_bytes", "too_many_bytes", "no_fence", "wrong_parity", "one_arrival_too_many", "not_swizzled",
         "lanes_differ", "no_wait_for_load", "no_wait_for_store", "not_committed", "no_proxy_fence"]
    )
}  # fmt: skip
EARLY, LATE, COIN = 0, 1, 2  # when loads are carried out: EMULATOR_LOADS
STEPS = 5


def product_by(kernels: Library, fault: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """Ours, and the exact one. The last step's channels and the last rows lie outside of the arrays."""
    random = np.random.default_rng(0)
    pixels = rounded(random.standard_normal((1, 60, 64 * STEPS - 8), np.float32), "bf16")
    filters = rounded(random.standard_normal((1, 63, 64 * STEPS - 8), np.float32), "bf16")
    maps = [
        encode_for_emulator(TensorMap(array.ctypes.data, "bf16", array.shape[::-1], (64, 64, 1)))
        for array in (pixels, filters)
    ]
    out = np.full((64, 64), np.nan, np.float32)
    args: list[Any] = [*maps, out, np.int32(STEPS), np.int32(FAULTS[fault])]
    kernels.launch("small_product", 1, 160, args, shared_bytes=2 * 16384 + 32)
    expected = np.zeros((64, 64))
    expected[:60, :63] = widened(pixels, "bf16")[0].astype(np.float64) @ widened(filters, "bf16")[0].T
    return out, expected


@pytest.mark.parametrize(("loads", "seed"), [(EARLY, 0), (LATE, 1), (COIN, 2), (COIN, 3)])
def test_the_product_is_right(loads: int, seed: int) -> None:
    ours, expected = product_by(compiled(SOURCE, seed=seed, defines={"EMULATOR_LOADS": loads}))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert not ours[60:].any()


def test_the_checking_build_has_nothing_to_say() -> None:
    ours, expected = product_by(compiled(SOURCE, check=True, defines={"EMULATOR_LOADS": COIN}))
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def shows(kernels: Library, fault: str) -> bool:
    """Whether the sums are wrong, or the emulator says that something is."""
    try:
        ours, expected = product_by(kernels, fault)
    except KernelFault as error:
        return "mbarrier" in str(error)
    return not np.allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fault", "loads"),
    [("no_wait_for_full", LATE), ("no_wait_for_empty", EARLY), ("released_too_early", EARLY),
     ("no_wait_for_products", COIN), ("too_few_bytes", LATE)],
)  # fmt: skip
def test_a_wait_left_out_shows(fault: str, loads: int) -> None:
    assert shows(compiled(SOURCE, defines={"EMULATOR_LOADS": loads}), fault)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("too_many_bytes", "mbarrier.try_wait, whose phase never completes"),
     ("wrong_parity", "mbarrier.try_wait, whose phase never completes"),
     ("one_arrival_too_many", "mbarrier.try_wait, whose phase never completes"),
     ("no_fence", "wgmma.mma_async without wgmma.fence"),
     ("not_swizzled", "the 128-byte swizzle only"),
     ("lanes_differ", "lanes have different operands")],
)  # fmt: skip
def test_what_cannot_work_is_reported(fault: str, said: str) -> None:
    with pytest.raises(KernelFault, match=r"wgmma_faults\.cu:\d+: block \(0, 0, 0\)") as caught:
        product_by(compiled(SOURCE, defines={"EMULATOR_LOADS": COIN}), fault)
    assert said in str(caught.value)


# ---- boxes loaded, changed and stored -------------------------------------------------------------------------------
def copied_by(kernels: Library, fault: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """Ours, and what it should be. The last box ends beyond the array, and so do its rows."""
    boxes = 6
    values = np.random.default_rng(0).integers(0, 2**15, (1, 8 * boxes - 3, 56), np.uint16)
    out = np.zeros_like(values)
    maps = [
        encode_for_emulator(TensorMap(array.ctypes.data, "bf16", array.shape[::-1], (64, 8, 1)))
        for array in (values, out)
    ]
    kernels.launch("small_copy", 1, 32, [*maps, np.int32(boxes), np.int32(FAULTS[fault])], shared_bytes=1040)
    return out, values + 1


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("loads", [EARLY, LATE, COIN])
def test_boxes_come_back(loads: int, check: bool) -> None:
    ours, expected = copied_by(compiled(SOURCE, check=check, defines={"EMULATOR_LOADS": loads}))
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("fault", ["no_wait_for_load", "no_wait_for_store", "not_committed"])
def test_a_wait_left_out_of_a_copy_shows(fault: str) -> None:
    try:
        ours, expected = copied_by(compiled(SOURCE, defines={"EMULATOR_LOADS": LATE}), fault)
    except KernelFault:
        return
    assert (ours != expected).any()


def test_a_store_without_a_fence_is_reported() -> None:
    with pytest.raises(KernelFault, match=r"a store of what was written without fence\.proxy\.async"):
        copied_by(compiled(SOURCE, defines={"EMULATOR_LOADS": COIN}), "no_proxy_fence")


# ---- stmatrix, prmt -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("check", [False, True])
def test_stmatrix(transposed: bool, check: bool) -> None:
    library, rng = compiled(SOURCE, check=check), np.random.default_rng(0)
    order = np.concatenate([8 * i + rng.permutation(8) for i in rng.permutation(4)]).astype(np.int32)
    words = rng.integers(0, 2**16, (32, 4, 2), np.uint16)
    rows = np.zeros((32, 8), np.uint16)
    name = "stmatrix_transposed" if transposed else "stmatrix"
    library.launch(name, 1, 32, [words.view(np.uint32), order, rows.view(np.uint32)], shared_bytes=512)
    brought = rows[order].reshape(4, 8, 8)
    for lane in range(32):
        for i in range(4):
            matrix = brought[i].T if transposed else brought[i]
            np.testing.assert_array_equal(matrix[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2], words[lane, i])


def test_prmt() -> None:
    rng = np.random.default_rng(0)
    low, high, selector = rng.integers(0, 2**32, (3, 32), np.uint32)
    out = np.zeros(32, np.uint32)
    compiled(SOURCE).launch("prmt", 1, 32, [low, high, selector, out])
    sources = np.concatenate([low[:, None].view(np.uint8), high[:, None].view(np.uint8)], axis=1)
    for lane in range(32):
        nibbles = [int(selector[lane]) >> 4 * i & 15 for i in range(4)]
        signs = [0xFF if sources[lane, nibble & 7] >> 7 else 0 for nibble in nibbles]
        expected = [
            sign if nibble & 8 else sources[lane, nibble & 7] for sign, nibble in zip(signs, nibbles, strict=True)
        ]
        np.testing.assert_array_equal(out[lane : lane + 1].view(np.uint8), expected)


# ---- the first operand in registers ---------------------------------------------------------------------------------
def register_product(overwritten: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ours, and the exact one, with what was in the accumulators before."""
    random = np.random.default_rng(0)
    rows, filters = (random.standard_normal((64, width)).astype(np.float16) for width in (16, 64))
    a = np.empty((128, 4, 2), np.float16)
    for thread in range(128):  # as PTX's manual draws it
        warp, (group, place) = thread // 32, divmod(thread % 32, 4)
        for i in range(4):
            k = 2 * place + 8 * (i // 2)
            a[thread, i] = rows[16 * warp + group + 8 * (i % 2), k : k + 2]
    held = np.ascontiguousarray(filters[None])
    of_filters = encode_for_emulator(TensorMap(held.ctypes.data, "fp16", held.shape[::-1], (64, 64, 1)))
    out, first = np.full((128, 32), np.nan, np.float32), np.empty(4, np.float32)
    args: list[Any] = [a.view(np.uint32).reshape(128, 4), of_filters, out, first, np.int32(overwritten)]
    compiled(SOURCE.with_name("wgmma_registers.cu"), **options).launch(
        "register_product", 1, 128, args, shared_bytes=8192 + 16
    )
    np.testing.assert_array_equal(first.view(np.float16), held[0, 0, :8])
    product = rows.astype(np.float64) @ filters[:, :16].astype(np.float64).T
    expected = np.empty((128, 32))
    for thread in range(128):
        warp, (group, place) = thread // 32, divmod(thread % 32, 4)
        for i in range(32):
            row, column = 16 * warp + group + 8 * (i // 2 % 2), i // 4 * 8 + 2 * place + i % 2
            expected[thread, i] = product[row, column] + i
    return out, expected


@pytest.mark.parametrize("options", [{}, {"seed": 1}, {"check": True}], ids=str)
def test_a_product_with_registers_is_right_and_cut(options: dict[str, Any]) -> None:
    """Towards zero, by less than the last bit."""
    ours, expected = register_product(0, defines={"EMULATOR_LOADS": LATE}, **options)
    assert (np.abs(ours) <= np.abs(expected)).all()
    np.testing.assert_array_less(np.abs(ours - expected), np.spacing(np.abs(ours)))


@pytest.mark.parametrize("register", [1, 2, 3, 4])
def test_a_register_that_changes_too_early_shows(register: int) -> None:
    ours, expected = register_product(register)
    assert not np.allclose(ours, expected, atol=1e-3)
