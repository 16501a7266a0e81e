"""How `mini` was made: a thin VGG-19 trained to see what VGG-19 sees. A development tool, no part of the package.

    python weights/training/distill.py TEACHER.h5 IMAGES_FOLDER mini.h5 --crops 200000

Teacher and student see the same crops. At every tap a learned linear map carries the student's activations to the
teacher's, and the loss is what is left over. Nothing else of the training is kept: the maps are thrown away, and what
the student learnt stands in its filters. Needs PyTorch (`pip install torch==2.13.0`) and an installed nstgpu.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from PIL import Image

from nstgpu.weights import Convolution, Weights, load_weights
from nstgpu.weights.model import CAFFE
from nstgpu.weights.writer import write_canonical

Crop = NDArray[np.floating[Any]]
"""(CROP, CROP, 3), in [0, 1]"""
Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Kernel (C_out, C_in, 3, 3) and bias (C_out,) of each convolution, from the image."""

CROP = 96
HELD_OUT = 16
"""Of the images, every one whose number divides by this is kept for validation."""
DTYPE = torch.bfloat16  # of the products; the student itself, and what is summed up, stay in float32
LAST_ENTRY_RATE = 0.02
"""Share of the learning rate that is left at the end."""


@dataclass(frozen=True)
class Shape:
    """Widths of each block's convolutions, such as ((32, 32), (96, 96), (128, 128, 128, 128))."""

    widths: tuple[tuple[int, ...], ...]

    @property
    def flat(self) -> list[int]:
        return list(itertools.chain(*self.widths))

    def pooled_before(self, number: int) -> bool:
        """Whether a 2x2 max pool stands before convolution `number`, counted from 0."""
        starts = list(itertools.accumulate(len(block) for block in self.widths))
        return number in starts

    def taps(self) -> list[str]:
        return [f"relu{b}_{i}" for b, block in enumerate(self.widths, 1) for i, _ in enumerate(block, 1)]


def activations(layers: Layers, shape: Shape, inputs: torch.Tensor) -> list[torch.Tensor]:
    """At every tap, for `inputs` (N, 3, H, W) as the network takes them."""
    taps = []
    current = inputs
    for number, (kernel, bias) in enumerate(layers):
        if shape.pooled_before(number):
            current = functional.max_pool2d(current, 2)
        current = functional.relu(functional.conv2d(current, kernel, bias, padding=1))
        taps.append(current)
    return taps


# ---- the teacher, and where the student starts ----------------------------------------------------------------------


def read_layers(weights: Weights) -> tuple[Layers, Shape]:
    """Of a file, as tensors."""
    blocks = [c.block for c in weights.convolutions]
    widths = tuple(
        tuple(c.bias.size for c in weights.convolutions if c.block == block) for block in sorted(set(blocks))
    )
    layers = [
        (torch.tensor(c.kernel).permute(3, 2, 0, 1).contiguous(), torch.tensor(c.bias)) for c in weights.convolutions
    ]
    return layers, Shape(widths)


def as_products(layers: Layers) -> Layers:
    """The layers as the products take them; gradients flow through."""
    return [(kernel.to(DTYPE, memory_format=torch.channels_last), bias.to(DTYPE)) for kernel, bias in layers]


def second_moments(layers: Layers, shape: Shape, crops: Iterator[torch.Tensor], batches: int) -> list[torch.Tensor]:
    """E[a aᵀ] over all positions, (C, C) float64, of every tap."""
    sums = [torch.zeros(width, width, dtype=torch.float64) for width in shape.flat]
    counts = [0] * len(sums)
    with torch.no_grad():
        for inputs in itertools.islice(crops, batches):
            for number, tap in enumerate(activations(as_products(layers), shape, inputs)):
                rows = tap.float().permute(0, 2, 3, 1).reshape(-1, tap.shape[1])
                sums[number] += (rows.T @ rows).double()
                counts[number] += rows.shape[0]
    return [total / count for total, count in zip(sums, counts, strict=True)]


def channel_weights(moment: torch.Tensor) -> torch.Tensor:
    """What an error in each channel costs: half by the layer's energy, half by the channel's own. (C,), float64."""
    energy = moment.diagonal()
    floor = 1e-3 * energy.mean()  # a channel that is nearly always zero is not worth a share of its own
    return 0.5 / energy.sum() + 0.5 / (energy + floor) / energy.numel()


def telling_channels(moment: torch.Tensor, count: int) -> list[int]:
    """The `count` channels from which the others follow best linearly: greedy, by pivoted Cholesky."""
    scale = channel_weights(moment).sqrt()
    rest = moment * scale[:, None] * scale[None, :]
    chosen: list[int] = []
    for _ in range(count):
        gain = (rest**2).sum(0) / rest.diagonal().clamp_min(1e-12)
        gain[rest.diagonal() < 1e-9] = 0
        if chosen:
            gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        rest = rest - rest[:, best, None] * rest[None, best, :] / rest[best, best].clamp_min(1e-12)
    return sorted(chosen)


def linear_map(moment: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
    """M (C, k), so that M a[chosen] is nearest to a in the least squares."""
    inner = moment[chosen][:, chosen]
    ridge = 1e-6 * inner.diagonal().mean() * torch.eye(len(chosen), dtype=inner.dtype)
    return torch.linalg.solve(inner + ridge, moment[:, chosen].T).T


def from_teacher(
    teacher: Layers, moments: list[torch.Tensor], widths: Sequence[int]
) -> tuple[Layers, list[torch.Tensor]]:
    """A student of the teacher's most telling channels: each filter is the teacher's, folded through the linear map
    that stands for the channels the student lacks. Returns the maps too."""
    layers, maps = [], []
    before = torch.eye(3, dtype=torch.float64)
    for (kernel, bias), moment, width in zip(teacher, moments, widths, strict=True):
        chosen = telling_channels(moment, width)
        folded = torch.einsum("oihw,ik->okhw", kernel[chosen].double(), before)
        layers.append((folded.float(), bias[chosen].clone()))
        before = linear_map(moment, chosen)
        maps.append(before.float())
    return layers, maps


def fitted_maps(
    student: Layers, shape: Shape, teacher: Layers, teacher_shape: Shape, batches: Iterator[torch.Tensor], count: int
) -> list[torch.Tensor]:
    """At every tap the linear map (C, k) that carries the student nearest to the teacher, by least squares."""
    own = [torch.zeros(width, width, dtype=torch.float64) for width in shape.flat]
    across = [
        torch.zeros(wide, narrow, dtype=torch.float64)
        for wide, narrow in zip(teacher_shape.flat, shape.flat, strict=True)
    ]
    student, teacher = as_products(student), as_products(teacher)
    with torch.no_grad():
        for inputs in itertools.islice(batches, count):
            pairs = zip(activations(student, shape, inputs), activations(teacher, teacher_shape, inputs), strict=True)
            for number, taps in enumerate(pairs):
                narrow, wide = (tap.float().permute(0, 2, 3, 1).reshape(-1, tap.shape[1]) for tap in taps)
                own[number] += (narrow.T @ narrow).double()
                across[number] += (wide.T @ narrow).double()
    return [
        torch.linalg.solve(inner + 1e-6 * inner.diagonal().mean() * torch.eye(len(inner), dtype=inner.dtype), cross.T)
        .T.float()
        .contiguous()
        for inner, cross in zip(own, across, strict=True)
    ]


def at_random(shape: Shape, moments: list[torch.Tensor], seed: int) -> tuple[Layers, list[torch.Tensor]]:
    """He-scaled normal filters for inputs of about 0..255, and maps that begin near nothing."""
    generator = torch.Generator().manual_seed(seed)
    layers, maps = [], []
    channels = 3
    for number, (width, moment) in enumerate(zip(shape.flat, moments, strict=True)):
        kernel = torch.randn(width, channels, 3, 3, generator=generator) * math.sqrt(2 / (9 * channels))
        layers.append((kernel / 60 if number == 0 else kernel, torch.zeros(width)))
        size = moment.diagonal().mean().sqrt().float() / math.sqrt(width)
        maps.append(torch.randn(moment.shape[0], width, generator=generator) * size * 0.1)
        channels = width
    return layers, maps


# ---- what they look at ----------------------------------------------------------------------------------------------


def read_images(folder: Path) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """To train on, and held out: (H, W, 3) each."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    large = [image for image in images if min(image.shape[:2]) >= CROP]
    held_out = large[::HELD_OUT]
    return [image for number, image in enumerate(large) if number % HELD_OUT], held_out


def photograph(image: NDArray[np.uint8], rng: np.random.Generator) -> Crop:
    """A crop at a random scale and place, turned and mirrored; (CROP, CROP, 3) in [0, 1]."""
    height, width = image.shape[:2]
    side = int(CROP * rng.uniform(1, max(1.0, min(height, width) / CROP)) ** rng.uniform(0, 1))
    side = min(max(side, CROP), height, width)
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    window = Image.fromarray(image[top : top + side, left : left + side])
    crop = np.asarray(window.resize((CROP, CROP), Image.Resampling.LANCZOS), np.float32) / 255
    crop = np.rot90(crop, int(rng.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def recoloured(crop: Crop, rng: np.random.Generator) -> Crop:
    """Another light, other paints: contrast, brightness, channels exchanged, saturation."""
    if rng.random() < 0.3:
        crop = crop[:, :, rng.permutation(3)]
    grey = crop.mean(axis=2, keepdims=True)
    crop = grey + (crop - grey) * np.float32(rng.uniform(0.2, 1.8))
    gain = rng.uniform(0.6, 1.5) * rng.uniform(0.85, 1.15, 3)
    mixed: Crop = (crop - 0.5) * gain + 0.5 + rng.uniform(-0.15, 0.15)
    return mixed


def procedural(rng: np.random.Generator) -> Crop:
    """What photographs seldom show and an optimiser meets: noise of any spectrum, flat colour, gratings."""
    kind = rng.integers(3)
    if kind == 0:  # coloured noise, its power falling as 1 / f^k
        frequency = np.hypot(np.fft.fftfreq(CROP)[:, None], np.fft.rfftfreq(CROP)[None, :])
        spectrum = np.maximum(frequency, 1 / CROP) ** -rng.uniform(0, 2)
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, CROP, CROP))) * spectrum, s=(CROP, CROP))
        noise = np.einsum("chw,cd->hwd", noise / noise.std(), rng.standard_normal((3, 3)))
        coloured: Crop = rng.uniform(0.2, 0.8, 3) + rng.uniform(0.03, 0.3) * noise
        return coloured
    grid = np.mgrid[0:CROP, 0:CROP].astype(np.float32)
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = grid[0] * np.sin(angle) + grid[1] * np.cos(angle)
    if kind == 1:
        wave = np.sin(along * rng.uniform(0.05, 2.5) + phase)[:, :, None]
        if rng.random() < 0.5:
            wave = np.sign(wave)
    else:  # two flats with an edge between, sharp or soft
        wave = np.tanh((along - along.mean()) / rng.uniform(0.3, 30))[:, :, None]
    first, second = rng.uniform(0, 1, (2, 3))
    striped: Crop = first + (second - first) * (wave + 1) / 2
    return striped


def crops(images: list[NDArray[np.uint8]], batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches (N, 3, CROP, CROP), as the network takes them, without end."""
    rng = np.random.default_rng(seed)
    mean = np.asarray(CAFFE.mean, np.float32)
    while True:
        made = []
        for _ in range(batch):
            if rng.random() < 0.1:
                crop = procedural(rng)
            else:
                crop = photograph(images[rng.integers(len(images))], rng)
                if rng.random() < 0.15:  # half of one picture over another: strokes over a scene
                    crop = 0.5 * (crop + photograph(images[rng.integers(len(images))], rng))
                if rng.random() < 0.6:
                    crop = recoloured(crop, rng)
            if rng.random() < 0.3:
                crop = crop + rng.uniform(0, 0.08) * rng.standard_normal(crop.shape)
            made.append(np.clip(crop, 0, 1)[:, :, CAFFE.channels] * 255 - mean)
        stacked = torch.from_numpy(np.stack(made).astype(np.float32)).permute(0, 3, 1, 2)
        yield stacked.to(DTYPE, memory_format=torch.channels_last)


# ---- training -------------------------------------------------------------------------------------------------------


def tap_errors(
    student: list[torch.Tensor],
    teacher: list[torch.Tensor],
    maps: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
) -> torch.Tensor:
    """(taps,) relative errors: 1 is what a student that sees nothing gets."""
    errors = []
    for own, target, linear, weight in zip(student, teacher, maps, weights, strict=True):
        guess = functional.conv2d(own, linear.to(own.dtype)[:, :, None, None])
        squares = (guess - target).float().square().mean((0, 2, 3))
        errors.append((squares * weight).sum())
    return torch.stack(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="VGG-19, its first three blocks at least")
    parser.add_argument("images", type=Path, help="folder of photographs and paintings")
    parser.add_argument("output", type=Path, help="the HDF5 file to write, float16")
    parser.add_argument("--widths", default="32,32|80,96|160,144,128,96")
    parser.add_argument("--start", default="teacher", help="teacher, random, or a student's file to go on from")
    parser.add_argument("--crops", type=int, default=200_000, help="to train on; the learning rate falls along them")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    shape = Shape(tuple(tuple(map(int, block.split(","))) for block in options.widths.split("|")))
    weights = load_weights(options.teacher)
    teacher, teacher_shape = read_layers(weights)
    teacher = teacher[: len(shape.flat)]
    teacher_shape = Shape(teacher_shape.widths[: len(shape.widths)])
    if shape.taps() != teacher_shape.taps():
        parser.error(f"--widths has the taps {shape.taps()}, the teacher {teacher_shape.taps()}")
    training, held_out = read_images(options.images)
    print(f"{len(training)} images to train on, {len(held_out)} held out", flush=True)

    moments = second_moments(teacher, teacher_shape, crops(training, 8, options.seed + 1), 60)
    errors_by = [channel_weights(moment).float() for moment in moments]
    if options.start == "teacher":
        student, maps = from_teacher(teacher, moments, shape.flat)
    elif options.start == "random":
        student, maps = at_random(shape, moments, options.seed)
    else:
        student, shape = read_layers(load_weights(options.start))
        maps = fitted_maps(student, shape, teacher, teacher_shape, crops(training, 8, options.seed + 1), 60)
    # Adam moves every number by about the rate; filters of very different sizes are trained as multiples of their own.
    sizes = [kernel.std() for kernel, _ in student]
    kernels = [(kernel / size).requires_grad_() for (kernel, _), size in zip(student, sizes, strict=True)]
    bias_sizes = [
        max(float(bias.abs().mean()), 1e-2 * float(moment.diagonal().mean().sqrt()))
        for (_, bias), moment in zip(student, moments, strict=True)
    ]
    biases = [(bias / size).requires_grad_() for (_, bias), size in zip(student, bias_sizes, strict=True)]
    map_sizes = [linear.std() for linear in maps]
    free_maps = [(linear / size).requires_grad_() for linear, size in zip(maps, map_sizes, strict=True)]

    def current_student() -> tuple[Layers, list[torch.Tensor]]:
        layers = [
            (kernel * size, bias * bias_size)
            for kernel, size, bias, bias_size in zip(kernels, sizes, biases, bias_sizes, strict=True)
        ]
        return layers, [linear * size for linear, size in zip(free_maps, map_sizes, strict=True)]

    seen = list(itertools.islice(crops(held_out, 8, 12345), 24))
    fixed_teacher = as_products(teacher)

    def validate() -> torch.Tensor:
        with torch.no_grad():
            layers, linear = current_student()
            return torch.stack(
                [
                    tap_errors(
                        activations(as_products(layers), shape, inputs),
                        activations(fixed_teacher, teacher_shape, inputs),
                        linear,
                        errors_by,
                    )
                    for inputs in seen
                ]
            ).mean(0)

    start = last_report = time.monotonic()

    def report(step: int) -> None:
        errors = " ".join(f"{float(error):.4f}" for error in validate())
        minutes = (time.monotonic() - start) / 60
        print(f"{minutes:6.1f} min  {step * options.batch:7d} crops  {errors}", flush=True)

    def save() -> None:
        with torch.no_grad():
            layers, _ = current_student()
        places = [(b, i) for b, block in enumerate(shape.widths, 1) for i, _ in enumerate(block, 1)]
        convolutions = [
            Convolution(block, index, kernel.permute(2, 3, 1, 0).contiguous().numpy(), bias.numpy())
            for (block, index), (kernel, bias) in zip(places, layers, strict=True)
        ]
        write_canonical(options.output, convolutions, weights.preprocessing, half=True)

    parameters = [*kernels, *biases, *free_maps]
    optimizer = torch.optim.Adam(parameters, lr=options.rate, betas=(0.9, 0.99))
    print("validation errors: " + " ".join(shape.taps()), flush=True)
    report(0)
    steps = options.crops // options.batch
    batches = itertools.islice(crops(training, options.batch, options.seed + 2), steps)
    for step, inputs in enumerate(batches, start=1):
        warm_up = min(1.0, step / 200)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * warm_up * (LAST_ENTRY_RATE + (1 - LAST_ENTRY_RATE) * cosine)
        with torch.no_grad():
            targets = activations(fixed_teacher, teacher_shape, inputs)
        layers, linear = current_student()
        loss = tap_errors(activations(as_products(layers), shape, inputs), targets, linear, errors_by).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if time.monotonic() - last_report > 120:
            last_report = time.monotonic()
            report(step)
            save()
    report(steps)
    save()


if __name__ == "__main__":
    main()
