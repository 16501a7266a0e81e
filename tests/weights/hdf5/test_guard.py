"""Damage on which HDF5 hangs, dies or fills the memory is found in the file's bytes; sound files pass."""

import io
import struct

import h5py
import numpy as np
import pytest

from nstgpu.weights import WeightsError, load_weights
from nstgpu.weights.hdf5.guard import check_bytes

UNLIKELY = 0xCE00000C


def patched(path, at, content):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return bytes(data)


def heap_objects(data):
    """(offset, index, size) of each object in the file's one heap."""
    at = data.index(b"GCOL") + 16
    end = at - 16 + struct.unpack_from("<Q", data, at - 8)[0]
    while at + 16 <= end:
        index, size = struct.unpack_from("<H6xQ", data, at)
        yield at, index, size
        at += 16 + -(-size // 8) * 8 if index else size


def refused(path):
    """The guard's words, which stand before HDF5 has the file in hand; `load_weights` says the same."""
    with pytest.raises(WeightsError) as caught:
        check_bytes(io.BytesIO(path.read_bytes()))
    with pytest.raises(WeightsError, match=f"{path}: "):
        load_weights(path)
    return str(caught.value)


@pytest.mark.parametrize("size", [0, 8, 2**64 - 16, 2**32])
def test_heap_whose_free_space_leads_nowhere(files, size):
    path = files.model_saved(nested=False, config=None)
    check_bytes(io.BytesIO(path.read_bytes()))
    at = next(at for at, index, _ in heap_objects(path.read_bytes()) if index == 0)
    patched(path, at + 8, struct.pack("<Q", size))
    assert "heap of text is damaged (object 0" in refused(path)


@pytest.mark.parametrize("size", [2**64 - 16, 2**64 - 1, 2**63, 5000])
def test_heap_with_an_object_that_leads_back_or_out(files, size):
    path = files.model_saved(nested=False, config=None)
    at = next(at for at, index, _ in heap_objects(path.read_bytes()) if index == 2)
    patched(path, at + 8, struct.pack("<Q", size))
    assert "heap of text is damaged (object 2" in refused(path)


def test_text_that_claims_more_than_the_file(files):
    path = files.model_saved(nested=False, config=None)
    data = path.read_bytes()
    address, size = struct.pack("<Q", data.index(b"GCOL")), next(heap_objects(data))[2]
    at = data.index(struct.pack("<I", size) + address + struct.pack("<I", 1))
    patched(path, at, struct.pack("<I", UNLIKELY))
    assert f"claims {UNLIKELY:,} bytes" in refused(path)


def test_index_that_goes_round_in_a_circle(files):
    path = files.named()
    tree = path.read_bytes().index(b"TREE")
    patched(path, tree + 16, struct.pack("<Q", tree))
    assert "in a circle" in refused(path)


@pytest.mark.parametrize("front", [512, 4096])
def test_file_behind_a_users_own_block(files, front):
    path = files.model_saved(nested=False, config=None)
    content = path.read_bytes()
    path.write_bytes(b"\0" * front + content)
    with h5py.File(path) as file:
        assert "model_weights" in file
    tree = front + content.index(b"TREE")
    patched(path, tree + 16, struct.pack("<Q", tree - front))
    assert "in a circle" in refused(path)


def compressed(files, **settings):
    path = files.named()
    with h5py.File(path, "r+") as file:
        for layer in files.layers:
            group = file[layer.name]
            for name in list(group):
                numbers = group[name][...]
                del group[name]
                group.create_dataset(name, data=numbers, **settings)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"fletcher32": True},
        {"shuffle": True},
        {"chunks": True},
        {"compression": "lzf", "fletcher32": True},
    ],
    ids=lambda settings: "+".join(settings),
)
@pytest.mark.parametrize("dtype", [">f4", "<f8"])
def test_compressed_numbers_are_read(files, settings, dtype):
    for layer in files.layers:
        layer.kernel, layer.bias = layer.kernel.astype(dtype), layer.bias.astype(dtype)
    files.assert_equal(load_weights(compressed(files, **settings)))


def test_chunks_that_do_not_divide_the_shape(files):
    path = files.named()
    with h5py.File(path, "r+") as file:
        group = file["block2_conv1"]
        del group["block2_conv1_W_1:0"]
        group.create_dataset(
            "block2_conv1_W_1:0", data=files.layers[2].kernel, chunks=(2, 3, 3, 5), compression="gzip", shuffle=True
        )
    files.assert_equal(load_weights(path))


@pytest.mark.parametrize("size", [0, 3, 4, 2**31])
def test_chunk_of_a_size_it_cannot_have(files, size):
    path = compressed(files, fletcher32=True, shuffle=True, compression="gzip")
    with h5py.File(path) as file:
        stored = file["block1_conv2/block1_conv2_W_1:0"].id.get_chunk_info(0).size
    key = struct.pack("<II5Q", stored, 0, 0, 0, 0, 0, 0)
    data = path.read_bytes()
    assert data.count(key) == 1
    patched(path, data.index(key), struct.pack("<I", size))
    with pytest.raises(WeightsError, match=r"block1_conv2_W_1:0' (has|gives)"):
        load_weights(path)


@pytest.mark.parametrize("settings", [{"fletcher32": True}, {"compression": "gzip"}])
def test_numbers_that_were_changed_in_a_chunk(files, settings):
    path = compressed(files, **settings)
    with h5py.File(path) as file:
        at = file["block1_conv2/block1_conv2_W_1:0"].id.get_chunk_info(0).byte_offset
    patched(path, at + 40, bytes([path.read_bytes()[at + 40] ^ 1]))
    with pytest.raises(WeightsError, match=r"a checksum in|cannot be unpacked"):
        load_weights(path)


@pytest.mark.parametrize("chunks", [None, (3, 3, 2, 2)])
def test_numbers_that_were_never_written(files, chunks):
    path = files.named()
    with h5py.File(path, "r+") as file:
        del file["block1_conv2/block1_conv2_W_1:0"]
        file["block1_conv2"].create_dataset("block1_conv2_W_1:0", (3, 3, 4, 4), np.float32, chunks=chunks)
    with pytest.raises(WeightsError, match="never written"):
        load_weights(path)


def test_floating_point_of_an_odd_kind(files):
    path = files.named()
    odd = h5py.h5t.IEEE_F32LE.copy()
    odd.set_ebias(100)
    with h5py.File(path, "r+") as file:
        group = file["block1_conv1"]
        del group["block1_conv1_b_1:0"]
        h5py.h5d.create(group.id, b"block1_conv1_b_1:0", odd, h5py.h5s.create_simple((4,)))
    with pytest.raises(WeightsError, match="block1_conv1_b_1:0"):
        load_weights(path)
