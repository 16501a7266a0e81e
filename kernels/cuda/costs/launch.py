"""Launching the costs and the gradients they send back (costs/terms.cu, costs/terms_16bit.cuh); the distance of
Wasserstein has a folder of its own.

Each function returns the launches of one operation of `kernels.device`, in order, and runs nothing. Its arguments have
been checked.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ...device import Array
from ..grids import BLOCK, MOST_PARTIALS, WORKSPACE_BYTES, Sums, grid_of, reduction_grid, rows_grid
from ..runtime.launch import Launch
from .kernel_names import CONTENT_COST, CONTENT_COST_AND_GRADIENT, CONTENT_GRADIENT

STYLE_COST = "style_cost"
MERGEABLE = {STYLE_COST, *(of[precision] for of in (CONTENT_COST, CONTENT_GRADIENT)
                           for precision in CONTENT_COST_AND_GRADIENT)}  # fmt: skip
"""Kernels of which `merged` makes one."""
MOST_STYLE_COSTS = 16  # in one launch
STYLE_COSTS = np.dtype(
    [
        *((name, np.uint64, MOST_STYLE_COSTS) for name in ("gram", "target", "gram_error", "cost")),
        ("n", np.int64, MOST_STYLE_COSTS),
        ("scale", np.float32, MOST_STYLE_COSTS),
        ("factor", np.float32, MOST_STYLE_COSTS),
        ("accumulate", np.int32, MOST_STYLE_COSTS),
        ("first_block", np.int32, MOST_STYLE_COSTS + 1),
    ],
    align=True,
)
"""`StyleCosts` in costs/terms.cu."""


def style_cost(gram: Array, target: Array, scale: float, cost: Array, difference: Array, accumulate: bool,
               sums: Sums) -> list[Launch]:  # fmt: skip
    total = sums.args(1 / (4 * gram.size), cost)
    args = (gram, target, np.int64(gram.size), np.float32(scale), difference, *total, np.int32(accumulate))
    return [Launch(STYLE_COST, reduction_grid(gram.size), BLOCK, args)]


def merged(launches: Sequence[Launch], address: Callable[[Array], int]) -> list[Launch]:
    """Launches of MERGEABLE kernels that do not depend on each other, as few."""
    style = [launch for launch in launches if launch.kernel == STYLE_COST]
    return _style_costs(style, address) + _content([one for one in launches if one.kernel != STYLE_COST], address)


def _content(launches: Sequence[Launch], address: Callable[[Array], int]) -> list[Launch]:
    """A cost and the gradient of the same features and target become one."""
    kernels = {CONTENT_COST[key]: (key, CONTENT_GRADIENT[key]) for key in CONTENT_COST_AND_GRADIENT}
    left, found = list(launches), []
    while left:
        first = left.pop(0)
        precision, partner = kernels.get(first.kernel, ("", ""))
        arrays = _addresses(first, address)
        other = next((one for one in left if one.kernel == partner and _addresses(one, address) == arrays), None)
        if other is not None:
            left.remove(other)
            args = (*other.args, *first.args[5:])
            first = Launch(CONTENT_COST_AND_GRADIENT[precision], first.grid, BLOCK, args)
        found.append(first)
    return found


def _addresses(launch: Launch, address: Callable[[Array], int]) -> list[int]:
    """Of features, target and weights, which come first."""
    return [0 if array is None else address(array) for array in launch.args[:3]]


def _style_costs(launches: Sequence[Launch], address: Callable[[Array], int]) -> list[Launch]:
    """As few launches of several at once. Those that write one difference stay in order."""
    rounds: list[list[Launch]] = []
    last: dict[int, int] = {}  # the round that wrote a difference
    for launch in launches:
        difference = address(launch.args[4])
        number = last.get(difference, -1) + 1
        while number < len(rounds) and not _has_room(rounds[number], launch):
            number += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(launch)
        last[difference] = number
    return [each[0] if len(each) == 1 else _as_one(each, address) for each in rounds]


def _has_room(launches: Sequence[Launch], one: Launch) -> bool:
    blocks = sum(launch.grid[0] for launch in (*launches, one))
    return len(launches) < MOST_STYLE_COSTS and 4 * blocks <= WORKSPACE_BYTES


def _as_one(launches: Sequence[Launch], address: Callable[[Array], int]) -> Launch:
    costs = np.zeros(1, STYLE_COSTS)
    first = 0
    reached: list[object] = []
    for i, launch in enumerate(launches):
        gram, target, n, scale, difference, workspace, factor, cost, tickets, accumulate = launch.args
        arrays = {"gram": gram, "target": target, "gram_error": difference, "cost": cost}
        for name, array in arrays.items():
            costs[name][0, i] = address(array)
        costs["n"][0, i], costs["scale"][0, i], costs["factor"][0, i] = n, scale, factor
        costs["accumulate"][0, i], costs["first_block"][0, i] = accumulate, first
        first += launch.grid[0]
        reached += arrays.values()
    costs["first_block"][0, len(launches)] = first
    args = (costs, np.int32(len(launches)), workspace, tickets)
    return Launch("style_costs", (first, 1, 1), BLOCK, args, reached=tuple(reached))


def moments_cost(gram: Array, mean: Array, target_gram: Array, target_mean: Array, scale: float, cost: Array,
                 difference: Array, shift: Array, accumulate: bool, sums: Sums) -> list[Launch]:  # fmt: skip
    total = sums.args(1 / (4 * gram.size), cost)
    args = (gram, mean, target_gram, target_mean, np.int32(len(gram)), np.float32(scale), difference, shift, *total,
            np.int32(accumulate))  # fmt: skip
    return [Launch("moments_cost", rows_grid(len(gram)), BLOCK, args)]


def content_cost(features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                 sums: Sums) -> list[Launch]:  # fmt: skip
    grid, total = reduction_grid(features.size), sums.args(scale / 2, cost)
    if weights is None:
        return [Launch(CONTENT_COST["fp32"], grid, BLOCK, (features, target, np.int64(features.size), *total))]
    variant, count, per_pixel = _by_weight(features)
    return [Launch(CONTENT_COST[variant], grid, BLOCK, (features, target, weights, count, per_pixel, *total))]


def content_cost_16bit(features: Array, target: Array, scale: float, cost: Array, weights: Array | None,
                       sums: Sums, precision: str) -> list[Launch]:  # fmt: skip
    """`content_cost` of features in bf16 or fp16."""
    args = (features, target, weights, *_in_eights(features), *sums.args(scale / 2, cost))
    return [Launch(CONTENT_COST[precision], reduction_grid(features.size), BLOCK, args)]


def content_gradient(features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                     weights: Array | None) -> list[Launch]:  # fmt: skip
    grid, rest = grid_of(out.size, 4), (np.float32(scale), out, np.int32(accumulate))
    if weights is None:
        return [Launch(CONTENT_GRADIENT["fp32"], grid, BLOCK, (features, target, np.int64(out.size), *rest))]
    variant, count, per_pixel = _by_weight(features)
    return [Launch(CONTENT_GRADIENT[variant], grid, BLOCK, (features, target, weights, count, per_pixel, *rest))]


def content_gradient_16bit(features: Array, target: Array, scale: float, out: Array, accumulate: bool,
                           weights: Array | None, precision: str) -> list[Launch]:  # fmt: skip
    """`content_gradient` of features in bf16 or fp16."""
    args = (features, target, weights, *_in_eights(features), np.float32(scale), out, np.int32(accumulate))
    return [Launch(CONTENT_GRADIENT[precision], grid_of(out.size, 8), BLOCK, args)]


def tv_cost(image: Array, scale: float, cost: Array, gradient: Array, sums: Sums) -> list[Launch]:
    height, width, _ = image.shape
    pairs = (3 * height * (width - 1), 3 * (height - 1) * width)
    across, down = (np.float32(1 / count if count else 0) for count in pairs)
    sizes = (np.int32(height), np.int32(3 * width), across, down, np.float32(scale))
    args = (image, *sizes, gradient, *sums.args(1, cost))
    return [Launch("tv_cost", (min(height, MOST_PARTIALS), 1, 1), BLOCK, args)]


def _by_weight(features: Array) -> tuple[str, np.int64, np.int32]:
    """Of a kernel whose pixels have weights: its variant; and in steps of four channels or one, those of all pixels and
    those of one."""
    channels = features.shape[2]
    variant, step = ("weighted_fp32", 4) if channels % 4 == 0 else ("weighted_fp32_any", 1)
    return variant, np.int64(features.size // step), np.int32(channels // step)


def _in_eights(features: Array) -> tuple[np.int64, np.int32]:
    """Groups of eight channels, of all pixels and of one."""
    return np.int64(features.size // 8), np.int32(features.shape[-1] // 8)
