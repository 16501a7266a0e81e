"""What a transfer was given, read and checked, and the devices with the network that it works on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.device import Device, Pooling
from ..kernels.errors import DeviceError
from ..kernels.open import open_devices
from ..weights import Weights
from .checks import Colors
from .costs.known_targets import KnownTargets
from .costs.objective import Reduction
from .costs.places import Claims
from .costs.statistics import registry
from .costs.statistics.tuning import Tuning
from .imaging import files
from .imaging.codecs import strips
from .imaging.colors import is_gray
from .imaging.masks import read
from .imaging.resize import resized
from .imaging.transparency import visible
from .model.network import Network, build
from .style import ReadStyle, Source, Style, read_styles
from .types import Image


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that stays as it is from scale to scale."""

    weights: Weights
    device: Device
    network: Network
    content: Image
    """(h, w, 3), as read, or at the size of the result where that is much smaller."""
    content_name: str
    alpha: NDArray[np.float32] | None
    """The content's transparency, (h, w)."""
    styles: tuple[ReadStyle, ...]
    claims: Claims
    """Which style is wanted where."""
    size: int | None
    """The long side asked for, in pixels."""
    shape: tuple[int, int, int]
    """(H, W, 3) of the result."""
    border: int
    content_taps: tuple[str, ...]
    style_taps: tuple[str, ...]
    statistics: str
    """As `costs.statistics.registry` spells them."""
    tuning: Tuning
    """Of those."""
    reduction: Reduction
    colors: Colors
    gray: bool
    """Whether content and styles have no colors."""
    seed: int
    known: KnownTargets | None = None
    """Style targets that were measured before."""

    @property
    def names(self) -> Mapping[str, str]:
        """Of the pictures."""
        return {"content": self.content_name, "style": ", ".join(style.name for style in self.styles)}


def read_inputs(
    content: Source,
    style: Source | Style | Sequence[Source | Style],
    content_mask: Source | None,
    *,
    weights: Weights,
    device: Device,
    network: Network,
    style_scale: float,
    mask_feather: int,
    size: int | None,
    border: int,
    content_taps: tuple[str, ...],
    style_taps: tuple[str, ...],
    statistics: str | Mapping[str, float],
    tuning: Tuning,
    reduction: Reduction,
    colors: Colors,
    seed: int,
    known: KnownTargets | None,
) -> Inputs:
    """Reads the pictures and masks; raises ImageError or SettingsError."""
    picture = visible(files.read(content))
    keep = None if content_mask is None else read(content_mask, "the content mask")
    styles = read_styles(style, style_scale)
    height, width, _ = picture.pixels.shape
    height, width = (height, width) if size is None else files.output_size(height, width, size)
    claims = Claims(styles, keep, (height, width), mask_feather)
    gray = is_gray(picture.pixels) and all(is_gray(style.pixels) for style in styles)
    pixels = picture.pixels
    if pixels.size > 3 * strips.LARGE and height * width <= strips.LARGE:
        pixels = resized(device, pixels, (height, width))  # every scale would go through all of it again
    return Inputs(
        weights, device, network, pixels, picture.name, picture.alpha, styles, claims, size, (height, width, 3), border,
        content_taps, style_taps, registry.spelled(statistics), tuning, reduction, colors, gray, seed, known,
    )  # fmt: skip


class Opened:
    """Devices that are opened once, with what transfers on them have in common: packed networks and style targets.

    Transfers that share one are used one after the other. Raises DeviceError, as `kernels.open_devices` does.
    """

    def __init__(self, device: str = "auto", precision: str = "auto", threads: int | None = None) -> None:
        self._asked = device, precision, threads
        self._devices: dict[str, Sequence[Device]] = {}
        self._networks: dict[tuple[str, ...], list[tuple[Device, Network]]] = {}
        self.targets = KnownTargets()

    def networks(self, weights: Weights, deepest: str, pooling: Pooling) -> list[tuple[Device, Network]]:
        """Every device with its network. Where `auto` is a precision that can't take the weights, fp32 is."""
        key = (weights.checksum, repr(weights.preprocessing), deepest, pooling)
        if key not in self._networks:
            devices = self._open(self._asked[1])
            try:
                self._networks[key] = _packed(devices, weights, deepest, pooling)
            except DeviceError as problem:
                if self._asked[1] != "auto" or devices[0].precision == "fp32":
                    raise
                logging.getLogger("nstgpu").info("working in fp32: %s", problem)
                self._networks[key] = _packed(self._open("fp32"), weights, deepest, pooling)
        return self._networks[key]

    def _open(self, precision: str) -> Sequence[Device]:
        if precision not in self._devices:
            self._devices[precision] = open_devices(self._asked[0], precision, self._asked[2])
        return self._devices[precision]


def open_networks(
    device: str | Device | Sequence[Device] | Opened, precision: str, threads: int | None, weights: Weights,
    deepest: str, pooling: Pooling,
) -> list[tuple[Device, Network]]:  # fmt: skip
    """Every device with its network, opened unless it is."""
    opened = Opened(device, precision, threads) if isinstance(device, str) else device
    if isinstance(opened, Opened):
        return opened.networks(weights, deepest, pooling)
    return _packed(opened if isinstance(opened, Sequence) else [opened], weights, deepest, pooling)


def _packed(
    devices: Sequence[Device], weights: Weights, deepest: str, pooling: Pooling
) -> list[tuple[Device, Network]]:
    return [(device, build(device, weights, deepest, pooling)) for device in devices]
