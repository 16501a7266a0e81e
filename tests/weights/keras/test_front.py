"""What a model does to its pictures before the first convolution becomes the preprocessing, or is refused by name."""

import json
import warnings

import h5py
import numpy as np
import pytest

from nstgpu.weights import WeightsError, inspect, load_weights
from nstgpu.weights.convert import convert
from nstgpu.weights.model import CAFFE, SIGNED, TORCHVISION, UNIT, WeightsGuess


def tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


def constant(value):
    return {"class_name": "__tensor__", "config": {"value": value, "dtype": "float32"}}


def key(last):
    return [{"class_name": "__ellipsis__", "config": {}}, last]


def layer(kind, name, *inputs, **settings):
    """A layer of Keras 3's functional models; `inputs` are what it is called with."""
    nodes = [{"args": list(inputs), "kwargs": {}}] if inputs else []
    return {"class_name": kind, "config": {"name": name, **settings}, "name": name, "inbound_nodes": nodes}


def model(files, *front):
    """The chain of `files` behind the layers of `front`, the first of which takes the picture, "image"."""
    plain = [one for one in files.model_config(files.layers)["config"]["layers"] if one["class_name"] != "InputLayer"]
    described = [layer("InputLayer", "image"), *front]
    for one in plain:
        last = described[-1]["name"]
        described.append(one | {"name": one["config"]["name"], "inbound_nodes": [{"args": [tensor(last)]}]})
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [[described[-1]["name"], 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "m", "layers": described, **ends}}


def loaded(files, *front):
    weights = load_weights(files.archive(config=model(files, *front)))
    files.assert_equal(weights)
    return weights


def channel(index, name):
    return layer("GetItem", name, tensor("image"), key(index))


def caffe_layers():
    """As keras.applications.vgg19.preprocess_input writes itself into a model."""
    means = [[[[-103.93900299072266, -116.77899932861328, -123.68000030517578]]]]
    stack = layer("Stack", "stack", [tensor("b"), tensor("g"), tensor("r")], axis=-1)
    add = layer("Add", "add", tensor("stack"), constant(means))
    return channel(2, "b"), channel(1, "g"), channel(0, "r"), stack, add


def test_caffe_preprocessing_inside_the_model(files):
    assert loaded(files, *caffe_layers()).preprocessing == CAFFE


def test_order_of_channels_alone(files):
    backwards = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": -1}}
    reversed_ = layer("GetItem", "bgr", tensor("image"), key(backwards))
    add = layer("Add", "add", tensor("bgr"), constant([-103.939, -116.779, -123.68]))
    assert loaded(files, reversed_, add).preprocessing == CAFFE
    flip = layer("Flip", "bgr", tensor("image"), axis=-1)
    assert loaded(files, flip, add).preprocessing == CAFFE


@pytest.mark.parametrize(
    ("scale", "offset", "expected"), [(1 / 255, 0.0, UNIT), (1 / 127.5, -1.0, SIGNED), ([2.0], -1, SIGNED)]
)
def test_rescaling(files, scale, offset, expected):
    front = layer("Rescaling", "rescaling", tensor("image"), scale=scale, offset=offset)
    assert loaded(files, front).preprocessing == expected


def test_operations_of_python_and_of_tf_keras(files):
    divide = layer("TrueDivide", "divide", tensor("image"), 127.5)
    assert loaded(files, divide, layer("Subtract", "subtract", tensor("divide"), 1.0)).preprocessing == SIGNED

    config = model(files, layer("TFOpLambda", "tf.math.truediv", tensor("image"), function="math.truediv"))
    config["config"]["layers"][1]["inbound_nodes"] = [["image", 0, 0, {"y": 255.0, "name": None}]]
    assert load_weights(files.archive(config=config)).preprocessing == UNIT


def test_normalization_with_numbers_per_channel(files):
    rescaling = layer("Rescaling", "rescaling", tensor("image"), scale=1 / 255, offset=0.0)
    mean, variance = list(TORCHVISION.mean), [one**2 for one in TORCHVISION.std]
    normalization = layer("Normalization", "normalization", tensor("rescaling"), mean=mean, variance=variance)
    assert loaded(files, rescaling, normalization).preprocessing == TORCHVISION

    front = layer("Rescaling", "rescaling", tensor("image"), scale=[1 / 255, 1 / 250, 1 / 200], offset=[0.5, 0, -0.5])
    weights = loaded(files, front)
    p = weights.preprocessing
    assert p.name == "custom"
    image = np.array([0.25, 0.5, 0.75])
    x = (image[list(p.channels)] * p.scale - p.mean) / p.std
    np.testing.assert_allclose(x, image * 255 * [1 / 255, 1 / 250, 1 / 200] + [0.5, 0, -0.5], rtol=1e-12)
    written = convert(files.folder / "vgg.keras", files.folder / "out.h5")
    assert written.preprocessing == p


@pytest.mark.parametrize("kind", ["RandomFlip", "RandomRotation", "GaussianNoise", "Dropout", "RandAugment"])
def test_layers_that_only_act_in_training(files, kind):
    assert loaded(files, layer(kind, "augmentation", tensor("image"))).preprocessing == CAFFE


@pytest.mark.parametrize(
    ("front", "named"),
    [
        (layer("Lambda", "bgr", tensor("image")), "'bgr' of kind Lambda"),
        (layer("AutoContrast", "auto", tensor("image")), "'auto' of kind AutoContrast"),
        (layer("Rescaling", "rescaling", tensor("image"), scale=0.5, offset=0.0), "0..255 or 0..1"),
    ],
)
def test_what_cannot_be_read_is_named_and_may_be_said(files, front, named):
    path = files.archive(config=model(files, front))
    with pytest.raises(WeightsError, match=f"{named}.*--preprocessing"):
        load_weights(path)
    files.assert_equal(load_weights(path, preprocessing="unit"))
    assert inspect(path, preprocessing="unit").preprocessing == "unit"


def test_weights_alone_show_the_layer_but_not_its_scale(files):
    path = files.numbered(names=True)
    with h5py.File(path, "r+") as file:
        file.create_group("layers/rescaling/vars").attrs["name"] = "rescaling"
    with pytest.warns(WeightsGuess, match="'rescaling' is not in the file: 1/255 is taken.*--preprocessing tf"):
        weights = load_weights(path)
    assert weights.preprocessing == UNIT
    assert any("1/255" in note for note in inspect(path).notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_weights(files.numbered()).preprocessing == CAFFE


def test_adapted_normalization_keeps_its_numbers_in_the_file(files):
    path = files.numbered(names=True)
    with h5py.File(path, "r+") as file:
        variables = file.create_group("layers/normalization/vars")
        variables["0"], variables["1"] = np.array([120, 110, 100], "f4"), np.array([3600, 3600, 900], "f4")
        variables["2"] = np.int64(5)
    p = load_weights(path).preprocessing
    assert (p.channels, p.scale, p.std) == ((0, 1, 2), 255.0, (60.0, 60.0, 30.0))
    assert p.mean == pytest.approx((120, 110, 100))


@pytest.mark.parametrize("kind", ["lambda", "normalization"])
def test_weights_alone_with_a_layer_that_is_not_in_the_file(files, kind):
    path = files.numbered(names=True)
    with h5py.File(path, "r+") as file:
        file.create_group(f"layers/{kind}/vars").attrs["name"] = kind
    with pytest.raises(WeightsError, match=f"what its layer '{kind}' does to the picture is not in"):
        load_weights(path)
    assert load_weights(path, preprocessing="torchvision").preprocessing == TORCHVISION


def test_listed_operations_of_tf_keras(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        for name in ("tf.__operators__.getitem", "tf.nn.bias_add"):
            file.create_group(name).attrs["weight_names"] = np.array([], "S1")
        file.attrs["layer_names"] = [b"tf.__operators__.getitem", b"tf.nn.bias_add", *names]
    assert load_weights(path).preprocessing == CAFFE
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = [b"tf.nn.bias_add", *names]
    with pytest.raises(WeightsError, match=r"'tf\.nn\.bias_add' does to the picture is not in the file"):
        load_weights(path)


def test_fronts_that_grow_without_end(files):
    front, last = [], "image"
    for number in range(40):
        for index in range(3):
            front.append(layer("GetItem", f"c{number}_{index}", tensor(last), key(index)))
        parts = [tensor(f"c{number}_{index}") for index in range(3)]
        last = f"s{number}"
        front.append(layer("Stack", last, parts, axis=-1))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(files.archive(config=model(files, *front)))


def test_damaged_numbers_of_a_preprocessing(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        file.attrs["nstgpu_preprocessing"] = "custom"
        file.attrs["nstgpu_preprocessing_numbers"] = np.array([0, 1, 1, 255, 0, 0, 0, 1, 1, 1.0])
    with pytest.raises(WeightsError, match="the numbers of its preprocessing are damaged"):
        load_weights(path)


def test_model_that_feeds_itself(files):
    config = model(files, layer("Dropout", "a", tensor("b")), layer("Dropout", "b", tensor("a")))
    with pytest.raises(WeightsError, match="circle"):
        load_weights(files.archive(config=json.loads(json.dumps(config))))


@pytest.mark.parametrize("kinds", [("tf_op_lambda",), ("permute",), ("activation",), ("slicing_op_lambda",)])
def test_numbered_layers_in_front_that_cannot_be_told(files, kinds):
    path = files.folder / "front.weights.h5"
    with h5py.File(path, "w") as root:
        for kind in ("input_layer", *kinds):
            root.create_group(f"layers/{kind}/vars")
        files.write_numbered(root, files.layers, False)
    with pytest.raises(WeightsError, match=r"what its layer '.*' does to the picture is not in the file; say what"):
        load_weights(path)
    files.assert_equal(load_weights(path, preprocessing="unit"))


def test_numbered_layers_behind_the_convolutions_are_none_in_front(files):
    path = files.folder / "behind.weights.h5"
    with h5py.File(path, "w") as root:
        root.create_group("layers/input_layer/vars")
        files.write_numbered(root, files.layers, False)
        for kind in ("rescaling", "tf_op_lambda", "activation", "add"):
            root.create_group(f"layers/{kind}/vars")
    files.assert_equal(load_weights(path))
