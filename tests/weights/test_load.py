"""What `load_weights` takes apart from files, and what it gives."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from nstgpu.weights import WeightsError, load_weights


@pytest.fixture(scope="module")
def random_vgg():
    return load_weights("random:0")


def test_random_network_has_the_shapes_of_vgg19(random_vgg):
    shapes = [convolution.kernel.shape for convolution in random_vgg.convolutions]
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert shapes == [(3, 3, *pair) for pair in zip([3, *widths], widths, strict=False)]
    assert random_vgg.taps[0] == "relu1_1"
    assert random_vgg.taps[-1] == "relu5_4"
    assert (random_vgg.name, random_vgg.layout, random_vgg.preprocessing.name) == (
        "random:0",
        "generated",
        "caffe",
    )


def test_random_network_is_he_scaled(random_vgg):
    for convolution in random_vgg.convolutions:
        deviation = np.sqrt(2 / (9 * convolution.kernel.shape[2]))
        assert convolution.kernel.std() == pytest.approx(deviation, rel=0.05)
        assert convolution.kernel.dtype == np.float32
        assert not convolution.bias.any()
        assert not convolution.kernel.flags.writeable


def test_random_network_follows_its_seed(random_vgg):
    again = load_weights("random:0", preprocessing="torchvision")
    assert again.checksum == random_vgg.checksum
    assert again.preprocessing.name == "torchvision"
    assert load_weights("random:1").checksum != random_vgg.checksum


def test_checksum_is_what_its_documentation_says(files):
    content = b"".join(layer.kernel.tobytes() + layer.bias.tobytes() for layer in files.layers)
    assert load_weights(files.named()).checksum == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("spec", ["random:x", "random:", "random:-1", "random:1.5", "random:" + "9" * 5000])
def test_bad_seed(spec):
    with pytest.raises(WeightsError, match="the seed must be a whole number"):
        load_weights(spec)


@pytest.mark.parametrize("spec", ["vgg19", "vgg16"])
def test_names_that_were_not_fetched(spec):
    with pytest.raises(WeightsError, match=f"get them with nstgpu weights fetch {spec}$"):
        load_weights(spec)


def test_unknown_preprocessing():
    with pytest.raises(WeightsError, match="'imagenet' is not known; use one of caffe, torchvision"):
        load_weights("random:0", preprocessing="imagenet")


def test_a_path_may_be_text(files):
    files.assert_equal(load_weights(str(files.named()), preprocessing="torchvision"))


def test_import_does_not_load_h5py():
    code = "import sys, nstgpu.weights; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
