"""The walks through a network over images of one size, a tile at a time, in an arena that is given.

What a tile is stands in `geometry`; what one layer after another does, in `network`.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from ...kernels.device import Array, Device, StylePlace
from ..memory.arena import Buffer, cut, lay_out
from ..model import network
from ..model.network import Network
from ..types import Image
from .geometry import ROW_BYTES, TapTile, Tile, Tiling


class OnHost(NamedTuple):
    """An image in host memory, of which a device is sent the windows that it works on."""

    values: Image


WindowBytes = dict[tuple[int, frozenset[str], frozenset[str], frozenset[str], bool, bool, tuple[int, int]], int]
"""What windows take, by depth, taps, targets, taps that are carried, whether there is a way back, whether they are the
whole, and size."""


class TiledPass:
    """The walks through a network over images of one size, tile by tile, in an arena that is given.

    taps: where activations are looked at. backward: whether gradients are wanted; `targets` are then those of the taps
    where a whole target is looked at beside the activations. `known` is shared by walks through one network, or the
    head of it, on one device, which then don't count the same bytes twice.
    """

    def __init__(
        self, net: Network, cut_up: Tiling, taps: Collection[str], *, backward: bool = False,
        targets: Collection[str] = (), carried: Mapping[str, StylePlace] = MappingProxyType({}),
        known: "WindowBytes | None" = None,
    ) -> None:  # fmt: skip
        self.network, self.tiling = net, cut_up
        self._taps, self._targets, self._backward = taps, targets, backward
        self.carried = carried
        """The taps whose style the convolution behind them takes along (`network.plan`)."""
        self._known: WindowBytes = {} if known is None else known
        self._arena: Array = None
        self._rooms: dict[tuple[int, int], tuple[network.Buffers, Mapping[str, Array]]] = {}

    def nbytes(self, device: Device) -> int:
        """Of the arena that all its windows fit into, one at a time."""
        return max(self.window_bytes(device, size) for size in self.tiling.windows)

    def window_bytes(self, device: Device, size: tuple[int, int]) -> int:
        """Of the arena for windows of (H, W) `size` alone."""
        what = len(self.network.layers), frozenset(self._taps), frozenset(self._targets), frozenset(self.carried)
        key = (*what, self._backward, self.tiling.count == 1, size)
        if key not in self._known:
            self._known[key] = lay_out(self._planned(device, size))[1]
        return self._known[key]

    def place_in(self, arena: Array) -> None:
        """Works in this memory (uint8) from now on; it may be shared, by walks that take turns."""
        self._arena = arena
        self._rooms.clear()

    def forward(self, device: Device, tile: Tile, image: Array) -> dict[str, Array]:
        """The activations of a window at the taps, and what the way back needs, until the arena's next walk.

        The image is on the device or, where there are several tiles, `OnHost`.
        """
        network.forward(device, self.network, self.buffers(device, tile), self.pixels(device, tile, image))
        return self.activations(device, tile)

    def buffers(self, device: Device, tile: Tile) -> network.Buffers:
        """What the network writes for a window, until the arena's next pass."""
        return self._room(device, tile.size)[0]

    def pixels(self, device: Device, tile: Tile, image: Array) -> Array:
        """(h, w, 3): the window of the image, with its rows together."""
        return _window(device, image, tile.window, self._room(device, tile.size)[1].get("image"))

    def activations(self, device: Device, tile: Tile) -> dict[str, Array]:
        """What `forward` returned."""
        buffers, _ = self._room(device, tile.size)
        outputs = zip(self.network.layers, buffers.layers, strict=True)
        return {layer.tap: b.output for layer, b in outputs if b.output is not None}

    def target(self, device: Device, tile: Tile, part: TapTile, tap: str, whole: Array) -> Array:
        """What a whole target has at a piece of the tile that `forward` was at, until the gradient has left the tap."""
        room = self._room(device, tile.size)[1].get(f"{tap} target")
        return _window(device, whole, part.around, None if room is None else room[: part.shape[0]])

    def window_gradient(self, device: Device, tile: Tile) -> Array:
        """(h, w, 3): where the gradient of a window goes, until the arena's next pass. In tiles only."""
        own: Array = self._room(device, tile.size)[1]["addends"][0]
        return own

    def upload_window(self, device: Device, tile: Tile, values: Image) -> None:
        """Writes what another device has as `window_gradient`; the arena is used for it, as for a pass."""
        device.bind_workspace(self.buffers(device, tile).workspace)  # that of another window may lie where the sum will
        device.upload(values, self.window_gradient(device, tile))

    def add_window(self, device: Device, tile: Tile, gradient: Array) -> None:
        """Adds `window_gradient` to the gradient of the image (H, W, 3)."""
        _, rooms = self._room(device, tile.size)
        addends, total, place = rooms["addends"], rooms["sum"], gradient[tile.window]
        device.copy(place, addends[1])
        device.combine(addends.reshape(2, -1), (1.0, 1.0), total.reshape(-1))
        device.copy(total, place)

    def _room(self, device: Device, size: tuple[int, int]) -> tuple[network.Buffers, Mapping[str, Array]]:
        if size not in self._rooms:
            rooms = cut(self._arena, self._planned(device, size))
            self._rooms[size] = network.views(self.network, rooms), rooms
        return self._rooms[size]

    def _planned(self, device: Device, size: tuple[int, int]) -> list[Buffer]:
        """What is written in a window of (H, W) `size`; nothing but the network's own where that is the whole image."""
        planned = network.plan(device, self.network, size, self._taps, backward=self._backward, carried=self.carried)
        if self.tiling.count == 1:
            return planned
        planned.append(Buffer("image", (*size, 3), device.image_dtype, 0, 0))
        if self._backward:
            last = {buffer.name: buffer.last for buffer in planned}
            outputs = {f"{i}.output": layer.tap for i, layer in enumerate(self.network.layers)}
            planned += [
                replace(buffer, name=f"{outputs[buffer.name]} target", first=buffer.last)
                for buffer in planned
                if outputs.get(buffer.name) in self._targets
            ]
            added = last["input_gradient"]
            planned.append(Buffer("addends", (2, *size, 3), device.image_dtype, added, added + 1))
            planned.append(Buffer("sum", (*size, 3), device.image_dtype, added, added + 1))
        return planned


def _window(device: Device, whole: Array, at: tuple[slice, slice], room: Array | None) -> Array:
    """whole[at] with its rows together, as a device wants them: where they are, or copied to `room`.

    Without a room the window is the whole.
    """
    if room is None:
        return whole
    if isinstance(whole, OnHost):
        device.upload(whole.values[at], room)
        return room
    window = whole[at]
    if window.flags.c_contiguous and window[0].nbytes % ROW_BYTES == 0:
        return window
    device.copy(window, room)
    return room
