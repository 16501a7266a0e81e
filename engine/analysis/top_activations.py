"""What excites a unit most: images stream past the network, and of each unit the strongest patches are kept.

Memory does not grow with the number of images: an image is forgotten when the next one comes, but for the few patches
that still lead. Which pixels a unit sees is left to `receptive_field`, the walk to `network`, and drawing to
`contact_sheets`.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...kernels.device import Array, Device, Pooling
from ...kernels.open import open_device
from ...weights import Weights
from ..errors import ImageError, SettingsError
from ..imaging import files
from ..imaging.resize import resized
from ..memory.arena import Buffer, allocate
from ..model import network, taps
from ..model.receptive_field import ReceptiveField, Window, receptive_fields

PER_UNIT = 9
SPARE = 3  # times as many units are watched as are wanted


@dataclass(frozen=True, eq=False)
class Excitation:
    """A place in an image that excites a unit, and what the unit sees there."""

    value: float
    """The unit's activation, above zero."""
    image: str
    row: int
    column: int
    window: Window
    """In pixels of the image as the network saw it; it may reach beyond the image, into the zero padding."""
    patch: NDArray[np.uint8]
    """The part of the window that lies on the image, (h, w, 3) RGB."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A channel of a tap with what excites it, strongest first; empty if nothing did."""

    tap: str
    index: int
    excitations: tuple[Excitation, ...]


class TopActivations:
    """Watches units while images pass, and keeps for each the patches that excite it most.

    weights: from `load_weights`. layers: the taps to watch; None takes them all. units: the indices to watch in each
    tap, or how many: then they are evenly spread over the channels, passing by those that nothing excites. per_unit:
    patches kept of each. size: the long side that larger images are shrunk to; None leaves all as they are. device: as
    for `StyleTransfer`, or an open one.

    From `per_unit` images on, a unit keeps one patch of an image at most, so that its patches differ; with fewer, an
    image may give several that do not overlap. Equal activations are ranked by the image's name, then row, then
    column: the order in which images come does not matter. Memory: one image with its activations, and for each unit
    watched at most 2 `per_unit` patches. Raises SettingsError or DeviceError, each one line.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        layers: Sequence[str] | None = None,
        units: int | Sequence[int] = 18,
        per_unit: int = PER_UNIT,
        size: int | None = None,
        device: str | Device = "auto",
        threads: int | None = None,
        pooling: Pooling = "max",
    ) -> None:
        if per_unit < 1:
            raise SettingsError(f"{per_unit} patches were asked for; at least 1 is needed")
        if size is not None and size < 1:
            raise SettingsError(f"the size is {size}; it must be at least 1 pixel")
        if layers is not None and not layers:
            raise SettingsError("no layer is to be watched; name at least one")
        self.taps = tuple(taps.resolve(weights.taps if layers is None else layers, weights.taps, weights.name))
        self.fields: dict[str, ReceptiveField] = {tap: receptive_fields(weights)[tap] for tap in self.taps}
        self.widths = {c.tap: c.kernel.shape[3] for c in weights.convolutions if c.tap in self.taps}
        """Channels of each tap."""
        self.images = 0
        """Seen so far."""
        watched = {tap: _watched(tap, width, units) for tap, width in self.widths.items()}
        self._leading = {tap: {i: _Leading() for i in indices} for tap, indices in watched.items()}
        self._count = units if isinstance(units, int) else None
        self._per_unit, self._size = per_unit, size
        self.device: Device = open_device(device, threads=threads) if isinstance(device, str) else device
        self._network = network.build(self.device, weights, self.taps[-1], pooling)
        self._reserved: tuple[tuple[int, int], network.Buffers, Array] | None = None

    def update(self, source: files.Picture | str | Path | Image.Image | NDArray[Any], name: str | None = None) -> None:
        """Shows the network an image (path, PIL image or array), called `name` or after its file.

        Raises ImageError for one that cannot be read or is too small to reach the deepest tap; the observer
        goes on as if it had not come. SettingsError if the weights overflow on it.
        """
        picture = files.read(source)
        called = picture.name if name is None else name
        height, width, _ = picture.pixels.shape
        if self._size is not None and max(height, width) > self._size:
            height, width = files.output_size(height, width, self._size)
        try:
            network.sizes(self._network, (height, width))
        except SettingsError:
            raise ImageError(
                f"{called} has {width}x{height} pixels, too few for {self.taps[-1]}; leave it out, or name layers "
                "that are less deep"
            ) from None
        shown = resized(self.device, picture.pixels, (height, width))
        buffers, image = self._reserve((height, width))
        self.device.upload(shown, image)
        network.forward(self.device, self._network, buffers, image)
        pixels = np.rint(shown * 255).astype(np.uint8)
        found = []
        for layer, b in zip(self._network.layers, buffers.layers, strict=True):
            if layer.tap in self.taps:  # one tap at a time comes down: together they are many times the image
                found.append((layer.tap, self._candidates(layer.tap, self.device.download(b.output), called)))
        self.images += 1
        for tap, candidates in found:
            self._take(tap, candidates, called, pixels)

    def units(self, tap: str) -> list[Unit]:
        """The units of a tap with what excites them so far, by index.

        Where they were not named, there are fewer than asked for if so few were excited; none at all, if none was.
        """
        few = self.images < self._per_unit
        leading = self._leading[tap].items()
        found = [Unit(tap, index, tuple(of.several if few else of.distinct)) for index, of in leading]
        if self._count is None:
            return found
        return _spread([unit for unit in found if unit.excitations], self._count)

    def _reserve(self, shape: tuple[int, int]) -> tuple[network.Buffers, Array]:
        """The arena for images of this size; kept for the next image, which often has the same."""
        if self._reserved is None or self._reserved[0] != shape:
            self._reserved = None  # the old arena goes before the new one comes
            buffers = network.reserve(self.device, self._network, shape, self.taps, backward=False)
            held = allocate(self.device, [Buffer("image", (*shape, 3), self.device.image_dtype, 0, 0)])
            self._reserved = shape, buffers, held["image"]
        return self._reserved[1:]

    def _candidates(self, tap: str, features: NDArray[Any], name: str) -> "dict[int, list[_Place]]":
        """Per unit the places in one image that might lead, strongest first: one, or while images are few several."""
        width = features.shape[1]
        watched = list(self._leading[tap])
        values = features[..., watched].reshape(-1, len(watched))
        peaks, flat = values.max(axis=0), values.argmax(axis=0)
        if not np.isfinite(peaks).all():
            raise SettingsError(
                f"the activations at {tap} are not finite on {name}; check the weights with `nstgpu weights inspect`"
            )
        if self.images < self._per_unit - 1:
            field = self.fields[tap]
            reach = (field.size - 1) // field.stride  # windows this many units apart still share a pixel
            columns = values.reshape(*features.shape[:2], -1)
            return {unit: _apart(columns[..., i], reach, self._per_unit) for i, unit in enumerate(watched)}
        rows, columns = np.divmod(flat, width)
        places = zip(peaks.tolist(), rows.tolist(), columns.tolist(), strict=True)
        return {unit: [place] for unit, place in zip(watched, places, strict=True) if place[0] > 0}

    def _take(self, tap: str, candidates: "dict[int, list[_Place]]", name: str, pixels: NDArray[np.uint8]) -> None:
        """Keeps those of an image's candidates that lead; the patches of the others are never cut out."""
        few = self.images < self._per_unit
        for unit, leading in self._leading[tap].items():
            if not few:
                leading.several.clear()
            for i, (value, row, column) in enumerate(candidates.get(unit, [])):
                lists = [*([leading.distinct] if i == 0 else []), *([leading.several] if few else [])]
                rank = (-value, name, row, column)
                lists = [kept for kept in lists if len(kept) < self._per_unit or rank < _rank(kept[-1])]
                if not lists:
                    break  # nor do the weaker ones that follow
                window = self.fields[tap].window(row, column)
                seen = window.clipped(*pixels.shape[:2])
                patch = pixels[seen.top : seen.bottom, seen.left : seen.right].copy()  # a view would keep the image
                for kept in lists:
                    insort(kept, Excitation(value, name, row, column, window, patch), key=_rank)
                    del kept[self._per_unit :]


_Item = TypeVar("_Item")
_Place = tuple[float, int, int]
"""Activation, row and column."""


class _Leading:
    """What excites one unit most so far, strongest first."""

    def __init__(self) -> None:
        self.distinct: list[Excitation] = []
        """At most one of an image."""
        self.several: list[Excitation] = []
        """Any number of an image that do not overlap; only while images are few."""


def _rank(excitation: Excitation) -> tuple[float, str, int, int]:
    return -excitation.value, excitation.image, excitation.row, excitation.column


def _apart(values: NDArray[Any], reach: int, count: int) -> list[_Place]:
    """The highest of (H, W) values above zero, then the highest more than `reach` away from it, and so on."""
    left, places = values.copy(), list[_Place]()
    while len(places) < count:
        row, column = (int(i) for i in np.unravel_index(left.argmax(), left.shape))
        if left[row, column] <= 0:
            break
        places.append((float(left[row, column]), row, column))
        left[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = 0
    return places


def _spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """`count` of the items, or all if there are fewer, evenly spread."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _watched(tap: str, width: int, units: int | Iterable[int]) -> list[int]:
    """The channels to watch, in order; where they are not named, more than wanted, since some may never be excited."""
    if isinstance(units, int):
        if units < 1:
            raise SettingsError(f"{units} units were asked for; at least 1 is needed")
        return _spread(range(width), SPARE * units)
    named = sorted(set(units))
    if not named:
        raise SettingsError("no unit is to be watched; name at least one")
    for unit in named:
        if not 0 <= unit < width:
            raise SettingsError(f"{tap} has no unit {unit}: its units are 0 to {width - 1}; choose others, or layers")
    return named
