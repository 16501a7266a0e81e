"""Batch normalization between a convolution and its ReLU is folded in; elsewhere it is the head's, or refused."""

import json

import h5py
import numpy as np
import pytest

from nstgpu.weights import WeightsError, inspect, load_weights
from nstgpu.weights.model import WeightsGuess

ROLES = ("gamma", "beta", "moving_mean", "moving_variance")


def normalization(width, seed=0):
    generator = np.random.default_rng(seed)
    gamma, beta, mean = generator.standard_normal((3, width)).astype(np.float32)
    return gamma, beta, mean, generator.uniform(0.5, 2, width).astype(np.float32)


def folded(layer, numbers, epsilon):
    """The layer with gamma (conv(x) + bias - mean) / sqrt(variance + epsilon) + beta for conv(x) + bias."""
    gamma, beta, mean, variance = (one.astype(np.float64) for one in numbers)
    gain = gamma / np.sqrt(variance + epsilon)
    return layer.kernel * gain, (layer.bias - mean) * gain + beta


def assert_folded(weights, files, epsilon=1e-3):
    for number, (found, layer) in enumerate(zip(weights.convolutions, files.layers, strict=True)):
        kernel, bias = folded(layer, normalization(len(layer.bias), number), epsilon)
        np.testing.assert_allclose(found.kernel, kernel, rtol=1e-6)
        np.testing.assert_allclose(found.bias, bias, rtol=1e-5, atol=1e-6)


def listed(files, *, activations=True, order=("conv", "bn", "act"), roles=ROLES):
    """Keras 2's `layer_names` of a VGG that normalizes."""
    path = files.folder / "bn.h5"
    with h5py.File(path, "w") as root:
        names = []
        block = 1
        for number, layer in enumerate(files.layers):
            if layer.block != block:
                names.append(f"pool_{block}")
                block = layer.block
            held = {"conv": (layer.name, {"kernel": layer.kernel, "bias": layer.bias})}
            held["act"] = (f"activation_{number}", {})
            numbers = dict(zip(ROLES, normalization(len(layer.bias), number), strict=True))
            held["bn"] = (f"batch_normalization_{number}", {role: numbers[role] for role in roles})
            for part in order:
                if part == "act" and not activations:
                    continue
                name, arrays = held[part]
                names.append(name)
                group = root.create_group(name)
                group.attrs["weight_names"] = np.array([f"{name}/{role}:0" for role in arrays], "S" if arrays else "S1")
                for role, array in arrays.items():
                    group[f"{name}/{role}:0"] = array
        for name in names:
            if name not in root:
                root.create_group(name).attrs["weight_names"] = np.array([], "S1")
        root.attrs["layer_names"] = np.array(names, "S")
    return path


def numbered(files, *, names=True, activations=True, arrays=4, order=("conv", "bn", "act"), inputs=True, **options):
    """Keras 3's groups of a VGG that normalizes, written in the order of its layers; `options` are h5py's."""
    path = files.folder / "numbered.weights.h5"
    with h5py.File(path, "w", **options) as root:
        if inputs:
            root.create_group("layers/input_layer/vars")
        pools = 0
        for number, layer in enumerate(files.layers):
            if number and layer.block != files.layers[number - 1].block:
                root.create_group(f"layers/max_pooling2d{f'_{pools}' if pools else ''}/vars")
                pools += 1
            suffix = f"_{number}" if number else ""
            for part in order:
                if part == "act":
                    if activations:
                        root.create_group(f"layers/re_lu{suffix}/vars")
                    continue
                held = (layer.kernel, layer.bias)
                if part == "bn":
                    held = normalization(len(layer.bias), number)[4 - arrays :]
                stem = {"conv": "conv2d", "bn": "batch_normalization"}[part]
                variables = root.create_group(f"layers/{stem}{suffix}/vars")
                if names:
                    variables.attrs["name"] = layer.name if part == "conv" else f"{layer.name}_bn"
                for key, array in enumerate(held):
                    variables[str(key)] = array
    return path


def configured(files, epsilon, *, order=("conv", "bn", "act")):
    config = files.model_config(files.layers, activation="linear")
    described, number = [], 0
    for one in config["config"]["layers"]:
        if one["class_name"] != "Conv2D":
            described.append(one)
            continue
        bn = {"name": f"batch_normalization_{number}", "axis": [-1], "epsilon": epsilon}
        parts = {
            "conv": one,
            "bn": {"class_name": "BatchNormalization", "config": bn},
            "act": {"class_name": "ReLU", "config": {"name": f"r{number}"}},
        }
        described += [parts[part] for part in order]
        number += 1
    config["config"]["layers"] = described
    inner = numbered(files).read_bytes()
    return files.zipped({"config.json": json.dumps(config), "model.weights.h5": inner})


def test_listed_layers(files):
    path = listed(files)
    with pytest.warns(WeightsGuess, match=r"does not say the epsilon .* Keras's 0.001 is taken"):
        weights = load_weights(path)
    assert_folded(weights, files)
    assert any("folded into 7 convolutions" in note for note in inspect(path).notes)


def test_configuration_says_the_epsilon(files):
    assert_folded(load_weights(configured(files, 1e-5)), files, 1e-5)


@pytest.mark.filterwarnings("ignore::nstgpu.weights.model.WeightsGuess")
@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("inputs", [False, True])
def test_numbered_groups(files, names, inputs):
    assert_folded(load_weights(numbered(files, names=names, inputs=inputs)), files)


@pytest.mark.parametrize("inputs", [False, True])
def test_numbered_groups_behind_the_relu(files, inputs):
    path = numbered(files, order=("conv", "act", "bn"), inputs=inputs)
    with pytest.raises(WeightsError, match="normalizes behind the ReLU or the pool of 'block1_conv1'"):
        load_weights(path)


def test_numbered_groups_whose_order_is_not_kept(files):
    with pytest.raises(WeightsError, match="before a ReLU, behind it or in the head cannot be told; save the whole"):
        load_weights(numbered(files, libver="latest"))


def test_numbered_head_that_normalizes(files):
    path = files.folder / "head.weights.h5"
    with h5py.File(path, "w") as root:
        root.create_group("layers/input_layer/vars")
        files.write_numbered(root, files.layers, True)
        variables = root.create_group("layers/batch_normalization/vars")
        for key, array in enumerate(normalization(len(files.layers[-1].bias))):
            variables[str(key)] = array
    files.assert_equal(load_weights(path))


def test_scale_and_center_may_be_left_out(files):
    path = listed(files, roles=ROLES[1:])
    with pytest.warns(WeightsGuess):
        weights = load_weights(path)
    _, beta, mean, variance = normalization(4)
    kernel, bias = folded(files.layers[0], (np.ones(4), beta, mean, variance), 1e-3)
    np.testing.assert_allclose(weights.convolutions[0].kernel, kernel, rtol=1e-6)
    np.testing.assert_allclose(weights.convolutions[0].bias, bias, rtol=1e-5, atol=1e-6)
    with pytest.raises(WeightsError, match="3 arrays, and which they are cannot be told; save the whole"):
        load_weights(numbered(files, arrays=3))


def test_behind_the_relu_it_cannot_be_folded(files):
    for path in (listed(files, order=("conv", "act", "bn")), configured(files, 1e-3, order=("conv", "act", "bn"))):
        with pytest.raises(WeightsError, match="normalizes behind the ReLU or the pool of 'block1_conv1'"):
            load_weights(path)


@pytest.mark.parametrize("write", [listed, numbered])
def test_where_the_relu_is_not_seen_it_is_refused(files, write):
    with pytest.raises(WeightsError, match="before a ReLU, behind it or in the head cannot be told; save"):
        load_weights(write(files, activations=False))


@pytest.mark.parametrize("width", [5, 8])
def test_head_is_left_out(files, width):
    path = files.named()
    with h5py.File(path, "r+") as root:
        heads = {"flatten": (), "fc1": ("kernel", "bias"), "batch_normalization": ROLES}
        for name, roles in heads.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{role}:0" for role in roles], "S" if roles else "S1")
            for role in roles:
                group[f"{name}/{role}:0"] = np.ones((8, width) if role == "kernel" else width, np.float32)
        root.attrs["layer_names"] = [*root.attrs["layer_names"], *(name.encode() for name in heads)]
    files.assert_equal(load_weights(path))
    assert any("left out: fc1, batch_normalization" in note for note in inspect(path).notes)


def test_variance_that_is_none(files):
    path = listed(files)
    with h5py.File(path, "r+") as root:
        root["batch_normalization_0/batch_normalization_0/moving_variance:0"][...] = -1
    with pytest.raises(WeightsError, match="variances of zero or less"):
        load_weights(path)
