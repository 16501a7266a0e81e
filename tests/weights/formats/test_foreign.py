"""VGG as PyTorch, safetensors, NumPy, Caffe and MatConvNet store it; the files are put together here, byte by byte."""

import gzip
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.weights import WeightsError, convert, inspect, load_weights
from nstgpu.weights.formats import tensors
from nstgpu.weights.model import CAFFE, MATCONVNET, TORCHVISION
from nstgpu.weights.official import store

STORAGES = {"<f4": "Float", "<f2": "Half", "<f8": "Double", ">f4": "Float"}


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(number):
    return b"J" + struct.pack("<i", number)


def whole_tuple(numbers):
    return b"(" + b"".join(map(whole, numbers)) + b"t"


def tensor(key, storage, shape, strides=None, offset=0):
    """The pickle of what rebuilds a tensor."""
    if strides is None:
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    kept = b"(" + text("storage") + f"ctorch\n{storage}Storage\n".encode() + text(key) + text("cpu") + whole(9) + b"tQ"
    rest = whole(offset) + whole_tuple(shape) + whole_tuple(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + kept + rest + b"tR"


def ordered(items):
    pairs = b"".join(text(name) + value for name, value in items.items())
    return b"ccollections\nOrderedDict\n)R(" + pairs + b"u"


def torch_zip(path, pickled, arrays, order="little"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vgg/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("vgg/byteorder", order)
        for key, array in arrays.items():
            archive.writestr(f"vgg/data/{key}", array.tobytes())
        archive.writestr("vgg/version", "3\n")
    return path


def torch_legacy(path, pickled, arrays):
    keys = b"](" + b"".join(map(text, arrays)) + b"e"
    heads = [b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", b"M\xe9\x03", b"}" + text("little_endian") + b"\x88s"]
    content = b"".join(b"\x80\x02" + part + b"." for part in [*heads, pickled, keys])
    for array in arrays.values():
        content += struct.pack("<Q", array.size) + array.tobytes()
    path.write_bytes(content)
    return path


def numbered(layers, norms=False):
    """Names as torchvision numbers them, and each with its layer."""
    number, block = 0, 1
    for layer in layers:
        number += layer.block != block  # a pool stands between
        block = layer.block
        yield f"features.{number}", layer
        number += 3 if norms else 2


def stored(layers, dtype="<f4", called=None):
    """(name -> pickled tensor, key -> array) of a state_dict."""
    held: dict[str, bytes] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, layer in called or numbered(layers):
        for part, array in (("weight", layer.kernel.transpose(3, 2, 0, 1)), ("bias", layer.bias)):
            key = str(len(arrays))
            arrays[key] = np.ascontiguousarray(array, dtype)
            held[f"{name}.{part}"] = tensor(key, STORAGES[dtype], array.shape)
    return held, arrays


WRITERS = {"zip": torch_zip, "legacy": torch_legacy}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8"])
def test_state_dict(files, writer, dtype):
    for layer in files.layers:
        layer.kernel, layer.bias = layer.kernel.astype(dtype), layer.bias.astype(dtype)
    held, arrays = stored(files.layers, dtype)
    path = WRITERS[writer](files.folder / "vgg.pth", ordered(held), arrays)
    weights = load_weights(path)
    files.assert_equal(weights)
    assert weights.preprocessing == TORCHVISION
    assert {layer.precision for layer in inspect(path).layers} == {np.dtype(dtype).name}


@pytest.mark.parametrize("writer", WRITERS)
def test_bfloat16(files, writer):
    held, arrays = stored(files.layers)
    held = {name: value.replace(b"FloatStorage", b"BFloat16Storage") for name, value in held.items()}
    cut = {key: (array.view(np.uint32) >> 16).astype("<u2") for key, array in arrays.items()}
    weights = load_weights(WRITERS[writer](files.folder / "vgg.pth", ordered(held), cut))
    kernel = files.layers[1].kernel
    np.testing.assert_array_equal(
        weights.convolutions[1].kernel, (kernel.view(np.uint32) & 0xFFFF0000).view(np.float32)
    )


def test_big_endian(files):
    held, arrays = stored(files.layers, ">f4")
    files.assert_equal(load_weights(torch_zip(files.folder / "vgg.pth", ordered(held), arrays, "big")))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_what_wraps_a_state_dict_is_looked_through_and_not_run(files, writer, wrapper):
    held, arrays = stored(files.layers)
    held = {f"module.{name}": value for name, value in held.items()}
    trace = files.folder / "trace"
    evil = b"cos\nsystem\n(" + text(f"touch {trace}") + b"tR"
    module = b"cargparse\nNamespace\n)\x81}" + text("lr") + b"G" + struct.pack(">d", 0.1) + b"sb"
    outer = b"}(" + text("epoch") + whole(3) + text(wrapper) + ordered(held) + text("evil") + evil
    outer += text("args") + module + b"u"
    files.assert_equal(load_weights(WRITERS[writer](files.folder / "vgg.pth", outer, arrays)))
    assert not trace.exists()


def test_batch_normalisation_is_folded_in(files):
    generator = np.random.default_rng(1)
    held, arrays = stored(files.layers, called=list(numbered(files.layers, norms=True)))
    for name, layer in numbered(files.layers, norms=True):
        width = len(layer.bias)
        gamma, beta, mean = generator.standard_normal((3, width)).astype(np.float32)
        variance = generator.random(width).astype(np.float32) + 0.5
        after = f"features.{int(name.partition('.')[2]) + 1}"
        parts = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
        for part, array in parts.items():
            arrays[f"{after}.{part}"] = array
            held[f"{after}.{part}"] = tensor(f"{after}.{part}", "Float", array.shape)
        held[f"{after}.num_batches_tracked"] = tensor("count", "Long", ())
        scale = gamma / np.sqrt(variance.astype(np.float64) + 1e-5)
        layer.kernel, layer.bias = layer.kernel * scale, (layer.bias.astype(np.float64) - mean) * scale + beta
    arrays["count"] = np.zeros(1, np.int64)
    for writer in (torch_zip, torch_legacy):
        path = writer(files.folder / "vgg_bn.pth", ordered(held), arrays)
        files.assert_equal(load_weights(path))
        assert "batch normalization folded in" in inspect(path).layout


@pytest.mark.parametrize("dense", [("classifier.0", TORCHVISION), ("classifier.1", CAFFE)])
def test_caffes_numbers_with_torchvisions_names(files, dense):
    held, arrays = stored(files.layers)
    held[f"{dense[0]}.weight"] = tensor("d", "Float", (2, 2))
    arrays["d"] = np.zeros(4, np.float32)
    path = torch_zip(files.folder / "vgg.pth", ordered(held), arrays)
    assert load_weights(path).preprocessing == dense[1]
    assert load_weights(path, preprocessing="matconvnet").preprocessing == MATCONVNET


def test_names_of_caffe(files):
    called = [(f"conv{layer.block}_{layer.index}", layer) for layer in files.layers]
    held, arrays = stored(files.layers, called=called[::-1])
    weights = load_weights(torch_zip(files.folder / "vgg_conv.pth", ordered(held), arrays))
    files.assert_equal(weights)
    assert weights.preprocessing == CAFFE


@pytest.mark.parametrize("corner", [tensors._VGG16, tensors._VGG19])
@pytest.mark.parametrize(("turn", "told"), [(1, CAFFE), (-1, MATCONVNET)])
def test_the_published_numbers_tell_their_preprocessing(files, corner, turn, told):
    files.layers[0].kernel[0, 0, :, :3] = np.array(corner)[::turn]
    held, arrays = stored(files.layers)
    assert load_weights(torch_zip(files.folder / "vgg.pth", ordered(held), arrays)).preprocessing == told


@pytest.mark.parametrize("writer", WRITERS)
def test_a_convolution_that_is_missing(files, writer):
    held, arrays = stored(files.layers)
    for part in ("weight", "bias"):
        del held[f"features.2.{part}"]
    if writer == "legacy":
        arrays = {key: array for key, array in arrays.items() if key not in ("2", "3")}
    with pytest.raises(WeightsError, match=r"from its layer 'features.0' to 'features.5'"):
        load_weights(WRITERS[writer](files.folder / "vgg.pth", ordered(held), arrays))


def test_no_bias(files):
    held, arrays = stored(files.layers)
    held = {name: value for name, value in held.items() if name.endswith("weight")}
    for layer in files.layers:
        layer.bias = np.zeros_like(layer.bias)
    files.assert_equal(load_weights(torch_zip(files.folder / "vgg.pth", ordered(held), arrays)))


def one_changed(files, pickled=None, array=None):
    held, arrays = stored(files.layers)
    if pickled is not None:
        held["features.2.weight"] = pickled
    if array is not None:
        arrays["2"] = array
    return torch_zip(files.folder / "vgg.pth", ordered(held), arrays)


def test_strides(files):
    kernel = files.layers[1].kernel
    channels_last = np.ascontiguousarray(kernel.transpose(3, 0, 1, 2))  # O, H, W, I
    path = one_changed(files, tensor("2", "Float", (4, 4, 3, 3), (36, 1, 12, 4)), channels_last)
    files.assert_equal(load_weights(path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"strides": (0, 9, 3, 1)}, "used several times over"),
        ({"strides": (36, 9, 3, 3)}, "used several times over"),
        ({"strides": (-36, 9, 3, 1)}, "shape that cannot be"),
        ({"strides": (10**9, 9, 3, 1)}, "too many for a VGG"),
        ({"strides": (72, 9, 3, 1)}, "cut short"),
        ({"offset": 1}, "cut short"),
        ({"shape": (4, 5, 3, 3)}, "takes 5 channels"),
        ({"shape": (10**6, 4, 3, 3)}, "gives 1,000,000 channels"),
        ({"key": "../2"}, "is missing"),
        ({"storage": "Long"}, "holds LongStorage, not floating-point"),
    ],
)
def test_tensors_that_lie(files, change, told):
    described = {"key": "2", "storage": "Float", "shape": (4, 4, 3, 3)} | change
    with pytest.raises(WeightsError, match=told):
        load_weights(one_changed(files, tensor(**described)))


def test_cut_short(files):
    held, arrays = stored(files.layers)
    for writer in (torch_zip, torch_legacy):
        path = writer(files.folder / "vgg.pth", ordered(held), arrays)
        content = path.read_bytes()
        for length in range(20, len(content) - 1, 301):
            path.write_bytes(content[:length])
            with pytest.raises(WeightsError, match=r"cut short|damaged|missing"):
                load_weights(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"r\xff\xff\xff\x7f",
        b"(" * 5000 + b"t",
        b"]" + b"2a" * 1000,
        b"\x8e" + b"\xff" * 8,
        b"]q\x00" + b"h\x00a" * 50,
        b"}" + text("a") + b"h\x07s",
        b"N",
    ],
    ids=range(7),
)
def test_pickles_without_sense(files, pickled):
    with pytest.raises(WeightsError):
        load_weights(torch_zip(files.folder / "vgg.pth", pickled, {}))


def test_dictionaries_within_each_other_without_end(files):
    # 40 levels, each twice the one below: a walk along all ways would never end.
    level = b"}q\x00"
    for number in range(1, 41):
        level += b"0}" + text("a") + b"h" + bytes([number - 1]) + b"s" + text("b") + b"h" + bytes([number - 1]) + b"s"
        level += b"q" + bytes([number])
    with pytest.raises(WeightsError, match="without end"):
        load_weights(torch_zip(files.folder / "vgg.pth", level, {}))


def test_torchscript_is_named(files):
    path = files.folder / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("s/data.pkl", "s/constants.pkl", "s/code/a.py"):
            archive.writestr(name, b"\x80\x02N.")
    with pytest.raises(WeightsError, match="a TorchScript program"):
        load_weights(path)


def safetensors(files, change=lambda _: None, dtype="F32"):
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, layer in numbered(files.layers):
        for part, array in (("weight", layer.kernel.transpose(3, 2, 0, 1)), ("bias", layer.bias)):
            data = np.ascontiguousarray(array, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()
            place = [len(body), len(body) + len(data)]
            header[f"{name}.{part}"] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": place}
            body += data
    change(header)
    text = json.dumps(header).encode()
    path = files.folder / "vgg.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@pytest.mark.parametrize("dtype", ["F16", "F32", "F64"])
def test_safetensors(files, dtype):
    if dtype == "F16":
        for layer in files.layers:
            layer.kernel, layer.bias = layer.kernel.astype(np.float16), layer.bias.astype(np.float16)
    weights = load_weights(safetensors(files, dtype=dtype))
    files.assert_equal(weights)
    assert weights.preprocessing == TORCHVISION


@pytest.mark.parametrize(
    ("fact", "value", "told"),
    [
        ("data_offsets", [0, 10], "does not lie within the file"),
        ("data_offsets", [10**6, 10**6 + 576], "does not lie within the file"),
        ("data_offsets", [-576, 0], "nowhere"),
        ("data_offsets", "all", "nowhere"),
        ("shape", [4, 4, 3, -3], "nowhere"),
        ("shape", [2**40, 2**40, 3, 3], "does not lie within"),
        ("dtype", 4, "does not describe"),
        ("dtype", "I64", "holds I64, not floating-point"),
    ],
)
def test_safetensors_that_lie(files, fact, value, told):
    with pytest.raises(WeightsError, match=told):
        load_weights(safetensors(files, lambda header: header["features.2.weight"].update({fact: value})))


def test_safetensors_whose_header_is_longer_than_the_file(files):
    path = safetensors(files)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cut short"):
        load_weights(path)
    path.write_bytes(struct.pack("<Q", len(content) - 3) + content[8:])
    with pytest.raises(WeightsError):
        load_weights(path)


def test_npz_of_vgg16(files):
    path = files.folder / "vgg16_weights.npz"
    named = {f"conv{layer.block}_{layer.index}": layer for layer in files.layers}
    arrays: dict[str, Any] = {f"{name}_W": layer.kernel for name, layer in named.items()}
    arrays |= {f"{name}_b": layer.bias for name, layer in named.items()}
    np.savez(path, **arrays, fc6_W=np.zeros((3, 3)), fc6_b=np.zeros(3))
    weights = load_weights(path)
    files.assert_equal(weights)
    assert weights.preprocessing == MATCONVNET
    turned: dict[str, Any] = {name: np.asfortranarray(array) for name, array in arrays.items()}
    np.savez(path, **turned)
    files.assert_equal(load_weights(path))


def test_npy_of_vgg19(files):
    path = files.folder / "vgg19.npy"
    layers = files.chain((1, 1, 1), (4, 60, 8))  # kernels longer and shorter than what is kept of a string
    held = {f"conv{layer.block}_{layer.index}": [layer.kernel, layer.bias] for layer in layers}
    np.save(path, np.array(held | {"fc6": [np.zeros((4, 4), np.float32), np.zeros(4, np.float32)]}, dtype=object))
    weights = load_weights(path)
    files.assert_equal(weights, layers)
    assert weights.preprocessing == CAFFE
    for protocol in (0, 2, 3, 5):  # of other times and programs
        import pickle

        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
            pickle.dump(np.array(held, dtype=object), stream, protocol)
        if protocol in (2, 3):
            files.assert_equal(load_weights(path), layers)
        else:
            with pytest.raises(WeightsError):
                load_weights(path)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize("generation", ["old", "new"])
def test_caffemodel(files, generation):
    content = field(1, b"VGG_ILSVRC_19_layers")
    for layer in files.layers:
        blobs = []
        for array in (layer.kernel.transpose(3, 2, 0, 1), layer.bias):
            if generation == "old":
                extents = [1] * (4 - array.ndim) + list(array.shape)
                shape = b"".join(varint(n + 1 << 3) + varint(extent) for n, extent in enumerate(extents))
            else:
                shape = field(7, field(1, b"".join(map(varint, array.shape))))
            blobs.append(shape + field(5, array.astype("<f4").tobytes()))
        name = f"conv{layer.block}_{layer.index}".encode()
        if generation == "old":
            content += field(2, field(4, name) + varint(5 << 3) + varint(4) + b"".join(field(6, b) for b in blobs))
        else:
            content += field(100, field(1, name) + field(2, b"Convolution") + b"".join(field(7, b) for b in blobs))
    path = files.folder / "vgg.caffemodel"
    path.write_bytes(content)
    weights = load_weights(path)
    files.assert_equal(weights)
    assert weights.preprocessing == CAFFE
    path.write_bytes(content[:-100])
    with pytest.raises(WeightsError, match="a Caffe model, but damaged or cut short"):
        load_weights(path)


def test_matconvnet(files):
    scipy_io = pytest.importorskip("scipy.io")
    cells = np.empty((1, len(files.layers)), object)
    for number, layer in enumerate(files.layers):
        pair = np.empty((1, 2), object)
        pair[0, 0], pair[0, 1] = layer.kernel, layer.bias[None]
        cells[0, number] = {"name": f"conv{layer.block}_{layer.index}", "type": "conv", "weights": pair}
    path = files.folder / "imagenet-vgg-verydeep-19.mat"
    for compressed in (False, True):
        scipy_io.savemat(path, {"layers": cells}, do_compression=compressed)
        weights = load_weights(path)
        files.assert_equal(weights)
        assert weights.preprocessing == MATCONVNET
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="cut short"):
        load_weights(path)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_convert_gives_the_same_numbers(files, kind):
    held, arrays = stored(files.layers)
    path = safetensors(files) if kind == "safetensors" else torch_zip(files.folder / "a.pth", ordered(held), arrays)
    written = convert(path, files.folder / "out.h5")
    assert written.checksum == load_weights(path).checksum
    assert written.preprocessing == TORCHVISION


def zipped(name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.h5", b"", "empty: 0 bytes"),
        ("a.h5", b"<!DOCTYPE html><html>", "a web page"),
        ("a.h5", b"\n <HTML>", "a web page"),
        ("a.h5", b"<?xml version='1.0'?><Error/>", "XML"),
        ("a.h5", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        ("a.h5.gz", gzip.compress(b"\x89HDF", mtime=0), "packed with gzip"),
        ("a.h5", b"BZh91AY", "bzip2"),
        ("a.h5", b"\0" * 5000, "nothing but zero bytes"),
        ("a.json", b'{"class_name": "Functional", "config": {}}', "configuration without its weights"),
        ("a.json", b'{"a": 1}', "JSON text"),
        ("a.prototxt", b'name: "VGG"\nlayer {\n}', "Caffe network's description"),
        ("a.txt", "Käse".encode(), "text and no weights"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
        ("a.bin", b"\x08\x07\x12\x07pytorch\xff", "ONNX"),
        ("a.tflite", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("a.pb", b"\x0a\x10\xff", "a TensorFlow graph"),
        ("ckpt.index", b"\0\0\6\x08" + bytes.fromhex("57fb808b247547db"), "index of a TensorFlow checkpoint"),
        ("ckpt.data-00000-of-00001", b"\x01\xff" * 9, "numbers of a TensorFlow checkpoint"),
        ("a.pkl", b"\x80\x02}q\0.", "a Python pickle, which is not opened"),
        ("a.zip", zipped("vgg.h5"), "a zip archive around 'vgg.h5'"),
        ("a.pth", zipped("vgg.h5")[:30], "the download was cut short"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
        ("a.h5.part", b"\x01\xff" * 90, "not finished"),
        ("a.caffemodel", b"\x01\xff" * 90, "a Caffe model, but damaged"),
        ("a.h5", b"\x01\xff" * 90, "no weights file of a known kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_else_a_file_is(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)
    assert any(remedy in str(caught.value) for remedy in ("weights fetch vgg19", "unpack it", "fetch it", "belongs"))


def test_the_same_network_in_three_formats():
    cases = Path(os.environ.get("NSTGPU_SHARED", Path(__file__).parents[4] / "shared")) / "cases/foreign_formats"
    if not cases.is_dir():
        pytest.skip("no shared cases")
    pytest.importorskip("scipy")
    names = ("vgg19.pth", "vgg19.npy", "imagenet-vgg-verydeep-19.mat")
    assert len({load_weights(cases / name).checksum for name in names}) == 1


@pytest.mark.parametrize("turn", [1, -1])
def test_official_weights_are_taken_from_another_programs_file(files, monkeypatch, turn):
    """In RGB too; what the official network is, is played by the test's own."""
    official = [layer.kernel.copy() for layer in files.layers]
    files.layers[0].kernel = np.ascontiguousarray(files.layers[0].kernel[:, :, ::turn])
    named = {f"conv{layer.block}_{layer.index}": layer for layer in files.layers}
    arrays: dict[str, Any] = {f"{name}_W": layer.kernel for name, layer in named.items()}
    arrays |= {f"{name}_b": layer.bias for name, layer in named.items()}
    path = files.folder / "vgg.npz"
    np.savez(path, **arrays)
    monkeypatch.setenv("NSTGPU_WEIGHTS_DIR", str(files.folder / "store"))

    def is_official(_, convolutions):
        pairs = zip(convolutions, official, strict=True)
        return all(np.array_equal(one.kernel, kernel) for one, kernel in pairs)

    monkeypatch.setattr(store, "has_layers_of", is_official)
    if turn == 1:  # such a file takes RGB, and so this one is another network
        with pytest.raises(WeightsError, match="not the official"):
            store.take("vgg19", path)
        return
    taken = load_weights(store.take("vgg19", path).path)
    assert taken.preprocessing == CAFFE
    for convolution, kernel in zip(taken.convolutions, official, strict=True):
        np.testing.assert_array_equal(convolution.kernel, kernel)
