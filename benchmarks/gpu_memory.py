"""Whether a run takes the memory that was forecast, and what a picture costs that fits in tiles alone.

    python benchmarks/gpu_memory.py [--device cuda] [--precision auto] [--limit 8]

First the peak of a run at --size against the forecast of `nstgpu plan`. Then one iteration at --large in the tiles that
the plan chooses for --limit GiB, with CuPy's pool kept to that, and its time per pixel against --whole in one piece.
VGG-19's shapes with random filters. With --device emulator all is tiny, and only the way there is tried.
"""

import argparse
import gc
import json
import statistics
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from both_sides import weights_of  # type: ignore[import-not-found]

from nstgpu import StyleTransfer, Weights
from nstgpu.engine.analysis.plan import Forecast, of_weights
from nstgpu.engine.model import taps
from nstgpu.kernels import open_device
from nstgpu.kernels.cuda.device import CudaDevice

GIB = 2**30
TOLERANCE = 0.1  # of a forecast


class Pool:
    """The device's memory: CuPy's pool, or NumPy's for the emulator."""

    def __init__(self, device: str) -> None:
        self._pool: Any = None
        if device.startswith("cuda"):
            import cupy

            self._pool = cupy.get_default_memory_pool()
        else:
            tracemalloc.start()

    def empty(self, limit: int = 0) -> None:
        """Gives back what nobody uses; hands out `limit` bytes at most from now on, 0 is all there is."""
        gc.collect()
        if self._pool is None:
            tracemalloc.reset_peak()
        else:
            self._pool.free_all_blocks()
            self._pool.set_limit(size=limit)

    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] if self._pool is None else int(self._pool.total_bytes())


def forecast(device: CudaDevice, weights: Weights, size: int, limit: int | None = None) -> Forecast:
    planned = of_weights(device, weights, taps.classic_content(weights.taps), taps.classic_style(weights.taps))
    return planned.forecast((size, size), "off" if limit is None else "auto", limit)


def one_run(device: CudaDevice, weights: Weights, size: int, tile: Any, iterations: int) -> StyleTransfer:
    pixels = np.random.default_rng(0).random((size, size, 3), np.float32)
    transfer = StyleTransfer(pixels, pixels[::-1], weights=weights, device=device, tile=tile)
    transfer.run(iterations, scales=1)
    return transfer


def nanoseconds_a_pixel(device: CudaDevice, transfer: StyleTransfer) -> float:
    """Of one iteration as a graph, the median of three."""
    objective = transfer.objective()
    repeat = device.stream.capture(lambda: objective.enqueue(objective.image, objective.gradient))
    repeat()
    return 1e9 * statistics.median(device.elapsed(repeat) for _ in range(3)) / transfer.shape[0] ** 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--limit", type=float, help="GiB; 8, or 0.03 on the emulator")
    parser.add_argument("--size", type=int, help="px; 1024, or 32")
    parser.add_argument("--whole", type=int, help="px; 2048, or 64")
    parser.add_argument("--large", type=int, help="px; 8192, or 256")
    parser.add_argument("--json", type=Path, help="a line per measurement, as soon as it is made")
    options = parser.parse_args()

    def keep(event: str, **values: float) -> None:
        if options.json is not None:
            with options.json.open("a") as file:
                file.write(json.dumps({"event": event, **values}) + "\n")

    tiny = options.device == "emulator"
    size, whole, large = options.size or (1024, 32)[tiny], options.whole or (2048, 64)[tiny], options.large
    large, limit = large or (8192, 256)[tiny], int((options.limit or (8, 0.03)[tiny]) * GIB)
    device, pool = open_device(options.device, options.precision), Pool(options.device)
    weights = weights_of("thin" if tiny else "vgg19")
    assert isinstance(device, CudaDevice), "the devices with CUDA kernels"

    expected = forecast(device, weights, size).device
    pool.empty()
    one_run(device, weights, size, "off", 3)
    apart = pool.peak() / expected - 1
    keep("forecast", size=size, peak=pool.peak(), forecast=expected)
    print(f"{size}x{size} {device.precision}: {pool.peak() / GIB:.3f} GiB, {expected / GIB:.3f} forecast, {apart:+.1%}")

    pool.empty()
    in_one = nanoseconds_a_pixel(device, one_run(device, weights, whole, "off", 1))
    print(f"{whole}x{whole} in one piece: {in_one:.3g} ns a pixel")

    planned = forecast(device, weights, large, limit)
    pool.empty(limit)
    transfer = one_run(device, weights, large, min(planned.cut.image.side), 1)
    tiled = nanoseconds_a_pixel(device, transfer)
    tiling = transfer.objective().tiling
    keep("tiles", size=large, whole=whole, peak=pool.peak(), limit=limit, ratio=tiled / in_one)
    print(
        f"{large}x{large} in {tiling} under {limit / GIB:.3g} GiB: {pool.peak() / GIB:.3f} GiB, "
        f"{planned.device / GIB:.3f} forecast; {tiled:.3g} ns a pixel, {tiled / in_one:.2f} times as many"
    )
    return int(not tiny and (abs(apart) > TOLERANCE or pool.peak() > limit))


if __name__ == "__main__":
    sys.exit(main())
