"""Stops when the cost has settled, or after a minute: python examples/early_stop.py content.jpg style.jpg

`settled` ends each scale by its costs; a callback sees every iteration, and ends the run by returning False. The
picture is kept either way.
"""

import sys

import nstgpu


def in_time(progress: nstgpu.Progress) -> bool:
    return progress.seconds < 60


content, style = sys.argv[1:]
transfer = nstgpu.StyleTransfer(content, style, weights="mini", size=256)
result = transfer.run(iterations=1000, settled=nstgpu.Settled(fall=0.01, iterations=25), on_iteration=in_time)
result.save("settled.png")
print("wrote settled.png after", ", ".join(f"{scale.iterations} iterations at {scale.size}" for scale in result.scales))
