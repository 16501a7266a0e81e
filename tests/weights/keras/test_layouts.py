"""Every layout of an HDF5 file, written here and read back equal."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from nstgpu.weights import WeightsError, load_weights


@pytest.mark.parametrize("keras2", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_official_layout(files, keras2, split):
    weights = load_weights(files.named(keras2=keras2, split=split))
    files.assert_equal(weights)
    assert weights.name == "vgg.h5"
    assert weights.taps == ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3")
    assert weights.preprocessing.name == "caffe"


@pytest.mark.parametrize("pattern", ["conv{}_{}", "relu{}_{}"])
def test_caffe_names(files, pattern):
    layers = files.chain((1, 2), (4, 4))
    for layer, place in zip(layers, [(1, 1), (2, 1), (2, 2)], strict=True):
        layer.name = pattern.format(*place)
    path = files.named(layers, pools=False)
    assert load_weights(path).taps == ("relu1_1", "relu2_1", "relu2_2")


def test_listed_pooling_tells_the_blocks(files):
    # Equal widths throughout: nothing but the list of layers says where the pools stand.
    layers = files.chain((1, 3, 2), (4, 4, 4))
    weights = load_weights(files.named(files.renamed(layers)))
    files.assert_equal(weights, layers)


def test_names_count_more_than_the_order_of_storing(files):
    files.assert_equal(load_weights(files.named(files.layers[::-1], pools=False)))


@pytest.mark.parametrize("nested", [False, True])
def test_model_save_takes_the_blocks_from_its_configuration(files, nested):
    files.layers = files.renamed(files.chain((1, 2), (4, 4)))
    weights = load_weights(files.model_saved(nested=nested, config=files.model_config(files.layers, nested)))
    files.assert_equal(weights)
    assert "model.save" in weights.layout


def test_nested_model_of_keras_1_with_flat_weight_names(files):
    path = files.folder / "nested.h5"
    with h5py.File(path, "w") as root:
        root.attrs["layer_names"] = np.array(["vgg19"], "S")
        group = root.create_group("vgg19")
        names = []
        for layer in files.layers:
            for suffix, array in (("W", layer.kernel), ("b", layer.bias)):
                names.append(f"{layer.name}_{suffix}_1:0")
                group[names[-1]] = array
        group.attrs["weight_names"] = np.array(names, "S")
    files.assert_equal(load_weights(path))


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("inside", ["layers", "layers/functional/layers", "_layer_checkpoint_dependencies"])
def test_keras_3_weights(files, names, inside):
    files.assert_equal(load_weights(files.numbered(names=names, inside=inside)))


def test_keras_3_numbers_sort_as_numbers(files):
    layers = files.chain((2, 2, 4, 4, 4), (4, 6, 8, 10, 10))  # conv2d_10 sorts before conv2d_2 as text
    files.assert_equal(load_weights(files.numbered(layers)), layers)


@pytest.mark.parametrize("names", [False, True])
def test_keras_archive_takes_the_blocks_from_its_configuration(files, names):
    layers = files.renamed(files.chain((1, 3), (4, 4)))
    weights = load_weights(files.archive(layers, files.model_config(layers), names))
    files.assert_equal(weights, layers)
    assert ".keras" in weights.layout


def test_keras_archive_with_convolutions_in_several_places_goes_by_name(files):
    layers = files.renamed(files.chain((2,), (4,)))
    path = files.folder / "nested.weights.h5"
    with h5py.File(path, "w") as root:
        for group, layer in (("a/layers/conv2d", layers[1]), ("conv2d", layers[0])):
            variables = root.create_group(f"layers/{group}/vars")
            variables["0"], variables["1"] = layer.kernel, layer.bias
            variables.attrs["name"] = layer.name
    with pytest.raises(WeightsError, match="order of its convolutions cannot be told"):
        load_weights(path)
    config = json.dumps(files.model_config(layers))
    archive = files.zipped({"config.json": config, "model.weights.h5": path.read_bytes()})
    files.assert_equal(load_weights(archive), layers)


@pytest.mark.parametrize("padding", [False, True])
def test_first_vgg_files(files, padding):
    layers = files.chain((2, 2, 3, 3), (4, 6, 8, 8))
    weights = load_weights(files.first_vgg(layers, padding=padding))
    files.assert_equal(weights, layers)
    assert "Theano" in weights.layout


def test_theano_kernels_are_known_by_name_attribute_or_word(files):
    stored = [replace(layer, kernel=files.theano_kernel(layer.kernel)) for layer in files.layers]
    files.assert_equal(load_weights(files.named(stored, file="vgg16_th_dim_ordering_th_kernels.h5")))

    path = files.named(stored)
    with pytest.raises(WeightsError, match=r"theano=True .* theano=False"):
        load_weights(path)
    files.assert_equal(load_weights(path, theano=True))
    unrotated = [replace(layer, kernel=layer.kernel[::-1, ::-1]) for layer in files.layers]
    files.assert_equal(load_weights(path, theano=False), unrotated)

    with h5py.File(path, "r+") as file:
        file.attrs["backend"] = "theano"
    files.assert_equal(load_weights(path))


def test_keras_2_on_theano_rotates_but_does_not_transpose(files):
    path = files.named([replace(layer, kernel=layer.kernel[::-1, ::-1]) for layer in files.layers], keras2=True)
    files.assert_equal(load_weights(path, theano=True))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_precisions(files, dtype):
    layers = files.chain((1, 1), (4, 6), dtype)
    files.assert_equal(load_weights(files.named(layers)), layers)


def test_bfloat16_as_keras_stores_it(files):
    exact = files.chain((1, 1), (4, 6))
    for layer in exact:
        for array in (layer.kernel, layer.bias):
            array.view(np.uint32)[...] &= 0xFFFF0000
    halves = [replace(layer, kernel=_upper_half(layer.kernel), bias=_upper_half(layer.bias)) for layer in exact]
    path = files.numbered(halves)
    with h5py.File(path, "r+") as file:
        file.visititems(_mark_bfloat16)
    files.assert_equal(load_weights(path), exact)


def _upper_half(array):
    return (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")


def _mark_bfloat16(_, member):
    if isinstance(member, h5py.Dataset) and member.dtype == "V2":
        member.attrs["dtype"] = "bfloat16"


def test_dense_layers_are_left_out(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        names = [*file.attrs["layer_names"], b"flatten", b"fc1"]
        file.attrs["layer_names"] = names
        file.create_group("flatten").attrs["weight_names"] = np.array([], "S1")
        dense = file.create_group("fc1")
        dense.attrs["weight_names"] = np.array(["fc1_W", "fc1_b"], "S")
        dense["fc1_W"], dense["fc1_b"] = np.zeros((8, 5)), np.zeros(5)
    files.assert_equal(load_weights(path))


def test_the_same_numbers_have_the_same_checksum_in_every_layout(files):
    paths = files.named(), files.numbered(), files.archive(names=True), files.first_vgg()
    assert len({load_weights(path).checksum for path in paths}) == 1
    files.layers[0].bias[0] += 1
    assert load_weights(files.numbered()).checksum != load_weights(paths[0]).checksum


def test_files_written_by_keras(files, shared_data):
    fixtures = shared_data / "keras_fixtures"
    weights = load_weights(fixtures / "nest.h5")
    assert weights.taps == ("relu1_1", "relu2_1")
    with h5py.File(fixtures / "nest.h5") as file:
        kernel = file["model_weights/sequential/sequential/b/kernel"][...]
        config = file.attrs["model_config"]
    np.testing.assert_array_equal(weights.convolutions[1].kernel, kernel)
    # The same network, but these files say only that there is one pool, not that it stands in the middle.
    for name in ("nest.weights.h5", "seq.weights.h5"):
        with pytest.raises(WeightsError, match="where the pooling stands among its 2 convolutions"):
            load_weights(fixtures / name)
        stored = (fixtures / name).read_bytes()
        archive = files.zipped({"config.json": config, "model.weights.h5": stored})
        assert load_weights(archive).taps == weights.taps


@pytest.mark.parametrize(("name", "depth"), [("vgg19_blocks1to3.h5", 8), ("vgg19_cd16x.h5", 13)])
def test_real_weights(shared_data, name, depth):
    path = shared_data / "weights" / name
    weights = load_weights(path)
    assert len(weights.convolutions) == depth
    with h5py.File(path) as file:
        for convolution in weights.convolutions:
            group = file[f"block{convolution.block}_conv{convolution.index}"]
            kernel, bias = (group[weight][...] for weight in group.attrs["weight_names"].astype(str))
            np.testing.assert_array_equal(convolution.kernel, kernel)
            np.testing.assert_array_equal(convolution.bias, bias)
