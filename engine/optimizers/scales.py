"""Coarse to fine: the sizes a picture is painted at, one after the other, and how much work lies in each.

Only numbers: what is carried from one scale to the next, and the painting itself, are left to the run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import SettingsError
from ..wording import counted

MOST_ITERATIONS = 10**8  # at each scale: what a checkpoint still counts
MIN_SIZE = 128  # px; below it VGG's deepest classic tap, relu5_1, has fewer than 8x8 pixels
FULL_TV_SIZE = 512  # px; up to here total variation counts in full


@dataclass(frozen=True)
class FromTo:
    """Iterations at each scale that go from the first, coarsest one's to the last's; the only one has `first`.

    They go by the square of a scale's number, slowly at first: forms, and faces among them, are found at the coarse
    scales, which cost next to nothing; the last one adds brushwork, and costs half of the run.
    """

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


Iterations: TypeAlias = int | Sequence[int] | FromTo
"""At each scale, the same; of each scale, the coarsest first; or from the first to the last."""
ITERATIONS = FromTo(100, 50)
"""Unless something else is asked for."""


@dataclass(frozen=True)
class Scale:
    """One size of the way: the long side in pixels, the iterations spent there, and a factor on gamma."""

    long_side: int
    iterations: int
    tv: float


def plan_scales(
    long_side: int,
    *,
    min_size: int = MIN_SIZE,
    count: int | None = None,
    iterations: Iterations,
    problem: Callable[[int], str | None] = lambda _: None,
) -> tuple[Scale, ...]:
    """The scales up to exactly `long_side`, each √2 larger than the one before it (to the nearest pixel).

    They begin at the smallest size that is not below `min_size` and has no `problem`, which tells of a long side what
    is too small there; a target below √2 min_size has one scale. `count` fixes how many there are, 1 being no
    coarse-to-fine at all, and then both are only what they may not begin below. `iterations` is as `at_each` takes it.

    Raises SettingsError for numbers below 1, more scales than fit, and a list of another length.
    """
    for what, number in (("size", long_side), ("smallest size", min_size)):
        if number < 1:
            raise SettingsError(f"the {what} is {number}; it must be at least 1 pixel")
    most = 1
    while long_side**2 >= min_size**2 << most:  # long_side >= min_size √2^most, with no rounding
        most += 1
    if count is not None and count < 1:
        raise SettingsError(f"{count} scales were asked for; at least 1 is needed")

    def side(steps: int) -> int:
        return max(1, round(long_side / 2 ** (steps / 2)))

    fitting = most
    while fitting > 1 and problem(side(fitting - 1)) is not None:
        fitting -= 1
    if count is not None and count > fitting:
        first = max(1, round(2.0 ** max(math.log2(long_side) - (count - 1) / 2, 0.0)))
        reason = f"below the smallest size of {min_size}" if count > most else f"where {problem(first)}"
        remedy = ", or for a smaller smallest size" if count > most else ""
        raise SettingsError(
            f"{count} scales up to {long_side} px would begin at {first} px, {reason}; "
            f"ask for {fitting} at most{remedy}"
        )
    count = fitting if count is None else count
    sides = tuple(side(steps) for steps in reversed(range(count)))
    each = at_each(iterations, count)
    if len(each) != count:
        there = f"there {'is' if count == 1 else 'are'} {count} ({_listed(sides)} px)"
        remedy = f"give {count} numbers, or one for all" if count > 1 else "give 1 number"
        raise SettingsError(f"iterations are given for {counted(len(each), 'scale')}, but {there}; {remedy}")
    for number in each:
        if number < 1:
            raise SettingsError(f"{number} iterations were asked for; at least 1 is needed at every scale")
        if number > MOST_ITERATIONS:
            raise SettingsError(f"{number} iterations were asked for; at most {MOST_ITERATIONS} are possible")
    return tuple(Scale(side, number, tv_factor(side)) for side, number in zip(sides, each, strict=True))


def at_each(iterations: Iterations, count: int) -> tuple[int, ...]:
    """The iterations of `count` scales, the coarsest first; a list is as long as it is given."""
    if isinstance(iterations, int):
        return (iterations,) * count
    if isinstance(iterations, FromTo):
        whole, span = max(1, count - 1) ** 2, iterations.last - iterations.first
        return tuple(iterations.first + (2 * number**2 * span + whole) // (2 * whole) for number in range(count))
    return tuple(iterations)


def with_one_more(scales: tuple[Scale, ...], long_side: int) -> tuple[Scale, ...]:
    """The same with a larger scale after the last, of as many iterations; at most twice its size.

    Raises SettingsError for another size.
    """
    last = scales[-1]
    if not last.long_side < long_side <= 2 * last.long_side:
        raise SettingsError(
            f"the scale after the last is to be {long_side} px; it must be larger than that, {last.long_side} px, and "
            f"at most twice as large ({round(last.long_side * math.sqrt(2))} px is the usual step)"
        )
    return (*scales, Scale(long_side, last.iterations, tv_factor(long_side)))


def tv_factor(long_side: int) -> float:
    """The factor on gamma: 1 up to 512 px, and above it falling with the square of the size.

    Total variation is there against grain of the size of a pixel. Seen at the same size on the wall, a picture of
    twice the long side shows four pixels where there was one: the eye averages the power of that grain down to a
    quarter, while the blur that TV costs falls on just the brushwork that the resolution was paid for. So its weight
    goes with the area of a pixel, to nearly nothing in large prints: classic users set it to 0 at high resolution.
    """
    return min(1.0, (FULL_TV_SIZE / long_side) ** 2)


def remaining_seconds(
    scales: Sequence[Scale], current_index: int, iteration: int, seconds_per_pixel_iteration: float
) -> float:
    """Seconds from here to the end of the last scale, with `iteration` iterations done at scale `current_index`.

    seconds_per_pixel_iteration: of one iteration, divided by the square of its scale's long side. All scales have the
    picture's proportions, so that square stands for the number of pixels. Take it from the present scale: at the
    smallest ones what every iteration costs regardless of its pixels weighs in, and the total comes out too long.
    """
    current = scales[current_index]
    left = (current.iterations - iteration) * current.long_side**2
    left += sum(_pixel_iterations(scale) for scale in scales[current_index + 1 :])
    return left * seconds_per_pixel_iteration


def _pixel_iterations(scale: Scale) -> int:
    return scale.iterations * scale.long_side**2


def _listed(sides: Sequence[int]) -> str:
    return ", ".join(str(side) for side in sides)
