"""`convert`: the official layout from any other, and what it will not do."""

import shutil

import h5py
import numpy as np
import pytest

from nstgpu.weights import WeightsError, convert, inspect, load_weights


@pytest.mark.parametrize("layout", ["named", "numbered", "first_vgg"])
def test_any_layout_becomes_the_official_one(files, tmp_path, layout):
    source = getattr(files, layout)()
    written = convert(source, tmp_path / "out.h5")
    files.assert_equal(written)
    assert written.checksum == load_weights(source).checksum
    assert written.layout == "Keras weights (layer_names)"
    with h5py.File(tmp_path / "out.h5") as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
        assert names[:4] == ["block1_conv1", "block1_conv2", "block1_pool", "block2_conv1"]
        group = file["block1_conv1"]
        assert [group[name].shape for name in group.attrs["weight_names"]] == [(3, 3, 3, 4), (4,)]
    assert not list(tmp_path.glob("*.part"))


def test_the_same_input_gives_the_same_bytes(files, tmp_path):
    source = files.named()
    for name in ("a.h5", "b.h5"):
        convert(source, tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_half(files, tmp_path):
    written = convert(files.named(), tmp_path / "half.h5", half=True)
    assert {layer.precision for layer in inspect(tmp_path / "half.h5").layers} == {"float16"}
    for convolution, layer in zip(written.convolutions, files.layers, strict=True):
        np.testing.assert_array_equal(convolution.kernel, layer.kernel.astype(np.float16).astype(np.float32))


def test_half_refuses_what_it_cannot_hold(files, tmp_path):
    files.layers[1].bias = np.full_like(files.layers[1].bias, 1e5)
    with pytest.raises(WeightsError, match=r"relu1_2 has numbers beyond float16's 65504"):
        convert(files.named(), tmp_path / "half.h5", half=True)
    assert not (tmp_path / "half.h5").exists()


@pytest.mark.parametrize("tap", ["relu2_1", "block2_conv1"])
def test_up_to_a_tap(files, tmp_path, tap):
    files.assert_equal(convert(files.named(), tmp_path / "cut.h5", up_to=tap), files.layers[:3])


@pytest.mark.parametrize("tap", ["relu4_1", "relu9", "pool1"])
def test_up_to_a_tap_that_is_not_there(files, tmp_path, tap):
    with pytest.raises(WeightsError, match=f"no layer '{tap}'; it has relu1_1, relu1_2, relu2_1"):
        convert(files.named(), tmp_path / "cut.h5", up_to=tap)


def test_preprocessing_stays_with_the_file(files, tmp_path):
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    assert convert(files.named(), first, preprocessing="torchvision").preprocessing.name == "torchvision"
    assert load_weights(first).preprocessing.name == "torchvision"
    assert inspect(first).preprocessing == "torchvision"
    assert load_weights(first, preprocessing="caffe").preprocessing.name == "caffe"
    assert inspect(first, preprocessing="caffe").preprocessing == "caffe"
    assert convert(first, second).preprocessing.name == "torchvision"
    with h5py.File(second, "r+") as file:
        file.attrs["nstgpu_preprocessing"] = np.bytes_("other")
    with pytest.raises(WeightsError, match="its preprocessing 'other' is none of caffe, torchvision"):
        load_weights(second)


def test_kernels_of_which_nobody_knows(files, tmp_path):
    for layer in files.layers:
        layer.kernel = layer.kernel.transpose(3, 2, 0, 1)
    source = files.named(file="exported.h5")
    with pytest.raises(WeightsError, match="nstgpu weights convert with --theano"):
        convert(source, tmp_path / "out.h5")
    written = convert(source, tmp_path / "out.h5", theano=False, preprocessing="torchvision")
    np.testing.assert_array_equal(written.convolutions[0].kernel, files.layers[0].kernel.transpose(2, 3, 1, 0))


def test_the_input_is_never_overwritten(files, tmp_path):
    source = files.named()
    before = source.read_bytes()
    (tmp_path / "link.h5").symlink_to(source)
    for name in (source, tmp_path / "link.h5"):
        with pytest.raises(WeightsError, match="is the input and would be overwritten"):
            convert(source, name, half=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("out.keras", r"\.h5 or \.hdf5"),
        ("th_kernels.h5", "marks Theano"),
        ("file/out.h5", "file is no folder"),
        ("d.h5", "a dir"),
    ],
)
def test_destinations_that_will_not_do(files, tmp_path, name, told):
    (tmp_path / "file").touch()
    (tmp_path / "d.h5").mkdir()
    with pytest.raises(WeightsError, match=told):
        convert(files.named(), tmp_path / name)


def test_a_failure_leaves_what_was_there(files, tmp_path, monkeypatch):
    destination = tmp_path / "out.h5"
    shutil.copy(files.named(), destination)
    before = destination.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=r"out\.h5: cannot be written .*No space left"):
        convert(files.named(), destination, half=True)
    assert destination.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_true_filters_survive(shared_data, tmp_path):
    source = shared_data / "weights" / "vgg19_blocks1to3.h5"
    convert(source, tmp_path / "cut.h5", up_to="relu3_1")
    assert inspect(tmp_path / "cut.h5").official == "layers block1_conv1..block3_conv1 equal official VGG-19"
