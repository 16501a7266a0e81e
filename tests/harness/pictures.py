"""Pictures and masks that tests paint with: RGB in [0, 1], float32, of (height, width)."""

from typing import Any

import numpy as np


def noise(seed: int, height: int, width: int) -> Any:
    """Every channel of every pixel by itself."""
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


def waves(seed: int, height: int, width: int) -> Any:
    """Waves, so that the statistics of two differ by more than rounding and that they look alike at every scale, and
    grain, so that no pool has to choose between equals."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(-0.1, 0.1, (height, width, 3))
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    for _ in range(6):
        frequency, phase, color = rng.uniform(-12, 12, 2), rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5, 3)
        image += np.sin(frequency[0] * down + frequency[1] * across + phase)[..., None] * color
    return (0.5 + 0.5 * np.tanh(image)).astype(np.float32)


def photo(seed: int, height: int, width: int) -> Any:
    """Smooth and bounded, as pictures are, with some noise; the waves are as long in a large one as in a small one."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 10
    sines = [np.sin(a * x + b * y + c) for a, b, c in rng.random((3, 3)) * 3]
    grain = rng.standard_normal((height, width, 3))
    return np.clip(0.5 + 0.3 * np.stack(sines, axis=2) + 0.1 * grain, 0, 1).astype(np.float32)


def soft_mask(seed: int, height: int, width: int) -> Any:
    """(height, width): every pixel by itself, the most of them near 0."""
    return (np.random.default_rng(seed).random((height, width)) ** 2).astype(np.float32)
