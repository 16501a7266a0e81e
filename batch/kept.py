"""What a batch reads once and keeps: networks, style pictures, checksums of what many pictures share."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..runs.files import checksum
from ..runs.settings import Options, styles_of
from ..runs.transfer import open_weights

if TYPE_CHECKING:
    from ..engine.imaging.picture import Picture
    from ..engine.inputs import Opened
    from ..engine.style import Style
    from ..weights import Weights

MOST_NETWORKS, MOST_STYLES, MOST_DEVICES = 4, 16, 2
"""That are held at a time; what was used longest ago goes first."""

T = TypeVar("T")


@dataclass(eq=False)
class Kept:
    """Of one process, and used by one thread at a time."""

    _networks: "OrderedDict[Hashable, Weights]" = field(default_factory=OrderedDict)
    _styles: "OrderedDict[Hashable, Picture]" = field(default_factory=OrderedDict)
    _opened: "OrderedDict[Hashable, Opened]" = field(default_factory=OrderedDict)
    _sums: dict[str, str] = field(default_factory=dict)

    def network(self, options: Options) -> "Weights":
        """The weights that a run takes; raises WeightsError."""
        key = (options.weights, options.weights_sha256, options.preprocessing)
        return _once(self._networks, key, lambda: open_weights(options), MOST_NETWORKS)

    def opened(self, options: Options) -> "Opened":
        """The devices that a run works on, with the networks and style targets that are kept there."""
        from ..engine.inputs import Opened

        key = (options.device, options.precision, options.threads)
        return _once(self._opened, key, lambda: Opened(*key), MOST_DEVICES)

    def styles(self, options: Options) -> "list[Style]":
        """The styles of a run, with their pictures read. Raises SettingsError and ImageError."""
        from ..engine.imaging import files

        def kept(style: "Style") -> "Style":
            path = str(style.picture)
            return replace(style, picture=_once(self._styles, path, lambda: files.read(path), MOST_STYLES))

        return [kept(style) for style in styles_of(options)]

    def checksum(self, path: Path) -> str:
        """SHA-256 (hex) of a file that many pictures share, as it was when it was first asked for."""
        key = str(path)
        if key not in self._sums:
            self._sums[key] = checksum(path)
        return self._sums[key]


def _once(kept: "OrderedDict[Hashable, T]", key: Hashable, make: Callable[[], T], most: int) -> T:
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
