"""Style targets that have been measured before, kept for the next picture in the same style at the same size.

What is kept is known by all that decides it: the style's pixels as they are looked at, the network, the device. So a
target that comes from here is the one that would be measured, to the last bit.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ...kernels.device import Device
from ..types import Image, Mask
from .statistics.base import layouts

MOST_BYTES = 256 << 20
"""That are kept; what was used longest ago goes first, and what is larger by itself never stays."""

Group = TypeVar("Group")


class Known(NamedTuple):
    """One statistic's target of one style at one tap, in host memory."""

    energy: float
    fields: Mapping[str, Any]
    """Of the statistic's group: arrays, and what else was set in it."""


@dataclass(eq=False)
class KnownTargets:
    """Of the styles that transfers on the same devices have measured; used by one thread at a time."""

    most_bytes: int = MOST_BYTES

    def __post_init__(self) -> None:
        self._kept: OrderedDict[str, Mapping[tuple[str, str], Known]] = OrderedDict()
        self._bytes = 0

    def find(self, key: str) -> Mapping[tuple[str, str], Known] | None:
        """By statistic and tap."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: str, targets: Mapping[tuple[str, str], Known]) -> None:
        if key in self._kept or _nbytes(targets) > self.most_bytes:
            return
        self._kept[key] = targets
        self._bytes += _nbytes(targets)
        while self._bytes > self.most_bytes:
            self._bytes -= _nbytes(self._kept.popitem(last=False)[1])

    def take_over(self, others: "KnownTargets") -> None:
        """What others have kept, too: on another machine, it may be."""
        for key, targets in others._kept.items():
            self.keep(key, targets)


def key_of(pixels: Image, region: Mask | None, *others: object) -> str:
    """SHA-256 (hex) of a style as it is looked at, (h, w, 3) and (h, w), and of all else that decides its target."""
    digest = hashlib.sha256(repr(others).encode())
    for array in (pixels, region):
        digest.update(b"none" if array is None else repr((array.shape, array.dtype)).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def taken_down(device: Device, energy: float, target: Any, asked: Any) -> Known:
    """A target as it is kept; asked: the group as the statistic asks for it, with layouts in place of arrays."""
    buffers = layouts(asked)
    values = {name: getattr(target, name) for name in target.__dataclass_fields__}
    return Known(energy, {n: device.download(value) if n in buffers else value for n, value in values.items()})


def put_back(device: Device, known: Known, held: Group, asked: Any) -> Group:
    """The target again, in the buffers that are held for it."""
    buffers = layouts(asked)
    for name in buffers:
        device.upload(known.fields[name], getattr(held, name))
    return replace(held, **{name: value for name, value in known.fields.items() if name not in buffers})  # type: ignore[type-var]


def _nbytes(targets: Mapping[tuple[str, str], Known]) -> int:
    return sum(getattr(value, "nbytes", 0) for known in targets.values() for value in known.fields.values())
