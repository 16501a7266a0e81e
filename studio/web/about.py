"""What the server can do: devices, weights, limits, and all settings. The page builds its form of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import __version__
from ..limits import Limits
from ..pictures.decoders import CAN_LIMIT
from ..settings import Program, Setting, presets

FORMATS = {
    "png": ("result-8.png", "image/png", 8),
    "png16": ("result.png", "image/png", 16),
    "tiff": ("result.tif", "image/tiff", 16),
    "jpeg": ("result.jpg", "image/jpeg", 8),
    "webp": ("result.webp", "image/webp", 8),
}
"""Of a finished picture: its file, its kind, and the bits of a channel."""


@dataclass(frozen=True)
class ShownLimits:
    """What a client may send at most."""

    upload_bytes: int
    request_bytes: int
    pixels: int
    styles: int
    queue: int


@dataclass(frozen=True)
class About:
    """The server, as a page wants to know it."""

    version: str
    devices: tuple[str, ...]
    """That paint, one run at a time on each."""
    weights: tuple[str, ...]
    """That are here; the first is the default."""
    layers: tuple[str, ...]
    """Of the default weights."""
    settings: tuple[Setting, ...]
    presets: dict[str, dict[str, Any]]
    limits: ShownLimits
    formats: tuple[str, ...]
    """That a picture can be downloaded in."""
    has_reports: bool
    decodes_within_limits: bool
    """Whether the system limits the memory of what decodes uploads."""


def look(program: Program, limits: Limits, devices: Sequence[str]) -> About:
    """Asks the machine; takes a moment, and is asked once."""
    from ...kernels.diagnose import choice
    from ...weights import WeightsError, default_weights, load_weights

    chosen = choice()[0] if "auto" in devices else ""
    try:
        layers = load_weights(default_weights()).taps
    except (WeightsError, OSError):
        layers = ()
    return About(
        version=__version__,
        devices=tuple(chosen if device == "auto" else device for device in devices),
        weights=program.weights,
        layers=tuple(layers),
        settings=tuple(program.settings.values()),
        presets=presets(),
        limits=ShownLimits(**{name: getattr(limits, name) for name in ShownLimits.__dataclass_fields__}),
        formats=tuple(FORMATS),
        has_reports=program.has_reports,
        decodes_within_limits=CAN_LIMIT,
    )
