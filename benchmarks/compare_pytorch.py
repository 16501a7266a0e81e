"""One iteration of nstgpu against one of PyTorch: the same work, in turn, in one process, on this machine.

    python benchmarks/compare_pytorch.py --device cpu|cuda [--sizes 256 512 1024] [--markdown FILE]

The work is one gradient of the classic cost: VGG-19's convolutions to relu5_1, the Grams of five layers, the content
of relu4_2, and the gradient with respect to the pixels. Both sides get the same weights and images, and their gradients
are compared before anything is timed. PyTorch runs channels_last with the best of all thread counts up to the cores.
Peak memory is each side's own, in a process of its own. On a GPU PyTorch is timed in strict fp32, with TF32 and in
bf16, all channels_last with cudnn.benchmark; both sides bring the gradient back to the host. PyTorch is needed for this
script alone.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nstgpu import StyleTransfer, Weights, load_weights
from nstgpu.kernels import open_device
from nstgpu.weights import Convolution

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_2"
THIN = (16, 32, 64, 128, 128)  # widths of a thin VGG-19, block by block


def weights_of(model: str) -> Weights:
    """VGG-19's shapes, random; or the same chain with the widths of THIN."""
    weights = load_weights("random:0")
    if model == "vgg19":
        return weights
    thin, channels = [], 3
    for convolution in weights.convolutions:
        width = THIN[convolution.block - 1]
        scale = np.float32(np.sqrt(convolution.kernel.shape[2] / channels))
        kernel = np.ascontiguousarray(convolution.kernel[:, :, :channels, :width]) * scale
        thin.append(replace(convolution, kernel=kernel, bias=convolution.bias[:width]))
        channels = width
    return replace(weights, name="thin", convolutions=tuple(thin))


def images_of(size: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(size)
    return tuple(rng.random((size, size, 3), np.float32) for _ in range(3))  # type: ignore[return-value]


def ours(weights: Weights, size: int, device: str, threads: int | None) -> Callable[[], Any]:
    content, style, image = images_of(size)
    transfer = StyleTransfer(
        content, style, weights=weights, device=device, threads=threads, content_layers={CONTENT: 1.0},
        style_layers=dict.fromkeys(STYLE, 1.0), content_weight=1.0, style_weight=1.0, tv_weight=0.0,
    )  # fmt: skip
    return lambda: transfer.cost_and_gradient(image)[1]


def pytorch(weights: Weights, size: int, device: str, precision: str = "fp32") -> Callable[[], Any]:
    import torch
    from torch.nn import functional

    real = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.backends.cudnn.benchmark = True
    tf32 = precision == "tf32"

    def to_device(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, real)

    deepest = weights.taps.index(STYLE[-1]) + 1
    kernels = [
        to_device(c.kernel.transpose(3, 2, 0, 1)).contiguous(memory_format=torch.channels_last)
        for c in weights.convolutions[:deepest]
    ]
    biases = [to_device(c.bias.copy()) for c in weights.convolutions[:deepest]]
    p = weights.preprocessing
    scale = to_device(np.array([p.scale / std for std in p.std], np.float32)).view(1, 3, 1, 1)
    shift = to_device(np.array([-m / s for m, s in zip(p.mean, p.std, strict=True)], np.float32)).view(1, 3, 1, 1)

    def features(image: Any) -> dict[str, Any]:
        x = image[:, list(p.channels)] * scale + shift
        taps, block = {}, 1
        for convolution, kernel, bias in zip(weights.convolutions, kernels, biases, strict=False):
            if convolution.block != block:
                x, block = functional.max_pool2d(x, 2), convolution.block
            x = functional.relu(functional.conv2d(x, kernel, bias, padding=1), inplace=True)
            if convolution.tap in (*STYLE, CONTENT):
                taps[convolution.tap] = x
        return taps

    def gram(x: Any) -> Any:
        flat = x[0].permute(1, 2, 0).reshape(-1, x.shape[1])  # a view, since x is channels_last
        return flat.T @ flat / len(flat)

    content, style, image = (
        to_device(pixels.transpose(2, 0, 1)[None]).contiguous(memory_format=torch.channels_last)
        for pixels in images_of(size)
    )
    with torch.no_grad():
        target = features(content)[CONTENT].clone()
        grams = {tap: gram(x) for tap, x in features(style).items() if tap in STYLE}
    image.requires_grad_(True)

    def gradient() -> Any:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        taps = features(image)
        cost = ((taps[CONTENT] - target) ** 2).mean() / 2
        for tap in STYLE:
            cost = cost + ((gram(taps[tap]) - grams[tap]) ** 2).sum() / (4 * len(grams[tap]) ** 2)
        (result,) = torch.autograd.grad(cost, image)
        return result[0].permute(1, 2, 0).float().cpu().numpy()

    return gradient


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best_threads(weights: Weights, size: int) -> int:
    """The thread count at which PyTorch is fastest here."""
    import torch

    work = pytorch(weights, size, "cpu")
    times = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        torch.set_num_threads(threads)
        work()
        times[threads] = min(timed(work) for _ in range(2))
    return min(times, key=times.__getitem__)


def compare(model: str, size: int, rounds: int, device: str, precision: str) -> dict[str, Any]:
    weights = weights_of(model)
    if device == "cpu":
        import torch

        torch.set_num_threads(best_threads(weights, 256))
    theirs, mine = pytorch(weights, size, device, precision), ours(weights, size, device, None)
    expected = theirs()
    error = float(np.linalg.norm(mine() - expected) / np.linalg.norm(expected))
    times: dict[str, list[float]] = {"nstgpu": [], "pytorch": []}
    for turn in range(rounds + 1):
        for side, run in (("nstgpu", mine), ("pytorch", theirs)):
            seconds = timed(run)
            if turn:  # the first warms up
                times[side].append(seconds)
    median = {side: statistics.median(values) for side, values in times.items()}
    memory = {side: peak_memory(model, size, side, device, precision) for side in times}
    return {
        "model": model,
        "size": size,
        "precision": precision,
        "seconds": median,
        "spread": {side: (max(values) - min(values)) / median[side] for side, values in times.items()},
        "ratio": median["nstgpu"] / median["pytorch"],
        "memory": memory,
        "memory ratio": memory["nstgpu"] / memory["pytorch"],
        "difference": error,
    }


def peak_memory(model: str, size: int, side: str, device: str, precision: str) -> float:
    """Bytes that two iterations add to a fresh process which has its library and its weights loaded; of the device."""
    command = [sys.executable, __file__, "--measure-memory", side, "--models", model, "--sizes", str(size)]
    command += ["--device", device, "--precisions", precision]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(side: str, model: str, size: int, device: str, precision: str) -> None:
    weights = weights_of(model)
    if side == "pytorch":
        import torch

        torch.zeros(1)
    before = _status("VmRSS")
    work = ours(weights, size, device, None) if side == "nstgpu" else pytorch(weights, size, device, precision)
    for _ in range(2):
        work()
    if device == "cpu":
        print(_status("VmHWM") - before)
    elif side == "pytorch":
        print(torch.cuda.max_memory_reserved())
    else:
        import cupy

        print(cupy.get_default_memory_pool().total_bytes())


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
    mask = np.empty(*device.mask_layout((side, side, width)))

    def channels_last(array: Any) -> Any:
        return torch.from_numpy(array.copy()).contiguous(memory_format=torch.channels_last)

    tx, tg = (channels_last(a.transpose(2, 0, 1)[None]) for a in (x, g))
    kernel, bias = channels_last(convolution.kernel.transpose(3, 2, 0, 1)), torch.from_numpy(convolution.bias.copy())
    work: dict[str, Callable[[], Any]] = {
        "forward nstgpu": lambda: device.conv3x3_relu(
            x, filters, out=out, mask=mask, pooling="max", pooled=None, choice=None
        ),
        "forward pytorch": lambda: functional.relu(functional.conv2d(tx, kernel, bias, padding=1), inplace=True),
        "gradient nstgpu": lambda: device.conv3x3_input_gradient(g, filters, out=dx, mask=None, accumulate=False),
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

    machine = f"{processor()}, {os.cpu_count()} cores"
    if not per_layer:
        machine = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {machine}; NumPy {np.__version__}, "
        f"PyTorch {torch.__version__}, {platform.python_implementation()} {platform.python_version()}",
        "",
        "| model | size | nstgpu | PyTorch | | ratio | memory nstgpu | PyTorch | ratio | gradients differ by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['model']} | {r['size']}² | {r['seconds']['nstgpu']:.3g} s ± {r['spread']['nstgpu'] / 2:.0%} "
            f"| {r['precision']} | {r['seconds']['pytorch']:.3g} s ± {r['spread']['pytorch'] / 2:.0%} "
            f"| **{r['ratio']:.2f}** "
            f"| {r['memory']['nstgpu'] / 2**20:.0f} MiB | {r['memory']['pytorch'] / 2**20:.0f} MiB "
            f"| **{r['memory ratio']:.2f}** | {r['difference']:.1e} |"
        )
    if not per_layer:
        return "\n".join(lines) + "\n"
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
            mine, theirs = (r[f"{way} {side}"] for side in ("nstgpu", "pytorch"))
            cells += [f"{mine * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{mine / theirs:.2f}"]
        lines.append(f"| {r['layer']} | {r['shape']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "tf32", "bf16"], help="PyTorch's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--models", nargs="+", default=["vgg19", "thin"], choices=["vgg19", "thin"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure-memory", choices=["nstgpu", "pytorch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    precisions = options.precisions or (["fp32"] if options.device == "cpu" else ["fp32", "tf32", "bf16"])
    if options.measure_memory:
        measure_memory(options.measure_memory, options.models[0], options.sizes[0], options.device, precisions[0])
        return
    results = []
    for model in options.models:
        for size in options.sizes:
            for precision in precisions:
                results.append(compare(model, size, options.rounds, options.device, precision))
                print(json.dumps(results[-1]), file=sys.stderr)
    text = table(results, layers(512, options.rounds) if options.device == "cpu" else [], 512)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
