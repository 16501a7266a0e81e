"""HDF5 files of a VGG by torchvision's names, by Caffe and by MatConvNet, written here and read back equal."""

import warnings

import h5py
import numpy as np
import pytest

from nstgpu.weights import WeightsError, load_weights
from nstgpu.weights.model import CAFFE, MATCONVNET, TORCHVISION, WeightsGuess


def torchvision(files, *, groups=False, normalized=False):
    path = files.folder / "torch.h5"
    part = "/" if groups else "."
    with h5py.File(path, "w") as file:
        number, block = 0, 1
        for layer in files.layers:
            if layer.block != block:
                number, block = number + 1, layer.block
            file[part.join(("features", str(number), "weight"))] = layer.kernel.transpose(3, 2, 0, 1)
            file[part.join(("features", str(number), "bias"))] = layer.bias
            if normalized:
                number += 1
                width = len(layer.bias)
                for word, value in (("weight", 2), ("bias", 1), ("running_mean", 0.5), ("running_var", 4 - 1e-5)):
                    file[part.join(("features", str(number), word))] = np.full(width, value, np.float32)
            number += 2
        file["classifier.0.weight"], file["classifier.0.bias"] = np.zeros((5, 8), "f4"), np.zeros(5, "f4")
    return path


@pytest.mark.parametrize("groups", [False, True])
def test_torchvision_names(files, groups):
    weights = load_weights(torchvision(files, groups=groups))
    files.assert_equal(weights)
    assert weights.preprocessing == TORCHVISION


def test_torchvision_with_batch_normalization(files):
    weights = load_weights(torchvision(files, normalized=True))
    for found, layer in zip(weights.convolutions, files.layers, strict=True):
        np.testing.assert_allclose(found.kernel, layer.kernel, rtol=1e-6)  # 2 / sqrt(4)
        np.testing.assert_allclose(found.bias, layer.bias - 0.5 + 1, rtol=1e-5, atol=1e-6)


def test_torchvision_with_a_gap(files):
    path = torchvision(files)
    with h5py.File(path, "r+") as file:
        file["features.30.weight"] = np.zeros((8, 8, 3, 3), "f4")
    with pytest.raises(WeightsError, match=r"its features\.30 comes where features\.16 should"):
        load_weights(path)


def test_caffe_snapshot(files):
    path = files.folder / "caffe.h5"
    with h5py.File(path, "w") as file:
        for layer in files.layers:
            group = file.create_group(f"data/conv{layer.block}_{layer.index}")
            group["0"], group["1"] = layer.kernel.transpose(3, 2, 0, 1), layer.bias
        file["data/fc6/0"], file["data/fc6/1"] = np.zeros((5, 8), "f4"), np.zeros(5, "f4")
    weights = load_weights(path)
    files.assert_equal(weights)
    assert weights.preprocessing == CAFFE


def test_matconvnet(files):
    path = files.folder / "imagenet-vgg.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        names = [f"conv{layer.block}_{layer.index}" for layer in files.layers]
        for name, layer in zip([*names, "relu", "fc6"], [*files.layers, None, files.layers[-1]], strict=True):
            group = file.create_group(f"#refs#/{name}")
            group["name"] = np.array([[ord(letter)] for letter in name], np.uint16)
            if layer is not None:
                file[f"#refs#/{name}k"] = layer.kernel.transpose(3, 2, 1, 0)
                file[f"#refs#/{name}b"] = layer.bias.reshape(-1, 1)
                pair = [file[f"#refs#/{name}k"].ref, file[f"#refs#/{name}b"].ref]
                group.create_dataset("weights", data=np.array(pair, object)[:, None], dtype=h5py.ref_dtype)
            references.append(group.ref)
        file.create_dataset("layers", data=np.array(references, object)[:, None], dtype=h5py.ref_dtype)
    weights = load_weights(path)
    files.assert_equal(weights)
    assert weights.preprocessing == MATCONVNET


def test_preprocessing_taken_for_granted_is_told(files):
    path = torchvision(files)
    with pytest.warns(WeightsGuess, match="does not say which preprocessing it takes: torchvision is used, since"):
        load_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_weights(path, preprocessing="caffe").preprocessing == CAFFE
