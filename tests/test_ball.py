"""Norm balls: what counts as inside, and that nothing projected or started is outside."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from pruneproof.adversarial.ball import Ball
from pruneproof.errors import SubjectError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NORMS = ("Linf", "L2", "L1", "L0")


def outside(ball: Ball, clean: torch.Tensor, points: torch.Tensor) -> list[str]:
    """What is wrong with ``points``, in exact arithmetic, element by element."""
    found = []
    low, high, unit = (
        torch.as_tensor(part, dtype=torch.float64).expand(clean.shape[1:]).flatten().tolist()
        for part in (ball.low, ball.high, ball.unit)
    )
    for c, x in zip(clean.double().flatten(1).tolist(), points.double().flatten(1).tolist(), strict=True):
        change = [Fraction(b) - Fraction(a) for a, b in zip(c, x, strict=True)]
        for a, b, bottom, top in zip(c, x, low, high, strict=True):
            if b < min(bottom, a) or b > max(top, a):
                found.append(f"{b} outside [{bottom}, {top}]")
        units = [abs(d) / Fraction(u) for d, u in zip(change, unit, strict=True)]
        if ball.norm == "Linf":
            wrong = any(abs(d) > Fraction(ball.eps * u) for d, u in zip(change, unit, strict=True))
        elif ball.norm == "L0":
            wrong = sum(d != 0 for d in change) > math.floor(ball.eps)
        else:
            power = 2 if ball.norm == "L2" else 1
            wrong = sum(u**power for u in units) > (Fraction(ball.eps) * (1 + Fraction(1, 10**9))) ** power
        if wrong:
            found.append(f"{ball.norm} distance above {ball.eps}")
    return found


@st.composite
def situations(draw: st.DrawFn) -> tuple[Ball, torch.Tensor, torch.Tensor]:
    """A ball, clean examples inside its box (often on its edge), and wishes anywhere."""
    dtype = draw(st.sampled_from(DTYPES))
    norm = draw(st.sampled_from(NORMS))
    shape = draw(st.sampled_from([(1,), (3,), (2, 2), (3, 2, 2)]))
    elements = math.prod(shape)
    numbers = st.floats(-4, 4, width=16)

    def per_element(strategy: st.SearchStrategy[float]) -> Any:
        if draw(st.booleans()):
            return draw(strategy)
        return torch.tensor(draw(st.lists(strategy, min_size=elements, max_size=elements))).reshape(shape)

    low = per_element(st.floats(-50, 0))
    width = per_element(st.sampled_from([0.1, 1.0, 255.0, 1 / 3]) | st.floats(0, 300))
    ends = torch.as_tensor(low, dtype=torch.float64) + torch.as_tensor(width, dtype=torch.float64)
    high = ends if draw(st.booleans()) else math.inf
    unit = per_element(st.sampled_from([1.0, 1 / 255, 1 / 0.229, 20.0]) | st.floats(1e-3, 1e3))
    eps = draw(st.sampled_from([0.0, 8 / 255, 1.0, 3.7, 1e6]) | st.floats(0, 10))
    ball = Ball(norm, eps, low, high, unit)
    n = draw(st.integers(1, 3))
    values = draw(st.lists(numbers, min_size=n * elements, max_size=n * elements))
    clean = torch.tensor(values, dtype=torch.float64).reshape(n, *shape).to(dtype)
    widest = Ball("Linf", 1e30, low, high)
    clean = torch.clamp(clean, *widest.limits(torch.zeros_like(clean))).to(dtype)
    bottom, top = torch.as_tensor(low).double(), torch.as_tensor(high).double()
    assume(bool(((clean.double() >= bottom) & (clean.double() <= top)).all()))
    scale = draw(st.sampled_from([0.0, 0.01, 1.0, 1e4]))
    wishes = draw(st.lists(numbers, min_size=n * elements, max_size=n * elements))
    points = clean + (scale * torch.tensor(wishes, dtype=torch.float64).reshape(n, *shape)).to(dtype)
    return ball, clean, points.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)


@settings(max_examples=300, deadline=None)
@given(situations(), st.integers(0, 2**32))
def test_nothing_projected_or_started_is_outside_ball_or_box(
    situation: tuple[Ball, torch.Tensor, torch.Tensor], seed: int
) -> None:
    ball, clean, points = situation
    for found in (ball.project(clean, points), ball.start(clean, torch.Generator().manual_seed(seed))):
        assert found.dtype == clean.dtype
        assert not outside(ball, clean, found)
        assert ball.contains(clean, found).all()


@settings(max_examples=200, deadline=None)
@given(situations())
def test_contains_says_what_exact_arithmetic_says(situation: tuple[Ball, torch.Tensor, torch.Tensor]) -> None:
    ball, clean, points = situation
    for row in range(len(clean)):
        one, point = clean[row : row + 1], points[row : row + 1]
        assert bool(ball.contains(one, point)[0]) == (not outside(ball, one, point))


@settings(max_examples=200, deadline=None)
@given(situations())
def test_limits_are_inside_and_the_next_numbers_are_not(situation: tuple[Ball, torch.Tensor, torch.Tensor]) -> None:
    ball, clean, _ = situation
    ball = Ball("Linf", ball.eps, ball.low, ball.high, ball.unit)
    lower, upper = ball.limits(clean)
    assert not outside(ball, clean, lower)
    assert not outside(ball, clean, upper)
    kind: Any = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}.get(clean.dtype)
    if kind is None:
        return  # numpy has no bfloat16
    for edge, way in ((lower, -np.inf), (upper, np.inf)):
        with np.errstate(over="ignore"):
            beyond = torch.from_numpy(np.nextafter(edge.numpy(), kind(way)))
        assume(bool(beyond.isfinite().all()))
        for place in itertools.product(*map(range, edge.shape)):
            moved = edge.clone()
            moved[place] = beyond[place]
            assert outside(ball, clean, moved)


@settings(max_examples=100, deadline=None)
@given(situations())
def test_what_is_inside_is_left_where_it_is(situation: tuple[Ball, torch.Tensor, torch.Tensor]) -> None:
    ball, clean, points = situation
    found = ball.project(clean, points)
    assert torch.equal(ball.project(clean, found), found)


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("seed", range(8))
def test_a_projection_is_the_nearest_point_that_a_general_solver_finds(norm: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    clean = generator.uniform(0, 1, 5).round(1)  # some on the edge of the box
    point = clean + generator.normal(0, 2, 5)
    unit = generator.uniform(0.5, 2, 5)
    eps = generator.uniform(0.2, 2.0)
    ball = Ball(norm, eps, 0.0, 1.0, torch.tensor(unit))  # type: ignore[arg-type]
    found = ball.project(torch.tensor(clean)[None], torch.tensor(point)[None])[0].numpy()

    # split into steps up and down, both of them at least 0, the L1 norm is their sum and the problem smooth
    def place(steps: Any) -> Any:
        return clean + (steps[:5] - steps[5:]) * unit

    def room(steps: Any) -> Any:
        size = steps[:5] - steps[5:]
        return eps**2 - (size**2).sum() if norm == "L2" else eps - steps.sum()

    solved = optimize.minimize(
        lambda steps: (((place(steps) - point) / unit) ** 2).sum() / 100,
        np.full(10, 0.01),
        method="SLSQP",
        bounds=[*zip(np.zeros(5), (1 - clean) / unit, strict=True), *zip(np.zeros(5), clean / unit, strict=True)],
        constraints={"type": "ineq", "fun": room},
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert solved.success
    assert (((found - point) / unit) ** 2).sum() == pytest.approx(100 * solved.fun, abs=1e-5)
    assert found == pytest.approx(place(solved.x), abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_projection_in_l0_is_the_best_of_all_choices_of_elements(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 6, generator=generator, dtype=torch.float64)
    point = clean + 2 * torch.randn(1, 6, generator=generator, dtype=torch.float64)
    found = Ball("L0", 2.0, 0.0, 1.0).project(clean, point)
    best = math.inf
    for chosen in itertools.combinations(range(6), 2):
        candidate = clean.clone()
        candidate[0, list(chosen)] = point[0, list(chosen)].clamp(0, 1)
        best = min(best, float((candidate - point).square().sum()))
    assert float((found - point).square().sum()) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(("norm", "power"), [("L2", 2), ("L1", 1)])
def test_starts_are_uniform_in_the_ball(norm: str, power: int) -> None:
    clean = torch.full((4000, 3), 50.0, dtype=torch.float64)
    unit = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    ball = Ball(norm, 3.0, 0.0, 100.0, unit)  # type: ignore[arg-type]
    started = (ball.start(clean, torch.Generator().manual_seed(1)) - clean) / unit
    # of a uniform point in a ball of radius r in d dimensions, (length / r)^d is uniform in [0, 1]
    length = torch.linalg.vector_norm(started, ord=power, dim=1)
    assert stats.kstest((length / 3.0).pow(3).numpy(), "uniform").pvalue > 0.001
    # and rejection sampling from the cube draws the same distribution of each coordinate
    cube = np.random.default_rng(0).uniform(-3, 3, (60000, 3))
    kept = cube[(np.abs(cube) ** power).sum(axis=1) <= 3**power]
    for element in range(3):
        assert stats.ks_2samp(started[:, element].numpy(), kept[:, element]).pvalue > 0.001


def test_starts_in_l_infinity_are_uniform_in_the_cube() -> None:
    ball = Ball("Linf", 0.5, -10.0, 10.0, torch.tensor([1.0, 4.0]))
    started = ball.start(torch.zeros(4000, 2), torch.Generator().manual_seed(2))
    for element, half in enumerate((0.5, 2.0)):
        assert stats.kstest(started[:, element].numpy(), "uniform", args=(-half, 2 * half)).pvalue > 0.001


def test_starts_in_l0_change_just_so_many_elements_and_use_the_whole_box() -> None:
    clean = torch.full((2000, 8), 0.5)
    started = Ball("L0", 3.9, -1.0, 2.0).start(clean, torch.Generator().manual_seed(3))
    assert ((started != clean).sum(dim=1) == 3).all()
    changed = started[started != clean].double().numpy()
    assert stats.kstest(changed, "uniform", args=(-1, 3)).pvalue > 0.001
    counts = (started != clean).sum(dim=0).numpy()
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("norm", NORMS)
def test_where_an_example_starts_does_not_depend_on_those_behind_it(norm: Any) -> None:
    clean = torch.rand(7, 3, 5, generator=torch.Generator().manual_seed(4))
    ball = Ball(norm, 2.0, 0.0, 1.0)
    many = ball.start(clean, torch.Generator().manual_seed(5))
    few = ball.start(clean[:3], torch.Generator().manual_seed(5))
    assert torch.equal(many[:3], few)


@pytest.mark.parametrize(("norm", "dual"), [("Linf", 1), ("L2", 2), ("L1", math.inf)])
def test_a_step_gains_as_much_as_any_step_of_its_length_can(norm: Any, dual: float) -> None:
    """The largest product of a gradient with a step of length 1 is the gradient's dual norm."""
    generator = torch.Generator().manual_seed(6)
    unit = torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.5
    gradient = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    ball = Ball(norm, 1.0, -9.0, 9.0, unit)
    step = ball.step(gradient, 0.3, sparse=1 / 12)
    assert ball.distance(torch.zeros_like(step), step) == pytest.approx(torch.full((5,), 0.3).numpy())
    gained = (gradient * step).flatten(1).sum(dim=1)
    expected = 0.3 * torch.linalg.vector_norm((gradient * unit).flatten(1), ord=dual, dim=1)
    assert gained.numpy() == pytest.approx(expected.numpy())


def test_a_sparse_step_in_l1_moves_the_elements_that_count_most() -> None:
    gradient = torch.tensor([[0.1, -5.0, 0.2, 3.0, 0.0]])
    step = Ball("L1", 1.0, 0.0, 1.0).step(gradient, 1.0, sparse=0.4)
    assert step.tolist() == [[0.0, -0.5, 0.0, 0.5, 0.0]]


@pytest.mark.parametrize("norm", ["L2", "L1", "L0"])
def test_a_step_spends_nothing_on_elements_that_the_box_holds(norm: Any) -> None:
    points = torch.tensor([[0.0, 1.0, 0.5, 1.0]])
    step = Ball(norm, 1.0, 0.0, 1.0).step(torch.tensor([[-9.0, 9.0, 0.25, -0.25]]), 1.0, sparse=0.5, points=points)
    length = 0.5**0.5 if norm == "L2" else 0.5
    assert step[0].tolist() == pytest.approx([0.0, 0.0, length, -length])


def test_a_step_in_l0_moves_as_much_as_the_size_says_and_most_where_the_gradient_is_largest() -> None:
    step = Ball("L0", 2.0, -1.0, 3.0).step(torch.tensor([[1.0, -3.0]]), 2.0)
    assert step.tolist() == [[2.0, -6.0]]  # two elements' worth of a box 4 wide, by 1 : 3


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_survives_gradients_of_zero_and_of_almost_nothing(norm: Any, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    gradient = torch.tensor([[0.0, 0.0], [tiny, -tiny]], dtype=dtype)
    step = Ball(norm, 1.0, 0.0, 1.0).step(gradient, 0.25, sparse=1.0)
    assert step.dtype == dtype
    assert step[0].tolist() == [0.0, 0.0]
    assert step[1, 0] > 0.1
    assert step[1, 1] < -0.1


def test_distances_are_in_units_as_computed_by_hand() -> None:
    clean, point = torch.zeros(1, 3), torch.tensor([[3.0, -8.0, 0.0]])
    unit = torch.tensor([1.0, 2.0, 5.0])
    expected = {"Linf": 4.0, "L2": 5.0, "L1": 7.0, "L0": 2.0}
    for norm, distance in expected.items():
        assert float(Ball(norm, 1.0, -9, 9, unit).distance(clean, point)) == distance  # type: ignore[arg-type]


def test_the_edge_of_an_l_infinity_ball_is_judged_without_tolerance() -> None:
    """1 + 5/255 in float32 is a little more than 5/255 above 1."""
    clean = torch.ones(1, 1)
    beyond = clean + 5 / 255
    assert Fraction(float(beyond)) - 1 > Fraction(5 / 255)
    ball = Ball("Linf", 5 / 255, 0.0, 2.0)
    assert not ball.contains(clean, beyond)
    assert ball.contains(clean, ball.project(clean, beyond))
    assert Fraction(float(ball.project(clean, beyond))) == Fraction(float(torch.nextafter(beyond, clean)))


def test_a_distance_that_float64_rounds_to_eps_is_judged_as_it_is() -> None:
    """1 ± 1e-20 is 1 in float64, and only one of them is inside a ball of 1."""
    ball = Ball("Linf", 1.0, -9.0, 9.0)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert ball.contains(one * 1e-20, one)
    assert not ball.contains(one * -1e-20, one)
    assert float(ball.limits(one * -1e-20)[1]) == 1 - 2**-53
    assert ball.contains(one * -1e-20, -one)
    assert not ball.contains(one * 1e-20, -one)


def test_a_ball_as_wide_as_the_box_holds_all_of_it() -> None:
    corners = torch.tensor(list(itertools.product([-1.0, 3.0], repeat=3)))
    for norm, eps in {"Linf": 4.0, "L2": 4 * math.sqrt(3), "L1": 12.0, "L0": 3.0}.items():
        ball = Ball(norm, eps, -1.0, 3.0)  # type: ignore[arg-type]
        for clean in corners:
            assert ball.contains(clean.expand(8, 3), corners).all()
        assert not ball.at(eps * 0.9).contains(corners[:1], corners[-1:])


def test_a_clean_example_that_rounding_put_outside_the_box_is_in_its_own_ball() -> None:
    clean = torch.tensor([[0.1, -0.1]])  # a little outside ±0.1 of float64
    for norm in NORMS:
        ball = Ball(norm, 0.05, -0.1, 0.1)  # type: ignore[arg-type]
        assert ball.contains(clean, clean)
        started = ball.start(clean, torch.Generator().manual_seed(0))
        assert ball.contains(clean, started)
        for way in (-1, 1):
            assert ball.contains(clean, ball.project(clean, clean + way))


@pytest.mark.parametrize("norm", NORMS)
def test_no_examples_are_no_trouble(norm: Any) -> None:
    none = torch.zeros(0, 3, 2)
    ball = Ball(norm, 1.0, 0.0, 1.0)
    assert ball.project(none, none).shape == none.shape
    assert ball.start(none, torch.Generator()).shape == none.shape
    assert ball.step(none, 1.0).shape == none.shape
    assert ball.contains(none, none).shape == (0,)
    assert ball.distance(none, none).shape == (0,)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_not_a_number_is_not_made_one(norm: Any) -> None:
    clean = torch.tensor([[0.5, 0.5]])
    found = Ball(norm, 1.0, 0.0, 1.0).project(clean, torch.tensor([[math.nan, 0.6]]))
    assert found.isnan().any()


def test_the_description_is_plain_json() -> None:
    ball = Ball("L2", 2.5, torch.full((3, 1, 1), -1.0), math.inf, torch.rand(3, 8, 8) + 1)
    told = ball.describe()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["norm"] == "L2"
    assert told["eps"] == 2.5
    assert told["low"] == [[[-1.0]], [[-1.0]], [[-1.0]]]
    assert told["high"] is None
    assert set(told["unit"]) == {"min", "max"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"norm": "L3"},
        {"eps": -0.1},
        {"eps": math.nan},
        {"unit": 0.0},
        {"unit": torch.tensor([1.0, -1.0])},
        {"low": 2.0},
        {"high": math.nan},
    ],
)
def test_what_is_no_ball_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SubjectError):
        Ball(**({"norm": "Linf", "eps": 0.1, "low": 0.0, "high": 1.0} | wrong))
