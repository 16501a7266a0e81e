"""Whether a run in fewer bits ends where a run in float32 ends: cost curves, final costs and pictures.

    python benchmarks/precision.py CONTENT STYLE [--weights FILE] [--size 384] [--iterations 100] [--figure FILE]

Needs no GPU: the cpu device computes, and every activation, gradient and filter is rounded to what the kernels of a
precision keep in memory (`Rounded`); sums stay in float32, as they do there. The final pictures of all runs are then
measured in float32. A run in float32 on another number of threads shows how far rounding alone leads. Needs matplotlib
for the figure alone.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nstgpu import StyleTransfer, load_weights
from nstgpu.kernels.cpu.device import Cpu
from nstgpu.kernels.cuda.storage import rounded, widened
from nstgpu.kernels.device import Array

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


class Rounded(Cpu):
    """Keeps what the tensor cores of a precision take and leave."""

    def __init__(self, precision: str, gradient_scale: float = 1.0) -> None:
        super().__init__()
        self._bits = precision
        self._scale = gradient_scale

    def _round(self, values: Array, scale: float = 1.0) -> None:
        if values is not None:
            for row in values:
                row[...] = widened(rounded(row * np.float32(scale), self._bits), self._bits) / np.float32(scale)

    def pack_filters(self, kernel: Any, bias: Any) -> Any:
        return super().pack_filters(widened(rounded(kernel, self._bits), self._bits), bias)

    def preprocess(self, image: Array, channels: Any, scale: Any, shift: Any, out: Array) -> None:
        super().preprocess(image, channels, scale, shift, out)
        self._round(out)

    def conv3x3_relu(self, x: Array, filters: Any, **outputs: Any) -> None:
        super().conv3x3_relu(x, filters, **outputs)
        self._round(outputs["out"])
        self._round(outputs["pooled"])

    def conv3x3_input_gradient(self, gradient: Array, filters: Any, *, out: Array, **how: Any) -> None:
        super().conv3x3_input_gradient(gradient, filters, out=out, **how)
        if out.shape[2] > 3:
            self._round(out, self._scale)

    def pool_input_gradient(self, gradient: Array, *, out: Array, **how: Any) -> None:
        super().pool_input_gradient(gradient, out=out, **how)
        self._round(out, self._scale)

    def style_gradient(self, features: Array, gram_error: Array, *, out: Array, **how: Any) -> None:
        super().style_gradient(features, gram_error, out=out, **how)
        self._round(out, self._scale)

    def content_gradient(self, features: Array, target: Array, scale: float, *, out: Array, **how: Any) -> None:
        super().content_gradient(features, target, scale, out=out, **how)
        self._round(out, self._scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--iterations", type=int, default=100, help="at each scale")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    weights = load_weights(options.weights)
    warnings.filterwarnings("ignore", message="the weights")  # a short network lacks the classic deep taps

    def make(device: Any, **settings: Any) -> StyleTransfer:
        return StyleTransfer(
            options.content, options.style, weights=weights, device=device, size=options.size, **settings
        )

    exact = make("cpu")
    runs = {name: make("cpu" if name == "fp32" else Rounded(name, 2.0**20)) for name in options.precisions}
    runs["fp32, one thread"] = make("cpu", threads=1)
    results = {name: run.run(options.iterations) for name, run in runs.items()}
    final = {name: exact.cost_and_gradient(result.image)[0].total for name, result in results.items()}
    print("| precision | cost of the last iterate | cost of the picture, in float32 | against fp32 |")
    print("|---|---|---|---|")
    for name, result in results.items():
        change = final[name] / final["fp32"] - 1
        print(f"| {name} | {result.history[-1].total:.5g} | {final[name]:.5g} | {change:+.2%} |", flush=True)
    if options.figure:
        draw(results, options.figure)


def draw(results: dict[str, Any], path: Path) -> None:
    """The pictures in a row, and under them every run's costs."""
    import matplotlib.pyplot as plt

    shown = [name for name in results if name in PRECISIONS]
    height, width = results[shown[0]].image.shape[:2]
    across = 3.2 * len(shown)
    figure = plt.figure(figsize=(across, across / len(shown) * height / width + 3.6), layout="constrained")
    rows = figure.add_gridspec(2, len(shown), height_ratios=(across / len(shown) * height / width, 3.2))
    for column, name in enumerate(shown):
        axes = figure.add_subplot(rows[0, column])
        axes.imshow(results[name].image)
        axes.set_title(name)
        axes.axis("off")
    axes = figure.add_subplot(rows[1, :])
    for name, dashes in zip(shown, ("-", "--", "-.", ":"), strict=False):
        axes.semilogy([costs.total for costs in results[name].history], dashes, label=name, linewidth=1.3)
    axes.set_xlabel("iteration, over all scales")
    axes.set_ylabel("J")
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
