"""Launching the steps of the optimizers (adam.cu, projected_steps.cu), all of which keep pixels in [0, 1].

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked.
"""

import math

import numpy as np

from ...device import Array
from ..grids import BLOCK, grid_of
from ..runtime.launch import Launch


def adam_step(image: Array, gradient: Array, first: Array, second: Array, step: Array, learning_rate: float,
              beta1: float, beta2: float, epsilon: float) -> list[Launch]:  # fmt: skip
    rates = _adam_rates(learning_rate, beta1, beta2, epsilon)
    args = (image, gradient, first, second, step, np.int64(image.size), *rates)
    return [
        Launch("advance_step", (1, 1, 1), (1, 1, 1), (step,)),
        Launch("adam_step", grid_of(image.size, 4), BLOCK, args),
    ]


def adam_iteration(image: Array, gradient: Array, first: Array, second: Array, step: Array, average: Array, good: Array,
                   costs: Array, ring: Array, progress: Array, weights: Array, learning_rate: float, beta1: float,
                   beta2: float, epsilon: float) -> list[Launch]:  # fmt: skip
    record = (costs, np.int32(costs.size), ring, np.int32(len(ring)), progress, step)
    rates = _adam_rates(learning_rate, beta1, beta2, epsilon)
    args = (image, gradient, first, second, average, good, progress, weights, step, np.int64(image.size), *rates)
    return [
        Launch("record_costs", (1, 1, 1), (32, 1, 1), record),
        Launch("adam_iteration", grid_of(image.size, 4), BLOCK, args),
    ]


def _adam_rates(learning_rate: float, beta1: float, beta2: float, epsilon: float) -> tuple[np.float32, ...]:
    logs = [math.log(beta) if beta else -math.inf for beta in (beta1, beta2)]
    rates = (learning_rate, beta1, 1 - beta1, logs[0], beta2, 1 - beta2, logs[1], epsilon)
    return tuple(map(np.float32, rates))


def descent_step(image: Array, gradient: Array, learning_rate: float) -> list[Launch]:
    args = (image, gradient, np.int64(image.size), np.float32(learning_rate))
    return [Launch("descent_step", grid_of(image.size, 4), BLOCK, args)]


def clamped_step(image: Array, direction: Array, step: float, out: Array) -> list[Launch]:
    args = (image, direction, np.int64(out.size), np.float32(step), out)
    return [Launch("clamped_step", grid_of(out.size, 4), BLOCK, args)]


def project_gradient(image: Array, gradient: Array, out: Array) -> list[Launch]:
    return [Launch("project_gradient", grid_of(out.size, 4), BLOCK, (image, gradient, np.int64(out.size), out))]


def clamp(image: Array) -> list[Launch]:
    return [Launch("clamp_pixels", grid_of(image.size, 4), BLOCK, (image, np.int64(image.size)))]
