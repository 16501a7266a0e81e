"""Files that Keras did not write: the ones that can be read go to their readers, of any other it is said what it is.

What a file is shows in its bytes; its name is asked only where these don't tell.
"""

import re
import zipfile
from pathlib import Path

from ..errors import WeightsError
from ..keras import archive
from . import caffe, matconvnet, numpy_files, pytorch, safetensors
from .tensors import ForeignWeights

START = 1024
FETCH = "nstgpu weights fetch vgg19 gets VGG-19"
_TENSORFLOW = f"load it with TensorFlow and save it with model.save_weights('vgg.weights.h5'), or {FETCH}"
_TENSORFLOW_TABLE = bytes.fromhex("57fb808b247547db")
"""The last bytes of a checkpoint's index."""
_BEGINNINGS = (
    (b"\x1f\x8b", "packed with gzip; unpack it (gunzip -k) and give the file that comes out"),
    (b"BZh", "packed with bzip2; unpack it (bunzip2 -k) and give the file that comes out"),
    (b"\xfd7zXZ\0", "packed with xz; unpack it (unxz -k) and give the file that comes out"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard; unpack it (unzstd) and give the file that comes out"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and give the weights file that is inside"),
    (b"Rar!", "a RAR archive; unpack it and give the weights file that is inside"),
    (b"version https://git-lfs", f"a Git LFS pointer in the file's place; git lfs pull brings the file, or {FETCH}"),
    (b"GGUF", f"a GGUF file of a language model, no VGG; {FETCH}"),
    (b"\x89PNG", "a picture (PNG) and no weights; the weights file belongs here"),
    (b"\xff\xd8\xff", "a picture (JPEG) and no weights; the weights file belongs here"),
    (b"GIF8", "a picture (GIF) and no weights; the weights file belongs here"),
    (b"II*\0", "a picture (TIFF) and no weights; the weights file belongs here"),
    (b"MM\0*", "a picture (TIFF) and no weights; the weights file belongs here"),
    (b"%PDF", f"a PDF document and no weights; {FETCH}"),
)
_SUFFIXES = (
    (r"\.data-\d{5}-of-\d{5}", f"the numbers of a TensorFlow checkpoint; {_TENSORFLOW}"),
    (r"\.pb", f"a TensorFlow graph; {_TENSORFLOW}"),
    (r"\.onnx", f"an ONNX model; export its state_dict from PyTorch as .pth or .safetensors, or {FETCH}"),
    (r"\.tflite", f"a TensorFlow Lite model, made for running only; {FETCH}"),
    (r"\.mlmodel", f"a Core ML model, made for running only; {FETCH}"),
    (r"\.t7", f"a Torch7 file; load it with Torch and save it as .pth, or {FETCH}"),
    (r"\.params", f"an MXNet file; {FETCH}"),
    (r"\.(part|partial|crdownload|download|tmp)", f"a download that is not finished; wait for it, or {FETCH}"),
)
_DAMAGED_ZIP = (
    "the beginning of a zip archive (a .pth, .keras or .npz) whose end is missing: the download was cut short; "
    "fetch it again"
)


def read_foreign(path: Path) -> ForeignWeights | None:
    """The VGG in a file of PyTorch, safetensors, NumPy, Caffe or MatConvNet; None where Keras's reader is to look.

    `path` is a plain file that is not HDF5. Raises `WeightsError`, which says what the file is and what to do, for
    anything else.
    """
    with path.open("rb") as stream:
        start = stream.read(START)
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 8))
        end = stream.read(8)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _in_zip(path)
    if start.startswith(b"\x80") and pytorch.LEGACY_SIGNATURE in start[:16]:
        return pytorch.read_legacy(path)
    if safetensors.is_safetensors(start, size):
        return safetensors.read(path)
    if start.startswith(numpy_files.SIGNATURE):
        return numpy_files.read_npy(path)
    if start.startswith(matconvnet.SIGNATURE):
        return matconvnet.read(path)
    if caffe.is_caffe(path):
        return caffe.read(path)
    raise WeightsError(_what(path, start, end))


def _in_zip(path: Path) -> ForeignWeights | None:
    try:
        opened = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise WeightsError(_DAMAGED_ZIP) from None
    with opened:
        names = opened.namelist()
        if archive.WEIGHTS in names or archive.CONFIG in names:
            return None
        if any(name.rpartition("/")[2] == "data.pkl" for name in names):
            return pytorch.read_zip(path, opened)
        if names and all(name.endswith(".npy") for name in names):
            return numpy_files.read_npz(path, opened)
    inside = [
        name for name in names if re.search(r"\.(h5|hdf5|keras|pth|pt|safetensors|npz|npy|mat|caffemodel)$", name)
    ]
    if inside:
        raise WeightsError(f"a zip archive around {inside[0]!r}; unpack it and give the file that is inside")
    if any(name.endswith("saved_model.pb") for name in names):
        raise WeightsError(f"a zip archive around a TensorFlow SavedModel; {_TENSORFLOW}")
    return None


def _what(path: Path, start: bytes, end: bytes) -> str:
    """What a file that cannot be read is, and what to do."""
    if not start:
        return f"empty: 0 bytes; the download failed, {FETCH}"
    for beginning, words in _BEGINNINGS:
        if start.startswith(beginning):
            return words
    if start[4:8] == b"TFL3":
        return f"a TensorFlow Lite model, made for running only; {FETCH}"
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it (tar xf) and give the weights file that is inside"
    if end == _TENSORFLOW_TABLE:
        return f"the index of a TensorFlow checkpoint; {_TENSORFLOW}"
    for suffix, words in _SUFFIXES:
        if re.search(suffix + "$", path.name, re.IGNORECASE):
            return words
    if not start.strip(b"\0"):
        return f"nothing but zero bytes where a file begins: the download was cut short; {FETCH}"
    if re.match(rb"\x80[\x02-\x05]", start):
        return (
            "a Python pickle, which is not opened, since it could run any program; save the weights as .pth by "
            f"torch.save(net.state_dict(), …), as .safetensors or .npz, or {FETCH}"
        )
    if re.match(rb"\x08[\x01-\x20](\x12|\x3a)", start):
        return f"a protocol buffer (an ONNX model?); save the state_dict from PyTorch as .pth, or {FETCH}"
    if re.search(r"\.(caffemodel)$", path.name, re.IGNORECASE):
        return caffe.DAMAGED
    return _text(start) or (
        "no weights file of a known kind: neither HDF5 nor a .keras archive, and none of PyTorch, safetensors, NumPy, "
        f"Caffe or MatConvNet; {FETCH}"
    )


def _text(start: bytes) -> str | None:
    try:
        text = start.decode("utf-8-sig", "strict" if len(start) < START else "ignore").lstrip()
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    if re.match(r"<(!doctype html|html|head|body)", text, re.IGNORECASE):
        return f"a web page in the weights' place (a login, or an error, was downloaded); {FETCH}"
    if text.startswith("<"):
        return f"XML, an error of the server in the weights' place; {FETCH}"
    if text.startswith(("{", "[")):
        if '"class_name"' in text or '"keras_version"' in text:
            return f"a Keras model's configuration without its weights; give the .h5 or .keras beside it, or {FETCH}"
        return f"JSON text and no weights; {FETCH}"
    if re.search(r"^\s*(layers?\s*\{|name\s*:)", text, re.MULTILINE):
        return f"a Caffe network's description without its weights; give the .caffemodel, or {FETCH}"
    return f"text and no weights; {FETCH}"
