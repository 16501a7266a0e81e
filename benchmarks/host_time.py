"""What an iteration costs the host: Python's share, with a device that does nothing.

    python benchmarks/host_time.py [--iterations 2000]

Everything is as on a GPU (a graph is launched, marked and waited for, costs come through the ring) but for CuPy's three
calls per iteration, which take nothing here. Without a graph every kernel is asked for one by one.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nstgpu import StyleTransfer, load_weights
from nstgpu.engine.optimizers.coarse_to_fine import Progress
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.device import Array


class IdleRuntime(EmulatorRuntime):
    """Memory is there, full of zeros, and launches do nothing."""

    def allocate(self, nbytes: int) -> Array:
        memory = super().allocate(nbytes)
        memory[...] = 0
        return memory

    def launch(self, launch: Launch) -> None:
        pass

    def capture(self, work: Callable[[], object]) -> Callable[[], None]:
        work()
        return lambda: None


class WithoutGraphs(CudaDevice):
    stream: Any = None


def microseconds(device: CudaDevice, iterations: int, on_iteration: Callable[[Progress], None] | None) -> float:
    """Per iteration, the best of five runs, with VGG-19's layers down to relu5_1."""
    pixels = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    transfer = StyleTransfer(pixels, pixels[::-1], weights=load_weights("random:0"), device=device)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        transfer.run(iterations, scales=1, on_iteration=on_iteration)
        times.append((time.perf_counter() - began) / iterations)
    return 1e6 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=2000)
    iterations = parser.parse_args().iterations
    for name, device in (("one graph", CudaDevice(IdleRuntime())), ("launch by launch", WithoutGraphs(IdleRuntime()))):
        few = iterations if device.stream is not None else max(1, iterations // 20)
        plain, watched = (microseconds(device, few, callback) for callback in (None, lambda _: None))
        print(f"{name}: {plain:.1f} us an iteration, {watched:.1f} us with a callback")


if __name__ == "__main__":
    main()
