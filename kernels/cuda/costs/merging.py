"""Several launches that were asked for together, as one: see `Device.together`.

Only kernels whose arguments are known here take part (MERGEABLE); the kernels that do several things at once are in
costs/terms.cu and costs/terms_16bit.cuh.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ...device import Array
from ..grids import BLOCK, WORKSPACE_BYTES
from ..runtime.launch import Launch
from .kernel_names import CONTENT_COST, CONTENT_COST_AND_GRADIENT, CONTENT_GRADIENT

STYLE_COST = "style_cost"
ENDING = ("preprocess_gradient", "tv_cost", "gemv")
"""What an iteration ends with, where there are no masks and borders."""
MERGEABLE = {STYLE_COST, *ENDING, *(of[precision] for of in (CONTENT_COST, CONTENT_GRADIENT)
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


def merged(launches: Sequence[Launch], address: Callable[[Array], int]) -> list[Launch]:
    """Launches of MERGEABLE kernels, which do not depend on each other but for those of ENDING, as few."""
    style = [launch for launch in launches if launch.kernel == STYLE_COST]
    ending = [launch for launch in launches if launch.kernel in ENDING]
    content = [launch for launch in launches if launch.kernel not in (STYLE_COST, *ENDING)]
    return _style_costs(style, address) + _content(content, address) + _ending(ending, address)


def _ending(launches: Sequence[Launch], address: Callable[[Array], int]) -> list[Launch]:
    """As one, where the second adds to what the first writes, and the third squares it."""
    if tuple(launch.kernel for launch in launches) != ENDING:
        return list(launches)
    network_gradient, out, _, *rest = launches[0].args
    image, height, row_values, across, down, scale, gradient, workspace, _, cost, tickets = launches[1].args
    vectors, values, _, _, square, _ = launches[2].args
    if len({address(array) for array in (out, gradient, vectors, values)}) > 1 or vectors.size != out.size:  # type: ignore[attr-defined]
        return list(launches)
    order = [rest[:3].index(channel) for channel in range(3)]
    sources = (*map(np.int32, order), *(rest[3 + k] for k in order))
    args = (network_gradient, *sources, image, height, row_values, across, down, scale, gradient, workspace, cost,
            square, tickets)  # fmt: skip
    return [Launch("image_gradient", launches[1].grid, BLOCK, args)]


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
        gram_error = address(launch.args[4])
        number = last.get(gram_error, -1) + 1
        while number < len(rounds) and not _has_room(rounds[number], launch):
            number += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(launch)
        last[gram_error] = number
    return [each[0] if len(each) == 1 else _as_one(each, address) for each in rounds]


def _has_room(launches: Sequence[Launch], one: Launch) -> bool:
    blocks = sum(launch.grid[0] for launch in (*launches, one))
    return len(launches) < MOST_STYLE_COSTS and 4 * blocks <= WORKSPACE_BYTES


def _as_one(launches: Sequence[Launch], address: Callable[[Array], int]) -> Launch:
    costs = np.zeros(1, STYLE_COSTS)
    first = 0
    reached: list[object] = []
    for i, launch in enumerate(launches):
        gram, target, n, scale, gram_error, workspace, factor, cost, tickets, accumulate = launch.args
        arrays = {"gram": gram, "target": target, "gram_error": gram_error, "cost": cost}
        for name, array in arrays.items():
            costs[name][0, i] = address(array)
        costs["n"][0, i], costs["scale"][0, i], costs["factor"][0, i] = n, scale, factor
        costs["accumulate"][0, i], costs["first_block"][0, i] = accumulate, first
        first += launch.grid[0]
        reached += arrays.values()
    costs["first_block"][0, len(launches)] = first
    args = (costs, np.int32(len(launches)), workspace, tickets)
    return Launch("style_costs", (first, 1, 1), BLOCK, args, reached=tuple(reached))
