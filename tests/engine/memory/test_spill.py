"""Blocks in files where memory is short: the rule, the files, and a run in less memory than its pictures take."""

import mmap
import pickle
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.pictures import noise
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.imaging.resize import resized, resized_alpha
from nstgpu.engine.memory import limits, spill
from nstgpu.engine.memory.arena import Buffer, allocate
from nstgpu.engine.memory.spill import bands, elsewhere, empty, fetched, passing_folder, resident, spills
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels import DeviceError, open_device
from nstgpu.kernels.cpu import resizing, sums
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.errors import OutOfMemoryError
from nstgpu.weights import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:the weights")  # short networks lack the classic deep taps

MIB = 1 << 20


def base(array: Any) -> Any:
    """What an array is a view of in the end."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def in_file(array: Any) -> bool:
    return isinstance(base(array), mmap.mmap)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a disk for passing files."""
    monkeypatch.setattr(spill, "passing_folder", lambda: tmp_path)
    return tmp_path


# ---- the rule ---------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("disk")
def test_a_block_of_more_than_a_quarter_of_what_is_free_goes_to_disk() -> None:
    assert not spills(25 * MIB, 100 * MIB)
    assert spills(25 * MIB + 1, 100 * MIB)
    assert not spills(25 * MIB, None)
    # Of seven blocks of 20, the first leaves 80, of which 20 is not more than a quarter; it is of the next 60.
    assert resident(open_device("cpu", threads=1), [20 * MIB] * 7, 100 * MIB) == 40 * MIB


@pytest.mark.usefixtures("disk")
def test_a_full_disk_is_taken_only_where_memory_is_fuller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "disk_space", lambda: 40 * MIB)
    assert spills(40 * MIB, 100 * MIB)
    assert not spills(41 * MIB, 100 * MIB)
    assert spills(101 * MIB, 100 * MIB)  # and is told of where it is allocated
    monkeypatch.setattr(limits, "host_memory", lambda: 100 * MIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 40 * MIB}))
    with pytest.raises(SettingsError, match=r"the picture takes 0\.1 GiB: memory is short of that, and .* set TMPDIR"):
        empty((101 * MIB,), np.uint8)


@pytest.mark.usefixtures("disk")
def test_memory_of_a_device_of_its_own_is_left_alone() -> None:
    class CudaDevice:
        in_host_memory, stream = False, None

    assert resident(CudaDevice(), [90 * MIB] * 3, 100 * MIB) == 270 * MIB  # type: ignore[arg-type]


@pytest.fixture
def emulator() -> CudaDevice:
    try:
        return CudaDevice(EmulatorRuntime())
    except DeviceError as error:
        pytest.skip(str(error))


def test_a_gpu_short_of_memory_borrows_the_hosts(
    emulator: CudaDevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What takes more than half of what is free; and a run so is the same to the byte."""
    content, style = noise(0, 20, 24), noise(1, 18, 20)
    weights, painted = load_weights("mini"), []
    lent: list[int] = []
    pinned = EmulatorRuntime.alloc_pinned_mapped

    def counted(self: EmulatorRuntime, nbytes: int) -> Any:
        lent.append(nbytes)
        return pinned(self, nbytes)

    monkeypatch.setattr(EmulatorRuntime, "alloc_pinned_mapped", counted)
    for free in (None, 20 << 10):
        monkeypatch.setattr(CudaDevice, "free_bytes", lambda _, free=free: free)
        with caplog.at_level("INFO", "nstgpu"):
            transfer = StyleTransfer(content, style, weights=weights, device=emulator, tile="off")
            painted.append(transfer.run(2, scales=1).image.tobytes())
        if free is None:
            assert len(lent) == 1  # the ring of costs
    assert painted[0] == painted[1]
    assert "is kept in the host's memory: the GPU's is short" in caplog.text
    # The content's target with the image, the run's pictures and Adam's moments.
    assert len(lent) == 5  # with the ring of either run
    monkeypatch.setattr(limits, "host_memory", lambda: 100 * MIB)
    assert not elsewhere(emulator, 51 * MIB, 60 * MIB)
    assert elsewhere(emulator, 49 * MIB, 60 * MIB)
    assert resident(emulator, [20 * MIB, 20 * MIB, 20 * MIB], 50 * MIB) == 20 * MIB


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("name", ["cpu", "emulator"])
def test_memory_that_is_gone_after_all_is_looked_for_elsewhere(
    name: str, emulator: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take it meanwhile."""
    device = open_device("cpu") if name == "cpu" else emulator
    buffers = [Buffer("image", (4, 5, 3), np.dtype(np.float32), 0, 0)]

    def full(_: int) -> Any:
        raise OutOfMemoryError("no memory left")

    monkeypatch.setattr(device, "allocate", full)
    if name == "cpu":
        assert in_file(allocate(device, buffers, "the picture")["image"])
    else:
        assert allocate(device, buffers, "the picture")["image"].shape == (4, 5, 3)
    with pytest.raises(OutOfMemoryError):
        allocate(device, buffers)


def test_folders_in_memory_are_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path.resolve()
    mounts.write_text(f"root / ext4 rw 0 0\nnone {place} tmpfs rw 0 0\nnone {place}/x ext4 rw 0 0\n")
    assert passing_folder(mounts) == Path("/var/tmp")
    mounts.write_text(f"root / ext4 rw 0 0\nnone /var tmpfs rw 0 0\nnone {place} tmpfs rw 0 0\n")
    assert passing_folder(mounts) is None
    mounts.write_text(f"root / tmpfs rw 0 0\ndisk {place.parent} ext4 rw 0 0\n")
    assert passing_folder(mounts) == tmp_path
    assert passing_folder(tmp_path / "none") == tmp_path


# ---- the files --------------------------------------------------------------------------------------------------
def test_a_block_in_a_file_is_memory_like_any_other(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = open_device("cpu", threads=1)
    wanted = [Buffer(name, (300, 200, 3), device.image_dtype, 0, 0) for name in ("one", "two")]
    assert not in_file(allocate(device, wanted, "the optimiser's state")["one"])
    monkeypatch.setattr(limits, "host_memory", lambda: 4 * MIB)
    with caplog.at_level("INFO", "nstgpu"):
        held = allocate(device, wanted, "the optimiser's state")
        quiet = empty((300, 200, 3), np.float32)
        copy = fetched(device, held["one"])
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"the optimiser's state (0.0 GiB) is kept in a file in {disk}: memory is short"
    assert in_file(held["one"])
    assert in_file(held["two"])
    assert not in_file(quiet)  # less than a quarter of what is free
    assert not in_file(copy)
    assert not in_file(allocate(device, wanted)["one"])  # what has no name stays in memory
    assert list(disk.iterdir()) == []  # nothing to be left behind
    device.upload(noise(0, 300, 200), held["one"])
    device.copy(held["one"], held["two"])
    np.testing.assert_array_equal(device.download(held["two"]), noise(0, 300, 200))


def test_bands_take_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "BAND_BYTES", 1000)
    taken = list(bands((37, 29, 3)))
    assert [row for rows in taken for row in range(37)[rows]] == list(range(37))
    assert len(taken) == 19
    assert list(bands((2, 10**6, 3))) == [slice(0, 1), slice(1, 2)]


@pytest.mark.usefixtures("disk")
def test_resizing_in_files_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_device("cpu", threads=2)
    picture, alpha = noise(0, 90, 70), noise(1, 90, 70)[..., 0]
    sizes = ((60, 47), (127, 99))
    expected = [(resized(device, picture, size), resized_alpha(device, alpha, size)) for size in sizes]
    monkeypatch.setattr(limits, "host_memory", lambda: 0)
    monkeypatch.setattr(spill, "SMALL", 0)
    for size, (pixels, opacity) in zip(sizes, expected, strict=True):
        found = resized(device, picture, size)
        assert in_file(found)
        np.testing.assert_array_equal(found, pixels)
        np.testing.assert_array_equal(resized_alpha(device, alpha, size), opacity)


# ---- operations on images -----------------------------------------------------------------------------------------
def test_operations_in_blocks_mean_what_they_mean_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(resizing, "RESIZE_BYTES", 9000)
    device, reference = open_device("cpu", threads=2), open_device("reference")
    image, exact = noise(0, 150, 91), noise(0, 150, 91).astype(np.float64)
    gradient, exact_gradient = noise(1, 150, 91), noise(1, 150, 91).astype(np.float64)
    cost, exact_cost = np.zeros(1, np.float32), np.zeros(1)
    device.tv_cost(image, 2e4, cost=cost, gradient=gradient)
    reference.tv_cost(exact, 2e4, cost=exact_cost, gradient=exact_gradient)
    np.testing.assert_allclose(gradient, exact_gradient, atol=2e-6)
    np.testing.assert_allclose(cost, exact_cost, rtol=1e-6)
    for size in ((150, 91), (213, 130), (40, 301), (1, 1)):
        out, wanted = np.empty((*size, 3), np.float32), np.empty((*size, 3))
        device.resize(image, out)
        reference.resize(exact, wanted)
        np.testing.assert_allclose(out, wanted, atol=1e-6)
    out, wanted = np.empty((142, 83, 3), np.float32), np.empty((142, 83, 3))
    device.pad_edge_gradient(image, out)
    reference.pad_edge_gradient(exact, wanted)
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


def test_no_operation_takes_another_image_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8.6 MB an image; in blocks of 0.1, and the weights of a resize."""
    monkeypatch.setattr(sums, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr(resizing, "RESIZE_BYTES", 100_000)
    device = open_device("cpu", threads=1)
    rows = np.zeros((4, 900 * 800 * 3), np.float32)
    one, two, three, four = (row.reshape(900, 800, 3) for row in rows)
    larger, step, scalars = np.zeros((916, 816, 3), np.float32), np.zeros(1, np.int32), np.zeros(4, np.float32)
    rates = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}
    operations = {
        "tv_cost": lambda: device.tv_cost(one, 1.0, cost=scalars[:1], gradient=two),
        "adam_step": lambda: device.adam_step(one, two, three, four, step, **rates),
        "descent_step": lambda: device.descent_step(one, two, learning_rate=0.1),
        "clamped_step": lambda: device.clamped_step(one, two, 0.1, three),
        "project_gradient": lambda: device.project_gradient(one, two, three),
        "weigh": lambda: device.weigh(one, larger[:900, :800, 0]),
        "clamp": lambda: device.clamp(one),
        "copy": lambda: device.copy(one, two),
        "upload": lambda: device.upload(one, two),
        "zero": lambda: device.zero(one),
        "blend": lambda: device.blend(one, 0.5, two),
        "dots": lambda: device.dots(rows, rows[0], scalars),
        "combine": lambda: device.combine(rows[:3], [1.0, 2.0, 3.0], rows[3]),
        "pad_edge": lambda: device.pad_edge(one, larger),
        "pad_edge_gradient": lambda: device.pad_edge_gradient(larger, one),
        "resize": lambda: device.resize(one, larger),
        "shrink": lambda: device.resize(larger, np.empty((40, 50, 3), np.float32)),
    }
    taken = {}
    tracemalloc.start()
    try:
        for name, operation in operations.items():
            operation()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            operation()
            taken[name] = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert max(taken.values()) < 2_500_000, taken


# ---- runs -------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"colors": "content-luminance", "border": 3},
        {"content_mask": np.pad(np.ones((10, 74)), ((0, 44), (0, 0)))},
    ],
)
def test_a_run_in_files_is_the_same_to_the_byte(
    thin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any]
) -> None:
    def painted() -> tuple[Any, Any]:
        states: list[Any] = []
        transfer = StyleTransfer(
            noise(0, 54, 74), noise(1, 40, 50), weights=thin(), device="cpu", threads=1, tile=32,
            content_layers=["relu2_1"], style_layers=["relu1_1", "relu3_1"], **settings,
        )  # fmt: skip
        return transfer.run(
            3, min_size=37, init="noise", on_iteration=lambda progress: states.append(progress.state())
        ), states[-1]

    expected, state = painted()
    monkeypatch.setattr(limits, "host_memory", lambda: 0)
    monkeypatch.setattr(spill, "SMALL", 0)
    monkeypatch.setattr(spill, "BAND_BYTES", 5000)
    found, state_in_files = painted()
    assert in_file(found.image)
    np.testing.assert_array_equal(found.image, expected.image)
    assert [costs.total for costs in found.history] == [costs.total for costs in expected.history]
    assert in_file(state_in_files.image)
    for name, one in (("a", state), ("b", state_in_files)):
        checkpoint.write(tmp_path / name, one)
    a, b = ((tmp_path / name).read_bytes() for name in "ab")
    assert len(a) == len(b)
    restored, _ = checkpoint.read(tmp_path / "b")
    assert in_file(restored.average)
    np.testing.assert_array_equal(restored.average, state.average)
    np.testing.assert_array_equal(restored.optimizer["second"], state.optimizer["second"])


def test_a_run_takes_less_memory_than_its_pictures(thin: Any, tmp_path: Path) -> None:
    """A picture of a megapixel, 11.5 MB as floats, of which a run holds ten, in 60 MB beyond the start."""
    if not Path("/proc/self/status").exists() or passing_folder() is None:
        pytest.skip("nobody says here what a process takes, or there is no disk")
    script = """
        import pickle, resource, sys
        import numpy as np
        from pathlib import Path
        from PIL import Image
        from nstgpu.engine.imaging import files as images
        from nstgpu.engine.costs import objective
        from nstgpu.engine.imaging.codecs import strips
        from nstgpu.engine.memory import spill
        from nstgpu.engine.transfer import StyleTransfer

        def data():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))

        strips.LARGE, strips.PART_BYTES, spill.BAND_BYTES, objective.DOWNLOAD_BYTES = 500_000, 1 << 18, 1 << 20, 1 << 20
        weights = pickle.loads(Path(sys.argv[1]).read_bytes())
        settings = {"weights": weights, "device": "cpu", "threads": 1}
        small = np.random.default_rng(0).random((60, 50, 3), np.float32)
        StyleTransfer(small, small, **settings).run(1)  # what is imported, and memory of the BLAS
        Image.radial_gradient("L").resize((1200, 800)).convert("RGB").save(sys.argv[2])
        before = data()
        limit = before + 60_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        transfer = StyleTransfer(sys.argv[2], small, size=1200, **settings)
        result = transfer.run(1, scales=2)
        result.save(sys.argv[3])
        assert images.read(sys.argv[3]).pixels.shape == (800, 1200, 3)
        print(transfer.objective().tiling.count)
    """
    weights = tmp_path / "weights"
    weights.write_bytes(pickle.dumps(thin([[4, 4], [8]])))
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(weights)]
    command += [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1
