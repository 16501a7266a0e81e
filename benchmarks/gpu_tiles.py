"""Every tile and slicing of the convolutions and Grams on Hopper's tensor cores, timed: what `tile_model` is fitted to.

    python benchmarks/gpu_tiles.py --json FILE [--sizes 512 1024 256] [--limit 150] [--device cuda]

A line of JSON per measurement, as results/h100_tiles_2026-11-26.jsonl has them: microseconds of one launch (and of the
one that adds slices up) from a graph that holds it many times over, on what stays in the cache. `variant` says what the
epilogue has to do. The layers are VGG-19's from conv1_2 to conv5_1, one of each shape, in bf16. With --device emulator
one tiny layer is gone through, and only the way there is tried.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nstgpu.kernels import open_device
from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as conv
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import MULTIPROCESSORS
from nstgpu.kernels.cuda.gram import launch_wgmma_sm90 as gram
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.tensor_map import target_of
from nstgpu.kernels.cuda.storage import rounded

BLOCK_SECONDS, ROUNDS = 0.002, 5
SLICES = (1, 2, 3, 4, 6, 8, 12)


class Layer(NamedTuple):
    """A convolution at an image of `size` pixels: its own map has `side`."""

    name: str
    side: int
    channels_in: int
    channels_out: int


def layers(size: int) -> list[Layer]:
    shapes = {"1_2": (1, 64, 64), "2_1": (2, 64, 128), "2_2": (2, 128, 128), "3_1": (4, 128, 256),
              "3_2": (4, 256, 256), "4_1": (8, 256, 512), "4_2": (8, 512, 512), "5_1": (16, 512, 512)}  # fmt: skip
    return [Layer(name, size // down, *channels) for name, (down, *channels) in shapes.items()]


class Sweep:
    """Buffers of one layer on a device, and launches on them."""

    def __init__(self, device: CudaDevice, layer: Layer) -> None:
        self.device, self.layer = device, layer
        self.target = target_of(device.stream)
        rng = np.random.default_rng(0)
        side, inner, outer = layer.side, layer.channels_in, layer.channels_out
        kernel = (rng.standard_normal((3, 3, inner, outer)) / (3 * np.sqrt(inner))).astype(np.float32)
        packed = conv.pack_filters(kernel, np.zeros(outer, np.float32), "bf16")
        self.filters = packed._replace(
            forward=self._held(packed.forward), backward=self._held(packed.backward), bias=self._held(packed.bias)
        )
        self.x = self._held(rounded(np.maximum(rng.standard_normal((side, side, inner)), 0).astype(np.float32), "bf16"))
        self.out, self.gradient = self._like((side, side, outer)), self._like((side, side, outer), random=rng)
        self.back = self._like((side, side, inner))
        self.pooled = self._like((side // 2, side // 2, outer))
        self.pool_argmax = self._empty(*device.pool_argmax_layout((side // 2, side // 2, outer)))
        self.masks = {n: self._empty(*device.relu_mask_layout((side, side, n))) for n in {inner, outer}}
        self._workspaces: dict[int, Any] = {}

    def forward(self, work: conv.ConvPlan, variant: str) -> list[Launch]:
        """variant: "out" or "pooled+choice", and "+mask"."""
        layer, pools = self.layer, variant.startswith("pooled")
        needed = conv.partial_bytes(work, layer.side, layer.side, layer.channels_out)
        return conv.conv3x3_relu(
            self.x, self.filters, out=None if pools else self.out, pooling="max",
            relu_mask=self.masks[layer.channels_out] if "mask" in variant else None,
            pooled=self.pooled if pools else None, pool_argmax=self.pool_argmax if pools else None,
            workspace=self.workspace(needed), target=self.target, work=work,
        )  # fmt: skip

    def backward(self, work: conv.ConvPlan, variant: str) -> list[Launch]:
        """variant: "plain", "mask" or "mask+acc"."""
        layer = self.layer
        needed = conv.partial_bytes(work, layer.side, layer.side, layer.channels_in)
        return conv.conv3x3_input_gradient(
            self.gradient, self.filters, out=self.back, accumulate="acc" in variant,
            relu_mask=self.masks[layer.channels_in] if "mask" in variant else None,
            workspace=self.workspace(needed), target=self.target, work=work,
        )  # fmt: skip

    def gram(self, split_k: int) -> list[Launch]:
        side, _, channels = self.out.shape
        work = gram.choose_gram(side, side, channels, split_k)
        out = self._empty((self.layer.channels_out,) * 2, np.dtype(np.float32))
        return gram.gram(self.out, out, self.workspace(work.nbytes), self.target, split_k)

    def workspace(self, nbytes: int) -> Any:
        """As long as need be; what a launch does to it, the next may undo."""
        if nbytes not in self._workspaces:
            self._workspaces[nbytes] = self.device.allocate(nbytes)
            self.device.zero(self._workspaces[nbytes])
        return self._workspaces[nbytes]

    def microseconds(self, launches: Sequence[Launch]) -> float:
        """Of all of them, one after the other, the median over several blocks."""
        device = self.device
        few = self._graph(launches, 4)
        few()
        count = max(4, min(200, round(BLOCK_SECONDS / max(few() / 4, 1e-7)))) if device.measurable else 1
        block = self._graph(launches, count)
        block()
        return 1e6 * statistics.median(block() / count for _ in range(ROUNDS if device.measurable else 1))

    def _graph(self, launches: Sequence[Launch], count: int) -> Callable[[], float]:
        device = self.device
        if not device.measurable:
            count = 1

        def work() -> None:
            for _ in range(count):
                for launch in launches:
                    device.stream.launch(launch)

        repeat = device.stream.capture(work)
        return lambda: device.elapsed(repeat)

    def _held(self, values: Any) -> Any:
        room = self.device.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
        self.device.stream.upload(values, room)
        return room

    def _like(self, shape: tuple[int, int, int], random: Any = None) -> Any:
        values = np.zeros(shape, np.float32) if random is None else random.standard_normal(shape, np.float32)
        return self._held(rounded(values, "bf16"))

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._held(np.zeros(shape, dtype))


def works(layer: Layer, backward: bool) -> Iterator[conv.ConvPlan]:
    """Every tile; slices as long as one wave has room for about twice as many, and each has two steps."""
    side, inner, outer = layer.side, layer.channels_in, layer.channels_out
    if backward:
        inner, outer = outer, inner
    steps = 3 * -(-inner // 64)
    for tile in conv.TILES:
        if tile.channels > 64 and outer <= 64 and tile.swap_ab:
            continue
        for split_k in SLICES:
            if split_k > max(1, steps // 2):
                break
            work = conv.cut_up(tile, side, side, inner, outer, split_k)
            if split_k > 1 and work.items > 2 * MULTIPROCESSORS:
                break
            yield work


def measured(device: CudaDevice, size: int, layer: Layer) -> Iterator[dict[str, Any]]:
    sweep = Sweep(device, layer)
    variants = {"forward": ("out+mask", "out", "pooled+choice+mask", "pooled+choice"),
                "backward": ("mask", "plain", "mask+acc")}  # fmt: skip
    for way, names in variants.items():
        launched = sweep.forward if way == "forward" else sweep.backward
        for work in works(layer, way == "backward"):
            for variant in names[: None if work.split_k == 1 else 1]:
                yield {
                    "kind": "wgmma", "size": size, "layer": layer.name, "dir": way, "tile": work.tile.variant,
                    "slices": work.split_k, "items": work.items, "variant": variant,
                    "us": sweep.microseconds(launched(work, variant)),
                }  # fmt: skip
    default = gram.choose_gram(*sweep.out.shape)
    for split_k in sorted({1, 2, 4, 8, 16, 33, 66, 132, default.split_k}):
        if split_k == 1 or split_k <= 2 * default.split_k:
            try:
                launches = sweep.gram(split_k)
            except ValueError:
                continue  # more slices than steps
            yield {
                "kind": "gram", "size": size, "layer": layer.name, "channels": layer.channels_out, "slices": split_k,
                "default": split_k == default.split_k, "tiles": default.tiles, "us": sweep.microseconds(launches),
                "products_only": sweep.microseconds(launches[:1]),
            }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 256])
    parser.add_argument("--layers", nargs="+", help="1_2 2_1 ...; all are default")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which to stop")
    options = parser.parse_args()
    device = open_device(options.device, "bf16")
    assert isinstance(device, CudaDevice), "the devices with CUDA kernels"
    ends = time.monotonic() + options.limit
    todo = [(size, layer) for size in options.sizes for layer in layers(size)]
    if not device.measurable:
        todo = [(16, Layer("1_2", 16, 64, 64))]
    if options.layers:
        todo = [(size, layer) for size, layer in todo if layer.name in options.layers]
    count = 0
    with options.json.open("a") as file:
        for size, layer in todo:
            if time.monotonic() > ends:
                print(f"stopped after {options.limit:.0f} s, before {layer.name} at {size}")
                return 0
            for record in measured(device, size, layer):
                file.write(json.dumps(record) + "\n")
                count += 1
            file.flush()
    print(f"{count} measurements")
    return 0


if __name__ == "__main__":
    sys.exit(main())
