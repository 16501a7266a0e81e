"""The course's ladders, rung by rung: time, TFLOP/s, and the share of what the chip could do at best.

    python benchmarks/ladder.py [--device cuda|model] [--shape 128,128,256,256]

On a GPU each kernel is timed in a CUDA graph that holds it many times, on what stays in the cache, and compared with
float64 at some pixels. `--device model` prints instead what bounds each rung on an H100 by the model below; that is no
measurement, and docs/course/ marks it so until there is one.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nstgpu.kernels import open_device
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import H200
from nstgpu.kernels.cuda.ladder.rungs import (
    CONV3X3,
    GRAM,
    SLICES,
    Rung,
    Shape,
    multiplications,
    packed_filters,
    tensor_maps,
)
from nstgpu.kernels.cuda.runtime import nvrtc
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.tensor_map import target_of
from nstgpu.kernels.cuda.storage import rounded, widened

CLOCK = 1.98e9
"""Of an H100 under load, in Hz: what nvidia-smi showed in results/h100_2026-11-26.md."""
LANES = 32  # of a warp; also the words that L1 or shared memory serves in a clock
SIMT = 128  # float32 multiply-adds of a multiprocessor in a clock
MMA_SYNC = H200.mma_per_clock  # bf16 multiply-adds by mma.sync; wgmma has H200.peak("bf16")


class Bound(NamedTuple):
    """What a rung cannot be faster than: multiply-adds of a multiprocessor in a clock, and why."""

    per_clock: float
    what: str


# L1 and shared memory answer one request of a warp, of up to 128 bytes in one line, in a clock.
BOUNDS = {
    "conv3x3_01_naive": Bound(LANES / 33, "L1: 32 lines of x and a float of filters for 32 multiplications"),
    "conv3x3_02_coalesced": Bound(LANES / 2, "L1: two requests for 32 multiplications"),
    "conv3x3_03_shared_tiles": Bound(LANES / 2, "shared memory: the same two requests"),
    "conv3x3_04_register_tiles": Bound(16 * LANES / 8, "shared memory: 8 requests for 16 x 32"),
    "conv3x3_05_vector_loads": Bound(SIMT, "fp32 units, while nothing waits"),
    "conv3x3_06_double_buffering": Bound(SIMT, "fp32 units"),
    "conv3x3_07_halo": Bound(SIMT, "fp32 units"),
    "conv3x3_08_mma_fragments": Bound(min(MMA_SYNC, 16 * 2048 / 24), "mma.sync, about even with 24 requests for 16"),
    "conv3x3_09_ldmatrix_pipeline": Bound(MMA_SYNC, "mma.sync"),
    "conv3x3_10_wgmma": Bound(H200.peak("bf16"), "wgmma"),
    "gram_01_naive": Bound(LANES / 2, "L1: two requests for 32 multiplications"),
    "gram_02_tiles": Bound(16 * LANES / 8, "shared memory, where there are blocks"),
    "gram_03_slices": Bound(16 * LANES / 8, "shared memory"),
    "gram_04_mma": Bound(MMA_SYNC, "mma.sync, while nothing waits"),
}


def busy_multiprocessors(ladder: tuple[Rung, ...], rung: Rung, shape: Shape) -> float:
    """That have a block with something to do."""
    across, down, slices = rung.grid(shape)
    blocks = across * down if ladder is CONV3X3 or rung is GRAM[0] else down * (down + 1) // 2
    return min(H200.multiprocessors, blocks * slices)


def by_model(ladder: tuple[Rung, ...], shape: Shape) -> None:
    """What each rung cannot be faster than on an H100."""
    print(f"{'rung':24} {'at best':>10} {'TFLOP/s':>9}  bound by (an H100, by the model, not measured)")
    for rung in ladder:
        bound, (_, down, _) = BOUNDS[rung.kernel], rung.grid(shape)
        share = 1.0 if ladder is CONV3X3 or rung is GRAM[0] else (down + 1) / (2 * down)  # that is not mirrored
        busy = busy_multiprocessors(ladder, rung, shape)
        seconds = share * multiplications(ladder, shape) / (bound.per_clock * busy * CLOCK)
        print(f"{rung.name:24} {seconds * 1e6:7.0f} us {rate(ladder, shape, seconds):9.1f}  {bound.what}")


def rate(ladder: tuple[Rung, ...], shape: Shape, seconds: float) -> float:
    """TFLOP/s"""
    return 2e-12 * multiplications(ladder, shape) / seconds


# ---- on a GPU -------------------------------------------------------------------------------------------------------
class Bench:
    """Launches of the ladders on a device, which is a GPU or, to try the way there, the emulator."""

    def __init__(self, device: CudaDevice) -> None:
        self.device, self.runtime = device, device.stream

    def held(self, values: Any) -> Any:
        room = self.device.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
        self.runtime.upload(np.ascontiguousarray(values), room)
        return room

    def launch(self, ladder: tuple[Rung, ...], rung: Rung, shape: Shape) -> tuple[Launch, float]:
        """The launch, and the largest error among some values of its result, as a share of the largest of them."""
        height, width, channels_in, channels_out = shape
        rng = np.random.default_rng(0)
        x = np.maximum(rng.standard_normal((height, width, channels_in), np.float32), 0)

        def store(values: Any) -> Any:
            return rounded(values, "bf16") if rung.precision == "bf16" else values

        pixels = self.held(store(x))
        if ladder is GRAM:
            out = self.held(np.zeros((channels_in, channels_in), np.float32))
            tiles = (channels_in // 64) ** 2
            workspace = (self.held(np.zeros((SLICES, channels_in, channels_in), np.float32)),
                         self.held(np.zeros(tiles, np.uint32))) if rung.sliced else ()  # fmt: skip
            args = (pixels, out, *workspace, np.int32(height * width), np.int32(channels_in))
        else:
            filters = rng.standard_normal((3, 3, channels_in, channels_out), np.float32) / (3 * channels_in**0.5)
            packed = self.held(store(packed_filters(filters, rung)))
            bias = self.held(np.zeros(channels_out, np.float32))
            out = self.held(store(np.zeros((height, width, channels_out), np.float32)))
            operands: tuple[Any, ...] = (pixels, packed)
            if rung.by_tensor_map:
                target = target_of(self.runtime)
                maps = tensor_maps(target.address(pixels), target.address(packed), shape)
                operands = tuple(target.encode(each) for each in maps)
            args = (*operands, bias, out, *map(np.int32, shape))
        launch = Launch(rung.kernel, rung.grid(shape), (*rung.block, 1), args, rung.shared_bytes)
        self.runtime.launch(launch)
        exact = widened(store(x), "bf16") if rung.precision == "bf16" else x
        ours = self.runtime.download(out)
        ours = widened(ours, "bf16") if ours.dtype == np.uint16 else ours
        if ladder is GRAM:
            rows = exact.reshape(-1, channels_in)[:, :2].astype(np.float64)
            expected = rows.T @ exact.reshape(-1, channels_in) / (height * width)
            error = np.abs(ours[:2] - expected).max() / np.abs(expected).max()
        else:
            known = widened(store(filters), "bf16") if rung.precision == "bf16" else filters
            padded = np.pad(exact, ((1, 1), (1, 1), (0, 0))).astype(np.float64)
            places = [(0, 0), (height - 1, width - 1), (height // 2, width // 3)]
            expected = np.array(
                [np.maximum(np.tensordot(padded[i : i + 3, j : j + 3], known, 3), 0) for i, j in places]
            )
            error = np.abs(np.array([ours[place] for place in places]) - expected).max() / expected.max()
        return launch, float(error)

    def seconds(self, launch: Launch) -> float:
        """Of one launch, the median of five graphs that hold it so often that each takes some milliseconds."""
        few = self.graph(launch, 3)
        few()
        count = max(1, min(200, round(0.005 / max(few() / 3, 1e-7)))) if self.device.measurable else 1
        many = self.graph(launch, count)
        return statistics.median([many() / count for _ in range(5 if self.device.measurable else 1)])

    def graph(self, launch: Launch, count: int) -> Callable[[], float]:
        """Seconds of a graph that launches it so often, each time it is called."""

        def work() -> None:
            for _ in range(count):
                self.runtime.launch(launch)

        repeat = self.runtime.capture(work)
        return lambda: self.device.elapsed(repeat)


def measured(device: CudaDevice, ladder: tuple[Rung, ...], shape: Shape) -> None:
    runtime: Any = device.stream
    spec = runtime.spec
    rungs = [rung for rung in ladder if not rung.by_tensor_map or runtime.architecture == "sm_90a"]
    for cubin in nvrtc.compile_sources([rung.source for rung in rungs], runtime.architecture):
        runtime.load(cubin)
    bench = Bench(device)
    print(f"{'rung':24} {'time':>10} {'TFLOP/s':>9} {'of the peak':>12} {'error':>8}   {runtime.architecture}")
    for rung in rungs:
        launch, error = bench.launch(ladder, rung, shape)
        seconds = bench.seconds(launch)
        peak = 2e-12 * spec.peak(rung.precision) * spec.multiprocessors * CLOCK
        reached = rate(ladder, shape, seconds)
        print(f"{rung.name:24} {seconds * 1e6:7.1f} us {reached:9.2f} {reached / peak:12.1%} {error:8.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or model")
    parser.add_argument("--shape", default="128,128,256,256", help="H,W,C_in,C_out: relu3_2 at 512 px by default")
    options = parser.parse_args()
    height, width, channels_in, channels_out = map(int, options.shape.split(","))
    shape = height, width, channels_in, channels_out
    if channels_in % 64 or channels_out % 64:
        parser.error("channels must be multiples of 64, which the rungs are written for")
    for title, ladder in (("3x3 convolution", CONV3X3), ("Gram matrix", GRAM)):
        print(f"\n{title}, {height} x {width} x {channels_in}" + (f" -> {channels_out}" if ladder is CONV3X3 else ""))
        if options.device == "model":
            by_model(ladder, shape)
            continue
        device = open_device(options.device, "bf16")
        assert isinstance(device, CudaDevice), "the devices with CUDA kernels"
        measured(device, ladder, shape)
    return 0


if __name__ == "__main__":
    sys.exit(main())
