"""MatConvNet's `.mat` files of MATLAB 5, as VGG was first published in: read by SciPy where that is installed."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..model import MATCONVNET
from .tensors import ForeignWeights, Tensor, chain

SIGNATURE = b"MATLAB 5.0 MAT-file"
MAX_LAYERS = 1000
MAX_RATIO = 100
FREE_BYTES = 16 * 1024**2
_COMPRESSED = 15


def read(path: Path) -> ForeignWeights:
    """The VGG in the file; raises `WeightsError`, also where SciPy is missing."""
    try:
        import scipy.io
    except ImportError:
        raise WeightsError(
            "a MATLAB file (MatConvNet), which SciPy reads: pip install scipy, or get the same network with "
            "nstgpu weights fetch vgg19"
        ) from None
    _check_sizes(path)
    layers = scipy.io.loadmat(path, variable_names=["layers"], verify_compressed_data_integrity=True).get("layers")
    if layers is None or layers.dtype != object or layers.size > MAX_LAYERS:
        raise WeightsError(
            "a MATLAB file without MatConvNet's list of layers; give imagenet-vgg-verydeep-19.mat, or "
            "nstgpu weights fetch vgg19"
        )
    tensors = {}
    for cell in layers.flat:
        layer = _only(cell)
        names = getattr(getattr(layer, "dtype", None), "names", None) or ()
        if "name" not in names:
            continue
        name = str(_only(layer["name"]))
        if "weights" in names:
            arrays = [array for array in np.ravel(layer["weights"]) if isinstance(array, np.ndarray)]
            arrays = list(arrays[0].flat) if len(arrays) == 1 and arrays[0].dtype == object else arrays
        else:  # before 2015
            arrays = [layer[field] for field in ("filters", "biases") if field in names]
        for role, array in zip(("weight", "bias"), arrays, strict=False):
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.dtype.itemsize <= 8 and array.size:
                tensors[f"{name}.{role}"] = _held(array if role == "weight" else array.ravel())
    # MATLAB's own arrays are (rows, columns, …); some of the published files have them turned.
    return chain(tensors, "MatConvNet (.mat)", MATCONVNET, swapped=True)


def _held(array: Any) -> Tensor:
    precision = str(array.dtype.newbyteorder("=").name)
    return Tensor(array.shape, precision, lambda: array)


def _only(value: Any) -> Any:
    """What stands within MATLAB's arrays of one."""
    for _ in range(4):
        if not isinstance(value, np.ndarray) or value.size != 1:
            break
        value = value.flat[0]
    return value


def _check_sizes(path: Path) -> None:
    """Refuses a variable that would unpack to far more than the file has bytes."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(126)
        order = "little" if stream.read(2) == b"IM" else "big"
        at = 128
        while at + 8 <= size:
            stream.seek(at)
            head = stream.read(8)
            kind, length = (int.from_bytes(part, order) for part in (head[:4], head[4:]))  # type: ignore[arg-type]
            if at + 8 + length > size:
                raise WeightsError(f"a MATLAB file that is cut short at {size:,} bytes; fetch it again")
            if kind == _COMPRESSED:
                start = zlib.decompressobj().decompress(stream.read(min(length, 4096)), 8)
                unpacked = int.from_bytes(start[4:8], order)  # type: ignore[arg-type]
                if unpacked > max(FREE_BYTES, MAX_RATIO * length):
                    raise WeightsError(f"a variable in it unpacks from {length:,} to {unpacked:,} bytes: no weights")
            at += 8 + length
