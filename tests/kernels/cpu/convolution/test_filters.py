"""By which of its three ways the cpu device convolves, and how large the strips of a thin layer are."""

import numpy as np
import pytest

from nstgpu.kernels.cpu.convolution.filters import Method, method_of, pack_filters
from nstgpu.kernels.cpu.convolution.strips import cut


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "expected"),
    [
        (3, 64, "plain"), (64, 3, "plain"), (3, 32, "plain"),
        (16, 16, "rows"), (16, 32, "rows"), (32, 32, "rows"), (32, 80, "rows"),
        (64, 64, "squares"), (80, 96, "squares"), (512, 512, "squares"),
    ],
)  # fmt: skip
def test_the_way_that_takes_least(channels_in: int, channels_out: int, expected: Method) -> None:
    assert method_of(channels_in, channels_out) == expected
    assert method_of(channels_out, channels_in) == expected  # both directions have one set of masks and strips


def test_filters_that_serve_both_directions_are_kept_and_counted_once() -> None:
    packed = pack_filters(np.ones((3, 3, 128, 256), np.float32), np.ones(256, np.float32))
    kept = [part.nbytes for part in packed if isinstance(part, np.ndarray)]
    assert sum(kept) == 4 * (36 * 128 * 256 + 256)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_strips_of_a_thin_layer_are_few_and_shared_out_evenly(workers: int) -> None:
    """Every call that lets go of the interpreter's lock costs two workers what 100 kB of work does."""
    strips = cut(128, 128, 32, 32, workers).strips()
    assert len(strips) <= 3
    assert len(strips) % workers == 0
    heights = [strip.bottom - strip.top for strip in strips]
    assert max(heights) - min(heights) <= 4


@pytest.mark.parametrize(
    ("side", "channels", "in_phases"), [(32, (160, 144), False), (24, (160, 144), True), (32, (512, 512), True)]
)
def test_small_maps_are_computed_in_phases_so_that_large_filters_are_read_once(
    side: int, channels: tuple[int, int], in_phases: bool
) -> None:
    assert cut(side, side, *channels, 2).in_phases is in_phases
