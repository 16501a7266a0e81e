"""The frozen network: reading VGG-like weights from HDF5, checking them, and naming what was read.

Stands alone: nothing here imports the engine or the kernels. The engine takes the `Weights` that `load_weights` returns.
"""

from .model import Convolution, Preprocessing, Weights, WeightsError

__all__ = ["Convolution", "Preprocessing", "Weights", "WeightsError"]
