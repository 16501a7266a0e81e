"""The VGG within a larger model: heads left out, frozen layers put in order, shards put together, LoRA named."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from harness.refusals import weights_refusal
from nstgpu.weights import inspect, load_weights
from nstgpu.weights.model import WeightsGuess


def nested(files, names, frozen=()):
    """A VGG as one layer of a model, as Keras 2 saves weights: the frozen layers behind the others."""
    path = files.folder / "nested.h5"
    order = [i for i in range(len(names)) if i not in frozen] + list(frozen)
    with h5py.File(path, "w") as root:
        root.attrs["layer_names"] = np.array(["vgg16", "dense"], "S")
        group, weight_names = root.create_group("vgg16"), []
        for i in order:
            for role, array in (("kernel", files.layers[i].kernel), ("bias", files.layers[i].bias)):
                weight_names.append(f"{names[i]}/{role}:0")
                group[weight_names[-1]] = array
        group.attrs["weight_names"] = np.array(weight_names, "S")
        dense = root.create_group("dense")
        dense.attrs["weight_names"] = np.array(["dense/kernel:0", "dense/bias:0"], "S")
        dense["dense/kernel:0"], dense["dense/bias:0"] = np.zeros((8, 5), np.float32), np.zeros(5, np.float32)
    return path


@pytest.fixture
def vgg16(files):
    files.layers = files.chain((2, 2, 3, 3, 3), (4, 6, 8, 10, 10))
    return files


@pytest.mark.parametrize("frozen", [(8,), (0, 1, 2, 3), (3, 4, 10), (7, 11)])
@pytest.mark.parametrize("pattern", ["conv2d_{}", "c{}"])
def test_frozen_layers_are_put_in_the_order_of_their_numbers(vgg16, frozen, pattern):
    names = [pattern.format(number) for number in range(5, 18)]  # 9 comes before 10 as a number alone
    if pattern == "conv2d_{}":
        names = ["conv2d", *(f"conv2d_{number}" for number in range(1, 13))]
    with pytest.warns(WeightsGuess, match="its model 'vgg16' are taken in the order of their numbers"):
        weights = load_weights(nested(vgg16, names, frozen))
    vgg16.assert_equal(weights)


@pytest.mark.parametrize("frozen", [(), (8,), (0, 1)])
def test_frozen_layers_with_names_that_tell_no_order(vgg16, frozen):
    told = weights_refusal(nested(vgg16, [f"{letter}x" for letter in "abcdefghijklm"], frozen))
    assert "frozen layers are stored behind the others; save the whole model as .keras" in told


def test_frozen_layers_with_a_configuration(vgg16):
    names = [f"{letter}x" for letter in "abcdefghijklm"]
    path = nested(vgg16, names, (8, 9))
    renamed = [replace(layer, name=name) for layer, name in zip(vgg16.layers, names, strict=True)]
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(vgg16.model_config(renamed, nested=True))
    vgg16.assert_equal(load_weights(path))


def behind(files, layers, *, file="head.h5"):
    """The chain with more layers listed behind it: (name, kernel's shape) each."""
    path = files.named(file=file)
    with h5py.File(path, "r+") as root:
        for name, shape in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/kernel:0", f"{name}/bias:0"], "S")
            group[f"{name}/kernel:0"], group[f"{name}/bias:0"] = np.zeros(shape, "f4"), np.zeros(shape[-1], "f4")
        root.attrs["layer_names"] = [*root.attrs["layer_names"], *(name.encode() for name, _ in layers)]
    return path


@pytest.mark.parametrize("first", [(7, 7, 8, 12), (3, 3, 8, 12), (1, 1, 8, 12)])
def test_convolutions_behind_named_layers_are_the_heads(files, first):
    path = behind(files, [("fc6", first), ("conv6_1", (1, 1, 12, 4)), ("conv6_2", (3, 3, 4, 4))])
    files.assert_equal(load_weights(path))
    assert "left out: fc6, conv6_1, conv6_2" in inspect(path).notes


def test_convolution_between_named_layers(files):
    path = behind(files, [("extra", (3, 3, 8, 8))])
    with h5py.File(path, "r+") as file:
        names = [name for name in file.attrs["layer_names"] if name != b"extra"]
        file.attrs["layer_names"] = [*names[:3], b"extra", *names[3:]]
    assert "its layer 'extra' stands between 'block1_conv1' and 'block3_conv3'" in weights_refusal(path)


def test_convolutions_behind_a_whole_vgg_without_names(vgg16):
    whole = vgg16.layers
    vgg16.layers = vgg16.renamed(whole)
    path = behind(vgg16, [("fc6", (7, 7, 10, 12)), ("fc7", (1, 1, 12, 12))])
    vgg16.assert_equal(load_weights(path), whole)


def test_configuration_with_a_head_of_convolutions(files):
    config = files.model_config(files.layers)
    head = {"name": "classifier", "kernel_size": [1, 1], "activation": "softmax"}
    config["config"]["layers"] += [
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "g"}},
        {"class_name": "Conv2D", "config": head},
    ]
    path = files.archive(config=config)
    inner = files.folder / "inner.h5"
    with h5py.File(inner, "w") as file:
        files.write_numbered(file, files.layers, True)
        variables = file.create_group("layers/conv2d_7/vars")
        variables["0"], variables["1"] = np.zeros((1, 1, 8, 5), "f4"), np.zeros(5, "f4")
        variables.attrs["name"] = "classifier"
    path = files.zipped({"config.json": json.dumps(config), "model.weights.h5": inner.read_bytes()})
    files.assert_equal(load_weights(path))


@pytest.mark.parametrize("kind", ["Add", "Concatenate"])
def test_layers_that_meet_between_convolutions(files, kind):
    config = files.model_config(files.layers)
    layers = config["config"]["layers"]
    for before, one in zip([None, *layers], layers, strict=False):
        one["name"] = one["config"]["name"]
        one["inbound_nodes"] = [[[before["name"], 0, 0, {}]]] if before else []
    nodes = [[[layers[1]["name"], 0, 0, {}], [layers[2]["name"], 0, 0, {}]]]
    layers.insert(3, {"class_name": kind, "name": "meet", "config": {"name": "meet"}, "inbound_nodes": nodes})
    layers[4]["inbound_nodes"] = [[["meet", 0, 0, {}]]]
    config["config"]["output_layers"] = [[layers[-1]["name"], 0, 0]]
    assert f"its layer 'meet' is of kind {kind}" in weights_refusal(files.archive(config=config))


def test_two_networks_in_one(files):
    path = files.folder / "two.weights.h5"
    with h5py.File(path, "w") as root:
        for inside in ("layers/functional/layers", "layers/functional_1/layers"):
            for number, layer in enumerate(files.layers):
                variables = root.create_group(f"{inside}/conv2d{f'_{number}' if number else ''}/vars")
                variables["0"], variables["1"] = layer.kernel, layer.bias
                variables.attrs["name"] = layer.name
    assert "holds several layers named 'block1_conv1', as of two networks" in weights_refusal(path)


def test_quantized_dense_layers_are_left_out(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        dense = file.create_group("dense")
        dense.attrs["weight_names"] = ["dense/bias", "dense/kernel", "dense/kernel_scale"]
        dense["dense/bias"], dense["dense/kernel_scale"] = np.zeros(5, "f4"), np.ones(5, "f4")
        dense["dense/kernel"] = np.ones((8, 5), np.int8)
        file.attrs["layer_names"] = [*file.attrs["layer_names"], b"dense"]
    files.assert_equal(load_weights(path))


def test_lora_is_named(files):
    path = files.named(keras2=True)
    with h5py.File(path, "r+") as file:
        group = file["block1_conv2"]
        group["block1_conv2/lora_kernel_a"] = np.zeros((3, 3, 4, 2), "f4")
        group["block1_conv2/lora_kernel_b"] = np.zeros((2, 4), "f4")
        names = ["bias:0", "lora_kernel_a", "lora_kernel_b", "kernel:0"]
        group.attrs["weight_names"] = [f"block1_conv2/{name}" for name in names]
    assert "'block1_conv2' has LoRA's arrays beside its kernel; save the model as .keras" in weights_refusal(path)


def test_class_of_its_own_is_not_told_to_save_as_keras(files):
    inner = files.folder / "inner.h5"
    with h5py.File(inner, "w") as file:
        for number, layer in enumerate(files.layers):
            variables = file.create_group(f"attribute{number}/vars")
            variables["0"], variables["1"] = layer.kernel, layer.bias
    content = inner.read_bytes()
    told = weights_refusal(
        files.zipped({"config.json": '{"class_name": "Own", "config": {}}', "model.weights.h5": content})
    )
    assert "build the model with keras.Sequential or keras.Model(inputs, outputs)" in told
    assert "save the whole model as .keras" not in told
    assert "save the whole model as .keras" in weights_refusal(inner)


def sharded(files, count=3):
    """Keras's shards: a layer's group may begin in one and its numbers lie in the next."""
    whole = files.numbered(names=True, file="whole.h5")
    weight_map = {}
    with h5py.File(whole) as source:
        names = sorted(source["layers"], key=lambda name: (len(name), name))
        for number, part in enumerate(np.array_split(names, count)):
            shard = f"vgg_{number:05d}.weights.h5"
            with h5py.File(files.folder / shard, "w") as file:
                for name in part:
                    source.copy(source["layers"][name], file.require_group("layers"), name=name)
                    if number == 1 and name == part[0] and "conv" in name:
                        del file[f"layers/{name}/vars/1"]
                    weight_map[f"/layers/{name}/vars"] = [shard]
                after = names[names.index(part[-1]) + 1 :]
                if after:
                    file.require_group(f"layers/{after[0]}/vars")
    path = files.folder / "vgg.weights.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    whole.unlink()
    return path


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_shards_are_put_together(files, count):
    with_all = sharded(files, count)
    shards = sorted(files.folder.glob("vgg_*.weights.h5"))
    with h5py.File(shards[-1], "a") as file:  # the bias that another shard left out
        for name, layer in zip(["conv2d", *(f"conv2d_{k}" for k in range(1, 7))], files.layers, strict=True):
            held = [shard for shard in shards if shard != shards[-1] and _has(shard, f"layers/{name}/vars/1")]
            if not held and f"layers/{name}/vars/1" not in file:
                file[f"layers/{name}/vars/1"] = layer.bias
    files.assert_equal(load_weights(with_all))


def _has(path, name):
    with h5py.File(path) as file:
        return name in file


def test_one_shard_alone(files):
    sharded(files, 4)
    shard = files.folder / "vgg_00000.weights.h5"
    assert "one of the shards that vgg.weights.json lists; give" in weights_refusal(shard)
    for number in range(3):
        alone = (files.folder / f"vgg_{number:05d}.weights.h5").rename(files.folder / f"alone{number}.h5")
        assert "one of several shards" in weights_refusal(alone)


def test_missing_shard_is_named(files):
    path = sharded(files)
    (files.folder / "vgg_00001.weights.h5").unlink()
    assert "its shard vgg_00001.weights.h5 is missing; put it into the same folder" in weights_refusal(path)


@pytest.mark.parametrize("name", ["../vgg.weights.h5", "/tmp/vgg.weights.h5", "a/b.h5", "..\\vgg.h5", "C:vgg.h5"])
def test_shards_lie_in_their_own_folder(files, name):
    path = files.folder / "vgg.weights.json"
    path.write_text(json.dumps({"weight_map": {"/layers/conv2d/vars": name}}))
    assert "is not in its own folder" in weights_refusal(path)


def test_lists_of_something_else(files):
    path = files.folder / "model.safetensors.index.json"
    for content in ("{}", '{"weight_map": {"a": "b.safetensors"}}', "{", "[" * 100_000, '{"weight_map": [1]}'):
        path.write_text(content)
        assert "JSON text and no weights" in weights_refusal(path)
    path.write_text('{"weight_map": {"a": [1]}}')
    assert "names something that is no file" in weights_refusal(path)
    path.write_text(json.dumps({"weight_map": {str(number): f"{number}.h5" for number in range(300)}}))
    assert "lists 300 shards" in weights_refusal(path)
