"""Everything that computes: the seam (`device`), the NumPy reference, and the fast devices tested against it.

What each of our kernels does can be had as a function on arrays of NumPy's, CuPy's, PyTorch's, JAX's or Numba's:
`functions` says how, docs/kernels_api.md shows it. Every name is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import release
    from .cost_functions import (
        content_cost,
        content_gradient,
        gram,
        mean,
        moments_cost,
        nearest_neighbors,
        neighbors_cost,
        neighbors_gradient,
        normalize_features,
        project,
        random_directions,
        sliced_cost,
        sliced_gradient,
        sort_rows,
        style_cost,
        style_gradient,
        tv_cost,
        w2_cost,
        w2_root,
    )
    from .device import Device
    from .errors import ArrayError, DeviceError, OutOfMemoryError
    from .functions import (
        PackedFilters,
        adam_step,
        conv3x3_input_gradient,
        conv3x3_relu,
        pack_filters,
        pool2x2,
        pool_input_gradient,
        relu_gradient,
        resize,
        unpack_relu_mask,
    )
    from .open import DEVICES, open_device, open_devices

__all__ = [
    "DEVICES",
    "ArrayError",
    "Device",
    "DeviceError",
    "OutOfMemoryError",
    "PackedFilters",
    "adam_step",
    "content_cost",
    "content_gradient",
    "conv3x3_input_gradient",
    "conv3x3_relu",
    "gram",
    "mean",
    "moments_cost",
    "nearest_neighbors",
    "neighbors_cost",
    "neighbors_gradient",
    "normalize_features",
    "open_device",
    "open_devices",
    "pack_filters",
    "pool2x2",
    "pool_input_gradient",
    "project",
    "random_directions",
    "release",
    "relu_gradient",
    "resize",
    "sliced_cost",
    "sliced_gradient",
    "sort_rows",
    "style_cost",
    "style_gradient",
    "tv_cost",
    "unpack_relu_mask",
    "w2_cost",
    "w2_root",
]

_COSTS = ("content_cost", "content_gradient", "gram", "mean", "moments_cost", "nearest_neighbors", "neighbors_cost",
          "neighbors_gradient", "normalize_features", "project", "random_directions",
          "sliced_cost", "sliced_gradient", "sort_rows", "style_cost", "style_gradient", "tv_cost", "w2_cost",
          "w2_root")  # fmt: skip
_HOMES = {
    "DEVICES": "open",
    "ArrayError": "errors",
    "Device": "device",
    "DeviceError": "errors",
    "OutOfMemoryError": "errors",
    "open_device": "open",
    "open_devices": "open",
    "release": "calls",
    **dict.fromkeys(_COSTS, "cost_functions"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES.get(name, 'functions')}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
