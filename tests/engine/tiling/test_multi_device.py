"""Several devices: the bytes of one, errors that arrive as they are, and no thread that outlives its evaluation."""

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from harness.pictures import noise, soft_mask
from nstgpu.engine.model import network
from nstgpu.engine.tiling import memory_plan, multi_device
from nstgpu.engine.tiling.memory_plan import MemoryPlan
from nstgpu.engine.transfer import Style, StyleTransfer
from nstgpu.kernels import Device, DeviceError, open_device, open_devices
from nstgpu.kernels.reference import Reference
from nstgpu.weights import Weights, load_weights

Thin = Callable[..., Weights]
pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps

SIZE = (45, 58)


def masked(size: tuple[int, int]) -> list[Any]:
    return [
        Style(noise(1, 37, 45), mask=soft_mask(4, *size), region=soft_mask(5, 37, 45)),
        Style(noise(3, 52, 40), mask=soft_mask(6, *size), weight=2.0),
        noise(7, 30, 30),
    ]


def painter(weights: Weights, device: Any, size: tuple[int, int] = SIZE, **settings: Any) -> StyleTransfer:
    settings = {"style": noise(1, 40, 34), "tile": 16, **settings}
    return StyleTransfer(
        noise(0, *size), weights=weights, device=device, content_weight=1.0, style_weight=30.0, tv_weight=0.2,
        **settings,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("nstgpu-tiles")}
    yield
    assert {thread for thread in threading.enumerate() if thread.name.startswith("nstgpu-tiles")} <= before


# ---- the same bytes -------------------------------------------------------------------------------------------------
SETTINGS: dict[str, dict[str, Any]] = {
    "gram": {},
    "moments, masks": {"style_statistics": "moments", "style": masked(SIZE), "content_mask": soft_mask(8, *SIZE)},
    "w2, border": {"style_statistics": "w2", "border": 3, "pooling": "average"},
    "content alone": {"style_layers": [], "content_layers": ["relu1_2", "relu2_1"]},
    "one tap for both": {"style_layers": ["relu1_1", "relu2_1"], "content_layers": ["relu2_1"]},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["reference", "cpu"])
def test_any_number_of_devices_gives_the_same_bytes(thin: Thin, kind: str, settings: str) -> None:
    evaluated = []
    for names in ("", ":0,1", ":0,1,2", f":{','.join(map(str, range(20)))}"):
        threads = names.count(",") + 1 if kind == "cpu" else None  # one for each
        transfer = painter(thin(), kind + names, threads=threads, **SETTINGS[settings])
        assert transfer.objective().tiling.count == 12
        assert transfer.objective().capturable == (names == "")
        for seed in (2, 9):  # and again, of another image
            costs, gradient = transfer.cost_and_gradient(noise(seed, *SIZE))
            assert np.abs(gradient).max() > 0
            evaluated.append((costs, gradient.tobytes()))
    assert evaluated[0] != evaluated[1]
    assert evaluated[2:] == evaluated[:2] * 3


@pytest.mark.parametrize("precision", ["fp32", "3xtf32", "bf16"])
def test_our_kernels_give_the_same_bytes(thin: Thin, precision: str) -> None:
    from nstgpu.kernels.emulator import NoCompilerError, find_compiler

    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    size = (16, 40)
    evaluated = []
    for device in ("emulator", "emulator:0,1", "emulator:0,1,2"):
        transfer = painter(
            thin(((8,), (16, 16))),
            device,
            size,
            precision=precision,
            style=masked(size)[:2],
            style_statistics="moments",
        )
        assert transfer.objective().tiling.count == 3
        costs, gradient = transfer.cost_and_gradient(noise(2, *size))
        evaluated.append((costs, gradient.tobytes()))
    assert evaluated == evaluated[:1] * 3


def test_weights_that_change_reach_every_device(thin: Thin) -> None:
    """As they do from scale to scale; and a run in several scales is the same to the byte."""
    results = []
    for device, threads in (("cpu", 1), ("cpu:0,1", 2)):
        transfer = painter(thin(), device, threads=threads, tile=32, content_mask=soft_mask(8, *SIZE))
        result = transfer.run(3, scales=2, min_size=40)
        assert transfer.objective().tiling.count > 1
        results.append((result.image.tobytes(), result.history))
    assert results[0] == results[1]


# ---- how the work is spread -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("devices", [1, 2, 3, 7])
@pytest.mark.parametrize("tiles", [1, 2, 3, 6, 20])
def test_every_tile_is_dealt_to_one_device(tiles: int, devices: int) -> None:
    dealt = multi_device.assign_round_robin(tiles, devices)
    assert sorted(number for numbers in dealt for number in numbers) == list(range(tiles))
    assert dealt[0][-1] == tiles - 1  # which `evaluate_multi` relies on
    assert max(map(len, dealt)) == -(-tiles // devices)


class Meeting(Reference):
    """Waits at its first convolutions until all others are there."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.barrier, self.meets, self.convolutions = barrier, False, 0
        self.used_by: set[int] = set()

    def conv3x3_relu(self, *args: Any, **kwargs: Any) -> None:
        self.convolutions += 1
        self.used_by.add(threading.get_ident())
        if self.meets and self.convolutions == 1:
            self.barrier.wait(timeout=30)
        super().conv3x3_relu(*args, **kwargs)


def test_devices_work_at_once_and_walk_forward_once_where_each_has_one_tile(thin: Thin) -> None:
    barrier = threading.Barrier(3)
    devices = [Meeting(barrier) for _ in range(3)]
    transfer = painter(thin(), devices, (24, 72), tile=24)
    assert transfer.objective().tiling.count == 3
    for device in devices:
        device.meets, device.convolutions = True, 0
        device.used_by.clear()
    transfer.cost_and_gradient(noise(2, 24, 72))
    assert [device.convolutions for device in devices] == [5, 5, 5]
    threads = [device.used_by for device in devices]
    assert threads[0] == {threading.get_ident()}
    assert len(set.union(*threads)) == sum(map(len, threads)) == 3


def test_one_tile_leaves_the_others_alone(thin: Thin) -> None:
    class Idle(Reference):
        def allocate(self, nbytes: int) -> Any:
            raise AssertionError(f"{nbytes} bytes")

    transfer = painter(thin(), [Reference(), Idle()], tile="off")
    assert transfer.objective().capturable
    alone = painter(thin(), "reference", tile="off")
    assert transfer.cost_and_gradient(noise(2, *SIZE))[0] == alone.cost_and_gradient(noise(2, *SIZE))[0]


def test_a_device_is_a_few_tiles_ahead_at_most() -> None:
    begun: list[int] = []
    started = threading.Semaphore(0)

    def work(number: int) -> int:
        begun.append(number)
        started.release()
        return 10 * number

    with ThreadPoolExecutor(1) as thread:
        queue = multi_device._TileQueue(thread, work, range(7))
        for number in range(7):
            for _ in range(multi_device.AHEAD if number == 0 else number + multi_device.AHEAD <= 7):
                assert started.acquire(timeout=30)
            thread.submit(int).result()  # all that was asked for is done by now
            assert begun == list(range(min(7, number + multi_device.AHEAD)))
            assert queue.fetch() == 10 * number


@pytest.fixture(scope="module")
def deep() -> network.Network:
    """VGG-19 down to relu5_1."""
    return network.build(Reference("fp32"), load_weights("random:0"), "relu5_1", "max")


def needs_of(net: network.Network, devices: int, side: int, device: Device | None = None) -> MemoryPlan:
    device = Reference("fp32") if device is None else device
    return MemoryPlan(device, net, (side, side), ("relu4_2",), ("relu1_1", "relu5_1"), ((64, 64),), devices=devices)


def test_large_images_are_cut_for_all_devices(deep: network.Network) -> None:
    for devices, small in ((1, 1024), (2, 256), (3, 256), (4, 160)):
        assert needs_of(deep, devices, small).cut("auto", None).image.count == 1
    for devices in (2, 3, 4):
        assert needs_of(deep, devices, 1024).cut("auto", None).image.count == devices
    needs = needs_of(deep, 2, 1024)
    halves = needs.cut("auto", None)
    room = needs.nbytes(halves) * 3 // 4
    smaller = needs.cut("auto", room)
    assert halves.image.load(2) < smaller.image.load(2) < 1024**2
    assert needs.nbytes(smaller) <= room


def test_devices_share_the_memory_of_the_host(deep: network.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu(Reference):
        own = 6 << 30

        def free_bytes(self) -> int:
            return self.own

    monkeypatch.setattr(memory_plan, "available", lambda device: device.free_bytes() or 8 << 30)
    monkeypatch.setattr(memory_plan, "resident", lambda *_: 0)
    needs, share = needs_of(deep, 2, 256), memory_plan.SHARE * 2**30
    assert memory_plan.memory_budget(needs) == pytest.approx(8 * share)
    assert memory_plan.memory_budget(needs, [Reference()]) == pytest.approx(4 * share)
    smaller = Gpu()
    smaller.own = 5 << 30
    assert memory_plan.memory_budget(needs_of(deep, 2, 256, Gpu()), [smaller]) == pytest.approx(5 * share)


# ---- what goes wrong ------------------------------------------------------------------------------------------------
class Failing(Reference):
    """Raises `error` at a convolution back, counted from when it was set."""

    error: BaseException | None = None
    left = 0

    def conv3x3_input_gradient(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.error is not None and self.left == 0:
            raise self.error
        super().conv3x3_input_gradient(*args, **kwargs)


def test_a_device_without_memory_means_smaller_tiles(thin: Thin, caplog: pytest.LogCaptureFixture) -> None:
    weights, size = thin(((8, 8), (8, 8))), (70, 84)
    expected, gradient = painter(weights, "reference", size, tile="off").cost_and_gradient(noise(2, *size))
    failing = Failing()
    transfer = painter(weights, [Reference(), failing, Reference()], size, tile=48)
    before = transfer.objective().tiling.count
    failing.error, failing.left = MemoryError("a temporary"), 2
    with caplog.at_level(logging.WARNING, "nstgpu"):
        costs, tiled = transfer.cost_and_gradient(noise(2, *size))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message[:16] for message in warnings] == ["out of memory in"]
    assert transfer.objective().tiling.count > before
    assert costs.total == pytest.approx(expected.total, rel=1e-12)
    assert np.linalg.norm(tiled - gradient) <= 1e-12 * np.linalg.norm(gradient)


def test_a_device_that_cannot_allocate_means_smaller_tiles(thin: Thin) -> None:
    class Limited(Reference):
        limit = math.inf

        def allocate(self, nbytes: int) -> Any:
            if nbytes > self.limit:
                raise MemoryError(f"{nbytes} bytes")
            return super().allocate(nbytes)

    weights, size = thin(((8, 8), (8, 8))), (70, 84)
    needs = painter(weights, "reference", size).objective().memory_plan
    limited = Limited()
    limited.limit = 0.5 * needs.arena(needs.cut(48, None))
    transfer = painter(weights, [Reference(), limited], size, tile=48)
    assert transfer.objective().tiling.count > 4
    assert not transfer.objective().capturable


@pytest.mark.parametrize("failing_one", [0, 1, 2])
@pytest.mark.parametrize("error", [RuntimeError("the cable"), KeyboardInterrupt()])
def test_an_error_arrives_as_it_is(thin: Thin, failing_one: int, error: BaseException) -> None:
    devices = [Failing() for _ in range(3)]
    transfer = painter(thin(), devices)
    expected = transfer.cost_and_gradient(noise(2, *SIZE))
    devices[failing_one].error, devices[failing_one].left = error, 7  # of five a tile
    with pytest.raises(type(error)) as raised:
        transfer.cost_and_gradient(noise(2, *SIZE))
    assert raised.value is error
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nstgpu-tiles")]
    costs, gradient = transfer.cost_and_gradient(noise(2, *SIZE))  # and it can be done again
    assert costs == expected[0]
    assert gradient.tobytes() == expected[1].tobytes()


# ---- names ----------------------------------------------------------------------------------------------------------
def test_names_of_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device.name for device in open_devices("reference:0,1,5")] == ["reference"] * 3
    assert [device.name for device in open_devices("cpu")] == ["cpu"]
    shared = open_devices("cpu:0,1", threads=5)
    assert [device._workers.count for device in shared] == [2, 2]  # type: ignore[attr-defined]
    assert [device.precision for device in open_devices("reference:0,1", "fp32")] == ["fp32"] * 2
    opened: list[str] = []

    def opening(name: str, *_: Any) -> Device:
        opened.append(name)
        return Reference()

    monkeypatch.setattr("nstgpu.kernels.open.open_device", opening)
    monkeypatch.setattr(
        "nstgpu.kernels.cuda.runtime.driver.cuda_problem", lambda index: None if index < 3 else "no such GPU"
    )
    assert len(open_devices("cuda:all")) == len(open_devices("cuda:2,0")) + 1 == 3
    assert opened == ["cuda:0", "cuda:1", "cuda:2", "cuda:2", "cuda:0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cpu:0,0", "the devices cpu:0,0 name one of them twice; name each once"),
        ("cpu:0,", "unknown devices 'cpu:0,'; several are written like cuda:0,1 or cuda:all"),
        ("auto:0,1", "unknown devices 'auto:0,1'"),
        ("tpu:0,1", "unknown devices 'tpu:0,1'"),
        ("cpu:all", "unknown device 'cpu:all'"),
        ("cuda:all", "no NVIDIA driver"),
        ("cuda:0,1", "no NVIDIA driver"),
    ],
)
def test_names_of_no_devices(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstgpu.kernels.cuda.runtime.driver.cuda_problem", lambda *_: "no NVIDIA driver was found")
    with pytest.raises(DeviceError) as raised:
        open_devices(name)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["cpu:0,1", "cuda:0,1", "cuda:all"])
def test_several_where_one_is_wanted(name: str) -> None:
    with pytest.raises(DeviceError, match=f"{name} are several devices, which only a run can use; name one"):
        open_device(name)


def test_threads_are_for_the_cpu_alone() -> None:
    with pytest.raises(DeviceError, match="threads are for the cpu device"):
        open_devices("reference:0,1", threads=2)
