"""Sheets: every patch where it belongs, at the scale it should have, and text that fits."""

from typing import Any

import numpy as np
import pytest

from nstgpu.engine.analysis.contact_sheets import contact_sheet, row_sheet
from nstgpu.engine.analysis.top_activations import Excitation, Unit
from nstgpu.engine.model.receptive_field import ReceptiveField, Window

FIELD = ReceptiveField(size=3, stride=1, margin=1)
RED, GREEN = (255, 0, 0), (0, 255, 0)


def excitation(colour: Any, size: int = 3, over: int = 0) -> Excitation:
    """A patch of one colour; its window reaches `over` pixels beyond the upper and the left border."""
    patch = np.full((size - over, size - over, 3), colour, np.uint8)
    return Excitation(1.0, "a", 0, 0, Window(-over, -over, size - over, size - over), patch)


def unit(index: int, *colours: Any) -> Unit:
    return Unit("relu1_1", index, tuple(excitation(colour) for colour in colours))


def eight_bit(sheet: Any) -> Any:
    assert sheet.dtype == np.float32
    assert sheet.ndim == 3
    assert sheet.shape[2] == 3
    levels = sheet * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    return np.rint(levels).astype(np.uint8)


def squares(sheet: Any, colour: Any) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the one rectangle that is all of this colour."""
    rows, columns = np.nonzero((sheet == np.array(colour)).all(axis=2))
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    assert len(rows) == (bottom - top) * (right - left)
    return int(top), int(left), int(bottom - top), int(right - left)


def test_patches_stand_in_reading_order_enlarged_by_a_whole_factor() -> None:
    colours = [(40 * i + 10, 0, 255 - 20 * i) for i in range(1, 6)]
    sheet = eight_bit(contact_sheet([unit(0, RED, GREEN, *colours), unit(1, (1, 2, 3))], FIELD, "title", "caption"))
    found = [squares(sheet, colour) for colour in (RED, GREEN, *colours)]
    assert {patch[2:] for patch in found} == {(84, 84)}  # 28 times 3 pixels
    assert [patch[0] for patch in found] == [found[0][0]] * 3 + [found[3][0]] * 3 + [found[6][0]]
    assert [patch[1] for patch in found] == [patch[1] for patch in found[:3]] * 2 + [found[0][1]]
    top, left, *_ = squares(sheet, (1, 2, 3))
    assert top == found[0][0]
    assert left > found[2][1] + 84


def test_each_pixel_of_a_small_patch_is_a_square() -> None:
    patch = np.random.default_rng(0).integers(0, 256, (3, 3, 3), np.uint8)
    shown = Unit("relu1_1", 0, (Excitation(1.0, "a", 5, 5, Window(4, 4, 7, 7), patch),))
    sheet = eight_bit(contact_sheet([shown], FIELD, "", ""))
    top, left, *_ = squares(sheet, patch[0, 0])
    np.testing.assert_array_equal(sheet[top : top + 84, left : left + 84], patch.repeat(28, 0).repeat(28, 1))


@pytest.mark.parametrize("size", [10, 24, 200])
def test_beyond_the_border_there_is_no_picture(size: int) -> None:
    field = ReceptiveField(size, 8, size // 5)
    cut, whole = (
        eight_bit(contact_sheet([Unit("relu4_1", 0, (excitation(RED, size, over),))], field, "", ""))
        for over in (size // 5, 0)
    )
    top, left, height, width = squares(cut, RED)
    whole_top, whole_left, side, _ = squares(whole, RED)
    assert height == width == pytest.approx(side * (size - size // 5) / size, abs=1)
    assert (top - whole_top, left - whole_left) == (side - height, side - width)
    assert cut.shape[0] > whole.shape[0]  # a line says what the hatching is


def test_a_unit_that_nothing_excited_is_said_to_be_so() -> None:
    silent = eight_bit(contact_sheet([unit(3)], FIELD, "", ""))
    excited = eight_bit(contact_sheet([unit(3, RED)], FIELD, "", ""))
    assert silent.shape == excited.shape
    text = [int((sheet[:, :, 0] < 100).sum()) for sheet in (silent[:210], excited[:210])]
    assert text[0] > text[1] > 0


def test_sheets_are_shaped_like_slides() -> None:
    for count in (15, 18, 30):
        height, width, _ = contact_sheet([unit(i, RED) for i in range(count)], FIELD, "", "").shape
        assert 1.1 < width / height < 2.1


def test_text_fits_the_sheet() -> None:
    """One unit is narrower than its title: the sheet is widened, and only what is far too long is cut."""
    empty, titled, absurd = (
        contact_sheet([unit(0, RED)], FIELD, title, "") for title in ("", "What excites relu3_1", "a" * 500)
    )
    assert empty.shape[0] == titled.shape[0] == absurd.shape[0]
    assert empty.shape[1] < titled.shape[1] < absurd.shape[1] < 4 * titled.shape[1]
    for sheet in (titled, absurd):
        right = np.nonzero((sheet < 0.5).any(axis=(0, 2)))[0].max()
        assert sheet.shape[1] - 80 < right < sheet.shape[1] - 40  # up to the margin


def test_row_of_pictures_is_exact_and_labelled() -> None:
    rng = np.random.default_rng(0)
    pictures = [(f"relu{i}_1", rng.integers(0, 256, (30, 256, 3)).astype(np.float32) / 255) for i in range(1, 4)]
    sheet = eight_bit(row_sheet(pictures, "title", "caption"))
    top = next(r for r in range(len(sheet)) if (sheet[r, 48:304] == np.rint(pictures[0][1][0] * 255)).all())
    lefts = []
    for _, pixels in pictures:
        wanted = np.rint(pixels * 255).astype(np.uint8)
        lefts += [
            left
            for left in range(sheet.shape[1] - 255)
            if np.array_equal(sheet[top : top + 30, left : left + 256], wanted)
        ]
    assert lefts == [48, 48 + 286, 48 + 2 * 286]
    for left in lefts:
        assert (sheet[top + 32 :, left : left + 256] < 128).any()
    assert (sheet[top + 32 :, 310:330] == 255).all()


def test_the_same_units_give_the_same_sheet() -> None:
    units = [unit(i, RED, GREEN) for i in range(5)]
    first, second = (contact_sheet(units, FIELD, "title", "caption") for _ in range(2))
    np.testing.assert_array_equal(first, second)
