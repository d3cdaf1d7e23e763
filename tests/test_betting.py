"""Bounds by betting: the promise by counting every sequence, the value by brute force, the price by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pruneproof import gates
from pruneproof.betting import mean_bounds, ratio_bounds
from pruneproof.errors import MeasurementError
from pruneproof.estimates import (
    Change,
    Estimate,
    Proportion,
    Sequential,
    SequentialDifference,
    SequentialRatio,
    Statistic,
    about,
    change,
    seeded,
)
from pruneproof.statistics import Bounds, binomial_bounds, p_beyond, tango_bounds
from pruneproof.verdicts import Verdict

unhurried = settings(deadline=None, max_examples=100)
CONFIDENCES = (0.6, 0.8, 0.95)
"""Low ones as well: in so few examples an event of probability 0.05 may not exist."""


def capital(factors: Callable[[float], Sequence[float]]) -> float:
    """The largest mixture of 25 capitals at any time, multiplied out; ``factors(share)`` of one bet."""
    paths = [list(itertools.accumulate(factors(k / 26), lambda a, b: a * b)) for k in range(1, 26)]
    return max(math.fsum(path[t] for path in paths) / 25 for t in range(len(paths[0])))


def above(values: Sequence[float], m: float, low: float) -> float:
    """Capital staked on "the mean of values, at least ``low``, is above m", as Waudby-Smith & Ramdas write it."""
    return capital(lambda share: [1 + share / (m - low) * (value - m) for value in values])


def below(values: Sequence[float], m: float, high: float) -> float:
    return capital(lambda share: [1 - share / (high - m) * (value - m) for value in values])


# The promise


@cache
def of_all(kind: Literal["share", "difference", "ratio"], confidence: float) -> list[tuple[tuple[int, ...], Bounds]]:
    """Every sequence of outcomes with its bounds, the tightest at any time on the way."""
    if kind == "share":
        return [(drawn, mean_bounds(drawn, confidence)) for drawn in itertools.product([0, 1], repeat=9)]
    if kind == "difference":
        every = itertools.product([0, 1, 2], repeat=6)
        return [(drawn, mean_bounds(np.array(drawn) - 1, confidence, -1.0, 1.0)) for drawn in every]
    every = itertools.product(range(4), repeat=5)
    return [(drawn, ratio_bounds([k & 1 for k in drawn], [k >> 1 for k in drawn], confidence)) for drawn in every]


def missed(
    kind: Literal["share", "difference", "ratio"], confidence: float, rates: Sequence[float], true: float
) -> float:
    """The larger of the exact probabilities that a bound ever excludes the truth."""
    found = of_all(kind, confidence)
    chance = [math.prod(rates[one] for one in drawn) for drawn, _ in found]
    assert math.fsum(chance) == pytest.approx(1)
    lower = math.fsum(p for p, (_, bounds) in zip(chance, found, strict=True) if bounds.lower > true)
    upper = math.fsum(p for p, (_, bounds) in zip(chance, found, strict=True) if bounds.upper < true)
    return max(lower, upper)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("p", [0.03, 0.2, 0.5, 0.77, 0.95])
def test_whoever_looks_after_every_example_is_misled_no_more_often_than_stated(p: float, confidence: float) -> None:
    assert missed("share", confidence, (1 - p, p), p) <= 1 - confidence + 1e-12


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("rates", [(0.1, 0.8, 0.1), (0.3, 0.4, 0.3), (0.05, 0.75, 0.2), (0.6, 0.4, 0.0)])
def test_the_same_holds_of_a_difference(rates: tuple[float, float, float], confidence: float) -> None:
    assert missed("difference", confidence, rates, rates[2] - rates[0]) <= 1 - confidence + 1e-12


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("rates", [(0.4, 0.1, 0.2, 0.3), (0.1, 0.5, 0.3, 0.1), (0.7, 0.05, 0.05, 0.2)])
def test_and_of_a_ratio(rates: tuple[float, ...], confidence: float) -> None:
    true = (rates[1] + rates[3]) / (rates[2] + rates[3])
    assert missed("ratio", confidence, rates, true) <= 1 - confidence + 1e-12


def test_stopping_when_it_looks_clear_misleads_a_fixed_sample_interval_and_not_this_one() -> None:
    generator = np.random.default_rng(5)
    limit, size = 0.6, 200
    fooled = {"betting": 0, "Clopper-Pearson": 0}
    for _ in range(300):
        hits = generator.random(size) < limit
        # Bounds by betting are the tightest on the way: a few looks see what a look after each example would.
        fooled["betting"] += any(mean_bounds(hits[:n], 0.95).lower > limit for n in (50, 100, size))
        fooled["Clopper-Pearson"] += any(
            binomial_bounds(int(hits[:n].sum()), n, 0.95).lower > limit for n in range(10, size + 1, 10)
        )
    assert fooled["betting"] <= 300 * 0.05 + 2 * math.sqrt(300 * 0.05 * 0.95)
    assert fooled["Clopper-Pearson"] > 300 * 0.10


# The value


def touched(up: Callable[[float], float], down: Callable[[float], float], bounds: Bounds, confidence: float) -> bool:
    """Whether the capital on either side was once just large enough; bounds that crossed are given the other way."""
    wanted = 1 / (1 - confidence)

    def are(one: float, other: float) -> bool:
        return math.isclose(up(one), wanted, rel_tol=1e-5) and math.isclose(down(other), wanted, rel_tol=1e-5)

    return are(bounds.lower, bounds.upper) or are(bounds.upper, bounds.lower)


@unhurried
@given(st.lists(st.integers(0, 1), min_size=1, max_size=60), st.floats(0.51, 0.999))
@example([1, 1, 0, 0, 0, 0, 0, 0], 0.53)
def test_at_a_bound_the_capital_was_once_just_large_enough(hits: list[int], confidence: float) -> None:
    found = mean_bounds(hits, confidence)
    if found.lower > 0 and found.upper < 1:
        assert touched(lambda m: above(hits, m, 0.0), lambda m: below(hits, m, 1.0), found, confidence)


@unhurried
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.floats(0.51, 0.999))
def test_numbers_of_any_range_are_bounded_alike(values: list[float], confidence: float) -> None:
    found = mean_bounds(values, confidence, -1.0, 1.0)
    assert -1 <= found.lower <= found.upper <= 1
    if found.lower > -1 + 1e-5 and found.upper < 1 - 1e-5:
        assert touched(lambda m: above(values, m, -1.0), lambda m: below(values, m, 1.0), found, confidence)


@unhurried
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.floats(0.51, 0.999))
def test_at_a_bound_of_a_ratio_it_was_so_too(pairs: list[tuple[bool, bool]], confidence: float) -> None:
    def up(ratio: float) -> float:
        return capital(lambda share: [1 + share / ratio * (a - ratio * b) for a, b in pairs])

    def down(ratio: float) -> float:
        return capital(lambda share: [1 - share * (a - ratio * b) for a, b in pairs])

    found = ratio_bounds([a for a, _ in pairs], [b for _, b in pairs], confidence)
    assert 0 <= found.lower <= found.upper
    if found.lower > 0 and found.upper < math.inf:
        assert touched(up, down, found, confidence)


@pytest.mark.parametrize("n", [1, 7, 50])
def test_without_a_failure_the_bound_is_where_the_mixture_of_powers_reaches_it(n: int) -> None:
    lower, upper = mean_bounds([1] * n, 0.95)
    assert upper == 1
    assert np.mean([(1 - c + c / lower) ** n for c in np.arange(1, 26) / 26]) == pytest.approx(20)


def test_no_examples_say_nothing() -> None:
    assert mean_bounds([], 0.95) == (0, 1)
    assert mean_bounds([], 0.95, -1, 1) == (-1, 1)
    assert ratio_bounds([], [], 0.95) == (0, math.inf)


@pytest.mark.parametrize("seed", range(8))
def test_further_examples_never_take_back_what_was_excluded_nor_does_less_confidence(seed: int) -> None:
    generator = np.random.default_rng(seed)
    hits = generator.random(150) < generator.random()
    early, late, bold = mean_bounds(hits[:70], 0.95), mean_bounds(hits, 0.95), mean_bounds(hits, 0.9)
    assert early.lower <= late.lower <= bold.lower < bold.upper <= late.upper <= early.upper


def test_a_drift_that_excludes_everything_decides_nothing_in_between() -> None:
    drifted = [1] * 200 + [0] * 200
    lower, upper = mean_bounds(drifted, 0.95)
    assert lower < 0.7 < 0.9 < upper


@pytest.mark.parametrize("size", [1.5, 2.0, 8.0])
def test_more_examples_at_the_same_rates_narrow_the_bounds_and_not_more_than_such_examples_would(size: float) -> None:
    hits = np.random.default_rng(3).random(200) < 0.8
    now, more = mean_bounds(hits, 0.95), mean_bounds(hits, 0.95, scale=size)
    assert now.lower <= more.lower <= more.upper <= now.upper
    assert more.upper - more.lower < now.upper - now.lower
    if size == int(size):
        repeated = mean_bounds(np.tile(hits, int(size)), 0.95)
        assert repeated.lower >= more.lower - 1e-9
        assert repeated.upper <= more.upper + 1e-9


def test_the_gates_p_value_is_the_inverse_of_the_capital() -> None:
    hits = (np.random.default_rng(2).random(80) < 0.45).astype(int).tolist()
    estimate = Sequential(np.arange(80), np.array(hits, dtype=bool))
    assert p_beyond(estimate.bounds, 0.6, "below") == pytest.approx(1 / below(hits, 0.6, 1.0), abs=2e-6)
    assert p_beyond(estimate.bounds, 0.35, "above") == pytest.approx(min(1, 1 / above(hits, 0.35, 0.0)), abs=2e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mean_bounds([[1.0]], 0.95), "shape"),
        (lambda: mean_bounds([1.5], 0.95), "must be in"),
        (lambda: mean_bounds([float("nan")], 0.95), "must be in"),
        (lambda: mean_bounds([1.0], 0.5), "confidence"),
        (lambda: mean_bounds([1.0], 0.95, 1.0, 1.0), "low must be under high"),
        (lambda: mean_bounds([1.0], 0.95, scale=0.5), "scale"),
        (lambda: ratio_bounds([1.0], [], 0.95), "no pairs"),
    ],
)
def test_what_cannot_be_bounded_is_refused(call: Callable[[], Bounds], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


# The price


def stopping_time(draws: NDArray[Any], limit: float, passes: bool) -> int:
    """The first number of examples that shows the drop to be inside, or beyond; they never take it back."""

    def shown(n: int) -> bool:
        lower, upper = mean_bounds(draws[:n], 0.95, -1, 1)
        return upper < limit if passes else lower > limit

    low, high = 0, len(draws)
    if not shown(high):
        return len(draws) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("discordance", "drop", "limit", "expected"),
    [(0.05, 0.0, 0.05, 150), (0.10, 0.0, 0.05, 236), (0.10, 0.10, 0.05, 164)],
)
def test_gates_are_decided_after_about_as_many_examples_as_were_measured_before(
    discordance: float, drop: float, limit: float, expected: int
) -> None:
    # Medians of 1 000 samples of an independent program; here of 40, hence the tolerance.
    generator = np.random.default_rng(11)
    rates = [(discordance - drop) / 2, 1 - discordance, (discordance + drop) / 2]
    times = [stopping_time(generator.choice([-1, 0, 1], p=rates, size=2000), limit, drop < limit) for _ in range(40)]
    assert np.median(times) == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize(("discordance", "n"), [(0.05, 1000), (0.2, 1000), (0.1, 300)])
def test_looking_any_time_costs_less_than_twice_tangos_width(discordance: float, n: int) -> None:
    generator = np.random.default_rng(4)
    ratios = []
    for _ in range(10):
        draws = generator.choice([-1, 0, 1], p=[discordance / 2, 1 - discordance, discordance / 2], size=n)
        fixed = tango_bounds(int((draws > 0).sum()), int((draws < 0).sum()), n, 0.95)
        betting = mean_bounds(draws, 0.95, -1, 1)
        ratios.append((betting.upper - betting.lower) / (fixed.upper - fixed.lower))
    assert 1 < np.median(ratios) < 2


# As estimates


def drawn(hits: NDArray[np.bool_], rows: NDArray[np.int64] | None = None) -> Sequential:
    return Sequential(np.arange(len(hits)) if rows is None else rows, hits)


def two(n: int = 120) -> tuple[Sequential, Sequential]:
    """Variant and comparator on the same examples in the same random order."""
    generator = np.random.default_rng(8)
    rows = generator.permutation(n)
    before = generator.random(n) < 0.8
    return drawn(before & (generator.random(n) < 0.9), rows), drawn(before, rows)


@pytest.mark.parametrize(("key", "sign"), [("max_drop", 1), ("max_rise", -1)])
def test_sequential_shares_of_the_same_examples_change_example_by_example(key: Change, sign: int) -> None:
    variant, comparator = two()
    found = change(variant, comparator, key, 120)
    assert isinstance(found, SequentialDifference)
    assert found.value == pytest.approx(sign * (comparator.hits.mean() - variant.hits.mean()))
    drops = sign * (comparator.hits.astype(int) - variant.hits.astype(int))
    assert found.bounds(0.95) == pytest.approx(mean_bounds(drops, 0.95, -1, 1))


def test_a_ratio_of_sequential_shares_is_one_of_pairs() -> None:
    variant, comparator = two()
    found = change(variant, comparator, "max_ratio", 120)
    assert isinstance(found, SequentialRatio)
    assert found.value == pytest.approx(variant.hits.sum() / comparator.hits.sum())
    assert found.bounds(0.95) == pytest.approx(ratio_bounds(variant.hits, comparator.hits, 0.95))


@pytest.mark.parametrize("key", ["max_drop", "max_ratio"])
def test_who_stopped_earlier_is_compared_on_the_examples_that_both_have(key: Change) -> None:
    variant, comparator = two()
    stopped = Sequential(variant.rows[:50], variant.hits[:50])
    same = Sequential(comparator.rows[:50], comparator.hits[:50])
    for pair in ((stopped, comparator), (variant, same)):
        found = change(*pair, key, 120)
        assert isinstance(found, SequentialDifference | SequentialRatio)
        assert found.n == 50
        assert found.bounds(0.95) == change(stopped, same, key, 120).bounds(0.95)


@pytest.mark.parametrize("key", ["max_drop", "max_rise", "max_ratio"])
def test_samples_that_do_not_belong_together_are_not_compared(key: Change) -> None:
    variant, comparator = two()
    shuffled = Sequential(comparator.rows[::-1], comparator.hits[::-1])
    fixed = Proportion(np.sort(comparator.rows), comparator.hits)
    for other in (shuffled, fixed):
        with pytest.raises(MeasurementError, match="same order"):
            change(variant, other, key, 120)
        with pytest.raises(MeasurementError, match="same order"):
            change(other, variant, key, 120)


def estimates() -> list[Estimate]:
    variant, comparator = two()
    return [variant, *(change(variant, comparator, key, 120) for key in ("max_drop", "max_ratio"))]


@pytest.mark.parametrize("place", range(3))
def test_a_sequential_estimate_offers_what_every_estimate_does(place: int) -> None:
    estimate = estimates()[place]
    ones = np.ones((3, 120), dtype=np.int64)
    assert not isinstance(estimate, Statistic)
    assert estimate.replicates(ones) == pytest.approx([estimate.value] * 3)  # type: ignore[union-attr]
    assert sorted(about(estimate)) == list(range(120))
    assert seeded(estimate, (1,), 500) is estimate
    assert "betting" in estimate.method
    lower, upper = estimate.bounds(0.95)
    wide = estimate.bounds(0.99)
    assert wide.lower <= lower <= estimate.value <= upper <= wide.upper


def test_reported_bounds_hold_the_value_even_where_it_was_excluded_on_the_way() -> None:
    hits = np.array([True] * 60 + [False] * 14)
    assert mean_bounds(hits, 0.7).lower > hits.mean()
    assert drawn(hits).bounds(0.7).lower == pytest.approx(hits.mean())


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.95, Verdict.PASS), (0.2, Verdict.FAIL), (0.62, Verdict.INCONCLUSIVE)]
)
def test_a_gate_judges_it_as_any_other_and_says_how_many_more_would_decide(share: float, verdict: Verdict) -> None:
    hits = np.zeros(100, dtype=bool)
    hits[np.random.default_rng(1).permutation(100)[: int(100 * share)]] = True
    row = gates.from_test("robust_accuracy", "p@0.5", True, "min", 0.6, drawn(hits), 100, 0.95)
    assert row.verdict is verdict
    if verdict is Verdict.INCONCLUSIVE:
        assert row.needed is not None
        assert row.needed > 100
    assert row.n == 100
