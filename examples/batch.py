"""Every picture of a folder in one style: python examples/batch.py FOLDER style.jpg OUTPUT_FOLDER [SIZE]

The network is loaded, and the device opened, once. What is there already is left alone, so that a batch can be stopped
and started again.
"""

import sys
from pathlib import Path

import nstgpu
from nstgpu.kernels import open_device

folder, style, output, *rest = sys.argv[1:]
weights, device = nstgpu.load_weights("mini"), open_device("auto")
Path(output).mkdir(exist_ok=True)
for content in sorted(Path(folder).iterdir()):
    painted = Path(output) / f"{content.stem}.png"
    if painted.exists() or content.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"):
        continue
    transfer = nstgpu.StyleTransfer(content, style, weights=weights, device=device, size=int(rest[0]) if rest else 384)
    result = transfer.run(iterations=100)
    result.save(painted)
    print(f"{painted}: {sum(scale.seconds for scale in result.scales):.0f} s, cost {result.history[-1].total:.3g}")
