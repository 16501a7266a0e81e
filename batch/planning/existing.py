"""What of a batch is there already: a picture with the recipe that it would be painted by."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runs.files import SUMS, checksum, checksums
from ...runs.recipes import told
from ...runs.transfer import decided
from ..tasks import Task

if TYPE_CHECKING:
    from ...weights import Weights

MACHINE = {"device": "auto", "precision": "auto", "tile": "auto", "threads": None}
"""What is the machine's to choose unless it is asked for: a picture painted on another one will do."""


def difference(task: Task, network: "Weights", of: Callable[[Path], str] = checksum) -> str | None:
    """In which option the picture that is there differs from the task; None if in nothing, "" if it says nothing.

    of: the checksum of a file that a task names. The version that painted it is not asked about.
    """
    from ...engine.errors import SettingsError
    from ...engine.imaging.files import ImageError
    from ...engine.reporting import recipe

    try:
        there = dict(recipe.load(task.output))
    except (SettingsError, ImageError):
        return ""
    options = decided(task.options, task.size, network)
    wanted = told(options, checksums(options, of))
    unasked = {name for name, open_value in MACHINE.items() if getattr(task.options, name) == open_value}
    for name in dict.fromkeys([*wanted, *there]):
        if name not in unasked | {recipe.VERSION_KEY} and _kind(name, wanted) != _kind(name, there):
            return name.removesuffix(SUMS)
    return None


def _kind(name: str, values: "Mapping[str, Any]") -> Any:
    """A value as it is compared: of several GPUs, any may have painted it."""
    value = values.get(name)
    return value.partition(":")[0] if name == "device" and isinstance(value, str) else value
