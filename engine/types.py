"""What pictures and masks are in memory."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
"""Floats of any shape and precision."""

Image: TypeAlias = NDArray[np.floating[Any]]
"""(H, W, 3), RGB in [0, 1] unless said otherwise; of the precision that the device keeps images in."""

Mask: TypeAlias = NDArray[np.float32]
"""(H, W), 0 where something does not apply, 1 where it does, anything between at a soft edge."""
