"""The criteria's formulas: against numbers written out by hand, numpy, brute force and least squares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneproof import criteria, registry
from pruneproof.criteria import (
    Layer,
    Units,
    apoz,
    batch_norm_scale,
    fisher,
    geometric_median,
    l1_norm,
    l2_norm,
    lamp,
    magnitude,
    mean_activation,
    movement,
    random,
    second_order,
    sparsegpt,
    taylor_abs,
    taylor_squared,
    taylor_sum,
    wanda,
)
from pruneproof.errors import PruningError

unhurried = settings(deadline=None, max_examples=40)

ROWS = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, -1.0]])
GRADIENTS = torch.tensor([[0.5, 0.25], [9.0, 9.0], [-2.0, 1.0]])
PRODUCTS = [[1.5, -1.0], [0.0, 0.0], [-2.0, -1.0]]
"""w · g of the above."""


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (magnitude.units, [12.5**0.5, 0.0, 1.0]),
        (l1_norm.units, [7.0, 0.0, 2.0]),
        (l2_norm.units, [5.0, 0.0, 2**0.5]),
        (geometric_median.units, [5 + 13**0.5, 5 + 2**0.5, 13**0.5 + 2**0.5]),
    ],
)
def test_norms_of_units_are_the_formulas_of_their_papers(
    score: Callable[[Units], torch.Tensor], expected: list[float]
) -> None:
    assert score(Units("layer", ROWS)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (taylor_abs.units, [sum(map(abs, row)) for row in PRODUCTS]),
        (taylor_squared.units, [sum(product**2 for product in row) for row in PRODUCTS]),
        (taylor_sum.units, [abs(sum(row)) for row in PRODUCTS]),
    ],
)
def test_the_three_formulas_called_taylor_differ_by_what_they_do_before_they_add(
    score: Callable[[Units], torch.Tensor], expected: list[float]
) -> None:
    assert score(Units("layer", ROWS, gradients=GRADIENTS)).tolist() == pytest.approx(expected)


def test_the_three_taylor_formulas_rank_single_weights_alike() -> None:
    layer = Layer("layer", drawn(4, 5), gradient=drawn(4, 5, seed=1))
    orders = [
        taylor.elements(layer).reshape(-1).argsort().tolist() for taylor in (taylor_abs, taylor_squared, taylor_sum)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_single_weights_score_as_written_out_by_hand() -> None:
    layer = Layer(
        "layer",
        weight=torch.tensor([[2.0, -1.0]]),
        gradient=torch.tensor([[0.5, 3.0]]),
        squared_gradient=torch.tensor([[4.0, 10.0]]),
        input_norm=torch.tensor([[0.25, 5.0]]),
        movement=torch.tensor([[-7.0, 0.5]]),
    )
    assert magnitude.elements(layer).tolist() == [[2.0, 1.0]]
    assert taylor_abs.elements(layer).tolist() == [[1.0, 3.0]]
    assert taylor_squared.elements(layer).tolist() == [[1.0, 9.0]]
    assert fisher.elements(layer).tolist() == [[8.0, 5.0]]
    assert second_order.elements(layer).tolist() == [[7.0, 8.0]]
    assert wanda.elements(layer).tolist() == [[0.5, 5.0]]
    assert movement.elements(layer).tolist() == [[-7.0, 0.5]]


def test_fisher_of_a_unit_squares_the_sum_over_its_weights_example_by_example() -> None:
    products = torch.tensor([[1.0, 3.0], [-1.0, 1.0]])  # two examples of two units
    assert fisher.units(Units("layer", ROWS[:2], example_products=products)).tolist() == [0.5, 2.5]


def test_second_order_of_a_unit_takes_the_absolute_value_weight_by_weight() -> None:
    group = Units("layer", torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]]), torch.tensor([[4.0, 10.0]]))
    assert second_order.units(group).tolist() == [15.0]


def test_movement_away_from_zero_stays_and_movement_towards_zero_goes_first() -> None:
    group = Units("layer", ROWS, movement=torch.tensor([[1.0, 2.0], [-3.0, 1.0], [0.0, 0.0]]))
    assert movement.units(group).tolist() == [3.0, -2.0, 0.0]


def test_units_that_are_often_zero_or_weak_go_first() -> None:
    group = Units("layer", ROWS, zeros=torch.tensor([0.9, 0.1, 0.5]), activity=torch.tensor([0.1, 4.0, 2.0]))
    assert apoz.units(group).argsort().tolist() == [0, 2, 1]
    assert mean_activation.units(group).argsort().tolist() == [0, 2, 1]


def test_slim_needs_a_batch_norm_and_says_of_which_group() -> None:
    assert batch_norm_scale.units(Units("layer", ROWS, scale=torch.tensor([0.5, 0.0, 2.0]))).tolist() == [0.5, 0.0, 2.0]
    with pytest.raises(PruningError, match=r"features\.3: no batch norm"):
        batch_norm_scale.units(Units("features.3", ROWS))


@pytest.mark.parametrize(
    "name", ["taylor_abs", "taylor_squared", "taylor_sum", "fisher", "second_order", "movement", "wanda", "random"]
)
def test_a_criterion_that_was_not_shown_what_it_needs_refuses(name: str) -> None:
    with pytest.raises(PruningError, match=r"^head\.weight: "):
        registry.member("pruneproof.criteria", name).elements(Layer("head.weight", ROWS))


@pytest.mark.parametrize("name", registry.names("pruneproof.criteria"))
def test_every_criterion_ranks_something_and_names_only_needs_that_exist(name: str) -> None:
    criterion = registry.member("pruneproof.criteria", name)
    assert any(hasattr(criterion, what) for what in ("elements", "units", "compensate"))
    known = {value for key, value in vars(criteria).items() if key.isupper()}
    assert criteria.needs(criterion) <= known


@unhurried
@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 1000))
def test_the_geometric_median_is_the_sum_of_distances_by_brute_force(size: int, k: int, seed: int) -> None:
    rows = drawn(size, k, seed=seed)
    expected = [sum(math.dist(one, other) for other in rows.tolist()) for one in rows.tolist()]
    assert geometric_median.units(Units("layer", rows)).tolist() == pytest.approx(expected)


def test_distances_do_not_suffer_from_how_far_from_the_origin_units_lie() -> None:
    rows = 1e6 + drawn(5, 3).double()
    expected = [sum(math.dist(one, other) for other in rows.tolist()) for one in rows.tolist()]
    assert geometric_median.units(Units("layer", rows)).tolist() == pytest.approx(expected)


def test_more_units_than_are_measured_at_a_time_score_as_any_others() -> None:
    rows = torch.arange(1100.0)[:, None]
    expected = [k * (k + 1) / 2 + (1099 - k) * (1100 - k) / 2 for k in range(1100)]
    assert geometric_median.units(Units("layer", rows)).tolist() == expected


@unhurried
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, 1e-30, 1e3]), min_size=1, max_size=12))
def test_lamp_is_each_square_over_the_sum_of_those_not_smaller(values: list[float]) -> None:
    squares = np.square(np.array(values, dtype=np.float32).astype(np.float64))
    order = np.argsort(squares, kind="stable")
    expected = np.zeros(len(values))
    for rank, position in enumerate(order):
        rest = squares[order[rank:]].sum()
        expected[position] = squares[position] / rest if rest else 0.0
    found = lamp.elements(Layer("layer", torch.tensor(values)))
    assert found.tolist() == pytest.approx(expected.tolist())


def test_lamp_of_a_dead_layer_is_zero_and_of_the_largest_weight_one() -> None:
    assert lamp.elements(Layer("dead", torch.zeros(2, 3))).eq(0).all()
    assert lamp.elements(Layer("layer", drawn(3, 4))).max() == 1


def test_random_scores_depend_on_the_given_generator_alone() -> None:
    def scores(seed: int) -> list[float]:
        torch.rand(3)
        return random.units(Units("layer", ROWS, generator=torch.Generator().manual_seed(seed))).tolist()

    before = torch.get_rng_state()
    assert scores(1) == scores(1) != scores(2)
    torch.set_rng_state(before)
    random.elements(Layer("layer", ROWS, generator=torch.Generator()))
    assert torch.equal(before, torch.get_rng_state())


def hessian_of(inputs: torch.Tensor) -> torch.Tensor:
    return (inputs @ inputs.T / inputs.shape[1]).double()


def loss(weight: torch.Tensor, other: torch.Tensor, hessian: torch.Tensor) -> float:
    """Mean squared difference of the layer's outputs."""
    difference = (weight - other).double()
    return float(((difference @ hessian) * difference).sum())


def least_squares(row: torch.Tensor, hessian: torch.Tensor, column: int) -> torch.Tensor:
    """``row`` without weight ``column``, columns after it free to make up for that and those before it fixed."""
    free = list(range(column + 1, len(row)))
    change = torch.zeros_like(row)
    change[column] = -row[column]
    if free:
        change[free] = torch.linalg.solve(hessian[free][:, free], hessian[free, column] * row[column])
    return row + change


@pytest.mark.parametrize("seed", range(8))
def test_sparsegpt_removes_one_weight_as_brute_force_least_squares_would(seed: int) -> None:
    weight, hessian = drawn(2, 5, seed=seed).double(), hessian_of(drawn(5, 40, seed=seed + 100))
    best = min(
        itertools.product(range(2), range(5)),
        key=lambda place: loss(
            least_squares(weight[place[0]], hessian, place[1])[None], weight[place[0]][None], hessian
        ),
    )
    mask, new = sparsegpt.compensate(weight, hessian, k=1, damping=1e-12)
    assert (~mask).nonzero().tolist() == [list(best)]
    assert new[best[0]].tolist() == pytest.approx(least_squares(weight[best[0]], hessian, best[1]).tolist(), rel=1e-5)
    assert torch.equal(new[1 - best[0]], weight[1 - best[0]])


def test_sparsegpt_of_the_first_column_is_the_optimal_brain_surgeon() -> None:
    weight, hessian = drawn(1, 6).double(), hessian_of(drawn(6, 50, seed=1))
    weight[0, 0] = 1e-4  # so that it is chosen
    inverse = torch.linalg.inv(hessian)
    surgeon = weight[0] - weight[0, 0] / inverse[0, 0] * inverse[:, 0]
    _, new = sparsegpt.compensate(weight, hessian, k=1, damping=1e-12)
    assert new[0].tolist() == pytest.approx(surgeon.tolist(), rel=1e-5, abs=1e-12)


@unhurried
@given(st.integers(1, 6), st.integers(2, 20), st.integers(1, 8), st.integers(0, 10**6), st.data())
def test_sparsegpt_removes_exactly_as_many_as_asked_for(
    outputs: int, inputs: int, block: int, seed: int, data: st.DataObject
) -> None:
    weight, hessian = drawn(outputs, inputs, seed=seed), hessian_of(drawn(inputs, 30, seed=seed + 1)).float()
    first = data.draw(st.integers(0, weight.numel()))
    second = data.draw(st.integers(first, weight.numel()))
    mask, new = sparsegpt.compensate(weight, hessian, k=first, block=block)
    assert int((~mask).sum()) == first
    assert new[~mask].eq(0).all()
    assert new.dtype == weight.dtype
    again, newer = sparsegpt.compensate(new, hessian, k=second, gone=~mask, block=block)
    assert int((~again).sum()) == second
    assert not (again & ~mask).any()  # what was gone stays gone
    assert newer[~again].eq(0).all()
    assert torch.equal(new == 0, ~mask)


@pytest.mark.parametrize("block", [3, 4, 128])
@pytest.mark.parametrize("options", [{"k": 36}, {"keep_n": 1, "of_m": 3}])
def test_sparsegpt_makes_up_for_every_removal_as_least_squares_does_one_by_one(
    block: int, options: dict[str, int]
) -> None:
    weight, hessian = drawn(6, 12).double(), hessian_of(drawn(12, 60, seed=1))
    mask, new = sparsegpt.compensate(weight, hessian, block=block, damping=1e-12, **options)  # type: ignore[arg-type]
    for row, kept, found in zip(weight, mask, new, strict=True):
        for column in (~kept).nonzero()[:, 0].tolist():
            row = least_squares(row, hessian, column)
        assert found.tolist() == pytest.approx((row * kept).tolist(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [16, 128])
def test_sparsegpt_reconstructs_the_outputs_better_than_magnitude(seed: int, block: int) -> None:
    factors = drawn(64, 8, seed=seed + 1) @ drawn(8, 300, seed=seed + 2)  # correlated, as a trained layer's inputs are
    inputs = factors + 0.1 * drawn(64, 300, seed=seed + 3)
    weight, hessian = drawn(16, 64, seed=seed), hessian_of(inputs)
    mask, new = sparsegpt.compensate(weight, hessian, k=512, block=block)
    smallest = weight.abs().reshape(-1).argsort()[:512]
    by_magnitude = weight.reshape(-1).index_fill(0, smallest, 0).reshape(16, 64)
    assert loss(new, weight, hessian) < loss(by_magnitude, weight, hessian)
    assert loss(new, weight, hessian) < loss(weight * mask, weight, hessian)


@pytest.mark.parametrize(("keep_n", "of_m"), [(2, 4), (1, 4), (3, 8), (4, 8)])
@pytest.mark.parametrize("block", [6, 128])
def test_sparsegpt_keeps_n_of_every_m_columns(keep_n: int, of_m: int, block: int) -> None:
    weight, hessian = drawn(5, 24), hessian_of(drawn(24, 60, seed=1))
    mask, new = sparsegpt.compensate(weight, hessian, keep_n=keep_n, of_m=of_m, block=block)
    assert mask.reshape(5, -1, of_m).sum(dim=2).eq(keep_n).all()
    assert torch.equal(new != 0, mask)


def test_sparsegpt_removes_weights_of_dead_inputs_first_and_leaves_those_that_stay() -> None:
    inputs = drawn(6, 40)
    inputs[[1, 4]] = 0
    weight = drawn(3, 6, seed=1) + 10
    mask, new = sparsegpt.compensate(weight, hessian_of(inputs), k=6)
    assert (~mask).nonzero()[:, 1].unique().tolist() == [1, 4]
    live = [0, 2, 3, 5]
    assert torch.equal(new[:, live], weight[:, live])
    mask, new = sparsegpt.compensate(weight, hessian_of(inputs), k=2)
    assert torch.equal(new[mask], weight[mask])


def test_sparsegpt_manages_with_fewer_examples_than_inputs() -> None:
    mask, new = sparsegpt.compensate(drawn(4, 32), hessian_of(drawn(32, 3, seed=1)), k=64)
    assert int(mask.sum()) == 64
    assert torch.isfinite(new).all()


@pytest.mark.parametrize(
    ("hessian", "options", "problem"),
    [
        (-torch.eye(4), {"k": 2}, "not positive definite"),
        (torch.full((4, 4), torch.nan), {"k": 2}, "NaN"),
        (torch.eye(3), {"k": 2}, "do not fit"),
        (torch.eye(4), {}, "either"),
        (torch.eye(4), {"k": 2, "keep_n": 2, "of_m": 4}, "either"),
        (torch.eye(4), {"k": 9}, "cannot go"),
        (torch.eye(4), {"k": 1, "gone": torch.ones(2, 4, dtype=torch.bool)}, "cannot go"),
        (torch.eye(4), {"keep_n": 2, "of_m": 3}, "no multiple"),
    ],
)
def test_sparsegpt_refuses_what_it_cannot_do(hessian: torch.Tensor, options: dict[str, int], problem: str) -> None:
    with pytest.raises(PruningError, match=problem):
        sparsegpt.compensate(drawn(2, 4), hessian, **options)  # type: ignore[arg-type]
