"""Stops when the cost has settled: python examples/early_stop.py content.jpg style.jpg

A callback sees every iteration. What it returns decides: False ends the run, and the picture is kept.
"""

import sys
from collections import deque

import nstgpu

recent: deque[float] = deque(maxlen=25)


def still_falling(progress: nstgpu.Progress) -> bool:
    """At the last scale: by more than a hundredth in 25 iterations."""
    if progress.scale < progress.scales:
        return True
    recent.append(progress.costs.total)
    return len(recent) < 25 or recent[-1] < 0.99 * recent[0]


content, style = sys.argv[1:]
transfer = nstgpu.StyleTransfer(content, style, weights=nstgpu.load_weights("mini"), size=256)
result = transfer.run(iterations=[60, 60, 1000], on_iteration=still_falling)
result.save("settled.png")
print(f"wrote settled.png after {result.scales[-1].iterations} iterations at {result.scales[-1].size}")
