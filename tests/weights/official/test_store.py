"""The folder of fetched weights: what gets in, what is refused, and what `load_weights` makes of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nstgpu.weights import (
    WeightsError,
    default_weights,
    fetch,
    inspect,
    known_weights,
    load_weights,
    take,
    weights_folder,
)
from nstgpu.weights.errors import DownloadError
from nstgpu.weights.keras.architecture import Place
from nstgpu.weights.official import catalogue


@pytest.fixture
def store(tmp_path, web, monkeypatch):
    """An empty weights folder, and a catalogue in which vgg19 is the small file that `web` gives."""
    folder = tmp_path / "cache" / "store"
    monkeypatch.setenv("NSTGPU_WEIGHTS_DIR", str(folder))
    monkeypatch.setattr(catalogue, "OFFICIAL_FILES", (web.official, catalogue.OFFICIAL_FILES[1]))
    return folder


def held(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.exists() else []


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NSTGPU_WEIGHTS_DIR", str(tmp_path / "own"))
    assert weights_folder() == tmp_path / "own"
    monkeypatch.delenv("NSTGPU_WEIGHTS_DIR")
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "all"))
    assert weights_folder() == tmp_path / "all" / "weights"
    monkeypatch.delenv("NSTGPU_CACHE_DIR")
    assert weights_folder().name == "weights"
    assert "nstgpu" in str(weights_folder())


def test_catalogue():
    for official in catalogue.OFFICIAL_FILES:
        assert official.file_name == f"{official.name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
        assert official.url.startswith("https://")


def test_fetched_weights_load_by_name(store, web, files):
    assert default_weights() == "mini"
    path, was_there = fetch("vgg19")
    assert (path, was_there) == (store / "vgg19_notop.h5", False)
    weights = load_weights("vgg19")
    files.assert_equal(weights)
    assert weights.name == "vgg19"
    assert default_weights() == "vgg19"
    assert inspect("vgg19").official == "the official VGG-19 file, vgg19_notop.h5"
    assert fetch("vgg19") == (path, True)
    assert len(web.ranges) == 1
    assert held(store) == ["vgg19_notop.h5"]


def test_known_weights(store):
    mini, nineteen, sixteen = known_weights()
    assert (mini.name, mini.cached, mini.default) == ("mini", True, True)
    assert Path(mini.path).stat().st_size == mini.size
    assert (nineteen.name, nineteen.cached, nineteen.default) == ("vgg19", False, False)
    assert (sixteen.name, sixteen.size) == ("vgg16", 58_889_256)
    assert "CC BY 4.0" in sixteen.licence
    fetch("vgg19")
    mini, nineteen, sixteen = known_weights()
    assert (mini.default, nineteen.cached, nineteen.default, sixteen.cached) == (False, True, True, False)
    assert Path(nineteen.path).parent == store


def test_a_damaged_file_is_refused_and_fetched_again(store, web, files):
    path, _ = fetch("vgg19")
    path.write_bytes(web.content[:-1] + b"?")
    with pytest.raises(WeightsError, match="damaged, or not the official VGG-19; get it again with nstgpu weights"):
        load_weights("vgg19")
    assert fetch("vgg19") == (path, False)
    files.assert_equal(load_weights("vgg19"))
    assert held(store) == ["vgg19_notop.h5"]


def test_unknown_names():
    with pytest.raises(WeightsError, match="'vgg11' are not known; fetch one of vgg19, vgg16"):
        fetch("vgg11")
    with pytest.raises(WeightsError, match="not known"):
        take("mini", Path("x.h5"))


def test_only_one_process_fetches_at_a_time(store, tmp_path):
    store.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from nstgpu.weights.official.store import _alone_in\n"
        f"with _alone_in(Path({str(store)!r})) as alone: print(alone, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    with pytest.raises(DownloadError, match="another process is fetching weights"):
        fetch("vgg19")
    other.communicate("")
    assert fetch("vgg19").path.exists()


def test_a_folder_that_cannot_be_made(store):
    store.parent.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot be made .*; set NSTGPU_WEIGHTS_DIR"):
        fetch("vgg19")


def test_a_full_disk_is_no_network_trouble(store, web, monkeypatch):
    def full(self, mode="r", *rest, **options):
        if "b" in mode and self.suffix == ".part":
            raise OSError(28, "No space left on device", str(self))
        return opened(self, mode, *rest, **options)

    opened = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DownloadError, match=r"vgg19_notop\.h5: cannot be written \(No space left on device\)$"):
        fetch("vgg19")
    assert len(web.ranges) == 1
    assert held(store) == []


def test_taking_the_official_file(store, web, tmp_path, files):
    mine = tmp_path / "mine.h5"
    mine.write_bytes(web.content)
    assert take("vgg19", mine) == (store / "vgg19_notop.h5", False)
    assert (store / "vgg19_notop.h5").read_bytes() == web.content
    assert take("vgg19", mine).was_there
    assert mine.exists()
    files.assert_equal(load_weights("vgg19"))
    assert held(store) == ["vgg19_notop.h5"]
    assert web.ranges == []


@pytest.mark.usefixtures("store")
def test_taking_a_file_with_the_official_layers(files, monkeypatch):
    # Layer hashes of the true network are known; here, those of the small one.
    other = files.model_saved(nested=True, config=None)
    with pytest.raises(WeightsError, match="not the official VGG-19"):
        take("vgg19", other)
    convolutions = load_weights(other).convolutions
    monkeypatch.setattr(catalogue, "VGG19_LAYERS", tuple(catalogue._git_sha1s(c) for c in convolutions))
    monkeypatch.setattr(catalogue, "VGG19_PLACES", tuple(Place(c.block, c.index) for c in convolutions))
    path, was_there = take("vgg19", other)
    assert not was_there
    files.assert_equal(load_weights("vgg19"))
    assert load_weights("vgg19").layout == "Keras weights (layer_names)"
    assert take("vgg19", other) == (path, True)
    with pytest.raises(WeightsError, match="not the official VGG-16"):  # known by the whole file alone
        take("vgg16", other)


def test_taking_what_is_something_else(store, web, tmp_path, files):
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(web.content[:-1] + b"?")  # the right size, too
    with pytest.raises(WeightsError):
        take("vgg19", wrong)
    with pytest.raises(WeightsError, match="no such file"):
        take("vgg19", tmp_path / "absent.h5")
    files.layers[0].bias = files.layers[0].bias + np.float32(1)
    with pytest.raises(WeightsError, match="to use it as it is, give it to --weights"):
        take("vgg19", files.named())
    assert held(store) == []
