"""The frozen network: reading VGG-like weights from HDF5, checking them, and naming what was read.

Stands alone: nothing here imports the engine or the kernels. The engine takes the `Weights` that
`load_weights` returns. Importing this package is cheap: h5py is imported when a file is first read.
"""

from .inspection import Inspection, LayerFacts, inspect
from .load import load_weights
from .model import Convolution, Preprocessing, Weights, WeightsError

__all__ = [
    "Convolution",
    "Inspection",
    "LayerFacts",
    "Preprocessing",
    "Weights",
    "WeightsError",
    "inspect",
    "load_weights",
]
