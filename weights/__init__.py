"""The frozen network: reading VGG-like weights from HDF5, checking them, and naming what was read.

Also gets the official files onto this machine and writes weights in their layout. Stands alone: nothing here imports
the engine or the kernels. The engine takes the `Weights` that `load_weights` returns. Importing this package is cheap:
h5py is imported when a file is first read, urllib when one is first fetched.
"""

from .convert import convert
from .errors import WeightsError
from .inspection import Inspection, LayerFacts, inspect
from .load import load_weights
from .model import Convolution, Preprocessing, Weights
from .official.store import KnownWeights, default_weights, fetch, known_weights, take, weights_folder

__all__ = [
    "Convolution",
    "Inspection",
    "KnownWeights",
    "LayerFacts",
    "Preprocessing",
    "Weights",
    "WeightsError",
    "convert",
    "default_weights",
    "fetch",
    "inspect",
    "known_weights",
    "load_weights",
    "take",
    "weights_folder",
]
