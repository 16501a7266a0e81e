"""How the cpu device cuts convolutions: the sizes given without making the strips are those of the strips."""

import itertools
import random
import time

import pytest

from nstgpu.kernels.cpu.convolution.strips import Cuts, cut, scratch, tile_rows, tiles_across


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_the_largest_strip_is_known_without_making_any(workers: int) -> None:
    drawn = random.Random(workers)
    for _ in range(300):
        size = drawn.randint(1, 900), drawn.randint(1, 900)
        channels = drawn.choice([(3, 64), (16, 32), (32, 32), (64, 64), (64, 128), (512, 512), (64, 3)])
        cutting = cut(*size, *channels, workers)
        strips = cutting.strips()
        assert cutting.down.longest == max(strip.bottom - strip.top for strip in strips)
        assert cutting.across.longest == max(strip.right - strip.left for strip in strips)
        assert cutting.down.most_tiles == max(len(tile_rows(strip)) for strip in strips)
        assert cutting.across.most_tiles == max(map(tiles_across, strips))


def test_an_axis_is_cut_at_tiles_and_covered_once() -> None:
    for tiles in range(1, 40):
        for length in range(4 * tiles - 3, 4 * tiles + 1):
            for count in range(1, tiles + 1):
                cuts = Cuts(length, tiles, count)
                edges = cuts.edges()
                assert edges[0][0] == 0
                assert edges[-1][1] == length
                assert all(end == start and start % 4 == 0 for (_, end), (start, _) in itertools.pairwise(edges))
                assert cuts.longest == max(end - start for start, end in edges)


def test_the_scratch_of_a_huge_map_takes_no_time() -> None:
    began = time.process_time()
    for channels in ((3, 64), (64, 64), (512, 3)):
        for _ in range(300):
            scratch(100_000, 100_000, *channels, 8)
    assert time.process_time() - began < 0.5  # with a list of the strips it takes minutes
