"""Which optimizers there are, by name. To add one, write its module and give it a line in OPTIMIZERS.

The module defines SPEC, an `OptimizerSpec` of `base`; everything else in the program asks that: the command line, the
run, the plan, the checkpoint. Modules are imported when they are asked for, so that the names alone cost nothing.
"""

import math
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import SettingsError

if TYPE_CHECKING:
    from ...kernels.device import Device
    from .base import Optimizer, OptimizerSpec

OPTIMIZERS = {
    "adam": "nstgpu.engine.optimizers.adam",
    "lbfgs": "nstgpu.engine.optimizers.lbfgs",
    "descent": "nstgpu.engine.optimizers.gradient_descent",
}
"""The module of each."""


def choices() -> str:
    """ "adam, lbfgs or descent", for a help text."""
    *others, last = OPTIMIZERS
    return f"{', '.join(others)} or {last}"


def spec(name: str) -> "OptimizerSpec":
    """What is known of the optimizer called `name`; raises SettingsError where there is none."""
    if name not in OPTIMIZERS:
        raise SettingsError(f"unknown optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    found: OptimizerSpec = import_module(OPTIMIZERS[name]).SPEC
    return found


def check(name: str, learning_rate: float | None) -> None:
    """Raises SettingsError for an optimizer or a learning rate that cannot be had."""
    spec(name)
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise SettingsError(f"the learning rate is {learning_rate}; it must be a finite number above zero")


def make(device: "Device", name: str, shape: tuple[int, ...], learning_rate: float | None) -> "Optimizer":
    """The optimizer called `name`, for images of this shape; raises SettingsError as `check`."""
    check(name, learning_rate)
    return spec(name).make(device, shape, learning_rate)
