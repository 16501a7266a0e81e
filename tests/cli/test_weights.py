"""`nstgpu weights` and the choice of weights, as a user meets them."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands import nstgpu
from nstgpu.engine.imaging import files as images
from nstgpu.weights import load_weights
from nstgpu.weights.official import catalogue


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty weights folder; the catalogue's vgg19 is `small_weights`, on a server on this machine."""
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(small_weights.parent)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    content = small_weights.read_bytes()
    official = catalogue.OfficialFile(
        "vgg19",
        "VGG-19",
        f"http://127.0.0.1:{server.server_port}/{small_weights.name}",
        len(content),
        hashlib.md5(content).hexdigest(),
    )
    monkeypatch.setattr(catalogue, "OFFICIAL_FILES", (official, catalogue.OFFICIAL_FILES[1]))
    monkeypatch.setenv("NSTGPU_WEIGHTS_DIR", str(tmp_path / "store"))
    yield tmp_path / "store"
    server.shutdown()
    server.server_close()


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    rng = np.random.default_rng(0)
    for name in ("content.png", "style.png"):
        images.save(tmp_path / name, rng.random((24, 24, 3)))
    monkeypatch.chdir(tmp_path)
    return ("run", "content.png", "style.png", "--iterations", "1")


def test_fetch_list_and_the_default(store: Path, small_weights: Path, pictures: tuple[str, ...]) -> None:
    before = json.loads(nstgpu("weights", "list", "--json").stdout)
    assert (before["default"], before["folder"]) == ("mini", str(store))
    assert [entry["cached"] for entry in before["weights"]] == [True, False, False]
    assert "not fetched" in nstgpu("weights", "list").stdout

    fetched = nstgpu("weights", "fetch", "vgg19")
    assert fetched.exit_code == 0, fetched.output
    assert f"vgg19 is there, verified: {store / small_weights.name}" in fetched.stdout
    assert "fetching vgg19" in fetched.stderr
    again = nstgpu("weights", "fetch", "vgg19")
    assert "vgg19 is already there" in again.stdout
    assert "fetching" not in again.stderr

    after = json.loads(nstgpu("weights", "list", "--json").stdout)
    assert after["default"] == "vgg19"
    assert [entry["cached"] for entry in after["weights"]] == [True, True, False]
    assert "default: vgg19" in nstgpu("weights", "list").stdout
    assert json.loads(nstgpu("doctor", "--json").stdout)["weights"] == "vgg19"

    painted = nstgpu(*pictures)
    assert painted.exit_code == 0, painted.output
    assert "untrained" not in painted.stderr
    recipe = images.read_recipe("content_style.png")
    assert (recipe["weights"], recipe["weights sha256"]) == ("vgg19", load_weights(small_weights).checksum)


def test_fetch_from_a_file(store: Path, small_weights: Path) -> None:
    result = nstgpu("weights", "fetch", "vgg19", "--from", str(small_weights))
    assert result.exit_code == 0, result.output
    assert (store / small_weights.name).read_bytes() == small_weights.read_bytes()
    wrong = nstgpu("weights", "fetch", "vgg16", "--from", str(small_weights))
    assert wrong.exit_code == 2
    assert "not the official VGG-16" in wrong.stderr


def test_a_failed_fetch_is_one_line_and_exit_code_1(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = catalogue.OFFICIAL_FILES[0]
    absent = catalogue.OfficialFile("vgg19", "VGG-19", f"{official.url}.gone", official.size, official.md5)
    monkeypatch.setattr(catalogue, "OFFICIAL_FILES", (absent,))
    result = nstgpu("weights", "fetch", "vgg19")
    assert result.exit_code == 1
    (line,) = (line for line in result.stderr.splitlines() if line.strip())
    assert "vgg19 could not be fetched: the server answered 404" in line
    assert f"download {absent.url} and save it as {store / absent.file_name}" in line


def test_bad_names_are_exit_code_2(pictures: tuple[str, ...]) -> None:
    assert nstgpu("weights", "fetch", "vgg11").exit_code == 2
    result = nstgpu(*pictures, "--weights", "vgg16")
    assert result.exit_code == 2
    assert "get them with nstgpu weights fetch vgg16" in result.stderr


def test_convert_and_preprocessing(tmp_path: Path, small_weights: Path, pictures: tuple[str, ...]) -> None:
    options = ("--half", "--up-to", "relu1_2", "--preprocessing", "torchvision")
    result = nstgpu("weights", "convert", str(small_weights), "out.h5", *options)
    assert result.exit_code == 0, result.output
    assert "wrote out.h5: relu1_1 to relu1_2, float16, torchvision preprocessing" in result.stdout
    assert json.loads(nstgpu("weights", "inspect", "out.h5", "--json").stdout)["preprocessing"] == "torchvision"
    overridden = nstgpu("weights", "inspect", "out.h5", "--json", "--preprocessing", "caffe")
    assert json.loads(overridden.stdout)["preprocessing"] == "caffe"

    painted = []
    for chosen in ([], ["--preprocessing", "caffe"], ["--preprocessing", "torchvision"]):
        assert nstgpu(*pictures, "-o", "painted.png", "--force", "--weights", "out.h5", *chosen).exit_code == 0
        painted.append(images.read_recipe("painted.png")["costs"])
    assert painted[0] == painted[2] != painted[1]

    for command in (pictures, ("profile", "--size", "16"), ("weights", "inspect", "out.h5")):
        weights = [] if command[0] == "weights" else ["--weights", "out.h5"]
        refused = nstgpu(*command, *weights, "--preprocessing", "imagenet")
        assert refused.exit_code == 2, command
        assert "use one of caffe, torchvision" in refused.stderr
    assert not list(tmp_path.glob("*.part"))


def test_convert_overwrites_no_file_without_leave(small_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    out.write_text("precious")
    refused = nstgpu("weights", "convert", str(small_weights), str(out))
    assert (refused.exit_code, out.read_text()) == (2, "precious")
    assert f"{out} exists already; --force overwrites it, or choose another OUT" in refused.stderr
    assert nstgpu("weights", "convert", str(small_weights), str(out), "--force").exit_code == 0
    assert load_weights(out).checksum == load_weights(small_weights).checksum
    for force in ([], ["--force"]):
        assert "is the input" in nstgpu("weights", "convert", str(out), str(out), *force).stderr


def test_run_does_not_overwrite_its_weights(small_weights: Path, pictures: tuple[str, ...]) -> None:
    before = small_weights.read_bytes()
    result = nstgpu(*pictures, "--weights", str(small_weights), "--json", str(small_weights))
    assert result.exit_code == 2
    assert "is an input" in result.stderr
    assert small_weights.read_bytes() == before


def test_what_a_file_does_not_say_is_a_note(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "v.weights.h5"
    with h5py.File(path, "w") as file:
        variables = file.create_group("layers/conv2d/vars")
        variables["0"], variables["1"] = np.ones((3, 3, 3, 4), np.float32), np.ones(4, np.float32)
        file.create_group("layers/rescaling/vars")
    result = nstgpu("weights", "convert", str(path), str(tmp_path / "out.h5"))
    assert result.exit_code == 0
    assert "note: v.weights.h5: the scale of its layer 'rescaling' is not in the file" in result.stderr
    assert "WeightsGuess" not in result.stderr
    assert load_weights(tmp_path / "out.h5").preprocessing.name == "unit"
