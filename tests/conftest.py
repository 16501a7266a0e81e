"""Small networks and images that every test can afford."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nstgpu.kernels.cpu.openblas import find_openblas
from nstgpu.weights import Convolution, Weights
from nstgpu.weights.load import checksum_of
from nstgpu.weights.model import CAFFE

TESTS = Path(__file__).parent
ROOMS_OF_KERNELS = {TESTS / "kernels/cpu", TESTS / "kernels/cpu/convolution", *(TESTS / "kernels/cuda").iterdir()} - {
    TESTS / "kernels/cuda/runtime"
}
"""Where each test is of a kernel, alone. What uses many kernels at once, or none, lies elsewhere."""


def pytest_configure(config: pytest.Config) -> None:
    """NumPy multiplies in one thread unless $OPENBLAS_NUM_THREADS says otherwise, here and in what the tests start; and
    what the parent ignores (`nohup pytest &` ignores Ctrl-C and hangups) is not ignored there."""
    config.addinivalue_line("markers", "quick: the first case of every module, and of every test of a kernel")
    config.addinivalue_line("markers", "slow: compiles on its own account, or takes seconds; never quick")
    # Products of two workers with two threads each wait for one another, at full speed: ten times the processor's time.
    if os.environ.setdefault("OPENBLAS_NUM_THREADS", "1") == "1" and (blas := find_openblas()) is not None:
        blas.set_num_threads(1)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m quick` is for everyday work: one shape a kernel, one test a module."""
    seen: set[object] = set()
    for item in items:
        name = getattr(item, "originalname", item.name)
        of_kernel = item.path.parent in ROOMS_OF_KERNELS
        keys = {item.path, (item.path, name)} if of_kernel else {item.path}
        if item.get_closest_marker("slow"):
            continue
        if keys - seen and not item.get_closest_marker("gpu"):
            item.add_marker("quick")
        seen |= keys


@pytest.fixture(autouse=True)
def no_fetched_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has fetched must not decide a test."""
    monkeypatch.setenv("NSTGPU_WEIGHTS_DIR", str(tmp_path_factory.getbasetemp() / "no-weights"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real weights, images and golden values, where they are."""
    path = Path(os.environ.get("NSTGPU_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}; set NSTGPU_SHARED_DATA")
    return path


@pytest.fixture(scope="session")
def thin() -> Callable[..., Weights]:
    """thin(widths=[[8, 8], [16]], seed=0): a random VGG-like network of these widths, block by block."""

    def build(widths: Sequence[Sequence[int]] = ((8, 8), (16, 12), (16,)), seed: int = 0) -> Weights:
        rng = np.random.default_rng(seed)
        convolutions, channels = [], 3
        for block, block_widths in enumerate(widths, start=1):
            for index, width in enumerate(block_widths, start=1):
                kernel = rng.standard_normal((3, 3, channels, width)) * np.sqrt(2 / (9 * channels))
                bias = rng.standard_normal(width)
                convolutions.append(Convolution(block, index, kernel.astype(np.float32), bias.astype(np.float32)))
                channels = width
        return Weights(f"thin:{seed}", "generated", tuple(convolutions), CAFFE, checksum_of(convolutions))

    return build
