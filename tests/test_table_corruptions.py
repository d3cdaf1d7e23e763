"""Tables corrupted: every row that comes out could be one of the subject's."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from row_oracle import Case, cases, problems

from pruneproof import registry
from pruneproof.corruptions import Corruption
from pruneproof.corruptions._table_sheet import of
from pruneproof.domain import Column, OneHot, Sum, Table
from pruneproof.errors import MeasurementError
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

NAMES = (
    *("category_swap", "column_swap", "digit_typos", "feature_noise", "feature_shift", "missing_values", "outliers"),
    *("rounding", "scale_error", "sign_error", "stale_features", "unseen_category", "volatility"),
)
SEVERITY = st.sampled_from([0.01, 1.0, 2.5, 5.0])


def member(name: str) -> Corruption:
    found: Corruption = registry.member("pruneproof.corruptions", name).CORRUPTION
    return found


def ground_of(table: Table, rows: torch.Tensor, missing: bool = False) -> Ground:
    return Ground("table", tuple(rows.shape[1:]), rows.dtype, table, rows, rows, missing)


def corrupted(
    name: str, ground: Ground, rows: torch.Tensor, severity: float, positions: Any = None, seed: int = 0, **keys: Any
) -> torch.Tensor:
    one = member(name)
    options = one.options(**keys)
    assert one.refuses(ground, options) is None
    draws = Draws(seed, name, range(len(rows)) if positions is None else positions)
    return one.apply(rows, ground, severity, draws, options)


def refusal(name: str, ground: Ground, **keys: Any) -> str | None:
    one = member(name)
    return one.refuses(ground, one.options(**keys))


def column(*values: float, **keys: Any) -> tuple[Table, torch.Tensor]:
    """A table of one column, and its rows."""
    return Table([Column("x", **keys)]), torch.tensor(values, dtype=torch.float64)[:, None]


def applicable(case: Case) -> list[tuple[str, Ground]]:
    ground = ground_of(case.table, case.clean)
    return [(name, ground) for name in NAMES if refusal(name, ground) is None]


@settings(max_examples=60, deadline=None)
@given(cases(rows=6), SEVERITY, st.integers(0, 2**31))
def test_every_corrupted_row_keeps_all_that_the_table_states_but_directions(
    case: Case, severity: float, seed: int
) -> None:
    columns = [dataclasses.replace(one, direction="any") for one in case.table.columns]
    judged = Case(dataclasses.replace(case.table, columns=columns), case.clean, "Linf", math.inf)
    before = case.clean.clone()
    for name, ground in applicable(case):
        rows = corrupted(name, ground, case.clean, severity, seed=seed)
        assert rows.shape == case.clean.shape
        assert rows.dtype == case.clean.dtype
        assert [problems(judged, old, new) for old, new in zip(before, rows, strict=True)] == [[]] * len(rows)
        assert torch.equal(case.clean, before)


@settings(max_examples=30, deadline=None)
@given(cases(rows=7), SEVERITY, st.integers(0, 2**31))
def test_a_row_comes_out_the_same_in_any_batch_and_order_and_at_severity_0_as_it_went_in(
    case: Case, severity: float, seed: int
) -> None:
    for name, ground in applicable(case):
        together = corrupted(name, ground, case.clean, severity, seed=seed)
        alone = [corrupted(name, ground, case.clean[i : i + 1], severity, [i], seed) for i in range(7)]
        order = [4, 1, 6, 0, 2]
        shuffled = corrupted(name, ground, case.clean[order], severity, order, seed)
        assert torch.equal(torch.cat(alone), together)
        assert torch.equal(shuffled, together[order])
        assert torch.equal(corrupted(name, ground, case.clean, 0.0, seed=seed), case.clean)


@settings(max_examples=30, deadline=None)
@given(cases(rows=6), SEVERITY, st.integers(0, 2**31), st.floats(0, 0.5))
def test_rows_with_holes_keep_them_and_nothing_else_becomes_one(
    case: Case, severity: float, seed: int, share: float
) -> None:
    table = dataclasses.replace(case.table, valid=None)
    holes = torch.rand(case.clean.shape, generator=torch.Generator().manual_seed(seed)) < share
    holes[:, [place for place, one in enumerate(table.columns) if one.kind == "derived"]] = False
    rows = case.clean.masked_fill(holes, torch.nan)
    rows = rows if table.derive is None else table.derive(rows, rows)
    ground = Ground("table", tuple(rows.shape[1:]), rows.dtype, table, rows, rows, True)
    for name in NAMES:
        if refusal(name, ground) is None and name not in ("missing_values", "stale_features"):
            assert torch.equal(corrupted(name, ground, rows, severity, seed=seed).isnan(), rows.isnan())


@settings(max_examples=40, deadline=None)
@given(cases(rows=6), st.sampled_from([1.0, 5.0]), st.integers(0, 2**31))
def test_where_cells_go_missing_the_others_are_those_of_a_valid_row(case: Case, severity: float, seed: int) -> None:
    columns = [dataclasses.replace(one, direction="any") for one in case.table.columns]
    judged = Case(dataclasses.replace(case.table, columns=columns), case.clean, "Linf", math.inf)
    holes = torch.rand(case.clean.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    test = case.clean.masked_fill(holes, torch.nan)
    ground = Ground("table", tuple(test.shape[1:]), test.dtype, case.table, case.clean, test, True)
    for name in ("missing_values", "stale_features"):
        if refusal(name, ground) is not None:
            continue
        rows = corrupted(name, ground, case.clean, severity, seed=seed)
        completed = torch.where(rows.isnan(), case.clean, rows)
        if case.table.derive is not None:
            assert torch.equal(rows[:, -1].isnan(), rows[:, :2].isnan().any(dim=1))
            completed = case.table.derive(completed, case.clean)
        assert [problems(judged, old, new) for old, new in zip(case.clean, completed, strict=True)] == [[]] * 6
        assert of(ground).broken(case.clean, rows) is None


def test_a_flag_that_follows_from_a_missing_number_is_missing_and_a_row_that_breaks_a_constraint_is_told() -> None:
    table = Table(
        [Column("x", "integer"), Column("round", "derived"), Column("y", low=0.0)],
        derive=lambda rows, clean: torch.stack([rows[:, 0], (rows[:, 0] % 10 == 0).to(rows.dtype), rows[:, 2]], dim=1),
    )
    rows = torch.tensor([[10.0, 1.0, 5.0]]).repeat(200, 1)
    ground = ground_of(table, rows, True)
    out = corrupted("missing_values", ground, rows, 5, column="x")
    assert torch.equal(out[:, 0].isnan(), out[:, 1].isnan())
    assert 0 < int(out[:, 1].isnan().sum()) < 200
    assert torch.equal(out[:, 2], rows[:, 2])
    assert of(ground).broken(rows, out) is None
    for place, value, what in ((2, -1.0, "'y'"), (0, 0.5, "multiple"), (1, 0.0, "derive")):
        wrong = rows.clone()
        wrong[3, place] = value
        assert what in str(of(ground).broken(rows, wrong))


FIXTURES: dict[str, set[str]] = {
    "fraud": {"column_swap", "sign_error"},
    "credit": {"category_swap", "unseen_category", "sign_error"},
}
"""What there is nothing to do for: fraud has one number, of one sign; in credit no category can change."""


@pytest.fixture(scope="module", params=sorted(FIXTURES))
def embedded(request: pytest.FixtureRequest) -> tuple[str, Ground]:
    import importlib

    subject = importlib.import_module(f"pruneproof.fixtures.{request.param}").subject()
    rows, calibration = subject.test.inputs, subject.calibration.inputs
    return request.param, Ground("table", tuple(rows.shape[1:]), rows.dtype, subject.domain, calibration, rows)


def test_every_corruption_that_applies_to_the_embedded_tables_gives_valid_rows_and_changes_some(
    embedded: tuple[str, Ground],
) -> None:
    name, ground = embedded
    assert {one for one in NAMES if refusal(one, ground) is not None} == FIXTURES[name]
    assert ground.test is not None
    assert isinstance(ground.domain, Table)
    clean, at = ground.test[:300], {one.name: place for place, one in enumerate(ground.domain.columns)}
    still = [p for p, one in enumerate(ground.domain.columns) if not one.mutable]
    for one in sorted(set(NAMES) - FIXTURES[name]):
        rows = corrupted(one, ground, clean, 5)
        assert bool((rows != clean).any()), one
        assert torch.equal(rows[:, still], clean[:, still])
        assert ground.domain.derive is not None
        torch.testing.assert_close(ground.domain.derive(rows, clean), rows, rtol=1e-5, atol=1e-5)
        for group in ground.domain.one_hot:
            ones = rows[:, [at[name] for name in group.columns]]
            assert set(ones.unique().tolist()) <= {0.0, 1.0}
            assert set(ones.sum(dim=1).tolist()) <= ({0.0, 1.0} if group.may_be_none else {1.0})
        if name == "fraud":
            amount = rows[:, 0].double() * 100_000
            torch.testing.assert_close(amount, amount.round(), rtol=0, atol=0.02)
            assert 1 <= float(amount.round().min()) <= float(amount.round().max()) <= 100_000
        else:
            assert bool((rows[:, at["log Amount"]] <= rows[:, at["log Price"]]).all())
            assert torch.equal(rows[:, at["Time"]], rows[:, at["Time"]].round().clamp(6, 72))


def test_embedded_rows_have_the_same_bytes_in_batches_of_1_2_7_64_and_on_1_or_2_threads(
    embedded: tuple[str, Ground],
) -> None:
    name, ground = embedded
    assert ground.test is not None
    clean, threads = ground.test[:64], torch.get_num_threads()
    for one in sorted(set(NAMES) - FIXTURES[name]):
        wanted = corrupted(one, ground, clean, 3)
        for size, count, rows in ((1, 1, 8), (2, 2, 16), (7, 1, 64), (64, 2, 64)):
            torch.set_num_threads(count)
            parts = [
                corrupted(one, ground, clean[i : min(i + size, rows)], 3, range(i, min(i + size, rows)))
                for i in range(0, rows, size)
            ]
            assert torch.equal(torch.cat(parts), wanted[:rows]), (one, size, count)
        torch.set_num_threads(threads)


GRID = torch.arange(4001, dtype=torch.float64)[:, None] / 4000
"""Uniform in [0, 1]: quartiles 0.25 and 0.75."""


def test_feature_noise_has_sigma_times_the_interquartile_range_over_1_349() -> None:
    change = corrupted("feature_noise", ground_of(Table([Column("x")]), GRID), GRID, 4) - GRID
    assert float(change.std()) == pytest.approx(0.7 * 0.5 / 1.349, rel=0.04)
    assert abs(float(change.mean())) < 4 * float(change.std()) / math.sqrt(4001)


def test_the_spread_is_the_standard_deviation_where_most_values_are_the_same_and_a_constant_column_stays() -> None:
    rows = torch.zeros(4000, 2, dtype=torch.float64)
    rows[::10, 0] = 1.0
    rows[:, 1] = 0.1
    out = corrupted("feature_noise", ground_of(Table([Column("x"), Column("y")]), rows), rows, 5)
    assert float((out - rows)[:, 0].std()) == pytest.approx(math.sqrt(0.1 * 0.9), rel=0.05)
    assert torch.equal(out[:, 1], rows[:, 1])


def test_a_shift_moves_every_row_by_as_much_and_volatility_multiplies_the_distance_from_the_median() -> None:
    ground = ground_of(Table([Column("x")]), GRID)
    up = corrupted("feature_shift", ground, GRID, 3) - GRID
    down = corrupted("feature_shift", ground, GRID, 3, direction="down") - GRID
    torch.testing.assert_close(up, torch.full_like(GRID, 0.5 * 0.5 / 1.349))
    torch.testing.assert_close(down, -up)
    torch.testing.assert_close(corrupted("volatility", ground, GRID, 4), 0.5 + 2 * (GRID - 0.5))


def test_missing_cells_are_nan_where_the_model_takes_them_and_else_the_median_and_the_commonest_category() -> None:
    table = Table([Column("x"), Column("c", "category", values=(3.0, 4.0, 5.0))])
    rows = torch.tensor([[1.0, 4.0], [2.0, 4.0], [7.0, 3.0], [9.0, 5.0]]).repeat(1000, 1)
    for missing, fill, wanted in ((True, "auto", None), (False, "auto", (2.0, 4.0)), (True, "mean", (4.75, 4.0))):
        ground = ground_of(table, rows, missing)
        out = corrupted("missing_values", ground, rows, 4, fill=fill)
        assert member("missing_values").options(fill=fill)
        for place in range(2):
            if wanted is None:
                lost = out[:, place].isnan()
                assert lost.double().mean() == pytest.approx(0.35, abs=0.03)
                assert torch.equal(out[~lost, place], rows[~lost, place])
            else:
                assert bool(((out[:, place] == rows[:, place]) | (out[:, place] == wanted[place])).all())
                changeable = rows[:, place] != wanted[place]
                assert (out != rows)[changeable, place].double().mean() == pytest.approx(0.35, abs=0.03)


def test_cells_that_go_missing_together_take_the_whole_row_and_what_follows_from_them() -> None:
    table = Table(
        [Column("x"), Column("y"), Column("twice", "derived"), Column("A"), Column("B")],
        one_hot=[OneHot("g", ("A", "B"))],
        derive=lambda rows, clean: torch.cat([rows[:, :2], 2 * rows[:, :1], rows[:, 3:]], dim=1),
    )
    rows = torch.tensor([[1.0, 5.0, 2.0, 1.0, 0.0], [3.0, 6.0, 6.0, 0.0, 1.0]]).repeat(500, 1)
    out = corrupted("missing_values", ground_of(table, rows, True), rows, 5, together=True)
    lost = out.isnan()
    assert bool((lost.all(dim=1) | ~lost.any(dim=1)).all())
    assert lost[:, 0].double().mean() == pytest.approx(0.5, abs=0.07)


def test_a_missing_group_that_may_be_none_is_none() -> None:
    table = Table([Column("A"), Column("B")], one_hot=[OneHot("g", ("A", "B"), may_be_none=True)])
    rows = torch.tensor([[1.0, 0.0]]).repeat(400, 1)
    out = corrupted("missing_values", ground_of(table, rows, True), rows, 5)
    assert not bool(out.isnan().any())
    assert (out.sum(dim=1) == 0).double().mean() == pytest.approx(0.5, abs=0.1)


def test_nan_is_refused_where_the_subject_or_the_dtype_has_no_place_for_it() -> None:
    table, rows = column(1, 2, 3)
    assert "allow_missing" in str(refusal("missing_values", ground_of(table, rows), fill="nan"))
    whole = rows.long()
    table = Table([Column("x", "integer")])
    assert "int64" in str(refusal("missing_values", ground_of(table, whole, True), fill="nan"))
    out = corrupted("missing_values", ground_of(table, whole, True), whole, 5)
    assert out.dtype == torch.int64


def test_a_scale_error_hits_its_share_of_rows_with_one_of_the_factors_each_as_often() -> None:
    rows = torch.linspace(1, 2, 4000, dtype=torch.float64)[:, None].repeat(1, 2)
    ground = ground_of(Table([Column("x"), Column("y")]), rows)
    ratio = corrupted("scale_error", ground, rows, 4) / rows
    wrong = (ratio != 1).any(dim=1)
    assert wrong.double().mean() == pytest.approx(0.5, abs=0.04)
    assert not bool((ratio != 1).all(dim=1).any())
    found = ratio[wrong].amax(dim=1).round().long()
    for factor in (10, 100, 1000):
        assert (found == factor).double().mean() == pytest.approx(1 / 3, abs=0.05)
    divided = corrupted("scale_error", ground, rows, 5, direction="down", factors=[100], column="y")
    torch.testing.assert_close(divided, torch.stack([rows[:, 0], rows[:, 1] / 100], dim=1))


def test_a_scale_error_adds_its_logarithm_to_a_column_of_logarithms_and_stops_at_a_bound() -> None:
    table, rows = column(1, 2, 3, high=6.0)
    out = corrupted("scale_error", ground_of(table, rows), rows, 5, factors=[10], logarithms=["x"])
    torch.testing.assert_close(out, (rows + math.log(10)).clamp(max=6))
    assert "did you mean 'x'" in str(refusal("scale_error", ground_of(table, rows), logarithms=["X"]))


def test_a_swapped_category_is_any_other_that_was_seen_each_as_often() -> None:
    table, rows = column(*([1.0] * 8 + [2.0] + [3.0]) * 600, kind="category", values=(1.0, 2.0, 3.0, 4.0))
    out = corrupted("category_swap", ground_of(table, rows), rows, 4)
    ones = rows[:, 0] == 1
    assert (out != rows).double().mean() == pytest.approx(0.35, abs=0.03)
    assert set(out.unique().tolist()) == {1.0, 2.0, 3.0}
    moved = out[ones][out[ones] != 1]
    assert (moved == 2).double().mean() == pytest.approx(0.5, abs=0.05)
    assert "two settings" in str(refusal("category_swap", ground_of(table, rows[ones])))


def test_an_unseen_category_is_declared_and_not_in_the_reference_or_none_of_a_group() -> None:
    table = Table(
        [Column("c", "category", values=(1.0, 2.0, 7.0, 8.0), high=7.0), Column("A"), Column("B")],
        one_hot=[OneHot("g", ("A", "B"), may_be_none=True)],
    )
    rows = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]]).repeat(1000, 1)
    out = corrupted("unseen_category", ground_of(table, rows), rows, 5)
    moved = (out != rows).any(dim=1)
    assert set(out[:, 0].unique().tolist()) == {1.0, 2.0, 7.0}
    assert (out[:, 0] == 7).double().mean() == pytest.approx(0.5, abs=0.05)
    assert (out[:, 1:].sum(dim=1) == 0).double().mean() == pytest.approx(0.5, abs=0.05)
    assert bool(moved.any())
    known = Table([Column("c", "category", values=(1.0, 2.0, 8.0), high=7.0)])
    assert "every declared value" in str(refusal("unseen_category", ground_of(known, rows[:, :1])))


def test_outliers_lie_beyond_the_observed_extremes_on_both_sides_and_within_the_bounds() -> None:
    out = corrupted("outliers", ground_of(Table([Column("x")]), GRID), GRID, 4)
    hit = out[out != GRID]
    far = 4 * 0.5 / 1.349
    assert len(hit) / len(GRID) == pytest.approx(0.1, abs=0.02)
    torch.testing.assert_close(hit.round(decimals=9).unique(), torch.tensor([-far, 1 + far], dtype=torch.float64))
    assert (hit > 1).double().mean() == pytest.approx(0.5, abs=0.1)
    bounded = corrupted("outliers", ground_of(Table([Column("x", low=0.0, high=2.0)]), GRID), GRID, 4)
    assert set(bounded[bounded != GRID].tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("lag", [1, 3])
def test_stale_rows_hold_what_the_row_some_rows_before_held(lag: int) -> None:
    table = Table([Column("x"), Column("c", "category", values=(0.0, 1.0)), Column("id", mutable=False)])
    rows = torch.tensor([[float(i * i), float(i % 2), float(i)] for i in range(50)])
    ground = ground_of(table, rows)
    out = corrupted("stale_features", ground, rows[10:], 5, range(10, 50), lag=lag)
    wanted = [[float((i - lag) ** 2), float((i - lag) % 2), float(i)] for i in range(10, 50)]
    assert out.tolist() == wanted
    assert corrupted("stale_features", ground, rows[:2], 5, lag=lag)[:, 0].tolist() == [0.0, 0.0]
    assert "50 rows" in str(refusal("stale_features", ground, lag=50))
    with pytest.raises(MeasurementError, match="example 99"):
        corrupted("stale_features", ground, rows[:1], 5, [99])


def test_stale_rows_have_the_holes_of_the_earlier_ones() -> None:
    table, rows = column(1, math.nan, 3, 4)
    out = corrupted("stale_features", ground_of(table, rows, True), rows, 5)
    assert str(out[:, 0].tolist()) == "[1.0, nan, nan, 3.0]"


def test_rounding_gives_the_nearest_multiples_of_the_grid() -> None:
    out = corrupted("rounding", ground_of(Table([Column("x")]), GRID), GRID, 3)[:, 0].numpy()
    grid = 0.5 * 0.5 / 1.349
    multiples = np.arange(-1, 8) * grid
    np.testing.assert_allclose(np.abs(out - GRID[:, 0].numpy()), np.abs(GRID.numpy() - multiples).min(axis=1))


def test_a_sign_error_flips_columns_of_both_signs_alone() -> None:
    rows = torch.tensor([[2.0, 5.0]]).repeat(1000, 1)
    ground = ground_of(Table([Column("x"), Column("y", low=0.0)]), rows)
    out = corrupted("sign_error", ground, rows, 5)
    assert set(out[:, 0].tolist()) == {2.0, -2.0}
    assert (out[:, 0] == -2).double().mean() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(out[:, 1], rows[:, 1])
    assert "negative and positive" in str(refusal("sign_error", ground, column="y"))


def test_swapped_columns_are_of_the_same_type_and_change_places() -> None:
    rows = torch.arange(400.0).reshape(100, 4)
    columns = [Column("a"), Column("k", "integer"), Column("b"), Column("m", "integer", step=0.5)]
    ground = ground_of(Table(columns), rows)
    out = corrupted("column_swap", ground, rows, 5)
    swapped = rows[:, [2, 1, 0, 3]]
    assert bool(((out == rows).all(dim=1) | (out == swapped).all(dim=1)).all())
    assert (out != rows).any(dim=1).double().mean() == pytest.approx(0.5, abs=0.15)
    assert "same type and step" in str(refusal("column_swap", ground, columns=["k", "m"]))


def slips(text: str) -> tuple[set[int], set[int]]:
    """By brute force: the numbers with one digit wrong, and with two neighbours in each other's place."""
    digits = {int(text[:i] + d + text[i + 1 :]) for i in range(len(text)) for d in "0123456789"}
    return digits, {int(text[:i] + text[i + 1] + text[i] + text[i + 2 :]) for i in range(len(text) - 1)}


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**12), 10**12), st.sampled_from([1.0, 0.01]), st.integers(0, 2**31))
def test_a_digit_typo_is_one_that_a_hand_could_make(number: int, step: float, seed: int) -> None:
    table, rows = column(*[number * step] * 40, kind="integer", step=step)
    ground = ground_of(table, rows)
    digits, transposed = slips(str(abs(number)))
    for slip, possible in (("digit", digits), ("transposition", transposed), ("either", digits | transposed)):
        out = corrupted("digit_typos", ground, rows, 5, seed=seed, slip=slip)
        sign = -1 if number < 0 else 1
        assert set((out[:, 0] / step).round().long().tolist()) <= {sign * one for one in possible} | {number}


def test_every_digit_typo_that_is_possible_happens() -> None:
    table, rows = column(*[507.0] * 4000, kind="integer")
    digits, transposed = slips("507")
    for slip, possible in (("digit", digits), ("transposition", transposed)):
        out = corrupted("digit_typos", ground_of(table, rows), rows, 5, slip=slip)
        assert set(out[:, 0].long().tolist()) == possible | {507}
    assert "integer" in str(refusal("digit_typos", ground_of(*column(1, 2))))


@pytest.mark.parametrize("name", NAMES)
def test_named_columns_alone_are_corrupted(name: str) -> None:
    columns = [Column(f"x{i}", "integer", low=-100, high=100) for i in range(4)]
    columns += [Column(f"c{i}", "category", values=(0.0, 1.0, 2.0)) for i in range(2)]
    numbers = torch.randint(-90, 90, (200, 4), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([numbers, torch.arange(400).reshape(200, 2) % 3 % 2], dim=1).float()
    chosen = ["c1"] if name in ("category_swap", "unseen_category") else ["x1", "x3"]
    out = corrupted(name, ground_of(Table(columns), rows), rows, 5, columns=chosen)
    changed = {columns[place].name for place in (out != rows).any(dim=0).nonzero().flatten().tolist()}
    assert changed == set(chosen)


NAMED = Table(
    [
        Column("amount"),
        Column("fee", "derived"),
        Column("age", mutable=False),
        Column("channel", "category", values=(0.0, 1.0)),
        Column("NA"),
        Column("GB"),
        Column("p"),
        Column("q"),
        Column("total"),
    ],
    one_hot=[OneHot("country", ("NA", "GB"))],
    sums=[Sum(("p", "q"), "total")],
    derive=lambda rows, clean: torch.cat([rows[:, :1], rows[:, :1] / 10, rows[:, 2:]], dim=1),
)
NAMED_ROWS = torch.tensor([[10.0, 1, 30, 0, 1, 0, 1, 2, 3], [20.0, 2, 9, 1, 0, 1, 2, 2, 4]])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("amuont", "did you mean 'amount'"),
        ("fee", "derived"),
        ("age", "not mutable"),
        ("channel", "is a category"),
        ("NA", "name the group"),
        ("country", "is a category"),
        ("total", "follows its parts"),
    ],
)
def test_a_column_that_cannot_be_corrupted_is_refused_with_the_reason(name: str, reason: str) -> None:
    ground = ground_of(NAMED, NAMED_ROWS)
    assert reason in str(refusal("feature_noise", ground, columns=[name]))
    assert refusal("feature_noise", ground, columns=["amount", "p"]) is None
    assert "is a number" in str(refusal("category_swap", ground, columns=["amount"]))
    assert refusal("category_swap", ground, columns=["country", "channel"]) is None


def test_one_column_is_named_in_one_way() -> None:
    with pytest.raises(ValidationError, match="not both"):
        member("feature_noise").options(column="x", columns=["x"])


def test_totals_follow_and_derived_columns_are_computed_again() -> None:
    rows = NAMED_ROWS.double()
    out = corrupted("feature_shift", ground_of(NAMED, rows), rows, 5)
    torch.testing.assert_close(out[:, 1], out[:, 0] / 10)
    torch.testing.assert_close(out[:, 8], out[:, 6] + out[:, 7])
    assert bool((out[:, 0] > rows[:, 0]).all())


def test_an_attackers_direction_does_not_bind_an_accident() -> None:
    table, rows = column(*range(100), direction="up")
    assert bool((corrupted("feature_noise", ground_of(table, rows), rows, 5) < rows).any())


def test_a_row_that_cannot_be_made_valid_stays_clean() -> None:
    table, rows = column(1, 2, 3, 4)
    strict = dataclasses.replace(table, valid=lambda new, old: (new == old).all(dim=1) | (old[:, 0] > 2))
    out = corrupted("feature_shift", ground_of(strict, rows), rows, 5)
    assert torch.equal(out[:2], rows[:2])
    assert bool((out[2:] > rows[2:]).all())


def test_a_table_in_which_nothing_is_mutable_is_refused() -> None:
    table, rows = column(1, 2, mutable=False)
    assert refusal("feature_noise", ground_of(table, rows)) == "the table has no number that is mutable"


def test_a_cell_that_is_hit_at_a_low_severity_is_hit_at_every_higher_one() -> None:
    table, rows = column(*range(500))
    one, draws = member("scale_error"), Draws(3, "x", range(500))
    hit = [
        (one.apply(rows, ground_of(table, rows), severity, draws.rewound(), one.options()) != rows)
        for severity in (1, 1.5, 3, 5)
    ]
    for lower, higher in itertools.pairwise(hit):
        assert bool((~lower | higher).all())


def test_none_of_a_group_counts_as_unseen_even_where_the_reference_has_it() -> None:
    table = Table([Column("A"), Column("B")], one_hot=[OneHot("g", ("A", "B"), may_be_none=True)])
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]).repeat(200, 1)
    out = corrupted("unseen_category", ground_of(table, rows), rows, 5)
    assert (out.sum(dim=1) == 0).double().mean() == pytest.approx(0.25 + 0.75 * 0.5, abs=0.06)


@pytest.mark.parametrize(("severity", "sigma"), [(0, 0.0), (0.5, 0.05), (1, 0.1), (2.5, 0.3), (5, 1.0)])
def test_parameters_are_linear_between_the_published_severities(severity: float, sigma: float) -> None:
    one, (table, rows) = member("feature_noise"), column(1, 2)
    found = one.parameters(ground_of(table, rows), severity, one.options())
    assert found == {"sigma": pytest.approx(sigma)}
