"""The library in a few lines: python examples/library.py content.jpg style.jpg [weights.h5]"""

import sys

import nstgpu


def stop_when_settled(progress: nstgpu.Progress) -> bool:
    print(f"{progress.iteration:4d}  cost {progress.costs.total:.4g}  {progress.costs.per_layer}")
    return progress.costs.total > 0.5


content, style, *rest = sys.argv[1:]
weights = nstgpu.load_weights(rest[0] if rest else "mini")
transfer = nstgpu.StyleTransfer(content, style, weights=weights, size=192, pooling="average")
costs, gradient = transfer.cost_and_gradient(transfer.initial_image("content"))
print(f"the content itself costs {costs.total:.4g}; the steepest pixel has gradient {abs(gradient).max():.3g}")
result = transfer.run(iterations=60, on_iteration=stop_when_settled)
result.save("painted.png")
print("wrote painted.png", result.image.shape)
