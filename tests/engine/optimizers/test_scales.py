"""Coarse to fine: which sizes, how many iterations, how much work is left."""

import math
from typing import Any

import pytest

from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers.scales import FromTo, Scale, at_each, plan_scales, remaining_seconds, tv_factor


def sides(long_side: int, **options: Any) -> list[int]:
    return [scale.long_side for scale in plan_scales(long_side, iterations=1, **options)]


def test_powers_of_two() -> None:
    assert sides(512) == [128, 181, 256, 362, 512]
    assert sides(512, min_size=256) == [256, 362, 512]


@pytest.mark.parametrize("min_size", [1, 64, 100, 128, 333])
def test_scales_grow_by_root_two_from_min_size_to_the_target(min_size: int) -> None:
    for long_side in range(min_size, 30 * min_size, 7):
        planned = sides(long_side, min_size=min_size)
        assert planned[-1] == long_side
        assert planned[0] >= min_size
        assert planned[0] / math.sqrt(2) < min_size + 0.5
        for index, side in enumerate(reversed(planned)):
            assert abs(side - long_side / math.sqrt(2) ** index) < 0.5 + 1e-9


def test_below_root_two_times_min_size_there_is_one_scale() -> None:
    assert sides(181) == [181]
    assert sides(182) == [129, 182]
    assert sides(20) == [20]


def test_count_fixes_how_many() -> None:
    assert sides(512, count=1) == [512]
    assert sides(512, count=3) == [256, 362, 512]
    assert sides(20, count=1) == [20]
    assert len(sides(512, count=5)) == 5


def test_iterations_for_all_or_for_each() -> None:
    assert [scale.iterations for scale in plan_scales(256, iterations=40)] == [40, 40, 40]
    assert plan_scales(256, iterations=[500, 300, 100]) == (
        Scale(128, 500, 1.0),
        Scale(181, 300, 1.0),
        Scale(256, 100, 1.0),
    )


@pytest.mark.parametrize(
    ("steps", "each"),
    [
        (FromTo(100, 50), [(100,), (100, 50), (100, 88, 50), (100, 94, 78, 50), (100, 97, 88, 72, 50)]),
        (FromTo(10, 40), [(10,), (10, 40), (10, 18, 40), (10, 13, 23, 40)]),
        (FromTo(1, 2), [(1,), (1, 2), (1, 1, 2), (1, 1, 1, 2)]),
        (FromTo(10**8, 1), [(10**8,), (10**8, 1)]),
    ],
)
def test_iterations_from_the_first_scales_to_the_last(steps: FromTo, each: list[tuple[int, ...]]) -> None:
    assert [at_each(steps, count) for count in range(1, len(each) + 1)] == each
    long_side = {2: 182, 4: 400, 5: 512}[len(each)]
    assert tuple(scale.iterations for scale in plan_scales(long_side, iterations=steps)) == each[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": [100, 50]}, "for 2 scales, but there are 5 (128, 181, 256, 362, 512 px); give 5 numbers"),
        ({"iterations": [100, 50], "count": 1}, "for 2 scales, but there is 1 (512 px); give 1 number"),
        ({"iterations": 0}, "0 iterations were asked for"),
        ({"iterations": FromTo(5, 0)}, "0 iterations were asked for"),
        ({"iterations": [5, 5, -3, 5, 5]}, "-3 iterations were asked for"),
        ({"iterations": 1, "count": 0}, "0 scales were asked for"),
        ({"iterations": 1, "count": 7}, "would begin at 64 px, below the smallest size of 128; ask for 5 at most"),
        ({"iterations": 1, "min_size": 0}, "the smallest size is 0"),
        ({"iterations": 1, "long_side": -5}, "the size is -5"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        plan_scales(**{"long_side": 512, **arguments})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tv_falls_with_the_area_of_a_pixel_above_512() -> None:
    assert tv_factor(128) == tv_factor(512) == 1
    assert tv_factor(1024) == 0.25
    assert tv_factor(2048) == 0.0625
    assert [scale.tv for scale in plan_scales(1024, count=3, iterations=1)] == pytest.approx([1, 0.5, 0.25], rel=2e-3)


def test_remaining_seconds_against_a_run_carried_out() -> None:
    """A machine that takes 2 us for each square of the long side: at every moment, the estimate is what follows."""
    scales, rate = plan_scales(512, iterations=[30, 20, 10, 5, 7]), 2e-6
    moments = [(index, done) for index, scale in enumerate(scales) for done in range(scale.iterations)]
    left = sum(rate * scale.long_side**2 * scale.iterations for scale in scales)
    for index, done in moments:
        assert remaining_seconds(scales, index, done, rate) == pytest.approx(left)
        left -= rate * scales[index].long_side ** 2
    assert remaining_seconds(scales, 4, 7, rate) == 0


@pytest.mark.parametrize("count", [4, 1_000_000, 10**30])
def test_absurd_numbers_of_scales_are_one_line(count: int) -> None:
    with pytest.raises(SettingsError, match=rf"^{count} scales up to 256 px would begin at \d+ px, .* 3 at most"):
        plan_scales(256, count=count, iterations=1)


def test_scales_begin_at_the_first_that_carries_everything() -> None:
    def problem(side: int) -> str | None:
        return f"the content is {side}x{side // 9} px, too small" if side < 200 else None

    assert sides(512, problem=problem) == [256, 362, 512]
    assert sides(512, min_size=300, problem=problem) == [362, 512]
    assert sides(512, count=2, problem=problem) == [362, 512]
    assert sides(150, problem=problem) == [150]  # of which the transfer complains
    with pytest.raises(SettingsError, match="begin at 181 px, where the content is 181x20 px, too small; ask for 3"):
        plan_scales(512, count=4, iterations=1, problem=problem)


@pytest.mark.parametrize("iterations", [10**9, 10**30, [1, 1, 10**21]])
def test_absurd_numbers_of_iterations_are_one_line(iterations: Any) -> None:
    with pytest.raises(SettingsError, match=r"^10+ iterations were asked for; at most 100000000 are possible$"):
        plan_scales(256, iterations=iterations)
