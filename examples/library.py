"""The library in a few lines: python examples/library.py content.jpg style.jpg [weights.h5]"""

import sys

import nstgpu

content, style, *rest = sys.argv[1:]
weights = nstgpu.load_weights(rest[0] if rest else "mini")
transfer = nstgpu.StyleTransfer(content, style, weights=weights, size=256)
costs, gradient = transfer.cost_and_gradient(transfer.initial_image("content"))
print(f"the content itself costs {costs.total:.4g}; the steepest pixel has gradient {abs(gradient).max():.3g}")

result = transfer.run(
    iterations=80,
    on_iteration=lambda progress: print(f"{progress.size}  {progress.iteration:4d}  {progress.costs.total:.4g}"),
)
result.save("painted.png")
print("wrote painted.png", result.image.shape)
