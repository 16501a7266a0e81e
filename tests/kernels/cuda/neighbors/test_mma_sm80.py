"""The search on tensor cores: of whole numbers against what is right, of near ties against float64, and that neither
tiles nor parts nor the order of blocks decide anything. On the emulator, its checking build, and a GPU if there is one.
"""

from typing import Any

import numpy as np
import pytest

from harness.neighbors import Opened, check_what_is_no_number, held, kept, random
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import H200, spec_of
from nstgpu.kernels.cuda.neighbors import launch as simt
from nstgpu.kernels.cuda.neighbors import launch_mma_sm80 as mma
from nstgpu.kernels.cuda.neighbors.kernel_names import NEAREST_NEIGHBORS_MMA_SM80
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch

PRECISIONS = ("bf16", "fp16", "tf32")
SHAPES = [(1, 1, 32, 1), (5, 7, 64, 3), (13, 12, 256, 130), (2, 3, 512, 700), (9, 15, 264, 129), (3, 4, 40, 1000)]
"""H, W, C of the features, and how many candidates there are: a part of a tile or a stage, one and several."""

Shape = tuple[int, int, int, int]


def found(device: CudaDevice, features: Any, mean: Any, candidates: Any) -> Any:
    """By the device's own operation, with as small a workspace as it may be, in memory that holds what is no number."""
    device.bind_workspace(device.allocate(device.workspace_bytes([], [(*features.shape, len(candidates))])))
    out = held(device, np.full(features.shape[:2], -1), np.int32)
    launched: list[str] = []
    device.on_launch = lambda launch: launched.append(launch.kernel)
    device.nearest_neighbors(held(device, features), held(device, mean, np.float32), held(device, candidates), out)
    device.on_launch = None
    assert any("_mma_sm80_" in kernel for kernel in launched)
    return device.download(out)


def whole_numbers(shape: Shape) -> tuple[Any, Any, Any]:
    """Features, mean and candidates whose products are exact, every candidate twice, maybe in another tile or part."""
    height, width, channels, count = shape
    rng = np.random.default_rng(0)
    features, mean = rng.integers(-3, 4, (height, width, channels)), rng.integers(-2, 3, channels)
    candidates = rng.integers(-1, 2, (count, channels))
    candidates[count // 2 :] = candidates[: count - count // 2]
    features[0, 0] = mean  # all products are 0
    return features.astype(np.float32), mean.astype(np.float32), candidates.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_whole_numbers_are_exact_and_the_first_of_equals_is_taken(
    opened: Opened, precision: str, shape: Shape
) -> None:  # fmt: skip
    features, mean, candidates = whole_numbers(shape)
    exact = ((features - mean) @ candidates.T).argmax(axis=2)
    np.testing.assert_array_equal(found(opened(precision), features, mean, candidates), exact)
    assert exact[0, 0] == 0


@pytest.mark.parametrize("count", [3, 129, 700])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_part_keeps_its_best_two_groups(
    opened: Opened, precision: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, mean, candidates = whole_numbers((3, 50, 24, count))
    device, parts = opened(precision), min(2, -(-count // mma.CANDIDATES))
    pixels = 150
    monkeypatch.setattr(mma, "choose_search", choosing(parts, 0))
    workspace = device.allocate(mma.search_workspace_bytes(3, 50, 24, count, precision, H200))
    out = held(device, np.zeros((3, 50)), np.int32)
    arrays = held(device, features), held(device, mean, np.float32), held(device, candidates)
    device._run(mma.nearest_neighbors(*arrays, out, workspace, precision, H200)[:2])
    tiles = -(-count // mma.CANDIDATES)
    start, end = tiles * mma.CANDIDATES * 4, parts * pixels * mma.KEPT * mma.NEAREST_BYTES
    entries = device.download(workspace)[start : start + end].reshape(parts, pixels, mma.KEPT, mma.NEAREST_BYTES)
    groups = entries[..., 4:].copy().view(np.int32)[..., 0]
    padded = np.full((pixels, tiles * mma.CANDIDATES), -1e38)
    padded[:, :count] = ((features - mean) @ candidates.T).reshape(pixels, count)
    scores = padded.reshape(pixels, -1, mma.GROUP).max(axis=2)
    for part in range(parts):
        first, last = (tiles * p // parts * (mma.CANDIDATES // mma.GROUP) for p in (part, part + 1))
        ordered = np.argsort(-scores[:, first:last], axis=1, kind="stable")[:, : mma.KEPT] + first
        np.testing.assert_array_equal(groups[part], ordered)


@pytest.mark.parametrize("channels", [32, 64, 256])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_near_ties_are_decided_by_float32(opened: Opened, precision: str, channels: int) -> None:
    """Four candidates of two groups stand out, with products a millionth apart, which tensor cores need not see."""
    rng = np.random.default_rng(2)
    count, step = 300, 2.0**-22
    candidates = rng.integers(-2, 3, (count, channels)) / 512  # so that float32 is exact
    features = rng.integers(-2, 3, (6, 5, channels)) / 8
    mean = rng.integers(-2, 3, channels).astype(np.float32) / 8
    candidates[:, :2], features[..., 0], features[..., 1], mean[:2] = 0, 1, 1, 0
    places = rng.permutation([40, 45, 211, 215])
    candidates[places] = candidates[places[0]]
    candidates[places, 0], candidates[places, 1] = 1, step * np.array([0, 2, 3, 1])
    if precision == "tf32":  # in one number, of which tf32 takes the first eleven bits
        candidates[places, 1] = 0
        candidates[places, 0] = 1 + step * np.array([0, 2, 3, 1])
    exact = ((kept(features, precision) - mean) @ kept(candidates, precision).T).argmax(axis=2)
    assert np.all(exact == places[2])
    arrays = (array.astype(np.float32) for array in (features, mean, candidates))
    np.testing.assert_array_equal(found(opened(precision), *arrays), exact)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_random_features_are_matched_as_float64_would(opened: Opened, precision: str) -> None:
    features, mean, candidates = np.abs(random(12, 13, 64)), np.full(64, 0.8, np.float32), random(400, 64, seed=2)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    centered = kept(features, precision) - mean
    cosines = centered @ kept(candidates, precision).T / np.linalg.norm(centered, axis=2, keepdims=True)
    matches = found(opened(precision), features, mean, candidates)
    np.testing.assert_array_equal(matches, cosines.argmax(axis=2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_of_many_equals_the_first_is_found(opened: Opened, precision: str) -> None:
    """Wherever it is, with equals in every lane, warp, tile and part after it."""
    features, mean, candidates = random(5, 27, 16), np.zeros(16, np.float32), random(1, 16, seed=1).repeat(400, axis=0)
    candidates *= 0.5
    firsts = np.random.default_rng(5).integers(0, 399, 4)
    device = opened(precision)
    for first in (0, *firsts):
        better = candidates.copy()
        better[first:] *= 2
        exact = np.where(features @ better[-1] > 0, first, 0)  # where products are negative the first half is nearer
        np.testing.assert_array_equal(found(device, features, mean, better), exact)


def choosing(parts: int, tile: int) -> Any:
    """`choose_search` with the number of parts and the tile's place among TILES given."""
    pixels, stages = mma.TILES[tile]

    def choose(count: int, channels: int, candidates: int, precision: str, spec: Any) -> mma.SearchWork:
        del candidates
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mma, "TILES", mma.TILES[tile : tile + 1])
            found = mma._tile(channels, precision, spec)
        assert found is not None
        return mma.SearchWork(pixels, stages, found[2], -(-count // pixels), parts)

    return choose


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tiles_and_parts_decide_nothing(
    opened: Opened, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Of many products that are equal or nearly so."""
    rng = np.random.default_rng(4)
    features, mean, candidates = random(9, 17, 72), random(72, seed=1), rng.integers(-1, 2, (600, 72)) / 8
    candidates[300:] = candidates[:300]
    candidates[:, 8:] = candidates[:1, 8:]  # which leaves few that differ
    features[..., :8] *= 1e-4
    seen = set()
    for parts, tile in ((1, 0), (2, 1), (3, 2), (5, 3), (5, 0)):  # five tiles of candidates
        monkeypatch.setattr(mma, "choose_search", choosing(parts, tile))
        seen.add(found(opened(precision), features, mean, candidates.astype(np.float32)).tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("precision", ["bf16"])
def test_the_order_of_blocks_and_lanes_changes_no_byte(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mma, "choose_search", choosing(3, 2))
    features, mean, candidates = np.abs(random(9, 17, 32)), random(32, seed=1), random(400, 32, seed=2)
    seen = set()
    for seed in (0, 1, 2):
        device = CudaDevice(EmulatorRuntime(precision, seed=seed), precision)
        seen.add(found(device, features, mean, candidates).tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("count", [1, 70, 600])
def test_what_is_no_number_gets_some_candidate(opened: Opened, precision: str, count: int) -> None:
    check_what_is_no_number(opened(precision), found, count)


def test_what_a_short_workspace_lacks_is_said(opened: Opened) -> None:
    device, shape = opened("bf16"), (4, 4, 16, 200)
    arrays = (held(device, random(4, 4, 16)), held(device, random(16), np.float32), held(device, random(200, 16)))
    needed = mma.search_workspace_bytes(*shape, "bf16", H200)
    assert needed == 256 * 4 + 2 * 16 * 2 * 8
    device.bind_workspace(device.allocate(needed - 1))
    with pytest.raises(ValueError, match=f"the workspace has {needed - 1} bytes of {needed}"):
        device.nearest_neighbors(*arrays, held(device, np.zeros((4, 4)), np.int32))


@pytest.mark.parametrize(
    ("capability", "precision", "channels", "tile"),
    [
        ((7, 5), "fp16", 64, None),  # without copies that run ahead
        ((9, 0), "fp32", 64, None),
        ((9, 0), "3xtf32", 64, None),
        ((9, 0), "bf16", 60, None),
        ((9, 0), "bf16", 64, (128, 3)),
        ((9, 0), "bf16", 512, (128, 3)),
        ((8, 0), "bf16", 512, (128, 2)),
        ((8, 6), "bf16", 256, (128, 2)),
        ((12, 0), "bf16", 512, (64, 2)),
        ((9, 0), "tf32", 512, (64, 3)),
        ((8, 6), "tf32", 512, None),  # 128 KB of channels
    ],
)
def test_the_tile_that_a_gpu_has_room_for(
    capability: tuple[int, int], precision: str, channels: int, tile: tuple[int, int] | None
) -> None:
    spec = spec_of(capability, 100)
    assert mma.serves(channels, precision, spec) == (tile is not None)
    if tile is not None:
        work = mma.choose_search(4096, channels, 4096, precision, spec)
        assert (work.pixels, work.stages) == tile
        assert work.shared_bytes <= spec.block_shared_bytes


def test_a_gpu_is_filled_and_one_that_cannot_takes_the_kernels_of_fp32(opened: Opened) -> None:
    work = mma.choose_search(128 * 128, 256, 128 * 128, "bf16", H200)
    assert (work.down, work.parts) == (128, 2)  # two blocks to a multiprocessor: 256 of 264
    assert work.shared_bytes + mma.RESERVED_BYTES <= H200.shared_bytes // 2
    assert mma.choose_search(1 << 20, 64, 128 * 128, "bf16", H200).parts == 1
    kernels = opened("bf16")._kernels
    launches: list[Launch] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "spec", spec_of((8, 6), 84))
        assert kernels.search_workspace_bytes(1, 2, 1024, 3) == simt.search_workspace_bytes(1, 2, 1024, 3) == 0
        arrays = np.zeros((1, 2, 1024), np.uint16), np.zeros(1024, np.float32), np.zeros((3, 1024), np.uint16)
        launches = kernels.nearest_neighbors(*arrays, np.zeros((1, 2), np.int32), np.zeros(0, np.uint8))
    assert [launch.kernel for launch in launches] == ["nearest_neighbors_simt_bf16"]


def test_every_kernel_is_launched_here() -> None:
    assert {pixels for _, pixels in NEAREST_NEIGHBORS_MMA_SM80} == {pixels for pixels, _ in mma.TILES}
    assert {precision for precision, _ in NEAREST_NEIGHBORS_MMA_SM80} == set(PRECISIONS)
