"""`inspect`, the catalogue behind it, and `nstgpu weights inspect`."""

import hashlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from nstgpu.cli.weights import app
from nstgpu.weights import Convolution, WeightsError, inspect, load_weights
from nstgpu.weights.official import catalogue


def test_inspection_of_a_file(files):
    path = files.named()
    inspection = inspect(path)
    assert inspection.path == str(path)
    assert inspection.size == path.stat().st_size
    assert inspection.md5 == hashlib.md5(path.read_bytes()).hexdigest()
    assert inspection.layout == "Keras weights (layer_names)"
    assert inspection.preprocessing == "caffe"
    assert inspection.checksum == load_weights(path).checksum
    assert inspection.official is None
    first, *_, last = inspection.layers
    assert (first.name, first.tap, first.kernel_shape) == ("block1_conv1", "relu1_1", (3, 3, 3, 4))
    assert (last.tap, last.precision, last.parameters) == ("relu3_3", "float32", 9 * 8 * 8 + 8)


def test_precision_is_that_of_the_file(files):
    layers = files.chain((1, 1), (4, 6), "float16")
    assert {layer.precision for layer in inspect(files.named(layers)).layers} == {"float16"}


def test_official_file_is_known_by_size_and_md5(files, monkeypatch):
    path = files.named()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    known = replace(catalogue.OFFICIAL_FILES[1], size=path.stat().st_size, md5=md5)
    monkeypatch.setattr(catalogue, "OFFICIAL_FILES", (catalogue.OFFICIAL_FILES[0], known))
    assert inspect(path).official == f"the official VGG-16 file, {known.file_name}"


def test_official_layers_are_known_in_any_file(files, shared_data):
    path = shared_data / "weights" / "vgg19_blocks1to3.h5"
    assert inspect(path).official == "layers block1_conv1..block3_conv4 equal official VGG-19"

    true = files.chain((2, 1), (64, 128))
    for layer, convolution in zip(true, load_weights(path).convolutions, strict=False):
        layer.kernel, layer.bias = convolution.kernel, convolution.bias
    assert inspect(files.first_vgg(true)).official == "layers block1_conv1..block2_conv1 equal official VGG-19"

    true[1].bias = true[1].bias + np.float32(1e-6)
    tuned = inspect(files.named(true))
    assert tuned.official == "layer block1_conv1 equals official VGG-19; the other 2 do not"


def test_layers_over_4_mib_are_hashed_in_pieces(monkeypatch):
    # The true filters from block4_conv1 on are not at hand: take others' hashes for official ones.
    kernel = np.random.default_rng(0).standard_normal((3, 3, 256, 512), np.float32)
    bias = np.zeros(512, np.float32)
    content = kernel.tobytes() + bias.tobytes()
    pieces = content[: 4 * 2**20], content[4 * 2**20 :]
    hashes = tuple(hashlib.sha1(b"blob %d\0" % len(piece) + piece).hexdigest() for piece in pieces)
    monkeypatch.setattr(catalogue, "VGG19_LAYERS", (hashes,))
    assert catalogue.official_layers([Convolution(1, 1, kernel, bias)]) == 1
    assert catalogue.official_layers([Convolution(1, 2, kernel, bias)]) == 0
    assert catalogue.official_layers([Convolution(1, 1, kernel, bias + 1)]) == 0


def test_catalogue_has_as_many_pieces_as_vgg19_has_bytes():
    widths = [3] + [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    sizes = [4 * (9 * takes + 1) * gives for takes, gives in itertools.pairwise(widths)]
    assert [len(hashes) for hashes in catalogue.VGG19_LAYERS] == [-(-size // 2**22) for size in sizes]
    assert all(len(bytes.fromhex(digest)) == 20 for hashes in catalogue.VGG19_LAYERS for digest in hashes)


def test_command_prints_a_table(files):
    result = CliRunner().invoke(app, ["inspect", str(files.named(file="v.h5"))])
    assert result.exit_code == 0
    for text in (
        "Keras weights (layer_names)",
        "caffe",
        "block3_conv3",
        "relu3_3",
        "3 x 3 x 8 x 8",
        "float32",
    ):
        assert text in result.output
    assert "7 convolutions, 2,420 parameters" in result.output
    assert "not recognised" in result.output


def test_command_prints_names_as_they_are(files):
    layers = files.renamed(files.layers)
    layers[0].name = "[red]x[/]"
    assert "[red]x[/]" in CliRunner().invoke(app, ["inspect", str(files.named(layers))]).output


def test_command_prints_json(files):
    path = files.numbered(names=True)
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    printed = json.loads(result.output)
    assert printed["checksum"] == load_weights(path).checksum
    assert printed["layers"][-1]["kernel_shape"] == [3, 3, 8, 8]


def test_command_lets_the_error_through(tmp_path):
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "absent.h5")])
    assert isinstance(result.exception, WeightsError)


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"]])
def test_command_help(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "weights" in result.output
