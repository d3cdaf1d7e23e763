"""Bounds and tests against closed forms, published tables, reference libraries and brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats  # type: ignore[import-untyped]
from statsmodels.stats.contingency_tables import mcnemar  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]
from statsmodels.stats.proportion import (  # type: ignore[import-untyped]
    confint_proportions_2indep,
    proportion_confint,
)

from pruneproof import statistics
from pruneproof.statistics import (
    Bounds,
    binomial_bounds,
    bootstrap_weights,
    examples_needed,
    floor_bounds,
    holm,
    mover_bounds,
    p_beyond,
    percentile_bounds,
    tango_bounds,
    tango_z,
)

Z95 = 1.6448536269514722
"""The 95 % quantile of the normal distribution, from a printed table."""

confidences = st.floats(0.51, 0.9999)

unhurried = settings(deadline=None)
"""A shared machine may pause in the middle of an example."""


@st.composite
def proportions(draw: st.DrawFn) -> tuple[int, int]:
    """Successes and their n."""
    n = draw(st.integers(1, 2000))
    return draw(st.integers(0, n)), n


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, int, int]:
    """Lost, gained, and their n."""
    n = draw(st.integers(1, 2000))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


def all_pairs(n: int) -> list[tuple[int, int]]:
    return [(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)]


# Clopper-Pearson


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 20), (81, 263), (9990, 10_000)])
def test_binomial_bounds_are_those_of_statsmodels_and_scipy(successes: int, n: int, confidence: float) -> None:
    bounds = binomial_bounds(successes, n, confidence)
    two_sided = 2 * confidence - 1
    assert bounds == pytest.approx(proportion_confint(successes, n, 1 - two_sided, method="beta"), abs=1e-12)
    exact = stats.binomtest(successes, n).proportion_ci(two_sided, method="exact")
    assert bounds == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_binomial_bounds_leave_the_tail_probability_at_the_bound_itself() -> None:
    lower, upper = binomial_bounds(7, 40, 0.95)
    assert stats.binom.sf(6, 40, lower) == pytest.approx(0.05)
    assert stats.binom.cdf(7, 40, upper) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("n", "errors", "confidence"),
    # The last three: early stopping in the load generator of MLPerf, 99th percentile.
    [(299, 0, 0.95), (473, 1, 0.95), (459, 0, 0.99), (662, 1, 0.99), (2010, 10, 0.99)],
)
def test_the_published_number_of_examples_is_the_first_to_show_an_error_rate_of_one_percent(
    n: int, errors: int, confidence: float
) -> None:
    assert binomial_bounds(errors, n, confidence).upper <= 0.01
    assert binomial_bounds(errors, n - 1, confidence).upper > 0.01


@unhurried
@given(proportions(), confidences)
def test_binomial_bounds_contain_the_estimate_and_stay_in_range(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    lower, upper = binomial_bounds(successes, n, confidence)
    assert 0 <= lower <= successes / n <= upper <= 1


@unhurried
@given(proportions(), confidences, confidences)
def test_binomial_bounds_widen_with_confidence(counts: tuple[int, int], one: float, other: float) -> None:
    narrow, wide = (binomial_bounds(*counts, confidence) for confidence in sorted((one, other)))
    assert wide.lower <= narrow.lower
    assert narrow.upper <= wide.upper


@unhurried
@given(proportions(), confidences)
def test_binomial_bounds_of_failures_mirror_those_of_successes(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    lower, upper = binomial_bounds(successes, n, confidence)
    assert binomial_bounds(n - successes, n, confidence) == pytest.approx((1 - upper, 1 - lower), abs=1e-9)


def test_fractions_of_counts_give_bounds_between_those_of_whole_counts() -> None:
    uppers = [binomial_bounds(successes, 50, 0.95).upper for successes in (2, 2.5, 3)]
    assert uppers == sorted(uppers)
    assert len(set(uppers)) == 3


# Tango


@pytest.mark.parametrize(
    ("lost", "gained", "n", "published"),
    [
        # Airway hyper-responsiveness (Bentur 2009), in Fagerland et al. (2014), Stat. Med. 33:2850.
        (1, 7, 21, (-0.517, -0.026)),
        # Complete response (Cavo 2012), in the tests of the R package contingencytables.
        (6, 16, 161, (-0.1240, -0.0054)),
    ],
)
def test_tango_bounds_are_the_published_two_sided_95_percent_intervals(
    lost: int, gained: int, n: int, published: tuple[float, float]
) -> None:
    decimals = 3 if n == 21 else 4
    bounds = tango_bounds(lost, gained, n, 0.975)
    assert tuple(round(end, decimals) for end in bounds) == published


def non_iterative_tango(lost: int, gained: int, n: int, confidence: float) -> tuple[float, float]:
    """Outermost roots of the quartic of Yang, Sun & Hardin (2013), Stat. Med. 32:1336-1342."""
    g = stats.norm.ppf(confidence) ** 2
    d, s, r = lost - gained, lost + gained, n / g
    quartic = [
        n**2 * (r + 1) ** 2,
        -n * d * (r + 1) * (4 * r + 1),
        2 * r * d**2 * (3 * r + 2) - n**2 * (s / g + 1),
        n * d * (2 * s / g + 1) - d**3 * (4 * r + 1) / g,
        d**2 * (d**2 / g - s) / g,
    ]
    roots = np.roots(quartic)
    real = roots.real[np.abs(roots.imag) < 1e-6]
    return float(real.min()), float(real.max())


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975])
def test_tango_bounds_are_roots_of_the_published_quartic(confidence: float) -> None:
    n = 13
    for lost, gained in all_pairs(n):
        if lost == gained == 0 or lost == n or gained == n:
            continue
        expected = non_iterative_tango(lost, gained, n, confidence)
        assert tango_bounds(lost, gained, n, confidence) == pytest.approx(expected, abs=1e-6), (lost, gained)


def z_by_maximising_the_likelihood(lost: int, gained: int, n: int, delta: float) -> float:
    """The score statistic with P(gained) = q found numerically, P(lost) = q + delta."""

    def minus_log_likelihood(q: float) -> float:
        cells = ((lost, q + delta), (gained, q), (n - lost - gained, 1 - 2 * q - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    q = optimize.minimize_scalar(
        minus_log_likelihood,
        bounds=(max(0, -delta), (1 - delta) / 2),
        method="bounded",
        options={"xatol": 1e-11},
    ).x
    return float((lost - gained - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta))))


@pytest.mark.parametrize("n", [1, 4, 9])
@pytest.mark.parametrize("delta", [-0.9, -0.4, -0.03, 0.05, 0.5, 0.8])
def test_tango_z_uses_the_maximum_of_the_constrained_likelihood(n: int, delta: float) -> None:
    for lost, gained in all_pairs(n):
        expected = z_by_maximising_the_likelihood(lost, gained, n, delta)
        assert tango_z(lost, gained, n, delta) == pytest.approx(expected, abs=1e-5), (lost, gained)


@pytest.mark.parametrize(("lost", "gained", "n"), [(14, 4, 60), (6, 16, 161), (1, 7, 21), (0, 3, 3)])
def test_tango_z_at_zero_is_the_z_of_mcnemar(lost: int, gained: int, n: int) -> None:
    result: Any = mcnemar([[n - lost - gained, lost], [gained, 0]], exact=False, correction=False)
    z = tango_z(lost, gained, n, 0.0)
    assert z**2 == pytest.approx(result.statistic)
    assert (z > 0) == (lost > gained)


def test_tango_z_at_a_variance_of_zero_is_zero_or_infinite() -> None:
    assert tango_z(0, 0, 10, 0.0) == 0
    assert tango_z(10, 0, 10, 1.0) == 0
    assert tango_z(9, 1, 10, 1.0) == -math.inf
    assert tango_z(9, 1, 10, -1.0) == math.inf


@pytest.mark.parametrize(("margin", "n"), [(0.01, 268), (0.02, 133), (0.05, 52)])
def test_without_any_difference_a_small_sample_does_not_show_that_the_drop_is_below_the_margin(
    margin: float, n: int
) -> None:
    # n = z^2 (1 / margin - 1), rounded up.
    assert n == math.ceil(Z95**2 * (1 / margin - 1))
    assert tango_bounds(0, 0, n, 0.95).upper < margin
    assert tango_bounds(0, 0, n - 1, 0.95).upper > margin


@pytest.mark.parametrize("n", [1, 2, 30])
def test_tango_bounds_have_their_closed_forms_at_the_corners(n: int) -> None:
    width = Z95**2 / (n + Z95**2)
    assert tango_bounds(0, 0, n, 0.95) == pytest.approx((-width, width))
    assert tango_bounds(n, 0, n, 0.95) == pytest.approx((1 - 2 * width, 1))
    assert tango_bounds(0, n, n, 0.95) == pytest.approx((-1, 2 * width - 1))


@pytest.mark.parametrize(
    ("corner", "nearby"),
    [((0, 0), (1e-9, 0)), ((0, 0), (1e-9, 1e-9)), ((30, 0), (30 - 1e-9, 0)), ((0, 30), (1e-9, 30 - 1e-9))],
)
def test_tango_bounds_approach_their_corners_without_a_jump(
    corner: tuple[float, float], nearby: tuple[float, float]
) -> None:
    assert tango_bounds(*nearby, 30, 0.95) == pytest.approx(tango_bounds(*corner, 30, 0.95), abs=1e-4)


@unhurried
@given(pairs(), confidences)
def test_the_score_at_each_tango_bound_is_the_normal_quantile(counts: tuple[int, int, int], confidence: float) -> None:
    lower, upper = tango_bounds(*counts, confidence)
    z = stats.norm.ppf(confidence)
    # The variance vanishes at +-1 and at 0 of a table without differences, and with it the digits of z.
    if lower > -1 + 1e-6:
        assert tango_z(*counts, lower) == pytest.approx(z, abs=1e-4)
    if upper < 1 - 1e-6:
        assert tango_z(*counts, upper) == pytest.approx(-z, abs=1e-4)


@unhurried
@given(pairs(), confidences)
@example((0, 0, 1), 0.95)
@example((1, 0, 1), 0.95)
def test_tango_bounds_contain_the_estimate_and_stay_in_range(counts: tuple[int, int, int], confidence: float) -> None:
    lost, gained, n = counts
    lower, upper = tango_bounds(lost, gained, n, confidence)
    assert -1 <= lower <= (lost - gained) / n <= upper <= 1


@unhurried
@given(pairs(), confidences)
def test_tango_bounds_of_gains_are_those_of_losses_with_the_sign_turned(
    counts: tuple[int, int, int], confidence: float
) -> None:
    lost, gained, n = counts
    lower, upper = tango_bounds(lost, gained, n, confidence)
    assert tango_bounds(gained, lost, n, confidence) == (-upper, -lower)


@unhurried
@given(pairs(), confidences, confidences)
def test_tango_bounds_widen_with_confidence(counts: tuple[int, int, int], one: float, other: float) -> None:
    narrow, wide = (tango_bounds(*counts, confidence) for confidence in sorted((one, other)))
    assert wide.lower <= narrow.lower + 1e-12
    assert narrow.upper <= wide.upper + 1e-12


@unhurried
@given(pairs(), st.floats(-1, 1), st.floats(-1, 1))
def test_tango_z_falls_as_the_assumed_drop_rises(counts: tuple[int, int, int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assume(high - low > 1e-6)
    assert tango_z(*counts, high) <= tango_z(*counts, low)


@unhurried
@given(pairs(), st.floats(1, 1e4))
def test_tango_bounds_accept_every_table_scaled_by_a_fraction(counts: tuple[int, int, int], scale: float) -> None:
    lost, gained, n = counts
    lower, upper = tango_bounds(lost * scale, gained * scale, n * scale, 0.95)
    assert -1 <= lower <= upper <= 1


def test_the_rounding_of_scaled_counts_is_not_an_error() -> None:
    assert 1.1 + 2.2 > 3.3
    assert tango_bounds(1.1, 2.2, 3.3, 0.95) == pytest.approx(tango_bounds(1.1, 2.2, 1.1 + 2.2, 0.95))
    assert 3 * 1.1 > 3.3
    assert tango_bounds(3 * 1.1, 0, 3.3, 0.95).upper == 1
    assert tango_bounds(0, 3 * 1.1, 3.3, 0.95).lower == -1


@cache
def tables(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every (lost, gained) of n examples, and the upper bound at 0.95 of each."""
    counts = np.array(all_pairs(n))
    return counts, np.array([tango_bounds(lost, gained, n, 0.95).upper for lost, gained in counts.tolist()])


@pytest.mark.parametrize("n", [60, 100])
@pytest.mark.parametrize(("margin", "p_gained"), [(0.05, 0.0), (0.05, 0.02), (0.05, 0.1), (0.1, 0.0), (0.1, 0.2)])
def test_a_drop_as_large_as_the_margin_passes_in_at_most_six_percent_of_all_samples(
    n: int, margin: float, p_gained: float
) -> None:
    """Exact: the sum over every table of its probability. Nominal is 5 %, Tango's test is asymptotic."""
    counts, uppers = tables(n)
    cells = np.column_stack([counts, n - counts.sum(1)])
    probability = stats.multinomial.pmf(cells, n, [p_gained + margin, p_gained, 1 - 2 * p_gained - margin])
    assert probability.sum() == pytest.approx(1)
    by_bound = probability[uppers < margin].sum()
    by_estimate = probability[counts[:, 0] - counts[:, 1] <= margin * n + 1e-9].sum()
    assert by_bound <= 0.06
    assert by_estimate >= 0.5


# Linear combinations


def wilson(successes: int, n: int) -> tuple[float, Bounds]:
    return successes / n, Bounds(*proportion_confint(successes, n, alpha=0.05, method="wilson"))


def test_mover_bounds_of_a_difference_are_newcombes_published_interval() -> None:
    # Newcombe (1998), Stat. Med. 17:873-890, table II, method 10: 56/70 - 48/80.
    bounds = mover_bounds([(1.0, *wilson(56, 70)), (-1.0, *wilson(48, 80))])
    assert tuple(round(end, 4) for end in bounds) == (0.0524, 0.3339)


@pytest.mark.parametrize(("one", "other"), [((9, 10), (3, 10)), ((0, 10), (0, 20)), ((5, 56), (0, 29))])
def test_mover_bounds_of_a_difference_are_those_of_statsmodels(one: tuple[int, int], other: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*one, *other, method="newcomb", compare="diff", alpha=0.05)
    assert mover_bounds([(1.0, *wilson(*one)), (-1.0, *wilson(*other))]) == pytest.approx(expected, abs=1e-9)


def test_mover_bounds_of_symmetric_intervals_add_their_widths_in_quadrature() -> None:
    bounds = mover_bounds(
        [(2.0, 1.0, Bounds(0.5, 1.5)), (-1.0, 3.0, Bounds(1.0, 5.0)), (0.0, 9.0, Bounds(0.0, math.inf))]
    )
    assert bounds == pytest.approx((-1 - math.sqrt(5), -1 + math.sqrt(5)))


@pytest.mark.parametrize(("p_one", "p_other"), [(0.5, 0.5), (0.8, 0.6), (0.95, 0.9), (0.1, 0.9)])
def test_each_mover_bound_of_a_difference_covers_it_in_95_percent_of_all_samples(p_one: float, p_other: float) -> None:
    """Exact: the sum over every pair of samples. Clopper-Pearson parts err on the wide side."""
    n_one, n_other = 20, 30
    ones = [(k / n_one, binomial_bounds(k, n_one, 0.95)) for k in range(n_one + 1)]
    others = [(k / n_other, binomial_bounds(k, n_other, 0.95)) for k in range(n_other + 1)]
    pmf_one = stats.binom.pmf(range(n_one + 1), n_one, p_one)
    pmf_other = stats.binom.pmf(range(n_other + 1), n_other, p_other)
    below = above = 0.0
    for (k, one), (m, other) in itertools.product(enumerate(ones), enumerate(others)):
        probability = pmf_one[k] * pmf_other[m]
        lower, upper = mover_bounds([(1.0, *one), (-1.0, *other)])
        below += probability * (lower <= p_one - p_other)
        above += probability * (p_one - p_other <= upper)
    assert 0.95 <= below < 1
    assert 0.95 <= above < 1


def test_mover_bounds_are_infinite_where_a_part_has_no_bound() -> None:
    bounds = mover_bounds([(-1.0, 0.5, Bounds(0.25, math.inf)), (1.0, 0.0, Bounds(0.0, 0.0))])
    assert bounds == (-math.inf, -0.25)


# Bootstrap


def test_bootstrap_weights_are_how_often_each_example_is_drawn() -> None:
    weights = np.concatenate(list(bootstrap_weights(7, 5000, np.random.default_rng(1))))
    assert weights.shape == (5000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.min() >= 0
    # Moments of the multinomial: mean 1, variance 1 - 1/n, covariance -1/n.
    covariance = np.cov(weights, rowvar=False)
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert covariance == pytest.approx(np.eye(7) - 1 / 7, abs=0.08)


def test_bootstrap_weights_depend_on_the_seed_and_not_on_the_block_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = np.concatenate(list(bootstrap_weights(9, 50, np.random.default_rng(3))))
    monkeypatch.setattr(statistics, "MOST_WEIGHTS", 9 * 7 + 1)
    blocks = list(bootstrap_weights(9, 50, np.random.default_rng(3)))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    assert (np.concatenate(blocks) == whole).all()
    assert (np.concatenate(list(bootstrap_weights(9, 50, np.random.default_rng(4)))) != whole).any()


def test_a_block_of_bootstrap_weights_is_bounded_in_memory() -> None:
    assert next(bootstrap_weights(1000, 10**9, np.random.default_rng(0))).nbytes <= 32e6
    assert next(bootstrap_weights(5_000_000, 10**9, np.random.default_rng(0))).shape == (1, 5_000_000)


def test_percentile_bounds_of_a_mean_are_near_its_t_interval() -> None:
    generator = np.random.default_rng(11)
    values = generator.normal(3.0, 2.0, size=200)
    replicates = np.concatenate([weights @ values / 200 for weights in bootstrap_weights(200, 20_000, generator)])
    bounds = percentile_bounds(replicates, 0.95)
    expected = stats.t.interval(0.9, df=199, loc=values.mean(), scale=stats.sem(values))
    assert bounds == pytest.approx(expected, abs=0.05 * stats.sem(values))


def test_percentile_bounds_are_the_ordered_replicates_at_alpha_of_b_plus_one() -> None:
    replicates = np.random.default_rng(0).permutation(np.arange(1, 1000))
    assert percentile_bounds(replicates, 0.95) == pytest.approx((50, 950))
    assert percentile_bounds(replicates, 0.99) == pytest.approx((10, 990))


def test_there_are_no_percentile_bounds_beyond_the_outermost_replicate() -> None:
    assert percentile_bounds(np.arange(1, 20), 0.95) == pytest.approx((1, 19))
    assert percentile_bounds(np.arange(1, 19), 0.95) == (-math.inf, math.inf)
    assert percentile_bounds(np.arange(1, 20), 0.96) == (-math.inf, math.inf)


def test_percentile_bounds_drop_undefined_replicates_only_below_one_percent() -> None:
    replicates = np.arange(1.0, 1001.0)
    replicates[-1] = math.nan
    assert percentile_bounds(replicates, 0.95) == pytest.approx((50, 950))
    replicates[-10:] = math.nan
    with pytest.raises(ValueError, match="10 of 1000 replicates are undefined"):
        percentile_bounds(replicates, 0.95)


# Floor


def test_an_interval_of_width_zero_is_widened_to_what_the_examples_can_show() -> None:
    assert floor_bounds(Bounds(0.0, 0.0), 0.0, 52, 0.95) == pytest.approx(tango_bounds(0, 0, 52, 0.95))
    upper_of_wilson = proportion_confint(0, 52, alpha=0.1, method="wilson")[1]
    assert floor_bounds(Bounds(0.0, 0.0), 0.0, 52, 0.95).upper == pytest.approx(upper_of_wilson)


def test_a_side_that_is_wide_enough_is_left_as_it_is() -> None:
    least = Z95**2 / (100 + Z95**2)
    assert floor_bounds(Bounds(0.2, 0.51), 0.5, 100, 0.95) == pytest.approx((0.2, 0.5 + least))
    assert floor_bounds(Bounds(0.49, 0.9), 0.5, 100, 0.95) == pytest.approx((0.5 - least, 0.9))
    assert floor_bounds(Bounds(0.49, 0.9), 0.5, 100, 0.95, scale=0.0) == (0.49, 0.9)


def test_floored_bounds_scale_with_the_range_and_contain_the_value() -> None:
    least = Z95**2 / (100 + Z95**2)
    assert floor_bounds(Bounds(7.0, 8.0), 6.0, 100, 0.95, scale=10) == pytest.approx((6 - 10 * least, 8.0))


# Multiplicity


def test_holm_stops_at_the_first_p_value_that_is_too_large() -> None:
    # Ascending: .005 <= .05/4, .01 <= .05/3, .03 > .05/2, so .04 stays too, although .04 <= .05.
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.1]))
@settings(max_examples=60, deadline=None)
def test_holm_is_that_of_statsmodels(p_values: list[float], alpha: float) -> None:
    assert holm(p_values, alpha) == multipletests(p_values, alpha=alpha, method="holm")[0].tolist()


def test_holm_is_bonferroni_for_the_smallest_and_plain_for_the_largest() -> None:
    assert holm([0.024, 0.049], 0.05) == [True, True]
    assert holm([0.026, 0.026], 0.05) == [False, False]
    assert holm([0.05], 0.05) == [True]
    assert holm([], 0.05) == []


# P-values from bounds


@pytest.mark.parametrize(
    ("successes", "n", "limit"),
    [(18, 20, 0.6), (60, 100, 0.5), (52, 100, 0.5), (299, 300, 0.98), (20, 20, 0.8)],
)
def test_the_p_value_above_a_limit_is_that_of_the_exact_binomial_test(successes: int, n: int, limit: float) -> None:
    p_value = p_beyond(lambda confidence: binomial_bounds(successes, n, confidence), limit, "above")
    expected = stats.binomtest(successes, n, limit, alternative="greater").pvalue
    assert expected - 1e-9 <= p_value <= expected + 2e-6


@pytest.mark.parametrize(("lost", "gained", "n", "limit"), [(3, 2, 200, 0.03), (0, 0, 150, 0.02), (10, 4, 60, 0.2)])
def test_the_p_value_below_a_limit_is_that_of_tangos_score(lost: int, gained: int, n: int, limit: float) -> None:
    p_value = p_beyond(lambda confidence: tango_bounds(lost, gained, n, confidence), limit, "below")
    expected = stats.norm.cdf(tango_z(lost, gained, n, limit))
    assert expected - 1e-9 <= p_value <= expected + 2e-6


def test_the_p_value_is_one_on_the_wrong_side_of_the_limit() -> None:
    bounds_at = bounds_of(30, 100)
    assert p_beyond(bounds_at, 0.3, "above") == 1
    assert p_beyond(bounds_at, 0.3, "below") == 1
    assert p_beyond(bounds_at, 0.5, "above") == 1
    assert p_beyond(bounds_at, 0.1, "below") == 1


def test_the_p_value_is_never_below_the_resolution() -> None:
    assert p_beyond(bounds_of(100, 100), 0.1, "above") == 1e-6
    assert p_beyond(bounds_of(100, 100), 0.1, "above", resolution=1e-3) == 1e-3


def test_the_p_value_of_a_bootstrap_is_not_below_what_its_replicates_can_show() -> None:
    p_value = p_beyond(lambda confidence: percentile_bounds(np.linspace(1, 2, 999), confidence), 0.5, "above")
    assert p_value == pytest.approx(1 / 1000, abs=2e-6)


@unhurried
@given(proportions(), st.floats(0.01, 0.99), st.floats(1e-4, 0.4))
def test_the_p_value_is_at_most_alpha_where_the_bounds_at_alpha_show_it(
    counts: tuple[int, int], limit: float, alpha: float
) -> None:
    bounds_at = bounds_of(*counts)
    p_value = p_beyond(bounds_at, limit, "above")
    assume(abs(p_value - alpha) > 1e-5)
    assert (p_value <= alpha) == (bounds_at(1 - alpha).lower > limit)


def bounds_of(successes: int, n: int) -> Callable[[float], Bounds]:
    return lambda confidence: binomial_bounds(successes, n, confidence)


# Examples needed


def test_the_examples_needed_without_a_difference_follow_the_closed_form() -> None:
    needed = examples_needed(lambda scale: tango_bounds(0, 0, 40 * scale, 0.95).upper < 0.02, 40)
    assert needed == 133


def test_the_examples_needed_are_the_first_total_that_decides() -> None:
    def decides_at(scale: float) -> bool:
        return binomial_bounds(3 * scale, 50 * scale, 0.95).upper < 0.1

    needed = examples_needed(decides_at, 50)
    assert needed is not None
    by_counting = next(total for total in range(50, 10_000) if decides_at(total / 50))
    assert needed == by_counting > 50


@pytest.mark.parametrize("first", range(7, 60))
def test_the_examples_needed_are_exact_for_any_total(first: int) -> None:
    assert examples_needed(lambda scale: scale >= first / 7, 7) == first


def test_no_more_examples_are_needed_where_those_at_hand_decide() -> None:
    assert examples_needed(lambda scale: True, 37) == 37


def test_there_is_no_number_of_examples_where_the_estimate_is_on_the_limit() -> None:
    scales = []

    def decides_at(scale: float) -> bool:
        scales.append(scale)
        return tango_bounds(2 * scale, 0, 40 * scale, 0.95).upper < 0.05

    assert examples_needed(decides_at, 40, most=100) is None
    assert max(scales) == 100
    assert examples_needed(lambda scale: scale >= 99.99, 40, most=100) == 4000


# Errors


@pytest.mark.parametrize("confidence", [0.5, 1.0, 0.05, 95.0, math.nan])
def test_a_confidence_outside_its_range_is_refused(confidence: float) -> None:
    calls: list[Callable[[], Bounds]] = [
        lambda: binomial_bounds(1, 2, confidence),
        lambda: tango_bounds(0, 0, 2, confidence),
        lambda: percentile_bounds([1.0, 2.0], confidence),
        lambda: floor_bounds(Bounds(0, 0), 0, 2, confidence),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="confidence must be"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: binomial_bounds(0, 0, 0.95),
        lambda: binomial_bounds(0, math.nan, 0.95),
        lambda: binomial_bounds(3, 2, 0.95),
        lambda: binomial_bounds(-1, 2, 0.95),
        lambda: tango_bounds(0, 0, 0, 0.95),
        lambda: tango_bounds(2, 1, 2, 0.95),
        lambda: tango_bounds(-1, 0, 2, 0.95),
        lambda: tango_z(0, math.nan, 2, 0.0),
        lambda: tango_z(0, 0, 2, 1.5),
        lambda: mover_bounds([]),
        lambda: mover_bounds([(1.0, 0.5, Bounds(0.6, 0.7))]),
        lambda: mover_bounds([(1.0, 0.5, Bounds(math.nan, 0.7))]),
        lambda: mover_bounds([(math.nan, 0.5, Bounds(0.4, 0.7))]),
        lambda: bootstrap_weights(0, 10, np.random.default_rng(0)),
        lambda: bootstrap_weights(10, 0, np.random.default_rng(0)),
        lambda: percentile_bounds([], 0.95),
        lambda: percentile_bounds([[1.0]], 0.95),
        lambda: percentile_bounds([math.inf, 1.0], 0.95),
        lambda: floor_bounds(Bounds(0, 0), math.nan, 10, 0.95),
        lambda: floor_bounds(Bounds(0, math.nan), 0, 10, 0.95),
        lambda: floor_bounds(Bounds(0, 0), 0, 0, 0.95),
        lambda: floor_bounds(Bounds(0, 0), 0, 10, 0.95, scale=-1),
        lambda: holm([0.5, 1.5], 0.05),
        lambda: holm([math.nan], 0.05),
        lambda: holm([0.5], 0.0),
        lambda: p_beyond(bounds_of(1, 2), 0.5, "over"),  # type: ignore[arg-type]
        lambda: p_beyond(bounds_of(1, 2), 0.5, "above", resolution=0.0),
        lambda: examples_needed(lambda scale: True, 0),
        lambda: examples_needed(lambda scale: True, 10, most=0.5),
    ],
)
def test_what_cannot_be_computed_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()
