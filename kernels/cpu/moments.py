"""Grams and means of features on the cpu device: sums of parts, the same parts however many threads add them up."""

import numpy as np
from numpy.typing import NDArray

from .sums import blocks_of
from .thread_pool import Workers

Floats = NDArray[np.float32]

GRAM_PIXELS, GRAM_PARTS = 512, 16  # a Gram is the sum of at most so many parts of at least so many pixels
MEAN_PIXELS = 1024  # are added up in float32; sums of those, in float64


def gram_parts(pixels: int) -> int:
    return min(max(pixels // GRAM_PIXELS, 1), GRAM_PARTS)


def gram(features: Floats, weights: Floats | None, out: Floats, workers: Workers, workspace: Floats) -> None:
    """`Device.gram`; workspace has room for `gram_parts` matrices (C, C)."""
    pixels = features.reshape(-1, features.shape[2])
    count, channels = gram_parts(len(pixels)), features.shape[2]
    parts = workspace[: count * channels**2].reshape(count, channels, channels)
    edges = [len(pixels) * index // count for index in range(count + 1)]
    equal = pixels.reshape(count, -1, channels) if len(pixels) % count == 0 else None
    roots = None if weights is None else np.sqrt(weights.reshape(-1, 1))

    def some_parts(_: int, some: slice) -> None:
        if equal is not None:  # in one call; NumPy sees the transpose and computes one triangle (SYRK)
            np.matmul(equal[some].swapaxes(1, 2), equal[some], out=parts[some])
            return
        for index in range(count)[some]:
            part = pixels[edges[index] : edges[index + 1]]
            np.matmul(part.T, part, out=parts[index])

    def weighted_part(_: int, index: int) -> None:
        assert roots is not None
        part, own = (values[edges[index] : edges[index + 1]] for values in (pixels, roots))
        for number, rows in enumerate(blocks_of(part)):  # so that what is weighted stays in the cache
            weighted = part[rows] * own[rows]
            if number == 0:
                np.matmul(weighted.T, weighted, out=parts[index])
            else:
                parts[index] += weighted.T @ weighted

    if roots is None:
        step = -(-count // workers.count)
        workers.run(some_parts, [slice(first, first + step) for first in range(0, count, step)])
    else:
        workers.run(weighted_part, range(count))
    np.add.reduce(parts, axis=0, out=out)
    out *= np.float32(1 / len(pixels))


def mean(features: Floats, weights: Floats | None, out: Floats, workers: Workers) -> None:
    """`Device.mean`."""
    pixels = features.reshape(-1, features.shape[2])
    blocks = [slice(start, start + MEAN_PIXELS) for start in range(0, len(pixels), MEAN_PIXELS)]
    flat = np.ones(len(pixels), np.float32) if weights is None else weights.reshape(-1)
    sums = np.empty((len(blocks), features.shape[2]))

    def task(_: int, index: int) -> None:
        sums[index] = flat[blocks[index]] @ pixels[blocks[index]]

    workers.run(task, range(len(blocks)))
    out[...] = np.add.reduce(sums, axis=0) / len(pixels)
