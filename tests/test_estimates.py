"""Estimates: the value, its bounds, and what bootstrap weights make of it, by closed forms and brute force."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from builders import examples, random_binary, saying
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pruneproof import metrics
from pruneproof.estimates import (
    Change,
    Combination,
    Difference,
    Estimate,
    Exact,
    Extreme,
    Ladder,
    MeanDifference,
    Proportion,
    Statistic,
    change,
    seeded,
)
from pruneproof.statistics import binomial_bounds, tango_bounds

unhurried = settings(deadline=None)
Z95 = 1.6448536269514722
CHANGES: list[Change] = ["max_drop", "max_rise", "max_ratio"]


def proportion(*hits: bool, first: int = 0) -> Proportion:
    return Proportion(np.arange(first, first + len(hits)), np.array(hits, dtype=bool))


def share(count: int, n: int, first: int = 0) -> Proportion:
    return proportion(*([True] * count + [False] * (n - count)), first=first)


def mean(values: NDArray[np.float64], spread: float = 1.0) -> Statistic:
    """The mean of ``values``, as a statistic."""
    return Statistic(
        rows=np.arange(len(values)),
        weighted=lambda weights: float((weights @ values) / weights.sum()),
        support=len(values),
        size=len(values),
        spread=spread,
        resamples=999,
    )


def ones(n: int) -> NDArray[np.int64]:
    return np.ones((1, n), dtype=np.int64)


def hits(most: int = 30) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=1, max_size=most)


# Proportions and their differences


@unhurried
@given(hits(), st.floats(0.51, 0.99))
def test_a_proportion_has_the_exact_binomial_bounds_of_its_count(found: list[bool], confidence: float) -> None:
    estimate = proportion(*found)
    assert estimate.value == pytest.approx(sum(found) / len(found))
    assert estimate.bounds(confidence) == binomial_bounds(sum(found), len(found), confidence)


@unhurried
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.sampled_from(CHANGES[:2]))
def test_proportions_of_the_same_examples_change_by_tangos_paired_difference(
    pairs: list[tuple[bool, bool]], key: Change
) -> None:
    variant, comparator = ([pair[side] for pair in pairs] for side in (0, 1))
    found = change(proportion(*variant), proportion(*comparator), key, len(pairs))
    assert isinstance(found, Difference)
    worse, better = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    lost, gained = (worse, better) if key == "max_drop" else (better, worse)
    assert found.value == pytest.approx((lost - gained) / len(pairs))
    assert found.bounds(0.95) == tango_bounds(lost, gained, len(pairs), 0.95)
    assert found.replicates(ones(len(pairs)))[0] == pytest.approx(found.value)


def test_a_rise_of_a_rate_that_is_bad_counts_the_variants_excess() -> None:
    rose = change(share(9, 100), share(4, 100), "max_rise", 100)
    fell = change(share(9, 100), share(4, 100), "max_drop", 100)
    assert rose.value == pytest.approx(0.05)
    assert fell.value == pytest.approx(-0.05)


def test_proportions_of_different_examples_are_resampled_together_and_not_taken_as_paired() -> None:
    found = change(share(40, 60), share(60, 80, first=30), "max_drop", 120)
    assert isinstance(found, Statistic)
    assert found.value == pytest.approx(60 / 80 - 40 / 60)
    assert list(found.rows) == list(range(110))
    assert found.support == 60


def test_a_ratio_is_the_variants_value_over_the_comparators() -> None:
    found = change(share(30, 300), share(20, 300), "max_ratio", 300)
    assert isinstance(found, Statistic)
    assert found.value == pytest.approx(1.5)
    lower, upper = seeded(found, (1,), 500).bounds(0.95)
    assert lower < 1.5 < upper


def test_a_ratio_to_nothing_is_undefined() -> None:
    assert math.isnan(change(share(3, 30), share(0, 30), "max_ratio", 30).value)
    assert math.isnan(change(Exact(3.0), Exact(0.0), "max_ratio", 30).value)


@pytest.mark.parametrize(("key", "expected"), [("max_drop", -2.0), ("max_rise", 2.0), ("max_ratio", 1.5)])
def test_exact_numbers_change_exactly(key: Change, expected: float) -> None:
    found = change(Exact(6.0), Exact(4.0), key, 10)
    assert found == Exact(expected)
    assert found.bounds(0.95) == (expected, expected)


def test_balanced_accuracies_change_by_a_combination_of_paired_differences_class_by_class() -> None:
    on = examples([0] * 60 + [1] * 40)
    dense, said = saying(on.targets, on), saying([0] * 57 + [1] * 41 + [0] * 2, on)
    rows = np.arange(100)
    now, before = (metrics.on_rows("balanced_accuracy", on, model, dense, rows) for model in (said, dense))
    assert not isinstance(now, str)
    assert not isinstance(before, str)
    found = change(now, before, "max_drop", 100)
    assert isinstance(found, Combination)
    assert found.value == pytest.approx((3 / 60 + 2 / 40) / 2)
    # Square-and-add of two Tango intervals, by hand.
    parts = [tango_bounds(3, 0, 60, 0.95), tango_bounds(2, 0, 40, 0.95)]
    above = math.hypot((parts[0].upper - 0.05) / 2, (parts[1].upper - 0.05) / 2)
    assert found.bounds(0.95).upper == pytest.approx(found.value + above)


# The worst of a family

families = st.lists(hits(12), min_size=2, max_size=5)


def family(found: list[list[bool]]) -> tuple[Proportion, ...]:
    starts = np.cumsum([0, *(len(part) for part in found)])
    return tuple(proportion(*part, first=int(start)) for part, start in zip(found, starts, strict=False))


@unhurried
@given(families)
def test_the_worst_and_the_range_of_a_family_are_what_a_loop_finds(found: list[list[bool]]) -> None:
    values = [sum(part) / len(part) for part in found]
    parts = family(found)
    size = sum(len(part) for part in found)
    for estimate, expected in (
        (Extreme("lowest", parts), min(values)),
        (Extreme("range", parts), max(values) - min(values)),
    ):
        assert estimate.value == pytest.approx(expected)
        assert estimate.replicates(ones(size))[0] == pytest.approx(expected)
        lower, upper = estimate.bounds(0.95)
        assert lower <= expected + 1e-12
        assert expected <= upper + 1e-12


@unhurried
@given(families)
def test_the_worst_passes_a_limit_where_every_member_passes_it_by_itself(found: list[list[bool]]) -> None:
    parts = family(found)
    assert Extreme("lowest", parts).bounds(0.95).lower == min(part.bounds(0.95).lower for part in parts)


def test_the_worst_fails_a_limit_only_when_some_member_does_so_corrected_for_their_number() -> None:
    parts = family([[True] * 20, [True] * 15 + [False] * 5, [True] * 19 + [False]])
    assert Extreme("lowest", parts).bounds(0.95).upper == pytest.approx(binomial_bounds(15, 20, 1 - 0.05 / 3).upper)


def test_the_bound_on_the_range_that_a_pass_rests_on_is_the_largest_over_the_pairs() -> None:
    parts = family([[True] * 18 + [False] * 2, [True] * 15 + [False] * 5, [True] * 10 + [False] * 10])
    intervals = [binomial_bounds(count, 20, 0.95) for count in (18, 10)]
    upper = 0.4 + math.hypot(intervals[0].upper - 0.9, 0.5 - intervals[1].lower)
    assert Extreme("range", parts).bounds(0.95).upper == pytest.approx(upper)


@unhurried
@given(families)
def test_a_range_is_never_bounded_below_by_less_than_nothing(found: list[list[bool]]) -> None:
    assert Extreme("range", family(found)).bounds(0.95).lower >= 0


# Bootstrap


def test_the_bootstrap_of_a_mean_is_near_its_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    lower, upper = mean(values).bounds(0.95)
    half = Z95 * values.std(ddof=1) / 20
    assert (lower, upper) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)


def test_the_same_seed_gives_the_same_bounds_and_another_seed_others() -> None:
    values = np.random.default_rng(0).normal(size=300)
    first, again, other = (seeded(mean(values), seed, 300).bounds(0.95) for seed in ((3, 1), (3, 1), (3, 2)))
    assert first == again
    assert first != other


def test_only_a_statistic_has_a_seed() -> None:
    for estimate in (Exact(1.0), share(1, 2)):
        assert seeded(estimate, (1,), 10) is estimate


@unhurried
@given(st.integers(1, 400), st.sampled_from([0.9, 0.95, 0.99]))
def test_a_bootstrap_without_any_spread_is_as_wide_as_so_few_examples_can_say(n: int, confidence: float) -> None:
    from scipy.stats import norm

    z = norm.ppf(confidence)
    lower, upper = mean(np.full(n, 0.25)).bounds(confidence)
    assert upper - 0.25 == pytest.approx(z**2 / (n + z**2))
    assert 0.25 - lower == pytest.approx(z**2 / (n + z**2))


@pytest.mark.parametrize("values", [[3.0], [0.1] * 7, [0.0] * 500])
def test_a_bootstrap_without_any_spread_in_an_unbounded_unit_is_no_evidence(values: list[float]) -> None:
    assert mean(np.array(values), spread=0.0).bounds(0.95) == (-math.inf, math.inf)


def test_a_bootstrap_that_is_often_undefined_is_no_evidence() -> None:
    on = examples([1, *([0] * 60)])
    estimate = metrics.on_rows("auroc", on, random_like(on), random_like(on), np.arange(61))
    assert isinstance(estimate, Statistic)
    assert estimate.bounds(0.95) == (-math.inf, math.inf)


def random_like(on: Any) -> Any:
    return saying(np.random.default_rng(0).integers(2, size=on.facts.n), on)


def test_too_few_resamples_for_the_confidence_are_no_evidence() -> None:
    estimate = seeded(mean(np.random.default_rng(0).normal(size=50)), (1,), 200)
    assert estimate.bounds(0.999) == (-math.inf, math.inf)
    assert math.isfinite(estimate.bounds(0.99).upper)


def test_a_biased_bootstrap_still_contains_its_value() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=40)
    largest = Statistic(
        rows=np.arange(40),
        weighted=lambda weights: float(values[weights > 0].max()),
        support=40,
        size=40,
        spread=0.0,
        resamples=500,
    )
    lower, upper = largest.bounds(0.95)
    assert lower <= largest.value <= upper


def test_more_examples_at_the_same_rates_narrow_every_interval() -> None:
    values = np.random.default_rng(0).random(100)
    estimates: list[Estimate] = [
        share(20, 50),
        Difference(np.arange(50), np.array([1] * 6 + [-1] * 5 + [0] * 39, dtype=np.int8)),
        Extreme("lowest", (share(20, 50), share(30, 50, first=50))),
        Combination((0.5, 0.5), (share(20, 50), share(30, 50, first=50))),
        mean(values),
    ]
    for estimate in estimates:
        now, later = estimate.bounds(0.95), estimate.bounds(0.95, 4.0)  # type: ignore[call-arg]
        ratio = (later.upper - later.lower) / (now.upper - now.lower)
        assert ratio == pytest.approx(0.5, abs=0.06)


def test_a_bootstrap_of_a_small_segment_of_a_large_test_set_needs_little_memory() -> None:
    size = 100_000
    values = np.zeros(size)
    rows = np.arange(50)
    estimate = Statistic(
        rows=rows, weighted=lambda weights: float(weights[:50] @ values[:50]), support=50, size=size, resamples=2000
    )
    tracemalloc.start()
    estimate.bounds(0.95)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_a_bootstrap_draws_its_own_rows_only_and_as_many_as_there_are() -> None:
    seen = []

    def weighted(weights: NDArray[np.int64]) -> float:
        seen.append(weights.copy())
        return float(weights.sum())

    rows = np.array([2, 5, 7])
    Statistic(rows=rows, weighted=weighted, support=3, size=9, resamples=200).bounds(0.9)
    drawn = np.array(seen[-200:])
    assert (drawn.sum(axis=1) == 3).all()
    assert not np.delete(drawn, rows, axis=1).any()
    assert len(np.unique(drawn, axis=0)) == 10  # multisets of three of three


@pytest.mark.parametrize("key", CHANGES)
def test_a_bootstrapped_change_is_the_change_of_both_values_under_the_same_weights(key: Change) -> None:
    on, said, drawn = random_binary(3)
    _, dense, _ = random_binary(4)
    dense = type(dense)(dense.outputs, on.facts, None)
    rows = np.arange(on.facts.n)
    now, before = (metrics.on_rows("auroc", on, model, dense, rows) for model in (said, dense))
    assert isinstance(now, Statistic)
    assert isinstance(before, Statistic)
    found = change(now, before, key, on.facts.n)
    assert isinstance(found, Statistic)
    for weights in (np.ones_like(drawn), drawn):
        a, b = now.weighted(weights), before.weighted(weights)
        expected = {"max_drop": b - a, "max_rise": a - b, "max_ratio": a / b}[key]
        assert found.weighted(weights) == pytest.approx(expected)
    assert found.support == min(now.support, before.support)


@pytest.mark.parametrize(("n", "known"), [(29, False), (30, True)])
def test_a_bootstrap_of_few_examples_in_an_unbounded_unit_is_no_evidence(n: int, known: bool) -> None:
    losses = np.random.default_rng(n).normal(size=n)
    found = Statistic(np.arange(n), lambda w: float(w @ losses / w.sum()), support=n, size=n, spread=0.0)
    assert math.isfinite(found.bounds(0.95).upper) == known


def test_a_change_of_an_unbounded_unit_is_unbounded_too() -> None:
    values = np.random.default_rng(0).random(50)
    found = change(mean(values, spread=0.0), mean(values, spread=0.0), "max_rise", 50)
    assert found.value == 0
    assert found.bounds(0.95) == (-math.inf, math.inf)


def test_the_worst_of_a_family_changes_by_a_bootstrap_over_all_of_its_examples() -> None:
    now = Extreme("lowest", (share(20, 50), share(30, 50, first=50)))
    before = Extreme("lowest", (share(40, 50), share(45, 50, first=50)))
    found = change(now, before, "max_drop", 120)
    assert isinstance(found, Statistic)
    assert found.value == pytest.approx(0.4)
    assert list(found.rows) == list(range(100))
    assert found.support == 50


def stairs(losses: list[int], gains: list[int], n: int = 400, limit: float = 0.02, unbroken: bool = False) -> Ladder:
    """Steps 0.1, 0.2, … at which so many of ``n`` examples are lost and gained."""
    parts = []
    for lost, gained in zip(losses, gains, strict=True):
        changes = np.zeros(n, dtype=np.int8)
        changes[:lost], changes[lost : lost + gained] = 1, -1
        parts.append(Difference(np.arange(n), changes))
    steps = tuple((place + 1) / 10 for place in range(len(losses)))
    return Ladder(steps, tuple(parts), limit, unbroken)


def test_a_ladder_is_the_highest_step_within_the_limit_whatever_lies_below() -> None:
    assert stairs([0, 20, 8], [0, 0, 0]).value == 0.3
    assert stairs([0, 20, 8], [0, 0, 0], unbroken=True).value == 0.1
    assert stairs([20, 20], [0, 0]).value == 0.0


def test_a_difference_exactly_at_the_limit_is_within_it() -> None:
    assert stairs([8], [0]).value == 0.1
    assert stairs([9], [0]).value == 0.0


def test_bounds_of_a_ladder_are_those_steps_whose_differences_are_surely_and_perhaps_within() -> None:
    made = stairs([0, 5, 8, 30], [0, 0, 0, 0])
    each = [tango_bounds(lost, 0, 400, 0.95) for lost in (0, 5, 8, 30)]
    strict = [tango_bounds(lost, 0, 400, 1 - 0.05 / 4) for lost in (0, 5, 8, 30)]
    assert [bound.upper <= 0.02 for bound in strict] == [True, False, False, False]
    assert [bound.lower <= 0.02 for bound in each] == [True, True, True, False]
    assert made.bounds(0.95) == (0.1, 0.3)


def test_no_difference_in_few_examples_says_nothing_of_a_ladder() -> None:
    assert stairs([0, 0], [0, 0], n=30).bounds(0.95).lower == 0.0
    assert stairs([0, 0], [0, 0], n=3000).bounds(0.95).lower == 0.2


@pytest.mark.slow
@pytest.mark.parametrize("unbroken", [False, True])
def test_bounds_of_a_ladder_hold_as_often_as_they_claim_at_the_limit(unbroken: bool) -> None:
    """Three steps, each truly just beyond the limit: the truth is 0, and a lower bound above it wrong."""
    generator, wrong, runs = np.random.default_rng(5), 0, 400
    for _ in range(runs):
        lost = generator.binomial(300, 0.0501, size=3)
        wrong += stairs(lost.tolist(), [0, 0, 0], n=300, limit=0.05, unbroken=unbroken).bounds(0.95).lower > 0
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_a_mean_difference_of_whole_changes_has_tangos_bounds() -> None:
    changes = np.array([1.0] * 7 + [-1.0] * 2 + [0.0] * 191)
    made = MeanDifference(np.arange(200), changes)
    assert made.value == pytest.approx(5 / 200)
    assert made.bounds(0.95) == pytest.approx(tango_bounds(7, 2, 200, 0.95))


def test_a_mean_difference_of_equal_parts_of_changes_has_as_much_of_tangos_bounds() -> None:
    changes = np.array([0.5] * 40 + [0.0] * 160)
    low, high = MeanDifference(np.arange(200), changes).bounds(0.95)
    whole = tango_bounds(40, 0, 200, 0.95)
    assert (low, high) == pytest.approx((0.5 * whole.lower, 0.5 * whole.upper))


def test_no_change_in_few_examples_bounds_a_mean_difference_no_closer_than_a_proportion() -> None:
    assert MeanDifference(np.arange(50), np.zeros(50)).bounds(0.95).upper >= Z95**2 / (50 + Z95**2) - 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "rate", "n"), [(5, 0.05, 100), (5, 0.01, 1000), (1, 0.01, 1000)])
def test_an_upper_bound_of_a_mean_difference_is_below_the_truth_as_seldom_as_it_claims(
    trials: int, rate: float, n: int
) -> None:
    generator, below, runs = np.random.default_rng(8), 0, 400
    for _ in range(runs):
        # All trials of an example change together with even odds, or each by itself: rare changes of several sizes.
        together = generator.random(n) < 0.5
        each = generator.random((n, trials)) < rate
        changes = np.where(together, each[:, 0], each.mean(axis=1)).astype(np.float64)
        below += MeanDifference(np.arange(n), changes).bounds(0.95).upper < rate
    assert below / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
