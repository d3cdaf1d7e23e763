"""What an attacker may do to rows of a table: only what a person could, within the budget."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_oracle import Case, cases, problems
from scipy.optimize import minimize

from pruneproof.adversarial.repair import Proposal
from pruneproof.adversarial.row_listing import listed
from pruneproof.adversarial.rows import RowSpace
from pruneproof.adversarial.stated import check, validate
from pruneproof.domain import Column, OneHot, Sum, Table
from pruneproof.errors import SubjectError

WILD = st.sampled_from([0.0, 0.01, 0.5, 3.0, 1e4])


def wild(case: Case, size: float, seed: int) -> torch.Tensor:
    """Points that an attack without manners would propose, some of them not finite."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(case.clean.shape, generator=generator, dtype=torch.float64) * size
    points = (case.clean.double() + noise).to(case.clean.dtype)
    strange = torch.rand(points.shape, generator=generator)
    points[strange < 0.02] = math.nan
    points[strange > 0.98] = math.inf
    return points


def every(case: Case, points: torch.Tensor) -> list[list[str]]:
    return [problems(case, clean, point) for clean, point in zip(case.clean, points, strict=True)]


@settings(max_examples=150, deadline=None)
@given(cases(), WILD, st.integers(0, 2**31))
def test_whatever_is_proposed_a_repaired_row_is_valid_and_within_the_budget(case: Case, size: float, seed: int) -> None:
    space = RowSpace(case.table, case.norm, case.eps)
    fixed = space.repair(case.clean, wild(case, size, seed))
    assert every(case, fixed) == [[]] * len(fixed)
    assert bool(space.contains(case.clean, fixed).all())


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_every_random_start_is_valid_and_within_the_budget(case: Case, seed: int) -> None:
    space = RowSpace(case.table, case.norm, case.eps)
    points = space.start(case.clean, torch.Generator().manual_seed(seed))
    assert points.dtype == case.clean.dtype
    assert every(case, points) == [[]] * len(points)


@settings(max_examples=100, deadline=None)
@given(cases(), WILD, st.integers(0, 2**31))
def test_a_row_is_in_the_space_exactly_when_nothing_is_wrong_with_it(case: Case, size: float, seed: int) -> None:
    space = RowSpace(case.table, case.norm, case.eps)
    valid = space.repair(case.clean, wild(case, size, seed))
    generator = torch.Generator().manual_seed(seed)
    for points in (wild(case, size, seed), valid, _one_changed(valid, generator), case.clean):
        assert space.contains(case.clean, points).tolist() == [not wrong for wrong in every(case, points)]


def _one_changed(points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    found = points.clone()
    place = int(torch.randint(points.shape[1], (1,), generator=generator))
    found[:, place] += 0.25 * torch.randint(-4, 5, (len(points),), generator=generator)
    return found


@settings(max_examples=60, deadline=None)
@given(cases(), WILD, st.integers(0, 2**31))
def test_repair_leaves_a_valid_row_within_the_budget_bit_for_bit_alone(case: Case, size: float, seed: int) -> None:
    space = RowSpace(case.table, case.norm, case.eps)
    for points in (case.clean, space.repair(case.clean, wild(case, size, seed))):
        assert torch.equal(space.repair(case.clean, points), points)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_the_start_of_an_example_depends_on_its_position_alone_not_on_the_others(case: Case, seed: int) -> None:
    space = RowSpace(case.table, case.norm, case.eps)
    others = case.clean.clone()
    others[:2] = case.clean[1]
    first = space.start(case.clean, torch.Generator().manual_seed(seed))
    second = space.start(others, torch.Generator().manual_seed(seed))
    assert torch.equal(first[2:], second[2:])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["L1", "L2"]))
def test_the_projection_is_the_nearest_point_that_a_general_solver_finds(seed: int, norm: str) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.uniform(0.5, 3, 4)
    table = Table([Column(f"x{i}", low=-0.5, high=0.8, cost=float(c)) for i, c in enumerate(costs)])
    space = RowSpace(table, norm, 1.0)
    clean = torch.zeros(1, 4, dtype=torch.float64)
    asked = rng.normal(size=4)
    found = space.repairs.project(clean, torch.from_numpy(asked)[None], torch.ones(1, dtype=torch.float64))[0].numpy()

    def far(split: Any) -> float:  # x = up - down, so that the absolute value is smooth
        return float(np.square(costs * (split[:4] - split[4:] - asked)).sum())

    def room(split: Any) -> float:
        if norm == "L1":
            return float(1 - (costs * (split[:4] + split[4:])).sum())
        return float(1 - np.square(costs * (split[:4] - split[4:])).sum())

    bounds = [(0, 0.8)] * 4 + [(0, 0.5)] * 4
    limit = {"type": "ineq", "fun": room}
    # At its usual precision the solver leaves the budget by more than what is compared here.
    exact = {"ftol": 1e-12, "maxiter": 1000}
    best = minimize(far, np.full(8, 0.01), bounds=bounds, constraints=limit, method="SLSQP", options=exact)
    assert far(np.concatenate([found.clip(0), (-found).clip(0)])) <= best.fun + 1e-6


PAYMENT = Table(
    columns=[
        Column("amount", "integer", low=1, high=2000, cost=0.01),
        Column("fee", "derived"),
        Column("age", mutable=False),
        Column("visits", "integer", direction="up", cost=0.5),
        Column("channel", "category", values=(0.0, 1.0, 2.0), cost=2.0),
        Column("NA"),
        Column("GB"),
        Column("rate", low=0.0, high=1.0, cost=4.0),
    ],
    one_hot=[OneHot("country", ("NA", "GB"), cost=3.0)],
    derive=lambda rows, clean: torch.cat([rows[:, :1], rows[:, :1] / 10, rows[:, 2:]], dim=1),
)
CLEAN = torch.tensor([[940.0, 94.0, 31.0, 2.0, 1.0, 1.0, 0.0, 0.5]])
CHANGED = torch.tensor([[1010.0, 101.0, 31.0, 4.0, 2.0, 0.0, 1.0, 0.25]])


@pytest.mark.parametrize(
    ("norm", "wanted"),
    [
        ("L1", 0.7 + 1.0 + 2.0 + 3.0 + 1.0),
        ("L2", math.sqrt(0.7**2 + 1.0**2 + 2.0**2 + 3.0**2 + 1.0**2)),
        ("Linf", 3.0),
    ],
)
def test_a_change_costs_its_size_and_a_category_or_group_its_cost_once(norm: str, wanted: float) -> None:
    space = RowSpace(PAYMENT, norm, 10)
    assert float(space.distance(CLEAN, CHANGED)) == pytest.approx(wanted)
    assert bool(space.at(wanted).contains(CLEAN, CHANGED)) is True
    assert bool(space.at(wanted * (1 - 1e-6)).contains(CLEAN, CHANGED)) is False


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (0, 940.5),
        (0, 2001.0),
        (1, 94.01),
        (2, 31.000002),
        (3, 1.0),
        (4, 1.5),
        (5, 0.0),
        (6, 1.0),
        (7, 1.01),
        (7, -0.01),
    ],
)
def test_a_row_that_breaks_one_thing_does_not_count(column: int, value: float) -> None:
    space = RowSpace(PAYMENT, "L1", 1e9)
    point = CLEAN.clone()
    point[0, column] = value
    assert bool(space.contains(CLEAN, CLEAN)) is True
    assert bool(space.contains(CLEAN, point)) is False


def test_a_changed_row_is_shown_as_a_person_would_read_it() -> None:
    space = RowSpace(PAYMENT, "L1", 10)
    assert space.shown(CLEAN[0], CHANGED[0]) == (
        "amount 940 → 1 010; visits 2 → 4; channel 1 → 2; rate 0.5 → 0.25; country NA → GB"
    )
    assert space.shown(CLEAN[0], CLEAN[0]) == ""


def test_with_decode_a_row_is_shown_in_the_subjects_own_words() -> None:
    def decode(row: torch.Tensor) -> dict[str, str]:
        return {"amount": f"{row[0]:.0f} €", "from": "Namibia" if row[5] else "Great Britain"}

    table = Table(PAYMENT.columns, PAYMENT.one_hot, derive=PAYMENT.derive, decode=decode)
    shown = RowSpace(table, "L1", 10).shown(CLEAN[0], CHANGED[0])
    assert shown == "amount 940 € → 1010 €; from Namibia → Great Britain"


def test_the_threat_model_is_told_in_plain_values() -> None:
    told = json.loads(json.dumps(RowSpace(PAYMENT, "L2", 2.5).describe(), allow_nan=False))
    assert (told["norm"], told["eps"], told["derived"]) == ("L2", 2.5, ["fee"])
    assert set(told["mutable"]) == {"amount", "visits", "channel", "country", "rate"}
    assert told["mutable"]["visits"]["direction"] == "up"


def test_a_mutable_total_follows_its_parts_and_a_total_of_totals_as_well() -> None:
    table = Table(
        [Column("a"), Column("b"), Column("ab", cost=0.0), Column("c", mutable=False), Column("all", cost=0.0)],
        sums=[Sum(("ab", "c"), "all"), Sum(("a", "b"), "ab")],
    )
    space = RowSpace(table, "L1", 10.0)
    clean = torch.tensor([[1.0, 2.0, 3.0, 4.0, 7.0]])
    asked = torch.tensor([[3.0, 2.5, 0.0, 9.0, 0.0]])
    assert space.repair(clean, asked).tolist() == [[3.0, 2.5, 5.5, 4.0, 9.5]]


def test_under_a_total_that_stays_the_parts_trade_off() -> None:
    table = Table([Column("a"), Column("b"), Column("all", mutable=False)], sums=[Sum(("a", "b"), "all")])
    space = RowSpace(table, "L1", 10.0)
    found = space.repair(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 0.0, 3.0]]))
    assert found.tolist() == [[3.0, 0.0, 3.0]]
    found = space.repair(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 3.0]]))
    assert float(found[0, :2].sum()) == 3.0
    assert float(found[0, 0]) > 1.0


@pytest.mark.parametrize("norm", ["L1", "L2", "Linf"])
def test_a_far_move_ends_where_the_budget_does_to_the_last_places_of_the_dtype(norm: str) -> None:
    clean = 1000 + torch.rand(200, 1, generator=torch.Generator().manual_seed(0))
    space = RowSpace(Table([Column("x", cost=2.0)]), norm, 1.0)
    fixed = space.repair(clean, clean + 100)
    last = float(torch.finfo(torch.float32).eps) * 1024
    spent = 2.0 * (fixed.double() - clean.double())
    assert bool(((spent <= 1.0) & (spent > 1.0 - 4 * last)).all())


def test_whole_steps_cost_what_they_are_whatever_float32_makes_of_them() -> None:
    # Amounts in 100 000: a thousand more cost exactly 1, for every amount.
    space = RowSpace(Table([Column("amount", "integer", high=1.0, cost=100.0, step=1e-5)]), "L1", 1.0)
    amounts = torch.arange(1, 99_000, 7, dtype=torch.float64)[:, None]
    clean, more, toomuch = ((part / 100_000).float() for part in (amounts, amounts + 1000, amounts + 1001))
    assert bool(space.contains(clean, more).all())
    assert not bool(space.contains(clean, toomuch).any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_of_half_precision_are_repaired_within_the_budget(dtype: torch.dtype) -> None:
    space = RowSpace(Table([Column("x"), Column("y")]), "L1", 0.3)
    clean = torch.tensor([[100.0, 0.01], [1.0, 2.0]], dtype=dtype)
    fixed = space.repair(clean, clean + 7)
    assert fixed.dtype == dtype
    assert bool(space.contains(clean, fixed).all())


def _table(*columns: Column, **more: Any) -> Table:
    return Table([*columns, Column("free")], **more)


def _same(rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return rows


A, B = Column("a"), Column("b")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Table([]), "columns=…) is empty"),
        (_table(A, A), "two columns are called 'a'"),
        (_table(Column("a", low=2, high=1)), "'a' has low = 2 above high = 1"),
        (_table(Column("a", cost=-1)), "'a' costs -1"),
        (_table(Column("a", "integer", step=0)), "'a' has steps of 0"),
        (_table(Column("a", "category")), "'a' is a category without values"),
        (_table(Column("a", "category", values=(1, 1))), "values that repeat"),
        (_table(Column("a", values=(1, 2))), "'a' has values and is of kind 'real'"),
        (_table(Column("a", "text")), "'a' is of kind 'text'"),  # type: ignore[arg-type]
        (_table(Column("a", direction="left")), "'a' goes 'left'"),  # type: ignore[arg-type]
        (_table(Column("a", "derived")), "'a' is derived, and there is no Table(derive=…)"),
        (_table(Column("a", "derived", direction="up"), derive=_same), "'a' is derived: give a direction"),
        (_table(A, derive=_same), "no column of kind 'derived'"),
        (_table(A, B, one_hot=[OneHot("g", ("a", "c"))]), "group 'g' names 'c'"),
        (_table(A, B, one_hot=[OneHot("g", ("a",))]), "group 'g' has 1 column"),
        (_table(A, B, one_hot=[OneHot("g", ("a", "b")), OneHot("h", ("a", "b"))]), "'a' is in two groups, 'g' and 'h'"),
        (_table(A, B, one_hot=[OneHot("a", ("a", "b"))]), "group 'a' has the name"),
        (_table(A, Column("b", mutable=False), one_hot=[OneHot("g", ("a", "b"))]), "'b' is not mutable, and its group"),
        (_table(A, B, sums=[Sum(("a", "z"), "b")]), "names 'z', and there is no such column"),
        (_table(A, B, sums=[Sum(("a",), "b"), Sum(("free",), "b")]), "'b' is the total of two sums"),
        (_table(A, B, sums=[Sum(("a",), "b"), Sum(("b",), "a")]), "part of its own sum"),
        (_table(A, B, sums=[Sum(("a", "a"), "b")]), "'a' is a part of two sums"),
        (_table(Column("a", "category", values=(1,)), B, sums=[Sum(("a",), "b")]), "no real or integer column"),
        (Table([Column("a", mutable=False)]), "nothing that an attacker could change"),
        (_table(Column("a", cost=0, low=0)), "'a' costs nothing and has no bounds"),
    ],
)
def test_columns_that_contradict_each_other_are_refused_by_name(table: Table, message: str) -> None:
    with pytest.raises(SubjectError, match="^" + ".*" + _escaped(message)):
        check(table)
    with pytest.raises(SubjectError):
        RowSpace(table, "L1", 1.0)


def _escaped(message: str) -> str:
    import re

    return re.escape(message)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 940.5, r"example 11 .*'amount' is a multiple of 1 \(it is 940.5\)"),
        (0, 2001.0, r"example 11 .*1 <= 'amount' <= 2000 \(it is 2001\)"),
        (1, 95.0, r"example 11 .*'fee' is what derive computes \(it is 95\)"),
        (2, math.nan, r"example 11 .*finite \('age' is nan\)"),
        (4, 7.0, r"example 11 .*'channel' is one of its values \(it is 7\)"),
        (6, 1.0, r"example 11 .*exactly one column of group 'country' is 1"),
        (7, 1.5, r"example 11 .*0 <= 'rate' <= 1 \(it is 1.5\)"),
    ],
)
def test_a_clean_row_that_breaks_the_constraints_is_named_with_its_value(
    column: int, value: float, message: str
) -> None:
    rows = CLEAN.repeat(3, 1)
    validate(PAYMENT, rows)
    rows[1, column] = value
    with pytest.raises(SubjectError, match=message):
        validate(PAYMENT, rows, first=10)


def test_what_the_clean_rows_break_of_sums_and_the_subjects_own_constraint_is_named_too() -> None:
    table = _table(A, B, sums=[Sum(("a",), "b", tolerance=0.1)])
    validate(table, torch.tensor([[1.0, 1.05, 0.0]]))
    with pytest.raises(SubjectError, match=r"example 0 .*a = b \(it is 1\.2"):
        validate(table, torch.tensor([[1.0, 1.2, 0.0]]))
    table = _table(A, valid=lambda rows, clean: rows[:, 0] > 0)
    with pytest.raises(SubjectError, match=r"example 1 .*valid"):
        validate(table, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))


def test_a_row_that_is_invalid_only_where_nothing_can_change_is_refused_as_well() -> None:
    table = _table(Column("a", "integer", mutable=False))
    with pytest.raises(SubjectError, match="'a' is a multiple of 1"):
        validate(table, torch.tensor([[0.5, 0.0]]))


def test_the_wrong_number_of_columns_is_refused() -> None:
    with pytest.raises(SubjectError, match=r"states 8 columns, and one example has shape \(7,\)"):
        validate(PAYMENT, CLEAN[:, :7])


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        (lambda rows, clean: rows + 1, "changes 'free', which is not of kind 'derived'"),
        (lambda rows, clean: rows[:, :1], r"gave shape \(2, 1\) for rows \(2, 2\)"),
        (lambda rows: rows, "raised TypeError"),
        (lambda rows, clean: None, "gave NoneType"),
    ],
)
def test_a_derive_that_cannot_be_right_is_refused(derive: Any, message: str) -> None:
    table = _table(Column("a", "derived"), derive=derive)
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    if message.startswith("changes"):
        table = _table(Column("a", "derived"), derive=lambda rows, clean: torch.stack([rows[:, 0], rows[:, 1] + 1], 1))
    with pytest.raises(SubjectError, match=message):
        validate(table, rows)


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        (lambda rows, clean: True, "gave bool"),
        (lambda rows, clean: rows, "gave .* of torch.float32"),
        (lambda rows, clean: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_valid_that_says_no_booleans_is_refused(valid: Any, message: str) -> None:
    with pytest.raises(SubjectError, match=message):
        validate(_table(A, valid=valid), torch.zeros(2, 2))


def test_real_columns_of_integer_rows_are_refused() -> None:
    with pytest.raises(SubjectError, match=r"'a' is real, and the rows are torch\.int64"):
        validate(_table(A), torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize(("norm", "eps"), [("L0", 1.0), ("Linf", -1.0), ("L1", math.nan), ("L1", math.inf)])
def test_a_budget_that_is_none_is_refused(norm: str, eps: float) -> None:
    with pytest.raises(SubjectError):
        RowSpace(PAYMENT, norm, eps)


def test_with_no_budget_nothing_but_the_clean_row_is_left() -> None:
    space = RowSpace(PAYMENT, "L1", 0.0)
    assert torch.equal(space.start(CLEAN, torch.Generator().manual_seed(0)), CLEAN)
    assert torch.equal(space.repair(CLEAN, CHANGED), CLEAN)


def test_an_unaffordable_choice_is_left_and_the_rest_of_the_budget_spent_on_numbers() -> None:
    space = RowSpace(PAYMENT, "L1", 2.5)
    found = space.repairs.settle(Proposal(CLEAN, torch.tensor([[100.0, 0.0, 0.0]]).double(), torch.tensor([[2, 1]])))
    # The channel costs 2 and is taken first, the country costs 3; half a unit is left: 50 of the amount.
    assert found[0].tolist() == [990.0, 99.0, 31.0, 2.0, 2.0, 1.0, 0.0, 0.5]


@pytest.mark.parametrize("clean", [0.3, 0.5, 0.6, 0.7, 0.9])
@pytest.mark.parametrize("step", [0.1, 0.05])
def test_a_column_of_fractional_steps_reaches_its_own_bounds_whatever_float32_makes_of_them(
    clean: float, step: float
) -> None:
    column = Column("discount", "integer", low=0.0, high=1.0, step=step)
    space = RowSpace(Table([column, Column("other", mutable=False)]), "L1", 1.0)
    rows = torch.tensor([[clean, 0.0]])
    low, high = space.repairs.reach(rows)
    assert (round(float(low[0, 0]) / step), round(float(high[0, 0]) / step)) == (
        -round(clean / step),
        round((1 - clean) / step),
    )
    found = listed(space, rows[0], 100)
    assert found is not None
    assert len(found) == round(1 / step)  # every multiple but the clean one
