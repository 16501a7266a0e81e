"""Constants that Python and C++ share are typed once: the generated header is what would be generated now."""

import re

from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER
from nstgpu.kernels.cuda.tile_constants import HEADER, header


def test_the_header_is_fresh() -> None:
    assert HEADER.read_text() == header(), "run python -m nstgpu.kernels.cuda.tile_constants"


def test_no_source_defines_one_again() -> None:
    names = re.findall(r"(?:using|constexpr int) (\w+) =", HEADER.read_text())
    assert len(names) > 20
    for path in FOLDER.rglob("*.cu*"):
        if path != HEADER:
            found = re.findall(r"^(?:using|constexpr int) (\w+) = (?:\d+;|\w+<\d)", path.read_text(), re.MULTILINE)
            assert not set(found) & set(names), path
