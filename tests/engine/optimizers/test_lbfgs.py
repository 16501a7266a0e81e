"""L-BFGS: the solutions of problems that have one, the conditions every step meets, and runs that repeat to the bit."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nstgpu.engine.costs.terms import Costs
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers.lbfgs import CURVATURE, SUFFICIENT_DECREASE, Lbfgs, two_loop
from nstgpu.kernels import open_device
from nstgpu.kernels.device import Device

SHAPE = (6, 5, 3)
N = math.prod(SHAPE)
PRECISIONS = {"reference": "fp64", "reference fp32": "fp32", "cpu": "auto", "emulator": "auto"}

Function = Callable[[Any], tuple[float, Any]]


def opened(name: str) -> Device:
    return open_device(name.split()[0], PRECISIONS[name])


@pytest.fixture(params=["reference", "reference fp32", "cpu"])
def device(request: pytest.FixtureRequest) -> Device:
    return opened(request.param)


@pytest.fixture(params=PRECISIONS)
def every_device(request: pytest.FixtureRequest) -> Device:
    return opened(request.param)


def near(device: Device) -> float:
    """How near the solution of a well-scaled problem an image can come: costs of equal value are the root of epsilon
    apart, and float32 costs are here computed in float64."""
    return 1e-7 if device.image_dtype == np.float64 else 1e-5


class Problem:
    """A function of float64 vectors as the device sees a cost, and a record of every evaluation."""

    def __init__(self, device: Device, function: Function, start: Any, **options: Any) -> None:
        self.device, self.function = device, function
        self.seen: list[tuple[Any, float]] = []
        device.bind_workspace(device.allocate(device.workspace_bytes([])))  # as the walk through a network does
        self.rule = Lbfgs(device, SHAPE, **options)
        self.image, self.gradient = np.zeros((2, *SHAPE), device.image_dtype)
        device.upload(np.asarray(start).reshape(SHAPE), self.image)
        self.costs = self.evaluate(self.image, self.gradient)

    def evaluate(self, image: Any, gradient: Any) -> Costs:
        x = self.device.download(image).astype(np.float64).ravel()
        value, slope = self.function(x)
        self.device.upload(slope.reshape(SHAPE), gradient)
        self.seen.append((x, value))
        return Costs(value, 0.0, 0.0, 0.0)

    def step(self) -> None:
        self.costs = self.rule.step(self.evaluate, self.image, self.gradient, self.costs)

    def run(self, steps: int) -> "Problem":
        for _ in range(steps):
            self.step()
        return self

    @property
    def x(self) -> Any:
        return self.device.download(self.image).astype(np.float64).ravel()

    @property
    def g(self) -> Any:
        return self.device.download(self.gradient).astype(np.float64).ravel()


def quadratic(condition: float = 100.0, seed: int = 0, low: float = 0.3, high: float = 0.7) -> tuple[Function, Any]:
    """1/2 (x - c)^T A (x - c) with a random symmetric A of this condition, and c within [low, high]."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((N, N)))[0]
    matrix = basis * np.geomspace(1, condition, N) @ basis.T
    centre = rng.uniform(low, high, N)
    return lambda x: (float((x - centre) @ matrix @ (x - centre)) / 2, matrix @ (x - centre)), centre


def rosenbrock(x: Any) -> tuple[float, Any]:
    """The chained Rosenbrock function of u = 4 x - 2; its minimum, u = 1, is x = 3/4."""
    u = 4 * x - 2
    curved, straight = u[1:] - u[:-1] ** 2, 1 - u[:-1]
    gradient = np.zeros_like(u)
    gradient[1:] += 200 * curved
    gradient[:-1] -= 400 * curved * u[:-1] + 2 * straight
    return float(np.sum(100 * curved**2 + straight**2)), 4 * gradient


def noise(seed: int = 5) -> Any:
    return np.random.default_rng(seed).random(N)


def held(x: Any, g: Any) -> Any:
    return ((x <= 0) & (g > 0)) | ((x >= 1) & (g < 0))


def test_two_loop_is_the_bfgs_matrix() -> None:
    """Against H = (I - rho s y^T) H (I - rho y s^T) + rho s s^T written out, with the ring of slots wrapped around."""
    rng = np.random.default_rng(0)
    slots, order = 4, [3, 0, 1]
    matrix = np.diag(rng.uniform(1, 5, N))
    s = rng.standard_normal((slots, N))
    basis = np.vstack([s, s @ matrix, rng.standard_normal(N)])
    inverse = np.eye(N) * (s[1] @ matrix @ s[1]) / np.sum((s[1] @ matrix) ** 2)
    for slot in order:
        y = matrix @ s[slot]
        keep = np.eye(N) - np.outer(s[slot], y) / (s[slot] @ y)
        inverse = keep @ inverse @ keep.T + np.outer(s[slot], s[slot]) / (s[slot] @ y)
    np.testing.assert_allclose(two_loop(basis @ basis.T, order, slots) @ basis, inverse @ basis[-1], rtol=1e-9)


def test_quadratic_with_few_eigenvalues_takes_few_steps(every_device: Device) -> None:
    """Three distinct eigenvalues: conjugate directions would need three steps with an exact line search."""
    centre = noise(1) * 0.4 + 0.3
    scale = np.repeat([1.0, 3.0, 10.0], N // 3)
    problem = Problem(every_device, lambda x: (float(scale @ (x - centre) ** 2) / 2, scale * (x - centre)), noise())
    problem.run(12)
    np.testing.assert_allclose(problem.x, centre, atol=near(every_device))


def test_quadratic_reaches_the_solution(device: Device) -> None:
    function, centre = quadratic()
    problem = Problem(device, function, noise()).run(100)
    np.testing.assert_allclose(problem.x, centre, atol=near(device))
    if not problem.rule.stalled:  # a last search for a lower cost takes many
        assert len(problem.seen) < 115


def test_rosenbrock(device: Device) -> None:
    problem = Problem(device, rosenbrock, np.full(N, 0.2) + 0.1 * noise()).run(500)
    np.testing.assert_allclose(problem.x, 0.75, atol=near(device))


def test_active_bounds(every_device: Device) -> None:
    """Half of the unbounded solution lies outside: the solution within meets the conditions of Kuhn and Tucker, and
    solves the equations of the pixels that are free."""
    function, centre = quadratic(condition=30, low=-0.5, high=1.5)
    problem = Problem(every_device, function, noise()).run(25)
    x, g = problem.x, problem.g
    assert x.min() == 0
    assert x.max() == 1
    bound = (x == 0) | (x == 1)
    assert N // 3 < bound.sum() < 2 * N // 3
    assert held(x, g)[bound].all()
    np.testing.assert_allclose(g[~bound], 0, atol=30 * near(every_device))
    rows = [function(centre + unit)[1] for unit in np.eye(N)]
    free = np.ix_(~bound, ~bound)
    rest = np.array(rows)[~bound][:, bound] @ (x - centre)[bound]
    np.testing.assert_allclose(
        x[~bound], centre[~bound] - np.linalg.solve(np.array(rows)[free], rest), atol=10 * near(every_device)
    )
    assert len(problem.seen) < 32


def test_a_corner_is_left_at_once_where_the_gradient_points_inwards(device: Device) -> None:
    """From all zeros with the solution inside: no pixel is held, none sticks."""
    function, centre = quadratic()
    np.testing.assert_allclose(Problem(device, function, np.zeros(N)).run(100).x, centre, atol=near(device))


def test_held_pixels_do_not_move(device: Device) -> None:
    function, _ = quadratic(condition=30, low=-0.5, high=1.5)
    problem = Problem(device, function, noise())
    for _ in range(20):
        before, stays = problem.x, held(problem.x, problem.g)
        problem.step()
        np.testing.assert_array_equal(problem.x[stays], before[stays])
    assert stays.sum() > N // 5


@pytest.mark.parametrize("learning_rate", [1e-5, 0.02, 0.3])
@pytest.mark.parametrize("function", [quadratic()[0], quadratic(1e4, seed=3)[0], rosenbrock])
def test_accepted_steps_meet_the_strong_wolfe_conditions(function: Function, learning_rate: float) -> None:
    """Where no bound is reached the path is a line, and s lies along it; first steps much too short and too long."""
    problem = Problem(open_device("reference"), function, 0.45 + 0.1 * noise(), learning_rate=learning_rate)
    met = 0
    for _ in range(40):
        x, g, value, evaluations = problem.x, problem.g, problem.costs.total, len(problem.seen)
        problem.step()
        s = problem.x - x
        if len(problem.seen) - evaluations >= 8 or not 0 < problem.x.min() <= problem.x.max() < 1:
            continue
        assert problem.costs.total <= value + SUFFICIENT_DECREASE * (g @ s)
        assert abs(problem.g @ s) <= CURVATURE * abs(g @ s)
        met += 1
    assert met > 30


def test_the_cost_falls_at_every_step_and_pixels_stay_in_range(device: Device) -> None:
    """On a function that is not convex: cosines along random directions."""
    waves = np.random.default_rng(2).standard_normal((40, N)) * 2

    def function(x: Any) -> tuple[float, Any]:
        return float(np.sum(np.cos(waves @ x))), -waves.T @ np.sin(waves @ x)

    problem = Problem(device, function, noise())
    for _ in range(40):
        before = problem.costs.total
        problem.step()
        assert problem.costs.total < before or problem.rule.stalled
        assert 0 <= problem.x.min() <= problem.x.max() <= 1
    assert all(0 <= x.min() <= x.max() <= 1 for x, _ in problem.seen)
    assert problem.costs.total < -30
    assert np.abs(problem.g[~held(problem.x, problem.g)]).max() < 1e-2


def sharp(x: Any) -> tuple[float, Any]:
    """A roof turned upside down. No step on it meets the Wolfe conditions: searches end when their patience does, at
    the lowest point they saw, which need not be the last. Curvature it has none, or all in one place."""
    above = float(np.sum(x)) - 0.4 * N
    return abs(above), np.full(N, np.sign(above))


@pytest.mark.parametrize("function", [quadratic()[0], sharp])
def test_what_is_returned_belongs_to_the_image(device: Device, function: Function) -> None:
    problem = Problem(device, function, noise())
    for _ in range(15):
        problem.step()
        value, slope = function(problem.x)
        assert problem.costs.total == value
        np.testing.assert_array_equal(problem.g, slope.astype(device.image_dtype))
        pairs = problem.rule.state()
        assert (np.sum(pairs["s"] * pairs["y"], axis=1) > 0).all()


def test_the_first_step_has_the_learning_rate(device: Device) -> None:
    """Where the line search has no reason to take another: the first trial moves the pixels by that much, RMS."""
    start = 0.3 + 0.4 * noise()
    problem = Problem(device, quadratic()[0], start, learning_rate=0.003).run(1)
    assert np.sqrt(np.mean((problem.seen[1][0] - problem.seen[0][0]) ** 2)) == pytest.approx(0.003, rel=1e-3)


@pytest.mark.parametrize("beyond", ["the cost's", 0.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_costs_shorten_the_step(device: Device, bad: float, beyond: Any) -> None:
    """The cost is not finite beyond a wall that the first step and many later ones jump over."""
    target = np.full(N, 0.5)

    def function(x: Any) -> tuple[float, Any]:
        if x.max() > 0.6:
            return bad, np.full(N, bad if beyond == "the cost's" else beyond)
        return float(np.sum((x - target) ** 2 - 0.01 * np.log(0.61 - x))), 2 * (x - target) + 0.01 / (0.61 - x)

    problem = Problem(device, function, 0.2 + 0.1 * noise(), learning_rate=0.5).run(30)
    assert any(not math.isfinite(value) for _, value in problem.seen)
    assert math.isfinite(problem.costs.total)
    np.testing.assert_allclose(problem.g, 0, atol=1e-3)


def test_a_step_far_too_long_is_shortened_until_it_fits(device: Device) -> None:
    """Finite costs only within a hundred-thousandth of the start, and a first step 90000 times as long."""

    def function(x: Any) -> tuple[float, Any]:
        near_start = x.max() < 0.10001
        return float(np.sum((x - 0.100005) ** 2)) if near_start else math.inf, 2 * (x - 0.100005)

    problem = Problem(device, function, np.full(N, 0.1), learning_rate=0.9).run(3)
    np.testing.assert_allclose(problem.x, 0.100005, atol=1e-6)


def test_a_non_finite_gradient_is_refused_as_a_step_and_as_a_start(every_device: Device) -> None:
    """A finite cost with NaN in its gradient is no place to go; at the start there is nothing to do but say so."""

    def function(x: Any) -> tuple[float, Any]:
        gradient = 2 * (x - 0.5)
        return float(np.sum((x - 0.5) ** 2)), np.where(x > 0.7, np.nan, gradient)

    problem = Problem(every_device, function, np.full(N, 0.1), learning_rate=0.65).run(20)
    np.testing.assert_allclose(problem.x, 0.5, atol=near(every_device))
    with pytest.raises(FloatingPointError, match="not finite"):
        Problem(every_device, function, np.full(N, 0.8)).step()


def test_a_minimum_stalls(device: Device) -> None:
    """At the solution there is no lower cost: said once, and not asked again until it is told to forget."""
    function, centre = quadratic()
    problem = Problem(device, function, centre.astype(device.image_dtype))
    problem.run(40)
    assert problem.rule.stalled
    evaluations, x = len(problem.seen), problem.x
    problem.step()
    assert len(problem.seen) == evaluations
    np.testing.assert_array_equal(problem.x, x)
    problem.rule.reset()
    assert not problem.rule.stalled


def test_an_ascent_is_never_taken(device: Device) -> None:
    """The gradient has the wrong sign: every step along it rises, so nothing moves."""
    function, _ = quadratic()
    problem = Problem(device, lambda x: (function(x)[0], -function(x)[1]), 0.3 + 0.4 * noise())
    x = problem.x
    problem.step()
    assert problem.rule.stalled
    np.testing.assert_array_equal(problem.x, x)


def test_curvature_that_misleads_is_forgotten(device: Device) -> None:
    """The function is swapped under the optimiser's feet; it still descends on the new one."""
    (first, _), (second, centre) = quadratic(1e3), quadratic(seed=9)
    problem = Problem(device, first, noise()).run(15)
    problem.function = second
    problem.costs = problem.evaluate(problem.image, problem.gradient)
    problem.rule.reset()
    np.testing.assert_allclose(problem.run(100).x, centre, atol=near(device))


def test_two_runs_give_the_same_bits(every_device: Device) -> None:
    runs = [Problem(every_device, rosenbrock, noise()).run(25) for _ in range(2)]
    assert len(runs[0].seen) == len(runs[1].seen)
    for (x, value), (other_x, other_value) in zip(runs[0].seen, runs[1].seen, strict=True):
        assert value == other_value
        np.testing.assert_array_equal(x, other_x)


@pytest.mark.parametrize("steps", [0, 1, 4, 13])
def test_a_restored_run_goes_on_to_the_bit(every_device: Device, steps: int) -> None:
    """With the history not yet full, and full; bounds active."""
    function, _ = quadratic(condition=1e3, low=-0.5, high=1.5)
    whole = Problem(every_device, function, noise(), history=5).run(steps)
    resumed = Problem(every_device, function, whole.x, history=5)
    saved = {name: values.copy() for name, values in whole.rule.state().items()}
    resumed.rule.restore(saved)
    for _ in range(10):
        whole.step()
        resumed.step()
        np.testing.assert_array_equal(resumed.x, whole.x)
        assert resumed.costs.total == whole.costs.total
    for name, values in whole.rule.state().items():
        np.testing.assert_array_equal(values, resumed.rule.state()[name], err_msg=name)


def test_an_interrupted_step_leaves_the_image_and_can_be_repeated(device: Device) -> None:
    """At the first evaluation, and at the second one, after one that left NaN everywhere."""
    whole, problem = (Problem(device, rosenbrock, noise()).run(3) for _ in range(2))
    for good in (0, 1):
        x, g = problem.x, problem.g
        calls: list[int] = []

        def interrupted(_: Any, gradient: Any, good: int = good, calls: list[int] = calls) -> Costs:
            gradient[...] = math.nan
            calls.append(1)
            if len(calls) > good:
                raise KeyboardInterrupt
            return Costs(0.0, 0.0, 0.0, 0.0)

        with pytest.raises(KeyboardInterrupt):
            problem.rule.step(interrupted, problem.image, problem.gradient, problem.costs)
        np.testing.assert_array_equal(problem.x, x)
        np.testing.assert_array_equal(problem.g, g)
        for _ in range(8):
            whole.step()
            problem.step()
        np.testing.assert_array_equal(problem.x, whole.x)


def test_a_longer_history_leads_further() -> None:
    function, _ = quadratic(1e3, seed=4)
    costs = [Problem(open_device("reference"), function, noise(), history=m).run(100).costs.total for m in (1, 30)]
    assert costs[1] < 0.1 * costs[0]


def test_at_another_size_it_starts_anew() -> None:
    problem = Problem(open_device("reference"), rosenbrock, noise(), learning_rate=0.01, history=7).run(3)
    larger = problem.rule.rescaled_to((8, 9, 3))
    fresh = Lbfgs(problem.device, (8, 9, 3), 0.01, 7)
    assert larger.learning_rate == fresh.learning_rate
    for name, values in fresh.state().items():
        np.testing.assert_array_equal(larger.state()[name], values, err_msg=name)


def test_refusals() -> None:
    device = open_device("reference")
    for history in (0, 31):
        with pytest.raises(SettingsError, match=f"history is {history}"):
            Lbfgs(device, SHAPE, history=history)
    state = Problem(device, rosenbrock, noise()).run(3).rule.state()
    for other in (Lbfgs(device, SHAPE, history=4), Lbfgs(device, (4, 5, 3))):
        with pytest.raises(SettingsError, match="resume with the size and history"):
            other.restore(state)
