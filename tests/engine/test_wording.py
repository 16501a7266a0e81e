"""Numbers and nouns."""

import pytest

from nstgpu.engine.wording import counted, shortest


@pytest.mark.parametrize(("number", "text"), [(0, "0 styles"), (1, "1 style"), (2, "2 styles")])
def test_counted(number: int, text: str) -> None:
    assert counted(number, "style") == text


@pytest.mark.parametrize(("value", "text"), [(2.0, "2"), (0.1, "0.1"), (1e-9, "1e-09"), (1e30, "1e+30"), (3, "3")])
def test_shortest(value: float, text: str) -> None:
    assert shortest(value) == text
    assert float(text) == value
