"""Two styles, each in its own place: python examples/masks.py content.jpg above.jpg below.jpg

The masks are made here, a soft horizon across the middle; a drawing of your own in black and white does as well.
"""

import sys

import numpy as np
from PIL import Image

import nstgpu

content, above, below = sys.argv[1:]
with Image.open(content) as picture:
    width, height = picture.size
rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
lower = np.repeat(1 / (1 + np.exp(-40 * (rows - 0.5))), width, axis=1)
styles = [nstgpu.Style(above, mask=1 - lower), nstgpu.Style(below, mask=lower)]
transfer = nstgpu.StyleTransfer(content, styles, weights=nstgpu.load_weights("mini"), size=384)
transfer.run(iterations=100).save("two_styles.png")
print("wrote two_styles.png")
