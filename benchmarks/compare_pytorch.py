"""One iteration of nstgpu against one of PyTorch: the same work, in turn, in one process, on this machine.

    python benchmarks/compare_pytorch.py --device cpu [--sizes 256 512 1024] [--markdown FILE]
    python benchmarks/compare_pytorch.py --device cuda [--sizes 256 512 1024 2048] [--dry-run]

`both_sides` has the work: one gradient of the classic cost. Gradients are compared before anything is timed. On the CPU
PyTorch runs channels_last with the best of all thread counts up to the cores, and peak memory is each side's own, in a
process of its own. What is compared on a GPU is said in `gpu_comparison`; --dry-run goes through all of that at a tiny
size without one. PyTorch is needed for this script alone.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from both_sides import PyTorch, gram_error, noise, to_host, transfer, weights_of  # type: ignore[import-not-found]

from nstgpu import Weights
from nstgpu.kernels import open_device
from nstgpu.kernels.cpu.openblas import find_openblas
from nstgpu.weights import Convolution


def mine(weights: Weights, size: int) -> Callable[[], Any]:
    of = noise(size)
    one = transfer(weights, of, "cpu")
    return lambda: one.cost_and_gradient(of[2])[1]


def theirs(weights: Weights, size: int) -> Callable[[], Any]:
    other = PyTorch(weights, noise(size), "cpu")
    return lambda: to_host(other.gradient())


REST = 0.02
"""Seconds before each measurement: PyTorch's threads wait at full speed for some milliseconds after its turn."""


def timed(work: Callable[[], Any]) -> float:
    time.sleep(REST)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best_threads(weights: Weights, size: int) -> int:
    """The thread count at which PyTorch is fastest here."""
    import torch

    work = theirs(weights, size)
    times = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        torch.set_num_threads(threads)
        work()
        times[threads] = min(timed(work) for _ in range(2))
    return min(times, key=times.__getitem__)


def compare(model: str, size: int, rounds: int) -> dict[str, Any]:
    import torch

    weights = weights_of(model)
    torch.set_num_threads(best_threads(weights, size))
    sides = {"nstgpu": mine(weights, size), "pytorch": theirs(weights, size)}
    error = gram_error(sides["nstgpu"](), sides["pytorch"]())
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        for side, run in sides.items():
            seconds = timed(run)
            if turn:  # the first warms up
                times[side].append(seconds)
    median = {side: statistics.median(values) for side, values in times.items()}
    memory = {side: peak_memory(model, size, side) for side in times}
    return {
        "model": model,
        "size": size,
        "seconds": median,
        "spread": {side: (max(values) - min(values)) / median[side] for side, values in times.items()},
        "ratio": median["nstgpu"] / median["pytorch"],
        "memory": memory,
        "memory ratio": memory["nstgpu"] / memory["pytorch"],
        "gram_error": error,
    }


def peak_memory(model: str, size: int, side: str) -> float:
    """Bytes that two iterations add to a fresh process which has its library and its weights loaded."""
    command = [sys.executable, __file__, "--measure-memory", side, "--models", model, "--sizes", str(size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(side: str, model: str, size: int) -> None:
    weights = weights_of(model)
    if side == "pytorch":
        import torch

        torch.zeros(1)
    before = _status("VmRSS")
    work = mine(weights, size) if side == "nstgpu" else theirs(weights, size)
    for _ in range(2):
        work()
    print(_status("VmHWM") - before)


def _status(field: str) -> int:
    """Bytes from /proc/self/status. Unlike getrusage's peak, its VmHWM does not begin at the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def layers(size: int, rounds: int) -> list[dict[str, Any]]:
    """Each convolution by itself, forward with its ReLU and the gradient of its input, both sides in turn."""
    results, side, block = [], size, 1
    for convolution in weights_of("vgg19").convolutions[:13]:
        if convolution.block != block:
            side, block = side // 2, convolution.block
        channels, width = convolution.kernel.shape[2:]
        median = one_layer(convolution, side, rounds)
        results.append({"layer": convolution.tap, "shape": f"{side}x{side} {channels}->{width}", **median})
    return results


def one_layer(convolution: Convolution, side: int, rounds: int) -> dict[str, float]:
    import torch
    from torch.nn import functional

    device = open_device("cpu")
    channels, width = convolution.kernel.shape[2:]
    rng = np.random.default_rng(0)
    x, g = rng.random((side, side, channels), np.float32), rng.random((side, side, width), np.float32)
    filters = device.pack_filters(convolution.kernel, convolution.bias)
    device.bind_workspace(device.allocate(device.workspace_bytes([(side, side, channels, width)])))
    out, dx = np.empty_like(g), np.empty_like(x)
    relu_mask = np.empty(*device.relu_mask_layout((side, side, width)))

    def channels_last(array: Any) -> Any:
        return torch.from_numpy(array.copy()).contiguous(memory_format=torch.channels_last)

    tx, tg = (channels_last(a.transpose(2, 0, 1)[None]) for a in (x, g))
    kernel, bias = channels_last(convolution.kernel.transpose(3, 2, 0, 1)), torch.from_numpy(convolution.bias.copy())
    work: dict[str, Callable[[], Any]] = {
        "forward nstgpu": lambda: device.conv3x3_relu(
            x, filters, out=out, relu_mask=relu_mask, pooling="max", pooled=None, pool_argmax=None
        ),
        "forward pytorch": lambda: functional.relu(functional.conv2d(tx, kernel, bias, padding=1), inplace=True),
        "gradient nstgpu": lambda: device.conv3x3_input_gradient(g, filters, out=dx, relu_mask=None, accumulate=False),
        "gradient pytorch": lambda: torch.ops.aten.convolution_backward(
            tg, tx, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            seconds = timed(run)
            if turn:  # the first warms up
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def table(results: list[dict[str, Any]], per_layer: list[dict[str, Any]], size: int) -> str:
    import torch

    openblas = find_openblas()
    products = f" (OpenBLAS's products for {openblas.get_corename().decode()})" if openblas else ""
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {processor()}, {os.cpu_count()} cores; NumPy {np.__version__}{products}, "
        f"PyTorch {torch.__version__}, {platform.python_implementation()} {platform.python_version()}",
        "",
        "| model | size | nstgpu | PyTorch | ratio | memory nstgpu | PyTorch | ratio | gradients differ by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['model']} | {r['size']}² | {r['seconds']['nstgpu']:.3g} s ± {r['spread']['nstgpu'] / 2:.0%} "
            f"| {r['seconds']['pytorch']:.3g} s ± {r['spread']['pytorch'] / 2:.0%} | **{r['ratio']:.2f}** "
            f"| {r['memory']['nstgpu'] / 2**20:.0f} MiB | {r['memory']['pytorch'] / 2**20:.0f} MiB "
            f"| **{r['memory ratio']:.2f}** | {r['gram_error']:.1e} |"
        )
    lines += [
        "",
        f"Each convolution by itself at {size}² (ms):",
        "",
        "| layer | shape | forward nstgpu | PyTorch | ratio | input gradient nstgpu | PyTorch | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in per_layer:
        cells = []
        for way in ("forward", "gradient"):
            ours, torchs = (r[f"{way} {side}"] for side in ("nstgpu", "pytorch"))
            cells += [f"{ours * 1e3:.1f}", f"{torchs * 1e3:.1f}", f"{ours / torchs:.2f}"]
        lines.append(f"| {r['layer']} | {r['shape']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def on_cpu(models: list[str], sizes: list[int], rounds: int, markdown: Path | None, json_file: Path | None) -> None:
    results = []
    for model in models:
        for size in sizes:
            results.append(compare(model, size, rounds))
            print(json.dumps(results[-1]), file=sys.stderr)
    text = table(results, layers(512, rounds), 512)
    print(text)
    if markdown:
        markdown.write_text(text)
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", help="256 512 1024, and 2048 on a GPU")
    parser.add_argument("--models", nargs="+", default=["vgg19", "mini"], choices=["vgg19", "thin", "mini"],
                        help="cpu only")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="5 on the CPU, at most 12 on a GPU")
    parser.add_argument("--markdown", type=Path, help="on a GPU results/cuda_DATE.md where none is given")
    parser.add_argument("--json", type=Path, help="on a GPU a line per measurement, as soon as it is made")
    parser.add_argument("--limit", type=float, default=float("inf"), help="cuda only: seconds after which to stop")
    parser.add_argument("--dry-run", action="store_true", help="cuda only: the emulator and PyTorch on the CPU")
    parser.add_argument("--what", choices=["all", "goals", "memory", "operations"], default="all",
                        help="cuda only: all there is, or what DESIGN's goals ask for, or a part")  # fmt: skip
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of `gpu_comparison`, in a process of its own
    parser.add_argument("--measure-memory", choices=["nstgpu", "pytorch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        from gpu_sections import work_through  # type: ignore[import-not-found]

        return int(work_through(json.loads(options.part)))
    if options.device == "cuda" or options.dry_run:
        from gpu_comparison import on_gpu  # type: ignore[import-not-found]

        sizes = options.sizes or ([32] if options.dry_run else [256, 512, 1024, 2048])
        rounds = options.rounds or (1 if options.dry_run else 12)
        return int(on_gpu(sizes, rounds, options.markdown, options.json, options.limit, dry=options.dry_run,
                          what=options.what))  # fmt: skip
    sizes = options.sizes or [256, 512, 1024]
    if options.measure_memory:
        measure_memory(options.measure_memory, options.models[0], sizes[0])
    else:
        on_cpu(options.models, sizes, options.rounds or 5, options.markdown, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
