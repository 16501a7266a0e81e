"""Every bad file gets one line that names it and says what is wrong; none raises anything else."""

import os
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest

from harness.refusals import weights_refusal
from nstgpu.weights import WeightsError, load_weights
from nstgpu.weights.keras import archive


def test_no_such_file(tmp_path):
    assert "no such file" in weights_refusal(tmp_path / "absent.h5")


def test_directory(tmp_path):
    assert "a directory" in weights_refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    assert "no plain file" in weights_refusal(tmp_path / "pipe.h5")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\0" * 5000])
def test_neither_hdf5_nor_archive(tmp_path, content):
    path = tmp_path / "vgg.h5"
    path.write_bytes(content)
    assert "weights fetch vgg19" in weights_refusal(path)


def test_truncated(files):
    path = files.named()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"truncated: {len(content) // 2:,} of {len(content):,} bytes" in weights_refusal(path)


def test_hdf5_that_keras_did_not_write(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["pixels"] = np.zeros(3)
    assert "no Keras weights inside" in weights_refusal(path)


def test_layer_missing_in_the_middle(files):
    layers = [layer for layer in files.layers if layer.block != 2]
    layers[2].kernel = np.zeros((3, 3, 4, 8), np.float32)  # the channels chain all the same
    assert "the layer block2_conv1 is missing: block3_conv1 comes in its place" in weights_refusal(files.named(layers))


@pytest.mark.parametrize("layout", ["named", "first_vgg"])
def test_layer_listed_but_not_there(files, layout):
    path = getattr(files, layout)()
    gone = {"named": "block2_conv1", "first_vgg": "layer_4"}[layout]
    with h5py.File(path, "r+") as file:
        del file[gone]
    message = weights_refusal(path)
    assert gone in message
    assert "not there" in message or "missing" in message


def test_weight_listed_but_not_there(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        del file["block2_conv1/block2_conv1_W_1:0"]
    assert "weight 'block2_conv1_W_1:0' of its layer 'block2_conv1' is missing" in weights_refusal(path)


def test_convolution_listed_without_weights(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        file["block2_conv1"].attrs["weight_names"] = np.array([], "S1")
    assert "'block2_conv1' is listed but holds no weights" in weights_refusal(path)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((7, 7, 3, 4), "(7, 7, 3, 4), not 3x3"),
        ((1, 1, 3, 4), "not 3x3"),
        ((3, 3, 3, 0), "gives 0 channels"),
        ((3, 3, 4), "ranks [3, 1]"),
    ],
)
def test_kernels_of_another_kind(files, shape, told):
    files.layers[0].kernel = np.zeros(shape, np.float32)
    message = weights_refusal(files.named())
    assert "block1_conv1" in message
    assert told in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_as_float32(files, bad):
    kernel = files.layers[3].kernel.astype(np.float64)
    kernel[1, 1, 2, 3] = bad
    files.layers[3].kernel = kernel
    message = weights_refusal(files.named())
    assert "block2_conv2" in message
    assert "holds 1 NaN or infinite numbers" in message


def test_whole_numbers(files):
    files.layers[0].kernel = np.zeros((3, 3, 3, 4), np.int32)
    assert "holds int32, not floating-point numbers" in weights_refusal(files.named())


def test_channels_that_do_not_chain(files):
    files.layers[3].kernel = np.zeros((3, 3, 5, 6), np.float32)
    assert "'block2_conv2' takes 5 channels, but 'block2_conv1' gives 6" in weights_refusal(files.named())


def test_first_convolution_that_takes_no_rgb(files):
    files.layers[0].kernel = np.zeros((3, 3, 1, 4), np.float32)
    assert "'block1_conv1' takes 1 channels, but an RGB image gives 3" in weights_refusal(files.named())


def test_bias_of_another_length(files):
    files.layers[2].bias = np.zeros(5, np.float32)
    assert "the bias of its layer 'block2_conv1' has shape (5,), not (6,)" in weights_refusal(files.named())


def test_convolution_without_a_bias(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        file["block2_conv1"].attrs["weight_names"] = np.array(["block2_conv1_W_1:0"], "S")
    layers = [replace(layer, bias=layer.bias * (layer.name != "block2_conv1")) for layer in files.layers]
    files.assert_equal(load_weights(path), layers)


def test_no_convolution_at_all(files):
    path = files.named([])
    assert "holds no 2D convolution" in weights_refusal(path)


def test_normalisation_layer(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = [b"bn1", *file.attrs["layer_names"]]
        group = file.create_group("bn1")
        group.attrs["weight_names"] = np.array(["gamma", "beta"], "S")
        group["gamma"], group["beta"] = np.ones(8), np.zeros(8)
    assert "'bn1' holds arrays of ranks [1, 1]" in weights_refusal(path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strides": [2, 2]}, "strides of its layer 'block1_conv1' is [2, 2], not 1"),
        ({"dilation_rate": [2, 2]}, "dilation_rate"),
        ({"activation": "tanh"}, "activation of its layer 'block1_conv1' is tanh"),
    ],
)
def test_configuration_of_another_network(files, settings, told):
    config = files.model_config(files.layers, **settings)
    assert told in weights_refusal(files.archive(config=config))


def test_configuration_with_other_layers(files):
    config = files.model_config(files.layers)
    config["config"]["layers"].insert(2, {"class_name": "LayerNormalization", "config": {"name": "ln"}})
    assert "its layer 'ln' is of kind LayerNormalization" in weights_refusal(files.archive(config=config))
    # What follows the last convolution does not matter.
    config = files.model_config(files.layers)
    config["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "head"}})
    files.assert_equal(load_weights(files.archive(config=config)))


def test_configuration_of_another_length(files):
    config = files.model_config(files.layers[:-1])
    assert "its model has 6 convolutions, but it stores 7" in weights_refusal(files.archive(config=config))


def test_pooling_that_cannot_be_placed(files):
    layers = files.renamed(files.chain((2, 3), (4, 4)))
    assert "where the pooling stands among its 5 convolutions" in weights_refusal(files.numbered(layers))


def test_archive_without_weights(files):
    assert "no model.weights.h5 inside" in weights_refusal(files.zipped({"config.json": "{}"}))


def test_archive_that_is_damaged(files):
    path = files.archive(config=files.model_config(files.layers))
    path.write_bytes(path.read_bytes()[:-40])
    weights_refusal(path)
    assert "damaged" in weights_refusal(files.zipped({"config.json": "{", "model.weights.h5": b""}))


@pytest.mark.parametrize("member", ["model.weights.h5", "config.json"])
def test_zip_bomb(files, member):
    bomb = b"\0" * (archive.RATIO_FREE_BYTES + 1)
    members = {"config.json": "{}", "model.weights.h5": b""} | {member: bomb}
    message = weights_refusal(files.zipped(members))
    assert f"'{member}'" in message
    assert "a zip bomb" in message


def test_zip_bomb_that_lies_about_its_size(files):
    path = files.zipped({"model.weights.h5": b"\0" * (archive.RATIO_FREE_BYTES + 1)})
    honest = (archive.RATIO_FREE_BYTES + 1).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(honest) == 2  # once before the member, once in the directory
    path.write_bytes(content.replace(honest, (1000).to_bytes(4, "little")))
    with zipfile.ZipFile(path) as lying:
        assert lying.getinfo("model.weights.h5").file_size == 1000
    assert "damaged" in weights_refusal(path)


@pytest.mark.parametrize("shape", [(3, 3, 3, 10**9), (10**6, 10**6, 3, 4)])
def test_shapes_are_judged_before_anything_is_read(files, shape):
    path = files.named()
    with h5py.File(path, "r+") as file:
        del file["block1_conv1/block1_conv1_W_1:0"]
        file["block1_conv1"].create_dataset(
            "block1_conv1_W_1:0", shape, np.float32, chunks=tuple(min(size, 64) for size in shape)
        )
    assert "block1_conv1" in weights_refusal(path)


def test_kernels_too_many_for_a_vgg(files):
    layers = [replace(layer) for layer in files.chain((2,), (1,))]
    path = files.named(layers)
    with h5py.File(path, "r+") as file:
        channels = 3
        for name in ("block1_conv1", "block1_conv2"):
            del file[name][f"{name}_W_1:0"], file[name][f"{name}_b_1:0"]
            file[name].create_dataset(f"{name}_W_1:0", (3, 3, channels, 4096), np.float32)
            file[name].create_dataset(f"{name}_b_1:0", (4096,), np.float32)
            channels = 4096
    assert "declares over 100,000,000 numbers" in weights_refusal(path)


def test_chunk_far_larger_than_its_dataset(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        del file["block1_conv1/block1_conv1_b_1:0"]
        file["block1_conv1"].create_dataset(
            "block1_conv1_b_1:0", (4,), np.float32, maxshape=(None,), chunks=(200_000_000,)
        )
    assert "too many for a VGG" in weights_refusal(path)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/k"), h5py.SoftLink("/block2_conv1")])
def test_links_are_not_followed(files, link):
    path = files.named()
    with h5py.File(path, "r+") as file:
        del file["block1_conv1"]
        file["block1_conv1"] = link
    assert "'block1_conv1' is a link" in weights_refusal(path)


def test_numbers_in_another_file(files):
    path = files.named()
    secret = files.folder / "secret.bin"
    secret.write_bytes(b"\0" * 432)
    with h5py.File(path, "r+") as file:
        del file["block1_conv1/block1_conv1_W_1:0"]
        file["block1_conv1"].create_dataset(
            "block1_conv1_W_1:0", (3, 3, 3, 4), np.float32, external=[(str(secret), 0, 432)]
        )
    assert "keeps its numbers in another file" in weights_refusal(path)


def test_group_that_contains_itself(files):
    path = files.numbered()
    with h5py.File(path, "r+") as file:
        file["layers/loop_a"] = file["layers"]
        file["layers/loop_b"] = file["layers"]
    assert "no end" in weights_refusal(path)


def test_hostile_names_stay_on_one_line(files):
    files.layers[0].name = "red \x1b[31m\n" + "x" * 2000
    files.layers[0].kernel = np.zeros((7, 7, 3, 4), np.float32)
    assert len(weights_refusal(files.named())) <= 400


def test_absurd_counts(files):
    path = files.first_vgg()
    with h5py.File(path, "r+") as file:
        file.attrs["nb_layers"] = 10**12
    assert "nb_layers is 1000000000000" in weights_refusal(path)


@pytest.mark.parametrize("layout", ["named", "numbered", "first_vgg", "archive"])
def test_damaged_files_load_or_are_refused(files, layout):
    # None of these stores variable-length text outside a zip's checksum: HDF5 can hang on damage to it.
    path = files.archive(config=files.model_config(files.layers)) if layout == "archive" else getattr(files, layout)()
    whole = path.read_bytes()
    generator = np.random.default_rng(7)
    refused = 0
    for trial in range(60):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[generator.integers(len(whole)) :]
        else:
            # Half of the flips go where the first groups and attributes are described.
            reach = len(whole) if trial % 3 == 1 else 4096
            for position in generator.integers(reach, size=8):
                damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            load_weights(path)
        except WeightsError:
            refused += 1
    assert refused >= 20  # at least what was cut short
