"""How well a model stands in for another one: minimise the style cost under it, measure with the other.

    python benchmarks/style_fidelity.py MODEL [MODEL ...] --true VGG19.h5 --content A.jpg ... --style B.jpg ...

For every pair of pictures, the style cost alone is minimised from the content picture, once under each model and once
under the true network, with the same iterations. What is reported is the summed relative style error under the true
network, sum over its taps of |Gram(S) - Gram(G)|^2 / |Gram(S)|^2, and the share of the true network's own way down that
a model gets, in logarithms: (ln before - ln model) / (ln before - ln true).
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import numpy as np

import nstgpu
from nstgpu.engine.model import taps


def relative_error(judge: nstgpu.StyleTransfer, image: np.ndarray) -> float:
    """Layer weights left open are 1 over each layer's own energy: J_style is then the sum wanted."""
    costs, _ = judge.cost_and_gradient(image)
    return costs.style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--true", type=Path, required=True)
    parser.add_argument("--content", type=Path, nargs="+", required=True)
    parser.add_argument("--style", type=Path, nargs="+", required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--pictures", type=Path, help="folder to keep what was painted in")
    options = parser.parse_args()

    true = nstgpu.load_weights(options.true)
    contenders = {str(options.true): true, **{model: nstgpu.load_weights(model) for model in options.models}}
    layers = taps.classic_style(true.taps)
    print(f"taps {', '.join(layers)}; {options.size} px, {options.iterations} iterations of Adam\n")
    print("| content / style | before | " + " | ".join(Path(name).name for name in contenders) + " |")
    print("|---|" + "---|" * (len(contenders) + 1))
    shares: dict[str, list[float]] = {name: [] for name in contenders}
    seconds = dict.fromkeys(contenders, 0.0)
    for content, style in itertools.product(options.content, options.style):
        settings = {"size": options.size, "style_layers": layers, "content_weight": 0.0, "content_layers": []}
        judge = nstgpu.StyleTransfer(content, style, weights=true, **settings, tv_weight=0.0)
        before = relative_error(judge, judge.initial_image("content"))
        cells = [f"{before:.3g}"]
        after_true = math.nan
        for name, weights in contenders.items():
            transfer = nstgpu.StyleTransfer(content, style, weights=weights, **settings, tv_weight=0.0)
            began = time.perf_counter()
            result = transfer.run(options.iterations, scales=1)
            seconds[name] += time.perf_counter() - began
            after = relative_error(judge, result.image)
            after_true = after if weights is true else after_true
            share = math.log(before / after) / math.log(before / after_true)
            shares[name].append(share)
            cells.append(f"{after:.3g} ({share:.0%})")
            if options.pictures:
                result.save(options.pictures / f"{content.stem}_{style.stem}_{Path(name).stem}.png")
        print(f"| {content.stem} / {style.stem} | " + " | ".join(cells) + " |", flush=True)
    means = [f"{np.mean(shares[name]):.0%}, {seconds[name]:.0f} s" for name in contenders]
    print("| mean share, time | | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
