"""nstgpu: neural style transfer by optimising pixels, with no deep-learning framework.

The public face and nothing else; every name is imported when it is first used, so that `import nstgpu` is instant.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch.batch import Batch
    from .engine.errors import NonFiniteCostError, SettingsError
    from .engine.imaging.files import ImageError
    from .engine.transfer import (
        Costs,
        FromTo,
        Progress,
        Relative,
        Result,
        RunState,
        Settled,
        Style,
        StyleTransfer,
        Tuning,
    )
    from .kernels import DeviceError, OutOfMemoryError
    from .weights import Weights, WeightsError, load_weights

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Costs",
    "DeviceError",
    "FromTo",
    "ImageError",
    "NonFiniteCostError",
    "OutOfMemoryError",
    "Progress",
    "Relative",
    "Result",
    "RunState",
    "SettingsError",
    "Settled",
    "Style",
    "StyleTransfer",
    "Tuning",
    "Weights",
    "WeightsError",
    "__version__",
    "load_weights",
]

_HOMES = {
    "Batch": "batch.batch",
    "Costs": "engine.transfer",
    "DeviceError": "kernels.errors",
    "FromTo": "engine.transfer",
    "ImageError": "engine.errors",
    "NonFiniteCostError": "engine.errors",
    "OutOfMemoryError": "kernels.errors",
    "Progress": "engine.transfer",
    "Relative": "engine.transfer",
    "Result": "engine.transfer",
    "RunState": "engine.transfer",
    "Settled": "engine.transfer",
    "SettingsError": "engine.errors",
    "Style": "engine.transfer",
    "StyleTransfer": "engine.transfer",
    "Tuning": "engine.transfer",
    "Weights": "weights",
    "WeightsError": "weights",
    "load_weights": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
