"""Files read with too little memory: that is what is said, and not that they are damaged."""

import subprocess
import sys
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest

from nstgpu.engine.imaging import files as images
from nstgpu.weights.official.store import BUNDLED_FILE

SCRIPT = """
import resource, sys
import h5py
from nstgpu.engine.imaging import files as images
from nstgpu.weights.official.store import BUNDLED_FILE
from nstgpu.weights import WeightsError, load_weights
import PIL.Image

def left(megabytes):
    size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + (megabytes << 20), resource.RLIM_INFINITY))

unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
for path in sys.argv[1:]:
    read = load_weights if path.endswith("h5") else images.read
    for megabytes in (2, 6, 14, 30):
        left(megabytes)
        try:
            read(path)
            said = "read"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
        print(path, said, sep="|")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the process as Linux does")
def test_lack_of_memory_is_never_called_damage(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((1200, 1200, 3), np.float32)
    names = [tmp_path / f"picture.{suffix}" for suffix in ("png", "jpg", "webp", "tif")]
    for name in names:
        images.save(name, pixels)
    copyfile(BUNDLED_FILE, tmp_path / "weights.h5")
    names.append(tmp_path / "weights.h5")
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, names)], capture_output=True, text=True, check=True)
    said = [line.split("|") for line in done.stdout.splitlines()]
    assert len(said) == 20
    assert all(text in ("read", f"MemoryError: reading {name}") for name, text in said), said
    assert {name for name, text in said if text != "read"} >= {str(name) for name in names[:4]}


def test_weights_and_checkpoints_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In HDF5's own words for it, which are those for damage, and by what is left."""
    import h5py

    from nstgpu.engine.optimizers import checkpoint
    from nstgpu.weights import WeightsError, load_weights, shortage

    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.zeros((3, 3, 3, 8), np.float32)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to synchronously open object (memory allocation failed)")

    monkeypatch.setattr(h5py, "File", fail)
    monkeypatch.setattr(checkpoint, "_check_seal", lambda _: None)
    for read in (load_weights, checkpoint.read):
        with pytest.raises(ValueError, match="damaged") as caught:
            read(path)
        assert not isinstance(caught.value, MemoryError)
    monkeypatch.setattr(shortage, "ENOUGH", 1 << 62)
    for read in (load_weights, checkpoint.read):
        with pytest.raises(MemoryError, match=f"^reading {path}$"):
            read(path)
    assert issubclass(WeightsError, ValueError)


def test_asking_for_memory_takes_none():
    import tracemalloc

    from nstgpu.weights.shortage import is_shortage

    tracemalloc.start()
    try:
        assert not is_shortage(ValueError())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
