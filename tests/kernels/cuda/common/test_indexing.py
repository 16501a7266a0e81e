"""Which elements a thread takes (cuda/common/indexing.cuh): each once, whatever the grid; and rounding up."""

from pathlib import Path

import numpy as np
import pytest

from harness.devices import compiled
from nstgpu.kernels.emulator import Library


@pytest.fixture(scope="module")
def probe() -> Library:
    return compiled(Path(__file__).with_name("indexing_probe.cu"), check=True)


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 1), (0, 100), (37, 100), (96, 100), (100, 100)])
@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (3, 8), (8, 32)])
def test_every_element_is_visited_once(probe: Library, begin: int, end: int, blocks: int, threads: int) -> None:
    visits = np.zeros(100, np.int32)
    probe.launch("count_visits", blocks, threads, [visits, np.int64(begin), np.int64(end)])
    np.testing.assert_array_equal(visits, (np.arange(100) >= begin) & (np.arange(100) < end))


def test_neighbours_are_taken_by_neighbours(probe: Library) -> None:
    by = np.empty(30, np.int32)
    probe.launch("who_visits", 3, 4, [by, np.int32(30)])
    np.testing.assert_array_equal(by, np.arange(30) % 12)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_division_rounds_up(probe: Library, size: int) -> None:
    out = np.empty(200, np.int32)
    probe.launch("groups", 1, 1, [out, np.int32(200), np.int32(size)])
    np.testing.assert_array_equal(out, [-(-count // size) for count in range(200)])
