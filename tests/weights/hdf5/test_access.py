"""Sound files that HDF5 is loath to open: locked ones, ones on file systems without locks, ones left open, ones packed
by a filter that is not here."""

import subprocess
import sys

import h5py
import pytest

from nstgpu.weights import WeightsError, load_weights

fcntl = pytest.importorskip("fcntl", reason="only POSIX has flock")


def test_file_that_another_program_has_locked_is_read(files):
    path = files.named()
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files.assert_equal(load_weights(path))


def test_file_that_another_program_has_open_to_write_is_read(files):
    path = files.named()
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        files.assert_equal(load_weights(path))
        other.communicate(b"")


def test_file_left_open_says_how_to_close_it(files):
    path = files.folder / "crash.h5"
    with h5py.File(path, "w", libver="latest") as file:
        files.write_named(file, files.layers)
        file.flush()
        left = path.read_bytes()
    path.write_bytes(left)
    with pytest.raises(WeightsError, match="left open by one that died; save it again, or run h5clear -s FILE"):
        load_weights(path)


def test_missing_filter_is_named(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        name = "block2_conv1/block2_conv1_W_1:0"
        kernel = file[name][...]
        del file[name]
        file.create_dataset(name, data=kernel, compression="lzf")
    files.assert_equal(load_weights(path))
    content = path.read_bytes()
    lzf, zstd = (32000).to_bytes(2, "little"), (32015).to_bytes(2, "little")
    at = content.index(b"lzf\0") - 8  # the filter's number, three numbers of two bytes, then its name
    assert content[at : at + 2] == lzf
    path.write_bytes(content[:at] + zstd + content[at + 2 :])
    with pytest.raises(WeightsError, match=r"not here: lzf \(32015\); pip install hdf5plugin, or save"):
        load_weights(path)
